"""`sources.parquet`: every item considered, how it was read, and what became of it."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import shapely

from clay_publish.producer.imagery.pixel_evidence import EvidenceIndex, recorded
from clay_publish.producer.sources.item import BandFile, ResolvedBand, SourceItem
from clay_publish.producer.sources.major_tom import ParquetCell
from clay_publish.producer.sources.selection import Considered, UnreadItem
from clay_publish.redaction import without_secrets
from clay_publish.release import directory as paths
from clay_publish.release.directory import Release
from clay_publish.release.geoparquet import bbox_array, geo_metadata, group_rows, table_writer, total_bbox
from clay_publish.release.stored_rows import StoredRows
from clay_publish.release.tables import sources_schema
from clay_publish.spec.models import Spec
from clay_publish.spec.sensors import CloudMask
from clay_publish.storage.store import is_url

_SHAPES = 1 << 14
"""Footprints that are geometries at a time."""
_AT_ONCE = 16
"""Kept evidence that is read at a time: on a server most of the time is spent waiting."""


def write_sources(release: Release, considered: Sequence[Considered], broken: Sequence[UnreadItem], spec: Spec) -> None:
    """Write the table, with what is known so far of the pixels of its images.

    Of images that are not read, as their chips are reused, the version before knows.
    """
    known, schema = _Known(release, spec), sources_schema()
    rows, footer = group_rows(schema), {"geo": json.dumps(_geo(considered))}
    with (
        ThreadPoolExecutor(_AT_ONCE) as pool,
        table_writer(release.store, paths.SOURCES, schema.with_metadata(footer)) as writer,
    ):
        for start in range(0, len(considered) + len(broken), rows):  # all of them as objects may not fit into memory
            found = list(pool.map(known.look, considered[start : start + rows]))
            first, stop = (max(0, place - len(considered)) for place in (start, start + rows))
            writer.write_table(_table(found, broken[first:stop]), row_group_size=rows)


def _geo(considered: Sequence[Considered]) -> dict[str, Any]:
    """The `geo` footer of the table."""
    kinds, bounds = set[str](), [np.empty((0, 4))]
    for start in range(0, len(considered), _SHAPES):
        read = shapely.from_wkb([each.item.footprint for each in considered[start : start + _SHAPES]])
        shapes = read[~shapely.is_missing(read)]
        kinds |= {shape.geom_type for shape in shapes}
        boxes = bbox_array(shapes)
        bounds.append(np.stack([boxes.field(side).to_numpy() for side in ("xmin", "ymin", "xmax", "ymax")], axis=1))
    return geo_metadata(kinds, total_bbox(np.concatenate(bounds)))


class _Known:
    """What samples of pixels said when units read them."""

    def __init__(self, release: Release, spec: Spec) -> None:
        self._release, self._spec, self._sensor = release, spec, spec.instrument
        self._there = EvidenceIndex(release)
        self._before = None if spec.previous is None else _Before(Release(spec.previous))

    def look(self, each: Considered) -> "_Looked":
        if each.status != "used":
            return _Looked(each)
        found, accept = None, self._spec.imagery[each.item.block].accept_values
        if each.item in self._there:
            found = recorded(each.item, self._sensor, accept=accept, release=self._release)
        if found is not None:
            return _Looked(replace(each, item=found.item), found.evidence.model_dump(mode="json"))
        key = None if self._before is None else decides(_row(_Looked(each), None))
        before = None if self._before is None or key is None else self._before.find(key)
        if before is None:
            return _Looked(each)
        item = each.item.changed(resolved=tuple(ResolvedBand(**band) for band in before["bands"]))
        return _Looked(replace(each, item=item), before["evidence"])


class _Before:
    """What the version before says of the pixels of its images: 36 bytes for each, and rows when they are asked for."""

    def __init__(self, release: Release) -> None:
        file = release.parquet(paths.SOURCES)
        keys, rows, count = [np.zeros(0, "S32")], [np.zeros(0, np.int32)], 0
        for batch in file.iter_batches(group_rows(sources_schema())):
            known = [(decides(row) if row["evidence"] else None) or b"" for row in batch.to_pylist()]
            keys.append(np.array(known, "S32"))
            rows.append(np.arange(count, count + len(known), dtype=np.int32))
            count += len(known)
        whole = np.concatenate(keys)
        order = np.argsort(whole, kind="stable")
        self._keys, self._numbers = whole[order], np.concatenate(rows)[order]
        self._rows = StoredRows(file, ["bands", "evidence"])

    def find(self, key: bytes) -> dict[str, Any] | None:
        """Bands and evidence of the image whose chips this decides; None where it has none."""
        place = int(np.searchsorted(self._keys, np.bytes_(key)))
        if place == len(self._keys) or self._keys[place] != key.rstrip(b"\0"):
            return None
        found: dict[str, Any] = self._rows.take(self._numbers[place : place + 1]).to_pylist()[0]
        return found


@dataclass(frozen=True)
class _Looked:
    """An item, with scale and offset of its files, and what its pixels say."""

    considered: Considered
    evidence: dict[str, Any] | None = None


def decides(row: dict[str, Any]) -> bytes | None:
    """Return a digest of what decides the chips of an image, from its row of the table; None: its content is unknown.

    Left out are its terms, its addresses, and what became of it. Two rows with the same digest give the same chips.
    """
    if any(asset["etag"] is None for asset in row["assets"]):
        return None
    kept = {name: value for name, value in row.items() if name not in _NOT_DECISIVE}
    kept["assets"] = [(asset["key"], asset["etag"]) for asset in row["assets"]]
    kept["bands"] = [_stated(band) for band in row["bands"]]
    return hashlib.sha256(repr(sorted(kept.items())).encode("utf-8", "surrogatepass")).digest()


_NOT_DECISIVE = frozenset(
    {"collection", "block", "status", "reason", "bbox", "platform", "level", "evidence", "license", "attribution"}
    | {"href"}
)
_BY_FILE = frozenset({"assumed", "sensor", "file"})
"""Where scale and offset follow from these, the content of the file decides, or what is the same in all items."""


def _stated(band: dict[str, Any]) -> tuple[Any, ...]:
    """What the item states of a band."""
    place = (band["name"], band["asset"], band["band"])
    by = band["source"].rpartition("values: ")[2]
    return place if by in _BY_FILE else (*place, band["scale"], band["offset"])


def planned_sources(considered: Sequence[Considered]) -> Iterator[dict[str, Any]]:
    """Rows of the table for these items before any of their pixels are looked at."""
    rows = group_rows(sources_schema())
    for start in range(0, len(considered), rows):
        yield from _table([_Looked(each) for each in considered[start : start + rows]], []).to_pylist()


def _table(looked: Sequence[_Looked], broken: Sequence[UnreadItem]) -> pa.Table:
    """Rows of the table; no local path and no signature goes into them."""
    geometries = np.array([each.considered.item.geometry for each in looked], dtype=object)
    known = np.array([geometry is not None for geometry in geometries], dtype=bool)
    place = iter(bbox_array(geometries[known]).to_pylist())
    rows = [_row(each, next(place) if has else None) for each, has in zip(looked, known, strict=True)]
    rows += [{**vars(each), "status": "unused", "bands": [], "assets": []} for each in broken]
    return pa.Table.from_pylist(rows, schema=sources_schema())


def _row(looked: _Looked, bbox: dict[str, float] | None) -> dict[str, Any]:
    each = looked.considered
    item, contents, digests = each.item, each.item.contents, each.item.digests
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
        "bands": [asdict(band) for band in item.resolved],
        "mask": None if item.mask is None else {"asset": item.mask.asset, **_values(item.mask.values)},
        "level": item.level,
        "evidence": looked.evidence,
        "license": item.license,
        "attribution": item.attribution,
        "href": _public(item.href),
        "assets": [_asset(file, contents, digests) for file in _files(item)],
    }


def _values(mask: CloudMask) -> dict[str, Any]:
    return {"format": mask.format, "cloudy": list(mask.cloudy), "nodata": list(mask.nodata), "bands": list(mask.bands)}


def _files(item: SourceItem) -> list[BandFile]:
    """One entry an asset."""
    return list({file.asset: file for file in item.files}.values())


def _asset(file: BandFile, contents: Mapping[str, str], digests: Mapping[str, str]) -> dict[str, Any]:
    return {
        "key": file.asset,
        "href": _public(file.href),
        "etag": _content(file, contents) if is_url(file.href) or file.href in digests else None,
        "size": None,
    }


def _content(file: BandFile, contents: Mapping[str, str]) -> str | None:
    """What identifies the content of an image, and of the `.msk` beside it."""
    image, mask = (contents.get(each.href) for each in (file, file.external_mask))
    return image if image is None or mask is None else f"{image} {mask}"


def _public(href: str | None) -> str | None:
    """An address without its secrets; None for a local path. Of a value of a Parquet file, with its row and column.

    A local copy of Major TOM has the file names of the original: folder and name are kept.
    """
    cell = None if href is None else ParquetCell.parse(href)
    if cell is not None:
        address = cell.address if is_url(cell.address) else "/".join(cell.address.rsplit("/", 2)[-2:])
        return replace(cell, address=without_secrets(address) if is_url(address) else address).href
    return None if href is None or not is_url(href) else without_secrets(href)
