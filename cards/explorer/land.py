"""Write `land.bin`: Natural Earth's land from the package, simplified, as gzipped GeoJSON.

Usage: python -m clay_publish.cards.explorer.land TARGET
"""

import gzip
import json
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import shapely

TOLERANCE = 0.02
"""Degrees a simplified coast may stray."""
SMALLEST = 0.0015
"""Square degrees of the smallest island."""
DIGITS = 2


def main() -> None:
    """Read, simplify, write."""
    with files("clay_publish.geo.data").joinpath("land.parquet").open("rb") as source:
        table = pq.read_table(source)
    polygon, ring = table["polygon"].to_numpy(), table["ring"].to_numpy()
    xy = np.stack([table["x"].to_numpy(), table["y"].to_numpy()], axis=-1) / 10_000
    starts = np.flatnonzero(np.r_[True, (np.diff(polygon) != 0) | (np.diff(ring) != 0)])
    shapes: dict[int, list[np.ndarray]] = {}
    for place, points in zip(polygon[starts], np.split(xy, starts[1:]), strict=True):
        shapes.setdefault(int(place), []).append(points)
    land = [shapely.Polygon(shell, holes) for shell, *holes in shapes.values()]
    land = [shape for shape in land if shape.area > SMALLEST]
    coordinates = []
    for shape in shapely.simplify(land, TOLERANCE):
        for part in shapely.get_parts(shape):
            rings = [part.exterior, *(hole for hole in part.interiors if shapely.Polygon(hole).area > SMALLEST)]
            coordinates.append([np.round(r.coords, DIGITS).tolist() for r in rings])
    document = {"type": "Feature", "properties": {}, "geometry": {"type": "MultiPolygon", "coordinates": coordinates}}
    text = json.dumps(document, separators=(",", ":"))
    Path(sys.argv[1]).write_bytes(gzip.compress(text.encode(), 9, mtime=0))


if __name__ == "__main__":
    main()
