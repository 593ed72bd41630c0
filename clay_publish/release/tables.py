"""The Arrow schemas of a release's tables: one row per chip, per source item, and per expected chip.

Each embeddings file gives `reference.parquet` the chips whose ids have the lowest SHA-256: four, or more where a
release would have fewer than 64. Their vectors are computed from the imagery a second time and kept in float32, so
that readers can detect vectors that do not belong to their rows, or stored values that are read wrongly.
"""

import hashlib
import heapq
from collections.abc import Collection, Iterable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

Dtype = Literal["float32", "float16", "int8"]

ARROW_DTYPES: dict[str, pa.DataType] = {"float32": pa.float32(), "float16": pa.float16(), "int8": pa.int8()}
TIMESTAMP = pa.timestamp("us", tz="UTC")
BBOX = pa.struct([pa.field(side, pa.float64(), nullable=False) for side in ("xmin", "ymin", "xmax", "ymax")])
SOURCE_BAND = pa.struct(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("asset", pa.string(), nullable=False),
        pa.field("band", pa.int32(), nullable=False),  # 1-based, of the file
        pa.field("scale", pa.float64(), nullable=False),  # physical value = digital number × scale + offset
        pa.field("offset", pa.float64(), nullable=False),
        pa.field("source", pa.string(), nullable=False),  # which statements decided
    ]
)
"""How a band of an image is read."""
SOURCE_MASK = pa.struct(
    [
        pa.field("asset", pa.string(), nullable=False),
        pa.field("bands", pa.list_(pa.field("element", pa.int32(), nullable=False)), nullable=False),
        pa.field("format", pa.string(), nullable=False),
        pa.field("cloudy", pa.list_(pa.field("element", pa.int32(), nullable=False)), nullable=False),
        pa.field("nodata", pa.list_(pa.field("element", pa.int32(), nullable=False)), nullable=False),
    ]
)
"""The cloud mask of an image: bands of its asset, and which of their values mean cloud and no data."""
_SAMPLE = ("valid", "minimum", "p1", "p50", "p99", "maximum")
SOURCE_EVIDENCE = pa.struct(
    [
        pa.field("status", pa.string(), nullable=False),
        pa.field("sentences", pa.list_(pa.field("element", pa.string(), nullable=False)), nullable=False),
        pa.field(
            "bands",
            pa.list_(
                pa.field(
                    "element",
                    pa.struct(
                        [
                            pa.field("name", pa.string(), nullable=False),
                            *(pa.field(name, pa.float64(), nullable=False) for name in _SAMPLE),
                        ]
                    ),
                    nullable=False,
                )
            ),
            nullable=False,
        ),
    ]
)
"""What a sample of an image's pixels says: `plausible`, `ambiguous` or `implausible`, why, and quantiles as stored."""
THUMBNAIL = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

STATUSES = ("embedded", "missing")
REASONS: dict[str, str] = {
    "no_imagery": "no source item covers the chip in this window",
    "nodata": "too few valid pixels",
    "cloud": "too much cloud",
    "excluded": "its items were left out as known to be bad",
    "unreadable": "its image could not be read",
    "source_changed": "its image changed after the run was planned",
    "invalid_vector": "the model gave NaN, infinite, zero or constant values",
    "failed": "processing failed again and again",
    "over_budget": "the budget was spent before its turn",
    "too_few_images": "too few acquisitions had valid pixels there for a composite",
    "implausible": "its pixel values cannot be what its item says",
}
"""Why an expected chip has no embedding."""

