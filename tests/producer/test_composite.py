"""Composites: real pixels under synthetic clouds, against numpy, to the last bit."""

import json
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
import yaml
from rasterio.windows import Window as Pixels

from clay_publish.errors import ReleaseError, SpecError
from clay_publish.producer.imagery import composite
from clay_publish.producer.imagery.chips import ChipBlock, Reading
from clay_publish.producer.layouts import layout_of
from clay_publish.producer.produce import produce
from clay_publish.producer.sources.selection import Considered
from clay_publish.producer.sources.stac_item import source_item
from clay_publish.release.directory import Release
from clay_publish.spec.load import load_spec, resolve_spec
from clay_publish.spec.models import Composite
from clay_publish.spec.sensors import sensor
from clay_publish.windows import Window

from .cloudy import CLOUD, YEAR, Cloudy, Date, cloudy
from .conftest import Made
from .processes import start

S2 = sensor("sentinel-2-l2a")
SIZE = 64
WHOLE = Window.parse(YEAR)


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Cloudy:
    """Eight dates, each 60 % under cloud."""
    return cloudy(tmp_path_factory.mktemp("cloudy"), shared_data / "s2_l1c_T18SVG_20160112" / "item.json")


def read(scenes: Cloudy, composite: dict[str, Any] | None, **spec: Any) -> list[ChipBlock]:
    """Blocks of chips as the producer reads them."""
    imagery = {"stac": str(scenes.items[0]), "sensor": S2.key, "windows": [YEAR], "composite": composite}
    chips = {"size": SIZE, "max_nodata": 1, **spec.pop("chips", {})}
    made = resolve_spec({"name": "test", "imagery": imagery, "chips": chips, **spec}, where="spec", folder=Path())
    items = [source_item(json.loads(p.read_text()), S2, block=0, base=str(p)) for p in scenes.items]
    units = layout_of(made, S2).units([Considered(item, "used") for item in items], [None], {})
    bands = tuple(band.statistics for band in S2.bands)
    reading = Reading(S2, bands, made.chips, 2, composite=made.imagery[0].composite, steps=made.model.steps)
    return [block for unit in units for block in unit.read(reading)]


def chosen(scenes: Cloudy, window: tuple[slice, slice], most: int, period: Window = WHOLE) -> list[Date]:
    """The best dates of a cell, by the rule of the documentation."""
    middle = period.middle

    def rank(date: Date) -> tuple[float, float, str]:
        return 1 - float(date.clear[window].mean()), abs((date.moment - middle).total_seconds()), date.id

    seen = [date for date in scenes.dates if date.clear[window].any()]
    return sorted(seen, key=rank)[:most]


def expected(
    scenes: Cloudy, window: tuple[slice, slice], *, method: str, most: int, least: int, period: Window = WHOLE
) -> np.ndarray:
    """The composite of a cell in numpy."""
    dates = chosen(scenes, window, most, period)
    stack = np.stack(
        [np.where(d.clear[window], d.values[(slice(None), *window)].astype(np.float32), np.nan) for d in dates]
    )
    stack = np.nan_to_num(stack, nan=np.nan).astype(np.float32)
    enough = np.stack([d.clear[window] for d in dates]).sum(axis=0) >= least
    filled = np.where(enough, stack, np.float32(0))  # numpy warns of stacks that are all NaN
    if method == "median":
        made = np.nanmedian(filled, axis=0)
    else:
        made = np.nanmean(filled.astype(np.float64), axis=0).astype(np.float32)
    mean = np.array([band.mean for band in S2.bands], np.float32)[:, None, None]
    std = np.array([band.std for band in S2.bands], np.float32)[:, None, None]
    return np.where(enough, (made - mean) / std, np.float32(0))


LATER = partial(pytest.param, marks=pytest.mark.slow)
"""A release more, by the same formula."""


