"""The one S3 client: conditional writes, uploads in parts that can be resumed, one retry policy.

The answer to a put may be lost. It is then put again, refused, and found to be there already, which is as good.
Written for what source.coop's proxy supports: conditional PutObject and CompleteMultipartUpload, and neither ListParts
nor UploadPartCopy.

Source: S3 API reference, "Conditional requests", "Multipart upload", error responses.
"""

import base64
import binascii
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass
from datetime import datetime
from threading import BoundedSemaphore, Event, Lock
from typing import Any, TypeVar

import boto3
from botocore import UNSIGNED
from botocore.awsrequest import AWSHTTPConnection, AWSHTTPSConnection
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ResponseStreamingError,
)
from pydantic import BaseModel, ConfigDict

from clay_publish.errors import StoreError
from clay_publish.storage.connections import Watched, pools
from clay_publish.storage.http import ChangedError, Head, ServerError
from clay_publish.storage.retry import Budget, RetryPolicy, is_transient, limits, retrying

T = TypeVar("T")

RETRIES = RetryPolicy(attempts=8)
MIB = 1 << 20
PART = 16 * MIB
"""Larger files go in parts."""
_LARGER_PARTS = (64 * MIB, 512 * MIB)
_MOST_PARTS = 10_000
_PARTS_AT_ONCE = 8
_READ = 1 << 14
"""Bytes between two looks at the time of an item."""
NOT_FOUND, CHANGED = 404, 412
_UNEXPLAINED = (400, 403)

_LOST = (HTTPClientError, IncompleteReadError, ResponseStreamingError, TimeoutError)
_NO_CREDENTIALS = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError)
_DAMAGED = ("BadDigest", "XAmzContentChecksumMismatch")
_AGAIN = frozenset({"SlowDown", "RequestTimeout", "ConditionalRequestConflict", "OperationAborted", *_DAMAGED})
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"})
_FIXES = {
    "AccessDenied": "Use credentials that have permission for this prefix, or ask its owner for it.",
    "InvalidAccessKeyId": "The server does not know these credentials; get new ones.",
    "SignatureDoesNotMatch": "The secret key is wrong; get new credentials.",
    "RequestTimeTooSkewed": "The clock of this machine is wrong; set it, then rerun the command.",
    "NoSuchBucket": "Create the bucket first, or correct its name.",
}


@dataclass(frozen=True)
class Address:
    """A prefix of a bucket, and how to get there."""

    bucket: str
    prefix: str
    where: str
    """Address of the prefix, for messages."""
    endpoint_url: str | None = None
    """None: `AWS_ENDPOINT_URL_S3`, what the profile says, or AWS."""
    key: str | None = None
    secret: str | None = None
    token: str | None = None
    anon: bool = False
    """Requests are not signed: a public bucket."""

    def __post_init__(self) -> None:
        """Refuse credentials in the address."""
        if "@" in self.bucket:
            fix = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."
            raise StoreError(self.where, "has credentials in its address", "s3://BUCKET/PREFIX", fix)


class Part(BaseModel):
    """One part of an upload, as the server confirmed it."""

    model_config = ConfigDict(frozen=True)

    number: int
    etag: str
    checksum: str | None = None
    """CRC-32, base64, where the server returns it."""


def part_size(size: int) -> int:
    """Bytes of a part of a file: a rule, so that anyone can compute the ETag of a stored file again.

    Raises:
        StoreError: the file is larger than S3 takes.
    """
    for part in (PART, *_LARGER_PARTS):
        if size <= part * _MOST_PARTS:
            return part
    raise StoreError("the file", f"has {size} bytes", f"at most {_LARGER_PARTS[-1] * _MOST_PARTS}")


class _Http(Watched, AWSHTTPConnection):  # type: ignore[misc]  # botocore has no types
    pass


class _Https(Watched, AWSHTTPSConnection):  # type: ignore[misc]  # as above
    pass


