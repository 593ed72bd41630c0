"""Which assets of a STAC item (0.7 to 1.1) hold which band of a sensor."""

from collections.abc import Iterable, Mapping
from typing import Any

from pystac.utils import make_absolute_href

from clay_publish.errors import SourceError
from clay_publish.producer.items import BandFile, ItemMask
from clay_publish.producer.sensors import Band, Sensor
from clay_publish.store import is_url

_SAME_SCALE = 1e-3


def band_files(
    item: Mapping[str, Any], assets: Mapping[str, Any], sensor: Sensor, where: str, base: str | None
) -> tuple[BandFile, ...]:
    """The file of each band, in the sensor's order.

    Raises:
        SourceError: the item lacks a band.
    """
    found = [_find_band(item, assets, band, base) for band in sensor.bands]
    whole = next((key for key in sensor.images if key in assets), None)
    if whole is not None and None in found:  # its bands are not described, or not by name: they are in this order
        return tuple(_file(assets, whole, band.name, n, base) for n, band in enumerate(sensor.bands, start=1))
    missing = [band.name for band, file in zip(sensor.bands, found, strict=True) if file is None]
    if missing:
        raise SourceError(
            where,
            f"has no band {', '.join(missing)} of sensor {sensor.key}; its assets are {', '.join(sorted(assets))}",
            fix="Choose the sensor that made it, or add the asset's name to the sensor's band.",
        )
    return tuple(file for file in found if file is not None)


def check_scale(assets: Mapping[str, Any], files: Iterable[BandFile], sensor: Sensor, where: str) -> None:
    """Refuse digital numbers of another scale than the sensor's: its statistics would not fit them."""
    for file in files:
        own = _described(assets[file.asset], file.index)
        stated = number(own.get("scale", own.get("raster:scale")))
        if sensor.scale is not None and stated and abs(stated / sensor.scale - 1) > _SAME_SCALE:
            raise SourceError(
                f"{where}, asset {file.asset}",
                f"has the scale {stated:g}",
                f"{sensor.scale:g}, the one of sensor {sensor.key}",
            )


def _find_band(item: Mapping[str, Any], assets: Mapping[str, Any], band: Band, base: str | None) -> BandFile | None:
    """By the asset's key first, then by the name of a band inside an asset, then by its common name if unique."""
    for name in band.names:
        if isinstance(assets.get(name), dict) and len(_bands(item, assets[name])) <= 1:
            return _file(assets, name, band.name, None, base)
    inside = [(key, index, each) for key in assets for index, each in enumerate(_bands(item, assets[key]), start=1)]
    for label in ("name", "description", "common_name", "eo:common_name"):
        matches = [
            (key, index) for key, index, each in inside if each.get(label) in band.names and _is_data(assets[key])
        ]
        many = len(_bands(item, assets[matches[0][0]])) > 1 if matches else False
        if len(matches) == 1 or (matches and label in {"name", "description"}):
            key, index = matches[0]
            return _file(assets, key, band.name, index if many else None, base)
    return None


def _is_data(asset: Mapping[str, Any]) -> bool:
    roles = set(asset.get("roles") or ["data"])
    return not roles & {"thumbnail", "overview", "visual", "metadata", "graphic"}


def _bands(item: Mapping[str, Any], asset: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The bands of an asset in STAC 1.1 (`bands`), 1.0 (`eo:bands`, `raster:bands`) and 0.7 (indexes)."""
    bands = asset.get("bands") or asset.get("eo:bands") or []
    everywhere = item.get("properties", {}).get("eo:bands") or []
    resolved = (everywhere[b] if isinstance(b, int) and 0 <= b < len(everywhere) else b for b in bands)
    return [b for b in resolved if isinstance(b, dict)]


def _described(asset: Mapping[str, Any], index: int | None) -> Mapping[str, Any]:
    """What an asset says of the values of one of its bands; the first where it has one only."""
    bands = asset.get("raster:bands") or asset.get("bands") or []
    place = (index or 1) - 1
    return bands[place] if place < len(bands) and isinstance(bands[place], dict) else {}


def _file(assets: Mapping[str, Any], key: str, band: str, index: int | None, base: str | None) -> BandFile:
    asset = assets[key]
    own = _described(asset, index)
    nodata = own.get("nodata", asset.get("nodata"))
    href = resolve_href(_href(asset), base)
    return BandFile(band, key, href, index, number(nodata), base if base is not None and is_url(base) else None)


def _href(asset: Mapping[str, Any]) -> str:
    """The asset's address; an alternate one over http(s), where the main one is of a kind that needs a login."""
    href = str(asset.get("href", ""))
    alternates = asset.get("alternate")
    if href.startswith(("http://", "https://", "s3://")) or "://" not in href or not isinstance(alternates, dict):
        return href
    others = [str(each.get("href")) for each in alternates.values() if isinstance(each, dict)]
    return next((other for other in others if other.startswith(("https://", "s3://"))), href)


def resolve_href(href: str, base: str | None) -> str:
    """A relative href against the item it stands in; an absolute one as it is."""
    return href if base is None else make_absolute_href(href, base, start_is_dir=False)


def mask_file(assets: Mapping[str, Any], sensor: Sensor, base: str | None) -> ItemMask | None:
    """The cloud mask, where the item has one of those its sensor knows."""
    found = ((mask, key) for mask in sensor.masks for key in mask.assets if key in assets)
    mask, key = next(found, (None, ""))
    return None if mask is None else ItemMask(_file(assets, key, "mask", None, base), mask)


def number(value: Any) -> float | None:
    """A number that may be written as text; None where it is none."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
