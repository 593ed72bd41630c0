"""A release on an object store. Writes are conditional: no writer overwrites a change that it has not seen."""

import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import IO, cast

from botocore.exceptions import ClientError

from clay_publish.errors import StoreError
from clay_publish.storage.http import Head, ServerError
from clay_publish.storage.s3 import CHANGED, NOT_FOUND, Part, S3Client, part_size, parts_tag, status_of
from clay_publish.storage.unfinished import unfinished

_TRIES = 5
_HOUSEKEEPING_REFUSED = {400, 403, 404, 405, 501}


class Objects:
    """A `Place` on a server that speaks S3."""

    lists = True

    def __init__(self, client: S3Client) -> None:
        self._client = client
        self.where = client.address.where

    def head(self, path: str) -> Head:
        """Bytes and ETag of an object."""
        found = self._client.head(path)
        if found is None:
            raise FileNotFoundError(path)
        return Head(int(found["ContentLength"]), str(found["ETag"]).strip('"'), strong=True)

    def files(self, folder: str) -> Iterator[str]:
        """Keys below a folder."""
        above = f"{folder}/" if folder else ""
        return (f"{above}{path}" for path, *_ in self._client.listing(folder))

    def part(self, path: str, start: int, end: int, tag: str | None = None) -> bytes:
        """A range of an object."""
        try:
            return self._client.part(path, start, end, tag)[0]
        except ServerError as error:
            if error.status == NOT_FOUND:
                raise FileNotFoundError(path) from error
            raise

    def whole(self, path: str, limit: int | None) -> bytes:
        """An object, or its beginning."""
        found = self._client.get(path, limit)
        if found is None:
            raise FileNotFoundError(path)
        return found[0]

    @contextmanager
    def writer(self, path: str) -> Iterator[IO[bytes]]:
        """A file of this machine, sent when it is whole."""
        with tempfile.TemporaryFile() as file:
            yield cast("IO[bytes]", file)
            size = file.tell()
            small = size <= part_size(size)
            tag = None if small else self._tag(path)  # most files are new: a small one is sent without asking first
            for _ in range(_TRIES):
                file.seek(0)
                if small:
                    done = self._client.put(path, file.read(), tag) is not None
                else:
                    done = self._send_parts(path, cast("IO[bytes]", file), part_size(size), tag)
                if done:
                    return
                tag = self._tag(path)
        raise StoreError(
            self._client.place(path),
            f"was changed by another writer {_TRIES} times meanwhile",
            fix="Let a single process write it.",
        )

    def _send_parts(self, path: str, file: IO[bytes], size: int, tag: str | None) -> bool:
        """Create or replace an object in parts. Return False if it has changed."""
        upload = self._client.begin(path)
        with unfinished(partial(self._abandon, path, upload)):
            return self._send_and_complete(path, upload, file, size, tag)

    def _send_and_complete(self, path: str, upload: str, file: IO[bytes], size: int, tag: str | None) -> bool:
        client, arrived = self._client, dict[int, Part]()
        try:
            pieces = iter(lambda: file.read(size), b"")
            parts, _ = client.send_parts(
                path, upload, pieces, arrived, lambda part, _: arrived.update({part.number: part})
            )
            client.complete(path, upload, parts, tag)
        except ClientError as error:
            client.abort(path, upload)
            if status_of(error) not in {CHANGED, NOT_FOUND}:
                raise
            file.seek(0)
            expected = parts_tag(iter(lambda: file.read(size), b""))
            return self._tag(path) == f'"{expected}"'  # completed, and the answer was lost
        except BaseException:
            self._abandon(path, upload)
            raise
        return True

    def _abandon(self, path: str, upload: str) -> None:
        with suppress(ServerError, ClientError):  # the error that led here is the one to tell
            self._client.abort(path, upload)

    def read(self, path: str) -> tuple[bytes, str] | None:
        """An object and its ETag."""
        return self._client.get(path)

    def put(self, path: str, data: bytes, tag: str | None) -> str | None:
        """Create an object, or replace the one with this ETag."""
        return self._client.put(path, data, tag)

    def remove(self, path: str) -> None:
        """Remove an object, if there is one."""
        self._client.call("delete_object", path)

    def remove_orphans(self, folder: str) -> list[str]:
        """Abort the uploads that killed writers began: they are invisible and cost storage.

        A writer that is alive sends its file again. Where the server or its owner does not let us list them, they stay;
        a lifecycle rule is another way.
        """
        try:
            found = list(self._client.uploads(folder))
        except (ServerError, ClientError) as error:
            if (error.status if isinstance(error, ServerError) else status_of(error)) in _HOUSEKEEPING_REFUSED:
                return []
            raise
        for path, upload in found:
            self._client.abort(path, upload)
        return [path for path, _ in found]

    def check_conditions(self, folder: str) -> None:
        """Check that the server supports conditional writes, which keep two runs apart.

        Raises:
            StoreError: it does not.
        """
        path = f"{folder}/probe-{uuid.uuid4().hex}"
        try:
            tag = self.put(path, b"first", None)
            supported = tag is not None and self.put(path, b"second", None) is None
            supported = supported and self.put(path, b"third", '"00000000000000000000000000000000"') is None
        except ServerError as error:
            if error.status != 501:  # what servers answer that know of conditions, and have none
                raise
            supported = False
        finally:
            with suppress(ServerError):  # what was found out, or went wrong before, is the one to tell
                self.remove(path)
        if not supported:
            raise StoreError(
                self._client.place(folder),
                "the server ignores conditional writes (If-None-Match, If-Match)",
                "a server that supports them: AWS S3, Cloudflare R2, MinIO since 2024, Ceph since Squid",
                "Make the release in a directory, and `publish` it.",
            )

    def _tag(self, path: str) -> str | None:
        found = self._client.head(path)
        return None if found is None else str(found["ETag"])
