"""Arrays of a release of two zones and both hemispheres: the vectors of its tables, in any reader."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xarray as xr
import yaml
import zarr
from array_copy import arrays_below
from pyproj import Transformer
from s3_servers import S3View, with_client

from clay_publish.errors import ReleaseError, SpecError
from clay_publish.geo.utm_grid import parse_chip_id
from clay_publish.producer.outputs.arrays.write import stored_vectors
from clay_publish.producer.produce import produce
from clay_publish.release.array_store import ArrayGrid
from clay_publish.release.directory import Release
from clay_publish.search.reader import open_release
from clay_publish.spec.load import load_spec, resolve_spec

from .equator import SQUARE_EDGE, WINDOWS, equator
from .processes import start
from .scattered import embeddings

STORE = "arrays/arrays.zarr"
ZONES = (18, 19)
ROW_TOP = 114 * 256 - 1
"""Of cells of 320 m: whole blocks of 256 up to 84°N."""
Once = Callable[[str, Callable[[Path], object]], Path]
Rows = list[dict[str, Any]]

# rioxarray 0.19 multiplies affine matrices in a way that affine 3 is going to drop.
pytestmark = pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")


@pytest.fixture(scope="module")
def made(once: Once, golden_checkpoint: Path) -> Path:
    """A release with chips and patches as arrays. Read only."""

    def build(folder: Path) -> None:
        model = {"encoder": "clay", "weights": str(golden_checkpoint), "precision": "float32"}
        outputs = {"arrays": True, "explorer": False, "patches": {"format": "zarr"}}
        spec = equator(folder / "spec", model=model, outputs=outputs)
        produce(load_spec(spec), Release(str(folder / "release")))

    return once("arrays-patches", build) / "release"


@pytest.fixture(scope="module")
def plain(once: Once) -> tuple[Path, Path]:
    """A spec of chips alone, and the release that an undisturbed run makes of it. Read only."""
    folder = once("arrays-chips", lambda folder: start(equator(folder / "spec"), folder / "release").finish())
    return folder / "spec" / "release.yaml", folder / "release"


def rows_of(release: Path, table: str) -> Rows:
    tables = [pq.read_table(path, partitioning=None) for path in sorted((release / table).rglob("*.parquet"))]
    return [row for one in tables for row in one.to_pylist()]


def place(row: dict[str, Any]) -> tuple[int, int, int, int]:
    """Zone, time, y and x of a chip, by the formula that the attributes state."""
    token = parse_chip_id(row["id"])
    return row["epsg"] % 100, WINDOWS.index(str(token.window)), ROW_TOP - row["row"], row["col"]


START = {18: (ROW_TOP - 30, 2580), 19: (ROW_TOP - 30, 490)}
"""Row and column of pixels of 60 × 60 that hold all chips of a zone."""


def around(dataset: xr.Dataset) -> xr.Dataset:
    """The pixels around all chips."""
    y, x = START[int(dataset.attrs["proj:code"][-2:])]
    return dataset.isel(y=slice(y, y + 60), x=slice(x, x + 60))


def test_every_chip_is_a_pixel_and_every_other_pixel_is_nodata(made: Path) -> None:
    chips = rows_of(made, "embeddings")
    assert {row["epsg"] for row in chips} == {32618, 32718, 32619, 32719}
    assert {str(parse_chip_id(row["id"]).window) for row in chips} == set(WINDOWS)
    opened = {zone: xr.open_zarr(made / STORE, group=f"utm{zone}", chunks=None) for zone in ZONES}
    loaded = {zone: around(dataset).load() for zone, dataset in opened.items()}
    for row in chips:
        zone, time, y, x = place(row)
        pixel = loaded[zone].isel(time=time, y=y - START[zone][0], x=x - START[zone][1])
        assert opened[zone].attrs["embrel:cells"]["row_top"] == ROW_TOP
        found = (pixel.embeddings * pixel.scales).values
        np.testing.assert_allclose(found, row["embedding"], atol=float(pixel.scales) / 2 * 1.001)
        assert float(pixel.valid) == np.float32(row["valid_fraction"])
        assert np.isnan(pixel.cloud) if row["cloud_fraction"] is None else float(pixel.cloud) == row["cloud_fraction"]
    embedded = {place(row) for row in chips}
    for zone, near in loaded.items():
        lonely = np.argwhere(np.isfinite(near.scales.values)) + np.array([0, *START[zone]])
        assert {(zone, *cell) for cell in lonely.tolist()} == {each for each in embedded if each[0] == zone}
        assert np.array_equal(np.isnan(near.embeddings.values).all(axis=3), np.isnan(near.scales.values))


def test_the_reason_layer_is_the_coverage(made: Path) -> None:
    expected = rows_of(made, "coverage")
    assert {row["reason"] for row in expected} == {None, "nodata"}
    for zone in ZONES:
        reason = around(xr.open_zarr(made / STORE, group=f"utm{zone}", chunks=None)).reason
        names = reason.attrs["flag_meanings"].split()
        cells = np.argwhere(reason.values)
        codes = reason.values[tuple(cells.T)]
        found = {
            tuple(cell): names[code]
            for cell, code in zip((cells + np.array([0, *START[zone]])).tolist(), codes, strict=True)
        }
        mine = [row for row in expected if row["epsg"] % 100 == zone]
        assert found == {place(row)[1:]: row["reason"] or "embedded" for row in mine}


def test_coordinates_are_where_the_chips_are(made: Path) -> None:
    import rioxarray  # noqa: F401 - registers the accessor

    for row in rows_of(made, "embeddings")[::7]:
        zone, time, y, x = place(row)
        dataset = xr.open_zarr(made / STORE, group=f"utm{zone}", chunks=None)
        assert dataset.embeddings.rio.crs.to_epsg() == 32600 + zone
        assert dataset.rio.transform().a == 320
        assert list(dataset.rio.transform())[:6] == dataset.attrs["spatial:transform"]
        lon, lat = Transformer.from_crs(32600 + zone, "OGC:CRS84", always_xy=True).transform(
            dataset.x.values[x], dataset.y.values[y]
        )
        np.testing.assert_allclose([lon, lat], [row["lon"], row["lat"]], atol=1e-9)
        assert str(dataset.time.values[time])[:10] == WINDOWS[time][:10]
        assert str(dataset.time_bounds.values[time, 1])[:10] == WINDOWS[time][11:]


def test_patches_are_pixels_of_their_ground_size(made: Path) -> None:
    seen = 0
    for part in (made / ".run" / "parts").glob("patches_*/*.arrow"):
        table = pa.ipc.open_file(part).read_all()
        for row in table.to_pylist()[::25]:
            chip = parse_chip_id(row["chip_id"])
            opened = zarr.open_group(made / STORE / f"utm{chip.epsg % 100}" / "patches", mode="r")
            assert opened.attrs["spatial:transform"][0] == 80
            assert opened.attrs["geoemb:chip_layout"]["chip_size"] == [8, 8]
            y, x = (ROW_TOP - chip.row) * 4 + row["patch_row"], chip.col * 4 + row["patch_col"]
            time = WINDOWS.index(str(chip.window))
            stored, scale = opened["embeddings"][time, y, x], opened["scales"][time, y, x]
            np.testing.assert_allclose(stored * scale, row["embedding"], atol=scale / 2 * 1.001)
            seen += 1
    assert seen > 50
    assert not (made / "patches").exists()


def test_zarr_alone_reads_the_store(made: Path) -> None:
    root = zarr.open_group(made / STORE, mode="r")
    assert sorted(root.group_keys()) == ["utm18", "utm19"]
    assert root.attrs["geoemb:spatial_layout"] == "utm_zones"
    array = root["utm18/embeddings"]
    assert array.metadata.dimension_names == ("time", "y", "x", "band")
    assert (array.dtype, array.fill_value, array.shards[0]) == (np.int8, -128, 1)
    shard = array.shards[1]
    assert 256 % shard == 0
    assert (ROW_TOP + 1) % shard == 0  # a shard starts at row 0
    assert np.prod(array.shards) <= 256 << 20
    names = [each["name"] for each in root["utm18"].attrs["zarr_conventions"]]
    assert names == ["geoemb:", "proj:", "spatial"]


def test_to_xarray_is_the_same_from_arrays_and_from_tables(made: Path, tmp_path: Path) -> None:
    tables = shutil.copytree(made, tmp_path / "release", ignore=shutil.ignore_patterns("arrays"))
    from clay_publish.catalog import write_items

    write_items(Release(str(tables)))
    shutil.copytree(made / "arrays", tmp_path / "with" / "arrays")
    shutil.copytree(tables, tmp_path / "with", dirs_exist_ok=True)
    box = (-72.008, -0.006, -71.995, 0.007)
    both = [open_release(tmp_path / name) for name in ("with", "release")]
    for zone in ZONES:
        arrays, rows = (each.to_xarray(zone=zone, bbox=box) for each in both)
        assert arrays.sizes == rows.sizes
        assert 3 < arrays.sizes["y"] < 8
        for name in ("valid", "cloud", "reason", "x", "y", "time"):
            np.testing.assert_array_equal(arrays[name].values, rows[name].values)
        step = np.nanmax(np.abs(rows.embeddings.values)) / 127
        np.testing.assert_allclose(arrays.embeddings.values, rows.embeddings.values, atol=step / 2 * 1.001)
        assert np.isnan(arrays.embeddings.values).any() == np.isnan(rows.embeddings.values).any()
        one, other = (each.to_xarray(zone, box, WINDOWS[1]) for each in both)
        np.testing.assert_allclose(one.embeddings[0, 1, ::-1, 3], other.embeddings[0, 1, ::-1, 3], atol=step / 2)
        lazy = both[0].to_xarray(zone, box, chunks={"y": 2})
        np.testing.assert_array_equal(lazy.embeddings.compute(), arrays.embeddings)
    fine = both[0].to_xarray(18, box, patches=True)
    assert fine.sizes["y"] == pytest.approx(4 * arrays.sizes["y"], abs=7)
    assert np.isfinite(fine.embeddings.values).any()
    with pytest.raises(ValueError, match="18, 19"):
        both[0].to_xarray(bbox=box)
    with pytest.raises(ReleaseError, match="patches"):
        both[1].to_xarray(18, patches=True)


def assembled(release: Path) -> dict[str, int]:
    """The files of finished shards, and when each was written."""
    receipts = (json.loads(path.read_text()) for path in (release / ".run" / "shards").rglob("*.json"))
    return {path: (release / path).stat().st_mtime_ns for each in receipts for path in each["files"]}


@pytest.mark.slow  # two runs; the kills of `test_resume`, between shards
@pytest.mark.parametrize("shards", [3, 7])
def test_killed_between_shards_it_goes_on(shards: int, plain: tuple[Path, Path], tmp_path: Path) -> None:
    spec = Path(shutil.copytree(plain[0].parent, tmp_path / "spec")) / "release.yaml"
    out = tmp_path / "release"
    assert start(spec, out).kill_when(lambda: len(list(out.glob(".run/shards/*/*/*/*.json"))) >= shards)
    done = assembled(out)
    assert len(done) >= 4 * shards
    assert not (out / STORE / "zarr.json").exists()
    start(spec, out).finish()
    assert arrays_below(out) == arrays_below(plain[1])
    assert done.items() <= assembled(out).items()  # not made again
    assert not list(out.rglob(".tmp-*"))


@pytest.mark.slow  # a run in a process of its own
def test_a_shard_is_assembled_while_units_are_made(plain: tuple[Path, Path], tmp_path: Path) -> None:
    """The last unit begins when a shard that it does not touch is there."""
    spec = Path(shutil.copytree(plain[0].parent, tmp_path / "spec")) / "release.yaml"
    wait = f"""
