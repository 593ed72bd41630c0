"""Why a place has no embedding: what the coverage table says of the chip that was expected there."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely

from clay_publish.geo.footprints import transformer
from clay_publish.geo.utm_grid import NORTH, SOUTH, UtmGrid
from clay_publish.geo.utm_zones import utm_zones
from clay_publish.release import directory as paths
from clay_publish.release.directory import Release
from clay_publish.search.query import Extent
from clay_publish.search.row_groups import read
from clay_publish.windows import Window

Floats = npt.NDArray[np.float64]

EMBEDDED, OUTSIDE = "embedded", "outside"
"""The place lies in a chip; or no chip was expected there."""


@dataclass(frozen=True)
class Status:
    """Of each place: `embedded`, a reason of the coverage table, or `outside`; and its detail."""

    status: npt.NDArray[np.object_]
    detail: npt.NDArray[np.object_]
    window: npt.NDArray[np.object_]
    """Token of the window that a reason is of."""


def inside(lon: Floats, lat: Floats, bbox: pa.StructArray) -> npt.NDArray[np.bool_]:
    """Return whether places lie in the bounds of chips, pair by pair; xmin > xmax across the antimeridian."""
    west, south, east, north = (
        bbox.field(side).to_numpy(zero_copy_only=False) for side in ("xmin", "ymin", "xmax", "ymax")
    )
    along = np.mod(lon - west, 360) <= np.where(west > east, east - west + 360, east - west)
    return np.asarray(along & (lat >= south) & (lat <= north))


def status_of(release: Release, lon: Floats, lat: Floats, found: npt.NDArray[np.bool_], extent: Extent) -> Status:
    """Return why places have an embedding or have none; of several windows, in the newest.

    Args:
        release: where the coverage lies.
        lon: [n], degrees.
        lat: [n].
        found: whether each lies in an embedded chip.
        extent: the time that was looked in.

    Raises:
        ReleaseError: the coverage cannot be read.
    """
    status = np.full(len(lon), OUTSIDE, dtype=object)
    detail, window = np.full((2, len(lon)), None, dtype=object)
    status[found] = EMBEDDED
    lost = np.flatnonzero(~found)
    if len(lost):
        cells = _utm_cells if release.fingerprint().layout == "utm" else _scene_cells
        places, keys, zones = cells(release, lon[lost], lat[lost])
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        for key, chip in _missing(release, np.unique(zones), np.unique(keys), extent):
            start, stop = (np.searchsorted(ordered, key, side) for side in ("left", "right"))
            here = lost[places[order[start:stop]]]
            status[here], detail[here] = chip["reason"], chip["detail"]
            window[here] = Window(chip["window_start"], chip["window_end"]).token
    return Status(status, detail, window)


_Cells = tuple[npt.NDArray[np.int64], npt.NDArray[np.object_], npt.NDArray[np.int64]]
"""Number of a place, key of a cell that it lies in (`_KEY`), and zone of the coverage file; [n] each."""
_KEY = "/"
"""Between the parts of a key: `EPSG/ROW/COLUMN` in the `utm` layout, before it `ITEM/` in the `scene` layout."""


def _utm_cells(release: Release, lon: Floats, lat: Floats) -> _Cells:
    """The cell of the grid that each place lies in."""
    made = release.fingerprint()
    usable = np.flatnonzero((lat >= SOUTH) & (lat <= NORTH))
    epsg, row, col = UtmGrid(made.size * (made.gsd or math.nan)).cells_at(lon[usable], lat[usable])
    keys = [_KEY.join(map(str, cell)) for cell in zip(epsg.tolist(), row.tolist(), col.tolist(), strict=True)]
    return usable, np.array(keys, dtype=object), epsg % 100


def _scene_cells(release: Release, lon: Floats, lat: Floats) -> _Cells:
    """The chips of all images that each place lies in, from the images' grids in `sources.parquet`."""
    where = release.store.path(paths.SOURCES)
    names = ["id", "geometry", "proj_code", "proj_transform"]
    file = release.parquet(paths.SOURCES)
    table = read(file, list(range(file.num_row_groups)), names, where)
    table = table.filter(pc.and_(pc.is_valid(table["proj_code"]), pc.is_valid(table["proj_transform"])))
    shapes = shapely.from_wkb(table["geometry"].to_numpy(zero_copy_only=False))
    point, item = shapely.STRtree(shapes).query(shapely.points(lon, lat), "intersects")
    size = release.fingerprint().size
    keys = np.empty(len(point), dtype=object)
    for number in np.unique(item).tolist():
        mine = np.flatnonzero(item == number)
        source = table.slice(number, 1).to_pylist()[0]
        x, y = transformer("OGC:CRS84", source["proj_code"]).transform(lon[point[mine]], lat[point[mine]])
        a, b, c, d, e, f, *_ = source["proj_transform"]
        column, row = np.linalg.solve([[a, b], [d, e]], [x - c, y - f])
        epsg = source["proj_code"].removeprefix("EPSG:") if source["proj_code"].startswith("EPSG:") else ""
        cells = np.floor_divide([row, column], size).astype(np.int64).T.tolist()
        keys[mine] = [_KEY.join([source["id"], epsg, str(one), str(two)]) for one, two in cells]
    zone = utm_zones(lon[point])
    near = np.concatenate([(zone - 1 + step) % 60 + 1 for step in (-1, 0, 1)])  # a chip's zone is its center's
    return np.tile(point, 3), np.tile(keys, 3), near