@pytest.mark.parametrize(
    ("most", "least", "method"),
    [
        (5, 3, "median"),
        (16, 4, "mean"),
        LATER(8, 1, "median"),
        LATER(8, 1, "mean"),
        LATER(5, 3, "mean"),
        LATER(16, 4, "median"),
    ],
)
def test_composite_equals_numpy_to_the_last_bit(year: Cloudy, method: str, most: int, least: int) -> None:
    blocks = read(year, {"method": method, "images": most, "min_valid": least})
    count = 0
    for block in blocks:
        made = [n for n, reason in enumerate(block.reasons) if reason is None]
        assert block.combined is not None
        for place, n in enumerate(made):
            window = year.window(int(block.rows[n]), int(block.cols[n]), SIZE)
            found = expected(year, window, method=method, most=most, least=least)
            np.testing.assert_array_equal(block.pixels[place], found)
            dates = chosen(year, window, most)
            clear = np.stack([date.clear[window] for date in dates]).sum(axis=0)
            combined = block.combined[n]
            assert combined is not None
            assert combined.images == len(dates)
            assert combined.observations == (clear[clear >= least].min(), np.median(clear[clear >= least]))
            assert (combined.start, combined.end) == (min(d.moment for d in dates), max(d.moment for d in dates))
            assert block.valid_fraction[n] == pytest.approx((clear >= least).mean())
            count += 1
    assert count >= 10


CHIPS = {"layout": "utm", "size": SIZE}


def asked(method: str = "median", **more: Any) -> dict[str, Any]:
    return {"windows": [YEAR], "composite": {"method": method, **more}}


