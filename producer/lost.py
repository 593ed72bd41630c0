"""Coverage rows of units that could not be made: every chip they were expected to give, with the reason."""

from collections import Counter
from typing import Literal

import numpy as np
import pyarrow as pa
import shapely

from clay_publish.producer.chips import ChipBlock
from clay_publish.producer.items import SourceItem
from clay_publish.producer.plan import Unit
from clay_publish.producer.rows import PART_COVERAGE, coverage_rows
from clay_publish.producer.scene import SceneChips, lost_scene, safe_name
from clay_publish.producer.utm import Cells
from clay_publish.squares import utm_zones
from clay_publish.windows import Window

Reason = Literal["unreadable", "source_changed", "failed", "over_budget"]


def lost_rows(unit: Unit, size: int, reason: Reason, detail: str) -> tuple[pa.Table, Counter[str]]:
    """Rows of the coverage table for a whole unit, and the chips by reason.

    Of an image whose grid nobody knows it is one row for the whole item.
    """
    block = _lost_block(unit, size, reason, detail)
    if block is not None:
        return coverage_rows(block, unit.window), Counter(each for each in block.reasons if each is not None)
    (item,) = unit.items
    row = {
        "id": f"item_{safe_name(item.id)}_{unit.window.token}",
        "window_start": unit.window.start,
        "window_end": unit.window.end,
        "status": "missing",
        "reason": reason,
        "item_ids": [item.id],
        "detail": detail,
        "zone": 1 if item.geometry is None else int(utm_zones(np.array([item.geometry.centroid.x]))[0]),
        "geometry": None if item.geometry is None else shapely.to_wkb(item.geometry),
    }
    return pa.Table.from_pylist([row], schema=PART_COVERAGE), Counter([reason])


def _lost_block(unit: Unit, size: int, reason: Reason, detail: str) -> ChipBlock | None:
    if unit.cells is not None:
        return _lost_cells(unit.cells, unit.items, unit.window, reason, detail)
    (item,) = unit.items
    if item.grid is None:
        return None
    return lost_scene(SceneChips(item, item.grid, size), unit.area, reason, detail)


def _lost_cells(cells: Cells, items: tuple[SourceItem, ...], window: Window, reason: Reason, detail: str) -> ChipBlock:
    square, rows, cols = cells.cut.square, cells.rows, cells.cols
    lon, lat = cells.grid.centers(square.epsg, rows, cols)
    count = len(rows)
    return ChipBlock(
        ids=[cells.grid.chip_id(square.epsg, r, c, window) for r, c in zip(rows.tolist(), cols.tolist(), strict=True)],
        epsg=square.epsg,
        rows=rows.astype(np.int32),
        cols=cols.astype(np.int32),
        geometry=cells.grid.footprints(square.epsg, rows, cols),
        lon=lon,
        lat=lat,
        gsd=0.0,
        squares=[square] * count,
        reasons=[reason] * count,
        details=[detail] * count,
        pixels=np.empty((0, 0, 0, 0), dtype=np.float32),
        valid_fraction=np.zeros(count, dtype=np.float32),
        cloud_fraction=np.full(count, np.nan, dtype=np.float32),
        source=[None] * count,
        item_ids=[tuple(sorted({item.id for item in items}))] * count,
    )
