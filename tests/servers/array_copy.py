"""Arrays for a release that has none, and no `.run` of its own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from clay_publish.producer.encoders import Encoder, load_encoder
from clay_publish.producer.outputs.arrays.shards import ReadyShard, Shard
from clay_publish.producer.outputs.arrays.write import ArrayWriter
from clay_publish.producer.outputs.parts import COVERAGE, PART_COVERAGE, PARTS, remove_all, write_part
from clay_publish.release.array_store import array_windows, coverage_zone
from clay_publish.release.directory import DataFile, Release
from clay_publish.release.unit_receipts import UnitReceipt
from clay_publish.spec.models import Spec


def add_arrays(where: Path, dtype: str = "int8") -> Release:
    """Write the arrays of a release of the sample, whose image's day is the only time step."""
    document = yaml.safe_load((where / "release.yaml").read_text())
    document["imagery"][0]["windows"] = ["2016-01-12/2016-01-13"]
    document["outputs"]["arrays"] = {"dtype": dtype}
    (where / "release.yaml").write_text(yaml.safe_dump(document))
    release = Release(str(where))
    spec = release.spec()
    write_arrays(release, spec, load_encoder(spec, spec.instrument))
    return release


def write_arrays(release: Release, spec: Spec, encoder: Encoder) -> None:
    """Write the arrays of chips, from the tables, as a run does that has one unit per shard."""
    writer = ArrayWriter(release, spec, release.fingerprint(), encoder)
    shards = {ready.shard: writer.assemble(ready) for ready in _shards(release, spec, writer)}
    writer.publish(shards)
    remove_all(release, release.store.files(PARTS))


def _shards(release: Release, spec: Spec, writer: ArrayWriter) -> Iterator[ReadyShard]:
    grid, files = writer.groups[""].grid, [DataFile.parse(path) for path in release.data_files()]
    for path in release.data_files("coverage"):
        zone, table = coverage_zone(path), pq.read_table(release.store.path(path), partitioning=None)
        side = grid.cells_per_shard
        places = np.stack([(grid.row_top - table["row"].to_numpy()) // side, table["col"].to_numpy() // side], axis=1)
        for time, window in enumerate(array_windows(spec)):
            of_window = np.array([start == window.start for start in table["window_start"].to_pylist()])
            for south, east in np.unique(places[of_window], axis=0).tolist():
                shard = Shard(zone, "", time, south, east)
                box = shard.box(grid)
                mine = [f for f in files if f.window == window and box.may_hold(f, grid.cell, spec.outputs.across)]
                rows = table.filter(pa.array(of_window & (places == (south, east)).all(axis=1)))
                yield ReadyShard(shard, tuple(mine), (_receipt(release, shard, rows, mine),))


def _receipt(release: Release, shard: Shard, rows: pa.Table, files: list[DataFile]) -> UnitReceipt:
    """What a unit of all chips of a shard would leave."""
    zone, nothing = np.full(rows.num_rows, shard.zone, np.int32), pa.nulls(rows.num_rows, pa.binary())
    rows = rows.append_column("zone", pa.array(zone)).append_column("geometry", nothing).cast(PART_COVERAGE)
    unit = shard.name.replace("/", "-")
    parts: dict[str, Any] = {COVERAGE: write_part(release, unit, COVERAGE, [rows])}
    parts |= dict.fromkeys((file.token for file in files), parts[COVERAGE])  # their rows are in the files
    return UnitReceipt(unit=unit, images=0, items=[], parts=parts, counts={}, seconds=0.0, device="")


def arrays_below(where: Path) -> dict[str, bytes]:
    """The files of the arrays of a release."""
    folder = where / "arrays"
    return {path.relative_to(where).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