@pytest.fixture(scope="module")
def composites(year: Cloudy, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A release of composites of all dates."""
    folder = tmp_path_factory.mktemp("composites")
    return made_of(folder, year.items, imagery=asked(images=8, min_valid=2), outputs={"aggregate": [2]})


def made_of(folder: Path, items: list[Path], **spec: Any) -> Made:
    imagery = {"stac": [str(item) for item in items], "sensor": S2.key, **spec.pop("imagery", {})}
    document = {"name": "test", "imagery": imagery, "chips": CHIPS, **spec}
    (folder / "release.yaml").write_text(yaml.safe_dump(document))
    release = Release(str(folder / "release"))
    record = produce(load_spec(folder / "release.yaml"), release)
    rows = [
        row for path in release.data_files("coverage") for row in pq.read_table(release.store.path(path)).to_pylist()
    ]
    return Made(release, record.coverage, rows)


def test_a_composite_covers_what_is_coverable(year: Cloudy, composites: Made) -> None:
    """Each date is 60 % under cloud, and no chip of any of them would do."""
    least, counts = 2, {"embedded": 0, "too_few_images": 0}
    for row in composites.coverage:
        window = year.window(row["row"], row["col"], SIZE)
        clear = np.stack([date.clear[window] for date in year.dates]).sum(axis=0)
        reason = None if (clear >= least).mean() >= 0.9 else "too_few_images"
        assert row["reason"] == reason, row
        counts[reason or "embedded"] += 1
    assert counts["embedded"] > counts["too_few_images"] > 0
    assert composites.counts["expected"] == sum(counts.values())


def test_cells_without_a_pixel_say_why(shared_data: Path, tmp_path: Path) -> None:
    """Beyond the images there is no imagery; where every image is blank, no data."""
    scenes = cloudy(
        tmp_path, shared_data / "s2_l1c_T18SVG_20160112" / "item.json", dates=2, cover=0.1, tiles=False, offset=False
    )
    for item in scenes.items:
        for path, side in ((item.with_suffix(".tif"), 200), (item.with_name(f"{item.stem}_scl.tif"), 100)):
            with rasterio.open(path, "r+") as file:
                file.write(np.zeros((file.count, side, side), file.dtypes[0]), window=Pixels(0, 0, side, side))
    west, south, east, north = json.loads(scenes.items[0].read_text())["bbox"]
    area = [west - 0.02, south, east, north]
    made = made_of(tmp_path, scenes.items, imagery={**asked(images=2), "area": area})
    reasons = {(row["row"], row["col"]): row["reason"] for row in made.coverage}
    inside = 0
    for (row, col), reason in reasons.items():
        rows, cols = scenes.window(row, col, SIZE)
        if cols.stop <= 0:
            assert reason == "no_imagery"
        elif rows.start >= 0 and cols.start >= 0 and rows.stop <= 200 and cols.stop <= 200:
            assert reason == "nodata"
            inside += 1
    assert inside > 0
    assert list(reasons.values()).count("no_imagery") > 0 < made.counts["embedded"]


def test_newer_processing_decides(shared_data: Path, tmp_path: Path) -> None:
    """Of two processings of one acquisition, what the newer calls cloud is not seen by the older."""
    scenes = cloudy(
        tmp_path, shared_data / "s2_l1c_T18SVG_20160112" / "item.json", dates=3, cover=0.1, tiles=False, offset=False
    )
    old = scenes.items[0]
    item = json.loads(old.read_text())
    new = old.with_name(f"{old.stem}_1.json")
    item["id"] = new.stem
    for asset in item["assets"].values():
        name = asset["href"].replace(old.stem, new.stem)
        shutil.copy(tmp_path / asset["href"], tmp_path / name)
        asset["href"] = name
    with rasterio.open(tmp_path / item["assets"]["scl"]["href"], "r+") as file:
        file.write(np.full(file.shape, CLOUD, np.uint8), 1)
    new.write_text(json.dumps(item))
    scenes.dates[0].scl[:] = CLOUD
    scenes.dates[0].items.append(new)
    count = 0
    for block in read(scenes, {"method": "median", "images": 3, "min_valid": 1}):
        for place, n in enumerate(n for n, reason in enumerate(block.reasons) if reason is None):
            window = scenes.window(int(block.rows[n]), int(block.cols[n]), SIZE)
            found = expected(scenes, window, method="median", most=3, least=1)
            np.testing.assert_array_equal(block.pixels[place], found)
            count += 1
    assert count > 10


def test_registered_reductions_get_all_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that chooses an image per pixel would mix the spectra of several, were it called for some bands at a time."""
    monkeypatch.setitem(composite.REDUCTIONS, "x-first", lambda stack, _: stack[0])
    asked = Composite(method="x-first", images=16, min_valid=1)
    side = composite.superblock_side(1200, 64, 10, asked, None)
    assert composite.bands_at_once(side, 10, asked) == 10
    assert 4 * side**2 * 10 * 16 <= composite.MEMORY
    assert composite.bands_at_once(1200, 10, asked.model_copy(update={"method": "median"})) < 10


def test_rows_tell_their_images(year: Cloudy, composites: Made) -> None:
    middle = Window.parse(YEAR).middle
    acquisitions = {item.stem: date for date in year.dates for item in date.items}
    twice = 0
    for row in composites.embeddings.to_pylist():
        window = year.window(row["row"], row["col"], SIZE)
        dates = [date for date in year.dates if date.clear[window].any()]
        assert {acquisitions[name].id for name in row["item_ids"]} == {date.id for date in dates}
        assert row["images"] == len(dates) <= len(row["item_ids"])
        twice += row["images"] < len(row["item_ids"])
        moments = [date.moment for date in dates]
        assert (row["start_datetime"], row["end_datetime"]) == (min(moments), max(moments))
        assert row["datetime"] == min(moments) + (max(moments) - min(moments)) / 2
        assert abs(acquisitions[row["item_id"]].moment - middle) == min(abs(moment - middle) for moment in moments)
    assert twice, "a chip of both tiles of one acquisition"


def test_aggregates_count_each_acquisition_once(year: Cloudy, composites: Made) -> None:
    acquisitions = {item.stem: date.id for date in year.dates for item in date.items}
    (path,) = composites.release.data_files("aggregates")
    blocks = pq.read_table(composites.release.store.path(path)).to_pylist()
    chips = composites.embeddings.to_pylist()
    assert len(blocks) == 2
    for block in blocks:
        mine = [chip for chip in chips if (chip["row"] // 2, chip["col"] // 2) == (block["row"], block["col"])]
        assert len(mine) == 4
        names = {name for chip in mine for name in chip["item_ids"]}
        assert block["item_ids"] == sorted(names)
        assert block["images"] == len({acquisitions[name] for name in names})
        assert block["observations_min"] == min(chip["observations_min"] for chip in mine)
        assert block["observations_median"] == np.median([chip["observations_median"] for chip in mine])
        assert block["start_datetime"] == min(chip["start_datetime"] for chip in mine)
        assert block["end_datetime"] == max(chip["end_datetime"] for chip in mine)


def test_a_composite_is_nearer_to_the_clear_scene_than_its_best_image(
    year: Cloudy, composites: Made, shared_data: Path, tmp_path: Path
) -> None:
    scene = shared_data / "s2_l1c_T18SVG_20160112" / "item.json"
    for name in ("clear", "single"):
        (tmp_path / name).mkdir()
    clear = made_of(tmp_path / "clear", cloudy(tmp_path / "clear", scene, dates=1, cover=0, noise=0).items)
    loose = {**CHIPS, "max_cloud": 1, "max_nodata": 1}
    single = made_of(tmp_path / "single", year.items, imagery={"windows": [YEAR]}, chips=loose)

    def vectors(made: Made) -> dict[tuple[int, int], np.ndarray]:
        return {(row["row"], row["col"]): np.array(row["embedding"]) for row in made.embeddings.to_pylist()}

    truth, of_one, of_many = vectors(clear), vectors(single), vectors(composites)
    shared = truth.keys() & of_one.keys() & of_many.keys()

    def far(found: dict[tuple[int, int], np.ndarray]) -> np.ndarray:
        return np.array(
            [np.linalg.norm(found[key] - truth[key]) / np.linalg.norm(truth[key]) for key in sorted(shared)]
        )

    one, many = far(of_one), far(of_many)
    assert len(shared) > 20
    under = {(row["row"], row["col"]): row["cloud_fraction"] for row in single.embeddings.to_pylist()}
    clouded = np.array([under[key] > 0.01 for key in sorted(shared)])
    assert clouded.sum() > 15
    assert (many < one)[clouded].all()
    assert many.max() < 0.05 < np.median(one[clouded])


def test_a_reference_vector_is_the_composite_s(composites: Made) -> None:
    table = pq.read_table(composites.release.store.path("reference.parquet"))
    stored = dict(zip(*(composites.embeddings[name].to_pylist() for name in ("id", "embedding")), strict=True))
    assert len(table) >= 4
    for row in table.to_pylist():
        np.testing.assert_allclose(row["embedding"], stored[row["id"]], atol=row["tolerance"])


@pytest.mark.slow  # two runs; the kills of `test_resume`, with composites
def test_killed_composites_are_resumed_to_the_same_bytes(composites: Made, tmp_path: Path) -> None:
    spec = Path(shutil.copy(Path(composites.release.store.where).parent / "release.yaml", tmp_path))
    out = tmp_path / "release"
    assert start(spec, out).kill_when(lambda: any((out / ".run" / "attempts").glob("*.json")))
    start(spec, out).finish()
    tables = ("embeddings", "aggregates", "coverage")
    paths = [path for table in tables for path in composites.release.data_files(table)]
    assert len(paths) == 3
    for path in [*paths, "reference.parquet", "sources.parquet", "gaps.geojson"]:
        assert (out / path).read_bytes() == Path(composites.release.store.path(path)).read_bytes(), path


def test_reasons_without_a_clear_pixel(shared_data: Path, tmp_path: Path) -> None:
    scenes = cloudy(tmp_path, shared_data / "s2_l1c_T18SVG_20160112" / "item.json", dates=2, cover=1.0, tiles=False)
    with pytest.raises(ReleaseError, match=re.escape("49 (49 cloud). 1.000 of the pixels are under cloud")):
        made_of(tmp_path, scenes.items, imagery=asked(images=2))


def test_a_damaged_image_is_replaced_by_the_next_or_blamed(year: Cloudy, tmp_path: Path) -> None:
    for item in year.items:
        for file in item.parent.glob(f"{item.stem}*"):
            shutil.copy(file, tmp_path)
    items = [tmp_path / item.name for item in year.items]
    damaged = items[4].with_suffix(".tif")
    damaged.write_bytes(damaged.read_bytes()[:30_000])
    made = made_of(tmp_path, items, imagery=asked(images=8, min_valid=2))
    used = {name for row in made.embeddings.to_pylist() for name in row["item_ids"]}
    assert used == {item.stem for item in items} - {items[4].stem}
    lacking = {row["reason"] for row in made.coverage if row["reason"]}
    assert lacking == {"unreadable"}, "with the damaged image the chip might have had enough"


@pytest.mark.parametrize(
    ("imagery", "chips", "said"),
    [
        ({"composite": {"method": "medain"}, "windows": [YEAR]}, {}, "median, mean, best, or x-NAME"),
        ({"composite": {"images": 0}, "windows": [YEAR]}, {}, "at least 1"),
        (
            {"composite": {"images": 2, "min_valid": 3}, "windows": [YEAR]},
            {},
            "images is 2; expected at least 3, as min_valid asks for",
        ),
        ({"composite": {"method": "best", "min_valid": 2}, "windows": [YEAR]}, {}, "best takes whole images"),
        ({"composite": {"method": "best", "images": 4}, "windows": [YEAR]}, {}, "use median or mean, or model.steps"),
        ({"composite": {}}, {}, "needs imagery.windows"),
        ({"composite": {}, "windows": [YEAR]}, {"layout": "scene"}, "needs chips.layout utm"),
        ({"composite": {"images": 64}, "windows": [YEAR]}, {"size": 2048}, "GB of pixels"),
        ({"composite": {"imagse": 4}, "windows": [YEAR]}, {}, "Did you mean 'images'?"),
    ],
)
def test_a_spec_that_cannot_be_followed_says_why(
    imagery: dict[str, Any], chips: dict[str, Any], said: str, year: Cloudy
) -> None:
    imagery = {"stac": str(year.items[0]), "sensor": S2.key, **imagery}
    with pytest.raises(SpecError, match=re.escape(said)):
        resolve_spec({"name": "test", "imagery": imagery, "chips": chips}, where="spec", folder=Path())


def test_blocks_of_different_composites_are_refused(year: Cloudy) -> None:
    block = {"stac": str(year.items[0]), "sensor": S2.key, "windows": [YEAR]}
    blocks = [{**block, "composite": {"images": count}} for count in (4, 5)]
    with pytest.raises(SpecError, match="different composites"):
        resolve_spec({"name": "test", "imagery": blocks}, where="spec", folder=Path())


def test_an_unknown_reduction_is_refused_before_the_run(year: Cloudy, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="'x-harmonic' is not registered"):
        made_of(tmp_path, year.items, imagery=asked("x-harmonic"))
    assert not (tmp_path / "release" / ".run").exists()


@pytest.mark.slow  # two releases
def test_best_is_the_release_without_a_composite(year: Cloudy, tmp_path: Path) -> None:
    loose = {**CHIPS, "max_cloud": 1, "max_nodata": 0.5}
    plain, best = tmp_path / "plain", tmp_path / "best"
    for folder, imagery in ((plain, {"windows": [YEAR]}), (best, asked("best"))):
        folder.mkdir()
        made_of(folder, year.items, imagery=imagery, chips=loose)
    files = Release(str(plain / "release")).data_files()
    assert files
    for path in files:
        assert (plain / "release" / path).read_bytes() == (best / "release" / path).read_bytes()
