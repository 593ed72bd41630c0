"""Images are read in memory that does not grow with their size."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from .conftest import write_item

SIDE = 6144
"""Pixels: four bands of 16 bits are 302 MB, and 604 MB as real numbers."""
MOST = 300
"""MB above what the process holds before: blocks of 64 MiB in GDAL's cache, and the pieces at work."""

READ = """
import json, sys, threading
from dataclasses import replace
from itertools import islice
from pathlib import Path
from clay_publish.producer.imagery.chips import Reading
from clay_publish.producer.imagery.raster import session
from clay_publish.producer.layouts import layout_of
from clay_publish.producer.layouts.scene import read_scene
from clay_publish.producer.sources.selection import Considered
from clay_publish.spec.sensors import sensor
from clay_publish.producer.sources.stac_item import source_item
from clay_publish.spec.load import resolve_spec

def most():
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1e3

begun, end = threading.Event(), threading.Event()

def other_unit():
    with session():
        begun.set()
        end.wait()

layout, path = sys.argv[1], Path(sys.argv[2])
instrument = sensor("sentinel-2-rgbnir")
item = source_item(json.loads(path.read_text()), instrument, block=0, base=str(path))
imagery, rules = {"stac": str(path), "sensor": instrument.key}, {"layout": layout, "size": 128}
items = [item]
if layout == "composite":
    items = [item.changed(id=f"{n}", acquisition=f"{n}") for n in range(16)]
    imagery |= {"composite": {"images": 16}, "windows": ["2021-01-01/2022-01-01"]}
    rules["layout"] = "utm"
spec = resolve_spec({"name": "m", "imagery": imagery, "chips": rules}, where="spec", folder=path.parent)
bands, composite = tuple(band.statistics for band in instrument.bands), spec.imagery[0].composite
reading = Reading(instrument, bands, spec.chips, threads=4, composite=composite)
if layout == "scene":
    blocks = read_scene(item, reading, None)
else:
    units = layout_of(spec, instrument).units([Considered(each, "used") for each in items], [None], {})
    blocks = (block for unit in units for block in unit.read(reading))
    blocks = blocks if layout == "utm" else islice(blocks, 9)
thread = threading.Thread(target=other_unit)
thread.start()
begun.wait()
idle, chips = most(), 0
for block in blocks:
    chips += len(block.pixels)
    end.set()  # what a unit beside this one gives back does not change what this one may hold
    thread.join()
print(json.dumps({"chips": chips, "more": most() - idle}))
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An item of one file whose blocks are all different, and quickly made."""
    folder = tmp_path_factory.mktemp("large")
    rows = np.arange(512, dtype=np.uint16)[:, None] + np.zeros(SIDE, dtype=np.uint16)
    with rasterio.open(
        folder / "large.tif",
        "w",
        driver="GTiff",
        width=SIDE,
        height=SIDE,
        count=4,
        dtype="uint16",
        crs="EPSG:32631",
        transform=Affine(10, 0, 510_000, 0, -10, 5_080_000),
        tiled=True,
        blockxsize=512,
        blockysize=512,
        interleave="band",
        compress="deflate",
        zlevel=1,
        nodata=0,
    ) as file:
        for top in range(0, SIDE, 512):
            for band in range(1, 5):
                file.write(rows + np.uint16(1000 + top + band), band, window=((top, top + 512), (0, SIDE)))
    return write_item(folder / "large.json", {"rgbnir": {"href": "large.tif"}})


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux how much memory a process has held at most")
@pytest.mark.parametrize("layout", ["scene", "utm"])
def test_a_large_image_takes_little_memory(large: Path, layout: str) -> None:
    made = subprocess.run([sys.executable, "-c", READ, layout, str(large)], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    found = json.loads(made.stdout)
    assert found["chips"] >= (SIDE // 128 - 1) ** 2
    assert found["more"] < MOST, found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux how much memory a process has held at most")
def test_a_composite_of_sixteen_images_is_bounded(large: Path) -> None:
    """16 images of a superblock are 340 MB as real numbers; 256 MB of them are held at a time."""
    made = subprocess.run(
        [sys.executable, "-c", READ, "composite", str(large)], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    found = json.loads(made.stdout)
    assert found["chips"] > 2 * 81
    assert found["more"] < MOST + 256, found
