"""The utm layout on real images: pixels, ground size, seams, choice among acquisitions."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from pyproj import Geod, Transformer
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.warp import reproject, transform_bounds

from clay_publish.geo.utm_grid import Cut, UtmGrid
from clay_publish.geo.utm_zones import Square
from clay_publish.producer.imagery.chips import Reading
from clay_publish.producer.layouts import layout_of
from clay_publish.producer.layouts.utm import Cells
from clay_publish.producer.sources.selection import Considered
from clay_publish.producer.sources.stac_item import source_item
from clay_publish.spec.load import resolve_spec
from clay_publish.spec.sensors import sensor

from .conftest import Make, copy_item, ten_bands, write_item, write_tif

VIRGINIA = "s2_l1c_T18SVG_20160112"
GEOD = Geod(ellps="WGS84")


def read_pixels(path: Path, key: str, **chips: Any) -> dict[tuple[int, int, int], np.ndarray]:
    """Raw values by EPSG code, row and column, as the producer reads them."""
    instrument = sensor(key)
    item = source_item(json.loads(path.read_text()), instrument, block=0, base=str(path))
    document = {"name": "test", "imagery": {"stac": str(path), "sensor": key}, "chips": {"max_nodata": 1, **chips}}
    spec = resolve_spec(document, where="spec", folder=path.parent)
    units = layout_of(spec, instrument).units([Considered(item, "used")], [None], {})
    bands = tuple(band.statistics for band in instrument.bands)
    mean = np.array([band.mean for band in bands])[:, None, None]
    std = np.array([band.std for band in bands])[:, None, None]
    found = {}
    for unit in units:
        for block in unit.read(Reading(instrument, bands, spec.chips, threads=2)):
            kept = [n for n, reason in enumerate(block.reasons) if reason is None]
            for place, n in enumerate(kept):
                assert block.epsg is not None
                found[block.epsg, int(block.rows[n]), int(block.cols[n])] = block.pixels[place] * std + mean
    return found


def test_in_the_image_s_own_projection_the_finest_bands_keep_their_pixels(shared_data: Path) -> None:
    folder = shared_data / VIRGINIA
    cells = read_pixels(folder / "item.json", "sentinel-2-l1c")
    assert len(cells) == 9  # 3 × 3 whole cells of 1280 m in a scene of 5 120 m that lies across their edges
    with rasterio.open(folder / "B04.tif") as file:
        whole, transform = file.read(1), file.transform
    for (epsg, row, col), values in cells.items():
        assert epsg == 32618
        left, top = ~transform @ (col * 1280, (row + 1) * 1280)
        expected = whole[round(top) : round(top) + 128, round(left) : round(left) + 128]
        np.testing.assert_allclose(values[2], expected, atol=0.02)


def test_pixels_of_another_projection_equal_those_of_an_independent_warp(shared_data: Path, tmp_path: Path) -> None:
    """British National Grid, 10 m, into UTM: the pixels of Virginia, put down in Wales."""
    names = [band.name for band in sensor("sentinel-2-l2a").bands]
    values, transform = ten_bands(shared_data / VIRGINIA / "item.json"), Affine(10, 0, 258_000, 0, -10, 284_000)
    write_tif(tmp_path / "wales.tif", values, transform, "EPSG:27700", nodata=0, block=128)
    item = write_item(
        tmp_path / "wales.json", {"data": {"href": "wales.tif", "eo:bands": [{"name": name} for name in names]}}
    )
    cells = read_pixels(item, "sentinel-2-l2a", size=64)
    assert cells
    for (epsg, row, col), found in cells.items():
        cell = Affine(10, 0, col * 640, 0, -10, (row + 1) * 640)
        with (
            rasterio.open(tmp_path / "wales.tif") as file,
            WarpedVRT(
                file,
                crs=f"EPSG:{epsg}",
                transform=cell,
                width=64,
                height=64,
                resampling=Resampling.bilinear,
                tolerance=0.001,
                XSCALE=1,
                YSCALE=1,
            ) as warped,
        ):
            mean = np.array([band.mean for band in sensor("sentinel-2-l2a").bands])[:, None, None]
            expected = np.where(warped.read_masks(1) == 0, mean, warped.read(list(range(1, 11))))
        span = np.ptp(expected)
        assert np.abs(found - expected).max() < 0.02 * span  # the warp is approximated to 0.02 pixels
        assert np.abs(found - expected).mean() < 0.002 * span


@pytest.fixture
def mercator(shared_data: Path, tmp_path: Path) -> Path:
    """The Virginia scene in web mercator, as a composite is published: no proj:shape."""
    folder = shared_data / VIRGINIA
    assets = json.loads((folder / "item.json").read_text())["assets"]
    for band in sensor("sentinel-2-l2a").bands:
        source = folder / assets[band.name]["href"]
        with rasterio.open(source) as file:
            west, south, east, north = transform_bounds(file.crs, "EPSG:3857", *file.bounds)
            pixel = file.transform.a / np.cos(np.radians(37.7))
            transform = Affine(pixel, 0, west, 0, -pixel, north)
            width, height = int((east - west) / pixel), int((north - south) / pixel)
            values = np.zeros((1, height, width), dtype=np.uint16)
            reproject(
                rasterio.band(file, 1),
                values,
                dst_transform=transform,
                dst_crs="EPSG:3857",
                resampling=Resampling.bilinear,
                src_nodata=0,
                dst_nodata=0,
            )
        write_tif(tmp_path / source.name, values, transform, "EPSG:3857", nodata=0, block=256)

    def change(item: dict[str, Any]) -> None:
        item["properties"].pop("proj:epsg")
        for asset in item["assets"].values():
            asset["href"] = str(tmp_path / Path(asset["href"]).name)
            asset.pop("proj:shape")
            asset.pop("proj:transform")

    return copy_item(folder / "item.json", tmp_path, change)


def test_a_web_mercator_copy_gives_the_same_cells_and_close_vectors(
    shared_data: Path, make: Make, mercator: Path
) -> None:
    chips = {"layout": "utm"}
    straight = make(shared_data / VIRGINIA / "item.json", chips=chips, out="straight").embeddings
    warped = make(mercator, chips=chips, out="warped").embeddings
    assert straight["id"].to_pylist() == warped["id"].to_pylist()
    a = np.stack(straight["embedding"].to_numpy(zero_copy_only=False))
    b = np.stack(warped["embedding"].to_numpy(zero_copy_only=False))
    cosine = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosine.min() > 0.99


def test_cells_have_the_stated_meters_on_the_ground_at_60_north(make: Make, tmp_path: Path) -> None:
    """A web mercator image at 60°N: its pixels of 10 nominal meters are 5 on the ground."""
    x, y = Transformer.from_crs("OGC:CRS84", "EPSG:3857", always_xy=True).transform(24.0, 60.0)
    generator = np.random.default_rng(1)
    values = generator.integers(500, 4000, (4, 1024, 1024)).astype(np.uint16)
    write_tif(tmp_path / "north.tif", values, Affine(10, 0, x, 0, -10, y), "EPSG:3857", nodata=0, block=256)
    item = write_item(tmp_path / "north.json", {"rgbnir": {"href": "north.tif"}})
    made = make(item, sensor="sentinel-2-rgbnir", chips={"layout": "utm", "size": 64})
    table = made.embeddings
    assert 25 <= table.num_rows <= 64  # about 5 km of ground in cells of 640 m
    for outline in shapely.from_wkb(table["geometry"].to_pylist()):
        area, perimeter = GEOD.geometry_area_perimeter(outline)
        assert area == pytest.approx(640**2, rel=0.003)
        assert perimeter == pytest.approx(4 * 640, rel=0.003)


def test_neighbors_across_zones_give_each_piece_of_ground_once(shared_data: Path, make: Make) -> None:
    """Two NAIP images of UTM 17 and 18 that overlap by 7 %: nothing twice but for the seam of the zones."""
    folder = shared_data / "naip"
    items = [folder / "va_m_3607717_sw_18_1_20160620_crop.json", folder / "va_m_3607824_se_17_1_20160620_crop.json"]
    made = make(*items, sensor="naip", chips={"layout": "utm", "size": 32})
    table = made.embeddings
    assert len(set(table["id"].to_pylist())) == table.num_rows
    zones = {17: [], 18: []}
    for row in table.select(["epsg", "geometry"]).to_pylist():
        zones[row["epsg"] % 100].append(shapely.from_wkb(row["geometry"]))
    assert all(zones.values())
    for outlines in zones.values():  # inside a zone: no overlap at all
        union = shapely.union_all(outlines)
        assert union.area == pytest.approx(sum(o.area for o in outlines), rel=1e-6)
    both = shapely.intersection(shapely.union_all(zones[17]), shapely.union_all(zones[18]))
    seam = shapely.box(-78 - 50 / 90_000, 36, -78 + 50 / 90_000, 37)  # a cell to either side of the meridian
    assert shapely.difference(both, seam).area < 1e-12
    covered = shapely.union_all([o for outlines in zones.values() for o in outlines])
    footprints = [shapely.geometry.shape(json.loads(path.read_text())["geometry"]) for path in items]
    assert shapely.intersection(covered, shapely.union_all(footprints)).area > 0.75 * shapely.union_all(footprints).area


def _dated(path: Path, folder: Path, name: str, time: str, cloud: float) -> Path:
    def change(item: dict[str, Any]) -> None:
        item["id"] = name
        item["properties"] |= {"datetime": time, "eo:cloud_cover": cloud, "s2:datatake_id": name}

    return shutil.move(copy_item(path, folder, change), folder / f"{name}.json")


def test_the_least_cloudy_acquisition_wins_then_the_nearest_to_the_middle(
    shared_data: Path, make: Make, tmp_path: Path
) -> None:
    scene = shared_data / VIRGINIA / "item.json"
    items = [
        _dated(scene, tmp_path, "A-cloudy", "2016-01-16T00:00:00Z", 40.0),
        _dated(scene, tmp_path, "B-early", "2016-01-02T00:00:00Z", 10.0),
        _dated(scene, tmp_path, "C-middle", "2016-01-15T00:00:00Z", 10.0),
    ]
    made = make(*items, chips={"layout": "utm"}, imagery={"windows": ["2016-01-01/2016-02-01"]})
    assert set(made.embeddings["item_id"].to_pylist()) == {"C-middle"}
    assert made.counts == {"expected": 9, "embedded": 9}


def test_pixels_are_filled_only_from_images_of_the_same_acquisition(
    shared_data: Path, make: Make, tmp_path: Path
) -> None:
    """The scene cut in two halves: one datatake is mosaicked, two are not."""
    folder = shared_data / VIRGINIA
    halves = []
    for name, start in (("west", 0), ("east", 256)):
        for band in folder.glob("B*.tif"):
            with rasterio.open(band) as file:
                share = file.width // 2
                left = share if start else 0
                values = file.read(1)[None, :, left : left + share]
                transform = file.transform @ Affine.translation(left, 0)
                write_tif(tmp_path / f"{name}-{band.name}", values, transform, "EPSG:32618", nodata=0)

        def change(item: dict[str, Any], name: str = name, start: int = start) -> None:
            item["id"] = name
            item["properties"]["s2:datatake_id"] = "one"
            west, south, east, north = item["bbox"]
            middle = (west + east) / 2
            sides = (west, south, middle, north) if not start else (middle, south, east, north)
            item["geometry"] = shapely.geometry.mapping(shapely.box(*sides))
            for asset in item["assets"].values():
                asset["href"] = str(tmp_path / f"{name}-{Path(asset['href']).name}")
                asset.pop("proj:shape")
                asset.pop("proj:transform")

        halves.append(shutil.move(copy_item(folder / "item.json", tmp_path, change), tmp_path / f"{name}.json"))

    whole = make(folder / "item.json", chips={"layout": "utm"}, out="whole").embeddings
    joined = make(*halves, chips={"layout": "utm"}, out="joined").embeddings
    both = [ids for ids in joined["item_ids"].to_pylist() if len(ids) == 2]
    assert both == [["west", "east"]] * 3  # the column of cells that lies across the cut
    same = dict(zip(whole["id"].to_pylist(), whole["embedding"].to_pylist(), strict=True))
    for row in joined.to_pylist():
        np.testing.assert_allclose(row["embedding"], same[row["id"]], atol=0.02)

    west = json.loads(Path(halves[0]).read_text())
    west["properties"]["s2:datatake_id"] = "two"
    Path(halves[0]).write_text(json.dumps(west))
    apart = make(*halves, chips={"layout": "utm"}, out="apart")
    assert {len(ids) for ids in apart.embeddings["item_ids"].to_pylist()} == {1}
    assert apart.counts["nodata"] == 3


def test_cells_of_the_area_without_imagery_are_named(shared_data: Path, make: Make) -> None:
    area = [-75.72, 37.70, -75.60, 37.74]
    made = make(shared_data / VIRGINIA / "item.json", chips={"layout": "utm"}, imagery={"area": area})
    reasons = [row["reason"] for row in made.coverage]
    assert reasons.count("no_imagery") > 0
    assert reasons.count(None) == made.counts["embedded"] > 0
    assert len(reasons) == made.counts["expected"]


def test_an_excluded_image_explains_its_cells(shared_data: Path, make: Make, tmp_path: Path) -> None:
    scene = shared_data / VIRGINIA / "item.json"

    def bad(item: dict[str, Any]) -> None:
        item["id"] = "bad"
        item["geometry"] = shapely.geometry.mapping(shapely.box(-75.9, 37.66, -75.75, 37.75))

    items = [scene, copy_item(scene, tmp_path, bad)]
    area = [-75.80, 37.70, -75.60, 37.74]
    made = make(*items, chips={"layout": "utm"}, imagery={"area": area, "exclude": ["bad"]})
    excluded = [row["item_ids"] for row in made.coverage if row["reason"] == "excluded"]
    assert excluded
    assert {tuple(ids) for ids in excluded} == {("bad",)}


def test_a_chip_does_not_depend_on_which_others_were_asked_for(shared_data: Path, make: Make) -> None:
    item = shared_data / "s2_l2a_mini_29RKH_20200219" / "item.json"
    chips = {"layout": "utm", "gsd": 100, "size": 64}
    whole = make(item, chips=chips, out="whole").embeddings
    some = make(item, chips=chips, imagery={"area": [-11.25, 25.0, -11.05, 25.2]}, out="some").embeddings
    vectors = dict(zip(whole["id"].to_pylist(), whole["embedding"].to_pylist(), strict=True))
    assert 0 < some.num_rows < whole.num_rows
    for row in some.to_pylist():
        assert row["embedding"] == vectors[row["id"]]


def test_the_antimeridian_is_split_in_footprints(make: Make, tmp_path: Path) -> None:
    x, y = Transformer.from_crs("OGC:CRS84", "EPSG:32601", always_xy=True).transform(-180.0, 52.0)
    values = np.random.default_rng(2).integers(500, 4000, (4, 256, 256)).astype(np.uint16)
    write_tif(tmp_path / "fiji.tif", values, Affine(10, 0, x - 1280, 0, -10, y), "EPSG:32601", nodata=0)
    item = write_item(tmp_path / "fiji.json", {"rgbnir": {"href": "fiji.tif"}})
    document = json.loads(item.read_text())
    west = shapely.box(179.9, 51.9, 180, 52.1)
    east = shapely.box(-180, 51.9, -179.9, 52.1)
    document["geometry"] = shapely.geometry.mapping(shapely.MultiPolygon([west, east]))
    item.write_text(json.dumps(document))
    for layout in ("utm", "scene"):
        size = {"layout": layout, "size": 64}
        table = make(item, sensor="sentinel-2-rgbnir", chips=size, out=layout).embeddings
        outlines = shapely.from_wkb(table["geometry"].to_pylist())
        boxes = table["bbox"].to_pylist()
        assert all(-180 <= b["xmin"] <= 180 and -180 <= b["xmax"] <= 180 for b in boxes)
        split = [n for n, outline in enumerate(outlines) if outline.geom_type == "MultiPolygon"]
        assert split
        for n, outline in enumerate(outlines):
            area, _ = GEOD.geometry_area_perimeter(outline)
            assert area == pytest.approx(640**2, rel=0.01)
            assert (boxes[n]["xmin"] > boxes[n]["xmax"]) == (n in split)


def test_beyond_the_edge_of_an_image_without_nodata_value_nothing_is_valid(shared_data: Path, make: Make) -> None:
    item = shared_data / "naip" / "va_m_3607717_sw_18_1_20160620_crop.json"
    west, south, east, north = json.loads(item.read_text())["bbox"]
    area = [west - 0.001, south - 0.001, east + 0.001, north + 0.001]
    made = make(item, sensor="naip", chips={"layout": "utm", "size": 32}, imagery={"area": area})
    with rasterio.open(item.parent / "m_3607717_sw_18_1_20160620_subset.tif") as file:
        image = shapely.box(*file.bounds)
    back = Transformer.from_crs("OGC:CRS84", "EPSG:26918", always_xy=True)
    for row in made.embeddings.to_pylist():
        inside = shapely.from_wkb(row["geometry"])
        inside = shapely.transform(inside, back.transform, interleaved=False)
        share = inside.intersection(image).area / inside.area
        assert row["valid_fraction"] == pytest.approx(share, abs=0.04)
    assert made.counts["nodata"] > 5


def test_cells_are_kept_as_runs() -> None:
    grid, random = UtmGrid(1280), np.random.default_rng(3)
    rows, cols = np.divmod(np.flatnonzero(random.random(4000) < 0.8), 80)
    cut = Cut.of(grid, Square(31, 4, 5), 128, 1)
    cells = Cells.of(grid, cut, rows - 20, cols, ())
    np.testing.assert_array_equal(cells.rows, rows - 20)
    np.testing.assert_array_equal(cells.cols, cols)
    assert len(cells) == len(rows)
    assert len(cells.runs[0]) < len(rows) / 3
