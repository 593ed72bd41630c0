"""A run whose release directory is an object store: the same bytes, killed anywhere, copied to and fro."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fault_proxy import FaultProxy, Request
from s3_servers import S3View

from clay_publish.errors import ReleaseError
from clay_publish.producer.outputs.parts import part_path, write_receipt
from clay_publish.release.directory import MANIFEST, Release
from clay_publish.release.lease import lease
from clay_publish.release.lease import s3 as lease_objects
from clay_publish.release.lease.s3 import Times
from clay_publish.release.manifest import RUN_RECORD, read_manifest, write_manifest
from clay_publish.release.unit_receipts import PartEntry, UnitReceipt, read_receipts

from .places import HASTY, NAMES, download, embeddings_in, reached, receipts_in, upload
from .processes import Program, start
from .scattered import embeddings

Begun = tuple[Path, Path]
Run = Callable[..., Any]


def where(bucket: S3View) -> str:
    return f"s3://{bucket.bucket}/release"


def assert_same(bucket: S3View, undisturbed: Path) -> None:
    assert embeddings_in(bucket) == embeddings(undisturbed)
    for name in NAMES:
        assert bucket.get(f"release/{name}") == (undisturbed / name).read_bytes(), name
    assert not bucket.names("release/.run/attempts/")
    assert not bucket.names("release/.run/parts/18")
    assert not bucket.names("release/.run/probe")
    assert not bucket.uploads()


def until(running: Program, seen: Callable[[], object]) -> None:
    while not seen():
        assert running.process.is_alive(), running.errors.read_text()
        time.sleep(0.005)


@pytest.mark.slow
def test_a_release_on_an_object_store_is_the_same_as_in_a_directory(
    begun: Begun, bucket: S3View, tmp_path: Path, run: Run
) -> None:
    """By the program, from the spec to a valid release; then published from there."""
    spec = Path(shutil.copytree(begun[0].parent, tmp_path / "spec")) / "release.yaml"

    run("run", spec, "--out", where(bucket), "--quiet")
    assert_same(bucket, begun[1])
    run("publish", where(bucket), "--to", tmp_path / "published", "--quiet")
    published = tmp_path / "published" / json.loads(bucket.get("release/manifest.json"))["version"]
    assert embeddings(published) == embeddings(begun[1])


@pytest.mark.slow  # kills of `test_resume`, on an object store
def test_killed_on_an_object_store_it_goes_on_and_what_is_done_is_not_done_again(
    spec: Path, begun: Begun, bucket: S3View
) -> None:
    running = start(spec, where(bucket))
    assert running.kill_when(lambda: bool(bucket.names("release/embeddings")))
    finished = receipts_in(bucket)
    start(spec, where(bucket)).finish()  # at once: it sees that the holder of the lease has died
    assert_same(bucket, begun[1])
    assert finished.items() <= receipts_in(bucket).items()


@pytest.mark.slow
def test_four_shares_at_once_make_the_same_release(spec: Path, begun: Begun, bucket: S3View) -> None:
    workers = [start(spec, where(bucket), HASTY, more=["--unit", f"{number}/4"]) for number in (1, 2, 3, 4)]
    for worker in workers:
        worker.finish()
    assert_same(bucket, begun[1])
    assert len(receipts_in(bucket)) == 4


@pytest.mark.slow
def test_a_run_goes_on_where_it_was_copied_to(spec: Path, begun: Begun, bucket: S3View, tmp_path: Path) -> None:
    first, last = tmp_path / "first", tmp_path / "last"
    assert start(spec, first).kill_when(lambda: any((first / ".run" / "receipts").glob("*.json")))
    upload(first, bucket, "release")
    done = len(receipts_in(bucket))
    running = start(spec, where(bucket))
    assert running.kill_when(lambda: len(receipts_in(bucket)) > done or bucket.names("release/gaps.geojson"))
    download(bucket, "release", last)
    start(spec, last).finish()
    assert embeddings(last) == embeddings(begun[1])
    assert (
        receipts_in(bucket).items()
        <= {
            f"release/.run/receipts/{p.name}": p.read_bytes() for p in (last / ".run" / "receipts").glob("*.json")
        }.items()
    )


def test_a_second_run_is_refused_and_the_holder_named(
    spec: Path, bucket: S3View, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_objects, "TIMES", Times(beat=0.2))
    release = reached(bucket.address, where(bucket))
    with lease(release):
        second = start(spec, where(bucket), HASTY)
        assert second.wait() == 2
    assert f"is being worked on by process {os.getpid()} on " in second.errors.read_text()
    assert not bucket.names("release/.run/receipts/")


@pytest.mark.slow
def test_a_run_that_was_asleep_while_another_took_its_place_stops(spec: Path, begun: Begun, bucket: S3View) -> None:
    slow = f"{HASTY}\nimport time\nfrom clay_publish.producer.execution import local as e\nreal = e.attempt\n"
    slow += "e.attempt = lambda *given: (time.sleep(2), real(*given))[1]"
    first = start(spec, where(bucket), slow)
    until(first, lambda: bucket.names("release/.run/attempts/"))
    pid = first.process.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    second = start(spec, where(bucket), HASTY)
    second.finish()
    os.kill(pid, signal.SIGCONT)
    assert first.wait() == 2
    said = first.errors.read_text()
    assert f"lease lost: process {second.process.pid} on " in said
    assert "Traceback" not in said
    assert embeddings_in(bucket) == embeddings(begun[1])
    assert len(receipts_in(bucket)) == 4


@pytest.mark.slow  # dozens of requests that are waited for and asked again
def test_lost_answers_do_no_harm(spec: Path, begun: Begun, bucket: S3View, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer to the first put of every part, receipt, lease and published file is lost."""
    lost: list[str] = []

    def new(request: Request) -> bool:
        kinds = ("/parts/", "/receipts/", "/leases/", "/embeddings/", "/units.json")
        if request.method != "PUT" or request.path in lost or not any(kind in request.path for kind in kinds):
            return False
        lost.append(request.path)
        return True

    with FaultProxy(bucket.address) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.address)
        proxy.fail(new, "lose the answer", times=1000)
        start(spec, where(bucket)).finish()
    assert len([path for path in lost if "/receipts/" in path]) == 4
    assert len([path for path in lost if "/embeddings/" in path]) == 3
    assert_same(bucket, begun[1])


