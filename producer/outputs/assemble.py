"""From parts to published files: Hilbert order, fixed row groups, complete or not at all."""

import json
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clay_publish.errors import ReleaseError
from clay_publish.producer.outputs.parts import COVERAGE, PARTS, grid_rows, part_path, read_parts, remove_all
from clay_publish.producer.outputs.patches import patches_token
from clay_publish.producer.unit_plan import Plan
from clay_publish.release import directory as paths
from clay_publish.release.directory import DataFile, Release
from clay_publish.release.geoparquet import (
    geo_metadata,
    group_rows,
    hilbert_distance,
    table_writer,
    total_bbox,
)
from clay_publish.release.metadata import footer_emb
from clay_publish.release.tables import coverage_schema, hugging_face_features
from clay_publish.release.unit_receipts import RECEIPTS, UnitReceipt


def publish_file(release: Release, file: DataFile, receipts: Iterable[UnitReceipt], plan: Plan, gsd: float) -> bool:
    """Write a published embeddings file from the parts of its units; False where there is none to write.

    Where a unit is done again after the file was published, its rows join or replace those that are there.
    """
    mine = sorted((receipt for receipt in receipts if file.token in receipt.parts), key=lambda receipt: receipt.unit)
    there = [receipt for receipt in mine if release.store.exists(part_path(receipt.unit, file.token))]
    if not there:
        return False
    table = pa.concat_tables(read_parts(release, there, file.token))
    path = f"{paths.EMBEDDINGS}/{file.name}"
    if len(there) < len(mine):
        earlier = release.parquet(path).read().replace_schema_metadata(None)
        kept = earlier.filter(pc.invert(pc.is_in(earlier["id"], table["id"].combine_chunks())))
        table = pa.concat_tables([table, kept])
    order = hilbert_order(table)
    footer = {
        "geo": json.dumps(describe_geometry(table["bbox"].combine_chunks()), sort_keys=True),
        "emb": json.dumps(footer_emb(plan.fingerprint, gsd), sort_keys=True),
        "huggingface": json.dumps({"info": {"features": hugging_face_features(table.schema)}}),
    }
    with table_writer(release.store, path, table.schema.with_metadata(footer)) as writer:
        step = group_rows(table.schema)
        for start in range(0, table.num_rows, step):
            rows = take_rows(table, order[start : start + step])
            writer.write_table(rows.replace_schema_metadata(footer), row_group_size=step)
    return True


def hilbert_order(table: pa.Table) -> npt.NDArray[np.int64]:
    """Row numbers along a Hilbert curve over longitude and latitude; by id where two lie at one place."""
    distance = hilbert_distance(table["lon"].to_numpy(), table["lat"].to_numpy())
    keys = pa.table({"distance": distance, "id": table["id"]})
    return np.asarray(pc.sort_indices(keys, [("distance", "ascending"), ("id", "ascending")]), dtype=np.int64)


def take_rows(table: pa.Table, rows: npt.NDArray[np.int64]) -> pa.Table:
    """Rows by number, chunk by chunk: the other rows of a memory-mapped table are never copied."""
    batches = table.to_batches()
    starts = np.cumsum([0, *(batch.num_rows for batch in batches)])
    owner = np.searchsorted(starts, rows, side="right") - 1
    grouped = np.argsort(owner, kind="stable")
    parts = np.split(grouped, np.flatnonzero(np.diff(owner[grouped])) + 1)
    taken = [batches[owner[mine[0]]].take(pa.array(rows[mine] - starts[owner[mine[0]]])) for mine in parts]
    return pa.Table.from_batches(taken).combine_chunks().take(pa.array(np.argsort(grouped, kind="stable")))


def describe_geometry(boxes: pa.StructArray) -> dict[str, Any]:
    """The `geo` key of a table whose covering is `boxes`."""
    sides = np.stack([boxes.field(side).to_numpy() for side in ("xmin", "ymin", "xmax", "ymax")], axis=1)
    kinds = {"Polygon"} | ({"MultiPolygon"} if (sides[:, 0] > sides[:, 2]).any() else set())
    return geo_metadata(kinds, total_bbox(sides))


_BANDS = 1 << 16, 1 << 19
"""Rows of coverage that are ordered at a time, at least and at most."""
_OF_UNIT = 64
"""Of these, rows of each unit: where all units lie in all rows of the grid, as scenes do, fewer would be slow."""
_ORDER = ("epsg", "row", "col", "window_start", "id")


