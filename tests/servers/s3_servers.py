"""Starting real S3 servers, and looking into them with another client than ours."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from clay_publish.publish import PublishReceipt, publish_release
from clay_publish.release.directory import Release
from clay_publish.release.findings import ValidationReport

KEY, SECRET = "publisher", "not-a-real-secret"
SMALL_PART = 5 << 20
"""The smallest part that S3 takes."""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_for(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        if server.poll() is not None:
            break
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/")
            connection.getresponse().read()
        except OSError:
            time.sleep(0.1)
        else:
            return
        finally:
            connection.close()
    raise AssertionError(log.read_text())


def serve(command: list[Any], port: int, folder: Path, settings: dict[str, str]) -> Iterator[str]:
    log = folder / "log"
    with (
        log.open("wb") as out,
        subprocess.Popen(
            command, env={**os.environ, **settings}, stdout=out, stderr=out, stdin=subprocess.DEVNULL, cwd=folder
        ) as server,
    ):
        try:
            wait_for(port, server, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(timeout=20)


def start_ministack(folder: Path) -> Iterator[str]:
    """An S3 server that knows conditional writes, checksums and multipart uploads; its address."""
    port = free_port()
    settings = {
        "IOT_MTLS_ENABLED": "0",
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "SERVICES": "s3",
        "S3_PERSIST": "1",
        "S3_DATA_DIR": str(folder / "data"),
    }
    yield from serve([Path(sys.executable).with_name("ministack")], port, folder, settings)


def start_rclone(folder: Path) -> Iterator[str]:
    """An S3 server that refuses wrong credentials, ignores conditions, and has a bucket `clay`; its address."""
    port = free_port()
    (folder / "data" / "clay").mkdir(parents=True)
    command = [Path(sys.executable).with_name("rclone"), "serve", "s3", folder / "data"]
    command += ["--addr", f"127.0.0.1:{port}", "--auth-key", f"{KEY},{SECRET}", "--config", folder / "none"]
    yield from serve(command, port, folder, {})


def with_client(address: str, work: Callable[[Any], Any]) -> Any:
    config = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 2})
    keys = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET}
    client = boto3.client("s3", endpoint_url=address, region_name="us-west-2", config=config, **keys)
    try:
        return work(client)
    finally:
        client.close()


@dataclass(frozen=True)
class S3View:
    """What lies in a bucket, seen with another client."""

    address: str
    bucket: str

    def names(self, prefix: str = "") -> list[str]:
        pages = with_client(self.address, lambda c: c.list_objects_v2(Bucket=self.bucket, Prefix=prefix))
        return [item["Key"] for item in pages.get("Contents", [])]

    def get(self, key: str) -> bytes:
        return bytes(with_client(self.address, lambda c: c.get_object(Bucket=self.bucket, Key=key)["Body"].read()))

    def put(self, key: str, data: bytes) -> None:
        with_client(self.address, lambda c: c.put_object(Bucket=self.bucket, Key=key, Body=data))

    def uploads(self) -> list[str]:
        found = with_client(self.address, lambda c: c.list_multipart_uploads(Bucket=self.bucket))
        return [upload["Key"] for upload in found.get("Uploads", [])]


def send(where: Path | str, target: str, **options: Any) -> PublishReceipt:
    """Publish a release without findings."""
    release = Release(str(where))
    return publish_release(
        release, target, ValidationReport(where=release.store.where, findings=[], checked={}), **options
    )
