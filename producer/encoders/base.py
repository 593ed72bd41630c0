"""What every encoder takes and gives."""

import difflib
import importlib
import importlib.util
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from clay_publish.errors import MissingExtraError, SpecError
from clay_publish.spec.models import Spec
from clay_publish.spec.sensors import BandStatistics, Sensor

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Steps:
    """The time steps of chips."""

    there: npt.NDArray[np.bool_]
    """[B, T]; a chip that lacks a step has the mean there, 0 in all bands."""
    dates: npt.NDArray[np.int64]
    """[B, T, 3]: year, month and day, UTC; of a step that lacks, the middle of its time."""

    def only(self, which: Any) -> "Steps":
        """Those of some chips."""
        return Steps(self.there[which], self.dates[which])


@dataclass(frozen=True)
class ChipBatch:
    """A batch of chips of one sensor and one ground size."""

    pixels: Floats
    """[B, C, H, W], or [B, T, C, H, W] with steps, normalized as the encoder's `bands` say; 0 without data."""
    lon: npt.NDArray[np.float64]
    """[B], degrees, WGS 84, center of the pixels."""
    lat: npt.NDArray[np.float64]
    """[B]."""
    times: list[datetime]
    """[B], UTC."""
    gsd: float
    """Meters: the real ground size of these pixels."""
    steps: Steps | None = None
    """Where the encoder takes time steps."""


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
    """The bands it takes, in order, and their normalization."""
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

    def encode(self, chips: ChipBatch) -> Encoded:
        """Embed a batch. Several threads call it at once."""
        ...


ENCODERS = {
    "random-features": "random_features",
    "clay": "clay",
    "exported": "exported",
}
"""Key in the spec → module of this package with a function `load(spec, sensor) -> Encoder`."""


def load_encoder(spec: Spec, sensor: Sensor) -> Encoder:
    """The encoder that a spec names, ready to run on this sensor.

    Raises:
        SpecError: unknown encoder; the message names the nearest.
        MissingExtraError: torch is not installed.
        EncoderError: the model cannot be loaded, or cannot take this sensor, chip size or output.
    """
    key = spec.model.encoder
    if key not in ENCODERS:
        near = difflib.get_close_matches(key, ENCODERS, n=1, cutoff=0.4)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise SpecError("model.encoder", f"{key!r} is unknown", fix=f"{hint}Known: {', '.join(ENCODERS)}.")
    if importlib.util.find_spec("torch") is None:
        raise MissingExtraError(
            f"encoder {key}", "needs torch, which is not installed", fix="pip install 'clay-publish[produce]'"
        )
    module = importlib.import_module(f"clay_publish.producer.encoders.{ENCODERS[key]}")
    encoder: Encoder = module.load(spec, sensor)
    return encoder
