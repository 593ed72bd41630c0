"""Versions of a release, and which step a change asks for.

Source: Semantic Versioning 2.0.0, https://semver.org.
"""

import functools
from dataclasses import dataclass
from enum import StrEnum

from clay_publish.errors import ReleaseError, SpecError
from clay_publish.release.directory import Release
from clay_publish.release.fingerprint import Fingerprint
from clay_publish.release.format_version import check_release
from clay_publish.spec.models import SEMVER, Spec


class VersionStep(StrEnum):
    """How far a version is from the one before."""

    PATCH = "patch"
    """Mends and documents."""
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
            ReleaseError: the text is no version.
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
    check_release(before)
    theirs = before.spec()
    if theirs.name != spec.name:
        raise SpecError("previous", f"is a version of {theirs.name}", f"one of {spec.name}")
    check_version(spec.version, theirs.version, VersionStep.PATCH, "a published version never changes")
    if theirs.outputs.square_km != spec.outputs.square_km:
        check_version(spec.version, theirs.version, VersionStep.MAJOR, "its files hold the ground of other squares")
    columns = (theirs.outputs.thumbnails > 0) != (spec.outputs.thumbnails > 0)
    gone, more = _tables(theirs) - _tables(spec), _tables(spec) - _tables(theirs)
    if columns or gone:
        because = "the column thumbnail comes or goes" if columns else f"it has no {', '.join(sorted(gone))}"
        check_version(spec.version, theirs.version, VersionStep.MAJOR, because)
    elif more:
        check_version(spec.version, theirs.version, VersionStep.MINOR, f"it has {', '.join(sorted(more))} too")
    if fingerprint is not None and (differences := before.fingerprint().differences(fingerprint)):
        because = f"vectors of both cannot be compared ({'; '.join(differences)[:300]})"
        check_version(spec.version, theirs.version, VersionStep.MAJOR, because)


def _tables(spec: Spec) -> set[str]:
    """What the spec asks for beside the embeddings."""
    return {f"aggregates {n}x{n}" for n in spec.outputs.aggregate} | ({"patches"} if spec.outputs.patches else set())
