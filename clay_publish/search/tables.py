"""The tables of a published release: which files hold what is asked for, and how their rows are found and read."""

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clay_publish.errors import ReleaseError
from clay_publish.geo.utm_grid import parse_chip_id
from clay_publish.release import directory as paths
from clay_publish.release.directory import DataFile, Release
from clay_publish.release.public_urls import embeddings_path
from clay_publish.search.codes import Encoding
from clay_publish.search.query import Extent, QueryError
from clay_publish.search.row_groups import (
    Rows,
    Shelf,
    Vectors,
    check_columns,
    dequantized,
    groups_with,
    read,
    readable_schema,
    select,
    stored_columns,
    stream,
    vectors,
    with_geo,
)
from clay_publish.windows import Window

_DEGREE = 111_000.0
"""Meters of a degree of latitude."""
_SHELVES = 64
"""Boxes and times whose files are remembered."""


class ReleaseTables:
    """The tables of a release. `ReleaseReader` answers questions from them."""

    def __init__(self, release: Release) -> None:
        self.release = release
        self._shelves: dict[Extent, Shelf] = {}

    @cached_property
    def _items(self) -> pq.ParquetFile:
        return self.release.parquet(paths.ITEMS)

    @cached_property
    def _stored(self) -> pa.Schema:
        first = self.shelf(Extent()).paths
        if not first:
            raise ReleaseError(self.release.store.where, "has no item", "at least one embeddings file")
        return self.release.parquet(first[0]).schema_arrow.remove_metadata()

    def schema(self, columns: Sequence[str] | None = None) -> pa.Schema:
        """Of the chips: all columns, or these; `embedding` is float32 and there is no `scale`. With `geo` metadata.

        Raises:
            QueryError: there is no such column.
        """
        every = readable_schema(self._stored)
        check_columns(columns or (), every.names)
        chosen = every if columns is None else pa.schema([every.field(name) for name in columns])
        return with_geo(chosen)

    @cached_property
    def dimensions(self) -> int:
        """Numbers of an embedding."""
        return int(self._stored.field("embedding").type.list_size)

    @cached_property
    def windows(self) -> list[Window]:
        """The windows of the release, in order of time."""
        return sorted({DataFile.parse(path).window for path in self.shelf(Extent()).paths})

    @cached_property
    def encoding(self) -> Encoding | None:
        """How the release's compact codes are made; None where it has none.

        Raises:
            ReleaseError: `codes/model.json` describes codes that this version cannot read.
        """
        store = self.release.store
        if not store.exists(paths.CODES_MODEL):
            return None
        return Encoding.read(self.release.json(paths.CODES_MODEL), store.path(paths.CODES_MODEL))

    @cached_property
    def chip_side(self) -> float:
        """Meters of a chip's side: as the release states it, else as its first chip measures from south to north."""
        try:
            made = self.release.fingerprint()
            if made.gsd is not None:
                return made.size * made.gsd
        except ReleaseError:
            pass  # made by another program
        path = self.shelf(Extent()).paths[0]
        box = read(self.release.parquet(path), [0], ["bbox"], self.release.store.path(path))["bbox"][0].as_py()
        return float(box["ymax"] - box["ymin"]) * _DEGREE

    def __len__(self) -> int:
        """How many chips the release has."""
        every = list(range(self._items.num_row_groups))
        table = read(self._items, every, ["table:row_count"], self.release.store.path(paths.ITEMS))
        return int(pc.sum(table["table:row_count"]).as_py() or 0)

    def shelf(self, extent: Extent) -> Shelf:
        """The embeddings files that may hold chips within an extent.

        Raises:
            ReleaseError: as for `ReleaseReader.items`.
        """
        found = self._shelves.get(extent)  # one look: another thread may clear them
        if found is None:
            found = self._read_shelf(extent)
            if len(self._shelves) >= _SHELVES:
                self._shelves.clear()
            self._shelves[extent] = found
        return found

    def _read_shelf(self, extent: Extent) -> Shelf:
        table = select(self._items, extent, ["bbox", "assets"], self.release.store.path(paths.ITEMS))
        sides = pa.Table.from_struct_array(table["bbox"].combine_chunks())
        boxes = np.column_stack([sides[side].to_numpy() for side in ("xmin", "ymin", "xmax", "ymax")])
        hrefs = pc.struct_field(table["assets"], ["embeddings", "href"]).to_pylist()
        return Shelf([embeddings_path(href) for href in hrefs], boxes)

    def _read(self, rows: Rows, shelf: Shelf, columns: Sequence[str]) -> pa.Table:
        schema = self.schema(columns)
        if not len(rows.file):
            return schema.empty_table()
        names = stored_columns(schema.names, self._stored.names)
        return dequantized(rows.read(self.release, shelf, names), schema)

    def _stream(self, folder: str) -> pa.RecordBatchReader:
        files = self.release.data_files(folder)
        if not files:
            raise ReleaseError(self.release.store.path(folder), "is not part of this release")
        stored = self.release.parquet(files[0]).schema_arrow.remove_metadata()
        schema = with_geo(readable_schema(stored))

        def batches() -> Iterator[pa.RecordBatch]:
            for path in files:
                for rows in stream(self.release.parquet(path), Extent(), stored.names, self.release.store.path(path)):
                    yield from dequantized(rows, schema).to_batches()

        return pa.RecordBatchReader.from_batches(schema, batches())

    def vector(self, chip: str) -> Vectors:
        """The embedding of a chip, quantization undone.

        Raises:
            QueryError: no chip has this id.
            ReleaseError: as for `ReleaseReader.items`.
        """
        for path in self._files_of(chip):
            file = self.release.parquet(path)
            where = self.release.store.path(path)
            for group in groups_with(file, chip):
                place = pc.index(read(file, [group], ["id"], where)["id"], chip).as_py()
                if place >= 0:
                    names = stored_columns(["embedding"], file.schema_arrow.names)
                    found: Vectors = vectors(read(file, [group], names, where).slice(place, 1))[0]
                    return found
        raise QueryError("id", f"{chip!r} is not a chip of {self.release.store.where}", "the id of one")

    def _files_of(self, chip: str) -> list[str]:
        """Files that may hold a chip: those of its window, and in the `utm` layout of its place."""
        extent = Extent()
        try:
            known = parse_chip_id(chip)
            lon, lat = known.grid.centers(np.array([known.epsg]), np.array([known.row]), np.array([known.col]))
            extent = Extent((float(lon[0]), float(lat[0]), float(lon[0]), float(lat[0])))
        except ValueError:  # an id of the scene layout, or of another program
            pass
        files = self.shelf(extent).paths
        windows = [DataFile.parse(path).window.token for path in files]
        return [path for path, window in zip(files, windows, strict=True) if chip.endswith(window)] or files
