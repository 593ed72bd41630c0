"""`audit`: every published version against its host."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from s3_servers import send

from clay_publish.errors import PublishError
from clay_publish.publish import audit, versions, yank
from clay_publish.release.directory import Release
from clay_publish.release.manifest import write_manifest

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def site(sample_release: Path, tmp_path: Path) -> Path:
    send(sample_release, f"{tmp_path}/site")
    return tmp_path / "site"


def faults(site: Path, *, quick: bool = False) -> set[tuple[str, str]]:
    return {(fault.place, fault.fault) for fault in audit(str(site), quick=quick).faults}


def test_a_published_version_has_no_differences(site: Path) -> None:
    report = audit(str(site))
    assert (report.versions, report.faults) == (["1.0.0"], [])
    assert report.files == len(json.loads((site / "1.0.0" / "manifest.json").read_text())["files"])


def test_missing_changed_and_surplus_files_are_named(site: Path) -> None:
    (data,) = (site / "1.0.0" / "embeddings").rglob("*.parquet")
    flipped = bytearray(data.read_bytes())
    flipped[1000] ^= 1
    data.chmod(0o644)
    data.write_bytes(flipped)
    (site / "1.0.0" / "LICENSE").unlink()
    (site / "1.0.0" / "notes.txt").write_text("x")
    path = data.relative_to(site).as_posix()
    others = {("1.0.0/LICENSE", "missing"), ("1.0.0/notes.txt", "surplus")}
    assert faults(site) == {(path, "changed"), *others}
    assert faults(site, quick=True) == others


def test_a_replaced_manifest_and_a_wrong_pointer_are_named(site: Path) -> None:
    manifest = site / "1.0.0" / "manifest.json"
    manifest.write_text(manifest.read_text() + "\n")
    (site / "latest.json").write_text('{"version": "9.9.9"}')
    assert faults(site) == {("1.0.0/manifest.json", "changed"), ("latest.json", "inconsistent")}


def test_a_report_about_other_bytes_is_named(site: Path) -> None:
    report = site / "1.0.0.validation.json"
    report.write_text(json.dumps({**json.loads(report.read_text()), "manifest_sha256": "0" * 64}))
    assert faults(site) == {("1.0.0.validation.json", "inconsistent")}
    report.write_text("[]")
    assert faults(site) == {("1.0.0.validation.json", "changed")}


def test_the_command_exits_with_1_when_something_differs(
    site: Path, run: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    assert "no differences" in run("audit", site).stdout
    (site / "1.0.0" / "LICENSE").unlink()
    made = run("audit", site, "--json", code=1)
    assert json.loads(made.stdout)["faults"] == [{"place": "1.0.0/LICENSE", "fault": "missing", "detail": ""}]


def test_a_yank_is_undone_and_a_second_one_keeps_the_first_reason(
    site: Path, run: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    yank(str(site), "1.0.0", "clouds")
    yank(str(site), "1.0.0", "something else")
    assert [v.yanked for v in versions(str(site)).versions] == ["clouds"]
    run("yank", site, "1.0.0", "--undo")
    found = versions(str(site))
    assert ([v.yanked for v in found.versions], found.latest) == ([None], "1.0.0")
    assert run("yank", site, "1.0.0", "--reason", "two\nlines").stdout == "1.0.0 YANKED: two lines\n"
    again = run("yank", site, "1.0.0", "--reason", "another")
    assert again.stdout == "1.0.0 YANKED: two lines\n"
    assert again.stderr == "1.0.0 was yanked before: the first reason stays (--undo takes it back)\n"
    assert "cannot be yanked without a reason" in run("yank", site, "1.0.0", "--reason", "", code=2).stderr
    assert "needs either --reason TEXT or --undo" in run("yank", site, "1.0.0", code=2).stderr


def test_a_version_that_the_catalog_does_not_list_is_surplus(site: Path, run: Run) -> None:
    shutil.copytree(site / "1.0.0", site / "2.0.0")
    (site / "notes").mkdir()
    (site / "notes" / "a.txt").write_text("of somebody else")
    said = run("audit", site, "--quiet", code=1).stdout
    assert said.splitlines()[0] == "surplus      2.0.0/: not listed in catalog.json"
    assert f"{site}: 1 version, " in said
    assert said.endswith("files, 1 difference\n")


def test_a_version_that_is_being_published_is_named(site: Path, run: Run) -> None:
    """It has checksums, which are sent first, and no manifest, which is sent last."""
    shutil.copytree(site / "1.0.0", site / "2.0.0")
    count = sum(path.is_file() for path in (site / "2.0.0").rglob("*"))
    for name in ("manifest.json", "LICENSE"):
        (site / "2.0.0" / name).unlink()
    os.utime(site / "2.0.0" / "SHA256SUMS", (0, 0))
    said = run("audit", site, "--quiet", code=1).stdout
    begun = "unfinished   2.0.0/: being published since 1970-01-01T00:00:00Z, or interrupted: "
    assert said.startswith(f"{begun}{count - 2} of {count} files are there, the last since 20")


@pytest.mark.parametrize("dry_run", [False, True])
def test_another_release_is_refused_before_a_byte_is_sent(site: Path, release_copy: Path, dry_run: bool) -> None:
    spec = release_copy / "release.yaml"
    spec.write_text(spec.read_text().replace("name: my-first-release", "name: foreign").replace("1.0.0", "2.0.0"))
    write_manifest(Release(str(release_copy)), "test")
    before = sorted(site.rglob("*"))
    with pytest.raises(PublishError, match=r"lists versions of my-first-release .expected foreign.* Use another dir"):
        send(release_copy, str(site), dry_run=dry_run)
    assert sorted(site.rglob("*")) == before


@pytest.mark.parametrize(
    ("target", "hint"),
    [
        ("sorce.coop", "Did you mean source.coop?"),
        ("hugingface", "Did you mean huggingface?"),
        ("site", "For a directory, write ./site."),
        ("out/site", "For a directory, write ./out/site."),
        ("gs://bucket/x", "is not a supported publish target"),
    ],
)
def test_an_ambiguous_target_is_an_error_with_a_suggestion(sample_release: Path, target: str, hint: str) -> None:
    with pytest.raises(PublishError) as raised:
        send(sample_release, target)
    assert hint in str(raised.value)
