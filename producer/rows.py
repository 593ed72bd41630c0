"""From chips and their vectors to rows of the embeddings and coverage tables."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely

from clay_publish.geoparquet import bbox_array
from clay_publish.producer.chips import ChipBlock
from clay_publish.producer.encoders import Encoded
from clay_publish.tables import TIMESTAMP, Dtype, coverage_schema
from clay_publish.windows import Window

PART_COVERAGE = (
    coverage_schema().append(pa.field("zone", pa.int32(), nullable=False)).append(pa.field("geometry", pa.binary()))
)
"""Coverage rows of a part: with their zone, and the footprint of what is missing, for drawing gaps."""


def quantize(vectors: npt.NDArray[np.float32], dtype: Dtype) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32] | None]:
    """[n, D] as they are stored, and the scale of each row where they are integers: value = stored × scale."""
    if dtype == "float32":
        return vectors, None
    if dtype == "float16":
        return vectors.astype(np.float16), None
    scale = (np.abs(vectors).max(axis=1) / np.float32(127)).astype(np.float32)
    scale[scale == 0] = 1  # of zeros, which patches may be
    return np.rint(vectors / scale[:, None]).astype(np.int8), scale


def sound(vectors: npt.NDArray[np.float32], dtype: Dtype) -> npt.NDArray[np.bool_]:
    """Which rows are finite as stored, and neither zero nor constant."""
    with np.errstate(over="ignore"):
        stored = vectors.astype(np.float16).astype(np.float32) if dtype == "float16" else vectors
    finite: npt.NDArray[np.bool_] = np.asarray(np.isfinite(stored).all(axis=1))
    return np.asarray(finite & (np.ptp(np.where(finite[:, None], stored, 0), axis=1) > 0), dtype=bool)


def embedding_rows(
    block: ChipBlock,
    encoded: Encoded,
    keep: npt.NDArray[np.int64],
    schema: pa.Schema,
    dtype: Dtype,
    *,
    pictures: list[bytes] | None = None,
) -> pa.Table:
    """Rows of the embeddings table for the chips `keep` of a block; `encoded`, `pictures` have one entry for each."""
    geometry = block.geometry[keep]
    vectors = encoded.embeddings
    field = schema.field("embedding").type
    sources = [item for item in (block.source[n] for n in keep) if item is not None]
    stored, scale = quantize(vectors, dtype)
    columns: dict[str, Any] = {
        "id": [block.ids[n] for n in keep],
        "geometry": shapely.to_wkb(geometry),
        "bbox": bbox_array(geometry),
        "datetime": pa.array([item.acquired for item in sources], TIMESTAMP),
        "start_datetime": pa.array([item.start for item in sources], TIMESTAMP),
        "end_datetime": pa.array([item.end for item in sources], TIMESTAMP),
        "lon": block.lon[keep],
        "lat": block.lat[keep],
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(stored.reshape(-1), field.value_type), type=field),
        "scale": scale,
        "loss": pa.nulls(len(keep), pa.float32()) if encoded.loss is None else encoded.loss,
        "valid_fraction": block.valid_fraction[keep],
        "cloud_fraction": pa.array(block.cloud_fraction[keep], pa.float32(), from_pandas=True),
        "item_id": [item.id for item in sources],
        "item_ids": [list(block.item_ids[n]) for n in keep],
        "epsg": pa.array([block.epsg] * len(keep), pa.int32()),
        "row": block.rows[keep],
        "col": block.cols[keep],
    }
    if pictures is not None:
        names = [f"{block.ids[n]}.webp" for n in keep]
        columns["thumbnail"] = [{"bytes": b, "path": n} for b, n in zip(pictures, names, strict=True)]
    arrays = [pa.array(columns[f.name], f.type) for f in schema]
    return pa.Table.from_arrays(arrays, schema=schema.remove_metadata())


def coverage_rows(block: ChipBlock, window: Window) -> pa.Table:
    """Rows of a coverage part for all chips of a block."""
    count = len(block.ids)
    outline = block.geometry.copy()
    outline[[reason is None for reason in block.reasons]] = None
    columns = {
        "id": block.ids,
        "epsg": pa.array([block.epsg] * count, pa.int32()),
        "row": block.rows,
        "col": block.cols,
        "window_start": [window.start] * count,
        "window_end": [window.end] * count,
        "status": ["missing" if reason else "embedded" for reason in block.reasons],
        "reason": block.reasons,
        "item_ids": [list(ids) for ids in block.item_ids],
        "detail": block.details,
        "zone": [square.zone for square in block.squares],
        "geometry": shapely.to_wkb(outline),
    }
    arrays = [pa.array(columns[f.name], f.type) for f in PART_COVERAGE]
    return pa.Table.from_arrays(arrays, schema=PART_COVERAGE)
