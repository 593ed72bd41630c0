"""Cloud masks of every kind: of several bands, of part of an image, in another reference system, unreadable."""

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
import yaml
from affine import Affine
from image_server import Fault, ImageServer
from rasterio.enums import ColorInterp, Resampling

from clay_publish.errors import ImageryError
from clay_publish.producer.imagery.raster import open_bands, readers
from clay_publish.producer.imagery.remote import external_masks
from clay_publish.producer.imagery.warp import Canvas, Images
from clay_publish.producer.sources.item import BandFile
from clay_publish.spec.sensors import SENSORS

Run = Callable[..., CompletedProcess[str]]
Pixels = np.ndarray[Any, Any]

GRID = Affine(10, 0, 500_160, 0, -10, 4_000_320)
"""Pixels of 10 m whose upper left corner is one of a cell of 320 m."""


def write(path: Path, values: Pixels, transform: Affine = GRID, crs: str = "EPSG:32618") -> None:
    """A GeoTIFF of [bands, rows, columns]."""
    profile = {"driver": "GTiff", "height": values.shape[1], "width": values.shape[2], "count": len(values)}
    with rasterio.open(path, "w", dtype=values.dtype, crs=crs, transform=transform, **profile) as file:
        file.write(values)


def made(
    folder: Path,
    run: Run,
    sensor: str,
    mask: str,
    layout: str,
    *,
    code: int | None = 0,
    day: str = "2023-01-03",
    asked: str | None = None,
) -> list[tuple[str, str]]:
    """Outcome and detail of each chip of a scene of 64 × 64 pixels, two rows of two chips, from west to east."""
    values = np.random.default_rng(0).integers(1000, 3000, (1, 64, 64)).astype(np.uint16)
    assets = {band.name: {"href": f"{band.name}.tif"} for band in SENSORS[sensor].bands}
    for asset in assets.values():
        write(folder / asset["href"], values)
    if sensor.startswith("planetscope"):
        write(folder / "b.tif", np.repeat(values, len(assets), axis=0))
        assets = {"ortho_analytic_4b_sr": {"href": "b.tif"}}
    item = {
        "type": "Feature",
        "id": "a",
        "bbox": [-75.1, 36.1, -74.9, 36.2],
        "properties": {"datetime": f"{day}T15:50:00Z", "license": "CC-BY-4.0"},
        "assets": {**assets, mask: {"href": "mask.tif"}},
    }
    (folder / "item.json").write_text(json.dumps(item))
    chips = {"layout": layout, "size": 32, **({"gsd": 10} if layout == "utm" else {})}
    imagery = {"stac": "item.json", "sensor": sensor, **({"mask": asked} if asked else {})}
    document: dict[str, Any] = {"name": "a", "imagery": imagery, "chips": chips}
    if layout == "utm":
        document["imagery"]["area"] = [-74.998, 36.142, -74.9915, 36.1474]
    (folder / "release.yaml").write_text(yaml.safe_dump(document))
    run("produce", "release.yaml", "--out", "made", "--quiet", cwd=folder, code=code)
    paths = sorted((folder / "made" / "coverage").glob("*.parquet"))
    rows = [row for path in paths for row in pq.read_table(path).to_pylist()]
    rows.sort(key=lambda row: (row["col"], row["row"]))
    return [(row["reason"] or row["status"], row["detail"] or "") for row in rows]


def flags(count: int, **bands: int) -> Pixels:
    """A mask of `count` bands, of which some are 1 in the west (columns before 32) or everywhere."""
    values = np.zeros((count, 64, 64), dtype=np.uint8)
    for name, columns in bands.items():
        values[int(name.removeprefix("b")) - 1, :, :columns] = 1
    return values


@pytest.mark.parametrize("layout", ["scene", "utm"])
@pytest.mark.parametrize(
    ("sensor", "asset", "mask"),
    [
        ("sentinel-2-l1c", "MSK_CLASSI_B00", flags(3, b2=32, b3=64)),  # cirrus in the west, snow everywhere
        ("sentinel-2-l1c", "MSK_CLASSI_B00", flags(3, b1=32)),
        ("planetscope-4b-sr", "ortho_udm2", flags(8, b1=64, b4=64, b6=32)),  # clear and light haze are no cloud
        ("planetscope-4b-sr", "ortho_udm2", flags(8, b3=32)),
        ("planetscope-4b-sr", "udm", flags(1, b1=32) * 2),
    ],
)
def test_masks_of_several_bands_count(
    tmp_path: Path, run: Run, sensor: str, asset: str, mask: Pixels, layout: str
) -> None:
    write(tmp_path / "mask.tif", mask)
    found = [outcome for outcome, _ in made(tmp_path, run, sensor, asset, layout)]
    assert found == ["cloud", "cloud", "embedded", "embedded"]


