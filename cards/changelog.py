"""`CHANGELOG.md`: what changed in the data from version to version."""

import re
from dataclasses import dataclass
from datetime import date

from clay_publish.cards.diff import compare
from clay_publish.cards.filters import paragraphs
from clay_publish.errors import ReleaseError
from clay_publish.release import directory as paths
from clay_publish.release.directory import MAX_DOCUMENT, Release
from clay_publish.release.versions import check_version
from clay_publish.spec.models import Spec

_TITLE = "# Changelog\n\n"
_FIRST = "First release."
_HEADING = re.compile(r"^## ", re.MULTILINE)


@dataclass(frozen=True)
class History:
    """The changelog of a release."""

    entry: str
    """Of this version, without its heading."""
    text: str
    """The whole file."""


def changelog(release: Release, spec: Spec, released: date, previous: Release | None) -> History:
    """Return what changed since `previous`, after the notes of the spec.

    Without `previous`, a later version keeps the entry that it has.

    Raises:
        SpecError: the version number is too small for what changed.
        ReleaseError: the spec names a version before, and nothing is known of it.
    """
    if previous is not None:
        difference = compare(previous, release)
        check_version(spec.version, difference.old, difference.known_before, difference.because)
        return _history([_with_notes(difference.markdown(released.isoformat()), spec), *_entries(previous)])
    there = _entries(release)
    if there and there[0].startswith(f"## {spec.version} ") and not there[0].rstrip().endswith(_FIRST):
        return _history(there)
    if spec.previous is not None:
        raise ReleaseError(
            release.store.path(paths.CHANGELOG),
            f"does not tell what changed since {spec.previous}",
            "a comparison with the version before",
            "Name that version: `clay-publish card RELEASE --previous WHERE`.",
        )
    return _history([_with_notes(f"## {spec.version} ({released.isoformat()})\n\n{_FIRST}\n", spec)])


def _with_notes(entry: str, spec: Spec) -> str:
    """An entry that begins with the maintainer's words."""
    heading, _, rest = entry.partition("\n")
    words = "" if spec.notes is None else f"\n{paragraphs(spec.notes)}\n"
    return f"{heading}\n{words}\n{rest.strip()}\n"


def _history(entries: list[str]) -> History:
    first = entries[0].partition("\n")[2].strip()
    return History(first, _TITLE + "\n".join(entry.strip() + "\n" for entry in entries))


def _entries(release: Release) -> list[str]:
    """The entries of a release's changelog, the newest first."""
    if not release.store.exists(paths.CHANGELOG):
        return []
    text = release.store.read(paths.CHANGELOG, MAX_DOCUMENT).decode("utf-8", errors="replace")
    return [f"## {entry}" for entry in _HEADING.split(text)[1:]]
