"""Published layouts of others, rebuilt: useful findings, and no error about what only our releases promise."""

import json
import os
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


LAYOUTS = {clay_v1_5: "LGND's layout", earth_index: "Earth Index embeddings", major_tom: "Major TOM embeddings"}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_good_embeddings_of_others_have_no_finding(layout: Callable[[Path, Vectors], Path], tmp_path: Path) -> None:
    report = validate(Release(str(layout(tmp_path, vectors(64)))))
    assert LAYOUTS[layout] in report.kind
    errors = {f"{f.code} {f.where}: {f.found}" for f in report.at_or_above(Severity.ERROR)}
    assert errors == ({"ANY003 embeddings/part_00000.parquet: geometry: " + _NO_CRS} if layout is major_tom else set())
    for code in ("ANY001", "VEC001", "VEC002", "GEO001", "INT006", "INT007"):
        assert report.checked[code].startswith("passed"), (code, report.checked[code])
    assert {"COV001", "PRV006", "STC001", "INT004", "SCH001", "INT010"}.isdisjoint(report.checked)


_NO_CRS = "has no CRS: the file has no `geo` metadata"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_faults_that_are_faults_anywhere_are_errors(layout: Callable[[Path, Vectors], Path], tmp_path: Path) -> None:
    values = vectors(64)
    values[7, 3], values[9] = np.nan, 0
    report = validate(Release(str(layout(tmp_path, values))))
    found = {f.code: f for f in report.at_or_above(Severity.ERROR)}
    assert {"VEC001", "VEC002"} <= set(found)
    assert not any("clay-publish" in finding.fix or "invalid_vector" in finding.fix for finding in found.values())


CASES = {
    "aef": (1, "tables without embeddings", "ANY001"),
    "clay-363": (1, "Clay v1 or v1.5", "ANY004"),
    "clay-gpq": (0, "Clay v0 embeddings", ""),
    "geo-embeddings": (2, "2 STAC documents that describe embeddings", ""),
    "int8-noscale": (1, "GeoParquet with vectors", "ANY005"),
    "tessera": (1, "tables without embeddings", "ANY001"),
}
"""Exit code, what the input is taken for, and the first error, of published samples of others."""


@pytest.mark.parametrize("case", CASES)
def test_published_samples_say_what_they_are(case: str, run: Callable[..., "CompletedProcess[str]"]) -> None:
    folder = Path(os.environ.get("CLAY_PUBLISH_WILD_DATA", "-")) / "wild" / "cases" / f"foreign-{case}"
    if not folder.is_dir():
        pytest.skip("needs CLAY_PUBLISH_WILD_DATA")
    code, kind, rule = CASES[case]
    lines = run("validate", folder, "--quiet", code=code).stdout.splitlines()
    assert lines[0].startswith(f"{folder}: {kind}")
    assert sum("not checked" in line for line in lines) == 0
    assert [line.split()[1] for line in lines[1:] if line.startswith("error")][-1:] == ([rule] if rule else [])


def test_a_file_alone_is_validated(tmp_path: Path, run: Callable[..., "CompletedProcess[str]"]) -> None:
    file = next(earth_index(tmp_path, vectors(16)).glob("*.parquet"))
    (tmp_path / "other.parquet").write_bytes(b"not mine")
    report = validate(Release(OneFile(str(file))))
    assert report.at_or_above(Severity.ERROR) == []
    assert report.checked["VEC001"] == "passed"
    assert run("validate", file, "--quiet").stdout.startswith(f"{file}: Earth Index embeddings: 1 Parquet file")


@pytest.mark.parametrize("suffix", ["gpq", "geoparquet"])
def test_names_of_parquet_files_may_end_otherwise(
    tmp_path: Path, run: Callable[..., "CompletedProcess[str]"], suffix: str
) -> None:
    file = next(earth_index(tmp_path, vectors(16)).glob("*.parquet"))
    other = file.rename(file.with_suffix(f".{suffix}"))
    for where in (tmp_path, other):
        assert "no findings" in run("validate", where, "--quiet").stdout


def test_the_list_of_all_rules_is_shown_on_request(tmp_path: Path, run: Callable[..., "CompletedProcess[str]"]) -> None:
    folder = earth_index(tmp_path, vectors(16))
    assert "ANY001 passed" in run("validate", folder, "--quiet", "--verbose").stdout
    assert "ANY001" not in run("validate", folder, "--quiet").stdout


def _stac(kind: str, **more: object) -> str:
    return json.dumps({"type": kind, "stac_version": "1.1.0", "id": "others", "description": "", "links": [], **more})


def test_tables_beside_a_collection_or_below_a_catalog_are_validated(tmp_path: Path) -> None:
    """Neither has a place of its own for them, nor is the Catalog one of versions."""
    (tmp_path / "tables").mkdir()
    clay_v1_5(tmp_path / "tables", vectors(16))
    (tmp_path / "collection.json").write_text(_stac("Collection"))
    (tmp_path / "catalog.json").write_text(_stac("Catalog", links=[{"rel": "child", "href": "./collection.json"}]))
    report = validate(Release(str(tmp_path)))
    assert report.kind == "Clay v1 or v1.5 embeddings in LGND's layout: 1 Parquet file"
    assert not report.findings
    assert report.checked["VEC001"].startswith("passed")


@pytest.mark.parametrize(
    ("name", "document", "address"),
    [
        (
            "collection.json",
            _stac("Collection", assets={"data": {"href": "../others/x.parquet"}}),
            "../others/x.parquet",
        ),
        (
            "catalog.json",
            _stac("Catalog", links=[{"rel": "child", "href": "./a/collection.json"}]),
            "./a/collection.json",
        ),
    ],
)
def test_documents_whose_tables_are_elsewhere_are_not_checked(
    name: str, document: str, address: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(document)
    report = validate(Release(str(tmp_path)))
    assert report.kind == "1 STAC document without embeddings"
    assert not report.findings
    assert address in report.checked["ANY001"]
    assert report.checked["ANY001"].startswith("not checked")


def test_arrays_below_a_directory_are_named(tmp_path: Path) -> None:
    store = tmp_path / "arrays.zarr"
    store.mkdir()
    attributes = {"geoemb:type": "chip", "geoemb:dimensions": 16}
    (store / "zarr.json").write_text(json.dumps({"zarr_format": 3, "node_type": "group", "attributes": attributes}))
    report = validate(Release(str(tmp_path)))
    assert report.kind == "Zarr arrays of embeddings"
    assert report.checked["ANY001"] == (
        "not checked: the embeddings are arrays in arrays.zarr, which has to be validated by itself"
    )
