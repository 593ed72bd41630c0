"""What a plan says, against counts made another way."""

import copy
import json
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
import yaml
from pyproj import Geod, Transformer
from typer.testing import CliRunner

from clay_publish.cli.app import app
from clay_publish.errors import SourceError, SpecError
from clay_publish.geo.area import read_area
from clay_publish.geo.expected_cells import expected_cells
from clay_publish.geo.utm_grid import UtmGrid
from clay_publish.producer.encoders import load_encoder
from clay_publish.producer.plan_run import plan
from clay_publish.producer.planning import estimate as estimate_module
from clay_publish.producer.planning.estimate import Estimate, estimate, stated_rates
from clay_publish.producer.sources.selection import select
from clay_publish.producer.unit_plan import read_inputs
from clay_publish.progress import silent
from clay_publish.release.directory import Release
from clay_publish.spec.load import load_spec, resolve_spec
from clay_publish.spec.sensors import sensor

S2 = "stac_items/stac_geoparquet/100-sentinel-2-items.parquet"
WINDOW = "2024-11-01/2025-01-01"
COLORADO = [-105.4, 39.9, -104.5, 40.4]


@pytest.fixture
def document(shared_data: Path) -> dict[str, Any]:
    """A spec of real items around Boulder."""
    return {
        "name": "boulder",
        "imagery": [
            {
                "stac": str(shared_data / S2),
                "sensor": "sentinel-2-l2a",
                "area": COLORADO,
                "windows": [WINDOW],
                "query": {"eo:cloud_cover": {"lt": 30}},
            }
        ],
        "chips": {"size": 100},
        "cost": {"usd_per_hour": 2.5, "chips_per_hour": 10000},
    }


def planned(document: dict[str, Any]) -> Estimate:
    spec = resolve_spec(copy.deepcopy(document), where="release.yaml", folder=Path("/"))
    made, counts = estimate(read_inputs(spec, report=silent), rates=stated_rates(spec))
    assert sum(each.expected for each in counts.squares) == made.chips["expected"]
    return made


def footprints(document: dict[str, Any], *, excluded: bool = False) -> list[Any]:
    spec = resolve_spec(copy.deepcopy(document), where="release.yaml", folder=Path("/"))
    grounds = [None if block.area is None else read_area(block.area).geometry for block in spec.imagery]
    chosen = select(spec, sensor(spec.sensor), grounds)
    return [e.item.geometry for e in chosen.considered if e.status == ("excluded" if excluded else "used")]


def covered_by_hand(area: list[float], grounds: list[Any]) -> tuple[int, int, int]:
    """Cells of an area in zone 13; those that share ground with some image; such shares, image by image."""
    ((zone),) = expected_cells(UtmGrid(1000), shapely.box(*area), rule="intersects")
    assert zone.zone == 13
    _, row, col = zone.cells()
    boxes = shapely.box(col * 1000.0, row * 1000.0, (col + 1) * 1000.0, (row + 1) * 1000.0)
    to_plane = Transformer.from_crs(4326, 32613, always_xy=True).transform
    touched = np.zeros(len(boxes), dtype=int)
    for ground in grounds:
        plane = shapely.transform(shapely.segmentize(ground, 0.002), to_plane, interleaved=False)
        shapely.prepare(plane)
        touched += shapely.intersects(plane, boxes)
    return len(boxes), int((touched > 0).sum()), int(touched.sum())


def test_cells_with_imagery_are_those_that_polygons_find(document: dict[str, Any]) -> None:
    document["imagery"][0]["query"] = {"eo:cloud_cover": {"lt": 1}, "s2:mgrs_tile": "13TDE"}
    made = planned(document)
    expected, covered, shares = covered_by_hand(COLORADO, footprints(document))
    assert made.chips["expected"] == expected
    assert 0 < covered < expected
    assert made.chips["with_imagery"] == pytest.approx(covered, abs=2)  # boxes that touch and share nothing
    assert made.per_scene == pytest.approx(shares, rel=0.002)
    assert made.chips["no_imagery"] == made.chips["expected"] - made.chips["with_imagery"]


