"""Good releases of places where coordinates are unusual, and of very few chips: no finding."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
import yaml
from affine import Affine
from breakage import IMAGERY

from clay_publish.cli.rendering import render_documents
from clay_publish.geo.footprints import footprints
from clay_publish.release.directory import Release
from clay_publish.spec.sensors import sensor
from clay_publish.validate.checks import check_release

from .conftest import complete

_SENSOR = "sentinel-2-l1c"
_PLACES: dict[str, tuple[str, int, int, int | tuple[int, int]]] = {
    "south": ("EPSG:32733", 500_000, 6_200_000, 512),
    "antimeridian": ("EPSG:32601", 333_000, 6_655_000, 512),
    "southern antimeridian": ("EPSG:32760", 832_500, 9_000_000, 512),
    "one chip": ("EPSG:32633", 500_320, 5_000_320, 64),
    "one row": ("EPSG:32633", 500_320, 5_000_320, (64, 512)),
}
"""CRS, center, and rows and columns of pixels."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "layout"),
    [
        (place, layout)
        for place in _PLACES
        for layout in ("scene", "utm")
        if not place.startswith("one") or layout == "scene"
    ],
)
def test_unusual_places_have_no_finding(place: str, layout: str, tmp_path: Path) -> None:
    item = _item(tmp_path, *_PLACES[place])
    spec: dict[str, Any] = {
        "name": "place",
        "version": "1.0.0",
        "imagery": {"stac": str(item), "sensor": _SENSOR},
        "chips": {"layout": layout, "size": 64, **({"max_nodata": 1} if layout == "utm" else {})},
        "outputs": {"aggregate": [2], "thumbnails": 32, "codes": True, "explorer": False},
    }
    file = tmp_path / "place.yaml"
    file.write_text(yaml.safe_dump(spec))
    report = check_release(Release(str(complete(file, tmp_path / "1.0.0"))), sample=64, render=render_documents)
    found = [(finding.code, finding.where, finding.found) for finding in report.findings]
    assert not found, found


def _item(folder: Path, crs: str, x: float, y: float, size: int | tuple[int, int]) -> Path:
    """The pixels of the sample put down elsewhere."""
    height, width = (size, size) if isinstance(size, int) else size
    assets = json.loads((IMAGERY / "item.json").read_text())["assets"]
    transform = Affine(10, 0, x - 5 * width, 0, -10, y + 5 * height)
    made = {}
    for band in sensor(_SENSOR).bands:
        with rasterio.open(IMAGERY / assets[band.name]["href"]) as source:
            values = source.read(1, out_shape=(512, 512))[:height, :width]
        with rasterio.open(
            folder / f"{band.name}.tif", "w", driver="GTiff", count=1, height=height, width=width,
            dtype=values.dtype, crs=crs, transform=transform, nodata=0, compress="deflate",
        ) as target:  # fmt: skip
            target.write(values, 1)
        made[band.name] = {**assets[band.name], "href": f"{band.name}.tif"}
    corners = np.array([[(0, height), (width, height), (width, 0), (0, 0)]], dtype=float)
    (outline,) = footprints(crs, corners * [10, -10] + [transform.c, transform.f])
    item = json.loads((IMAGERY / "item.json").read_text())
    item |= {"assets": made, "geometry": json.loads(shapely.to_geojson(outline)), "bbox": list(outline.bounds)}
    item["properties"] = {
        key: value for key, value in item["properties"].items() if not key.startswith(("proj:", "grid:", "mgrs:"))
    }
    (folder / "item.json").write_text(json.dumps(item))
    return folder / "item.json"
