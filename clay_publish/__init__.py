"""Plan, make, catalog, validate and publish versioned datasets of satellite image embeddings."""

from importlib.metadata import version
from pathlib import Path

__version__ = version("clay-publish")

# From the root of a checkout, `python -m clay_publish` finds this folder before the installed package.
# The stages then lie beside it, not in it.
_here = Path(__file__).resolve().parent
if not (_here / "producer").exists() and (_here.parent / "producer" / "sensors.py").exists():
    __path__.append(str(_here.parent))
