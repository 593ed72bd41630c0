"""Every chip of a release in a few bytes: where it lies and what the overviews show of it, in files on disk.

Embedded and missing chips lie in sections of one table: a section is an embeddings file, or the missing chips of one
degree of latitude and longitude. A tile reads the sections that meet it, so memory does not grow with the release.
"""

import math
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from clay_publish.cards.explorer.basis import Basis
from clay_publish.cards.explorer.layers import STEPS, VALUES, Periods, status_colors
from clay_publish.cards.figures.maps import component_colors
from clay_publish.cards.figures.sample import vectors
from clay_publish.errors import StoreError
from clay_publish.geo.footprints import footprints
from clay_publish.geo.utm_grid import UtmGrid
from clay_publish.release import directory as paths
from clay_publish.release.directory import DataFile, Release
from clay_publish.release.fingerprint import Fingerprint
from clay_publish.release.scene_grids import SceneGrids

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Box = tuple[float, float, float, float]

WORLD = 1 << 32
"""Units of the world's width in web mercator, in which the corners of scene chips are kept: 9 mm at the equator."""

_PIECE = 1 << 24
"""Bytes that are written together."""
_POLAR = 84.0
"""Degrees from the equator: beyond, points are not spread evenly along the edges of footprints."""
_BATCH = 1 << 16
_COVERAGE = ("epsg", "row", "col", "window_start", "reason", "item_ids")


@dataclass(frozen=True)
class Section:
    """Rows `start` to `stop` of the table, which lie in `box` and belong to one period."""

    period: int
    start: int
    stop: int
    window: datetime
    """Start of the file's window; of missing chips, of their period."""
    box: Box
    """West, south, east, north in degrees; east is beyond 180 where the section crosses the antimeridian."""
    embedded: bool


@dataclass(frozen=True)
class Chips:
    """The table."""

    values: npt.NDArray[np.void]
    """[n] `VALUES`."""
    places: Ints
    """`utm`: [n] the number of the cell in `grid`. `scene`: [n, 4, 2] corners in units of `WORLD`."""
    sections: tuple[Section, ...]
    """Missing before embedded, then by window: what comes later is drawn on top."""
    grid: UtmGrid | None
    """Of the `utm` layout."""
    dates: tuple[datetime, datetime]
    """Ends of the scale of dates."""

    def has(self, field: str) -> bool:
        """Whether any chip has a value."""
        return any(
            bool(self.values[field][first : first + _BATCH].any()) for first in range(0, len(self.values), _BATCH)
        )


@contextmanager
def read_chips(release: Release, basis: Basis, times: Periods, *, side: float) -> Iterator[Chips]:
    """Stream a release's embeddings and coverage into the table, which lies in a temporary folder until the end.

    Args:
        release: what to read.
        basis: how vectors become colors.
        times: periods of its windows.
        side: of a chip, meters.

    Raises:
        ReleaseError: a table of the release cannot be read.
    """
    fingerprint = release.fingerprint()
    grid = UtmGrid(side) if fingerprint.layout == "utm" else None
    files = [(path, release.parquet(path).metadata.num_rows) for path in release.data_files()]
    missing = _Missing(release, fingerprint, grid, times)
    counts = missing.count()
    embedded, absent = sum(rows for _, rows in files), sum(counts.values())
    with tempfile.TemporaryDirectory(prefix="clay-explorer-") as folder:
        values = _mapped(Path(folder) / "values", VALUES, (embedded + absent,))
        shape = (embedded + absent,) if grid else (embedded + absent, 4, 2)
        places = _mapped(Path(folder) / "places", np.dtype(np.int64), shape)
        sections = []
        starts = dict(zip(counts, absent_starts(embedded, counts), strict=True))
        for (period, lat, lon), start in starts.items():
            rows = counts[period, lat, lon]
            box = _padded((float(lon), float(lat), lon + 1.0, lat + 1.0), side)
            sections.append(Section(period, start, start + rows, times.each[period].start, box, embedded=False))
        missing.write(starts, places, values["status"])
        start, dates = 0, _dates(release, files)
        for path, rows in files:
            if rows:
                _read_file(release, path, start, _Target(basis, dates, grid, places, values))
                window, box = DataFile.parse(path).window, _file_box(release, path)
                period = times.of_window(window)
                sections.append(Section(period, start, start + rows, window.start, box, embedded=True))
            start += rows
        sections.sort(key=lambda s: (s.embedded, s.window, s.start))
        yield Chips(values, places, tuple(sections), grid, dates)
        del values, places


def absent_starts(first: int, counts: Counter[tuple[int, int, int]]) -> list[int]:
    """Where each bucket of missing chips begins, after the embedded ones."""
    return (first + np.cumsum([0, *counts.values()])[:-1]).tolist() if counts else []


