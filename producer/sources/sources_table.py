"""`sources.parquet`: every item considered, and what became of it."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import shapely

from clay_publish.producer.sources.item import BandFile, SourceItem
from clay_publish.producer.sources.selection import Broken, Considered
from clay_publish.redaction import without_secrets
from clay_publish.release import directory as paths
from clay_publish.release.directory import Release
from clay_publish.release.geoparquet import bbox_array, geo_metadata, total_bbox, write_table
from clay_publish.release.tables import sources_schema
from clay_publish.storage.store import is_url


def write_sources(release: Release, considered: Sequence[Considered], broken: Sequence[Broken]) -> None:
    """Write the table."""
    write_table(release.store, paths.SOURCES, sources_table(considered, broken))


def decides(row: dict[str, Any]) -> str | None:
    """Return what decides the chips of an image, from its row of the table, as text; None where its content is unknown.

    Left out are its terms, its addresses, and what became of it. Two rows with the same text give the same chips.
    """
    if any(asset["etag"] is None for asset in row["assets"]):
        return None
    kept = {name: value for name, value in row.items() if name not in _NOT_DECISIVE}
    kept["assets"] = [(asset["key"], asset["etag"]) for asset in row["assets"]]
    return repr(sorted(kept.items()))


_NOT_DECISIVE = frozenset(
    {"collection", "block", "status", "reason", "bbox", "platform", "license", "attribution", "href"}
)


def sources_table(considered: Sequence[Considered], broken: Sequence[Broken]) -> pa.Table:
    """The table; no local path and no signature goes into it."""
    geometries = np.array([each.item.geometry for each in considered], dtype=object)
    known = np.array([geometry is not None for geometry in geometries], dtype=bool)
    boxes = bbox_array(geometries[known])
    place = iter(boxes.to_pylist())
    rows = [_row(each, next(place) if has else None) for each, has in zip(considered, known, strict=True)]
    rows += [{**vars(each), "status": "unused", "offset": 0.0, "assets": []} for each in broken]
    table = pa.Table.from_pylist(rows, schema=sources_schema())
    bounds = np.array([list(box.values()) for box in boxes.to_pylist()]).reshape(-1, 4)
    kinds = {geometry.geom_type for geometry in geometries[known]}
    footer = {"geo": json.dumps(geo_metadata(kinds, total_bbox(bounds)))}
    return table.replace_schema_metadata(footer)


def _row(each: Considered, bbox: dict[str, float] | None) -> dict[str, Any]:
    item = each.item
    return {
        "id": item.id,
        "collection": item.collection,
        "block": item.block,
        "status": each.status,
        "reason": each.reason,
        "geometry": None if item.geometry is None else shapely.to_wkb(item.geometry),
        "bbox": bbox,
        "datetime": item.acquired,
        "start_datetime": item.start,
        "end_datetime": item.end,
        "platform": item.platform,
        "acquisition": item.acquisition,
        "cloud_cover": item.cloud_cover,
        "proj_code": item.grid.crs if item.grid else item.proj_code,
        "proj_shape": [item.grid.height, item.grid.width] if item.grid else None,
        "proj_transform": list(item.grid.transform) if item.grid else None,
        "offset": item.shift,
        "license": item.license,
        "attribution": item.attribution,
        "href": _public(item.href),
        "assets": [_asset(file, item) for file in _files(item)],
    }


def _files(item: SourceItem) -> list[BandFile]:
    """One entry an asset."""
    return list({file.asset: file for file in item.files}.values())


def _asset(file: BandFile, item: SourceItem) -> dict[str, Any]:
    return {
        "key": file.asset,
        "href": _public(file.href),
        "etag": item.contents.get(file.href) if is_url(file.href) or file.href in item.digests else None,
        "size": None,
    }


def _public(href: str | None) -> str | None:
    """An address without its secrets; None for a local path."""
    return None if href is None or not is_url(href) else without_secrets(href)
