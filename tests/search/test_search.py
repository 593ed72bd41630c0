"""The commands that find things in a release."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import geopandas as gpd
import made_release
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pystac
import pytest
import tiny_release
import zarr
from array_copy import write_arrays
from pyproj import Geod
from range_server import RangeServer

from clay_publish.catalog import write_items
from clay_publish.cli.app import main
from clay_publish.errors import ReleaseError, StoreError
from clay_publish.geo.utm_grid import UtmGrid
from clay_publish.geo.utm_zones import Square
from clay_publish.release.directory import Release
from clay_publish.search.arrays.zarr_store import open_group
from clay_publish.search.output import write_chips
from clay_publish.search.query import QueryError
from clay_publish.search.reader import ReleaseReader, open_release

MakeRelease = Callable[..., Release]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command in this process; what it printed, on stderr where it failed with the code expected."""

    def run(*arguments: Any, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["clay-publish", *(str(argument) for argument in arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert (ended.value.code or 0) == code, err
        return err if code else out

    return run


@pytest.fixture(scope="module")
def reader(tiny: Release) -> ReleaseReader:
    return open_release(tiny.store.where)


def test_search_prints_items_and_their_files(run: Any, reader: ReleaseReader) -> None:
    where = reader.release.store.where
    lines = run("search", where, "--bbox", "-77,36,-74,39", "--datetime", "2023-07-01/..").stdout.splitlines()
    name = "18_04_41_2023-07-01_2023-08-01"
    assert lines == [f"{name}  10 chips  {where}/embeddings/zone=18/{name}.parquet"]
    found = json.loads(run("search", where, "--json").stdout)
    assert len(pystac.ItemCollection.from_dict(found).items) == 3


def test_search_writes_items_that_open_again(command: Any, reader: ReleaseReader, tmp_path: Path) -> None:
    where = reader.release.store.where
    command("search", where, "--out", tmp_path / "items.parquet")
    command("search", where, "--out", tmp_path / "items.geojson")
    assert len(gpd.read_parquet(tmp_path / "items.parquet")) == 3
    assert len(pystac.ItemCollection.from_file(str(tmp_path / "items.geojson")).items) == 3


def test_search_writes_chips_with_their_embeddings(command: Any, reader: ReleaseReader, tmp_path: Path) -> None:
    where, out = reader.release.store.where, tmp_path / "chips.parquet"
    command("search", where, "--chips", "--bbox", "-77,36,-74,39", "--out", out)
    frame = gpd.read_parquet(out)
    assert len(frame) == 22
    assert len(frame["embedding"].iloc[0]) == 8
    assert frame.crs.to_authority() == ("OGC", "CRS84")
    command("search", where, "--chips", "--out", tmp_path / "chips.geojson")
    assert len(gpd.read_file(tmp_path / "chips.geojson")) == 26


def test_search_near_and_like(command: Any, reader: ReleaseReader) -> None:
    where = reader.release.store.where
    near = command("search", where, "--near", "-76,37.5", "--top", "2", "--max-distance", "50000", "--json")
    first, second = json.loads(near)["features"]
    assert first["properties"]["distance"] <= second["properties"]["distance"]
    like = json.loads(command("search", where, "--like", first["id"], "--top", "3", "--json"))["features"]
    assert like[0]["id"] == first["id"]
    assert like[0]["properties"]["similarity"] == pytest.approx(1)
    place = f"{first['properties']['lon']},{first['properties']['lat']}"
    day = first["properties"]["datetime"][:10]
    again = command("search", where, "--like", place, "--datetime", day, "--top", "3", "--json")
    assert json.loads(again)["features"][0]["properties"]["similarity"] == pytest.approx(1)
    assert {chip["properties"]["datetime"][:10] for chip in json.loads(again)["features"]} == {day}


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("--bbox", "1,2,3"), "--bbox"),
        (("--near", "1,2", "--like", "3,4"), "--near and --like"),
        (("--out", "found.shp"), ".parquet or .geojson"),
        (("--like", "no-such-chip"), "is not a chip"),
    ],
)
def test_a_search_that_makes_no_sense_says_so(
    command: Any, reader: ReleaseReader, arguments: tuple[str, ...], names: str
) -> None:
    made = command("search", reader.release.store.where, *arguments, code=2)
    assert names in made
    assert "Traceback" not in made


