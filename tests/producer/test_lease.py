"""Who may work on a release at the same time, in a directory and on an object store."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_proxy import FaultProxy
from s3_servers import S3View, start_rclone

from clay_publish.errors import LockedError, SpecError, StoreError
from clay_publish.release.directory import Release
from clay_publish.release.lease import lease
from clay_publish.release.lease import s3 as lease_objects
from clay_publish.release.lease.base import LEASES, Share
from clay_publish.release.lease.s3 import Times
from clay_publish.storage.store import Store

from .places import reached


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_objects, "TIMES", Times(beat=0.1, timeout=0.5))


@pytest.fixture
def there(bucket: S3View) -> Release:
    return reached(bucket.address, f"s3://{bucket.bucket}/release")


@pytest.fixture(params=["directory", "object store"])
def release(request: pytest.FixtureRequest, tmp_path: Path) -> Release:
    if request.param == "directory":
        return Release(str(tmp_path / "release"))
    found: Release = request.getfixturevalue("there")
    return found


def refused(release: Release, share: Share | None) -> str:
    with pytest.raises(LockedError) as caught, lease(release, share):
        pass
    return str(caught.value)


def test_a_whole_run_keeps_out_everybody(release: Release) -> None:
    with lease(release) as held:
        assert "is being worked on by process " in refused(release, None)
        assert "is being worked on by process " in refused(release, Share(1, 2))
        held.check()
    with lease(release):
        pass


def test_shares_of_one_count_work_side_by_side_and_keep_out_the_others(release: Release) -> None:
    with lease(release, Share(1, 4)), lease(release, Share(2, 4)):
        assert "(share 1/4): is being worked on by process " in refused(release, Share(1, 4))
        assert "is being worked on by process " in refused(release, Share(3, 8))
        assert "is being worked on by process " in refused(release, None)
    with lease(release, Share(3, 8)):
        pass


@pytest.mark.parametrize("text", ["0/4", "5/4", "4", "1/0", "-1/4", "1/4/2", "a/b", ""])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="N/M with N from 1 to M"):
        Share.parse(text)


def test_a_share_is_written_as_it_is_read() -> None:
    assert str(Share.parse("2/4")) == "2/4"


def left(there: Release, name: str = "whole") -> None:
    """A lease that somebody left behind on another machine."""
    said = {"holder": "process 7 on far-away", "run": "theirs", "process": None, "beat": 3, "free": False}
    there.store.write(f"{LEASES}/{name}.json", json.dumps(said))


def state(there: Release, name: str = "whole") -> dict[str, Any]:
    found = there.store.read_tagged(f"{LEASES}/{name}.json")
    assert found is not None
    document: dict[str, Any] = json.loads(found[0])
    return document


@pytest.mark.parametrize("name", ["whole", "1-of-2", "5-of-9"])
def test_a_lease_of_a_machine_that_died_is_taken_over(there: Release, name: str) -> None:
    left(there, name)
    with lease(there, Share(1, 2)) as held:
        held.check()
        now = state(there, name)
        assert now["run"] != "theirs"
        assert "far-away" not in now["holder"]


def test_a_lost_lease_names_its_new_owner(there: Release) -> None:
    with lease(there) as held:
        left(there)
        with pytest.raises(LockedError, match=r"lease lost: process 7 on far-away"):
            list(iter(held.check, "never"))
    assert state(there)["run"] == "theirs"  # not given back by who has it no more


def test_a_lease_that_cannot_be_given_back_hides_no_error(there: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    def put(_: Store, path: str, *__: object) -> str:
        raise StoreError(path, "cannot be reached")

    def fail() -> None:
        monkeypatch.setattr(Store, "put", put)
        raise LookupError("first")

    with pytest.raises(LookupError, match="first"), lease(there):
        fail()


def test_lost_answers_to_signs_of_life_lose_no_lease(bucket: S3View) -> None:
    with FaultProxy(bucket.address) as proxy:
        there = reached(proxy.address, f"s3://{bucket.bucket}/lossy")
        proxy.fail(lambda r: r.method == "PUT" and "/leases/" in r.path, "lose the answer", times=3)
        with lease(there) as held:
            while state(there)["beat"] < 4:
                held.check()
    assert state(reached(bucket.address, there.store.where))["free"]


@pytest.fixture(scope="module")
def without_conditions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from start_rclone(tmp_path_factory.mktemp("rclone"))


def test_a_server_without_conditions_is_refused(without_conditions: str) -> None:
    there = reached(without_conditions, "s3://clay/release")
    with pytest.raises(StoreError, match="ignores conditional writes"), lease(there):
        pass
    assert there.store.files() == []


def test_what_is_no_lease_is_named(there: Release) -> None:
    there.store.write(f"{LEASES}/whole.json", "{}")
    with pytest.raises(StoreError, match=r"whole\.json: is not a lease"), lease(there):
        pass


def test_a_place_that_is_neither_a_directory_nor_s3_is_refused() -> None:
    with pytest.raises(StoreError, match="cannot be written to"), lease(Release("http://127.0.0.1:9/release")):
        pass
