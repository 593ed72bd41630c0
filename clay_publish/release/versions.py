"""Versions of a release: their order, which there are at a place, and which step a change asks for.

Source for the way of versioning: Overture Maps' release catalog.

Source: Semantic Versioning 2.0.0, https://semver.org.
"""

import functools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from clay_publish.errors import ReleaseError, SpecError, first_fault
from clay_publish.release import directory as paths
from clay_publish.release.directory import Release
from clay_publish.release.fingerprint import Fingerprint
from clay_publish.release.format_version import check_release
from clay_publish.spec.models import Spec
from clay_publish.storage.address import HUB_DATASETS, SEMVER

REPORT = re.compile(rf"({SEMVER.pattern})\.validation\.json")
"""Validation report of a version, beside it: no file of the version, and no other version's."""


def report_name(version: str) -> str:
    """Return the name of a version's validation report in the product's root: `1.0.0.validation.json`."""
    return f"{version}.validation.json"


class VersionStep(StrEnum):
    """The step from the previous version."""

    PATCH = "patch"
    """Fixes and documents."""
    MINOR = "minor"
    """More chips or tables; what was there is there still."""
    MAJOR = "major"
    """Other columns or another fingerprint: vectors of both must not be compared."""


@functools.total_ordering
@dataclass(frozen=True)
class Version:
    """A semantic version without build metadata."""

    core: tuple[int, int, int]
    before: tuple[str, ...] = ()
    """Of a pre-release: `1.0.0-rc.1` has `rc` and `1`."""

    @classmethod
    def parse(cls, text: str) -> "Version":
        """Read `1.2.3` or `1.2.3-rc.1`.

        Raises:
            ReleaseError: the text is not a version.
        """
        found = SEMVER.fullmatch(text)
        if found is None:
            raise ReleaseError("version", f"found {text[:60]!r}", "a semantic version such as 1.0.0")
        major, minor, patch, before = found.groups()
        return cls((int(major), int(minor), int(patch)), tuple(before.split(".")) if before else ())

    def __str__(self) -> str:
        text = ".".join(str(number) for number in self.core)
        return f"{text}-{'.'.join(self.before)}" if self.before else text

    def __lt__(self, other: "Version") -> bool:
        return self._key() < other._key()

    def _key(self) -> tuple[tuple[int, int, int], bool, list[tuple[bool, int, str]]]:
        """A pre-release comes before its release; its parts count as numbers where they are, and those come first."""
        parts = [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in self.before]
        return self.core, not self.before, parts

    def smallest_after(self, step: VersionStep) -> "Version":
        """The smallest version that is this far from this one."""
        major, minor, patch = self.core
        if self.before and (
            step is VersionStep.PATCH
            or (step is VersionStep.MINOR and not patch)
            or (step is VersionStep.MAJOR and not (minor or patch))
        ):
            return Version(self.core)
        # Before 1.0.0 anything may change with the second number.
        if step is VersionStep.MAJOR and major:
            return Version((major + 1, 0, 0))
        if step is VersionStep.PATCH or (step is VersionStep.MINOR and not major):
            return Version((major, minor, patch + 1))
        return Version((major, minor + 1, 0))


CATALOG = "catalog.json"
LATEST = "latest"


class Mirror(BaseModel):
    """The same version on the Hub."""

    model_config = ConfigDict(frozen=True)

    repository: str
    commit: str


class PublishedVersion(BaseModel):
    """One published version."""

    model_config = ConfigDict(frozen=True)

    version: str
    manifest_sha256: str | None = None
    published: str | None = None
    """RFC 3339."""
    notes: str | None = None
    yanked: str | None = None
    """Why it should not be used any more."""
    hugging_face: Mirror | None = None


class Versions(BaseModel):
    """The catalog at the root."""

    model_config = ConfigDict(frozen=True)

    name: str
    title: str
    versions: list[PublishedVersion]

    @property
    def latest(self) -> str | None:
        """The highest version that was not yanked; one before a final release only where there is no other."""
        usable = [Version.parse(v.version) for v in self.versions if v.yanked is None]
        newest = max(usable, key=lambda version: (not version.before, version), default=None)
        return None if newest is None else str(newest)

    def find(self, version: str) -> PublishedVersion | None:
        """One version."""
        return next((v for v in self.versions if v.version == version), None)

    def with_version(self, changed: PublishedVersion) -> "Versions":
        """The catalog with one version added or replaced, in order."""
        others = [v for v in self.versions if v.version != changed.version]
        ordered = sorted([*others, changed], key=lambda v: Version.parse(v.version))
        return self.model_copy(update={"versions": ordered})

    def lines(self) -> Iterator[str]:
        """The versions, newest first, for a person."""
        for each in sorted(self.versions, key=lambda each: Version.parse(each.version), reverse=True):
            latest = " latest" if each.version == self.latest else ""
            yield f"{each.version}{latest}" + (f" YANKED: {' '.join(each.yanked.split())}" if each.yanked else "")


def parse_catalog(data: bytes, where: str) -> Versions:
    """Read the catalog of versions that `publish` writes.

    Raises:
        ReleaseError: it is another document.
    """
    try:
        document = json.loads(data)
        versions = [PublishedVersion.model_validate(link) for link in document["links"] if link.get("rel") == "child"]
        for each in versions:
            Version.parse(each.version)
        return Versions(name=document["id"], title=document["title"], versions=versions)
    except ValidationError as error:
        raise ReleaseError(where, f"is not a catalog of versions ({first_fault(error)})") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ReleaseError) as error:
        raise ReleaseError(where, f"is not a catalog of versions ({' '.join(str(error).split())})") from error


