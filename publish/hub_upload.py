"""Sending bytes to the Hub, where they stay invisible until a commit names them."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete

from clay_publish.errors import PublishError
from clay_publish.manifest import FileEntry
from clay_publish.progress import Progress, Report
from clay_publish.publish.hub_repository import HubRepository, RefusedError
from clay_publish.publish.package import Package

_BATCH_FILES = 50
_BATCH_BYTES = 2_000_000_000
_ATTEMPTS = 5


def upload(
    repository: HubRepository, package: Package, entries: Sequence[FileEntry], revision: str, report: Report
) -> list[CommitOperationAdd | CommitOperationDelete]:
    """Send bytes in batches: after a kill, those of the last batch are sent again at most.

    Returns:
        What a commit must hold to make them visible.

    Raises:
        PublishError: the Hub does not take them, or a file is not what its manifest says.
    """
    total, done = sum(entry.size for entry in entries), 0
    operations: list[CommitOperationAdd | CommitOperationDelete] = []
    for batch in _batches(entries):
        with tempfile.TemporaryDirectory() as folder:
            additions = [_addition(package, entry, Path(folder) / str(n)) for n, entry in enumerate(batch)]
            _patiently(repository, additions, revision)
        for entry, addition in zip(batch, additions, strict=True):
            if addition.upload_info.sha256.hex() != entry.sha256:
                raise package.changed(entry)
        operations += additions
        done += sum(entry.size for entry in batch)
        report(Progress("publish", done, total, batch[-1].path, unit="bytes"))
    return operations


def _patiently(repository: HubRepository, additions: Sequence[CommitOperationAdd], revision: str) -> None:
    for attempt in range(_ATTEMPTS):
        try:
            repository.upload(additions, revision)
        except (RefusedError, RuntimeError) as error:
            # huggingface_hub wraps what goes wrong while sending into a RuntimeError.
            if attempt + 1 == _ATTEMPTS:
                raise PublishError(
                    repository.where,
                    f"did not take {additions[0].path_in_repo} and {len(additions) - 1} more ({error})",
                    fix="Run the command again later: what has arrived is not sent again.",
                ) from error
            time.sleep(2**attempt)
        else:
            return


def _addition(package: Package, entry: FileEntry, spare: Path) -> CommitOperationAdd:
    """Documents go by value, data by its path; what lies on another server is fetched first."""
    if entry not in package.data:
        return CommitOperationAdd(entry.path, package.read(entry))
    store = package.release.store
    if store.local:
        return CommitOperationAdd(entry.path, store.path(entry.path))
    with spare.open("wb") as file:
        for piece in package.pieces(entry, 1 << 22):
            file.write(piece)
    return CommitOperationAdd(entry.path, str(spare))


def _batches(entries: Sequence[FileEntry]) -> Iterator[list[FileEntry]]:
    batch: list[FileEntry] = []
    for entry in entries:
        if batch and (len(batch) >= _BATCH_FILES or sum(e.size for e in batch) + entry.size > _BATCH_BYTES):
            yield batch
            batch = []
        batch.append(entry)
    if batch:
        yield batch
