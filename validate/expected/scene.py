"""Which chips a release should have, computed from its own spec and sources, and which it has and describes.

`scene`: every whole chip of every used image, whose centre lies in the area of its imagery block.
`utm`: in every window, the cells of the grid that meet the areas of the blocks that ask for it; where a block names no
area, the ground its used images cover.
"""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import shapely

from clay_publish.geo.area import read_area
from clay_publish.validate.data.coverage_table import Said, coverage_batches, equals, first_items, whole_numbers
from clay_publish.validate.expected.cells import (
    EXPECTED,
    PRESENT,
    SAID_EMBEDDED,
    SAID_MISSING,
    CellRaster,
    Summary,
    empty,
)
from clay_publish.validate.expected.grids import scene_grid
from clay_publish.validate.expected.utm import CellInputs, utm_layers


def count_cells(inputs: CellInputs, counted: Counter[Said]) -> Iterator[Summary]:
    """Expected, present and described cells of the release, counted by layer.

    In the `utm` layout, `counted` takes what the coverage says.

    Raises:
        ReleaseError: spec, sources, embeddings or coverage do not tell enough.
    """
    if inputs.fingerprint.layout == "utm":
        yield from utm_layers(inputs, counted)
        return
    found, facts, sources = _expected(inputs), inputs.facts, inputs.sources
    _mark_by_layer(found, facts["items"], facts["rows"], facts["cols"], PRESENT)
    for batch in coverage_batches(inputs.tables, ["row", "col", "status", "item_ids"]):
        known = batch.column("row").is_valid().to_numpy(zero_copy_only=False)
        known &= batch.column("col").is_valid().to_numpy(zero_copy_only=False)
        item = first_items(batch, sources.ids)
        row, col = whole_numbers(batch, "row"), whole_numbers(batch, "col")
        embedded = equals(batch.column("status"), "embedded")
        for flag, which in ((SAID_EMBEDDED, known & embedded), (SAID_MISSING, known & ~embedded)):
            _mark_by_layer(found, item[which], row[which], col[which], flag)
    yield from (layer.summary() for layer in found if layer is not None)


def _expected(inputs: CellInputs) -> list[CellRaster | None]:
    """A layer for each source item by its place; None for those that give no chips."""
    size = inputs.fingerprint.size
    areas = [None if block.area is None else read_area(block.area).geometry for block in inputs.spec.imagery]
    made: list[CellRaster | None] = []
    for source in inputs.sources.items:
        if source.status != "used" or source.shape is None:
            made.append(None)
            continue
        rows, cols = source.shape[0] // size, source.shape[1] // size
        name = f"item {source.id}"
        layer = CellRaster(name, 0, 0, empty(name, rows, cols))
        area = areas[source.block] if 0 <= source.block < len(areas) else None
        if area is None:
            layer.flags[:] = EXPECTED
        else:
            row, col = np.divmod(np.arange(rows * cols), max(cols, 1))
            lon, lat = scene_grid(source, size).to_lonlat(col + 0.5, row + 0.5)
            layer.flags[:] = shapely.intersects_xy(area, lon, lat).reshape(rows, cols) * EXPECTED
        made.append(layer)
    return made


def _mark_by_layer(
    found: list[CellRaster | None],
    items: npt.NDArray[np.integer],
    rows: npt.NDArray[np.integer],
    cols: npt.NDArray[np.integer],
    flag: int,
) -> None:
    order = np.argsort(items, kind="stable")
    ends = np.searchsorted(items[order], np.arange(-1, len(found) + 1))
    for place, layer in enumerate(found):
        mine = order[ends[place + 1] : ends[place + 2]]
        if mine.size:
            marked = layer or CellRaster("an unused item", 0, 0, np.zeros((0, 0), np.uint8))
            marked.mark(rows[mine], cols[mine], flag)
            found[place] = marked
