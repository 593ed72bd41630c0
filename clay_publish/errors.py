"""The errors of this package: one root, one line per kind.

Every message has the form `PLACE: WHAT IS WRONG (expected WHAT IS VALID). HOW TO FIX IT.` None holds a secret.
"""

import re
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from clay_publish.redaction import redact

if TYPE_CHECKING:
    from pydantic import ValidationError

_KEY = re.compile(r"[\w:./-]{1,60}")
_LONGEST = 300
"""Characters of a field, and of what is said of it."""


class ClayPublishError(Exception):
    """Root of every error this package raises on purpose.

    Args:
        where: the file, item, or key of the spec that is wrong.
        found: what was found there.
        expected: what would have been right.
        fix: what the reader can do about it.
    """

    exit_code = 2

    def __init__(self, where: str, found: str, expected: str = "", fix: str = "") -> None:
        where, found, expected, fix = redact(where), redact(found), redact(expected), redact(fix)
        self.where, self.found, self.expected, self.fix = where, found, expected, fix
        # What is wrong may be another error, which says itself what it expected.
        more = f" (expected {expected})" if expected and "(expected " not in found else ""
        end = "" if fix.startswith("\n") else " "
        super().__init__(f"{where}: {found}{more}.{end}{fix}".rstrip())

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep the four parts when the error crosses a process boundary."""
        return (type(self), (self.where, self.found, self.expected, self.fix))


def shown(value: object) -> str:
    """A value as a message shows it: at most 60 characters."""
    try:
        text = redact(repr(value))  # whole: what is cut may no longer look like a secret
    except ValueError:  # Python writes no integer of more than 4,300 digits
        text = f"a very large {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."


def first_fault(error: "ValidationError") -> str:
    """Return what pydantic finds wrong first, in a line: the field, what is expected of it, and what it holds."""
    first = error.errors(include_url=False)[0]
    message = redact(" ".join(str(first["msg"]).removeprefix("Value error, ").split()))[:_LONGEST]
    if not first["loc"]:
        return message
    whole = first["type"] == "missing" or isinstance(first["input"], dict | list)
    # Keys are whatever the author of the document wrote.
    parts = (part if _KEY.fullmatch(part) else shown(part) for part in map(str, first["loc"]))
    field = redact(".".join(parts))[-_LONGEST:]
    return f"{field}: {message}" if whole else f"{field}: {message}, found {shown(first['input'])}"


class SpecError(ClayPublishError, ValueError):
    """The release spec cannot be used."""


class SourceError(ClayPublishError):
    """The STAC sources cannot be read or hold nothing to use."""


class ImageryError(ClayPublishError):
    """An image cannot be read as what its item says it is."""


class EncoderError(ClayPublishError):
    """A model cannot be loaded, or cannot take this sensor or chip."""


class ReleaseError(ClayPublishError):
    """A release directory is not in a state in which this can be done."""


class LockedError(ReleaseError):
    """Another process is at work on the same shard of a release."""


class StoreError(ClayPublishError, OSError):
    """A file of a release cannot be read or written."""


class AccessError(ClayPublishError):
    """A server does not answer, refuses a request, or may not be asked: nothing is known of what it holds."""


class MissingExtraError(ClayPublishError, ImportError):
    """An optional dependency is not installed."""


class LicenseError(ClayPublishError):
    """The terms of a source contradict the license of the release."""


class PublishError(ClayPublishError):
    """A version cannot be published, or what arrived is not what was sent."""


_EXTRAS: dict[str, tuple[str, ...]] = {
    "arrays": ("xarray", "zarr"),
    "evaluate": ("sklearn",),
    "produce": ("cql2", "pystac_client", "rasterio", "torch"),
    "ray": ("ray",),
    "s3": ("boto3",),
    "serve": ("cql2", "stac_fastapi", "uvicorn"),
}
"""Which extra brings which modules."""


def require_extra(extra: str, what: str) -> None:
    """Check that an extra is installed, before the work that needs it begins.

    Raises:
        MissingExtraError: one of its modules cannot be found; names the extra and how to get it.
    """
    missing = [module for module in _EXTRAS[extra] if find_spec(module) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise MissingExtraError(
            what,
            f"needs {' and '.join(missing)}, which {verb} not installed",
            fix=f"pip install 'clay-publish[{extra}]'",
        )
