"""What `diff` tells of two versions, and what it asks of the version number."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from array_copy import add_arrays
from image_server import ImageServer

from clay_publish.cards import write_cards
from clay_publish.cards.diff import compare
from clay_publish.errors import ReleaseError, SpecError
from clay_publish.release.directory import Release
from clay_publish.release.versions import Version, VersionStep, check_version

from .copies import change_table, ids_of, lose, move, version
from .specs import respecify


@pytest.fixture
def pair(sample_release: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The same release twice: the second is to become the next version."""
    old, new = tmp_path / "1.0.0", tmp_path / "next"
    shutil.copytree(sample_release, old)
    shutil.copytree(sample_release, new)
    return old, new


def between(pair: tuple[Path, Path]) -> tuple[Release, Release]:
    return Release(str(pair[0])), Release(str(pair[1]))


def test_the_same_data_asks_for_a_patch(pair: tuple[Path, Path]) -> None:
    found = compare(*between(pair))
    assert found.step is VersionStep.PATCH
    assert found.chips.unchanged == len(ids_of(pair[0]))
    assert (found.chips.added, found.chips.removed, found.chips.changed, found.chips.largest) == (0, 0, 0, 0.0)
    assert found.coverage.gained == found.coverage.lost == {}
    assert found.identical
    assert found.lines() == ["identical: the same chips, vectors, coverage and columns"]


def test_an_older_version_as_the_new_one_is_refused(pair: tuple[Path, Path]) -> None:
    version(pair[0], "1.2.0")
    with pytest.raises(ReleaseError, match=r"is version 1\.0\.0, older than 1\.2\.0"):
        compare(*between(pair))


