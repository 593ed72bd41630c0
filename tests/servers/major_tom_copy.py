"""Small copies of Major TOM Core: its columns and row groups, with real pixels of the test data."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import rasterio
from affine import Affine
from PIL import Image
from pyproj import Transformer
from rasterio.io import MemoryFile

from clay_publish.geo.major_tom_grid import corner_of_cell

METERS = {10: ("B02", "B03", "B04", "B08"), 20: ("B05", "B06", "B07", "B8A", "B11", "B12"), 60: ("B01", "B09")}
SIDE = 10_680
L1C = "S2A_MSIL1C_20160112T155221_N0201_R111_T18SVG_20160112T155500"
URL = "https://huggingface.co/datasets/Major-TOM/Core-S2L1C/resolve/main/images/part_00001.parquet"


def geotiff(values: np.ndarray, west: float, north: float, crs: str, meters: float) -> bytes:
    """A compressed GeoTIFF of one band, as the values of the columns are."""
    height, width = values.shape
    profile = {"driver": "GTiff", "height": height, "width": width, "count": 1, "dtype": values.dtype, "crs": crs}
    with MemoryFile() as memory:
        with memory.open(
            **profile, transform=Affine(meters, 0, west, 0, -meters, north), compress="deflate", tiled=True
        ) as file:
            file.write(values, 1)
        return bytes(memory.read())


def corner(cell: str, crs: str) -> tuple[float, float]:
    """West and north of the pixels of a cell."""
    x, y = Transformer.from_crs(4326, crs, always_xy=True).transform(*corner_of_cell(cell))
    return x - 340, y - 340 + SIDE


def sentinel_2(data: Path, cell: str, crs: str, product: str = L1C, cloud: int = 0) -> dict[str, Any]:
    """A row: the pixels of the test scene, repeated until they fill the cell; `cloud` rows of its mask are cloud."""
    west, north = corner(cell, crs)
    row: dict[str, Any] = {"product_id": product, "grid_cell": cell, "timestamp": product.split("_")[2], "crs": crs}
    for meters, names in METERS.items():
        for name in names:
            with rasterio.open(data / "s2_l1c_T18SVG_20160112" / f"{name}.tif") as file:
                pixels = file.read(1)
            count = SIDE // meters
            wide = np.tile(pixels, [-(-count // side) for side in pixels.shape])[:count, :count]
            row[name] = geotiff(wide, west, north, crs, meters)
    mask = np.zeros((SIDE // 10, SIDE // 10), dtype=np.uint8)
    mask[:cloud] = 1
    row["cloud_mask"] = geotiff(mask, west, north, crs, 10)
    picture = io.BytesIO()
    Image.new("RGB", (100, 100)).save(picture, "PNG")
    return {**row, "thumbnail": picture.getvalue()}


def sentinel_1(data: Path, cell: str, crs: str) -> dict[str, Any]:
    """A row of Core-S1RTC: linear power of the test scene as both polarizations."""
    west, north = corner(cell, crs)
    with rasterio.open(next((data / "s1").glob("*_db.tif"))) as file:
        decibels = file.read(1)
    power = np.where(np.isfinite(decibels), 10 ** (decibels / 10), 0.01).astype(np.float32)
    power[power <= 0] = 0.01
    wide = np.tile(power, [-(-1068 // side) for side in power.shape])[:1068, :1068]
    product = "S1A_IW_GRDH_1SDV_20220115T225510_20220115T225535_041478_04EE7D_rtc"
    row = {"product_id": product, "grid_cell": cell, "timestamp": "2022-01-15T22:55:10", "crs": crs}
    return {**row, "vv": geotiff(wide, west, north, crs, 10), "vh": geotiff(wide / 4, west, north, crs, 10)}


def write_copy(folder: Path, rows: Sequence[dict[str, Any]], **changes: Any) -> Path:
    """Write `images/part_00001.parquet`, one row group per row, and `metadata.parquet`; `changes` are of the latter."""
    (folder / "images").mkdir(parents=True)
    table = pa.Table.from_pylist([{k: v for k, v in row.items() if k != "crs"} for row in rows])
    pq.write_table(table, folder / "images" / "part_00001.parquet", row_group_size=1, compression="none")
    metadata = []
    for number, row in enumerate(rows):
        west, north = corner(row["grid_cell"], row["crs"])
        to_lonlat = Transformer.from_crs(row["crs"], 4326, always_xy=True)
        lon, lat = to_lonlat.transform(west + SIDE / 2, north - SIDE / 2)
        up, right = row["grid_cell"].split("_")
        place = {
            "grid_cell": row["grid_cell"],
            "grid_row_u": int(up[:-1]) * (1 if up[-1] == "U" else -1),
            "grid_col_r": int(right[:-1]) * (1 if right[-1] == "R" else -1),
            "product_id": row["product_id"],
            "timestamp": row["timestamp"],
            "cloud_cover": 0.0,
            "nodata": 0.0,
            "centre_lat": lat,
            "centre_lon": lon,
            "crs": row["crs"],
            "parquet_url": URL,
            "parquet_row": number,
        }
        metadata.append(place | changes)
    pq.write_table(pa.Table.from_pylist(metadata), folder / "metadata.parquet")
    return folder
