"""Where examples import TorchGeo from: what is installed, else the wheel that `make` keeps beside the environment."""

import os
import sys
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

STANDINS = Path(__file__).parents[1] / "cards" / "standins"


def torchgeo_environment() -> dict[str, str]:
    """Return the variables with which a new interpreter imports `torchgeo`; the test is skipped where that cannot be.

    Nothing is needed where TorchGeo is installed. Elsewhere the files of its wheel run, with the stubs of `STANDINS`.
    """
    if PathFinder.find_spec("torchgeo") is not None:  # not one that another test has imported
        return {}
    wheels = sorted(Path(sys.prefix, "torchgeo").glob("torchgeo-*.whl"))
    if not wheels:
        reason = "TorchGeo is not installed, and its wheel is not there: `make .venv/torchgeo` downloads it"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return {"TORCHGEO_WHEEL": str(wheels[-1]), "PYTHONPATH": str(STANDINS)}
