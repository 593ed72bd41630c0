"""What a run costs: hours, dollars, bytes, and what other chip sizes would."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from clay_publish.geo.area import read_area
from clay_publish.producer.layouts.base import Counts
from clay_publish.producer.sources.item import SourceItem
from clay_publish.producer.sources.selection import Considered
from clay_publish.release.tables import Dtype
from clay_publish.storage.store import is_url

SIZES = (50, 64, 100, 128, 200, 256)
"""Chip sizes of the table of alternatives, pixels."""

EARTH_KM2 = 510e6
"""Surface of the Earth."""

BYTES_A_VALUE: dict[Dtype, float] = {"float32": 3465 / 1024, "float16": 1736 / 1024, "int8": 942 / 1024}
"""In published files, after BYTE_STREAM_SPLIT or dictionary and ZSTD; measured on unit-normal vectors."""

_COMPRESSION = 0.6
"""Bytes fetched for a byte of pixels, read in strips; measured on DEFLATE COGs."""
_PIXEL = 2
"""Bytes of a value in nearly all of the imagery."""

BYTES_A_ROW = 300
"""Of everything else in a row: id, footprint, times, sources."""


class Rates(BaseModel):
    """How fast chips are made, and at which price."""

    model_config = ConfigDict(frozen=True)

    chips_per_hour: float
    usd_per_hour: float | None
    measured: bool
    """On this machine, rather than stated in the spec."""

    def hours(self, chips: float) -> float:
        """Hours that chips take."""
        return chips / self.chips_per_hour

    def usd(self, chips: float) -> float | None:
        """Dollars that chips cost; None where no price is stated."""
        return None if self.usd_per_hour is None else self.hours(chips) * self.usd_per_hour


class Alternative(BaseModel):
    """The same run with chips of another size, at the same chips per hour."""

    model_config = ConfigDict(frozen=True)

    size: int
    """Pixels per side."""
    km2_per_chip: float
    km2_per_usd: float | None
    chips: int
    usd: float | None
    bytes: int
    """Of embeddings, and of patches where they are asked for, to store."""
    land_chips: int
    land_usd: float | None
    land_bytes: int
    earth_usd: float | None
    """For the whole surface, seas included."""


def stored_bytes(chips: float, dimensions: int, dtype: Dtype, patches: float = 0) -> int:
    """Bytes that embeddings take in published files, with so many patches a chip."""
    vector = dimensions * BYTES_A_VALUE[dtype]
    return round(chips * (vector + BYTES_A_ROW + patches * vector))


def alternatives(
    chips: int, size: int, gsd: float, rates: Rates | None, *, dimensions: int, dtype: Dtype, patches: int = 0
) -> list[Alternative]:
    """The table of alternatives.

    Args:
        chips: counted for the size of the spec; other sizes are scaled by the ground of a chip.
        size: pixels per side in the spec.
        gsd: meters a pixel.
        rates: None where neither spec nor machine says.
        dimensions: of an embedding.
        dtype: of its stored values.
        patches: of a chip of this size; they grow with its area.
    """
    found = []
    for other in sorted({*SIZES, size}):
        ground = (other * gsd / 1000) ** 2
        mine = round(chips * (size / other) ** 2)
        everywhere = round(land_km2() / ground)
        a_chip = None if rates is None else rates.usd(1)
        inside = patches * (other / size) ** 2
        found.append(
            Alternative(
                size=other,
                km2_per_chip=ground,
                km2_per_usd=ground / a_chip if a_chip else None,
                chips=mine,
                usd=None if a_chip is None else mine * a_chip,
                bytes=stored_bytes(mine, dimensions, dtype, inside),
                land_chips=everywhere,
                land_usd=None if a_chip is None else everywhere * a_chip,
                land_bytes=stored_bytes(everywhere, dimensions, dtype, inside),
                earth_usd=None if a_chip is None else EARTH_KM2 / ground * a_chip,
            )
        )
    return found


@cache
def land_km2() -> float:
    """Land within the limits of the `utm` grid."""
    return read_area("land").within().km2


def bytes_to_read(considered: Sequence[Considered], counts: Counts, bands: int, pixels: int) -> int:
    """Of the best image of each chip: by the size of local files, else by their pixels as they usually compress."""
    a_chip = bands * pixels * _PIXEL * _COMPRESSION
    total = 0.0
    for each, chips in zip(considered, counts.by_item.tolist(), strict=True):
        if not chips:
            continue
        item, size = each.item, _size(each.item)
        whole = item.grid.height * item.grid.width / pixels if item.grid is not None else 0.0
        total += chips * a_chip if size is None or not whole else size * min(1.0, chips / whole)
    return round(total * counts.with_imagery / counts.per_scene) if counts.per_scene else 0


def _size(item: SourceItem) -> int | None:
    hrefs = item.texts.hrefs
    files = {hrefs[band.asset].removeprefix("file://") for band in item.common.bands}
    if any(is_url(file) or not Path(file).is_file() for file in files):
        return None
    return sum(Path(file).stat().st_size for file in files)
