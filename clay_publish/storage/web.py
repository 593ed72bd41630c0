"""A release on a web server, or on the Hugging Face Hub: it is read, never written."""

from collections.abc import Callable
from typing import Any, TypeVar

from clay_publish.storage.http import Head, HttpClient, ServerError
from clay_publish.storage.place import ReadOnly

T = TypeVar("T")

_GONE = {404, 410}
_LOCKED = {401, 403}
_UNLIMITED = 1 << 40


class Website(ReadOnly):
    """A `Place` on a web server, which lists nothing."""

    lists = False

    def __init__(self, address: str) -> None:
        self.where = address.rstrip("/")
        self._client = HttpClient()

    def size(self, path: str) -> int | None:
        """What the server says of a file's size."""
        return self.head(path).size

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
        return self._asked(path, lambda url: self._client.part(url, start, end, tag)[0])

    def whole(self, path: str, limit: int | None) -> bytes:
        """A file; one that is larger than the limit is refused while it is read."""
        return self._asked(path, lambda url: self._client.read(url, _UNLIMITED if limit is None else limit))


class HubFiles(ReadOnly):
    """A `Place` on the Hugging Face Hub."""

    lists = True

    def __init__(self, address: str, **options: Any) -> None:
        from huggingface_hub import HfFileSystem  # noqa: PLC0415 - slow to import

        self.where = address.rstrip("/")
        self._root = self.where.removeprefix("hf://")
        self._fs = HfFileSystem(**options)

    def size(self, path: str) -> int | None:
        """Bytes of a file."""
        return self.head(path).size

    def head(self, path: str) -> Head:
        """Bytes of a file, and the id of its blob."""
        found = self._asked(path, self._fs.info)
        if found["type"] != "file":
            raise FileNotFoundError(path)
        return Head(int(found["size"]), found.get("blob_id"))

    def files(self, folder: str) -> list[str]:
        """Paths below a folder."""
        return [path[len(self._root) + 1 :] for path in self._asked(folder, self._fs.find)]

    def part(self, path: str, start: int, end: int, tag: str | None = None) -> bytes:  # noqa: ARG002 - not in its answers
        """A range of a file."""
        return bytes(self._asked(path, lambda name: self._fs.cat_file(name, start=start, end=end)))

    def whole(self, path: str, limit: int | None) -> bytes:
        """A file, or its beginning."""
        size = self.size(path) or 0
        return self.part(path, 0, size if limit is None else min(size, limit + 1)) if size else b""

    def _asked(self, path: str, ask: Callable[[str], T]) -> T:
        from httpx2 import TransportError  # noqa: PLC0415 - slow to import, as below
        from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415

        try:
            return ask(f"{self._root}/{path}".rstrip("/"))
        except FileNotFoundError:
            raise
        except HfHubHTTPError as error:
            status = error.response.status_code
            fix = "Log in with `hf auth login`." if status in _LOCKED else "Rerun the command later."
            raise ServerError(f"{self.where}/{path}", f"the Hub answers {status}", "", fix, status=status) from error
        except TransportError as error:
            raise ServerError(f"{self.where}/{path}", f"the Hub does not answer ({error})") from error
