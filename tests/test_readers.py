"""A release opens, unchanged, in what people already use; and what it says about the ground is true."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyproj
import pytest
import shapely
import yaml
from torchgeo_wheel import torchgeo_environment

from clay_publish.release.directory import Release

Run = Callable[..., subprocess.CompletedProcess[str]]
CHIPS, DIMENSIONS = 121, 512


@pytest.fixture(scope="module")
def scene_release(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """The sample cut on the image's own pixels; beside it, the image."""
    folder = tmp_path_factory.mktemp("scene")
    run("sample", folder / "s")
    spec = folder / "s" / "release.yaml"
    document = yaml.safe_load(spec.read_text())
    spec.write_text(yaml.safe_dump({**document, "chips": {"layout": "scene", "size": 100}}))
    run("produce", spec, "--out", folder / "release")
    return folder


def rows(where: Path) -> pa.Table:
    return ds.dataset(where / "embeddings", partitioning="hive").to_table()


def test_pyarrow(sample_release: Path) -> None:
    table = rows(sample_release)
    assert table.num_rows == CHIPS
    assert table.schema.field("embedding").type.list_size == DIMENSIONS
    assert set(table["zone"].to_pylist()) == {18}


_TORCHGEO = """
import inspect, json, sys
from torchgeo.datasets import ClayEmbeddings

chips = ClayEmbeddings(sys.argv[1])
samples = [{name: value.tolist() for name, value in chips[n].items()} for n in range(len(chips))]
json.dump([inspect.getfile(ClayEmbeddings), samples], sys.stdout)
"""


