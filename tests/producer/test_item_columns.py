"""Items of stac-geoparquet that are read as columns are those that are read one by one."""

import copy
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stac_geoparquet.arrow import parse_stac_items_to_arrow

from clay_publish.errors import SourceError
from clay_publish.producer.sources.item_columns import items_by_column
from clay_publish.producer.sources.reader import ItemBatch, read_batches, read_items
from clay_publish.producer.sources.sensor_check import sensors_of
from clay_publish.producer.sources.stac_item import source_item
from clay_publish.spec.models import Imagery
from clay_publish.spec.sensors import SENSORS

S2, LANDSAT = "sentinel-2-l2a", "landsat-c2l2-sr"
Item = dict[str, Any]


def compare(batch: ItemBatch, key: str, **asked: Any) -> tuple[int, int]:
    """How many rows are read as columns and in all; those are what they are one by one."""
    sensor, block = SENSORS[key], Imagery.model_validate({"stac": "items", "sensor": key, **asked})
    made = items_by_column(batch, sensor, block=block, number=0, needed=None)
    for row, found in enumerate(batch.items(range(batch.rows.num_rows))):
        try:
            alone = source_item(
                found.document, sensor, block=0, base=found.base, asked=block, collection=found.collection or {}
            )
        except SourceError:
            assert row not in made, found.document["id"]
        else:
            assert made.get(row, alone) == alone
    return len(made), batch.rows.num_rows


def as_table(items: list[Item], folder: Path) -> ItemBatch:
    path = folder / "items.parquet"
    pq.write_table(pa.Table.from_batches(parse_stac_items_to_arrow(items)), path)
    (batch,) = read_batches(str(path))
    return batch


def many(item: Item, change: Callable[[Item, int], None], count: int = 12) -> list[Item]:
    """Items like one, each with an id, hrefs and times of its own; `change` gets every third."""
    made = []
    for number in range(count):
        each = copy.deepcopy(item)
        tile = f"33T{chr(65 + number)}M"
        for place, key in enumerate(sorted(each["assets"])):
            each["assets"][key]["href"] = f"https://example.org/{tile}/L2A/{place}_{key}.tif"
        each["id"] = f"S2A_{tile}_2023081{number % 10}_0_L2A"
        each["properties"]["datetime"] = f"2023-08-1{number % 10}T10:07:54.167Z"
        each["properties"]["eo:cloud_cover"] = 3.5 * number
        each["properties"]["s2:product_uri"] = f"S2A_MSIL2A_20230818T100031_N0509_R122_T{tile}_20230818T143300.SAFE"
        if number % 3 == 1:
            change(each, number)
        made.append(each)
    return made


@pytest.fixture(scope="module")
def earth_search(shared_data: Path) -> Item:
    item = json.loads(next((shared_data / "stac_items" / "earth_search").glob("sentinel-2-l2a_S2A*.json")).read_text())
    wanted = {"blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir08", "swir16", "swir22"}
    item["assets"] = {key: item["assets"][key] for key in sorted(wanted | {"scl", "thumbnail"})}
    return item


@pytest.mark.parametrize(
    ("name", "key", "fewest"), [("100-sentinel-2-items", S2, 90), ("100-landsat-items", LANDSAT, 0)]
)
def test_published_tables(shared_data: Path, name: str, key: str, fewest: int) -> None:
    (batch,) = read_batches(str(shared_data / "stac_items" / "stac_geoparquet" / f"{name}.parquet"))
    made, _ = compare(batch, key)
    assert made >= fewest


def put(*path: str, value: Any) -> Callable[[Item, int], None]:
    def change(item: Item, _: int) -> None:
        holder: Any = item
        for key in path[:-1]:
            holder = holder[key]
        if value is None:
            holder.pop(path[-1], None)
        else:
            holder[path[-1]] = value

    return change


def shifted(item: Item, number: int) -> None:
    for asset in item["assets"].values():
        if "proj:transform" in asset:
            asset["proj:transform"][2] += 109_800 * number
    item["properties"]["proj:epsg"] = 32600 + number


def across(item: Item, _: int) -> None:
    item["geometry"]["coordinates"] = [[[179.0, 1.0], [-179.0, 1.0], [-179.0, 2.0], [179.0, 2.0], [179.0, 1.0]]]


