"""Expected, present and described cells of one image, or of one zone and window, as bitmaps; and their grids."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError

from clay_publish.errors import ReleaseError
from clay_publish.geo.footprints import transformer
from clay_publish.release.directory import EMBEDDINGS
from clay_publish.release.fingerprint import Fingerprint
from clay_publish.validate.data.chips import ChipRows
from clay_publish.validate.data.parquet_tables import ParquetTables
from clay_publish.validate.data.sources import Source, SourceTable

Ints = npt.NDArray[np.integer]

_PIECE = 1 << 20
"""Cells marked at once, so that numbers in between stay in cache."""

EXPECTED, PRESENT, SAID_EMBEDDED, SAID_MISSING = 1, 2, 4, 8


MAX_CELLS = 200_000_000
"""Cells of one layer: a zone of the Earth has as many chips of 200 m."""


def empty(name: str, rows: int, cols: int) -> npt.NDArray[np.uint8]:
    """Flags of a layer, none of them set.

    Raises:
        ReleaseError: there are more cells than a layer can have.
    """
    if rows < 0 or cols < 0 or rows * cols > MAX_CELLS:
        raise ReleaseError(name, f"asks for {rows:,} × {cols:,} chips", f"at most {MAX_CELLS:,}")
    return np.zeros((rows, cols), np.uint8)


@dataclass
class CellRaster:
    """The cells of one image, or of one zone and window: a rectangle of rows and columns."""

    name: str
    row: int
    """First row."""
    col: int
    """First column."""
    flags: npt.NDArray[np.uint8]
    """(rows, columns)."""
    unexpected: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    """Some cells that were marked outside of the rectangle, by flag; the first entry counts all of them as (n, 0)."""
    _marks: dict[int, int] = field(default_factory=dict)
    """Marks made inside, by flag."""

    def mark(self, rows: Ints, cols: Ints, flag: int) -> None:
        """Set a flag on cells."""
        for start in range(0, len(rows), _PIECE):
            self._mark(rows[start : start + _PIECE], cols[start : start + _PIECE], flag)

    def _mark(self, rows: Ints, cols: Ints, flag: int) -> None:
        height, width = self.flags.shape
        down, along = np.asarray(rows) - self.row, np.asarray(cols) - self.col
        inside = (down >= 0) & (down < height) & (along >= 0) & (along < width)
        if not inside.all():
            outside = np.flatnonzero(~inside)
            known = self.unexpected.setdefault(flag, [(0, 0)])
            known[0] = (known[0][0] + outside.size, 0)
            known += [(int(rows[n]), int(cols[n])) for n in outside[: max(0, 4 - len(known))]]
            down, along = down[inside], along[inside]
        flat = self.flags.reshape(-1)
        flat[down * np.int64(width) + along] |= np.uint8(flag)
        self._marks[flag] = self._marks.get(flag, 0) + len(down)

    def mark_runs(self, row: Ints, first: Ints, stop: Ints, flag: int) -> None:
        """Set a flag on runs of cells along rows: `first` to one before `stop`. Runs do not overlap."""
        edges = np.zeros((self.flags.shape[0], self.flags.shape[1] + 1), np.int8)
        np.add.at(edges, (row - self.row, first - self.col), 1)
        np.add.at(edges, (row - self.row, stop - self.col), -1)
        self.flags |= (np.cumsum(edges[:, :-1], axis=1, dtype=np.int8) * flag).view(np.uint8)

    def summary(self) -> "Summary":
        """What the rules ask of it; the bitmap itself can go."""
        counts = np.bincount(self.flags.reshape(-1), minlength=16)
        set_ = {flag: sum(int(counts[c]) for c in range(16) if c & flag) for flag in self._marks}
        wanted = [c for c in range(1, 16) if counts[c] and c not in _USUAL]
        return Summary(
            name=self.name,
            shape=self.flags.shape,
            counts=[int(count) for count in counts],
            cells={combination: self._cells(combination) for combination in wanted},
            twice={flag: marks - set_[flag] for flag, marks in self._marks.items() if marks > set_[flag]},
            unexpected=self.unexpected,
        )

    def _cells(self, combination: int, most: int = 3) -> list[tuple[int, int]]:
        places = np.flatnonzero(self.flags.reshape(-1) == combination)[:most]
        return [(int(n // self.flags.shape[1]) + self.row, int(n % self.flags.shape[1]) + self.col) for n in places]


@dataclass(frozen=True)
class Summary:
    """A layer, counted."""

    name: str
    shape: tuple[int, ...]
    """Rows and columns."""
    counts: list[int]
    """Cells by combination of flags; 16 numbers."""
    cells: dict[int, list[tuple[int, int]]]
    """Row and column of the first cells, by combination, where it is not a usual one."""
    twice: dict[int, int]
    """Marks made again on the same cell, by flag."""
    unexpected: dict[int, list[tuple[int, int]]]


_USUAL = {EXPECTED | PRESENT | SAID_EMBEDDED, EXPECTED | SAID_MISSING}


def combinations(*, required: int, absent: int) -> Iterator[int]:
    """The combinations of flags that have all `required` ones and none of the `absent` ones."""
    for combination in range(16):
        if combination & required == required and not combination & absent:
            yield combination


Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Grid:
    """A pixel grid, in chips: x, y = matrix · (column, row, 1)."""

    crs: str
    matrix: Floats
    """(2, 3), in units of the CRS a chip."""

    @property
    def side(self) -> float:
        """Length of a chip's side in units of the CRS."""
        return float(np.sqrt(abs(np.linalg.det(self.matrix[:, :2]))))

    def to_chips(self, lon: Floats, lat: Floats) -> tuple[Floats, Floats]:
        """Column and row, with fractions, of points in degrees."""
        x, y = _from_lonlat(self.crs).transform(lon, lat)
        inverse = np.linalg.inv(self.matrix[:, :2])
        with np.errstate(invalid="ignore"):  # what is not a place on Earth comes out infinite
            away = inverse @ np.stack([np.asarray(x) - self.matrix[0, 2], np.asarray(y) - self.matrix[1, 2]])
        return away[0], away[1]

    def to_lonlat(self, col: Floats, row: Floats) -> tuple[Floats, Floats]:
        """Longitude and latitude of places in the grid, in degrees."""
        x, y = self.matrix @ np.stack([col, row, np.ones_like(col)])
        lon, lat = _from_lonlat(self.crs).transform(x, y, direction="INVERSE")
        return np.asarray(lon), np.asarray(lat)

    @property
    def unit(self) -> float:
        """Meters in a unit of the CRS; where the CRS is in degrees, about."""
        return _meters_a_unit(self.crs)