import pathlib, time
from clay_publish.producer.execution import local
real, begun = local.attempt, []
def attempt(unit, work):
    begun.append(unit)
    while len(begun) == 8 and not list(pathlib.Path({str(tmp_path)!r}).glob("release/.run/shards/*/*/*/*.json")):
        time.sleep(0.01)
    return real(unit, work)
local.attempt = attempt
"""
    start(spec, tmp_path / "release", wait).finish()
    assert arrays_below(tmp_path / "release") == arrays_below(plain[1])


@pytest.mark.slow  # two more runs
def test_a_shard_whose_file_is_missing_is_made_again(plain: tuple[Path, Path], tmp_path: Path) -> None:
    spec = Path(shutil.copytree(plain[0].parent, tmp_path / "spec")) / "release.yaml"
    out = Path(shutil.copytree(plain[1], tmp_path / "release"))
    before = assembled(out)
    (lost, *_) = [path for path in before if "/embeddings/" in path]
    (out / lost).unlink()
    start(spec, out).finish()
    assert arrays_below(out) == arrays_below(plain[1])
    same = {path for path, written in assembled(out).items() if written == before[path]}
    assert lost not in same
    assert len(same) == len(before) - 4  # the layers of that shard


@pytest.mark.slow  # two more runs
def test_shares_of_a_run_make_the_same_arrays(made: Path, tmp_path: Path) -> None:
    """Each assembles the shards of its own units, and the last makes a store of them."""
    spec = Path(shutil.copytree(made.parent / "spec", tmp_path / "spec")) / "release.yaml"
    out = tmp_path / "release"
    start(spec, out, more=("--unit", "2/2")).finish()
    done = assembled(out)
    assert {path.split("/")[2] for path in done} == {"utm19"}
    assert any("/patches/" in path for path in done)
    assert not list((out / STORE).rglob("zarr.json"))
    start(spec, out, more=("--unit", "1/2")).finish()
    assert arrays_below(out) == arrays_below(made)
    assert done.items() <= assembled(out).items()


@pytest.fixture(scope="module")
def seam(once: Once) -> tuple[Path, Path]:
    """A spec whose shards hold chips of two files each, and its release. Read only."""

    def build(folder: Path) -> None:
        start(equator(folder / "spec", middle=SQUARE_EDGE), folder / "release").finish()

    folder = once("arrays-seam", build)
    return folder / "spec" / "release.yaml", folder / "release"


@pytest.mark.slow  # several runs
def test_a_share_makes_a_missing_shard_again(plain: tuple[Path, Path], tmp_path: Path) -> None:
    spec = Path(shutil.copytree(plain[0].parent, tmp_path / "spec")) / "release.yaml"
    out = tmp_path / "release"
    start(spec, out, more=("--unit", "2/2")).finish()
    before = assembled(out)
    lost = next(path for path in before if "/embeddings/" in path)
    (out / lost).unlink()
    start(spec, out, more=("--unit", "2/2")).finish()
    assert (out / lost).read_bytes() == (plain[1] / lost).read_bytes()
    assert len(before.items() & assembled(out).items()) == len(before) - 4  # the layers of that shard
    start(spec, out, more=("--unit", "1/2")).finish()
    assert arrays_below(out) == arrays_below(plain[1])


@pytest.mark.slow  # several runs
def test_shards_wait_for_a_file_that_another_share_lost(seam: tuple[Path, Path], tmp_path: Path) -> None:
    spec = Path(shutil.copytree(seam[0].parent, tmp_path / "spec")) / "release.yaml"
    out = tmp_path / "release"
    start(spec, out, more=("--unit", "2/2")).finish()
    min((out / "embeddings").rglob("*.parquet")).unlink()
    for share in ("1/2", "2/2"):
        start(spec, out, more=("--unit", share)).finish()
    assert embeddings(out) == embeddings(seam[1])
    assert arrays_below(out) == arrays_below(seam[1])


@pytest.mark.slow  # several runs
def test_shards_of_several_shares_are_of_who_is_last(seam: tuple[Path, Path], tmp_path: Path) -> None:
    spec = Path(shutil.copytree(seam[0].parent, tmp_path / "spec")) / "release.yaml"
    out = tmp_path / "release"
    assert len(list((seam[1] / "embeddings").rglob("*.parquet"))) == 8
    assert len(assembled(seam[1])) == 4 * 4
    for share, shards in (("2/2", 0), ("1/2", 4)):
        # Whoever finishes the run finds all of them there.
        first = """