class S3Client:
    """Requests to one prefix; keys are relative to it. Credentials come from the usual AWS chain, renewed on expiry.

    Args:
        address: the prefix.
        policy: default: `RETRIES`.
    """

    def __init__(self, address: Address, policy: RetryPolicy | None = None) -> None:
        self.address = address
        self._policy = policy or RETRIES
        self._lock = Lock()
        self._room = BoundedSemaphore(2 * _PARTS_AT_ONCE)
        self._client: Any = None

    def key(self, path: str) -> str:
        """The full key of a relative one."""
        return "/".join(filter(None, (self.address.prefix, path)))

    def place(self, path: str) -> str:
        """A key as messages name it."""
        return "/".join(filter(None, (self.address.where, path)))

    def call(self, operation: str, path: str | None, **parameters: Any) -> Any:
        """Call an operation of boto3 on a key, or on the bucket where `path` is None.

        Raises:
            ClientError: the server answers 404 or 412, which the caller has to interpret.
            ServerError: it refuses, or does not answer in time again and again.
        """
        named = {} if path is None else {"Key": self.key(path)}
        return self.retried(
            lambda client: getattr(client, operation)(Bucket=self.address.bucket, **named, **parameters), path or ""
        )

    def retried(self, work: Callable[[Any], T], path: str = "") -> T:
        """Do something with the client of boto3, again where that can help. Errors as `call`."""
        renewed: list[bool] = []

        def attempt() -> T:
            client = self._client or self._renew(None)
            try:
                return work(client)
            except ClientError as error:
                if _code(error) in _EXPIRED and not renewed:
                    renewed.append(self._renew(client) is not None)
                    return attempt()
                raise

        try:
            return retrying(_is_transient, self._policy)(attempt)
        except ClientError as error:
            if status_of(error) in {NOT_FOUND, CHANGED} and _code(error) != "NoSuchBucket":
                raise
            raise (self._lost(error, path) if _is_transient(error) else self._refused(error, path)) from error
        except _NO_CREDENTIALS as error:
            # The output of a credential process may hold a secret: only the kind of the error is shown.
            found = f"no AWS credentials found ({type(error).__name__})"
            expected = "credentials in the environment, a profile or its credential_process"
            fix = "For source.coop, get them on the page of the product."
            raise ServerError(self.address.where, found, expected, fix, status=401) from None
        except (BotoCoreError, TimeoutError) as error:
            raise self._lost(error, path) from error

    def get(self, path: str, limit: int | None = None) -> tuple[bytes, str] | None:
        """An object, or its first `limit + 1` bytes, and its ETag, as one request saw them; None if there is none."""

        def fetch(client: Any) -> tuple[bytes, str]:
            answer = client.get_object(Bucket=self.address.bucket, Key=self.key(path), **_payer())
            with closing(answer["Body"]) as body:
                return body.read(None if limit is None else limit + 1), answer["ETag"]

        return absent(lambda: self.retried(fetch, path))

    def head(self, path: str) -> Any | None:
        """Headers of an object; None where there is none."""
        named = {"Bucket": self.address.bucket, "Key": self.key(path)}

        def ask(client: Any) -> Any:
            try:
                return client.head_object(**named)
            except ClientError as error:
                if status_of(error) in _UNEXPLAINED:  # the answer to HEAD has no body that names the reason
                    client.get_object(**named, Range="bytes=0-0")["Body"].close()
                    return client.head_object(**named)
                raise

        return absent(lambda: self.retried(ask, path))

    def part(
        self, path: str, start: int, end: int, tag: str | None = None, budget: Budget | None = None
    ) -> tuple[bytes, Head]:
        """Bytes `start` to `end` (exclusive) of an object, and its current size and ETag.

        Raises:
            TooSlowError: the time of `budget` is spent.
            ChangedError: the object no longer has the ETag `tag`.
            ServerError: there is none (`status` 404), or as `call`.
        """

        def fetch(client: Any) -> tuple[bytes, Head]:
            answer = client.get_object(
                Bucket=self.address.bucket, Key=self.key(path), Range=f"bytes={start}-{end - 1}", **_payer()
            )
            with closing(answer["Body"]) as body:
                size = str(answer.get("ContentRange", "")).rpartition("/")[2]
                found = Head(int(size) if size.isdigit() else None, answer["ETag"].strip('"'), strong=True)
                if tag not in {None, found.tag}:
                    raise ChangedError(self.place(path), f"changed while it was read (ETag {found.tag})", str(tag))
                data = bytearray()
                while piece := body.read(min(_READ, end - start - len(data))):
                    data += piece
                    if budget is not None:
                        budget.check()
                return bytes(data), found

        try:
            with nullcontext() if budget is None else budget.spending():
                return self.retried(fetch, path)
        except ClientError as error:
            raise self._refused(error, path) from error

    def put(self, path: str, data: bytes, tag: str | None, **headers: str) -> str | None:
        """Create an object, or replace the one with this ETag. Return the new ETag, None if it has changed."""
        try:
            return str(self.call("put_object", path, Body=data, **condition(tag), **headers)["ETag"])
        except ClientError as error:
            if tag is None and status_of(error) != CHANGED:
                raise self._refused(error, path) from error
        there = self.get(path)
        return there[1] if there is not None and there[0] == data else None

    def listing(self, folder: str) -> Iterator[tuple[str, int, str, datetime]]:
        """Keys below a folder, relative to it, with size, ETag, and when they were written."""
        prefix = self._below(folder)
        for page in self._pages("list_objects_v2", prefix, {"ContinuationToken": "NextContinuationToken"}):
            for item in page.get("Contents", []):
                yield item["Key"].removeprefix(prefix), item["Size"], item["ETag"].strip('"'), item["LastModified"]

    def uploads(self, folder: str) -> Iterator[tuple[str, str]]:
        """Unfinished uploads below a folder: key relative to the release, and upload id."""
        prefix, base = self._below(folder), self._below("")
        more = {"KeyMarker": "NextKeyMarker", "UploadIdMarker": "NextUploadIdMarker"}
        for page in self._pages("list_multipart_uploads", prefix, more):
            for upload in page.get("Uploads", []):
                yield upload["Key"].removeprefix(base), upload["UploadId"]

    def _below(self, folder: str) -> str:
        key = self.key(folder)
        return f"{key}/" if key else ""

    def _pages(self, operation: str, prefix: str, more: Mapping[str, str]) -> Iterator[Any]:
        markers: dict[str, str] = {}
        while True:
            page = self.call(operation, None, Prefix=prefix, **markers)
            yield page
            if not page.get("IsTruncated"):
                return
            markers = {ours: page[theirs] for ours, theirs in more.items()}

    def send_parts(
        self,
        path: str,
        upload: str,
        pieces: Iterable[bytes],
        arrived: Mapping[int, Part],
        note: Callable[[Part, int], None],
    ) -> tuple[list[Part], str]:
        """Send the parts that have not arrived, some at a time.

        Args:
            path: the object.
            upload: id of the upload.
            pieces: the bytes of all parts, in order.
            arrived: parts that have arrived; `note` adds to it.
            note: called with each part, and its size, once the server has confirmed it.

        Returns:
            all parts, in order, and the checksum that the object should get.
        """
        checksums, failed = b"", Event()

        def send(number: int, piece: bytes, crc: bytes) -> None:
            expected = base64.b64encode(crc).decode()
            sums = self.checksums(ChecksumCRC32=expected)
            answer = self.call("upload_part", path, UploadId=upload, PartNumber=number, Body=piece, **sums)
            checksum = answer.get("ChecksumCRC32")
            if checksum is not None and checksum != expected:
                raise ServerError(
                    self.place(path), f"checksum mismatch of part {number} ({checksum})", expected, "Rerun the command."
                )
            note(Part(number=number, etag=answer["ETag"], checksum=checksum), len(piece))

        def ended(part: Future[None]) -> None:
            self._room.release()
            if part.exception() is not None:
                failed.set()

        futures = []
        with ThreadPoolExecutor(_PARTS_AT_ONCE) as pool:
            for number, piece in enumerate(pieces, 1):
                crc = _crc32(piece)
                checksums += crc
                if number not in arrived and not failed.is_set():
                    self._room.acquire()
                    futures.append(pool.submit(send, number, piece, crc))
                    futures[-1].add_done_callback(ended)
        # Leaving the block waited for all parts, also where one has failed: what has arrived is noted.
        for future in futures:
            future.result()
        parts = [arrived[number] for number in sorted(arrived)]
        return parts, f"{base64.b64encode(_crc32(checksums)).decode()}-{len(checksums) // 4}"

    def begin(self, path: str, **headers: str) -> str:
        """Begin an upload in parts; its id."""
        declared = self.checksums(ChecksumAlgorithm="CRC32")
        return str(self.call("create_multipart_upload", path, **declared, **headers)["UploadId"])

    def checksums(self, **stated: str) -> dict[str, str]:
        """What is said of checksums; nothing where `request_checksum_calculation` is `when_required`."""
        client = self._client or self._renew(None)
        return stated if client.meta.config.request_checksum_calculation == "when_supported" else {}

    def complete(self, path: str, upload: str, parts: Sequence[Part], tag: str | None) -> tuple[str, str]:
        """Make the parts an object, on the condition of `put`; its ETag and checksum. Errors as `call`."""
        done = {
            "Parts": [
                {
                    "PartNumber": part.number,
                    "ETag": part.etag,
                    **({"ChecksumCRC32": part.checksum} if part.checksum else {}),
                }
                for part in parts
            ]
        }
        answer = self.call("complete_multipart_upload", path, UploadId=upload, MultipartUpload=done, **condition(tag))
        return str(answer.get("ETag", "")), str(answer.get("ChecksumCRC32", ""))

    def abort(self, path: str, upload: str) -> None:
        """Give an upload up, if there is one."""
        absent(lambda: self.call("abort_multipart_upload", path, UploadId=upload))

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()

    def _renew(self, expired: Any) -> Any:
        """Ask the chain for credentials, once for all threads; that can take requests."""
        with self._lock:
            if self._client is expired:
                self._client = self._connect()
            return self._client

    def _connect(self) -> Any:
        at = self.address
        session = boto3.session.Session(
            aws_access_key_id=at.key, aws_secret_access_key=at.secret, aws_session_token=at.token
        )
        elsewhere = at.endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        config = Config(
            retries={"total_max_attempts": 1},  # one mechanism retries: `retried`
            connect_timeout=20,
            read_timeout=limits().stall,
            max_pool_connections=32,
            s3={"addressing_style": "path"} if elsewhere else {},
            **({"signature_version": UNSIGNED} if at.anon else {}),
        )
        region = session.region_name or "us-west-2"
        client = session.client("s3", endpoint_url=at.endpoint_url, region_name=region, config=config)
        # There is no public way to the connections of botocore, which asks only single packets to come in time.
        client._endpoint.http_session._pool_classes_by_scheme.update(pools(_Http, _Https))  # noqa: SLF001
        return client

    def _lost(self, error: Exception, path: str) -> ServerError:
        found = f"the server did not answer {self._policy.attempts} times ({_reason(error)})"
        return ServerError(self.place(path), found, "", "Rerun the command later: it resumes where it stopped.")

    def _refused(self, error: ClientError, path: str) -> ServerError:
        code, status = _code(error), status_of(error)
        message = error.response.get("Error", {}).get("Message", "")
        if code in _EXPIRED:
            fix = "Get new ones, then rerun the command: it resumes where it stopped."
            return ServerError(self.address.where, "the AWS credentials have expired", "", fix, status=status)
        found = f"the server refused {error.operation_name} ({code} {status}: {message})"
        fix = _FIXES.get("AccessDenied" if status == 403 and code not in _FIXES else code, "")
        return ServerError(self.place(path), found, "", fix, status=status)


