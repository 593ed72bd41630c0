"""Why a place has no embedding: what the coverage table says of the chip that was expected there."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clay_publish.geo.utm_grid import NORTH, SOUTH, UtmGrid
from clay_publish.release import directory as paths
from clay_publish.release.directory import Release
from clay_publish.search.query import Extent
from clay_publish.search.row_groups import read
from clay_publish.windows import Window

Floats = npt.NDArray[np.float64]

EMBEDDED, OUTSIDE, MISSING = "embedded", "outside", "missing"
"""The place lies in a chip; no chip was expected there; or the coverage table does not tell places."""


@dataclass(frozen=True)
class Status:
    """Of each place: `embedded`, a reason of the coverage table, `outside`, or `missing`; and its detail."""

    status: npt.NDArray[np.object_]
    detail: npt.NDArray[np.object_]
    window: npt.NDArray[np.object_]
    """Token of the window that a reason is of."""


def inside(lon: Floats, lat: Floats, bbox: pa.StructArray) -> npt.NDArray[np.bool_]:
    """Return whether places lie in the bounds of chips, pair by pair; xmin > xmax across the antimeridian."""
    west, south, east, north = (
        bbox.field(side).to_numpy(zero_copy_only=False) for side in ("xmin", "ymin", "xmax", "ymax")
    )
    along = np.mod(lon - west, 360) <= np.mod(east - west, 360)
    return np.asarray(along & (lat >= south) & (lat <= north))


def status_of(release: Release, lon: Floats, lat: Floats, found: npt.NDArray[np.bool_], extent: Extent) -> Status:
    """Return why places have an embedding or have none; of several windows, in the newest.

    Args:
        release: where the coverage lies.
        lon: [n], degrees.
        lat: [n].
        found: whether each lies in an embedded chip.
        extent: the time that was looked in.

    Raises:
        ReleaseError: the coverage cannot be read.
    """
    status = np.full(len(lon), OUTSIDE, dtype=object)
    detail, window = np.full((2, len(lon)), None, dtype=object)
    status[found] = EMBEDDED
    lost = np.flatnonzero(~found)
    made = release.fingerprint()
    if not len(lost):
        return Status(status, detail, window)
    if made.gsd is None or made.layout != "utm":
        status[lost] = MISSING
        return Status(status, detail, window)
    grid = UtmGrid(made.size * made.gsd)
    usable = lost[(lat[lost] >= SOUTH) & (lat[lost] <= NORTH)]
    epsg, row, col = grid.cells_at(lon[usable], lat[usable])
    cells = grid.numbers(epsg, row, col)
    for zone in np.unique(epsg % 100).tolist():
        path = f"{paths.COVERAGE}/zone={zone:02d}.parquet"
        if release.store.exists(path):
            mine = epsg % 100 == zone
            for number, reason, why, when in _missing(release, path, grid, np.unique(cells[mine]), extent):
                here = usable[mine][cells[mine] == number]
                status[here], detail[here], window[here] = reason, why, when
    return Status(status, detail, window)


def _missing(
    release: Release, path: str, grid: UtmGrid, cells: npt.NDArray[np.int64], extent: Extent
) -> Iterator[tuple[int, str, str | None, str]]:
    """Number, reason, detail and window of the cells that are expected and have no embedding, the newest last."""
    file, where = release.parquet(path), release.store.path(path)
    names = ["epsg", "row", "col", "window_start", "window_end", "status", "reason", "detail"]
    parts = []
    for group in range(file.num_row_groups):
        table = read(file, [group], names, where)
        keep = pc.and_(pc.not_equal(table["status"], EMBEDDED), pc.is_valid(table["row"]))
        kind = table["window_start"].type
        if extent.end is not None:
            keep = pc.and_(keep, pc.less_equal(table["window_start"], pa.scalar(extent.end, kind)))
        if extent.start is not None:
            keep = pc.and_(keep, pc.greater(table["window_end"], pa.scalar(extent.start, kind)))
        table = table.filter(keep)
        numbers = grid.numbers(*(table[name].to_numpy().astype(np.int64) for name in ("epsg", "row", "col")))
        chosen = np.isin(numbers, cells)
        parts.append(table.filter(pa.array(chosen)).append_column("cell", pa.array(numbers[chosen])))
    if not parts:
        return
    for chip in pa.concat_tables(parts).sort_by("window_start").to_pylist():
        yield chip["cell"], chip["reason"], chip["detail"], Window(chip["window_start"], chip["window_end"]).token
