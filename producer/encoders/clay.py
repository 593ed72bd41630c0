"""Clay, https://github.com/Clay-foundation/model: the embedding of a chip is its class token."""

import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from clay_publish.errors import EncoderError
from clay_publish.producer.encoders.base import ChipBatch, Encoded, Floats
from clay_publish.producer.encoders.clay_model import (
    MASKED,
    METADATA,
    PATCH,
    ClayDecoder,
    ClayEncoder,
    Sizes,
    reconstruction_loss,
)
from clay_publish.producer.encoders.weights import Precision, find_weights, resolve_device, resolve_precision
from clay_publish.spec.models import Outputs, Spec
from clay_publish.spec.sensors import BandStatistics, Sensor

_ENCODER = "model.encoder."
_DECODER = "model.decoder."
_LAYER = re.compile(r"transformer\.layers\.(\d+)\.")

# A checkpoint does not say how many heads it has: by width, of the published models and of the one in the tests.
_ENCODER_HEADS = {96: 3, 192: 4, 384: 6, 768: 12, 1024: 16}
_DECODER_HEADS = {48: 2, 96: 2, 256: 4, 384: 6, 512: 8}

_Part = TypeVar("_Part", bound=nn.Module)


def read_checkpoint(path: Path) -> Mapping[str, Tensor]:
    """The tensors of a checkpoint, memory-mapped.

    Raises:
        EncoderError: no checkpoint, cut short, or one that would run code.
    """
    if not zipfile.is_zipfile(path):
        raise EncoderError(str(path), "is not a PyTorch checkpoint, or is truncated", "the file that Clay published")
    try:
        document = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise EncoderError(
            str(path), "holds more than tensors, or is damaged", "tensors alone", "Nothing in it was run."
        ) from error
    except Exception as error:  # a damaged file makes torch stumble over anything
        raise EncoderError(
            str(path), f"is a damaged checkpoint ({type(error).__name__}: {_first_line(error)})"
        ) from error
    state = document.get("state_dict") if isinstance(document, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise EncoderError(str(path), "has no state_dict of tensors", "a checkpoint of Clay")
    size = path.stat().st_size
    for name, value in state.items():
        # A view that repeats a few stored numbers takes no room in the file, and all of it once it is copied.
        claimed = value.numel() * value.element_size()
        if claimed > size:
            raise EncoderError(
                str(path),
                f"has a tensor {name} of {claimed:,} bytes in a file of {size:,} bytes",
                "tensors that are stored in full",
            )
    return state


def build_encoder(state: Mapping[str, Tensor], path: Path, heads: int | None = None) -> tuple[ClayEncoder, Sizes]:
    """The encoder of a checkpoint, and its sizes.

    Raises:
        EncoderError: tensors are missing, too many, or of another shape.
    """
    part = _part(state, _ENCODER, path)
    if "cls_token" not in part:
        raise EncoderError(str(path), f"has no {_ENCODER}cls_token", "a checkpoint of Clay v1 or later")
    sizes = _sizes(part, "cls_token", _ENCODER_HEADS, path, heads)
    with torch.device("meta"):
        encoder = ClayEncoder(sizes)
    return _filled(encoder, part, path), sizes


def build_decoder(state: Mapping[str, Tensor], encoder: Sizes, path: Path) -> ClayDecoder:
    """The decoder of a checkpoint.

    Raises:
        EncoderError: as `build_encoder`.
    """
    part = _part(state, _DECODER, path)
    if "mask_patch" not in part:
        raise EncoderError(str(path), f"has no {_DECODER}mask_patch", "the decoder, which outputs.loss needs")
    sizes = _sizes(part, "mask_patch", _DECODER_HEADS, path)
    with torch.device("meta"):
        decoder = ClayDecoder(sizes, encoder.dim)
    return _filled(decoder, part, path)


def _part(state: Mapping[str, Tensor], prefix: str, path: Path) -> dict[str, Tensor]:
    part = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    for key, value in part.items():
        if not (value.is_floating_point() and value.layout is torch.strided and value.device.type == "cpu"):
            raise EncoderError(
                str(path),
                f"has a {value.dtype} tensor on {value.device} as {prefix}{key}",
                "dense floating point numbers",
            )
    return part


def _sizes(
    part: Mapping[str, Tensor], token: str, known: Mapping[int, int], path: Path, heads: int | None = None
) -> Sizes:
    first = "transformer.layers.0."
    try:
        dim = part[token].shape[-1]
        inner = part[f"{first}0.to_qkv.weight"].shape[0] // 3
        hidden = part[f"{first}1.net.1.weight"].shape[0]
    except (KeyError, IndexError) as error:
        raise EncoderError(str(path), f"has no transformer like Clay's ({error})", "a checkpoint of Clay") from error
    depth = 1 + max(int(found[1]) for key in part if (found := _LAYER.match(key)))
    count = known.get(inner, heads)
    if count is None:
        widths = ", ".join(str(width) for width in known)
        raise EncoderError(
            str(path),
            f"has attention {inner} wide",
            f"one of {widths}: their number of heads is known",
            "State `model.heads`."
            if known is _ENCODER_HEADS
            else "Set `outputs.loss: false`: it alone needs the decoder.",
        )
    if inner % count or (heads is not None and heads != count):
        raise EncoderError("model.heads", f"is {heads}", f"{count}" if inner in known else f"a divisor of {inner}")
    return Sizes(dim=dim, depth=depth, inner=inner, heads=count, hidden=hidden)


def _filled(module: _Part, part: Mapping[str, Tensor], path: Path) -> _Part:
    # Copies: the run must not depend on what happens to the file.
    tensors = {key: value.to(torch.float32, copy=True) for key, value in part.items()}
    try:
        module.load_state_dict(tensors, strict=True, assign=True)
    except RuntimeError as error:
        raise EncoderError(str(path), f"does not fit Clay ({' '.join(str(error).split())[:500]})") from error
    return module.eval().requires_grad_(requires_grad=False)


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]


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
    encoder, sizes = build_encoder(state, weights.path, spec.model.heads)
    decoder = build_decoder(state, sizes, weights.path) if spec.outputs.loss else None
    layers = _patch_layers(spec.outputs, sizes.depth)
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
    """Pixels per side of the chips it will get."""
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
        """What is added to chips whose side is not a multiple of a patch."""
        return f"reflect, {self._missing} px right and below" if self._missing else "none"

    @property
    def patches(self) -> int:
        """Patch embeddings of a chip, all layers together."""
        return len(self.patch_layers) * ((self.side + self._missing) // PATCH) ** 2

    @property
    def _missing(self) -> int:
        return -self.side % PATCH

    def encode(self, chips: ChipBatch) -> Encoded:
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

    def encode_metadata(self, chips: ChipBatch) -> Floats:
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


def _patch_layers(outputs: Outputs, depth: int) -> tuple[int, ...]:
    asked = outputs.patch_layers
    if asked is None:
        return (depth,) if outputs.patches else ()
    beyond = [layer for layer in asked if layer > depth]
    if beyond:
        raise EncoderError("outputs.patches.layers", f"names layer {beyond[0]}", f"1 to {depth}, the model's layers")
    return tuple(sorted(set(asked)))


def _usable_bands(sensor: Sensor) -> tuple[BandStatistics, ...]:
    for band in sensor.bands:
        if not (band.wavelength > 0 and band.std > 0):
            raise EncoderError(
                f"sensor {sensor.key}, band {band.name}",
                f"has wavelength {band.wavelength} µm and standard deviation {band.std}",
                "both above 0: Clay makes its weights from wavelengths",
            )
    return tuple(band.statistics for band in sensor.bands)
