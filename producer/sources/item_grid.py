"""The pixel grid of an image, as its STAC item states it (projection extension 1.0 to 2.0)."""

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import pyproj

from clay_publish.errors import SourceError
from clay_publish.geo.footprints import to_lonlat
from clay_publish.geo.raster_grid import RasterGrid

OF_GRID = ("proj:shape", "proj:transform", "proj:code", "proj:epsg", "proj:wkt2")
"""What of an asset its grid follows from."""


def finest_grid(
    properties: Mapping[str, Any], assets: Mapping[str, Any], keys: Iterable[str], where: str
) -> tuple[str | None, RasterGrid | None]:
    """The grid with the smallest pixels among the bands; None where any band's is not stated.

    Raises:
        SourceError: the item states a grid that cannot be: numbers that are not finite, or an unknown CRS.
    """
    best: tuple[str, RasterGrid] | None = None
    for key in dict.fromkeys(keys):
        asset: dict[str, Any] = {name: value for name in OF_GRID if (value := assets[key].get(name)) is not None}
        shape: Any = asset.get("proj:shape", properties.get("proj:shape"))
        transform: Any = asset.get("proj:transform", properties.get("proj:transform"))
        crs = _crs(properties, asset)
        if crs is not None:
            _check_crs(crs, where)
        if crs is None or not _is_grid(shape, transform):
            return None, None
        numbers = [float(v) for v in (*shape, *transform[:6])]
        a, b, _, d, e, _ = numbers[2:]
        if not all(math.isfinite(v) for v in numbers) or a * e - b * d == 0 or min(numbers[:2]) < 1:
            raise SourceError(
                f"{where}: proj:transform", f"found {numbers[2:]} and proj:shape {shape}", "the grid of an image"
            )
        grid = RasterGrid(crs, int(shape[0]), int(shape[1]), tuple(numbers[2:]))  # type: ignore[arg-type]
        if not grid.is_on_earth:
            raise SourceError(
                f"{where}: proj:transform", f"found {numbers[2:]}, whose corners lie nowhere in {crs[:60]}",
                "x per column, x per row, x, y per column, y per row, y",
            )  # fmt: skip
        if best is None or grid.pixel < best[1].pixel:
            best = key, grid
    return best or (None, None)


def _check_crs(crs: str, where: str) -> None:
    if not _is_on_earth(crs):
        raise SourceError(
            f"{where}: proj:code", f"found {crs[:60]!r}, which PROJ cannot bring to longitude and latitude",
            "a reference system of the Earth, such as EPSG:32618",
        )  # fmt: skip


@lru_cache(maxsize=1024)
def _is_on_earth(crs: str) -> bool:
    try:
        to_lonlat(crs)
    except pyproj.exceptions.ProjError:
        return False
    return True


def _is_grid(shape: Any, transform: Any) -> bool:
    return (
        isinstance(shape, list)
        and len(shape) == 2
        and isinstance(transform, list)
        and len(transform) in {6, 9}
        and all(isinstance(v, int | float) for v in (*shape, *transform))
    )


def proj_code(properties: Mapping[str, Any], asset: Mapping[str, Any]) -> str | None:
    """Return the authority code of the reference system of an asset; None where it is not stated, or has none."""
    for holder in (asset, properties):
        code = holder.get("proj:code")
        if isinstance(code, str):
            return code
        if isinstance(holder.get("proj:epsg"), int):
            return f"EPSG:{holder['proj:epsg']}"
    return None


def _crs(properties: Mapping[str, Any], asset: Mapping[str, Any]) -> str | None:
    code = proj_code(properties, asset)
    if code is not None:
        return code
    for holder in (asset, properties):
        wkt = holder.get("proj:wkt2")
        if isinstance(wkt, str):
            return wkt
    return None
