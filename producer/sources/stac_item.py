"""Reading a STAC item (0.7 to 1.1): where it lies, when it was acquired, under which terms."""

import json
import math
import re
from collections import ChainMap
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import pyproj
import shapely
from pystac.utils import make_absolute_href

from clay_publish.errors import SourceError, shown
from clay_publish.geo.footprints import normalize_footprint, to_lonlat
from clay_publish.producer.sources.asset_bands import item_asset, number, values_of, with_descriptions
from clay_publish.producer.sources.band_mapping import MappedBand, map_bands
from clay_publish.producer.sources.cloud_mask import find_mask, unread_mask
from clay_publish.producer.sources.item import BandFile, ItemMask, RasterGrid, ResolvedBand, SourceItem
from clay_publish.producer.sources.scale_offset import Scaling, decide
from clay_publish.producer.sources.sensor_check import check_origin
from clay_publish.spec.models import Imagery
from clay_publish.spec.sensors import CloudMask, Sensor
from clay_publish.storage.store import is_url
from clay_publish.windows import parse_time

MAX_ID = 4096
"""Characters."""


def source_item(
    item: Mapping[str, Any],
    sensor: Sensor,
    *,
    block: int,
    base: str | None,
    asked: Imagery | None = None,
    needed: Collection[str] | None = None,
    collection: Mapping[str, Any] | None = None,
) -> SourceItem:
    """Read a STAC item (0.7 to 1.1).

    Args:
        item: the item as JSON.
        sensor: whose bands to look for.
        block: the imagery block it came with.
        base: path or address of the item, against which relative hrefs are resolved.
        asked: what the imagery block states about bands, values and mask.
        needed: bands that the encoder takes; default: all of the sensor.
        collection: its Collection, where the source leads to it.

    Raises:
        SourceError: it is not an item, has no id or time, is of another sensor or product, lacks a band, or says
            something that cannot be decided.
    """
    identifier = item.get("id")
    if item.get("type") != "Feature" or not isinstance(identifier, str) or not identifier:
        raise SourceError(base or "item", "is not a STAC Item", "type Feature and an id")
    if len(identifier) > MAX_ID:
        raise SourceError(base or "item", f"has an id of {len(identifier):,} characters", f"at most {MAX_ID:,}")
    try:
        json.dumps(item, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError as error:
        raise SourceError(f"item {identifier}", "holds text that is not Unicode (a lone surrogate)", "UTF-8") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise _unreadable(f"item {identifier}", error) from error
    return read_item(item, sensor, block=block, base=base, asked=asked, needed=needed, collection=collection)


def read_item(
    item: Mapping[str, Any],
    sensor: Sensor,
    *,
    block: int,
    base: str | None,
    asked: Imagery | None = None,
    needed: Collection[str] | None = None,
    collection: Mapping[str, Any] | None = None,
) -> SourceItem:
    """As `source_item`, of an item that is known to be one, to have an id and to hold text."""
    where = f"item {item['id']}"
    try:
        return _read(item, sensor, where, block=block, base=base, asked=asked, needed=needed, collection=collection)
    except (ValueError, TypeError, ArithmeticError, LookupError, AttributeError, RecursionError) as error:
        raise _unreadable(where, error) from error


def _unreadable(where: str, error: Exception) -> SourceError:
    return SourceError(where, f"cannot be read ({type(error).__name__}: {error})", "a STAC Item")


def _read(
    item: Mapping[str, Any],
    sensor: Sensor,
    where: str,
    *,
    block: int,
    base: str | None,
    asked: Imagery | None,
    needed: Collection[str] | None,
    collection: Mapping[str, Any] | None,
) -> SourceItem:
    properties, assets = item.get("properties"), item.get("assets")
    if not isinstance(properties, Mapping) or not isinstance(assets, Mapping):
        raise SourceError(where, "has no properties or no assets", "a STAC Item")
    level = check_origin(item, sensor, where, collection)
    moment, start, end = times_of(properties, where)
    described = with_descriptions(item, collection)
    mapped = map_bands(item, described, sensor, where, stated=asked.bands if asked else None, needed=needed)
    mask = find_mask(assets, sensor, asked.mask if asked else None, where, moment.date())
    masked = None if mask is None else _mask(assets, *mask, base)
    grid_asset, grid = finest_grid(item, assets, [band.asset for band in mapped], where)
    scalings = [
        decide(
            _of_asset(item, properties, assets[band.asset]),
            values_of(assets[band.asset], band.index, properties),
            sensor,
            f"{where}, asset {band.asset}",
            asked,
            usual=values_of(item_asset(collection or {}, band.asset), band.index),
        )
        for band in mapped
    ]
    resolved = tuple(_resolved(band, scaling) for band, scaling in zip(mapped, scalings, strict=True))
    made = SourceItem(
        id=item["id"],
        collection=item.get("collection"),
        block=block,
        geometry=footprint_of(item, where),
        acquired=moment,
        start=start,
        end=end,
        bands=tuple(_file(assets, band, base) for band in mapped),
        mask=masked,
        mask_note=None if masked else unread_mask(assets, sensor, moment.date()),
        grid=grid,
        proj_code=_proj_code(properties, assets.get(grid_asset, {})),
        resolved=resolved,
        shift=resolved[0].to_input(sensor)[1],
        level=level,
        platform=properties.get("platform") or properties.get("eo:platform"),
        acquisition=acquisition_of(item, properties, start, end),
        cloud_cover=number(properties.get("eo:cloud_cover")),
        license=_license(item, properties),
        attribution=properties.get("attribution"),
        href=self_href(item),
        updated=str(properties.get("updated") or properties.get("s2:generation_time") or ""),
    )
    _ = made.window  # the end of the calendar has no next day
    return made


def _of_asset(item: Mapping[str, Any], properties: Mapping[str, Any], asset: Mapping[str, Any]) -> Mapping[str, Any]:
    """Properties as they are for an asset, whose own come first; its title describes a band, the item's the product."""
    of_item = {"id": item["id"], "collection": item.get("collection")}
    if "title" in properties:
        of_item["title"] = properties["title"]
    return ChainMap(of_item, *(cast("dict[str, Any]", holder) for holder in (asset, properties)))


def _resolved(band: MappedBand, scaling: Scaling) -> ResolvedBand:
    source = f"band: {band.how}; values: {scaling.source}"
    return ResolvedBand(band.name, band.asset, band.index or 1, scaling.scale, scaling.offset, source)


def _mask(assets: Mapping[str, Any], key: str, values: CloudMask, base: str | None) -> ItemMask:
    indexes: tuple[int | None, ...] = (None,) if values.bands == (1,) else values.bands
    return ItemMask(tuple(_file(assets, MappedBand("mask", key, index, None, ""), base) for index in indexes), values)


def _file(assets: Mapping[str, Any], band: MappedBand, base: str | None) -> BandFile:
    asset = assets[band.asset]
    href = resolve_href(_href(asset), base)
    origin = base if base is not None and is_url(base) else None
    nodata = values_of(asset, band.index).nodata
    file = BandFile(band.name, band.asset, href, band.index, nodata, origin, band.count)
    named = (resolve_href(_href(each), base) for each in assets.values() if isinstance(each, Mapping))
    return replace(file, has_external_mask=file.external_mask.href in named)


def _href(asset: Mapping[str, Any]) -> str:
    """The asset's address; an alternate one over http(s), where the main one is of a kind that needs a login."""
    href = str(asset.get("href", ""))
    if href.startswith(("http://", "https://", "s3://")) or "://" not in href:
        return href
    alternates = asset.get("alternate")
    if not isinstance(alternates, Mapping):
        return href
    others = [str(each.get("href")) for each in alternates.values() if isinstance(each, Mapping)]
    return next((other for other in others if other.startswith(("https://", "s3://"))), href)


def resolve_href(href: str, base: str | None) -> str:
    """A relative href against the item it stands in; an absolute one as it is.

    A file URL stays one where the item is on a server, so that it is refused and not taken for a path there.
    """
    path = href if base is not None and is_url(base) else local_path(href)
    return path if base is None else make_absolute_href(path, base, start_is_dir=False)


def local_path(href: str) -> str:
    """The path that a file URL of this machine names (`file:/p`, `file://localhost/p`, `%20`); others as they are."""
    parts = urlsplit(href)
    if parts.scheme.lower() != "file" or parts.netloc not in {"", "localhost"}:
        return href
    return unquote(parts.path)


def times_of(properties: Mapping[str, Any], where: str) -> tuple[datetime, datetime, datetime]:
    """Return the acquisition, and start and end of its period, in UTC.

    Raises:
        SourceError: there is none, or it cannot be read.
    """

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
            where, "has no time", "datetime, or start_datetime and end_datetime", "Fix it, or list it in `exclude`."
        )
    return moment, moment, moment


