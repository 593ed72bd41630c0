"""Whether the terms of a source allow a release under its licence."""

import re

from clay_publish.errors import LicenseError

_OPEN = re.compile(
    r"CC-BY-\d\.\d(-[A-Z]+)?|CC0-1\.0|CC-PDDC|PDDL-1\.0|ODC-By-1\.0|public-domain|LicenseRef-Copernicus"
    r"|copernicus|OGL-UK-\d\.\d|OGL-Canada-\d\.\d|etalab-2\.0|DL-DE-BY-2\.0|DL-DE-ZERO-2\.0|NLOD-\d\.\d|MIT|Apache-2\.0",
    re.IGNORECASE,
)
"""Terms that allow a release under any licence that names its sources."""

_FORBIDS = re.compile(r"(^|[-_ ])(NC|ND)($|[-_ ])", re.IGNORECASE)
_SHARE_ALIKE = re.compile(r"(^|[-_ ])SA($|[-_ ])|^(ODbL|GPL|AGPL)", re.IGNORECASE)


def terms(item: str | None, collection: str | None, sensor: str | None, spec: str | None) -> str | None:
    """The licence of a source: as the item says, else its collection, else as the sensor usually has, else the spec.

    What STAC writes where a licence has no SPDX identifier (`proprietary`, `various`, `other`) says nothing about the
    terms, and neither does a name that nobody knows: the next one is asked. None is unknown, which stops `publish`.
    """
    for stated in (item, collection, sensor):
        if stated is not None and (_OPEN.fullmatch(stated) or _contradicts(stated)):
            return stated
    return spec


def check(stated: str | None, release: str, where: str) -> None:
    """Refuse terms that contradict the licence of the release. Unknown terms (None) pass here and stop `publish`.

    Raises:
        LicenseError: non-commercial or no-derivatives terms, or share-alike ones other than the release's own.
    """
    if stated is None or stated == release:
        return
    if _contradicts(stated):
        raise LicenseError(
            where,
            f"is under {stated}",
            f"terms that allow a release under {release}",
            "Leave it out with `exclude`, or correct `imagery.license`.",
        )


def _contradicts(stated: str) -> bool:
    return bool(_FORBIDS.search(stated) or _SHARE_ALIKE.search(stated))
