"""How items of every style are read: bands, values, masks, products."""

import pytest

from clay_publish.errors import SourceError
from clay_publish.producer.sources.item import SourceItem
from clay_publish.producer.sources.stac_item import source_item
from clay_publish.spec.models import Imagery
from clay_publish.spec.sensors import SENSORS

from .situations import BANDS, LEVELS, MASKS, VALUES, Situation


def read(case: Situation) -> SourceItem:
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "a",
        "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]]},
        "links": [],
        **case.item,
        "properties": {"datetime": "2023-01-03T15:50:00Z", **case.properties},
        "assets": case.assets,
    }
    asked = Imagery.model_validate({"stac": "a.json", "sensor": case.sensor, **case.asked})
    return source_item(item, SENSORS[case.sensor], block=0, base=None, asked=asked, collection=case.collection)


@pytest.mark.parametrize("case", [*BANDS, *VALUES, *MASKS, *LEVELS], ids=lambda case: case.name.replace(" ", "-"))
def test_an_item_is_read_as_its_situation_says(case: Situation) -> None:
    if case.refused is not None:
        with pytest.raises(SourceError) as error:
            read(case)
        assert case.refused in str(error.value)
        return
    item = read(case)
    if case.mapping is not None:
        assert " ".join(f.asset if f.index is None else f"{f.asset}#{f.index}" for f in item.bands) == case.mapping
    if case.shift is not None:
        assert {band.to_input(SENSORS[case.sensor])[1] for band in item.resolved} == {case.shift}
    if case.mask is not None:
        assert (item.mask.asset if item.mask else "-") == case.mask


def test_an_offset_counts_for_its_own_band() -> None:
    case = next(case for case in VALUES if case.name == "raster:bands")
    assets = {**case.assets, "B02": {"href": "B02.tif", "raster:bands": [{"scale": 0.0001, "offset": 0}]}}
    item = read(Situation("mixed", case.sensor, assets))
    shifts = {band.name: band.to_input(SENSORS[case.sensor])[1] for band in item.resolved}
    assert shifts == {name: 0 if name == "blue" else -1000 for name in shifts}


def test_an_encoder_of_four_bands_needs_only_these() -> None:
    assets = {key: {"href": f"{key}.tif"} for key in ("B02", "B03", "B04", "B08")}
    document = {
        "type": "Feature",
        "id": "a",
        "properties": {"datetime": "2023-01-03T15:50:00Z"},
        "assets": assets,
    }
    needed = ["red", "green", "blue", "nir"]
    item = source_item(document, SENSORS["sentinel-2-l2a"], block=0, base=None, needed=needed)
    assert [file.asset for file in item.bands] == ["B02", "B03", "B04", "B08"]


@pytest.mark.parametrize(("scale", "factor"), [(0.001, 10.0), (0.0001, 1.0)])
def test_a_scale_of_the_spec_is_a_factor(scale: float, factor: float) -> None:
    case = next(case for case in VALUES if case.name == "scale in the spec")
    item = read(Situation("scaled", case.sensor, case.assets, asked={"scale": scale}))
    assert {band.to_input(SENSORS[case.sensor])[0] for band in item.resolved} == {factor}


@pytest.mark.parametrize("prefix", ["file:", "file://", "file://localhost"])
def test_file_urls_are_paths(prefix: str) -> None:
    document = {
        "type": "Feature",
        "id": "a",
        "properties": {"datetime": "2023-01-03T15:50:00Z"},
        "assets": {"visual": {"href": f"{prefix}/a%20b/c.tif"}},
    }
    item = source_item(document, SENSORS["aerial-rgb"], block=0, base="/items/a.json")
    assert {file.href for file in item.bands} == {"/a b/c.tif"}
