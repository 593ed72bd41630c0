"""Reading the rows of a Parquet table that are needed, and little else, in the types that the reader gives out."""

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from clay_publish.errors import ReleaseError, StoreError
from clay_publish.release.directory import DataFile, Release
from clay_publish.release.geoparquet import geo_metadata
from clay_publish.search.query import EXTENT_COLUMNS, SIDES, Extent, QueryError

Ints = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]

THREADS = min(8, os.cpu_count() or 1)
"""Files that are read at a time."""


@dataclass(frozen=True)
class Shelf:
    """Some embeddings files of a release, one entry each."""

    paths: list[str]
    """Below the release."""
    boxes: npt.NDArray[np.float64]
    """[n, 4] west, south, east, north."""

    @property
    def windows(self) -> int:
        """How many windows the files are of."""
        return len({DataFile.parse(path).window for path in self.paths})

    def newest_first(self) -> "Shelf":
        """The same files, those of the newest window first: of chips equally near, the first file's is found."""
        order = sorted(range(len(self.paths)), key=lambda n: DataFile.parse(self.paths[n]).window, reverse=True)
        return Shelf([self.paths[n] for n in order], self.boxes[order])


@dataclass(frozen=True)
class Rows:
    """Some rows of the files of a shelf, in order."""

    file: Ints
    """Place in the shelf; −1 where there is no row."""
    row: Ints
    """Number of the row in its file."""

    def take(self, which: Ints) -> "Rows":
        """Some of them, in this order."""
        return Rows(self.file[which], self.row[which])

    def column_bytes(self, release: Release, shelf: Shelf, columns: Sequence[str]) -> int:
        """Return how many bytes `read` reads of some columns, by the footers of the files."""
        total = 0
        for number in np.unique(self.file[self.file >= 0]).tolist():
            footer = release.parquet(shelf.paths[number]).metadata
            starts = group_starts(footer)
            groups = np.unique(np.searchsorted(starts, self.row[self.file == number], side="right") - 1)
            places = [n for n in range(footer.num_columns) if footer.schema.column(n).path.split(".")[0] in columns]
            total += sum(footer.row_group(g).column(n).total_compressed_size for g in groups.tolist() for n in places)
        return total

    def read(self, release: Release, shelf: Shelf, columns: Sequence[str]) -> pa.Table:
        """Read them, from the row groups they lie in; all values of a row that is not there are null.

        Raises:
            ReleaseError: a file cannot be read.
        """

        def of_file(number: int) -> tuple[list[pa.Table], list[Ints]]:
            path = shelf.paths[number]
            file, tables, chosen = release.parquet(path), [], []
            starts = group_starts(file.metadata)
            mine = np.flatnonzero(self.file == number)
            group = np.searchsorted(starts, self.row[mine], side="right") - 1
            for one in np.unique(group):
                here = mine[group == one]
                table = read(file, [int(one)], columns, release.store.path(path))
                tables.append(table.take(pa.array(self.row[here] - starts[one])))
                chosen.append(here)
            return tables, chosen

        with ThreadPoolExecutor(THREADS) as pool:
            found = list(pool.map(of_file, np.unique(self.file[self.file >= 0]).tolist()))
        parts = [table for tables, _ in found for table in tables]
        places = [here for _, chosen in found for here in chosen]
        if not parts:
            return pa.table({})
        order = np.concatenate(places)
        back = np.full(len(self.file), -1, dtype=np.int64)
        back[order] = np.arange(len(order))
        indices = pa.array(back, mask=back < 0)
        return pa.concat_tables(parts).replace_schema_metadata().take(indices)


def select(file: pq.ParquetFile, extent: Extent, columns: Sequence[str] | None, where: str) -> pa.Table:
    """Return the rows of a table that meet an extent; columns other than its own are read only where a row matches.

    Raises:
        QueryError: there is no such column.
        ReleaseError: the table cannot be read.
    """
    known = file.schema_arrow.names
    wanted = list(columns) if columns is not None else known
    check_columns(wanted, known)
    parts = list(stream(file, extent, wanted, where))
    empty = pa.schema([file.schema_arrow.field(name) for name in wanted]).empty_table()
    return pa.concat_tables(parts) if parts else empty


def stream(file: pq.ParquetFile, extent: Extent, columns: Sequence[str], where: str) -> Iterator[pa.Table]:
    """The rows of a table that meet an extent, a row group at a time.

    Raises:
        ReleaseError: the table cannot be read.
    """
    for group, mask in matching_groups(file, extent, where):
        rows = read(file, [group], columns, where)
        yield rows if mask.all() else rows.filter(pa.array(mask))


def matching_groups(
    file: pq.ParquetFile, extent: Extent, where: str, groups: range | None = None
) -> Iterator[tuple[int, npt.NDArray[np.bool_]]]:
    """The row groups, of all or of some, that hold rows within an extent, and which rows."""
    absent = [name for name in EXTENT_COLUMNS if name not in file.schema_arrow.names]
    if absent and not extent.everything:
        raise ReleaseError(where, f"has no column {absent[0]}", "the columns of a release")
    for group in extent.row_groups(file.metadata):
        if groups is not None and group not in groups:
            continue
        if extent.everything:
            yield group, np.ones(file.metadata.row_group(group).num_rows, dtype=bool)
            continue
        mask = extent.meets(read(file, [group], EXTENT_COLUMNS, where))
        if mask.any():
            yield group, mask


