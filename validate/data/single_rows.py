"""Single rows of the embeddings, read again where a rule wants to look closer."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clay_publish.errors import ReleaseError
from clay_publish.search.row_groups import group_starts
from clay_publish.validate.data.chip_facts import ReleaseFacts
from clay_publish.validate.data.chips import ChipRows
from clay_publish.validate.data.parquet_tables import ParquetTables
from clay_publish.validate.outcomes import short


def value(tables: ParquetTables, facts: ReleaseFacts, column: str, row: int) -> Any:
    """One value of an embeddings file, by its row in the release."""
    path, place = facts.place(row)
    file = tables.open(path)
    group = 0
    while place >= file.metadata.row_group(group).num_rows:
        place -= file.metadata.row_group(group).num_rows
        group += 1
    return _read(tables, path, file, group, [column]).column(0)[place].as_py()


def _read(tables: ParquetTables, path: str, file: pq.ParquetFile, group: int, columns: list[str]) -> pa.Table:
    try:
        own = tables.columns(path).read_from(columns) if tables.foreign else columns
        with tables.files.reading(path):
            read = file.read_row_group(group, columns=own)
        if not tables.foreign:
            return read
        return pa.Table.from_batches([tables.renamed(path, batch) for batch in read.to_batches()]).select(columns)
    except (pa.ArrowException, OSError) as error:
        raise ReleaseError(path, f"cannot be read ({short(error)})") from error


def vectors_of(tables: ParquetTables, ids: set[str]) -> Iterator[tuple[str, str, npt.NDArray[np.float64]]]:
    """File, id and dequantized vector of the chips that have these ids; other rows' vectors are not decoded."""
    wanted = pa.array(sorted(ids), pa.string())
    for path in tables.embeddings:
        file = tables.open(path)
        columns = [name for name in ("embedding", "scale") if name in file.schema_arrow.names]
        for group in range(file.num_row_groups):
            mask = pc.is_in(_read(tables, path, file, group, ["id"]).column(0), value_set=wanted)
            if not pc.any(mask).as_py():
                continue
            rows = _read(tables, path, file, group, ["id", *columns]).filter(mask).combine_chunks()
            for batch in rows.to_batches():
                chips = ChipRows(path, 0, batch)
                for row in range(len(chips)):
                    yield path, chips.value("id", row), chips.values(np.array([row]))[0].astype(np.float64)


def vectors_at(
    tables: ParquetTables, facts: ReleaseFacts, rows: npt.NDArray[np.int64]
) -> Iterator[tuple[int, npt.NDArray[np.float64]]]:
    """Rows of the release, sorted, and their dequantized vectors; only the row groups that hold them are decoded."""
    for path, mine in facts.slices().items():
        wanted = rows[(rows >= mine.start) & (rows < mine.stop)] - mine.start
        for place, vector in rows_of(tables, path, wanted):
            yield place + mine.start, vector


def rows_of(
    tables: ParquetTables, path: str, rows: npt.NDArray[np.int64]
) -> Iterator[tuple[int, npt.NDArray[np.float64]]]:
    """Rows of a file, sorted, and their dequantized vectors; only the row groups that hold them are decoded."""
    for places, taken in _taken(tables, path, rows, ["embedding", "scale"]):
        chips = ChipRows(path, 0, taken.to_batches()[0])
        yield from zip(places, chips.values(slice(None)).astype(np.float64), strict=True)


def table_rows(tables: ParquetTables, path: str, rows: npt.NDArray[np.int64], columns: list[str]) -> pa.Table:
    """Some columns of rows of a file, sorted; columns that it lacks are left out."""
    parts = [taken for _, taken in _taken(tables, path, rows, columns)]
    names = [name for name in columns if name in tables.schema(path).names]
    return pa.concat_tables(parts) if parts else tables.schema(path).empty_table().select(names)


def _taken(
    tables: ParquetTables, path: str, rows: npt.NDArray[np.int64], columns: list[str]
) -> Iterator[tuple[list[int], pa.Table]]:
    """By row group: the rows in it, and these columns of them."""
    if not rows.size:
        return
    file = tables.open(path)
    columns = [name for name in columns if name in tables.names(path)]
    starts = group_starts(file.metadata)
    group = np.searchsorted(starts, rows, side="right") - 1
    for number in np.unique(group).tolist():
        places = rows[group == number]
        taken = _read(tables, path, file, number, columns).take(pa.array(places - starts[number])).combine_chunks()
        yield places.tolist(), taken


def column_of(tables: ParquetTables, path: str, name: str) -> list[Any]:
    """One column of a file."""
    file = tables.open(path)
    return [
        value for n in range(file.num_row_groups) for value in _read(tables, path, file, n, [name])[name].to_pylist()
    ]


def some_vectors(tables: ParquetTables, most: int) -> Iterator[tuple[str, str, npt.NDArray[np.float64]]]:
    """File, id and vector of some chips, spread over the files."""
    share = max(1, most // max(len(tables.embeddings), 1))
    for path in tables.embeddings[:most]:
        for batch in tables.open(path).iter_batches(share):
            chips = ChipRows(path, 0, batch)
            for row in range(len(chips)):
                yield path, chips.value("id", row), chips.values(np.array([row]))[0].astype(np.float64)
            break
