"""Every real item at hand, read for every sensor: which take it, with which bands, offset and mask.

`sweep.json` holds the expected outcome of each file. `python tests/imagery/test_sweep.py` writes it again after a
change of the rules, for `git diff` to show what has changed.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from clay_publish.errors import SourceError
from clay_publish.producer.sources.reader import read_items
from clay_publish.producer.sources.stac_item import source_item
from clay_publish.spec.sensors import SENSORS

TABLE = Path(__file__).parent / "sweep.json"
EXPECTED: dict[str, dict[str, Any]] = json.loads(TABLE.read_text())
FOLDERS = ("data/stac_items", "wild/items")
SHARED = Path(os.environ.get("CLAY_PUBLISH_WILD_DATA", Path(__file__).resolve().parents[3] / "shared"))


def outcome(path: Path) -> dict[str, Any]:
    """By sensor that takes all items of a file: bands, shift and mask, each once."""
    found = list(read_items(str(path)))
    taken: dict[str, Any] = {}
    for key, sensor in SENSORS.items():
        try:
            items = [
                source_item(each.document, sensor, block=0, base=each.base, collection=each.collection)
                for each in found
            ]
        except SourceError:
            continue
        bands = {" ".join(f.asset if f.index is None else f"{f.asset}#{f.index}" for f in i.bands) for i in items}
        taken[key] = {
            "bands": sorted(bands),
            "shift": sorted({band.to_input(sensor)[1] for item in items for band in item.resolved}),
            "mask": sorted({item.mask.asset if item.mask else "-" for item in items}),
        }
    return taken


@pytest.mark.parametrize("name", EXPECTED)
def test_a_real_item_is_taken_by_its_sensor_alone(name: str) -> None:
    path = SHARED / name
    if not path.is_file():
        pytest.skip(f"{path} is not here; CLAY_PUBLISH_WILD_DATA names another place")
    assert outcome(path) == EXPECTED[name]


def real_items() -> list[str]:
    """Files with items, below `SHARED`."""
    found = (
        path for folder in FOLDERS for path in (SHARED / folder).rglob("*") if path.suffix in {".json", ".parquet"}
    )
    return sorted(str(path.relative_to(SHARED)) for path in found)


def test_every_real_item_has_an_expected_outcome() -> None:
    if not real_items():
        pytest.skip(f"{SHARED} holds no items; CLAY_PUBLISH_WILD_DATA names another place")
    assert sorted(EXPECTED) == real_items()


if __name__ == "__main__":
    TABLE.write_text(json.dumps({name: outcome(SHARED / name) for name in real_items()}, indent=1) + "\n")
