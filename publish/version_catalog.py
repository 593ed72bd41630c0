"""The documents at the root of a bucket: which versions there are, and which is the newest.

They are the only ones that change.
"""

from collections.abc import Callable
from typing import Any

from clay_publish.errors import PublishError, ReleaseError
from clay_publish.publish.bucket import Bucket
from clay_publish.publish.package import Package
from clay_publish.release import directory as paths
from clay_publish.release.manifest import dump_json
from clay_publish.release.versions import CATALOG, PublishedVersion, Versions, parse_catalog, report_name

LATEST = "latest.json"
_ATTEMPTS = 20


def read_versions(bucket: Bucket) -> tuple[Versions, str] | None:
    """The catalog at the root and its tag; None where nothing was published yet.

    Raises:
        PublishError: there is a catalog.json that this program did not write.
    """
    there = bucket.read(CATALOG)
    if there is None:
        return None
    data, tag = there
    try:
        return parse_catalog(data, f"{bucket.where}/{CATALOG}"), tag
    except ReleaseError as error:
        fix = "Move it away, or publish below another prefix."
        raise PublishError(error.where, error.found, "a catalog written by clay-publish", fix) from error


def versions_of(bucket: Bucket, name: str) -> tuple[Versions, str] | None:
    """As `read_versions`, of the release that is to be published.

    Raises:
        PublishError: the place holds the versions of another release, or a catalog of another program.
    """
    there = read_versions(bucket)
    if there is not None and there[0].name != name:
        fix = "Use another directory or prefix."
        raise PublishError(f"{bucket.where}/{CATALOG}", f"lists versions of {there[0].name}", name, fix)
    return there


def change(bucket: Bucket, new: Versions, edit: Callable[[Versions], Versions]) -> Versions:
    """Change the catalog, then `latest.json`, also while others do.

    Args:
        bucket: where.
        new: what to begin with where there is none.
        edit: gives the changed catalog; called again after a concurrent change.

    Raises:
        PublishError: others changed it again and again, or it is about another release.
    """
    for _ in range(_ATTEMPTS):
        there = versions_of(bucket, new.name)
        before, tag = there or (new, None)
        after = edit(before)
        if (there and after == before) or bucket.write(CATALOG, _dump(after), tag):
            _point(bucket)
            return after
    raise PublishError(
        f"{bucket.where}/{CATALOG}", "was changed by other publishers repeatedly", fix="Rerun the command."
    )


def _point(bucket: Bucket) -> None:
    """Update `latest.json` and the root card from the catalog."""
    for _ in range(_ATTEMPTS):
        there = read_versions(bucket)
        latest = there[0].latest if there else None
        if latest is None:
            return
        pointer = {"version": latest, "href": f"./{latest}/{paths.COLLECTION}"}
        card = bucket.read(f"{latest}/{paths.HOST_CARD}") or bucket.read(f"{latest}/{paths.CARD}")
        documents = [(LATEST, dump_json(pointer).encode())] + ([(paths.CARD, card[0])] if card else [])
        if all(_replace(bucket, key, data) for key, data in documents) and read_versions(bucket) == there:
            return
    raise PublishError(
        f"{bucket.where}/{LATEST}", "was changed by other publishers repeatedly", fix="Rerun the command."
    )


def write_report(bucket: Bucket, package: Package) -> None:
    """Put the validation report beside its version, in the place of an earlier one.

    Raises:
        PublishError: others changed it again and again.
    """
    key, data = report_name(package.version), package.report()
    if not any(_replace(bucket, key, data) for _ in range(_ATTEMPTS)):
        raise PublishError(
            f"{bucket.where}/{key}", "was changed by other publishers repeatedly", fix="Rerun the command."
        )


def _replace(bucket: Bucket, key: str, data: bytes) -> bool:
    there = bucket.read(key)
    return (there is not None and there[0] == data) or bucket.write(key, data, there[1] if there else None)


def _dump(versions: Versions) -> bytes:
    """A STAC Catalog: any STAC reader finds every version's Collection."""
    links: list[dict[str, Any]] = [{"rel": "root", "href": f"./{CATALOG}", "type": "application/json"}]
    links += [_link(version, versions) for version in reversed(versions.versions)]
    document = {
        "type": "Catalog",
        "stac_version": "1.1.0",
        "id": versions.name,
        "title": versions.title,
        "description": f"All versions of {versions.title}. A published version never changes.",
        "links": links,
        "latest": versions.latest,
    }
    return dump_json(document).encode()


def _link(version: PublishedVersion, versions: Versions) -> dict[str, Any]:
    return {
        "rel": "child",
        "href": f"./{version.version}/{paths.COLLECTION}",
        "type": "application/json",
        "title": f"{versions.title} {version.version}" + (" (yanked)" if version.yanked else ""),
        **({"latest": True} if version.version == versions.latest else {}),
        **version.model_dump(mode="json", exclude_none=True),
    }


def beginning(package: Package) -> Versions:
    """The catalog of a release that was never published."""
    return Versions(name=package.manifest.name, title=package.spec.title or package.manifest.name, versions=[])
