"""The arithmetic of composites: several observations of a pixel become one value per band.

Values are digital numbers of the sensor's definition (of radar, linear power) in float32, NaN where an image did not
observe the pixel. A reduction of your own is a function, added to `REDUCTIONS` under a name that begins with `x-`.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Protocol

import numpy as np
import numpy.typing as npt

from clay_publish.errors import SpecError
from clay_publish.spec.models import Composite

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Reduction = Callable[[Floats, Sequence[datetime]], Floats]
"""[images, bands, height, width] in the order of their acquisition, and when that was, to [bands, height, width]. Bands
come some at a time."""

MEMORY = 256_000_000
"""Bytes of the pixels of a superblock that are held at a time."""


REDUCTIONS: dict[str, Reduction] = {}
"""`imagery.composite.method` → a reduction of your own."""


class Reducer(Protocol):
    """Takes the images of a chip one after the other."""

    def add(self, values: Floats, seen: Bools, moment: datetime) -> None:
        """Take an image: [bands, height, width], where it observed the ground, of the same shape, and when."""
        ...

    def result(self) -> Floats:
        """[bands, height, width], float32."""
        ...


class _Mean:
    """Sums and counts in float64: exact for integers, so that the order of the images has no say."""

    def __init__(self) -> None:
        self._sum: npt.NDArray[np.float64] | float = 0.0
        self._count: npt.NDArray[np.int64] | int = 0

    def add(self, values: Floats, seen: Bools, _: datetime) -> None:
        self._sum = self._sum + np.where(seen, values, np.float32(0)).astype(np.float64)
        self._count = self._count + seen.astype(np.int64)

    def result(self) -> Floats:
        with np.errstate(invalid="ignore"):
            return np.asarray(np.divide(self._sum, self._count), dtype=np.float32)


class _Median:
    """The value in the middle; of an even number, half the sum of the two in the middle, in float32.

    Images are sorted pixel by pixel in a network of minima and maxima (Batcher's odd-even merge sort), several times
    faster than a sort of each pixel.
    """

    def __init__(self) -> None:
        self._layers: list[Floats] = []
        self._count: npt.NDArray[np.int64] | int = 0

    def add(self, values: Floats, seen: Bools, _: datetime) -> None:
        values[~seen] = np.inf
        self._layers.append(values)
        self._count = self._count + seen.astype(np.int64)

    def result(self) -> Floats:
        layers, smaller = self._layers, np.empty_like(self._layers[0])
        for low, high in _network(len(layers)):
            np.minimum(layers[low], layers[high], out=smaller)
            np.maximum(layers[low], layers[high], out=layers[high])
            layers[low], smaller = smaller, layers[low]
        made = np.zeros_like(smaller)
        for count in np.unique(self._count).tolist():
            if count:
                low, high = layers[(count - 1) // 2], layers[count // 2]
                middle = low if low is high else (low + high) / np.float32(2)
                np.copyto(made, middle, where=self._count == count)
        return made


def _network(count: int) -> Iterator[tuple[int, int]]:
    """Pairs of places to be put in order, one after the other, until all are."""
    merged = 1
    while merged < count:
        step = merged
        while step:
            for first in range(step % merged, count - step, 2 * step):
                for low in range(first, min(first + step, count - step)):
                    if low // (2 * merged) == (low + step) // (2 * merged):
                        yield low, low + step
            step //= 2
        merged *= 2


class _Stacked:
    """All images in memory."""

    def __init__(self, method: str, reduce: Reduction) -> None:
        self._method, self._reduce = method, reduce
        self._layers: list[tuple[datetime, int, Floats]] = []
        self._seen: Bools | None = None

    def add(self, values: Floats, seen: Bools, moment: datetime) -> None:
        values[~seen] = np.nan
        self._seen = seen if self._seen is None else self._seen | seen
        self._layers.append((moment, len(self._layers), values))

    def result(self) -> Floats:
        assert self._seen is not None, "there is an image"
        ordered = sorted(self._layers, key=lambda layer: layer[:2])
        stack = np.stack([values for _, _, values in ordered])
        stack[:, ~self._seen] = 0  # so that no function meets a pixel without any value; it is nodata anyway
        made = np.asarray(self._reduce(stack, [moment for moment, _, _ in ordered]), dtype=np.float32)
        if made.shape != stack.shape[1:]:
            raise SpecError(
                f"imagery.composite.method: {self._method}", f"gave shape {made.shape}", f"{stack.shape[1:]}"
            )
        return made


_REDUCERS: dict[str, Callable[[], Reducer]] = {"median": _Median, "mean": _Mean}


def reducer(composite: Composite) -> Reducer:
    """What reduces the images of one chip.

    Raises:
        SpecError: the reduction is not registered.
    """
    if composite.method in _REDUCERS:
        return _REDUCERS[composite.method]()
    if composite.method not in REDUCTIONS:
        known = ", ".join(sorted({"best", *_REDUCERS, *REDUCTIONS}))
        raise SpecError(
            "imagery.composite.method",
            f"{composite.method!r} is not registered",
            known,
            "Add your function to clay_publish.producer.imagery.composite.REDUCTIONS before the run, on every worker.",
        )
    return _Stacked(composite.method, REDUCTIONS[composite.method])


def superblock_side(limit: int, size: int, bands: int, composite: Composite | None, steps: int | None) -> int:
    """Pixels along a side of a superblock, so that what is held of it stays within `MEMORY`; at least one chip.

    Args:
        limit: of single images.
        size: of a chip.
        bands: of the sensor.
        composite: as the spec asks for it.
        steps: of time; None where the encoder takes one image.
    """
    held = 0 if composite is None else _images_held(composite)
    if composite is not None and _takes_all_bands(composite):
        held *= bands
    planes = max(held, 0 if steps is None else (steps + 1) * bands)
    if not planes:
        return limit
    side = min(limit, math.isqrt(MEMORY // (4 * planes)))
    return max(size, side // size * size)


def _takes_all_bands(composite: Composite) -> bool:
    """Whether it is a registered reduction: one that chooses an image per pixel would mix spectra otherwise."""
    return composite.method not in {"best", *_REDUCERS}


def bands_at_once(side: int, bands: int, composite: Composite) -> int:
    """Bands whose images are held at a time, so that these stay within `MEMORY`; the others are read after them."""
    if _takes_all_bands(composite):
        return bands
    return max(1, min(bands, MEMORY // (4 * side**2 * max(1, _images_held(composite)))))


def _images_held(composite: Composite) -> int:
    """Values of a pixel and band that are held, of 32 bits: of all images, or the sum and the count of a mean."""
    return {"best": 0, "mean": 3}.get(composite.method, composite.most)
