"""What a plan keeps of the files of its images, for thousands of them."""

import gc
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from clay_publish.errors import ReleaseError
from clay_publish.producer.planning import image_files as files
from clay_publish.producer.planning.image_files import files_path, forget_identified, identify_files, keep_files
from clay_publish.producer.sources.item import SourceItem
from clay_publish.producer.sources.selection import Considered
from clay_publish.producer.sources.stac_item import source_item
from clay_publish.progress import Progress
from clay_publish.release.directory import Release
from clay_publish.release.lease.base import Share
from clay_publish.release.manifest import UNITS
from clay_publish.release.stored_rows import StoredRows
from clay_publish.spec.sensors import sensor

S2 = sensor("sentinel-2-l2a")
ITEM = "stac_items/earth_search/sentinel-2-l2a_S2A_33TWM_20230818_offset-0.1.json"
PLAN: Any = SimpleNamespace(sha256="a" * 64)
COUNT = 1_500


class Files:
    """Stands for the servers and disks that files lie on."""

    def __init__(self) -> None:
        self.version = 1
        self.nodata = S2.nodata
        self.asked: list[str] = []
        self.last: int | None = None

    def etags(self, item: SourceItem, nodata: float | None) -> Mapping[str, str]:
        assert nodata == self.nodata
        self.asked.append(item.id)
        if len(self.asked) == self.last:
            raise KeyboardInterrupt
        return {file.href: f"{file.href[-20:]} {self.version}" for file in item.files}

    def digests(self, item: SourceItem) -> Mapping[str, str]:
        return {file.href: f"{file.href[-10:]} {self.version}" for file in item.bands[: len(item.id) % 3]}


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Files:
    found = Files()
    monkeypatch.setattr(files, "etags", found.etags)
    monkeypatch.setattr(files, "digests", found.digests)
    monkeypatch.setattr(files, "group_rows", lambda _: 350)
    monkeypatch.setattr(files, "_BATCH", 250)
    return found


@pytest.fixture
def found(shared_data: Path) -> list[Considered]:
    """Ordered as `select` gives them; every tenth is not used."""
    item = real_item(shared_data)
    return [Considered(renamed(item, f"{n:0{4 + n % 3}d}"), "used" if n % 10 else "unused") for n in range(COUNT)]


def real_item(shared_data: Path) -> SourceItem:
    path = shared_data / ITEM
    return source_item(json.loads(path.read_text()), S2, block=0, base=str(path))


