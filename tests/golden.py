"""The checkpoint behind the golden vectors: every value follows from the name of its tensor, so no file is kept."""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch

NAMES = Path(__file__).with_name("data") / "clay_golden.json"


def weights() -> dict[str, torch.Tensor]:
    """Clay's tensors in the order of a real checkpoint: uniform values around a mean, drawn from SHAKE-128.

    Raises:
        ValueError: the values are not those that the golden vectors were computed from.
    """
    document = json.loads(NAMES.read_text(encoding="utf-8"))
    tensors, digest = {}, hashlib.sha256()
    for name, (shape, mean, std) in document["tensors"].items():
        drawn = hashlib.shake_128(name.encode()).digest(2 * int(np.prod(shape)))
        unit = np.frombuffer(drawn, "<i2").astype(np.float32) / np.float32(2**15)
        values = np.float32(mean) + np.float32(std * 3**0.5) * unit
        digest.update(values.astype("<f4").tobytes())
        tensors[name] = torch.from_numpy(values.reshape(shape))
    if digest.hexdigest() != document["sha256"]:
        raise ValueError(f"{NAMES}: gives weights of SHA-256 {digest.hexdigest()}, expected {document['sha256']}")
    return tensors


def write_checkpoint(path: Path) -> Path:
    """Write the weights as PyTorch Lightning does."""
    settings = {"model_size": "custom", "mask_ratio": 0.75, "norm_pix_loss": False, "patch_size": 8, "shuffle": True}
    kept = {"epoch": 1, "global_step": 1, "pytorch-lightning_version": "2.4.0"}
    torch.save({"state_dict": weights(), "hyper_parameters": settings | {"teacher": "none"}, **kept}, path)
    return path
