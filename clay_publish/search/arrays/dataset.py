"""A release as an xarray Dataset: from its arrays, or from its tables where it has none. Values are read when used."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xarray as xr
from pyproj import CRS
from xarray.backends import BackendArray
from xarray.core import indexing

from clay_publish.errors import ReleaseError
from clay_publish.geo.utm_zones import utm
from clay_publish.release import array_store as names
from clay_publish.release.array_store import ArrayGrid
from clay_publish.release.directory import DataFile, Release
from clay_publish.search.arrays.cells import CellBox, ZoneCoverage, chips_within
from clay_publish.search.arrays.zarr_store import open_group, reading
from clay_publish.search.query import QueryError
from clay_publish.search.row_groups import vectors
from clay_publish.windows import Window

Key = tuple[Any, ...]
Values = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
_DIMS = ("time", "y", "x")
_EDGE = np.linspace(0, 1, 33)
_FARTHEST = 12.0
"""Degrees from the central meridian up to which a box is looked at."""


class _Lazy(BackendArray):
    """An array whose values a function gives."""

    def __init__(self, shape: tuple[int, ...], dtype: npt.DTypeLike, get: Callable[[Key], Values]) -> None:
        self.shape, self.dtype, self._get = shape, np.dtype(dtype), get

    def __getitem__(self, key: Any) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._get)


def _variable(dims: Sequence[str], array: _Lazy, attributes: Mapping[str, Any], chunks: Sequence[int] = ()) -> Any:
    encoding = {"preferred_chunks": dict(zip(dims, chunks, strict=True))} if chunks else None
    lazy = indexing.LazilyIndexedArray(array)
    return xr.Variable(dims, lazy, {**attributes, "grid_mapping": "spatial_ref"}, encoding)


def open_dataset(
    release: Release, zone: int, windows: Sequence[Window], bbox: Sequence[float] | None, *, patches: bool | int
) -> xr.Dataset:
    """Open a zone, from the arrays where there are any, and cut a box out of it.

    Args:
        release: in the `utm` layout.
        zone: that it has.
        windows: of the release, in order.
        bbox: west, south, east, north in degrees; None: the whole zone.
        patches: True, or the number of a layer: the patches instead of the chips.

    Raises:
        QueryError: the release has another layout, or the box does not meet the zone.
        ReleaseError: there are no such patches, or the arrays cannot be read.
    """
    if patches is not False:
        opened = arrays_dataset(release, zone, names.patches_group(None if patches is True else patches))
    elif release.store.exists(f"{names.STORE}/{names.zone_group(zone)}/zarr.json"):
        opened = arrays_dataset(release, zone, "")
    else:
        opened = TableCube(release, zone, windows).dataset()
    return opened if bbox is None else opened.isel(box_slices(bbox, zone, opened))


def arrays_dataset(release: Release, zone: int, group: str) -> xr.Dataset:
    """Open a group of the arrays: `embeddings` as float32, NaN where there is none, and the other layers.

    Args:
        release: with arrays.
        zone: of the group.
        group: below the zone's group, such as `patches`; empty: the chips.

    Raises:
        ReleaseError: there is no such group, or it cannot be read.
    """
    folder = f"{names.STORE}/{names.zone_group(zone)}/{group}".rstrip("/")
    opened = open_group(release, folder)
    arrays = opened.arrays
    if not {"y", "x"} <= arrays.keys():
        raise ReleaseError(opened.where, "has no arrays y and x", "a zone's group")
    stored, scales = opened.embeddings()

    def values(key: Key) -> Values:
        found = np.asarray(stored.oindex[key]).astype(np.float32)
        if scales is None:
            return found
        scale: Values = np.asarray(scales.oindex[key[:3]])
        dequantized: Values = found * (scale if isinstance(key[3], int | np.integer) else scale[..., None])
        return dequantized

    def named(get: Callable[[Key], Values], key: Key) -> Values:
        with reading(opened.where):
            return get(key)

    layers = {names.EMBEDDINGS: _lazy_layer(stored, partial(named, values), np.float32)}
    for name in (names.VALID, names.CLOUD, names.REASON):
        if name in arrays:
            get = arrays[name].oindex.__getitem__
            layers[name] = _lazy_layer(arrays[name], partial(named, get), arrays[name].dtype)
    attributes = {key: value for key, value in opened.attributes.items() if key != "zarr_conventions"}
    with reading(opened.where):
        windows = [Window.parse(text) for text in opened.attributes["embrel:windows"]]
        yx = np.asarray(arrays["y"][:]), np.asarray(arrays["x"][:])
    return _dataset(layers, windows, yx, zone, attributes)


def _lazy_layer(array: Any, get: Callable[[Key], Values], dtype: npt.DTypeLike) -> Any:
    dims = (*_DIMS, "band")[: array.ndim]
    attributes = {
        key: value for key, value in array.attrs.items() if key in {"long_name", "flag_values", "flag_meanings"}
    }
    return _variable(dims, _Lazy(array.shape, dtype, get), attributes, array.chunks)


def _dataset(
    layers: dict[str, Any],
    windows: Sequence[Window],
    yx: tuple[Values, Values],
    zone: int,
    attributes: Mapping[str, Any],
) -> xr.Dataset:
    """Return the layers with their coordinates and the attributes of the group."""
    start = np.array([window.start.replace(tzinfo=None) for window in windows], "datetime64[ns]")
    end = np.array([window.end.replace(tzinfo=None) for window in windows], "datetime64[ns]")
    crs = CRS.from_epsg(32600 + zone)
    coordinates = {
        "time": ("time", start, {"long_name": "start of the window"}),
        "end": ("time", end, {"long_name": "end of the window"}),
        "y": ("y", yx[0], {"standard_name": "projection_y_coordinate", "units": "m"}),
        "x": ("x", yx[1], {"standard_name": "projection_x_coordinate", "units": "m"}),
        "band": ("band", np.arange(layers[names.EMBEDDINGS].shape[3])),
        "spatial_ref": ((), 0, crs.to_cf()),
    }
    return xr.Dataset(layers, coordinates, attributes)


class TableCube:
    """The chips of one zone in the tables, seen as arrays."""

    def __init__(self, release: Release, zone: int, windows: Sequence[Window]) -> None:
        made = release.fingerprint()
        if made.layout != "utm" or made.gsd is None:
            raise QueryError("to_xarray", "the release has the layout `scene`", "layout `utm`, whose chips are a grid")
        self._release, self._zone, self._windows = release, zone, windows
        self._files = [DataFile.parse(path) for path in release.data_files() if f"/zone={zone:02d}/" in path]
        self._across = release.spec().outputs.across
        self._dimensions = made.dimensions
        self._grid = ArrayGrid(made.size * made.gsd, made.dimensions, 4)

    def dataset(self) -> xr.Dataset:
        """The Dataset that arrays of the same values would give."""
        shape = (len(self._windows), *self._grid.shape)
        embeddings = _Lazy((*shape, self._dimensions), np.float32, self._embeddings)
        layers = {names.EMBEDDINGS: _variable((*_DIMS, "band"), embeddings, {"long_name": "embedding"})}
        for name, column in ((names.VALID, "valid_fraction"), (names.CLOUD, "cloud_fraction")):
            layers[name] = _variable(_DIMS, _Lazy(shape, np.float32, partial(self._fractions, column)), {})
        layers[names.REASON] = _variable(_DIMS, _Lazy(shape, np.uint8, self._reasons), names.reason_flags())
        attributes = {"proj:code": f"EPSG:{32600 + self._zone}", "embrel:cells": self._grid.document()}
        return _dataset(layers, self._windows, self._grid.centers(), self._zone, attributes)

    def _embeddings(self, key: Key) -> Values:
        asked = _OuterIndex(key, (len(self._windows), *self._grid.shape, self._dimensions))
        values = np.full(asked.shape, np.nan, np.float32)
        for table, place in self._chips(asked, ("embedding", "scale")):
            values[place] = vectors(table)[:, asked.axes[3]]
        return asked.answer(values)

    def _fractions(self, column: str, key: Key) -> Values:
        asked = _OuterIndex(key, (len(self._windows), *self._grid.shape))
        values = np.full(asked.shape, np.nan, np.float32)
        for table, place in self._chips(asked, (column,)):
            values[place] = table[column].to_numpy()
        return asked.answer(values)

    def _reasons(self, key: Key) -> Values:
        asked = _OuterIndex(key, (len(self._windows), *self._grid.shape))
        values = np.zeros(asked.shape, np.uint8)
        if values.size:
            found = ZoneCoverage.open(self._release, self._zone).within(self._box(asked), self._windows)
            place, inside = asked.places(found.window, self._grid.row_top - found.row, found.col)
            values[place] = found.code[inside]
        return asked.answer(values)

    def _box(self, asked: "_OuterIndex") -> CellBox:
        _, y, x = asked.axes[:3]
        top = self._grid.row_top
        rows, cols = (top - int(y[-1]), top - int(y[0]) + 1), (int(x[0]), int(x[-1]) + 1)
        return CellBox(self._zone, rows, cols)

    def _chips(
        self, asked: "_OuterIndex", columns: Sequence[str]
    ) -> Iterator[tuple[pa.Table, tuple[Ints, Ints, Ints]]]:
        """Yield the chips that are asked for, with their places among the values."""
        if not all(asked.shape):
            return
        box = self._box(asked)
        for time in asked.axes[0].tolist():
            window = self._windows[time]
            files = [
                file
                for file in self._files
                if file.window == window and box.may_hold(file, self._grid.cell, self._across)
            ]
            for table in chips_within(self._release, files, box, ("epsg", "row", "col", *columns)):
                row, col = (table[name].to_numpy().astype(np.int64) for name in ("row", "col"))
                place, inside = asked.places(np.full(len(row), time), self._grid.row_top - row, col)
                yield table.filter(pa.array(inside)), place


class _OuterIndex:
    """What an outer indexer asks for: for each dimension the numbers that are asked for, sorted and once each."""

    def __init__(self, key: Key, shape: Sequence[int]) -> None:
        listed = [np.atleast_1d(np.arange(size)[each]) for each, size in zip(key, shape, strict=True)]
        self.axes, self._back = zip(*(np.unique(each, return_inverse=True) for each in listed), strict=True)
        self._dropped = tuple(n for n, each in enumerate(key) if isinstance(each, int | np.integer))
        self.shape = tuple(len(axis) for axis in self.axes)

    def places(self, *numbers: Ints) -> tuple[tuple[Ints, Ints, Ints], npt.NDArray[np.bool_]]:
        """Return where time, y and x lie among the values, of those that are asked for, and which are."""
        inside = np.ones(len(numbers[0]), bool)
        found = []
        for axis, values in zip(self.axes, numbers, strict=False):
            place = np.minimum(np.searchsorted(axis, values), len(axis) - 1)
            inside &= axis[place] == values
            found.append(place)
        time, y, x = (place[inside] for place in found)
        return (time, y, x), inside

    def answer(self, values: Values) -> Values:
        """Return the values in the order of the indexer, without the dimensions that it names one number of."""
        ordered: Values = values[np.ix_(*self._back)]
        return np.squeeze(ordered, axis=self._dropped)


def box_slices(bbox: Sequence[float], zone: int, dataset: xr.Dataset) -> dict[str, slice]:
    """Return the rows and columns of pixels that share ground with a box in degrees.

    Raises:
        QueryError: it does not meet the zone.
    """
    west, south, east, north = bbox
    middle = 6 * zone - 183
    left = (west - middle + 180) % 360 - 180
    right = left + (east - west if east >= west else east - west + 360)
    turns = [(left + 360 * n, right + 360 * n) for n in (-1, 0)]
    spans = [(max(a, -_FARTHEST), min(b, _FARTHEST)) for a, b in turns]
    found = [(a, b) for a, b in spans if a <= b]
    if not found:
        raise QueryError("bbox", f"{list(bbox)} does not meet zone {zone}", "a box on the ground of the zone")
    a, b = found[0][0], found[-1][1]
    lon, lat = np.meshgrid(middle + a + (b - a) * _EDGE, south + (north - south) * _EDGE)
    x, y = utm(zone).transform(lon.ravel(), lat.ravel())
    pixel = float(dataset["x"][1] - dataset["x"][0])
    top, start = float(dataset["y"][0]) + pixel / 2, float(dataset["x"][0]) - pixel / 2
    rows = (top - np.array([max(y), min(y)])) / pixel
    cols = (np.array([min(x), max(x)]) - start) / pixel
    spans_of = {"y": rows, "x": cols}
    sizes = {name: dataset.sizes[name] for name in spans_of}
    return {
        name: slice(*np.clip([math.floor(first), math.floor(last) + 1], 0, sizes[name]).tolist())
        for name, (first, last) in spans_of.items()
    }
