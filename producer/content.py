"""What identifies the content of an image's files, so that a change after planning is seen."""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from clay_publish.errors import ImageryError
from clay_publish.producer.items import BandFile, SourceItem
from clay_publish.producer.raster import public_name
from clay_publish.producer.remote import look, signed

_AT_ONCE = 8


class SourceChangedError(ImageryError):
    """A file is not the one that was there when the run was planned."""


def etags(item: SourceItem) -> Mapping[str, str]:
    """By href: size and time of local files, ETag or Last-Modified of files on web servers; no entry where unknown."""
    files = list({file.href: file for file in item.files}.values())
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = zip(files, pool.map(_etag, files), strict=True)
        return {file.href: tag for file, tag in found if tag is not None}


def check_unchanged(item: SourceItem) -> None:
    """Make sure that the files are those of the plan.

    Raises:
        SourceChangedError: one of them is another by now.
    """
    now = etags(item)
    for href, planned in item.etags.items():
        if href in now and now[href] != planned:
            raise SourceChangedError(
                f"item {item.id}, {public_name(href)}", "changed after the run was planned", "the planned content"
            )


def _etag(file: BandFile) -> str | None:
    if file.href.startswith(("http://", "https://")):
        try:
            return look(signed(file.href), file.origin).etag
        except ImageryError:
            return None  # opening it meets the same refusal, and records it
    path = file.href.removeprefix("file://")
    if "://" in path or file.origin is not None or not os.path.isfile(path):  # noqa: PTH113 - it may be no path at all
        return None
    status = os.stat(path)  # noqa: PTH116 - as above
    return f"{status.st_size:x}-{status.st_mtime_ns:x}"
