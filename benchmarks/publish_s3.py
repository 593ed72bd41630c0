"""Publishing against boto3's `upload_file` in a loop and `rclone copy`: 1 GiB in 64 files to a server on loopback.

    python benchmarks/publish_s3.py [MEBIBYTES]

All three send the same release to the same ministack (`pip install 'clay-publish[test]'`), in turn, three times each;
the best of each counts. Only publishing creates nothing over what is there, keeps a journal, and compares what arrived.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import boto3
import numpy as np
import pyarrow as pa
from botocore.config import Config

from clay_publish.publish import publish_release
from clay_publish.release.directory import Release
from clay_publish.release.findings import ValidationReport
from clay_publish.release.geoparquet import write_table
from clay_publish.release.manifest import write_manifest

FILES = 64
ROUNDS = 3
BUCKET = "benchmark"
MIB = 1 << 20


def main() -> None:
    size = int(sys.argv[1]) * MIB if len(sys.argv) > 1 else 1024 * MIB
    programs = Path(sys.executable).parent
    with tempfile.TemporaryDirectory() as scratch:
        folder, port = Path(scratch), _free_port()
        release = _release(folder, programs, size)
        settings = {
            "IOT_MTLS_ENABLED": "0",
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(port),
            "SERVICES": "s3",
            "S3_PERSIST": "1",
            "S3_DATA_DIR": str(folder / "server"),
        }
        address = f"http://127.0.0.1:{port}"
        credentials = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-west-2"}
        os.environ.update({**credentials, "AWS_ENDPOINT_URL_S3": address})
        with (
            (folder / "log").open("wb") as log,
            subprocess.Popen(
                [programs / "ministack"], env={**os.environ, **settings}, stdout=log, stderr=log
            ) as server,
        ):
            try:
                _wait(address)
                _compare(release, programs, address)
            finally:
                server.terminate()


def _compare(release: Path, programs: Path, address: str) -> None:
    client = boto3.client("s3", config=Config(s3={"addressing_style": "path"}))
    client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    files = [p for p in release.rglob("*") if p.is_file() and ".run" not in p.parts]
    remote = f":s3,provider=Other,endpoint='{address}',env_auth=true,force_path_style=true,region=us-west-2:{BUCKET}"

    def ours(prefix: str) -> None:
        report = ValidationReport(where=str(release), findings=[], checked={})
        publish_release(Release(str(release)), f"s3://{BUCKET}/{prefix}", report)

    def boto(prefix: str) -> None:
        for path in files:
            client.upload_file(str(path), BUCKET, f"{prefix}/{path.relative_to(release)}")

    def rclone(prefix: str) -> None:
        source, target = str(release), f"{remote}/{prefix}/"
        command = [str(programs / "rclone"), "copy", source, target, "--exclude", "/.run/**", "--config", ""]
        subprocess.run(command, check=True)

    ways: dict[str, Callable[[str], None]] = {"publish": ours, "boto3 upload_file": boto, "rclone copy": rclone}
    best = dict.fromkeys(ways, float("inf"))
    for number in range(ROUNDS):
        for name, way in ways.items():
            prefix = f"{name.partition(' ')[0]}-{number}"
            begun = time.perf_counter()
            way(prefix)
            best[name] = min(best[name], time.perf_counter() - begun)
            _empty(client, prefix)
    faster = min(best["boto3 upload_file"], best["rclone copy"])
    for name, seconds in best.items():
        print(f"{name:<18} {seconds:6.2f} s")
    print(f"publish / the faster of the others: {best['publish'] / faster:.2f}")


def _release(folder: Path, programs: Path, size: int) -> Path:
    """The sample release with 64 tables of random numbers beside it."""
    subprocess.run([programs / "clay-publish", "sample", folder / "sample"], check=True, stdout=subprocess.DEVNULL)
    where = folder / "release"
    spec = folder / "sample" / "release.yaml"
    for command in (["produce", str(spec), "--out", str(where)], ["catalog", str(where)]):
        subprocess.run([programs / "clay-publish", *command, "--quiet"], check=True, stdout=subprocess.DEVNULL)
    release, numbers = Release(str(where)), np.random.default_rng(0)
    made_by = release.parquet(release.data_files()[0]).schema_arrow.metadata[b"emb"]
    for n in range(FILES):
        rows = numbers.standard_normal((16, size // FILES // 16 // 8))
        table = pa.table({"id": range(16), "v": list(rows)}).replace_schema_metadata({"emb": made_by})
        write_table(release.store, f"patches/zone=18/{n:02d}.parquet", table)
    write_manifest(release, "benchmark 1")
    shutil.rmtree(where / ".run", ignore_errors=True)
    return where


def _empty(client: "boto3.client", prefix: str) -> None:
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{prefix}/"):
        for item in page.get("Contents", []):
            client.delete_object(Bucket=BUCKET, Key=item["Key"])


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait(address: str) -> None:
    for _ in range(300):
        try:
            urllib.request.urlopen(address, timeout=5).close()  # noqa: S310 - our own server
        except OSError:
            time.sleep(0.1)
        else:
            return


if __name__ == "__main__":
    main()
