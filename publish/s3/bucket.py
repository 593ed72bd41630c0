"""source.coop, AWS, and every other server that speaks S3, as the place.

Written for what source.coop's proxy can do: conditional PutObject and CompleteMultipartUpload, and neither ListParts
nor ListMultipartUploads nor UploadPartCopy.
"""

import base64
import binascii
import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import BoundedSemaphore, Event
from typing import Any

from botocore.exceptions import ClientError

from clay_publish.errors import PublishError
from clay_publish.publish.bucket import Sent, Stored
from clay_publish.publish.package import ChangedError, Package
from clay_publish.publish.s3.client import Address, Client, Patience, is_status
from clay_publish.publish.s3.upload_journal import Journal, Part, Upload
from clay_publish.release.content_types import content_type
from clay_publish.release.manifest import FileEntry
from clay_publish.storage.store import check_path

MIB = 1 << 20
_PART = 16 * MIB
_LARGEST_PART = 64 * MIB
_MOST_PARTS = 10_000
_LARGEST_COPY = 5_000_000_000
_PARTS_AT_ONCE = 8


def part_size(size: int) -> int:
    """Bytes of a part of a file: a rule, so that anyone can compute the tag of a stored file again.

    Raises:
        PublishError: the file is larger than S3 can take in parts of 64 MiB.
    """
    if size <= _PART * _MOST_PARTS:
        return _PART
    if size <= _LARGEST_PART * _MOST_PARTS:
        return _LARGEST_PART
    raise PublishError("the file", f"has {size} bytes", f"at most {_LARGEST_PART * _MOST_PARTS}")


@dataclass(frozen=True)
class _Tags:
    """What the host calls a file of these bytes: MD5, or MD5 over the MD5s of the parts."""

    whole: str
    parts: str


