"""Writing a table of STAC Items: Arrow columns against item dictionaries.

Both ways begin with the same columns and end with a stac-geoparquet file of the same items. Each runs in a process of
its own, so that CPU time and peak memory are its own; the dictionaries' way is run on fewer items and counted per item.

    python benchmarks/catalog_items.py [--items 1000000] [--dictionaries 50000]
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely
from stac_geoparquet.arrow import parse_stac_items_to_arrow, stac_table_to_items, to_parquet

from clay_publish.catalog.item_table import ItemColumns, ItemConstants, write_item_table
from clay_publish.release.tables import BBOX, TIMESTAMP
from clay_publish.storage.store import Store

CONSTANTS = ItemConstants(
    collection={"id": "benchmark", "title": "Benchmark"},
    address="https://data.source.coop/clay/benchmark/1.0.0",
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
        energy=pa.StructArray.from_arrays([pa.array(random.random(count))], names=["inference_duration_s"]),
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


def measure(*arguments: str) -> tuple[float, float]:
    """CPU seconds and peak MB of a run of this file."""
    made = subprocess.run([sys.executable, __file__, *arguments], check=True, capture_output=True, text=True)
    seconds, peak = made.stdout.split()[-2:]
    return float(seconds), float(peak)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--dictionaries", type=int, default=50_000)
    parser.add_argument("--run", nargs=3, metavar=("WAY", "COUNT", "OUT"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.run:
        way, count, out = asked.run[0], int(asked.run[1]), Path(asked.run[2])
        begun = cpu()
        if way == "columns":
            by_columns(count, out)
        else:
            by_dictionaries(count, out, out.with_suffix(".ndjson"))
        print(cpu() - begun, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    with tempfile.TemporaryDirectory() as folder:
        ours = Path(folder) / "ours.parquet"
        cpu_ours, peak_ours = measure("--run", "columns", str(asked.items), str(ours))
        print(f"columns       {asked.items:>9,} items  {cpu_ours:7.1f} CPU-s  {peak_ours:6.0f} MB peak")
        print(
            f"              {asked.items / cpu_ours:>9,.0f} items a CPU-s, {ours.stat().st_size / 1e6:.0f} MB on disk"
        )
        few = Path(folder) / "few.parquet"
        by_columns(asked.dictionaries, few)
        with few.with_name("theirs.ndjson").open("w") as lines:
            for batch in pq.ParquetFile(few).iter_batches():
                lines.writelines(json.dumps(item) + "\n" for item in stac_table_to_items(batch))
        theirs = str(few.with_name("theirs.parquet"))
        cpu_theirs, peak_theirs = measure("--run", "dictionaries", str(asked.dictionaries), theirs)
        print(f"dictionaries  {asked.dictionaries:>9,} items  {cpu_theirs:7.1f} CPU-s  {peak_theirs:6.0f} MB peak")
        print(f"              {asked.dictionaries / cpu_theirs:>9,.0f} items a CPU-s")
    ratio = (cpu_theirs / asked.dictionaries) / (cpu_ours / asked.items)
    print(f"columns take {ratio:.1f} times less CPU an item")


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
