"""Statistics computed from sample imagery, and the sensors of the package on the command line."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml
from affine import Affine

from clay_publish.geo.raster_grid import RasterGrid
from clay_publish.producer.imagery.band_statistics import Moments, sample_windows
from clay_publish.spec.sensors import SENSORS, read_sensor

Run = Callable[..., CompletedProcess[str]]
Pixels = np.ndarray[Any, Any]

MINI = "s2_l2a_mini_29RKH_20200219"


def write(path: Path, values: Pixels, *, nodata: float | None = None, scale: tuple[float, float] | None = None) -> None:
    """A GeoTIFF of one band, 10 m."""
    profile = {"driver": "GTiff", "count": 1, "height": values.shape[0], "width": values.shape[1], "nodata": nodata}
    transform = Affine(10, 0, 500_000, 0, -10, 4_000_000)
    with rasterio.open(path, "w", dtype=values.dtype, crs="EPSG:32618", transform=transform, **profile) as file:
        file.write(values, 1)
        if scale is not None:
            file.scales, file.offsets = (scale[0],), (scale[1],)


def spec(folder: Path, items: list[dict[str, Any]], sensor: Any, **imagery: Any) -> Path:
    """A spec of these items."""
    (folder / "items.json").write_text(json.dumps(items))
    document = {"name": "a", "imagery": {"stac": "items.json", "sensor": sensor, **imagery}}
    (folder / "release.yaml").write_text(yaml.safe_dump(document))
    return folder / "release.yaml"


def item(name: str, assets: dict[str, str], **said: Any) -> dict[str, Any]:
    document = {"type": "Feature", "id": name, "properties": {"datetime": "2023-01-03T15:50:00Z", **said}}
    return {**document, "assets": {key: {"href": href} for key, href in assets.items()}}


TWO = {
    "key": "two-bands",
    "title": "Two bands",
    "statistics": {"source": "none yet"},
    "gsd": 10,
    "bands": [
        {"name": "red", "wavelength": 0.65, "mean": 0, "std": 1},
        {"name": "nir", "wavelength": 0.85, "mean": 0, "std": 1},
    ],
    "rgb": ["nir", "red", "red"],
    "attribution": "Unknown",
    "license": "CC-BY-4.0",
    "nodata": 0,
}


def test_moments_of_parts_are_those_of_the_whole() -> None:
    values = np.random.default_rng(0).gamma(2, 500, 10_000).astype(np.float32) + 1e6
    found = Moments()
    for part in np.array_split(values, 37):
        found.add(part)
    assert (found.count, found.mean) == (10_000, pytest.approx(values.astype(np.float64).mean(), rel=1e-12))
    assert found.std == pytest.approx(values.astype(np.float64).std(), rel=1e-9)


def test_windows_are_spread_and_do_not_overlap() -> None:
    grid = RasterGrid("EPSG:32618", 10_980, 10_980, (10, 0, 0, 0, -10, 0))
    windows = list(sample_windows(grid, 16))
    seen = np.zeros((10_980, 10_980), dtype=np.uint8)
    for top, left, rows, columns in windows:
        seen[top : top + rows, left : left + columns] += 1
    assert (len(windows), seen.max(), int(seen.sum())) == (16, 1, 16 * 512 * 512)
    assert len(list(sample_windows(RasterGrid("EPSG:32618", 100, 700, (10, 0, 0, 0, -10, 0)), 16))) == 1


def test_statistics_are_those_of_valid_and_clear_pixels(tmp_path: Path, shared_data: Path, run: Run) -> None:
    folder = shared_data / MINI
    document = {"name": "a", "imagery": {"stac": str(folder / "item.json"), "sensor": "sentinel-2-l2a"}}
    (tmp_path / "release.yaml").write_text(yaml.safe_dump(document))
    made = json.loads(run("sensor-stats", "release.yaml", "--out", "s.yaml", "--json", "-q", cwd=tmp_path).stdout)
    keys = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
    read = {key: rasterio.open(folder / f"{key}.tif").read(1) for key in keys}
    fine = read["B02"].shape[0]
    every = {key: values.repeat(fine // len(values), 0).repeat(fine // len(values), 1) for key, values in read.items()}
    scl = rasterio.open(folder / "SCL.tif").read(1)
    scl = scl.repeat(fine // len(scl), 0).repeat(fine // len(scl), 1)
    good = np.logical_and.reduce([values != 0 for values in every.values()]) & ~np.isin(scl, (0, 3, 8, 9, 10))
    assert (made["pixels"], made["not_cloud_checked"]) == (int(good.sum()), 0)
    assert 0 < made["pixels"] < good.size
    assert made["cloudy"] > 0
    sensor = read_sensor(tmp_path / "s.yaml")
    for band, key in zip(sensor.bands, keys, strict=True):
        values = every[key][good].astype(np.float64)
        assert (band.mean, band.std) == (pytest.approx(values.mean(), rel=1e-4), pytest.approx(values.std(), rel=1e-4))
    assert sensor.statistics.computed
    assert sensor.key == "sentinel-2-l2a-measured"
    assert sensor.masks == SENSORS["sentinel-2-l2a"].masks


def test_a_new_sensor_is_measured_and_used(tmp_path: Path, run: Run) -> None:
    values = np.random.default_rng(0).integers(100, 4000, (2, 96, 96)).astype(np.uint16)
    values[:, :, :10] = 0  # no data
    for name, band in zip(("red", "nir"), values, strict=True):
        write(tmp_path / f"{name}.tif", band)
    path = spec(tmp_path, [item("a", {"red": "red.tif", "nir": "nir.tif"})], TWO)
    text = run("sensor-stats", path, "--key", "mine", "--title", "Mine", "--out", "mine.yaml", cwd=tmp_path).stdout
    assert "1 images, 8,256 valid pixels" in text
    assert "warning" not in text  # the sensor has no masks
    made = read_sensor(tmp_path / "mine.yaml")
    assert (made.key, made.title) == ("mine", "Mine")
    assert made.bands[0].mean == pytest.approx(values[0, :, 10:].mean(), rel=1e-5)
    assert made.bands[1].std == pytest.approx(values[1, :, 10:].std(), rel=1e-5)
    path = spec(tmp_path, [item("a", {"red": "red.tif", "nir": "nir.tif"})], "mine.yaml")
    made_chips = run("produce", path, "--set", "chips.layout=scene", "--set", "chips.size=32", cwd=tmp_path).stdout
    assert "of 9 expected chips" in made_chips


def test_scale_and_offset_count(tmp_path: Path, run: Run) -> None:
    values = np.random.default_rng(0).integers(100, 4000, (96, 96)).astype(np.uint16)
    for name in ("red", "nir"):
        write(tmp_path / f"{name}.tif", values, scale=(0.0001, -0.1))
    sensor = {**TWO, "scale": 0.0001, "other_offsets": [-0.1]}
    path = spec(tmp_path, [item("a", {"red": "red.tif", "nir": "nir.tif"})], sensor)
    made = json.loads(run("sensor-stats", path, "--json", "-q", cwd=tmp_path).stdout)["sensor"]
    assert made["bands"][0]["mean"] == pytest.approx(values.mean() - 1000, rel=1e-5)


def test_radar_is_measured_in_decibels(tmp_path: Path, run: Run) -> None:
    power = np.random.default_rng(0).gamma(4, 0.02, (96, 96)).astype(np.float32)
    power[:20] = 0
    for name in ("vv", "vh"):
        write(tmp_path / f"{name}.tif", power)
    path = spec(
        tmp_path, [item("a", {"vv": "vv.tif", "vh": "vh.tif"}, **{"sar:product_type": "RTC"})], "sentinel-1-rtc"
    )
    made = json.loads(run("sensor-stats", path, "--json", "-q", cwd=tmp_path).stdout)["sensor"]
    assert made["bands"][0]["mean"] == pytest.approx(float((10 * np.log10(power[20:])).mean()), rel=1e-4)


def test_images_that_cannot_be_used_are_left_out_and_named(tmp_path: Path, run: Run) -> None:
    values = np.random.default_rng(0).integers(100, 4000, (96, 96)).astype(np.uint16)
    for name in ("red", "nir"):
        write(tmp_path / f"{name}.tif", values)
    items = [item(name, {"red": "red.tif", "nir": f"{nir}.tif"}) for name, nir in (("a", "nir"), ("b", "gone"))]
    found = json.loads(run("sensor-stats", spec(tmp_path, items, TWO), "--json", "-q", cwd=tmp_path).stdout)
    assert found["images"] == ["a"]
    assert "does not exist" in found["left_out"]["b"]
    nothing = run("sensor-stats", spec(tmp_path, items[1:], TWO), "-q", cwd=tmp_path, code=2).stderr
    assert "band red: has no valid pixel in the sample" in nothing
    assert "does not exist" in nothing


def test_a_key_of_the_package_is_refused(tmp_path: Path, run: Run) -> None:
    path = spec(tmp_path, [], TWO)
    assert (
        "belongs to a sensor of the package" in run("sensor-stats", path, "--key", "naip", cwd=tmp_path, code=2).stderr
    )


def test_sensors_are_listed_and_shown(tmp_path: Path, run: Run) -> None:
    listed = run("sensors", cwd=tmp_path).stdout.splitlines()
    assert [line.split()[0] for line in listed] == list(SENSORS)
    assert json.loads(run("sensors", "--json", cwd=tmp_path).stdout).keys() == SENSORS.keys()
    (tmp_path / "shown.yaml").write_text(run("sensors", "hls-l30", cwd=tmp_path).stdout)
    assert read_sensor(tmp_path / "shown.yaml") == SENSORS["hls-l30"]
    assert "Did you mean 'naip'" in run("sensors", "naipp", cwd=tmp_path, code=2).stderr