@pytest.mark.parametrize(
    ("change", "fewest"),
    [
        (put("properties", "s2:vegetation_percentage", value=12.5), 12),
        (put("properties", "updated", value=None), 12),
        (put("properties", "s2:datatake_id", value="GS2A_20230818T100031_042591_N05.09"), 12),
        (put("properties", "platform", value="sentinel-2b"), 12),
        (put("properties", "platform", value="landsat-8"), 8),
        (put("properties", "s2:processing_baseline", value="03.01"), 8),
        (put("properties", "s2:processing_baseline", value="5"), 8),
        (put("properties", "earthsearch:boa_offset_applied", value=False), 8),
        (put("properties", "s2:product_uri", value="S2A_MSIL1C_20230818T100031_N0509_R122_T33TWM_20230818.SAFE"), 8),
        (put("properties", "s2:product_uri", value="S2A_MSIL2A_20230818T100031_N0301_R122_T33TWM_20230818.SAFE"), 8),
        (put("properties", "license", value="CC-BY-NC-4.0"), 12),
        (put("properties", "proj:epsg", value=99999), 8),
        (put("properties", "proj:epsg", value=None), 12),
        (put("properties", "datetime", value="9999-12-31T23:00:00Z"), 8),
        (put("id", value="S2A_33TWM_20230818_0_L1C"), 8),
        (put("id", value="x" * 5000), 8),
        (put("collection", value="sentinel-2-l1c"), 8),
        (put("assets", "red", "href", value="./B04.tif"), 8),
        (put("assets", "red", "href", value="https://example.org/B04.tif.msk"), 8),
        (put("assets", "red", "href", value="https://example.org/B04.jp2"), 12),
        (put("assets", "red", "href", value="https://example.org/B04.tif?sig=1"), 8),
        (put("assets", "red", "href", value="https://example.org/S2A_MSIL1C_20230818T100031_N0509_R122/B04.tif"), 8),
        (put("assets", "red", "href", value="gs://bucket/B04.tif"), 8),
        (lambda item, _: put("assets", "red", "href", value=item["assets"]["green"]["href"])(item, 0), 8),
        (put("assets", "red", value=None), 8),
        (put("assets", "red", "proj:shape", value=[5490, 5490]), 12),
        (put("assets", "red", "proj:transform", value=[10, 0, 1.0, 0, -10]), 12),
        (put("assets", "red", "proj:transform", value=[20, 0, 499980, 0, -20, 5200020]), 12),
        (put("assets", "red", "proj:transform", value=[10, 0, 499980, 0, 0, 5200020]), 8),
        (put("assets", "red", "raster:bands", value=[{"nodata": 0, "scale": 0.0001, "offset": 0.0}]), 8),
        (put("assets", "red", "raster:bands", value=[{"nodata": 7, "scale": 0.0001, "offset": -0.1}]), 12),
        (put("assets", "scl", value=None), 12),
        (put("assets", "scl", "type", value="application/json"), 12),
        (put("bbox", value=[0.0, 0.0, 1.0, 1.0]), 12),
        (shifted, 12),
        (across, 12),
    ],
)
def test_rows_that_differ(earth_search: Item, tmp_path: Path, change: Callable[[Item, int], None], fewest: int) -> None:
    made, _ = compare(as_table(many(earth_search, change), tmp_path), S2)
    assert made >= fewest


@pytest.mark.parametrize(
    "asked", [{"bands": {"nir": "nir08", "nir08": "nir"}}, {"mask": "none"}, {"scale": 0.0001, "offset": 0}]
)
def test_what_the_spec_states(earth_search: Item, tmp_path: Path, asked: dict[str, Any]) -> None:
    batch = as_table(many(earth_search, put("properties", "platform", value="sentinel-2b")), tmp_path)
    assert compare(batch, S2, **asked) == (12, 12)


def test_items_are_packed(earth_search: Item, tmp_path: Path) -> None:
    """Items of one description share it, and take few bytes beside their footprints."""
    batch = as_table(many(earth_search, put("properties", "platform", value="sentinel-2b"), count=100), tmp_path)
    block = Imagery.model_validate({"stac": "items", "sensor": S2})
    items = [*items_by_column(batch, SENSORS[S2], block=block, number=0, needed=None).values()]
    assert len(items) == 100
    assert len({id(item.common) for item in items}) == 2
    outlines = sum(len(item.footprint or b"") for item in items)
    assert (sum(sys.getsizeof(item.packed) for item in items) - outlines) / len(items) < 400
    item = items[7]
    assert copy.deepcopy(item) == item != items[8]
    etags = {file.href: '"1"' for file in item.files}
    known = item.changed(id="other", etags=etags, license="CC-BY-4.0", grid=None)
    assert (known.id, known.etags, known.license, known.grid) == ("other", etags, "CC-BY-4.0", None)
    assert (known.files, known.footprint, known.acquired) == (item.files, item.footprint, item.acquired)
    assert known.changed(id=item.id, etags={}, license=item.license, grid=item.grid) == item
    with pytest.raises(TypeError, match="color"):
        item.changed(color="red")


def test_damaged_footprints(earth_search: Item, tmp_path: Path) -> None:
    batch = as_table(many(earth_search, put("properties", "platform", value="sentinel-2b")), tmp_path)
    shapes = batch.rows.column("geometry").to_pylist()
    shapes[0], shapes[1], shapes[2] = None, b"\x01\x02", shapes[2][:20]
    place = batch.rows.schema.get_field_index("geometry")
    rows = batch.rows.set_column(place, "geometry", pa.array(shapes, pa.binary()))
    made, _ = compare(ItemBatch(rows, batch.where, batch.collections), S2)
    assert made >= 9


