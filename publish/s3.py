"""source.coop, AWS, and every other server that speaks S3, as the place.

Written for what source.coop's proxy can do: conditional PutObject and CompleteMultipartUpload, and neither ListParts
nor ListMultipartUploads nor UploadPartCopy.

Uploads are resumed from a journal of one JSON object per line, appended and synchronized before anything relies on it;
a line that was cut off is ignored.
"""

import base64
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Literal

from botocore.exceptions import ClientError
from pydantic import BaseModel, ConfigDict, ValidationError

from clay_publish.errors import PublishError
from clay_publish.publish.bucket import Sent, Stored
from clay_publish.publish.package import OutdatedManifestError, Package
from clay_publish.release.directory import content_type
from clay_publish.release.manifest import FileEntry
from clay_publish.storage.http import ServerError
from clay_publish.storage.s3 import (
    CHANGED,
    MIB,
    NOT_FOUND,
    Address,
    Part,
    S3Client,
    md5,
    part_size,
    parts_tag,
    status_of,
)
from clay_publish.storage.store import check_path


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True)

    event: Literal["begun", "part", "stored", "ended"]
    key: str
    sha256: str
    """Of the file: an upload of other bytes is never gone on with."""
    upload: str | None = None
    part_size: int | None = None
    part: Part | None = None
    etag: str | None = None


class Upload(BaseModel):
    """An upload that was begun."""

    key: str
    sha256: str
    id: str
    part_size: int
    """Bytes; the parts that are missing have to be cut as those that have arrived."""
    parts: dict[int, Part] = {}


