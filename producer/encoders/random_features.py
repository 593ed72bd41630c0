"""Random convolutional features: a default that needs no weights.

Source: Rolf et al. 2021, "A generalizable and accessible approach to machine learning with global satellite imagery"
(MOSAIKS), https://doi.org/10.1038/s41467-021-24638-z.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch.nn import functional

from clay_publish.errors import EncoderError
from clay_publish.producer.encoders.base import ChipBatch, Encoded, Floats
from clay_publish.producer.encoders.weights import resolve_device
from clay_publish.spec.models import Spec
from clay_publish.spec.sensors import BandStatistics, Sensor

SEED = 0
FILTERS = 256
"""Each gives two features: the response above its bias, and below."""
KERNEL = 3
STRIDE = 2
"""Every other row and column is looked at: a third of the time, and as good in benchmarks/quality."""
STRIP = 32
"""Rows of responses computed at a time: few enough to stay in a core's cache, which is where the speed comes from."""


def load(spec: Spec, sensor: Sensor) -> "RandomFeatures":
    """Filters for all bands of a sensor.

    Raises:
        EncoderError: the spec asks for what random features do not have.
    """
    asked = {
        "model.weights": spec.model.weights is not None,
        "model.precision: bfloat16": spec.model.precision == "bfloat16",
        "outputs.loss": spec.outputs.loss,
        "outputs.patches": spec.outputs.patches is not False,
    }
    for key, present in asked.items():
        if present:
            raise EncoderError(key, "is not something that random-features has", fix="Leave it out, or use `clay`.")
    encoder = RandomFeatures.of(sensor, resolve_device())
    if spec.model.sha256 not in {None, encoder.weights_sha256}:
        raise EncoderError(
            "model.sha256", f"is {spec.model.sha256}", f"{encoder.weights_sha256}, the generated filters'"
        )
    return encoder


@dataclass
class RandomFeatures:
    """ReLU(±(response − bias)) of seeded Gaussian 3×3 filters over normalized bands, averaged over the chip.

    Chips go through one by one, in strips whose height depends on nothing but this code: a vector is the same to the
    bit whatever its batch and neighbors.
    """

    bands: tuple[BandStatistics, ...]
    filters: torch.Tensor
    """[FILTERS, C, KERNEL, KERNEL]."""
    biases: torch.Tensor
    """[FILTERS]."""
    weights_sha256: str | None
    device: str

    key: str = "random-features"
    version: str = "1"
    model_name: str = "Random convolutional features (MOSAIKS)"
    model_link: str = "https://doi.org/10.1038/s41467-021-24638-z"
    dimensions: int = 2 * FILTERS
    padding: str = "none"
    metadata: Literal["tutorial", "zeros", "none"] = "none"
    precision: Literal["float32", "bfloat16"] = "float32"
    patch_layers: tuple[int, ...] = ()
    patches: int = 0

    @classmethod
    def of(cls, sensor: Sensor, device: torch.device) -> "RandomFeatures":
        """Generate the filters for a sensor's bands."""
        bands = tuple(band.statistics for band in sensor.bands)
        filters, biases = generate(len(bands))
        digest = hashlib.sha256(filters.astype("<f4").tobytes() + biases.astype("<f4").tobytes()).hexdigest()
        return cls(
            bands,
            torch.from_numpy(filters).to(device, memory_format=torch.channels_last),
            torch.from_numpy(biases).to(device),
            digest,
            str(device),
        )

    @property
    def parameters(self) -> dict[str, Any]:
        """What else decides the vectors."""
        return {"seed": SEED, "filters": FILTERS, "kernel": KERNEL, "stride": STRIDE}

    def encode(self, chips: ChipBatch) -> Encoded:
        """Embed a batch; [B, 2 × FILTERS]: first the responses above the biases, then those below."""
        pixels = torch.from_numpy(chips.pixels).to(self.device, memory_format=torch.channels_last)
        # TF32 on a GPU would keep three digits.
        with torch.inference_mode(), torch.backends.cudnn.flags(deterministic=True, allow_tf32=False):
            return Encoded(torch.stack([self._features(chip) for chip in pixels]).cpu().numpy())

    def _features(self, chip: torch.Tensor) -> torch.Tensor:
        _, height, width = chip.shape
        rows, columns = ((side - KERNEL) // STRIDE + 1 for side in (height, width))
        above = torch.zeros(FILTERS, dtype=torch.float64, device=chip.device)
        total = torch.zeros_like(above)
        for top in range(0, rows, STRIP):
            bottom = min(top + STRIP, rows) - 1
            strip = chip[None, :, top * STRIDE : bottom * STRIDE + KERNEL]
            responses = functional.conv2d(strip, self.filters, -self.biases, stride=STRIDE)
            total += responses.sum((0, 2, 3))
            above += responses.clamp_min_(0).sum((0, 2, 3))
        # ReLU(x) − ReLU(−x) = x: the responses below need no pass of their own.
        below = (above - total).clamp_min_(0)
        return (torch.cat([above, below]) / (rows * columns)).float()


def generate(bands: int) -> tuple[Floats, Floats]:
    """Filters [FILTERS, bands, KERNEL, KERNEL] and biases [FILTERS], the same on every machine.

    A filter has unit variance on white noise, so biases of unit variance cut where the responses are.
    """
    generator = np.random.Generator(np.random.Philox(SEED))
    taps = bands * KERNEL * KERNEL
    filters = generator.standard_normal((FILTERS, bands, KERNEL, KERNEL)) / np.sqrt(taps)
    return filters.astype(np.float32), generator.standard_normal(FILTERS).astype(np.float32)
