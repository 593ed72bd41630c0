"""Joining embeddings to a table of places."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from clay_publish.search.query import QueryError

LONGITUDE = ("lon", "longitude", "lng", "long", "x")
LATITUDE = ("lat", "latitude", "y")
"""Names of the columns that tell the place, in any case."""

Floats = npt.NDArray[np.float64]


def read_points(path: str) -> pa.Table:
    """A table of places: CSV (also compressed) or Parquet.

    Raises:
        QueryError: it cannot be read.
    """
    try:
        table: pa.Table = pq.read_table(path) if path.endswith(".parquet") else pyarrow.csv.read_csv(path)
    except (pa.ArrowException, OSError) as error:
        raise QueryError(path, f"cannot be read ({error})", "a CSV or Parquet table with lon and lat") from error
    return table


def coordinates(points: pa.Table) -> tuple[Floats, Floats]:
    """Longitude and latitude of places, degrees.

    Raises:
        QueryError: no columns, or more than one, tell them; or they hold something else than numbers.
    """
    return _numbers(points, LONGITUDE, "longitude"), _numbers(points, LATITUDE, "latitude")


def join(points: pa.Table, chips: pa.Table, meters: Floats, more: Mapping[str, Any]) -> pa.Table:
    """Join places to chips.

    Args:
        points: the places.
        chips: one row for each place that has a chip.
        meters: [n] to the chip; infinite where a place has none.
        more: text columns of the places.

    Returns:
        The places with `distance` (meters), columns `chip_*`, and `embedding` (float32); null where there is no chip.

    Raises:
        QueryError: the table of places has such a column already.
    """
    found = np.isfinite(meters)
    places = pa.array(np.cumsum(found) - 1, mask=~found)
    added: dict[str, Any] = {"distance": pa.array(np.where(found, meters, 0.0), mask=~found)}
    for name in ("id", "datetime", "lon", "lat"):
        added[f"chip_{name}"] = chips[name].take(places)
    added["embedding"] = chips["embedding"].combine_chunks().take(places)
    added |= {name: pa.array(values, pa.string()) for name, values in more.items()}
    taken = [name for name in added if name in points.column_names]
    if taken:
        raise QueryError(
            "points", f"have a column {taken[0]!r} already", "another name for it", "The join adds one of this name."
        )
    for name, column in added.items():
        points = points.append_column(name, column)
    return points


def _numbers(points: pa.Table, names: tuple[str, ...], what: str) -> Floats:
    present = [name for wanted in names for name in points.column_names if name.lower() == wanted]
    if not present:
        raise QueryError("points", f"have no column for the {what}", f"one called {' or '.join(names[:2])}")
    try:
        column = pc.cast(points[present[0]], pa.float64())
    except pa.ArrowException as error:
        raise QueryError(f"column {present[0]}", f"holds no numbers ({error})", "degrees, WGS 84") from error
    return np.asarray(column.to_numpy(), dtype=np.float64)
