"""Coverage and gaps of a run are written some rows at a time, however many chips it has."""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from clay_publish.geo.footprints import footprints
from clay_publish.producer.outputs import assemble, missing
from clay_publish.producer.outputs.parts import COVERAGE, PART_COVERAGE, write_part
from clay_publish.release.directory import GAPS, Release
from clay_publish.release.unit_receipts import UnitReceipt

CELL, SIDE = 1000, 30
"""Meters of a chip; chips along a side of a unit."""
START, END = datetime(2023, 1, 1, tzinfo=UTC), datetime(2023, 2, 1, tzinfo=UTC)


def test_rows_are_the_same_whatever_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = {}
    for rows in (10**6, 100):
        monkeypatch.setattr(assemble, "_BAND", rows)
        release = Release(str(tmp_path / str(rows)))
        counts = [len(gaps) for gaps in assemble.publish_coverage(release, units(release))]
        assert (len(counts) > 3) == (rows == 100)
        assert sum(counts) == sum(lost(*cell) for cell in np.ndindex(3 * SIDE, 2 * SIDE)) * 2
        written[rows] = {path.name: path.read_bytes() for path in (Path(release.store.where) / "coverage").iterdir()}
    assert written[100] == written[10**6]
    assert written[100].keys() == {"zone=31.parquet", "zone=32.parquet"}
    table = pq.read_table(tmp_path / "100/coverage/zone=31.parquet")
    cells = list(zip(*(table[name].to_pylist() for name in ("epsg", "row", "col")), strict=True))
    assert cells == sorted(cells)
    assert len(cells) == 3 * SIDE * 2 * SIDE


def test_gaps_are_the_same_whatever_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = {}
    for rows in (10**6, 100):
        for most in (5000, 20):
            monkeypatch.setattr(assemble, "_BAND", rows)
            monkeypatch.setattr(missing, "MAX_FEATURES", most)
            release = Release(str(tmp_path / f"{rows}-{most}"))
            missing.write_gaps(release, assemble.publish_coverage(release, units(release)))
            features = release.json(GAPS)["features"]
            drawn[rows, most] = sorted(json.dumps(feature, sort_keys=True) for feature in features)
            chips = sum(feature["properties"]["chips"] for feature in features)
            assert chips == sum(lost(*cell) for cell in np.ndindex(3 * SIDE, 2 * SIDE)) * 2
    assert drawn[100, 5000] == drawn[10**6, 5000]
    assert drawn[100, 20] == drawn[10**6, 20]
    assert len(drawn[100, 20]) < 20 < len(drawn[100, 5000])


def units(release: Release) -> list[UnitReceipt]:
    """Receipts of six units of two zones, which lie beside and above each other; their parts are written."""
    made = []
    for zone in (31, 32):
        for south, west in np.ndindex(3, 2):
            rows = pa.concat_tables([part(zone, row, west * SIDE) for row in range(south * SIDE, (south + 1) * SIDE)])
            unit = f"{zone}-{west}-{south}"  # in another order than the rows
            entry = write_part(release, unit, COVERAGE, [rows.take(pa.array(np.arange(len(rows))[::-1]))])
            assert entry.zones == [zone]
            values = {"items": [], "images": 0, "counts": {}, "seconds": 1.0, "device": "cpu"}
            made.append(UnitReceipt.model_validate({"unit": unit, "parts": {COVERAGE: entry}, **values}))
    return made


def lost(row: int, col: int) -> bool:
    return (row // 4 + col // 9) % 3 == 0


def part(zone: int, row: int, west: int) -> pa.Table:
    """One row of cells."""
    cols = np.arange(west, west + SIDE)
    gone = np.array([lost(row, col) for col in cols])
    low = np.stack([400_000 + cols * CELL, np.full(SIDE, 500_000 + row * CELL)], axis=-1)
    corners = low[:, None] + CELL * np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    shapes = np.where(gone, footprints(f"EPSG:{32600 + zone}", corners), None)
    values = {
        "id": [f"{zone}_{row}_{col}" for col in cols],
        "epsg": [32600 + zone] * SIDE,
        "row": [row] * SIDE,
        "col": cols,
        "window_start": [START] * SIDE,
        "window_end": [END] * SIDE,
        "status": np.where(gone, "missing", "embedded").tolist(),
        "reason": np.where(gone, "cloud", None).tolist(),
        "item_ids": [["a"]] * SIDE,
        "detail": [None] * SIDE,
        "zone": [zone] * SIDE,
        "geometry": shapely.to_wkb(shapes),
    }
    return pa.Table.from_arrays(
        [pa.array(values[field.name], field.type) for field in PART_COVERAGE], schema=PART_COVERAGE
    )
