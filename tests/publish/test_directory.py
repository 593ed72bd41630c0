"""Publishing to a directory, and what is the same for every place: what may go out, and which versions there are."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from array_copy import add_arrays
from s3_servers import send

from clay_publish.errors import LicenseError, PublishError, StoreError
from clay_publish.publish import audit, publish_release, versions, yank
from clay_publish.publish.targets import bucket_at, check_target
from clay_publish.release.directory import Release
from clay_publish.release.findings import Finding, Severity, ValidationReport
from clay_publish.release.geoparquet import write_table
from clay_publish.release.manifest import dump_json, read_manifest, write_manifest
from clay_publish.release.versions import Version
from clay_publish.storage.range_cache import RangeCache, user_cache


def of_version(where: Path, version: str) -> None:
    spec = where / "release.yaml"
    document = yaml.safe_load(spec.read_text())
    spec.write_text(yaml.safe_dump({**document, "version": version}))
    write_manifest(Release(str(where)), "test")


def test_a_directory_gets_what_a_bucket_gets(sample_release: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    receipt = send(sample_release, site.as_uri())
    assert (receipt.state, receipt.where) == ("published", str(site / "1.0.0"))
    subprocess.run(["/usr/bin/sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=site / "1.0.0", check=True)
    beside = {"catalog.json", "latest.json", "README.md", "1.0.0.validation.json"}
    assert {p.name for p in site.iterdir()} == {"1.0.0", *beside}
    assert not list(site.rglob(".tmp-*"))
    assert not (site / "1.0.0" / ".run").exists()
    assert send(sample_release, str(site)).state == "unchanged"


def test_the_report_beside_a_version_names_no_place_of_this_machine(sample_release: Path, tmp_path: Path) -> None:
    release = Release(str(sample_release))
    finding = Finding(
        code="VEC001",
        severity=Severity.WARNING,
        where=f"{release.store.where}/items.parquet: row 1",
        found=f"differs from {release.store.where}",
        expected="",
        fix=f"`clay-publish validate {release.store.where}`",
    )
    checked = {"VEC001": "failed", "INT001": f"not checked: {release.store.where}/x cannot be read"}
    report = ValidationReport(where=release.store.where, findings=[finding], checked=checked)
    for _ in range(2):
        publish_release(release, str(tmp_path / "site"), report, allow_unchecked=True)
    text = (tmp_path / "site" / "1.0.0.validation.json").read_text()
    assert release.store.where not in text
    published = json.loads(text)
    assert (published["where"], published["name"]) == ("./1.0.0", release.spec().name)
    assert published["findings"][0]["where"] == "items.parquet: row 1"
    assert published["checked"]["INT001"] == "not checked: x cannot be read"
    assert published["manifest_sha256"] == versions(str(tmp_path / "site")).versions[0].manifest_sha256


def test_other_bytes_under_a_published_version_are_refused(release_copy: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    send(release_copy, str(site))
    before = {p: p.read_bytes() for p in site.rglob("*") if p.is_file()}
    (release_copy / "README.md").write_text("other")
    write_manifest(Release(str(release_copy)), "test")
    with pytest.raises(PublishError, match="holds other bytes"):
        send(release_copy, str(site))
    assert {p: p.read_bytes() for p in site.rglob("*") if p.is_file()} == before


def test_what_was_damaged_there_is_found(sample_release: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    send(sample_release, str(site))
    data = bytearray((site / "1.0.0" / "items.parquet").read_bytes())
    data[len(data) // 2] ^= 1
    (site / "1.0.0" / "items.parquet").write_bytes(data)
    with pytest.raises(PublishError, match=r"items\.parquet: holds other bytes"):
        send(sample_release, str(site))


def test_a_new_version_shares_what_did_not_change(release_copy: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    send(release_copy, str(site))
    of_version(release_copy, "1.0.1")
    receipt = send(release_copy, str(site))
    assert set(receipt.sent) == {"SHA256SUMS", "manifest.json", "release.yaml"}
    embeddings = Release(str(release_copy)).data_files()[0]
    assert (site / "1.0.0" / embeddings).stat().st_ino == (site / "1.0.1" / embeddings).stat().st_ino


def test_arrays_of_a_new_version_share_what_did_not_change(release_copy: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    write_manifest(add_arrays(release_copy), "test")
    send(release_copy, str(site))
    of_version(release_copy, "1.0.1")
    root = release_copy / "arrays" / "arrays.zarr" / "zarr.json"
    root.write_text(root.read_text().replace('"version":"1.0.0"', '"version":"1.0.1"'))
    write_manifest(Release(str(release_copy)), "test")
    sent = set(send(release_copy, str(site)).sent)
    assert sent == {"SHA256SUMS", "manifest.json", "release.yaml", "arrays/arrays.zarr/zarr.json"}
    (shard,) = (site / "1.0.0").glob("arrays/arrays.zarr/utm18/embeddings/c/*/*/*/*")
    assert shard.stat().st_ino == (site / "1.0.1" / shard.relative_to(site / "1.0.0")).stat().st_ino
    flipped = bytearray(shard.read_bytes())
    flipped[len(flipped) // 2] ^= 1
    shard.chmod(0o644)
    shard.write_bytes(flipped)
    faults = {(fault.place, fault.fault) for fault in audit(str(site)).faults}
    path = shard.relative_to(site / "1.0.0").as_posix()
    assert faults == {(f"{version}/{path}", "changed") for version in ("1.0.0", "1.0.1")}


def test_no_room_on_the_disk_leaves_nothing_half_written(sample_release: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    program = (
        "import resource, sys; sys.path.insert(0, sys.argv[1]); from s3_servers import send\n"
        "from clay_publish.errors import PublishError; import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "try: send(sys.argv[2], sys.argv[3])\n"
        "except PublishError as error: print(error)\n"
    )
    servers = Path(__file__).parents[1] / "servers"
    made = subprocess.run(
        [sys.executable, "-c", program, servers, sample_release, site], capture_output=True, text=True, check=True
    )
    assert "cannot be written (File too large)" in made.stdout
    assert not (site / "catalog.json").exists()
    assert not list(site.rglob(".tmp-*"))
    assert send(sample_release, str(site)).state == "published"


def test_what_a_killed_publisher_left_is_removed_by_the_next(sample_release: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    program = (
        "import os, signal, sys; sys.path.insert(0, sys.argv[1]); from s3_servers import send\n"
        "from clay_publish.publish.package import Package\n"
        "pieces = Package.pieces\n"
        "def killed(self, entry, size):\n"
        "    yield next(pieces(self, entry, 100))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "Package.pieces = killed\n"
        "send(sys.argv[2], sys.argv[3])\n"
    )
    servers = Path(__file__).parents[1] / "servers"
    made = subprocess.run([sys.executable, "-c", program, servers, sample_release, site], check=False)
    assert made.returncode == -signal.SIGKILL
    assert list(site.rglob(".tmp-*"))
    assert send(sample_release, str(site)).state == "published"
    assert not list(site.rglob(".tmp-*"))


def test_what_does_not_validate_is_not_published(sample_release: Path, tmp_path: Path) -> None:
    release = Release(str(sample_release))
    wrong = Finding(code="X001", severity=Severity.ERROR, where="a", found="b", expected="c", fix="d")
    for report, message in (
        (ValidationReport(where=release.store.where, findings=[wrong], checked={}), r"does not validate \(X001 a: b\)"),
        (ValidationReport(where="/elsewhere", findings=[], checked={}), "comes with the report of /elsewhere"),
    ):
        with pytest.raises(PublishError, match=message):
            publish_release(release, str(tmp_path / "site"), report)
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize("code", ["INT004", "COV001", "PRV009"])
def test_what_was_not_checked_is_not_published_unless_allowed(sample_release: Path, tmp_path: Path, code: str) -> None:
    release = Release(str(sample_release))
    report = ValidationReport(
        where=release.store.where, findings=[], checked={code: "not checked: why", "RDR004": "passed"}
    )
    with pytest.raises(PublishError, match=rf"not fully validated \({code} not checked: why\).*--allow-unchecked"):
        publish_release(release, str(tmp_path / "site"), report)
    assert not (tmp_path / "site").exists()
    assert publish_release(release, str(tmp_path / "site"), report, allow_unchecked=True).state == "published"


def test_unknown_terms_stop_it_unless_there_is_a_reason_which_is_published(release_copy: Path, tmp_path: Path) -> None:
    release = Release(str(release_copy))
    table = release.parquet("sources.parquet").read()
    place = table.schema.get_field_index("license")
    unknown = table.set_column(place, table.schema.field("license"), pa.nulls(table.num_rows, pa.string()))
    write_table(release.store, "sources.parquet", unknown)
    write_manifest(release, "test")
    site = tmp_path / "site"
    for force in (None, " "):
        with pytest.raises(LicenseError, match=r"the terms of use are not known.*--force"):
            send(release_copy, str(site), force=force)
    assert not site.exists()
    send(release_copy, str(site), force="our own flight")
    link = next(x for x in json.loads((site / "catalog.json").read_text())["links"] if x["rel"] == "child")
    assert link["notes"].endswith("are not known: our own flight")


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", ".run/run.json", "a/../../b"])
def test_a_manifest_that_names_what_must_not_leave_is_refused(release_copy: Path, tmp_path: Path, path: str) -> None:
    manifest = read_manifest(Release(str(release_copy)))
    document = json.loads((release_copy / "manifest.json").read_text())
    document["files"].append({"path": path, "size": 1, "sha256": "0" * 64})
    (release_copy / "manifest.json").write_text(dump_json(document))
    with pytest.raises((PublishError, OSError), match=r"not a safe path|files that are published"):
        send(release_copy, str(tmp_path / "site"))
    assert manifest.files
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("ftp://host/x", "is not a supported publish target"),
        ("source.coop", "names no product"),
        ("source.coop/only-one", "names no product"),
        ("huggingface", "names no repository"),
        ("hf://datasets/a/b/c", "names no repository"),
        ("hf://models/a", "is not a dataset repository"),
        ("hf://models/a/b", "is not a dataset repository"),
        ("s3://", "names no bucket"),
        ("s3:///prefix", "names no bucket"),
        ("s3://key:secret@bucket/prefix", "has credentials in its address"),
        ("file://", "names no directory"),
        ("file://elsewhere/data", "names no directory"),
        ("file:///dev/null/x", "is not a directory"),
        ("sourcecoop/a/b", "Did you mean source.coop"),
    ],
)
def test_a_place_that_is_none_is_named(sample_release: Path, target: str, message: str) -> None:
    for refuse in (send, lambda where, to: check_target(to, Release(str(where)))):
        with pytest.raises((PublishError, StoreError), match=message):
            refuse(sample_release, target)


def test_a_target_is_what_the_spec_names(release_copy: Path) -> None:
    spec = release_copy / "release.yaml"
    spec.write_text(spec.read_text().replace("publish: {}", "publish: {source_coop: a/b, hugging_face: c/d}"))
    for target in ("huggingface", "hf", "source.coop", "hf://datasets/a/b", "s3://bucket", "./new", "file:///new"):
        check_target(target, Release(str(release_copy)))


def test_a_user_without_a_home_has_no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CLAY_PUBLISH_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert user_cache() == tmp_path / ".cache/clay-publish"
    assert RangeCache.of_user() is not None

    def no_home() -> Path:
        raise RuntimeError

    monkeypatch.setattr(Path, "home", no_home)
    assert (user_cache(), RangeCache.of_user()) == (None, None)
    with pytest.raises(PublishError, match=r"no folder for the journal.*Set XDG_CACHE_HOME"):
        bucket_at("s3://bucket/prefix")


def test_latest_is_the_highest_version_that_was_not_yanked(release_copy: Path, tmp_path: Path) -> None:
    site = str(tmp_path / "site")
    for version in ("1.0.0", "1.10.0", "1.9.0", "2.0.0-rc.1"):
        of_version(release_copy, version)
        send(release_copy, site)
    assert versions(site).latest == "1.10.0"
    marked = yank(site, "1.10.0", "wrong offsets in March")
    assert marked.latest == versions(site).latest == "1.9.0"
    assert json.loads((tmp_path / "site" / "latest.json").read_text())["version"] == "1.9.0"
    titles = [x.get("title") for x in json.loads((tmp_path / "site" / "catalog.json").read_text())["links"]]
    assert any(title and title.endswith("1.10.0 (yanked)") for title in titles)
    assert (tmp_path / "site" / "1.10.0" / "manifest.json").exists()
    with pytest.raises(PublishError, match="without a reason"):
        yank(site, "1.9.0", "")


def test_the_catalog_of_versions_is_valid_stac(sample_release: Path, tmp_path: Path) -> None:
    import pystac

    send(sample_release, str(tmp_path / "site"))
    catalog = pystac.Catalog.from_file(str(tmp_path / "site" / "catalog.json"))
    catalog.validate()
    assert [child.id for child in catalog.get_children()] == ["my-first-release"]


def test_a_catalog_of_somebody_else_is_not_overwritten(sample_release: Path, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "catalog.json").write_text('{"hello": 1}')
    with pytest.raises(PublishError, match="is not a catalog of versions"):
        send(sample_release, str(tmp_path / "site"))
    assert os.listdir(tmp_path / "site") == ["catalog.json"]  # noqa: PTH208


def test_versions_are_ordered_as_semver_says() -> None:
    ordered = ["1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1"]
    ordered += ["1.0.0", "1.2.0", "1.10.0"]
    assert sorted(ordered[4:] + ordered[:4], key=Version.parse) == ordered
