"""STAC Item Search over `items.parquet`, a page at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import shapely

from clay_publish import release as paths
from clay_publish.catalog.cql2 import geometry, matches, properties
from clay_publish.reader import ReleaseReader
from clay_publish.reading.extent import JUDGED, Extent, QueryError
from clay_publish.reading.pruning import read


@dataclass(frozen=True)
class Question:
    """What a client asks for; None: no matter."""

    ids: Sequence[str] | None = None
    bbox: Sequence[float] | None = None
    intersects: Mapping[str, Any] | None = None
    datetime: str | None = None
    condition: Mapping[str, Any] | None = None
    """CQL2-JSON."""


@dataclass(frozen=True)
class Page:
    """Some of the items that were asked for."""

    items: pa.Table
    matched: int
    """How many there are on all pages."""
    following: int | None
    """Where the next page begins, in rows of `items.parquet`."""


def find_items(reader: ReleaseReader, question: Question, *, limit: int, start: int = 0) -> Page:
    """The items that answer a question, from row `start` of `items.parquet` on.

    Raises:
        QueryError: a question that makes no sense.
        ReleaseError: the table cannot be read.
    """
    release = reader.release
    file, where = release.parquet(paths.ITEMS), release.store.path(paths.ITEMS)
    shape, extent = _place(question)
    needed = _columns(question, exact=shape is not None)
    unknown = needed - set(file.schema_arrow.names)
    if unknown:
        raise QueryError("filter", f"asks for {min(unknown)!r}", "a property of the items", "`/queryables` lists them.")
    starts = np.cumsum([0, *(file.metadata.row_group(g).num_rows for g in range(file.num_row_groups))])
    found = []
    for group in extent.row_groups(file.metadata):
        rows = read(file, [group], sorted(needed), where)
        mask = extent.meets(rows)
        if question.ids is not None:
            mask &= np.isin(rows["id"].to_numpy(zero_copy_only=False), list(question.ids))
        if shape is not None and mask.any():
            near = np.flatnonzero(mask)
            wkb = rows["geometry"].to_numpy(zero_copy_only=False)[near]
            mask[near] = shapely.intersects(shapely.from_wkb(wkb), shape)
        if question.condition is not None and mask.any():
            mask &= matches(question.condition, rows)
        found.append(np.flatnonzero(mask) + starts[group])
    every = np.concatenate(found) if found else np.empty(0, dtype=np.int64)
    rest = every[every >= start]
    following = int(rest[limit]) if len(rest) > limit else None
    return Page(reader.rows(rest[:limit]), len(every), following)


def _place(question: Question) -> tuple[shapely.Geometry | None, Extent]:
    """The exact shape, and a box and time around it."""
    if question.bbox is not None and question.intersects is not None:
        raise QueryError("bbox", "and intersects exclude each other", "one of them")
    bbox = question.bbox
    if bbox is not None:
        sides = [bbox[0], bbox[1], bbox[3], bbox[4]] if len(bbox) == 6 else list(bbox)
        extent = Extent.of(sides, question.datetime)
        return geometry({"bbox": sides}), extent
    if question.intersects is not None:
        shape = geometry(question.intersects)
        if shape.is_empty:
            raise QueryError("intersects", "is empty", "a geometry with points")
        west, south, east, north = shape.bounds
        box = [max(west, -180), max(south, -90), min(east, 180), min(north, 90)]
        return shape, Extent.of(box, question.datetime)
    return None, Extent.of(None, question.datetime)


def _columns(question: Question, *, exact: bool) -> set[str]:
    needed = {*JUDGED}
    if question.ids is not None:
        needed.add("id")
    if exact:
        needed.add("geometry")
    return needed | (properties(question.condition) if question.condition is not None else set())
