"""One dataset repository on the Hugging Face Hub: what is asked of it, and what its answers mean.

Source: huggingface_hub 2.4. The limits are those the Hub documents.
"""

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from httpx2 import TransportError
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalTokenNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.tqdm import disable_progress_bars

from clay_publish.errors import PublishError
from clay_publish.progress import Progress, Report
from clay_publish.publish.package import Package
from clay_publish.release.manifest import FileEntry
from clay_publish.storage.retry import RetryPolicy, retrying

T = TypeVar("T")
MAIN = "main"


@dataclass(frozen=True)
class Refs:
    """What a repository points to."""

    head: str
    """Commit of `main`."""
    tags: dict[str, str]
    """Name → commit."""


class RefusedError(PublishError):
    """The Hub refuses in a way that may mean a concurrent change."""


class HubRepository:
    """A dataset repository."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._api = HfApi()
        self.where = f"{self._api.endpoint}/datasets/{name}"
        disable_progress_bars()  # the stages report through `Report` alone

    def refs(self) -> Refs | None:
        """Branches and tags; None where there is no such repository, or this account may not see it."""
        try:
            refs = self._ask(lambda: self._api.list_repo_refs(self.name, repo_type="dataset"))
        except RepositoryNotFoundError:
            return None
        head = next(b.target_commit for b in refs.branches if b.name == MAIN)
        return Refs(head, {tag.name: tag.target_commit for tag in refs.tags})

    def whoami(self) -> dict[str, Any]:
        """Whose token this is, and what it may do, in the words of the Hub.

        Raises:
            PublishError: there is no token, or it is not valid.
        """
        try:
            found: dict[str, Any] = self._ask(self._api.whoami)
        except LocalTokenNotFoundError:
            fix = "`hf auth login`, or the variable HF_TOKEN."
            raise PublishError(self.where, "needs a token, and there is none", "a token that may write", fix) from None
        return found

    def create(self, *, private: bool = False) -> Refs:
        """Create the repository."""
        self._ask(lambda: self._api.create_repo(self.name, repo_type="dataset", private=private, exist_ok=True))
        refs = self.refs()
        if refs is None:
            raise PublishError(self.where, "was created and cannot be seen")
        return refs

    def files(self, revision: str) -> dict[str, RepoFile]:
        """All files of a revision."""

        def ask() -> list[Any]:
            return list(self._api.list_repo_tree(self.name, recursive=True, revision=revision, repo_type="dataset"))

        try:
            found = self._ask(ask)
        except RevisionNotFoundError as error:
            raise PublishError(f"{self.where} {revision}", "does not exist") from error
        return {file.path: file for file in found if isinstance(file, RepoFile)}

    def upload(self, additions: Sequence[CommitOperationAdd], revision: str) -> None:
        """Send the bytes of files; they are invisible until a commit names them."""
        self._ask(
            lambda: self._api.preupload_lfs_files(
                self.name, additions, repo_type="dataset", revision=revision, free_memory=False
            )
        )

    def commit(
        self,
        operations: Sequence[CommitOperationAdd | CommitOperationCopy | CommitOperationDelete],
        *,
        message: str,
        description: str,
        revision: str,
        parent: str,
    ) -> str:
        """Make one commit on top of `parent`; its id.

        Raises:
            RefusedError: `parent` is not the newest commit any more, or the answer was lost.
        """
        made = self._ask(
            lambda: self._api.create_commit(
                self.name,
                operations,
                commit_message=message,
                commit_description=description,
                repo_type="dataset",
                revision=revision,
                parent_commit=parent,
            )
        )
        return str(made.oid)

    def tag(self, name: str, commit: str, message: str) -> None:
        """Create a tag.

        Raises:
            RefusedError: there is one of that name already.
        """
        self._ask(
            lambda: self._api.create_tag(self.name, tag=name, tag_message=message, revision=commit, repo_type="dataset")
        )

    def untag(self, name: str) -> None:
        """Delete a tag."""
        self._ask(lambda: self._api.delete_tag(self.name, tag=name, repo_type="dataset"))

    def branch(self, name: str, commit: str) -> None:
        """Create a branch, or keep the one of that name that an earlier attempt created."""
        self._ask(
            lambda: self._api.create_branch(self.name, branch=name, revision=commit, repo_type="dataset", exist_ok=True)
        )

    def branches(self) -> frozenset[str]:
        """Names of the branches."""
        refs = self._ask(lambda: self._api.list_repo_refs(self.name, repo_type="dataset"))
        return frozenset(branch.name for branch in refs.branches)

    def delete_branch(self, name: str) -> None:
        """Delete a branch; the commits that tags point to stay."""
        self._ask(lambda: self._api.delete_branch(self.name, branch=name, repo_type="dataset"))

    def head(self, revision: str) -> str:
        """Commit of a branch."""
        info = self._ask(lambda: self._api.repo_info(self.name, repo_type="dataset", revision=revision))
        return str(info.sha)

    def open_pull_request(self, title: str) -> int:
        """The open pull request of this title, created where there is none; its number."""

        def find() -> int:
            found = self._api.get_repo_discussions(self.name, repo_type="dataset", discussion_type="pull_request")
            for discussion in found:
                if discussion.title == title and discussion.status in {"open", "draft"}:
                    return int(discussion.num)
            return int(self._api.create_pull_request(self.name, title, repo_type="dataset").num)

        return self._ask(find)

    def merge(self, number: int) -> None:
        """Merge a pull request into `main`, all at once."""
        self._ask(lambda: self._api.merge_pull_request(self.name, number, repo_type="dataset"))

    def _ask(self, question: Callable[[], T]) -> T:
        try:
            return question()
        except (RepositoryNotFoundError, RevisionNotFoundError):
            raise
        except HfHubHTTPError as error:
            status = _status(error)
            if status in {401, 403}:
                raise PublishError(
                    self.where,
                    f"refuses this account ({status})",
                    "a token that may write there",
                    "`hf auth login`, or the variable HF_TOKEN.",
                ) from None  # the error behind it shows the request
            if status in {409, 412} or status >= 500:
                raise RefusedError(
                    self.where,
                    f"answers {status} ({error.server_message or 'no reason given'})",
                    fix="Run the command again later: what has arrived is not sent again.",
                ) from error
            raise PublishError(self.where, f"refuses ({error.server_message or status})") from error
        except TransportError as error:
            raise RefusedError(
                self.where,
                f"did not answer ({type(error).__name__})",
                fix="Run the command again later: what has arrived is not sent again.",
            ) from error


def same(package: Package, entry: FileEntry, file: RepoFile) -> bool:
    """Whether a file of the repository has these bytes, by the checksum that the Hub keeps of it."""
    if file.size != entry.size:
        return False
    if file.lfs is not None:
        return file.lfs.sha256 == entry.sha256
    data = package.read(entry)
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False)
    return file.blob_id == blob.hexdigest()


def _status(error: HfHubHTTPError) -> int:
    return int(error.response.status_code)


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
            _retried(repository, additions, revision)
        for entry, addition in zip(batch, additions, strict=True):
            if addition.upload_info.sha256.hex() != entry.sha256:
                raise package.changed(entry)
        operations += additions
        done += sum(entry.size for entry in batch)
        report(Progress("publish", done, total, batch[-1].path, unit="bytes"))
    return operations


def _retried(repository: HubRepository, additions: Sequence[CommitOperationAdd], revision: str) -> None:
    # huggingface_hub wraps what goes wrong while sending into a RuntimeError.
    again = retrying(lambda error: isinstance(error, RefusedError | RuntimeError), RetryPolicy(_ATTEMPTS, 1.0))
    try:
        again(lambda: repository.upload(additions, revision))
    except (RefusedError, RuntimeError) as error:
        raise PublishError(
            repository.where,
            f"did not take {additions[0].path_in_repo} and {len(additions) - 1} more ({error})",
            fix="Run the command again later: what has arrived is not sent again.",
        ) from error


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
