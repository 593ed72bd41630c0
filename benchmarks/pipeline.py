"""The whole pipeline: against reading alone and the model alone, from 1 to 8 scenes, and in how much memory."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from reading import SIDE, SIZE, reading
from scenes import SENSOR, item_at, scene, served

from clay_publish.producer.encoders import ChipBatch, Encoded, Encoder, load_encoder
from clay_publish.producer.execution.context import EncoderPool
from clay_publish.producer.layouts.scene import read_scene
from clay_publish.producer.produce import produce
from clay_publish.release.directory import Release
from clay_publish.release.measurements import read_measurements
from clay_publish.spec.models import Spec

Row = tuple[str, str, str]
SECONDS_A_CHIP = 0.01
"""Of a model that computes elsewhere, as on a GPU."""
SCENES = 4
"""So many that the first bytes of the first, for which nothing can be done meanwhile, are a small part of the whole."""
MODEL_BLOCKS = 8
"""Rows of chips that the model alone is timed on."""


class Elsewhere:
    """An encoder that leaves the processor alone while it works, as one on a GPU does."""

    def __init__(self, spec: Spec, seconds: float) -> None:
        self._like, self._seconds = load_encoder(spec, SENSOR), seconds
        self.device = "elsewhere"

    def __getattr__(self, name: str) -> Any:
        return getattr(self._like, name)

    def encode(self, chips: ChipBatch) -> Encoded:
        """Means of the bands, after a while."""
        time.sleep(self._seconds * len(chips.pixels))
        means = chips.pixels.mean(axis=(2, 3))
        return Encoded(
            np.resize(means, (len(means), self._like.dimensions)) + np.arange(self._like.dimensions, dtype=np.float32)
        )


def spec_of(items: list[Path] | list[str], layout: str = "scene") -> Spec:
    stac = [str(path) for path in items]
    imagery = {"stac": stac, "sensor": SENSOR.key}
    return Spec.model_validate({"name": "benchmark", "imagery": imagery, "chips": {"layout": layout, "size": SIZE}})


def timed(spec: Spec, folder: Path, encoder: Encoder) -> tuple[float, float]:
    """Seconds that the units of a run take, without its planning; processor seconds of the whole run."""
    shutil.rmtree(folder, ignore_errors=True)
    release = Release(str(folder))
    begun = time.process_time()
    produce(spec, release, encoder=encoder)
    used = time.process_time() - begun
    seconds = read_measurements(release).seconds
    shutil.rmtree(folder)
    return seconds, used


def rows(folder: Path) -> Iterator[Row]:
    paths = [scene(folder, SIDE, f"scene{n}", 399_960.0 + 30_000 * n) for n in range(SCENES)]
    count = len(paths) * (SIDE // SIZE) ** 2
    spec = spec_of(paths)
    with served(folder) as server:
        for where, base in (("local", None), ("30 ms away", server.url)):
            items = [item_at(path, base and f"{base}/{path.name}") for path in paths]
            begun, used = time.perf_counter(), time.process_time()
            first: list[np.ndarray] = []
            for block in (block for item in items for block in read_scene(item, reading(), None)):
                if len(first) < MODEL_BLOCKS:
                    first.append(block.pixels)
            read, reading_takes = count / (time.perf_counter() - begun), (time.process_time() - used) / count
            pixels = np.concatenate(first)
            asked = spec if base is None else spec_of([f"{base}/{path.name}" for path in paths])
            encoders: dict[str, Any] = {
                "random features": load_encoder(spec, SENSOR),
                "a model elsewhere": Elsewhere(spec, SECONDS_A_CHIP),
            }
            for name, encoder in encoders.items():
                model, model_takes = alone(encoder, pixels)
                seconds, used = timed(asked, folder / "release", encoder)
                both, apart = count / seconds, reading_takes + model_takes
                yield (
                    f"end to end, {where}, {name}",
                    f"{both:.1f} chips/s; reading alone {read:.1f}, model alone {model:.1f}",
                    f"{both / min(read, model):.2f} of the slower",
                )
                yield (
                    "processor time of it per chip",
                    f"{1e3 * used / count:.2f} ms; reading {1e3 * reading_takes:.2f}, model {1e3 * model_takes:.2f}",
                    f"{used / count / apart:.2f} × both",
                )


def alone(encoder: Any, pixels: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Chips per second of the model, called as units call it, and its processor seconds per chip."""
    item_time = item_at_time()
    model, count = EncoderPool(encoder), len(pixels)
    batch = ChipBatch(pixels, np.zeros(count), np.zeros(count), [item_time] * count, 10.0)
    begun, used = time.perf_counter(), time.process_time()
    model.encode(batch)
    return count / (time.perf_counter() - begun), (time.process_time() - used) / count


def item_at_time() -> Any:
    from datetime import UTC, datetime

    return datetime(2016, 1, 12, 15, 50, tzinfo=UTC)


def growth_rows(folder: Path) -> Iterator[Row]:
    side, first = 1280, 0.0
    paths = [scene(folder, side, f"small{n}", 399_960.0 + 15_000 * n) for n in range(8)]
    encoder = load_encoder(spec_of(paths[:1]), SENSOR)
    for count in (1, 2, 4, 8):
        seconds, _ = timed(spec_of(paths[:count]), folder / "release", encoder)
        first = first or seconds
        chips = count * (side // SIZE) ** 2
        yield (
            f"{count} scenes of {side}²",
            f"{seconds:.1f} s, {chips / seconds:.1f} chips/s",
            f"{seconds / first:.2f} × one",
        )


def memory_rows(folder: Path, side: int = 10_980) -> Iterator[Row]:
    """In processes of their own, whose memory is all the pipeline's."""
    path = scene(folder, side, "whole")
    item = json.loads(path.read_text())
    item["id"], item["properties"]["datetime"] = "again", "2016-02-12T15:50:00Z"
    (folder / "again.json").write_text(json.dumps(item))
    for what, names, layout in (
        ("a scene", ["whole"], "scene"),
        ("two scenes", ["whole", "again"], "scene"),
        ("a scene, warped", ["whole"], "utm"),
    ):
        command = [sys.executable, __file__, layout, str(folder), *(str(folder / f"{name}.json") for name in names)]
        made = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(made.stdout.splitlines()[-1])
        more, speed = found["peak"] - found["idle"], found["chips"] / found["seconds"]
        yield (
            f"memory, {what} of {side}² × 10 bands",
            f"{found['peak']:.0f} MB at most, {found['idle']:.0f} before; {speed:.0f} chips/s",
            f"{more / 1073.7:.2f} GiB more",
        )


def _most() -> float:
    """MB that this process has held at most."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1e3


def _whole(layout: str, folder: Path, paths: list[Path]) -> None:
    spec = spec_of(paths, layout)
    encoder: Any = Elsewhere(spec, 0.0)
    idle = _most()
    release = folder / "whole-release"
    shutil.rmtree(release, ignore_errors=True)
    record = produce(spec, Release(str(release)), encoder=encoder)
    seconds = read_measurements(Release(str(release))).seconds
    shutil.rmtree(release)
    peak = _most()
    print(json.dumps({"idle": idle, "peak": peak, "chips": record.coverage["expected"], "seconds": seconds}))


if __name__ == "__main__":
    _whole(sys.argv[1], Path(sys.argv[2]), [Path(path) for path in sys.argv[3:]])
