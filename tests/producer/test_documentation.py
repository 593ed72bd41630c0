"""The code of docs/new-sensor.md and docs/composites.md works."""

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from clay_publish.producer.imagery import composite
from clay_publish.producer.sources.stac_item import source_item
from clay_publish.spec.load import resolve_spec
from clay_publish.spec.models import Composite
from clay_publish.spec.sensors import SENSORS, parse_sensor

from .cloudy import cloudy
from .test_composite import S2, SIZE, read

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "imagery.md"
NEW_SENSOR = DOCUMENT.with_name("new-sensor.md")
COMPOSITES = DOCUMENT.with_name("composites.md")


def test_a_sensor_is_added_in_less_than_20_lines() -> None:
    (text,) = re.findall(r"```yaml\n(key:.*?)```", NEW_SENSOR.read_text(), flags=re.DOTALL)
    assert len(text.splitlines()) < 20
    aster = parse_sensor(yaml.safe_load(text), "docs/new-sensor.md")
    item = {
        "type": "Feature",
        "id": "a",
        "properties": {"datetime": "2020-01-01T00:00:00Z"},
        "assets": {f"VNIR_Band{n}": {"href": f"{n}.tif"} for n in ("1", "2", "3N")},
    }
    read = source_item(item, aster, block=0, base=None)
    assert [file.asset for file in read.bands] == ["VNIR_Band1", "VNIR_Band2", "VNIR_Band3N"]


@pytest.fixture
def reductions(monkeypatch: pytest.MonkeyPatch) -> dict[str, composite.Reduction]:
    """Those of docs/composites.md, registered as it says."""
    (code,) = re.findall(r"```python\n(.*?)```", COMPOSITES.read_text(encoding="utf-8"), re.DOTALL)
    assert len(code.strip().splitlines()) < 20
    registered = dict(composite.REDUCTIONS)
    monkeypatch.setattr(composite, "REDUCTIONS", registered)
    exec(compile(code, str(COMPOSITES), "exec"), {})  # noqa: S102 - our own documentation
    return registered


@pytest.mark.slow
def test_reductions_of_the_documentation(
    reductions: dict[str, composite.Reduction], shared_data: Path, tmp_path: Path
) -> None:
    scene = shared_data / "s2_l1c_T18SVG_20160112" / "item.json"
    scenes = cloudy(tmp_path, scene, dates=6, cover=0.3, tiles=False, offset=False)
    std = np.array([band.std for band in S2.bands])[:, None, None]
    mean = np.array([band.mean for band in S2.bands])[:, None, None]
    for method in sorted(reductions):
        count = 0
        for block in read(scenes, {"method": method, "images": 6, "min_valid": 3}, chips={"max_nodata": 0.5}):
            for place, n in enumerate(n for n, reason in enumerate(block.reasons) if reason is None):
                window = scenes.window(int(block.rows[n]), int(block.cols[n]), SIZE)
                clear = np.stack([date.clear[window] for date in scenes.dates])
                enough = clear.sum(axis=0) >= 3
                found = (block.pixels[place] * std + mean)[:, enough]
                seen = np.stack([date.values[(slice(None), *window)] for date in scenes.dates]).astype(float)
                seen = np.where(clear[:, None], seen, np.nan)[:, :, enough]
                if method == "x-p25":
                    some = np.s_[:, ::97]  # numpy takes long for percentiles among NaN
                    lower = np.nanpercentile(seen[:, *some], 25, axis=0, method="lower")
                    np.testing.assert_allclose(found[some], lower, atol=0.1)
                else:  # three unknowns of at least three values; noise of 60 either way, haze of 300
                    truth = scenes.truth[(slice(None), *window)][:, enough]
                    assert np.median(np.abs(found - truth)) < 150
                count += 1
        assert count > 5


def test_recipes_are_specs(tmp_path: Path) -> None:
    recipes = re.findall(r"```yaml\n(name:.*?)```", COMPOSITES.read_text(encoding="utf-8"), re.DOTALL)
    assert len(recipes) == 2
    for recipe in recipes:
        spec = resolve_spec(yaml.safe_load(recipe), where="docs", folder=tmp_path)
        assert spec.combines
        assert spec.imagery[0].composite == Composite(method="median", images=16, min_valid=4)


@pytest.mark.parametrize("key", SENSORS)
def test_the_table_of_sensors_names_them(key: str) -> None:
    assert f"`{key}`" in DOCUMENT.read_text()
