"""Row strips of an image on its finest grid: every block of every band is read and decoded once."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pyproj import Geod

from clay_publish.errors import ImageryError
from clay_publish.geo.footprints import centers
from clay_publish.geo.raster_grid import RasterGrid, ground_size
from clay_publish.producer.imagery.raster import OpenBand, grid_of, readers

Bools = npt.NDArray[np.bool_]
_GEOD = Geod(ellps="WGS84")
_APART = 5.0
"""Meters by which reference systems of one place may differ: realizations of WGS 84 and NAD 83 do."""
_SAME = 1e-3
"""Pixels by which two statements of the same grid may differ."""


@dataclass(frozen=True)
class Strip:
    """Rows of an image, all bands on the finest grid."""

    top: int
    """First row."""
    left: int
    """First column."""
    values: list[npt.NDArray[np.generic]]
    """Raw values by band, each [rows, columns] in the file's own type."""
    valid: list[Bools]
    """Where each band has data."""


class _BandRows:
    """Rows of one band in growing order, read in whole blocks, kept as long as they are needed."""

    def __init__(self, band: OpenBand, fine: RasterGrid, left: int, right: int) -> None:
        self.band = band
        grid = grid_of(band)
        self._rows = _nearest(fine.transform[5], fine.transform[4], fine.height, grid.transform[5], grid.transform[4])
        columns = _nearest(fine.transform[2], fine.transform[0], fine.width, grid.transform[2], grid.transform[0])
        self._columns = columns[left:right]
        inside = self._columns[(self._columns >= 0) & (self._columns < band.width)]
        self._left = int(inside.min()) if len(inside) else 0
        self._width = int(inside.max()) + 1 - self._left if len(inside) else 0
        self._top = 0
        self._values: npt.NDArray[np.generic] | None = None
        self._valid: Bools | None = None

    def strip(self, top: int, bottom: int) -> tuple[npt.NDArray[np.generic], Bools]:
        """Rows `top` to `bottom` of the fine grid, by nearest neighbor; outside the band nothing is valid."""
        rows = self._rows[top:bottom]
        inside = rows[(rows >= 0) & (rows < self.band.height)]
        dtype = self.band.dtype
        if not len(inside) or not self._width:
            shape = (len(rows), len(self._columns))
            return np.zeros(shape, dtype=dtype), np.zeros(shape, dtype=bool)
        values, valid = self._need(int(inside.min()), int(inside.max()) + 1)
        at = np.clip(rows - self._top, 0, len(values) - 1)
        across = np.clip(self._columns - self._left, 0, self._width - 1)
        taken = _take(values, at, across), _take(valid, at, across)
        taken[1][(rows < 0) | (rows >= self.band.height)] = False
        taken[1][:, (self._columns < 0) | (self._columns >= self.band.width)] = False
        return taken

    def _need(self, first: int, last: int) -> tuple[npt.NDArray[np.generic], Bools]:
        """Have rows `first` to `last` of the band's own grid at hand."""
        if self._values is None or self._valid is None or first >= self._top + len(self._values):
            step = self.band.block_rows
            self._top = first // step * step
            self._values, self._valid = self._read(self._top, last)
        end = self._top + len(self._values)
        if last > end:
            more_values, more_valid = self._read(end, last)
            keep = min(max(first - self._top, 0), len(self._values))
            self._values = np.concatenate([self._values[keep:], more_values])
            self._valid = np.concatenate([self._valid[keep:], more_valid])
            self._top += keep
        return self._values, self._valid

    def _read(self, first: int, last: int) -> tuple[npt.NDArray[np.generic], Bools]:
        step = self.band.block_rows
        stop = min(-(-last // step) * step, self.band.height)
        return self.band.read(first, self._left, stop - first, self._width)


def _take(values: npt.NDArray[np.generic], rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]) -> npt.NDArray:  # type: ignore[type-arg]
    """Rows and columns by index; a plain slice, where they are consecutive."""
    whole = _consecutive(rows) and _consecutive(columns)
    if whole:
        return values[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].copy()
    return values[rows][:, columns]


def _consecutive(index: npt.NDArray[np.int64]) -> bool:
    return bool(index[-1] - index[0] + 1 == len(index) and (np.diff(index) == 1).all())


def _nearest(origin: float, step: float, count: int, other_origin: float, other_step: float) -> npt.NDArray[np.int64]:
    """For each of `count` pixels, which pixel of the other axis holds its center."""
    centers = origin + (np.arange(count) + 0.5) * step
    found: npt.NDArray[np.int64] = np.floor((centers - other_origin) / other_step + 1e-9).astype(np.int64)
    return found


def fine_grid(bands: list[OpenBand], stated: RasterGrid | None) -> RasterGrid:
    """The grid of the finest band, after making sure that all bands can be brought to it.

    Raises:
        ImageryError: bands in different reference systems, rotated or upside-down images, or a grid that is not the
            one the item states.
    """
    grids = [grid_of(band) for band in bands]
    for band in bands:
        check_axes(band, grids[0].crs)
    finest = min(range(len(grids)), key=lambda place: grids[place].pixel)
    if stated is not None and not _same(stated, grids[finest]):
        raise ImageryError(
            bands[finest].where,
            f"has {_words(grids[finest])}",
            f"{_words(stated)}, as the item says",
            "Correct the item's proj:shape and proj:transform, or exclude it.",
        )
    if stated is not None and not _same_place(stated, grids[finest]):
        raise ImageryError(
            bands[finest].where,
            f"is in {grids[finest].crs[:60]}",
            f"{stated.crs[:60]}, as the item says",
            "Correct the item's proj:code or proj:epsg, or exclude it.",
        )
    return grids[finest]


def check_axes(band: OpenBand, crs: str) -> None:
    """Make sure that rows and columns of a band lie like those of other bands in `crs`.

    Raises:
        ImageryError: another reference system, or a rotated or upside-down image.
    """
    grid = grid_of(band)
    _, b, _, d, e, _ = grid.transform
    if b or d or e >= 0:
        raise ImageryError(
            band.where, "is rotated or upside down", "a north-up image", "The utm layout takes it as it is."
        )
    if grid.crs != crs:
        raise ImageryError(
            band.where,
            f"is in {grid.crs[:60]}",
            f"{crs[:60]} like the other bands",
            "The utm layout takes it as it is.",
        )


def _same(stated: RasterGrid, found: RasterGrid) -> bool:
    if (stated.height, stated.width) != (found.height, found.width):
        return False
    tolerance = _SAME * found.pixel * max(found.height, found.width)
    return all(
        abs(mine - theirs) <= (tolerance if place in {2, 5} else _SAME * found.pixel / max(found.height, found.width))
        for place, (mine, theirs) in enumerate(zip(stated.transform, found.transform, strict=True))
    )


def _same_place(stated: RasterGrid, found: RasterGrid) -> bool:
    """Whether the corners of a grid are the same ground in both reference systems, within two pixels or 5 m."""
    if stated.crs == found.crs:
        return True
    a, b, c, d, e, f = found.transform
    column, row = np.array([0, found.width, 0, found.width]), np.array([0, 0, found.height, found.height])
    x, y = a * column + b * row + c, d * column + e * row + f
    (lon, lat), (other_lon, other_lat) = (centers(grid.crs, x, y) for grid in (stated, found))
    if not np.isfinite([lon, lat, other_lon, other_lat]).all():
        return False
    apart = _GEOD.inv(lon, lat, other_lon, other_lat)[2]
    return bool(np.max(apart) <= max(_APART, 2 * ground_size(found, found.height / 2)))


def _words(grid: RasterGrid) -> str:
    a, _, c, _, e, f = grid.transform
    return f"{grid.width} × {grid.height} pixels of {a:g} × {-e:g} from {c:.10g}, {f:.10g}"


def read_window(bands: list[OpenBand], fine: RasterGrid, *, top: int, left: int, rows: int, columns: int) -> Strip:
    """A window of the fine grid, all bands brought to it by nearest neighbor.

    Raises:
        ImageryError: a file is truncated or corrupt there.
    """
    read = [_BandRows(band, fine, left, left + columns).strip(top, top + rows) for band in bands]
    return Strip(top, left, [values for values, _ in read], [valid for _, valid in read])


def strips(
    bands: list[OpenBand], fine: RasterGrid, *, tops: Iterable[int], rows: int, left: int, right: int, threads: int
) -> Iterator[Strip]:
    """Strips of `rows` rows over columns `left` to `right`, each from its first row in `tops`, in growing order.

    Bands that are coarser, or that start elsewhere, are brought to the fine grid by nearest neighbor.
    """
    rows_of = [_BandRows(band, fine, left, right) for band in bands]
    files = list({id(reader.band.file): None for reader in rows_of})
    groups = [[n for n, r in enumerate(rows_of) if id(r.band.file) == file] for file in files]
    with readers(min(threads, len(groups))) as pool:
        for top in tops:

            def read(group: list[int], top: int = top) -> list[tuple[npt.NDArray[np.generic], Bools]]:
                return [rows_of[n].strip(top, top + rows) for n in group]  # a handle serves one thread at a time

            found: dict[int, tuple[npt.NDArray[np.generic], Bools]] = {}
            for group, read_bands in zip(groups, pool.map(read, groups), strict=True):
                found.update(zip(group, read_bands, strict=True))
            in_order = [found[n] for n in range(len(rows_of))]
            yield Strip(top, left, [values for values, _ in in_order], [valid for _, valid in in_order])
