"""Publishing to an S3 server, as source.coop is one."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from threading import Barrier, Thread

import numpy as np
import pytest
from array_copy import add_arrays, arrays_below
from fault_proxy import FaultProxy, Request
from s3_servers import S3View, send, with_client

from clay_publish.errors import PublishError
from clay_publish.publish import PublishReceipt, audit, s3
from clay_publish.publish.package import Package
from clay_publish.release.directory import Release
from clay_publish.release.manifest import FileEntry, read_manifest, write_manifest
from clay_publish.search.reader import open_release
from clay_publish.storage.http import ServerError


def change_card(where: Path) -> None:
    """Another release under the same version."""
    release = Release(str(where))
    release.store.write("README.md", release.store.read("README.md") + b"\nmended\n")
    write_manifest(release, "test")


def journals(where: Path) -> list[Path]:
    return list((where / ".run").glob("publish-*"))


def test_what_arrives_is_what_the_manifest_names_and_the_pointers_come_last(
    sample_release: Path, bucket: str, view: S3View
) -> None:
    receipt = send(sample_release, f"source.coop/{bucket}/shore")
    assert (receipt.state, receipt.verified, receipt.unknown) == ("published", "checksums", [])
    assert receipt.where == f"https://data.source.coop/{bucket}/shore/1.0.0"
    manifest = read_manifest(Release(str(sample_release)))
    prefix = "shore/1.0.0/"
    for entry in manifest.files:
        assert hashlib.sha256(view.get(prefix + entry.path)).hexdigest() == entry.sha256
    named = {prefix + entry.path for entry in manifest.files} | {f"{prefix}manifest.json", f"{prefix}SHA256SUMS"}
    assert set(view.names()) == named | {
        "shore/1.0.0.validation.json",
        "shore/catalog.json",
        "shore/latest.json",
        "shore/README.md",
    }
    catalog = json.loads(view.get("shore/catalog.json"))
    assert catalog["latest"] == "1.0.0"
    assert [link["href"] for link in catalog["links"] if link["rel"] == "child"] == ["./1.0.0/collection.json"]
    assert json.loads(view.get("shore/latest.json")) == {"version": "1.0.0", "href": "./1.0.0/collection.json"}
    assert view.get("shore/README.md") == view.get(f"{prefix}hosts/source.coop/README.md")
    assert journals(sample_release) == []


def test_the_host_checks_each_file_by_the_hash_in_the_manifest(
    sample_release: Path, bucket: str, ministack: str
) -> None:
    send(sample_release, f"s3://{bucket}/shore")
    for entry in read_manifest(Release(str(sample_release))).files:
        key = f"shore/1.0.0/{entry.path}"
        head = with_client(
            ministack, lambda s3, key=key: s3.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
        )
        assert base64.b64decode(head["ChecksumSHA256"]).hex() == entry.sha256


def test_what_the_host_confirmed_is_not_hashed_again(
    large_release: Path, bucket: str, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed, tags, md5 = list[str](), s3._tags, s3.md5

    def tags_of(package: Package, entry: FileEntry) -> object:
        hashed.append(entry.path)
        return tags(package, entry)

    def md5_of(data: bytes = b"") -> object:
        assert data == b""
        return md5()

    monkeypatch.setattr(s3, "_tags", tags_of)
    monkeypatch.setattr(s3, "md5", md5_of)
    proxy.fail(lambda r: r.method == "PUT" and not r.is_part, "confirm", times=1000)
    assert send(large_release, f"s3://{bucket}/shore").state == "published"
    assert any(r.is_completion for r in proxy.requests)
    assert hashed == ["SHA256SUMS"]  # which is written as a document is, and compared at the end


def test_hosts_that_refuse_checksums_get_none(
    large_release: Path, bucket: str, ministack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    assert send(large_release, f"s3://{bucket}/shore").state == "published"
    for path in ("items.parquet", "patches/zone=18/large.parquet"):
        asked = {"Bucket": bucket, "Key": f"shore/1.0.0/{path}", "ChecksumMode": "ENABLED"}
        head = with_client(ministack, lambda client, asked=asked: client.head_object(**asked))
        assert not [name for name in head if name.startswith("Checksum")]


def test_a_completion_that_is_invalid_is_not_tried_again_with_the_same_parts(
    large_release: Path, bucket: str, proxy: FaultProxy, view: S3View
) -> None:
    proxy.fail(lambda r: r.is_completion, "error:400:InvalidRequest")
    with pytest.raises(ServerError, match="InvalidRequest"):
        send(large_release, f"s3://{bucket}/shore")
    assert view.uploads() == []
    assert send(large_release, f"s3://{bucket}/shore", full=True).state == "published"


def test_arrays_are_published_as_files_and_read_from_there(
    sample_release: Path, bucket: str, view: S3View, ministack: str, tmp_path: Path
) -> None:
    write_manifest(add_arrays(sample_release), "test")
    send(sample_release, f"s3://{bucket}/shore")
    store = "shore/1.0.0/arrays/arrays.zarr"
    (shard, *_) = view.names(f"{store}/utm18/embeddings/c/")
    kinds = with_client(
        ministack,
        lambda s3: [
            s3.head_object(Bucket=bucket, Key=key)["ContentType"] for key in (shard, f"{store}/utm18/zarr.json")
        ],
    )
    assert kinds == ["application/octet-stream", "application/json"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("AWS_REGION", "us-west-2")
        there = open_release(f"s3://{bucket}/shore/1.0.0", endpoint_url=ministack).to_xarray()
    here = open_release(sample_release).to_xarray()
    box = {"x": slice(442_000, 448_000), "y": slice(4_175_000, 4_169_000)}
    np.testing.assert_array_equal(there.sel(box).embeddings, here.sel(box).embeddings)
    assert np.isfinite(here.sel(box).embeddings.values).any()
    place = f"s3://{bucket}/shore"
    assert audit(place).faults == []
    send(f"{ministack}/{bucket}/shore/1.0.0", str(tmp_path / "site"))
    assert arrays_below(tmp_path / "site" / "1.0.0") == arrays_below(sample_release)
    with_client(ministack, lambda s3: s3.delete_object(Bucket=bucket, Key=shard))
    assert [(fault.place, fault.fault) for fault in audit(place).faults] == [
        (shard.removeprefix("shore/"), "missing"),
    ]


def test_the_pointer_is_written_after_everything_it_points_to(
    sample_release: Path, bucket: str, proxy: FaultProxy
) -> None:
    send(sample_release, f"s3://{bucket}/shore")
    written = [r.path.partition("?")[0] for r in proxy.requests if r.method == "PUT"]
    names = [path.removeprefix(f"/{bucket}/shore/") for path in written]
    assert names[0] == "1.0.0/SHA256SUMS"
    data = [n for n, name in enumerate(names) if name.endswith(".parquet")]
    documents = [n for n, name in enumerate(names) if n and name.startswith("1.0.0/") and n not in data]
    assert max(data) < min(documents)
    last = ["1.0.0/manifest.json", "1.0.0.validation.json", "catalog.json", "latest.json", "README.md"]
    assert names[-5:] == last


def test_the_same_bytes_again_send_nothing(sample_release: Path, bucket: str, proxy: FaultProxy) -> None:
    send(sample_release, f"s3://{bucket}/shore")
    proxy.requests.clear()
    receipt = send(sample_release, f"s3://{bucket}/shore")
    assert (receipt.state, receipt.sent, receipt.sent_bytes) == ("unchanged", [], 0)
    assert {r.method for r in proxy.requests} == {"GET"}


def test_other_bytes_under_a_published_version_are_refused_before_anything_is_sent(
    release_copy: Path, bucket: str, proxy: FaultProxy
) -> None:
    send(release_copy, f"s3://{bucket}/shore")
    change_card(release_copy)
    proxy.requests.clear()
    with pytest.raises(PublishError, match=r"SHA256SUMS: holds other bytes.*another version"):
        send(release_copy, f"s3://{bucket}/shore")
    assert {r.method for r in proxy.requests} == {"GET"}


def test_of_two_maintainers_with_different_bytes_one_wins_and_the_other_sends_nothing(
    sample_release: Path, release_copy: Path, bucket: str, view: S3View
) -> None:
    change_card(release_copy)
    outcomes: dict[Path, PublishReceipt | PublishError] = {}
    together = Barrier(2)

    def go(where: Path) -> None:
        together.wait()
        try:
            outcomes[where] = send(where, f"s3://{bucket}/shore")
        except PublishError as error:
            outcomes[where] = error

    threads = [Thread(target=go, args=(where,)) for where in (sample_release, release_copy)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [where for where, outcome in outcomes.items() if isinstance(outcome, PublishReceipt)]
    assert len(winners) == 1, outcomes
    for entry in read_manifest(Release(str(winners[0]))).files:
        assert hashlib.sha256(view.get(f"shore/1.0.0/{entry.path}")).hexdigest() == entry.sha256


def test_two_maintainers_with_the_same_bytes_both_succeed(sample_release: Path, bucket: str) -> None:
    receipts: list[PublishReceipt] = []
    threads = [Thread(target=lambda: receipts.append(send(sample_release, f"s3://{bucket}/shore"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(receipts) == 2


@pytest.mark.parametrize(
    ("action", "matches"),
    [
        ("status:503", lambda r: r.is_part),
        ("status:520", lambda r: r.method == "PUT" and r.path.endswith("README.md")),
        ("error:400:RequestTimeout", lambda r: r.is_part),
        ("error:429:TooManyRequests", lambda r: r.method == "PUT"),
        ("reset", lambda r: r.is_part),
        ("reset", lambda r: r.method == "GET"),
        ("flip a bit", lambda r: r.is_part),
        ("flip a bit", lambda r: r.method == "PUT" and r.path.endswith("items.parquet")),
        ("slow:0.2", lambda r: r.is_part),
        ("lose the answer", lambda r: r.is_completion),
        ("lose the answer", lambda r: r.method == "PUT" and not r.is_part),
        ("lose the answer", lambda r: r.method == "PUT" and r.path.endswith("catalog.json")),
    ],
    ids=[
        "503",
        "520",
        "timeout",
        "429",
        "reset part",
        "reset get",
        "flipped part",
        "flipped put",
        "slow",
        "lost completion",
        "lost put",
        "lost pointer",
    ],
)
def test_what_breaks_once_is_done_again_and_nothing_is_lost(
    large_release: Path, bucket: str, proxy: FaultProxy, view: S3View, action: str, matches: object
) -> None:
    proxy.fail(matches, action, times=2)  # type: ignore[arg-type]
    receipt = send(large_release, f"s3://{bucket}/shore", full=True)
    assert (receipt.state, receipt.verified) == ("published", "full")
    assert all(fault.times == 0 for fault in proxy.faults), "the fault never happened"
    assert view.uploads() == []


@pytest.mark.parametrize("part", [True, False], ids=["part", "whole"])
def test_a_bit_that_flips_unseen_is_seen_in_the_answer_and_the_file_is_sent_again(
    large_release: Path, bucket: str, proxy: FaultProxy, view: S3View, *, part: bool
) -> None:
    proxy.fail(
        lambda r: r.is_part if part else r.method == "PUT" and r.path.endswith("items.parquet"), "flip a bit unseen"
    )
    found = "checksum mismatch of part" if part else "arrived as other bytes, and was removed"
    with pytest.raises((ServerError, PublishError), match=found):
        send(large_release, f"s3://{bucket}/shore")
    assert "shore/catalog.json" not in view.names()
    assert send(large_release, f"s3://{bucket}/shore", full=True).state == "published"
    assert view.uploads() == []


def test_a_host_that_is_down_leaves_nothing_visible_and_the_next_try_goes_on(
    large_release: Path, bucket: str, proxy: FaultProxy, view: S3View
) -> None:
    proxy.fail(lambda r: r.is_part and "partNumber=3" in r.path, "status:503", times=1000)
    with pytest.raises(ServerError, match="did not answer 6 times"):
        send(large_release, f"s3://{bucket}/shore")
    assert "shore/catalog.json" not in view.names()
    assert "shore/1.0.0/manifest.json" not in view.names()
    proxy.faults.clear()
    proxy.requests.clear()
    send(large_release, f"s3://{bucket}/shore")
    assert sum(r.is_part for r in proxy.requests) == 1
    assert view.uploads() == []


def test_killed_in_the_middle_only_what_was_in_flight_is_sent_again(
    large_release: Path, bucket: str, proxy: FaultProxy, view: S3View
) -> None:
    proxy.fail(lambda r: r.is_part and "partNumber=2" in r.path, "hold")
    program = textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent.parent / "servers")!r})
        from s3_servers import SMALL_PART, send
        from clay_publish.storage import s3
        s3.PART = SMALL_PART
        send({str(large_release)!r}, "s3://{bucket}/shore")
    """)
    with subprocess.Popen([sys.executable, "-c", program], cwd=large_release, env=os.environ) as publisher:
        assert proxy.held.wait(60)
        while sum(r.is_part for r in proxy.requests) < 3 or not journals(large_release):
            pass
        publisher.kill()
    arrived = journals(large_release)[0].read_text().count('"event":"part"')
    assert "shore/catalog.json" not in view.names()
    proxy.requests.clear()
    receipt = send(large_release, f"s3://{bucket}/shore")
    whole = sum((large_release / path).stat().st_size for path in receipt.sent)
    assert receipt.sent_bytes <= whole - arrived * 3_000_000, "only what this command sent counts"
    parts = sum(r.is_part for r in proxy.requests)
    assert 1 <= parts <= 3 - arrived
    assert view.uploads() == []
    manifest = read_manifest(Release(str(large_release)))
    large = next(e for e in manifest.files if e.path.startswith("patches/"))
    assert hashlib.sha256(view.get(f"shore/1.0.0/{large.path}")).hexdigest() == large.sha256


