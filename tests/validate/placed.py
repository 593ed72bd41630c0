"""Images of the bundled sample, put down elsewhere on the Earth."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from affine import Affine
from breakage import IMAGERY
from pyproj import Transformer
from rasterio.enums import Resampling

from clay_publish.geo.footprints import footprints
from clay_publish.spec.sensors import sensor

SENSOR = "sentinel-2-l1c"


def placed_item(
    folder: Path,
    crs: str,
    x: float,
    y: float,
    size: int | tuple[int, int],
    *,
    name: str = "item",
    values: tuple[float, float] = (1, 0),
    columns: slice = slice(None),
    **properties: Any,
) -> Path:
    """Write an image of 10 m pixels, and its item.

    Args:
        folder: where.
        crs: of the pixels.
        x: of the center.
        y: of the center.
        size: rows and columns; larger images than the sample are the sample, enlarged.
        name: of the files, and the end of the id.
        values: factor and offset of the pixels.
        columns: of these, those that the image has: the others are of an image beside it.
        properties: of the item, beside those of the sample.
    """
    height, width = (size, size) if isinstance(size, int) else size
    whole = json.loads((IMAGERY / "item.json").read_text())
    first, last, _ = columns.indices(width)
    transform = Affine(10, 0, x - 5 * width + 10 * first, 0, -10, y + 5 * height)
    assets = {}
    for band in sensor(SENSOR).bands:
        href = f"{band.name}.tif" if name == "item" else f"{name}-{band.name}.tif"
        with rasterio.open(IMAGERY / whole["assets"][band.name]["href"]) as source:
            shape = (max(512, height), max(512, width))
            how = Resampling.nearest if shape == (512, 512) else Resampling.bilinear
            pixels = source.read(1, out_shape=shape, resampling=how)[:height, :width][:, columns]
        pixels = np.where(pixels, np.clip(values[0] * pixels + values[1], 1, 65535), 0).astype(pixels.dtype)
        with rasterio.open(
            folder / href, "w", driver="GTiff", count=1, height=height, width=last - first,
            dtype=pixels.dtype, crs=crs, transform=transform, nodata=0, compress="deflate",
        ) as target:  # fmt: skip
            target.write(pixels, 1)
        assets[band.name] = {**whole["assets"][band.name], "href": href}
    corners = np.array([[(0, height), (last - first, height), (last - first, 0), (0, 0)]], dtype=float)
    (outline,) = footprints(crs, corners * [10, -10] + [transform.c, transform.f])
    item = whole | {"assets": assets, "geometry": json.loads(shapely.to_geojson(outline)), "bbox": list(outline.bounds)}
    if name != "item":
        item["id"] = f"{whole['id']}-{name}"
    kept = {k: v for k, v in whole["properties"].items() if not k.startswith(("proj:", "grid:", "mgrs:"))}
    item["properties"] = kept | properties
    path = folder / f"{name}.json"
    path.write_text(json.dumps(item))
    return path


def ground(crs: str, *boxes: tuple[float, float, float, float]) -> dict[str, Any]:
    """Return boxes in the units of a CRS as one geometry in degrees."""
    degrees = Transformer.from_crs(crs, "OGC:CRS84", always_xy=True).transform
    outlines = shapely.transform([shapely.box(*box) for box in boxes], degrees, interleaved=False)
    geometry: dict[str, Any] = json.loads(shapely.to_geojson(shapely.union_all(outlines)))
    return geometry
