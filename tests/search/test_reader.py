import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyproj import Geod
from s3_servers import KEY, S3View, start_ministack, with_client
from stac_geoparquet.arrow import stac_table_to_items, to_parquet

import clay_publish
from clay_publish.catalog import write_items
from clay_publish.errors import AccessError, ReleaseError, StoreError
from clay_publish.geo.utm_zones import Square
from clay_publish.release.directory import ITEMS, Release
from clay_publish.release.geoparquet import write_table
from clay_publish.release.public_urls import embeddings_path
from clay_publish.search.nearest import at_least
from clay_publish.search.query import Extent, QueryError
from clay_publish.search.reader import ReleaseReader, open_release
from clay_publish.search.row_groups import Shelf, vectors
from clay_publish.storage import retry

MakeRelease = Callable[..., Release]
SHORE = (-77.0, 36.0, -74.0, 39.0)


@pytest.fixture
def opened(make_release: MakeRelease) -> Callable[..., ReleaseReader]:
    def make(*parts: Any, **options: Any) -> ReleaseReader:
        release = make_release(*parts, **options)
        write_items(release)
        return clay_publish.open_release(release.store.where)

    return make


def every_chip(reader: ReleaseReader) -> pa.Table:
    release = reader.release
    return pa.concat_tables([pq.read_table(release.store.path(path)) for path in release.data_files()])


def test_items_are_found_by_box_and_time(opened: Callable[..., ReleaseReader]) -> None:
    reader = opened()
    assert reader.items().num_rows == 3
    assert reader.items(bbox=SHORE).num_rows == 2
    assert reader.items(bbox=SHORE, datetime="2023-07-01/..")["id"].to_pylist() == ["18_04_41_2023-07-01_2023-08-01"]
    assert reader.items(datetime="2023-01-10")["id"].to_pylist() != []
    assert reader.items(datetime="2023-01-11").num_rows == 0
    assert reader.items(bbox=(0, 60, 1, 61)).num_rows == 0


def test_chips_are_those_of_the_box_and_no_others(opened: Callable[..., ReleaseReader]) -> None:
    reader = opened()
    table = every_chip(reader)
    bounds = table["bbox"].combine_chunks()
    first = bounds[0].as_py()
    box = (first["xmin"] - 1e-6, first["ymin"] + 1e-6, first["xmax"] - 1e-6, first["ymax"] - 1e-6)
    found = reader.chips(bbox=box, columns=["id", "embedding"]).read_all()
    touching = [
        chip["id"]
        for chip in table.select(["id", "bbox"]).to_pylist()
        if chip["bbox"]["xmin"] <= box[2]
        and chip["bbox"]["xmax"] >= box[0]
        and chip["bbox"]["ymin"] <= box[3]
        and chip["bbox"]["ymax"] >= box[1]
    ]
    assert 0 < len(touching) < table.num_rows
    assert sorted(found["id"].to_pylist()) == sorted(touching)
    assert reader.chips().read_all().num_rows == table.num_rows


def test_a_box_across_the_antimeridian_finds_what_lies_on_both_sides(
    opened: Callable[..., ReleaseReader], part: Any
) -> None:
    reader = opened(
        part(Square(60, 8, -18), [(-1382, col) for col in range(636, 650)]),
        part(Square(1, 2, -18), [(-1382, 140), (-1382, 141)]),
        part(Square(18, 4, 41), [(3240, 330)]),
    )
    assert reader.items(bbox=(179.0, -20, -177.0, -10)).num_rows == 2
    assert reader.items(bbox=(-180.0, -20, -179.0, -10)).num_rows >= 1
    assert reader.items(bbox=(170.0, -20, 180.0, -10)).num_rows >= 1
    every = reader.chips(bbox=(170, -20, -170, -10), columns=["id"]).read_all().num_rows
    west = set(reader.chips(bbox=(170, -20, 180, -10), columns=["id"]).read_all()["id"].to_pylist())
    east = set(reader.chips(bbox=(-180, -20, -170, -10), columns=["id"]).read_all()["id"].to_pylist())
    assert every == 16
    assert len(west | east) == 16
    assert len(west & east) >= 1  # the chip that crosses


