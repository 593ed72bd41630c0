"""Overviews, their periods and the index: what is drawn, and that it is drawn the same way every time."""

import gzip
import io
import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from made_release import MADE, explorer_release
from PIL import Image
from pmtiles.reader import MemorySource, Reader, all_tiles

from clay_publish.cards.explorer import chips
from clay_publish.cards.explorer.build import write_explorer
from clay_publish.cards.explorer.layers import LAYERS, halved, periods
from clay_publish.cards.explorer.pyramid import Tile
from clay_publish.cards.release_facts import read_facts
from clay_publish.errors import StoreError
from clay_publish.release.directory import Release
from clay_publish.validate import validate
from clay_publish.windows import Window

Releases = Callable[[str], Path]


def contents(release: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(release)): p.read_bytes() for p in sorted((release / "explore").rglob("*")) if p.is_file()
    }


@pytest.mark.parametrize(
    "name",
    [
        "antimeridian",
        "windows",
        pytest.param("one", marks=pytest.mark.slow),  # the other pages' releases, drawn by the same code
        pytest.param("hemispheres", marks=pytest.mark.slow),
    ],
)
def test_validate_draws_the_same(name: str, made_releases: Releases) -> None:
    report = validate(Release(str(made_releases(name))), only=["EXP"])
    assert report.findings == []
    assert all(state.startswith("passed") for state in report.checked.values()), report.checked


def test_rerun_gives_same_bytes(made_releases: Releases, tmp_path: Path) -> None:
    release = Path(shutil.copytree(made_releases("windows"), tmp_path / "again"))
    before = contents(release)
    opened = Release(str(release))
    write_explorer(opened, read_facts(opened), "@misc{made}")
    assert contents(release) == before


def test_no_explorer_where_spec_says_so(tmp_path: Path) -> None:
    shape = replace(MADE["one"], texts={"outputs": {"explorer": False}})
    release = explorer_release("none", tmp_path, shape)
    assert not (release / "explore").exists() or not contents(release)
    assert validate(Release(str(release)), only=["EXP"]).findings == []


def test_leaf_pixels_are_no_larger_than_a_chip(made_releases: Releases) -> None:
    release = made_releases("hemispheres")
    data = (release / "explore/tiles/2023-01-01_2023-02-01/components.pmtiles").read_bytes()
    tiles = [place for place, _ in all_tiles(MemorySource(data))]
    below = {(z - 1, x // 2, y // 2) for z, x, y in tiles if z}
    leaves = [Tile(*place) for place in tiles if place not in below]
    assert leaves
    assert all(tile.pixel <= 2560 < 2 * tile.pixel * 1.01 for tile in leaves)
    header = Reader(MemorySource(data)).header()
    assert header["clustered"]


def test_single_chip_is_visible_from_afar(made_releases: Releases) -> None:
    data = (made_releases("one") / "explore/tiles/2023-01-01_2023-02-01/coverage.pmtiles").read_bytes()
    with Image.open(io.BytesIO(Reader(MemorySource(data)).get(0, 0, 0))) as picture:
        shown = np.asarray(picture.convert("RGBA"))
    assert (shown[..., 3] > 0).sum() == 1


@pytest.mark.parametrize("count", [10, 10_000_000])
def test_full_disk_is_one_error(count: int) -> None:
    with pytest.raises(StoreError, match=r"No space left on device.*Set TMPDIR to a folder on another disk"):
        chips._mapped(Path("/dev/full"), np.dtype(np.int64), (count,))


def test_halving_takes_mean_of_drawn_and_commonest_code() -> None:
    color, palette = LAYERS[0], LAYERS[1]
    four = np.zeros((2, 2, 4), dtype=np.uint8)
    four[0, 0], four[1, 1] = (10, 20, 30, 255), (21, 40, 50, 255)
    assert halved(color, four)[0, 0].tolist() == [16, 30, 40, 255]
    assert halved(palette, np.array([[3, 2], [2, 0]], dtype=np.uint8)).tolist() == [[2]]
    assert halved(palette, np.array([[3, 2], [0, 0]], dtype=np.uint8)).tolist() == [[2]]


def windows(count: int, days: int) -> list[Window]:
    edges = [datetime.fromtimestamp(days * 86_400 * n, UTC) for n in range(count + 1)]
    return [Window(a, b) for a, b in itertools.pairwise(edges)]


def test_many_windows_are_joined_by_year() -> None:
    few = periods(windows(24, 30), layout="utm")
    assert len(few.each) == 24
    many = periods(windows(26, 30), layout="utm")
    assert [p.id for p in many.each] == ["1970", "1971", "1972"]
    assert many.of_window(windows(26, 30)[-1]) == 2
    assert [p.id for p in periods(windows(40, 366), layout="utm").each] == ["all"]
    assert [p.id for p in periods(windows(2, 1), layout="scene").each] == ["1970"]


def test_index_has_box_across_antimeridian(made_releases: Releases) -> None:
    release = made_releases("antimeridian")
    rows = pq.read_table(release / "explore/files.parquet").to_pylist()
    assert {row["path"] for row in rows} == {str(p.relative_to(release)) for p in release.glob("embeddings/*/*")}
    assert any(row["xmin"] > row["xmax"] for row in rows)


def test_summary_tells_hosts_nothing_of_this_machine(made_releases: Releases) -> None:
    text = (made_releases("windows") / "explore/release.json").read_text()
    assert str(Path.home()) not in text
    assert json.loads(text)["coverage"]["missing"].keys() == {"cloud", "no_imagery"}


def test_layer_exists_only_with_its_values(scene_release: Path, made_releases: Releases) -> None:
    seen = set()
    for release in (scene_release, made_releases("one")):
        table = pq.read_table(release / "embeddings", partitioning=None)
        layers = {layer["id"] for layer in json.loads((release / "explore/release.json").read_text())["layers"]}
        assert {"components", "coverage", "date"} <= layers
        for layer, column in (("loss", "loss"), ("cloud", "cloud_fraction")):
            there = table[column].null_count < len(table)
            assert (layer in layers) == there
            seen.add((layer, there))
    assert seen == {("loss", False), ("loss", True), ("cloud", False), ("cloud", True)}


def test_page_and_libraries_are_small(scene_release: Path) -> None:
    page = [
        path for path in (scene_release / "explore").iterdir() if path.name not in {"files.parquet", "release.json"}
    ]
    assert len(page) > 8
    assert sum(len(gzip.compress(path.read_bytes(), 9)) for path in page if path.is_file()) < 1_500_000
