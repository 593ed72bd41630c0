"""What a rule reports: faults, bad rows, and what it did not or could not check."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clay_publish.errors import AccessError, ClayPublishError, MissingExtraError, ReleaseError, StoreError
from clay_publish.storage.store import Store

UNFORESEEN = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    pa.ArrowException,
)
"""What a rule may raise on a release that anyone made: a text in place of a list, a list in place of a number."""


PARQUET = (".parquet", ".geoparquet", ".gpq", ".pq", ".parq")
"""How names of Parquet files end."""


def is_parquet(path: str) -> bool:
    """Whether a file is called as Parquet files are; what hides it from readers of folders hides it from this too."""
    name = path.partition("?")[0].rpartition("/")[2]
    return name.lower().endswith(PARQUET) and not name.startswith((".", "_"))


@dataclass(frozen=True)
class Fault:
    """One place where a rule does not hold."""

    where: str
    """File, row, field."""
    found: str
    expected: str = ""
    fix: str = ""
    """Where it differs from the rule's."""


@dataclass(frozen=True)
class NotChecked:
    """What a rule could not check, or only in part."""

    why: str


@dataclass(frozen=True)
class Broken:
    """What a rule could not check because of what the release holds there."""

    where: str
    """File, or an empty text where it is unknown which."""
    why: str


class RefusedFileError(StoreError):
    """A file ended the process that read it, and is not read again."""


class SkippedError(ReleaseError):
    """A rule needs a tool or an access that this validation does not have."""


class NoRoomError(ReleaseError):
    """This machine has no room for temporary files: no rule can say anything about the release."""


@dataclass(frozen=True)
class Sampled:
    """A rule checked a sample, as it is allowed to."""

    seen: int
    total: int
    of: str = "chips"


Outcome = Fault | NotChecked | Broken | Sampled


@dataclass(frozen=True)
class BadRows:
    """The rows of a batch in which a rule does not hold."""

    rows: npt.NDArray[np.integer]
    """Row numbers in the batch."""
    found: Callable[[int], str]
    """What such a row holds."""
    expected: str


def bad_rows(mask: npt.NDArray[np.bool_], found: Callable[[int], str] | str, expected: str) -> list[BadRows]:
    """Return the rows that a mask marks; an empty list if there are none."""
    rows = np.flatnonzero(mask)
    describe = found if callable(found) else lambda _: found
    return [BadRows(rows, describe, expected)] if rows.size else []


def and_more(first: str, count: int) -> str:
    """Name the first of several places and count the others."""
    return f"{first} and {count - 1:,} more" if count > 1 else first


def short(error: BaseException) -> str:
    """Return an error's text on one line."""
    return " ".join(str(error).split())[:300]


def no_room(what: str, needed: str, error: OSError) -> NoRoomError:
    """Return the error for a temporary file that cannot be written."""
    found, fix = f"cannot keep {what} ({short(error)})", "Set TMPDIR to a folder on another disk."
    return NoRoomError(tempfile.gettempdir(), found, f"{needed}, free on the disk", fix)


def unchecked(error: ClayPublishError, store: Store) -> Broken | NotChecked:
    """Return why an error kept a rule from being checked: for what the release holds, or for want of tool or access.

    Files that are missing are NotChecked: INT001 and INT010 report them.

    Raises:
        AccessError: the server of the release does not answer or refuses; no rule can say anything about the release.
        NoRoomError: as it says.
    """
    if isinstance(error, NoRoomError):
        raise error
    place = error.where.removeprefix(f"{store.where}/")
    why = f"{place} {error.found}"
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    no_access = (SkippedError, MissingExtraError, PermissionError, FileNotFoundError)
    if any(isinstance(cause, RefusedFileError) for cause in causes):
        return Broken(place, why)
    elsewhere = (place.startswith("/") or "://" in place) and place != store.where
    if isinstance(error, AccessError) and not elsewhere:
        raise error
    asked_server = not store.local and any(isinstance(cause, StoreError) for cause in causes)
    if elsewhere or asked_server or error.found == "does not exist":
        return NotChecked(why)
    return (
        NotChecked(why)
        if any(isinstance(cause, no_access) for cause in causes)
        else Broken("" if place == store.where else place, why)
    )
