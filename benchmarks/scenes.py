"""Scenes of any size from the real pixels of the bundled sample, and a server with latency in front of them."""

import json
import multiprocessing
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.warp import transform_bounds

from clay_publish.producer.sources.item import SourceItem
from clay_publish.producer.sources.stac_item import source_item
from clay_publish.spec.sensors import sensor

SENSOR = sensor("sentinel-2-l2a")
IMAGERY = Path(str(files("clay_publish") / "sample" / "imagery"))
BLOCK = 512
LATENCY = 0.03
"""Seconds before each answer of the server."""


def scene(folder: Path, side: int, name: str = "scene", west: float = 399_960.0) -> Path:
    """Write an item and its ten bands at 10 and 20 m; `side` pixels of 10 m. What is there is not written again."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    if path.exists():
        return path
    sample = json.loads((IMAGERY / "item.json").read_text())
    assets = {}
    for key, asset in sample["assets"].items():
        if asset["href"].endswith(".tif"):
            file = f"{name}_{Path(asset['href']).name}"
            bounds = _band(IMAGERY / asset["href"], folder / file, side, west)
            assets[key] = {k: v for k, v in asset.items() if not k.startswith("proj:")} | {"href": file}
    w, s, e, n = transform_bounds("EPSG:32618", "OGC:CRS84", *bounds)
    ring = [[w, s], [e, s], [e, n], [w, n], [w, s]]
    item = {
        **{key: sample[key] for key in ("type", "stac_version")},
        "id": name,
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [w, s, e, n],
        "properties": {
            "datetime": "2016-01-12T15:50:00Z",
            "proj:code": "EPSG:32618",
            "proj:shape": [side, side],
            "proj:transform": [10, 0, west, 0, -10, 4_200_000.0],
        },
        "links": [],
        "assets": assets,
    }
    path.write_text(json.dumps(item))
    return path


def _band(source: Path, target: Path, side: int, west: float) -> tuple[float, float, float, float]:
    with rasterio.open(source) as file:
        values, profile, pixel = file.read(1), file.profile, file.transform.a
    count = round(side * 10 / pixel)
    # Mirrored at every other copy, so that there are no seams.
    period = np.concatenate([np.arange(len(values)), np.arange(len(values))[::-1]])
    index = np.resize(period, count)
    profile.update(
        width=count,
        height=count,
        transform=Affine(pixel, 0, west, 0, -pixel, 4_200_000),
        blockxsize=BLOCK,
        blockysize=BLOCK,
        zlevel=1,
        num_threads=os.cpu_count(),
    )
    with rasterio.open(target, "w", **profile) as file:
        for top in range(0, count, BLOCK):
            rows = index[top : top + BLOCK]
            file.write(values[rows][:, index], 1, window=((top, top + len(rows)), (0, count)))
        return tuple(file.bounds)


def item_at(path: Path, base: str | None = None) -> SourceItem:
    """The item, its hrefs against `base` or its folder."""
    return source_item(json.loads(path.read_text()), SENSOR, block=0, base=base or str(path))


def stored_bytes(item: SourceItem, folder: Path) -> int:
    """Bytes of the item's files: what has to be fetched to know every pixel."""
    return sum((folder / Path(file.href).name).stat().st_size for file in item.bands)


class Counted:
    """What a server in another process was asked."""

    def __init__(self, url: str, requests: Any, sent: Any) -> None:
        self.url, self._requests, self._sent = url, requests, sent

    def now(self) -> tuple[int, int]:
        """Requests and bytes so far."""
        return self._requests.value, self._sent.value


@contextmanager
def served(folder: Path, latency: float = LATENCY) -> Iterator[Counted]:
    """Serve a folder from a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    requests, sent = context.Value("q", 0), context.Value("q", 0)
    process = context.Process(target=_serve, args=(folder, latency, theirs, requests, sent), daemon=True)
    process.start()
    try:
        yield Counted(ours.recv(), requests, sent)
    finally:
        ours.send("stop")
        process.join()


def _serve(folder: Path, latency: float, pipe: Any, requests: Any, sent: Any) -> None:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "servers"))
    from image_server import ImageServer

    with ImageServer(folder, latency=latency) as server:

        class Tally(list[Any]):
            def append(self, request: Any) -> None:
                requests.value += 1
                sent.value += request.sent

        server.requests = Tally()
        pipe.send(server.url)
        pipe.recv()
