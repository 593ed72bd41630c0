"""What a plan keeps of the files of its images, for thousands of them."""

import gc
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from clay_publish.producer.planning import files
from clay_publish.producer.planning.files import files_path, identify_files, keep_files
from clay_publish.producer.sources.item import SourceItem
from clay_publish.producer.sources.selection import Considered
from clay_publish.producer.sources.stac_item import source_item
from clay_publish.release.directory import Release
from clay_publish.release.manifest import UNITS
from clay_publish.release.stored_rows import StoredRows
from clay_publish.spec.sensors import sensor

S2 = sensor("sentinel-2-l2a")
ITEM = "stac_items/earth_search/sentinel-2-l2a_S2A_33TWM_20230818_offset-0.1.json"
PLAN: Any = SimpleNamespace(sha256="a" * 64)
COUNT = 3_000


class Files:
    """Stands for the servers and disks that files lie on."""

    def __init__(self) -> None:
        self.version = 1
        self.asked: list[str] = []

    def etags(self, item: SourceItem, nodata: float | None) -> Mapping[str, str]:
        assert nodata == S2.nodata
        self.asked.append(item.id)
        return {file.href: f"{file.href[-20:]} {self.version}" for file in item.files}

    def digests(self, item: SourceItem) -> Mapping[str, str]:
        return {file.href: f"{file.href[-10:]} {self.version}" for file in item.bands[: len(item.id) % 3]}


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Files:
    found = Files()
    monkeypatch.setattr(files, "etags", found.etags)
    monkeypatch.setattr(files, "digests", found.digests)
    monkeypatch.setattr(files, "group_rows", lambda _: 700)
    monkeypatch.setattr(files, "_BATCH", 500)
    return found


@pytest.fixture
def found(shared_data: Path) -> list[Considered]:
    """Ordered as `select` gives them; every tenth is not used."""
    path = shared_data / ITEM
    item = source_item(json.loads(path.read_text()), S2, block=0, base=str(path))
    return [Considered(renamed(item, f"{n:0{4 + n % 3}d}"), "used" if n % 10 else "unused") for n in range(COUNT)]


def renamed(item: SourceItem, name: str) -> SourceItem:
    return item.changed(id=name, hrefs={key: f"s3://b/{name}/{key}.tif" for key in item.texts.hrefs})


def begin(release: Release, considered: list[Considered]) -> list[Considered]:
    """As a run does, until its plan is there."""
    images = list(considered)
    identify_files(release, images, S2)
    keep_files(release, PLAN, images)
    release.store.write(UNITS, json.dumps({"sha256": PLAN.sha256}))
    return images


def test_a_resumed_run_finds_what_the_first_one_found(
    served: Files, found: list[Considered], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, read = Release(str(tmp_path)), list[int]()
    first = begin(release, found)
    used = [each.item for each in found if each.status == "used"]
    assert sorted(served.asked) == sorted(item.id for item in used)
    for before, after in zip(found, first, strict=True):
        if before.status != "used":
            assert after is before
            continue
        etags, digests = served.etags(before.item, S2.nodata), served.digests(before.item)
        assert after == replace(before, item=before.item.changed(etags=etags, digests=digests))
    served.version, served.asked = 2, []
    real = StoredRows._read

    def counted(self: StoredRows, number: int) -> pa.Table:
        read.append(number)
        return real(self, number)

    monkeypatch.setattr(StoredRows, "_read", counted)
    resumed = list(found)
    identify_files(release, resumed, S2)
    assert resumed == first
    assert served.asked == []
    assert read == list(range(-(-len(used) // 700)))  # each row group once


def test_files_that_were_moved_or_are_new_are_looked_at_again(
    served: Files, found: list[Considered], tmp_path: Path
) -> None:
    release = Release(str(tmp_path))
    grid = begin(release, found)[1].item.grid
    served.version, served.asked = 2, []
    moved = found[1].item.changed(hrefs={key: f"s3://elsewhere/{key}" for key in found[1].item.texts.hrefs}, grid=None)
    new = renamed(found[2].item, "x")
    resumed = [replace(found[1], item=moved), *found[2:5], replace(found[2], item=new)]
    identify_files(release, resumed, S2)
    assert sorted(served.asked) == sorted([moved.id, new.id])
    assert [set(each.item.etags.values()) for each in resumed] == [
        {f"{file.href[-20:]} {version}" for file in each.item.files}
        for each, version in zip(resumed, (2, 1, 1, 1, 2), strict=True)
    ]
    assert resumed[0].item.grid == grid is not None


def test_images_of_one_id_in_two_windows_are_separate(served: Files, found: list[Considered], tmp_path: Path) -> None:
    release, one = Release(str(tmp_path)), found[1].item
    hrefs = {key: f"s3://later/{key}" for key in one.texts.hrefs}
    other = one.changed(acquired=one.acquired + timedelta(days=40), hrefs=hrefs)
    first = begin(release, [Considered(one, "used"), Considered(other, "used")])
    served.asked = []
    resumed = [Considered(one, "used"), Considered(other, "used")]
    identify_files(release, resumed, S2)
    assert resumed == first
    assert served.asked == []


def test_images_whose_names_share_a_hash_are_looked_at_again(
    served: Files, found: list[Considered], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "hash_strings", lambda names: np.full(len(names), 7, np.uint64))
    release, images = Release(str(tmp_path)), found[1:4]
    begin(release, images)
    served.version = 2
    identify_files(release, images, S2)
    versions = [{tag.rpartition(" ")[2] for tag in each.item.etags.values()} for each in images]
    assert versions == [{"1"}, {"2"}, {"2"}]


@pytest.mark.usefixtures("served")
def test_what_is_kept_does_not_follow_from_row_groups(
    found: list[Considered], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = []
    for rows in (100, 4_096):
        monkeypatch.setattr(files, "group_rows", lambda _, rows=rows: rows)
        release = Release(str(tmp_path / str(rows)))
        begin(release, found)
        tables.append(release.parquet(files_path(PLAN.sha256)).read())
    assert tables[0].equals(tables[1])
    assert tables[0].num_rows == sum(each.status == "used" for each in found)


@pytest.mark.usefixtures("served")
def test_nothing_is_known_without_a_plan(found: list[Considered], tmp_path: Path) -> None:
    release, unused = Release(str(tmp_path)), found[:1]
    begin(release, unused)
    assert release.parquet(files_path(PLAN.sha256)).read().num_rows == 0
    identify_files(release, unused, S2)
    assert unused == found[:1]


@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.usefixtures("served")
def test_items_are_not_held_twice(
    found: list[Considered], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resumed: bool
) -> None:
    release, held = Release(str(tmp_path)), list[int]()
    if resumed:
        begin(release, found)
    before = [each.item.id for each in found]

    def counted(each: Considered, item: SourceItem) -> Considered:
        if item.id in {before[n] for n in (1, 1_001, 2_001, 2_999)}:
            held.append(sum(type(thing) is SourceItem for thing in gc.get_objects()))
        return replace(each, item=item)

    monkeypatch.setattr(files, "replace", counted)
    gc.collect()
    identify_files(release, found, S2)
    assert len(held) == 4
    assert max(held) <= COUNT + 2 * 500 + 10