@pytest.fixture(params=["directory", "object store"])
def release(request: pytest.FixtureRequest, tmp_path: Path) -> Release:
    if request.param == "directory":
        return Release(str(tmp_path / "release"))
    bucket: S3View = request.getfixturevalue("bucket")
    return reached(bucket.address, where(bucket))


def receipt(seconds: float, part: str, error: str | None = None) -> UnitReceipt:
    return UnitReceipt(
        unit="0",
        images=1,
        items=["a"],
        parts={part: PartEntry(sha256="0", rows=1)},
        counts={},
        seconds=seconds,
        device="cpu",
        error=error,
    )


def test_of_two_workers_on_one_unit_the_first_is_believed(release: Release) -> None:
    first = write_receipt(release, receipt(1, "coverage"))
    assert write_receipt(release, receipt(2, "coverage")) == first
    assert read_receipts(release) == {"0": first}


def test_of_many_workers_at_the_same_instant_one_is_believed(release: Release) -> None:
    with ThreadPoolExecutor(8) as pool:
        believed = list(pool.map(lambda number: write_receipt(release, receipt(number, "coverage")), range(8)))
    assert set(map(UnitReceipt.model_dump_json, believed)) == {read_receipts(release)["0"].model_dump_json()}


def test_a_receipt_of_a_failure_gives_way_to_a_better_one_and_not_the_other_way_round(release: Release) -> None:
    write_receipt(release, receipt(1, "coverage", "it rained"))
    good = write_receipt(release, receipt(2, "coverage"))
    assert read_receipts(release) == {"0": good}
    whole = good.model_copy(update={"parts": {}})
    write_receipt(release, whole)
    assert write_receipt(release, receipt(3, "coverage", "it rained")) == read_receipts(release)["0"]
    assert read_receipts(release)["0"] == whole.model_copy(update={"seconds": whole.seconds + good.seconds})


def test_a_receipt_whose_parts_are_gone_gives_way_even_to_a_failure(release: Release) -> None:
    write_receipt(release, receipt(1, "reference"))
    failed = write_receipt(release, receipt(2, "coverage", "it rained"))
    assert read_receipts(release) == {"0": failed}
    assert not release.store.exists(part_path("0", "reference"))


def test_the_manifest_is_made_again_of_receipts_and_footers_alone(begun: Begun, tmp_path: Path) -> None:
    made = Release(str(shutil.copytree(begun[1], tmp_path / "release")))
    before = write_manifest(made, "test")
    document = made.store.read(MANIFEST)
    made.store.remove(RUN_RECORD)
    made.store.remove(MANIFEST)
    assert write_manifest(made, "test") == before
    assert made.store.read(MANIFEST) == document
    assert read_manifest(made).run.coverage["embedded"] == sum(
        entry.rows or 0 for entry in before.files if entry.path.startswith("embeddings/")
    )


def test_a_file_of_another_fingerprint_never_gets_into_a_manifest(begun: Begun, tmp_path: Path) -> None:
    made = Release(str(shutil.copytree(begun[1], tmp_path / "release")))
    record = made.json(RUN_RECORD)
    record["fingerprint"]["encoder_version"] = "another"
    made.store.write(RUN_RECORD, json.dumps(record))
    with pytest.raises(ReleaseError, match=r"18_0.*parquet: was made with another .*encoder_version: 'another' → "):
        write_manifest(made, "test")
