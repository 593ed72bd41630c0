"""What can be done with a version: publish it, list it with the others, and mark it as one not to be used any more."""

from contextlib import closing

from clay_publish.errors import PublishError
from clay_publish.progress import Report, silent
from clay_publish.publish.bucket_release import publish_version
from clay_publish.publish.package import PublishReceipt, pack
from clay_publish.publish.targets import bucket_at, hub_repository
from clay_publish.publish.version_catalog import change, read_versions
from clay_publish.release.directory import Release
from clay_publish.release.findings import ValidationReport
from clay_publish.release.versions import CATALOG, Mirror, Versions, root_versions
from clay_publish.storage.address import coop_name


def publish_release(
    release: Release,
    target: str,
    validation: ValidationReport,
    *,
    dry_run: bool = False,
    full: bool = False,
    force: str | None = None,
    allow_unchecked: bool = False,
    create: bool = False,
    report: Report = silent,
) -> PublishReceipt:
    """Publish a release: readers see the old state or the complete new version.

    Args:
        release: what to publish.
        target: `source.coop` or `huggingface` (as the spec says), `source.coop/ACCOUNT/PRODUCT`,
            `huggingface/OWNER/NAME`, `s3://BUCKET/PREFIX`, a directory or `file://` address.
        validation: what `validate` says of this very release.
        dry_run: say what would be sent, send nothing.
        full: read every byte back, instead of trusting the place's checksums.
        force: why a source without known terms of use may be published; the reason is published too.
        allow_unchecked: publish although rules of integrity, coverage or license were not checked.
        create: make the repository on the Hub where there is none.
        report: receives the number of bytes sent.

    Raises:
        PublishError: the release is not valid, other bytes are published under this version, or the transfer failed.
        LicenseError: a source has no known terms of use.
    """
    package = pack(release, validation, force=force, allow_unchecked=allow_unchecked)
    repository = hub_repository(target, package)
    if repository is not None:
        from clay_publish.publish.hub.release import publish_to_hub  # noqa: PLC0415 - slow to import

        return publish_to_hub(repository, package, target, create=create, dry_run=dry_run, full=full, report=report)
    with closing(bucket_at(target, package)) as bucket:
        return publish_version(bucket, package, target, dry_run=dry_run, full=full, report=report)


def versions(where: str) -> Versions:
    """List published versions.

    Raises:
        PublishError: nothing is published there, or the place cannot be asked.
    """
    repository = hub_repository(where)
    if repository is not None:
        from clay_publish.publish.hub.root import hub_versions  # noqa: PLC0415 - slow to import

        return hub_versions(repository)
    if where.startswith(("http://", "https://")) and coop_name(where) is None:
        found = root_versions(Release(where))  # a web server, which can only be read
    else:
        with closing(bucket_at(where)) as bucket:
            there = read_versions(bucket)
            found = None if there is None else there[0]
    if found is None:
        raise PublishError(where, f"has no {CATALOG}", "a place that clay-publish published to")
    return found


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
