"""The bands that the assets of a STAC item hold, and what the item says of each (STAC 0.7 to 1.1)."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clay_publish.producer.sources.watched import derive

_NOT_IMAGES = {"thumbnail", "overview", "visual", "metadata", "graphic", "tiles", "date", "browse"}
"""Roles of assets that hold no measurements."""
_PICTURES = re.compile(r"^(visual|overview|preview|thumbnail|rendered[_-]preview|tci|true[_-]?color)")
_PICTURE_TITLE = re.compile(r"true[ -]?colou?r|natural[ -]?colou?r|visual image|\bRGB preview", re.IGNORECASE)
_OTHER_TYPES = re.compile(r"json|html|xml|text/|pdf|jpeg|png|hdf|netcdf|zip|gpkg|geopackage|parquet|vrt|zarr")
_METERS = re.compile(r"(?:^|[_ -])(\d{1,3}(?:\.\d+)?) ?m(?:$|[^A-Za-z])", re.IGNORECASE)
_COUNT = re.compile(r"(\d{1,2})[- ]?bands?\b", re.IGNORECASE)
_KEY_COUNT = re.compile(r"(?:^|_)(\d{1,2})b(?:_|$)", re.IGNORECASE)
_PRODUCT_PREFIX = re.compile(
    r"^(?:T?\d{2}[A-Z]{3}_\d{8}(?:T\d{6})?_|S2[A-D]_\w+?_(?=(?:B\d|SCL|CLD|MSK))|R\d{2}m[/_]|HLS\.[\w.]+?\.v\d\.\d\."
    r"|L[COTEM]\d{2}_\w+?_(?:T[12]|RT)_)",
    re.IGNORECASE,
)
"""The name of the product in front of the name of a band: `T18SVG_20230103T155221_B02`, `R10m/B02`."""
_FILE_SUFFIX = re.compile(r"([-_ ](\d{1,3}m|jp2|cog|tiff?))+$|\.(tiff?|jp2)$", re.IGNORECASE)


@dataclass(frozen=True)
class AssetBand:
    """One band of an asset, or the asset where it does not list its bands."""

    asset: str
    index: int | None
    """1-based; None where the asset holds one band, or does not say."""
    listed: int
    """Bands that the asset lists; 0 where it lists none."""
    name: str | None
    common: str | None
    also: tuple[str, ...]
    """Every name and common name that a list of the asset gives it."""
    wavelength: float | None
    """Center, micrometers."""
    description: str | None
    title: str
    gsd: float | None
    is_picture: bool
    """A rendering for the eye."""
    is_jp2: bool
    described_by: str
    """Who describes it, where the asset does not: the item's properties, or its Collection."""


@dataclass(frozen=True)
class Values:
    """What an item states about the values of a band; None where it does not."""

    scale: float | None
    offset: float | None
    nodata: float | None
    conflict: str | None = None
    """Statements about scale or offset that contradict each other, or that are not numbers."""


def asset_name(key: str) -> str:
    """The key of an asset without the name of its product, ground size and file type: `SCL` of `T18SVG_…_SCL_20m`."""
    return _FILE_SUFFIX.sub("", _PRODUCT_PREFIX.sub("", _FILE_SUFFIX.sub("", key)))


def asset_bands(item: Mapping[str, Any], assets: Mapping[str, Any]) -> list[AssetBand]:
    """Every band of every asset that may be an image, in the order of the keys."""
    return [band for key in sorted(assets) if is_image(assets[key]) for band in _bands_of(item, key, assets[key])]


def is_image(asset: Any) -> bool:
    """Whether an asset may be a raster: not a document, picture or container."""
    if not isinstance(asset, Mapping) or not isinstance(asset.get("href"), str):
        return False
    if set(_strings(asset.get("roles"))) & (_NOT_IMAGES - {"visual", "overview"}):
        return False
    if derive(asset["href"], _is_external_mask):
        return False
    kind = str(asset.get("type") or "").lower()
    return not (_OTHER_TYPES.search(kind) if kind else derive(asset["href"], _has_other_suffix))


def _is_external_mask(href: str) -> bool:
    """Whether a file says where the image beside it is valid."""
    return href.partition("?")[0].lower().endswith(".msk")


def _has_other_suffix(href: str) -> bool:
    return bool(re.search(r"\.(json|xml|txt|html?|png|jpe?g|hdf5?|h5|nc|zip)$", href.lower()))


