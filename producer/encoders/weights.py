"""Where the weights of a model lie, and whether they are the ones that were asked for."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from clay_publish.errors import EncoderError
from clay_publish.spec.models import ModelSpec
from clay_publish.storage.store import is_url

Precision = Literal["float32", "bfloat16"]


def resolve_device() -> torch.device:
    """A GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def resolve_precision(asked: Literal["float32", "bfloat16", "auto"], device: torch.device) -> Precision:
    """What `auto` means here: bfloat16 where the hardware multiplies it, else float32.

    Never float16: a CPU emulates it about a hundred times slower, and its range is too small for activations.
    """
    if asked != "auto":
        return asked
    return "bfloat16" if _multiplies_bfloat16(device) else "float32"


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Older torch cannot tell: float32 is always right.
    features = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(bool(features.get(name)) for name in ("amx_bf16", "avx512_bf16", "sve_bf16"))


_HUB = re.compile(r"hf://(?P<repo>[^/@]+/[^/@]+)(?:@(?P<revision>[^/]+))?/(?P<file>.+)")


@dataclass(frozen=True)
class Weights:
    """A model's file on this machine."""

    path: Path
    sha256: str


def find_weights(model: ModelSpec) -> Weights:
    """Find the file that `model.weights` names, fetch it from the Hub where it lies there, and hash it.

    Raises:
        EncoderError: no weights are named, they are missing, or their hash is not `model.sha256`.
    """
    if model.weights is None:
        raise EncoderError(
            "model.weights", "is missing", f"a file for the encoder {model.encoder}, or hf://OWNER/REPO/FILE"
        )
    path = local_file(model.weights)
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise EncoderError(str(path), f"cannot be read ({error.strerror})", "the model's file") from error
    if model.sha256 not in {None, digest}:
        raise EncoderError(
            str(path), f"has the SHA-256 {digest}", f"{model.sha256}, as model.sha256 says", "These are other weights."
        )
    return Weights(path, digest)


def local_file(address: str) -> Path:
    """Where a path or `hf://` address lies on this machine, fetched if need be.

    Raises:
        EncoderError: another kind of address, or the Hub does not give it.
    """
    if not is_url(address):
        return Path(address)
    found = _HUB.fullmatch(address)
    if found is None:
        raise EncoderError(
            "model.weights", f"is {address}", "a file, or hf://OWNER/REPO/FILE or hf://OWNER/REPO@REVISION/FILE"
        )
    try:
        return Path(hf_hub_download(found["repo"], found["file"], revision=found["revision"]))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise EncoderError(
            address, f"cannot be fetched ({' '.join(str(error).split())})", "a file on the Hub"
        ) from error
