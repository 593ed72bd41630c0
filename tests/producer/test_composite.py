"""Composites: real pixels under synthetic clouds, against numpy, to the last bit."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clay_publish.producer.imagery.chips import ChipBlock, Reading
from clay_publish.producer.layouts import layout_of
from clay_publish.producer.sources.selection import Considered
from clay_publish.producer.sources.stac_item import source_item
from clay_publish.spec.load import resolve_spec
from clay_publish.spec.sensors import sensor
from clay_publish.windows import Window

from .cloudy import YEAR, Cloudy, Date, cloudy

S2 = sensor("sentinel-2-l2a")
SIZE = 64


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Cloudy:
    """Eight dates, each 60 % under cloud."""
    return cloudy(tmp_path_factory.mktemp("cloudy"), shared_data / "s2_l1c_T18SVG_20160112" / "item.json")


def read(scenes: Cloudy, composite: dict[str, Any] | None, **spec: Any) -> list[ChipBlock]:
    """Blocks of chips as the producer reads them."""
    imagery = {"stac": str(scenes.items[0]), "sensor": S2.key, "windows": [YEAR], "composite": composite}
    chips = {"size": SIZE, "max_nodata": 1, **spec.pop("chips", {})}
    made = resolve_spec({"name": "test", "imagery": imagery, "chips": chips, **spec}, where="spec", folder=Path())
    items = [source_item(json.loads(p.read_text()), S2, block=0, base=str(p)) for p in scenes.items]
    units = layout_of(made, S2).units([Considered(item, "used") for item in items], [None], {})
    bands = tuple(band.statistics for band in S2.bands)
    reading = Reading(S2, bands, made.chips, 2, composite=made.imagery[0].composite, steps=made.model.steps)
    return [block for unit in units for block in unit.read(reading)]


def chosen(scenes: Cloudy, window: tuple[slice, slice], most: int) -> list[Date]:
    """The best dates of a cell, by the rule of the documentation."""
    middle = Window.parse(YEAR).middle

    def rank(date: Date) -> tuple[float, float, str]:
        return 1 - float(date.clear[window].mean()), abs((date.moment - middle).total_seconds()), date.id

    seen = [date for date in scenes.dates if date.clear[window].any()]
    return sorted(seen, key=rank)[:most]


def expected(scenes: Cloudy, window: tuple[slice, slice], *, method: str, most: int, least: int) -> np.ndarray:
    """The composite of a cell in numpy."""
    dates = chosen(scenes, window, most)
    stack = np.stack(
        [np.where(d.clear[window], d.values[(slice(None), *window)].astype(np.float32), np.nan) for d in dates]
    )
    stack = np.nan_to_num(stack, nan=np.nan).astype(np.float32)
    enough = np.stack([d.clear[window] for d in dates]).sum(axis=0) >= least
    filled = np.where(enough, stack, np.float32(0))  # numpy warns of stacks that are all NaN
    if method == "median":
        made = np.nanmedian(filled, axis=0)
    else:
        made = np.nanmean(filled.astype(np.float64), axis=0).astype(np.float32)
    mean = np.array([band.mean for band in S2.bands], np.float32)[:, None, None]
    std = np.array([band.std for band in S2.bands], np.float32)[:, None, None]
    return np.where(enough, (made - mean) / std, np.float32(0))


@pytest.mark.parametrize("method", ["median", "mean"])
@pytest.mark.parametrize(("most", "least"), [(8, 1), (5, 3), (16, 4)])
def test_composite_equals_numpy_to_the_last_bit(year: Cloudy, method: str, most: int, least: int) -> None:
    blocks = read(year, {"method": method, "images": most, "min_valid": least})
    count = 0
    for block in blocks:
        made = [n for n, reason in enumerate(block.reasons) if reason is None]
        assert block.combined is not None
        for place, n in enumerate(made):
            window = year.window(int(block.rows[n]), int(block.cols[n]), SIZE)
            found = expected(year, window, method=method, most=most, least=least)
            np.testing.assert_array_equal(block.pixels[place], found)
            dates = chosen(year, window, most)
            clear = np.stack([date.clear[window] for date in dates]).sum(axis=0)
            told = block.combined[n]
            assert told is not None
            assert told.images == len(dates)
            assert told.observations == (clear[clear >= least].min(), np.median(clear[clear >= least]))
            assert (told.start, told.end) == (min(d.moment for d in dates), max(d.moment for d in dates))
            assert block.valid_fraction[n] == pytest.approx((clear >= least).mean())
            count += 1
    assert count >= 10
