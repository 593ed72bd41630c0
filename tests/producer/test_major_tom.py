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
import yaml
from hub_server import Hub
from huggingface_hub import CommitOperationAdd, HfApi
from image_server import ImageServer
from major_tom_copy import L1C, sentinel_1, sentinel_2, write_copy
from rasterio.io import MemoryFile

from clay_publish.geo.major_tom_grid import cells_at

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
    run("validate", tmp_path / "release")
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


def test_release_in_the_utm_layout(run: Run, copy: Path, tmp_path: Path) -> None:
    made = spec(tmp_path, "Core-S2L1C", chips={"layout": "utm", "size": 256})
    run("run", made, "--out", tmp_path / "release", "--quiet")
    run("validate", tmp_path / "release")
    chips = tables(tmp_path / "release", "embeddings")
    assert len(chips) >= 20
    assert any(len(chip["item_ids"]) == 2 for chip in chips)  # cells of one pass fill each other
    assert copy.is_dir()


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


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"grid_cell": "419U_9999L"}, "not a cell of the grid"),
        ({"parquet_url": "../../secret.parquet"}, "a Parquet file of the same copy"),
        ({"crs": "nowhere"}, "in 'nowhere'"),
        ({"timestamp": "yesterday"}, "has the timestamp 'yesterday'"),
    ],
)
def test_metadata_that_cannot_be_used_is_refused(
    run: Run, rows: list[dict[str, Any]], tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    write_copy(tmp_path / "Core-S2L1C", rows[:1], **changes)
    failed = run("plan", spec(tmp_path, "Core-S2L1C"), code=2, cwd=tmp_path)
    assert words in " ".join(failed.stderr.split())


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda rows: rows[0].update(grid_cell=EAST), "has the grid_cell '419U_666L'"),
        (lambda rows: rows[0].update(B04=b"II*\0 cut short"), "cannot be opened"),
        (lambda rows: rows[0].update(B04=None), "has NoneType in column B04"),
        (lambda rows: rows.pop(), "has 1 row groups"),
    ],
)
def test_images_that_are_not_those_of_the_metadata_are_unreadable(
    run: Run, rows: list[dict[str, Any]], tmp_path: Path, break_it: Callable[[Any], Any], words: str
) -> None:
    folder = write_copy(tmp_path / "Core-S2L1C", rows)
    broken = [{k: v for k, v in row.items() if k != "crs"} for row in rows]
    break_it(broken)
    path = folder / "images" / "part_00001.parquet"
    pq.write_table(pa.Table.from_pylist(broken), path, row_group_size=1)
    run("produce", spec(tmp_path, "Core-S2L1C"), "--out", tmp_path / "release", "--quiet", code=1)
    coverage = tables(tmp_path / "release", "coverage")
    details = {row["detail"] for row in coverage if row["reason"] == "unreadable"}
    assert details
    assert any(words in detail for detail in details), details


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