def _bands_of(item: Mapping[str, Any], key: str, asset: Mapping[str, Any]) -> Iterator[AssetBand]:
    listed = band_list(item, asset)
    others = [found for key in _LISTS if len(found := _listed_in(item, asset, key)) == len(listed)]
    roles = set(_strings(asset.get("roles")))
    title = str(asset.get("title") or "")
    picture = roles & {"visual", "overview"} or _PICTURES.match(key.lower()) or _PICTURE_TITLE.search(title)
    for index, first in enumerate(listed or [{}], start=1):
        band = {k: v for each in [*reversed(others), [first] * index] if listed for k, v in each[index - 1].items()}
        yield AssetBand(
            asset=key,
            index=index if len(listed) > 1 else None,
            listed=len(listed),
            name=_text(band.get("name")),
            common=_common_name(band),
            also=tuple({text: None for each in others for text in (_names(each[index - 1]) if listed else ())}),
            wavelength=_micrometers(band.get("center_wavelength", band.get("eo:center_wavelength"))),
            description=_text(band.get("description")),
            title=title,
            gsd=_gsd(key, asset, band),
            is_picture=bool(picture),
            is_jp2="jp2" in str(asset.get("type")).lower() or derive(asset["href"], _names_jp2),
            described_by=str(asset.get(_DESCRIBED_BY) or ""),
        )


def _names_jp2(href: str) -> bool:
    return "jp2" in href.lower()


_DESCRIBED_BY = "clay-publish:described_by"
_OF_ASSET = ("title", "gsd", "roles")
_OF_BAND = ("name", "common_name", "eo:common_name", "center_wavelength", "eo:center_wavelength", "description", "gsd")


def with_descriptions(item: Mapping[str, Any], collection: Mapping[str, Any] | None) -> dict[str, Any]:
    """The assets of an item; those that do not describe their bands as the item or its Collection does.

    `item_assets` describe an asset by its key. Of the bands that the item's properties, or the Collection and its
    `summaries`, list for all assets, an asset has the one of its name, or all of them where it is the only image and
    does not count its bands otherwise. Values of pixels are never taken from there.
    """
    assets: dict[str, Any] = dict(item.get("assets") or {})
    collection = collection or {}
    lists = [
        ("the item's properties", _mapping(item.get("properties"))),
        ("the Collection's summaries", _mapping(collection.get("summaries"))),
        ("the Collection", collection),
    ]
    for key in [key for key, asset in assets.items() if is_image(asset) and not band_list(item, asset)]:
        template = item_asset(collection, key)
        said = {name: template[name] for name in _OF_ASSET if name in template} | assets[key]
        bands = _plain_bands(template)
        by = "the Collection's item_assets"
        if not bands:
            by, bands = next(((by, found) for by, every in lists if (found := _listed(key, every, assets))), ("", []))
        if bands and band_count(key, assets[key]) in {None, len(bands)}:
            said |= {"bands": bands, _DESCRIBED_BY: by}
        assets[key] = said
    return assets


