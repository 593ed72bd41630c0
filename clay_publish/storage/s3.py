"""Writing to an object store: every file is put on a condition, so that nobody overwrites what they have not seen.

The answer to a put may be lost. It is then put again, refused, and found to be there already, which is as good.

Source: S3 API reference, "Conditional requests" and "Multipart upload".
"""

import hashlib
import random
import tempfile
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import IO, Any, cast

from fsspec.asyn import sync

from clay_publish.errors import StoreError
from clay_publish.storage.http import NETWORK_ERRORS

OPTIONS: dict[str, Any] = {
    # Other machines write here too: what was listed a minute ago is no answer.
    "use_listings_cache": False,
    # 5xx, resets and timeouts are tried again, with longer and longer pauses; 403, 404 and 412 never.
    "config_kwargs": {
        "connect_timeout": 20,
        "read_timeout": 60,
        "retries": {"mode": "standard", "total_max_attempts": 8},
    },
}
"""How s3fs opens its client."""

MIB = 1 << 20
PART = 16 * MIB
"""Larger files go in parts."""
_LARGEST_PART = 512 * MIB
_MOST_PARTS = 10_000
_PARTS_AT_ONCE = 4
_TRIES = 5
_CONFLICT, _CHANGED, _MISSING = 409, 412, 404
_HOUSEKEEPING_REFUSED = {403, 405, 501}