@lru_cache(maxsize=256)
def _meters_a_unit(crs: str) -> float:
    made = CRS.from_user_input(crs)
    return float(made.axis_info[0].unit_conversion_factor) if made.is_projected else 111_320.0


@lru_cache(maxsize=256)
def stretch(crs: str) -> str:
    """How a CRS stretches the ground with latitude: `mercator`, `degrees`, or `none`."""
    made = CRS.from_user_input(crs)
    method = made.coordinate_operation.method_name if made.coordinate_operation else ""
    if not made.is_projected:
        return "degrees"
    return "mercator" if "Mercator" in method and "Transverse" not in method else "none"


def _from_lonlat(crs: str) -> Transformer:
    return transformer("OGC:CRS84", crs)


def scene_grid(source: Source, size: int) -> Grid:
    """The grid of an image, cut in chips of `size` pixels.

    Raises:
        ReleaseError: the sources do not tell its CRS and transform, or it is not a CRS.
    """
    if source.crs is None or source.transform is None:
        raise ReleaseError(f"sources.parquet: {source.id}", "has no CRS and transform")
    matrix = np.array(source.transform, dtype=np.float64).reshape(2, 3)
    matrix[:, :2] *= size
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:, :2])) == 0:
        raise ReleaseError(f"sources.parquet: {source.id}", "has a transform that cannot be inverted")
    try:
        _from_lonlat(source.crs)
    except CRSError as error:
        raise ReleaseError(
            f"sources.parquet: {source.id}", f"has the CRS {source.crs[:40]!r}, which is none"
        ) from error
    return Grid(source.crs, matrix)


