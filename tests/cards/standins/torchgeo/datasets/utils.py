"""Stub of `torchgeo.datasets.utils`: the two names that annotate the embeddings datasets."""

import os
from typing import Any

Path = str | os.PathLike[str]
Sample = dict[str, Any]
