"""Every sensor becomes a release in both layouts: from real files, or small ones made of real pixels to the facts."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from pyproj import CRS, Geod, Transformer
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from clay_publish.geo.area import Area
from clay_publish.geo.utm_grid import UtmGrid
from clay_publish.producer.imagery.chips import ChipBlock, Reading
from clay_publish.producer.layouts import layout_of
from clay_publish.producer.layouts.scene import read_scene
from clay_publish.producer.sources.item import SourceItem
from clay_publish.producer.sources.selection import Considered
from clay_publish.producer.sources.stac_item import source_item
from clay_publish.spec.load import resolve_spec
from clay_publish.spec.sensors import Sensor, sensor

from .conftest import Make, copy_item, write_item, write_tif

GEOD = Geod(ellps="WGS84")


@dataclass(frozen=True)
class Case:
    """One sensor's image."""

    key: str
    build: Callable[[Path, Path], Path]
    size: int = 32
    gsd: float | None = None
    rules: dict[str, Any] = field(default_factory=dict)
    area: list[float] | None = None
    """For the `utm` layout, where the image is vast."""


def _naip(data: Path, _: Path) -> Path:
    return data / "naip" / "va_m_3607717_sw_18_1_20160620_crop.json"


def _landsat(data: Path, folder: Path) -> Path:
    """A USGS item of STAC 0.7: bands by index, a date without time, nothing of the projection."""
    source = next((data / "landsat8_c2l2_mini_001062_20201031").glob("*_SR_stac.json"))

    def local(item: dict[str, Any]) -> None:
        for asset in item["assets"].values():
            name = asset["href"].rpartition("/")[2]
            if (source.parent / name).is_file():
                asset["href"] = str(source.parent / name)

    return copy_item(source, folder, local)


def _landsat_l1(data: Path, folder: Path) -> Path:
    """STAC 1.1: bands, proj:code."""
    source = data / "landsat8_c2l2_mini_001062_20201031"
    assets = {}
    for name, number in {"red": 4, "green": 3, "blue": 2, "nir08": 5, "swir16": 6, "swir22": 7}.items():
        shutil.copyfile(next(source.glob(f"*_SR_B{number}.TIF")), folder / f"B{number}.tif")  # whose name says no level
        assets[name] = {"href": f"B{number}.tif", "bands": [{"name": f"B{number}", "eo:common_name": name}]}
    return write_item(folder / "l1.json", assets, **{"proj:code": "EPSG:32620"})


def _sentinel_1(data: Path, folder: Path) -> Path:
    """Gamma nought in decibels, brought back to the linear power that catalogs serve."""
    with rasterio.open(data / "s1" / "S1A__IW___A_20150309T173017_VV_grd_mli_geo_norm_db.tif") as file:
        decibels, transform = file.read(1), file.transform
    linear = np.where(decibels == -99, -32768, 10 ** (decibels / 10)).astype(np.float32)
    for name, values in {"vv": linear, "vh": np.where(linear > 0, linear * 0.2, linear)}.items():
        write_tif(folder / f"{name}.tif", values[None].astype(np.float32), transform, "EPSG:32631", nodata=-32768)
    return write_item(folder / "s1.json", {"vv": {"href": "vv.tif"}, "vh": {"href": "vh.tif"}})


def _modis(data: Path, folder: Path) -> Path:
    source = data / "modis_mcd43a4_mini_h21v11_2017006"
    hrefs = {f"Nadir_Reflectance_Band{n}": str(next(source.glob(f"*_B{n:02d}.TIF"))) for n in range(1, 8)}
    return write_item(folder / "modis.json", {key: {"href": href} for key, href in hrefs.items()})


def _satclip(data: Path, folder: Path) -> Path:
    """Twelve bands in one file, corners on half pixels, no nodata value."""
    names = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"]
    href = str(data / "s2_l2a_satclip_chips_256" / "patch_25630.tif")
    return write_item(folder / "chip.json", {"data": {"href": href, "eo:bands": [{"name": name} for name in names]}})


def _real_pixels(data: Path) -> np.ndarray[Any, Any]:
    with rasterio.open(data / "naip" / "naip_va_sherando_ne_3707801_rgbn.tif") as file:
        return np.asarray(file.read())


