"""Reading a STAC item (0.7 to 1.1): where it lies, when it was acquired, under which terms."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import shapely
from pystac.utils import make_absolute_href

from clay_publish.errors import SourceError
from clay_publish.geo.footprints import cut_at_antimeridian
from clay_publish.producer.sources.item import BandFile, ItemMask, RasterGrid, SourceItem
from clay_publish.producer.sources.sensor_check import check_origin
from clay_publish.spec.sensors import Band, Sensor
from clay_publish.storage.store import is_url
from clay_publish.windows import parse_time

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


_MAX_ID = 4096


def source_item(item: Mapping[str, Any], sensor: Sensor, *, block: int, base: str | None) -> SourceItem:
    """Read a STAC item (0.7 to 1.1).

    Args:
        item: the item as JSON.
        sensor: whose bands to look for.
        block: the imagery block it came with.
        base: path or address of the item, against which relative hrefs are resolved.

    Raises:
        SourceError: it is no item, has no id or time, is of another sensor, or lacks a band of this one.
    """
    identifier = item.get("id")
    if item.get("type") != "Feature" or not isinstance(identifier, str) or not identifier:
        raise SourceError(base or "item", "is no STAC Item", "type Feature and an id")
    if len(identifier) > _MAX_ID:
        raise SourceError(base or "item", f"has an id of {len(identifier)} characters", f"at most {_MAX_ID}")
    properties, assets = item.get("properties"), item.get("assets")
    if not isinstance(properties, dict) or not isinstance(assets, dict):
        raise SourceError(f"item {identifier}", "has no properties or no assets", "a STAC Item")
    where = f"item {identifier}"
    check_origin(properties, sensor, where)
    moment, start, end = _times(properties, where)
    files = band_files(item, assets, sensor, where, base)
    check_scale(assets, files, sensor, where)
    grid_asset, grid = _finest_grid(item, assets, [f.asset for f in files])
    return SourceItem(
        id=identifier,
        collection=item.get("collection"),
        block=block,
        geometry=_geometry(item.get("geometry"), where),
        acquired=moment,
        start=start,
        end=end,
        bands=files,
        mask=mask_file(assets, sensor, base),
        grid=grid,
        proj_code=_proj_code(properties, assets.get(grid_asset, {})),
        offset=_offset(properties, assets[files[0].asset], sensor),
        baseline=None if sensor.offset_from_baseline is None else _baseline(properties),
        platform=properties.get("platform") or properties.get("eo:platform"),
        acquisition=_acquisition(item, properties, start, end),
        cloud_cover=number(properties.get("eo:cloud_cover")),
        license=_license(item, properties),
        attribution=properties.get("attribution"),
        href=_self_href(item),
        updated=str(properties.get("updated") or properties.get("s2:generation_time") or ""),
    )


def _times(properties: Mapping[str, Any], where: str) -> tuple[datetime, datetime, datetime]:
    def read(key: str) -> datetime | None:
        text = properties.get(key)
        if text is None:
            return None
        try:
            return parse_time(str(text))
        except ValueError as error:
            raise SourceError(f"{where}: {key}", f"found {text!r}", "an RFC 3339 time") from error

    moment, start, end = read("datetime"), read("start_datetime"), read("end_datetime")
    if start is not None and end is not None and end >= start:
        middle = start + (end - start) / 2
        return moment or middle.astimezone(UTC), start, end
    if moment is None:
        raise SourceError(
            where, "has no time", "datetime, or start_datetime and end_datetime", "Name it in `exclude` or mend it."
        )
    return moment, moment, moment


def _geometry(document: Any, where: str) -> shapely.Geometry | None:
    if document is None:
        return None
    try:
        geometry = cut_at_antimeridian(shapely.geometry.shape(document))
    except (shapely.errors.ShapelyError, ValueError, TypeError, AttributeError, LookupError) as error:
        raise SourceError(f"{where}: geometry", f"is no GeoJSON geometry ({error})") from error
    return shapely.make_valid(geometry) if not geometry.is_valid else geometry


def _finest_grid(
    item: Mapping[str, Any], assets: Mapping[str, Any], keys: Iterable[str]
) -> tuple[str | None, RasterGrid | None]:
    """The grid with the smallest pixels among the bands; None where any band's is not stated."""
    properties = item.get("properties", {})
    best: tuple[str, RasterGrid] | None = None
    for key in dict.fromkeys(keys):
        asset = assets[key]
        shape = asset.get("proj:shape", properties.get("proj:shape"))
        transform = asset.get("proj:transform", properties.get("proj:transform"))
        crs = _crs(properties, asset)
        if crs is None or not _is_grid(shape, transform):
            return None, None
        grid = RasterGrid(crs, int(shape[0]), int(shape[1]), tuple(float(v) for v in transform[:6]))  # type: ignore[arg-type]
        if best is None or grid.pixel < best[1].pixel:
            best = key, grid
    return best or (None, None)


