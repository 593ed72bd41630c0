"""Calls to an S3 server: tried again where that can help, explained where it cannot.

Source: S3 API reference, error responses; source.coop answers about one streamed PUT in a thousand with 520 or 503.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Any, TypeVar

import boto3
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

from clay_publish.errors import PublishError

T = TypeVar("T")

_LOST = (HTTPClientError, IncompleteReadError, ResponseStreamingError)
_AGAIN = frozenset({"SlowDown", "RequestTimeout", "ConditionalRequestConflict", "OperationAborted", "BadDigest"})
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"})
_FIXES = {
    "AccessDenied": "Ask the owner of the place for permission to write below this prefix.",
    "InvalidAccessKeyId": "The credentials are not known there; get new ones.",
    "SignatureDoesNotMatch": "The secret key is wrong; get new credentials.",
    "RequestTimeTooSkewed": "The clock of this machine is wrong; set it, then run the command again.",
    "NoSuchBucket": "Create it first, or correct the name of the account.",
}


@dataclass(frozen=True)
class Patience:
    """How often, and how long between."""

    attempts: int = 8
    first: float = 0.5
    """Seconds; doubled every time, of which a random share is waited."""
    longest: float = 30.0


@dataclass(frozen=True)
class Address:
    """Where the keys are."""

    bucket: str
    prefix: str
    endpoint: str | None = None
    """None: AWS, or what the profile says."""
    where: str = ""
    """For people."""


class Client:
    """boto3 for one bucket. Credentials come from the usual AWS chain and are renewed when they expire."""

    def __init__(self, address: Address, patience: Patience) -> None:
        self.address = address
        self._patience = patience
        self._lock = Lock()
        self._client = self._connect()

    def call(self, operation: str, **parameters: Any) -> Any:
        """Call one operation on the bucket.

        Raises:
            ClientError: the server says no in a way that the caller has to understand: 404, 409, 412.
            PublishError: it says no for good, or did not answer in time again and again.
        """
        return self.patiently(lambda client: getattr(client, operation)(Bucket=self.address.bucket, **parameters))

    def patiently(self, work: Callable[[Any], T]) -> T:
        """Do something with the client of boto3; again where that can help. Errors as `call`."""
        renewed = False
        attempt = 0
        while True:
            client = self._client
            try:
                return work(client)
            except ClientError as error:
                code, status = _code(error), _status(error)
                if code in _EXPIRED and not renewed:
                    self._renew(client)
                    renewed = True
                    continue
                if status in {404, 412} and code != "NoSuchBucket":
                    raise
                if not (status >= 500 or status in {408, 429} or code in _AGAIN) or code == "NotImplemented":
                    raise self._refused(error) from error
                reason: Exception = error
            except (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError) as error:
                # What a credential process printed may hold a secret: only the kind of the error is told.
                raise PublishError(
                    self.address.where,
                    f"no AWS credentials can be had ({type(error).__name__})",
                    "credentials from the environment, a profile or its credential_process",
                    "source.coop hands them out on the page of the product.",
                ) from None
            except _LOST as error:
                reason = error
            except BotoCoreError as error:
                raise PublishError(self.address.where, f"cannot be asked ({error})") from error
            attempt += 1
            if attempt >= self._patience.attempts:
                raise PublishError(
                    self.address.where,
                    f"did not answer {attempt} times ({reason})",
                    fix="Run the command again later: it goes on where it stopped.",
                ) from reason
            wait = min(self._patience.longest, self._patience.first * 2 ** (attempt - 1))
            time.sleep(wait * random.uniform(0.5, 1))  # noqa: S311 - jitter, no secret

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _renew(self, expired: Any) -> None:
        """Ask the chain for credentials anew, once for all threads."""
        with self._lock:
            if self._client is expired:
                self._client = self._connect()

    def _connect(self) -> Any:
        session = boto3.session.Session()
        config = Config(
            retries={"total_max_attempts": 1},  # one mechanism retries: the one above
            connect_timeout=20,
            read_timeout=60,
            max_pool_connections=32,
            s3={"addressing_style": "path"} if self.address.endpoint else {},
        )
        return session.client(
            "s3",
            endpoint_url=self.address.endpoint,
            region_name=session.region_name or "us-west-2",
            config=config,
        )

    def _refused(self, error: ClientError) -> PublishError:
        code = _code(error)
        message = error.response.get("Error", {}).get("Message", "")
        if code in _EXPIRED:
            return PublishError(
                self.address.where,
                "the credentials have expired",
                fix="Get new ones, then run the command again: it goes on where it stopped.",
            )
        key = _FIXES.get("AccessDenied" if _status(error) == 403 and code not in _FIXES else code, "")
        return PublishError(
            self.address.where, f"{error.operation_name} was refused ({code} {_status(error)}: {message})", fix=key
        )


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_status(error: ClientError, *statuses: int) -> bool:
    """Whether the server answered one of these."""
    return _status(error) in statuses
