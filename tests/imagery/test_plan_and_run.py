"""What `plan` counts is what `run` makes, whatever the items say or leave out."""

import copy
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clay_publish.errors import SourceError
from clay_publish.producer import plan_run
from clay_publish.producer.planning import image_files as files
from clay_publish.producer.sources.reader import read_items
from clay_publish.producer.sources.stac_item import source_item
from clay_publish.release.directory import Release
from clay_publish.spec.load import load_spec
from clay_publish.spec.sensors import SENSORS

Run = Callable[..., CompletedProcess[str]]
Item = dict[str, Any]


@pytest.fixture
def folder(shared_data: Path, tmp_path: Path) -> Path:
    """A Sentinel-2 scene of 64 × 64 pixels of 10 m, and its spec."""
    return Path(shutil.copytree(shared_data / "wild", tmp_path / "wild")) / "s2-boa-offset-old-flag"


@pytest.fixture
def item(folder: Path) -> Item:
    found: Item = json.loads((folder / "item.json").read_text())
    return found


def both(
    folder: Path, run: Run, items: list[Item], *changes: str, code: int = 0
) -> tuple[Item, list[Item], list[Item]]:
    """The plan, the rows of the coverage and those of the sources, of a release of these items."""
    text = json.dumps({"type": "FeatureCollection", "features": items})
    (folder / "item.json").write_text(text)
    stated = [part for change in ("outputs.explorer=false", *changes) for part in ("--set", change)]
    plan = json.loads(run("plan", "release.yaml", "--json", "--quiet", *stated, cwd=folder).stdout)
    run("produce", "release.yaml", "--out", "made", "--quiet", *stated, cwd=folder, code=code)
    rows = [row for path in (folder / "made/coverage").glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    return plan, rows, pq.read_table(folder / "made/sources.parquet").to_pylist()


def outcomes(rows: list[Item]) -> Counter[str]:
    return Counter(row["reason"] or row["status"] for row in rows)


def without_grid(item: Item) -> Item:
    """The item without `proj:shape` and `proj:transform`."""
    made = copy.deepcopy(item)
    for holder in (made["properties"], *made["assets"].values()):
        for key in ("proj:shape", "proj:transform", "proj:epsg", "proj:code"):
            holder.pop(key, None)
    return made


@pytest.mark.parametrize("layout", ["scene", "utm"])
def test_headers_are_read_where_items_state_no_grid(folder: Path, run: Run, item: Item, layout: str) -> None:
    changes = (f"chips.layout={layout}", "chips.size=16")
    plan, rows, _ = both(folder, run, [without_grid(item)], *changes)
    assert plan["chips"]["expected"] == len(rows) > 0
    assert plan["gsd"] == 10
    assert outcomes(rows) == {"embedded": plan["chips"]["with_imagery"]}


def test_too_many_headers_are_read_only_when_asked(folder: Path, item: Item, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "HEADERS", 0)
    read: list[str] = []
    opened = files._opened_grid
    monkeypatch.setattr(files, "_opened_grid", lambda item, sensor: read.append(item.id) or opened(item, sensor))
    (folder / "item.json").write_text(json.dumps(without_grid(item)))
    spec, said = load_spec(folder / "release.yaml"), []
    plan_run.plan(spec, Release(str(folder / "a")), report=lambda step: said.append(step.message))
    assert read == []
    assert "1 headers are not read: chips are estimated; use --read-headers" in said
    made = plan_run.plan(spec, Release(str(folder / "b")), read_headers=True)
    assert (len(read), made.chips["expected"]) == (1, 4)


def test_scenes_are_priced_by_their_own_pixels(folder: Path, run: Run, item: Item) -> None:
    coarse = copy.deepcopy(item)
    for key in ("B02", "B03", "B04", "B08"):
        coarse["assets"][key]["href"] = f"./coarse-{key}.tif"
        shutil.copyfile(folder / coarse["assets"]["B11"]["href"], folder / f"coarse-{key}.tif")
    plan, rows, _ = both(folder, run, [without_grid(coarse)], "chips.size=16")
    assert (plan["gsd"], plan["chips"]["expected"], len(rows)) == (20, 4, 4)
    assert plan["km2"]["expected"] == pytest.approx(4 * (16 * 0.02) ** 2, abs=0.001)


@pytest.mark.parametrize("layout", ["scene", "utm"])
def test_an_item_that_contradicts_its_file_costs_its_own_chips_alone(
    folder: Path, run: Run, item: Item, layout: str
) -> None:
    wrong = copy.deepcopy(item)
    wrong["id"] = "wrong"
    wrong["properties"]["datetime"] = "2023-02-01T15:50:00Z"
    for holder in (wrong["properties"], *wrong["assets"].values()):
        holder.pop("proj:code", None)
        holder["proj:epsg"] = 32617
        holder["proj:shape"], holder["proj:transform"] = [64, 64], [10, 0, 439360, 0, -10, 4177640]
    plan, rows, _ = both(folder, run, [item, wrong], f"chips.layout={layout}", code=1 if layout == "scene" else 0)
    assert plan["chips"]["expected"] == len(rows)
    if layout == "utm":  # which takes the grid of the file, and the item's footprint is right
        assert outcomes(rows) == {"embedded": len(rows)}
        return
    assert outcomes(rows) == {"embedded": 4, "unreadable": 4}
    assert {row["item_ids"][0] for row in rows if row["reason"]} == {"wrong"}
    assert all("EPSG:32617, as the item says" in row["detail"] for row in rows if row["reason"])


BAD: dict[str, tuple[Callable[[Item], Any], str]] = {
    "proj:code nonsense": (lambda i: _projected(i, "nonsense"), "proj:code"),
    "a code of Mars": (lambda i: _projected(i, "IAU_2015:49900"), "reference system of the Earth"),
    "a code of the Moon": (lambda i: _projected(i, "IAU_2015:30100"), "reference system of the Earth"),
    "EPSG 99999999": (lambda i: _projected(i, "EPSG:99999999"), "proj:code"),
    "year 9999": (lambda i: i["properties"].update(datetime="9999-12-31T23:59:59Z"), "cannot be read"),
    "no year": (lambda i: i["properties"].update(datetime="0000-01-01T00:00:00Z"), "RFC 3339"),
    "NaN in the transform": (lambda i: _grid(i, [10, 0, float("nan"), 0, -10, 0]), "proj:transform"),
    "a transform of zeros": (lambda i: _grid(i, [0, 0, 0, 0, 0, 0]), "proj:transform"),
    "a lone surrogate": (lambda i: i["properties"].update(title="\ud800"), "surrogate"),
    "a lone surrogate as id": (lambda i: i.update(id="\ud800"), "surrogate"),
    "a number of 400 digits": (lambda i: _grid(i, [10, 0, 10**400, 0, -10, 0]), "cannot be read"),
    "no assets": (lambda i: i.update(assets=None), "no assets"),
    "assets that are a list": (lambda i: i.update(assets=[]), "no assets"),
    "an asset of null": (lambda i: i["assets"].update(B02=None), "has no band blue"),
    "a href that is a number": (lambda i: i["assets"]["B02"].update(href=3), "has no band blue"),
    "properties of null": (lambda i: i.update(properties=None), "no properties"),
    "latitude 1000": (lambda i: i.update(geometry={"type": "Point", "coordinates": [0, 1000]}), "geometry"),
    "a point": (lambda i: i.update(geometry={"type": "Point", "coordinates": [0, 0]}, bbox=None), "without area"),
    "meters as degrees": (lambda i: _grid(i, [10, 0, 439360, 0, -10, 4177640], 4326), "lie nowhere in EPSG:4326"),
    "a geometry of text": (lambda i: i.update(geometry="POLYGON EMPTY"), "geometry"),
}  # fmt: skip


def _projected(item: Item, code: str) -> None:
    for holder in (item["properties"], *item["assets"].values()):
        holder.pop("proj:epsg", None)
        holder["proj:code"] = code


def _grid(item: Item, transform: list[Any], epsg: int = 32618) -> None:
    for holder in (item["properties"], *item["assets"].values()):
        holder.update({"proj:epsg": epsg, "proj:shape": [64, 64], "proj:transform": transform})


def test_every_bad_item_is_a_row_with_its_reason(folder: Path, run: Run, item: Item) -> None:
    items = [item]
    for name, (change, _) in BAD.items():
        bad = copy.deepcopy(item)
        bad["id"] = name
        change(bad)
        items.append(bad)
    plan, rows, sources = both(folder, run, items)
    assert outcomes(rows) == {"embedded": 4}
    assert (plan["images"]["used"], plan["images"]["unusable"]) == (1, len(BAD))
    reasons = {row["id"]: row["reason"] for row in sources if row["status"] == "unused"}
    for name, (_, said) in BAD.items():
        assert said in reasons["?" if name.endswith("as id") else name], name


@pytest.mark.parametrize("meters", [640, 6400])
def test_items_of_one_id_for_two_places_are_both_used(folder: Path, run: Run, item: Item, meters: int) -> None:
    other = copy.deepcopy(item)
    moved = Path(shutil.copytree(folder, folder / "moved", ignore=shutil.ignore_patterns("made", "moved")))
    for path in moved.glob("*.tif"):
        _move(path, meters)
    for asset in other["assets"].values():
        asset["href"] = f"./moved/{Path(asset['href']).name}"
    other = without_grid(other)
    item["geometry"], other["geometry"], other["bbox"] = _outline(folder / "B02.tif"), _outline(moved / "B02.tif"), None
    plan, rows, sources = both(folder, run, [item, other])
    assert plan["chips"]["expected"] == len(rows) == 8
    assert outcomes(rows) == {"embedded": 8}
    used = [row["id"] for row in sources if row["status"] == "used"]
    assert len(set(used)) == 2
    assert all(name.startswith(f"{item['id']}-at-") for name in used)


def _outline(path: Path) -> dict[str, Any]:
    import rasterio
    import shapely
    from rasterio.warp import transform_bounds

    with rasterio.open(path) as file:
        return dict(shapely.geometry.mapping(shapely.box(*transform_bounds(file.crs, "OGC:CRS84", *file.bounds))))


def test_images_that_give_no_chips_stop_no_other(folder: Path, run: Run, item: Item) -> None:
    import rasterio
    from affine import Affine
    from rasterio.windows import Window

    south, tiny = copy.deepcopy(item) | {"id": "south"}, copy.deepcopy(item) | {"id": "tiny"}
    for key, asset in item["assets"].items():
        south["assets"][key]["href"], tiny["assets"][key]["href"] = f"./south-{key}.tif", f"./tiny-{key}.tif"
        shutil.copyfile(folder / asset["href"], folder / f"south-{key}.tif")
        with rasterio.open(folder / f"south-{key}.tif", "r+") as file:
            profile = {**file.profile, "width": 10, "height": 10, "tiled": False}
            profile.pop("blockysize", None)
            profile.pop("blockxsize", None)
            values = file.read(window=Window(0, 0, 10, 10))
            file.transform = file.transform @ Affine.translation(0, file.height) @ Affine.scale(1, -1)
        with rasterio.open(folder / f"tiny-{key}.tif", "w", **profile) as file:
            file.write(values)
    plan, rows, _ = both(folder, run, [item, south, tiny], code=1)
    assert outcomes(rows) == {"embedded": 4, "unreadable": 1}
    assert any("south cannot be read" in warning and "upside down" in warning for warning in plan["warnings"])


def _move(path: Path, meters: float) -> None:
    import rasterio
    from affine import Affine

    with rasterio.open(path, "r+") as file:
        file.transform = Affine.translation(meters, 0) @ file.transform


@pytest.mark.parametrize("form", ["file:{}", "file://{}", "file://localhost{}", "{}"])
def test_file_urls_are_the_same_in_plan_and_run(folder: Path, run: Run, item: Item, form: str) -> None:
    spaced = folder / "a b"
    spaced.mkdir()
    for asset in item["assets"].values():
        name = Path(asset["href"]).name
        shutil.copy(folder / asset["href"], spaced / name)
        path = str(spaced / name)
        asset["href"] = form.format(path.replace(" ", "%20") if form != "{}" else path)
    plan, rows, _ = both(folder, run, [item])
    assert plan["warnings"] == [warning for warning in plan["warnings"] if "cannot be looked at" not in warning]
    assert outcomes(rows) == {"embedded": 4}


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("geometry", None, None),
        ("geometry", b"\x01 no WKB", "geometry: found 'not WKB'"),
        ("bbox", None, None),
        ("datetime", None, "has no time"),
        ("assets", None, "no assets"),
        ("id", None, "an id"),
    ],
)
def test_one_bad_row_of_a_table_is_one_bad_item(
    shared_data: Path, tmp_path: Path, column: str, value: bytes | None, said: str | None
) -> None:
    table = pq.read_table(shared_data / "wild" / "stac-geoparquet-proj-geometry" / "items.parquet")
    table = pa.concat_tables([table.slice(0, 1)] * 2)
    place = table.column_names.index(column)
    values = [value, table[column][1].as_py()]
    changed = table.set_column(place, pa.field(column, table[column].type), pa.array(values, table[column].type))
    pq.write_table(changed, tmp_path / "items.parquet")
    read = []
    for found in read_items(str(tmp_path / "items.parquet")):
        try:
            read.append(source_item(found.document, SENSORS["sentinel-2-l2a"], block=0, base=found.base).id)
        except SourceError as error:
            read.append(str(error))
    assert read[1] == "S2B_18SVG_20230103_0_L2A"
    assert read[0] == read[1] if said is None else said in read[0]