def _linz(data: Path, folder: Path) -> Path:
    values = _real_pixels(data)[:3, :256, :256]
    transform = Affine(0.5, 0, 1_748_000, 0, -0.5, 5_428_000)
    write_tif(folder / "visual.tif", values, transform, "EPSG:2193", block=64)
    return write_item(folder / "linz.json", {"visual": {"href": "visual.tif"}}, **{"proj:epsg": 2193})


def _satellogic(data: Path, folder: Path) -> Path:
    values = _real_pixels(data)[:, :256, :256].astype(np.uint16) * 16 + 1
    write_tif(folder / "a.tif", values, Affine(1, 0, 400_000, 0, -1, 6_200_000), "EPSG:32721", nodata=0, block=128)
    bands = [{"name": name} for name in ("Red", "Green", "Blue", "NIR")]
    named = [{**band, "eo:common_name": band["name"].lower()} for band in bands]
    return write_item(folder / "sat.json", {"analytic": {"href": "a.tif", "bands": named}})


def _planetscope(data: Path, folder: Path) -> Path:
    pixels = _real_pixels(data)[:, :256, :256].astype(np.uint16) * 20 + 1
    values = np.concatenate([pixels, pixels + 7])
    write_tif(folder / "p.tif", values, Affine(3, 0, 500_000, 0, -3, 5_000_000), "EPSG:32633", nodata=0, block=128)
    return write_item(folder / "planet.json", {"ortho_analytic_8b_sr": {"href": "p.tif"}})


def _worldcover(data: Path, folder: Path) -> Path:
    """12 000 pixels a degree, geographic, red, green, blue and near infrared in one file."""
    values = _real_pixels(data)[:, :256, :256].astype(np.uint16) * 10 + 1
    values[:, :, :5] = 0
    step = 1 / 12_000
    write_tif(folder / "w.tif", values, Affine(step, 0, 24.0, 0, -step, 60.5), "EPSG:4326", nodata=0, block=128)
    period = {"datetime": None, "start_datetime": "2021-01-01T00:00:00Z", "end_datetime": "2022-01-01T00:00:00Z"}
    return write_item(folder / "world.json", {"rgbnir": {"href": "w.tif"}}, **period)


def _earth_genome(data: Path, folder: Path) -> Path:
    """Web mercator, two pixel sizes on grids that start apart, no proj:shape, a period and no date."""
    pixels = _real_pixels(data).astype(np.uint16) * 12 + 1
    origin = Transformer.from_crs("OGC:CRS84", "EPSG:3857", always_xy=True).transform(10.0, 45.0)
    fine = Affine(9.55, 0, origin[0], 0, -9.55, origin[1])
    coarse = Affine(19.1, 0, origin[0] - 4 * 9.55, 0, -19.1, origin[1] + 6 * 9.55)
    assets = {}
    for place, band in enumerate(sensor("sentinel-2-l2a").bands):
        first = band.name in {"blue", "green", "red", "nir"}
        values = pixels[place % 4][None, :256, :256] if first else pixels[place % 4][None, 100:260, 100:260]
        write_tif(folder / f"{band.name}.tif", values, fine if first else coarse, "EPSG:3857", nodata=0, block=64)
        assets[band.name] = {"href": f"{band.name}.tif"}
    period = {"datetime": None, "start_datetime": "2023-01-01T00:00:00Z", "end_datetime": "2024-01-01T00:00:00Z"}
    return write_item(folder / "genome.json", assets, **period)


