"""Reading a STAC item (0.7 to 1.1): where it lies, when it was acquired, under which terms."""

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import MAXYEAR, UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import unquote, urlsplit

import shapely
from pystac.utils import make_absolute_href

from clay_publish.errors import SourceError, shown
from clay_publish.geo.footprints import crossing_rings, footprints, normalize_footprint
from clay_publish.geo.raster_grid import RasterGrid
from clay_publish.producer.sources.asset_bands import item_asset, number, values_of, with_descriptions
from clay_publish.producer.sources.band_mapping import MappedBand, check_unique, map_bands
from clay_publish.producer.sources.cloud_mask import find_mask, unread_mask
from clay_publish.producer.sources.item import (
    BandFile,
    ItemDescription,
    ItemMask,
    ItemRecord,
    ItemTexts,
    ResolvedBand,
    SourceItem,
    external_mask,
)
from clay_publish.producer.sources.item_grid import finest_grid, proj_code
from clay_publish.producer.sources.scale_offset import Scaling, check_agreement, decide
from clay_publish.producer.sources.sensor_check import Statement, check_origin, check_titles
from clay_publish.producer.sources.watched import derive
from clay_publish.spec.models import Imagery
from clay_publish.spec.sensors import CloudMask, Sensor
from clay_publish.storage.store import is_url
from clay_publish.windows import parse_time

MAX_ID = 4096
"""Characters."""
_PLAIN = re.compile(r"(?:https?|s3)://[^\\?#;\[\]\s\x00-\x1f\x7f-\U0010ffff]+")
"""Addresses that stay what they are when they are resolved."""
UNREADABLE = (ValueError, TypeError, ArithmeticError, LookupError, AttributeError, RecursionError)
"""Raised by reading what is not as STAC has it."""


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
    where = f"item {identifier}"
    try:
        json.dumps(item, ensure_ascii=False, default=str).encode()
        properties = item.get("properties")
        if not isinstance(properties, dict) or not isinstance(item.get("assets"), dict):
            raise SourceError(where, "has no properties or no assets", "a STAC Item")
        times = times_of(properties, where)
        day = times[0].date()
        shared = resolve(item, sensor, where, day=day, asked=asked, needed=needed, collection=collection)
        return complete(item, shared, where, times=times, block=block, base=base)
    except UnicodeEncodeError as error:
        raise SourceError(where, "holds text that is not Unicode (a lone surrogate)", "UTF-8") from error
    except UNREADABLE as error:
        raise SourceError(where, f"cannot be read ({type(error).__name__}: {error})", "a STAC Item") from error


@dataclass(frozen=True)
class ItemReading:
    """How an item is read, which is the same for all items that are described alike."""

    bands: tuple[MappedBand, ...]
    nodata: tuple[float | None, ...]
    """Of each band, as the item states it."""
    resolved: tuple[ResolvedBand, ...]
    shift: float
    mask: CloudMask | None
    mask_bands: tuple[MappedBand, ...]
    mask_nodata: tuple[float | None, ...]
    mask_note: str | None
    external_masks: tuple[str, ...]
    """Assets that may be the `.msk` beside an image."""
    level: Statement | None


def resolve(
    item: Mapping[str, Any],
    sensor: Sensor,
    where: str,
    *,
    day: date,
    asked: Imagery | None = None,
    needed: Collection[str] | None = None,
    collection: Mapping[str, Any] | None = None,
) -> ItemReading:
    """Decide how an item is read. `item` and `day` may be watched (`derive`).

    Raises:
        SourceError: as of `source_item`.
    """
    properties, assets = item["properties"], item["assets"]
    level = check_origin(item, sensor, where, collection)
    described = with_descriptions(item, collection)
    mapped = map_bands(item, described, sensor, where, stated=asked.bands if asked else None, needed=needed)
    check_titles(item, sensor, where, (band.asset for band in mapped))
    mask = find_mask(assets, sensor, asked.mask if asked else None, where, day)
    scalings = [
        decide(
            _of_asset(properties, assets[band.asset]) | {"id": item["id"], "collection": item.get("collection")},
            values_of(assets[band.asset], band.index, properties),
            sensor,
            f"{where}, asset {band.asset}",
            asked,
            usual=values_of(item_asset(collection or {}, band.asset), band.index),
        )
        for band in mapped
    ]
    check_agreement([(band.name, scaling) for band, scaling in zip(mapped, scalings, strict=True)], where)
    resolved = tuple(_resolved(band, scaling) for band, scaling in zip(mapped, scalings, strict=True))
    mask_bands = () if mask is None else _mask_bands(*mask)
    return ItemReading(
        bands=mapped,
        nodata=_nodata(assets, mapped),
        resolved=resolved,
        shift=resolved[0].to_input(sensor)[1],
        mask=None if mask is None else mask[1],
        mask_bands=mask_bands,
        mask_nodata=_nodata(assets, mask_bands),
        mask_note=None if mask else unread_mask(assets, sensor, day),
        external_masks=tuple(key for key in sorted(assets) if _is_external_mask(assets[key])),
        level=level and replace(level, value=None if level.path else str(level.value)),
    )


