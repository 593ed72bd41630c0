"""A table of STAC Items: written as Arrow columns against item dictionaries, and searched by box and time.

    python benchmarks/items.py write [--items 1000000] [--dictionaries 50000]
    python benchmarks/items.py search [--items 1000000] [--questions 15]

Writing: both ways begin with the same columns and end with a stac-geoparquet file of the same items. Each runs in a
process of its own, so that CPU time and peak memory are its own; the dictionaries' way is run on fewer items and
counted per item. They take turns three times, and the ratio is the median of three.

Searching: this package's reader, pyarrow's filter, DuckDB and rustac's client ask the same file the same questions in
turns, and have to find the same items.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import shapely
from stac_geoparquet.arrow import parse_stac_items_to_arrow, stac_table_to_items, to_parquet

from clay_publish.catalog.item_table import ItemColumns, ItemConstants, write_item_table
from clay_publish.release.tables import BBOX, TIMESTAMP
from clay_publish.search.query import Extent
from clay_publish.search.reader import open_release
from clay_publish.storage.store import Store

Box = tuple[float, float, float, float]
Ask = Callable[[Box, str, str], set[str]]
ROUNDS = 3

CONSTANTS = ItemConstants(
    collection={"id": "benchmark", "title": "Benchmark"},
    alternates={"hugging-face": "https://huggingface.co/datasets/clay/benchmark/resolve/v1.0.0"},
    extensions=("https://stac-extensions.github.io/projection/v2.0.0/schema.json",),
    fields={"gsd": 10.0, "emb:runtime_parameters": {"encoder": "clay", "seed": 0}, "embrel:fingerprint": "0" * 64},
    source_hrefs={f"scene-{n}": f"https://example.org/stac/scene-{n}.json" for n in range(1000)},
)


def columns(count: int) -> ItemColumns:
    """Items all over the Earth, an hour apart."""
    random = np.random.default_rng(0)
    west, south = random.uniform(-180, 179, count), random.uniform(-80, 80, count)
    sides = (west, south, west + 0.9, south + 0.9)
    number = np.arange(count)
    names = pc.binary_join_element_wise("18_04_41_", pc.cast(pa.array(number), pa.string()), "")
    hours = np.datetime64("2020-01-01", "us") + (number % 50_000) * np.timedelta64(1, "h")
    times = pa.array(hours).cast(TIMESTAMP)
    rows = pa.array(random.integers(1, 6000, count))
    offsets = pa.array(np.arange(0, 2 * count + 1, 2, dtype=np.int32))
    scenes = pa.array([f"scene-{n}" for n in range(1000)]).take(pa.array(np.arange(2 * count) % 1000))
    return ItemColumns(
        id=names,
        title=pc.binary_join_element_wise("Embeddings of ", names, ""),
        path=pc.binary_join_element_wise("embeddings/zone=18/", names, ".parquet", ""),
        geometry=outlines(*sides),
        bbox=pa.StructArray.from_arrays([pa.array(side) for side in sides], fields=list(BBOX)),
        datetime=times,
        start_datetime=times,
        end_datetime=times,
        code=pa.repeat("EPSG:32618", count),
        square=pa.repeat("MGRS-18SVG", count),
        rows=rows,
        size=rows,
        coverage=pa.StructArray.from_arrays([rows, rows], names=["expected", "embedded"]),
        sources=pa.ListArray.from_arrays(offsets, scenes),
        kinds=("Polygon",),
    )


def outlines(*sides: np.ndarray) -> pa.BinaryArray:
    """WKB, some at a time: a million shapely objects weigh more than all columns."""
    step = 50_000
    made = [
        pa.array(shapely.to_wkb(shapely.box(*(side[n : n + step] for side in sides))), pa.binary())
        for n in range(0, len(sides[0]), step)
    ]
    return pa.concat_arrays(made)


def by_columns(count: int, out: Path) -> None:
    write_item_table(Store(out.parent), out.name, columns(count), CONSTANTS)


def by_dictionaries(count: int, out: Path, items: Path) -> None:
    """From the items another process left as JSON lines, to leave the making of dictionaries cheap."""

    def dictionaries() -> Iterator[dict[str, Any]]:
        with items.open() as lines:
            yield from (json.loads(line) for line in lines)

    to_parquet(parse_stac_items_to_arrow(dictionaries(), chunk_size=16_384, schema="FirstBatch"), out)
    assert pq.read_metadata(out).num_rows == count


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


def in_process(way: str, count: int, out: Path) -> None:
    """One way of writing; print CPU seconds and peak MB of this process."""
    begun = time.process_time()
    if way == "columns":
        by_columns(count, out)
    else:
        by_dictionaries(count, out, out.with_suffix(".ndjson"))
    seconds = time.process_time() - begun
    status = Path("/proc/self/status").read_text()  # getrusage counts what the parent held
    print(seconds, int(status.partition("VmHWM:")[2].split()[0]) / 1e3)


def measure(way: str, count: int, out: Path) -> tuple[float, float]:
    """CPU microseconds per item and peak MB of a way of writing, in a process of its own."""
    command = [sys.executable, __file__, "write", "--run", way, str(count), str(out)]
    made = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    seconds, peak = map(float, made.stdout.split())
    return 1e6 * seconds / count, peak


def write(items: int, dictionaries: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        few, ours, theirs = (folder / f"{file}.parquet" for file in ("few", "ours", "theirs"))
        by_columns(dictionaries, few)
        with theirs.with_suffix(".ndjson").open("w") as lines:
            for batch in pq.ParquetFile(few).iter_batches():
                lines.writelines(json.dumps(item) + "\n" for item in stac_table_to_items(batch))
        ratios = []
        for _ in range(ROUNDS):
            cpu_ours, peak_ours = measure("columns", items, ours)
            cpu_theirs, peak_theirs = measure("dictionaries", dictionaries, theirs)
            ratios.append(cpu_theirs / cpu_ours)
            print(f"columns       {items:>9,} items  {cpu_ours:7.1f} CPU-µs per item  {peak_ours:6.0f} MB peak")
            print(
                f"dictionaries  {dictionaries:>9,} items  {cpu_theirs:7.1f} CPU-µs per item  {peak_theirs:6.0f} MB peak"
            )
        print(f"{ours.stat().st_size / 1e6:.0f} MB on disk")
    print(f"columns take {median(ratios):.1f} times less CPU per item ({min(ratios):.1f} to {max(ratios):.1f})")


def search(items: int, questions: int) -> None:
    random = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        by_columns(items, folder / "items.parquet")
        asking = ways(folder)
        spent: dict[str, list[tuple[float, float]]] = {way: [] for way in asking}
        for _ in range(questions):
            west, south = random.uniform(-170, 160), random.uniform(-60, 50)
            box = (west, south, west + 5, south + 5)
            answers = {}
            for way, ask in asking.items():
                begun, used = time.perf_counter(), time.process_time()
                answers[way] = ask(box, "2022-03-01", "2022-09-01")
                spent[way].append((time.perf_counter() - begun, time.process_time() - used))
            first = answers["clay-publish"]
            for way, found in answers.items():
                if found != first:
                    print(f"{way} disagrees: {len(found)} items, {len(found ^ first)} differ")
    middle = {way: [median(column) for column in zip(*taken, strict=True)] for way, taken in spent.items()}
    ours = middle["clay-publish"]
    for way, (wall, cpu) in middle.items():
        ratios = f"{wall / ours[0]:5.2f} × the time, {cpu / ours[1]:5.2f} × the CPU time of this package"
        print(f"{way:<15} {1e3 * wall:7.1f} ms {1e3 * cpu:7.1f} CPU-ms   {ratios}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_subparsers(dest="what", required=True)
    writing, searching = what.add_parser("write"), what.add_parser("search")
    for each in (writing, searching):
        each.add_argument("--items", type=int, default=1_000_000)
    writing.add_argument("--dictionaries", type=int, default=50_000)
    writing.add_argument("--run", nargs=3, metavar=("WAY", "COUNT", "OUT"), help=argparse.SUPPRESS)
    searching.add_argument("--questions", type=int, default=15)
    asked = parser.parse_args()
    if asked.what == "search":
        search(asked.items, asked.questions)
    elif asked.run:
        way, count, out = asked.run
        in_process(way, int(count), Path(out))
    else:
        write(asked.items, asked.dictionaries)


if __name__ == "__main__":
    main()