class S3Bucket:
    """A `Bucket` on an S3 server."""

    def __init__(self, address: Address, journal: Journal, patience: Patience | None = None) -> None:
        self.where = address.where
        self._prefix = address.prefix
        self._bucket = address.bucket
        self._journal = journal
        self._client = Client(address, patience or Patience())
        self._room = BoundedSemaphore(2 * _PARTS_AT_ONCE)

    def listing(self, folder: str) -> dict[str, Stored]:
        """All files below a folder, keys relative to it."""
        prefix = self._key(folder) + "/"
        found: dict[str, Stored] = {}
        more: dict[str, str] = {}
        while True:
            page = self._client.call("list_objects_v2", Prefix=prefix, **more)
            for item in page.get("Contents", []):
                found[item["Key"].removeprefix(prefix)] = Stored(item["Size"], item["ETag"].strip('"'))
            if not page.get("IsTruncated"):
                return found
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def read(self, key: str) -> tuple[bytes, str] | None:
        """A document and its tag."""

        def get(client: Any) -> tuple[bytes, str]:
            answer = client.get_object(Bucket=self._bucket, Key=self._key(key))
            return answer["Body"].read(), answer["ETag"]

        try:
            return self._client.patiently(get)
        except ClientError as error:
            if is_status(error, 404):
                return None
            raise

    def write(self, key: str, data: bytes, tag: str | None) -> bool:
        """Replace the document that has this tag, or create it."""
        condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
        try:
            self._client.call("put_object", Key=self._key(key), Body=data, ContentType=content_type(key), **condition)
        except ClientError as error:
            if not is_status(error, 404, 412):
                raise
            # Where the answer to a first attempt was lost, the second finds the document of the first.
            there = self.read(key)
            return there is not None and there[0] == data
        return True

    def send(self, folder: str, package: Package, entry: FileEntry, sent: Sent) -> bool:
        """Create one file, in parts where it is large; parts that have arrived are not sent again."""
        key = self._key(f"{folder}/{entry.path}")
        if entry.size <= part_size(entry.size):
            return self._send_whole(key, package, entry, sent)
        try:
            return self._send_parts(key, package, entry, sent)
        except ClientError as error:
            stale = self._journal.upload(key)
            if stale is None or not is_status(error, 404):
                raise self._odd(key, error) from error
            # The host has dropped the upload, or completed it and the answer was lost.
            self._journal.ended(stale)
            if self._is_there(key, package, entry):
                return True
            return self._send_parts(key, package, entry, sent)

    def copy(self, source: str, folder: str, entry: FileEntry) -> bool:
        """Create one file from another of this bucket; False where the host cannot."""
        if entry.size > _LARGEST_COPY:
            return False
        origin = {"Bucket": self._bucket, "Key": self._key(source)}
        key = self._key(f"{folder}/{entry.path}")
        try:
            self._client.call("copy_object", Key=key, CopySource=origin, IfNoneMatch="*")
        except ClientError as error:
            return is_status(error, 412)
        except PublishError:
            return False  # sent like any other file; if it is the host that is away, that says so
        return True

    def same(self, folder: str, package: Package | None, entry: FileEntry, stored: Stored, *, full: bool) -> bool:
        """Whether what is stored is this file: by the host's tag where it is an MD5, else by reading it."""
        key = self._key(f"{folder}/{entry.path}")
        if stored.size != entry.size:
            return False
        if not full:
            if self._journal.etag(key, entry.sha256) == stored.tag:
                return True
            tags = None if package is None else _tags(package, entry)
            if tags is not None and stored.tag in {tags.whole, tags.parts}:
                return True
        return self._sha256(key) == entry.sha256

    def forget(self) -> None:
        """Give up uploads that nothing needs any more, and the journal."""
        for upload in self._journal.uploads():
            self._abort(upload)
        self._journal.forget()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _key(self, key: str) -> str:
        return f"{self._prefix}/{check_path(key)}" if self._prefix else check_path(key)

    def _send_whole(self, key: str, package: Package, entry: FileEntry, sent: Sent) -> bool:
        data = package.read(entry)
        created = True
        try:
            answer = self._client.call("put_object", Key=key, Body=data, ContentType=content_type(key), IfNoneMatch="*")
        except ClientError as error:
            if not is_status(error, 412):
                raise self._odd(key, error) from error
            created = False
        else:
            self._remember(key, entry, answer, hashlib.md5(data, usedforsecurity=False).hexdigest())
        sent(entry.size)
        return created

    def _send_parts(self, key: str, package: Package, entry: FileEntry, sent: Sent) -> bool:
        upload = self._begin(key, entry)
        try:
            parts, tag = self._parts(upload, package, entry, sent)
        except ChangedError:
            self._abort(upload)  # its parts are of bytes that are no more
            raise
        try:
            answer = self._client.call(
                "complete_multipart_upload",
                Key=key,
                UploadId=upload.id,
                IfNoneMatch="*",
                MultipartUpload={"Parts": parts},
            )
        except ClientError as error:
            if not is_status(error, 412):
                raise
            self._abort(upload)
            return False
        self._remember(key, entry, answer, tag)
        return True

    def _begin(self, key: str, entry: FileEntry) -> Upload:
        known = self._journal.upload(key)
        if known is not None and known.sha256 == entry.sha256:
            return known
        if known is not None:
            self._abort(known)
        begun = self._client.call("create_multipart_upload", Key=key, ContentType=content_type(key))
        try:
            return self._journal.begun(key, entry.sha256, begun["UploadId"], part_size(entry.size))
        except PublishError:
            self._client.call("abort_multipart_upload", Key=key, UploadId=begun["UploadId"])
            raise

    def _parts(self, upload: Upload, package: Package, entry: FileEntry, sent: Sent) -> tuple[list[Any], str]:
        """Send what is missing; the parts for the completion, and the tag the whole should get."""
        digests, failed = b"", Event()
        with ThreadPoolExecutor(_PARTS_AT_ONCE) as pool:
            futures = []
            for number, piece in enumerate(package.pieces(entry, upload.part_size), 1):
                digests += hashlib.md5(piece, usedforsecurity=False).digest()
                if number in upload.parts:
                    sent(len(piece))
                elif not failed.is_set():
                    self._room.acquire()
                    futures.append(pool.submit(self._send_part, upload, number, piece, sent))
                    futures[-1].add_done_callback(lambda done: self._part_ended(done, failed))
        # Leaving the block waited for all parts, also where one has failed: what has arrived is in the journal.
        for future in futures:
            future.result()
        parts = [
            {"PartNumber": p.number, "ETag": p.etag, **({"ChecksumCRC32": p.checksum} if p.checksum else {})}
            for p in (upload.parts[number] for number in sorted(upload.parts))
        ]
        return parts, _combined(digests)

    def _part_ended(self, part: Future[None], failed: Event) -> None:
        self._room.release()
        if part.exception() is not None:
            failed.set()

    def _send_part(self, upload: Upload, number: int, piece: bytes, sent: Sent) -> None:
        answer = self._client.call("upload_part", Key=upload.key, UploadId=upload.id, PartNumber=number, Body=piece)
        checksum = answer.get("ChecksumCRC32")
        expected = base64.b64encode(binascii.crc32(piece).to_bytes(4, "big")).decode()
        if checksum is not None and checksum != expected:
            raise PublishError(upload.key, f"part {number} arrived as other bytes", expected, "Run the command again.")
        self._journal.part(upload, Part(number=number, etag=answer["ETag"], checksum=checksum))
        sent(len(piece))

    def _abort(self, upload: Upload) -> None:
        try:
            self._client.call("abort_multipart_upload", Key=upload.key, UploadId=upload.id)
        except ClientError as error:
            if not is_status(error, 404):
                raise self._odd(upload.key, error) from error
        self._journal.ended(upload)

    def _remember(self, key: str, entry: FileEntry, answer: Any, expected: str) -> None:
        """Note the host's tag; where it is not the MD5 that it should be, only after reading the bytes back."""
        tag = answer.get("ETag", "").strip('"')
        if tag != expected and self._sha256(key) != entry.sha256:
            self._client.call("delete_object", Key=key)  # made by this call, and named by nothing yet
            upload = self._journal.upload(key)
            if upload is not None:
                self._journal.ended(upload)
            raise PublishError(
                f"{self.where} ({key})", "arrived as other bytes, and was removed", fix="Run the command again."
            )
        self._journal.stored(key, entry.sha256, tag)

    def _is_there(self, key: str, package: Package, entry: FileEntry) -> bool:
        try:
            head = self._client.call("head_object", Key=key)
        except ClientError as error:
            if is_status(error, 404):
                return False
            raise self._odd(key, error) from error
        return bool(head["ETag"].strip('"') == _tags(package, entry).parts)

    def _sha256(self, key: str) -> str:
        def read(client: Any) -> str:
            digest = hashlib.sha256()
            for piece in client.get_object(Bucket=self._bucket, Key=key)["Body"].iter_chunks(4 * MIB):
                digest.update(piece)
            return digest.hexdigest()

        return self._client.patiently(read)

    def _odd(self, key: str, error: ClientError) -> PublishError:
        return PublishError(f"{self.where} ({key})", f"was not taken ({error})")


def _tags(package: Package, entry: FileEntry) -> _Tags:
    whole, digests = hashlib.md5(usedforsecurity=False), b""
    for piece in package.pieces(entry, part_size(entry.size)):
        whole.update(piece)
        digests += hashlib.md5(piece, usedforsecurity=False).digest()
    return _Tags(whole.hexdigest(), _combined(digests))


def _combined(digests: bytes) -> str:
    return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(digests) // 16}"
