"""One version into a bucket: `PREFIX/VERSION/…`, and then the pointers to it.

SHA256SUMS is created first, and only where there is none: a second publisher with other bytes stops before sending
any. Data follows, then documents, then everything is compared with the manifest; the manifest itself completes the
version, and the documents at the root make it known.
"""

import json
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Lock

from clay_publish.errors import PublishError
from clay_publish.formats import size
from clay_publish.progress import Progress, Report
from clay_publish.publish.bucket import Bucket, Stored
from clay_publish.publish.package import Package, PublishReceipt
from clay_publish.publish.preflight import check_bucket
from clay_publish.publish.targets import web_page
from clay_publish.publish.version_catalog import beginning, change, versions_of, write_report
from clay_publish.release import directory as paths
from clay_publish.release.format_version import FORMAT
from clay_publish.release.manifest import FileEntry, Manifest
from clay_publish.release.versions import PublishedVersion

_FILES_AT_ONCE = 8
_USUAL_RATE = 20e6
"""Bytes per second that a dry run reckons with: an ordinary line of 160 Mbit/s."""


def publish_version(
    bucket: Bucket, package: Package, target: str, *, dry_run: bool, full: bool, report: Report
) -> PublishReceipt:
    """Publish one version, or find that it is there already.

    Raises:
        PublishError: other bytes are there under this version, or what arrived is not what was sent.
    """
    begun = time.monotonic()
    sending = _Sending(bucket, package, report)
    known = versions_of(bucket, package.manifest.name)
    there = sending.look()
    complete = paths.MANIFEST in there
    missing = [entry for entry in package.files if entry.path not in there]
    origins = sending.origins(missing, known[0].latest if known else None)
    to_send = [entry for entry in missing if entry.path not in origins]
    receipt = PublishReceipt(
        target=target,
        where=f"{bucket.where}/{package.version}",
        web=web_page(bucket.where, package.version),
        name=package.manifest.name,
        version=package.version,
        state="dry run",
        files=len(package.files),
        size=sum(entry.size for entry in package.files),
        sent=[entry.path for entry in to_send],
        sent_bytes=sum(entry.size for entry in to_send),
        copied=sorted(origins),
        unknown=sorted(set(there) - {entry.path for entry in package.files}),
        seconds=sum(entry.size for entry in to_send) / _USUAL_RATE,
    )
    if dry_run:
        return receipt.model_copy(update={"checked": check_bucket(bucket, receipt.sent_bytes)})
    sending.claim()
    absent = {entry.path for entry in missing}
    sending.total = sum(entry.size for entry in missing if entry != package.sums)
    for wave in (package.data, package.documents):
        sending.send([entry for entry in wave if entry.path in absent], origins)
    unknown = sending.verify([*package.manifest.files, package.sums], full=full)
    sending.send([package.closing] if package.closing.path in absent else [], {})
    sending.verify([package.closing], full=full)
    write_report(bucket, package)
    _make_known(bucket, package)
    bucket.forget()
    return receipt.model_copy(
        update={
            "state": "unchanged" if complete else "published",
            "sent": sorted(sending.sent),
            "sent_bytes": sending.sent_bytes,
            "copied": sorted(sending.copied),
            "verified": "full" if full else "checksums",
            "unknown": unknown,
            "seconds": round(time.monotonic() - begun, 3),
        }
    )


