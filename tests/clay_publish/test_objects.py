"""Writing to a real object store: on conditions, in parts, with answers that get lost."""

import os
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fault_proxy import FaultProxy, Request
from s3_servers import KEY, SECRET, SMALL_PART, S3View, start_ministack, with_client

from clay_publish import windows
from clay_publish.errors import ImageryError
from clay_publish.producer.imagery.raster import open_bands
from clay_publish.producer.imagery.remote import SourceChangedError
from clay_publish.producer.sources.item import BandFile
from clay_publish.storage import s3
from clay_publish.storage.http import ServerError
from clay_publish.storage.retry import RetryPolicy
from clay_publish.storage.s3 import S3Client
from clay_publish.storage.store import Store

IMAGERY = Path(windows.__file__).parent / "sample" / "imagery"
LARGE = os.urandom(2 * SMALL_PART + 7)


@pytest.fixture(scope="module")
def ministack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from start_ministack(tmp_path_factory.mktemp("objects"))


@pytest.fixture
def view(ministack: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> S3View:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setattr(s3, "PART", SMALL_PART)
    found = S3View(ministack, f"o{abs(hash(request.node.nodeid)):x}")
    place = {"LocationConstraint": "us-west-2"}
    with_client(ministack, lambda client: client.create_bucket(Bucket=found.bucket, CreateBucketConfiguration=place))
    return found


@pytest.fixture
def proxy(ministack: str) -> Iterator[FaultProxy]:
    with FaultProxy(ministack) as running:
        yield running


def opened(address: str, view: S3View) -> Store:
    return Store(f"s3://{view.bucket}/p", endpoint_url=address, key=KEY, secret=SECRET)


@pytest.fixture
def store(view: S3View) -> Store:
    return opened(view.address, view)


def test_only_the_first_creates(store: Store) -> None:
    assert store.create("a", b"mine")
    assert not store.create("a", b"yours")
    assert store.create("a", b"mine")  # as after a lost answer
    assert store.read("a") == b"mine"


def test_a_file_is_replaced_only_by_who_has_seen_it(store: Store) -> None:
    first = store.put("a", b"1", None)
    assert first is not None
    assert store.read_tagged("a") == (b"1", first)
    second = store.put("a", b"2", first)
    assert second not in {None, first}
    assert store.put("a", b"3", first) is None
    assert store.read("a") == b"2"
    assert store.put("nothing", b"3", first) is None
    assert store.read_tagged("nothing") is None


def test_what_others_write_is_seen_at_once(store: Store, view: S3View) -> None:
    assert store.files() == []
    assert not store.exists("a")
    view.put("p/a", b"1")
    assert store.files() == ["a"]
    assert store.size("a") == 1
    view.put("p/a", b"22")
    assert store.size("a") == 2
    store.remove("a")
    store.remove("a")
    assert view.names() == []


def test_objects_are_listed_page_by_page(store: Store, view: S3View, monkeypatch: pytest.MonkeyPatch) -> None:
    pages, real = list[int](), S3Client.call

    def call(self: S3Client, operation: str, path: str | None, **more: Any) -> Any:
        page = real(self, operation, path, **more, **({"MaxKeys": 2} if operation == "list_objects_v2" else {}))
        pages.append(len(page.get("Contents", [])))
        return page

    for name in "abcde":
        view.put(f"p/{name}", b"1")
    monkeypatch.setattr(S3Client, "call", call)
    found = store.each_file()
    assert next(found) == "a"
    assert pages == [2]
    assert list(found) == ["b", "c", "d", "e"]
    assert pages == [2, 2, 1]


@pytest.mark.parametrize("data", [b"small", LARGE], ids=["in one piece", "in parts"])
def test_a_file_takes_the_place_of_another(data: bytes, store: Store, view: S3View) -> None:
    view.put("p/a", b"of before")
    for _ in range(2):
        with store.writer("a") as file:
            file.write(data)
        assert view.get("p/a") == data
    with pytest.raises(RuntimeError), store.writer("a") as file:  # noqa: PT012 - an error in the middle is the point
        file.write(b"half")
        raise RuntimeError
    assert view.get("p/a") == data
    assert view.uploads() == []
    assert store.mapped("a").read() == data


def test_several_files_may_be_open_at_a_time(store: Store) -> None:
    with store.writer("a") as first:
        first.write(b"one, ")
        with pytest.raises(RuntimeError), store.writer("lost") as lost:  # noqa: PT012 - the second context is the point
            lost.write(b"half")
            raise RuntimeError
        with store.writer("b") as second:
            second.write(b"two")
        first.write(b"three")
    assert store.files() == ["a", "b"]
    assert store.read("a") == b"one, three"
    assert store.read("b") == b"two"


LOST: dict[str, Callable[[Request], bool]] = {
    "put": lambda request: request.method == "PUT" and not request.is_part,
    "part": lambda request: request.is_part,
    "completion": lambda request: request.is_completion,
}


@pytest.mark.parametrize(
    ("kind", "action"),
    [
        ("put", "lose the answer"),
        ("put", "reset"),
        ("put", "status:503"),
        ("part", "lose the answer"),
        ("completion", "lose the answer"),
    ],
)
def test_a_put_that_goes_wrong_on_the_way_is_done_all_the_same(
    kind: str, action: str, view: S3View, proxy: FaultProxy
) -> None:
    store = opened(proxy.address, view)
    proxy.fail(LOST[kind], action)
    data = b"small" if kind == "put" else LARGE
    if kind == "put":
        assert store.create("a", data)
    else:
        store.write("a", data)
    assert proxy.faults[0].times == 0
    assert view.get("p/a") == data
    assert view.uploads() == []


@pytest.mark.parametrize("status", [403, 404])
def test_a_refusal_is_no_reason_to_try_again(status: int, view: S3View, proxy: FaultProxy) -> None:
    store = opened(proxy.address, view)
    code = {403: "AccessDenied", 404: "NoSuchBucket"}[status]
    proxy.fail(lambda request: request.method == "PUT", f"error:{status}:{code}", times=9)
    with pytest.raises(ServerError, match=r"p/a: "):
        store.create("a", b"1")
    assert len([request for request in proxy.requests if request.method == "PUT"]) == 1


def test_uploads_of_writers_that_died_are_given_up_below_the_release_alone(store: Store, view: S3View) -> None:
    def begin(key: str) -> None:
        with_client(view.address, lambda client: client.create_multipart_upload(Bucket=view.bucket, Key=key))

    for key in ("p/embeddings/a", "p/b", "pp/c", "q/d"):
        begin(key)
    assert store.remove_orphans("embeddings") == ["embeddings/a"]
    assert store.remove_orphans() == ["b"]
    assert sorted(view.uploads()) == ["pp/c", "q/d"]


def test_an_upload_given_up_while_its_writer_lives_begins_again(store: Store, view: S3View) -> None:
    given_up = []
    with pytest.MonkeyPatch.context() as patch:
        begin = S3Client.begin

        def begin_and_lose(client: S3Client, path: str) -> str:
            upload = begin(client, path)
            if not given_up:
                given_up.extend(store.remove_orphans())
            return upload

        patch.setattr(S3Client, "begin", begin_and_lose)
        store.write("a", LARGE)
    assert given_up == ["a"]
    assert view.get("p/a") == LARGE
    assert view.uploads() == []


def test_images_are_read_from_a_bucket(view: S3View, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", view.address)
    path = min(IMAGERY.glob("*.tif"))
    view.put("a.tif", path.read_bytes())
    address = f"s3://{view.bucket}/a.tif"

    def band(href: str) -> BandFile:
        return BandFile("red", "red", href, 1, None)

    with open_bands([band(address)], None) as (there,), open_bands([band(str(path))], None) as (here,):
        whole = (0, 0, here.height, here.width)
        np.testing.assert_array_equal(there.read(*whole)[0], here.read(*whole)[0])
    with open_bands([band(address)], None) as (there,):
        view.put("a.tif", path.read_bytes()[::-1])
        with pytest.raises(SourceChangedError):
            there.read(*whole)
    refused = r"b.tif\): cannot be opened \(the server refused GetObject \(NoSuchKey 404"
    with pytest.raises(ImageryError, match=refused), open_bands([band(f"s3://{view.bucket}/b.tif")], None):
        pass


def test_a_server_that_is_not_there_is_named(view: S3View, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "RETRIES", RetryPolicy(attempts=1))
    with pytest.raises(ServerError, match=r"s3://.*/p/a: the server did not answer 1 times \(Could not connect"):
        opened("http://127.0.0.1:9", view).create("a", b"1")


def test_without_credentials_the_place_is_named(view: S3View, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    with pytest.raises(ServerError, match=r"^s3://o\w+/p: no AWS credentials found"):
        Store(f"s3://{view.bucket}/p", endpoint_url=view.address).files()


def test_output_of_a_failing_credential_process_is_not_shown(
    view: S3View, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    (tmp_path / "config").write_text("[default]\ncredential_process = sh -c 'echo planted-secret >&2; exit 1'\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    with pytest.raises(ServerError, match="no AWS credentials found") as caught:
        Store(f"s3://{view.bucket}/p", endpoint_url=view.address).files()
    shown = "".join(traceback.format_exception(caught.value))
    assert "planted-secret" not in shown + "".join(capfd.readouterr())
