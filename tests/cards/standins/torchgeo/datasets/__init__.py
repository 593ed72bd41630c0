"""`ClayEmbeddings` as it is in TorchGeo's wheel: its files `clay.py` and `errors.py` run unchanged.

Stubbed are the two modules that these import and that need torchvision and more: `geo` (`NonGeoDataset`) and `utils`
(`Path` and `Sample`, which annotate). The environment variable `TORCHGEO_WHEEL` names the wheel.
"""

import os

__path__.append(f"{os.environ['TORCHGEO_WHEEL']}/torchgeo/datasets")  # after the stubs beside this file

from torchgeo.datasets.clay import ClayEmbeddings  # noqa: E402 - the path first

__all__ = ["ClayEmbeddings"]
