"""Publishing to the Hugging Face Hub: the unmodified client against a Hub on loopback, with and without Xet."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from array_copy import add_arrays, arrays_below
from hub_server import File, Hub
from huggingface_hub import HfFileSystem
from s3_servers import send

from clay_publish.errors import PublishError
from clay_publish.publish import audit, versions, yank
from clay_publish.release.directory import Release
from clay_publish.release.manifest import read_manifest, write_manifest
from clay_publish.search.reader import open_release

PLACE = "huggingface/clay/shore"
READ = "hf://datasets/clay/shore@v1.0.0"

# How huggingface_hub sends large files without Xet.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture(params=["lfs", "xet"])
def hub(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    (tmp_path / "hub").mkdir()
    with Hub(tmp_path / "hub", xet=request.param == "xet") as running:
        constants = huggingface_hub.constants
        monkeypatch.setattr(constants, "ENDPOINT", running.address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", running.address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", request.param != "xet")
        monkeypatch.setenv("HF_TOKEN", "hf_not_a_real_token")
        monkeypatch.setattr("clay_publish.publish.hub.release.time.sleep", lambda _: None)
        HfFileSystem.clear_instance_cache()
        yield running
        HfFileSystem.clear_instance_cache()


lfs_only = pytest.mark.parametrize("hub", ["lfs"], indirect=True)


def paths(hub: Hub, revision: str) -> set[str]:
    repository = hub.repositories["clay/shore"]
    return set(repository.commits[repository.find(revision) or ""])


def of_version(where: Path, version: str, card: str = "") -> None:
    """Make another version of a release."""
    spec = where / "release.yaml"
    spec.write_text(spec.read_text().replace("version: 1.0.0", f"version: {version}"))
    (where / "README.md").write_text((where / "README.md").read_text() + card)
    write_manifest(Release(str(where)), "test")


def test_the_version_is_one_commit_and_a_tag_and_loads(sample_release: Path, hub: Hub, tmp_path: Path) -> None:
    receipt = send(sample_release, PLACE, create=True)
    assert (receipt.state, receipt.verified, receipt.unknown) == ("published", "checksums", [])
    assert receipt.line.count(hub.address) == 1
    repository = hub.repositories["clay/shore"]
    assert len(repository.log) == 2, "the first commit is the Hub's own"
    assert repository.tags == {"v1.0.0": receipt.commit}
    named = {entry.path for entry in read_manifest(Release(str(sample_release))).files}
    assert paths(hub, "v1.0.0") == named | {
        "manifest.json",
        "SHA256SUMS",
        "1.0.0.validation.json",
        ".gitattributes",
    }
    copy = huggingface_hub.snapshot_download(
        "clay/shore", repo_type="dataset", revision="v1.0.0", local_dir=tmp_path / "copy"
    )
    subprocess.run(["/usr/bin/sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=copy, check=True)
    program = (
        "import sys, datasets\n"
        "print(datasets.load_dataset('clay/shore', revision='v1.0.0', split='train', cache_dir=sys.argv[1]).num_rows)"
    )
    settings = {**os.environ, "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", program, tmp_path / "cache"]
    loaded = subprocess.run(command, env=settings, capture_output=True, text=True, check=True)
    assert loaded.stdout == "121\n"
    assert (hub.received() == 0) == hub.xet, "with Xet, no large file comes by the older way"


def test_the_same_bytes_again_send_nothing_and_are_read_back_in_full(sample_release: Path, hub: Hub) -> None:
    send(sample_release, PLACE, create=True)
    hub.requests.clear()
    receipt = send(sample_release, PLACE, full=True)
    assert (receipt.state, receipt.sent, receipt.verified) == ("unchanged", [], "full")
    assert {method for method, *_ in hub.requests} <= {"GET", "HEAD"}


@lfs_only
def test_other_bytes_under_a_published_version_are_refused_before_anything_is_sent(
    release_copy: Path, hub: Hub
) -> None:
    send(release_copy, PLACE, create=True)
    of_version(release_copy, "1.0.0", card="\nmended\n")
    hub.requests.clear()
    with pytest.raises(PublishError, match=r"v1\.0\.0: holds other bytes \(README\.md.*another version"):
        send(release_copy, PLACE)
    assert not any(method == "PUT" or "/commit/" in path for method, path, _ in hub.requests)


def test_a_new_version_replaces_the_root_and_sends_only_what_is_new(release_copy: Path, hub: Hub) -> None:
    first = send(release_copy, PLACE, create=True)
    (release_copy / "CHANGELOG.md").unlink()
    of_version(release_copy, "1.1.0", card="\nmore\n")
    before = hub.received()
    second = send(release_copy, PLACE)
    assert set(second.sent) == {"README.md", "release.yaml", "manifest.json", "SHA256SUMS"}
    assert hub.received() - before <= second.sent_bytes < first.sent_bytes
    assert second.sent_counts == "whole files"
    assert "4 sent (at most " in second.line
    assert "CHANGELOG.md" not in paths(hub, "v1.1.0")
    assert "CHANGELOG.md" in paths(hub, "v1.0.0")
    assert [v.version for v in versions(PLACE).versions] == ["1.0.0", "1.1.0"]


@lfs_only
def test_what_somebody_else_put_there_is_left_alone_and_reported(sample_release: Path, hub: Hub) -> None:
    send(sample_release, PLACE, create=True, dry_run=True)
    assert hub.repositories == {}
    huggingface_hub.HfApi().create_repo("clay/shore", repo_type="dataset")
    repository = hub.repositories["clay/shore"]
    repository.commit("main", {**repository.commits[repository.refs["main"]], "notes.txt": File(1, None, b"x")})
    assert send(sample_release, PLACE).unknown == ["notes.txt"]
    assert "notes.txt" in paths(hub, "v1.0.0")


@lfs_only
def test_somebody_who_commits_meanwhile_is_not_overwritten(sample_release: Path, hub: Hub) -> None:
    huggingface_hub.HfApi().create_repo("clay/shore", repo_type="dataset")
    repository = hub.repositories["clay/shore"]

    def quicker() -> None:
        repository.commit("main", {**repository.commits[repository.refs["main"]], "theirs": File(1, None, b"x")})

    hub.before_commit = quicker
    with pytest.raises(PublishError, match="was changed by another"):
        send(sample_release, PLACE)
    assert repository.tags == {}
    assert "README.md" not in paths(hub, "main")
    sent = hub.received()
    assert send(sample_release, PLACE).state == "published"
    assert hub.received() == sent, "what had arrived is not sent again"


@lfs_only
@pytest.mark.parametrize(
    ("where", "fault"),
    [
        ("/commit/", "lose the answer"),
        ("/tag/", "lose the answer"),
        ("/preupload/", "status:503"),
        ("/refs", "status:503"),
        ("objects/batch", "reset"),
        ("/lfs/", "status:500"),
    ],
)
def test_what_breaks_once_is_mended_by_the_same_or_the_next_run(
    sample_release: Path, hub: Hub, where: str, fault: str
) -> None:
    hub.faults.append((lambda _, path: where in path, fault))
    try:
        send(sample_release, PLACE, create=True)
    except PublishError:
        assert not any(repository.tags for repository in hub.repositories.values())
        send(sample_release, PLACE, create=True)
    assert hub.faults == []
    repository = hub.repositories["clay/shore"]
    assert repository.tags["v1.0.0"] == repository.refs["main"]
    assert len(repository.log) == 2


def test_too_much_for_one_commit_goes_through_a_pull_request(
    sample_release: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clay_publish.publish.hub.release._FILES_A_COMMIT", 8)
    receipt = send(sample_release, PLACE, create=True)
    repository = hub.repositories["clay/shore"]
    assert receipt.state == "published"
    assert [pr["status"] for pr in repository.pull_requests.values()] == ["merged"]
    assert repository.tags["v1.0.0"] == repository.refs["main"]
    assert len(repository.log) >= 1 + 3 + 1


@lfs_only
def test_limits_are_checked_before_the_first_byte(
    sample_release: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clay_publish.publish.hub.release._FILES_A_FOLDER", 3)
    with pytest.raises(PublishError, match="at most 3 a folder on the Hub"):
        send(sample_release, PLACE, create=True)
    assert hub.requests == []


@lfs_only
def test_a_missing_repository_and_a_refused_account_are_named(sample_release: Path, hub: Hub) -> None:
    with pytest.raises(PublishError, match=r"does not exist.*--create"):
        send(sample_release, PLACE)
    hub.faults.append((lambda _, path: path.endswith("/create"), "status:403"))
    with pytest.raises(PublishError, match=r"refuses this account \(403\).*hf auth login") as caught:
        send(sample_release, PLACE, create=True)
    assert "hf_not_a_real_token" not in str(caught.value)


@pytest.mark.usefixtures("hub")
def test_a_version_is_mirrored_from_the_hub_to_a_directory(sample_release: Path, tmp_path: Path) -> None:
    send(sample_release, PLACE, create=True)
    receipt = send(READ, str(tmp_path / "site"))
    assert receipt.state == "published"
    for entry in read_manifest(Release(str(sample_release))).files:
        data = (tmp_path / "site" / "1.0.0" / entry.path).read_bytes()
        assert hashlib.sha256(data).hexdigest() == entry.sha256


def test_arrays_are_read_from_the_hub_and_mirrored(sample_release: Path, hub: Hub, tmp_path: Path) -> None:
    write_manifest(add_arrays(sample_release), "test")
    send(sample_release, PLACE, create=True)
    stored = paths(hub, "v1.0.0")
    assert arrays_below(sample_release).keys() <= stored
    there, here = (open_release(where).to_xarray() for where in (READ, sample_release))
    box = {"x": slice(442_000, 448_000), "y": slice(4_175_000, 4_169_000)}
    np.testing.assert_array_equal(there.sel(box).embeddings, here.sel(box).embeddings)
    assert np.isfinite(here.sel(box).embeddings.values).any()
    send(READ, str(tmp_path / "site"))
    assert arrays_below(tmp_path / "site" / "1.0.0") == arrays_below(sample_release)
    assert audit(PLACE).faults == []


@lfs_only
def test_a_yanked_version_stays_and_is_marked(sample_release: Path, hub: Hub) -> None:
    send(sample_release, PLACE, create=True)
    before = paths(hub, "v1.0.0")
    marked = yank(PLACE, "1.0.0", "clouds")
    assert marked.latest is None
    assert [v.yanked for v in marked.versions] == ["clouds"]
    assert paths(hub, "v1.0.0") == before
    with pytest.raises(PublishError, match=r"is not published .expected one of 1\.0\.0"):
        yank(PLACE, "2.0.0", "clouds")


def card(hub: Hub, revision: str = "main") -> str:
    repository = hub.repositories["clay/shore"]
    file = repository.commits[repository.find(revision) or ""]["README.md"]
    return (file.data if file.sha256 is None else (hub.folder / file.sha256).read_bytes()).decode()


@lfs_only
def test_an_older_version_gets_a_tag_and_the_root_stays(release_copy: Path, hub: Hub) -> None:
    of_version(release_copy, "1.1.0", card="\nnewer\n")
    send(release_copy, PLACE, create=True)
    head = hub.repositories["clay/shore"].refs["main"]
    spec = release_copy / "release.yaml"
    spec.write_text(spec.read_text().replace("version: 1.1.0", "version: 1.0.1"))
    (release_copy / "README.md").write_text((release_copy / "README.md").read_text().replace("newer", "older"))
    write_manifest(Release(str(release_copy)), "test")
    assert send(release_copy, PLACE).state == "published"
    repository = hub.repositories["clay/shore"]
    assert (repository.refs["main"], set(repository.refs)) == (head, {"main"})
    assert "older" in card(hub, "v1.0.1")
    assert "newer" in card(hub)
    assert [v.version for v in versions(PLACE).versions] == ["1.0.1", "1.1.0"]
    assert send(release_copy, PLACE).state == "unchanged"
    assert repository.refs["main"] == head


@lfs_only
def test_yanking_the_newest_moves_the_root_back_and_undo_forward(release_copy: Path, hub: Hub) -> None:
    send(release_copy, PLACE, create=True)
    of_version(release_copy, "1.1.0", card="\nnewer\n")
    send(release_copy, PLACE)
    repository = hub.repositories["clay/shore"]
    tags = dict(repository.tags)
    found = yank(PLACE, "1.1.0", "shifted by\none pixel")
    assert found.latest == "1.0.0"
    assert "newer" not in card(hub)
    assert "> **Version 1.1.0 was yanked:** shifted by one pixel\n" in card(hub)
    assert card(hub).startswith("---\n"), "the front matter stays first"
    assert yank(PLACE, "1.1.0", "another reason").find("1.1.0").yanked == "shifted by\none pixel"  # type: ignore[union-attr]
    assert send(release_copy, PLACE).state == "unchanged"
    assert [v.yanked for v in versions(PLACE).versions] == [None, "shifted by\none pixel"]
    assert "newer" not in card(hub), "publishing the same version again does not undo a yank"
    of_version(release_copy, "1.2.0")
    (release_copy / "release.yaml").write_text((release_copy / "release.yaml").read_text().replace("1.1.0", "1.2.0"))
    write_manifest(Release(str(release_copy)), "test")
    send(release_copy, PLACE)
    assert "Version 1.1.0 was yanked" in card(hub)
    assert "yanked" not in card(hub, "v1.2.0")
    found = yank(PLACE, "1.1.0", None)
    assert [v.yanked for v in found.versions] == [None, None, None]
    assert "yanked" not in card(hub)
    assert "yanked.json" not in paths(hub, "main")
    assert tags.items() <= repository.tags.items(), "the tags of versions never move"


@lfs_only
def test_a_repository_of_another_release_is_refused(release_copy: Path, hub: Hub) -> None:
    send(release_copy, PLACE, create=True)
    spec = release_copy / "release.yaml"
    name = Release(str(release_copy)).spec().name
    spec.write_text(spec.read_text().replace(f"name: {name}", "name: another").replace("1.0.0", "2.0.0"))
    write_manifest(Release(str(release_copy)), "test")
    before = hub.repositories["clay/shore"].refs["main"]
    with pytest.raises(PublishError, match=f"holds the release {name} .expected another"):
        send(release_copy, PLACE)
    assert hub.repositories["clay/shore"].refs["main"] == before


@lfs_only
def test_foreign_tags_are_ignored(sample_release: Path, hub: Hub) -> None:
    send(sample_release, PLACE, create=True)
    repository = hub.repositories["clay/shore"]
    repository.tags |= {"vision": repository.refs["main"], "v2": repository.refs["main"]}
    assert [v.version for v in versions(PLACE).versions] == ["1.0.0"]


@lfs_only
@pytest.mark.parametrize("place", [PLACE, "hf/clay/shore", "hf://datasets/clay/shore", "hf://clay/shore"])
def test_every_spelling_of_a_repository_names_it(sample_release: Path, hub: Hub, place: str) -> None:  # noqa: ARG001
    send(sample_release, PLACE, create=True)
    assert [v.version for v in versions(place).versions] == ["1.0.0"]


@lfs_only
def test_an_audit_finds_what_differs_on_the_hub(sample_release: Path, hub: Hub) -> None:
    send(sample_release, PLACE, create=True)
    assert audit(PLACE).faults == []
    repository = hub.repositories["clay/shore"]
    commit = repository.tags["v1.0.0"]
    files = dict(repository.commits[commit])
    lost, changed = min(path for path in files if path.startswith("embeddings/")), "gaps.geojson"
    del files[lost]
    files[changed] = File(files[changed].size, None, b"x" * files[changed].size)
    files["extra.txt"] = File(1, None, b"x")
    repository.commits[commit] = files
    found = {(fault.place, fault.fault) for fault in audit(PLACE).faults}
    assert found == {(f"1.0.0/{lost}", "missing"), (f"1.0.0/{changed}", "changed"), ("1.0.0/extra.txt", "surplus")}