TEXTS = (
    "S2A_MSIL2A_20230818T100031_N0301_R122_T33TWM_20230818T143300.SAFE",
    "S2A_MSIL2A_20230818T100031_N0509_R122_T33TWM_20230818T143300.SAFE",
    "S2B_MSIL1C_20210818T100031_N0301_R122_T33TWM_20210818T143300.SAFE",
    "LC08_L1TP_047027_20201204_20210313_02_T1",
    "LE07_L2SP_021030_20100109_20200911_02_T1",
    *("L1C", "l2a", "toa", "Top of atmosphere reflectance", "surface reflectance", "harmonized", "non-harmonized"),
    *("sentinel-2b", "landsat-7", "planetscope", "true", "false", "05.09", "03.01", "02.14", "2.14", "N0509"),
    *("B04", "red", "nir", "swir16", "near infrared", "BGR", "CIR false color", "sigma0", "gamma0", "image/jp2"),
    *("image/tiff", "application/json", "https://example.org/a.tif.msk", "https://example.org/a%2Emsk", "s3://b/a.gml"),
    *("gs://bucket/a.tif", "./a.tif", "CC-BY-4.0", "2022-06-01T00:00:00Z", "1999-12-31T00:00:00Z", "EPSG:3857", ""),
)
KEYS = (
    *("title", "description", "s2:processing_baseline", "processing:version", "earthsearch:boa_offset_applied"),
    *("anything", "harmonized", "x:product_type", "x:boa_add_offset", "x:product_id", "constellation", "platform"),
    *("proj:code", "scale", "offset", "nodata", "raster:offset", "raster:scale", "gsd", "roles_of", "calibration"),
)
NUMBERS = (0, 1, -1, -1000, 1000, -0.1, 0.0001, 10, 20, 32633, 1e9)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all that an item holds, but for its geometry."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in members:
        if key != "proj:geometry" and (path or key in {"id", "collection", "properties", "assets", "links"}):
            yield (*path, key)
            yield from places(member, (*path, key))


def varied(item: Item, random: Random) -> None:
    """Change something of an item that may or may not matter."""
    *path, key = random.choice(list(places(item)))
    holder: Any = item
    for name in path:
        holder = holder[name]
    value, draw = holder[key], random.random()
    if isinstance(holder, dict) and (path or key == "collection") and draw < 0.4:
        if draw < 0.15 and key not in {"datetime", "href"}:
            del holder[key]
        elif path not in ([], ["assets"]):
            holder.setdefault(random.choice(KEYS), random.choice(TEXTS))
    elif isinstance(value, dict) and isinstance(holder, dict) and path:
        other = random.choice([name for name in holder if isinstance(holder[name], dict) and name != "proj:geometry"])
        holder[key], holder[other] = holder[other], value
    elif isinstance(value, list):
        random.shuffle(value)
    else:
        holder[key] = another(value, random)


def another(value: Any, random: Random) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return type(value)(random.choice(NUMBERS))
    if not isinstance(value, str):
        return value
    if re.match(r"\d{4}-\d\d-\d\dT", value):
        return random.choice(["2022-06-01T00:00:00Z", "1999-12-31T00:00:00Z", "2024-02-29T23:59:59Z"])
    return random.choice([*TEXTS, value.swapcase(), f"{value} {random.choice(TEXTS)}", value[::-1]])


def of_another_day(item: Item, number: int) -> Item:
    """The same item with other dates in ids, names of products and hrefs."""
    text = re.sub(r"(?<!\d)(19|20)\d{6}(?!\d)", f"202301{number % 28 + 1:02d}", json.dumps(item))
    made: Item = json.loads(text)
    made["id"] = f"{made['id']}_{number}"
    return made


def variations(item: Item, folder: Path, random: Random, count: int = 16) -> ItemBatch | None:
    """A table of copies of an item of which every second is varied; None where their types are no columns."""
    items = [of_another_day(item, number) for number in range(count)]
    for each in items[1::2]:
        for _ in range(random.randint(1, 3)):
            varied(each, random)
    try:
        return as_table(items, folder)
    except (pa.ArrowException, SourceError, ValueError, KeyError, TypeError, AttributeError):
        return None


def real_items(shared_data: Path) -> list[Path]:
    """One file of each catalog and kind of image."""
    wild = sorted((shared_data / "wild").glob("*/item.json"))
    stac = (shared_data / "stac_items").rglob("*.json")
    return [*wild, *sorted({re.sub(r"\d", "", path.name): path for path in stac}.values())]


def check_variations(paths: list[Path], folder: Path, seeds: range) -> tuple[int, int]:
    """Rows that were read as columns, and all."""
    made = every = 0
    for path in paths:
        document = next(iter(read_items(str(path)))).document
        for seed in seeds:
            batch = variations(document, folder, Random(f"{path.name} {seed}"))
            for key in (sensors_of(document) or [S2])[:2] if batch is not None else ():
                found, rows = compare(batch, key)
                made, every = made + found, every + rows
    return made, every


def test_variations_of_real_items(shared_data: Path, tmp_path: Path) -> None:
    paths = real_items(shared_data)
    made, every = check_variations(Random(1).sample(paths, 4), tmp_path, range(2))
    assert made > every / 3 > 0


@pytest.mark.slow
def test_many_variations_of_real_items(shared_data: Path, tmp_path: Path) -> None:
    made, every = check_variations(real_items(shared_data), tmp_path, range(4))
    assert made > every / 3 > 0
