"""Published layouts of others, rebuilt: useful findings, and no error about what only our releases promise."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from subprocess import CompletedProcess

import geopandas
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from clay_publish.release.directory import Release
from clay_publish.release.findings import Severity
from clay_publish.storage.store import OneFile
from clay_publish.validate import validate

Vectors = npt.NDArray[np.float32]
ROWS = 60


def vectors(dimensions: int) -> Vectors:
    return np.random.default_rng(3).standard_normal((ROWS, dimensions), dtype=np.float32)


def shapes() -> npt.NDArray[np.object_]:
    west = np.arange(ROWS) % 10 * 0.01
    south = np.arange(ROWS) // 10 * 0.01
    return np.asarray(shapely.box(west, south, west + 0.01, south + 0.01), dtype=object)


def clay_v1_5(folder: Path, values: Vectors) -> Path:
    """`embedding, geometry`, written by geopandas, all parts in one folder."""
    frame = geopandas.GeoDataFrame({"embedding": list(values)}, geometry=list(shapes()), crs="EPSG:4326")
    frame.to_parquet(folder / "S2_31UFT_part0.parquet")
    return folder


def earth_index(folder: Path, values: Vectors) -> Path:
    """`id, embedding, geometry`, with the community's `emb` in the footer."""
    frame = geopandas.GeoDataFrame(
        {"id": [f"31UFT_{n}" for n in range(ROWS)], "embedding": list(values)}, geometry=list(shapes()), crs="EPSG:4326"
    )
    frame.to_parquet(folder / "31UFT_2024.parquet")
    table = pq.read_table(folder / "31UFT_2024.parquet")
    emb = {"emb:type": "chip", "emb:dimensions": values.shape[1], "data_type": "float32", "gsd": 10}
    metadata = {**table.schema.metadata, b"emb": json.dumps({"stac_version": "1.0.0", "properties": emb}).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), folder / "31UFT_2024.parquet")
    return folder


def major_tom(folder: Path, values: Vectors) -> Path:
    """Columns of the Major TOM embedding expansion, vectors as lists of any length."""
    outlines = shapes()
    moment = datetime(2024, 6, 1, tzinfo=UTC)
    table = pa.table(
        {
            "unique_id": [f"u{n}" for n in range(ROWS)],
            "embedding": pa.array([list(map(float, v)) for v in values], pa.list_(pa.float32())),
            "timestamp": pa.array([moment] * ROWS, pa.timestamp("us")),
            "product_id": ["S2A_MSIL2A_20240601"] * ROWS,
            "grid_cell": [f"1U_{n}R" for n in range(ROWS)],
            "grid_row_u": pa.array(range(ROWS), pa.int16()),
            "grid_col_r": pa.array(range(ROWS), pa.int16()),
            "geometry": shapely.to_wkb(outlines).tolist(),
            "centre_lat": shapely.centroid(outlines[0]).y + np.zeros(ROWS),
            "centre_lon": shapely.centroid(outlines[0]).x + np.zeros(ROWS),
            "utm_footprint": ["POLYGON EMPTY"] * ROWS,
            "utm_crs": ["EPSG:32631"] * ROWS,
            "pixel_bbox": pa.array([[0, 0, 224, 224]] * ROWS, pa.list_(pa.int32())),
        }
    )
    (folder / "embeddings").mkdir()
    pq.write_table(table, folder / "embeddings" / "part_00000.parquet")
    return folder


LAYOUTS = [clay_v1_5, earth_index, major_tom]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_good_one_has_no_error(layout: Callable[[Path, Vectors], Path], tmp_path: Path) -> None:
    report = validate(Release(str(layout(tmp_path, vectors(64)))))
    errors = {f"{f.code} {f.where}: {f.found}" for f in report.at_or_above(Severity.ERROR)}
    assert not errors
    assert {f.code for f in report.findings} & {"SCH001", "SCH013", "INT010"}
    for code in ("VEC001", "VEC002", "GEO001", "INT006", "INT007"):
        assert report.checked[code].startswith("passed"), (code, report.checked[code])
    for code in ("COV001", "PRV006", "STC001", "INT004"):
        assert report.checked[code].startswith("not checked"), code


@pytest.mark.parametrize("layout", LAYOUTS)
def test_faults_that_are_faults_anywhere_are_errors(layout: Callable[[Path, Vectors], Path], tmp_path: Path) -> None:
    values = vectors(64)
    values[7, 3], values[9] = np.nan, 0
    report = validate(Release(str(layout(tmp_path, values))))
    assert {"VEC001", "VEC002"} <= {f.code for f in report.at_or_above(Severity.ERROR)}


def test_a_file_alone_is_judged(tmp_path: Path, run: Callable[..., "CompletedProcess[str]"]) -> None:
    file = next(earth_index(tmp_path, vectors(16)).glob("*.parquet"))
    (tmp_path / "other.parquet").write_bytes(b"not mine")
    report = validate(Release(OneFile(str(file))))
    assert report.at_or_above(Severity.ERROR) == []
    assert report.checked["VEC001"] == "passed"
    assert "0 errors" not in run("validate", file, "--quiet").stdout
