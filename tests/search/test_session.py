"""What reading a release on a server costs, in requests and bytes counted on loopback; and the cache on disk."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_release import Made, make_release
from range_server import RangeServer

from clay_publish.catalog import write_items
from clay_publish.errors import ReleaseError
from clay_publish.search.finder import LIGHT
from clay_publish.search.nearest import distances
from clay_publish.search.reader import ReleaseReader, open_release
from clay_publish.storage.range_cache import RangeCache

WIDE = 512
PLACE = (-75.6, 36.4)
BOX = (-75.65, 36.35, -75.55, 36.45)


@pytest.fixture(scope="module")
def folder(once: Callable[..., Path]) -> Path:
    """A release of 512 numbers per chip, whose files have several row groups."""
    made = Made(((-76.0, 36.0, -75.2, 36.8),), size=128, dimensions=WIDE)
    return once("wide", lambda home: write_items(make_release(home, made)))


@pytest.fixture
def server(folder: Path) -> Iterator[RangeServer]:
    with RangeServer(folder, etags=True) as made:
        yield made


@pytest.fixture
def reader(server: RangeServer) -> ReleaseReader:
    """Opened: the items and the schema are known."""
    opened = open_release(server.address)
    assert len(opened) > 3_000
    assert opened.dimensions == WIDE
    server.asked.clear()
    server.sent = 0
    return opened


def largest(folder: Path) -> pq.FileMetaData:
    files = sorted(folder.glob("embeddings/*/*.parquet"), key=lambda path: path.stat().st_size)
    return pq.read_metadata(files[-1])


def test_nearest_takes_few_requests(reader: ReleaseReader, server: RangeServer, folder: Path) -> None:
    assert largest(folder).num_row_groups > 1
    found = reader.nearest(*PLACE)
    assert found["id"].to_pylist() == open_release(folder).nearest(*PLACE)["id"].to_pylist()
    assert len(server.asked) <= 5
    assert server.sent <= 300_000

    server.sent = 0
    reader.nearest(*PLACE, columns=[*LIGHT, "embedding"])
    assert server.sent <= 2_200_000


def test_nearest_takes_few_requests_anywhere(server: RangeServer) -> None:
    reader = open_release(server.address, cache=False)
    every = reader.chips(columns=["id", "lon", "lat"]).read_all()
    random, asked = np.random.default_rng(0), []
    for lon, lat in zip(random.uniform(-76, -75.2, 20), random.uniform(36, 36.8, 20), strict=True):
        fresh = open_release(server.address, cache=False)
        assert len(fresh)
        assert fresh.dimensions == WIDE
        server.asked.clear()
        server.sent = 0
        found = fresh.nearest(lon, lat)
        asked.append(len(server.asked))
        assert server.sent <= 300_000
        assert found["id"][0].as_py() == nearest_id(every, lon, lat)
    assert sorted(asked)[-3] <= 5  # of most places the first row group that is read has the chip


def nearest_id(chips: pa.Table, lon: float, lat: float) -> str:
    """By the distance to all of them."""
    count = len(chips)
    meters = distances(np.full(count, lon), np.full(count, lat), chips["lon"].to_numpy(), chips["lat"].to_numpy())
    return str(chips["id"][int(meters.argmin())].as_py())


def test_a_file_is_asked_for_once(reader: ReleaseReader, server: RangeServer) -> None:
    reader.nearest(*PLACE)
    server.asked.clear()
    reader.nearest(*PLACE, columns=["id"])
    assert not server.asked  # the light columns of a row group are fetched together, and are kept


def test_a_box_costs_its_row_groups(reader: ReleaseReader, server: RangeServer, folder: Path) -> None:
    names = ["id", "lon", "lat", "embedding"]
    found = reader.chips(BOX, columns=names).read_all()
    west, south, east, north = BOX
    needed = 0
    for path in folder.glob("embeddings/*/*.parquet"):
        file = pq.ParquetFile(path)
        for number in range(file.num_row_groups):
            boxes = file.read_row_group(number, columns=["bbox"])["bbox"].to_pylist()
            meets = [
                b["xmin"] <= east and b["xmax"] >= west and b["ymin"] <= north and b["ymax"] >= south for b in boxes
            ]
            group = file.metadata.row_group(number)
            for place in range(group.num_columns) if any(meets) else ():
                column = group.column(place)
                compared = {"bbox", "start_datetime", "end_datetime"}
                if column.path_in_schema.partition(".")[0] in {*names, *compared}:
                    needed += column.total_compressed_size
    assert found.num_rows > 0
    assert server.sent <= 1.2 * needed


def test_ranges_are_fetched_side_by_side(reader: ReleaseReader, server: RangeServer) -> None:
    rows = reader.chips(columns=["id", "item_id"]).read_all()  # before and after the embedding
    assert rows.num_rows == len(reader)
    assert server.most > 1


def test_a_second_session_reads_from_the_cache(
    server: RangeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CLAY_PUBLISH_CACHE")
    first = open_release(server.address).nearest(*PLACE)
    sent, server.sent = server.sent, 0
    assert open_release(server.address).nearest(*PLACE).equals(first)
    assert server.sent < 0.2 * sent
    server.sent = 0
    open_release(server.address, cache=False).nearest(*PLACE)
    assert server.sent >= sent
    for path in tmp_path.rglob("*"):  # what was damaged is fetched again
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-1] + b"?")
    server.sent = 0
    assert open_release(server.address).nearest(*PLACE).equals(first)
    assert server.sent > 0.8 * sent


def test_a_file_that_changes_is_refused(tmp_path: Path) -> None:
    release = make_release(tmp_path, Made(((-76.0, 36.0, -75.9, 36.1),), dimensions=WIDE))
    write_items(release)
    with RangeServer(tmp_path, etags=True) as server:
        reader = open_release(server.address)
        assert reader.chips(columns=["id"]).read_all().num_rows
        for path in release.data_files():
            file = tmp_path / path
            file.write_bytes(file.read_bytes() + b"\0")
        with pytest.raises(ReleaseError, match="changed while it was read"):
            reader.chips(columns=["id", "embedding"]).read_all()


def test_a_range_without_the_etag_of_its_file_is_refused(reader: ReleaseReader, server: RangeServer) -> None:
    reader.nearest(*PLACE, columns=["id"])
    server.etags = False
    with pytest.raises(ReleaseError, match="may have changed while it was read"):
        reader.nearest(*PLACE, columns=["embedding"])


def test_files_with_weak_etags_are_read_and_not_kept(
    server: RangeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CLAY_PUBLISH_CACHE")
    server.weak = True
    assert open_release(server.address).nearest(*PLACE).num_rows == 1
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_a_damaged_range_that_cannot_be_removed_is_not_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    cache = RangeCache(tmp_path)
    cache.put("file", "etag", 0, b"data")
    (path,) = (path for path in tmp_path.rglob("*") if path.is_file())
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    monkeypatch.setattr(Path, "unlink", refuse)
    assert cache.get("file", "etag", 0, 4) is None


def test_the_cache_keeps_to_its_limit(tmp_path: Path) -> None:
    cache = RangeCache(tmp_path, limit=10_000)
    data = np.random.default_rng(0).bytes(1_000)
    for number in range(30):
        cache.put("file", "etag", number, data)
        assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) <= 10_000
    assert cache.get("file", "etag", 29, 1_029) == data
    assert cache.get("file", "another", 29, 1_029) is None
    assert cache.get("file", "etag", 0, 1_000) is None
