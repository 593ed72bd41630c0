"""`publish`: the one way out."""

from contextlib import closing

from clay_publish.findings import ValidationReport
from clay_publish.progress import Report, silent
from clay_publish.publish.package import pack
from clay_publish.publish.places import bucket_at
from clay_publish.publish.receipt import Receipt
from clay_publish.publish.versioned import publish_version
from clay_publish.release import Release


def publish(
    release: Release,
    target: str,
    validation: ValidationReport,
    *,
    dry_run: bool = False,
    full: bool = False,
    force: str | None = None,
    report: Report = silent,
) -> Receipt:
    """Publish a release: readers see the old state or the complete new version.

    Args:
        release: what to publish.
        target: `source.coop` (as the spec says) or `source.coop/ACCOUNT/PRODUCT`, `s3://BUCKET/PREFIX`, a directory or
            `file://` address; versions lie below it.
        validation: what `validate` says of this very release.
        dry_run: say what would be sent, send nothing.
        full: read every byte back, instead of trusting the place's checksums.
        force: why a source without known terms of use may be published; the reason is published too.
        report: told about the bytes that arrived.

    Raises:
        PublishError: it does not validate, other bytes are out under this version, or the transfer failed.
        LicenseError: a source has no known terms of use.
    """
    package = pack(release, validation, force=force)
    with closing(bucket_at(target, package)) as bucket:
        return publish_version(bucket, package, target, dry_run=dry_run, full=full, report=report)
