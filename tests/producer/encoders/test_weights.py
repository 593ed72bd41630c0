"""Weights from the Hub, through its own client, from a small server on this machine."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from clay_publish.errors import EncoderError
from clay_publish.producer.encoders.weights import find_weights
from clay_publish.spec.models import ModelSpec

FILE = b"some weights\n" * 1000
COMMIT = "6f1d52e5ff5a1d2a3b4c5d6e7f8091a2b3c4d5e6"
DIGEST = hashlib.sha256(FILE).hexdigest()


class _Hub(BaseHTTPRequestHandler):
    """One repository with one file, on one branch and one commit."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        if self._answer():
            self.wfile.write(FILE)

    def _answer(self) -> bool:
        known = {f"/clay/model/resolve/{revision}/v1/weights.ckpt" for revision in ("main", COMMIT)}
        found = self.path in known
        self.send_response(200 if found else 404)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{DIGEST}"')
        if not found:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("Content-Length", str(len(FILE) if found else 0))
        self.end_headers()
        return found

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("revision", ["", f"@{COMMIT}"])
def test_a_file_of_the_hub_is_fetched_and_hashed(revision: str) -> None:
    weights = find_weights(ModelSpec(weights=f"hf://clay/model{revision}/v1/weights.ckpt", sha256=DIGEST))
    assert weights.sha256 == DIGEST
    assert weights.path.read_bytes() == FILE
    assert COMMIT in weights.path.parts


@pytest.mark.usefixtures("hub")
def test_other_bytes_than_the_pinned_ones_are_refused() -> None:
    with pytest.raises(EncoderError, match="These are other weights"):
        find_weights(ModelSpec(weights="hf://clay/model/v1/weights.ckpt", sha256="0" * 64))


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("address", ["hf://clay/model/v2/weights.ckpt", f"hf://clay/model@{'0' * 40}/v1/weights.ckpt"])
def test_what_the_hub_does_not_have_is_named(address: str) -> None:
    with pytest.raises(EncoderError, match=f"{address}: cannot be fetched"):
        find_weights(ModelSpec(weights=address))


@pytest.mark.parametrize(
    "address", ["https://example.org/weights.ckpt", "hf://weights.ckpt", "s3://bucket/weights.ckpt"]
)
def test_another_kind_of_address_is_refused(address: str) -> None:
    with pytest.raises(EncoderError, match=r"expected a file, or hf://OWNER/REPO/FILE"):
        find_weights(ModelSpec(weights=address))
