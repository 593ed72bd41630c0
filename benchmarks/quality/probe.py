"""Do embeddings mean something? A linear probe on a real land cover map, and what int8 keeps.

    python benchmarks/quality/probe.py FOLDER_OF_TEST_DATA [--weights clay.ckpt]

Chips of Sentinel-2 over Aberystwyth (2021-05-27, 10 bands, 10 m) and the share of forest, grass, built or bare ground,
and water in each, from a map at 10 m. Ridge regression predicts the shares in blocks of 1.28 km that it never saw, nor
chips within 320 m of them; its penalty is chosen on other blocks of the training ground. Features that are compared:
mean and standard deviation of every band, random-features, and Clay where a checkpoint is given.
"""

import argparse
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import rasterio
from pyproj import Transformer

from clay_publish.producer.encoders import ChipBatch, load_encoder
from clay_publish.producer.outputs.parts import quantize
from clay_publish.spec.models import Spec
from clay_publish.spec.sensors import sensor

SENSOR = sensor("sentinel-2-l2a")
FOLDER = "s2_sref_aberystwyth_20210527_bng"
DN = 10  # the file holds reflectance × 1000, Clay's statistics are of reflectance × 10,000
BLOCK = 128
BUFFER = 32
BLOCKS = 16
CLASSES = ("forest", "grass", "built or bare", "water")
PENALTIES = 10.0 ** np.arange(-4, 5)

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True)
class Ground:
    """Chips and what is true of them."""

    chips: ChipBatch
    shares: Doubles
    """[n, classes]."""
    top: npt.NDArray[np.int64]
    left: npt.NDArray[np.int64]
    size: int

    def near(self, block: int, margin: int) -> npt.NDArray[np.bool_]:
        """Chips that touch a block, or the margin around it."""
        row, col = divmod(block, 512 // BLOCK)
        y, x = row * BLOCK - margin, col * BLOCK - margin
        side = BLOCK + 2 * margin
        down = (self.top + self.size > y) & (self.top < y + side)
        return down & (self.left + self.size > x) & (self.left < x + side)


def read_ground(folder: Path, size: int) -> Ground:
    with rasterio.open(folder / "sen2_20210527_aber_512.tif") as file:
        raw, transform, crs = file.read().astype(np.float32) * DN, file.transform, file.crs
    with rasterio.open(folder / "sen2_20210527_aber_512_cls.tif") as file:
        classes = file.read(1)
    count = 512 // size
    mean = np.array([b.mean for b in SENSOR.bands], np.float32)[:, None, None]
    std = np.array([b.std for b in SENSOR.bands], np.float32)[:, None, None]
    pixels = _tiles((raw - mean) / std, size)
    top, left = (place.ravel() * size for place in np.divmod(np.arange(count * count), count))
    x, y = transform * (left + size / 2, top + size / 2)
    lon, lat = Transformer.from_crs(crs, "OGC:CRS84", always_xy=True).transform(x, y)
    times = [datetime(2021, 5, 27, 11, 21, tzinfo=UTC)] * len(pixels)
    one_hot = np.stack([classes == n + 1 for n in range(len(CLASSES))])
    shares = _tiles(one_hot, size).mean((2, 3))
    return Ground(ChipBatch(pixels, np.asarray(lon), np.asarray(lat), times, 10.0), shares, top, left, size)


def _tiles(image: npt.NDArray[Number], size: int) -> npt.NDArray[Number]:
    bands, count = len(image), image.shape[1] // size
    cut = image.reshape(bands, count, size, count, size).transpose(1, 3, 0, 2, 4)
    return np.ascontiguousarray(cut.reshape(count * count, bands, size, size))


def band_statistics(chips: ChipBatch) -> Floats:
    return np.concatenate([chips.pixels.mean((2, 3)), chips.pixels.std((2, 3))], axis=1)


def probe(features: Floats, ground: Ground) -> tuple[float, float]:
    """R² of the shares over the held-out chips, and how often the largest share is the right one."""
    predicted = np.empty_like(ground.shares)
    held = [(ground.near(block, 0), ground.near(block, BUFFER)) for block in range(BLOCKS)]
    for block, (test, around) in enumerate(held):
        scores = []
        for step in (5, 9, 13):
            other, its_margin = held[(block + step) % BLOCKS]
            tested = other & ~around
            tried = Ridge(features, ground.shares, ~around & ~its_margin)
            scores.append([_r2(ground.shares[tested], tried.predict(features[tested], p)) for p in PENALTIES])
        best = PENALTIES[np.mean(scores, axis=0).argmax()]
        predicted[test] = Ridge(features, ground.shares, ~around).predict(features[test], best)
    right = predicted.argmax(1) == ground.shares.argmax(1)
    return _r2(ground.shares, predicted), float(right.mean())


class Ridge:
    """Ridge regression for any penalty. Features are centered and share one scale: seldom active ones stay small."""

    def __init__(self, features: Floats, target: Doubles, train: npt.NDArray[np.bool_]) -> None:
        x = features[train].astype(np.float64)
        self.center, self.level = x.mean(0), target[train].mean(0)
        self.scale = (x - self.center).std()
        u, self.strength, self.directions = np.linalg.svd((x - self.center) / self.scale, full_matrices=False)
        self.along = u.T @ (target[train] - self.level)

    def predict(self, features: Floats, penalty: float) -> Doubles:
        """[n, targets]."""
        seen = (features - self.center) / self.scale @ self.directions.T
        made: Doubles = (seen * (self.strength / (self.strength**2 + penalty))) @ self.along + self.level
        return made


def _r2(true: Doubles, guessed: Doubles) -> float:
    """Of all classes together."""
    return float(1 - ((true - guessed) ** 2).sum() / ((true - true.mean(0)) ** 2).sum())


def after_int8(vectors: Floats, neighbors: int = 10) -> tuple[float, float]:
    """Smallest cosine, and mean recall of the nearest neighbors by cosine."""
    stored, scale = quantize(vectors, "int8")
    assert scale is not None
    exact = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    coarse = stored.astype(np.float32) * scale[:, None]
    coarse /= np.linalg.norm(coarse, axis=1, keepdims=True)
    near = [_nearest(unit @ unit.T, neighbors) for unit in (exact, coarse)]
    shared = [len(set(a) & set(b)) / neighbors for a, b in zip(*near, strict=True)]
    return float((exact * coarse).sum(1).min()), float(np.mean(shared))


def _nearest(similarity: Floats, count: int) -> list[list[int]]:
    np.fill_diagonal(similarity, -np.inf)
    places: list[list[int]] = np.argpartition(-similarity, count, axis=1)[:, :count].tolist()
    return places


def encoder_features(ground: Ground, model: dict[str, str]) -> Floats:
    imagery = {"stac": "unused", "sensor": SENSOR.key}
    spec = Spec.model_validate(
        {
            "name": "probe",
            "imagery": imagery,
            "chips": {"size": ground.size},
            "model": {"precision": "float32", **model},
        }
    )
    return load_encoder(spec, SENSOR).encode(ground.chips).embeddings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help=f"folder that holds {FOLDER}")
    parser.add_argument("--weights", help="a checkpoint of Clay, to be compared as well")
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 32, 64], help="pixels per side of the chips")
    asked = parser.parse_args()
    encoders = {"random-features": {"encoder": "random-features"}}
    if asked.weights:
        encoders["clay"] = {"encoder": "clay", "weights": asked.weights}
    print("| chips | features | numbers | R² of shares | largest share right | int8: cosine ≥ | recall@10 | s |")
    print("|---|---|---|---|---|---|---|---|")
    for size in asked.sizes:
        ground = read_ground(asked.data / FOLDER, size)
        for name in ("band means and stds", *encoders):
            started = time.perf_counter()
            made = encoder_features(ground, encoders[name]) if name in encoders else band_statistics(ground.chips)
            seconds = time.perf_counter() - started
            r2, right = probe(made, ground)
            cosine, recall = after_int8(made)
            print(
                f"| {len(made)} of {size} px | {name} | {made.shape[1]} | {r2:.3f} | {right:.3f} "
                f"| {cosine:.5f} | {recall:.3f} | {seconds:.2f} |"
            )


if __name__ == "__main__":
    main()
