"""Clay, https://github.com/Clay-foundation/model: the embedding of a chip is its class token."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from clay_publish.errors import EncoderError
from clay_publish.fingerprint import BandStatistics
from clay_publish.producer.encoders.base import Chips, Encoded, Floats
from clay_publish.producer.encoders.clay_checkpoint import build_decoder, build_encoder, read_checkpoint
from clay_publish.producer.encoders.clay_layers import PATCH
from clay_publish.producer.encoders.clay_model import (
    MASKED,
    METADATA,
    ClayDecoder,
    ClayEncoder,
    Sizes,
    reconstruction_loss,
)
from clay_publish.producer.encoders.device import Precision, resolve_device, resolve_precision
from clay_publish.producer.encoders.weights import find_weights
from clay_publish.producer.sensors import Sensor
from clay_publish.spec import Patches, Spec

_NAMES = {192: "Clay tiny", 384: "Clay small", 768: "Clay v1 base", 1024: "Clay v1.5 large"}
_MASK_SEED = 0


def load(spec: Spec, sensor: Sensor) -> "Clay":
    """Clay with the weights of a checkpoint, tuned to the bands of a sensor.

    Raises:
        EncoderError: the weights cannot be used, or not for this sensor or these outputs.
    """
    bands = _usable_bands(sensor)
    weights = find_weights(spec.model)
    state = read_checkpoint(weights.path)
    encoder, sizes = build_encoder(state, weights.path)
    decoder = build_decoder(state, sizes, weights.path) if spec.outputs.loss else None
    layers = _patch_layers(spec.outputs.patches, sizes.depth)
    device = resolve_device()
    precision = resolve_precision(spec.model.precision, device)
    wavelengths = torch.tensor([band.wavelength for band in bands])
    for module in (encoder, decoder):
        if module is not None:
            with torch.inference_mode():
                module.tune(wavelengths)
            module.transformer.multiply_in(getattr(torch, precision))
            module.to(device)
    return Clay(
        encoder=encoder,
        decoder=decoder,
        sizes=sizes,
        bands=bands,
        side=spec.chips.size,
        weights_sha256=weights.sha256,
        metadata=spec.model.metadata,
        precision=precision,
        device=str(device),
        patch_layers=layers,
    )


@dataclass
class Clay:
    """A checkpoint's encoder, and its decoder where the loss is wanted."""

    encoder: ClayEncoder
    decoder: ClayDecoder | None
    sizes: Sizes
    bands: tuple[BandStatistics, ...]
    side: int
    """Pixels a side of the chips it will get."""
    weights_sha256: str | None
    metadata: Literal["tutorial", "zeros", "none"]
    precision: Precision
    device: str
    patch_layers: tuple[int, ...]

    key: str = "clay"
    version: str = "1"
    model_link: str = "https://huggingface.co/made-with-clay/Clay"

    @property
    def model_name(self) -> str:
        """By the size of its tensors."""
        return _NAMES.get(self.sizes.dim, f"Clay with {self.sizes.dim} dimensions")

    @property
    def dimensions(self) -> int:
        """Length of an embedding."""
        return self.sizes.dim

    @property
    def parameters(self) -> dict[str, Any]:
        """Shape of the encoder; the mask, where the loss is wanted."""
        shape = {"depth": self.sizes.depth, "heads": self.sizes.heads, "mlp": self.sizes.hidden, "patch_size": PATCH}
        if self.decoder is None:
            return shape
        return {**shape, "loss_masked": MASKED, "loss_mask_seed": _MASK_SEED}

    @property
    def padding(self) -> str:
        """What is added to chips whose side is no multiple of a patch."""
        return f"reflect, {self._missing} px right and below" if self._missing else "none"

    @property
    def patches(self) -> int:
        """Patch embeddings of a chip, all layers together."""
        return len(self.patch_layers) * ((self.side + self._missing) // PATCH) ** 2

    @property
    def _missing(self) -> int:
        return -self.side % PATCH

    def encode(self, chips: Chips) -> Encoded:
        """Embed a batch of square chips: the class tokens, and the patches of `patch_layers`."""
        pixels = torch.from_numpy(chips.pixels).to(self.device)
        metadata = torch.from_numpy(self.encode_metadata(chips)).to(self.device)
        # On a CPU one chip at a time is as fast as many, and gives the same bits whatever the batch.
        step = 1 if pixels.device.type == "cpu" else len(pixels)
        with torch.inference_mode(), torch.backends.cudnn.flags(deterministic=True, allow_tf32=False):
            padded = functional.pad(pixels, (0, self._missing, 0, self._missing), "reflect")
            parts = [
                self._encode(some, about, chips.gsd)
                for some, about in zip(torch.split(padded, step), torch.split(metadata, step), strict=True)
            ]
        embeddings, losses, patches = zip(*parts, strict=True)
        return Encoded(
            _joined(embeddings),
            _joined(losses) if self.decoder is not None else None,
            _joined(patches) if self.patch_layers else None,
        )

    def encode_metadata(self, chips: Chips) -> Floats:
        """Time and place as Clay's tutorials tell them, or zeros: [B, 8].

        Sine and cosine of the ISO week (of 52), the hour (of 24), latitude and longitude.
        """
        if self.metadata == "zeros":
            return np.zeros((len(chips.lon), METADATA), np.float32)
        weeks = np.array([time.isocalendar().week for time in chips.times]) * 2 * np.pi / 52
        hours = np.array([time.hour for time in chips.times]) * 2 * np.pi / 24
        angles = (weeks, hours, np.radians(chips.lat), np.radians(chips.lon))
        return np.stack([wave(angle) for angle in angles for wave in (np.sin, np.cos)], axis=1).astype(np.float32)

    def _encode(self, pixels: Tensor, metadata: Tensor, gsd: float) -> tuple[Tensor, Tensor, Tensor]:
        tokens, layers = self.encoder(pixels, metadata, gsd, None, self.patch_layers)
        loss = patches = tokens[:0]
        if self.decoder is not None:
            order = mask_order((pixels.shape[-1] // PATCH) ** 2).to(pixels.device)
            loss = reconstruction_loss(self.encoder, self.decoder, pixels, metadata, gsd=gsd, order=order)
        if layers:
            side = pixels.shape[-1] // PATCH
            patches = torch.unflatten(torch.stack(layers, dim=1)[:, :, 1:], 2, (side, side))
        return tokens[:, 0], loss, patches


def mask_order(patches: int) -> Tensor:
    """The order in which a chip's patches are hidden, the same for every chip: [patches]."""
    return torch.from_numpy(np.random.Generator(np.random.Philox(_MASK_SEED)).permutation(patches))


def _joined(parts: tuple[Tensor, ...]) -> Floats:
    joined: Floats = torch.cat(parts).float().cpu().numpy()
    return joined


def _patch_layers(asked: bool | Patches, depth: int) -> tuple[int, ...]:
    if isinstance(asked, bool):
        return (depth,) if asked else ()
    beyond = [layer for layer in asked.layers if layer > depth]
    if beyond:
        raise EncoderError("outputs.patches.layers", f"names layer {beyond[0]}", f"1 to {depth}, the model's layers")
    return tuple(sorted(set(asked.layers)))


def _usable_bands(sensor: Sensor) -> tuple[BandStatistics, ...]:
    for band in sensor.bands:
        if not (band.wavelength > 0 and band.std > 0):
            raise EncoderError(
                f"sensor {sensor.key}, band {band.name}",
                f"has wavelength {band.wavelength} µm and standard deviation {band.std}",
                "both above 0: Clay makes its weights from wavelengths",
            )
    return tuple(band.statistics for band in sensor.bands)