def _missing(
    release: Release, zones: npt.NDArray[np.int64], keys: npt.NDArray[np.object_], extent: Extent
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the expected chips with these keys that have no embedding, those of the newest window last."""
    scene = release.fingerprint().layout == "scene"
    names = ["epsg", "row", "col", "window_start", "window_end", "status", "reason", "detail", "item_ids"]
    rows = np.unique([int(key.rsplit(_KEY, 2)[1]) for key in keys.tolist()])
    parts = []
    for path in (f"{paths.COVERAGE}/zone={zone:02d}.parquet" for zone in zones.tolist()):
        if not release.store.exists(path):
            continue
        file, where = release.parquet(path), release.store.path(path)
        for group in _groups_with(file, rows):
            table = read(file, [group], names if scene else names[:-1], where)
            keep = pc.and_(pc.not_equal(table["status"], EMBEDDED), pc.is_valid(table["row"]))
            kind = table["window_start"].type
            if extent.end is not None:
                keep = pc.and_(keep, pc.less_equal(table["window_start"], pa.scalar(extent.end, kind)))
            if extent.start is not None:
                keep = pc.and_(keep, pc.greater(table["window_end"], pa.scalar(extent.start, kind)))
            table = table.filter(keep)
            cell = [pc.fill_null(table[name].cast(pa.string()), "") for name in ("epsg", "row", "col")]
            if scene:
                firsts = [ids[0] if ids else "" for ids in table["item_ids"].to_pylist()]
                cell.insert(0, pa.chunked_array([pa.array(firsts, pa.string())]))
            found = pc.binary_join_element_wise(*cell, _KEY)
            parts.append(table.append_column("key", found).filter(pc.is_in(found, pa.array(keys, pa.string()))))
    if parts:
        for chip in pa.concat_tables(parts).sort_by("window_start").to_pylist():
            yield chip.pop("key"), chip


def _groups_with(file: pq.ParquetFile, rows: npt.NDArray[np.int64]) -> Iterator[int]:
    """Row groups whose statistics do not rule out that they hold one of some rows, which are sorted."""
    place = file.schema_arrow.names.index("row")
    for group in range(file.num_row_groups):
        known = file.metadata.row_group(group).column(place).statistics
        low, high = (known.min, known.max) if known is not None and known.has_min_max else (-math.inf, math.inf)
        if np.searchsorted(rows, high, "right") > np.searchsorted(rows, low, "left"):
            yield group