from clay_publish.producer import produce
real = produce._published
def finish(run, *rest, **named):
    print("found", len(run.work.release.store.files(".run/shards")), flush=True)
    return real(run, *rest, **named)
produce._published = finish
"""
        program = start(spec, out, first, ("--unit", share))
        program.finish()
        assert ("found 4" in program.errors.read_text()) == bool(shards)
    assert arrays_below(out) == arrays_below(seam[1])


@pytest.mark.slow
@pytest.mark.parametrize("where", ["disk", "s3"])
def test_shares_that_end_together_share_the_shards(
    where: str, seam: tuple[Path, Path], bucket: S3View, tmp_path: Path
) -> None:
    """All three find all shards ready, begin at different ones, and write the same bytes where two meet."""
    spec = Path(shutil.copytree(seam[0].parent, tmp_path / "spec")) / "release.yaml"
    out = str(tmp_path / "release") if where == "disk" else f"s3://{bucket.bucket}/release"
    together = f"""
import pathlib, time
from clay_publish.producer.execution.shard_queue import ShardQueue
from clay_publish.producer.outputs.arrays.write import ArrayWriter
folder = pathlib.Path({str(tmp_path)!r})
def wait(name, share):
    (folder / f"{{name}}-{{share.number}}").touch()
    while len(list(folder.glob(f"{{name}}-*"))) < 3:
        time.sleep(0.005)
