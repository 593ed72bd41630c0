"""What a server may do to whoever fetches from it: lead elsewhere, never end, never answer, change."""

import gzip
import itertools
import json
import os
import socket
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from image_server import Fault, ImageServer
from loopback_server import LoopbackServer

import clay_publish
from clay_publish.errors import ImageryError, SourceError, StoreError
from clay_publish.producer.imagery.raster import open_bands
from clay_publish.producer.imagery.remote import SourceChangedError
from clay_publish.producer.sources import reader as documents
from clay_publish.producer.sources.item import BandFile
from clay_publish.producer.sources.reader import read_items
from clay_publish.storage import retry
from clay_publish.storage.connections import ForbiddenAddressError, is_public, resolve
from clay_publish.storage.http import ChangedError, HttpClient, NoRangesError, ServerError
from clay_publish.storage.retry import Budget, Limits, TooSlowError, set_limits
from clay_publish.storage.s3 import Address, S3Client

MIB = 1 << 20
QUOTA = 64 * MIB
"""Bytes after which a server stops its endless answer; no client may take as many."""
ITEM = {
    "type": "Feature",
    "stac_version": "1.0.0",
    "id": "one",
    "geometry": None,
    "properties": {"datetime": "2020-01-01T00:00:00Z"},
    "links": [],
    "assets": {},
}
IMAGE = Path(clay_publish.__file__).parent / "sample" / "imagery"


