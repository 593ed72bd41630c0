"""Published layouts of others, rebuilt: useful findings, and no error about what only our releases promise."""

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
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
from clay_publish.validate.checks import check_release
from clay_publish.validate.data import inputs

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
    for code in ("ANY001", "VEC001", "VEC002", "ANY007", "INT006", "INT007"):
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
            "/others/x.parquet",
        ),
        (
            "catalog.json",
            _stac("Catalog", links=[{"rel": "child", "href": "../a/collection.json"}]),
            "/a/collection.json",
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
    assert report.checked["ANY001"] == f"not checked: the embeddings are Zarr arrays: run `validate` on {store}"


def _table(vectors_: pa.Array | None, **more: object) -> pa.Table:
    """GeoParquet with the footprints of `shapes`, in longitude and latitude."""
    columns = {} if vectors_ is None else {"embedding": vectors_}
    geo = {"version": "1.1.0", "primary_column": "geometry"}
    geo["columns"] = {"geometry": {"encoding": "WKB", "geometry_types": ["Polygon"]}}
    table = pa.table({**columns, **more, "geometry": shapely.to_wkb(shapes()).tolist()})
    return table.replace_schema_metadata({"geo": json.dumps(geo)})


def _lists(kind: pa.DataType, values: Vectors) -> pa.Array:
    return pa.array([[Decimal(f"{x:.3f}") for x in row] for row in values.tolist()], pa.list_(kind))


def per_value(values: Vectors) -> pa.Table:
    return _table(None, **{f"A{n:02}": values[:, n] for n in range(values.shape[1])})


def in_a_struct(values: Vectors) -> pa.Table:
    rows = [{"model": "clay", "vector": row} for row in values.tolist()]
    return _table(pa.array(rows, pa.struct([("model", pa.string()), ("vector", pa.list_(pa.float32()))])))


def decimals(values: Vectors) -> pa.Table:
    return _table(_lists(pa.decimal128(10, 3), values))


def tensors(values: Vectors) -> pa.Table:
    return _table(pa.FixedShapeTensorArray.from_numpy_ndarray(values))


def list_views(values: Vectors) -> pa.Table:
    return _table(pa.array(values.tolist(), pa.list_view(pa.float32())))


def without_a_known_name(values: Vectors) -> pa.Table:
    means = pa.array([[0.5] * 9] * ROWS, pa.list_(pa.float32(), 9))
    return _table(None, x=pa.array(values.tolist(), pa.list_(pa.float32())), band_means=means)


FORMS = [per_value, in_a_struct, decimals, tensors, list_views, without_a_known_name]


@pytest.mark.parametrize("form", FORMS)
def test_vectors_are_found_in_every_form(form: Callable[[Vectors], pa.Table], tmp_path: Path) -> None:
    values = vectors(16)
    pq.write_table(form(values), tmp_path / "a.parquet")
    assert not validate(Release(str(tmp_path))).findings
    values[9] = 0
    pq.write_table(form(values), tmp_path / "a.parquet")
    (found,) = validate(Release(str(tmp_path))).findings
    assert (found.code, found.where) == ("VEC002", "a.parquet: row 9")


@pytest.mark.parametrize("encoding", ["WKB", "geoarrow"])
@pytest.mark.parametrize("crs", [4326, 32631, 3857])
@pytest.mark.parametrize("of", ["Polygon", "MultiPolygon", "Point"])
def test_footprints_are_read_in_their_crs_and_encoding(crs: int, encoding: str, of: str, tmp_path: Path) -> None:
    made = {"Polygon": shapes(), "Point": shapely.centroid(shapes())}
    made["MultiPolygon"] = [shapely.MultiPolygon([shape]) for shape in shapes()]
    frame = geopandas.GeoDataFrame({"embedding": list(vectors(16))}, geometry=list(made[of]), crs=4326).to_crs(crs)
    frame.to_parquet(tmp_path / "a.parquet", geometry_encoding=encoding)
    report = validate(Release(str(tmp_path)))
    assert not report.findings
    assert report.measures is not None
    assert report.measures.ground is not None
    assert np.allclose(report.measures.ground.bbox, [0, 0, 0.1, 0.06], atol=0.01)


def test_rows_that_repeat_a_place_at_another_time_are_good(tmp_path: Path) -> None:
    twice = [*shapely.to_wkb(shapes())[: ROWS // 2]] * 2
    for name, values in {"acquired_on": ["2020", "2021"], "model": ["a", "b"]}.items():
        halves = [value for value in values for _ in range(ROWS // 2)]
        tiles = [f"t{n % (ROWS // 2)}" for n in range(ROWS)]
        table = _table(pa.array(vectors(16).tolist()), tile_id=tiles, **{name: halves})
        place = table.schema.get_field_index("geometry")
        pq.write_table(table.set_column(place, "geometry", pa.array(twice)), tmp_path / "a.parquet")
        assert not validate(Release(str(tmp_path))).findings


def test_what_lies_beside_tables_is_not_taken_for_them(tmp_path: Path) -> None:
    pq.write_table(_table(pa.array(vectors(16).tolist())), tmp_path / "A.PARQUET")
    pq.write_table(pa.table({"city": ["x"], "lat": [1.0]}), tmp_path / "cities.parquet")
    (tmp_path / "._A.PARQUET").write_bytes(b"\0\5\x16\7")
    (tmp_path / "notes.csv").write_text("a,b\n")
    report = validate(Release(str(tmp_path)))
    assert report.kind.endswith("1 Parquet file; 1 other table not looked at")
    assert not report.findings


@pytest.mark.parametrize("name", ["a", "a.parq", "a.data"])
def test_a_file_alone_may_be_called_anything(
    name: str, tmp_path: Path, run: Callable[..., "CompletedProcess[str]"]
) -> None:
    pq.write_table(_table(pa.array(vectors(16).tolist())), tmp_path / name)
    assert "no findings" in run("validate", tmp_path / name, "--quiet").stdout


OTHER_FORMATS = {
    "a.npz": (b"PK\3\4", 1, "files of other formats (1 .npz)"),
    "a.csv": (b"id,lat\n", 1, "files of other formats (1 .csv)"),
    "a.parquet": (b"\x1f\x8b\x08", 1, "is not a Parquet file, but compressed with gzip"),
    "b.parquet": (b"version https://git-lfs.github.com/spec/v1\n", 1, "a pointer of Git LFS"),
    "c.parquet": (b"PAR1 and no end", 1, "it was not copied whole"),
}


@pytest.mark.parametrize("name", OTHER_FORMATS)
def test_files_of_other_formats_are_named(
    name: str, tmp_path: Path, run: Callable[..., "CompletedProcess[str]"]
) -> None:
    data, code, text = OTHER_FORMATS[name]
    (tmp_path / name).write_bytes(data)
    assert text in run("validate", tmp_path / name, "--quiet", code=code).stdout
    assert "does not exist" in run("validate", tmp_path / "missing.parquet", "--quiet", code=2).stderr


def test_a_column_called_like_vectors_says_its_type(tmp_path: Path) -> None:
    pq.write_table(_table(pa.array([row.tobytes() for row in vectors(16)])), tmp_path / "a.parquet")
    (found,) = validate(Release(str(tmp_path))).findings
    assert found.found == "holds no embeddings: `embedding` is of type binary, which is not a list of numbers"


def test_places_without_footprints_are_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"vector": vectors(16).tolist(), "h3": ["8a1f"] * ROWS}), tmp_path / "a.parquet")
    (found,) = validate(Release(str(tmp_path))).findings
    assert (found.code, found.found) == ("ANY003", "has no column of footprints, and places only as `h3`")


def test_documents_that_cannot_be_read_are_not_called_valid(tmp_path: Path) -> None:
    folder = earth_index(tmp_path, vectors(64))
    checked = validate(Release(str(folder)), only=("ANY006", "ANY008")).checked
    assert checked == {"ANY006": "passed", "ANY008": "passed"}
    (folder / "collection.json").write_text('{"stac_version": "1.1.0", "emb:dimensions": 64, ')
    checked = validate(Release(str(folder)), only=("ANY006", "ANY008")).checked
    assert all(state.startswith("not checked: collection.json") for state in checked.values()), checked


def test_only_some_of_many_documents_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = earth_index(tmp_path, vectors(64))
    for number in range(5):
        (folder / f"{number}.json").write_text(json.dumps({"stac_version": "1.1.0", "type": "Catalog", "links": []}))
    monkeypatch.setattr(inputs, "_DOCUMENTS", 3)
    report = check_release(Release(str(folder)), only=("ANY006",), sample=64)
    assert report.checked["ANY006"] == "passed on 3 of 5 documents"


def test_links_of_a_document_alone_are_not_checked(tmp_path: Path) -> None:
    document = {"stac_version": "1.1.0", "type": "Catalog", "links": [{"rel": "child", "href": "./a/collection.json"}]}
    (tmp_path / "catalog.json").write_text(json.dumps(document))
    report = validate(Release(OneFile(str(tmp_path / "catalog.json"))), only=("ANY008",))
    assert report.checked["ANY008"] == "not checked: one file is looked at"