def test_the_nearest_chips_are_the_nearest(opened: Callable[..., ReleaseReader]) -> None:
    reader = opened()
    table = every_chip(reader)
    random = np.random.default_rng(5)
    places = [(-75.6, 37.4), (-60.0, 30.0), (20.0, -3.0), (179.9, 0.0), *random.uniform(-80, 80, (6, 2)).tolist()]
    for lon, lat in places:
        size = table.num_rows
        _, _, meters = Geod(ellps="WGS84").inv(
            np.full(size, lon), np.full(size, lat), table["lon"].to_numpy(), table["lat"].to_numpy()
        )
        found = reader.nearest(lon, lat, k=4, every_window=True)
        np.testing.assert_allclose(found["distance"].to_numpy(), np.sort(meters)[:4])
        assert found["id"][0].as_py() in {table["id"][i].as_py() for i in np.flatnonzero(meters <= meters.min())}


def test_more_neighbors_than_chips_are_all_there_are(opened: Callable[..., ReleaseReader]) -> None:
    assert opened().nearest(0, 0, k=100, every_window=True).num_rows == 26
    assert opened().nearest(0, 0, k=100).num_rows == 16


def test_no_place_in_a_box_is_nearer_than_its_bound() -> None:
    random = np.random.default_rng(11)
    for _ in range(300):
        west, width = random.uniform(-180, 180), random.choice([0.01, 1.0, 20.0, 300.0])
        south, north = np.sort(random.uniform(-90, 90, 2))
        east = (west + width + 180) % 360 - 180
        lon, lat = np.array([random.uniform(-180, 180)]), np.array([random.uniform(-90, 90)])
        inside_lon = west + random.uniform(0, width, 200)
        inside_lat = random.uniform(south, north, 200)
        _, _, meters = Geod(ellps="WGS84").inv(np.full(200, lon[0]), np.full(200, lat[0]), inside_lon, inside_lat)
        assert at_least(lon, lat, np.array([[west, south, east, north]]))[0] <= meters.min() + 1e-6


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_the_most_similar_chips_are_those_of_largest_cosine(opened: Callable[..., ReleaseReader], dtype: str) -> None:
    reader = opened(dtype=dtype)
    table = every_chip(reader)
    values = vectors(table).astype(np.float64)
    asked = reader.vector(table["id"][17].as_py())
    np.testing.assert_allclose(asked, values[17], rtol=1e-6)
    cosine = values @ values[17] / np.linalg.norm(values, axis=1) / np.linalg.norm(values[17])
    found = reader.similar(asked, k=5)
    np.testing.assert_allclose(found["similarity"].to_numpy(), np.sort(cosine)[::-1][:5], atol=1e-9)
    assert found["id"].to_pylist() == [table["id"][i].as_py() for i in np.argsort(-cosine)[:5]]
    there = reader.similar(asked, k=50, bbox=SHORE, datetime="2023-07-01/2023-07-31")
    assert there.num_rows == 10


def test_only_what_is_needed_is_read(make_release: MakeRelease, part: Any, serve: Any) -> None:
    cells = [(row, col) for row in range(3160, 3190) for col in range(320, 350)]
    parts = [part(Square(zone, 4, 40), cells) for zone in (15, 16, 17, 18)]
    release = make_release(*parts)
    write_items(release)
    folder = Path(release.store.where)
    # Vectors that weigh: the light columns are a small part of each file.
    widen(release)
    sizes = {path: (folder / path).stat().st_size for path in release.data_files()}
    write_items(release)
    served = serve(folder)
    reader = open_release(served.address)
    box = (-75.8, 36.0, -75.7, 37.0)

    found = reader.chips(bbox=box, columns=["id", "lon", "lat"]).read_all()
    assert 0 < found.num_rows < len(cells)
    touched = {path for path, _ in served.requests if path.startswith("/embeddings")}
    assert len(touched) <= 2  # the first tells the schema
    assert served.sent("/embeddings") < 0.25 * sum(sizes.values()) / len(sizes)

    served.requests.clear()
    nearest = reader.nearest(-75.75, 36.6)
    assert nearest.num_rows == 1
    assert {path.split("/")[2] for path, _ in served.requests if path.startswith("/embeddings")} == {"zone=18"}
    assert served.sent("/embeddings") < 0.25 * sum(sizes.values()) / len(sizes)

    served.requests.clear()
    assert reader.similar(np.ones(256), k=3, bbox=box).num_rows == 3
    assert served.sent("/embeddings") < 1.5 * max(sizes.values())


