"""Real pixels of the bundled sample, laid out so that units and published files share each other."""

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import yaml
from affine import Affine
from pyproj import Transformer
from rasterio.windows import Window

IMAGERY = Path(str(files("clay_publish") / "sample" / "imagery"))
SIDE = 256
"""Pixels of an image: 16 chips of 64."""

PLACES = {
    # Across the border of two 100 km squares, and with a neighbor in each: three units, two files.
    "across": (500_000 - 1280, "2016-01-12"),
    "west": (500_000 - 4000, "2016-01-12"),
    "east": (500_000 + 2000, "2016-01-12"),
    # The same ground later: a file of its own.
    "later": (500_000 - 4000, "2016-02-01"),
}


def scattered(folder: Path, names: Sequence[str] = tuple(PLACES)) -> Path:
    """Write items of 256 × 256 pixels and a spec of them; chips of 64 pixels, in the `scene` layout."""
    folder.mkdir(parents=True, exist_ok=True)
    sample = json.loads((IMAGERY / "item.json").read_text())
    items = [_item(folder, sample, name, number) for number, name in enumerate(names)]
    (folder / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return write_spec(folder)


def write_spec(folder: Path, **more: Any) -> Path:
    """A spec of the items in a folder."""
    document = {
        "name": "scattered",
        "imagery": {"stac": "items.json", "sensor": "sentinel-2-l1c"},
        "chips": {"layout": "scene", "size": 64},
        **more,
    }
    spec = folder / "release.yaml"
    spec.write_text(yaml.safe_dump(document))
    return spec


def _item(folder: Path, sample: dict[str, Any], name: str, number: int) -> dict[str, Any]:
    west, day = PLACES[name]
    assets = {}
    for key, asset in sample["assets"].items():
        if asset["href"].endswith(".tif"):
            file = f"{name}_{Path(asset['href']).name}"
            _crop(IMAGERY / asset["href"], folder / file, west, number)
            assets[key] = {k: v for k, v in asset.items() if not k.startswith("proj:")} | {"href": file}
    side = SIDE * 10
    x = np.array([west, west + side, west + side, west, west])
    y = np.array([4_170_000, 4_170_000, 4_170_000 + side, 4_170_000 + side, 4_170_000])
    lon, lat = Transformer.from_crs(32618, "OGC:CRS84", always_xy=True).transform(x, y)
    ring = np.stack([lon, lat], axis=1).tolist()
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "id": name,
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [min(lon), min(lat), max(lon), max(lat)],
        "properties": {"datetime": f"{day}T15:50:00Z"},
        "links": [],
        "assets": assets,
    }


def _crop(source: Path, target: Path, west: float, number: int) -> None:
    with rasterio.open(source) as file:
        pixel = file.transform.a
        side = round(SIDE * 10 / pixel)
        window = Window(number % 2 * side, number // 2 * side, side, side)
        values, profile = file.read(1, window=window), file.profile
    transform = Affine(pixel, 0, west, 0, -pixel, 4_170_000 + SIDE * 10)
    profile.update(width=side, height=side, transform=transform, blockxsize=64, blockysize=64)
    with rasterio.open(target, "w", **profile) as file:
        file.write(values, 1)


def embeddings(release: Path) -> dict[str, bytes]:
    """Every file in the tree of published embeddings."""
    return {str(p.relative_to(release)): p.read_bytes() for p in (release / "embeddings").rglob("*") if p.is_file()}


def assert_same(release: Path, undisturbed: Path, chips: int) -> None:
    """That a finished release is, but for its clocks, an undisturbed one of so many chips, and left nothing behind."""
    assert embeddings(release) == embeddings(undisturbed) != {}
    covered = sorted(path.relative_to(undisturbed) for path in (undisturbed / "coverage").rglob("*.parquet"))
    for name in ("sources.parquet", "gaps.geojson", "release.yaml", "reference.parquet", *covered):
        assert (release / name).read_bytes() == (undisturbed / name).read_bytes(), name
    assert not list(release.rglob(".tmp-*"))
    assert not list((release / ".run" / "attempts").glob("*"))
    assert not list((release / ".run" / "parts").glob("1*/*.arrow"))
    mine, theirs = (json.loads((each / ".run" / "run.json").read_text()) for each in (release, undisturbed))
    assert mine["coverage"] == theirs["coverage"] == {"expected": chips, "embedded": chips}
    assert mine["plan_sha256"] == theirs["plan_sha256"]
