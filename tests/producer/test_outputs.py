"""Every output that a spec can ask for, made of real Sentinel-2 and NAIP pixels with a real checkpoint's layout."""

import hashlib
import io
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
import torch
import yaml
from PIL import Image

from clay_publish.producer.encoders import ChipBatch, load_encoder
from clay_publish.producer.produce import produce
from clay_publish.progress import Progress, silent
from clay_publish.release.directory import Release
from clay_publish.spec.load import resolve_spec
from clay_publish.spec.models import Spec
from clay_publish.spec.sensors import sensor

from .conftest import ten_bands

SENTINEL_2, NAIP = "s2_l1c_T18SVG_20160112/item.json", "naip"
MakeRelease = Callable[..., Path]


@dataclass(frozen=True)
class _Factory:
    data: Path
    checkpoint: Path
    once: Callable[[str, Callable[[Path], object]], Path]
    folder: Path

    def spec(self, imagery: str = SENTINEL_2, layout: str = "scene", size: int = 64, **keys: Any) -> Spec:
        level = "l2a" if "s2_l2a" in imagery else "l1c"
        instrument = "naip" if imagery == NAIP else f"sentinel-2-{level}"
        source = {"stac": [str(p) for p in self._items(imagery)], "sensor": instrument, "license": "CC0-1.0"}
        source |= {"area": keys.pop("area")} if "area" in keys else {}
        model = {"encoder": "clay", "weights": str(self.checkpoint), "precision": "float32", **keys.pop("model", {})}
        document = {
            "name": "made",
            "imagery": source,
            "chips": {"layout": layout, "size": size},
            "model": model,
            **keys,
        }
        return resolve_spec(document, where="test", folder=self.folder)

    def _items(self, imagery: str) -> list[Path]:
        path = self.data / imagery
        return sorted(path.glob("va_*.json")) if path.is_dir() else [path]

    def make(self, name: str, **keys: Any) -> Path:
        return self.once(f"outputs-{name}", lambda folder: produce(self.spec(**keys), Release(str(folder))))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """So small a model gains nothing by more, and on a busy machine its threads wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def factory(
    shared_data: Path,
    golden_checkpoint: Path,
    once: Callable[[str, Callable[[Path], object]], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> _Factory:
    return _Factory(shared_data, golden_checkpoint, once, tmp_path_factory.mktemp("outputs"))


@pytest.fixture(scope="module")
def everything(factory: _Factory) -> Path:
    outputs = {"loss": True, "patches": True, "thumbnails": 32, "aggregate": [2, 3]}
    return factory.make("everything", outputs=outputs)


def rows_of(folder: Path, table: str = "embeddings") -> pa.Table:
    files = sorted((folder / table).rglob("*.parquet"))
    return pa.concat_tables(pq.read_table(f, partitioning=None) for f in files)


def vectors_of(table: pa.Table) -> np.ndarray:
    values = table["embedding"].combine_chunks().flatten().to_numpy().reshape(table.num_rows, -1)
    return values.astype(np.float32) * (table["scale"].to_numpy()[:, None] if "scale" in table.column_names else 1)


@pytest.fixture(scope="module")
def scene(shared_data: Path) -> np.ndarray:
    """The ten bands of the main scene, read without the producer, at 10 m."""
    bands = zip(ten_bands(shared_data / SENTINEL_2).astype(np.float32), sensor("sentinel-2-l1c").bands, strict=True)
    return np.stack([np.where(raw == 0, 0, (raw - np.float32(b.mean)) / np.float32(b.std)) for raw, b in bands])


def test_a_release_holds_what_the_model_gives_for_independently_read_pixels(
    factory: _Factory, everything: Path, scene: np.ndarray
) -> None:
    table = rows_of(everything).take(pa.array([0, 27, 63]))
    spec = factory.spec(outputs={"loss": True, "patches": True})
    encoder = load_encoder(spec, sensor("sentinel-2-l1c"))
    corners = zip(table["row"].to_pylist(), table["col"].to_pylist(), strict=True)
    pixels = np.stack([scene[:, 64 * r : 64 * (r + 1), 64 * c : 64 * (c + 1)] for r, c in corners])
    times = table["datetime"].to_pylist()
    expected = encoder.encode(ChipBatch(pixels, table["lon"].to_numpy(), table["lat"].to_numpy(), times, 10.0))
    assert expected.loss is not None
    assert expected.patches is not None
    assert np.abs(vectors_of(table) - expected.embeddings).max() < 1e-5
    assert np.abs(table["loss"].to_numpy() - expected.loss).max() < 1e-5
    patches = rows_of(everything, "patches")
    for place, chip in enumerate(table["id"].to_pylist()):
        mine = patches.filter(pa.compute.equal(patches["chip_id"], chip))
        assert mine["patch_row"].to_pylist() == [r for r in range(8) for _ in range(8)]
        assert mine["patch_col"].to_pylist() == list(range(8)) * 8
        assert np.abs(vectors_of(mine).reshape(8, 8, -1) - expected.patches[place, 0]).max() < 1e-5


def test_time_and_place_are_passed_or_zeros_as_the_spec_says(factory: _Factory, everything: Path) -> None:
    zeros = factory.make("zeros", model={"metadata": "zeros"})
    passed, zeroed = (rows_of(folder).sort_by("id") for folder in (everything, zeros))
    assert passed["id"].equals(zeroed["id"])
    assert np.abs(vectors_of(passed) - vectors_of(zeroed)).max(axis=1).min() > 1e-3
    said = [Release(str(folder)).fingerprint().metadata for folder in (everything, zeros)]
    assert said == ["tutorial", "zeros"]


def test_naip_is_taken_by_the_same_checkpoint_in_the_utm_layout(factory: _Factory) -> None:
    made = factory.make("naip", imagery=NAIP, layout="utm", outputs={"loss": True, "aggregate": [2], "thumbnails": 32})
    table = rows_of(made)
    assert table.num_rows > 20
    assert np.isfinite(vectors_of(table)).all()
    assert (table["loss"].to_numpy() > 0).all()
    assert [b.name for b in Release(str(made)).fingerprint().bands] == ["red", "green", "blue", "nir"]
    _check_blocks(made, 2)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_quantized_values_are_within_the_tolerance_and_the_reference_proves_it(
    factory: _Factory, everything: Path, dtype: str
) -> None:
    made = factory.make(dtype, outputs={"dtype": dtype, "patches": True})
    exact, table = rows_of(everything).sort_by("id"), rows_of(made).sort_by("id")
    truth, found = vectors_of(exact), vectors_of(table)
    cosine = (truth * found).sum(1) / np.linalg.norm(truth, axis=1) / np.linalg.norm(found, axis=1)
    assert cosine.min() > {"float32": 0.999_999, "float16": 0.999_999, "int8": 0.9999}[dtype]

    reference = pq.read_table(made / "reference.parquet")
    places = {chip: n for n, chip in enumerate(table["id"].to_pylist())}
    wanted = [places[chip] for chip in reference["id"].to_pylist()]
    assert len(set(wanted)) == min(64, table.num_rows)
    assert np.array_equal(vectors_of(reference), truth[wanted])
    away = np.abs(vectors_of(reference) - found[wanted]).max(axis=1)
    assert (away <= reference["tolerance"].to_numpy()).all()
    if dtype != "float32":  # of which both passes give the same bits here
        assert (away > reference["tolerance"].to_numpy() / 50).all(), "a tolerance that never binds proves nothing"
    if dtype == "int8":
        unsigned = found * np.where(found < 0, -1, 1)  # what a reader of unsigned bytes might make of it
        wrong = np.abs(vectors_of(reference) - unsigned[wanted]).max(axis=1)
        assert (wrong > reference["tolerance"].to_numpy()).all()
    patches = vectors_of(rows_of(made, "patches"))
    assert np.abs(patches - vectors_of(rows_of(everything, "patches"))).max() < 0.05


def test_patches_follow_the_chips_of_the_embeddings_file(everything: Path) -> None:
    chips = rows_of(everything)["id"].to_pylist()
    patches = rows_of(everything, "patches")
    assert patches["chip_id"].to_pylist() == [chip for chip in chips for _ in range(64)]
    assert "layer" not in patches.column_names


def test_layers_have_a_column_and_their_size_is_stated_before_the_run(factory: _Factory) -> None:
    reported: list[Progress] = []
    folder = factory.folder / "layers"
    produce(factory.spec(outputs={"patches": {"layers": [2, 1]}}), Release(str(folder)), report=reported.append)
    patches = rows_of(folder, "patches")
    assert patches.num_rows == 64 * 2 * 64
    assert patches["layer"].to_pylist()[:130] == [1] * 64 + [2] * 64 + [1] * 2
    sizes = [p for p in reported if p.message.startswith("patches: 128 a chip, 0.0492 MB a chip")]
    assert sizes
    assert reported.index(sizes[0]) < min(n for n, p in enumerate(reported) if p.stage == "produce")


def _check_blocks(folder: Path, side: int) -> None:
    """Each bigger chip is the mean of exactly the chips that fill its footprint."""
    chips = geopandas.read_parquet(folder / "embeddings")
    blocks = geopandas.read_parquet(folder / f"aggregates/{side}x{side}")
    crs = [f"EPSG:{code}" for code in sorted(set(blocks["epsg"]))]
    assert len(blocks)
    assert blocks["id"].is_unique
    for code in crs:
        small, big = (t[t["epsg"] == int(code.removeprefix("EPSG:"))].to_crs(code) for t in (chips, blocks))
        for _, block in big.iterrows():
            inside = small[shapely.contains_properly(block.geometry.buffer(0.01), small.geometry.to_numpy())]
            assert len(inside) == side**2
            assert block.geometry.area == pytest.approx(inside.geometry.area.sum(), rel=1e-5)
            assert block.geometry.symmetric_difference(inside.union_all()).area < 1e-3 * block.geometry.area
            assert np.abs(np.stack(inside["embedding"]).mean(axis=0) - block["embedding"]).max() < 1e-5
            assert block["loss"] == pytest.approx(inside["loss"].mean(), abs=1e-5)
            assert block["valid_fraction"] == pytest.approx(inside["valid_fraction"].mean(), abs=1e-5)
            assert sorted(block["item_ids"]) == sorted({i for ids in inside["item_ids"] for i in ids})
            assert (block["start_datetime"], block["end_datetime"]) == (
                inside["start_datetime"].min(),
                inside["end_datetime"].max(),
            )
            center = geopandas.points_from_xy([block["lon"]], [block["lat"]], crs="OGC:CRS84").to_crs(code)[0]
            assert center.distance(block.geometry.centroid) < 0.5


@pytest.mark.parametrize(("side", "count"), [(2, 16), (3, 4)])
def test_bigger_chips_are_means_of_complete_blocks_with_their_own_footprints(
    everything: Path, side: int, count: int
) -> None:
    _check_blocks(everything, side)
    assert rows_of(everything, f"aggregates/{side}x{side}").num_rows == count


def test_an_incomplete_block_gives_no_bigger_chip(factory: _Factory) -> None:
    """The clouded, half empty item: some chips are missing, and so are the blocks they would be in."""
    made = factory.make(
        "clouded",
        imagery="s2_l2a_mini_29RKH_20200219/item.json",
        chips={"layout": "scene", "size": 64, "max_nodata": 0.1, "max_cloud": 0.05},
        outputs={"aggregate": [2]},
        model={"metadata": "zeros"},
    )
    chips, blocks = rows_of(made), rows_of(made, "aggregates/2x2")
    cells = set(zip(chips["row"].to_pylist(), chips["col"].to_pylist(), strict=True))
    whole = {
        (r // 2, c // 2)
        for r, c in cells
        if {(r // 2 * 2 + dr, c // 2 * 2 + dc) for dr in (0, 1) for dc in (0, 1)} <= cells
    }
    assert 0 < len(whole) < len({(r // 2, c // 2) for r, c in cells})
    assert set(zip(blocks["row"].to_pylist(), blocks["col"].to_pylist(), strict=True)) == whole


def test_thumbnails_are_pictures_stretched_the_same_way_for_all_chips(everything: Path, scene: np.ndarray) -> None:
    table = rows_of(everything)
    raw = scene[[2, 1, 0]] * np.array([1888, 1757, 1809])[:, None, None] + np.array([1552, 1355, 1105])[:, None, None]
    highest = 1552 + 1888  # of the three bands' ranges, which all begin at 0
    errors = []
    for row in table.select(["row", "col", "thumbnail"]).slice(0, 40).to_pylist():
        picture = np.asarray(Image.open(io.BytesIO(row["thumbnail"]["bytes"])))
        assert picture.shape == (32, 32, 3)
        chip = raw[:, 64 * row["row"] : 64 * (row["row"] + 1), 64 * row["col"] : 64 * (row["col"] + 1)]
        shown = np.clip(chip / highest, 0, 1).reshape(3, 32, 2, 32, 2).mean((2, 4)).transpose(1, 2, 0) * 255
        errors.append(np.abs(picture - shown).mean())
    assert max(errors) < 6  # WebP loses a little
    assert table["thumbnail"][0].as_py()["path"] == f"{table['id'][0].as_py()}.webp"


@pytest.mark.parametrize("layout", ["scene", "utm"])
def test_a_chip_has_the_same_vector_loss_and_patches_whichever_chips_are_made_beside_it(
    factory: _Factory, layout: str
) -> None:
    outputs = {"loss": True, "patches": True}
    whole = factory.make(f"whole-{layout}", layout=layout, outputs=outputs)
    lon, lat = (rows_of(whole)[name].to_numpy() for name in ("lon", "lat"))
    west, east = np.quantile(lon, [0.4, 0.6])
    south, north = np.quantile(lat, [0.3, 0.7])
    few = factory.make(f"few-{layout}", layout=layout, outputs=outputs, area=[west, south, east, north])
    some, all_of_them = (rows_of(folder).sort_by("id") for folder in (few, whole))
    assert 4 < some.num_rows < all_of_them.num_rows / 2
    same = all_of_them.filter(pa.compute.is_in(all_of_them["id"], some["id"].combine_chunks()))
    assert same["id"].equals(some["id"])
    assert np.abs(vectors_of(same) - vectors_of(some)).max() < 1e-5
    assert np.abs(same["loss"].to_numpy() - some["loss"].to_numpy()).max() < 1e-5
    patches, others = (rows_of(folder, "patches") for folder in (few, whole))
    others = others.filter(pa.compute.is_in(others["chip_id"], some["id"].combine_chunks()))
    keys = [(name, "ascending") for name in ("chip_id", "patch_row", "patch_col")]
    assert np.abs(vectors_of(patches.sort_by(keys)) - vectors_of(others.sort_by(keys))).max() < 1e-5


def test_everything_is_byte_identical_when_made_again(factory: _Factory, everything: Path) -> None:
    outputs = {"loss": True, "patches": True, "thumbnails": 32, "aggregate": [2, 3]}
    again = factory.make("again", outputs=outputs)
    produce(factory.spec(outputs=outputs), Release(str(again)), report=silent)  # and over a finished one
    files = [p.relative_to(everything) for p in everything.rglob("*.parquet") if ".run" not in p.parts]
    assert len(files) > 5
    for file in files:
        assert (again / file).read_bytes() == (everything / file).read_bytes(), file


def test_the_command_makes_clay_embeddings_and_records_the_precision(
    factory: _Factory, run: Callable[..., Any], tmp_path: Path
) -> None:
    spec = factory.spec(size=128, model={"precision": "auto"})
    document = spec.model_dump(mode="json", exclude_none=True, exclude_unset=True)
    (tmp_path / "release.yaml").write_text(yaml.safe_dump(document))
    run("produce", tmp_path / "release.yaml", "--out", tmp_path / "made", cwd=tmp_path)
    release = Release(str(tmp_path / "made"))
    fingerprint = release.fingerprint()
    assert rows_of(tmp_path / "made").num_rows == 16
    assert fingerprint.encoder == "clay"
    assert fingerprint.weights_sha256 == hashlib.sha256(factory.checkpoint.read_bytes()).hexdigest()
    assert release.spec().model.precision == fingerprint.precision
    assert release.spec().model.sha256 == fingerprint.weights_sha256, "a second run notices other weights"
    assert release.spec().model.weights == "clay_golden.ckpt", "no path of this machine is published"


def test_a_checkpoint_that_is_not_one_stops_before_a_pixel_is_read(
    factory: _Factory, run: Callable[..., Any], tmp_path: Path
) -> None:
    document = factory.spec(model={"weights": str(factory.data / "README.md")})
    (tmp_path / "release.yaml").write_text(yaml.safe_dump(document.model_dump(mode="json", exclude_none=True)))
    said = run("produce", tmp_path / "release.yaml", "--out", tmp_path / "made", cwd=tmp_path, code=2).stderr
    assert "is not a PyTorch checkpoint, or is truncated" in " ".join(said.split())
    assert "Traceback" not in said
    assert not list((tmp_path / "made").rglob("*.parquet"))


def test_lost_patches_are_made_again(factory: _Factory, everything: Path, tmp_path: Path) -> None:
    outputs = {"loss": True, "patches": True, "thumbnails": 32, "aggregate": [2, 3]}
    damaged = Path(shutil.copytree(everything, tmp_path / "damaged"))
    (file,) = (damaged / "patches").rglob("*.parquet")
    truth = file.read_bytes()
    file.unlink()
    produce(factory.spec(outputs=outputs), Release(str(damaged)))
    assert file.read_bytes() == truth