@dataclass
class _Sending:
    """The state of one attempt."""

    bucket: Bucket
    package: Package
    report: Report
    sent: list[str] = field(default_factory=list)
    copied: list[str] = field(default_factory=list)
    sent_bytes: int = 0
    total: int = 0
    """Bytes that are missing there."""
    _there: dict[str, Stored] = field(default_factory=dict)
    _done: int = 0
    _lock: Lock = field(default_factory=Lock)

    @property
    def folder(self) -> str:
        return self.package.version

    def look(self) -> dict[str, Stored]:
        """Files of this version that exist already; refused at once if they differ."""
        self._there = self.bucket.listing(self.folder)
        for entry in (self.package.sums, self.package.closing):
            found = self.bucket.read(f"{self.folder}/{entry.path}") if entry.path in self._there else None
            if found is not None and found[0] != self.package.read(entry):
                raise self._other(entry, "holds other bytes")
        for entry in self.package.files:
            stored = self._there.get(entry.path)
            if stored is not None and stored.size != entry.size:
                raise self._other(entry, f"has {stored.size} bytes")
        if self._there and paths.SHA256SUMS not in self._there:
            # Not begun by this program: nothing says whose bytes these are, so all of them are compared.
            self._compare([e for e in self.package.files if e.path in self._there], full=False)
        return self._there

    def origins(self, missing: Iterable[FileEntry], latest: str | None) -> dict[str, str]:
        """Which missing files lie in the newest published version: path → key there, by SHA-256."""
        document = self.bucket.read(f"{latest}/{paths.MANIFEST}") if latest and latest != self.folder else None
        if document is None:
            return {}
        where = f"{self.bucket.where}/{latest}/{paths.MANIFEST}"
        try:
            stated = json.loads(document[0])
            if stated.get("format", 1) != FORMAT:
                return {}  # of an earlier format: no file of it is one of ours
            manifest = Manifest.model_validate(stated)
        except (ValueError, AttributeError) as error:
            raise PublishError(where, "is not a manifest") from error
        known = {entry.sha256: f"{latest}/{entry.path}" for entry in manifest.files}
        return {entry.path: known[entry.sha256] for entry in missing if entry.sha256 in known}

    def claim(self) -> None:
        """Be the first to say which bytes this version is, or find that the same was said before."""
        sums = self.package.sums
        if sums.path in self._there:
            return
        if self.bucket.write(f"{self.folder}/{sums.path}", self.package.read(sums), None):
            self._count(sums, sums.size)
            return
        found = self.bucket.read(f"{self.folder}/{sums.path}")
        if found is None or found[0] != self.package.read(sums):
            raise self._other(sums, "holds other bytes")

    def send(self, entries: list[FileEntry], origins: dict[str, str]) -> None:
        """Send files, several at once; the first error stops the rest."""
        with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
            futures = [pool.submit(self._send_one, entry, origins.get(entry.path)) for entry in entries]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _send_one(self, entry: FileEntry, origin: str | None) -> None:
        if origin is not None and self.bucket.copy(origin, self.folder, entry):
            with self._lock:
                self.copied.append(entry.path)
            self._arrived(entry.size, entry.path)
            return
        sent = self.bucket.send(self.folder, self.package, entry, lambda size: self._arrived(size, entry.path))
        if sent is not None:
            self._count(entry, sent)

    def _count(self, entry: FileEntry, sent: int) -> None:
        with self._lock:
            self.sent.append(entry.path)
            self.sent_bytes += sent

    def _arrived(self, size: int, path: str) -> None:
        with self._lock:
            self._done += size
            self.report(Progress("publish", self._done, self.total, path, unit="bytes"))

    def verify(self, entries: list[FileEntry], *, full: bool) -> list[str]:
        """Compare what the place lists with the manifest; what it lists besides is given back."""
        self._there = self.bucket.listing(self.folder)
        lost = [entry.path for entry in entries if entry.path not in self._there]
        if lost:
            raise PublishError(
                f"{self.bucket.where}/{self.folder}",
                f"lacks {', '.join(lost[:3])}" + (f" and {len(lost) - 3} more" if len(lost) > 3 else ""),
                "every file of the manifest",
                "Rerun the command: only what is missing is sent.",
            )
        self._compare(entries, full=full)
        return sorted(set(self._there) - {entry.path for entry in self.package.files})

    def _compare(self, entries: list[FileEntry], *, full: bool) -> None:
        def compare(entry: FileEntry) -> bool:
            stored = self._there[entry.path]
            return stored.size == entry.size and self.bucket.same(self.folder, self.package, entry, stored, full=full)

        with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
            for number, (entry, same) in enumerate(zip(entries, pool.map(compare, entries), strict=True), 1):
                if not same:
                    raise self._other(entry, "holds other bytes")
                self.report(Progress("verify", number, len(entries), entry.path, unit="files"))

    def _other(self, entry: FileEntry, found: str) -> PublishError:
        return PublishError(
            f"{self.bucket.where}/{self.folder}/{entry.path}",
            found,
            f"the {size(entry.size)} of {self.package.release.store.path(entry.path)}",
            "A version never changes: publish what is different under another version.",
        )


def _make_known(bucket: Bucket, package: Package) -> None:
    """Put the version into the catalog at the root; where it is listed already, only the pointers are corrected."""
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    entry = PublishedVersion(
        version=package.version, manifest_sha256=package.closing.sha256, published=now, notes=package.notes
    )
    change(
        bucket,
        beginning(package),
        lambda versions: versions if versions.find(entry.version) else versions.with_version(entry),
    )
