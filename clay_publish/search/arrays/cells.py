"""Rows of the tables by the cells of the `utm` grid: chips and coverage within a range of rows and columns."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clay_publish.geo.utm_zones import SQUARE
from clay_publish.release import directory as paths
from clay_publish.release.array_store import EMBEDDED, REASON_CODES
from clay_publish.release.directory import DataFile, Release
from clay_publish.search.query import QueryError
from clay_publish.search.row_groups import read
from clay_publish.windows import Window

Ints = npt.NDArray[np.int64]
_COVERAGE = ("epsg", "row", "col", "window_start", "window_end", "status", "reason")


@dataclass(frozen=True)
class CellBox:
    """Some cells of a zone: rows and columns from a first one to before a last one."""

    zone: int
    row: tuple[int, int]
    col: tuple[int, int]

    def may_hold(self, file: DataFile, cell: float, across: int) -> bool:
        """Whether a file, which covers `across` × `across` squares, may hold some of them; `cell` in meters."""
        square = file.square
        if square.zone != self.zone:
            return False
        spans = ((self.col, square.column), (self.row, square.row))
        return all(
            first * cell < (start + across) * SQUARE + cell and last * cell > start * SQUARE - cell
            for (first, last), start in spans
        )

    def only(self, table: pa.Table) -> pa.Table:
        """The rows of a table that are of these cells."""
        inside = pc.equal(pc.subtract(table["epsg"], pc.multiply(pc.divide(table["epsg"], 100), 100)), self.zone)
        for name, (first, last) in (("row", self.row), ("col", self.col)):
            inside = pc.and_(inside, pc.greater_equal(table[name], first))
            inside = pc.and_(inside, pc.less(table[name], last))
        return table.filter(inside)

    def row_groups(self, file: pq.ParquetFile) -> Iterator[int]:
        """Row groups whose statistics do not rule out that they hold some of them."""
        columns = file.schema_arrow.names
        metadata = file.metadata
        places = {metadata.schema.column(n).path: n for n in range(metadata.num_columns)}
        for group in range(file.num_row_groups):
            for name, (first, last) in (("row", self.row), ("col", self.col)):
                known = metadata.row_group(group).column(places[name]).statistics if name in columns else None
                if known is not None and known.has_min_max and not (known.min < last and known.max >= first):
                    break
            else:
                yield group


def one_zone(zone: int | None, files: Sequence[DataFile]) -> int:
    """Return the zone that was asked for, or the only one that files are of.

    Raises:
        QueryError: there is not just one, or not this one.
    """
    zones = sorted({file.square.zone for file in files})
    known = f"one of {', '.join(map(str, zones))}" if zones else "a place with chips"
    if zone is None and len(zones) != 1:
        raise QueryError("zone", f"the place has chips of {len(zones)} zones", known, "Pass zone=.")
    if zone is not None and zone not in zones:
        raise QueryError("zone", f"{zone} has no chips there", known)
    return zones[0] if zone is None else zone


def chips_within(
    release: Release, files: Iterable[DataFile], box: CellBox, columns: Sequence[str]
) -> Iterator[pa.Table]:
    """Yield the chips of some cells, a row group at a time, with those of the columns that the files have.

    Args:
        release: in the `utm` layout.
        files: that may hold some of them.
        box: the cells.
        columns: to read; `epsg`, `row` and `col` are among them.

    Raises:
        ReleaseError: a file cannot be read.
    """
    for file in files:
        path = f"{paths.EMBEDDINGS}/{file.name}"
        opened, where = release.parquet(path), release.store.path(path)
        names = [name for name in columns if name in opened.schema_arrow.names]
        for group in box.row_groups(opened):
            table = box.only(read(opened, [group], names, where))
            if table.num_rows:
                yield table


@dataclass(frozen=True)
class CellReasons:
    """Expected chips: where they are, and whether and why they are missing."""

    window: Ints
    """Place in a list of windows."""
    row: Ints
    col: Ints
    code: npt.NDArray[np.uint8]
    """As in the layer `reason` of the arrays."""


@dataclass(frozen=True)
class ZoneCoverage:
    """The coverage table of a zone, open: its footer is large, and parsed once."""

    file: pq.ParquetFile | None
    """None where the zone has none."""
    where: str

    @classmethod
    def open(cls, release: Release, zone: int) -> "ZoneCoverage":
        """Open it.

        Raises:
            ReleaseError: it cannot be read.
        """
        path = f"{paths.COVERAGE}/zone={zone:02d}.parquet"
        return cls(release.parquet(path) if release.store.exists(path) else None, release.store.path(path))

    def within(self, box: CellBox, windows: Sequence[Window]) -> CellReasons:
        """Return the expected chips of some cells of the zone, of these windows.

        Raises:
            ReleaseError: the coverage cannot be read.
        """
        if self.file is None:
            nothing = np.empty(0, np.int64)
            return CellReasons(nothing, nothing, nothing, np.empty(0, np.uint8))
        kept = [box.only(read(self.file, [group], _COVERAGE, self.where)) for group in box.row_groups(self.file)]
        table = pa.concat_tables(kept) if kept else self.file.schema_arrow.empty_table().select(list(_COVERAGE))
        return cell_reasons(table, windows)


def cell_reasons(table: pa.Table, windows: Sequence[Window]) -> CellReasons:
    """Return the expected chips of these windows, from rows of coverage."""
    place = _window_places(table, windows)
    known = pc.index_in(pc.fill_null(table["reason"], "failed"), pa.array(list(REASON_CODES)))
    code = pc.add(pc.fill_null(known, list(REASON_CODES).index("failed")), EMBEDDED + 1)
    code = pc.if_else(pc.equal(table["status"], "embedded"), EMBEDDED, code)
    row, col = (table[name].to_numpy().astype(np.int64) for name in ("row", "col"))
    mine = place >= 0
    return CellReasons(place[mine], row[mine], col[mine], code.to_numpy().astype(np.uint8)[mine])


def _window_places(table: pa.Table, windows: Sequence[Window]) -> Ints:
    """Place of each row's window in a list, −1 for none of them."""
    found = np.full(table.num_rows, -1, np.int64)
    kind = table["window_start"].type
    for place, window in enumerate(windows):
        same = pc.and_(
            pc.equal(table["window_start"], pa.scalar(window.start, kind)),
            pc.equal(table["window_end"], pa.scalar(window.end, kind)),
        )
        found[same.to_numpy()] = place
    return found
