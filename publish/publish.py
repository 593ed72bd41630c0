"""`publish`: the one way out."""

from contextlib import closing

from clay_publish.progress import Report, silent
from clay_publish.publish.bucket_release import publish_version
from clay_publish.publish.package import pack
from clay_publish.publish.publish_receipt import PublishReceipt
from clay_publish.publish.targets import bucket_at, hub_repository
from clay_publish.release.directory import Release
from clay_publish.release.findings import ValidationReport


def publish(
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
        allow_unchecked: publish although rules of integrity, coverage or licence were not checked.
        create: make the repository on the Hub where there is none.
        report: told about the bytes that arrived.

    Raises:
        PublishError: it does not validate, other bytes are out under this version, or the transfer failed.
        LicenseError: a source has no known terms of use.
    """
    package = pack(release, validation, force=force, allow_unchecked=allow_unchecked)
    repository = hub_repository(target, package)
    if repository is not None:
        from clay_publish.publish.hub.release import publish_to_hub  # noqa: PLC0415 - slow to import

        return publish_to_hub(repository, package, target, create=create, dry_run=dry_run, full=full, report=report)
    with closing(bucket_at(target, package)) as bucket:
        return publish_version(bucket, package, target, dry_run=dry_run, full=full, report=report)