@dataclass
class Scripted(LoopbackServer):
    """Answers each path as its function says."""

    answers: dict[str, Callable[[BaseHTTPRequestHandler], None]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    sent: int = 0

    def handle(self, client: BaseHTTPRequestHandler) -> None:
        self.asked.append(client.path)
        client.close_connection = True
        with suppress(OSError):  # the client has left, as it should
            self.answers[client.path](client)

    def endless(self, headers: dict[str, str], pieces: Iterator[bytes]) -> Callable[[BaseHTTPRequestHandler], None]:
        def answer(client: BaseHTTPRequestHandler) -> None:
            begin(client, headers)
            for piece in pieces:
                client.wfile.write(piece)
                self.sent += len(piece)
                if self.sent > QUOTA:
                    return

        return answer

    def document(self, document: Any) -> Callable[[BaseHTTPRequestHandler], None]:
        data = json.dumps(document).encode()

        def answer(client: BaseHTTPRequestHandler) -> None:
            begin(client, {"Content-Length": str(len(data))})
            client.wfile.write(data)

        return answer


def begin(client: BaseHTTPRequestHandler, headers: dict[str, str], status: int = 200) -> None:
    client.send_response(status)
    for name, value in {"Connection": "close", **headers}.items():
        client.send_header(name, value)
    client.end_headers()


def redirect(to: str) -> Callable[[BaseHTTPRequestHandler], None]:
    return lambda client: begin(client, {"Location": to, "Content-Length": "0"}, 302)


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(retry, "DEFAULT", retry.RetryPolicy(attempts=2, first=0.001))
    yield
    set_limits(Limits())


@pytest.fixture
def server() -> Iterator[Scripted]:
    with Scripted() as running:
        yield running


@pytest.fixture
def inner() -> Iterator[Scripted]:
    """A server that must not be reached from outside: on the same machine, under another name."""
    with Scripted() as running:
        running.answers = {"/secret": running.document(ITEM), "/secret.tif": running.document({})}
        yield running
        assert running.asked == []


def private(inner: Scripted, path: str) -> str:
    return inner.address.replace("127.0.0.1", "localhost") + path


def catalog(*links: tuple[str, str]) -> dict[str, Any]:
    named = [{"rel": rel, "href": href} for rel, href in links]
    return {"type": "Catalog", "stac_version": "1.0.0", "id": "c", "description": "c", "links": named}


def test_a_redirected_document_is_not_read_from_a_private_host(server: Scripted, inner: Scripted) -> None:
    server.answers["/catalog.json"] = redirect(private(inner, "/secret"))
    with pytest.raises(SourceError, match=r"redirects to http://localhost.* private address"):
        list(read_items(f"{server.address}/catalog.json"))


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1/x"])
def test_a_redirect_to_another_kind_of_address_is_refused(server: Scripted, to: str) -> None:
    server.answers["/catalog.json"] = redirect(to)
    with pytest.raises(SourceError, match="unsupported kind of address"):
        list(read_items(f"{server.address}/catalog.json"))


@pytest.mark.parametrize("scheme", ["http", "HTTP"])
@pytest.mark.parametrize("rel", ["child", "item"])
def test_links_of_a_remote_catalog_reach_no_private_host(
    server: Scripted, inner: Scripted, rel: str, scheme: str
) -> None:
    server.answers["/catalog.json"] = server.document(catalog((rel, private(inner, "/secret").replace("http", scheme))))
    with pytest.raises(SourceError, match="is the private address"):
        list(read_items(f"{server.address}/catalog.json"))


@pytest.mark.parametrize("rel", ["child", "item"])
def test_links_of_a_remote_catalog_name_no_local_file(server: Scripted, tmp_path: Path, rel: str) -> None:
    item = tmp_path / "item.json"
    item.write_text(json.dumps(ITEM))
    for href in (item.as_uri(), item.as_uri().replace("file", "FILE"), f"file://localhost{item}"):
        server.answers["/catalog.json"] = server.document(catalog((rel, href)))
        with pytest.raises(SourceError, match=r"is a local file, named by the remote document"):
            list(read_items(f"{server.address}/catalog.json"))
    local = tmp_path / "catalog.json"
    local.write_text(json.dumps(catalog((rel, item.as_uri()))))
    assert [found.document["id"] for found in read_items(str(local))] == ["one"]


@pytest.mark.parametrize("chain", ["blockcache::", "simplecache::", "filecache::", "zip://x::"])
def test_chains_of_file_systems_are_no_addresses(server: Scripted, inner: Scripted, chain: str) -> None:
    for where in (f"{chain}{private(inner, '/secret')}", f"{chain}file:///etc/passwd"):
        server.answers["/catalog.json"] = server.document(catalog(("item", where)))
        for start in (where, f"{server.address}/catalog.json"):
            with pytest.raises(SourceError, match=r"is not supported"):
                list(read_items(start))


def test_a_name_that_becomes_private_after_it_was_public_is_refused(
    inner: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, answers = socket.getaddrinfo, itertools.chain(["93.184.215.14"], itertools.repeat("127.0.0.1"))

    def lookup(host: str, *arguments: Any, **options: Any) -> Any:
        return real(next(answers) if host == "rebind.test" else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    assert resolve("rebind.test", 80, ("rebind.test", 80)) == ["93.184.215.14"]
    url = inner.address.replace("127.0.0.1", "rebind.test")
    for origin in (None, url, "http://elsewhere.test/catalog.json"):
        with pytest.raises(ForbiddenAddressError, match="is the private address 127"):
            HttpClient(origin).read(f"{url}/secret", MIB)


def test_what_is_private() -> None:
    for address in ("127.0.0.1", "10.0.0.1", "169.254.169.254", "192.168.1.1", "0.0.0.0", "::1", "fe80::1%eth0"):  # noqa: S104
        assert not is_public(address)
    for address in ("::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "fd00::1", "224.0.0.1", "100.64.0.1"):
        assert not is_public(address)
    for address in ("8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"):
        assert is_public(address)


def test_special_files_are_no_documents(tmp_path: Path) -> None:
    pipe = tmp_path / "items.json"
    os.mkfifo(pipe)
    for where in ("/dev/zero", str(pipe), "file:///dev/zero", str(tmp_path)):
        with pytest.raises(SourceError, match="is not a regular file"):
            list(read_items(where))


def test_special_files_are_no_images(tmp_path: Path) -> None:
    pipe = tmp_path / "red.tif"
    os.mkfifo(pipe)
    for href in ("/dev/zero", "file:///dev/zero", str(pipe), str(tmp_path)):
        with (
            pytest.raises(ImageryError, match="is not a regular file"),
            open_bands([BandFile("red", "red", href, 1, None)], None),
        ):
            pass


def test_a_document_without_end_is_given_up(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAX_DOCUMENT", 4 * MIB)
    server.answers["/items.json"] = server.endless({}, itertools.repeat(b" " * MIB))
    with pytest.raises(SourceError, match="is larger than 4194304 bytes"):
        list(read_items(f"{server.address}/items.json"))
    assert server.sent < QUOTA


def test_a_table_without_end_does_not_fill_the_disk(server: Scripted, tmp_path: Path) -> None:
    server.answers["/items.parquet"] = server.endless({}, itertools.repeat(b"PAR1" * (MIB // 4)))
    with (tmp_path / "file").open("w+b") as file, pytest.raises(StoreError, match="is larger than"):
        HttpClient().download(f"{server.address}/items.parquet", file, 4 * MIB)
    assert (tmp_path / "file").stat().st_size <= 4 * MIB


def bomb() -> Iterator[bytes]:
    pack = zlib.compressobj(9, wbits=31)
    while True:
        yield pack.compress(b" " * (16 * MIB))


@pytest.mark.parametrize(
    ("encoding", "pieces"),
    [
        ("gzip", bomb()),
        ("gzip", itertools.repeat(gzip.compress(b"") * 1000)),
        ("identity", itertools.repeat(b"x" * MIB)),
    ],
    ids=["bomb", "empty members", "plain"],
)
def test_a_small_answer_that_unpacks_to_much_is_given_up(
    server: Scripted, encoding: str, pieces: Iterator[bytes]
) -> None:
    server.answers["/x"] = server.endless({"Content-Encoding": encoding}, pieces)
    with pytest.raises(StoreError, match="is larger than 1048576 bytes"):
        HttpClient().read(f"{server.address}/x", MIB)
    assert server.sent < QUOTA


def test_gzip_is_unpacked_and_what_is_cut_off_is_no_document(server: Scripted) -> None:
    data = gzip.compress(json.dumps(ITEM).encode())
    for name, body in (("/whole", data), ("/cut", data[:-9]), ("/more", data + data)):
        server.answers[name] = server.endless(
            {"Content-Encoding": "gzip", "Content-Length": str(len(body))}, iter([body])
        )
    assert json.loads(HttpClient().read(f"{server.address}/whole", MIB)) == ITEM
    for name in ("/cut", "/more"):
        with pytest.raises(StoreError, match="does not end where its gzip ends"):
            HttpClient().read(f"{server.address}{name}", MIB)


def dripping(*, headers: bool) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(client: BaseHTTPRequestHandler) -> None:
        client.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: " + (b"" if headers else b"\r\nContent-Length: 9999\r\n\r\n"))
        for _ in range(400):
            client.wfile.write(b"x")
            client.wfile.flush()
            time.sleep(0.05)

    return answer


@pytest.mark.parametrize("answer", [lambda _: time.sleep(8), dripping(headers=True), dripping(headers=False)])
def test_a_server_that_hangs_or_drips_is_given_up(
    server: Scripted, answer: Callable[[BaseHTTPRequestHandler], None]
) -> None:
    set_limits(Limits(stall=0.4))
    server.answers["/x"] = answer
    with pytest.raises(ServerError, match="does not answer"):
        HttpClient(policy=retry.RetryPolicy(attempts=1)).read(f"{server.address}/x", MIB)


def slowly(piece: int, pause: float) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(client: BaseHTTPRequestHandler) -> None:
        size = {"Content-Range": f"bytes 0-{QUOTA - 1}/{QUOTA}", "Content-Length": str(QUOTA), "ETag": '"one"'}
        begin(client, size, 206)
        for _ in range(QUOTA // piece):
            client.wfile.write(b"x" * piece)
            time.sleep(pause)

    return answer


def test_what_takes_too_long_in_all_is_given_up(server: Scripted) -> None:
    server.answers["/x"] = server.answers["/bucket/x"] = slowly(4096, 0.01)
    with pytest.raises(TooSlowError, match=r"took more than 0\.3 s"):
        HttpClient(budget=Budget("item one", 0.3)).part(f"{server.address}/x", 0, QUOTA)
    with pytest.raises(TooSlowError, match=r"took more than 0\.3 s"):
        of_a_bucket(server).part("x", 0, QUOTA, budget=Budget("item one", 0.3))
    assert server.asked == ["/x", "/bucket/x"]


def of_a_bucket(server: Scripted) -> S3Client:
    return S3Client(Address("bucket", "", "s3://bucket", server.address, anon=True), retry.RetryPolicy(attempts=1))


def test_an_object_store_that_drips_is_given_up(server: Scripted) -> None:
    set_limits(Limits(stall=0.4))
    server.answers["/bucket/x"] = slowly(1, 0.05)
    with pytest.raises(ServerError, match=r"s3://bucket/x: the server did not answer .*\(sent \d+ bytes in 0.4 s"):
        of_a_bucket(server).part("x", 0, QUOTA)
    with pytest.raises(ServerError, match="the server did not answer"):
        of_a_bucket(server).get("x")


def a_listing_that_drips(client: BaseHTTPRequestHandler) -> None:
    begin(client, {"Content-Length": "9999"}, 200)
    for _ in range(400):
        client.wfile.write(b"<")
        time.sleep(0.05)


@pytest.mark.parametrize("answer", [dripping(headers=True), a_listing_that_drips])
def test_an_object_store_whose_other_answers_drip_is_given_up(
    server: Scripted, answer: Callable[[BaseHTTPRequestHandler], None]
) -> None:
    set_limits(Limits(stall=0.4))
    server.answers = defaultdict(lambda: answer)
    bucket = of_a_bucket(server)
    asks: list[Callable[[], object]] = [lambda: list(bucket.listing("")), lambda: bucket.put("x", b"data", None)]
    for ask in asks:
        with pytest.raises(ServerError, match=r"the server did not answer .*\(sent \d+ bytes in 0.4 s"):
            ask()


def a_band(url: str, origin: str) -> BandFile:
    return BandFile("red", "red", url, 1, None, origin)


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch) -> Iterator[ImageServer]:
    monkeypatch.setattr("clay_publish.producer.imagery.raster.RETRIES", retry.RetryPolicy(attempts=2, first=0.001))
    with ImageServer(IMAGE) as running:
        yield running


@pytest.fixture
def image() -> str:
    return min(path.name for path in IMAGE.glob("*.tif"))


@pytest.mark.parametrize("head", [200, 404])
def test_pixels_are_not_read_from_where_a_redirect_leads(
    images: ImageServer, image: str, inner: Scripted, head: int
) -> None:
    """HEAD is answered, by the file or an error page; GET is sent to a private host."""
    if head != 200:
        images.faults.append(Fault(f"status:{head}", image, "HEAD"))
    images.faults.append(Fault(f"redirect:{private(inner, '/secret.tif')}", image))
    with (
        pytest.raises(ImageryError, match=r"redirects to .*private address"),
        open_bands([a_band(f"{images.url}/{image}", images.url)], None),
    ):
        pass
    assert len(images.of(image)) == 1  # a refusal is final


@pytest.mark.parametrize("path", ["/secret.tif", "/secret"])
def test_assets_of_a_remote_catalog_reach_no_private_host(images: ImageServer, inner: Scripted, path: str) -> None:
    with (
        pytest.raises(ImageryError, match="is the private address"),
        open_bands([a_band(private(inner, path), images.url)], None),
    ):
        pass


def test_an_image_that_changes_between_two_reads_is_noticed(images: ImageServer, image: str) -> None:
    with open_bands([a_band(f"{images.url}/{image}", images.url)], None) as (band,):
        images.faults.append(Fault("changed", image))
        with pytest.raises(SourceChangedError):
            band.read(0, 0, band.height, band.width)


def test_an_image_that_is_another_than_planned_is_not_opened(images: ImageServer, image: str) -> None:
    url = f"{images.url}/{image}"
    with pytest.raises(SourceChangedError), open_bands([a_band(url, images.url)], None, {url: "planned"}):
        pass


def test_ranges(images: ImageServer, image: str) -> None:
    url, data = f"{images.url}/{image}", (IMAGE / image).read_bytes()
    found, head = HttpClient().part(url, 5, 50)
    assert (found, head.size) == (data[5:50], len(data))
    with pytest.raises(ChangedError):
        HttpClient().part(url, 5, 50, "other")
    images.faults.append(Fault("whole", image))
    with pytest.raises(NoRangesError):
        HttpClient().part(url, 5, 50)
