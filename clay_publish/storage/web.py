"""A release on a web server, or on the Hugging Face Hub: it is read, never written."""

import re
from collections.abc import Callable
from threading import Lock
from typing import Any, TypeVar

from clay_publish.errors import StoreError
from clay_publish.storage.address import HUB_SCHEME
from clay_publish.storage.http import ChangedError, Head, HttpClient, ServerError
from clay_publish.storage.place import ReadOnly

T = TypeVar("T")

_GONE = {404, 410}
_LOCKED = {401, 403}
_UNLIMITED = 1 << 40
_COMMIT = re.compile("[0-9a-f]{40}")


class Website(ReadOnly):
    """A `Place` on a web server, which lists nothing."""

    lists = False

    def __init__(self, address: str) -> None:
        self.where = address.rstrip("/")
        self._client = HttpClient()

    def head(self, path: str) -> Head:
        """What the server says of a file."""
        return self._asked(path, self._client.head)

    def _asked(self, path: str, ask: Callable[[str], T]) -> T:
        try:
            return ask(f"{self.where}/{path}")
        except ServerError as error:
            if error.status in _GONE:
                raise FileNotFoundError(path) from error
            raise

    def files(self, folder: str) -> list[str]:  # noqa: ARG002 - a web server cannot say
        """None."""
        return []

    def part(self, path: str, start: int, end: int, tag: str | None = None) -> bytes:
        """A range of a file, in one request."""
        data, found = self._asked(path, lambda url: self._client.part(url, start, end, tag))
        if tag is not None and found.tag is None:
            raise ChangedError(
                f"{self.where}/{path}", "may have changed while it was read (no ETag in the answer)", tag
            )
        return data

    def whole(self, path: str, limit: int | None) -> bytes:
        """A file; one that is larger than the limit is refused while it is read."""
        return self._asked(path, lambda url: self._client.read(url, _UNLIMITED if limit is None else limit))


class HubFiles(ReadOnly):
    """A `Place` on the Hugging Face Hub: the commit that its address leads to when it is first read, and no later one.

    A bucket has no commits: its files are read as they are, and have no tag.
    """

    lists = True

    def __init__(self, address: str, **options: Any) -> None:
        from huggingface_hub import HfFileSystem  # noqa: PLC0415 - slow to import

        self.where = address.rstrip("/")
        self._fs = HfFileSystem(**options)
        self._lock = Lock()
        self._pinned: str | None = None

    def _root(self) -> str:
        """Where the files are, in the words of `HfFileSystem`."""
        with self._lock:
            if self._pinned is None:
                self._pinned = self._find()
            return self._pinned

    def _find(self) -> str:
        from huggingface_hub import HfApi  # noqa: PLC0415 - slow to import

        root = self.where.removeprefix(HUB_SCHEME)
        if root.startswith("buckets/"):
            return root
        try:
            there: Any = self._fs.resolve_path(root)
        except ValueError as error:
            raise StoreError(
                self.where, f"is not an address on the Hub ({error})", "hf://datasets/OWNER/NAME"
            ) from error
        commit = there.revision
        if _COMMIT.fullmatch(commit) is None:
            api = HfApi(endpoint=self._fs.endpoint, token=self._fs.token)
            commit = api.repo_info(there.repo_id, repo_type=there.repo_type, revision=commit).sha
        kind = "" if there.repo_type == "model" else f"{there.repo_type}s/"
        return f"{kind}{there.repo_id}@{commit}/{there.path_in_repo}".rstrip("/")

    def head(self, path: str) -> Head:
        """Bytes of a file, and the id of its blob."""
        found = self._asked(path, self._fs.info)
        if found["type"] != "file":
            raise FileNotFoundError(path)
        blob = found.get("blob_id")
        return Head(int(found["size"]), blob, strong=blob is not None)

    def files(self, folder: str) -> list[str]:
        """Paths below a folder."""
        found = self._asked(folder, self._fs.find)
        return [path[len(self._root()) + 1 :] for path in found]

    def part(self, path: str, start: int, end: int, tag: str | None = None) -> bytes:  # noqa: ARG002 - of one commit
        """A range of a file."""
        return bytes(self._asked(path, lambda name: self._fs.cat_file(name, start=start, end=end)))

    def whole(self, path: str, limit: int | None) -> bytes:
        """A file, or its beginning."""
        size = self.head(path).size or 0
        return self.part(path, 0, size if limit is None else min(size, limit + 1)) if size else b""

    def _asked(self, path: str, ask: Callable[[str], T]) -> T:
        from httpx2 import TransportError  # noqa: PLC0415 - slow to import, as below
        from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415

        try:
            return ask(f"{self._root()}/{path}".rstrip("/"))
        except FileNotFoundError:
            raise
        except HfHubHTTPError as error:
            status = error.response.status_code
            fix = "Log in with `hf auth login`." if status in _LOCKED else "Rerun the command later."
            raise ServerError(f"{self.where}/{path}", f"the Hub answers {status}", "", fix, status=status) from error
        except TransportError as error:
            raise ServerError(f"{self.where}/{path}", f"the Hub does not answer ({error})") from error
