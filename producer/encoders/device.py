"""On which device, and in which precision, a model runs."""

from typing import Literal

import torch

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
