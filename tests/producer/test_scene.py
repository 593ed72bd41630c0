"""The scene layout on real Sentinel-2 scenes: pixels, footprints, reasons."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from pyproj import Transformer
from rasterio.windows import Window

from clay_publish.producer.imagery.chips import Reading
from clay_publish.producer.layouts.scene import read_scene
from clay_publish.producer.sources.stac_item import source_item
from clay_publish.spec.models import ChipSpec
from clay_publish.spec.sensors import sensor

from .conftest import Make, copy_item, ten_bands

SENTINEL = sensor("sentinel-2-l1c")


def read_chips(path: Path, size: int) -> dict[tuple[int, int], np.ndarray]:
    """Raw values by chip, as the producer reads them."""
    instrument = sensor("sentinel-2-l2a") if "s2_l2a" in str(path) else SENTINEL  # of the same statistics
    item = source_item(json.loads(path.read_text()), instrument, block=0, base=str(path))
    bands = tuple(band.statistics for band in SENTINEL.bands)
    reading = Reading(SENTINEL, bands, ChipSpec(layout="scene", size=size, max_nodata=1, max_cloud=1), threads=2)
    mean = np.array([band.mean for band in bands])[:, None, None]
    std = np.array([band.std for band in bands])[:, None, None]
    chips = {}
    for block in read_scene(item, reading, None):
        kept = [n for n, reason in enumerate(block.reasons) if reason is None]
        for place, n in enumerate(kept):
            chips[int(block.rows[n]), int(block.cols[n])] = block.pixels[place] * std + mean
    return chips


@pytest.mark.parametrize("size", [128, 100, 256])
def test_pixels_equal_those_of_an_independent_read(shared_data: Path, size: int) -> None:
    path = shared_data / "s2_l1c_T18SVG_20160112" / "item.json"
    chips = read_chips(path, size)
    assert len(chips) == (512 // size) ** 2
    for place, (band, whole) in enumerate(zip(SENTINEL.bands, ten_bands(path), strict=True)):
        for (row, col), values in chips.items():
            expected = whole[row * size : (row + 1) * size, col * size : (col + 1) * size]
            np.testing.assert_allclose(values[place], np.where(expected == 0, band.mean, expected), atol=0.01)


def test_a_window_read_of_one_chip_gives_the_same_pixels(shared_data: Path) -> None:
    folder = shared_data / "s2_l2a_mini_29RKH_20200219"
    chips = read_chips(folder / "item.json", 128)
    with rasterio.open(folder / "B04.tif") as file:
        expected = file.read(1, window=Window(2 * 128, 1 * 128, 128, 128))
    np.testing.assert_allclose(chips[1, 2][2], expected, atol=0.01)


@pytest.mark.parametrize("scene", ["s2_l1c_T18SVG_20160112", "s2_l2a_mini_29RKH_20200219"])
def test_footprints_agree_with_the_finest_transform_within_a_decimeter(
    shared_data: Path, make: Make, scene: str
) -> None:
    folder = shared_data / scene
    made = make(folder / "item.json")
    with rasterio.open(folder / "B02.tif") as file:
        transform, crs = file.transform, file.crs
    back = Transformer.from_crs("OGC:CRS84", crs, always_xy=True)
    table = made.embeddings
    assert table.num_rows == made.counts["embedded"] > 0
    for row in table.select(["geometry", "row", "col", "lon", "lat"]).to_pylist():
        outline = shapely.from_wkb(row["geometry"])
        points = shapely.get_coordinates(outline)
        x, y = back.transform(points[:, 0], points[:, 1])
        left, top = transform @ (row["col"] * 128, row["row"] * 128)
        right, bottom = transform @ ((row["col"] + 1) * 128, (row["row"] + 1) * 128)
        true = shapely.box(left, bottom, right, top)
        found = shapely.polygons(np.stack([x, y], axis=-1))
        assert shapely.hausdorff_distance(true, found, densify=0.05) < 0.1
        assert shapely.is_ccw(outline.exterior)
        center = back.transform(row["lon"], row["lat"])
        assert np.hypot(center[0] - (left + right) / 2, center[1] - (top + bottom) / 2) < 0.1


def test_cloudy_chips_are_recorded_with_their_share(shared_data: Path, make: Make) -> None:
    folder = shared_data / "s2_l2a_mini_29RKH_20200219"
    made = make(folder / "item.json", chips={"layout": "scene", "max_cloud": 0.1})
    with rasterio.open(folder / "SCL.tif") as file:
        scl = file.read(1)
    cloud = np.isin(scl, [3, 8, 9, 10]).repeat(2, axis=0).repeat(2, axis=1)
    shares = {(r, c): cloud[r * 128 :, c * 128 :][:128, :128].mean() for r in range(3) for c in range(3)}
    found = {(row["row"], row["col"]): row["reason"] for row in made.coverage}
    assert found == {place: "cloud" if share > 0.1 else None for place, share in shares.items()}
    assert made.counts["cloud"] == sum(share > 0.1 for share in shares.values()) > 2
    for row in made.embeddings.to_pylist():
        assert row["cloud_fraction"] == pytest.approx(shares[row["row"], row["col"]], abs=1e-6)


def test_what_remains_at_the_lower_and_right_edge_is_left_out(shared_data: Path, make: Make) -> None:
    made = make(shared_data / "s2_l1c_T18SVG_20160112" / "item.json", chips={"layout": "scene", "size": 150})
    assert made.counts == {"expected": 9, "embedded": 9}


def test_only_chips_whose_center_lies_in_the_area_are_expected(shared_data: Path, make: Make) -> None:
    area = [-75.64, 37.70, -75.60, 37.74]
    made = make(shared_data / "s2_l1c_T18SVG_20160112" / "item.json", imagery={"area": area})
    table = made.embeddings
    lon, lat = table["lon"].to_numpy(), table["lat"].to_numpy()
    assert 0 < table.num_rows < 16
    assert ((lon > area[0]) & (lon < area[2]) & (lat > area[1]) & (lat < area[3])).all()


def test_the_same_spec_gives_the_same_bytes(shared_data: Path, make: Make) -> None:
    item = shared_data / "s2_l2a_mini_29RKH_20200219" / "item.json"
    first, second = make(item, out="a").release, make(item, out="b").release
    assert first.data_files() == second.data_files()
    for path in first.data_files():
        assert first.store.read(path) == second.store.read(path)


def test_no_path_of_this_machine_is_published(shared_data: Path, make: Make, tmp_path: Path) -> None:
    release = make(shared_data / "s2_l1c_T18SVG_20160112" / "item.json").release
    for path in release.published_files():
        data = release.store.read(path)
        assert str(shared_data).encode() not in data
        assert str(tmp_path).encode() not in data


def test_the_period_of_a_composite_gives_the_window_and_its_middle_the_date(shared_data: Path, make: Make) -> None:
    made = make(shared_data / "s2_l1c_T18SVG_20160112" / "item.json")
    (path,) = made.release.data_files()
    assert path == "embeddings/zone=18/18_04_41_2016-01-12_2016-01-13.parquet"
    row = made.embeddings.slice(0, 1).to_pylist()[0]
    assert row["start_datetime"] < row["datetime"] < row["end_datetime"]


def test_coarse_bands_that_start_elsewhere_are_read_at_the_right_place(shared_data: Path, tmp_path: Path) -> None:
    """A band on a grid of its own, shifted by whole fine pixels, gives the values that lie under each fine pixel."""
    source = shared_data / "s2_l1c_T18SVG_20160112"
    with rasterio.open(source / "B11.tif") as file:
        values, profile, transform = file.read(1), file.profile, file.transform
    profile.update(transform=transform @ transform.translation(3, 5), height=256 - 5, width=256 - 3)
    with rasterio.open(tmp_path / "shifted.tif", "w", **profile) as file:
        file.write(values[5:, 3:], 1)

    def shift(item: dict) -> None:
        item["assets"]["swir16"]["href"] = str(tmp_path / "shifted.tif")
        for asset in item["assets"].values():
            asset.pop("proj:transform", None)  # the files say it themselves

    path = copy_item(source / "item.json", tmp_path, shift)
    chips = read_chips(path, 128)
    expected = values.repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_allclose(chips[2, 3][8], expected[256:384, 384:512], atol=0.01)
    np.testing.assert_allclose(chips[0, 0][8][:10], SENTINEL.bands[8].mean, atol=0.01)  # nothing there: the mean
