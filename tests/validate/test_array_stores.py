"""Stores of embeddings that others made: one group per zone with bands first, attributes on the root alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from range_server import RangeServer

from clay_publish.release.directory import Release
from clay_publish.release.findings import ValidationReport
from clay_publish.validate import validate

Run = Callable[..., Any]
GEOEMB = {
    "zarr_conventions": [{"name": "geoemb:", "uuid": "61c12cc5-0e28-4056-999a-480cf3fb7e4c"}],
    "geoemb:type": "pixel",
    "geoemb:dimensions": 8,
    "geoemb:model": "https://example.org/model/1.0",
    "geoemb:source_data": ["https://example.org/sentinel-1", "https://example.org/sentinel-2"],
    "geoemb:data_type": "int8",
    "geoemb:gsd": 10.0,
    "geoemb:spatial_layout": "utm_zones",
    "geoemb:quantization": {
        "method": "per_pixel_scale",
        "original_dtype": "float32",
        "quantized_dtype": "int8",
        "scale": {"type": "array", "array_name": "scales", "nodata": "+inf"},
    },
}
ZONE = {
    "zarr_conventions": [
        {"name": "proj:", "uuid": "f17cb550-5864-4468-aeb7-f3180cfb622f"},
        {"name": "spatial:", "uuid": "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4"},
    ],
    "proj:code": "EPSG:32630",
    "spatial:dimensions": ["y", "x"],
    "spatial:transform": [10.0, 0.0, 167_130.0, 0.0, -10.0, 6_765_170.0],
    "spatial:shape": [96, 64],
    "spatial:bbox": [167_130.0, 6_764_210.0, 167_770.0, 6_765_170.0],
}


def make_store(where: Path, root: dict[str, Any] = GEOEMB, zone: dict[str, Any] = ZONE) -> Path:
    rng = np.random.default_rng(3)
    top = zarr.open_group(where, mode="w", zarr_format=3, attributes=root)
    group = top.create_group("utm30", attributes=zone)
    options: dict[str, Any] = {"shards": (1, 8, 32, 32), "chunks": (1, 8, 16, 16), "dtype": "int8"}
    dims = ("time", "band", "y", "x")
    values = group.create_array("embeddings", shape=(1, 8, 96, 64), dimension_names=dims, fill_value=0, **options)
    values[0, :, :32] = rng.integers(-127, 128, (8, 32, 64), dtype=np.int8)
    scales = group.create_array(
        "scales", shape=(1, 96, 64), chunks=(1, 32, 32), dtype="float32", dimension_names=("time", "y", "x")
    )
    scales[0, :32] = 0.01
    for name, first, step, size in (("y", 6_765_165.0, -10, 96), ("x", 167_135.0, 10, 64)):
        group.create_array(name, data=first + step * np.arange(size), dimension_names=(name,))
    return where


def found(where: str | Path) -> dict[str, list[str]]:
    report = validate(Release(str(where)))
    assert isinstance(report, ValidationReport)
    codes: dict[str, list[str]] = {}
    for finding in report.findings:
        codes.setdefault(finding.code, []).append(f"{finding.where} {finding.found}")
    return codes


def test_a_sound_store_of_others_has_no_finding(tmp_path: Path, run: Run) -> None:
    made = run("validate", make_store(tmp_path / "store.zarr"), "--json")
    document = json.loads(made.stdout)
    assert {code for code, state in document["checked"].items() if state.startswith("passed")} == {
        *("ARR002", "ARR003", "ARR006"),
    }


WRONG: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "geoemb:chip_layout": ("ARR002", {"geoemb:type": "chip"}, {}),
    "geoemb:model": ("ARR002", {"geoemb:model": None}, {}),
    "geoemb:dimensions": ("ARR002", {"geoemb:dimensions": "8"}, {}),
    "geoemb:quantization": ("ARR002", {"geoemb:quantization": None}, {}),
    "scale.type": (
        "ARR002",
        {"geoemb:quantization": {"method": "linear", "original_dtype": "float32", "scale": {}}},
        {},
    ),
    "factors": (
        "ARR002",
        {
            "geoemb:quantization": {
                "method": "per_pixel_scale",
                "original_dtype": "float32",
                "scale": {"type": "array", "array_name": "factors"},
            }
        },
        {},
    ),
    "proj:": ("ARR002", {}, {"proj:wkt2": "PROJCS"}),
    "spatial:shape": ("ARR002", {}, {"spatial:shape": [64, 96]}),
    "spatial:dimensions": ("ARR002", {}, {"spatial:dimensions": ["Y", "X"]}),
    "int8": ("ARR003", {"geoemb:data_type": "uint8"}, {}),
    "utm30/y": ("ARR003", {}, {"spatial:transform": [10.0, 0.0, 167_130.0, 0.0, -10.0, 6_765_180.0]}),
}


@pytest.mark.parametrize("said", WRONG)
def test_what_is_wrong_in_a_store_is_named(said: str, tmp_path: Path) -> None:
    code, root, zone = WRONG[said]
    store = make_store(tmp_path / "store.zarr", _changed(GEOEMB, root), _changed(ZONE, zone))
    assert any(said in text for text in found(store)[code])


def _changed(before: dict[str, Any], edit: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in {**before, **edit}.items() if value is not None}


def make_old_store(where: Path, root: dict[str, Any] = GEOEMB, zone: dict[str, Any] = ZONE, **options: Any) -> Path:
    """Of Zarr version 2, with dimensions as xarray names them."""
    rng = np.random.default_rng(3)
    group = zarr.open_group(where, mode="w", zarr_format=2, attributes=root).create_group("utm30", attributes=zone)
    made = {"chunks": (1, 8, 32, 32), "dtype": "int8", "fill_value": 0, **options}
    values = group.create_array("embeddings", shape=(1, 8, 96, 64), **made)
    values.attrs["_ARRAY_DIMENSIONS"] = ["time", "band", "y", "x"]
    values[0, :, :32] = rng.integers(-127, 128, (8, 32, 64), dtype=np.int8)
    scales = group.create_array("scales", shape=(1, 96, 64), chunks=(1, 32, 32), dtype="float32")
    scales.attrs["_ARRAY_DIMENSIONS"] = ["time", "y", "x"]
    scales[0, :32] = 0.01
    for name, first, step, size in (("y", 6_765_165.0, -10, 96), ("x", 167_135.0, 10, 64)):
        group.create_array(name, data=first + step * np.arange(size)).attrs["_ARRAY_DIMENSIONS"] = [name]
    return where


@pytest.mark.parametrize("separator", [".", "/"])
def test_a_sound_store_of_version_2_has_no_finding(separator: str, tmp_path: Path) -> None:
    encoding = {"name": "v2", "separator": separator}
    report = validate(Release(str(make_old_store(tmp_path / "store.zarr", chunk_key_encoding=encoding))))
    assert report.findings == []
    passed = {code: state for code, state in report.checked.items() if state.startswith("passed")}
    assert passed.keys() == {"ARR002", "ARR003", "ARR006"}
    assert passed["ARR006"] == "passed"


@pytest.mark.parametrize("said", WRONG)
def test_what_is_wrong_in_a_store_of_version_2_is_named(said: str, tmp_path: Path) -> None:
    code, root, zone = WRONG[said]
    store = make_old_store(tmp_path / "store.zarr", _changed(GEOEMB, root), _changed(ZONE, zone))
    assert any(said in text for text in found(store)[code])


def test_constant_vectors_of_version_2_are_found(tmp_path: Path) -> None:
    store = make_old_store(tmp_path / "store.zarr")
    zarr.open_array(store / "utm30" / "embeddings", mode="r+")[0, :, 5, 5] = 7
    assert "1 vectors" in str(found(store)["ARR006"])


def test_codecs_that_may_run_code_are_not_run(tmp_path: Path) -> None:
    store = make_old_store(tmp_path / "store.zarr")
    path = store / "utm30" / "embeddings" / ".zarray"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"filters": [{"id": "pickle", "protocol": 4}]}))
    report = validate(Release(str(store)))
    assert report.checked["ARR006"] == "not checked: utm30/embeddings has the codec 'pickle', which is not run"


def test_a_store_without_geoemb_is_an_error(tmp_path: Path, run: Run) -> None:
    store = make_store(tmp_path / "store.zarr", {}, {})
    assert "has no geoemb: attributes" in str(found(store)["ARR002"])
    run("validate", store, code=1)


def test_constant_vectors_are_found(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store.zarr")
    zarr.open_array(store / "utm30" / "embeddings", mode="r+")[0, :, 5, 5] = 7
    assert "1 vectors" in str(found(store)["ARR006"])


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_a_store_on_a_web_server_is_read_by_its_consolidated_metadata(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store.zarr", {**GEOEMB, "geoemb:model": ""})
    zarr.consolidate_metadata(store)
    with RangeServer(tmp_path) as server:
        codes = found(f"{server.address}/store.zarr")
    assert codes.keys() == {"ARR002"}


@pytest.mark.parametrize(("edit", "expected"), [({}, set()), ({"geoemb:model": ""}, {"ARR002"})])
def test_so_is_a_store_of_version_2(edit: dict[str, Any], expected: set[str], tmp_path: Path, run: Run) -> None:
    store = make_old_store(tmp_path / "store.zarr", {**GEOEMB, **edit})
    zarr.consolidate_metadata(store, zarr_format=2)
    with RangeServer(tmp_path) as server:
        codes = found(f"{server.address}/store.zarr")
        run("validate", f"{server.address}/store.zarr/.zmetadata", code=1 if expected else 0)
    assert codes.keys() == expected


@pytest.mark.parametrize("make", [make_store, make_old_store])
def test_arrays_that_a_web_server_does_not_list_are_not_passed(make: Callable[..., Path], tmp_path: Path) -> None:
    make(tmp_path / "store.zarr")
    with RangeServer(tmp_path) as server:
        report = validate(Release(f"{server.address}/store.zarr"))
    assert report.findings == []
    assert all(state.startswith("not checked") for state in report.checked.values()), report.checked


def test_metadata_that_claim_too_much_are_not_read(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store.zarr")
    path = store / "utm30" / "embeddings" / "zarr.json"
    document = json.loads(path.read_text())
    document["shape"] = [1, 8, 10**9, 10**9]
    document["chunk_grid"]["configuration"]["chunk_shape"] = [1, 8, 10**6, 10**6]
    document["codecs"][0]["configuration"]["chunk_shape"] = [1, 8, 10**6, 10**6]
    path.write_text(json.dumps(document))
    report = validate(Release(str(store)))
    assert report.checked["ARR006"].startswith("not checked")
    assert any(finding.code == "ARR002" for finding in report.findings)  # spatial:shape
