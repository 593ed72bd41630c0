"""Addresses of releases as people write them: one spelling means the same place in every command."""

import os
import re

from clay_publish.errors import StoreError

SOURCE_COOP = "source.coop"
SOURCE_COOP_DATA = "https://data.source.coop"
HUB = "huggingface"
HUB_SHORT = "hf"
HUB_SCHEME = "hf://"
HUB_DATASETS = "hf://datasets/"
S3_ENDPOINT = "AWS_ENDPOINT_URL_S3"
SEMVER = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-([0-9A-Za-z.-]+))?")
"""A semantic version without build metadata: major, minor, patch, pre-release."""
_HUB_KINDS = ("models/", "spaces/", "buckets/")


def is_hosted(where: str) -> bool:
    """Whether an address begins with the name of a host, as `huggingface/OWNER/NAME` does."""
    return where.partition("/")[0] in {SOURCE_COOP, HUB, HUB_SHORT} and "/" in where


def hub_name(where: str) -> str | None:
    """Return what follows the name of the Hub in an address, `OWNER/NAME/…`; None where it is another host's."""
    head, _, rest = where.partition("/")
    if where.startswith(HUB_SCHEME):
        return where.removeprefix(HUB_DATASETS).removeprefix(HUB_SCHEME).strip("/")
    return rest.strip("/") if head in {HUB, HUB_SHORT} else None


def is_dataset(where: str) -> bool:
    """Whether an address of the Hub is one of a dataset repository, rather than of a model, a space or a bucket."""
    return not where.startswith(tuple(f"{HUB_SCHEME}{kind}" for kind in _HUB_KINDS))


def coop_name(where: str) -> str | None:
    """Return what follows the name of source.coop in an address, `ACCOUNT/PRODUCT/…`; None where it is another's."""
    for beginning in (SOURCE_COOP_DATA, f"https://{SOURCE_COOP}", SOURCE_COOP):
        if where == beginning or where.startswith(f"{beginning}/"):
            return where.removeprefix(beginning).strip("/")
    return None


def readable(where: str) -> str:
    """Return the address that files are read from.

    `huggingface/OWNER/NAME/1.0.0`, `hf/…` and `hf://…` lead to a tag of a dataset repository, without a version to its
    root; `source.coop/ACCOUNT/PRODUCT/1.0.0` to the product's files. Every other text stays as it is.

    Raises:
        StoreError: the host is named, and nothing of it.
    """
    if not is_dataset(where):
        return where
    hub = hub_name(where)
    if hub is not None:
        return _hub_files(where, hub)
    coop = coop_name(where)
    if coop is None:
        return where
    if "/" not in coop:
        raise StoreError(where, "does not name a product", f"{SOURCE_COOP}/ACCOUNT/PRODUCT/VERSION", _local_hint(where))
    return f"s3://{coop}" if os.environ.get(S3_ENDPOINT) else f"{SOURCE_COOP_DATA}/{coop}"


def _hub_files(where: str, name: str) -> str:
    owner, _, rest = name.partition("/")
    repository, _, more = rest.partition("/")
    if not owner or not repository:
        expected = f"{HUB}/OWNER/NAME or {HUB}/OWNER/NAME/VERSION"
        raise StoreError(where, "does not name a repository", expected, _local_hint(where))
    version, _, below = more.partition("/")
    if SEMVER.fullmatch(version):
        repository, more = f"{repository}@v{version}", below
    return f"{HUB_DATASETS}{owner}/{repository}" + (f"/{more}" if more else "")


def _local_hint(where: str) -> str:
    return f"For a directory, write ./{where}." if "://" not in where else ""