def read(
    file: pq.ParquetFile, groups: list[int], columns: Sequence[str], where: str, *, threads: bool = True
) -> pa.Table:
    """Some columns of some row groups.

    Raises:
        ReleaseError: damaged, or without one of the columns.
    """
    try:
        return file.read_row_groups(groups, columns=list(columns), use_threads=threads).select(list(columns))
    except StoreError as error:
        raise ReleaseError(error.where, error.found, error.expected, error.fix) from error
    except (pa.ArrowException, OSError, KeyError) as error:
        raise ReleaseError(where, f"cannot be read ({error})", "a whole table of a release") from error


def check_columns(wanted: Sequence[str], known: Sequence[str]) -> None:
    """Refuse columns that are not there.

    Raises:
        QueryError: the first of them, and what there is.
    """
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise QueryError("columns", f"{unknown[0]!r} is not a column", f"some of {', '.join(known)}")


def group_starts(footer: pq.FileMetaData) -> Ints:
    """Return the number of the first row of each row group, and the number of all rows."""
    return np.cumsum([0, *(footer.row_group(group).num_rows for group in range(footer.num_row_groups))])


def groups_with(file: pq.ParquetFile, chip: str) -> Iterator[int]:
    """Row groups whose statistics do not rule out that they hold an id."""
    place = file.schema_arrow.names.index("id")
    for group in range(file.num_row_groups):
        statistics = file.metadata.row_group(group).column(place).statistics
        if statistics is None or not statistics.has_min_max or statistics.min <= chip <= statistics.max:
            yield group


def group_boxes(footer: pq.FileMetaData) -> npt.NDArray[np.float64]:
    """Return [row groups, 4] west, south, east, north of their chips; the whole Earth where statistics do not tell.

    Of a row group across the antimeridian, whose smallest west says nothing, the whole circle.
    """
    places = {footer.schema.column(i).path: i for i in range(footer.num_columns)}
    made = np.tile([-180.0, -90.0, 180.0, 90.0], (footer.num_row_groups, 1))
    if not all(f"bbox.{side}" in places for side in SIDES):
        return made
    for group in range(footer.num_row_groups):
        statistics = [footer.row_group(group).column(places[f"bbox.{side}"]).statistics for side in SIDES]
        if all(one is not None and one.has_min_max for one in statistics):
            xmin, ymin, xmax, ymax = statistics
            made[group, 1], made[group, 3] = ymin.min, ymax.max
            if xmin.max <= xmax.min + 180:  # no row has its east left of its west
                made[group, 0], made[group, 2] = xmin.min, xmax.max
    return made


def vectors(rows: pa.Table | pa.RecordBatch) -> Vectors:
    """[n, D] embeddings as float32, the scale of quantized ones applied."""
    column = rows["embedding"]
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    flat = whole.flatten().to_numpy(zero_copy_only=False)
    values: Vectors = flat.reshape(-1, whole.type.list_size).astype(np.float32, copy=False)
    if "scale" in rows.schema.names:
        values = values * rows["scale"].to_numpy(zero_copy_only=False)[:, None]
    return values


def readable_schema(stored: pa.Schema) -> pa.Schema:
    """Return the columns of a stored table as they are given out: `embedding` as float32, and no `scale`."""
    fields = [field for field in stored if field.name != "scale"]
    if "embedding" in stored.names:
        place, kind = [field.name for field in fields].index("embedding"), stored.field("embedding").type
        inner = kind.value_field.with_type(pa.float32())
        fields[place] = stored.field("embedding").with_type(pa.list_(inner, kind.list_size))
    return pa.schema(fields)


def with_geo(schema: pa.Schema) -> pa.Schema:
    """Return a schema with the `geo` metadata of GeoParquet and the type of GeoArrow, where it has a geometry."""
    if "geometry" not in schema.names:
        return schema
    geo = geo_metadata([], None)
    column = geo["columns"]["geometry"]
    if "bbox" not in schema.names:
        del column["covering"]
    kind = {"ARROW:extension:name": "geoarrow.wkb", "ARROW:extension:metadata": json.dumps({"crs": column["crs"]})}
    place = schema.get_field_index("geometry")
    typed = schema.set(place, schema.field(place).with_metadata(kind))
    return typed.with_metadata({b"geo": json.dumps(geo).encode()})


def stored_columns(columns: Sequence[str], stored: Sequence[str]) -> list[str]:
    """Return the columns to read for some that are given out: vectors of integers need their scale."""
    return [*columns, *(["scale"] if "embedding" in columns and "scale" in stored else [])]


def dequantized(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return stored rows with the columns of `schema`, vectors multiplied by their scale."""
    columns = []
    for field in schema:
        column = rows[field.name]
        if field.name == "embedding" and column.type != field.type:
            column = pa.FixedSizeListArray.from_arrays(pa.array(vectors(rows).ravel()), type=field.type)
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=schema)
