"""Means over polygons, and change between windows."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
import shapely
from PIL import Image
from tiny_release import Part

from clay_publish.catalog import write_items
from clay_publish.geo.expected_cells import expected_cells
from clay_publish.geo.utm_grid import UtmGrid
from clay_publish.geo.utm_zones import Square, squares_of
from clay_publish.release.directory import Release
from clay_publish.search.query import QueryError
from clay_publish.search.reader import ReleaseReader, open_release
from clay_publish.windows import Window

MakeRelease = Callable[..., Release]
GRID = UtmGrid(1280.0)
JULY = Window(datetime(2023, 7, 1, tzinfo=UTC), datetime(2023, 8, 1, tzinfo=UTC))


def parts_within(west: float, south: float, east: float, north: float) -> list[Part]:
    """All cells that share ground with a box, by file."""
    files: dict[Square, list[tuple[int, int]]] = {}
    for zone in expected_cells(GRID, shapely.box(west, south, east, north), rule="intersects"):
        epsg, row, col = zone.cells()
        squares = squares_of(*GRID.centers(epsg, row, col))
        for square, one, two in zip(squares, row.tolist(), col.tolist(), strict=True):
            files.setdefault(Square(zone.zone, square.column, square.row), []).append((one, two))
    return [Part(square, cells) for square, cells in sorted(files.items())]


def mean_of_points(reader: ReleaseReader, polygon: Any) -> np.ndarray:
    """The mean vector under points spread evenly over the ground, each in the cell of its longitude's zone."""
    west, south, east, north = polygon.bounds
    random = np.random.default_rng(0)
    lon = random.uniform(west, east, 100_000)
    lat = np.degrees(np.arcsin(random.uniform(*np.sin(np.radians([south, north])), len(lon))))
    inside = shapely.contains_xy(polygon, lon, lat)
    table = reader.chips(columns=["epsg", "row", "col", "embedding"]).read_all()
    numbers = GRID.numbers(*(table[name].to_numpy().astype(np.int64) for name in ("epsg", "row", "col")))
    wanted = GRID.numbers(*GRID.cells_at(lon[inside], lat[inside]))
    order = np.argsort(numbers)
    found = order[np.searchsorted(numbers[order], wanted)]
    assert (numbers[found] == wanted).all()
    return np.stack(table["embedding"].to_pylist())[found].mean(axis=0)


def test_the_mean_counts_the_ground_of_a_seam_once(make_release: MakeRelease) -> None:
    release = make_release(*parts_within(-78.06, 37.0, -77.94, 37.1))
    write_items(release)
    reader = open_release(release.store.where)
    assert {path.split("/")[1] for path in release.data_files()} == {"zone=17", "zone=18"}
    polygon = shapely.Polygon([(-78.05, 37.01), (-77.95, 37.02), (-77.96, 37.09), (-78.04, 37.08)])
    (row,) = reader.aggregate([polygon]).to_pylist()
    assert row["coverage"] == pytest.approx(1, abs=1e-4)
    assert row["window"] == "2023-01-01/2023-02-01"
    expected = mean_of_points(reader, polygon)
    assert np.abs(np.array(row["embedding"]) - expected).max() < 0.02
    shifted = gpd.GeoSeries([polygon], crs="OGC:CRS84").to_crs(32618)
    assert reader.aggregate(shifted)["embedding"].to_pylist()[0] == pytest.approx(row["embedding"], abs=1e-3)


def test_a_polygon_gets_a_row_per_window(make_release: MakeRelease) -> None:
    release = make_release()
    write_items(release)
    reader = open_release(release.store.where)
    chips = reader.chips(datetime="2023-01-10", bbox=(-77, 36, -74, 39)).read_all()
    one = shapely.from_wkb(chips["geometry"][0].as_py())
    far = shapely.box(100, 10, 101, 11)
    table = reader.aggregate([one, far, shapely.geometry.mapping(shapely.buffer(one, 1))]).to_pylist()
    assert [(row["polygon"], row["window"]) for row in table] == [
        (0, "2023-01-01/2023-02-01"),
        (0, "2023-07-01/2023-08-01"),
        (1, None),
        (2, "2023-01-01/2023-02-01"),
        (2, "2023-07-01/2023-08-01"),
    ]
    assert table[0]["embedding"] == pytest.approx(chips["embedding"][0].as_py(), rel=1e-3)
    assert table[0]["coverage"] == pytest.approx(1, abs=1e-6)
    assert (table[2]["chips"], table[2]["coverage"], table[2]["embedding"]) == (0, 0, None)
    assert [table[3]["chips"], table[4]["chips"]] == [12, 10]
    assert table[3]["coverage"] == pytest.approx(
        12 * 1.28**2 / (4 * 111.1 * 111.3 * np.cos(np.radians(one.centroid.y)) * 0.785), rel=0.05
    )


@pytest.mark.parametrize(
    ("polygons", "names"),
    [
        ([shapely.Point(0, 0)], "polygon 0: is Point"),
        (
            [shapely.box(0, 0, 1, 1), {"type": "LineString", "coordinates": [[0, 0], [1, 1]]}],
            "polygon 1: is LineString",
        ),
        ([shapely.Polygon([(0, 0), (1, 1), (0, 0)])], "covers no ground"),
        ([shapely.box(0, 80, 1, 100)], "not a polygon on the Earth"),
        (gpd.GeoSeries([shapely.box(0, 0, 1, 1)]), "no CRS"),
        ([3], "polygon 0: is int"),
    ],
)
def test_what_is_not_a_polygon_is_refused(tiny: Release, polygons: Any, names: str) -> None:
    with pytest.raises(QueryError, match=names):
        open_release(tiny.store.where).aggregate(polygons)


