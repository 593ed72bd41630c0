"""Rows of a Parquet file by their numbers."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clay_publish.release.stored_rows import StoredRows


@pytest.fixture
def file(tmp_path: Path) -> pq.ParquetFile:
    table = pa.table({"id": list("abcdefg"), "n": range(7), "items": [["x"] * (n % 3) for n in range(7)]})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=3)
    return pq.ParquetFile(tmp_path / "t.parquet")


@pytest.mark.parametrize("rows", [[6, 0, 3, 3, 2], [-1, 5, -1], [-1], [], [0, 1, 2, 3, 4, 5, 6]])
def test_rows_in_any_order(file: pq.ParquetFile, rows: list[int]) -> None:
    found = StoredRows(file, ["n", "items"]).take(np.array(rows, np.int32))
    known = [None if row < 0 else row for row in rows]
    assert found["n"].to_pylist() == known
    assert found["items"].to_pylist() == [None if row is None else ["x"] * (row % 3) for row in known]
    assert found.column_names == ["n", "items"]
    assert StoredRows(file, ["items", "n"]).take(np.array(rows, np.int32)).column_names == ["items", "n"]


def test_row_groups_are_read_once(file: pq.ParquetFile, monkeypatch: pytest.MonkeyPatch) -> None:
    stored, read = StoredRows(file, ["n"]), list[int]()
    real = file.read_row_group

    def counted(number: int, columns: list[str]) -> pa.Table:
        read.append(number)
        return real(number, columns=columns)

    monkeypatch.setattr(file, "read_row_group", counted)
    for row in range(7):
        assert stored.take(np.array([row]))["n"].to_pylist() == [row]
    assert read == [0, 1, 2]


def test_a_file_without_rows(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": pa.array([], pa.int64())}), tmp_path / "t.parquet")
    found = StoredRows(pq.ParquetFile(tmp_path / "t.parquet"), ["n"]).take(np.array([-1, -1]))
    assert found["n"].to_pylist() == [None, None]
