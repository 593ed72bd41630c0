"""Releases on an object store, seen by the tests."""

from pathlib import Path

from s3_servers import KEY, SECRET, S3View

from clay_publish.release.directory import Release
from clay_publish.storage.store import Store

NAMES = ("sources.parquet", "gaps.geojson", "release.yaml", "coverage/zone=18.parquet")

HASTY = """
from clay_publish.release.lease import s3 as lease_objects
lease_objects.TIMES = lease_objects.Times(beat=0.2, timeout=1.5)
"""
"""Python that makes a run impatient."""


def reached(address: str, where: str) -> Release:
    """A release on a server, opened in this process."""
    options = {"endpoint_url": address, "key": KEY, "secret": SECRET}
    return Release(Store(where, **options))


def embeddings_in(bucket: S3View, folder: str = "release") -> dict[str, bytes]:
    """Every file in the tree of published embeddings."""
    names = bucket.names(f"{folder}/embeddings/")
    return {name.removeprefix(f"{folder}/"): bucket.get(name) for name in names}


def receipts_in(bucket: S3View, folder: str = "release") -> dict[str, bytes]:
    """The receipts of finished units."""
    return {name: bucket.get(name) for name in bucket.names(f"{folder}/.run/receipts/") if name.endswith(".json")}


def upload(folder: Path, bucket: S3View, to: str) -> None:
    """Copy a directory as any other tool would."""
    for file in folder.rglob("*"):
        if file.is_file():
            bucket.put(f"{to}/{file.relative_to(folder)}", file.read_bytes())


def download(bucket: S3View, of: str, folder: Path) -> None:
    """Copy a prefix as any other tool would."""
    for name in bucket.names(f"{of}/"):
        file = folder / name.removeprefix(f"{of}/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bucket.get(name))