def test_change_compares_the_chips_of_two_windows(tiny: Release) -> None:
    reader = open_release(tiny.store.where)
    table = reader.change("2023-01", "2023-07").read_all()
    every = {row["id"]: np.array(row["embedding"]) for row in reader.chips().read_all().to_pylist()}
    assert table.num_rows == 10
    for row in table.to_pylist():
        assert row["id_before"].removesuffix("2023-01-01_2023-02-01") == row["id_after"].removesuffix(JULY.token)
        a, b = every[row["id_before"]], every[row["id_after"]]
        assert row["distance"] == pytest.approx(1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    assert len(gpd.GeoDataFrame.from_arrow(table)) == 10
    same = reader.change("2023-01-01/2023-02-01", "2023-01-01_2023-02-01").read_all()
    assert same["distance"].to_numpy() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("text", ["2024", "2023", "", "x"])
def test_a_window_that_is_none_or_several_is_refused(tiny: Release, text: str) -> None:
    with pytest.raises(QueryError, match="2023-01-01/2023-02-01, 2023-07-01/2023-08-01"):
        open_release(tiny.store.where).change(text, "2023-07")


def test_commands_write_means_and_change(run: Any, tiny: Release, tmp_path: Path) -> None:
    where = tiny.store.where
    frame = open_release(where).to_geopandas(bbox=(-77, 36, -74, 39))
    fields = tmp_path / "fields.geojson"
    frame.head(2)[["id", "geometry"]].to_file(fields)
    said = run("aggregate", where, fields, "--out", tmp_path / "means.parquet").stdout
    means = pq.read_table(tmp_path / "means.parquet")
    assert "4 rows" in said
    assert means["id"].to_pylist() == [name for name in frame["id"][:2] for _ in range(2)]
    assert len(gpd.read_parquet(tmp_path / "means.parquet")) == 4
    said = json.loads(
        run(
            "change",
            where,
            "2023-01",
            "2023-07",
            "--out",
            tmp_path / "c.geojson",
            "--map",
            tmp_path / "c.png",
            "--json",
        ).stdout
    )
    assert said["chips"] == 10
    assert len(gpd.read_file(tmp_path / "c.geojson")) == 10
    assert len(np.unique(np.asarray(Image.open(tmp_path / "c.png")).reshape(-1, 4), axis=0)) > 10
    refused = run("change", where, "2023-01", "2023-07", "--bbox", "0,0,1,1", "--map", tmp_path / "d.png", code=2)
    assert "no chip" in refused.stderr


@pytest.fixture(scope="module")
def scenes(once: Any, run: Any) -> ReleaseReader:
    """The sample in the layout `scene`, as two images of one ground, without data in the north-west and the west."""

    def build(folder: Path) -> None:
        run("sample", "first", cwd=folder)
        first = folder / "first" / "imagery"
        item = json.loads((first / "item.json").read_text())
        other = json.loads(json.dumps(item).replace(item["id"], "other"))
        for asset in other["assets"].values():
            if asset["href"].endswith(".tif"):
                with rasterio.open(first / asset["href"]) as image:
                    pixels, profile = image.read(), image.profile
                half = pixels.shape[2] // 2
                for name, rows in ((asset["href"], half), ("other_" + Path(asset["href"]).name, None)):
                    pixels[:, :rows, :half] = 0
                    with rasterio.open(first / name, "w", **profile) as image:
                        image.write(pixels)
                asset["href"] = name
        (first / "item.json").write_text(json.dumps({"type": "FeatureCollection", "features": [item, other]}))
        run("produce", "first/release.yaml", "--out", "release", "--set", "chips.layout=scene", cwd=folder)
        run("catalog", "release", cwd=folder)

    return open_release(once("scenes", build) / "release")


def test_change_needs_a_grid(scenes: ReleaseReader) -> None:
    window = str(scenes.windows[0])
    with pytest.raises(QueryError, match="layout `utm`"):
        scenes.change(window, window).read_all()


def test_overlapping_images_cover_ground_once(scenes: ReleaseReader) -> None:
    chips = scenes.to_geopandas()
    both = chips[chips["item_id"] == "other"]
    (row,) = scenes.aggregate([shapely.union_all(both.geometry)]).to_pylist()
    assert row["coverage"] == pytest.approx(1, abs=0.01)
    assert row["chips"] >= 2 * len(both)
    assert len(both) > 0


def test_the_coverage_of_images_says_why(scenes: ReleaseReader) -> None:
    """Of a place where one image has an embedding and the other none, the embedding counts."""
    missing = scenes.coverage().read_all().to_pandas().query("status == 'missing'")
    assert set(missing["reason"]) == {"nodata"}
    assert scenes.probe(*scenes.to_geopandas()[["lon", "lat"]].iloc[0])["status"] == "embedded"
    west, south, east, north = shapely.union_all(scenes.to_geopandas().geometry).bounds
    corner = scenes.probe(west + 0.1 * (east - west), north - 0.1 * (north - south))
    assert (corner["status"], corner["window"]) == ("nodata", str(scenes.windows[0]))
    assert scenes.probe(west + 0.1 * (east - west), south + 0.1 * (north - south))["status"] == "embedded"
    assert scenes.probe(west - 0.5, south)["status"] == "outside"
