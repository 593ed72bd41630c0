"""What happens to versions after they are out: listing, and marking one that should not be used any more."""

from contextlib import closing

from clay_publish.errors import PublishError
from clay_publish.publish.targets import bucket_at, hub_repository
from clay_publish.publish.version_catalog import CATALOG, Mirror, Versions, change, read_versions


def versions(where: str) -> Versions:
    """The versions that are out at a place.

    Raises:
        PublishError: nothing is published there, or the place cannot be asked.
    """
    repository = hub_repository(where)
    if repository is not None:
        from clay_publish.publish.hub.root import hub_versions  # noqa: PLC0415 - slow to import

        return hub_versions(repository)
    with closing(bucket_at(where)) as bucket:
        found = read_versions(bucket)
    if found is None:
        raise PublishError(where, f"has no {CATALOG}", "a place that clay-publish published to")
    return found[0]


def yank(where: str, version: str, reason: str | None) -> Versions:
    """Mark a version as one that should not be used any more. Its bytes stay, and `latest` points to another one.

    Args:
        where: the place.
        version: which one.
        reason: what readers should know; None undoes an earlier yank. A second yank keeps the first reason.

    Raises:
        PublishError: the version is not published, or the reason is empty.
    """
    if reason is not None and not reason.strip():
        raise PublishError(f"{where} {version}", "cannot be yanked without a reason", "what readers should know")
    before = versions(where)
    if before.find(version) is None:
        listed = ", ".join(v.version for v in before.versions) or "none"
        raise PublishError(f"{where} {version}", "is not published", f"one of {listed}")
    repository = hub_repository(where)
    if repository is not None:
        from clay_publish.publish.hub.root import yank_on_hub  # noqa: PLC0415 - slow to import

        return yank_on_hub(repository, version, reason)

    def mark(catalog: Versions) -> Versions:
        found = catalog.find(version)
        if found is None or (found.yanked is not None and reason is not None):
            return catalog
        return catalog.with_version(found.model_copy(update={"yanked": reason}))

    with closing(bucket_at(where)) as bucket:
        return change(bucket, before, mark)


def record_hub(where: str, version: str, mirror: Mirror) -> None:
    """Let a catalog say under which commit the same version lies on the Hub."""

    def mark(catalog: Versions) -> Versions:
        found = catalog.find(version)
        return catalog if found is None else catalog.with_version(found.model_copy(update={"hugging_face": mirror}))

    with closing(bucket_at(where)) as bucket:
        change(bucket, versions(where), mark)
