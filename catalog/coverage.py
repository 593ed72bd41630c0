"""How many chips each embeddings file should hold, and why some are missing: counted from the coverage table."""

from collections import Counter, defaultdict

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
                scene = fingerprint.layout == "scene"
                squares = _scene_squares(table, grids, fingerprint) if scene else _utm_squares(table, fingerprint)
                _count(table, squares, found)
    return dict(found)


def _count(table: pa.Table, squares: Ints, found: Missing) -> None:
    """Add the rows of a table; `squares` are [n, 3] zone, column and row, zone 0 where the place is not known."""
    keys = ["zone", "column", "row", "start", "end", "reason"]
    columns = [*squares.T, table["window_start"], table["window_end"], table["reason"]]
    counted = pa.table(columns, names=keys).group_by(keys).aggregate([([], "count_all")])
    for each in counted.to_pylist():
        if each["zone"]:
            file = DataFile(Square(each["zone"], each["column"], each["row"]), Window(each["start"], each["end"]))
            found[file][each["reason"] or "failed"] += each["count_all"]


def _utm_squares(table: pa.Table, fingerprint: Fingerprint) -> Ints:
    """A cell lies in the square of its own zone that holds its centre."""
    side = fingerprint.size * (fingerprint.gsd or 0)
    zone = table["epsg"].to_numpy() % 100
    column, row = (np.floor_divide((table[name].to_numpy() + 0.5) * side, SQUARE) for name in ("col", "row"))
    return np.stack([zone, column, row], axis=1).astype(np.int64)


def _scene_grids(release: Release) -> dict[str, tuple[str, list[float]]]:
    """Item id → projection and transform of its pixels."""
    table = release.parquet(paths.SOURCES).read(columns=["id", "proj_code", "proj_transform"])
    return {
        row["id"]: (row["proj_code"], row["proj_transform"])
        for row in table.to_pylist()
        if row["proj_code"] and row["proj_transform"]
    }


def _scene_squares(table: pa.Table, grids: dict[str, tuple[str, list[float]]], fingerprint: Fingerprint) -> Ints:
    """A chip of a scene lies in the square that holds its centre."""
    items = np.array([names[0] if names else "" for names in table["item_ids"].to_pylist()], dtype=object)
    row, col = table["row"].to_numpy(), table["col"].to_numpy()
    squares = np.zeros((table.num_rows, 3), dtype=np.int64)
    for item in set(items) & set(grids):
        crs, affine = grids[item]
        mine = np.flatnonzero(items == item)
        u, v = (col[mine] + 0.5) * fingerprint.size, (row[mine] + 0.5) * fingerprint.size
        a, b, c, d, e, f = affine[:6]
        lon, lat = centres(crs, a * u + b * v + c, d * u + e * v + f)
        known = np.isfinite(lon) & np.isfinite(lat)
        squares[mine[known]] = [(s.zone, s.column, s.row) for s in squares_of(lon[known], lat[known])]
    return squares