def renamed(item: SourceItem, name: str) -> SourceItem:
    return item.changed(id=name, hrefs={key: f"https://b/{name}/{key}.tif" for key in item.texts.hrefs})


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
    assert read == list(range(-(-len(used) // 350)))  # each row group once


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
        if item.id in {before[n] for n in (1, 501, 1_001, 1_499)}:
            held.append(sum(type(thing) is SourceItem for thing in gc.get_objects()))
        return replace(each, item=item)

    monkeypatch.setattr(files, "replace", counted)
    gc.collect()
    identify_files(release, found, S2)
    assert len(held) == 4
    assert max(held) <= COUNT + 2 * 250 + 10


@pytest.fixture
def images(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> list[Considered]:
    """Files on servers alone, which have no digest; many batches."""
    monkeypatch.setattr(files, "_BATCH", 150)
    item = real_item(shared_data)
    return [Considered(renamed(item, f"{n:06d}"), "used") for n in range(600)]


def identify(release: Release, images: list[Considered], share: Share | None = None) -> list[Considered]:
    images = list(images)
    identify_files(release, images, S2, keep=True, share=share)
    return images


def identifiers(images: list[Considered]) -> list[str]:
    return [each.item.id for each in images]


def batches(images: list[Considered]) -> list[list[str]]:
    places = np.arange(len(images))
    return [[images[n].item.id for n in batch] for batch in files._by_content(images, places, None)]


def test_what_was_found_before_there_is_a_plan_is_kept(served: Files, images: list[Considered], tmp_path: Path) -> None:
    release = Release(str(tmp_path))
    first, second, third, *later = batches(images)
    assert [*first, *second, *third, *(name for batch in later for name in batch)] == identifiers(images)
    served.last = len(first) + len(second) + len(third) // 2
    with pytest.raises(KeyboardInterrupt):
        identify(release, images)
    served.last, served.asked = None, []
    steps = list[Progress]()
    identify_files(release, again := list(images), S2, keep=True, report=steps.append)
    assert sorted(served.asked) == [*third, *(name for batch in later for name in batch)]
    done = np.cumsum([len(batch) for batch in (first, second, third, *later)]).tolist()
    assert [(step.done, step.total) for step in steps] == [(n, len(images)) for n in done]
    served.version, served.asked = 2, []
    assert identify(release, images) == again
    assert served.asked == []


def test_with_an_image_more_or_less_one_batch_is_another(
    served: Files, images: list[Considered], tmp_path: Path
) -> None:
    release, names = Release(str(tmp_path)), batches(images)
    identify(release, images)
    served.asked = []
    identify(release, images[1:])
    assert set(served.asked) == set(names[0][1:])
    served.asked = []
    identify(release, [*images[:-1], replace(images[-1], item=renamed(images[-1].item, "zzz")), images[-1]])
    assert "zzz" in served.asked
    assert set(served.asked) - {"zzz"} <= set(names[-1])


def test_shares_ask_about_images_of_their_own(served: Files, images: list[Considered], tmp_path: Path) -> None:
    release, names = Release(str(tmp_path)), batches(images)
    half = len(names) // 2
    own = [name for batch in names[half:] for name in batch]
    served.last = len(own)
    with pytest.raises(KeyboardInterrupt):
        identify(release, images, Share(2, 2))
    assert sorted(served.asked) == own
    kept, served.last, served.asked = [name for batch in names[half:-1] for name in batch], None, []
    identify(release, images, Share(1, 2))
    assert sorted(served.asked) == sorted(set(identifiers(images)) - set(kept))


def meanwhile(monkeypatch: pytest.MonkeyPatch, do: Callable[[], list[Considered]]) -> list[list[Considered]]:
    """What another share finds, between the answers to the first batch and when they are kept."""
    found, real = list[list[Considered]](), files._Identified.keep

    def late(self: files._Identified, answers: list[SourceItem]) -> bool:
        if not found:
            found.append([])  # what it does keeps something as well
            found[0] = do()
        return real(self, answers)

    monkeypatch.setattr(files._Identified, "keep", late)
    return found


def test_of_two_shares_that_ask_about_the_same_images_the_first_counts(
    served: Files, images: list[Considered], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = Release(str(tmp_path))

    def first() -> list[Considered]:
        served.version = 2
        return identify(release, images)

    found = meanwhile(monkeypatch, first)
    assert identify(release, images) == found[0]
    assert {tag[-1] for each in found[0] for tag in each.item.etags.values()} == {"2"}


def test_of_two_shares_the_one_that_asks_while_the_other_begins_the_run_takes_its_plan(
    served: Files, images: list[Considered], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = Release(str(tmp_path))

    def begins() -> list[Considered]:
        served.version = 2
        images_of_plan = begin(release, images)
        forget_identified(release)
        return images_of_plan

    found = meanwhile(monkeypatch, begins)
    assert identify(release, images) == found[0]
    assert not release.store.files(files._IDENTIFIED)


@pytest.mark.usefixtures("served")
def test_a_plan_takes_the_place_of_what_was_kept(images: list[Considered], tmp_path: Path) -> None:
    """Also for a share that reads it while another one begins the run."""
    release = Release(str(tmp_path))
    known = files._Identified(release, S2, keep=True)
    identify(release, images)
    assert release.store.files(files._IDENTIFIED)
    begun = begin(release, images)
    forget_identified(release)
    assert not release.store.files(files._IDENTIFIED)
    items = [each.item for each in images[:150]]
    assert known.find(items) == [files._Planned(each.item.etags, {}, each.item.grid) for each in begun[:150]]


def test_images_of_which_something_else_is_asked_are_asked_about_again(
    served: Files, images: list[Considered], tmp_path: Path
) -> None:
    release, item = Release(str(tmp_path)), images[300].item
    identify(release, images)
    (batch,) = [names for names in batches(images) if item.id in names]
    hrefs = {key: f"{href}?v=2" for key, href in item.texts.hrefs.items()}
    for changed in (item.changed(hrefs=hrefs), item.changed(grid=None)):
        served.asked = []
        identify(release, [*images[:300], replace(images[300], item=changed), *images[301:]])
        assert sorted(served.asked) == batch
    served.nodata, served.asked = -1.0, []
    identify_files(release, list(images), S2.model_copy(update={"nodata": -1.0}), keep=True)
    assert sorted(served.asked) == identifiers(images)


def test_local_files_few_images_and_plans_are_always_looked_at(
    served: Files, images: list[Considered], found: list[Considered], tmp_path: Path
) -> None:
    """Files may change before there is a plan."""
    release = Release(str(tmp_path))
    local = [each for each in found if len(each.item.id) % 3 and each.status == "used"]
    for some, keep in ((images[:150], True), (local, True), (images, False)):
        for _ in range(2):
            served.asked = []
            identify_files(release, list(some), S2, keep=keep)
            assert len(served.asked) == len(some)
        assert not release.store.files(files._IDENTIFIED)


@pytest.mark.parametrize("missing", ["file", "mask"])
def test_images_whose_files_are_not_reached_are_asked_about_again(
    served: Files, images: list[Considered], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """Servers that failed may answer, and disks be there, before there is a plan."""
    release, failing = Release(str(tmp_path)), identifiers(images)[100:500:7]

    def partly(item: SourceItem, nodata: float | None) -> Mapping[str, str]:
        tags = dict(served.etags(item, nodata))
        if item.id in failing and missing == "file":
            del tags[item.bands[3].href]
        elif item.id in failing:
            tags[item.bands[3].external_mask.href] = ""
        return tags

    with monkeypatch.context() as patch:
        patch.setattr(files, "etags", partly)
        identify(release, images)
    served.asked = []
    assert identify(release, images) == identify(Release(str(tmp_path / "another")), images)
    assert sorted(served.asked[: len(failing)]) == sorted(failing)


def test_what_was_kept_long_ago_is_asked_for_again(
    served: Files, images: list[Considered], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = Release(str(tmp_path))
    identify(release, images)
    served.version, served.asked = 2, []
    monkeypatch.setattr(files, "_FRESH", timedelta(0))
    assert {tag[-1] for each in identify(release, images) for tag in each.item.etags.values()} == {"2"}
    monkeypatch.undo()


@pytest.mark.usefixtures("served")
def test_what_was_kept_and_is_damaged_is_refused(images: list[Considered], tmp_path: Path) -> None:
    """Whatever byte is another."""
    release = Release(str(tmp_path))
    identify(release, images)
    (damaged, *_) = release.store.files(files._IDENTIFIED)
    data = release.store.read(damaged)
    for place in (0, 40, len(data) // 2, len(data) - 5, len(data) - 1):
        release.store.write(damaged, data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(ReleaseError, match=rf"{damaged}: is damaged\. Remove it"):
            identify(release, images)
