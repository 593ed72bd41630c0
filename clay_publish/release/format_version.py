"""The version of the release format that this program writes and reads."""

from typing import Literal

from clay_publish.errors import ReleaseError, shown

FORMAT: Literal[2] = 2
"""Counted up with every change that a reader of a release meets."""


def check_format(found: object, where: str) -> None:
    """Refuse a release of another format.

    Raises:
        ReleaseError: it was made by clay-publish 0.1, or by a version newer than this one.
    """
    if found == FORMAT:
        return
    if found == 1:
        raise ReleaseError(
            where,
            "made by clay-publish 0.1; format 1 is not supported",
            f"format {FORMAT}",
            "Make the release again, or read it with clay-publish 0.1.",
        )
    raise ReleaseError(where, f"has format {shown(found)}", f"format {FORMAT}", "Install a newer clay-publish.")
