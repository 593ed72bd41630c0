"""Columns in temporary files: the same answers as from arrays, however few rows are looked at together."""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from clay_publish.release.directory import SOURCES, Release
from clay_publish.release.geoparquet import write_table
from clay_publish.release.tables import sources_schema
from clay_publish.validate import spilled
from clay_publish.validate.data.chip_facts import repeated
from clay_publish.validate.data.files import ReleaseFiles
from clay_publish.validate.data.parquet_tables import ParquetTables
from clay_publish.validate.data.sources import read_sources
from clay_publish.validate.outcomes import NoRoomError


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spilled, "_PIECE", 256)
    monkeypatch.setattr(spilled, "_SORTED", 50)
    monkeypatch.setattr(spilled, "_GAP", 32)


def column(values: np.ndarray) -> spilled.SpilledColumn:
    return spilled.spilled(np.array_split(values, 7), values.dtype)


def test_rows_are_read_as_from_an_array() -> None:
    values = np.random.default_rng(1).integers(0, 99, 1000)
    kept, rows = column(values), np.array([999, 3, 3, 500, 0])
    assert len(kept) == 1000
    assert kept[17] == values[17]
    np.testing.assert_array_equal(kept[10:20], values[10:20])
    np.testing.assert_array_equal(kept[rows], values[rows])
    np.testing.assert_array_equal(np.concatenate(list(spilled.pieces(kept))), values)
    np.testing.assert_array_equal(spilled.distinct(kept), np.unique(values))
    np.testing.assert_array_equal(spilled.rows_with(kept, np.array([5, 7])), np.flatnonzero(np.isin(values, [5, 7])))


def test_bytes_are_those_that_were_added() -> None:
    draw = np.random.default_rng(6)
    values = [draw.bytes(int(length)) for length in draw.integers(0, 90, 400)]
    values[7], values[11], values[12] = b"", None, None
    column, kept = pa.array(values, pa.binary()), spilled.SpilledBytes()
    for start in (0, 130, 131, 400):
        kept.append(column.slice(start, {0: 130, 130: 1, 131: 269}.get(start, 0)))
    for rows in (np.arange(400), draw.integers(0, 400, 90), np.array([399, 0, 11, 7, 7], np.int32), np.empty(0, int)):
        assert kept[rows] == [values[n] or b"" for n in rows.tolist()]


def test_only_what_is_near_each_other_is_read_together(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, read = column(np.arange(1000)), []
    found = spilled.SpilledColumn._read
    monkeypatch.setattr(
        spilled.SpilledColumn, "_read", lambda self, start, stop: read.append(stop - start) or found(self, start, stop)
    )
    rows = np.array([900, 3, 5, 40], np.int32)
    np.testing.assert_array_equal(kept[rows], rows)
    assert sorted(read) == [1, 1, 3]


def test_threads_read_a_column_side_by_side() -> None:
    values = np.arange(100_000)
    kept = column(values)
    starts = np.random.default_rng(5).integers(0, 99_000, 4_000)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda start: kept[start : start + 1000], starts))
    np.testing.assert_array_equal([each[0] for each in found], starts)
    np.testing.assert_array_equal([each[-1] for each in found], starts + 999)


def test_ranges_are_common_and_in_order() -> None:
    draw = np.random.default_rng(2)
    one, other = draw.integers(0, 2**63, 1000, dtype=np.uint64), draw.integers(0, 9, 300, dtype=np.uint64)
    parts = list(spilled.in_order(column(one), other))
    assert len(parts) > 10
    np.testing.assert_array_equal(np.concatenate([part[0] for part in parts]), np.sort(one))
    np.testing.assert_array_equal(np.concatenate([part[1] for part in parts]), np.sort(other))


@pytest.mark.parametrize("kinds", [3, 700, 2**40])
def test_repeats_are_those_of_one_sort(kinds: int) -> None:
    values = np.random.default_rng(3).integers(0, kinds, 1000).astype(np.uint64)
    order = np.argsort(values, kind="stable")
    pairs = [(a, b) for a, b in pairwise(order) if values[a] == values[b]]
    found = repeated(column(values))
    assert found.extra == len(pairs)
    assert list(found.examples()) == pairs


@pytest.mark.parametrize("count", [1, 2, 1000, 1001])
def test_middle_is_the_median(count: int) -> None:
    values = np.random.default_rng(4).lognormal(0, 9, count).astype(np.float32)
    both = spilled.middle(lambda: spilled.pieces(values))
    assert np.mean(both) == pytest.approx(np.median(values.astype(np.float64)))


def test_full_disk_is_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = column(np.arange(10))
    with Path("/dev/full").open("r+b", buffering=0) as full:
        monkeypatch.setattr(kept, "_file", full)
        with pytest.raises(NoRoomError, match=r"No space left on device.*TMPDIR"):
            kept.append(np.arange(10))


def test_a_file_that_became_shorter_is_an_error() -> None:
    kept = column(np.arange(1000))
    np.testing.assert_array_equal(kept[1:100:9], np.arange(1, 100, 9))
    kept._file.truncate(100)
    with pytest.raises(OSError, match="shorter"):
        kept[:]


def test_items_without_acquisition_count_one_by_one(tmp_path: Path) -> None:
    empty = dict.fromkeys(sources_schema().names)
    used = {"block": 0, "status": "used", "bands": [], "assets": []}
    named = zip("abcde", ["one", "one", None, None, ""], strict=True)
    rows = [empty | used | {"id": name, "acquisition": stated} for name, stated in named]
    release = Release(str(tmp_path))
    write_table(release.store, SOURCES, pa.Table.from_pylist(rows, schema=sources_schema()))
    sources = read_sources(ParquetTables(ReleaseFiles(release)))
    assert sources.count_acquisitions("ab") == 1
    assert sources.count_acquisitions("abcde") == 4
    assert sources.find(pa.array(["e", None, "none", "a"])).tolist() == [4, -1, -1, 0]
