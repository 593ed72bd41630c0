"""Plan, make, catalog, validate and publish versioned datasets of satellite image embeddings.

The public API is `__all__`; every other name of the package is internal and may change in any release.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clay_publish.errors import (
        ClayPublishError,
        EncoderError,
        ImageryError,
        LicenseError,
        LockedError,
        MissingExtraError,
        PublishError,
        ReleaseError,
        SourceError,
        SpecError,
        StoreError,
    )
    from clay_publish.release.findings import Finding, Severity, ValidationReport
    from clay_publish.search.query import QueryError
    from clay_publish.search.reader import ReleaseReader, open_release
    from clay_publish.spec.load import load_spec
    from clay_publish.spec.models import Spec
    from clay_publish.validate.runner import validate as validate_release

    __version__: str

__all__ = [
    "ClayPublishError",
    "EncoderError",
    "Finding",
    "ImageryError",
    "LicenseError",
    "LockedError",
    "MissingExtraError",
    "PublishError",
    "QueryError",
    "ReleaseError",
    "ReleaseReader",
    "Severity",
    "SourceError",
    "Spec",
    "SpecError",
    "StoreError",
    "ValidationReport",
    "__version__",
    "load_spec",
    "open_release",
    "validate_release",
]

_ERRORS = "clay_publish.errors"
_HOMES = {
    "Finding": "clay_publish.release.findings",
    "QueryError": "clay_publish.search.query",
    "ReleaseReader": "clay_publish.search.reader",
    "Severity": "clay_publish.release.findings",
    "Spec": "clay_publish.spec.models",
    "ValidationReport": "clay_publish.release.findings",
    "load_spec": "clay_publish.spec.load",
    "open_release": "clay_publish.search.reader",
    "validate_release": "clay_publish.validate.runner",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use: the command line starts faster without Arrow and the validator."""
    if name == "__version__":
        return import_module("importlib.metadata").version("clay-publish")
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(_HOMES.get(name, _ERRORS)), name.replace("validate_release", "validate"))
