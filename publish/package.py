"""What may be published, which files that is, and the record of having done it."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from clay_publish.errors import LicenseError, PublishError
from clay_publish.formats import duration, size
from clay_publish.release import directory as paths
from clay_publish.release.directory import Release
from clay_publish.release.findings import Severity, ValidationReport
from clay_publish.release.manifest import FileEntry, Manifest, dump_json, read_manifest
from clay_publish.spec.models import Spec
from clay_publish.storage.store import check_path

_NOT_TERMS = frozenset({"", "other", "various", "unknown"})
_TEXTS = ("where", "found", "expected", "fix")
_NEEDED = ("INT", "COV", "DOC006", "DOC009", "PRV008", "PRV009", "PRV010")
"""Rules of integrity, coverage and license, by the start of their codes: all have to be checked."""


def _is_data(path: str) -> bool:
    """Whether a file is a table or a shard of the arrays: what documents describe."""
    return path.endswith(".parquet") or (path.startswith(f"{paths.ARRAYS}/") and not path.endswith(".json"))


class OutdatedManifestError(PublishError):
    """A file is not the one that the manifest names."""


@dataclass(frozen=True)
class Package:
    """A release that may be published."""

    release: Release
    spec: Spec
    manifest: Manifest
    sums: FileEntry
    """SHA256SUMS: says which bytes this version is."""
    closing: FileEntry
    """manifest.json: the version is complete once it is there."""
    validation: ValidationReport
    """Of this very release."""
    notes: str | None = None
    """Why it is published all the same, where something stood against it."""

    @property
    def version(self) -> str:
        """Of the release."""
        return self.manifest.version

    def report(self) -> bytes:
        """The validation report as it lies beside the version: about these bytes, without paths of this machine."""
        here = self.release.store.where
        made = self.validation.model_copy(
            update={
                "where": f"./{self.version}",
                "findings": [
                    finding.model_copy(update={key: _elsewhere(getattr(finding, key), here) for key in _TEXTS})
                    for finding in self.validation.findings
                ],
                "checked": {code: _elsewhere(state, here) for code, state in self.validation.checked.items()},
            }
        )
        about = {"name": self.manifest.name, "version": self.version, "manifest_sha256": self.closing.sha256}
        return dump_json(about | made.model_dump(mode="json")).encode()

    @property
    def data(self) -> list[FileEntry]:
        """What is sent first."""
        return [entry for entry in self.manifest.files if _is_data(entry.path)]

    @property
    def documents(self) -> list[FileEntry]:
        """What is sent when the data is there."""
        return [entry for entry in self.manifest.files if not _is_data(entry.path)]

    @property
    def files(self) -> list[FileEntry]:
        """All of it."""
        return [*self.manifest.files, self.sums, self.closing]

    def open(self, entry: FileEntry) -> IO[bytes]:
        """Open a file for reading."""
        return self.release.store.open(entry.path)

    def read(self, entry: FileEntry) -> bytes:
        """A whole file, refused if it is not the one in the manifest.

        Raises:
            OutdatedManifestError: it changed since the manifest was written.
        """
        data = self.release.store.read(entry.path)
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise self.changed(entry)
        return data

    def pieces(self, entry: FileEntry, size: int) -> Iterator[bytes]:
        """A file in pieces of `size` bytes.

        Raises:
            OutdatedManifestError: it changed since the manifest was written; known when the last piece was read.
        """
        digest = hashlib.sha256()
        with self.open(entry) as file:
            while piece := file.read(size):
                digest.update(piece)
                yield piece
        if digest.hexdigest() != entry.sha256:
            raise self.changed(entry)

    def changed(self, entry: FileEntry) -> OutdatedManifestError:
        """The error for a file that is not the one in the manifest."""
        return OutdatedManifestError(
            self.release.store.path(entry.path),
            "is not the file that the manifest names",
            f"SHA-256 {entry.sha256}",
            "Regenerate the manifest with `clay-publish catalog`, and validate.",
        )


def pack(
    release: Release, validation: ValidationReport, *, force: str | None = None, allow_unchecked: bool = False
) -> Package:
    """Check that a release may be published.

    Args:
        release: what to publish.
        validation: the validation report of this very release.
        force: why a release with unknown terms of use is published all the same.

        allow_unchecked: publish although rules of integrity, coverage or license were not checked.

    Raises:
        PublishError: it does not validate, or its manifest is not about what lies there.
        LicenseError: a source has no known terms of use, and there is no reason to go on.
    """
    _refuse_invalid(release, validation)
    if not allow_unchecked:
        _refuse_unchecked(release, validation)
    spec, manifest = release.spec(), read_manifest(release)
    if (manifest.name, manifest.version) != (spec.name, spec.version):
        raise PublishError(
            release.store.path(paths.MANIFEST),
            f"is about {manifest.name} {manifest.version}",
            f"{spec.name} {spec.version}, as in {paths.SPEC}",
            "Regenerate it with `clay-publish catalog`.",
        )
    for entry in manifest.files:
        _check_entry(release, entry)
    sums = _entry(release, paths.SHA256SUMS)
    expected = "".join(f"{entry.sha256}  {entry.path}\n" for entry in manifest.files).encode()
    if release.store.read(paths.SHA256SUMS) != expected:
        raise PublishError(
            release.store.path(paths.SHA256SUMS),
            "does not agree with the manifest",
            fix="Regenerate both with `clay-publish catalog`.",
        )
    notes = _unknown_terms(release, force)
    return Package(release, spec, manifest, sums, _entry(release, paths.MANIFEST), validation, notes)


def _elsewhere(text: str, here: str) -> str:
    """A text that names files as paths in the release, not as places of this machine."""
    return text.replace(f"{here}/", "").replace(here, ".") if len(here) > 1 else text


def _refuse_invalid(release: Release, validation: ValidationReport) -> None:
    if validation.where != release.store.where:
        raise PublishError(release.store.where, f"comes with the report of {validation.where}", "its own report")
    errors = validation.at_or_above(Severity.ERROR)
    if errors:
        first = f"{errors[0].code} {errors[0].where}: {errors[0].found}"
        more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
        raise PublishError(
            release.store.where,
            f"does not validate ({first}{more})",
            "a release without errors",
            f"`clay-publish validate {release.store.where}` shows them all.",
        )


def _refuse_unchecked(release: Release, validation: ValidationReport) -> None:
    unchecked = {
        code: state
        for code, state in validation.checked.items()
        if code.startswith(_NEEDED) and state.startswith("not checked")
    }
    for code, state in unchecked.items():
        more = f"; {len(unchecked) - 1} more rules were not checked" if len(unchecked) > 1 else ""
        raise PublishError(
            release.store.where,
            f"is not fully validated ({code} {state}{more})",
            "a release whose integrity, coverage and license rules were all checked",
            "Make the release readable and validate it again, or publish with --allow-unchecked.",
        )


def _check_entry(release: Release, entry: FileEntry) -> None:
    check_path(entry.path)
    if entry.path.startswith(f"{paths.RUN}/") or entry.path in {paths.MANIFEST, paths.SHA256SUMS}:
        raise PublishError(release.store.path(paths.MANIFEST), f"names {entry.path}", "files that are published")
    size = release.store.size(entry.path)
    if size != entry.size:
        raise PublishError(release.store.path(entry.path), f"has {size} bytes", f"{entry.size}, as in the manifest")


def _entry(release: Release, path: str) -> FileEntry:
    data = release.store.read(path)
    return FileEntry(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest())


def _unknown_terms(release: Release, force: str | None) -> str | None:
    found: set[str] = set()
    for batch in release.parquet(paths.SOURCES).iter_batches(columns=["id", "status", "license"]):
        terms = pc.utf8_lower(pc.fill_null(batch["license"], ""))
        without = pc.is_in(terms, pa.array(sorted(_NOT_TERMS)))
        found.update(batch["id"].filter(pc.and_(without, pc.equal(batch["status"], "used"))).to_pylist())
    unknown = sorted(found)
    if not unknown:
        return None
    named = ", ".join(unknown[:3]) + (f" and {len(unknown) - 3} more" if len(unknown) > 3 else "")
    if not (force or "").strip():
        raise LicenseError(
            release.store.path(paths.SOURCES),
            f"{named}: the terms of use are not known",
            "a license in the items, in the sensor registry, or as `imagery.license` in the spec",
            'Or publish with --force "why this is allowed"; the reason is published too.',
        )
    return f"Published although the terms of use of {named} are not known: {(force or '').strip()}"


State = Literal["published", "unchanged", "dry run"]


class PublishReceipt(BaseModel):
    """What was sent where, and how it was checked."""

    model_config = ConfigDict(frozen=True)

    target: str
    """The place, as the maintainer named it."""
    where: str
    """Where readers find this version."""
    name: str
    version: str
    state: State
    files: int
    """Files of the version."""
    size: int
    """Bytes of the version."""
    sent: list[str]
    """Paths that were sent, or would be."""
    sent_bytes: int
    """Bytes of these files that this command sent, without parts that an earlier one sent; see `sent_counts`."""
    sent_counts: Literal["bytes", "whole files"] = "bytes"
    """`whole files`: the Hub takes parts of files that it has already from there, and its client does not say how
    many: `sent_bytes` is an upper limit."""
    copied: list[str] = []
    """Paths whose bytes the host copied from an earlier version."""
    verified: Literal["no", "checksums", "full"] = "no"
    """`checksums`: sizes and the host's checksums; `full`: every byte was read back."""
    checked: list[str] = []
    """What a dry run made sure of."""
    unknown: list[str] = []
    """What lies there and is not in the manifest."""
    seconds: float = 0.0
    """Measured; of a dry run, estimated."""
    commit: str | None = None
    """On the Hub."""
    web: str | None = None
    """Page that shows this version to people; None where the host has none."""

    @property
    def line(self) -> str:
        """For a person."""
        whole = f"{self.where}: {self.files} files, {size(self.size)}"
        sent = f"{'at most ' if self.sent_counts == 'whole files' else ''}{size(self.sent_bytes)}"
        if self.state == "unchanged":
            line = f"{whole}, there already, verified"
        elif self.state == "dry run":
            line = f"{whole}, of which {len(self.sent)} files, {sent} would be sent"
            line += f" (about {duration(self.seconds)})"
            line += f"; checked: {', '.join(self.checked)}" if self.checked else ""
        else:
            line = f"{whole}, {len(self.sent)} sent ({sent}) in {self.seconds:.0f} s, verified"
        if self.copied:
            line += f"; {len(self.copied)} copied from an earlier version"
        if self.web and self.web != self.where and self.state != "dry run":
            line += f"; see {self.web}"
        if self.unknown:
            line += f"; NOT in the manifest: {', '.join(self.unknown)}"
        return line