def test_places_get_the_nearest_embedding(
    command: Any, reader: ReleaseReader, tmp_path: Path, shared_data: Path
) -> None:
    stations = shared_data / "labels_latlon" / "satclip_stationDataAll.csv"
    out = tmp_path / "joined.parquet"
    command("sample-points", reader.release.store.where, stations, "--out", out, "--max-distance", "20000000")
    joined = pq.read_table(out)
    chips = reader.chips().read_all()
    assert joined.num_rows == pyarrow.csv.read_csv(stations).num_rows
    geod = Geod(ellps="WGS84")
    values = {row["id"]: row["embedding"] for row in chips.select(["id", "embedding"]).to_pylist()}
    for row in joined.slice(0, 200).to_pylist():
        size = chips.num_rows
        here = np.full(size, row["Lon"]), np.full(size, row["Lat"])
        _, _, meters = geod.inv(*here, chips["lon"].to_numpy(), chips["lat"].to_numpy())
        assert row["distance"] == pytest.approx(meters.min())
        assert row["embedding"] == values[row["chip_id"]]
    assert {"meanT", "chip_datetime"} <= set(joined.column_names)


def test_a_model_learns_from_places(make_release: MakeRelease, part: Any) -> None:
    """What the documentation shows: join, fit, score."""
    cells = [(row, col) for row in range(3160, 3200) for col in range(320, 350)]
    release = make_release(part(Square(18, 4, 40), cells))
    write_items(release)
    reader = open_release(release.store.where)
    chips = reader.chips(columns=["lon", "lat", "embedding"]).read_all()
    truth = np.stack(chips["embedding"].to_pylist()) @ np.arange(8.0) + 3
    places = pa.table({"longitude": chips["lon"], "latitude": chips["lat"], "y": truth})
    joined = reader.sample(places)
    x = np.column_stack([np.stack(joined["embedding"].to_pylist()), np.ones(joined.num_rows)])
    y = joined["y"].to_numpy()
    weights, *_ = np.linalg.lstsq(x[::2], y[::2], rcond=None)
    assert np.corrcoef(x[1::2] @ weights, y[1::2])[0, 1] ** 2 > 0.999
    assert joined["distance"].to_numpy().max() < 0.01


@pytest.mark.parametrize(
    ("points", "names"),
    [
        ({"a": [1.0], "lat": [1.0]}, "longitude"),
        ({"lon": ["east"], "lat": [1.0]}, "no numbers"),
        ({"lon": [0.0], "lat": [95.0]}, "not a place on Earth"),
        ({"lon": [0.0], "lat": [None]}, "not a place on Earth"),
        ({"lon": [0.0], "lat": [0.0], "distance": [0.0]}, "'distance' already"),
    ],
)
def test_places_that_are_none_are_refused(reader: ReleaseReader, points: dict[str, Any], names: str) -> None:
    with pytest.raises(QueryError, match=names):
        reader.sample(pa.table(points))


def test_quantized_vectors_are_joined_as_numbers(make_release: MakeRelease) -> None:
    release = make_release(dtype="int8")
    write_items(release)
    reader = open_release(release.store.where)
    chip = reader.chips(columns=["id", "lon", "lat"]).read_all().slice(5, 1)
    joined = reader.sample(pa.table({"lon": chip["lon"], "lat": chip["lat"]}))
    np.testing.assert_allclose(joined["embedding"][0].as_py(), reader.vector(joined["chip_id"][0].as_py()))


WINDOWED = {
    "imagery": [{"stac": "https://example.org", "sensor": "sentinel-2-l1c", "windows": ["2023-01-01/2023-02-01"]}],
}


@pytest.fixture
def with_arrays(make_release: MakeRelease, part: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Release]:
    """Make a release of 4,096 chips of 512 dimensions, two megabytes in one row group, with arrays of int8."""

    def make(dtype: str) -> Release:
        monkeypatch.setattr(tiny_release, "DIMENSIONS", 512)
        cells = [(row, col) for row in range(3206, 3270) for col in range(316, 380)]
        arrays = {"dtype": dtype} if dtype == "float16" else True
        spec = WINDOWED | {"outputs": {"dtype": dtype, "arrays": arrays}}
        release = make_release(part(Square(18, 4, 41), cells), dtype=dtype, spec=spec)
        encoder: Any = SimpleNamespace(patches=0, patch_layers=())
        write_arrays(release, release.spec(), encoder)
        write_items(release)
        return release

    return make


def sampled(where: str, chips: pa.Table) -> pa.Table:
    return open_release(where, cache=False).sample(chips.select(["lon", "lat"]))


