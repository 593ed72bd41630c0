"""Releases of Major TOM Core: planned from metadata, read by row group and column."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
import shapely
import yaml
from hub_server import Hub
from huggingface_hub import CommitOperationAdd, HfApi
from image_server import ImageServer
from major_tom_copy import L1C, geotiff, sentinel_1, sentinel_2, write_copy
from rasterio.io import MemoryFile

from clay_publish.errors import SourceError
from clay_publish.geo.major_tom_grid import cells_at
from clay_publish.producer.produce import produce
from clay_publish.producer.sources.selection import Selection, select
from clay_publish.release.directory import Release
from clay_publish.spec.load import load_spec

Run = Callable[..., Any]
CRS = "EPSG:32618"
CELL, EAST = "419U_667L", "419U_666L"


@pytest.fixture(scope="module")
def rows(shared_data: Path) -> list[dict[str, Any]]:
    return [sentinel_2(shared_data, CELL, CRS, cloud=200), sentinel_2(shared_data, EAST, CRS)]


@pytest.fixture
def copy(rows: list[dict[str, Any]], tmp_path: Path) -> Path:
    return write_copy(tmp_path / "Core-S2L1C", rows)


def spec(folder: Path, source: str, sensor: str = "sentinel-2-l1c", **more: Any) -> Path:
    """Write a spec that reads a copy of Major TOM."""
    document = {
        "name": "major-tom",
        "version": "1.0.0",
        "license": "CC-BY-SA-4.0",
        "imagery": {"major_tom": source, "sensor": sensor, **more.pop("imagery", {})},
        "chips": {"layout": "scene", "size": 256, **more.pop("chips", {})},
        "outputs": {"explorer": False, "codes": False} | more.pop("outputs", {}),
        **more,
    }
    path = folder / "release.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def tables(release: Path, name: str) -> list[dict[str, Any]]:
    return [row for path in sorted((release / name).rglob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_release_in_the_scene_layout(run: Run, copy: Path, tmp_path: Path) -> None:
    outputs = {"explorer": False, "codes": False, "major_tom_cell": True}
    made = spec(tmp_path, "Core-S2L1C", outputs=outputs)
    plan = json.loads(run("plan", made, "--json", "--quiet", cwd=tmp_path).stdout)
    assert plan["chips"]["expected"] == 2 * 16
    run("run", made, "--out", tmp_path / "release", "--quiet")
    coverage = Counter(row["reason"] or row["status"] for row in tables(tmp_path / "release", "coverage"))
    assert coverage == {"cloud": 4, "embedded": 28}  # 200 of the first 256 rows of one image are cloud
    chips = tables(tmp_path / "release", "embeddings")
    assert Counter(chip["grid_cell"] for chip in chips)[CELL] >= 8  # a cell's image reaches beyond the cell
    lon, lat = (np.array([chip[name] for chip in chips]) for name in ("lon", "lat"))
    assert [chip["grid_cell"] for chip in chips] == cells_at(lon, lat).tolist()
    sources = pq.read_table(tmp_path / "release" / "sources.parquet").to_pylist()
    assert [source["id"] for source in sources] == [f"{L1C}_{EAST}", f"{L1C}_{CELL}"]
    first = sources[1]
    assert first["license"] == "CC-BY-SA-4.0"
    assert first["mask"]["asset"] == "cloud_mask"
    assert first["proj_shape"] == [1068, 1068]
    band = next(asset for asset in first["assets"] if asset["key"] == "B04")
    place = f"images/part_00001.parquet#row=0&column=B04&grid_cell={CELL}&product_id={L1C}"
    assert band["href"] == place
    assert band["etag"] == f"sha256:{hashlib.sha256((copy / 'images/part_00001.parquet').read_bytes()).hexdigest()}"
    published = yaml.safe_load((tmp_path / "release" / "release.yaml").read_text())
    assert published["imagery"][0]["major_tom"] == "Core-S2L1C"
    run("validate", tmp_path / "release", "--recompute", "2", "--imagery", tmp_path)
    run("publish", tmp_path / "release", "--to", tmp_path / "product")
    assert (tmp_path / "product" / "1.0.0" / "manifest.json").is_file()


def test_vectors_equal_those_of_the_same_images_as_files(
    run: Run, copy: Path, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    run("produce", spec(tmp_path, copy.name), "--out", tmp_path / "cells", "--quiet")
    assets = {}
    for name in [*(f"B{number:02}" for number in (2, 3, 4, 5, 6, 7, 8, 11, 12)), "B8A", "cloud_mask"]:
        (tmp_path / f"{name}.tif").write_bytes(rows[0][name])
        assets[name] = {"href": str(tmp_path / f"{name}.tif")}
    properties = {"datetime": "2016-01-12T15:52:21Z", "platform": "sentinel-2a"}
    item = {"type": "Feature", "id": f"{L1C}_{CELL}", "geometry": None, "properties": properties, "assets": assets}
    (tmp_path / "item.json").write_text(json.dumps(item))
    plain = yaml.safe_load((tmp_path / "release.yaml").read_text())
    plain["imagery"] = {"stac": "item.json", "sensor": "sentinel-2-l1c"}
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump(plain))
    run("produce", tmp_path / "plain.yaml", "--out", tmp_path / "files", "--quiet")
    wanted = {row["id"]: row["embedding"] for row in tables(tmp_path / "files", "embeddings")}
    found = {row["id"]: row["embedding"] for row in tables(tmp_path / "cells", "embeddings") if row["id"] in wanted}
    assert found == wanted
    assert len(found) == 12


@pytest.mark.slow  # the layout of `scene` is in `make test`
@pytest.mark.usefixtures("copy")
def test_release_in_the_utm_layout(run: Run, tmp_path: Path) -> None:
    outputs = {"explorer": False, "codes": False, "major_tom_cell": True}
    made = spec(tmp_path, "Core-S2L1C", chips={"layout": "utm", "size": 256}, outputs=outputs)
    plan = json.loads(run("plan", made, "--json", "--quiet", cwd=tmp_path).stdout)
    run("run", made, "--out", tmp_path / "release", "--quiet")
    chips, coverage = (tables(tmp_path / "release", name) for name in ("embeddings", "coverage"))
    assert plan["chips"]["expected"] == len(coverage)
    assert len(chips) >= 20
    assert any(len(chip["item_ids"]) == 2 for chip in chips)  # cells of one pass fill each other
    lon, lat = (np.array([chip[name] for chip in chips]) for name in ("lon", "lat"))
    assert [chip["grid_cell"] for chip in chips] == cells_at(lon, lat).tolist()
    run("validate", tmp_path / "release")
    run("publish", tmp_path / "release", "--to", tmp_path / "product")
    assert tables(tmp_path / "product" / "1.0.0", "embeddings") == chips


def test_planning_reads_no_pixels(run: Run, copy: Path, tmp_path: Path) -> None:
    images = copy / "images" / "part_00001.parquet"
    data = bytearray(images.read_bytes())
    data[64:-200_000] = bytes(len(data) - 200_064)  # what is left is the footer
    images.write_bytes(data)
    made = spec(tmp_path, "Core-S2L1C", imagery={"area": [-75.7, 37.55, -75.6, 37.7]})
    plan = json.loads(run("plan", made, "--json", "--quiet", cwd=tmp_path).stdout)
    assert 0 < plan["chips"]["expected"] < 32


def test_remote_copy_is_read_by_ranges(run: Run, copy: Path, tmp_path: Path) -> None:
    size = (copy / "images" / "part_00001.parquet").stat().st_size
    with ImageServer(copy) as server:
        made = spec(tmp_path, server.address, chips={"size": 512}, imagery={"exclude": [f"{L1C}_{EAST}"]})
        run("produce", made, "--out", tmp_path / "release", "--quiet")
        sent = sum(request.sent for request in server.of("part_00001"))
    assert sent < 2.6 * size  # the bands of one of two rows, twice: the second pass reads them again
    sources = pq.read_table(tmp_path / "release" / "sources.parquet").to_pylist()
    used = next(source for source in sources if source["status"] == "used")
    assert used["href"].startswith(f"{server.address}/images/part_00001.parquet")
    assert next(a for a in used["assets"] if a["key"] == "B04")["href"].startswith(f"{used['href']}#row=0&column=B04")


@pytest.mark.slow
def test_copy_on_the_hub_is_read_at_its_commit(run: Run, copy: Path, tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    with Hub(tmp_path / "hub", xet=False) as hub:
        api = HfApi(endpoint=hub.address, token="t")  # noqa: S106 - any will do
        api.create_repo("Major-TOM/Core-S2L1C", repo_type="dataset")
        files = [CommitOperationAdd(str(f.relative_to(copy)), f.read_bytes()) for f in sorted(copy.rglob("*.parquet"))]
        commit = api.create_commit("Major-TOM/Core-S2L1C", files, commit_message="data", repo_type="dataset").oid
        exclude = {"exclude": [f"{L1C}_{EAST}"]}
        made = spec(tmp_path, "hf://datasets/Major-TOM/Core-S2L1C", chips={"size": 512}, imagery=exclude)
        env = {"HF_ENDPOINT": hub.address, "HF_HUB_DISABLE_XET": "1"}
        run("run", made, "--out", tmp_path / "release", "--quiet", env=env)
    sources = pq.read_table(tmp_path / "release" / "sources.parquet").to_pylist()
    used = next(source for source in sources if source["status"] == "used")
    place = f"/datasets/Major-TOM/Core-S2L1C/resolve/{commit}/images/part_00001.parquet"
    assert used["href"].endswith(place)
    assert f"{place}#row=0&column=B04&" in next(a for a in used["assets"] if a["key"] == "B04")["href"]
    assert used["collection"] == "Core-S2L1C"
    collection = json.loads((tmp_path / "release" / "collection.json").read_text())
    links = [link["href"] for link in collection["links"] if link["rel"] == "emb:source-data"]
    assert links == ["./sources.parquet", "https://huggingface.co/datasets/Major-TOM/Core-S2L1C"]


def test_sentinel_1(run: Run, shared_data: Path, tmp_path: Path) -> None:
    write_copy(tmp_path / "Core-S1RTC", [sentinel_1(shared_data, CELL, CRS)])
    made = spec(tmp_path, "Core-S1RTC", "sentinel-1-rtc", chips={"size": 512})
    run("run", made, "--out", tmp_path / "release", "--quiet")
    source = pq.read_table(tmp_path / "release" / "sources.parquet").to_pylist()[0]
    assert [band["asset"] for band in source["bands"]] == ["vv", "vh"]
    assert len(tables(tmp_path / "release", "embeddings")) == 4


def test_level_2a_offset_follows_from_the_baseline(run: Run, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    new, unknown = (
        f"S2B_MSIL2A_20230415T181919_N{baseline}_R127_T12TVK_20230415T211527" for baseline in ("0509", "9999")
    )
    shifted = {**rows[0], "product_id": new}
    for name, value in rows[0].items():
        if name.startswith("B"):
            with MemoryFile(value) as memory, memory.open() as file:
                profile, pixels = file.profile, file.read()
            with MemoryFile() as memory:
                with memory.open(**profile) as file:
                    file.write(np.where(pixels > 0, pixels + 1000, 0).astype(pixels.dtype))
                shifted[name] = bytes(memory.read())
    write_copy(tmp_path / "Core-S2L2A", [shifted, {**shifted, "product_id": unknown}])
    made = spec(tmp_path, "Core-S2L2A", "sentinel-2-l2a", chips={"size": 512})
    run("produce", made, "--out", tmp_path / "release", "--quiet")
    sources = {row["id"]: row for row in pq.read_table(tmp_path / "release" / "sources.parquet").to_pylist()}
    assert {band["offset"] for band in sources[f"{new}_{CELL}"]["bands"]} == {-0.1}
    refused = sources[f"{unknown}_{CELL}"]
    assert refused["status"] == "unused"
    assert "N9999" in refused["reason"]


WRONG: dict[str, tuple[str, Any, str]] = {
    "a cell beyond its row": ("grid_cell", "419U_9999L", "not a cell of the grid"),
    "a cell in other digits": ("grid_cell", "\u0664\u0661\u0669U_667L", "not the name of a cell"),
    "a cell by another name": ("grid_cell", "0419U_667L", "another spelling of 419U_667L"),
    "no cell": ("grid_cell", None, "has None in column grid_cell"),
    "a file outside": ("parquet_url", "../../secret.parquet", "a Parquet file of the same copy"),
    "no file": ("parquet_url", None, "has None in column parquet_url"),
    "no projection": ("crs", "nowhere", "in 'nowhere'"),
    "degrees": ("crs", "EPSG:4326", "a projection in meters that reaches it"),
    "feet": ("crs", "EPSG:2263", "a projection in meters that reaches it"),
    "no time": ("timestamp", None, "has the timestamp None"),
    "a word as time": ("timestamp", "yesterday", "has the timestamp 'yesterday'"),
    "no product": ("product_id", None, "has None in column product_id"),
    "no row": ("parquet_row", None, "has None in column parquet_row"),
    "a row below 0": ("parquet_row", -1, "has -1 in column parquet_row (expected the number of a row group)"),
    "half a row": ("parquet_row", 0.5, "has 0.5 in column parquet_row"),
}
PLACES = [{"product_id": L1C, "grid_cell": name, "timestamp": "20160112T155221", "crs": CRS} for name in (CELL, EAST)]
"""Rows without pixels."""


def chosen(folder: Path, metadata: pa.Table, area: list[float] | None = None) -> Selection:
    """What becomes of the rows of a metadata table."""
    pq.write_table(metadata, write_copy(folder / "Core-S2L1C", PLACES) / "metadata.parquet")
    made = load_spec(spec(folder, "Core-S2L1C"))
    return select(made, made.instrument, [None if area is None else shapely.box(*area)])


@pytest.fixture
def metadata(tmp_path: Path) -> pa.Table:
    return pq.read_table(write_copy(tmp_path / "original", PLACES) / "metadata.parquet")


def with_column(table: pa.Table, name: str, values: list[Any]) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, pa.array(values))


@pytest.mark.parametrize("name", WRONG)
def test_a_row_that_cannot_be_used_says_why(name: str, metadata: pa.Table, tmp_path: Path) -> None:
    column, value, words = WRONG[name]
    values = metadata[column].to_pylist()
    selection = chosen(tmp_path, with_column(metadata, column, [value, *values[1:]]), [-76, 37, -75, 38])
    assert words in selection.broken[0].reason
    assert str(tmp_path) not in selection.broken[0].reason
    assert len(selection.broken) + len(selection.considered) == 2


def test_rows_of_one_product_and_cell_are_used_once(metadata: pa.Table, tmp_path: Path) -> None:
    first = metadata.slice(0, 1)
    elsewhere = with_column(first, "parquet_url", ["images/part_00002.parquet"])
    selection = chosen(tmp_path, pa.concat_tables([metadata, first, elsewhere]))
    found = Counter((each.item.id, each.status) for each in selection.considered)
    here = f"{L1C}_{CELL}"
    assert found == {(here, "used"): 1, (here, "unused"): 2, (f"{L1C}_{EAST}", "used"): 1}
    assert {each.reason for each in selection.considered if each.status == "unused"} == {
        "another item of the same id is newer, or came first"
    }


def test_the_cell_says_where_an_image_lies(metadata: pa.Table, tmp_path: Path) -> None:
    """Not the stated center, of which a wrong one would leave the image out without a word."""
    elsewhere = with_column(metadata, "centre_lat", [None, -60.0])
    assert len(chosen(tmp_path / "in", elsewhere, [-75.6, 37.66, -75.5, 37.7]).considered) == 2
    with pytest.raises(SourceError, match="found 0 items"):
        chosen(tmp_path / "out", elsewhere, [-75.6, -61, -75.5, -59])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda table: table.drop_columns(["grid_cell"]), "has no column 'grid_cell'"),
        (lambda table: table.append_column("crs", table["crs"]), "has two columns of one name"),
        (lambda table: table.slice(0, 0), "found 0 items"),
        (lambda table: with_column(table, "crs", [32618, 32618]), "has 32618 in column crs .expected a reference"),
        (lambda table: with_column(table, "timestamp", [20160112, 20160113]), "has the timestamp 20160112"),
        (lambda table: with_column(table, "cloud_cover", ["few", "many"]), "has 'few' in column cloud_cover"),
    ],
)
def test_other_tables_are_refused(
    change: Callable[[pa.Table], pa.Table], words: str, metadata: pa.Table, tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match=words):
        chosen(tmp_path, change(metadata))


def altered(value: bytes, crs: str = CRS, east: float = 0, factor: float = 1, dtype: str = "") -> bytes:
    """A GeoTIFF of the copy, with other pixels or another place."""
    with MemoryFile(value) as memory, memory.open() as file:
        pixels, meters, west, north = file.read(1), file.transform.a, file.transform.c, file.transform.f
    return geotiff((pixels * factor).astype(dtype or pixels.dtype), west + east, north, crs, meters)


def of_bands(row: dict[str, Any], **how: Any) -> dict[str, bytes]:
    return {name: altered(value, **how) for name, value in row.items() if name.startswith("B")}


BROKEN_ROWS: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], str]] = {
    "another cell": (lambda _: {"grid_cell": EAST}, "has the grid_cell '419U_666L'"),
    "a cut image": (lambda _: {"B04": b"II*\0 cut short"}, "cannot be opened"),
    "zeros": (lambda _: {"B04": bytes(1000)}, "cannot be opened"),
    "null": (lambda _: {"B04": None}, "has nothing in column B04"),
    "an empty value": (lambda _: {"B04": b""}, "has nothing in column B04"),
    "no mask": (lambda _: {"cloud_mask": None}, "has nothing in column cloud_mask"),
    "another zone": (lambda row: of_bands(row, crs="EPSG:32619"), "is in EPSG:32619 (expected EPSG:32618"),
    "a band in another zone": (lambda row: {"B04": altered(row["B04"], crs="EPSG:32619")}, "is in EPSG:32619"),
    "another place": (lambda row: of_bands(row, east=100_000), "1068 × 1068 pixels of 10 × 10 from 5"),
    "reflectance": (lambda row: of_bands(row, factor=1e-4, dtype="float32"), "look like reflectance"),
    "a band of 8 bits": (lambda row: {"B04": altered(row["B04"], factor=0.04, dtype="uint8")}, "red has 8 bits"),
}
BROKEN_TABLES: dict[str, tuple[Callable[[pa.Table], pa.Table], str]] = {
    "no B04": (lambda table: table.drop_columns(["B04"]), "has no column B04"),
    "two B04": (lambda table: table.append_column("B04", table["B03"]), "has two columns B04"),
    "no cloud mask": (lambda table: table.drop_columns(["cloud_mask"]), "has no column cloud_mask"),
    "text": (lambda table: with_column(table, "B04", ["x"]), "has str in column B04"),
    "numbers": (lambda table: with_column(table, "B04", [[1, 2]]), "has no column B04"),
    "no row": (lambda table: table.slice(0, 0), "has 0 rows in row group 0"),
}


@pytest.mark.slow  # two runs
def test_images_that_are_not_those_of_the_metadata_are_left_out(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    """One row each, of a product of its own; tables that are wrong are files of their own."""
    base = {name: value for name, value in rows[1].items() if name != "thumbnail"} | {"grid_cell": CELL, **PLACES[0]}
    base |= {name: value for name, value in rows[0].items() if isinstance(value, bytes) and name != "thumbnail"}
    words = [words for _, words in (*BROKEN_ROWS.values(), *BROKEN_TABLES.values())]
    products = [f"{L1C[:-6]}{number:06}" for number in range(len(words) + 1)]
    folder = write_copy(tmp_path / "Core-S2L1C", [base | {"product_id": product} for product in products])
    changes = [change for change, _ in BROKEN_ROWS.values()]
    wrong = [base | {"product_id": name} | change(base) for name, change in zip(products, changes, strict=False)]
    parts = [pa.Table.from_pylist([{k: v for k, v in row.items() if k != "crs"}]) for row in wrong]
    whole = pq.read_table(folder / "images" / "part_00001.parquet").slice(len(parts))
    parts += [change(whole.slice(number, 1)) for number, (change, _) in enumerate(BROKEN_TABLES.values())]
    parts.append(whole.slice(len(BROKEN_TABLES)))
    names = [f"images/part_{number:05}.parquet" for number in range(2, len(parts) + 2)]
    for name, part in zip(names, parts, strict=True):
        pq.write_table(part, folder / name, row_group_size=1)
    metadata = with_column(pq.read_table(folder / "metadata.parquet"), "parquet_url", names)
    pq.write_table(with_column(metadata, "parquet_row", [0] * len(names)), folder / "metadata.parquet")
    made = spec(tmp_path, "Core-S2L1C", chips={"size": 512}, imagery={"area": [-75.7, 37.5, -75.6, 37.68]})
    produce(load_spec(made), Release(str(tmp_path / "release")))
    said = {row["item_ids"][0]: row for row in tables(tmp_path / "release", "coverage")}
    for product, expected in zip(products, words, strict=False):
        row = said[f"{product}_{CELL}"]
        assert row["reason"] in {"unreadable", "implausible"}
        assert expected in row["detail"]
    assert said[f"{products[-1]}_{CELL}"]["status"] == "embedded"


def test_the_utm_layout_takes_no_other_grid_than_the_cells(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    moved = rows[0] | of_bands(rows[0], crs="EPSG:32619")
    write_copy(tmp_path / "Core-S2L1C", [moved, rows[1]])
    made = spec(tmp_path, "Core-S2L1C", chips={"layout": "utm", "size": 512})
    produce(load_spec(made), Release(str(tmp_path / "release")))
    reasons = {row["reason"]: row["detail"] for row in tables(tmp_path / "release", "coverage")}
    assert reasons.keys() == {None, "unreadable"}
    assert "is in EPSG:32619 (expected EPSG:32618" in reasons["unreadable"]


def test_share_alike_terms_bind_the_release(run: Run, copy: Path, tmp_path: Path) -> None:
    failed = run("plan", spec(tmp_path, copy.name, license="CC-BY-4.0"), code=2, cwd=tmp_path)
    assert "is under CC-BY-SA-4.0" in failed.stderr
    assert run("plan", spec(tmp_path, copy.name, license="CC-BY-4.0", imagery={"license": "CC-BY-4.0"}), cwd=tmp_path)


def test_a_spec_names_one_kind_of_source(run: Run, copy: Path, tmp_path: Path) -> None:
    failed = run("plan", spec(tmp_path, copy.name, imagery={"stac": "item.json"}), code=2, cwd=tmp_path)
    assert "found both" in failed.stderr
    failed = run("plan", spec(tmp_path, "elsewhere"), code=2, cwd=tmp_path)
    assert "has no metadata.parquet" in failed.stderr


def test_footprints_are_those_of_the_published_files() -> None:
    """Origins of bands of Core-S2L2A, as their GeoTIFFs state them."""
    from clay_publish.producer.sources.major_tom import _corner

    for cell, crs, west, north in (
        ("110D_457L", "EPSG:32724", 207801.0219440222, 8917004.962866273),
        ("172U_184L", "EPSG:32628", 269252.0378535185, 1719490.1383172674),
        ("579U_897R", "EPSG:32652", 629786.3149029426, 5773741.086749154),
        ("873D_230L", "EPSG:32713", 547696.877102393, 1304979.2471263688),
        ("150D_1777L", "EPSG:32703", 595456.5006708922, 8520717.66936883),
        ("695U_606R", "EPSG:32650", 527708.8611989117, 6932001.5507950345),
        ("589U_1152L", "EPSG:32602", 465112.7834967471, 5872076.23962727),
    ):
        assert _corner(cell, crs, "") == pytest.approx((west, north), abs=1e-6)


def test_the_test_cells_hold_the_scene(shared_data: Path) -> None:
    with rasterio.open(shared_data / "s2_l1c_T18SVG_20160112" / "B04.tif") as file:
        assert file.crs.to_string() == CRS
    assert cells_at(np.array([-75.63]), np.array([37.69]))[0].startswith("419U")