real, write = ShardQueue.published_elsewhere, ArrayWriter.assemble
def published_elsewhere(self, units, share):
    global mine
    mine = share
    wait("done", share)
    real(self, units, share)
    (folder / f"queued-{{share.number}}").write_text(str(len(self)))
def assemble(self, ready):
    if list(folder.glob("done-*")):
        wait("assembles", mine)
    return write(self, ready)
ShardQueue.published_elsewhere, ArrayWriter.assemble = published_elsewhere, assemble
"""
    programs = [start(spec, out, together, ("--unit", f"{number}/3")) for number in (1, 2, 3)]
    for program in programs:
        program.finish()
    assert [int(path.read_text()) for path in tmp_path.glob("queued-*")] == [4, 4, 4]
    if where == "disk":
        assert arrays_below(Path(out)) == arrays_below(seam[1])
    else:
        found = {name.removeprefix("release/"): bucket.get(name) for name in bucket.names("release/arrays/")}
        assert found == arrays_below(seam[1])
        assert not bucket.uploads()


def test_arrays_may_be_asked_for_and_left_out_later(plain: tuple[Path, Path], tmp_path: Path) -> None:
    spec = Path(shutil.copytree(plain[0].parent, tmp_path / "spec")) / "release.yaml"
    out = Path(shutil.copytree(plain[1], tmp_path / "release"))
    document = yaml.safe_load(spec.read_text())
    for arrays, more in ((False, ()), ({"dtype": "float16"}, ("--unit", "1/1"))):
        document["outputs"]["arrays"] = arrays
        spec.write_text(yaml.safe_dump(document))
        start(spec, out, more=more).finish()
        assert bool(arrays_below(out)) == bool(arrays)
    stored = zarr.open_group(out / STORE / "utm18", mode="r")
    assert "scales" not in stored
    for row in rows_of(out, "embeddings"):
        zone, *cell = place(row)
        if zone == 18:
            np.testing.assert_array_equal(stored["embeddings"][tuple(cell)], np.float16(row["embedding"]))


@pytest.mark.slow
def test_killed_on_an_object_store_it_goes_on(made: Path, bucket: S3View, tmp_path: Path) -> None:
    """Between shards of patches, which are made of parts; what was there is not written again."""
    spec = Path(shutil.copytree(made.parent / "spec", tmp_path / "spec")) / "release.yaml"
    where = f"s3://{bucket.bucket}/release"

    def finished() -> dict[str, object]:
        """The files of finished shards, and when each was written."""
        receipts = bucket.names("release/.run/shards/")
        files = {f"release/{path}" for name in receipts for path in json.loads(bucket.get(name))["files"]}
        request = {"Bucket": bucket.bucket, "Prefix": f"release/{STORE}/"}
        listed = with_client(bucket.address, lambda client: client.list_objects_v2(**request)).get("Contents", [])
        return {each["Key"]: each["LastModified"] for each in listed if each["Key"] in files}

    assert start(spec, where).kill_when(lambda: any("/patches/" in name for name in finished()))
    before = finished()
    assert f"release/{STORE}/zarr.json" not in bucket.names(f"release/{STORE}/")
    start(spec, where).finish()
    after = finished()
    assert len(after) > len(before)
    assert before.items() <= after.items()
    found = {name.removeprefix("release/"): bucket.get(name) for name in bucket.names("release/arrays/")}
    assert found == arrays_below(made)
    assert not bucket.uploads()


def test_values_beyond_float16_are_refused() -> None:
    kind = pa.list_(pa.float32(), 2)
    table = pa.table({"embedding": pa.array([[1.0, 70_000.0]], kind)})
    with pytest.raises(ReleaseError, match="int8"):
        stored_vectors(table, "float16", "here")


@pytest.mark.parametrize(
    ("cell", "dimensions", "item", "patches"), [(1280, 1024, 1, 1), (1280, 768, 2, 1), (960, 1024, 1, 12)]
)
def test_shards_are_small_enough_and_start_at_the_equator(cell: int, dimensions: int, item: int, patches: int) -> None:
    grid = ArrayGrid(cell, dimensions, item, patches)
    assert grid.shard**2 * dimensions * item <= 256 << 20
    assert ((grid.row_top + 1) * patches) % grid.shard == 0
    assert grid.shard % grid.chunk == 0
    block = 256 if patches == 1 else 32 * patches
    assert block % grid.shard == 0
    assert grid.top >= 9_329_006  # 84°N at the edge of a zone
    assert grid.bbox[1] <= -8_883_085


BAD = {
    "outputs.arrays needs chips.layout utm": {"chips": {"layout": "scene"}},
    "outputs.arrays needs imagery.windows": {"imagery": {"stac": "https://example.org/stac", "sensor": "naip"}},
    "needs `arrays: true`": {"outputs": {"patches": {"format": "zarr"}}},
    "int8": {"outputs": {"arrays": {"dtype": "float32"}}},
    "arrays.*kind": {"outputs": {"arrays": {"kind": "int8"}}},
}


@pytest.mark.parametrize("said", BAD)
def test_specs_that_cannot_be_arrays_are_refused(said: str, tmp_path: Path) -> None:
    imagery = {"stac": "https://example.org/stac", "sensor": "naip", "windows": WINDOWS}
    document = {"name": "bad", "imagery": imagery, "outputs": {"arrays": True}, **BAD[said]}
    with pytest.raises(SpecError, match=said):
        resolve_spec(document, where="spec", folder=tmp_path)


def test_patches_that_do_not_divide_a_chip_are_refused(golden_checkpoint: Path, tmp_path: Path) -> None:
    model = {"encoder": "clay", "weights": str(golden_checkpoint)}
    outputs = {"arrays": True, "patches": {"format": "zarr"}}
    spec = equator(tmp_path / "spec", model=model, outputs=outputs, chips={"layout": "utm", "size": 36})
    with pytest.raises(SpecError, match="padded"):
        produce(load_spec(spec), Release(str(tmp_path / "release")))