def widen(release: Release) -> None:
    """Give every chip a vector of 256 numbers."""
    random = np.random.default_rng(0)
    for path in release.data_files():
        table = pq.read_table(release.store.path(path))
        kind = pa.list_(pa.field("element", pa.float32(), nullable=False), 256)
        values = pa.array(random.normal(size=table.num_rows * 256).astype(np.float32))
        place = table.schema.get_field_index("embedding")
        column = pa.FixedSizeListArray.from_arrays(values, type=kind)
        write_table(release.store, path, table.set_column(place, pa.field("embedding", kind, nullable=False), column))


def test_threads_may_ask_for_more_boxes_than_are_remembered(tiny: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clay_publish.search.tables._SHELVES", 1)
    reader = ReleaseReader(tiny)
    shelves = {Extent((float(west), 36.0, -70.0, 38.0)): Shelf([str(west)], np.zeros((1, 4))) for west in (-80, -79)}
    monkeypatch.setattr(reader, "_read_shelf", shelves.__getitem__)

    def ask(_: int) -> bool:
        return all(reader.shelf(extent) is shelf for extent, shelf in list(shelves.items()) * 8_000)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(ask, range(4)))
    finally:
        sys.setswitchinterval(before)


def test_addresses_lead_to_where_the_release_was_opened(make_release: MakeRelease, serve: Any) -> None:
    release = make_release(spec={"publish": {"base_url": "https://data.source.coop/clay/tiny"}})
    write_items(release)
    served = serve(Path(release.store.where))
    for where in (release.store.where, served.address):
        (item, *_) = stac_table_to_items(open_release(where).items(bbox=SHORE))
        assert item["assets"]["embeddings"]["href"].startswith(f"{where}/embeddings/zone=18/")
        assert {link["href"] for link in item["links"] if link["rel"] == "collection"} == {f"{where}/collection.json"}


def test_a_server_that_fails_now_and_then_is_asked_again(tiny: Release, serve: Any) -> None:
    served = serve(Path(tiny.store.where))
    served.failures += [503, 520]
    assert open_release(served.address).items().num_rows == 3
    assert served.failures == []


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_refusal_is_not_asked_again(tiny: Release, serve: Any, status: int) -> None:
    served = serve(Path(tiny.store.where))
    served.failures += [status] * 2
    with pytest.raises((ReleaseError, AccessError), match=r"items\.parquet: (the server answers 403|does not exist)"):
        open_release(served.address).items()
    assert served.failures == [status]


def test_a_server_that_always_fails_is_named(tiny: Release, serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "DEFAULT", retry.RetryPolicy(first=0.001))
    served = serve(Path(tiny.store.where))
    served.failures += [503] * 100
    with pytest.raises(AccessError, match=f"{served.address}/items.parquet.*503"):
        open_release(served.address).items()
    assert len(served.failures) == 95


@pytest.mark.slow
def test_a_release_in_a_bucket_reads_the_same(tiny: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = {"LocationConstraint": "us-west-2"}
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, KEY)
    with contextmanager(start_ministack)(tmp_path) as address:
        with_client(address, lambda c: c.create_bucket(Bucket="clay", CreateBucketConfiguration=place))
        bucket = S3View(address, "clay")
        for path in tiny.store.files():
            bucket.put(f"tiny/1.0.0/{path}", tiny.store.read(path))
        here = open_release(tiny.store.where)
        there = open_release("s3://clay/tiny/1.0.0", key=KEY, secret=KEY, endpoint_url=address)
        asked = {"bbox": SHORE, "columns": ["id", "embedding"]}
        assert there.chips(**asked).read_all().equals(here.chips(**asked).read_all())
        assert there.nearest(0, 0)["id"].to_pylist() == here.nearest(0, 0)["id"].to_pylist()
        (item, *_) = stac_table_to_items(there.items(bbox=SHORE))
        assert item["assets"]["embeddings"]["href"].startswith("s3://clay/tiny/1.0.0/embeddings/zone=18/")


HOSTILE = [
    "https://example.org/embeddings/../../secrets/zone=18/18_04_41_2023-01-01_2023-02-01.parquet",
    "embeddings/../release.yaml",
    "file:///etc/passwd",
    "http://127.0.0.1:1/latest/meta-data",
    "embeddings/zone=18/..%2f..%2fpasswd",
    "embeddings/zone=18/\x00.parquet",
    "my-embeddings/zone=18/18_04_41_2023-01-01_2023-02-01.parquet",
    "",
]