def _tile(folder: Path, epsg: int, day: str, value: int) -> Item:
    """A tile of a Sentinel-2 pass whose area reaches over the edge of its zone, at 78° W."""
    import numpy as np
    import rasterio
    from affine import Affine
    from pyproj import Transformer

    x, y = (round(v, -1) for v in Transformer.from_crs("OGC:CRS84", epsg, always_xy=True).transform(-78.0, 36.0))
    left = x - 1280 if epsg == 32617 else x - 160
    profile = {"driver": "GTiff", "width": 144, "height": 128, "count": 1, "dtype": "uint16", "nodata": 0}
    assets = {}
    for band in SENSORS["sentinel-2-l2a"].bands:
        href = f"{epsg}-{day}-{band.name}.tif"
        values = np.random.default_rng(0).integers(value, value + 50, (1, 128, 144), dtype=np.uint16)
        with rasterio.open(
            folder / href, "w", crs=f"EPSG:{epsg}", transform=Affine(10, 0, left, 0, -10, y + 640), **profile
        ) as file:
            file.write(values)
        assets[band.name] = {"href": href}
    pass_of = {"platform": "sentinel-2b", "s2:datatake_id": f"GS2B_{day}T155000_000001_N05.09"}
    said = {"datetime": f"{day}T15:50:00Z", "license": "CC-BY-4.0", "s2:processing_baseline": "02.14", **pass_of}
    outline = _outline(folder / assets["blue"]["href"])
    return {"type": "Feature", "id": f"{epsg}-{day}", "properties": said, "assets": assets, "geometry": outline}


