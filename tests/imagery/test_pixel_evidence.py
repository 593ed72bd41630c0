"""Samples of pixels: what is left out, what is a warning, and what no real scene is."""

import json
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

from clay_publish.producer.imagery import pixel_evidence
from clay_publish.producer.imagery.pixel_evidence import Evidence, EvidenceIndex, evidence_path, examine, recorded
from clay_publish.producer.sources.stac_item import source_item
from clay_publish.release.directory import Release
from clay_publish.spec.sensors import SENSORS
from clay_publish.storage.local import Directory

TEN = ("blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir08", "swir16", "swir22")
Pixels = np.ndarray[Any, Any]


def weigh(folder: Path, sensor: str, bands: dict[str, Pixels], *, accept: bool = False, **said: Any) -> Evidence:
    """The evidence of an item of one file a band."""
    for name, values in bands.items():
        profile = {"driver": "GTiff", "count": 1, "height": values.shape[0], "width": values.shape[1]}
        transform = Affine(10, 0, 500_000, 0, -10, 4_000_000)
        with rasterio.open(
            folder / f"{name}.tif", "w", dtype=values.dtype, crs="EPSG:32618", transform=transform, **profile
        ) as file:
            file.write(values, 1)
    item = {
        "type": "Feature",
        "id": "a",
        "properties": {"datetime": "2023-01-03T15:50:00Z", **said},
        "assets": {name: {"href": str(folder / f"{name}.tif")} for name in bands},
    }
    instrument = SENSORS[sensor]
    return examine(source_item(item, instrument, block=0, base=None), instrument, accept=accept).evidence


def scene(shared_data: Path) -> dict[str, Pixels]:
    """A real land scene, 128 × 128 pixels of each band."""
    found = {}
    folder = shared_data / "s2_l2a_mini_29RKH_20200219"
    for asset, band in zip(("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12"), TEN, strict=True):
        with rasterio.open(folder / f"{asset}.tif") as file:
            values = file.read(1)
        found[band] = np.where(values[:128, :128] == 0, 1500, values[:128, :128])
    return found


def each(change: Callable[[Pixels], Pixels], bands: dict[str, Pixels]) -> dict[str, Pixels]:
    return {name: change(values) for name, values in bands.items()}


