"""Whether the terms of a source allow a release under its licence."""

import re

from clay_publish.errors import LicenseError

_UNINFORMATIVE = {"proprietary", "various", "other", ""}
"""What STAC writes where a licence has no SPDX identifier: it says nothing about the terms."""

_FORBIDS = re.compile(r"(^|[-_ ])(NC|ND)($|[-_ ])", re.IGNORECASE)
_SHARE_ALIKE = re.compile(r"(^|[-_ ])SA($|[-_ ])|^(ODbL|GPL|AGPL)", re.IGNORECASE)


def terms(item: str | None, sensor: str | None, spec: str | None) -> str | None:
    """The licence of a source: as the item says, else as the sensor usually has, else as the spec says."""
    for stated in (item, sensor, spec):
        if stated is not None and stated.lower() not in _UNINFORMATIVE:
            return stated
    return None


def check(stated: str | None, release: str, where: str) -> None:
    """Refuse terms that contradict the licence of the release. Unknown terms (None) pass here and stop `publish`.

    Raises:
        LicenseError: non-commercial or no-derivatives terms, or share-alike ones other than the release's own.
    """
    if stated is None or stated == release:
        return
    if _FORBIDS.search(stated) or _SHARE_ALIKE.search(stated):
        raise LicenseError(
            where,
            f"is under {stated}",
            f"terms that allow a release under {release}",
            "Leave it out with `exclude`, or correct `imagery.license`.",
        )
