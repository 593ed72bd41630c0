"""The code of docs/imagery.md works."""

import re
from pathlib import Path

import pytest
import yaml

from clay_publish.producer.sources.stac_item import source_item
from clay_publish.spec.sensors import SENSORS, parse_sensor

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "imagery.md"


def test_a_sensor_is_added_in_less_than_20_lines() -> None:
    (text,) = re.findall(r"```yaml\n(key:.*?)```", DOCUMENT.read_text(), flags=re.DOTALL)
    assert len(text.splitlines()) < 20
    aster = parse_sensor(yaml.safe_load(text), "docs/imagery.md")
    item = {
        "type": "Feature",
        "id": "a",
        "properties": {"datetime": "2020-01-01T00:00:00Z"},
        "assets": {f"VNIR_Band{n}": {"href": f"{n}.tif"} for n in ("1", "2", "3N")},
    }
    read = source_item(item, aster, block=0, base=None)
    assert [file.asset for file in read.bands] == ["VNIR_Band1", "VNIR_Band2", "VNIR_Band3N"]


@pytest.mark.parametrize("key", SENSORS)
def test_the_table_of_sensors_names_them(key: str) -> None:
    assert f"`{key}`" in DOCUMENT.read_text()