def complete(
    item: Mapping[str, Any],
    shared: ItemReading,
    where: str,
    *,
    times: tuple[datetime, datetime, datetime],
    block: int,
    base: str | None,
    outline: bytes | None = None,
    grids: Iterable[str] | None = None,
    known: dict[Any, ItemDescription] | None = None,
) -> SourceItem:
    """Fill in what each item has of its own.

    Args:
        item: the item as JSON, or with what is read here.
        shared: how it is read.
        where: for messages.
        times: as of `times_of`.
        block: the imagery block it came with.
        base: path or address of the item.
        outline: its footprint as WKB, where that is known to need no change.
        grids: assets whose grids to look at; default: those of all bands.
        known: descriptions of items that are read alike, which this adds to; None for an item by itself.

    Raises:
        SourceError: as of `source_item`.
    """
    properties, every = item["properties"], item["assets"]
    moment, start, end = times
    assets = {key: every[key] for key in dict.fromkeys(band.asset for band in (*shared.bands, *shared.mask_bands))}
    check_unique(shared.bands, {key: str(asset.get("href")) for key, asset in assets.items()}, where)
    hrefs = {key: resolve_href(_href(asset), base) for key, asset in assets.items()}
    named = {resolve_href(_href(every[key]), base) for key in shared.external_masks}
    grid_asset, grid = finest_grid(properties, assets, grids or [band.asset for band in shared.bands], where)
    geometry = _geometry(item, where, grid) if outline is None else None
    texts = ItemTexts(
        hrefs=hrefs,
        acquisition=_acquisition(item, properties, start, end),
        proj_code=proj_code(properties, {} if grid_asset is None else assets[grid_asset]),
        level=None if shared.level is None else str(shared.level.of(item)),
        href=_self_href(item),
        updated=str(properties.get("updated") or properties.get("s2:generation_time") or ""),
    )
    note = crossing_rings(item.get("geometry")) if outline is None else None
    origin = base if base is not None and is_url(base) else None
    masked = frozenset(key for key, href in hrefs.items() if named and external_mask(href) in named)
    platform = properties.get("platform") or properties.get("eo:platform")
    said = item.get("collection"), platform, _license(item, properties), properties.get("attribution"), note, masked
    common = None if known is None else known.get(said)
    if common is None:
        collection, platform, terms, attribution, note, _ = said
        common = ItemDescription(
            collection=collection,
            block=block,
            bands=_files(shared.bands, shared.nodata, origin, masked),
            mask=None
            if shared.mask is None
            else ItemMask(_files(shared.mask_bands, shared.mask_nodata, origin, masked), shared.mask),
            mask_note=shared.mask_note,
            resolved=shared.resolved,
            shift=shared.shift,
            product_key=None if texts.level is None else texts.level.partition(" ")[0],
            platform=platform,
            license=terms,
            attribution=attribution,
            note=note,
            example=b"" if known is None else texts.encoded(),
        )
        if known is not None:
            known[said] = common
    made = SourceItem.of(
        common,
        ItemRecord(
            id=item["id"],
            footprint=outline if geometry is None else shapely.to_wkb(geometry),
            acquired=moment,
            start=start,
            end=end,
            cloud_cover=_percent(properties.get("eo:cloud_cover")),
            grid=grid,
            texts=texts,
        ),
    )
    if end.year == MAXYEAR:
        _ = made.window  # the end of the calendar has no next day
    return made


def _of_asset(properties: Mapping[str, Any], asset: Mapping[str, Any]) -> dict[str, Any]:
    """Properties as they are for an asset, whose own come first; its title describes a band, the item's the product."""
    return {**properties, **{key: value for key, value in asset.items() if key != "title" or key not in properties}}


