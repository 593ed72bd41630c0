"""Real servers on loopback, a proxy that breaks connections, and releases with something to send."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from fault_proxy import FaultProxy
from s3_servers import KEY, SECRET, SMALL_PART, S3View, start_ministack, start_rclone, with_client

from clay_publish.release.directory import Release
from clay_publish.release.geoparquet import write_table
from clay_publish.release.manifest import write_manifest
from clay_publish.storage.retry import RetryPolicy


@pytest.fixture
def sample_release(sample_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this test alone: a command that publishes holds the lease of a release, and keeps journals in it."""
    return Path(shutil.copytree(sample_release, tmp_path_factory.mktemp("own") / "release"))


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Credentials and caches of this test alone."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "HF_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "aws-credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def small_and_impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts are as small as S3 allows, and retries wait milliseconds."""
    monkeypatch.setattr("clay_publish.storage.s3.PART", SMALL_PART)
    monkeypatch.setattr("clay_publish.storage.s3.RETRIES", RetryPolicy(attempts=6, first=0.01, longest=0.05))


@pytest.fixture(scope="session")
def ministack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An S3 server that knows conditional writes, checksums and multipart uploads; its address."""
    yield from start_ministack(tmp_path_factory.mktemp("ministack"))


@pytest.fixture(scope="session")
def rclone_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An S3 server that refuses wrong credentials; its address."""
    yield from start_rclone(tmp_path_factory.mktemp("rclone"))


@pytest.fixture
def bucket(ministack: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh bucket on ministack; AWS_ENDPOINT_URL_S3 points there."""
    name = f"b{abs(hash(request.node.nodeid)):x}"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", ministack)
    with_client(
        ministack,
        lambda client: client.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "us-west-2"}),
    )
    return name


@pytest.fixture
def proxy(ministack: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A proxy before ministack; AWS_ENDPOINT_URL_S3 points to it."""
    with FaultProxy(ministack) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", running.address)
        yield running


@pytest.fixture
def view(ministack: str, bucket: str) -> S3View:
    return S3View(ministack, bucket)


@pytest.fixture
def large_release(release_copy: Path) -> Path:
    """The sample with one more table of 14 MB that cannot be compressed: three parts of an upload."""
    release = Release(str(release_copy))
    rows = np.random.default_rng(1).standard_normal((20, 85_000)).astype("float64")
    made_by = release.parquet(release.data_files()[0]).schema_arrow.metadata[b"emb"]
    table = pa.table({"id": [str(n) for n in range(20)], "values": list(rows)}).replace_schema_metadata(
        {"emb": made_by}
    )
    write_table(release.store, "patches/zone=18/large.parquet", table)
    write_manifest(release, "test")
    return release_copy
