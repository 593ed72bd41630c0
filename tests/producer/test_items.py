"""Every real STAC item at hand, of every catalog and version, read for the sensor that made it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clay_publish.errors import SourceError, SpecError
from clay_publish.producer.sources.item import SourceItem
from clay_publish.producer.sources.stac_item import source_item
from clay_publish.spec.sensors import SENSORS, sensor

S2 = "sentinel-2-l2a"
FILES = {
    "planetary_computer/sentinel-2-l2a-pc.itemlist.json": S2,
    "planetary_computer/sentinel-1-rtc-pc.itemlist.json": "sentinel-1-rtc",
    "planetary_computer/landsat-c2-l2-pc.itemlist.json": "landsat-c2l2-sr",
    "planetary_computer/naip-pc.itemlist.json": "naip",
    "stacchip_tests/naip_m_4207009_ne_19_060_20211024.json": "naip",
    "stacchip_tests/landsat-c2l2-sr-LC09_L2SR_086107_20240311_20240312_02_T2_SR.json": "landsat-c2l2-sr",
    "stacchip_tests/sentinel-2-l2a-S2A_T20HNJ_20240311T140636_L2A.json": S2,
    "antimeridian/S2A_T60VXH_20230805.json": S2,
    "antimeridian/S2B_T01VCG_20230512.json": S2,
    "sentinel1_rtc_aws/S1A_20200103_17RMJ_ASC.json": "sentinel-1-rtc",
    "usgs_landsatlook/LC08_L2SP_028030_20200114_20200824_02_T1_SR.json": "landsat-c2l2-sr",
    "earth_search/sentinel-2-c1-l2a_S2A_T36MVD_20210414_stac1.1.json": S2,
    "earth_search/sentinel-2-l2a_S2A_33TWM_20230818_offset-0.1.json": S2,
    "earth_search/sentinel-2-c1-l2a_10items_T13TDE.itemcollection.json": S2,
}


def documents(path: Path) -> Iterator[dict[str, Any]]:
    content = json.loads(path.read_text())
    yield from content if isinstance(content, list) else content.get("features", [content])


def read(path: Path, key: str) -> list[SourceItem]:
    return [source_item(each, sensor(key), block=0, base=str(path)) for each in documents(path)]


@pytest.mark.parametrize(("name", "key"), FILES.items())
def test_every_band_has_its_asset(shared_data: Path, name: str, key: str) -> None:
    path = shared_data / "stac_items" / name
    for item, document in zip(read(path, key), documents(path), strict=True):
        assert [file.band for file in item.bands] == [band.name for band in sensor(key).bands]
        for file in item.bands:
            described = document["assets"][file.asset].get("eo:bands") or document["assets"][file.asset].get("bands")
            if described and len(described) == 1:  # the catalog's own words confirm the band
                assert {described[0].get("name"), described[0].get("common_name")} & set(
                    sensor(key).band(file.band).names
                ) or file.asset in sensor(key).band(file.band).names
        assert len({(file.asset, file.index) for file in item.bands}) == len(item.bands)


@pytest.mark.parametrize(
    ("name", "key", "pixel"),
    [
        ("earth_search/sentinel-2-c1-l2a_S2A_T36MVD_20210414_stac1.1.json", S2, 10),
        ("planetary_computer/sentinel-2-l2a-pc.itemlist.json", S2, 10),
        ("planetary_computer/landsat-c2-l2-pc.itemlist.json", "landsat-c2l2-sr", 30),
        ("planetary_computer/naip-pc.itemlist.json", "naip", 0.3),
        ("sentinel1_rtc_aws/S1A_20200103_17RMJ_ASC.json", "sentinel-1-rtc", 20),
    ],
)
def test_the_grid_is_that_of_the_finest_band(shared_data: Path, name: str, key: str, pixel: float) -> None:
    for item in read(shared_data / "stac_items" / name, key):
        assert item.grid is not None
        assert item.grid.pixel == pytest.approx(pixel, abs=0.31 if key == "naip" else 1e-9)
        assert item.grid.crs.startswith("EPSG:")


@pytest.mark.parametrize(
    ("name", "offset"),
    [
        ("earth_search/sentinel-2-l2a_S2A_33TWM_20230818_offset-0.1.json", 0),  # the flag says that it was applied
        ("earth_search/sentinel-2-c1-l2a_S2A_T36MVD_20210414_stac1.1.json", -1000),
        ("earth_search/sentinel-2-c1-l2a_10items_T13TDE.itemcollection.json", -1000),
        ("planetary_computer/sentinel-2-l2a-pc.itemlist.json", -1000),  # no flag at all: the baseline decides
        ("antimeridian/S2A_T60VXH_20230805.json", -1000),
    ],
)
def test_the_offset_is_found_from_flag_bands_and_baseline(shared_data: Path, name: str, offset: float) -> None:
    path = shared_data / "stac_items" / name
    for item, document in zip(read(path, S2), documents(path), strict=True):
        (baseline,) = {
            float(value) for key, value in document["properties"].items() if key.endswith("processing_baseline")
        }
        expected = offset if baseline >= 4 else 0
        assert item.shift == expected, item.id


def test_the_real_items_of_old_baselines_have_no_offset(shared_data: Path) -> None:
    for folder, key in (("s2_l2a_mini_29RKH_20200219", S2), ("s2_l1c_T18SVG_20160112", "sentinel-2-l1c")):
        (item,) = read(shared_data / folder / "item.json", key)
        assert item.shift == 0


def test_clouds_are_marked_by_the_item_s_own_mask(shared_data: Path) -> None:
    (mini,) = read(shared_data / "s2_l2a_mini_29RKH_20200219" / "item.json", S2)
    assert mini.mask is not None
    assert mini.mask.asset == "scl"
    landsat = read(shared_data / "stac_items" / "planetary_computer/landsat-c2-l2-pc.itemlist.json", "landsat-c2l2-sr")
    assert {item.mask.asset for item in landsat if item.mask} == {"qa_pixel"}


def test_landsat_of_stac_0_7_names_bands_by_index(shared_data: Path) -> None:
    folder = shared_data / "landsat8_c2l2_mini_001062_20201031"
    (item,) = read(next(folder.glob("*_SR_stac.json")), "landsat-c2l2-sr")
    assert [file.asset for file in item.bands] == [f"SR_B{n}.TIF" for n in (4, 3, 2, 5, 6, 7)]
    assert str(item.window) == "2020-10-31/2020-11-01"


@pytest.mark.parametrize(("stated", "read_as"), [(4.05, 4.05), ("12", 12.0), (-1, None), (999, None), (None, None)])
def test_cloud_cover_beyond_percent_is_unknown(shared_data: Path, stated: Any, read_as: float | None) -> None:
    document = json.loads((shared_data / "s2_l2a_mini_29RKH_20200219" / "item.json").read_text())
    document["properties"]["eo:cloud_cover"] = stated
    assert source_item(document, sensor(S2), block=0, base=None).cloud_cover == read_as


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"type": "Collection"}, "is not a STAC Item"),
        ({"id": ""}, "is not a STAC Item"),
        ({"id": "x" * 5000}, "5,000 characters"),
        ({"properties": {"datetime": None}}, "has no time"),
        ({"properties": {"datetime": "yesterday"}}, "found 'yesterday'"),
        ({"assets": {}}, "has no band blue"),
        ({"geometry": {"type": "Blob"}}, "not a GeoJSON geometry"),
    ],
)
def test_what_is_no_usable_item_is_said(shared_data: Path, change: dict[str, Any], said: str) -> None:
    document = json.loads((shared_data / "s2_l2a_mini_29RKH_20200219" / "item.json").read_text()) | change
    with pytest.raises(SourceError, match=said):
        source_item(document, sensor(S2), block=0, base=None)


def test_an_unknown_sensor_names_the_nearest() -> None:
    with pytest.raises(SpecError, match="Did you mean 'sentinel-2-l2a'"):
        sensor("sentinel2-l2a")


@pytest.mark.parametrize("key", SENSORS)
def test_the_registry_is_complete(key: str) -> None:
    one = SENSORS[key]
    assert one.gsd > 0
    assert set(one.rgb) <= {band.name for band in one.bands}
    assert len({band.name for band in one.bands}) == len(one.bands)
    assert all(band.std > 0 and 0.3 < band.wavelength < 5 for band in one.bands)
    assert one.attribution.endswith(".")
