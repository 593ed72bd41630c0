"""What may be wrong with one image: recorded with its reason, before a vector is made of it, and the run goes on."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

from clay_publish.errors import ImageryError, ReleaseError, SourceError
from clay_publish.producer.imagery.raster import image_address, open_bands
from clay_publish.producer.sources.stac_item import source_item
from clay_publish.spec.sensors import sensor

from .conftest import Make, copy_item, write_item, write_tif

SCENE = "s2_l1c_T18SVG_20160112"
Change = Callable[[dict[str, Any], Path], None]


def _truncated(item: dict[str, Any], folder: Path) -> None:
    data = Path(item["assets"]["nir"]["href"]).read_bytes()
    (folder / "bad.tif").write_bytes(data[: len(data) // 2])
    item["assets"]["nir"]["href"] = str(folder / "bad.tif")


def _html(item: dict[str, Any], folder: Path) -> None:
    (folder / "bad.tif").write_text("<!doctype html><title>Please log in</title>")
    item["assets"]["red"]["href"] = str(folder / "bad.tif")


def _missing(item: dict[str, Any], folder: Path) -> None:
    item["assets"]["red"]["href"] = str(folder / "nothing.tif")


def _rewrite(item: dict[str, Any], folder: Path, band: str, change: Callable[[Any, dict[str, Any]], Any]) -> None:
    with rasterio.open(item["assets"][band]["href"]) as file:
        values, profile = file.read(), file.profile
    values = change(values, profile)
    with rasterio.open(folder / "bad.tif", "w", **profile) as file:
        file.write(values)
    item["assets"][band]["href"] = str(folder / "bad.tif")


def _no_crs(item: dict[str, Any], folder: Path) -> None:
    def change(values: Any, profile: dict[str, Any]) -> Any:
        profile.update(crs=None)
        return values

    _rewrite(item, folder, "blue", change)


def _two_bands(item: dict[str, Any], folder: Path) -> None:
    def change(values: Any, profile: dict[str, Any]) -> Any:
        profile.update(count=2)
        return np.concatenate([values, values])

    _rewrite(item, folder, "green", change)


def _complex(item: dict[str, Any], folder: Path) -> None:
    def change(values: Any, profile: dict[str, Any]) -> Any:
        profile.update(dtype="complex64")
        return values.astype(np.complex64)

    _rewrite(item, folder, "green", change)


def _other_grid(item: dict[str, Any], _: Path) -> None:
    item["assets"]["blue"]["proj:transform"][0] = 20  # twice the footprint
    item["assets"]["blue"]["proj:transform"][4] = -20
    for name in ("green", "red", "nir"):
        item["assets"][name]["proj:transform"] = item["assets"]["blue"]["proj:transform"]


def _south_up(item: dict[str, Any], folder: Path) -> None:
    for band in ("blue", "green", "red", "nir"):

        def change(values: Any, profile: dict[str, Any]) -> Any:
            a, _, c, _, e, f = tuple(profile["transform"])[:6]
            profile.update(transform=Affine(a, 0, c, 0, -e, f + e * profile["height"]))
            return values[:, ::-1]

        (folder / band).mkdir()
        _rewrite(item, folder / band, band, change)
    for asset in item["assets"].values():
        asset.pop("proj:transform")


FAULTS: dict[str, tuple[Change, str]] = {
    "truncated": (_truncated, r"asset nir \(bad.tif\): cannot be read at rows"),
    "a login page": (_html, r"asset red \(bad.tif\): cannot be opened .*expected a GeoTIFF"),
    "missing": (_missing, r"asset red \(nothing.tif\): does not exist"),
    "no reference system": (_no_crs, r"has no reference system"),
    "two bands": (_two_bands, r"asset green .* has 2 bands"),
    "complex numbers": (_complex, r"has complex64 pixels"),
    "another grid than stated": (_other_grid, r"has 512 × 512 pixels of 10 × 10 .* as the item says"),
    "upside down": (_south_up, r"is rotated or upside down"),
}


def _spoiled(good: Path, folder: Path, name: str, change: Change) -> Path:
    """An item of another id, with something done to it."""

    def spoil(item: dict[str, Any]) -> None:
        item["id"] = name
        change(item, folder)

    return copy_item(good, folder, spoil)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_image_is_recorded_and_the_run_goes_on(shared_data: Path, tmp_path: Path, make: Make, fault: str) -> None:
    good = shared_data / SCENE / "item.json"
    change, said = FAULTS[fault]
    bad = _spoiled(good, tmp_path, "bad", change)
    made = make(good, bad, chips={"layout": "scene", "size": 256})
    lost = [row for row in made.coverage if row["reason"]]
    assert {row["reason"] for row in lost} == {"unreadable"}
    assert {tuple(row["item_ids"]) for row in lost} == {("bad",)}
    assert made.counts["embedded"] == 4

    for row in lost:
        assert re.search(said, row["detail"]), row["detail"]
        assert str(tmp_path) not in row["detail"]
    assert "bad" not in set(made.embeddings["item_id"].to_pylist())


def test_a_truncated_image_is_no_failure_of_ours_in_the_utm_layout(
    shared_data: Path, tmp_path: Path, make: Make
) -> None:
    """It is warped once more after the read that failed, when GDAL still remembers the failure."""
    good = shared_data / SCENE / "item.json"
    bad = _spoiled(good, tmp_path, "bad", _truncated)
    with pytest.raises(ReleaseError) as caught:
        make(bad, chips={"layout": "utm", "size": 64})
    assert re.search(r"no embedded chip of \d+ \(\d+ unreadable\)", str(caught.value))
    assert re.search(r"item bad: asset nir \(bad.tif\): cannot be warped", str(caught.value))
    assert str(tmp_path / "bad.tif") not in str(caught.value)
    made = make(good, bad, chips={"layout": "utm", "size": 64}, out="both")
    assert made.counts["embedded"] == made.counts["expected"]


def test_a_rotated_or_upside_down_image_is_right_side_up_in_the_utm_layout(
    shared_data: Path, tmp_path: Path, make: Make
) -> None:
    good = shared_data / SCENE / "item.json"

    def turn(item: dict[str, Any], folder: Path) -> None:
        _south_up(item, folder)
        for asset in item["assets"].values():
            asset.pop("proj:shape")

    chips = {"layout": "utm", "size": 256}
    straight = make(good, chips=chips, out="straight").embeddings
    turned = make(_spoiled(good, tmp_path, "turned", turn), chips=chips, out="turned").embeddings
    assert straight["id"].to_pylist() == turned["id"].to_pylist()
    for a, b in zip(straight["embedding"].to_pylist(), turned["embedding"].to_pylist(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)


def test_an_image_with_ground_control_points_only_is_no_image_to_cut(
    shared_data: Path, tmp_path: Path, make: Make
) -> None:
    raw = shared_data / "s1" / "S1A_IW_GRDH_20180716_FD5B_mini" / "iw-vh.tiff"
    for band in ("vv", "vh"):  # under names that do not say that it is not RTC
        shutil.copyfile(raw, tmp_path / f"{band}.tiff")
    item = write_item(tmp_path / "points.json", {"vv": {"href": "vv.tiff"}, "vh": {"href": "vh.tiff"}})
    with pytest.raises(ReleaseError, match=r"210 ground control points") as caught:
        make(item, sensor="sentinel-1-rtc", imagery={"accept_values": True})
    assert "no embedded chip" in str(caught.value)


def test_nothing_but_nodata_or_sparse_zeros_never_becomes_a_vector(tmp_path: Path, make: Make) -> None:
    values = np.zeros((4, 256, 256), dtype=np.uint16)
    values[:, :128] = 1500 + np.arange(128)[:, None]
    write_tif(tmp_path / "half.tif", values, Affine(10, 0, 500_000, 0, -10, 5_000_000), "EPSG:32631", block=64)
    item = write_item(tmp_path / "half.json", {"rgbnir": {"href": "half.tif"}})
    made = make(item, sensor="sentinel-2-rgbnir", chips={"layout": "scene", "size": 64})
    assert made.counts == {"expected": 16, "embedded": 8, "nodata": 8}
    assert {row["row"] for row in made.coverage if row["reason"] == "nodata"} == {2, 3}


def test_a_constant_image_gives_no_constant_vector(tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """NaN, infinite, zero and constant vectors are dropped and named."""
    from clay_publish.producer.encoders import Encoded, random_features

    spoilt: dict[float, int] = {}

    def encode(self: Any, chips: Any) -> Encoded:
        vectors = np.random.default_rng(0).normal(size=(len(chips.lon), self.dimensions)).astype(np.float32)
        for vector, lon in zip(vectors, chips.lon.tolist(), strict=True):
            kind = spoilt.setdefault(lon, len(spoilt)) % 8  # the same in the second pass
            if kind < 2:
                vector[3] = (np.nan, np.inf)[kind]
            elif kind < 4:
                vector[:] = (0, 0.5)[kind - 2]
        return Encoded(vectors)

    monkeypatch.setattr(random_features.RandomFeatures, "encode", encode)
    values = np.random.default_rng(1).integers(100, 3000, (4, 256, 256)).astype(np.uint16)
    write_tif(tmp_path / "any.tif", values, Affine(10, 0, 500_000, 0, -10, 5_000_000), "EPSG:32631")
    item = write_item(tmp_path / "any.json", {"rgbnir": {"href": "any.tif"}})
    made = make(item, sensor="sentinel-2-rgbnir", chips={"layout": "scene", "size": 64})
    assert made.counts["invalid_vector"] >= 4
    assert made.counts["invalid_vector"] + made.counts["embedded"] == 16
    vectors = np.stack(made.embeddings["embedding"].to_numpy(zero_copy_only=False))
    assert np.isfinite(vectors).all()
    assert (np.ptp(vectors, axis=1) > 0).all()


def test_of_items_with_one_id_the_newest_is_used(shared_data: Path, tmp_path: Path, make: Make) -> None:
    good = shared_data / SCENE / "item.json"

    def version(year: int) -> Path:
        def change(item: dict[str, Any]) -> None:
            item["properties"]["updated"] = f"{year}-01-01T00:00:00Z"
            item["properties"]["platform"] = str(year)

        return Path(shutil.move(copy_item(good, tmp_path, change), tmp_path / f"{year}.json"))

    made = make(version(2023), version(2024), version(2022), chips={"layout": "scene", "size": 256})
    assert made.counts == {"expected": 4, "embedded": 4}
    assert len(set(made.embeddings["id"].to_pylist())) == 4
    sources = made.release.parquet("sources.parquet").read().to_pylist()
    assert {row["platform"]: row["status"] for row in sources} == {"2022": "unused", "2023": "unused", "2024": "used"}


@pytest.mark.parametrize("name", ["../../etc/passwd", "a\0b", "Ωмега/日本", "x" * 4000, "con:aux|?*"])
def test_any_id_gets_safe_file_names(shared_data: Path, tmp_path: Path, make: Make, name: str) -> None:
    def rename(item: dict[str, Any]) -> None:
        item["id"] = name

    made = make(copy_item(shared_data / SCENE / "item.json", tmp_path, rename), chips={"layout": "scene", "size": 512})
    table = made.embeddings
    assert set(table["item_id"].to_pylist()) == {name}
    for identifier in table["id"].to_pylist():
        assert len(identifier) < 200
        assert all(c.isalnum() or c in "._-" for c in identifier)
        assert identifier.isascii()
    written = {p for p in tmp_path.rglob("*") if p.is_file() and "release" not in p.parts}
    assert all(p.parent == tmp_path for p in written)


@pytest.mark.parametrize(
    "href",
    [
        "/vsizip//tmp/a.zip/b.tif",
        "/vsicurl_streaming/http://127.0.0.1/a.tif",
        "/vsimem/a.tif",
        "vrt:///tmp/a.tif?bands=1",
        "<VRTDataset rasterXSize='1' rasterYSize='1'/>",
        "GTIFF_DIR:1:/tmp/a.tif",
        "ftp://example.com/a.tif",
        "/etc/passwd\0.tif",
    ],
)
def test_only_plain_files_and_addresses_are_opened(shared_data: Path, href: str) -> None:
    document = json.loads((shared_data / SCENE / "item.json").read_text())
    document["assets"]["red"]["href"] = href
    item = source_item(document, sensor("sentinel-2-l1c"), block=0, base=str(shared_data / SCENE / "item.json"))
    with pytest.raises(ImageryError, match=r"has no address|does not exist"):
        image_address(item.bands[2])


@pytest.mark.parametrize("href", ["/etc/passwd", "file:///etc/passwd", "../../../etc/passwd"])
def test_a_remote_catalog_cannot_name_local_files(shared_data: Path, href: str) -> None:
    document = json.loads((shared_data / SCENE / "item.json").read_text())
    document["assets"]["red"]["href"] = href
    base = "https://example.com/catalog/item.json"
    item = source_item(document, sensor("sentinel-2-l1c"), block=0, base=base)
    red = item.bands[2]
    if red.href.startswith("https://example.com/"):
        return  # resolved against the catalog: a file of its own server
    with pytest.raises(ImageryError, match="local file, named by a remote catalog"):
        image_address(red)


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    """A claim of 320 GB in a sparse file, and a strip that decodes to 400 MB."""
    with rasterio.open(
        tmp_path / "claim.tif",
        "w",
        driver="GTiff",
        width=400_000,
        height=400_000,
        count=1,
        dtype="uint16",
        crs="EPSG:32631",
        transform=Affine(10, 0, 0, 0, -10, 0),
        sparse_ok=True,
        tiled=True,
        BIGTIFF="YES",
    ):
        pass
    write_tif(
        tmp_path / "strip.tif",
        np.zeros((1, 20_000, 10_000), dtype=np.uint16),
        Affine(10, 0, 0, 0, -10, 0),
        "EPSG:32631",
        nodata=0,
    )
    with rasterio.open(tmp_path / "strip.tif") as file:
        profile = {**file.profile, "blockysize": 20_000}
    with rasterio.open(tmp_path / "bomb.tif", "w", **profile) as file:
        file.write(np.zeros((20_000, 10_000), dtype=np.uint16), 1)
    one = {"rgbnir": {"href": "claim.tif"}}
    for name, said in (("claim.tif", "claims 400000 × 400000 pixels"), ("bomb.tif", "blocks of 381 MiB")):
        one["rgbnir"]["href"] = name
        item = write_item(tmp_path / "bomb.json", one)
        bands = source_item(json.loads(item.read_text()), sensor("sentinel-2-rgbnir"), block=0, base=str(item)).bands[
            :1
        ]
        with pytest.raises(ImageryError, match=said), open_bands(bands, None):
            pass


def test_another_scale_than_the_sensor_s_is_refused(shared_data: Path, tmp_path: Path, make: Make) -> None:
    def scale(item: dict[str, Any]) -> None:
        for asset in item["assets"].values():
            asset["raster:bands"][0]["scale"] = 0.001

    with pytest.raises(SourceError, match=r"has the scale 0.001 .expected 0.0001"):
        make(copy_item(shared_data / SCENE / "item.json", tmp_path, scale))


def test_pixels_that_contradict_their_item_are_named(shared_data: Path, tmp_path: Path, make: Make) -> None:
    """An item of baseline 05.09 without a flag whose pixels never had the +1000."""

    def claim(item: dict[str, Any]) -> None:
        del item["properties"]["earthsearch:boa_offset_applied"]
        item["properties"]["s2:processing_baseline"] = "05.09"
        for asset in item["assets"].values():
            asset.pop("raster:bands", None)

    made = make(copy_item(shared_data / SCENE / "item.json", tmp_path, claim), chips={"layout": "scene", "size": 256})
    record = json.loads(made.release.store.read(".run/run.json"))
    (note,) = record["notes"]
    assert "1,000 is taken off its pixels (s2:processing_baseline)" in note
    assert "may have been applied before" in note
    (source,) = made.release.parquet("sources.parquet").read().to_pylist()
    assert {band["offset"] for band in source["bands"]} == {-0.1}
    assert {band["source"].rpartition("values: ")[2] for band in source["bands"]} == {"s2:processing_baseline"}
    assert source["evidence"]["status"] == "ambiguous"
    assert source["evidence"]["sentences"] == [note]


def test_the_offset_is_taken_off_once(shared_data: Path, tmp_path: Path, make: Make) -> None:
    """The same scene with +1000 in its pixels and a baseline that says so gives the same vectors."""
    good = shared_data / SCENE / "item.json"

    def add(item: dict[str, Any]) -> None:
        del item["properties"]["earthsearch:boa_offset_applied"]
        item["properties"]["s2:processing_baseline"] = "05.09"
        for asset in item["assets"].values():
            asset.pop("raster:bands", None)
        for band in sensor("sentinel-2-l1c").bands:
            asset = item["assets"][band.name]
            with rasterio.open(asset["href"]) as file:
                values, profile = file.read(), file.profile
            with rasterio.open(tmp_path / f"{band.name}.tif", "w", **profile) as file:
                file.write(np.where(values == 0, 0, values + 1000))
            asset["href"] = str(tmp_path / f"{band.name}.tif")

    chips = {"layout": "scene", "size": 256}
    plain = make(good, chips=chips, out="plain").embeddings
    shifted = make(copy_item(good, tmp_path, add), chips=chips, out="shifted").embeddings
    for a, b in zip(plain["embedding"].to_pylist(), shifted["embedding"].to_pylist(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_an_image_that_changed_after_planning_is_refused(
    shared_data: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clay_publish.producer.imagery import remote as content

    good = shared_data / SCENE / "item.json"
    seen: dict[str, int] = {}
    original = content._etag

    def etag(file: Any) -> str | None:
        seen[file.href] = seen.get(file.href, 0) + 1
        tag = original(file)
        return f"{tag}-changed" if seen[file.href] > 1 and file.band == "red" else tag

    monkeypatch.setattr(content, "_etag", etag)
    with pytest.raises(ReleaseError, match="source_changed"):
        make(good, chips={"layout": "scene", "size": 256})