COLUMNS: dict[str, str] = {
    "id": "Identifier of the chip, unique in the release: grid, cell and period.",
    "geometry": "True footprint of the chip's pixels (WKB, OGC:CRS84).",
    "bbox": "Bounds of the footprint; xmin > xmax where it crosses the antimeridian.",
    "datetime": "Acquisition in UTC; for a composite, the middle of its period.",
    "start_datetime": "Start of the acquisition or of the composite's period.",
    "end_datetime": "End of the acquisition or of the composite's period.",
    "lon": "Longitude of the center of the pixels, degrees, WGS 84.",
    "lat": "Latitude of the center of the pixels, degrees, WGS 84.",
    "embedding": "The embedding of the chip.",
    "scale": "What to multiply the stored integers with.",
    "loss": "Reconstruction loss of the model, where it has one.",
    "valid_fraction": "Share of pixels with data in every band, 0 to 1.",
    "cloud_fraction": "Share of pixels under cloud, 0 to 1; null where the item has no cloud mask.",
    "item_id": "Source STAC item the chip's date is taken from.",
    "item_ids": "All source STAC items that gave pixels.",
    "images": "Acquisitions that gave pixels.",
    "observations_min": "Fewest clear observations of a pixel, of those that have a value.",
    "observations_median": "Median number of clear observations of the pixels that have a value.",
    "epsg": "EPSG code of the chip's pixel grid; null where it has none.",
    "row": "Row of the chip in its grid.",
    "col": "Column of the chip in its grid.",
    "grid_cell": "Cell of the Major TOM grid of 10 km that holds the center.",
    "thumbnail": "Small picture of the chip.",
    "chip_id": "Identifier of the chip that the patch is a part of.",
    "layer": "Layer of the model the patch embedding comes from, 1 the first.",
    "patch_row": "Row of the patch in its chip, from the top.",
    "patch_col": "Column of the patch in its chip, from the left.",
    "tolerance": "Largest difference between the stored value, scale applied, and this one.",
}


NOT_CLOUD_CHECKED = "not cloud-checked"
"""Detail in the coverage table of an embedded chip whose image has no cloud mask, of a sensor that has masks."""


def without_cloud_fraction(footer: pq.FileMetaData) -> int:
    """Rows of an embeddings file whose image has no cloud mask, as its footer counts them."""
    groups = [footer.row_group(n) for n in range(footer.num_row_groups)]
    places = [n for n in range(footer.num_columns) if footer.schema.column(n).path == "cloud_fraction"]
    return sum(group.column(n).statistics.null_count for group in groups for n in places)


COMBINED = ("images", "observations_min", "observations_median")
"""Columns that only chips of several acquisitions have."""


def embeddings_schema(
    dimensions: int, dtype: Dtype = "float32", *, thumbnails: bool = False, combined: bool = False, cells: bool = False
) -> pa.Schema:
    """The table of embeddings; `embedding` is a fixed-size list of `dimensions` values.

    Args:
        dimensions: of an embedding.
        dtype: of its values.
        thumbnails: whether there is a picture of each chip.
        combined: whether chips are made of several acquisitions.
        cells: whether there is the Major TOM cell of each chip, `grid_cell`.
    """
    return _schema(
        [
            ("id", pa.string()),
            ("geometry", pa.binary()),
            ("bbox", BBOX),
            ("datetime", TIMESTAMP),
            ("start_datetime", TIMESTAMP),
            ("end_datetime", TIMESTAMP),
            ("lon", pa.float64()),
            ("lat", pa.float64()),
            ("embedding", vector_type(dimensions, dtype)),
            *([("scale", pa.float32())] if dtype == "int8" else []),
            ("loss", pa.float32()),
            ("valid_fraction", pa.float32()),
            ("cloud_fraction", pa.float32()),
            ("item_id", pa.string()),
            ("item_ids", pa.list_(pa.field("element", pa.string(), nullable=False))),
            *(zip(COMBINED, (pa.int32(), pa.int32(), pa.float32()), strict=True) if combined else ()),
            ("epsg", pa.int32()),
            ("row", pa.int32()),
            ("col", pa.int32()),
            *([("grid_cell", pa.string())] if cells else []),
            *([("thumbnail", THUMBNAIL)] if thumbnails else []),
        ],
        nullable={"loss", "cloud_fraction", "epsg", "thumbnail"},
    )


def patches_schema(dimensions: int, dtype: Dtype = "float32", *, layers: bool = False) -> pa.Schema:
    """The table of patch embeddings: one row per patch, and a layer where the spec lists layers."""
    return _schema(
        [
            ("chip_id", pa.string()),
            *([("layer", pa.int32())] if layers else []),
            ("patch_row", pa.int32()),
            ("patch_col", pa.int32()),
            ("embedding", vector_type(dimensions, dtype)),
            *([("scale", pa.float32())] if dtype == "int8" else []),
        ],
        nullable=set(),
    )


def vector_type(dimensions: int, dtype: Dtype) -> pa.DataType:
    """A fixed-size list without nulls inside."""
    return pa.list_(pa.field("element", ARROW_DTYPES[dtype], nullable=False), dimensions)


