"""`arrays/arrays.zarr`: where each chip and patch lies in the arrays, and what their parts are called.

The arrays of a zone have a fixed extent in its northern projection, northings negative south of the equator: from 80°S
to 84°N, rounded up to a whole block of cells, and from easting 0 to 1,000 km. A chip is one pixel:
`y = row_top − row`, `x = col`. A patch is one pixel of a finer grid: `y = (row_top − row) × patches + patch_row`,
`x = col × patches + patch_col`, where a cell is `patches` patches wide.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from clay_publish.release.directory import ARRAYS, RUN
from clay_publish.release.tables import REASONS
from clay_publish.spec.models import Spec
from clay_publish.windows import Window

STORE = f"{ARRAYS}/arrays.zarr"
MADE = f"{RUN}/arrays.json"
"""From which receipts, and with which libraries, the shards were made that are there."""
MEDIA_TYPE = "application/vnd.zarr; version=3"
EMBEDDINGS, SCALES, VALID, CLOUD, REASON = "embeddings", "scales", "valid", "cloud", "reason"

BLOCK_CHIPS, BLOCK_CELLS = 256, 32
"""Cells along the side of a block of chips, and of a block of patches. Each block starts a shard."""
SHARD_BYTES = 256 << 20
"""Of the embeddings of one shard before compression, at most."""
CHUNK_BYTES = 1 << 20
"""Of one chunk, which is read whole, where a block can be divided so far."""
NODATA: dict[str, float] = {"int8": -128, "float16": math.nan}

NOT_EXPECTED, EMBEDDED = 0, 1
REASON_CODES = {name: number for number, name in enumerate(REASONS, EMBEDDED + 1)}
"""Reason of the coverage table → its number in the layer `reason`."""

_NORTHING, _SOUTHING, _EASTING = 9_330_000, -8_884_000, 1_000_000
"""Meters in the northern projection: 84°N and 80°S at the edge of a zone, rounded up, and the width."""

Floats = npt.NDArray[np.float64]


def reason_flags() -> dict[str, Any]:
    """Attributes of the layer `reason`: what its numbers mean."""
    meanings = ["not_expected", "embedded", *REASON_CODES]
    flags = {"flag_values": list(range(len(meanings))), "flag_meanings": " ".join(meanings)}
    return {"long_name": "why there is no embedding", **flags}


def coverage_zone(path: str) -> int:
    """UTM zone of a coverage file: 18 of `coverage/zone=18.parquet`."""
    return int(path.removesuffix(".parquet")[-2:])


def zone_group(zone: int) -> str:
    """Name of a zone's group below the store."""
    return f"utm{zone:02d}"


def patches_group(layer: int | None) -> str:
    """Name of the group of patches below a zone's group; one per layer where the spec lists layers."""
    return "patches" if layer is None else f"patches_layer{layer}"


def array_windows(spec: Spec) -> list[Window]:
    """The time steps of the arrays, in order."""
    return sorted({window for block in spec.imagery for window in block.parsed_windows()})


@dataclass(frozen=True)
class ArrayGrid:
    """The pixels of one zone's arrays, and how they are cut."""

    cell: float
    """Side of a chip in meters."""
    dimensions: int
    item_bytes: int
    """Of one number of an embedding."""
    patches: int = 1
    """Pixels along the side of a cell: 1, or the patches of a chip."""

    @cached_property
    def row_top(self) -> int:
        """The row of the chips at y = 0."""
        block = BLOCK_CHIPS
        return block * math.ceil((math.floor(_NORTHING / self.cell) + 1) / block) - 1

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        rows = self.row_top - math.floor(_SOUTHING / self.cell) + 1
        return rows * self.patches, math.ceil(_EASTING / self.cell) * self.patches

    @property
    def pixel(self) -> float:
        """Ground size of a pixel in meters."""
        return self.cell / self.patches

    @property
    def top(self) -> float:
        """Northing of the upper edge."""
        return (self.row_top + 1) * self.cell

    @property
    def transform(self) -> list[float]:
        """Affine coefficients a to f: x = a·column + c, y = e·row + f."""
        return [self.pixel, 0.0, 0.0, 0.0, -self.pixel, self.top]

    @property
    def bbox(self) -> list[float]:
        """Left, bottom, right and top edge in meters."""
        height, width = self.shape
        return [0.0, self.top - height * self.pixel, width * self.pixel, self.top]

    @cached_property
    def shard(self) -> int:
        """Pixels along the side of a shard."""
        return self.cells_per_shard * self.patches

    @cached_property
    def cells_per_shard(self) -> int:
        """Cells along the side of a shard."""
        cells = BLOCK_CHIPS if self.patches == 1 else BLOCK_CELLS
        while cells > 1 and self._bytes(cells * self.patches) > SHARD_BYTES:
            cells //= 2
        return cells

    @cached_property
    def chunk(self) -> int:
        """Pixels along the side of a chunk; a shard is made of whole ones."""
        side = self.shard
        while side % 2 == 0 and self._bytes(side) > CHUNK_BYTES:
            side //= 2
        return side

    def _bytes(self, side: int) -> int:
        return side**2 * self.dimensions * self.item_bytes

    def centers(self) -> tuple[Floats, Floats]:
        """Northings and eastings of the centers of pixels."""
        down, right = (np.arange(size, dtype=np.float64) + 0.5 for size in self.shape)
        return self.top - down * self.pixel, right * self.pixel

    def document(self) -> dict[str, Any]:
        """The formula, as the attributes of a group state it."""
        many = self.patches > 1
        return {
            "row_top": self.row_top,
            "patches": self.patches,
            "y": "(row_top - row) * patches + patch_row" if many else "row_top - row",
            "x": "col * patches + patch_col" if many else "col",
            "rows": "counted from the equator, northwards; negative in the south. row and col are those of the tables",
        }