def _payer() -> dict[str, str]:
    """Who pays for reading: as GDAL's and other tools' `AWS_REQUEST_PAYER` says."""
    payer = os.environ.get("AWS_REQUEST_PAYER")
    return {"RequestPayer": payer} if payer else {}


def absent(work: Callable[[], T]) -> T | None:
    """What `work` gives; None where the server answers 404."""
    try:
        return work()
    except ClientError as error:
        if status_of(error) != NOT_FOUND:
            raise
        return None


def condition(tag: str | None) -> dict[str, str]:
    """The condition of a write: that there is no object, or one with this ETag."""
    return {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}


def md5(data: bytes = b"") -> Any:
    """The hash that ETags are made of."""
    return hashlib.md5(data, usedforsecurity=False)


def parts_tag(pieces: Iterable[bytes]) -> str:
    """The ETag of an object of these parts."""
    digests = b"".join(md5(piece).digest() for piece in pieces)
    return f"{md5(digests).hexdigest()}-{len(digests) // 16}"


def _crc32(data: bytes) -> bytes:
    return binascii.crc32(data).to_bytes(4, "big")


def status_of(error: ClientError) -> int:
    """The HTTP status of the server's answer."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _reason(error: BaseException) -> BaseException:
    """The timeout below an error, where botocore says only that there was one."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, TimeoutError):
        cause = cause.__cause__ or cause.__context__
    return cause or error


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, ClientError):
        code = _code(error)
        return code in _AGAIN or (code not in {"NotImplemented", *_EXPIRED} and is_transient(status_of(error)))
    return isinstance(error, _LOST)