CASES = {
    "naip": Case("naip", _naip),
    "landsat-c2l2-sr": Case("landsat-c2l2-sr", _landsat, gsd=600, rules={"max_cloud": 1}),
    "landsat-c2l1": Case("landsat-c2l1", _landsat_l1, gsd=600),
    "sentinel-1-rtc": Case("sentinel-1-rtc", _sentinel_1, gsd=20),
    "modis": Case("modis", _modis, gsd=2000, rules={"max_nodata": 0.9}, area=[33, -24, 35, -22]),
    "sentinel-2 in one file": Case("sentinel-2-l2a", _satclip),
    "linz": Case("linz", _linz),
    "satellogic-MSI-L1D": Case("satellogic-MSI-L1D", _satellogic),
    "planetscope-sr": Case("planetscope-sr", _planetscope),
    "worldcover": Case("sentinel-2-rgbnir", _worldcover),
    "earth genome": Case("sentinel-2-l2a", _earth_genome),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def _read(path: Path, case: Case, **chips: Any) -> tuple[SourceItem, Reading, dict[str, Any]]:
    instrument = sensor(case.key)
    item = source_item(json.loads(path.read_text()), instrument, block=0, base=str(path))
    rules = {"size": case.size, "max_nodata": 1, "max_cloud": 1, **chips}
    document = {"name": "test", "imagery": {"stac": str(path), "sensor": case.key}, "chips": rules}
    spec = resolve_spec(document, where="spec", folder=path.parent)
    bands = tuple(band.statistics for band in instrument.bands)
    return item, Reading(instrument, bands, spec.chips, threads=2), {"spec": spec, "sensor": instrument}


def _raw(block: ChipBlock, place: int, instrument: Sensor) -> np.ndarray[Any, Any]:
    """Undo the normalization of one chip."""
    mean = np.array([band.mean for band in instrument.bands])[:, None, None]
    std = np.array([band.std for band in instrument.bands])[:, None, None]
    values = block.pixels[place].astype(float) * std + mean
    return 10 ** (values / 10) if instrument.decibels else values


def _kept(block: ChipBlock) -> list[int]:
    return [n for n, reason in enumerate(block.reasons) if reason is None]


def _expected(
    item: SourceItem, instrument: Sensor, raw: np.ndarray[Any, Any], valid: np.ndarray[Any, Any], n: int
) -> Any:
    """What the encoder's normalization makes of the file's values, undone."""
    mean = 10 ** (instrument.bands[n].mean / 10) if instrument.decibels else instrument.bands[n].mean
    return np.where(valid, raw + item.shift, mean)


def test_scene_pixels_equal_those_of_an_independent_read(shared_data: Path, tmp_path: Path, case: Case) -> None:
    path = case.build(shared_data, tmp_path)
    item, reading, _ = _read(path, case, layout="scene")
    instrument, size = reading.sensor, case.size
    with rasterio.open(item.bands[0].href) as file:
        fine, crs = file.transform, file.crs
    compared = 0
    for block in read_scene(item, reading, None):
        for place, n in enumerate(_kept(block)[:2]):
            found = _raw(block, place, instrument)
            top, left = int(block.rows[n]) * size, int(block.cols[n]) * size
            layers = []
            for band in item.bands:
                with rasterio.open(band.href) as file:
                    index = band.index or 1
                    whole = file.read(index)
                    nodata = file.nodata if file.nodata is not None else instrument.nodata
                    xs, ys = fine @ (left + np.arange(size) + 0.5, top + np.arange(size) + 0.5)
                    cols, rows = ~file.transform @ (xs, ys)
                rows, cols = np.floor(rows + 1e-9).astype(int), np.floor(cols + 1e-9).astype(int)
                inside = ((rows >= 0) & (rows < whole.shape[0]))[:, None] & (cols >= 0) & (cols < whole.shape[1])
                raw = whole[np.clip(rows, 0, whole.shape[0] - 1)][:, np.clip(cols, 0, whole.shape[1] - 1)].astype(float)
                valid = inside & (True if nodata is None else raw != nodata)
                layers.append((raw, valid))
            everywhere = np.logical_and.reduce([valid for _, valid in layers])
            for number, (raw, _) in enumerate(layers):
                wanted = _expected(item, instrument, raw, everywhere, number)
                np.testing.assert_allclose(found[number], wanted, rtol=1e-4, atol=0.02)
                compared += 1
            back = Transformer.from_crs("OGC:CRS84", crs, always_xy=True)
            corners = [fine @ (left + c * size, top + r * size) for r, c in ((0, 0), (1, 0), (1, 1), (0, 1))]
            xy = shapely.transform(block.geometry[n], back.transform, interleaved=False)
            metre = 1.0 if CRS(crs).is_projected else 1 / 111_000
            assert shapely.hausdorff_distance(xy, shapely.polygons(corners), densify=0.05) < 0.1 * metre
    assert compared


def test_utm_pixels_equal_those_of_an_independent_warp(shared_data: Path, tmp_path: Path, case: Case) -> None:
    path = case.build(shared_data, tmp_path)
    item, reading, extra = _read(path, case, layout="utm", **({"gsd": case.gsd} if case.gsd else {}))
    instrument, size = reading.sensor, case.size
    gsd = case.gsd or instrument.gsd
    grid = UtmGrid(size * gsd)
    area = Area("bbox", shapely.box(*case.area)) if case.area else None
    compared = 0
    for unit in layout_of(extra["spec"], instrument).units([Considered(item, "used")], [area], {}):
        for block in unit.read(reading):
            whole = [(p, n) for p, n in enumerate(_kept(block)) if block.valid_fraction[n] > 0.5]
            for place, n in whole[:3]:
                found = _raw(block, place, instrument)
                west, _, _, north = grid.bounds(block.epsg or 0, int(block.rows[n]), int(block.cols[n]))[0]
                layers = []
                for band in item.bands:
                    with rasterio.open(band.href) as file:
                        nodata = file.nodata if file.nodata is not None else instrument.nodata
                        across, down = _scales(file)
                        scale = max(across, down) / gsd
                        with WarpedVRT(
                            file,
                            crs=f"EPSG:{block.epsg}",
                            transform=Affine(gsd, 0, west, 0, -gsd, north),
                            width=size,
                            height=size,
                            resampling=Resampling.bilinear,
                            tolerance=0.001,
                            src_nodata=nodata,
                            nodata=nodata,
                            add_alpha=nodata is None,
                            XSCALE=across / gsd,
                            YSCALE=down / gsd,
                        ) as warped:
                            raw = warped.read(band.index or 1).astype(float)
                            valid = warped.read(warped.count) != 0 if nodata is None else raw != nodata
                    layers.append((raw, valid))
                everywhere = np.logical_and.reduce([valid for _, valid in layers])
                sure = _away_from_edges(everywhere, int(np.ceil(3 * max(1.0, scale))))  # there either side is right
                for number, (raw, _) in enumerate(layers):
                    wanted = _expected(item, instrument, raw, everywhere, number)
                    span = max(float(np.ptp(wanted)), 1e-6)
                    assert np.abs(found[number] - wanted)[sure].max(initial=0) < 0.03 * span
                    compared += int(sure.sum())
                ground, _ = GEOD.geometry_area_perimeter(block.geometry[n])
                assert ground == pytest.approx((size * gsd) ** 2, rel=0.005)
    assert compared


def _away_from_edges(valid: np.ndarray[Any, Any], reach: int) -> np.ndarray[Any, Any]:
    """Pixels whose neighbors, as far as `reach`, are all valid."""
    shifts = range(-reach, reach + 1)
    around = [np.roll(valid, (down, right), axis=(0, 1)) for down in shifts for right in shifts]
    sure: np.ndarray[Any, Any] = np.logical_and.reduce(around)
    return sure


def _scales(file: Any) -> tuple[float, float]:
    """Ground size of a pixel at the middle of the image by axis, measured where the grid is not metric."""
    crs = CRS(file.crs)
    if crs.is_projected and file.crs.to_epsg() != 3857:
        return float(file.transform.a), float(abs(file.transform.e))
    to = Transformer.from_crs(crs, "OGC:CRS84", always_xy=True)
    x, y = file.transform @ (np.array([file.width / 2] * 2), np.array([file.height / 2, file.height / 2 + 1]))
    right, _ = file.transform @ (file.width / 2 + 1, 0)
    lon, lat = to.transform(x, y)
    lon_right, _ = to.transform(right, y[0])
    return float(GEOD.line_length([lon[0], lon_right], [lat[0], lat[0]])), float(GEOD.line_length(lon, lat))


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["scene", "utm"])
def test_every_sensor_becomes_a_release(shared_data: Path, tmp_path: Path, make: Make, case: Case, layout: str) -> None:
    path = case.build(shared_data, tmp_path)
    gsd = {"gsd": case.gsd} if layout == "utm" and case.gsd else {}
    imagery = {"area": case.area} if layout == "utm" and case.area else {}
    chips = {"layout": layout, "size": case.size, **gsd, **case.rules}
    made = make(path, sensor=case.key, imagery=imagery, chips=chips)
    table = made.embeddings
    assert table.num_rows == made.counts["embedded"] > 0
    assert sum(made.counts.values()) == 2 * made.counts["expected"]
    vectors = np.stack(table["embedding"].to_numpy(zero_copy_only=False))
    assert np.isfinite(vectors).all()
    assert made.release.fingerprint().sensor == case.key
