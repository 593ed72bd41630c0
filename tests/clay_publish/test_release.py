import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pytest

from clay_publish.errors import ReleaseError
from clay_publish.geo.utm_zones import Square
from clay_publish.release.directory import DataFile, Release
from clay_publish.release.manifest import read_manifest, run_record, write_manifest
from clay_publish.windows import Window


def test_a_data_file_is_named_by_square_and_window() -> None:
    file = DataFile(Square.parse("18_04_41"), Window.parse("2016-01-12/2016-01-13"))
    assert file.name == "zone=18/18_04_41_2016-01-12_2016-01-13.parquet"
    assert DataFile.parse(f"embeddings/{file.name}") == file


@pytest.mark.parametrize(
    "path",
    ["a.parquet", "zone=18/a.parquet", "zone=17/18_04_41_2016-01-12_2016-01-13.parquet", "x/18_04_41_2016.parquet"],
)
def test_a_file_that_says_nothing_or_lies_in_the_wrong_folder_is_refused(path: str) -> None:
    with pytest.raises(ReleaseError):
        DataFile.parse(path)


def test_every_published_file_is_in_the_manifest_and_in_the_sums(sample_release: Path) -> None:
    release = Release(str(sample_release))
    manifest = read_manifest(release)
    hidden = {"manifest.json", "SHA256SUMS"}
    found = {p.relative_to(sample_release).as_posix() for p in sample_release.rglob("*") if p.is_file()}
    assert {entry.path for entry in manifest.files} == {p for p in found if not p.startswith(".run/")} - hidden
    for entry in manifest.files:
        data = (sample_release / entry.path).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (entry.size, entry.sha256)
    sums = (sample_release / "SHA256SUMS").read_text().splitlines()
    assert sums == [f"{entry.sha256}  {entry.path}" for entry in manifest.files]


def test_the_manifest_tells_how_the_run_was_also_without_its_working_files(release_copy: Path) -> None:
    release = Release(str(release_copy))
    record = run_record(release)
    release.store.remove(".run/run.json")
    assert run_record(release) == record
    assert record.fingerprint == release.fingerprint()
    write_manifest(release, "again")
    assert read_manifest(release).run == record


def test_the_manifest_names_the_version_that_wrote_the_files(release_copy: Path) -> None:
    """A run may be begun with one version of pyarrow and go on with another."""
    release, units = Release(str(release_copy)), release_copy / ".run" / "units.json"
    release.store.remove(".run/run.json")
    begun = json.loads(units.read_text())
    begun["libraries"]["pyarrow"] = "1.0.0"
    units.write_text(json.dumps(begun))
    assert run_record(release).libraries == begun["libraries"] | {"pyarrow": pa.__version__}


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"files": 3}', "{" * 100_000, "\xff"])
def test_a_manifest_that_is_none_is_one_clear_error(release_copy: Path, content: str) -> None:
    (release_copy / "manifest.json").write_text(content, encoding="latin-1")
    with pytest.raises(ReleaseError, match=r"manifest\.json"):
        read_manifest(Release(str(release_copy)))


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" * 100])
def test_a_broken_table_is_one_clear_error(release_copy: Path, content: bytes) -> None:
    release = Release(str(release_copy))
    path = release.data_files()[0]
    (release_copy / path).write_bytes(content)
    with pytest.raises(ReleaseError, match="is not a readable Parquet file"):
        release.fingerprint()


def test_two_fingerprints_say_where_they_differ(sample_release: Path) -> None:
    mine = Release(str(sample_release)).fingerprint()
    other = mine.model_copy(update={"size": 999})
    assert other.digest != mine.digest
    assert mine.differences(other) == [f"size: {mine.size} → 999"]
    assert mine.differences(mine) == []
    assert json.loads(mine.model_dump_json())["size"] == mine.size