WRONG: dict[str, tuple[Callable[[Pixels], Pixels], str]] = {
    "multiplied by 1,000": (lambda v: (v.astype(np.float64) * 1000).astype(np.float32), "multiplied"),
    "multiplied by 10": (lambda v: (v.astype(np.uint32) * 10).clip(0, 65535).astype(np.uint16), "multiplied"),
    "reflectance × 1,000": (lambda v: (v // 10).astype(np.uint16), "smaller scale"),
    "reflectance": (lambda v: (v / 10_000).astype(np.float32), "reflectance from 0 to 1"),
    "a picture": (lambda v: (v / 40).clip(0, 255).astype(np.uint8), "picture"),
    "1e38": (lambda v: np.where(np.arange(v.shape[1]) < 30, np.float32(1e38), v).astype(np.float32), "unmarked nodata"),
    "-9999": (lambda v: np.where(np.arange(v.shape[1]) < 30, -9999, v).astype(np.int16), "unmarked nodata"),
}


@pytest.mark.parametrize("name", WRONG)
def test_clearly_wrong_values_are_left_out(shared_data: Path, tmp_path: Path, name: str) -> None:
    change, said = WRONG[name]
    bands = each(change, scene(shared_data))
    found = weigh(tmp_path, "sentinel-2-l2a", bands)
    assert found.status == "implausible"
    assert said in found.sentences[0]
    assert "imagery.accept_values" in found.sentences[0]
    assert weigh(tmp_path, "sentinel-2-l2a", bands, accept=True).status == "ambiguous"


def test_one_band_in_another_unit_is_left_out(shared_data: Path, tmp_path: Path) -> None:
    bands = scene(shared_data)
    bands["red"] = (bands["red"] / 10_000).astype(np.float32)
    found = weigh(tmp_path, "sentinel-2-l2a", bands)
    assert found.status == "implausible"
    assert "band red has real numbers up to" in found.sentences[0]


def test_an_alpha_band_is_not_near_infrared(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    bands = {name: random.integers(20, 255, (64, 64)).astype(np.uint8) for name in ("red", "green", "blue", "nir")}
    assert weigh(tmp_path, "aerial-rgbn", bands).status == "plausible"
    bands["nir"] = np.where(np.arange(64) < 9, 0, np.full((64, 64), 255)).astype(np.uint8)
    found = weigh(tmp_path, "aerial-rgbn", bands)
    assert found.status == "implausible"
    assert "looks like an alpha band" in found.sentences[0]


def test_a_few_pixels_of_unmarked_nodata_are_noticed(shared_data: Path, tmp_path: Path) -> None:
    bands = each(lambda v: v.astype(np.int16), scene(shared_data))
    bands["red"][0, :3] = -9999
    assert "which looks like unmarked nodata" in weigh(tmp_path, "sentinel-2-l2a", bands).sentences[0]
    radar = {name: np.full((64, 64), 0.05, dtype=np.float32) for name in ("vv", "vh")}
    radar["vh"][0, :3] = -9999
    assert "State nodata in the file" in weigh(tmp_path, "sentinel-1-rtc", radar).sentences[0]


def test_the_darkest_pixels_after_an_offset_are_no_reason_to_leave_an_image_out(
    shared_data: Path, tmp_path: Path
) -> None:
    """Sen2Cor gives 1 to pixels darker than it can say: -999 once the offset is taken off."""
    bands = {name: values.astype(np.int16) for name, values in scene(shared_data).items()}
    bands["red"][0, :3] = -999
    evidence = weigh(tmp_path, "sentinel-2-l2a", bands, **{"s2:boa_offset_applied": True})
    assert evidence.status == "ambiguous"
    assert "band red has the value -999: it may be unmarked nodata" in evidence.sentences[0]


def test_an_offset_in_the_tags_of_one_band_is_not_for_it_alone(shared_data: Path, tmp_path: Path) -> None:
    bands = scene(shared_data)
    weigh(tmp_path, "sentinel-2-l2a", bands)
    with rasterio.open(tmp_path / "blue.tif", "r+") as file:
        file.scales, file.offsets = (0.0001,), (-0.1,)
    assets = {name: {"href": str(tmp_path / f"{name}.tif")} for name in bands}
    item = {"type": "Feature", "id": "a", "properties": {"datetime": "2023-01-03T15:50:00Z"}, "assets": assets}
    instrument = SENSORS["sentinel-2-l2a"]
    found = examine(source_item(item, instrument, block=0, base=None), instrument, accept=False).evidence
    assert found.status == "implausible"
    assert "for blue, and none for green" in found.sentences[0]


SIX = ("red", "green", "blue", "nir08", "swir16", "swir22")


def test_collection_1_is_not_collection_2(shared_data: Path, tmp_path: Path) -> None:
    bands = {name: scene(shared_data)[name] for name in SIX}  # reflectance × 10,000
    found = weigh(tmp_path, "landsat-c2l2-sr", bands)
    assert found.status == "implausible"
    assert "median reflectance would be -0.1" in found.sentences[0]
    second = each(lambda v: ((v / 10_000 + 0.2) / 2.75e-5).astype(np.uint16), bands)
    assert weigh(tmp_path, "landsat-c2l2-sr", second).status == "plausible"
    dark = each(lambda v: np.full_like(v, 7000) + (v % 90).astype(v.dtype), bands)  # water, slightly below zero
    assert weigh(tmp_path, "landsat-c2l2-sr", dark).status == "plausible"


def test_real_values_are_plausible(shared_data: Path, tmp_path: Path) -> None:
    found = weigh(tmp_path, "sentinel-2-l2a", scene(shared_data), **{"s2:processing_baseline": "02.14"})
    assert (found.status, found.sentences) == ("plausible", [])


def test_water_and_night_are_plausible(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    water = {n: random.integers(20, 400 - 35 * k, (128, 128)).astype(np.uint16) for k, n in enumerate(TEN)}
    assert weigh(tmp_path, "sentinel-2-l2a", water).status == "plausible"
    night = {n: random.integers(1, 8, (128, 128)).astype(np.uint16) for n in TEN}
    assert weigh(tmp_path, "sentinel-2-l2a", night).status == "plausible"
    snow = {n: random.integers(9000, 15000, (128, 128)).astype(np.uint16) for n in TEN}
    assert weigh(tmp_path, "sentinel-2-l2a", snow, **{"s2:processing_baseline": "02.14"}).status == "plausible"


def test_an_offset_taken_off_twice_is_a_warning(shared_data: Path, tmp_path: Path) -> None:
    dark = each(lambda v: (v // 3 + 1).astype(np.uint16), scene(shared_data))
    found = weigh(tmp_path, "sentinel-2-l2a", dark, **{"s2:processing_baseline": "05.09"})
    assert found.status == "ambiguous"
    assert "may have been applied before" in found.sentences[0]


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        (lambda power: power, "plausible", ""),
        (lambda power: 10 * np.log10(power), "implausible", "decibels"),
        (lambda power: np.sqrt(power) * 600, "implausible", "GRD"),
        (np.sqrt, "ambiguous", "amplitude"),
    ],
)
def test_radar_is_linear_power(tmp_path: Path, change: Callable[[Pixels], Pixels], status: str, said: str) -> None:
    random = np.random.default_rng(0)
    power = {"vv": random.gamma(4, 0.1 / 4, (128, 128)), "vh": random.gamma(4, 0.02 / 4, (128, 128))}
    found = weigh(tmp_path, "sentinel-1-rtc", each(lambda v: change(v).astype(np.float32), power))
    assert found.status == status
    assert said in " ".join(found.sentences)


def test_evidence_is_kept_once(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "s2_l2a_mini_29RKH_20200219" / "item.json"
    sensor = SENSORS["sentinel-2-l2a"]
    item = source_item(json.loads(path.read_text()), sensor, block=0, base=str(path))
    release = Release(str(tmp_path / "release"))
    first = examine(item, sensor, accept=False, release=release)
    (kept,) = release.store.files(".run/evidence")
    document = release.json(kept)
    assert [band["name"] for band in document["bands"]] == list(TEN)
    assert examine(item, sensor, accept=False, release=release) == first


def test_images_that_evidence_is_kept_of_are_found(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shared_data / "s2_l2a_mini_29RKH_20200219" / "item.json"
    sensor, release = SENSORS["sentinel-2-l2a"], Release(str(tmp_path / "release"))
    item = source_item(json.loads(path.read_text()), sensor, block=0, base=str(path))
    assert item not in EvidenceIndex(release)
    first = examine(item, sensor, accept=False, release=release)
    others = [item.changed(id=f"{number}") for number in range(100)]
    for other in others[::2]:
        release.store.write(evidence_path(other), release.store.read(evidence_path(item)))
    release.store.write(f"{pixel_evidence.FOLDER}/README", b"left by a person")
    index = EvidenceIndex(release)
    assert item in index
    assert [other in index for other in others] == [True, False] * 50
    assert recorded(item, sensor, accept=False, release=release) == first
    # Of two names that begin alike, one is there.
    release.store.write(f"{evidence_path(others[1]).removesuffix('.json')[:-16]}{'0' * 16}.json", b"{}")
    monkeypatch.setattr(pixel_evidence, "take_samples", None)
    assert others[1] in EvidenceIndex(release)
    assert recorded(others[1], sensor, accept=False, release=release) is None


def test_names_of_kept_evidence_take_few_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 20_000

    def files(_: Directory, folder: str) -> Iterator[str]:
        return (f"{folder}/{n:032x}.json" for n in range(count))

    monkeypatch.setattr(Directory, "files", files)
    release = Release(str(tmp_path))
    EvidenceIndex(release)
    tracemalloc.start()
    try:
        EvidenceIndex(release)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 30 * count  # 8 bytes each, while an array grows; a path takes 100