def test_few_places_are_sampled_from_the_arrays(with_arrays: Callable[[str], Release], serve: Any) -> None:
    release = with_arrays("int8")
    chips = open_release(release.store.where).chips(columns=["id", "lon", "lat", "embedding"]).read_all()
    served = serve(Path(release.store.where))
    for count, arrays in ((1, True), (2000, False)):
        served.requests.clear()
        some = chips.slice(1500, count)
        found = sampled(served.address, pa.concat_tables([some, some]))
        assert found["chip_id"].to_pylist() == some["id"].to_pylist() * 2
        assert found["embedding"].combine_chunks().equals(pa.concat_tables([some, some])["embedding"].combine_chunks())
        assert bool(served.sent("/arrays/arrays.zarr/utm18/embeddings/")) == arrays
        assert (served.sent() < 1_200_000) == arrays


def test_places_are_sampled_from_the_table_where_the_arrays_are_rounded(
    with_arrays: Callable[[str], Release], serve: Any
) -> None:
    release = with_arrays("float32")
    chips = open_release(release.store.where).chips(columns=["lon", "lat", "embedding"]).read_all().slice(7, 1)
    served = serve(Path(release.store.where))
    found = sampled(served.address, chips)
    assert found["embedding"].to_pylist() == chips["embedding"].to_pylist()
    assert not served.sent("/arrays/")


def test_an_embedding_that_the_arrays_lack_is_an_error(with_arrays: Callable[[str], Release]) -> None:
    release = with_arrays("int8")
    chips = open_release(release.store.where).chips(columns=["lon", "lat"]).read_all().slice(7, 1)
    shutil.rmtree(Path(release.store.where) / "arrays/arrays.zarr/utm18/scales/c")
    with pytest.raises(ReleaseError, match="has no embedding of a chip that the table has"):
        sampled(release.store.where, chips)


def test_arrays_without_shards_are_sampled(with_arrays: Callable[[str], Release]) -> None:
    release = with_arrays("int8")
    chips = open_release(release.store.where).chips(columns=["lon", "lat", "embedding"]).read_all().slice(7, 1)
    group = Path(release.store.where) / "arrays/arrays.zarr/utm18"
    top = json.loads((group / "zarr.json").read_text())["attributes"]["embrel:cells"]["row_top"]
    ground = (slice(None), slice(top - 3270, top - 3200), slice(310, 390))
    for name in ("embeddings", "scales"):
        old = zarr.open_array(group / name, mode="r")
        values, kind = old[ground], {"dtype": old.dtype, "fill_value": old.fill_value}
        shutil.rmtree(group / name)
        zarr.create_array(group / name, shape=old.shape, chunks=old.chunks, **kind)[ground] = values
        document = json.loads((group / name / "zarr.json").read_text())
        edit_members(group, lambda members, name=name, document=document: members.update({name: document}))
    assert sampled(release.store.where, chips)["embedding"].to_pylist() == chips["embedding"].to_pylist()


