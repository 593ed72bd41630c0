"""The files of a plan, in `.run/`."""

from typing import Any

import numpy as np
import pyarrow as pa

from clay_publish.geo.utm_grid import epsg_of
from clay_publish.producer.layouts.base import Counts, SquareCount, UncoveredCells
from clay_publish.producer.planning.cost import Rates, stored_bytes
from clay_publish.producer.planning.estimate import Estimate, stated_rates
from clay_publish.release import directory as paths
from clay_publish.release.directory import DataFile, Release, checked
from clay_publish.release.geoparquet import write_table
from clay_publish.release.manifest import dump_json
from clay_publish.release.tables import TIMESTAMP
from clay_publish.spec.models import Spec

PLAN = f"{paths.RUN}/plan.json"
SQUARES = f"{paths.RUN}/plan.parquet"
"""One row a 100 km square and window."""
MISSING = f"{paths.RUN}/plan-missing.parquet"
"""Cells without a candidate, as runs along rows."""


def planned_rates(release: Release, spec: Spec) -> Rates | None:
    """The rates of the plan that was made for this directory, else those that the spec states.

    Raises:
        ReleaseError: there is a plan, and it cannot be read.
    """
    if not release.store.exists(PLAN):
        return stated_rates(spec)
    rates = release.json(PLAN).get("rates")
    where, fix = release.store.path(PLAN), "Plan again, or remove it."
    return None if rates is None else checked(Rates, rates, where, "a plan", fix)


def write_estimate(release: Release, made: Estimate, counts: Counts) -> None:
    """Write the plan, its squares, and its cells without imagery."""
    release.store.write(PLAN, dump_json(made.model_dump(mode="json")))
    table = pa.Table.from_pylist([_row(each, made) for each in counts.squares], schema=_SCHEMA)
    write_table(release.store, SQUARES, table, index="file")
    parts = [_missing(each) for each in counts.missing]
    write_table(release.store, MISSING, pa.concat_tables(parts) if parts else _MISSING_SCHEMA.empty_table())


_SCHEMA = pa.schema(
    [
        ("file", pa.string()),
        ("zone", pa.int32()),
        ("column", pa.int32()),
        ("row", pa.int32()),
        ("mgrs", pa.string()),
        ("window_start", TIMESTAMP),
        ("window_end", TIMESTAMP),
        ("expected", pa.int64()),
        ("with_imagery", pa.int64()),
        ("no_imagery", pa.int64()),
        ("excluded", pa.int64()),
        ("images", pa.int64()),
        ("bytes_to_store", pa.int64()),
    ]
)


_MISSING_SCHEMA = pa.schema(
    [
        ("epsg", pa.int32()),
        ("row", pa.int32()),
        ("first_col", pa.int32()),
        ("last_col", pa.int32()),
        ("window_start", TIMESTAMP),
        ("window_end", TIMESTAMP),
        ("reason", pa.string()),
    ]
)


def _missing(each: UncoveredCells) -> pa.Table:
    row, first, stop = each.runs
    count, window = len(row), each.window
    columns = [
        pa.array(epsg_of(np.full(count, each.zone), row), pa.int32()),
        pa.array(row, pa.int32()),
        pa.array(first, pa.int32()),
        pa.array(stop - 1, pa.int32()),
        pa.repeat(pa.scalar(window.start, TIMESTAMP), count),
        pa.repeat(pa.scalar(window.end, TIMESTAMP), count),
        pa.repeat(each.reason, count),
    ]
    return pa.Table.from_arrays(columns, schema=_MISSING_SCHEMA)


def _row(each: SquareCount, made: Estimate) -> dict[str, Any]:
    return {
        "file": DataFile(each.square, each.window).name,
        "zone": each.square.zone,
        "column": each.square.column,
        "row": each.square.row,
        "mgrs": each.square.mgrs(),
        "window_start": each.window.start,
        "window_end": each.window.end,
        "expected": each.expected,
        "with_imagery": each.with_imagery,
        "no_imagery": each.no_imagery,
        "excluded": each.excluded,
        "images": each.images,
        "bytes_to_store": stored_bytes(each.with_imagery, made.dimensions, made.dtype, made.patches),  # type: ignore[arg-type]
    }