@pytest.mark.parametrize("href", HOSTILE)
def test_addresses_that_lead_out_of_a_release_are_refused(make_release: MakeRelease, serve: Any, href: str) -> None:
    with pytest.raises(ReleaseError):
        embeddings_path(href)
    release = make_release()
    write_items(release)
    table = pq.read_table(release.store.path(ITEMS))
    items = list(stac_table_to_items(table))
    assets = table["assets"].to_pylist()
    for asset in assets:
        asset["embeddings"]["href"] = href
    place = table.column_names.index("assets")
    changed = table.set_column(place, "assets", pa.array(assets, table.schema.field("assets").type))
    to_parquet(changed, release.store.path(ITEMS))
    assert len(items) == 3
    served = serve(Path(release.store.where))
    for where in (release.store.where, served.address):
        reader = open_release(where)
        for ask in (reader.items, lambda r=reader: r.chips(), lambda r=reader: r.nearest(0, 0)):
            with pytest.raises(ReleaseError):
                ask()
    assert {path for path, _ in served.requests} == {"/items.parquet"}


@pytest.mark.parametrize(
    "bbox",
    [(0, 0, 1), (0, 1, 1, 0), (float("nan"), 0, 1, 1), (-200, 0, 1, 1), (0, -91, 1, 1), (0, 0, float("inf"), 1)],
)
def test_boxes_that_are_none_are_refused(bbox: tuple[float, ...]) -> None:
    with pytest.raises(QueryError, match="bbox"):
        Extent.of(bbox)


@pytest.mark.parametrize("when", ["soon", "2023-13-01", "../..", "2023-02-01/2023-01-01", "/", "2023-01-01/never"])
def test_times_that_are_none_are_refused(when: str) -> None:
    with pytest.raises(QueryError, match="datetime"):
        Extent.of(None, when)


@pytest.mark.parametrize(
    ("when", "start", "end"),
    [
        ("2016", (2016, 1, 1), (2016, 12, 31)),
        ("2016-02", (2016, 2, 1), (2016, 2, 29)),
        ("2016/2017-04", (2016, 1, 1), (2017, 4, 30)),
        ("2016-02/..", (2016, 2, 1), None),
        ("/2016", None, (2016, 12, 31)),
    ],
)
def test_a_year_and_a_month_are_whole(
    when: str, start: tuple[int, int, int] | None, end: tuple[int, int, int] | None
) -> None:
    extent = Extent.of(None, when)
    assert extent.start == (None if start is None else datetime(*start, tzinfo=UTC))
    assert extent.end == (None if end is None else datetime(*end, 23, 59, 59, 999999, tzinfo=UTC))


def test_a_date_is_the_whole_day() -> None:
    extent = Extent.of(None, "2023-01-10")
    assert extent.start == datetime(2023, 1, 10, tzinfo=UTC)
    assert extent.end == datetime(2023, 1, 10, 23, 59, 59, 999999, tzinfo=UTC)


def test_questions_without_an_answer_say_why(opened: Callable[..., ReleaseReader], tmp_path: Path) -> None:
    reader = opened()
    with pytest.raises(QueryError, match="not a column"):
        reader.chips(columns=["embeddings"])
    with pytest.raises(QueryError, match="is not a chip"):
        reader.vector("utm-1280m_32618_1_1_2023-01-01_2023-02-01")
    with pytest.raises(QueryError, match="no direction"):
        reader.similar(np.zeros(8))
    with pytest.raises(QueryError, match="has 3 numbers"):
        reader.similar([1, 2, 3])
    with pytest.raises(QueryError, match="not a place on Earth"):
        reader.nearest(0, 91)
    for k in (0, -1, 1.5):
        with pytest.raises(QueryError, match=f"k: {k} chips were asked for"):
            reader.nearest(0, 0, k)  # type: ignore[arg-type]
        with pytest.raises(QueryError, match=f"k: {k} chips were asked for"):
            reader.similar(np.ones(8), k)  # type: ignore[arg-type]
    with pytest.raises((ReleaseError, StoreError), match="does not exist"):
        open_release(tmp_path / "nowhere").items()