def item_asset(collection: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """What a Collection says of the assets with a key in all of its items."""
    return _mapping(_mapping(collection.get("item_assets")).get(key))


def _listed(key: str, holder: Mapping[str, Any], assets: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of the bands that are listed for all assets, those of one."""
    bands = _plain_bands(holder)
    named = [band for band in bands if str(band.get("name")).lower() == asset_name(key).lower()]
    if len(named) == 1:
        return named
    return bands if len(bands) > 1 and sum(is_image(asset) for asset in assets.values()) == 1 else []


def _plain_bands(holder: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a holder says of each band, without the values of its pixels."""
    bands = holder.get("bands") or holder.get("eo:bands") or []
    if not isinstance(bands, list) or not all(isinstance(band, Mapping) for band in bands):
        return []
    return [{name: band[name] for name in _OF_BAND if name in band} for band in bands]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def band_list(item: Mapping[str, Any], asset: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The bands of an asset in STAC 1.1 (`bands`), 1.0 (`eo:bands`) and 0.7 (indexes), in their order.

    Of several lists the first that describes bands counts, and names in `raster:bands` or `sar:polarizations` do where
    there is no other.
    """
    lists = [_listed_in(item, asset, key) for key in _LISTS]
    describing = (found for found in lists if any(band.keys() & set(_OF_BAND) for band in found))
    return next(describing, lists[0] or lists[1])


_LISTS = ("bands", "eo:bands", "raster:bands", "sar:polarizations")
"""What an asset says of its bands, one by one."""


def _listed_in(item: Mapping[str, Any], asset: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    bands, everywhere = asset.get(key), item.get("properties", {}).get("eo:bands") or []
    if not isinstance(bands, list) or not isinstance(everywhere, list):
        return []
    if key == "sar:polarizations" and len(bands) == 1:
        return []  # which does not tell how many bands there are
    resolved = [everywhere[b] if isinstance(b, int) and 0 <= b < len(everywhere) else b for b in bands]
    return [{"name": b} if isinstance(b, str) else b if isinstance(b, Mapping) else {} for b in resolved]


def _names(band: Mapping[str, Any]) -> list[str]:
    return [text for text in (_text(band.get("name")), _common_name(band)) if text is not None]


def _common_name(band: Mapping[str, Any]) -> str | None:
    return _text(band.get("common_name", band.get("eo:common_name")))


def band_count(key: str, asset: Mapping[str, Any]) -> int | None:
    """How many bands an asset says that its file holds: in a list, its title or its key; None where it does not say."""
    for name in ("bands", "eo:bands", "raster:bands"):
        stated = asset.get(name)
        if isinstance(stated, list) and stated:
            return len(stated)
    found = _COUNT.search(re.sub(r"(?<=\d)(?=[Bb]and)", " ", str(asset.get("title") or ""))) or _KEY_COUNT.search(key)
    return int(found[1]) if found else None


def values_of(asset: Mapping[str, Any], index: int | None, properties: Mapping[str, Any] | None = None) -> Values:
    """What an item states about the values of one band of an asset.

    The band itself counts before its asset, and the asset before the item's properties. `raster:bands`, `bands` and
    `eo:bands` speak of the same band: they must agree. Scale 1 with offset 0 is what GDAL and rio-stac write where
    nothing is known; it counts as not stated.
    """
    place = (index or 1) - 1
    own: list[Mapping[str, Any]] = []
    for key in ("raster:bands", "bands", "eo:bands"):
        bands = asset.get(key)
        if isinstance(bands, list) and place < len(bands) and isinstance(bands[place], Mapping):
            own.append(bands[place])
    of_item = {key: value for key, value in (properties or {}).items() if key.startswith("raster:")}
    listed = of_item.get("raster:bands")
    if (
        isinstance(listed, list)
        and listed
        and all(band == listed[0] for band in listed)
        and isinstance(listed[0], dict)
    ):
        of_item = {**listed[0], **of_item}
    levels: tuple[list[Mapping[str, Any]], ...] = (own, [asset], [of_item])
    stated = [_stated(holder) for holder in own]
    known = [pair for pair in stated if pair != (None, None)]
    of_cf = (_stated({key: holder.get(key) for key in _CF.values()}) for holder in own)
    known += [pair for pair in of_cf if pair != (None, None) and pair not in known]
    keys = ("scale", "offset")
    conflict = next((words for holder in own if (words := _not_a_number(holder, keys))), None)
    conflict = conflict or _not_a_number(asset) or _not_a_number(of_item)
    if any(_differ(one, other) for one in known for other in known):
        conflict = " and ".join(f"scale {scale} and offset {offset}" for scale, offset in known)
    pairs = [*known, _stated(asset), _stated(of_item)]
    scale, offset = (next((pair[n] for pair in pairs if pair[n] is not None), None) for n in (0, 1))
    nodata = next((found for level in levels if (found := _first(level, "nodata")) is not None), None)
    return Values(scale, offset, nodata, conflict)


def _stated(holder: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """Scale and offset; neither where they are GDAL's default."""
    scale, offset = _first([holder], "scale"), _first([holder], "offset")
    return (None, None) if scale in {None, 1.0} and offset in {None, 0.0} else (scale, offset)


def _not_a_number(holder: Mapping[str, Any], plain: Sequence[str] = ()) -> str | None:
    """What a holder states as scale or offset that is not a finite number; `plain` are keys without prefix."""
    for key in ("raster:scale", "raster:offset", *plain, *(_CF[name] for name in plain)):
        found = number(holder.get(key))
        if holder.get(key) is not None and (found is None or not math.isfinite(found)):
            return f"{key} {holder[key]!r}"[:80]
    return None


_CF = {"scale": "scale_factor", "offset": "add_offset"}
"""Names of the CF conventions."""


def _differ(one: tuple[float | None, float | None], other: tuple[float | None, float | None]) -> bool:
    return any(a is not None and b is not None and a != b for a, b in zip(one, other, strict=True))


def _first(holders: list[Mapping[str, Any]], name: str) -> float | None:
    for holder in holders:
        for key in (f"raster:{name}", name, _CF.get(name, name)):
            found = number(holder.get(key))
            if found is not None:
                return found
    return None


def number(value: Any) -> float | None:
    """A number that may be written as text; None where it is none."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _gsd(key: str, asset: Mapping[str, Any], band: Mapping[str, Any]) -> float | None:
    """Ground size of the pixels, as the band, its key or title, the asset or its grid states it."""
    own = number(band.get("gsd")) or number(asset.get("gsd"))
    raster = asset.get("raster:bands")
    if isinstance(raster, list) and raster and isinstance(raster[0], Mapping):
        own = own or number(raster[0].get("spatial_resolution"))
    own = own or number(asset.get("raster:spatial_resolution"))
    for text in (key, str(asset.get("title") or "")):
        found = _METERS.search(text)
        own = own or (float(found[1]) if found else None)
    return (derive(asset.get("proj:transform"), _side) if own is None else own) or None


def _side(transform: Any) -> float | None:
    """The side of the pixels of a grid in meters."""
    pixel = number(transform[0]) if isinstance(transform, list) and transform else None
    return abs(pixel) if pixel is not None and abs(pixel) > 0.01 else None


def _micrometers(value: Any) -> float | None:
    """A wavelength; catalogs that write nanometers mean values of hundreds."""
    found = number(value)
    return found / 1000 if found is not None and found > 100 else found


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value.strip() else None


def _strings(value: Any) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