def edit_members(group: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads((group / "zarr.json").read_text())
    change(document["consolidated_metadata"]["metadata"])
    (group / "zarr.json").write_text(json.dumps(document))


def without_scales(group: Path) -> None:
    edit_members(group, lambda members: members.pop("scales"))


def with_fewer_dimensions(group: Path) -> None:
    edit_members(group, lambda members: members["embeddings"]["shape"].append(members["embeddings"]["shape"].pop() - 1))


def with_scales_of_another_shape(group: Path) -> None:
    edit_members(group, lambda members: members["scales"]["shape"].reverse())


def with_scales(group: Path) -> None:
    edit_members(group, lambda members: members.update(scales=members["valid"]))


def with_damaged_shards(group: Path) -> None:
    for path in (group / "embeddings/c").rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            path.write_bytes(bytes(255 - byte for byte in data[:-2_000]) + data[-2_000:])


@pytest.mark.parametrize(
    ("dtype", "harm", "said"),
    [
        ("int8", without_scales, "has no scales beside integers"),
        ("int8", with_scales_of_another_shape, "has scales of shape"),
        ("int8", with_fewer_dimensions, r"has 511 dimensions \(expected 512, as the table"),
        ("float16", with_scales, "has scales beside float16"),
        ("int8", with_damaged_shards, "utm18: is not readable Zarr"),
    ],
)
def test_arrays_that_are_not_those_of_the_table_are_refused(
    with_arrays: Callable[[str], Release], dtype: str, harm: Callable[[Path], None], said: str
) -> None:
    release = with_arrays(dtype)
    where = release.store.where
    chips = open_release(where).chips(columns=["lon", "lat"]).read_all().slice(7, 1)
    harm(Path(where) / "arrays/arrays.zarr/utm18")
    with pytest.raises(ReleaseError, match=said):
        sampled(where, chips)
    if harm is not with_fewer_dimensions:
        with pytest.raises(ReleaseError, match=said):
            open_release(where).to_xarray(18).embeddings.isel(band=0).max()


def test_a_shard_that_changes_is_refused(with_arrays: Callable[[str], Release]) -> None:
    release = with_arrays("int8")
    folder = Path(release.store.where)
    with RangeServer(folder, etags=True) as server:
        reader = open_release(server.address, cache=False)
        valid = open_group(reader.release, "arrays/arrays.zarr/utm18").arrays["valid"]
        y, x = np.argwhere(valid[0] > 0)[0]
        assert valid[0, y, x] > 0
        for shard in (folder / "arrays/arrays.zarr/utm18/valid/c").rglob("*"):
            if shard.is_file():
                shard.write_bytes(shard.read_bytes() + b"\0")
        with pytest.raises(StoreError, match="changed while it was read"):
            valid[0, y, x]


def test_no_places_make_no_rows(reader: ReleaseReader) -> None:
    none = pa.table({"lon": pa.array([], pa.float64()), "lat": pa.array([], pa.float64())})
    assert reader.sample(none).num_rows == 0


def test_a_sample_says_why_a_place_has_no_embedding(make_release: Any) -> None:
    release = make_release()
    write_items(release)
    reader = open_release(release.store.where)
    grid = UtmGrid(1280.0)
    cells = [(3240, 330), (3239, 330), (3239, 331), (3000, 330)]
    lon, lat = grid.centers(np.full(4, 32618), *np.array(cells).T)
    points = pa.table({"lon": [*lon, 100.0], "lat": [*lat, 89.0]})
    found = reader.sample(points)
    assert found["status"].to_pylist() == ["embedded", "cloud", "nodata", "outside", "outside"]
    # The first place has chips of two windows: the newest is given.
    january, july = "2023-01-01/2023-02-01", "2023-07-01/2023-08-01"
    assert found["window"].to_pylist() == [july, january, january, None, None]
    assert found["chip_id"][0].as_py().endswith(july.replace("/", "_"))
    early = reader.sample(points, "2023-01-01/2023-01-31")
    assert early["chip_id"][0].as_py().endswith(january.replace("/", "_"))
    near = reader.sample(points, max_distance=2000)
    assert [value is None for value in near["embedding"].to_pylist()] == [False, False, False, True, True]
    assert near["embedding"].type == pa.list_(pa.field("element", pa.float32(), nullable=False), 8)
    found = reader.probe(float(lon[1]), float(lat[1]))
    assert (found["status"], found["window"]) == ("cloud", january)


def test_centers_get_the_newest_of_many_windows(tmp_path: Path) -> None:
    windows = tuple(f"2023-0{month}-01/2023-0{month + 1}-01" for month in range(1, 7))
    made = made_release.Made(((5.0, 45.0, 5.7, 45.5),), gsd=40, windows=windows, limit=400, dimensions=4)
    write_items(made_release.make_release(tmp_path, made))
    reader = open_release(tmp_path)
    chips = reader.chips(datetime="2023-03-02/2023-03-03", columns=["lon", "lat"]).read_all()
    found = reader.sample(chips)
    assert set(found["distance"].to_pylist()) == {0.0}
    assert set(found["window"].to_pylist()) == {"2023-06-01/2023-07-01"}


def test_several_windows_are_kept_apart(make_release: Any) -> None:
    release = make_release()
    write_items(release)
    reader = open_release(release.store.where)
    assert [window.token for window in reader.windows] == ["2023-01-01_2023-02-01", "2023-07-01_2023-08-01"]
    assert len(reader) == 26
    assert repr(reader).endswith("26 chips, 8 dimensions, 2 windows)")
    chips = reader.chips(columns=["id", "lon", "lat"]).read_all()
    lon, lat = chips["lon"][0].as_py(), chips["lat"][0].as_py()
    one = reader.nearest(lon, lat, 3)
    assert len({(row["lon"], row["lat"]) for row in one.to_pylist()}) == 3
    assert one["id"][0].as_py().endswith("2023-07-01_2023-08-01")
    assert reader.nearest(lon, lat, 3, every_window=True)["distance"].to_pylist()[:2] == [0, 0]
    assert reader.nearest(lon, lat, 9, max_distance=10).num_rows == 1
    alike = reader.similar((lon, lat), 16)
    assert len({(row["lon"], row["lat"]) for row in alike.to_pylist()}) == alike.num_rows == 16
    assert reader.similar((lon, lat), 50, every_window=True).num_rows == 26


def test_chips_open_in_other_libraries(make_release: Any, tmp_path: Path) -> None:
    release = make_release(dtype="int8")
    write_items(release)
    reader = open_release(release.store.where)
    table = reader.chips().read_all()
    assert "scale" not in table.column_names
    assert table["embedding"].type.value_type == pa.float32()
    frame = gpd.GeoDataFrame.from_arrow(table)
    assert frame.crs.to_string() == "OGC:CRS84"
    assert len(frame) == len(reader.to_geopandas()) == 26
    assert pl.from_arrow(table.drop_columns(["geometry"])).height == 26
    stream = reader.chips()
    write_chips(tmp_path / "chips.parquet", stream.schema, stream)
    again = gpd.read_parquet(tmp_path / "chips.parquet")
    np.testing.assert_allclose(np.stack(again["embedding"]), np.stack(frame["embedding"]))
    assert reader.coverage().read_all().num_rows == 29
    with pytest.raises(ReleaseError, match="patches"):
        reader.patches()


def test_places_far_from_any_chip_are_refused_with_their_distance(
    run: Any, reader: ReleaseReader, tmp_path: Path
) -> None:
    where = reader.release.store.where
    for option in ("--near", "--like"):
        refused = run("search", where, option, "-76,37.5", code=2).stderr
        assert "is 11.44 km from the center of the nearest chip (expected at most 3.84 km, three chip sides)" in refused
        assert run("search", where, option, "-76,37.5", "--max-distance", "12000").stdout
    with pytest.raises(QueryError, match="max_distance="):
        reader.similar((-76, 37.5))
    inside = reader.chips().read_next_batch().to_pylist()[0]
    said = run("search", where, "--like", f"{inside['lon']},{inside['lat']}").stderr
    assert f"{inside['id']}, 0 m away" in said or " m away" in said
    points = tmp_path / "points.csv"
    points.write_text(f"lon,lat\n-76,37.5\n{inside['lon']},{inside['lat']}\n")
    line = run("sample-points", where, points, "--out", tmp_path / "joined.parquet").stdout
    assert "1 without an embedding, since no chip is within 3.84 km" in line
    points.write_text("lon,lat\n-76,37.5\n")
    refused = run("sample-points", where, points, "--out", tmp_path / "none.parquet", code=2).stderr
    assert "the nearest chip of the first is 11.44 km away" in refused
    assert not (tmp_path / "none.parquet").exists()


def test_latitude_before_longitude_is_suspected(command: Any, run: Any, reader: ReleaseReader, tmp_path: Path) -> None:
    where = reader.release.store.where
    chip = reader.chips().read_next_batch().to_pylist()[0]
    lon, lat = chip["lon"], chip["lat"]
    points = tmp_path / "points.csv"
    points.write_text(f"lon,lat\n{lat},{lon}\n")
    for arguments in (
        ("search", where, "--near", f"{lat},{lon}"),
        ("search", where, "--like", f"{lat},{lon}"),
        ("search", where, "--near", "37.5,-122"),
        ("search", where, "--bbox", "37,-122,38,-121"),
        ("sample-points", where, points, "--out", tmp_path / "none.parquet"),
    ):
        assert "Latitude and longitude look swapped" in command(*arguments, code=2), arguments
    empty = run("search", where, "--bbox", f"{lat - 0.1},{lon - 0.1},{lat + 0.1},{lon + 0.1}").stderr
    assert "Latitude and longitude look swapped: --bbox -" in empty
    assert "swapped" not in command("search", where, "--near", "-76,37.5", code=2)
    assert "swapped" not in run("search", where, "--bbox", "1,2,3,4").stderr


def test_a_box_with_west_beyond_east_says_how_wide_it_is(run: Any, reader: ReleaseReader) -> None:
    said = run("search", reader.release.store.where, "--bbox", "10,37,9,38").stderr
    assert "--bbox 10,37,9,38 crosses the antimeridian: from 10° eastward to 9°, 359° wide" in said


def test_an_empty_option_is_not_a_missing_one(command: Any, reader: ReleaseReader) -> None:
    for option in ("--datetime", "--bbox", "--near", "--like"):
        assert "error: " in command("search", reader.release.store.where, option, "", code=2), option


def test_an_empty_result_says_what_the_release_has(run: Any, reader: ReleaseReader) -> None:
    for options in (("--bbox", "1,2,3,4"), ("--datetime", "2016"), ("--bbox", "1,2,3,4", "--chips")):
        made = run("search", reader.release.store.where, *options)
        assert made.stdout == ""
        assert made.stderr.startswith("nothing found: the release has chips in -")
        assert "2023-" in made.stderr