@pytest.mark.parametrize("layout", ["scene", "utm"])
def test_chips_beyond_a_mask_are_not_checked(tmp_path: Path, run: Run, layout: str) -> None:
    write(tmp_path / "mask.tif", np.full((1, 64, 32), 4, dtype=np.uint8))
    found = made(tmp_path, run, "sentinel-2-l2a", "SCL", layout)
    assert found == [("embedded", ""), ("embedded", ""), *[("embedded", "not cloud-checked")] * 2]


@pytest.mark.parametrize(("layout", "outcome"), [("scene", "unreadable"), ("utm", "cloud")])
def test_a_mask_in_another_reference_system(tmp_path: Path, run: Run, layout: str, outcome: str) -> None:
    cloud = np.full((1, 40, 40), 9, dtype=np.uint8)
    write(tmp_path / "mask.tif", cloud, Affine(0.001, 0, -75.02, 0, -0.001, 36.17), "EPSG:4326")
    found = made(tmp_path, run, "sentinel-2-l2a", "SCL", layout, code=2)
    assert Counter(outcome for outcome, _ in found) == {outcome: 4}


@pytest.mark.parametrize("layout", ["scene", "utm"])
@pytest.mark.parametrize("kind", ["real numbers", "missing", "damaged"])
def test_a_mask_that_cannot_be_read_is_not_a_clear_sky(tmp_path: Path, run: Run, layout: str, kind: str) -> None:
    if kind == "real numbers":
        write(tmp_path / "mask.tif", np.zeros((1, 64, 64), dtype=np.float32))
    if kind == "damaged":
        (tmp_path / "mask.tif").write_bytes(b"II*\0 and nothing more")
    found = made(tmp_path, run, "sentinel-2-l2a", "cloud", layout, code=2)
    assert Counter(outcome for outcome, _ in found) == {"unreadable": 4}
    assert "mask" in found[0][1] or "cloud" in found[0][1]


@pytest.mark.parametrize("layout", ["scene", "utm"])
@pytest.mark.parametrize(("asset", "value"), [("SCL", 200), ("cloud", 101), ("clouds", 255)])
def test_values_that_a_mask_does_not_have_are_not_a_clear_sky(
    tmp_path: Path, run: Run, asset: str, value: int, layout: str
) -> None:
    mask = np.zeros((1, 64, 64), dtype=np.uint8)
    mask[:, ::4, ::4] = value
    write(tmp_path / "mask.tif", mask)
    asked = asset if asset == "clouds" else None
    found = made(tmp_path, run, "sentinel-2-l2a", asset, layout, code=2, asked=asked)
    assert Counter(outcome for outcome, _ in found) == {"unreadable": 4}
    assert "Name another mask in `imagery.mask`" in found[0][1]


@pytest.mark.parametrize("layout", ["scene", "utm"])
def test_qa60_is_read_by_its_bits(tmp_path: Path, run: Run, layout: str) -> None:
    mask = np.zeros((1, 64, 64), dtype=np.uint16)
    mask[:, :32, :32], mask[:, 32:, :32] = 1 << 10, 1 << 11
    write(tmp_path / "mask.tif", mask)
    found = made(tmp_path, run, "sentinel-2-l2a", "QA60", layout, day="2021-01-03")
    assert [outcome for outcome, _ in found] == ["cloud", "cloud", "embedded", "embedded"]


HALF = np.repeat(np.array([[0] * 32 + [255] * 32], dtype=np.uint8), 64, axis=0)
GRAY_ALPHA = (ColorInterp.gray, ColorInterp.alpha)
RGBA = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)


