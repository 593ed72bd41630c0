"""Good releases of places where coordinates are unusual, and of very few chips: no finding."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
import yaml
from placed import SENSOR, placed_item
from pyproj import Transformer

from clay_publish.cli.rendering import render_documents
from clay_publish.release.directory import Release
from clay_publish.validate.checks import check_release

from .conftest import complete

_PLACES: dict[str, tuple[str, int, int, int | tuple[int, int]]] = {
    "south": ("EPSG:32733", 500_000, 6_200_000, 512),
    "antimeridian": ("EPSG:32601", 333_000, 6_655_000, 512),
    "southern antimeridian": ("EPSG:32760", 832_500, 9_000_000, 512),
    "north pole": ("EPSG:32661", 2_000_000, 2_000_000, 512),
    "north pole inside of a chip": ("EPSG:3413", 100, -200, 512),
    "south pole": ("EPSG:3031", 0, 0, 512),
    "south pole on an edge": ("EPSG:32761", 2_000_000, 2_000_300, 512),
    "beside the south pole": ("EPSG:3031", 40_000, -90_000, 512),
    "one row": ("EPSG:32733", 500_000, 6_200_000, (64, 512)),
    "one chip": ("EPSG:32733", 500_160, 6_200_000, 100),
}
"""CRS, center, and rows and columns of pixels."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "layout"),
    [(place, layout) for place in _PLACES for layout in ("scene", "utm") if layout == "scene" or "pole" not in place],
)
def test_unusual_places_have_no_finding(place: str, layout: str, tmp_path: Path) -> None:
    item = placed_item(tmp_path, *_PLACES[place])
    spec: dict[str, Any] = {
        "name": "place",
        "version": "1.0.0",
        "imagery": {"stac": str(item), "sensor": SENSOR},
        "chips": {"layout": layout, "size": 64, **({"max_nodata": 1} if layout == "utm" else {})},
        "outputs": {"aggregate": [2], "thumbnails": 32, "codes": True, "explorer": "pole" in place},
    }
    file = tmp_path / "place.yaml"
    file.write_text(yaml.safe_dump(spec))
    made = complete(file, tmp_path / "1.0.0")
    report = check_release(Release(str(made)), sample=64, render=render_documents)
    found = [(finding.code, finding.where, finding.found) for finding in report.findings]
    assert not found, found
    if layout == "scene" and not isinstance(_PLACES[place][3], tuple):
        _compare_ground(made, *_PLACES[place])


def _compare_ground(made: Path, crs: str, x: float, y: float, size: int) -> None:
    """Footprints and Items hold the ground of the pixels, by the projection alone."""
    paths = [made / path for path in Release(str(made)).data_files()]
    table = pa.concat_tables([pq.read_table(path, partitioning=None) for path in paths])
    outlines = shapely.from_wkb(table["geometry"].to_pylist())
    items = shapely.from_wkb(pq.read_table(made / "items.parquet")["geometry"].to_pylist())
    assert shapely.is_valid(np.concatenate([outlines, items])).all()
    away = np.random.default_rng(1).uniform(-0.5, 0.5, (2_000, 2)) * [10 * size] * 2
    pole = Transformer.from_crs("OGC:CRS84", crs, always_xy=True).transform(0, np.copysign(90, table["lat"][0].as_py()))
    near = np.random.default_rng(2).normal(0, 20, (500, 2)) + pole - [x, y]
    points = np.concatenate([away, near[np.abs(near).max(axis=1) < 5 * size]])
    lon, lat = Transformer.from_crs(crs, "OGC:CRS84", always_xy=True).transform(points[:, 0] + x, points[:, 1] + y)
    cells = (points * [1, -1] + 5 * size) / 640
    border = np.abs(cells - np.rint(cells)).min(axis=1) * 640
    chips = {
        (row, col): n for n, (row, col) in enumerate(zip(*(table[c].to_pylist() for c in ("row", "col")), strict=True))
    }
    for place in np.flatnonzero(border > 0.1):
        col, row = np.floor(cells[place]).astype(int).tolist()
        holds = np.flatnonzero(shapely.intersects_xy(outlines, lon[place], lat[place]))
        assert holds.tolist() == ([chips[row, col]] if (row, col) in chips else [])
        if holds.size and border[place] > 2:
            assert shapely.intersects_xy(items, lon[place], lat[place]).sum() == 1