def test_cells_whose_only_images_are_excluded_are_listed_apart(document: dict[str, Any]) -> None:
    block = document["imagery"][0]
    block["area"] = [-105.9, 39.7, -104.0, 40.6]
    spec = resolve_spec(copy.deepcopy(document), where="release.yaml", folder=Path("/"))
    chosen = select(spec, sensor(spec.sensor), [read_area(block["area"]).geometry])
    used = [each.item for each in chosen.considered if each.status == "used"]
    wide = [item.id for item in used if item.geometry is not None and item.geometry.bounds[0] < -106]
    assert 0 < len(wide) < len(used)
    before = planned(document)
    block["exclude"] = wide
    after = planned(document)
    assert after.images["excluded"] == len(wide)
    assert after.chips["excluded"] > 0
    assert after.chips["with_imagery"] + after.chips["excluded"] == before.chips["with_imagery"]
    assert after.chips["no_imagery"] == before.chips["no_imagery"]


def test_shares_of_the_ground_are_blocks_with_windows_of_their_own(document: dict[str, Any]) -> None:
    """Most ground once, a part of it every month."""
    (wide,) = document["imagery"]
    often = {
        **wide,
        "area": [-105.2, 40.0, -105.0, 40.2],
        "windows": ["2024-11-01/2024-12-01", "2024-12-01/2025-01-01"],
    }
    alone = planned(document)
    document["imagery"] = [wide, often]
    both = planned(document)
    by_window = {each.window: each for each in both.windows}
    assert by_window[WINDOW].expected == alone.chips["expected"]
    small, _, _ = covered_by_hand([-105.2, 40.0, -105.0, 40.2], [])
    assert by_window["2024-11-01/2024-12-01"].expected == small
    assert both.chips["expected"] == alone.chips["expected"] + 2 * small


def test_a_plan_without_an_area_promises_what_images_cover(document: dict[str, Any]) -> None:
    document["imagery"][0] |= {"area": None, "query": {"eo:cloud_cover": {"lt": 5}}}
    made = planned(document)
    assert made.chips["expected"] == made.chips["with_imagery"] > 1000
    assert "area" not in made.km2
    union = read_area(json.loads(shapely.to_geojson(shapely.union_all(footprints(document)))))
    assert made.km2["expected"] < union.km2
    assert made.km2["expected"] == pytest.approx(union.km2, rel=0.05)


def test_scenes_are_counted_by_their_pixels(shared_data: Path) -> None:
    item = shared_data / "s2_l1c_T18SVG_20160112" / "item.json"
    made = planned(
        {
            "name": "s",
            "imagery": {"stac": str(item), "sensor": "sentinel-2-l1c"},
            "chips": {"layout": "scene", "size": 100},
        }
    )
    assert made.chips["expected"] == made.chips["with_imagery"] == (512 // 100) ** 2
    assert made.rates is None
    assert made.hours is None
    assert made.bytes_to_read <= sum(path.stat().st_size for path in item.parent.glob("*.tif"))


def test_the_price_follows_from_what_is_stated(document: dict[str, Any]) -> None:
    made = planned(document)
    chips = made.chips["with_imagery"]
    assert made.hours == pytest.approx(chips / 10_000)
    assert made.usd == pytest.approx(chips / 10_000 * 2.5)
    assert made.km2_per_usd == pytest.approx(4000)
    assert made.bytes_to_store["float32"] > 1.6 * made.bytes_to_store["float16"]


def test_ground_out_of_range_is_said(tmp_path: Path) -> None:
    (tmp_path / "item.json").write_text(json.dumps(_item()))
    made = planned(
        {
            "name": "p",
            "imagery": {
                "stac": str(tmp_path / "item.json"),
                "sensor": "satellogic-MSI-L1D",
                "area": [-20, -85, 20, -70],
            },
            "chips": {"size": 1000, "gsd": 10},
        }
    )
    assert any("south of 80°S lies outside the utm grid" in sentence for sentence in made.warnings)
    assert made.chips["no_imagery"] > 0


def _item() -> dict[str, Any]:
    assets = {name: {"href": f"{name}.tif"} for name in ("red", "green", "blue", "nir")}
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "south",
        "geometry": shapely.geometry.mapping(shapely.box(-1, -79, 1, -78)),
        "properties": {"datetime": "2024-01-01T00:00:00Z"},
        "assets": assets,
        "links": [],
    }


