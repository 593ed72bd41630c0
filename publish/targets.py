"""From the name of a place to the place."""

import difflib
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from clay_publish.errors import PublishError, require_extra
from clay_publish.publish.bucket import Bucket, LocalBucket
from clay_publish.publish.package import Package
from clay_publish.release import directory as paths
from clay_publish.release.directory import Release
from clay_publish.storage.address import (
    HUB,
    HUB_DATASETS,
    S3_ENDPOINT,
    SOURCE_COOP,
    SOURCE_COOP_DATA,
    coop_name,
    hub_name,
    is_dataset,
)
from clay_publish.storage.range_cache import user_cache
from clay_publish.storage.store import is_url

if TYPE_CHECKING:
    from clay_publish.publish.hub.repository import HubRepository
    from clay_publish.storage.s3 import Address

KNOWN = "source.coop, huggingface (or hf), s3://BUCKET/PREFIX, ./DIRECTORY, /DIRECTORY or file:///DIRECTORY"


def hub_repository(target: str, package: Package | None = None) -> "HubRepository | None":
    """The repository a target names on the Hub; None where it names another place.

    Args:
        target: `huggingface` or `hf`, also with `/OWNER/NAME`, or `hf://datasets/OWNER/NAME`.
        package: what will be published: knows the repository.

    Raises:
        PublishError: no repository is named.
    """
    name = _repository(target, package.release if package else None)
    if name is None:
        return None
    from clay_publish.publish.hub.repository import HubRepository  # noqa: PLC0415 - slow to import

    return HubRepository(name)


def bucket_at(target: str, package: Package | None = None) -> Bucket:
    """The bucket a target names.

    Args:
        target: `source.coop`, `source.coop/ACCOUNT/PRODUCT`, `s3://BUCKET/PREFIX`, a directory or `file://` address.
        package: what will be published: knows the product, and keeps the journal.

    Raises:
        PublishError: nothing this program can publish to.
        MissingExtraError: boto3 is not installed.
    """
    address = _s3_address(target, package.release if package else None)
    if address is None:
        return LocalBucket(_directory(target))
    from clay_publish.publish.s3 import Journal, S3Bucket  # noqa: PLC0415 - boto3 comes with an extra

    return S3Bucket(address, Journal(_journal_path(address.where, package)))


def check_target(target: str, release: Release) -> None:
    """Refuse a target that names no place, before anything is validated or sent.

    Args:
        target: as for `hub_repository` and `bucket_at`.
        release: what will be published: its spec knows the repository and the product.

    Raises:
        PublishError: nothing this program can publish to.
        MissingExtraError: boto3 is needed and not installed.
    """
    if _repository(target, release) is None and _s3_address(target, release) is None:
        _directory(target)


def _repository(target: str, release: Release | None) -> str | None:
    """OWNER/NAME of a repository on the Hub; None where the target names another place."""
    name = hub_name(target)
    if name is None:
        return None
    if not is_dataset(target):
        raise PublishError(target, "is not a dataset repository", f"{HUB_DATASETS}OWNER/NAME")
    if not name and release is not None:
        name = release.spec().publish.hugging_face or ""
    if name.count("/") != 1:
        raise PublishError(target, "names no repository", f"{HUB}/OWNER/NAME, or `publish.hugging_face` in the spec")
    return name


def _s3_address(target: str, release: Release | None) -> "Address | None":
    """The address on a server that speaks S3; None where the target names another place."""
    product, endpoint, where = coop_name(target), os.environ.get(S3_ENDPOINT), target.rstrip("/")
    if product is None and not target.startswith("s3://"):
        return None
    if product is None:
        bucket, _, prefix = target.removeprefix("s3://").rstrip("/").partition("/")
        if not bucket:
            raise PublishError(target, "names no bucket", "s3://BUCKET/PREFIX")
    else:
        if not product and release is not None:
            product = release.spec().publish.source_coop or ""
        bucket, _, prefix = product.partition("/")
        if not bucket or not prefix or "/" in prefix:
            expected = "source.coop/ACCOUNT/PRODUCT, or `publish.source_coop` in the spec"
            raise PublishError(target, "names no product", expected)
        endpoint, where = endpoint or SOURCE_COOP_DATA, f"{SOURCE_COOP_DATA}/{product}"
    require_extra("s3", f"Publishing to {where}")
    from clay_publish.storage.s3 import Address  # noqa: PLC0415 - boto3 comes with an extra

    return Address(bucket, prefix, where, endpoint)


def _directory(target: str) -> Path:
    """The directory a target names."""
    if target.startswith("file://"):
        parts = urlsplit(target)
        if parts.netloc not in {"", "localhost"} or not parts.path:
            raise PublishError(target, "names no directory of this machine", "file:///DIRECTORY")
        folder = Path(unquote(parts.path))
    elif is_url(target):
        raise PublishError(target, "is not a supported publish target", KNOWN)
    elif target.startswith(("/", "./", "../", "~/")) or target in {".", ".."}:
        folder = Path(target).expanduser()
    else:
        near = difflib.get_close_matches(target.partition("/")[0], [SOURCE_COOP, HUB], n=1, cutoff=0.6)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise PublishError(target, "is not a publish target", KNOWN, f"{hint}For a directory, write ./{target}.")
    there = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    if not there.is_dir():
        raise PublishError(str(there), "is not a directory", "a directory, or one that can be created")
    return folder


def _journal_path(where: str, package: Package | None) -> Path:
    """Beside a release that lies here; in the user's cache for one that lies elsewhere."""
    name = f"publish-{hashlib.sha256(where.encode()).hexdigest()[:12]}.jsonl"
    if package is not None and package.release.store.local:
        return Path(package.release.store.where) / paths.RUN / name
    folder = user_cache()
    if folder is None:
        found = "has no folder for the journal of the upload"
        raise PublishError(where, found, "a user with a home directory", "Set XDG_CACHE_HOME to a folder.")
    return folder / (name if package is None else f"{package.closing.sha256[:12]}-{name}")


def web_page(where: str, version: str) -> str | None:
    """The page that shows a version of a bucket to people."""
    if where.startswith(f"{SOURCE_COOP_DATA}/"):
        return f"https://source.coop/{where.removeprefix(f'{SOURCE_COOP_DATA}/')}/{version}"
    return None