def test_tiles_of_one_pass_in_two_zones_are_one_image(tmp_path: Path, run: Run) -> None:
    days = {"2023-01-03": 1000, "2023-01-08": 2000, "2023-01-13": 3000}
    items = [_tile(tmp_path, epsg, day, value) for epsg in (32617, 32618) for day, value in days.items()]
    document = {
        "name": "a",
        "imagery": {
            "stac": "item.json",
            "sensor": "sentinel-2-l2a",
            "area": [-78.004, 35.9985, -77.996, 36.0015],
            "windows": ["2023-01-01/2023-02-01"],
            "composite": {"method": "median", "images": 3, "min_valid": 3},
        },
        "chips": {"layout": "utm", "size": 16, "gsd": 10},
    }
    (tmp_path / "release.yaml").write_text(json.dumps(document))
    plan, rows, _ = both(tmp_path, run, items)
    assert plan["chips"]["expected"] == len(rows)
    assert outcomes(rows) == {"embedded": len(rows)}
    parts = [pq.read_table(path) for path in sorted((tmp_path / "made/embeddings").rglob("*.parquet"))]
    chips = [row for part in parts for row in part.select(["epsg", "images", "item_ids"]).to_pylist()]
    assert {row["epsg"] for row in chips} == {32617, 32618}
    assert {row["images"] for row in chips} == {3}
    assert {len(row["item_ids"]) for row in chips} == {3, 6}  # cells at the edge are filled from both tiles