def footprint_of(item: Mapping[str, Any], where: str) -> shapely.Geometry | None:
    """Return the ground of an item, from its geometry or bbox; None where it states neither.

    Raises:
        SourceError: it is not GeoJSON.
    """
    if not isinstance(item.get("geometry"), Mapping | None):
        raise SourceError(f"{where}: geometry", f"found {shown(item['geometry'])}", "a GeoJSON geometry, or null")
    try:
        return normalize_footprint(item.get("geometry"), item.get("bbox"))
    except (shapely.errors.ShapelyError, ValueError, TypeError, AttributeError, LookupError, OverflowError) as error:
        raise SourceError(f"{where}: geometry", f"is not a GeoJSON geometry ({error})") from error


def finest_grid(
    item: Mapping[str, Any], assets: Mapping[str, Any], keys: Iterable[str], where: str
) -> tuple[str | None, RasterGrid | None]:
    """The grid with the smallest pixels among the bands; None where any band's is not stated.

    Raises:
        SourceError: the item states a grid that cannot be: numbers that are not finite, or an unknown CRS.
    """
    properties = item.get("properties", {})
    best: tuple[str, RasterGrid] | None = None
    for key in dict.fromkeys(keys):
        asset = assets[key]
        shape = asset.get("proj:shape", properties.get("proj:shape"))
        transform = asset.get("proj:transform", properties.get("proj:transform"))
        crs = _crs(properties, asset)
        if crs is not None:
            check_crs(crs, where)
        if crs is None or not _is_grid(shape, transform):
            return None, None
        numbers = [float(v) for v in (*shape, *transform[:6])]
        a, b, _, d, e, _ = numbers[2:]
        if not all(math.isfinite(v) for v in numbers) or a * e - b * d == 0 or min(numbers[:2]) < 1:
            raise SourceError(
                f"{where}: proj:transform", f"found {numbers[2:]} and proj:shape {shape}", "the grid of an image"
            )
        grid = RasterGrid(crs, int(shape[0]), int(shape[1]), tuple(numbers[2:]))  # type: ignore[arg-type]
        if best is None or grid.pixel < best[1].pixel:
            best = key, grid
    return best or (None, None)