@pytest.mark.parametrize(
    ("kind", "colors", "read", "valid"),
    [
        ("external", None, ("gray",), 0.5),
        ("internal", None, ("gray",), 0.5),
        ("none", None, ("gray",), 1.0),
        ("none", GRAY_ALPHA, ("gray",), 0.5),
        ("none", RGBA, ("red", "green", "blue"), 0.5),
        ("external", RGBA[:3], ("red", "green", "blue"), 0.5),
        ("none", RGBA, ("red", "green", "blue", "nir"), 1.0),  # near infrared that is tagged alpha
        ("external", RGBA, ("red", "green", "blue", "nir"), 0.5),
    ],
)
def test_masks_in_and_beside_a_file_say_what_is_valid(
    tmp_path: Path, kind: str, colors: tuple[ColorInterp, ...] | None, read: tuple[str, ...], valid: float
) -> None:
    path, count = tmp_path / "a.tif", len(colors or read)
    profile = {"driver": "GTiff", "height": 64, "width": 64, "count": count, "dtype": "uint8", "crs": "EPSG:32618"}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=kind == "internal"),
        rasterio.open(path, "w", transform=GRID, **profile) as file,
    ):
        for index in range(1, count + 1):
            file.write(HALF if colors and colors[index - 1] is ColorInterp.alpha else np.full_like(HALF, 77), index)
        if colors:
            file.colorinterp = colors
        if kind != "none":
            file.write_mask(HALF)
    assert (tmp_path / "a.tif.msk").exists() == (kind == "external")
    files = [
        BandFile(
            name, "a", str(path), index if len(read) > 1 else None, None, None, len(read) if len(read) > 1 else None
        )
        for index, name in enumerate(read, start=1)
    ]
    canvas = Canvas(32618, GRID.c, GRID.f, 10, 64, 64)
    with open_bands(files, None) as bands, readers(1) as pool:
        assert {float(band.read(0, 0, 64, 64)[1].mean()) for band in bands} == {valid}
        warped = Images(read, SENSORS["naip"], pool).warp(bands, canvas, Resampling.bilinear)
        assert {float(mask.mean()) for _, mask in warped} == {valid}


@pytest.mark.parametrize("nodata", [None, np.nan, -32768.0])
@pytest.mark.parametrize("fill", [np.nan, np.inf, 0.0])
def test_pixels_that_are_not_numbers_are_no_data(tmp_path: Path, nodata: float | None, fill: float) -> None:
    values = np.where(HALF == 0, fill, np.random.default_rng(0).uniform(0.01, 0.1, HALF.shape)).astype(np.float32)
    profile = {"driver": "GTiff", "height": 64, "width": 64, "count": 1, "dtype": "float32", "crs": "EPSG:32618"}
    with rasterio.open(tmp_path / "a.tif", "w", transform=GRID, nodata=nodata, **profile) as file:
        file.write(values, 1)
    sensor, canvas = SENSORS["sentinel-1-rtc"], Canvas(32618, GRID.c, GRID.f, 10, 64, 64)
    files = [BandFile("vv", "vv", str(tmp_path / "a.tif"), None, None)]
    with open_bands(files, sensor.nodata, zero_is_nodata=True) as bands, readers(1) as pool:
        (found,) = Images(("vv",), sensor, pool).warp(bands, canvas, Resampling.bilinear)
    assert found[1].mean() == pytest.approx(0.5, abs=1 / 64)
    assert np.isfinite(found[0][found[1]]).all()


def test_bands_of_one_file_have_nodata_values_of_their_own(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", np.stack([np.where(HALF == 0, fill, 77) for fill in (0, 255)]).astype(np.uint8))
    files = [
        BandFile(name, "a", str(tmp_path / "a.tif"), index, nodata)
        for index, (name, nodata) in enumerate({"red": 0.0, "green": 255.0}.items(), start=1)
    ]
    canvas = Canvas(32618, GRID.c, GRID.f, 10, 64, 64)
    with open_bands(files, None) as bands, readers(1) as pool:
        found = Images(("red", "green"), SENSORS["naip"], pool).warp(bands, canvas, Resampling.bilinear)
    assert [mask[:, :32].any() for _, mask in found] == [False, False]
    assert [mask[:, 32:].all() for _, mask in found] == [True, True]


@pytest.mark.parametrize("layout", ["scene", "utm"])
def test_clear_sky_is_not_a_gap_of_a_mask(tmp_path: Path, run: Run, layout: str) -> None:
    write(tmp_path / "mask.tif", np.zeros((1, 64, 64), dtype=np.uint8))
    with rasterio.open(tmp_path / "mask.tif", "r+") as file:
        file.nodata = 0  # as some catalogs have it for probabilities
    assert made(tmp_path, run, "sentinel-2-l2a", "cloud", layout) == [("embedded", "")] * 4


def photograph(folder: Path) -> dict[str, Any]:
    """An item of an image whose west is masked by the `.msk` beside it."""
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False),
        rasterio.open(folder / "a.tif", "w", **RGB, transform=Affine(1, 0, 500_160, 0, -1, 4_000_320)) as file,
    ):
        file.write(np.random.default_rng(0).integers(60, 180, (3, 64, 64), dtype=np.uint8))
        file.write_mask(HALF)
    return {
        "type": "Feature",
        "id": "a",
        "bbox": [-75.1, 36.1, -74.9, 36.2],
        "properties": {"datetime": "2023-01-03T15:50:00Z", "license": "CC-BY-4.0"},
        "assets": {"image": {"href": "a.tif"}},
    }