def test_a_torn_last_line_of_the_journal_is_no_line(
    large_release: Path, bucket: str, proxy: FaultProxy, view: S3View
) -> None:
    proxy.fail(lambda r: r.is_completion, "status:503", times=1000)
    with pytest.raises(ServerError, match="did not answer"):
        send(large_release, f"s3://{bucket}/shore")
    journal = journals(large_release)[0]
    journal.write_bytes(journal.read_bytes() + b'{"event":"part","key":"sho')
    proxy.faults.clear()
    proxy.requests.clear()
    assert send(large_release, f"s3://{bucket}/shore").state == "published"
    assert not any(r.is_part for r in proxy.requests)
    assert view.uploads() == []


def test_an_upload_the_host_has_dropped_is_begun_anew(large_release: Path, bucket: str, proxy: FaultProxy) -> None:
    proxy.fail(lambda r: r.is_completion, "status:503", times=1000)
    with pytest.raises(ServerError, match="did not answer"):
        send(large_release, f"s3://{bucket}/shore")
    proxy.faults.clear()
    proxy.fail(lambda r: r.is_completion, "error:404:NoSuchUpload")
    assert send(large_release, f"s3://{bucket}/shore", full=True).state == "published"


def test_a_journal_that_cannot_be_written_stops_before_data_is_lost(
    large_release: Path, bucket: str, view: S3View, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    monkeypatch.setattr("clay_publish.publish.targets._journal_path", lambda *_: full)
    monkeypatch.setattr("clay_publish.publish.s3.Journal._read", lambda _: None)
    with pytest.raises(PublishError, match=r"cannot be written \(No space left on device\).*resumes"):
        send(large_release, f"s3://{bucket}/shore")
    assert "shore/catalog.json" not in view.names()
    assert view.uploads() == []
    monkeypatch.undo()


def test_a_file_that_changed_after_the_manifest_is_never_completed(
    large_release: Path, bucket: str, view: S3View
) -> None:
    large = large_release / "patches" / "zone=18" / "large.parquet"
    data = bytearray(large.read_bytes())
    data[-1000] ^= 1
    large.write_bytes(data)
    with pytest.raises(PublishError, match="is not the file that the manifest names"):
        send(large_release, f"s3://{bucket}/shore")
    assert "shore/1.0.0/patches/zone=18/large.parquet" not in view.names()
    assert "shore/catalog.json" not in view.names()
    assert view.uploads() == []


def test_bytes_that_changed_on_the_host_are_found_and_never_pointed_to(
    sample_release: Path, bucket: str, view: S3View, proxy: FaultProxy
) -> None:
    proxy.fail(lambda r: r.method == "PUT" and r.path.endswith("manifest.json"), "status:503", times=1000)
    with pytest.raises(ServerError, match="did not answer"):
        send(sample_release, f"s3://{bucket}/shore")
    key = "shore/1.0.0/gaps.geojson"
    view.put(key, view.get(key)[::-1])
    proxy.faults.clear()
    with pytest.raises(PublishError, match=r"gaps.geojson: holds other bytes"):
        send(sample_release, f"s3://{bucket}/shore")
    assert "shore/catalog.json" not in view.names()


def test_what_the_manifest_does_not_name_is_reported(sample_release: Path, bucket: str, view: S3View) -> None:
    view.put("shore/1.0.0/notes.txt", b"mine")
    receipt = send(sample_release, f"s3://{bucket}/shore")
    assert receipt.unknown == ["notes.txt"]
    assert "NOT in the manifest: notes.txt" in receipt.line


def test_foreign_files_in_the_place_of_ours_are_refused_before_anything_is_sent(
    sample_release: Path, bucket: str, view: S3View, proxy: FaultProxy
) -> None:
    data = (sample_release / "gaps.geojson").read_bytes()
    view.put("shore/1.0.0/gaps.geojson", data[::-1])
    with pytest.raises(PublishError, match=r"gaps.geojson: holds other bytes"):
        send(sample_release, f"s3://{bucket}/shore")
    assert {r.method for r in proxy.requests} == {"GET"}


def test_a_dry_run_sends_nothing_and_says_what_it_would(
    sample_release: Path, bucket: str, proxy: FaultProxy, view: S3View
) -> None:
    receipt = send(sample_release, f"s3://{bucket}/shore", dry_run=True)
    assert receipt.state == "dry run"
    assert (
        receipt.sent_bytes == receipt.size == sum(p.stat().st_size for p in map(sample_release.joinpath, receipt.sent))
    )
    (probe,) = (r for r in proxy.requests if r.method != "GET")
    assert "/shore/.preflight-" in probe.path, "a put on a condition that nothing meets"
    assert view.names() == []


def test_a_new_version_copies_on_the_host_what_did_not_change(
    release_copy: Path, bucket: str, proxy: FaultProxy, view: S3View
) -> None:
    first = send(release_copy, f"s3://{bucket}/shore")
    spec = release_copy / "release.yaml"
    spec.write_text(spec.read_text().replace("version: 1.0.0", "version: 1.1.0"))
    write_manifest(Release(str(release_copy)), "test")
    proxy.requests.clear()
    second = send(release_copy, f"s3://{bucket}/shore", full=True)
    assert set(second.sent) == {"release.yaml", "manifest.json", "SHA256SUMS"}
    assert second.sent_bytes < first.sent_bytes / 10
    sent = sum(r.size for r in proxy.requests if r.method == "PUT")
    assert sent < first.sent_bytes / 5
    catalog = json.loads(view.get("shore/catalog.json"))
    assert [link["version"] for link in catalog["links"] if link["rel"] == "child"] == ["1.1.0", "1.0.0"]
    assert catalog["latest"] == "1.1.0"


def test_where_the_host_cannot_copy_the_file_is_sent(release_copy: Path, bucket: str, proxy: FaultProxy) -> None:
    send(release_copy, f"s3://{bucket}/shore")
    spec = release_copy / "release.yaml"
    spec.write_text(spec.read_text().replace("version: 1.0.0", "version: 1.1.0"))
    write_manifest(Release(str(release_copy)), "test")

    def copies(request: Request) -> bool:
        return request.method == "PUT" and request.size == 0 and "1.1.0" in request.path

    proxy.fail(copies, "error:501:NotImplemented", times=1000)
    receipt = send(release_copy, f"s3://{bucket}/shore")
    assert receipt.copied == []
    assert len(receipt.sent) == receipt.files


def test_expired_credentials_are_renewed_from_the_chain(
    large_release: Path, bucket: str, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    count = tmp_path / "asked"
    process = tmp_path / "credentials.py"
    process.write_text(
        f"import json, pathlib\nasked = pathlib.Path({str(count)!r})\n"
        "asked.write_text(asked.read_text() + 'x' if asked.exists() else 'x')\n"
        "print(json.dumps({'Version': 1, 'AccessKeyId': 'a', 'SecretAccessKey': 'b', 'SessionToken': 'c'}))\n"
    )
    (tmp_path / "aws-config").write_text(f"[default]\ncredential_process = {sys.executable} {process}\n")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    proxy.fail(lambda r: r.is_part, "error:400:ExpiredToken")
    assert send(large_release, f"s3://{bucket}/shore").state == "published"
    assert len(count.read_text()) >= 2


def test_credentials_that_stay_expired_are_named_and_nothing_is_printed_of_them(
    sample_release: Path, bucket: str, proxy: FaultProxy
) -> None:
    proxy.fail(lambda r: r.method == "PUT", "error:403:ExpiredToken", times=1000)
    with pytest.raises(ServerError, match="the AWS credentials have expired") as caught:
        send(sample_release, f"s3://{bucket}/shore")
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in str(caught.value)


def test_a_wrong_clock_is_named(sample_release: Path, bucket: str, proxy: FaultProxy) -> None:
    proxy.fail(lambda r: r.method == "PUT", "error:403:RequestTimeTooSkewed", times=1000)
    with pytest.raises(ServerError, match="clock of this machine is wrong"):
        send(sample_release, f"s3://{bucket}/shore")


def test_no_credentials_at_all_is_one_clear_error(
    sample_release: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(ServerError, match="no AWS credentials found"):
        send(sample_release, f"s3://{bucket}/shore")


def test_a_bucket_that_is_not_there_is_named(sample_release: Path, bucket: str) -> None:
    with pytest.raises(ServerError, match="NoSuchBucket"):
        send(sample_release, f"s3://{bucket}-not/shore")
