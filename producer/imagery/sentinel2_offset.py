"""Sentinel-2's +1000 offset of processing baseline 04.00: whether the pixels agree with what the item says."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from clay_publish.producer.sources.item import SourceItem

FULL = 1000
"""What the baseline adds to every value."""

_NOISE = 100
"""Values this far below the offset are reflectances below −1 %: noise goes no further."""
_SHARE = 0.01
_ENOUGH = 10_000
_STEP = 4
"""Every so many rows and columns: to look at all of them would cost a tenth of reading them."""


@dataclass
class _ItemPixels:
    item: SourceItem
    pixels: int = 0
    low: int = 0
    smallest: float = np.inf


@dataclass
class OffsetWatch:
    """Looks at raw values in passing, and says in the end where they contradict their item."""

    seen: dict[str, _ItemPixels] = field(default_factory=dict)

    def look(
        self, item: SourceItem, values: Sequence[npt.NDArray[np.generic]], valid: Sequence[npt.NDArray[np.bool_]]
    ) -> None:
        """Raw values of an image by band, and where they are data."""
        if item.baseline is None:
            return
        seen = self.seen.setdefault(item.id, _ItemPixels(item))
        for band, has in zip(values, valid, strict=True):
            data = band[::_STEP, ::_STEP][has[::_STEP, ::_STEP]].astype(np.float32)
            seen.pixels += data.size
            seen.low += int(np.count_nonzero(data < FULL - _NOISE))
            seen.smallest = min(seen.smallest, float(data.min(initial=np.inf)))

    def notes(self) -> list[str]:
        """A sentence for each image whose pixels contradict it."""
        return [note for seen in self.seen.values() if seen.pixels >= _ENOUGH for note in _doubt(seen)]


def _doubt(seen: _ItemPixels) -> list[str]:
    item = seen.item
    if item.offset and seen.low > _SHARE * seen.pixels:
        share = seen.low / seen.pixels
        return [_note(item, f"in its pixels, and it was taken off; yet {share:.0%} are below {FULL - _NOISE}")]
    if not item.offset and item.baseline is not None and item.baseline >= 4 and seen.smallest >= FULL:
        return [_note(item, f"no longer in its pixels; yet none of any band is below {seen.smallest:.0f}")]
    return []


def _note(item: SourceItem, rest: str) -> str:
    return f"item {item.id} of baseline {item.baseline:05.2f} says that +{FULL} is {rest}"