def _is_of_others(data: bytes) -> bool:
    """Whether this is a STAC Catalog whose children are not versions of a product."""
    try:
        document = json.loads(data)
        children = [link for link in document["links"] if link["rel"] == "child"]
        return document["type"] == "Catalog" and bool(children) and not any("version" in link for link in children)
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def root_versions(release: Release) -> Versions | None:
    """Return the versions below a product root; None where the place is not one.

    A folder of this machine whose folders are versions is one, too: `run` makes it, and nothing is published in it yet.

    Raises:
        ReleaseError: its catalog cannot be read.
        StoreError: the place cannot be read.
    """
    store = release.store
    if store.exists(paths.SPEC) or store.exists(paths.MANIFEST):
        return None
    if store.exists(CATALOG):
        data = store.read(CATALOG, paths.MAX_DOCUMENT)
        return None if _is_of_others(data) else parse_catalog(data, store.path(CATALOG))
    made = sorted(Path(store.where).glob(f"*/{paths.SPEC}")) if store.local else []
    versions = [PublishedVersion(version=each.parent.name) for each in made if SEMVER.fullmatch(each.parent.name)]
    name = Path(store.where).name
    return Versions(name=name, title=name, versions=versions) if versions else None


def refuse_root(release: Release) -> None:
    """Refuse the root of a product, where one of its versions is wanted.

    Raises:
        ReleaseError: it is one; its versions are named.
    """
    versions = root_versions(release)
    if versions is None:
        return
    named = ", ".join(versions.lines()) or "none"
    example = versions.latest or (versions.versions[-1].version if versions.versions else "VERSION")
    raise ReleaseError(
        release.store.where,
        f"is the root of the product {versions.name}, with the versions {named}",
        "one version",
        f"Use {release.store.where}/{example}.",
    )


def version_address(release: Release, version: str) -> str:
    """Return the address of a version below a product root; `latest` is the newest that is not yanked.

    Raises:
        ReleaseError: the place is not a product root, or has no such version.
    """
    where = release.store.where
    if where.startswith(HUB_DATASETS):
        return where if version == LATEST else f"{where}@v{_checked(version)}"
    versions = root_versions(release)
    if versions is None:
        raise ReleaseError(where, "is not the root of a product", f"a place with a {CATALOG}, or no `version`")
    chosen = versions.latest if version == LATEST else version
    if chosen is None or versions.find(chosen) is None:
        found = "has no version that is not yanked" if chosen is None else f"has no version {chosen}"
        raise ReleaseError(where, found, f"one of {', '.join(versions.lines()) or 'none'}")
    return f"{where}/{chosen}"


def _checked(version: str) -> str:
    if SEMVER.fullmatch(version) is None:
        raise ReleaseError("version", f"found {version[:60]!r}", "a semantic version such as 1.0.0, or latest")
    return version


def check_version(version: str, previous: str, step: VersionStep, because: str) -> None:
    """Refuse a version that says less than what changed.

    Raises:
        SpecError: the version is too small for this step from the one before.
    """
    mine, theirs = Version.parse(version), Version.parse(previous)
    enough = theirs.smallest_after(step)
    if mine > theirs and (mine.core >= enough.core or mine >= enough):
        return
    raise SpecError(
        "version",
        f"{version} is too small after {previous}: {because}",
        f"at least {enough} ({step})",
        f"Set `version: {enough}`.",
    )


def check_previous(spec: Spec, fingerprint: Fingerprint | None = None) -> None:
    """Refuse, before anything is made, a version number that cannot be enough after the one before.

    Other tables follow from the spec, and another fingerprint from the model; more coverage is known with the plan.

    Raises:
        SpecError: the version is not newer, or another fingerprint asks for a greater step.
        ReleaseError: the release that the spec names as the one before cannot be read.
    """
    if spec.previous is None:
        return
    before = Release(spec.previous)
    refuse_root(before)
    if not before.store.exists(paths.SPEC):
        fix = "A relative path begins at the folder of the spec."
        raise SpecError("previous", f"{spec.previous} holds no release", "the directory or address of a version", fix)
    check_release(before)
    theirs = before.spec()
    if theirs.name != spec.name:
        raise SpecError("previous", f"is a version of {theirs.name}", f"one of {spec.name}")
    check_version(spec.version, theirs.version, VersionStep.PATCH, "a published version never changes")
    if theirs.outputs.square_km != spec.outputs.square_km:
        check_version(spec.version, theirs.version, VersionStep.MAJOR, "its files hold the ground of other squares")
    columns = _columns(theirs) ^ _columns(spec)
    gone, more = _tables(theirs) - _tables(spec), _tables(spec) - _tables(theirs)
    if columns or gone:
        because = f"the column {min(columns)} comes or goes" if columns else f"it has no {', '.join(sorted(gone))}"
        check_version(spec.version, theirs.version, VersionStep.MAJOR, because)
    elif more:
        check_version(spec.version, theirs.version, VersionStep.MINOR, f"it has {', '.join(sorted(more))} too")
    if fingerprint is not None and (differences := before.fingerprint().differences(fingerprint)):
        because = f"vectors of both cannot be compared ({'; '.join(differences)[:300]})"
        check_version(spec.version, theirs.version, VersionStep.MAJOR, because)


def _columns(spec: Spec) -> set[str]:
    """The columns that the spec asks for."""
    asked = {"thumbnail": spec.outputs.thumbnails > 0, "grid_cell": spec.outputs.major_tom_cell}
    return {name for name, wanted in asked.items() if wanted}


def _tables(spec: Spec) -> set[str]:
    """What the spec asks for beside the embeddings."""
    asked = {"arrays": spec.outputs.arrays, "patches": spec.outputs.patches}
    return {f"aggregates {n}x{n}" for n in spec.outputs.aggregate} | {name for name, wanted in asked.items() if wanted}
