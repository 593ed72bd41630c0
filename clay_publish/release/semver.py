"""Semantic versions, and the steps between them.

Source: Semantic Versioning 2.0.0, https://semver.org.
"""

import functools
from dataclasses import dataclass
from enum import StrEnum

from clay_publish.errors import ReleaseError
from clay_publish.storage.address import SEMVER


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
