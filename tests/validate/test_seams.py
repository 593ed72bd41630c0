"""Lines between chips that were made apart from each other: what is a fault, and what the ground or the images show."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from affine import Affine
from breakage import Broken
from placed import SENSOR, ground, placed_item
from realistic import landsat_bands, radar_bands, write_item

from clay_publish.release.findings import Finding
from clay_publish.validate import SAMPLE
from clay_publish.validate.checks import check_release

from .conftest import complete

Field = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _findings(release: Broken) -> list[Finding]:
    report = check_release(release.release, only=("VEC013", "VEC024", "VEC025"), sample=SAMPLE)
    assert {code for code, state in report.checked.items() if state not in {"passed", "failed"}} <= {"VEC025"}
    return report.findings


def _lay(release: Broken, field: Field) -> None:
    """Give each chip the vector that a field has at its row and column, and a little noise."""
    draw = np.random.default_rng(3)
    for path in release.release.data_files():
        rows, cols = (release.table(path)[name].to_numpy().astype(float) for name in ("row", "col"))

        def laid(vectors: np.ndarray, rows: np.ndarray = rows, cols: np.ndarray = cols) -> np.ndarray:
            phase = np.arange(vectors.shape[1])
            values = field(rows[:, None], cols[:, None]) * np.cos(phase) + np.sin((rows[:, None] + phase) / 40)
            return (values + draw.normal(0, 0.02, vectors.shape)).astype(vectors.dtype)

        release.vectors(laid, path)


def _smooth(row: np.ndarray, col: np.ndarray) -> np.ndarray:
    return np.sin(row / 90) + np.cos(col / 70)


def _lake(row: np.ndarray, col: np.ndarray) -> np.ndarray:
    return 3.0 * ((row - 30) ** 2 + (col - 35) ** 2 < 150)


def _fields(row: np.ndarray, col: np.ndarray) -> np.ndarray:
    """Their edges are edges of runs of rows."""
    return 3.0 * ((row // 8 + col // 8) % 2)


@pytest.mark.parametrize(
    ("kind", "field"),
    [("large", _smooth), ("strips", _smooth), ("large", _lake), ("strips", _lake), ("large", _fields)],
)
def test_what_lies_on_the_ground_is_not_a_seam(kind: str, field: Field, broken: Callable[[str], Broken]) -> None:
    release = broken(kind)
    first = min(release.table(path)["row"].to_numpy().min() for path in release.release.data_files())
    left = min(release.table(path)["col"].to_numpy().min() for path in release.release.data_files())
    _lay(release, lambda row, col: field(row - first, col - left))
    assert _findings(release) == []


def test_fields_along_the_line_of_two_files_are_not_a_seam(broken: Callable[[str], Broken]) -> None:
    """Their eastern edge is the line, and every sixth column is another edge."""
    release = broken("strips")
    draw = np.random.default_rng(5).normal(0, 1, (10_000, 10_000))
    _lay(release, lambda row, col: draw[(row // 9).astype(int), ((col - 5_000) // 6).astype(int)])
    assert _findings(release) == []


def test_a_shifted_batch_is_named_by_file_and_row(broken: Callable[[str], Broken]) -> None:
    release = broken("strips")
    *_, last = release.release.data_files()

    def shifted(vectors: np.ndarray) -> np.ndarray:
        vectors = vectors.copy()
        vectors[1_000:1_300] += 2 * vectors.std(axis=0)
        return vectors

    release.vectors(shifted, last)
    (finding,) = _findings(release)
    assert (finding.code, finding.where) == ("VEC013", f"{last}: from about row 1000")
    assert finding.found.startswith("about 300 rows are shifted: neighbors differ ")


def test_a_file_that_differs_is_named_once(broken: Callable[[str], Broken]) -> None:
    release = broken("strips")
    first, second = release.release.data_files()
    release.vectors(lambda vectors: vectors[:, ::-1].copy(), second)
    (finding,) = _findings(release)
    assert finding.code == "VEC025"
    assert finding.where in {first, second}
    assert finding.expected == "0.80 to 1.25 times as much"


def test_rules_on_neighbors_say_how_many_chips_they_compared(
    broken: Callable[[str], Broken], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clay_publish.validate.data.scan.NEAR", 2_000)
    release = broken("strips")
    first, second = (len(release.table(path)) for path in release.release.data_files())
    report = check_release(release.release, only=("VEC013", "VEC024"), sample=SAMPLE)
    assert set(report.checked.values()) == {f"passed on {first:,} of {first + second:,} chips"}


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Broken]:
    """Releases of two images beside each other."""

    def made(name: str, **east: Any) -> Broken:
        folder = tmp_path_factory.mktemp(name)
        place = (folder, "EPSG:32618", 405_000, 4_110_400, (1920, 240))
        items = [
            placed_item(*place, name="west", columns=slice(0, 120)),
            placed_item(*place, name="east", columns=slice(120, 240), **east),
        ]
        return _made(folder, items, (404_440, 4_100_900, 405_560, 4_119_900))

    return made


def _made(folder: Path, items: list[Path], box: tuple[float, float, float, float]) -> Broken:
    spec = {
        "name": "beside",
        "version": "1.0.0",
        "imagery": {
            "stac": [str(item) for item in items],
            "sensor": SENSOR,
            "area": ground("EPSG:32618", box),
            "windows": ["2016-01-01/2016-02-01"],
        },
        "chips": {"layout": "utm", "size": 8},
        "outputs": {"codes": False, "explorer": False},
    }
    file = folder / "release.yaml"
    file.write_text(yaml.safe_dump(spec))
    return Broken(complete(file, folder / "1.0.0"))


def _shift(release: Broken, chosen: Callable[[Any], np.ndarray]) -> None:
    for path in release.release.data_files():
        mine = chosen(release.table(path))[:, None]
        release.vectors(lambda v, mine=mine: (v + 3 * mine * v.std(axis=0)).astype(v.dtype), path)


@pytest.mark.slow  # two releases of 3,500 chips
def test_images_of_one_acquisition_may_differ_a_little(beside: Callable[..., Broken]) -> None:
    release = beside("haze", values=(1.02, 30))
    assert _findings(release) == []
    _shift(release, lambda table: np.array([name.endswith("east") for name in table["item_id"].to_pylist()]))
    (finding,) = _findings(release)
    assert finding.code == "VEC025"
    assert finding.where.startswith("item ")
    assert finding.expected == "0.25 to 4.00 times as much"


@pytest.mark.slow
def test_images_of_two_days_may_differ(beside: Callable[..., Broken]) -> None:
    day = {"datetime": "2016-01-19T16:00:00Z", "s2:datatake_id": "another"}
    release = beside("days", values=(1, 2000), **day)
    assert _findings(release) == []


@pytest.mark.slow  # 7,800 chips
def test_edges_of_zones_do_not_show_unless_chips_differ(tmp_path: Path) -> None:
    x, y = 764_900, 4_165_000  # 72°W, between zones 18 and 19
    item = placed_item(tmp_path, "EPSG:32618", x, y, (3200, 160))
    release = _made(tmp_path, [item], (x - 700, y - 15_900, x + 700, y + 15_900))
    assert len({path.split("/")[1] for path in release.release.data_files()}) == 2
    assert _findings(release) == []
    _shift(release, lambda table: table["epsg"].to_numpy() == 32619)
    (finding,) = _findings(release)
    assert (finding.code, finding.where) == ("VEC025", "embeddings")
    assert "across edges of zones" in finding.found


_REAL: dict[str, tuple[str, str, str, float]] = {
    "landsat": ("landsat-c2l2-sr", "landsat-c2-l2", "EPSG:32655", 30),
    "radar": ("sentinel-1-rtc", "sentinel-1-rtc", "EPSG:32631", 10),
}
"""Sensor, items of Planetary Computer, CRS and size of the pixels."""


@pytest.mark.slow  # releases of 13,000 chips
@pytest.mark.parametrize("days", [1, 2])
@pytest.mark.parametrize("kind", _REAL)
def test_real_landsat_and_radar_have_no_finding(kind: str, days: int, shared_data: Path, tmp_path: Path) -> None:
    """Two images beside each other, of one acquisition or two, on both sides of two lines of squares."""
    key, collection, crs, side = _REAL[kind]
    if kind == "landsat":
        bands = landsat_bands(shared_data / "landsat8_c2l2_mini_001062_20201031", (1840, 480))
    else:
        bands = radar_bands(next((shared_data / "s1").glob("*.tif")), (1840, 480))
    first = json.loads((shared_data / f"stac_items/planetary_computer/{collection}-pc.itemlist.json").read_text())[0]
    month = first["properties"]["datetime"][:8]
    items = []
    for name, columns, day in (("west", slice(0, 240), None), ("east", slice(240, 480), f"{month}09T10:00:00Z")):
        document = copy.deepcopy(first)
        gain = np.float32(1)
        if days == 2 and day is not None:
            times = ("start_datetime", "end_datetime", "sat:absolute_orbit", "s1:datatake_id")
            document["properties"] = {k: v for k, v in first["properties"].items() if k not in times} | {
                "datetime": day
            }
            gain = np.float32(1.15)
        pixels = {band: (gain * values[:, columns]).astype(values.dtype) for band, values in bands.items()}
        transform = Affine(side, 0, 400_000 + (columns.start - 240) * side, 0, -side, 4_010_400)
        items.append(write_item(tmp_path, document, name, pixels, crs, transform))
    spec = {
        "name": "real",
        "version": "1.0.0",
        "imagery": {"stac": list(map(str, items)), "sensor": key, "windows": [f"{month}01/{month}28"]},
        "chips": {"layout": "utm", "size": 8},
        "outputs": {"codes": False, "explorer": False},
    }
    file = tmp_path / "release.yaml"
    file.write_text(yaml.safe_dump(spec))
    report = check_release(Broken(complete(file, tmp_path / "1.0.0")).release, only=("VEC", "PRV"), sample=SAMPLE)
    assert report.findings == []
    compared = {code: report.checked[code] for code in ("VEC013", "VEC024", "VEC025")}
    assert set(compared.values()) == {"passed"} or days == 2, compared  # edges of two days are not compared