class Objects:
    """A `Writing` on a server that speaks S3."""

    def __init__(self, files: Any) -> None:
        self._fs = files

    @contextmanager
    def writer(self, path: str) -> Iterator[IO[bytes]]:
        """A file of this machine, sent when it is whole."""
        with tempfile.TemporaryFile() as file:
            yield cast("IO[bytes]", file)
            size = file.tell()
            file.seek(0)
            if size <= PART:
                self._send(path, file.read())
            else:
                self._send_parts(path, cast("IO[bytes]", file), size)

    def read(self, path: str) -> tuple[bytes, str] | None:
        """An object and its ETag, as one request saw them."""

        async def get() -> tuple[bytes, str]:
            answer = await self._fs._call_s3("get_object", **self._named(path))  # noqa: SLF001 - fsspec's way to say async
            async with answer["Body"] as body:
                return await body.read(), answer["ETag"]

        try:
            return cast("tuple[bytes, str]", sync(self._fs.loop, get))
        except FileNotFoundError:
            return None

    def put(self, path: str, data: bytes, tag: str | None) -> str | None:
        """Create an object, or replace the one with this ETag."""
        try:
            return str(self._call("put_object", path, Body=data, **_condition(tag))["ETag"])
        except OSError as error:
            if not _is_another(error, tag):
                raise
        there = self.read(path)
        return there[1] if there is not None and there[0] == data else None

    def remove(self, path: str) -> None:
        """Remove an object, if there is one."""
        self._call("delete_object", path)

    def remove_orphans(self, root: str) -> list[str]:
        """Give up the uploads that writers who were killed began: nobody sees them, and all pay for them.

        Where the server or its owner does not let us list them, they stay; a lifecycle rule is another way.
        """
        bucket, key, _ = self._fs.split_path(root)
        prefix = f"{key}/" if key else ""
        found: list[str] = []
        more: dict[str, Any] = {}
        while True:
            try:
                page = self._fs.call_s3(
                    "list_multipart_uploads", Bucket=bucket, Prefix=f"{prefix.rstrip('/')}/", **more
                )
            except OSError as error:
                if _status(error) in _HOUSEKEEPING_REFUSED:
                    return found
                raise
            for upload in page.get("Uploads", []):
                path = f"{bucket}/{upload['Key']}"
                self._abort(path, upload["UploadId"])
                found.append(path)
            if not page.get("IsTruncated"):
                return found
            more = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

    def check_conditions(self, folder: str) -> None:
        """Make sure that the server heeds conditions: without them, nothing keeps two runs apart.

        Raises:
            StoreError: it does not.
        """
        path = f"{folder}/probe-{uuid.uuid4().hex}"
        try:
            tag = self.put(path, b"first", None)
            heeded = tag is not None and self.put(path, b"second", None) is None
            heeded = heeded and self.put(path, b"third", '"00000000000000000000000000000000"') is None
        except OSError as error:
            if _status(error) != 501:  # what servers answer that know of conditions, and have none
                raise
            heeded = False
        finally:
            with suppress(*NETWORK_ERRORS):  # what was found out, or went wrong before, is the one to tell
                self.remove(path)
        if not heeded:
            raise StoreError(
                f"s3://{folder}",
                "lies on a server that ignores conditions of a put (If-None-Match, If-Match)",
                "a server that heeds them: AWS S3, Cloudflare R2, MinIO since 2024, Ceph since Squid",
                "Make the release in a directory, and `publish` it.",
            )

    def _send(self, path: str, data: bytes) -> None:
        tag = None
        for _ in range(_TRIES):
            if self.put(path, data, tag) is not None:
                return
            tag = self._tag(path)
        raise _contested(path)

    def _send_parts(self, path: str, file: IO[bytes], size: int) -> None:
        part = PART
        while size > part * _MOST_PARTS:
            part *= 2
        if part > _LARGEST_PART:
            raise StoreError(f"s3://{path}", f"would have {size} bytes", f"at most {_LARGEST_PART * _MOST_PARTS}")
        for _ in range(_TRIES):
            tag = self._tag(path)
            upload = self._call("create_multipart_upload", path)["UploadId"]
            try:
                file.seek(0)
                parts, expected = self._parts(path, upload, file, part)
                if self._complete(path, upload, parts, tag, expected):
                    return
            except BaseException:
                with suppress(*NETWORK_ERRORS):  # the error that led here is the one to tell
                    self._abort(path, upload)
                raise
            self._abort(path, upload)
        raise _contested(path)

    def _parts(self, path: str, upload: str, file: IO[bytes], size: int) -> tuple[list[dict[str, Any]], str]:
        """Send the parts, a few at a time; what completes them, and the ETag the whole should get."""

        def send(number: int, piece: bytes) -> dict[str, Any]:
            answer = self._call("upload_part", path, UploadId=upload, PartNumber=number, Body=piece)
            sums = {key: value for key, value in answer.items() if key.startswith("Checksum") and key != "ChecksumType"}
            return {"PartNumber": number, "ETag": answer["ETag"], **sums}

        sent: list[dict[str, Any]] = []
        digests, number = b"", 0
        with ThreadPoolExecutor(_PARTS_AT_ONCE) as pool:
            while pieces := [piece for _ in range(_PARTS_AT_ONCE) if (piece := file.read(size))]:
                digests += b"".join(hashlib.md5(piece, usedforsecurity=False).digest() for piece in pieces)
                numbers = range(number + 1, number + 1 + len(pieces))
                sent += pool.map(send, numbers, pieces)
                number += len(pieces)
        return sent, f'"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{number}"'

    def _complete(self, path: str, upload: str, parts: list[dict[str, Any]], tag: str | None, expected: str) -> bool:
        try:
            self._call(
                "complete_multipart_upload",
                path,
                UploadId=upload,
                MultipartUpload={"Parts": parts},
                **_condition(tag),
            )
        except OSError as error:
            if _status(error) not in {_CHANGED, _MISSING}:
                raise
            return self._tag(path) == expected  # completed, and the answer was lost
        return True

    def _abort(self, path: str, upload: str) -> None:
        with suppress(FileNotFoundError):
            self._call("abort_multipart_upload", path, UploadId=upload)

    def _tag(self, path: str) -> str | None:
        try:
            return str(self._call("head_object", path)["ETag"])
        except FileNotFoundError:
            return None

    def _call(self, operation: str, path: str, **parameters: Any) -> Any:
        """Call the server; again where somebody else was changing the same object."""
        for again in range(_TRIES):
            try:
                return self._fs.call_s3(operation, **self._named(path), **parameters)
            except OSError as error:
                if _status(error) != _CONFLICT or again == _TRIES - 1:
                    raise
            time.sleep(0.1 * 2**again * random.uniform(0.5, 1.5))  # noqa: S311 - so that clients don't march in step
        raise AssertionError

    def _named(self, path: str) -> dict[str, str]:
        bucket, key, _ = self._fs.split_path(path)
        return {"Bucket": bucket, "Key": key}


def _condition(tag: str | None) -> dict[str, str]:
    return {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}


def _status(error: OSError) -> int:
    """What the server answered; 0 where it did not."""
    answer = getattr(error.__cause__, "response", None) or {}
    return int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _is_another(error: OSError, tag: str | None) -> bool:
    """Whether the object is not the one that the condition speaks of; without a condition, 404 is a missing bucket."""
    return _status(error) == _CHANGED or (tag is not None and _status(error) == _MISSING)


def _contested(path: str) -> StoreError:
    return StoreError(
        f"s3://{path}", f"was written by somebody else {_TRIES} times meanwhile", fix="Let one of them do it."
    )
