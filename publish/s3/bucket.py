"""source.coop, AWS, and every other server that speaks S3, as the place.

Written for what source.coop's proxy can do: conditional PutObject and CompleteMultipartUpload, and neither ListParts
nor ListMultipartUploads nor UploadPartCopy.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from clay_publish.errors import PublishError
from clay_publish.publish.bucket import Sent, Stored
from clay_publish.publish.package import ChangedError, Package
from clay_publish.publish.s3.upload_journal import Journal, Upload
from clay_publish.release.content_types import content_type
from clay_publish.release.manifest import FileEntry
from clay_publish.storage.http import ServerError
from clay_publish.storage.s3 import (
    CHANGED,
    MIB,
    NOT_FOUND,
    Address,
    Client,
    Part,
    combined,
    md5,
    part_size,
    status_of,
)
from clay_publish.storage.store import check_path

_LARGEST_COPY = 5_000_000_000


@dataclass(frozen=True)
class _Tags:
    """What the host calls a file of these bytes: MD5, or MD5 over the MD5s of the parts."""

    whole: str
    parts: str


class S3Bucket:
    """A `Bucket` on an S3 server."""

    def __init__(self, address: Address, journal: Journal) -> None:
        self.where = address.where
        self._journal = journal
        self._client = Client(address)

    def listing(self, folder: str) -> dict[str, Stored]:
        """All files below a folder, keys relative to it."""
        return {path: Stored(size, tag) for path, size, tag in self._client.listing(folder)}

    def read(self, key: str) -> tuple[bytes, str] | None:
        """A document and its tag."""
        return self._client.get(check_path(key))

    def write(self, key: str, data: bytes, tag: str | None) -> bool:
        """Replace the document that has this tag, or create it."""
        return self._client.put(check_path(key), data, tag, ContentType=content_type(key)) is not None

    def send(self, folder: str, package: Package, entry: FileEntry, sent: Sent) -> bool:
        """Create one file, in parts where it is large; parts that have arrived are not sent again."""
        key = check_path(f"{folder}/{entry.path}")
        if entry.size <= part_size(entry.size):
            return self._send_whole(key, package, entry, sent)
        try:
            return self._send_parts(key, package, entry, sent)
        except ClientError as error:
            stale = self._journal.upload(key)
            if stale is None or status_of(error) != NOT_FOUND:
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
        client = self._client
        origin = {"Bucket": client.address.bucket, "Key": client.key(source)}
        try:
            client.call("copy_object", check_path(f"{folder}/{entry.path}"), CopySource=origin, IfNoneMatch="*")
        except ClientError as error:
            return status_of(error) == CHANGED
        except ServerError:
            return False  # sent like any other file; if it is the host that is away, that says so
        return True

    def same(self, folder: str, package: Package | None, entry: FileEntry, stored: Stored, *, full: bool) -> bool:
        """Whether what is stored is this file: by the host's tag where it is an MD5, else by reading it."""
        key = check_path(f"{folder}/{entry.path}")
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

    def _send_whole(self, key: str, package: Package, entry: FileEntry, sent: Sent) -> bool:
        data = package.read(entry)
        created = True
        try:
            answer = self._client.call("put_object", key, Body=data, ContentType=content_type(key), IfNoneMatch="*")
        except ClientError as error:
            if status_of(error) != CHANGED:
                raise self._odd(key, error) from error
            created = False
        else:
            self._remember(key, entry, answer["ETag"], md5(data).hexdigest())
        sent(entry.size)
        return created

    def _send_parts(self, key: str, package: Package, entry: FileEntry, sent: Sent) -> bool:
        upload = self._begin(key, entry)
        for number in upload.parts:
            sent(min(upload.part_size, entry.size - (number - 1) * upload.part_size))

        def arrived(part: Part, size: int) -> None:
            self._journal.part(upload, part)
            sent(size)

        try:
            parts, tag = self._client.send_parts(
                key,
                upload.id,
                package.pieces(entry, upload.part_size),
                upload.parts,
                arrived,
            )
        except ChangedError:
            self._abort(upload)  # its parts are of bytes that are no more
            raise
        try:
            stored = self._client.complete(key, upload.id, parts, None)
        except ClientError as error:
            if status_of(error) != CHANGED:
                raise
            self._abort(upload)
            return False
        self._remember(key, entry, stored, tag)
        return True

    def _begin(self, key: str, entry: FileEntry) -> Upload:
        known = self._journal.upload(key)
        if known is not None and known.sha256 == entry.sha256:
            return known
        if known is not None:
            self._abort(known)
        begun = self._client.begin(key, ContentType=content_type(key))
        try:
            return self._journal.begun(key, entry.sha256, begun, part_size(entry.size))
        except PublishError:
            self._client.abort(key, begun)
            raise

    def _abort(self, upload: Upload) -> None:
        self._client.abort(upload.key, upload.id)
        self._journal.ended(upload)

    def _remember(self, key: str, entry: FileEntry, answered: str, expected: str) -> None:
        """Note the host's tag; where it is not the MD5 that it should be, only after reading the bytes back."""
        tag = answered.strip('"')
        if tag != expected and self._sha256(key) != entry.sha256:
            self._client.call("delete_object", key)  # made by this call, and named by nothing yet
            upload = self._journal.upload(key)
            if upload is not None:
                self._journal.ended(upload)
            raise PublishError(
                self._client.place(key), "arrived as other bytes, and was removed", fix="Run the command again."
            )
        self._journal.stored(key, entry.sha256, tag)

    def _is_there(self, key: str, package: Package, entry: FileEntry) -> bool:
        head = self._client.head(key)
        return head is not None and bool(head["ETag"].strip('"') == _tags(package, entry).parts)

    def _sha256(self, key: str) -> str:
        def read(client: Any) -> str:
            digest = hashlib.sha256()
            address = self._client.address
            for piece in client.get_object(Bucket=address.bucket, Key=self._client.key(key))["Body"].iter_chunks(
                4 * MIB
            ):
                digest.update(piece)
            return digest.hexdigest()

        return self._client.patiently(read, key)

    def _odd(self, key: str, error: ClientError) -> PublishError:
        return PublishError(self._client.place(key), f"was not taken ({error})")


def _tags(package: Package, entry: FileEntry) -> _Tags:
    whole, digests = md5(), b""
    for piece in package.pieces(entry, part_size(entry.size)):
        whole.update(piece)
        digests += md5(piece).digest()
    return _Tags(whole.hexdigest(), combined(digests))
