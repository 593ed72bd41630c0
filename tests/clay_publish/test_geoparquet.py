import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from clay_publish.release.geoparquet import bbox_array, geo_metadata, group_rows, total_bbox, write_table
from clay_publish.release.tables import (
    Dtype,
    coverage_schema,
    embeddings_schema,
    hugging_face_features,
    sources_schema,
    vector_type,
)
from clay_publish.storage.store import Store
from clay_publish.validate.data.page_headers import page_headers


def test_the_bbox_of_what_crosses_the_antimeridian_has_its_west_in_the_east() -> None:
    across = shapely.MultiPolygon([shapely.box(179, 0, 180, 1), shapely.box(-180, 0, -178, 1)])
    round_the_pole = shapely.box(-180, 80, 180, 90)
    boxes = bbox_array(np.array([shapely.box(1, 2, 3, 4), across, round_the_pole])).to_pylist()
    assert [tuple(box.values()) for box in boxes] == [(1, 2, 3, 4), (179, 0, -178, 1), (-180, 80, 180, 90)]


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ([], None),
        ([[1, 2, 3, 4], [-5, 0, 0, 1]], [-5, 0, 3, 4]),
        ([[179, 0, -179, 1]], [179, 0, -179, 1]),
        ([[179, 0, -179, 1], [170, -1, 172, 0]], [170, -1, -179, 1]),
        ([[179, 0, -179, 1], [-170, -1, -160, 0]], [179, -1, -160, 1]),
        ([[179, 0, -179, 1], [-179, 0, 179, 1]], [-180, 0, 180, 1]),
    ],
)
def test_one_box_around_many_goes_the_smaller_way_round(boxes: list[list[float]], expected: list[float] | None) -> None:
    assert total_bbox(np.array(boxes, dtype="float64").reshape(-1, 4)) == expected


def test_geo_metadata_says_crs84_by_name_and_a_covering() -> None:
    column = geo_metadata({"Polygon"}, [0, 0, 1, 1])["columns"]["geometry"]
    assert column["crs"]["id"] == {"authority": "OGC", "code": "CRS84"}
    assert column["covering"]["bbox"]["xmax"] == ["bbox", "xmax"]


def test_a_flipped_bit_is_found_and_vectors_are_stored_as_promised(tmp_path: Path) -> None:
    most = group_rows(embeddings_schema(4))
    assert most == 16_384
    rows = most + 1
    vectors = np.random.default_rng(0).standard_normal(rows * 4).astype("float32")
    schema = embeddings_schema(4)
    table = pa.table(
        {
            "id": [f"chip-{n}" for n in range(rows)],
            "embedding": pa.FixedSizeListArray.from_arrays(vectors, type=schema.field("embedding").type),
        }
    )
    write_table(Store(tmp_path), "t.parquet", table)
    metadata = pq.ParquetFile(tmp_path / "t.parquet").metadata
    assert [metadata.row_group(n).num_rows for n in range(2)] == [most, 1]
    column = metadata.row_group(0).column(1)
    assert column.has_offset_index
    assert column.has_column_index
    assert (column.compression, "BYTE_STREAM_SPLIT" in column.encodings) == ("ZSTD", True)
    data = bytearray((tmp_path / "t.parquet").read_bytes())
    data[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    (tmp_path / "t.parquet").write_bytes(data)
    with pytest.raises(OSError, match=r"(?i)crc|checksum"):
        pq.ParquetFile(tmp_path / "t.parquet", page_checksum_verification=True).read()


@pytest.mark.parametrize(
    ("dimensions", "dtype", "rows"),
    [
        (512, "float32", 1_024),
        (1024, "float32", 1_024),
        (4096, "float32", 1_024),
        (768, "float16", 2_048),
        (1024, "int8", 2_048),
        (192, "int8", 16_384),
        (128, "float32", 4_096),
        (2_000_000, "float32", 1_024),
    ],
)
def test_row_groups_hold_four_megabytes_of_vectors(dimensions: int, dtype: Dtype, rows: int) -> None:
    assert group_rows(embeddings_schema(dimensions, dtype)) == rows
    width = {"float32": 4, "float16": 2, "int8": 1}[dtype]
    assert rows == 1_024 or rows * dimensions * width <= 4_000_000 or rows == 16_384


def test_tables_without_vectors_have_small_row_groups() -> None:
    assert group_rows(coverage_schema()) == group_rows(sources_schema()) == 4_096


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_data_pages_are_small(tmp_path: Path, dtype: Dtype) -> None:
    rows, dimensions = 3_000, 512
    schema = embeddings_schema(dimensions, dtype)
    values = np.random.default_rng(0).normal(0, 30, rows * dimensions).astype(dtype)
    table = pa.table(
        {
            "id": [f"chip-{n}" for n in range(rows)],
            "geometry": [bytes(130)] * rows,
            "embedding": pa.FixedSizeListArray.from_arrays(values, type=schema.field("embedding").type),
            "thumbnail": [bytes(np.random.default_rng(n).integers(0, 256, 3_000, np.uint8)) for n in range(rows)],
        }
    )
    write_table(Store(tmp_path), "t.parquet", table)
    metadata = pq.ParquetFile(tmp_path / "t.parquet").metadata
    with (tmp_path / "t.parquet").open("rb") as file:
        for group in range(metadata.num_row_groups):
            for number in range(metadata.num_columns):
                column = metadata.row_group(group).column(number)
                start = column.dictionary_page_offset if column.has_dictionary_page else column.data_page_offset
                pages = page_headers(file, start, start + column.total_compressed_size)
                assert max(page.uncompressed for page in pages if not page.dictionary) <= 140_000


def test_datasets_reads_pictures_and_lengths() -> None:
    features = hugging_face_features(embeddings_schema(8, "float16", thumbnails=True))
    assert features["thumbnail"] == {"_type": "Image"}
    assert features["embedding"] == {"feature": {"dtype": "float16", "_type": "Value"}, "length": 8, "_type": "List"}
    assert json.loads(json.dumps(features)) == features


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_duckdb_reads_vectors_of_every_dtype(tmp_path: Path, dtype: Dtype) -> None:
    import duckdb

    values = np.arange(-24, 24).astype(dtype)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(values), type=vector_type(8, dtype))
    table = pa.table({"id": [str(n) for n in range(6)], "embedding": vectors})
    write_table(Store(tmp_path), "t.parquet", table)
    found = duckdb.read_parquet(str(tmp_path / "t.parquet")).project("embedding").fetchall()
    np.testing.assert_array_equal(np.array(found).reshape(-1), values)
