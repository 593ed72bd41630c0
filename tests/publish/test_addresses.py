"""One spelling of an address means one place in every command, and a product's root is not taken for a version."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub
import pytest
from hub_server import File, Hub, Repository
from huggingface_hub import HfFileSystem
from image_server import ImageServer
from s3_servers import send

from clay_publish import ReleaseError, StoreError, open_release, validate_release
from clay_publish.publish import yank
from clay_publish.release.directory import Release
from clay_publish.release.manifest import write_manifest
from clay_publish.storage.address import readable
from clay_publish.storage.http import Head
from clay_publish.storage.store import Store

Run = Callable[..., subprocess.CompletedProcess[str]]


def both_versions(release: Path, place: str) -> None:
    """Publish 1.0.0 and 1.1.0, which differ in their number alone."""
    send(release, place, create=True)
    spec = release / "release.yaml"
    spec.write_text(spec.read_text().replace("version: 1.0.0", "version: 1.1.0"))
    write_manifest(Release(str(release)), "test")
    send(release, place)


@pytest.fixture
def site(release_copy: Path, tmp_path: Path) -> Path:
    both_versions(release_copy, str(tmp_path / "site"))
    return tmp_path / "site"


def test_every_command_refuses_a_root_and_names_its_versions(site: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "points.csv").write_text("lon,lat\n-75.6,37.7\n")
    for command in (
        ("validate", site),
        ("search", site),
        ("sample-points", site, tmp_path / "points.csv", "--out", tmp_path / "out.parquet"),
        ("mirror", site, "--to", tmp_path / "copy"),
        ("publish", site, "--to", tmp_path / "copy"),
        ("diff", site, site / "1.0.0"),
        ("card", site),
        ("explore", site, "--no-browser"),
        ("status", site),
    ):
        said = run(*command, code=2).stderr
        assert "with the versions 1.1.0 latest, 1.0.0" in said, command
        assert f"Use {site}/1.1.0." in said
    assert not (tmp_path / "copy").exists()
    run("validate", site / "1.0.0", "--quiet")


def test_the_folder_of_versions_that_run_makes_is_a_root(sample_release: Path, tmp_path: Path, run: Run) -> None:
    root = tmp_path / "shore"
    for version in ("1.0.0", "1.1.0"):
        shutil.copytree(sample_release, root / version)
    for command in (
        ("validate", root),
        ("search", root),
        ("mirror", root, "--to", tmp_path / "copy"),
        ("status", root),
    ):
        said = run(*command, code=2).stderr
        assert "is the root of the product shore, with the versions 1.1.0 latest, 1.0.0" in said, command
        assert f"Use {root}/1.1.0." in said
    assert open_release(root, version="1.0.0").release.store.where == str(root / "1.0.0")


def test_the_newest_version_that_is_not_yanked_opens(site: Path) -> None:
    assert open_release(site, version="latest").release.store.where == str(site / "1.1.0")
    assert len(open_release(site, version="1.0.0")) == 121
    yank(str(site), "1.1.0", "wrong")
    assert open_release(site, version="latest").release.store.where == str(site / "1.0.0")
    yank(str(site), "1.0.0", "wrong, too")
    for wrong, version in ((site, "latest"), (site, "2.0.0"), (site / "1.0.0", "latest")):
        with pytest.raises(ReleaseError):
            open_release(wrong, version=version)
    for call in (open_release, lambda where: validate_release(Release(str(where)))):
        with pytest.raises(ReleaseError, match=r"1\.1\.0 YANKED: wrong, 1\.0\.0 YANKED"):
            call(site)


def test_a_root_on_a_web_server(site: Path, run: Run) -> None:
    with ImageServer(site) as server:
        assert run("versions", server.url).stdout == "1.1.0 latest\n1.0.0\n"
        assert "with the versions 1.1.0 latest" in run("search", server.url, code=2).stderr
        assert "1.0.0: " in run("validate", f"{server.url}/1.0.0", "--quick").stdout


def test_source_coop_is_the_same_place_for_readers_and_publishers(
    release_copy: Path, bucket: str, run: Run, tmp_path: Path
) -> None:
    place = f"source.coop/{bucket}/shore"
    both_versions(release_copy, place)
    assert run("versions", place).stdout == run("versions", f"s3://{bucket}/shore").stdout == "1.1.0 latest\n1.0.0\n"
    assert "with the versions 1.1.0 latest, 1.0.0" in run("search", place, code=2).stderr
    assert "121 chips" in run("search", f"{place}/1.0.0").stdout
    run("mirror", f"{place}/1.0.0", "--to", tmp_path / "copy", "--quiet")
    assert json.loads(run("audit", place, "--json", "--quiet").stdout)["faults"] == []


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    (tmp_path / "hub").mkdir()
    with Hub(tmp_path / "hub", xet=False) as running:
        template = running.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", running.address)
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        for name, value in (("ENDPOINT", running.address), ("TOKEN", "hf_not_a_real_token")):
            monkeypatch.setenv(f"HF_{name}", value)
        HfFileSystem.clear_instance_cache()
        yield running
        HfFileSystem.clear_instance_cache()


@pytest.mark.usefixtures("hub")
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_a_repository_of_the_hub_by_each_of_its_names(release_copy: Path, run: Run) -> None:
    both_versions(release_copy, "huggingface/clay/shore")
    for root in ("huggingface/clay/shore", "hf/clay/shore", "hf://clay/shore", "hf://datasets/clay/shore"):
        assert run("versions", root).stdout == "1.1.0 latest\n1.0.0\n"
        assert open_release(root).release.spec().version == "1.1.0"
        assert open_release(root, version="latest").release.spec().version == "1.1.0"
        for older in (open_release(f"{root}/1.0.0"), open_release(root, version="1.0.0")):
            assert older.release.spec().version == "1.0.0"
    assert "121 chips" in run("search", "huggingface/clay/shore/1.0.0").stdout


def test_a_repository_stays_at_the_commit_at_which_it_was_opened(hub: Hub) -> None:
    repository = hub.repositories["clay/shore"] = Repository()
    repository.commit("main", {"a.json": File(5, None, b"first"), "below/b.json": File(1, None, b"1")})
    for place in (
        "huggingface/clay/shore",
        "hf://datasets/clay/shore@main",
        f"hf://clay/shore@{repository.refs['main']}",
    ):
        opened = Store(readable(place))
        before = opened.head("a.json")
        assert (before.size, before.strong) == (5, True)
        old = repository.refs["main"]
        repository.commit("main", {"a.json": File(6, None, b"second")})
        assert opened.part("a.json", 1, 5, before.tag) == b"irst"
        assert (opened.read("a.json"), opened.files()) == (b"first", ["a.json", "below/b.json"])
        later = Store(readable("huggingface/clay/shore"))
        assert (later.read("a.json"), later.files()) == (b"second", ["a.json"])
        assert later.head("a.json").tag != before.tag
        repository.refs["main"] = old


def test_a_bucket_of_the_hub_has_no_tags(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {"name": "buckets/clay/shore/a", "size": 5, "type": "file", "xet_hash": "0"}
    monkeypatch.setattr(HfFileSystem, "info", lambda _, path: {entry["name"]: entry}[path])
    assert Store("hf://buckets/clay/shore").head("a") == Head(5, None)


@pytest.mark.parametrize("where", ["hf://", "hf://shore", "hf://datasets/clay", "hf://datasets/clay/shore@"])
def test_addresses_that_name_no_repository_are_refused(where: str) -> None:
    with pytest.raises(StoreError, match="is not an address on the Hub"):
        Store(where).exists("items.parquet")


@pytest.mark.usefixtures("hub")
def test_a_repository_that_does_not_exist() -> None:
    store = Store("hf://datasets/clay/nothing")
    assert not store.exists("items.parquet")
    with pytest.raises(StoreError, match="does not exist"):
        store.files()


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("hf/a/b", "hf://datasets/a/b"),
        ("hf://a/b/1.0.0/items.parquet", "hf://datasets/a/b@v1.0.0/items.parquet"),
        ("hf://models/a/b/x.ckpt", "hf://models/a/b/x.ckpt"),
        ("source.coop/a/b/1.0.0", "https://data.source.coop/a/b/1.0.0"),
        ("https://source.coop/a/b/1.0.0", "https://data.source.coop/a/b/1.0.0"),
        ("./hf/a/b", "./hf/a/b"),
        ("hf-release/1.0.0", "hf-release/1.0.0"),
        ("my-release/1.0.0", "my-release/1.0.0"),
    ],
)
def test_addresses_that_are_read(written: str, read: str) -> None:
    assert readable(written) == read


@pytest.mark.parametrize("written", ["hf", "hf/a", "huggingface/", "source.coop/a"])
def test_a_host_without_a_product_is_refused(written: str) -> None:
    with pytest.raises(StoreError, match=f"For a directory, write ./{written}"):
        readable(written)