class Journal:
    """The journal of one version and one target."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        self._uploads: dict[str, Upload] = {}
        self._stored: dict[str, tuple[str, str]] = {}
        self._read()

    def upload(self, key: str) -> Upload | None:
        """The unfinished upload of a key."""
        return self._uploads.get(key)

    def uploads(self) -> list[Upload]:
        """All unfinished uploads."""
        return list(self._uploads.values())

    def etag(self, key: str, sha256: str) -> str | None:
        """The tag under which the host stored these bytes; None where this program did not see it."""
        known = self._stored.get(key)
        return known[1] if known and known[0] == sha256 else None

    def begun(self, key: str, sha256: str, upload: str, part_size: int) -> Upload:
        """An upload was begun."""
        self._write(_Line(event="begun", key=key, sha256=sha256, upload=upload, part_size=part_size))
        return self._uploads[key]

    def part(self, upload: Upload, part: Part) -> None:
        """A part has arrived."""
        self._write(_Line(event="part", key=upload.key, sha256=upload.sha256, upload=upload.id, part=part))

    def stored(self, key: str, sha256: str, etag: str) -> None:
        """A file is there whole."""
        self._write(_Line(event="stored", key=key, sha256=sha256, etag=etag))

    def ended(self, upload: Upload) -> None:
        """An upload was given up, or completed to something else than was sent."""
        self._write(_Line(event="ended", key=upload.key, sha256=upload.sha256, upload=upload.id))

    def forget(self) -> None:
        """Nothing is left to go on with."""
        self._path.unlink(missing_ok=True)

    def _read(self) -> None:
        if not self._path.is_file():
            return
        *lines, torn = self._path.read_bytes().split(b"\n")
        if torn:
            os.truncate(self._path, self._path.stat().st_size - len(torn))
        for text in lines:
            try:
                line = _Line.model_validate(json.loads(text))
            except (ValueError, ValidationError) as error:
                raise PublishError(str(self._path), "holds an invalid line", fix="Remove the file.") from error
            self._apply(line)

    def _apply(self, line: _Line) -> None:
        if line.event == "begun" and line.upload and line.part_size:
            begun = Upload(key=line.key, sha256=line.sha256, id=line.upload, part_size=line.part_size)
            self._uploads[line.key] = begun
        elif line.event == "part" and line.part:
            upload = self._uploads.get(line.key)
            if upload is not None and upload.id == line.upload:
                upload.parts[line.part.number] = line.part
        elif line.event == "stored" and line.etag:
            self._stored[line.key] = (line.sha256, line.etag)
            self._uploads.pop(line.key, None)
        elif line.event == "ended":
            self._uploads.pop(line.key, None)

    def _write(self, line: _Line) -> None:
        text = (line.model_dump_json(exclude_none=True) + "\n").encode()
        with self._lock:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("ab") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise PublishError(
                    str(self._path),
                    f"cannot be written ({error.strerror})",
                    "room for the journal of the upload",
                    "Free space and rerun the command: it resumes where it stopped.",
                ) from error
            self._apply(line)


_LARGEST_COPY = 5_000_000_000
_INVALID = 400


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
        self._client = S3Client(address)

    def listing(self, folder: str) -> dict[str, Stored]:
        """All files below a folder, keys relative to it."""
        return {path: Stored(size, tag, at) for path, size, tag, at in self._client.listing(folder)}

    def read(self, key: str) -> tuple[bytes, str] | None:
        """A document and its tag."""
        return self._client.get(check_path(key))

    def write(self, key: str, data: bytes, tag: str | None) -> bool:
        """Replace the document that has this tag, or create it."""
        return self._client.put(check_path(key), data, tag, ContentType=content_type(key)) is not None

    def send(self, folder: str, package: Package, entry: FileEntry, sent: Sent) -> int | None:
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
                return 0
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

    def _send_whole(self, key: str, package: Package, entry: FileEntry, sent: Sent) -> int | None:
        data, created = package.read(entry), True
        checksum = base64.b64encode(bytes.fromhex(entry.sha256)).decode()
        try:
            answer = self._client.call(
                "put_object",
                key,
                Body=data,
                ContentType=content_type(key),
                IfNoneMatch="*",
                **self._client.checksums(ChecksumSHA256=checksum),
            )
        except ClientError as error:
            if status_of(error) != CHANGED:
                raise self._odd(key, error) from error
            created = False
        else:
            confirmed = answer.get("ChecksumSHA256") == checksum
            self._remember(key, entry, answer["ETag"], None if confirmed else md5(data).hexdigest())
        sent(entry.size)
        return len(data) if created else None

    def _send_parts(self, key: str, package: Package, entry: FileEntry, sent: Sent) -> int | None:
        upload = self._begin(key, entry)
        for number in upload.parts:
            sent(min(upload.part_size, entry.size - (number - 1) * upload.part_size))

        sizes: list[int] = []

        def arrived(part: Part, size: int) -> None:
            self._journal.part(upload, part)
            sizes.append(size)
            sent(size)

        try:
            parts, checksum = self._client.send_parts(
                key,
                upload.id,
                package.pieces(entry, upload.part_size),
                upload.parts,
                arrived,
            )
        except OutdatedManifestError:
            self._abort(upload)  # its parts hold outdated bytes
            raise
        try:
            stored, confirmed = self._client.complete(key, upload.id, parts, None)
        except ClientError as error:
            if status_of(error) != CHANGED:
                raise
            self._abort(upload)
            return None
        except ServerError as error:
            if error.status == _INVALID:  # which it would be again
                self._abort(upload)
            raise
        self._remember(key, entry, stored, None if confirmed == checksum else _tags(package, entry).parts)
        return sum(sizes)

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

    def _remember(self, key: str, entry: FileEntry, answered: str, expected: str | None) -> None:
        """Note the host's tag.

        Where the host did not confirm a checksum, and the tag is not the MD5 expected, the bytes are read back first.
        """
        tag = answered.strip('"')
        if expected is not None and tag != expected and self._sha256(key) != entry.sha256:
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
            answer = client.get_object(Bucket=address.bucket, Key=self._client.key(key))
            with closing(answer["Body"]) as body:
                for piece in body.iter_chunks(4 * MIB):
                    digest.update(piece)
            return digest.hexdigest()

        return self._client.retried(read, key)

    def _odd(self, key: str, error: ClientError) -> PublishError:
        return PublishError(self._client.place(key), f"was not taken ({error})")


def _tags(package: Package, entry: FileEntry) -> _Tags:
    whole = md5()

    def pieces() -> Iterator[bytes]:
        for piece in package.pieces(entry, part_size(entry.size)):
            whole.update(piece)
            yield piece

    parts = parts_tag(pieces())
    return _Tags(whole.hexdigest(), parts)
