"""Coverage and gaps of a run are written some rows at a time, however many chips it has."""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import shapely

from clay_publish.errors import ReleaseError
from clay_publish.geo.footprints import footprints
from clay_publish.producer.outputs import assemble, missing
from clay_publish.producer.outputs.parts import COVERAGE, PART_COVERAGE, read_parts, write_part
from clay_publish.release.directory import GAPS, Release
from clay_publish.release.unit_receipts import UnitReceipt

CELL, SIDE = 1000, 30
"""Meters of a chip; chips along a side of a unit."""
START, END = datetime(2023, 1, 1, tzinfo=UTC), datetime(2023, 2, 1, tzinfo=UTC)


def test_rows_are_written_in_their_order_whatever_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = {}
    for rows in (10**6, 100, 1):
        monkeypatch.setattr(assemble, "_BANDS", (rows, rows))
        release = Release(str(tmp_path / str(rows)))
        parts = units(release)
        given = list(assemble.publish_coverage(release, parts))
        assert max(map(len, given)) <= rows + 2 * SIDE * 2  # a row of the grid is not cut
        expected = pa.concat_tables(read_parts(release, parts, COVERAGE))
        assert pa.concat_tables(given).num_rows == pc.sum(pc.equal(expected["status"], "missing")).as_py()
        for zone in (31, 32):
            path = tmp_path / f"{rows}/coverage/zone={zone}.parquet"
            mine = expected.filter(pc.equal(expected["zone"], zone)).select(pq.read_schema(path).names)
            order = [(name, "ascending") for name in ("epsg", "row", "col", "window_start", "id")]
            assert pq.read_table(path).equals(mine.sort_by(order).cast(pq.read_schema(path)))
            written[rows, zone] = path.read_bytes()
    assert len({written[rows, 31] for rows in (10**6, 100, 1)}) == 1


def test_units_in_other_rows_of_the_grid_are_not_read_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release, read = Release(str(tmp_path)), list[int]()

    def counted(release: Release, receipts: list[UnitReceipt], token: str) -> list[pa.Table]:
        read.append(len(receipts))
        return read_parts(release, receipts, token)

    monkeypatch.setattr(assemble, "read_parts", counted)
    for _ in assemble.publish_coverage(release, units(release)[:-1]):
        pass
    assert read == [2] * 6


def test_a_receipt_that_does_not_say_where_its_rows_lie_is_refused(tmp_path: Path) -> None:
    release = Release(str(tmp_path))
    first, *_ = units(release)
    document = first.model_dump()
    document["parts"][COVERAGE]["zones"] = {}
    with pytest.raises(ReleaseError, match="does not say where its rows lie"):
        list(assemble.publish_coverage(release, [UnitReceipt.model_validate(document)]))


def test_gaps_are_the_same_whatever_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = {}
    for rows in (10**6, 100):
        for most in (5000, 20):
            monkeypatch.setattr(assemble, "_BANDS", (rows, rows))
            monkeypatch.setattr(missing, "MAX_FEATURES", most)
            release = Release(str(tmp_path / f"{rows}-{most}"))
            missing.write_gaps(release, assemble.publish_coverage(release, units(release)[:-1]))
            features = release.json(GAPS)["features"]
            drawn[rows, most] = json.dumps(features)
            chips = sum(feature["properties"]["chips"] for feature in features)
            assert chips == sum(lost(*cell) for cell in np.ndindex(3 * SIDE, 2 * SIDE)) * 2
    assert drawn[100, 5000] == drawn[10**6, 5000]
    assert drawn[100, 20] == drawn[10**6, 20]
    assert drawn[100, 20].count("Feature") < 20 < drawn[100, 5000].count("Feature")


def units(release: Release) -> list[UnitReceipt]:
    """Receipts of units, whose parts are written: six of each of two zones, beside and above each other, and one more.

    That one has rows of both zones, south of the equator and without a cell, and several of one cell.
    """
    made = []
    for zone in (31, 32):
        for south, west in np.ndindex(3, 2):
            rows = pa.concat_tables([part(zone, row, west * SIDE) for row in range(south * SIDE, (south + 1) * SIDE)])
            made.append(unit(release, f"{zone}-{west}-{south}", rows))  # in another order than the rows
    rows = pa.concat_tables(
        [part(n % 2 + 31, row, 0, south=True, number=n) for n, row in enumerate((-3, -3, -40, -40, -3, -3))]
    )
    for name in ("epsg", "row", "col"):
        hidden = pc.if_else(pa.array(np.arange(len(rows)) % 11 == 5), None, rows[name])
        rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), hidden)
    return [*made, unit(release, "mixed", rows)]


def unit(release: Release, name: str, rows: pa.Table) -> UnitReceipt:
    entry = write_part(release, name, COVERAGE, [rows.take(pa.array(np.arange(len(rows))[::-1]))])
    values = {"items": [], "images": 0, "counts": {}, "seconds": 1.0, "device": "cpu"}
    return UnitReceipt.model_validate({"unit": name, "parts": {COVERAGE: entry}, **values})


def lost(row: int, col: int) -> bool:
    return (row // 4 + col // 9) % 3 == 0


def part(zone: int, row: int, west: int, *, south: bool = False, number: int = 0) -> pa.Table:
    """One row of cells."""
    cols = np.arange(west, west + SIDE)
    gone = np.array([lost(row, col) for col in cols])
    low = np.stack([400_000 + cols * CELL, np.full(SIDE, 500_000 + row * CELL)], axis=-1)
    corners = low[:, None] + CELL * np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    shapes = np.where(gone, footprints(f"EPSG:{32600 + zone}", corners), None)
    values = {
        "id": [f"{zone}_{row}_{col}_{9 - number}" for col in cols],
        "epsg": [32600 + zone + 100 * south] * SIDE,
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
