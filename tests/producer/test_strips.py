"""Strips and panels: the same chips, however little memory there is."""

import json
from pathlib import Path

import numpy as np
import pytest

from clay_publish.producer.imagery import raster
from clay_publish.producer.imagery.chips import Reading
from clay_publish.producer.layouts import scene
from clay_publish.producer.sources.stac_item import source_item
from clay_publish.spec.models import ChipSpec
from clay_publish.spec.sensors import sensor

from .scattered import IMAGERY

SENTINEL = sensor("sentinel-2-l1c")


def chips(size: int, left_out: np.ndarray | None = None) -> tuple[dict[str, np.ndarray], int]:
    """Pixels of each chip of the bundled sample, and the most that were read at once."""
    path = Path(IMAGERY) / "item.json"
    item = source_item(json.loads(path.read_text()), SENTINEL, block=0, base=str(path))
    bands = tuple(band.statistics for band in SENTINEL.bands)
    reading = Reading(SENTINEL, bands, ChipSpec(layout="scene", size=size, max_nodata=1, max_cloud=1), threads=3)
    found, most = {}, 0
    for block in scene.read_scene(item, reading, None, left_out):
        found |= dict(zip(block.ids, block.pixels, strict=True))
        most = max(most, len(block.ids))
    return found, most


@pytest.mark.parametrize(("size", "memory"), [(64, 1 << 20), (64, 1 << 24), (100, 1 << 22), (256, 1)])
def test_little_memory_gives_the_same_chips_in_narrower_panels(
    size: int, memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, wide = chips(size)
    monkeypatch.setattr(scene, "MEMORY", memory)
    pieces, narrow = chips(size)
    assert narrow < wide == 768 // size
    assert pieces.keys() == whole.keys()
    for name, pixels in whole.items():
        np.testing.assert_array_equal(pieces[name], pixels)


@pytest.mark.parametrize(
    ("asked", "most"), [([(2, 1)], 0.2), ([(0, 0), (11, 11)], 0.4), ([(4, 4), (4, 5), (5, 4)], 0.5)]
)
def test_only_blocks_of_chips_that_are_asked_for_are_read(
    asked: list[tuple[int, int]], most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = 0
    original = raster.OpenBand.read

    def counted(band: raster.OpenBand, top: int, left: int, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
        nonlocal read
        read += rows * columns
        return original(band, top, left, rows, columns)

    monkeypatch.setattr(raster.OpenBand, "read", counted)
    whole, _ = chips(64)
    everything, read = read, 0
    left_out = np.ones((12, 12), dtype=bool)
    for place in asked:
        left_out[place] = False
    some, _ = chips(64, left_out)
    assert len(some) == len(asked)
    for name, pixels in some.items():
        np.testing.assert_array_equal(pixels, whole[name])
    assert read < most * everything