def check_crs(crs: str, where: str) -> None:
    """Refuse a reference system that PROJ cannot bring to longitude and latitude.

    Raises:
        SourceError: it is one.
    """
    try:
        to_lonlat(crs)
    except pyproj.exceptions.ProjError as error:
        raise SourceError(
            f"{where}: proj:code", f"found {crs[:60]!r}, which PROJ cannot bring to longitude and latitude",
            "a reference system of the Earth, such as EPSG:32618",
        ) from error  # fmt: skip


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


DATATAKES = ("s2:datatake_id", "sentinel2:datatake_id", "eopf:datatake_id", "sat:absolute_orbit")
_BASELINE = re.compile(r"_N\d\d\.\d\d$")
"""Ends the id of a Sentinel-2 datatake: tiles of one that were processed apart are still one acquisition."""


def acquisition_of(item: Mapping[str, Any], properties: Mapping[str, Any], start: datetime, end: datetime) -> str:
    """Images of one acquisition share it: a datatake, a pass along a Landsat path, a period, or a day."""
    platform = str(properties.get("platform") or "").casefold().replace("_", "-")  # catalogs differ in its spelling
    for key in DATATAKES:
        if properties.get(key) is not None:
            return f"{platform} {_BASELINE.sub('', str(properties[key]))}".strip()
    path = str(properties.get("landsat:wrs_path") or "")
    if path.isdecimal():
        return f"{platform} path {int(path)} {_day_of_pass(int(path), start).isoformat()}".strip()
    if start != end:
        return f"{item.get('collection', '')} {start.isoformat()}/{end.isoformat()}".strip()
    return f"{item.get('collection', '')} {platform} {start.date().isoformat()}".strip()


def _day_of_pass(path: int, moment: datetime) -> date:
    """The day of a Landsat pass where its path crosses the equator, so that no pass goes on past midnight."""
    longitude = (-65 - (path - 1) * 360 / 233 + 180) % 360 - 180
    return (moment + timedelta(hours=longitude / 15)).date()


def _license(item: Mapping[str, Any], properties: Mapping[str, Any]) -> str | None:
    stated = properties.get("license", item.get("license"))
    return stated if isinstance(stated, str) else None


def self_href(item: Mapping[str, Any]) -> str | None:
    """Return the address that an item states of itself."""
    for link in item.get("links") or []:
        if isinstance(link, dict) and link.get("rel") == "self" and "://" in str(link.get("href")):
            return str(link["href"])
    return None
