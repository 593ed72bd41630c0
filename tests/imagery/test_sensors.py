"""Sensor definitions: Clay's published statistics are pinned, and every file states where its own come from."""

import json
from pathlib import Path

import pytest

from clay_publish.errors import SpecError
from clay_publish.spec.sensors import SENSORS, parse_sensor

SAME_VALUES = {
    "sentinel-2-l1c": "sentinel-2-l2a",
    "sentinel-2-rgbnir": "sentinel-2-l2a",
    "hls-s30": "sentinel-2-l2a",
    "planetscope-4b-sr": "planetscope-sr",
    "aerial-rgb": "linz",
    "aerial-rgbn": "naip",
}
"""Sensors that Clay does not know, and the one whose values they take."""


@pytest.fixture(scope="module")
def published(shared_data: Path) -> dict[str, dict[str, list[float]]]:
    """Sensor → band → mean, standard deviation and wavelength."""
    found: dict[str, dict[str, list[float]]] = json.loads((shared_data / "clay_statistics.json").read_text())
    return found


def test_clays_sensors_have_its_published_statistics(published: dict[str, dict[str, list[float]]]) -> None:
    for key, bands in published.items():
        sensor = SENSORS[key]
        assert [band.name for band in sensor.bands] == list(bands)
        assert {band.name: [band.mean, band.std, band.wavelength] for band in sensor.bands} == bands
        assert sensor.statistics.source.startswith("Clay v1.5")
        assert not sensor.statistics.computed


def test_other_sensors_have_the_values_that_they_cite(published: dict[str, dict[str, list[float]]]) -> None:
    assert SENSORS.keys() == {*published, *SAME_VALUES, "hls-l30"}
    for key, other in SAME_VALUES.items():
        source = SENSORS[key].statistics.source
        assert other in source
        for band in SENSORS[key].bands:
            assert [band.mean, band.std, band.wavelength] == published[other][band.name]


def test_hls_l30_is_landsat_in_another_unit(published: dict[str, dict[str, list[float]]]) -> None:
    sensor = SENSORS["hls-l30"]
    assert sensor.statistics.computed
    for band in sensor.bands:
        mean, std, wavelength = published["landsat-c2l2-sr"][band.name]
        assert band.mean == pytest.approx((mean * 2.75e-5 - 0.2) * 10_000, abs=0.01)
        assert band.std == pytest.approx(std * 2.75e-5 * 10_000, abs=0.01)
        assert band.wavelength == wavelength


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bnads": []}, "bnads: is an unknown key"),
        ({"rgb": ["red", "green", "infrared"]}, "rgb names band 'infrared'"),
        ({"masks": [{"assets": ["m"], "cloudy": [1], "bands": [0]}]}, "masks.0.bands.0"),
        ({"missions": 3}, "missions"),
        ({"level": {"name": "a", "signs": ["("]}}, "not a regular expression"),
        ({"offset_from_baseline": 4.0, "other_offsets": []}, "offset_from_baseline needs other_offsets"),
    ],
)
def test_a_wrong_definition_names_the_key(change: dict[str, object], said: str) -> None:
    document = {**SENSORS["naip"].model_dump(mode="json", exclude_defaults=True), **change}
    with pytest.raises(SpecError, match=said.replace("(", r"\(")):
        parse_sensor(document, "mine.yaml")
