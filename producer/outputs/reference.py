"""`reference.parquet`: some vectors before quantization, to prove that a reader reads the others right."""

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clay_publish.producer.encoders import Encoded
from clay_publish.producer.outputs.parts import read_parts
from clay_publish.release import directory as paths
from clay_publish.release.directory import Release
from clay_publish.release.geoparquet import write_table
from clay_publish.release.tables import Dtype, reference_schema
from clay_publish.release.unit_receipts import UnitReceipt

REFERENCE = "reference"
"""Name of a unit's part that holds its reference vectors."""
ROWS = 256
"""In a release, at most."""


def rows_per_unit(units: int) -> int:
    """How many reference vectors each of so many units keeps."""
    return -(-ROWS // max(1, units))


def tolerance(vectors: npt.NDArray[np.float32], dtype: Dtype) -> npt.NDArray[np.float32]:
    """[n], how far a value of each vector [n, D] may be from what is stored of it: half a step of its number format."""
    largest: npt.NDArray[np.float32] = np.abs(vectors).max(axis=1)
    if dtype == "float16":
        return np.asarray(largest * 2**-11 + 2**-24, dtype=np.float32)
    # Half a step, and the roundings of quotient and product in float32.
    return np.asarray(largest / 127 * 0.501, dtype=np.float32)


def reference_rows(ids: list[str], encoded: Encoded, dtype: Dtype) -> pa.Table:
    """Rows of the table for some chips."""
    vectors = encoded.embeddings
    schema = reference_schema(vectors.shape[1])
    values = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), type=schema.field("embedding").type)
    return pa.Table.from_arrays([pa.array(ids), values, pa.array(tolerance(vectors, dtype))], schema=schema)


def lowest(tables: Iterable[pa.Table], count: int) -> pa.Table:
    """The `count` rows whose ids hash lowest: the same whatever the order in which they come."""
    table = pa.concat_tables(tables)
    order = sorted(range(table.num_rows), key=lambda n: _hash(table["id"][n].as_py()))
    return table.take(pa.array(order[:count], pa.int64()))


def publish_reference(release: Release, receipts: Iterable[UnitReceipt]) -> None:
    """Write `reference.parquet` from the parts of all units; remove it where there are none."""
    parts = read_parts(release, receipts, REFERENCE)
    if parts:
        write_table(release.store, paths.REFERENCE, lowest(parts, ROWS).sort_by("id"))
    else:
        release.store.remove(paths.REFERENCE)


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