def _is_grid(shape: Any, transform: Any) -> bool:
    return (
        isinstance(shape, list)
        and len(shape) == 2
        and isinstance(transform, list)
        and len(transform) in {6, 9}
        and all(isinstance(v, int | float) for v in (*shape, *transform))
    )


def _proj_code(properties: Mapping[str, Any], asset: Mapping[str, Any]) -> str | None:
    for holder in (asset, properties):
        code = holder.get("proj:code")
        if isinstance(code, str):
            return code
        if isinstance(holder.get("proj:epsg"), int):
            return f"EPSG:{holder['proj:epsg']}"
    return None


def _crs(properties: Mapping[str, Any], asset: Mapping[str, Any]) -> str | None:
    code = _proj_code(properties, asset)
    if code is not None:
        return code
    for holder in (asset, properties):
        wkt = holder.get("proj:wkt2")
        if isinstance(wkt, str):
            return wkt
    return None


def _offset(properties: Mapping[str, Any], asset: Mapping[str, Any], sensor: Sensor) -> float:
    """What to add to Sentinel-2's digital numbers: −1000 where the offset of baseline 04.00 is still in them."""
    if sensor.offset_from_baseline is None or properties.get("earthsearch:boa_offset_applied") is True:
        return 0.0
    bands = asset.get("raster:bands") or asset.get("bands") or [{}]
    first = bands[0] if isinstance(bands[0], dict) else {}
    offset = number(first.get("offset", first.get("raster:offset", asset.get("raster:offset"))))
    scale = number(first.get("scale", first.get("raster:scale", asset.get("raster:scale"))))
    if offset is not None and offset != 0 and scale:
        return round(offset / scale)
    baseline = _baseline(properties)
    return -1000.0 if baseline is not None and baseline >= sensor.offset_from_baseline else 0.0


def _baseline(properties: Mapping[str, Any]) -> float | None:
    """Sentinel-2's processing baseline, as Earth Search and Planetary Computer, stactools and older items name it."""
    for key in ("s2:processing_baseline", "sentinel2:processing_baseline", "sentinel:processing_baseline"):
        if properties.get(key) is not None:
            return number(properties[key])
    return None


def _acquisition(item: Mapping[str, Any], properties: Mapping[str, Any], start: datetime, end: datetime) -> str:
    for key in ("s2:datatake_id", "sentinel2:datatake_id", "sat:absolute_orbit", "landsat:scene_id"):
        if properties.get(key) is not None:
            return f"{properties.get('platform', '')} {properties[key]}".strip()
    if start != end:
        return f"{item.get('collection', '')} {start.isoformat()}/{end.isoformat()}".strip()
    return f"{item.get('collection', '')} {properties.get('platform', '')} {start.date().isoformat()}".strip()


def _license(item: Mapping[str, Any], properties: Mapping[str, Any]) -> str | None:
    stated = properties.get("license", item.get("license"))
    return stated if isinstance(stated, str) else None


def _self_href(item: Mapping[str, Any]) -> str | None:
    for link in item.get("links") or []:
        if isinstance(link, dict) and link.get("rel") == "self" and "://" in str(link.get("href")):
            return str(link["href"])
    return None