def _mapped(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    if not shape[0]:
        return np.empty(shape, dtype=dtype)
    size = math.prod(shape) * dtype.itemsize
    try:
        with path.open("wb") as file:  # all of it: on a full disk, memory mapped on a hole ends the process
            for start in range(0, size, _PIECE):
                file.write(bytes(min(_PIECE, size - start)))
    except OSError as error:
        found = f"cannot keep the explorer's chips ({error.strerror})"
        fix = "Set TMPDIR to a folder on another disk."
        raise StoreError(str(path.parent.parent), found, f"{size:,} bytes, free on the disk", fix) from error
    return np.memmap(path, dtype=dtype, mode="r+", shape=shape)


def _padded(box: Box, side: float) -> Box:
    west, south, east, north = box
    tall = 1.5 * side / 110_000
    wide = tall / max(0.05, float(np.cos(np.radians(min(89.0, max(abs(south), abs(north)) + tall)))))
    return west - wide, max(-90.0, south - tall), east + wide, min(90.0, north + tall)


def _file_box(release: Release, path: str) -> Box:
    """Bounds of a file's chips, from its footer."""
    west, south, east, north = release.footer(path)["geo"]["columns"]["geometry"]["bbox"]
    return float(west), float(south), float(east if east >= west else east + 360), float(north)


def _dates(release: Release, files: list[tuple[str, int]]) -> tuple[datetime, datetime]:
    """The first and last `datetime` of all chips, in whole seconds, from statistics."""
    lows, highs = [], []
    for path, _ in files:
        footer = release.parquet(path).metadata
        column = next((i for i in range(footer.num_columns) if footer.schema.column(i).path == "datetime"), None)
        for group in range(footer.num_row_groups) if column is not None else ():
            statistics = footer.row_group(group).column(column).statistics
            if statistics is not None and statistics.has_min_max:
                lows.append(statistics.min)
                highs.append(statistics.max)
    if not lows:
        return datetime(1970, 1, 1, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC)
    return min(lows).replace(microsecond=0), max(highs).replace(microsecond=0)


@dataclass(frozen=True)
class _Target:
    """What a file's rows are drawn with, and where they go."""

    basis: Basis
    dates: tuple[datetime, datetime]
    grid: UtmGrid | None
    places: Ints
    values: npt.NDArray[np.void]


def _read_file(release: Release, path: str, start: int, target: _Target) -> None:
    file = release.parquet(path)
    where = ["epsg", "row", "col"] if target.grid else ["geometry"]
    wanted = ["embedding", "scale", "loss", "cloud_fraction", "datetime", *where]
    names = [name for name in wanted if name in file.schema_arrow.names]
    for group in range(file.num_row_groups):
        for batch in file.iter_batches(batch_size=4096, row_groups=[group], columns=names):
            stop = start + batch.num_rows
            if target.grid:
                cells = (batch.column(name).to_numpy(zero_copy_only=False) for name in where)
                target.places[start:stop] = target.grid.numbers(*cells)
            else:
                target.places[start:stop] = mercator(corners(batch.column("geometry")))
            target.values[start:stop] = values_of(batch, target.basis, target.dates)
            start = stop


def values_of(batch: pa.RecordBatch, basis: Basis, dates: tuple[datetime, datetime]) -> npt.NDArray[np.void]:
    """What the overviews show of embedded chips."""
    made = np.zeros(batch.num_rows, dtype=VALUES)
    found = vectors(batch)
    sound = np.asarray(np.isfinite(found).all(axis=1))[:, None]
    shares = basis.shares(np.where(sound, found, 0).astype(np.float32))
    made["rgb"] = np.round(component_colors(shares) * 255)
    made["status"] = 1
    low, high = basis.loss or (0.0, 1.0)
    made["loss"] = shades(_numbers(batch, "loss"), low, high)
    made["cloud"] = shades(_numbers(batch, "cloud_fraction"), 0.0, 1.0)
    moment = batch.column("datetime").cast(pa.int64()).to_numpy(zero_copy_only=False).astype(np.float64)
    first, last = (date.timestamp() * 1e6 for date in dates)
    made["date"] = shades(moment, first, last)
    return made


def _numbers(batch: pa.RecordBatch, name: str) -> Floats:
    """A column as float64; NaN where it is null."""
    numbers: Floats = batch.column(name).to_numpy(zero_copy_only=False).astype(np.float64)
    return numbers


def shades(numbers: Floats, low: float, high: float) -> npt.NDArray[np.uint8]:
    """1 to `STEPS` for numbers from `low` to `high`, clipped; the lowest where both are equal; 0 for NaN."""
    known: npt.NDArray[np.bool_] = np.isfinite(numbers)
    share = (np.where(known, numbers, low) - low) / (high - low) if high > low else np.zeros(len(numbers))
    step = 1 + np.minimum(np.floor(np.clip(share, 0, 1) * STEPS), STEPS - 1)
    return np.where(known, step, 0).astype(np.uint8)


def corners(column: pa.Array) -> Floats:
    """[n, 4, 2] longitude and latitude of footprints' corners; longitudes beyond ±180° across the antimeridian."""
    shapes = shapely.from_wkb(column.to_numpy(zero_copy_only=False))
    made = np.empty((len(shapes), 4, 2))
    simple = shapely.get_type_id(shapes) == shapely.GeometryType.POLYGON
    sizes = shapely.get_num_coordinates(shapes)
    regular = simple & ((sizes - 1) % 4 == 0) & (sizes > 4)
    regular &= np.abs(shapely.bounds(shapes)[:, [1, 3]]).max(axis=1) < _POLAR
    for size in np.unique(sizes[regular]):
        mine = regular & (sizes == size)
        rings = shapely.get_coordinates(shapes[mine]).reshape(-1, size, 2)
        made[mine] = rings[:, np.arange(4) * ((size - 1) // 4)]
    for place in np.flatnonzero(~regular):
        whole = shapely.transform(shapes[place], lambda xy: np.where([True, False], np.mod(xy, 360), xy))
        chosen = shapes[place] if simple[place] else whole
        made[place] = shapely.get_coordinates(shapely.minimum_rotated_rectangle(shapely.convex_hull(chosen)))[:4]
    return made


def mercator(points: Floats) -> Ints:
    """Longitudes and latitudes [..., 2] in web mercator, x to the east and y to the south, in units of `WORLD`."""
    lat = np.radians(np.clip(points[..., 1], -89.9, 89.9))
    x = points[..., 0] / 360 + 0.5
    y = 0.5 - np.arcsinh(np.tan(lat)) / (2 * np.pi)
    return np.rint(np.stack([x, y], axis=-1) * WORLD).astype(np.int64)


@dataclass(frozen=True)
class _Missing:
    """The missing chips of `coverage/`, read twice: to be counted, and to be written where they belong."""

    release: Release
    fingerprint: Fingerprint
    grid: UtmGrid | None
    times: Periods

    def count(self) -> Counter[tuple[int, int, int]]:
        """Period, degree of latitude, degree of longitude → chips; sorted."""
        found: Counter[tuple[int, int, int]] = Counter()
        for keys, _, _ in self._batches():
            unique, counts = np.unique(keys, axis=0, return_counts=True)
            found.update({tuple(key): int(n) for key, n in zip(unique.tolist(), counts, strict=True)})
        return Counter(dict(sorted(found.items())))

    def write(self, starts: dict[tuple[int, int, int], int], places: Ints, status: npt.NDArray[np.uint8]) -> None:
        """Put each chip into its bucket."""
        free = dict(starts)
        for keys, where, codes in self._batches():
            order = np.lexsort(keys.T[::-1])
            unique, first, counts = np.unique(keys[order], axis=0, return_index=True, return_counts=True)
            for key, begin, number in zip(unique.tolist(), first, counts, strict=True):
                mine, start = order[begin : begin + number], free[tuple(key)]
                places[start : start + number] = where[mine]
                status[start : start + number] = codes[mine]
                free[tuple(key)] += int(number)

    def _batches(self) -> Iterator[tuple[Ints, Ints, npt.NDArray[np.uint8]]]:
        """Keys [n, 3], places and status codes of missing chips."""
        codes = {reason: code for code, reason in enumerate(status_colors(), start=1)}
        grid = self.grid or SceneGrids(self.release)
        for path in self.release.data_files(paths.COVERAGE):
            file = self.release.parquet(path)
            for batch in file.iter_batches(columns=[*_COVERAGE, "status"], batch_size=_BATCH):
                absent = pc.and_(pc.not_equal(batch["status"], "embedded"), pc.is_valid(batch["row"]))
                rows = batch.filter(absent)
                if not rows.num_rows:
                    continue
                if isinstance(grid, UtmGrid):
                    cells = tuple(rows[name].to_numpy(zero_copy_only=False) for name in ("epsg", "row", "col"))
                    where, known = grid.numbers(*cells), np.ones(rows.num_rows, dtype=bool)
                    lon, lat = grid.centers(*cells)
                else:
                    quads, known = _scene_corners(rows, grid, self.fingerprint)
                    where, (lon, lat) = mercator(quads), quads.mean(axis=1).T
                period = self.times.of(rows["window_start"].to_numpy(zero_copy_only=False))
                code = np.array([codes.get(reason, 255) for reason in rows["reason"].to_pylist()], dtype=np.uint8)
                degrees = np.floor([lat, lon]).astype(np.int64)
                yield np.column_stack([period, *degrees])[known], where[known], code[known]


def _scene_corners(
    rows: pa.RecordBatch, grids: SceneGrids, fingerprint: Fingerprint
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """[n, 4, 2] corners of missing chips of scenes, and which are known: those of images whose pixel grid is known."""
    row, col = (rows[name].to_numpy(zero_copy_only=False).astype(np.int64) for name in ("row", "col"))
    u = (col[:, None] + np.array([0, 0, 1, 1])) * fingerprint.size
    v = (row[:, None] + np.array([0, 1, 1, 0])) * fingerprint.size
    made, known = np.zeros((rows.num_rows, 4, 2)), np.zeros(rows.num_rows, dtype=bool)
    for crs, mine, x, y in grids.points(rows, u, v):
        made[mine] = corners(pa.array(shapely.to_wkb(footprints(crs, np.stack([x, y], axis=-1)))))
        known[mine] = True
    return made, known
