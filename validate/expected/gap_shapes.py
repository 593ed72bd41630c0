"""The features that gaps.geojson should have, computed from the coverage tables and the pixel grids alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import shapely

from clay_publish.errors import ReleaseError
from clay_publish.geo.footprints import footprints
from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.data.coverage_table import coverage_batches, equals
from clay_publish.validate.expected.cells import Grid, scene_grid, utm_grid
from clay_publish.windows import Window

MOST_CHIPS = 500_000
"""Missing chips whose outlines are drawn again; beyond it features are as coarse as square degrees."""
FINE = 5_000
"""Features, at most, that are drawn chip by chip."""
COARSE = "drawn coarsely; the coverage table counts chips"
_COLUMNS = ["epsg", "row", "col", "window_start", "window_end", "status", "reason", "item_ids", "detail"]
_CORNERS = np.array([[0, 0], [0, 1], [1, 1], [1, 0]])
"""Of a run of cells: which of its first and last column, and of its row and the next, by corner."""


@dataclass(frozen=True)
class Gap:
    """A run of missing chips, or a square degree of them."""

    reason: str
    window: str
    detail: str | None
    chips: int
    shape: Any


def expected_gaps(context: ReleaseContext) -> list[Gap]:
    """Missing chips whose place is known: neighbors in a row that lack for the same reason are one feature.

    Raises:
        ReleaseError: the coverage, or the grid of an image, cannot be read.
    """
    runs = [run for path in context.tables.coverage for run in _runs(context, path)]
    return _by_degree(runs) if len(runs) > FINE else runs


def _runs(context: ReleaseContext, path: str) -> Iterator[Gap]:
    """Runs of one coverage table."""
    batches = coverage_batches(context.tables, _COLUMNS, [path])
    missing = [batch.filter(pa.array(equals(batch.column("status"), "missing"))) for batch in batches]
    rows = pa.Table.from_batches(missing).to_pylist()
    kinds: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        key = (row["window_start"], row["window_end"], row["reason"], tuple(row["item_ids"] or ()), row["epsg"])
        kinds.setdefault(key, []).append(row)
    for members in kinds.values():
        placed = [row for row in members if row["row"] is not None and row["col"] is not None]
        yield from _along_rows(context, sorted(placed, key=lambda each: (each["row"], each["col"])))
        for row in members:
            shape = None if row["row"] is not None else _outline(context, row)
            if shape is not None:
                yield _gap(row, 1, shape)


def _outline(context: ReleaseContext, row: dict[str, Any]) -> Any:
    """The footprint of an image whose grid is unknown; None where it has no footprint."""
    source = context.sources.named(next(iter(row["item_ids"] or ()), ""))
    return None if source is None else source.geometry


def _along_rows(context: ReleaseContext, rows: list[dict[str, Any]]) -> Iterator[Gap]:
    """Runs of rows of one kind, in the order of row and column."""
    if not rows:
        return
    cells = np.array([(row["row"], row["col"]) for row in rows])
    starts = np.flatnonzero(np.concatenate([[True], (np.diff(cells[:, 0]) != 0) | (np.diff(cells[:, 1]) != 1)]))
    stops = np.append(starts[1:], len(rows))
    edges = np.stack([cells[starts, 1], cells[stops - 1, 1] + 1], axis=1)
    column, row = edges[:, _CORNERS[:, 0]], cells[starts, 0][:, None] + _CORNERS[:, 1]
    grid = _grid(context, rows[0])
    corners = np.stack([column, row, np.ones_like(row)], axis=-1).astype(np.float64) @ grid.matrix.T
    for start, stop, shape in zip(starts.tolist(), stops.tolist(), footprints(grid.crs, corners), strict=True):
        yield _gap(rows[start], stop - start, shape)


def _grid(context: ReleaseContext, row: dict[str, Any]) -> Grid:
    if context.fingerprint.layout == "utm":
        return utm_grid(row["epsg"], context.fingerprint)
    name = next(iter(row["item_ids"] or ()), "")
    source = context.sources.named(name)
    if source is None:
        raise ReleaseError("coverage", f"names the item {name!r:.60}, which sources.parquet does not")
    return scene_grid(source, context.fingerprint.size)


def _gap(row: dict[str, Any], chips: int, shape: Any) -> Gap:
    window = Window(row["window_start"], row["window_end"])
    return Gap(str(row["reason"]), str(window), row["detail"], chips, shape)


def _by_degree(runs: list[Gap]) -> list[Gap]:
    """One box for what lacks for the same reason, in the same window, within the same degree."""
    shapes = np.array([run.shape for run in runs], dtype=object)
    degrees = np.floor(shapely.get_coordinates(shapely.centroid(shapes)))
    found: dict[tuple[Any, ...], list[int]] = {}
    for number, (run, degree) in enumerate(zip(runs, degrees.tolist(), strict=True)):
        found.setdefault((run.reason, run.window, *degree), []).append(number)
    return [
        Gap(
            reason,
            window,
            COARSE,
            sum(runs[n].chips for n in members),
            shapely.box(*shapely.total_bounds(shapes[members])),
        )
        for (reason, window, *_), members in found.items()
    ]
