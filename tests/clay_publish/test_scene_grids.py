"""Grids of images found again for the chips of a scene release."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clay_publish.release.directory import SOURCES, Release
from clay_publish.release.names import NameIndex
from clay_publish.release.scene_grids import SceneGrids

NORTH = [10.0, 0.0, 500_000.0, 0.0, -10.0, 4_000_000.0]
SOUTH = [20.0, 1.0, 300_000.0, 2.0, -20.0, 8_000_000.0]


@pytest.fixture
def grids(tmp_path: Path) -> SceneGrids:
    images = [
        {"id": "a", "status": "used", "proj_code": "EPSG:32618", "proj_transform": NORTH},
        {"id": "b", "status": "unused", "proj_code": "EPSG:4326", "proj_transform": [0.0] * 6},
        {"id": "b", "status": "used", "proj_code": "EPSG:32719", "proj_transform": SOUTH},
        {"id": "unused", "status": "unused", "proj_code": None, "proj_transform": None},
        {"id": "c", "status": "used", "proj_code": "EPSG:32618", "proj_transform": [1.0, 0.0, 7.0, 0.0, -1.0, 9.0]},
    ]
    pq.write_table(pa.Table.from_pylist(images), tmp_path / SOURCES, row_group_size=2)
    return SceneGrids(Release(str(tmp_path)))


def test_points_of_chips_in_the_systems_of_their_images(grids: SceneGrids) -> None:
    items = [["b"], ["a", "b"], [], ["unused"], None, ["elsewhere"], ["c"]]
    rows = pa.table({"item_ids": pa.array(items, pa.list_(pa.string()))})
    u = np.stack([np.arange(7.0), np.arange(7.0) + 10], axis=1)
    found = {crs: (mine.tolist(), x.tolist(), y.tolist()) for crs, mine, x, y in grids.points(rows, u, u + 1)}
    assert found == {
        "EPSG:32719": ([0], [[300_001.0, 300_211.0]], [[7_999_980.0, 7_999_800.0]]),
        "EPSG:32618": (
            [1, 6],
            [[500_010.0, 500_110.0], [13.0, 23.0]],
            [[3_999_980.0, 3_999_880.0], [2.0, -8.0]],
        ),
    }


def test_a_slice_of_chips(grids: SceneGrids) -> None:
    rows = pa.record_batch({"item_ids": pa.array([["a"], [], ["c"], ["b"]], pa.list_(pa.string()))}).slice(2, 2)
    found = {crs: (mine.tolist(), x.tolist()) for crs, mine, x, _ in grids.points(rows, np.ones(2), np.ones(2))}
    assert found == {"EPSG:32618": ([0], [8.0]), "EPSG:32719": ([1], [300_021.0])}


def test_no_images_at_all(tmp_path: Path) -> None:
    columns = {
        "id": pa.string(),
        "status": pa.string(),
        "proj_code": pa.string(),
        "proj_transform": pa.list_(pa.float64()),
    }
    pq.write_table(pa.schema(columns).empty_table(), tmp_path / SOURCES)
    rows = pa.table({"item_ids": pa.array([["a"]], pa.list_(pa.string()))})
    assert not list(SceneGrids(Release(str(tmp_path))).points(rows, np.ones(1), np.ones(1)))


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_names_of_any_length_are_found(kind: pa.DataType) -> None:
    names = ["", "a", "a" * 7, "a" * 8, "a" * 9, "é", "a"]
    asked = pa.array(["a" * 9, "a", None, "", "é", "aa", "a"])
    assert NameIndex(pa.array(names, kind)).find(asked).tolist() == [4, 1, -1, 0, 5, -1, 1]
