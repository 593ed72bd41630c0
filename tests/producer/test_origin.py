"""A sensor that did not make the images is refused, as far as the items say who did."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clay_publish import windows
from clay_publish.errors import SourceError
from clay_publish.producer.sources.reader import read_items
from clay_publish.producer.sources.sensor_check import check_origin, size_note
from clay_publish.producer.sources.stac_item import source_item
from clay_publish.spec.sensors import SENSORS, sensor

SHORE = Path(windows.__file__).parent / "sample" / "imagery" / "item.json"
S1, S2, LANDSAT = "sentinel-1-rtc", "sentinel-2-l2a", "landsat-c2l2-sr"
L1C = "sentinel-2-l1c"
MADE_BY = {
    "stac_items/antimeridian/S2A_T60VXH_20230805.json": {S2},
    "stac_items/antimeridian/S2B_T01VCG_20230512.json": {S2},
    "stac_items/earth_search/sentinel-2-c1-l2a_10items_T13TDE.itemcollection.json": {S2},
    "stac_items/earth_search/sentinel-2-c1-l2a_S2A_T36MVD_20210414_stac1.1.json": {S2},
    "stac_items/earth_search/sentinel-2-l2a_S2A_33TWM_20230818_offset-0.1.json": {S2},
    "stac_items/planetary_computer/sentinel-2-l2a-pc.itemlist.json": {S2},
    "stac_items/stac_geoparquet/100-sentinel-2-items.parquet": {S2},
    "stac_items/stacchip_tests/sentinel-2-l2a-S2A_T20HNJ_20240311T140636_L2A.json": {S2},
    "s2_l1c_T18SVG_20160112/item.json": {L1C},
    "s2_l2a_mini_29RKH_20200219/item.json": {S2},
    "stac_items/planetary_computer/sentinel-1-rtc-pc.itemlist.json": {S1},
    "stac_items/sentinel1_rtc_aws/S1A_20200103_17RMJ_ASC.json": {S1},
    "stac_items/planetary_computer/landsat-c2-l2-pc.itemlist.json": {LANDSAT},
    "stac_items/stac_geoparquet/100-landsat-items.parquet": {LANDSAT},
    "stac_items/stacchip_tests/landsat-c2l2-sr-LC09_L2SR_086107_20240311_20240312_02_T2_SR.json": {LANDSAT},
    "stac_items/usgs_landsatlook/LC08_L2SP_028030_20200114_20200824_02_T1_SR.json": {LANDSAT},
    # STAC 0.7: the mission; its level follows from the id, the collection and the keys of its assets.
    "landsat8_c2l2_mini_001062_20201031/LC08_L2SP_001062_20201031_20201106_02_T2_SR_stac.json": {LANDSAT},
    "stac_items/planetary_computer/naip-pc.itemlist.json": {"naip"},
    "naip/va_m_3607717_sw_18_1_20160620_crop.json": {"naip"},
    # This says nothing of who made it; only LINZ has to be named.
    "stac_items/stacchip_tests/naip_m_4207009_ne_19_060_20211024.json": set(SENSORS) - {"linz"},
}


@pytest.mark.parametrize(("name", "fitting"), MADE_BY.items())
def test_a_real_item_passes_for_the_sensors_that_may_have_made_it(
    shared_data: Path, name: str, fitting: set[str]
) -> None:
    found = [each.document for each in read_items(str(shared_data / name))]
    assert found
    for document in found:
        assert {key for key in SENSORS if _passes(document, key)} == fitting, document["id"]


def _passes(item: dict[str, Any], key: str) -> bool:
    try:
        check_origin(item, sensor(key), "item")
    except SourceError:
        return False
    return True


@pytest.mark.parametrize(
    ("said", "key", "passes"),
    [
        ({}, "naip", True),
        ({"platform": "aircraft", "instruments": ["Leica ADS100"]}, "naip", True),
        ({"platform": "aircraft"}, S2, True),  # an unknown name contradicts nothing
        ({"platform": "SENTINEL-2C"}, S2, True),
        ({"platform": "SENTINEL-2C"}, S1, False),
        ({"constellation": "Landsat", "platform": "LANDSAT_7"}, S2, False),
        ({"instruments": ["oli"]}, S2, False),
        ({"platform": "Terra", "instruments": ["modis"]}, "modis", True),
        ({"platform": "aqua"}, LANDSAT, False),
        ({"instruments": ["oli", "msi"], "constellation": "sentinel-2"}, S2, True),  # made of both
        ({"platform": "landsat-8", "landsat:correction": "L1TP"}, LANDSAT, False),
        ({"platform": "landsat-8", "landsat:correction": "L1TP"}, "landsat-c2l1", True),
        ({"platform": 8, "instruments": None}, S2, True),
    ],
)
def test_names_are_compared_however_they_are_written(said: dict[str, Any], key: str, passes: bool) -> None:
    assert _passes({"properties": said}, key) is passes


def test_the_wrong_sensor_is_one_error_that_names_the_item_and_the_way_out(make: Callable[..., object]) -> None:
    with pytest.raises(SourceError) as refused:
        make(SHORE, sensor="naip")
    said = str(refused.value)
    assert "item S2A_18SVG_20160112_0_L1C" in said
    assert "says constellation 'sentinel-2', which is not imagery of sensor naip" in said
    assert "Set `imagery.sensor` to sentinel-2-l1c" in said


def test_many_items_of_another_sensor_are_reported_once(make: Callable[..., object], shared_data: Path) -> None:
    items = shared_data / "stac_items" / "stac_geoparquet" / "100-sentinel-2-items.parquet"
    with pytest.raises(SourceError) as refused:
        make(items, sensor="sentinel-1-rtc")
    assert str(refused.value).count("Set `imagery.sensor` to") == 1
    assert "99 more are like it" in str(refused.value)


def test_pixels_of_another_size_are_worth_a_word(shared_data: Path) -> None:
    names = {
        "earth_search/sentinel-2-c1-l2a_S2A_T36MVD_20210414_stac1.1.json": S2,
        "planetary_computer/naip-pc.itemlist.json": "naip",  # of 0.3 m
    }
    for name, key in names.items():
        found = list(read_items(str(shared_data / "stac_items" / name)))
        items = [source_item(each.document, sensor(key), block=0, base=each.base) for each in found]
        assert size_note(items, sensor(key)) is None
        wrong = size_note(items, sensor("modis"))
        assert wrong is not None
        assert items[0].id in wrong
        assert "those of sensor modis 500 m" in wrong
