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
from clay_publish.storage.address import HUB, S3_ENDPOINT, SOURCE_COOP, SOURCE_COOP_DATA, coop_name, hub_name
from clay_publish.storage.store import is_url

if TYPE_CHECKING:
    from clay_publish.publish.hub.repository import HubRepository

KNOWN = "source.coop, huggingface (or hf), s3://BUCKET/PREFIX, ./DIRECTORY, /DIRECTORY or file:///DIRECTORY"


def hub_repository(target: str, package: Package | None = None) -> "HubRepository | None":
    """The repository a target names on the Hub; None where it names another place.

    Args:
        target: `huggingface` or `hf`, also with `/OWNER/NAME`, or `hf://datasets/OWNER/NAME`.
        package: what will be published: knows the repository.

    Raises:
        PublishError: no repository is named.
    """
    found = hub_name(target)
    if found is None:
        return None
    named = package.spec.publish.hugging_face if package else None
    name = found or named or ""
    if name.count("/") != 1:
        raise PublishError(target, "names no repository", f"{HUB}/OWNER/NAME, or `publish.hugging_face` in the spec")
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
    check_target(target)
    if target.startswith("file://"):
        return LocalBucket(Path(unquote(urlsplit(target).path)))
    if coop_name(target) is not None:
        return _s3(*_product(target, package), package)
    if target.startswith("s3://"):
        bucket, _, prefix = target.removeprefix("s3://").rstrip("/").partition("/")
        return _s3(bucket, prefix, os.environ.get(S3_ENDPOINT), target.rstrip("/"), package)
    return LocalBucket(Path(target).expanduser())


def check_target(target: str) -> None:
    """Refuse a target that names no place, before anything is read or sent.

    Raises:
        PublishError: nothing this program can publish to.
    """
    if target.startswith(("file://", "s3://")) or hub_name(target) is not None or coop_name(target) is not None:
        return
    if is_url(target):
        raise PublishError(target, "is not a supported publish target", KNOWN)
    if not target.startswith(("/", "./", "../", "~/")) and target not in {".", ".."}:
        near = difflib.get_close_matches(target.partition("/")[0], [SOURCE_COOP, HUB], n=1, cutoff=0.6)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise PublishError(target, "is not a publish target", KNOWN, f"{hint}For a directory, write ./{target}.")
    folder = Path(target).expanduser()
    there = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    if not there.is_dir():
        raise PublishError(str(there), "is not a directory", "a directory, or one that can be created")


def _product(target: str, package: Package | None) -> tuple[str, str, str | None, str]:
    """Account, product, endpoint and public address of a product on source.coop."""
    product = coop_name(target) or (package.spec.publish.source_coop if package else None)
    account, slash, name = (product or "").partition("/")
    if not slash or "/" in name:
        raise PublishError(
            target, "names no product", "source.coop/ACCOUNT/PRODUCT, or `publish.source_coop` in the spec"
        )
    return account, name, os.environ.get(S3_ENDPOINT) or SOURCE_COOP_DATA, f"{SOURCE_COOP_DATA}/{product}"


def _s3(bucket: str, prefix: str, endpoint: str | None, where: str, package: Package | None) -> Bucket:
    require_extra("s3", f"Publishing to {where}")
    from clay_publish.publish.s3 import Journal, S3Bucket  # noqa: PLC0415
    from clay_publish.storage.s3 import Address  # noqa: PLC0415 - boto3 comes with an extra

    return S3Bucket(Address(bucket, prefix, where, endpoint), Journal(_journal_path(where, package)))


def _journal_path(where: str, package: Package | None) -> Path:
    """Beside a release that lies here; in the user's cache for one that lies elsewhere."""
    name = f"publish-{hashlib.sha256(where.encode()).hexdigest()[:12]}.jsonl"
    if package is not None and package.release.store.local:
        return Path(package.release.store.where) / paths.RUN / name
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clay-publish"
    return cache / (name if package is None else f"{package.closing.sha256[:12]}-{name}")


def web_page(where: str, version: str) -> str | None:
    """The page that shows a version of a bucket to people."""
    if where.startswith(f"{SOURCE_COOP_DATA}/"):
        return f"https://source.coop/{where.removeprefix(f'{SOURCE_COOP_DATA}/')}/{version}"
    return None
