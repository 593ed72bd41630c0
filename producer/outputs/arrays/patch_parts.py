"""Patches of the units, as they were left in `.run/parts`, by the cells of their chips."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clay_publish.geo.utm_grid import parse_chip_id
from clay_publish.producer.outputs.arrays.write import Pixels
from clay_publish.producer.outputs.parts import read_parts
from clay_publish.producer.outputs.patches import _places as chip_places, patches_token
from clay_publish.release.directory import DataFile, Release
from clay_publish.release.unit_receipts import UnitReceipt
from clay_publish.search.cells import CellBox

_CHIPS = 64
"""Whose patches are given at a time."""


@dataclass(frozen=True)
class PatchParts:
    """The patches of one layer."""

    release: Release
    receipts: Sequence[UnitReceipt]
    patches: int
    """Of a chip and layer."""
    layer: int
    """Place of the layer among those of a chip."""

    def read(self, files: Sequence[DataFile], box: CellBox) -> Iterator[Pixels]:
        """Yield the patches of some cells."""
        for file in files:
            for table in read_parts(self.release, self.receipts, patches_token(file.token)):
                yield from self._of_part(table, box)

    def _of_part(self, table: pa.Table, box: CellBox) -> Iterator[Pixels]:
        places = list(chip_places([table]))
        cells = [parse_chip_id(place.chip) for place in places]
        row, col = np.array([c.row for c in cells], np.int64), np.array([c.col for c in cells], np.int64)
        inside = (row >= box.row[0]) & (row < box.row[1]) & (col >= box.col[0]) & (col < box.col[1])
        start = np.array([place.start for place in places], np.int64) + self.layer * self.patches
        chosen = np.flatnonzero(inside)
        for first in range(0, len(chosen), _CHIPS):
            some: npt.NDArray[np.int64] = chosen[first : first + _CHIPS]
            values = pa.concat_tables(table.slice(at, self.patches) for at in start[some].tolist()).combine_chunks()
            yield Pixels(row[some], col[some], values)