def _resolved(band: MappedBand, scaling: Scaling) -> ResolvedBand:
    source = f"band: {band.how}; values: {scaling.source}"
    return ResolvedBand(band.name, band.asset, band.index or 1, scaling.scale, scaling.offset, source)


def _nodata(assets: Mapping[str, Any], bands: Iterable[MappedBand]) -> tuple[float | None, ...]:
    return tuple(values_of(assets[band.asset], band.index).nodata for band in bands)


def _mask_bands(key: str, values: CloudMask) -> tuple[MappedBand, ...]:
    indexes: tuple[int | None, ...] = (None,) if values.bands == (1,) else values.bands
    return tuple(MappedBand("mask", key, index, None, "") for index in indexes)


def _files(
    bands: Iterable[MappedBand], nodata: Iterable[float | None], origin: str | None, masked: Collection[str]
) -> tuple[BandFile, ...]:
    """The files of bands, without addresses; `masked` are the assets whose external masks the item names."""
    return tuple(
        BandFile(band.name, band.asset, "", band.index, own, origin, band.count, band.asset in masked)
        for band, own in zip(bands, nodata, strict=True)
    )


def _is_external_mask(asset: Any) -> bool:
    if not isinstance(asset, Mapping):
        return False
    alternates = asset.get("alternate")
    others = alternates.values() if isinstance(alternates, dict) else ()
    holders = (asset, *(each for each in others if isinstance(each, dict)))
    return any(derive(holder.get("href"), _names_mask) for holder in holders)


def _names_mask(href: Any) -> bool:
    return ".msk" in unquote(str(href))


def _href(asset: Mapping[str, Any]) -> str:
    """The asset's address; an alternate one over http(s), where the main one is of a kind that needs a login."""
    href = str(asset.get("href", ""))
    alternates = asset.get("alternate")
    if href.startswith(("http://", "https://", "s3://")) or "://" not in href or not isinstance(alternates, dict):
        return href
    others = [str(each.get("href")) for each in alternates.values() if isinstance(each, dict)]
    return next((other for other in others if other.startswith(("https://", "s3://"))), href)


def resolve_href(href: str, base: str | None) -> str:
    """A relative href against the item it stands in; an absolute one as it is.

    A file URL stays one where the item is on a server, so that it is refused and not taken for a path there.
    """
    if _PLAIN.fullmatch(href):
        return href
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


def _geometry(item: Mapping[str, Any], where: str, grid: RasterGrid | None) -> shapely.Geometry | None:
    """The ground that an item states; where it states none, or a mere point or line, that of its pixel grid."""
    if not isinstance(item.get("geometry"), Mapping | None):
        raise SourceError(f"{where}: geometry", f"found {shown(item['geometry'])}", "a GeoJSON geometry, or null")
    try:
        stated = normalize_footprint(item.get("geometry"), item.get("bbox"))
    except (shapely.errors.ShapelyError, ValueError, TypeError, AttributeError, LookupError, OverflowError) as error:
        raise SourceError(f"{where}: geometry", f"is not a GeoJSON geometry ({error})") from error
    if stated is not None and stated.area > 0:
        return stated
    if grid is not None:
        outline: shapely.Geometry = footprints(grid.crs, grid.corners[None])[0]
        return outline
    if stated is not None:
        raise SourceError(
            f"{where}: geometry", f"is a {stated.geom_type} without area, and bbox says no more", "the ground it covers"
        )
    return None


_DATATAKES = ("s2:datatake_id", "sentinel2:datatake_id", "eopf:datatake_id", "sat:absolute_orbit")
_BASELINE = re.compile(r"_N\d\d\.\d\d$")
"""Ends the id of a Sentinel-2 datatake: tiles of one that were processed apart are still one acquisition."""


def _acquisition(item: Mapping[str, Any], properties: Mapping[str, Any], start: datetime, end: datetime) -> str:
    """Images of one acquisition share it: a datatake, a pass along a Landsat path, a period, or a day."""
    platform = str(properties.get("platform") or "").casefold().replace("_", "-")  # catalogs differ in its spelling
    for key in _DATATAKES:
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


def _percent(value: Any) -> float | None:
    """A share in percent; None where it is none, such as the −1 of Landsat, which means unknown."""
    share = number(value)
    return share if share is not None and 0 <= share <= 100 else None


def _self_href(item: Mapping[str, Any]) -> str | None:
    for link in item.get("links") or []:
        if isinstance(link, dict) and link.get("rel") == "self" and "://" in str(link.get("href")):
            return str(link["href"])
    return None
