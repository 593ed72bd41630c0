"""The code of docs/imagery.md works."""

import re
from pathlib import Path

import pytest

from clay_publish.producer.sources.stac_item import source_item
from clay_publish.spec.sensors import SENSORS

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "imagery.md"


def test_a_sensor_is_added_in_less_than_20_lines() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), flags=re.DOTALL)
    assert len(code.splitlines()) < 20
    names: dict[str, object] = {}
    exec(code, names)  # noqa: S102 - our own documentation
    item = {
        "type": "Feature",
        "id": "a",
        "properties": {"datetime": "2020-01-01T00:00:00Z"},
        "assets": {f"VNIR_Band{n}": {"href": f"{n}.tif"} for n in ("1", "2", "3N")},
    }
    read = source_item(item, names["aster"], block=0, base=None)  # type: ignore[arg-type]
    assert [file.asset for file in read.bands] == ["VNIR_Band1", "VNIR_Band2", "VNIR_Band3N"]


@pytest.mark.parametrize("key", SENSORS)
def test_the_table_of_sensors_names_them(key: str) -> None:
    assert f"`{key}`" in DOCUMENT.read_text()
