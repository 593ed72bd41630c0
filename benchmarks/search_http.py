"""What finding chips costs over HTTP: requests, bytes and seconds on loopback, 30 ms before each answer.

    python benchmarks/search_http.py --chips 1000000 [--at FOLDER]

The release is that of `search.py`. Each question is asked in a session of its own after opening (`first`), then at a
place 13 km away and in another file of the same session, and once more in a later session whose predecessor asked the
same and left the ranges in the cache on disk. pyarrow asks the files themselves; it needs `pip install aiohttp fsspec`.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
from scenes import LATENCY, Counted, served
from search import write

from clay_publish import open_release
from clay_publish.search.query import EXTENT_COLUMNS, Extent
from clay_publish.search.reader import ReleaseReader
from clay_publish.search.row_groups import matching_groups

COLUMNS = ("id", "lon", "lat", "embedding")
SIDE = 0.3
"""Degrees of a box: it holds some 500 chips."""
POINTS = 10_000
"""Drawn in such a box."""
Place = tuple[float, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chips", type=int, default=1_000_000)
    parser.add_argument("--at", type=Path, help="where the release is, or is made and kept")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        folder = chosen.at or Path(scratch) / "release"
        if not (folder / "items.parquet").exists():
            write(folder, chosen.chips)
        with served(folder) as server:
            measure(folder, server)


def measure(folder: Path, server: Counted) -> None:
    """Print a line per question."""
    local = open_release(folder)
    boxes = local.items(columns=["bbox"])["bbox"].to_pylist()
    middles = [((b["xmin"] + b["xmax"]) / 2, (b["ymin"] + b["ymax"]) / 2) for b in boxes]
    first, near, far = middles[0], (middles[0][0] + 0.1, middles[0][1] + 0.1), middles[len(middles) // 2]
    print(f"{len(local):,} chips in {len(boxes)} files, {1000 * LATENCY:.0f} ms away, load {os.getloadavg()[0]:.1f}")
    print(f"{'opening':18s}{cost(server, opened, server.url)}", flush=True)
    print(f"{'':18s}{'first':26s}{'13 km away':26s}{'another file':26s}later session, opened", flush=True)
    for name, question in QUESTIONS.items():
        reader = opened(server.url)
        said = [cost(server, question, reader, place) for place in (first, near, far)]
        question(opened(server.url, cache=True), first)
        said.append(cost(server, question, opened(server.url, cache=True), first))
        print(f"{name:18s}{''.join(said)}", flush=True)
    addresses = [f"{server.url}/{file.relative_to(folder)}" for file in sorted(folder.glob("embeddings/*/*"))]
    print(f"{'pyarrow, box':18s}{cost(server, by_pyarrow, addresses, box_at(first))}")
    print(f"row groups of the first box: {row_group_bytes(local, box_at(first)) / 1e6:.3f} MB")


def opened(where: str, *, cache: bool = False) -> ReleaseReader:
    """A reader that knows the items and the columns."""
    reader = open_release(where, cache=cache)
    assert reader.dimensions
    assert len(reader)
    return reader


def cost(server: Counted, work: Callable[..., Any], *arguments: Any) -> str:
    """Do something; return requests, bytes of bodies and seconds."""
    before, begun = server.now(), time.perf_counter()
    work(*arguments)
    seconds = time.perf_counter() - begun
    requests, sent = (after - earlier for after, earlier in zip(server.now(), before, strict=True))
    return f"{requests:4d} {sent / 1e6:8.3f} MB {seconds:6.2f} s   "


def box_at(place: Place) -> tuple[float, float, float, float]:
    """West, south, east, north."""
    lon, lat = place
    return (lon - SIDE / 2, lat - SIDE / 2, lon + SIDE / 2, lat + SIDE / 2)


def points_at(place: Place) -> pa.Table:
    """Places drawn in the box."""
    west, south, east, north = box_at(place)
    random = np.random.default_rng(0)
    return pa.table({"lon": random.uniform(west, east, POINTS), "lat": random.uniform(south, north, POINTS)})


QUESTIONS: dict[str, Callable[[ReleaseReader, Place], Any]] = {
    "nearest": lambda reader, place: reader.nearest(*place),
    "nearest, vector": lambda reader, place: reader.nearest(*place, columns=COLUMNS),
    "box": lambda reader, place: reader.chips(box_at(place), columns=COLUMNS).read_all(),
    "similar in a zone": lambda reader, place: reader.similar(place, bbox=(place[0] - 3, -80, place[0] + 3, 84)),
    "similar": lambda reader, place: reader.similar(place),
    "sample": lambda reader, place: reader.sample(points_at(place)),
}


def row_group_bytes(reader: ReleaseReader, box: Sequence[float]) -> int:
    """Bytes of `COLUMNS` and of the columns that are compared, in the row groups that have a chip in the box."""
    extent, names, total = Extent.of(box, None), {*COLUMNS, *EXTENT_COLUMNS}, 0
    for path in reader.shelf(extent).paths:
        file = reader.release.parquet(path)
        for number, _ in matching_groups(file, extent, path):
            group = file.metadata.row_group(number)
            chunks = [group.column(place) for place in range(group.num_columns)]
            total += sum(c.total_compressed_size for c in chunks if c.path_in_schema.partition(".")[0] in names)
    return total


def by_pyarrow(addresses: list[str], box: Sequence[float]) -> None:
    """The box query from the files of the release, whose addresses are known."""
    files = pyarrow.dataset.dataset(addresses, filesystem=fsspec.filesystem("http"), format="parquet")
    west, south, east, north = box
    xmin, ymin, xmax, ymax = (pc.field("bbox", side) for side in ("xmin", "ymin", "xmax", "ymax"))
    files.to_table(columns=[*COLUMNS], filter=(xmin <= east) & (xmax >= west) & (ymin <= north) & (ymax >= south))


if __name__ == "__main__":
    main()
