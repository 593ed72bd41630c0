"""Many small real images: cut from one of NAIP, each a COG of its own, and dealt out to five days."""

import json
from pathlib import Path
from typing import Any

import rasterio
import yaml
from affine import Affine
from rasterio.warp import transform_bounds
from rasterio.windows import Window

SIDE = 20
"""Pixels of an image."""
CHIPS = 4
"""Of an image, of 10 pixels."""
DAYS = 5
"""Each becomes a published file."""


def many(folder: Path, source: Path, count: int) -> Path:
    """Write the images, their items, and a spec of them."""
    folder.mkdir(parents=True)
    item = json.loads((source / "va_m_3607717_sw_18_1_20160620_crop.json").read_text())
    (asset,) = (asset for asset in item["assets"].values() if asset["href"].endswith(".tif"))
    with rasterio.open(source / asset["href"]) as file:
        items = [_item(folder, item, asset, file, n) for n in range(count)]
    (folder / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    document = {
        "name": "many",
        "imagery": {"stac": "items.json", "sensor": "naip"},
        "chips": {"layout": "scene", "size": SIDE // 2},
    }
    (folder / "release.yaml").write_text(yaml.safe_dump(document))
    return folder / "release.yaml"


def _item(folder: Path, item: dict[str, Any], asset: dict[str, Any], file: Any, number: int) -> dict[str, Any]:
    row, column = divmod(number, file.width // SIDE)
    window = Window(column * SIDE, row * SIDE, SIDE, SIDE)
    metre, left, top = file.transform.a, file.transform.c, file.transform.f
    west, north, side = left + window.col_off * metre, top - window.row_off * metre, SIDE * metre
    transform, name = Affine(metre, 0, west, 0, -metre, north), f"part-{number:03d}"
    profile = {"width": SIDE, "height": SIDE, "count": file.count, "dtype": file.dtypes[0], "crs": file.crs}
    with rasterio.open(
        folder / f"{name}.tif", "w", driver="COG", compress="deflate", transform=transform, **profile
    ) as cut:
        cut.write(file.read(window=window))
    west, south, east, north = transform_bounds(file.crs, "OGC:CRS84", west, north - side, west + side, north)
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return item | {
        "id": name,
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [west, south, east, north],
        "properties": {"datetime": f"2016-06-{20 + number % DAYS}T00:00:00Z", "gsd": 1.0},
        "assets": {"image": asset | {"href": f"{name}.tif"}},
    }
