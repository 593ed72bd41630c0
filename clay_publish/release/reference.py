"""`reference.parquet`: which chips of a release are computed twice, and how near both vectors have to be.

Each embeddings file gives the chips whose ids have the lowest SHA-256: four, or more where a release would have fewer
than 64. Their vectors are computed from the imagery once more and kept in float32, so that anybody can notice that
vectors and rows no longer belong together, or that stored values are read in the wrong way.
"""

import hashlib
import heapq
from collections.abc import Collection, Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clay_publish.release.tables import Dtype, vector_type

PER_FILE = 4
"""Chips of an embeddings file, at least; all where it has fewer."""
PER_RELEASE = 64
"""Chips of a release, at least; all where it has fewer."""
ALLOWED = 1e-4
"""Share of the vector's largest value by which two computations on the same device may differ."""
OMITTED = 0.05
"""Share of the chips that may be left out since their imagery is gone."""


def reference_schema(dimensions: int) -> pa.Schema:
    """The table: id, float32 vector, and how far a stored value, read rightly, may be from it."""
    names = (("id", pa.string()), ("embedding", vector_type(dimensions, "float32")), ("tolerance", pa.float32()))
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in names])


def chips_per_file(rows: Collection[int]) -> int:
    """How many chips each file gives, from the number of rows of all files: the least that makes up a release."""
    count = PER_FILE
    while count < PER_RELEASE and sum(min(count, each) for each in rows) < PER_RELEASE:
        count += 1
    return count


def expected_chips(rows: Collection[int]) -> int:
    """How many chips all files give together."""
    count = chips_per_file(rows)
    return sum(min(count, each) for each in rows)


def reference_chips(ids: Iterable[str], count: int) -> list[str]:
    """The ids of a file that hash lowest, in this order."""
    return heapq.nsmallest(count, ids, key=lambda each: hashlib.sha256(each.encode()).digest())


def tolerance(vectors: npt.NDArray[np.float32], dtype: Dtype) -> npt.NDArray[np.float32]:
    """[n], for vectors [n, D]: half a step of the number format that they are stored in, and what a device allows."""
    largest = np.abs(vectors).max(axis=1).astype(np.float64)
    allowed = ALLOWED * largest
    if dtype == "float16":
        allowed += largest * 2**-11 + 2**-25
    elif dtype == "int8":
        allowed += largest / 127 / 2
    return np.asarray(allowed, dtype=np.float32)
