"""Reading Clay's checkpoints: no code in them is run, and what does not fit is refused.

Source: https://huggingface.co/made-with-clay/Clay. The files are Lightning's; the teacher and the optimizer in them
are never read.
"""

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from clay_publish.errors import EncoderError
from clay_publish.producer.encoders.clay_model import ClayDecoder, ClayEncoder, Sizes

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
        raise EncoderError(str(path), "is no PyTorch checkpoint, or is cut short", "the whole file that Clay published")
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
    return state


def build_encoder(state: Mapping[str, Tensor], path: Path) -> tuple[ClayEncoder, Sizes]:
    """The encoder of a checkpoint, and its sizes.

    Raises:
        EncoderError: tensors are missing, too many, or of another shape.
    """
    part = _part(state, _ENCODER, path)
    if "cls_token" not in part:
        raise EncoderError(str(path), f"has no {_ENCODER}cls_token", "a checkpoint of Clay v1 or later")
    sizes = _sizes(part, "cls_token", _ENCODER_HEADS, path)
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


def _sizes(part: Mapping[str, Tensor], token: str, heads: Mapping[int, int], path: Path) -> Sizes:
    first = "transformer.layers.0."
    try:
        dim = part[token].shape[-1]
        inner = part[f"{first}0.to_qkv.weight"].shape[0] // 3
        hidden = part[f"{first}1.net.1.weight"].shape[0]
    except (KeyError, IndexError) as error:
        raise EncoderError(str(path), f"has no transformer like Clay's ({error})", "a checkpoint of Clay") from error
    depth = 1 + max(int(found[1]) for key in part if (found := _LAYER.match(key)))
    if inner not in heads:
        known = ", ".join(str(width) for width in heads)
        raise EncoderError(str(path), f"has attention {inner} wide", f"one of {known}: their number of heads is known")
    return Sizes(dim=dim, depth=depth, inner=inner, heads=heads[inner], hidden=hidden)


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