RGB = {"driver": "GTiff", "height": 64, "width": 64, "count": 3, "dtype": "uint8", "crs": "EPSG:32618"}
AREA = [-74.9982, 36.14704, -74.99752, 36.14759]
"""Within the cells of the photograph."""


def outcomes(folder: Path, run: Run, layout: str, out: str = "made", *, code: int = 0) -> Counter[str]:
    """Chips of `item.json` by outcome."""
    chips = {"layout": layout, "size": 32, **({"gsd": 1} if layout == "utm" else {})}
    imagery: dict[str, Any] = {"stac": (folder / "stac").read_text(), "sensor": "aerial-rgb"}
    if layout == "utm":
        imagery["area"] = AREA
    (folder / "release.yaml").write_text(yaml.safe_dump({"name": "a", "imagery": imagery, "chips": chips}))
    run("produce", "release.yaml", "--out", out, "--quiet", cwd=folder, code=code)
    rows = [row for path in (folder / out / "coverage").glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    return Counter(row["reason"] or row["status"] for row in rows)


@pytest.mark.parametrize("layout", ["scene", "utm"])
def test_a_mask_beside_an_image_on_a_server_counts(tmp_path: Path, run: Run, layout: str) -> None:
    served = tmp_path / "served"
    served.mkdir()
    (served / "item.json").write_text(json.dumps(photograph(served)))
    with ImageServer(served) as server:
        (tmp_path / "stac").write_text(f"{server.url}/item.json")
        assert outcomes(tmp_path, run, layout) == {"embedded": 2, "nodata": 2}
        # Once to plan; then header and data.
        assert 2 <= len(server.of("a.tif.msk")) <= 6
        # It is a part of the content: with another one nothing is reused, and a planned one has to be there.
        (etag,) = [each["etag"] for row in sources(tmp_path / "made") for each in row["assets"]]
        assert len(etag.split()) == 2
        (served / "a.tif.msk").unlink()
        assert outcomes(tmp_path, run, layout, "without") == {"embedded": 4}
        (etag,) = [each["etag"] for row in sources(tmp_path / "without") for each in row["assets"]]
        assert len(etag.split()) == 1


def sources(made: Path) -> list[dict[str, Any]]:
    return pq.read_table(made / "sources.parquet").to_pylist()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("content", "action", "found"),
    [
        (b"<VRTDataset rasterXSize='64' rasterYSize='64'/>", "", {"embedded": 4}),  # never opened
        (b"", "html", {"embedded": 4}),  # a server that answers anything with a page
        (b"", "status:403", {"embedded": 4}),  # a bucket that does not tell what is not there
        (b"", "status:503", {"unreadable": 4}),
        (b"II*\0 and nothing more", "", {"unreadable": 4}),
    ],
)
def test_masks_on_a_server_that_cannot_be_read(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, content: bytes, action: str, found: dict[str, int]
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    served = tmp_path / "served"
    served.mkdir()
    (served / "item.json").write_text(json.dumps(photograph(served)))
    (served / "a.tif.msk").write_bytes(content)
    with ImageServer(served, faults=[Fault(action, "a.tif.msk")] if action else []) as server:
        (tmp_path / "stac").write_text(f"{server.url}/item.json")
        assert outcomes(tmp_path, run, "scene", code=2 if "unreadable" in found else 0) == found


def test_a_damaged_mask_beside_a_file_is_not_ignored(tmp_path: Path) -> None:
    photograph(tmp_path)
    whole = (tmp_path / "a.tif.msk").read_bytes()
    file = BandFile("red", "image", str(tmp_path / "a.tif"), 1, None, None, 3)
    for content in (whole[:8], b"II*\0 and nothing more"):
        (tmp_path / "a.tif.msk").write_bytes(content)
        with pytest.raises(ImageryError, match="its external mask is damaged"), open_bands([file], None):
            pass


def test_a_mask_is_asked_about_once_an_item_where_nodata_is_known(tmp_path: Path) -> None:
    for name in ("a.tif", "b.tif", "b.tif.msk", "c.tif.msk"):
        (tmp_path / name).write_bytes(b"II*\0")
    with ImageServer(tmp_path) as server:
        plain = [BandFile(name, name, f"{server.url}/{name}.tif?key=1", None, None) for name in "abc"]
        assert external_masks(plain, 0) == {}
        assert [found.name for found in server.of("")] == ["a.tif.msk"]
        assert [href.rpartition("/")[2] for href in external_masks(plain, None)] == [
            "b.tif.msk?key=1", "c.tif.msk?key=1"
        ]  # fmt: skip
        declared = [plain[0], replace(plain[1], has_external_mask=True), plain[2]]
        assert [href.rpartition("/")[2] for href in external_masks(declared, 0)] == ["b.tif.msk?key=1"]
