"""What every encoder takes and gives."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from clay_publish.fingerprint import BandStatistics

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Chips:
    """A batch of chips of one sensor and one ground size."""

    pixels: Floats
    """[B, C, H, W], normalised as the encoder's `bands` say; 0 where there is no data."""
    lon: npt.NDArray[np.float64]
    """[B], degrees, WGS 84, centre of the pixels."""
    lat: npt.NDArray[np.float64]
    """[B]."""
    times: list[datetime]
    """[B], UTC."""
    gsd: float
    """Metres: the real ground size of these pixels."""


@dataclass(frozen=True)
class Encoded:
    """What an encoder gives for a batch. The values of a chip never depend on its batch."""

    embeddings: Floats
    """[B, D]."""
    loss: Floats | None = None
    """[B], where the encoder has one and the spec asks for it."""
    patches: Floats | None = None
    """[B, layers, rows, columns, D], where the spec asks for them."""


class Encoder(Protocol):
    """One model, ready to run on one sensor and chip size."""

    key: str
    """As in the spec: `random-features`, `clay`, `exported`."""
    version: str
    """Changes when this code changes vectors."""
    model_name: str
    model_link: str
    weights_sha256: str | None
    dimensions: int
    bands: tuple[BandStatistics, ...]
    """The bands it takes, in order, and their normalisation."""
    parameters: dict[str, Any]
    """JSON; whatever else decides its vectors."""
    padding: str
    """`none`, or what is added around chips of this size."""
    metadata: Literal["tutorial", "zeros", "none"]
    precision: Literal["float32", "bfloat16"]
    device: str
    """As torch names it."""
    patch_layers: tuple[int, ...]
    """Layers whose patch embeddings are given, 1 the first; empty: none."""
    patches: int
    """Patch embeddings that a chip has, all layers together; 0: none."""

    def encode(self, chips: Chips) -> Encoded:
        """Embed a batch. Several threads call it at once."""
        ...
