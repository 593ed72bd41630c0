"""Real pixels of the bundled sample, put down where two UTM zones and the equator meet."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import yaml
from affine import Affine
from pyproj import Transformer
from rasterio.windows import Window

IMAGERY = Path(str(files("clay_publish") / "sample" / "imagery"))
SIDE = 384
"""Pixels of an image of 10 m, around 72°W on the equator."""
WINDOWS = ["2016-01-01/2016-02-01", "2016-02-01/2016-03-01"]
_MIDDLE = 833_970
SQUARE_EDGE = 800_000
"""Easting at which two 100 km squares of zone 18 meet, in the middle of a shard."""
_PLACES = {"first": ("2016-01-12", 0), "second": ("2016-02-11", 640)}
"""Day, and meters to the east: the second misses cells that the first has."""
_TO_DEGREES = Transformer.from_crs(32618, "OGC:CRS84", always_xy=True)


def equator(folder: Path, *, middle: int = _MIDDLE, **more: Any) -> Path:
    """Write two images around an easting, their items, and a spec of chips of 32 pixels in two windows."""
    folder.mkdir(parents=True, exist_ok=True)
    sample = json.loads((IMAGERY / "item.json").read_text())
    items = [_item(folder, sample, name, middle) for name in _PLACES]
    lon, _ = _TO_DEGREES.transform(middle, 0)
    (folder / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    document = {
        "name": "equator",
        "released": "2026-01-02",
        "imagery": {
            "stac": "items.json",
            "sensor": "sentinel-2-l1c",
            "windows": WINDOWS,
            "area": [round(lon - 0.012, 3), -0.012, round(lon + 0.012, 3), 0.012],
        },
        "chips": {"layout": "utm", "size": 32},
        "outputs": {"arrays": True, "explorer": False},
        **more,
    }
    spec = folder / "release.yaml"
    spec.write_text(yaml.safe_dump(document))
    return spec


def _item(folder: Path, sample: dict[str, Any], name: str, middle: int) -> dict[str, Any]:
    day, east = _PLACES[name]
    assets = {}
    for key, asset in sample["assets"].items():
        if asset["href"].endswith(".tif"):
            file = f"{name}_{Path(asset['href']).name}"
            _crop(IMAGERY / asset["href"], folder / file, middle, east)
            assets[key] = {k: v for k, v in asset.items() if not k.startswith("proj:")} | {"href": file}
    half = SIDE * 5
    west, south = middle + east - half, -half
    x = np.array([west, west + 2 * half, west + 2 * half, west, west])
    y = np.array([south, south, south + 2 * half, south + 2 * half, south])
    lon, lat = _TO_DEGREES.transform(x, y)
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "id": name,
        "geometry": {"type": "Polygon", "coordinates": [np.stack([lon, lat], axis=1).tolist()]},
        "bbox": [min(lon), min(lat), max(lon), max(lat)],
        "properties": {"datetime": f"{day}T15:50:00Z"},
        "links": [],
        "assets": assets,
    }


def _crop(source: Path, target: Path, middle: int, east: int) -> None:
    with rasterio.open(source) as file:
        pixel = file.transform.a
        side = round(SIDE * 10 / pixel)
        values = file.read(window=Window(round(east / pixel), 0, side, side))
        transform = Affine(pixel, 0, middle + east - SIDE * 5, 0, -pixel, SIDE * 5)
        profile = {"count": 1, "dtype": values.dtype, "crs": "EPSG:32618", "nodata": file.nodata}
        with rasterio.open(
            target, "w", driver="GTiff", width=side, height=side, transform=transform, compress="deflate", **profile
        ) as made:
            made.write(values)
