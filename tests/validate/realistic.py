"""Large scenes with the statistics of small real images: what varies slowly is enlarged, and detail is repeated."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import shapely
from affine import Affine
from scipy.ndimage import gaussian_filter, zoom

from clay_publish.geo.footprints import footprints

Floats = npt.NDArray[np.float64]


def enlarged(small: Floats, shape: tuple[int, int]) -> Floats:
    """An image of real pixels, made larger: its ground stretched, and the detail of its pixels laid over all of it."""
    slow = gaussian_filter(small, 2)
    factors = [size / own for size, own in zip(shape, small.shape, strict=True)]
    stretched = zoom(slow, factors, order=1)[: shape[0], : shape[1]]
    short = [(0, size - own) for size, own in zip(shape, stretched.shape, strict=True)]
    stretched = np.pad(stretched, short, mode="edge")
    reach = [(0, max(0, size - own)) for size, own in zip(shape, small.shape, strict=True)]
    detail = np.pad(small - slow, reach, mode="wrap")[: shape[0], : shape[1]]
    return np.asarray(stretched + detail * np.random.default_rng(5).uniform(0.8, 1.2, shape))


def landsat_bands(folder: Path, shape: tuple[int, int]) -> dict[str, npt.NDArray[Any]]:
    """Digital numbers of surface reflectance by band; 0 means nodata, and no pixel has it."""
    made = {}
    for name, band in (("blue", 2), ("green", 3), ("red", 4), ("nir08", 5), ("swir16", 6), ("swir22", 7)):
        (path,) = folder.glob(f"*_SR_B{band}.TIF")
        with rasterio.open(path) as source:
            pixels = source.read(1).astype(float)
        pixels[pixels == 0] = np.median(pixels[pixels > 0])
        noise = np.random.default_rng(band).normal(0, 20, shape)
        made[name] = np.clip(enlarged(pixels, shape) + noise, 1, 65_000).astype(np.uint16)
    return made


def radar_bands(path: Path, shape: tuple[int, int]) -> dict[str, npt.NDArray[Any]]:
    """Linear power of VV, and VH with speckle of its own, a sixth as bright."""
    with rasterio.open(path) as source:
        decibels = source.read(1).astype(float)
    decibels[decibels < -90] = np.median(decibels[decibels > -90])
    power = 10 ** (enlarged(decibels, shape) / 10)
    speckle = np.random.default_rng(7).gamma(4.4, 1 / 4.4, shape)
    like = gaussian_filter(power, 2)
    return {"vv": power.astype(np.float32), "vh": (like * speckle / 6).astype(np.float32)}


def write_item(
    folder: Path, document: dict[str, Any], name: str, bands: dict[str, npt.NDArray[Any]], crs: str, transform: Affine
) -> Path:
    """Write files, and an item that is described as a real one."""
    height, width = next(iter(bands.values())).shape
    item = copy.deepcopy(document)
    assets = {}
    for key, pixels in bands.items():
        file = folder / f"{name}-{key}.tif"
        with rasterio.open(
            file, "w", driver="GTiff", count=1, height=height, width=width, dtype=pixels.dtype, crs=crs,
            transform=transform, tiled=True, compress="deflate",
        ) as target:  # fmt: skip
            target.write(pixels, 1)
        kept = {
            name: value for name, value in item["assets"][key].items() if not name.startswith(("proj:", "alternate"))
        }
        assets[key] = {**kept, "href": file.name}
    corners = np.array([[(0, height), (width, height), (width, 0), (0, 0)]], dtype=float)
    (outline,) = footprints(crs, corners * [transform.a, transform.e] + [transform.c, transform.f])
    kept = {key: value for key, value in item["properties"].items() if not key.startswith("proj:")}
    kept |= {"proj:code": crs, "proj:shape": [height, width], "proj:transform": list(transform)[:6]}
    item |= {
        "id": f"{item['id']}_{name}",
        "assets": assets,
        "properties": kept,
        "geometry": json.loads(shapely.to_geojson(outline)),
        "bbox": list(outline.bounds),
        "links": [],
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(item))
    return path