def test_more_chips_ask_for_a_minor_step_and_tell_why_they_were_missing(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clay_publish.cards.diff._ROWS", 7)  # so that chips wait for those of the other version
    old, _ = pair
    chips = ids_of(old)
    lose(old, chips[:3], "cloud")
    lose(old, chips[3:5], "unreadable")
    change_table(old, "coverage", lambda table: table.filter(pa.compute.not_equal(table["id"], chips[0])))
    found = compare(*between(pair))
    assert found.step is VersionStep.MINOR
    assert found.chips.added == 5
    assert found.coverage.gained == {"cloud": 2, "unreadable": 2, "not_expected": 1}
    assert (found.coverage.expected_before, found.coverage.expected) == (len(chips) - 1, len(chips))


def test_lost_chips_are_listed_with_the_reason(pair: tuple[Path, Path]) -> None:
    _, new = pair
    lose(new, ids_of(new)[:4], "excluded")
    found = compare(*between(pair))
    assert found.step is VersionStep.MINOR
    assert found.because == "it removes chips"
    assert found.known_before is VersionStep.PATCH  # only the run could tell
    assert found.chips.removed == 4
    assert found.coverage.lost == {"excluded": 4}
    assert "4 chips removed (4 now: its items were left out as known to be bad)" in found.lines()


def test_a_vector_that_moved_is_counted(pair: tuple[Path, Path]) -> None:
    _, new = pair
    chips = ids_of(new)
    move(new, chips[7], 1.25)
    move(new, chips[8], 1.0001)
    found = compare(*between(pair))
    assert (found.chips.changed, found.chips.unchanged) == (1, len(chips) - 1)
    assert found.chips.largest == pytest.approx(0.25, rel=1e-5)
    strict = compare(*between(pair), tolerance=1e-5)
    assert strict.chips.changed == 2


def test_another_order_of_rows_changes_nothing(pair: tuple[Path, Path]) -> None:
    _, new = pair
    change_table(new, "embeddings", lambda table: table.take(list(range(table.num_rows))[::-1]))
    assert compare(*between(pair)).chips.unchanged == len(ids_of(new))


def test_another_fingerprint_asks_for_a_major_step(pair: tuple[Path, Path]) -> None:
    _, new = pair

    def reseeded(table: pa.Table) -> pa.Table:
        metadata = dict(table.schema.metadata)
        emb = json.loads(metadata[b"emb"])
        emb["embrel:decided_by"]["parameters"]["seed"] = 7
        return table.replace_schema_metadata({**metadata, b"emb": json.dumps(emb)})

    change_table(new, "embeddings", reseeded)
    found = compare(*between(pair))
    assert found.step is VersionStep.MAJOR
    assert found.chips.changed is None
    assert len(found.fingerprint) == 1
    assert "'seed': 7" in found.fingerprint[0]


def test_another_column_asks_for_a_major_step(pair: tuple[Path, Path]) -> None:
    _, new = pair
    change_table(new, "embeddings", lambda table: table.drop_columns(["loss"]))
    found = compare(*between(pair))
    assert found.step is VersionStep.MAJOR
    assert found.columns == ["embeddings: column loss removed"]


def test_arrays_are_compared_as_tables_are(pair: tuple[Path, Path]) -> None:
    add_arrays(pair[1])
    found = compare(*between(pair))
    assert (found.step, found.columns) == (VersionStep.MINOR, ["arrays/arrays.zarr added"])
    assert not found.identical
    add_arrays(pair[0], "float16")
    found = compare(*between(pair))
    assert found.step is VersionStep.MAJOR
    assert found.columns == [
        "arrays/arrays.zarr: column embeddings was halffloat, is int8",
        "arrays/arrays.zarr: column scales added",
    ]
    shutil.rmtree(pair[1] / "arrays")
    assert compare(*between(pair)).columns == ["arrays/arrays.zarr removed"]


def test_the_changelog_grows_version_by_version(pair: tuple[Path, Path]) -> None:
    old, new = pair
    lose(old, ids_of(old)[:3], "cloud")
    version(new, "1.1.0")
    write_cards(Release(str(new)), Release(str(old)))
    text = (new / "CHANGELOG.md").read_text()
    assert [line.split()[1] for line in text.splitlines() if line.startswith("## ")] == ["1.1.0", "1.0.0"]
    assert "- 3 chips added (3 before: too much cloud)" in text
    assert "3 chips added" in (new / "README.md").read_text()
    write_cards(Release(str(new)))
    assert (new / "CHANGELOG.md").read_text() == text


def test_notes_of_the_spec_begin_the_entry(pair: tuple[Path, Path]) -> None:
    old, new = pair
    for notes, shown in (("New offsets.\n\n## Not a <heading>", "New offsets."), ("Other words", "Other words")):
        respecify(old, notes=notes)
        write_cards(Release(str(old)))
        text = (old / "CHANGELOG.md").read_text()
        assert text.partition(")\n\n")[2].startswith(shown)
        assert text.endswith("\n\nFirst release.\n")
        assert text.count("\n## ") == 1
    respecify(new, notes="More area.")
    lose(old, ids_of(old)[:3], "cloud")
    version(new, "1.1.0")
    write_cards(Release(str(new)), Release(str(old)))
    text = (new / "CHANGELOG.md").read_text()
    assert text.index("## 1.1.0") < text.index("More area.") < text.index("3 chips added") < text.index("Other words")


def test_a_number_that_says_too_little_is_refused(pair: tuple[Path, Path]) -> None:
    old, new = pair
    lose(old, ids_of(old)[:3], "cloud")
    version(new, "1.0.1")
    before = (new / "CHANGELOG.md").read_text()
    with pytest.raises(SpecError, match=r"1\.0\.1 is too small after 1\.0\.0: it adds chips.*1\.1\.0"):
        write_cards(Release(str(new)), Release(str(old)))
    assert (new / "CHANGELOG.md").read_text() == before


def test_a_version_that_was_not_compared_is_asked_for(release_copy: Path) -> None:
    version(release_copy, "1.1.0")
    respecify(release_copy, previous="1.0.0")
    with pytest.raises(ReleaseError, match="--previous"):
        write_cards(Release(str(release_copy)))


@pytest.mark.parametrize(
    ("previous", "step", "enough"),
    [
        ("1.2.3", VersionStep.PATCH, "1.2.4"),
        ("1.2.3", VersionStep.MINOR, "1.3.0"),
        ("1.2.3", VersionStep.MAJOR, "2.0.0"),
        ("0.4.1", VersionStep.MINOR, "0.4.2"),
        ("0.4.1", VersionStep.MAJOR, "0.5.0"),
        ("2.0.0-rc.1", VersionStep.MAJOR, "2.0.0"),
        ("1.1.0-rc.1", VersionStep.MAJOR, "2.0.0"),
        ("1.1.0-rc.1", VersionStep.MINOR, "1.1.0"),
    ],
)
def test_the_smallest_version_that_is_enough(previous: str, step: VersionStep, enough: str) -> None:
    assert str(Version.parse(previous).smallest_after(step)) == enough
    check_version(enough, previous, step, "why")
    with pytest.raises(SpecError):
        check_version(previous, previous, step, "why")


def test_versions_are_ordered_as_semver_says() -> None:
    texts = ["1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0"]
    assert [str(version) for version in sorted(Version.parse(text) for text in texts[::-1])] == texts


def test_a_published_version_is_compared_where_it_lies(pair: tuple[Path, Path]) -> None:
    """A web server cannot list its files: the manifest names them."""
    old, new = pair
    chips = ids_of(old)
    lose(new, chips[:2], "excluded")
    with ImageServer(old) as server:
        found = compare(Release(server.url), Release(str(new)))
    assert (found.chips.added, found.chips.removed, found.chips.unchanged) == (0, 2, len(chips) - 2)
    assert found.coverage.lost == {"excluded": 2}
