"""Plan, make, catalog, validate and publish versioned datasets of satellite image embeddings."""

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clay_publish.reader import open_release

__all__ = ["__version__", "open_release"]

__version__ = version("clay-publish")

# From the root of a checkout, `python -m clay_publish` finds this folder before the installed package.
# The stages then lie beside it, not in it.
_here = Path(__file__).resolve().parent
if not (_here / "producer").exists() and (_here.parent / "producer" / "sensors.py").exists():
    __path__.append(str(_here.parent))


def __getattr__(name: str) -> Any:
    """Bring the reader only when it is asked for: the command line starts faster without."""
    if name == "open_release":
        from clay_publish.reader import open_release  # noqa: PLC0415

        return open_release
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