def coverage_schema() -> pa.Schema:
    """One row per expected chip. `row` and `col` are null where an item's chips could not be counted."""
    return _schema(
        [
            ("id", pa.string()),
            ("epsg", pa.int32()),
            ("row", pa.int32()),
            ("col", pa.int32()),
            ("window_start", TIMESTAMP),
            ("window_end", TIMESTAMP),
            ("status", pa.string()),
            ("reason", pa.string()),
            ("item_ids", pa.list_(pa.field("element", pa.string(), nullable=False))),
            ("detail", pa.string()),
        ],
        nullable={"epsg", "row", "col", "reason", "detail"},
    )


def sources_schema() -> pa.Schema:
    """One row per source item considered."""
    asset = pa.struct(
        [
            pa.field("key", pa.string(), nullable=False),
            pa.field("href", pa.string()),  # public address; null where it was local or signed
            pa.field("etag", pa.string()),
            pa.field("size", pa.int64()),
        ]
    )
    return _schema(
        [
            ("id", pa.string()),
            ("collection", pa.string()),
            ("block", pa.int32()),  # which imagery block of the spec asked for it
            ("status", pa.string()),
            ("reason", pa.string()),
            ("geometry", pa.binary()),
            ("bbox", BBOX),
            ("datetime", TIMESTAMP),
            ("start_datetime", TIMESTAMP),
            ("end_datetime", TIMESTAMP),
            ("platform", pa.string()),
            ("acquisition", pa.string()),  # datatake or composite: items of one may be mosaicked
            ("cloud_cover", pa.float64()),
            ("proj_code", pa.string()),
            ("proj_shape", pa.list_(pa.field("element", pa.int64(), nullable=False))),
            ("proj_transform", pa.list_(pa.field("element", pa.float64(), nullable=False))),
            ("bands", pa.list_(pa.field("element", SOURCE_BAND, nullable=False))),
            ("mask", SOURCE_MASK),
            ("level", pa.string()),  # what says that it is the sensor's product
            ("evidence", SOURCE_EVIDENCE),  # of a sample of its pixels; null where none was read
            ("license", pa.string()),
            ("attribution", pa.string()),
            ("href", pa.string()),
            ("assets", pa.list_(pa.field("element", asset, nullable=False))),
        ],
        nullable={
            "collection",
            "reason",
            "datetime",
            "platform",
            "acquisition",
            "cloud_cover",
            "proj_code",
            "proj_shape",
            "proj_transform",
            "mask",
            "level",
            "evidence",
            "license",
            "attribution",
            "href",
            "geometry",
            "bbox",
            "start_datetime",
            "end_datetime",
        },
    )


def _schema(fields: list[tuple[str, pa.DataType]], nullable: set[str]) -> pa.Schema:
    return pa.schema([pa.field(name, kind, nullable=name in nullable) for name, kind in fields])


def hugging_face_features(schema: pa.Schema) -> dict[str, Any]:
    """The `features` that `datasets` reads from a footer, so that pictures are pictures and vectors have a length."""
    return {field.name: _feature(field.type) for field in schema}


def _feature(kind: pa.DataType) -> Any:
    if kind == THUMBNAIL:
        return {"_type": "Image"}
    if pa.types.is_struct(kind):
        return {kind.field(i).name: _feature(kind.field(i).type) for i in range(kind.num_fields)}
    if pa.types.is_fixed_size_list(kind):
        return {"feature": _feature(kind.value_type), "length": kind.list_size, "_type": "List"}
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    return {"dtype": _FEATURE_DTYPES.get(str(kind), str(kind)), "_type": "Value"}


_FEATURE_DTYPES = {"halffloat": "float16", "float": "float32", "double": "float64"}


PER_FILE = 4
"""Chips of an embeddings file, at least; all where it has fewer."""
PER_RELEASE = 64
"""Chips of a release, at least; all where it has fewer."""
ALLOWED = 1e-4
"""Share of the vector's largest value by which two computations on the same device may differ."""
OMITTED = 0.05
"""Share of the chips that may be left out since their imagery is gone."""


def reference_schema(dimensions: int) -> pa.Schema:
    """The table: id, float32 vector, and the tolerance of the stored value, scale applied."""
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
