"""Throughput on this machine, every number beside the one it is measured against.

python benchmarks/throughput.py [--folder DIR] [reading|pipeline|growth|memory|clay|random-features|writing …]
"""

import argparse
import os
import platform
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import models
import pipeline
import reading
import torch
import writing

Row = tuple[str, str, str]
PARTS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "reading": reading.rows,
    "pipeline": pipeline.rows,
    "growth": pipeline.growth_rows,
    "memory": pipeline.memory_rows,
    "clay": models.clay_rows,
    "random-features": models.random_feature_rows,
    "writing": writing.rows,
}


def processor() -> str:
    """What the machine calls itself."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help="default: all")
    parser.add_argument("--folder", type=Path, help="where scenes are kept between two runs; default: nowhere")
    asked = parser.parse_args()
    if strange := set(asked.parts) - PARTS.keys():
        parser.error(f"there is no part {strange.pop()}")
    warnings.simplefilter("ignore")
    print(f"{processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before; torch {torch.__version__}\n")
    print("| what | measured | ratio |\n|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="clay-publish-") as temporary:
        folder = asked.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in asked.parts or PARTS:
            for what, measured, ratio in PARTS[name](folder):
                print(f"| {what} | {measured} | {ratio} |", flush=True)


if __name__ == "__main__":
    main()
