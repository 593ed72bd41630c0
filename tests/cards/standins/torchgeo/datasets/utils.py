"""Stub of `torchgeo.datasets.utils`: the two names that annotate `ClayEmbeddings`."""

import os
from typing import Any

Path = str | os.PathLike[str]
Sample = dict[str, Any]