def publish_coverage(release: Release, receipts: Sequence[UnitReceipt]) -> Iterator[pa.Table]:
    """Write `coverage/zone=ZZ.parquet` for every zone; gives its missing rows, with their footprints, some at a time.

    Rows of one row of the grid are given together.

    Raises:
        ReleaseError: a part is not what its receipt says.
    """
    schema, step = coverage_schema(), group_rows(coverage_schema())
    for zone, groups in sorted(_by_zone(release, receipts).items()):
        waiting = schema.empty_table()
        with table_writer(release.store, f"{paths.COVERAGE}/zone={zone:02d}.parquet", schema) as writer:
            for group in groups:
                for rows in _in_order(read_parts(release, group, COVERAGE), zone):
                    waiting = pa.concat_tables([waiting, rows.select(schema.names).cast(schema)])
                    while len(waiting) >= step:
                        writer.write_table(waiting.slice(0, step).combine_chunks(), row_group_size=step)
                        waiting = waiting.slice(step)
                    yield rows.filter(pc.equal(rows["status"], "missing"))
            if len(waiting):
                writer.write_table(waiting.combine_chunks(), row_group_size=step)


def _by_zone(release: Release, receipts: Sequence[UnitReceipt]) -> dict[int, list[list[UnitReceipt]]]:
    """The units of each zone in groups that have no row of the grid in common, in the order of these rows."""
    found: dict[int, list[tuple[int, int, UnitReceipt]]] = {}
    for receipt in receipts:
        entry = receipt.parts.get(COVERAGE)
        if entry is not None and entry.rows and not entry.zones:
            where = release.store.path(f"{RECEIPTS}/{receipt.unit}.json")
            raise ReleaseError(where, "does not say where its rows lie", fix="Remove it; the unit is done again.")
        for zone, (first, last) in entry.zones.items() if entry is not None else ():
            found.setdefault(zone, []).append((first, last, receipt))
    made: dict[int, list[list[UnitReceipt]]] = {}
    for zone, units in found.items():
        end = -1
        for first, last, receipt in sorted(units, key=itemgetter(0, 1)):
            if first > end:
                made.setdefault(zone, []).append([])
            made[zone][-1].append(receipt)
            end = max(end, last)
    return made


def _in_order(parts: Sequence[pa.Table], zone: int) -> Iterator[pa.Table]:
    """The rows of a zone in their order, some at a time."""
    table = pa.concat_tables(parts)
    mine = np.flatnonzero(pc.equal(table["zone"], zone).to_numpy())
    place = grid_rows(table)[mine]
    order = np.argsort(place, kind="stable")
    begins = np.flatnonzero(np.diff(place[order])) + 1
    count = int(np.clip(len(parts) * _OF_UNIT, *_BANDS))
    cuts = np.searchsorted(begins, np.arange(count, len(mine), count))
    for some in np.split(mine[order], np.unique(begins[cuts[cuts < len(begins)]])):
        yield take_rows(table, some).sort_by([(key, "ascending") for key in _ORDER])


def remove_parts(release: Release, file: DataFile, receipts: Sequence[UnitReceipt], *, patches: bool) -> None:
    """Remove the parts of a published file; those of its patches first, which cannot be published without it.

    Args:
        release: that holds them.
        file: that was published.
        receipts: of its units.
        patches: whether its patches were published too; arrays are made of their parts later.
    """
    for token in (*([patches_token(file.token)] if patches else []), file.token):
        remove_all(release, [part_path(receipt.unit, token) for receipt in receipts if token in receipt.parts])


def remove_unknown_files(release: Release, files: Iterable[DataFile], receipts: Iterable[UnitReceipt]) -> None:
    """Remove parts that no receipt names, and published files that this plan does not have."""
    known = {part_path(r.unit, token) for r in receipts for token in r.parts}
    remove_all(release, [path for path in release.store.files(PARTS) if path not in known])
    names = {f"{folder}/{file.name}" for file in files for folder in (paths.EMBEDDINGS, paths.PATCHES)}
    for folder in (paths.EMBEDDINGS, paths.PATCHES):
        remove_all(release, [path for path in release.store.files(folder) if path not in names])
