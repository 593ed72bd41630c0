"""Reading a published release: its items, and the chips at a place, near one, or like one.

Only the files, row groups and columns that are needed are read, wherever the release lies.
"""

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clay_publish.errors import ReleaseError
from clay_publish.geo.utm_grid import parse_chip_id
from clay_publish.release import directory as paths
from clay_publish.release.directory import DataFile, Release
from clay_publish.release.public_urls import embeddings_path, rebase
from clay_publish.search.nearest import nearest_chips
from clay_publish.search.points import coordinates, join
from clay_publish.search.query import Extent, QueryError
from clay_publish.search.row_groups import Rows, Shelf, Vectors, check_columns, groups_with, read, select, vectors
from clay_publish.search.similar import similar_chips
from clay_publish.storage.store import Store

LIGHT = (
    "id",
    "geometry",
    "bbox",
    "datetime",
    "start_datetime",
    "end_datetime",
    "lon",
    "lat",
    "valid_fraction",
    "cloud_fraction",
    "item_id",
)
"""Columns that a search gives by default: all about a chip but its vector."""


class ReleaseReader:
    """A release at some place, open for reading. Make one with `open_release`."""

    def __init__(self, release: Release) -> None:
        self.release = release

    def __repr__(self) -> str:
        return f"ReleaseReader({self.release.store.where!r})"

    @cached_property
    def _items(self) -> pq.ParquetFile:
        return self.release.parquet(paths.ITEMS)

    def items(
        self, bbox: Sequence[float] | None = None, datetime: str | None = None, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """The STAC Items, one an embeddings file, that meet a box and a time.

        Args:
            bbox: west, south, east, north in degrees; west > east across the antimeridian.
            datetime: RFC 3339 date, time, or interval: `2023-01-01/2023-02-01`, `../2023-06-30`.
            columns: of `items.parquet`; default: all.

        Returns:
            A table as stac-geoparquet has it; the embeddings' addresses lead to where the release was opened.

        Raises:
            QueryError: no box, no time, or no such column.
            ReleaseError: the release has no readable `items.parquet`, or one that leads out of it.
        """
        extent = Extent.of(bbox, datetime)
        table = select(self._items, extent, columns, self.release.store.path(paths.ITEMS))
        return rebase(self.release.store, table) if "assets" in table.column_names else table

    def rows(self, numbers: npt.NDArray[np.int64]) -> pa.Table:
        """Rows of `items.parquet` by number, as `items` gives them.

        Raises:
            ReleaseError: as for `items`.
        """
        file, where = self.release.parquet(paths.ITEMS), self.release.store.path(paths.ITEMS)
        starts = np.cumsum([0, *(file.metadata.row_group(g).num_rows for g in range(file.num_row_groups))])
        groups = np.unique(np.searchsorted(starts, numbers, side="right") - 1)
        parts = [
            read(file, [int(group)], file.schema_arrow.names, where).take(
                pa.array(numbers[(numbers >= starts[group]) & (numbers < starts[group + 1])] - starts[group])
            )
            for group in groups
        ]
        return rebase(self.release.store, pa.concat_tables(parts) if parts else file.schema_arrow.empty_table())

    def chips(
        self, bbox: Sequence[float] | None = None, datetime: str | None = None, columns: Sequence[str] | None = None
    ) -> pa.RecordBatchReader:
        """The chips whose bounds meet a box and whose period meets a time, file by file.

        Args:
            bbox: as for `items`.
            datetime: as for `items`.
            columns: of the embeddings files; default: all, the embedding too.

        Returns:
            A stream: `.read_all()` makes it a table, and a loop over it never holds more than a row group.

        Raises:
            QueryError, ReleaseError: as for `items`.
        """
        extent = Extent.of(bbox, datetime)
        shelf = self.shelf(extent)
        schema = self.schema(columns)

        def batches() -> Iterator[pa.RecordBatch]:
            for path in shelf.paths:
                where = self.release.store.path(path)
                found = select(self.release.parquet(path), extent, schema.names, where)
                yield from found.cast(schema).to_batches()

        return pa.RecordBatchReader.from_batches(schema, batches())

    def nearest(
        self, lon: float, lat: float, k: int = 1, datetime: str | None = None, columns: Sequence[str] = LIGHT
    ) -> pa.Table:
        """The `k` chips whose centres are nearest to a place, the nearest first.

        Returns:
            These columns and `distance`, metres on the ellipsoid (float64).

        Raises:
            QueryError: no place on Earth, or no such time.
            ReleaseError: as for `items`.
        """
        extent = Extent.of(None, datetime)
        shelf = self.shelf(extent)
        place = np.array([lon], dtype=np.float64), np.array([lat], dtype=np.float64)
        rows, metres = nearest_chips(self.release, shelf, *place, k=k, extent=extent)
        found = np.isfinite(metres)
        table = self._read(Rows(rows.file[found], rows.row[found]), shelf, columns)
        return table.append_column("distance", pa.array(metres[found]))

    def sample(self, points: pa.Table, datetime: str | None = None) -> pa.Table:
        """Join the nearest chip's embedding to each row of a table of places.

        Args:
            points: has a column `lon` or `longitude` and one `lat` or `latitude`, in degrees.
            datetime: as for `items`; of chips equally near, the first in the release.

        Returns:
            The table with `distance` (metres), `chip_id`, `chip_datetime`, `chip_lon`, `chip_lat` and `embedding`
            (float32, quantization undone).

        Raises:
            QueryError: no such columns, or a row that is no place on Earth.
            ReleaseError: as for `items`.
        """
        extent = Extent.of(None, datetime)
        shelf = self.shelf(extent)
        rows, metres = nearest_chips(self.release, shelf, *coordinates(points), k=1, extent=extent)
        names = ["id", "datetime", "lon", "lat", "embedding", "scale"]
        chips = self._read(rows, shelf, [name for name in names if name in self._schema.names])
        return join(points, chips, metres)

    def similar(
        self,
        vector: npt.ArrayLike,
        k: int = 10,
        bbox: Sequence[float] | None = None,
        datetime: str | None = None,
        columns: Sequence[str] = LIGHT,
    ) -> pa.Table:
        """The `k` chips whose embeddings have the largest cosine with a vector, the most similar first.

        Every embedding in the box and time is compared, streamed in bounded memory.

        Returns:
            These columns and `similarity`, the cosine (float64).

        Raises:
            QueryError: a vector of another length, or without direction.
            ReleaseError: as for `items`.
        """
        extent = Extent.of(bbox, datetime)
        shelf = self.shelf(extent)
        rows, cosine = similar_chips(self.release, shelf, vector, k=k, extent=extent)
        return self._read(rows, shelf, columns).append_column("similarity", pa.array(cosine))

    def vector(self, chip: str) -> Vectors:
        """The embedding of a chip, quantization undone.

        Raises:
            QueryError: no chip has this id.
            ReleaseError: as for `items`.
        """
        for path in self._files_of(chip):
            file = self.release.parquet(path)
            where = self.release.store.path(path)
            for group in groups_with(file, chip):
                place = pc.index(read(file, [group], ["id"], where)["id"], chip).as_py()
                if place >= 0:
                    names = [name for name in ("embedding", "scale") if name in file.schema_arrow.names]
                    found: Vectors = vectors(read(file, [group], names, where).slice(place, 1))[0]
                    return found
        raise QueryError("id", f"{chip!r} is no chip of {self.release.store.where}", "the id of one")

    def shelf(self, extent: Extent) -> Shelf:
        """The embeddings files that may hold chips within an extent.

        Raises:
            ReleaseError: as for `items`.
        """
        table = select(self._items, extent, ["bbox", "assets"], self.release.store.path(paths.ITEMS))
        sides = pa.Table.from_struct_array(table["bbox"].combine_chunks())
        boxes = np.column_stack([sides[side].to_numpy() for side in ("xmin", "ymin", "xmax", "ymax")])
        hrefs = pc.struct_field(table["assets"], ["embeddings", "href"]).to_pylist()
        return Shelf([embeddings_path(href) for href in hrefs], boxes)

    def schema(self, columns: Sequence[str] | None = None) -> pa.Schema:
        """Of the embeddings files: all columns, or these.

        Raises:
            QueryError: there is no such column.
        """
        every = self._schema
        check_columns(columns or (), every.names)
        return every if columns is None else pa.schema([every.field(name) for name in columns])

    @cached_property
    def _schema(self) -> pa.Schema:
        first = self.shelf(Extent()).paths
        if not first:
            raise ReleaseError(self.release.store.where, "has no item", "at least one embeddings file")
        return self.release.parquet(first[0]).schema_arrow.remove_metadata()

    def _read(self, rows: Rows, shelf: Shelf, columns: Sequence[str]) -> pa.Table:
        schema = self.schema(columns)
        return rows.read(self.release, shelf, schema.names) if len(rows.file) else schema.empty_table()

    def _files_of(self, chip: str) -> list[str]:
        """Files that may hold a chip: those of its window, and in the `utm` layout of its place."""
        extent = Extent()
        try:
            told = parse_chip_id(chip)
            lon, lat = told.grid.centers(np.array([told.epsg]), np.array([told.row]), np.array([told.col]))
            extent = Extent((float(lon[0]), float(lat[0]), float(lon[0]), float(lat[0])))
        except ValueError:  # an id of the scene layout, or of another program
            pass
        files = self.shelf(extent).paths
        windows = [DataFile.parse(path).window.token for path in files]
        return [path for path, window in zip(files, windows, strict=True) if chip.endswith(window)] or files


def open_release(where: str | os.PathLike[str], **options: Any) -> ReleaseReader:
    """Open a release in a directory, or at an `http(s)://`, `s3://` or `hf://` address.

    Args:
        where: the folder of one version, which holds `collection.json`.
        options: passed to fsspec, such as `anon=True` for a public bucket.

    Raises:
        StoreError: no such kind of place.
        MissingExtraError: reading from there needs an extra.
    """
    return ReleaseReader(Release(Store(where, **options)))