def units_of(sources: SourceTable) -> Floats:
    """Meters in a unit of each CRS of the sources, in the order of its codes; NaN where it is not a CRS."""
    units = []
    for crs in sources.texts["proj_code"].distinct():
        try:
            _from_lonlat(crs or "")
            units.append(_meters_a_unit(crs))
        except CRSError:
            units.append(np.nan)
    return np.array(units, dtype=np.float64)


def utm_grid(epsg: int, fingerprint: Fingerprint) -> Grid:
    """The cells of a zone: columns from easting 0, rows from the equator, northwards.

    Raises:
        ReleaseError: the code is not an UTM zone on WGS 84, or the fingerprint has no ground size.
    """
    south = 32701 <= epsg <= 32760
    if not (south or 32601 <= epsg <= 32660):
        raise ReleaseError(f"EPSG:{epsg}", "is not an UTM zone on WGS 84")
    if fingerprint.gsd is None:
        raise ReleaseError("fingerprint", "has no gsd, which the utm layout needs")
    side = fingerprint.size * fingerprint.gsd
    base = 10_000_000.0 if south else 0.0
    return Grid(f"EPSG:{epsg}", np.array([[side, 0, 0], [0, side, base]], dtype=np.float64))


class ChipGrids:
    """The pixel grids in which the chips of a release are numbered."""

    def __init__(self, fingerprint: Fingerprint, sources: Callable[[], SourceTable], tables: ParquetTables) -> None:
        self._fingerprint = fingerprint
        self._sources = sources
        self._tables = tables

    def _scene(self, place: int) -> Grid:
        """Chip grid of the source item at a place."""
        return scene_grid(self._sources().item(place), self._fingerprint.size)

    def of(self, chips: ChipRows) -> Iterator[tuple[Grid, npt.NDArray[np.int64]]]:
        """The grids in which a batch's chips are numbered, and the rows of each.

        Raises:
            ReleaseError: what the grid is made of is unknown.
        """
        if self._fingerprint.layout == "utm":
            codes = chips.integers("epsg")
            for code in np.unique(codes).tolist():
                yield utm_grid(code, self._fingerprint), np.flatnonzero(codes == code)
            return
        for place, rows in self._sources().by_item(chips):
            yield self._scene(place), rows

    @cached_property
    def usual_side(self) -> float:
        """Stated ground length of a chip's side, in meters."""
        for footer in self._tables.keys.values():
            gsd = footer.get("emb", {}).get("gsd")
            if isinstance(gsd, int | float):
                return self._fingerprint.size * float(gsd)
        raise ReleaseError(EMBEDDINGS, "holds no file whose footer states the gsd")

    def stated_side(self, chips: ChipRows, size: float, gsd: float) -> npt.NDArray[np.float64]:
        """Meters a side of each chip should have; one gsd is stated for images whose pixels shrink with latitude."""
        side = np.full(len(chips), size * gsd)
        if self._fingerprint.layout == "utm":
            return side
        sources = self._sources()
        for place, rows in sources.by_item(chips):
            try:
                kind = stretch(self._scene(place).crs)
            except ReleaseError:
                continue
            if kind != "none":
                ratio = np.cos(np.radians(chips.floats("lat")[rows])) / np.cos(np.radians(sources.middle_latitude))
                side[rows] *= ratio if kind == "mercator" else np.sqrt(ratio)
        return side