def test_torchgeo(sample_release: Path) -> None:
    """The class of TorchGeo itself; where TorchGeo cannot be installed, `geo` and `utils` of it are stubs."""
    done = subprocess.run(
        [sys.executable, "-W", "error::ImportWarning", "-c", _TORCHGEO, sample_release / "embeddings"],
        env={**os.environ, **torchgeo_environment()},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    file, samples = json.loads(done.stdout)
    assert file.endswith("torchgeo/datasets/clay.py")
    assert "standins" not in file
    assert len(samples) == CHIPS
    table = rows(sample_release).to_pylist()
    for sample, chip in zip(samples, table, strict=True):
        assert sample["embedding"] == chip["embedding"]
        assert (sample["x"], sample["y"]) == pytest.approx((chip["lon"], chip["lat"]), abs=1e-5)
        assert sample["t"] == pytest.approx(chip["datetime"].timestamp(), abs=64)  # TorchGeo rounds to float32


def test_geopandas(sample_release: Path) -> None:
    import geopandas

    frame = geopandas.read_parquet(sample_release / "embeddings")
    assert len(frame) == CHIPS
    assert frame.crs.to_string() == "OGC:CRS84"
    assert frame.geometry.is_valid.all()
    assert np.stack(frame["embedding"]).shape == (CHIPS, DIMENSIONS)
    assert str(frame["datetime"].dtype).startswith("datetime64")
    box = (-75.62, 37.68, -75.60, 37.70)
    near = geopandas.read_parquet(sample_release / "embeddings", bbox=box)
    assert 0 < len(near) < CHIPS
    assert near.geometry.intersects(shapely.box(*box)).all()


def test_duckdb(sample_release: Path) -> None:
    import duckdb

    files = f"'{sample_release}/embeddings/**/*.parquet'"
    with duckdb.connect() as connection:
        nearest = connection.sql(
            f"""WITH one AS (SELECT embedding::FLOAT[{DIMENSIONS}] AS e, id AS mine FROM {files} ORDER BY id LIMIT 1)
            SELECT id, mine, zone FROM {files}, one
            ORDER BY array_cosine_distance(embedding::FLOAT[{DIMENSIONS}], e) LIMIT 3"""  # noqa: S608
        ).fetchall()
    assert nearest[0][0] == nearest[0][1]
    assert {int(zone) for *_, zone in nearest} == {18}


def test_datasets(sample_release: Path, tmp_path: Path) -> None:
    import datasets

    loaded = datasets.load_dataset(str(sample_release), split="train", cache_dir=str(tmp_path))
    assert loaded.num_rows == CHIPS
    assert loaded.features["embedding"] == datasets.List(datasets.Value("float32"), length=DIMENSIONS)
    table = rows(sample_release).sort_by("id")
    assert sorted(loaded["id"]) == table["id"].to_pylist()


def corners(transform: Any, row: int, col: int, size: int) -> shapely.Polygon:
    xs = [transform.c + n * size * transform.a for n in (col, col + 1)]
    ys = [transform.f + n * size * transform.e for n in (row, row + 1)]
    return shapely.box(xs[0], ys[1], xs[1], ys[0])


def to_utm(geometry: shapely.Geometry, epsg: int) -> shapely.Geometry:
    project = pyproj.Transformer.from_crs("OGC:CRS84", epsg, always_xy=True).transform
    return shapely.transform(geometry, project, interleaved=False)


def test_every_footprint_is_where_the_image_says_its_pixels_are(scene_release: Path) -> None:
    import rasterio

    with rasterio.open(scene_release / "s" / "imagery" / "B02.tif") as image:
        transform, epsg = image.transform, image.crs.to_epsg()
    table = rows(scene_release / "release").to_pylist()
    assert len(table) == (768 // 100) ** 2
    for chip in table:
        expected = corners(transform, chip["row"], chip["col"], 100)
        found = to_utm(shapely.from_wkb(chip["geometry"]), epsg)
        assert shapely.hausdorff_distance(found, expected, densify=0.05) < 0.1
        middle = to_utm(shapely.Point(chip["lon"], chip["lat"]), epsg)
        assert middle.distance(expected.centroid) < 0.1


def test_every_footprint_of_the_grid_is_the_cell_its_numbers_name(sample_release: Path) -> None:
    side = 640
    for chip in rows(sample_release).to_pylist():
        expected = shapely.box(*(side * n for n in (chip["col"], chip["row"], chip["col"] + 1, chip["row"] + 1)))
        found = to_utm(shapely.from_wkb(chip["geometry"]), chip["epsg"])
        assert shapely.hausdorff_distance(found, expected, densify=0.05) < 0.1


def test_the_same_spec_gives_the_same_bytes(sample_release: Path, tmp_path: Path, run: Run) -> None:
    run("sample", tmp_path / "s")
    run("produce", tmp_path / "s" / "release.yaml", "--out", tmp_path / "again", env={"OMP_NUM_THREADS": "2"})
    first, second = Release(str(sample_release)), Release(str(tmp_path / "again"))
    same = [*first.data_files(), *first.data_files("coverage"), "gaps.geojson", "release.yaml"]
    assert second.data_files() == first.data_files()
    assert [p for p in same if first.store.read(p) != second.store.read(p)] == []


@pytest.mark.parametrize(
    ("item", "expected"),
    [("s2_l1c_T18SVG_20160112/item.json", 16), ("s2_l2a_mini_29RKH_20200219/item.json", None)],
)
@pytest.mark.slow
def test_real_items_need_a_spec_of_under_ten_lines(
    shared_data: Path, tmp_path: Path, run: Run, item: str, expected: int | None
) -> None:
    _release_of(shared_data / item, expected, tmp_path, run)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("item", "expected"),
    [("s2_l1c_T18SVG_20160112/item.json", 64), ("s2_l2a_mini_29RKH_20200219/item.json", None)],
)
def test_so_do_the_uncropped_scenes(
    larger_data: Path, tmp_path: Path, run: Run, item: str, expected: int | None
) -> None:
    _release_of(larger_data / item, expected, tmp_path, run)


def _release_of(item: Path, expected: int | None, folder: Path, run: Run) -> None:
    level = "l2a" if "l2a" in str(item) else "l1c"
    lines = ["name: real", "imagery:", f"  stac: {item}", f"  sensor: sentinel-2-{level}"]
    lines += ["chips:", "  layout: scene", f"  size: {128 if expected else 64}"]
    (folder / "release.yaml").write_text("\n".join(lines))
    made = run("run", cwd=folder)
    assert made.stdout.rstrip().endswith("valid")
    table = rows(folder / "real" / "1.0.0")
    assert table.num_rows == (expected or table.num_rows) > 0
