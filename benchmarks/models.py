"""Models: Clay against the machine's matmul peak, random features against a loop over chips."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scenes import SENSOR
from torch.nn import functional

from clay_publish.producer.encoders import ChipBatch, Encoder, load_encoder
from clay_publish.producer.encoders.clay_model import PATCH, ClayEncoder, Sizes
from clay_publish.producer.encoders.random_features import RandomFeatures
from clay_publish.producer.encoders.weights import resolve_device, resolve_precision
from clay_publish.producer.execution.context import EncoderPool
from clay_publish.spec.models import Spec

Row = tuple[str, str, str]
LARGE = Sizes(dim=1024, depth=24, inner=16 * 64, heads=16, hidden=4096)


def chips(count: int, size: int) -> ChipBatch:
    generator = np.random.default_rng(0)
    pixels = generator.standard_normal((count, len(SENSOR.bands), size, size), dtype=np.float32)
    where = generator.uniform(-60, 60, (2, count))
    return ChipBatch(pixels, where[0], where[1], [datetime(2024, 6, 1, 12, tzinfo=UTC)] * count, 10.0)


def best(do: Callable[[], object], times: int = 3) -> float:
    """Seconds of the fastest of some runs; a GPU is waited for."""
    found = []
    for _ in range(times):
        begun = time.perf_counter()
        do()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        found.append(time.perf_counter() - begun)
    return min(found)


def peak(dtype: torch.dtype, device: torch.device, side: int = 4096) -> float:
    """Operations a second of a square matmul."""
    side = side if device.type == "cpu" else 2 * side
    a, b = (torch.randn(side, side, device=device, dtype=torch.float32).to(dtype) for _ in range(2))
    torch.mm(a, b)
    return 2 * side**3 / best(lambda: torch.mm(a, b))


def operations(size: int) -> float:
    """Multiplications and additions of Clay large for a chip: its linear layers and its attention."""
    tokens = 1 + (size // PATCH) ** 2
    layer = tokens * (4 * LARGE.dim * LARGE.inner + 2 * LARGE.dim * LARGE.hidden) + 2 * tokens**2 * LARGE.inner
    embedding = (tokens - 1) * PATCH**2 * len(SENSOR.bands) * LARGE.dim
    return 2.0 * (LARGE.depth * layer + embedding)


def clay(folder: Path) -> Encoder:
    """Clay large with seeded weights, from a checkpoint such as is published."""
    path = folder / "clay-large.ckpt"
    if not path.exists():
        torch.manual_seed(0)
        encoder = ClayEncoder(LARGE)
        state = {f"model.encoder.{name}": value for name, value in encoder.state_dict().items()}
        torch.save({"state_dict": state}, path)
    precision = resolve_precision("auto", resolve_device())
    model = {"encoder": "clay", "weights": str(path), "precision": precision}
    return load_encoder(_spec(model), SENSOR)


def _spec(model: dict[str, str]) -> Spec:
    imagery = {"stac": ["none"], "sensor": SENSOR.key}
    return Spec.model_validate({"name": "models", "imagery": [imagery], "model": model})


def clay_rows(folder: Path) -> Iterator[Row]:
    device = resolve_device()
    encoder = clay(folder)
    model = EncoderPool(encoder)
    dtype = getattr(torch, encoder.precision)
    most = peak(dtype, device)
    yield f"matmul peak, {encoder.precision}, {device}", f"{most / 1e9:.0f} GFLOP/s", "1"
    for size in (128, 256) if device.type == "cuda" else (128,):
        count = 4 if device.type == "cpu" else 512
        batch = chips(count, size)
        model.encode(batch)
        speed = count / best(partial(model.encode, batch))
        share = speed * operations(size) / most
        yield (
            f"Clay large, {size} px, {encoder.precision}, {device}",
            f"{speed:.2f} chips/s",
            f"{share:.0%} of the peak",
        )
    if device.type != "cuda":
        yield "Clay large on a GPU", "not run: this machine has none", ""


def random_feature_rows(_: Path) -> Iterator[Row]:
    encoder = RandomFeatures.of(SENSOR, resolve_device())
    model = EncoderPool(load_encoder(_spec({"encoder": "random-features"}), SENSOR))
    for size, count in ((128, 64), (256, 16)):
        batch = chips(count, size)
        model.encode(batch)
        loop = count / best(partial(_loop, encoder, batch))
        ours = count / best(partial(model.encode, batch))
        yield f"random features, {size} px: a loop over chips", f"{loop:.1f} chips/s", "1"
        yield f"random features, {size} px: this", f"{ours:.1f} chips/s", f"{ours / loop:.1f} × the first"


@torch.inference_mode()
def _loop(encoder: RandomFeatures, batch: ChipBatch) -> None:
    """As TorchGeo's RCF: the whole chip at once, positive and negative responses each by themselves."""
    for chip in torch.from_numpy(batch.pixels).to(encoder.device):
        responses = functional.conv2d(chip[None], encoder.filters.contiguous(), encoder.biases)
        above = functional.relu(responses)
        below = functional.relu(-responses)
        torch.cat([functional.adaptive_avg_pool2d(part, (1, 1)).flatten() for part in (above, below)]).cpu()
