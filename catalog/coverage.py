"""How many chips each embeddings file should hold, and why some are missing: counted from the coverage table."""

from collections import Counter, defaultdict
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clay_publish import release as paths
from clay_publish.fingerprint import Fingerprint
from clay_publish.footprint import centres
from clay_publish.release import DataFile, Release
from clay_publish.squares import SQUARE, Square, squares_of
from clay_publish.windows import Window

_COLUMNS = ["epsg", "row", "col", "window_start", "window_end", "reason", "item_ids"]

Ints = npt.NDArray[np.int64]
Missing = dict[DataFile, Counter[str]]
"""Square and window → reason → chips."""


def missing_chips(release: Release, fingerprint: Fingerprint) -> Missing:
    """Count the chips that were expected and are not there, by the file they would lie in.

    Chips of an image that could not even be counted have no cell, and are not here.

    Raises:
        ReleaseError: a coverage file or `sources.parquet` cannot be read.
    """
    found: Missing = defaultdict(Counter)
    grids = _scene_grids(release) if fingerprint.layout == "scene" else {}
    for path in release.data_files(paths.COVERAGE):
        file = release.parquet(path)
        for batch in file.iter_batches(columns=[*_COLUMNS, "status"], batch_size=1 << 18):
            absent = pc.and_(pc.not_equal(batch["status"], "embedded"), pc.is_valid(batch["row"]))
            table = pa.Table.from_batches([batch]).filter(absent)
            if table.num_rows:
                squares = _utm_squares(table, fingerprint) if not grids else _scene_squares(table, grids, fingerprint)
                _count(table, squares, found)
    return dict(found)


def _count(table: pa.Table, squares: list[Square | None], found: Missing) -> None:
    rows = zip(
        squares,
        table["window_start"].to_pylist(),
        table["window_end"].to_pylist(),
        table["reason"].to_pylist(),
        strict=True,
    )
    for (square, start, end, reason), number in Counter(rows).items():
        if square is not None:
            found[DataFile(square, Window(start, end))][reason or "failed"] += number


def _utm_squares(table: pa.Table, fingerprint: Fingerprint) -> list[Square | None]:
    """A cell lies in the square of its own zone that holds its centre."""
    side = fingerprint.size * (fingerprint.gsd or 0)
    zone = table["epsg"].to_numpy() % 100
    column = np.floor_divide((table["col"].to_numpy() + 0.5) * side, SQUARE).astype(int)
    row = np.floor_divide((table["row"].to_numpy() + 0.5) * side, SQUARE).astype(int)
    return _intern(zone, column, row)


def _intern(zone: Ints, column: Ints, row: Ints) -> list[Square | None]:
    keys, places = np.unique(np.stack([zone, column, row], axis=1), axis=0, return_inverse=True)
    made = [Square(int(z), int(c), int(r)) for z, c, r in keys]
    return [made[place] for place in places.ravel()]


def _scene_grids(release: Release) -> dict[str, tuple[str, list[float]]]:
    """Item id → projection and transform of its pixels."""
    table = release.parquet(paths.SOURCES).read(columns=["id", "proj_code", "proj_transform"])
    return {
        row["id"]: (row["proj_code"], row["proj_transform"])
        for row in table.to_pylist()
        if row["proj_code"] and row["proj_transform"]
    }


def _scene_squares(table: pa.Table, grids: dict[str, Any], fingerprint: Fingerprint) -> list[Square | None]:
    """A chip of a scene lies in the square that holds its centre."""
    items = np.array([names[0] if names else "" for names in table["item_ids"].to_pylist()], dtype=object)
    row, col = table["row"].to_numpy(), table["col"].to_numpy()
    squares: list[Square | None] = [None] * table.num_rows
    for item in set(items) & set(grids):
        crs, affine = grids[item]
        mine = np.flatnonzero(items == item)
        u, v = (col[mine] + 0.5) * fingerprint.size, (row[mine] + 0.5) * fingerprint.size
        a, b, c, d, e, f = affine[:6]
        lon, lat = centres(crs, a * u + b * v + c, d * u + e * v + f)
        for place, square in zip(mine, squares_of(lon, lat), strict=True):
            squares[place] = square
    return squares
