"""Small images and items made from real pixels, and releases made of them."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
from affine import Affine
from rasterio.enums import Resampling
from s3_servers import KEY, SECRET, S3View, start_ministack, with_client

from clay_publish.producer.produce import produce
from clay_publish.release.directory import Release
from clay_publish.spec.load import resolve_spec
from clay_publish.spec.sensors import sensor

from .many import many
from .processes import start
from .scattered import scattered

ITEM_TIME = "2021-05-27T11:30:00Z"


@dataclass
class Made:
    """A release that `produce` made, and its tables."""

    release: Release
    counts: dict[str, int]
    coverage: list[dict[str, Any]] = field(default_factory=list)

    @property
    def embeddings(self) -> pa.Table:
        return pa.concat_tables(pq.read_table(self.release.store.path(p)) for p in self.release.data_files())

    def reasons(self) -> dict[str, str]:
        """Detail by reason, of the missing chips."""
        return {row["reason"]: row["detail"] for row in self.coverage if row["reason"]}


Make = Callable[..., Made]
Once = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Run the stage on items: `make(item, sensor=…, chips={…})`."""

    def run(*stac: Path, sensor: str | None = None, out: str = "release", **spec: Any) -> Made:
        level = "l2a" if "s2_l2a" in str(stac[0]) else "l1c"
        imagery = {
            "stac": [str(path) for path in stac],
            "sensor": sensor or f"sentinel-2-{level}",
            **spec.pop("imagery", {}),
        }
        document = {"name": "test", "imagery": imagery, "chips": {"layout": "scene"}, **spec}
        release = Release(str(tmp_path / out))
        record = produce(resolve_spec(document, where="spec", folder=tmp_path), release)
        files = release.data_files("coverage")
        rows = [row for path in files for row in pq.read_table(release.store.path(path)).to_pylist()]
        return Made(release, record.coverage, rows)

    return run


def write_tif(
    path: Path,
    values: np.ndarray[Any, Any],
    transform: Affine | None,
    crs: str | None,
    *,
    nodata: float | None = None,
    block: int | None = None,
) -> Path:
    """Write [bands, rows, columns] as a GeoTIFF."""
    options: dict[str, Any] = {"tiled": True, "blockxsize": block, "blockysize": block} if block else {}
    count, height, width = values.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=count,
        height=height,
        width=width,
        dtype=values.dtype,
        transform=transform,
        crs=crs,
        nodata=nodata,
        compress="deflate",
        **options,
    ) as file:
        file.write(values)
    return path


def ten_bands(path: Path) -> np.ndarray[Any, Any]:
    """Clay's bands of a Sentinel-2 item, read without the producer, on the grid of the finest, pixels repeated."""
    assets = json.loads(path.read_text())["assets"]
    files = [path.parent / assets[band.name]["href"] for band in sensor("sentinel-2-l2a").bands]
    with rasterio.open(files[0]) as finest:
        shape = finest.shape
    layers = []
    for name in files:
        with rasterio.open(name) as file:
            layers.append(file.read(1, out_shape=shape, resampling=Resampling.nearest))
    return np.stack(layers)


@pytest.fixture(scope="session")
def bands_of() -> Callable[[Path], np.ndarray]:
    """`ten_bands`, for the folders below."""
    return ten_bands


def write_item(path: Path, assets: Mapping[str, Any], **properties: Any) -> Path:
    """Write a STAC item whose footprint is that of its first asset's file."""
    first = next(iter(assets.values()))["href"]
    with rasterio.open(path.parent / first) as file:
        from rasterio.warp import transform_bounds

        bounds = transform_bounds(file.crs, "OGC:CRS84", *file.bounds) if file.crs else (0, 0, 1, 1)
    west, south, east, north = bounds
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": path.stem,
        "collection": "test",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": list(bounds),
        "properties": {"datetime": ITEM_TIME, **properties},
        "links": [],
        "assets": dict(assets),
    }
    path.write_text(json.dumps(item))
    return path


def copy_item(source: Path, folder: Path, change: Callable[[dict[str, Any]], None] | None = None) -> Path:
    """Copy an item of the real data with absolute hrefs, changed as asked."""
    item = json.loads(source.read_text())
    for asset in item["assets"].values():
        if "://" not in asset["href"]:
            asset["href"] = str((source.parent / asset["href"]).resolve())
    if change is not None:
        change(item)
    target = folder / f"{source.parent.name}-{source.name}"
    target.write_text(json.dumps(item))
    return target


@pytest.fixture(scope="session")
def begun(once: Once) -> tuple[Path, Path]:
    """A spec of several units and files, and the release that an undisturbed run makes of it. Read only."""
    folder = once("undisturbed", lambda folder: start(scattered(folder / "spec"), folder / "release").finish())
    return folder / "spec" / "release.yaml", folder / "release"


@pytest.fixture(scope="session")
def two_hundred(once: Once, shared_data: Path) -> tuple[Path, Path]:
    """A spec of so many small images, and the release that an undisturbed run makes of it. Read only."""
    return _many(once, shared_data, 200)


@pytest.fixture(scope="session")
def forty(once: Once, shared_data: Path) -> tuple[Path, Path]:
    """As `two_hundred`."""
    return _many(once, shared_data, 40)


def _many(once: Once, shared_data: Path, count: int) -> tuple[Path, Path]:
    def build(folder: Path) -> None:
        start(many(folder / "spec", shared_data / "naip", count), folder / "release").finish()

    folder = once(f"many-{count}", build)
    return folder / "spec" / "release.yaml", folder / "release"


@pytest.fixture
def spec(begun: tuple[Path, Path], tmp_path: Path) -> Path:
    """The same spec and images, to be changed and run again."""
    return Path(shutil.copytree(begun[0].parent, tmp_path / "spec")) / "release.yaml"


@pytest.fixture(scope="session")
def ministack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An S3 server that knows conditional puts; its address."""
    yield from start_ministack(tmp_path_factory.mktemp("ministack"))


@pytest.fixture
def bucket(ministack: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> S3View:
    """A fresh bucket, which the environment says how to reach."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    settings = {"ENDPOINT_URL": ministack, "ACCESS_KEY_ID": KEY, "SECRET_ACCESS_KEY": SECRET, "REGION": "us-west-2"}
    for name, value in {**settings, "EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    found = S3View(ministack, f"b{abs(hash(request.node.nodeid)):x}")
    place = {"LocationConstraint": "us-west-2"}
    with_client(ministack, lambda client: client.create_bucket(Bucket=found.bucket, CreateBucketConfiguration=place))
    return found
