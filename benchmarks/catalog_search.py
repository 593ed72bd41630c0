"""Searching a million STAC Items by box and time: this package's reader, pyarrow's filter, DuckDB and rustac's client.

All ask the same file the same questions and must find the same items.

    python benchmarks/catalog_search.py [--items 1000000] [--questions 5]
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import catalog_items
import duckdb
import numpy as np
import pyarrow.compute as pc
import pyarrow.dataset as ds

from clay_publish.search.query import Extent
from clay_publish.search.reader import open_release

Box = tuple[float, float, float, float]
Ask = Callable[[Box, str, str], set[str]]


def ways(folder: Path) -> dict[str, Ask]:
    where = str(folder / "items.parquet")
    reader, dataset = open_release(folder), ds.dataset(where)
    connection = duckdb.connect()

    def ours(box: Box, start: str, end: str) -> set[str]:
        return set(reader.items(box, f"{start}/{end}", ["id"])["id"].to_pylist())

    def pyarrow(box: Box, start: str, end: str) -> set[str]:
        west, south, east, north = box
        extent = Extent.of(None, f"{start}/{end}")
        here = (
            (pc.field("bbox", "xmin") <= east)
            & (pc.field("bbox", "xmax") >= west)
            & (pc.field("bbox", "ymin") <= north)
            & (pc.field("bbox", "ymax") >= south)
        )
        then = (pc.field("start_datetime") <= extent.end) & (pc.field("end_datetime") >= extent.start)
        return set(dataset.to_table(columns=["id"], filter=here & then)["id"].to_pylist())

    def by_duckdb(box: Box, start: str, end: str) -> set[str]:
        west, south, east, north = box
        extent = Extent.of(None, f"{start}/{end}")
        rows = connection.execute(
            "SELECT id FROM read_parquet(?) WHERE bbox.xmin <= ? AND bbox.xmax >= ?"
            " AND bbox.ymin <= ? AND bbox.ymax >= ? AND start_datetime <= ? AND end_datetime >= ?",
            [where, east, west, north, south, extent.end, extent.start],
        )
        return {row[0] for row in rows.fetchall()}

    made: dict[str, Ask] = {"clay-publish": ours, "pyarrow filter": pyarrow, "DuckDB": by_duckdb}
    client = rustac_client(folder)
    if client is None:
        return made

    def rustac(box: Box, start: str, end: str) -> set[str]:
        found = client.search(where, bbox=list(box), datetime=f"{start}T00:00:00Z/{end}T23:59:59Z", include=["id"])
        return {item["id"] for item in found}

    return made | {"rustac": rustac}


def rustac_client(folder: Path) -> Any:
    """A client that needs no network; None where one of the packages is missing."""
    packages = [find_spec(f"duckdb_extension_{name}") for name in ("icu", "parquet", "spatial")]
    if not find_spec("rustac") or not all(packages):
        print("without rustac: install rustac==0.9.17 and duckdb-extension-{icu,parquet,spatial}==1.5.5, its DuckDB's")
        return None
    from rustac import DuckdbClient

    for package in packages:
        assert package is not None
        assert package.origin is not None
        for built in (Path(package.origin).parent / "extensions").glob("*/*.duckdb_extension"):
            there = folder / "extensions" / built.parent.name / "linux_amd64" / built.name
            there.parent.mkdir(parents=True, exist_ok=True)
            there.symlink_to(built)
    return DuckdbClient(extension_directory=folder / "extensions", install_extensions=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--questions", type=int, default=5)
    asked = parser.parse_args()
    random = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        catalog_items.by_columns(asked.items, folder / "items.parquet")
        asking = ways(folder)
        seconds: dict[str, list[float]] = {}
        for _ in range(asked.questions):
            west, south = random.uniform(-170, 160), random.uniform(-60, 50)
            box = (west, south, west + 5, south + 5)
            answers = {}
            for way, ask in asking.items():
                begun = time.perf_counter()
                answers[way] = ask(box, "2022-03-01", "2022-09-01")
                seconds.setdefault(way, []).append(time.perf_counter() - begun)
            first = answers["clay-publish"]
            for way, found in answers.items():
                if found != first:
                    print(f"{way} disagrees: {len(found)} items, {len(found ^ first)} differ")
        ours = float(np.median(seconds["clay-publish"]))
        for way, taken in seconds.items():
            middle = float(np.median(taken))
            print(f"{way:<15} {1000 * middle:7.1f} ms   {middle / ours:5.1f} × ours")


if __name__ == "__main__":
    main()
