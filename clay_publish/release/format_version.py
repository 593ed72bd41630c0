"""The version of the release format that this program writes and reads."""

import re
from typing import Literal

from clay_publish.errors import ReleaseError, StoreError, shown
from clay_publish.release.directory import MANIFEST, Release

FORMAT: Literal[2] = 2
"""Counted up with every change that a reader of a release meets."""
_HEAD = 512
"""Bytes of the manifest that are read for its format, which is its first key."""
_STATED = re.compile(rb'^\s*\{\s*"format"\s*:\s*(\d{1,9})\b')
_OURS = re.compile(rb'^\s*\{\s*"name"\s*:.*"software"\s*:', re.DOTALL)
"""How a manifest of format 1 begins."""


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


def check_release(release: Release) -> None:
    """Refuse a release of another format, as its manifest states it; one without a manifest is not finished yet.

    Raises:
        ReleaseError: as `check_format`.
    """
    try:
        with release.store.ranges(MANIFEST) as file:
            head = file.read(_HEAD)
    except StoreError:
        return  # there is none, or what is read next meets the same error
    stated = _STATED.match(head)
    if stated is not None or _OURS.match(head):
        check_format(1 if stated is None else int(stated[1]), release.store.path(MANIFEST))