def test_an_area_that_no_cell_reaches_is_refused(tmp_path: Path) -> None:
    item = _item()
    item["geometry"] = shapely.geometry.mapping(shapely.box(-1, 84.5, 1, 87))
    (tmp_path / "item.json").write_text(json.dumps(item))
    block = {"stac": str(tmp_path / "item.json"), "sensor": "satellogic-MSI-L1D", "area": [-20, 85, 20, 89]}
    with pytest.raises(SourceError, match=r"no whole chip.*north of 84°N lies outside the utm grid"):
        planned({"name": "p", "imagery": block, "chips": {"size": 100, "gsd": 10}})


def test_an_area_without_images_is_refused(document: dict[str, Any]) -> None:
    document["imagery"][0]["area"] = [10, 10, 11, 11]
    with pytest.raises(SourceError, match="none usable"):
        planned(document)
    document["imagery"][0]["area"] = [11, 10, 10.5, 10.1]
    with pytest.raises(SourceError, match=r"crosses the antimeridian: from 11° eastward to 10\.5°, 359\.5° wide"):
        planned(document)


def program(*arguments: str, code: int = 0) -> str:
    """What the program prints, run in this process: its libraries are slow to load."""
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stdout


def test_the_table_of_the_first_global_estimate_comes_out(
    document: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """10 k chips an hour at $2.5: 50 px give 1000 km²/$ and $510 K for the world, 100 px 4000 km²/$ and $127 K."""
    monkeypatch.chdir(tmp_path)
    Path("release.yaml").write_text(yaml.safe_dump(document))
    made = json.loads(program("plan", "release.yaml", "--json", "--quiet"))
    rows = {row["size"]: row for row in made["alternatives"]}
    assert list(rows) == [50, 64, 100, 128, 200, 256]
    assert rows[50]["km2_per_usd"] == pytest.approx(1000)
    assert rows[50]["earth_usd"] == pytest.approx(510_000)
    assert rows[100]["km2_per_usd"] == pytest.approx(4000)
    assert rows[100]["earth_usd"] == pytest.approx(127_500)
    assert rows[100]["land_chips"] == pytest.approx(143.4e6, rel=0.01)
    assert rows[100]["chips"] == made["chips"]["with_imagery"]


def test_a_plan_is_printed_kept_and_drawn(
    document: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    document["cost"]["budget_usd"] = 0.01
    document["imagery"][0]["area"] = [-105.9, 39.5, -104.5, 40.4]
    Path("release.yaml").write_text(yaml.safe_dump(document))
    said = program("plan", "release.yaml", "--quiet", code=1)
    assert "OVER BUDGET" in said
    assert "4,000 km²/$" in said
    folder = tmp_path / "boulder" / "1.0.0" / ".run"
    made = Estimate.model_validate_json((folder / "plan.json").read_text())
    table = pq.read_table(folder / "plan.parquet")
    assert made.over_budget
    for name in ("expected", "with_imagery", "no_imagery", "excluded"):
        assert sum(table[name].to_pylist()) == made.chips[name]
    missing = pq.read_table(folder / "plan-missing.parquet").to_pandas()
    wide = missing["last_col"] - missing["first_col"] + 1
    by_reason = wide.groupby(missing["reason"]).sum().to_dict()
    assert by_reason == {name: made.chips[name] for name in ("no_imagery", "excluded") if made.chips[name]}
    assert set(table["mgrs"].to_pylist()) <= {
        "13TDE",
        "13TEE",
        "13TDF",
        "13TEF",
        "13SDD",
        "13SED",
        "13TDD",
        "13TED",
    } | {"13TCE", "13SCD", "13TDE"}
    assert (folder / "plan.png").read_bytes().startswith(b"\x89PNG")


def test_a_calibration_times_real_chips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    program("sample", "first")
    made = json.loads(program("plan", "first/release.yaml", "--calibrate", "9", "--json", "--quiet"))
    assert made["rates"]["measured"]
    assert made["rates"]["chips_per_hour"] > 0
    assert made["hours"] == pytest.approx(made["chips"]["with_imagery"] / made["rates"]["chips_per_hour"])
    assert sum(made["shares"].values()) == pytest.approx(1, abs=0.01)


@pytest.mark.slow  # processes that keep all cores busy
def test_waiting_for_a_core_is_not_the_model_s_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sleeping stands for it: neither takes the processor's time."""
    program("sample", str(tmp_path / "first"))
    spec = load_spec(tmp_path / "first" / "release.yaml")
    kind = type(load_encoder(spec, sensor(spec.sensor)))
    encode = kind.encode

    def slow(self: Any, chips: Any) -> Any:
        time.sleep(0.3)
        return encode(self, chips)

    monkeypatch.setattr(kind, "encode", slow)
    made = plan(spec, Release(str(tmp_path / "release")), calibrate=4)
    assert made.shares is not None
    assert 0 < made.shares.inference < 0.5


def test_patches_are_counted_with_the_bytes(golden_checkpoint: Path, tmp_path: Path) -> None:
    program("sample", str(tmp_path / "first"))
    document = yaml.safe_load((tmp_path / "first" / "release.yaml").read_text())
    model = {"encoder": "clay", "weights": str(golden_checkpoint), "precision": "float32"}
    document |= {"model": model, "chips": {"size": 64}}
    made = []
    for patches in (False, True):
        spec = resolve_spec(document | {"outputs": {"patches": patches}}, where="spec", folder=tmp_path / "first")
        made.append(plan(spec, Release(str(tmp_path / str(patches)))))
    without, with_patches = made
    chips, values = without.chips["with_imagery"], (64 // 8) ** 2 * without.dimensions
    more = with_patches.bytes_to_store["float32"] - without.bytes_to_store["float32"]
    assert more == pytest.approx(chips * values * 3465 / 1024, rel=0.01)
    for one, other in zip(without.alternatives, with_patches.alternatives, strict=True):
        assert other.bytes - one.bytes == pytest.approx(more, rel=0.1)  # the same ground has as many patches


@pytest.mark.parametrize("name", ["S2A_T60VXH_20230805", "S2B_T01VCG_20230512"])
def test_an_image_across_the_antimeridian_promises_its_own_ground(shared_data: Path, name: str) -> None:
    """One of them is in its catalog as a polygon once around the Earth."""
    item = shared_data / "stac_items" / "antimeridian" / f"{name}.json"
    ring = np.array(json.loads(item.read_text())["geometry"]["coordinates"][0])
    ground = abs(Geod(ellps="WGS84").polygon_area_perimeter(ring[:, 0] % 360, ring[:, 1])[0]) / 1e6
    made = planned({"name": "a", "imagery": {"stac": str(item), "sensor": "sentinel-2-l2a"}, "chips": {"size": 64}})
    assert made.km2["expected"] < ground
    assert made.km2["expected"] == pytest.approx(ground, rel=0.06)


@pytest.mark.slow
def test_more_files_than_the_hub_takes_are_refused(document: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    files = planned(document).output_files
    assert files["embeddings"] > 1
    monkeypatch.setattr(estimate_module, "FOLDER_LIMIT", 1)
    monkeypatch.setattr(estimate_module, "REPOSITORY_LIMIT", sum(files.values()) - 1)
    warned = [text for text in planned(document).warnings if "hosts take" in text]
    assert [text.split(" would hold ")[0] for text in warned] == ["zone 13", "the release"]
    document["publish"] = {"hugging_face": "someone/something"}
    with pytest.raises(SpecError, match=r"publish\.hugging_face: zone 13 would hold .*square_km"):
        planned(document)
    monkeypatch.undo()
    assert planned(document).output_files == files


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_too_little_disk_space_is_a_warning(
    document: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    document["imagery"][0]["query"]["s2:mgrs_tile"] = "13TDE"
    Path("release.yaml").write_text(yaml.safe_dump(document))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(2000, 1000, 1000))
    said = program("plan", "release.yaml", "--quiet")
    assert "1 kB of disk space are free, and the release takes about" in said
    assert "1 kB free" in said
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1 << 50, 0, 1 << 50))
    assert "of disk space are free" not in program("plan", "release.yaml", "--quiet")


def test_a_gpu_that_torch_cannot_use_is_a_warning(
    document: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    document["imagery"][0]["query"]["s2:mgrs_tile"] = "13TDE"
    Path("release.yaml").write_text(yaml.safe_dump(document))
    real = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path, **more: str(path) == "/dev/nvidia0" or real(path, **more))
    said = program("plan", "release.yaml", "--quiet")
    assert "this machine has an NVIDIA GPU that torch cannot use: the model runs on the CPU" in said
    assert "machine     cpu" in said
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert "NVIDIA GPU" not in program("plan", "release.yaml", "--quiet")
