"""Datasets as they are in TorchGeo's wheel: its files `clay.py`, `earth_index.py`, `major_tom.py` and `errors.py` run.

They are unchanged. Stubbed are the two modules that these import and that need torchvision and more: `geo`
(`NonGeoDataset`) and `utils` (`Path` and `Sample`, which annotate). The environment variable `TORCHGEO_WHEEL` names the
wheel.
"""

import os

__path__.append(f"{os.environ['TORCHGEO_WHEEL']}/torchgeo/datasets")  # after the stubs beside this file

from torchgeo.datasets.clay import ClayEmbeddings  # noqa: E402 - the path first
from torchgeo.datasets.earth_index import EarthIndexEmbeddings  # noqa: E402
from torchgeo.datasets.major_tom import MajorTOMEmbeddings  # noqa: E402

__all__ = ["ClayEmbeddings", "EarthIndexEmbeddings", "MajorTOMEmbeddings"]
