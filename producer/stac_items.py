"""Reading a STAC item (0.7 to 1.1): where it lies, when it was acquired, under which terms."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import shapely

from clay_publish.errors import SourceError
from clay_publish.footprint import cut_at_antimeridian
from clay_publish.producer.items import RasterGrid, SourceItem
from clay_publish.producer.origin import check_origin
from clay_publish.producer.sensors import Sensor
from clay_publish.producer.stac_assets import band_files, check_scale, mask_file, number
from clay_publish.windows import parse_time

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
