"""A release on a web server, or on the Hugging Face Hub: it is read, never written."""

from typing import Any

from clay_publish.storage.http import Client, Head, ServerError
from clay_publish.storage.place import ReadOnly

_GONE = {404, 410}
_UNLIMITED = 1 << 40


class Website(ReadOnly):
    """A `Place` on a web server, which lists nothing."""

    lists = False

    def __init__(self, address: str) -> None:
        self.where = address.rstrip("/")
        self._client = Client()

    def size(self, path: str) -> int | None:
        """What the server says of a file's size."""
        return self._head(path).size

    def _head(self, path: str) -> Head:
        try:
            return self._client.head(f"{self.where}/{path}")
        except ServerError as error:
            if error.status in _GONE:
                raise FileNotFoundError(path) from error
            raise

    def files(self, folder: str) -> list[str]:  # noqa: ARG002 - a web server cannot say
        """None."""
        return []

    def part(self, path: str, start: int, end: int) -> bytes:
        """A range of a file, in one request."""
        return self._client.part(f"{self.where}/{path}", start, end)[0]

    def whole(self, path: str, limit: int | None) -> bytes:
        """A file; one that is larger than the limit is refused while it is read."""
        try:
            return self._client.read(f"{self.where}/{path}", _UNLIMITED if limit is None else limit)
        except ServerError as error:
            if error.status in _GONE:
                raise FileNotFoundError(path) from error
            raise


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
        found = self._fs.info(f"{self._root}/{path}")
        if found["type"] != "file":
            raise FileNotFoundError(path)
        return int(found["size"])

    def files(self, folder: str) -> list[str]:
        """Paths below a folder."""
        base = f"{self._root}/{folder}".rstrip("/")
        return [path[len(self._root) + 1 :] for path in self._fs.find(base)]

    def part(self, path: str, start: int, end: int) -> bytes:
        """A range of a file."""
        return bytes(self._fs.cat_file(f"{self._root}/{path}", start=start, end=end))

    def whole(self, path: str, limit: int | None) -> bytes:
        """A file, or its beginning."""
        size = self.size(path) or 0
        return self.part(path, 0, size if limit is None else min(size, limit + 1)) if size else b""
