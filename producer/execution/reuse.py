"""Units whose rows the version before has: they are read from what was published, and not computed again.

They are laid down as this run's own parts: whatever comes after cannot tell the difference.
"""

from collections import Counter
from collections.abc import Iterable
from functools import cached_property, lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clay_publish.errors import ReleaseError
from clay_publish.producer.execution.context import Work
from clay_publish.producer.execution.second_pass import REFERENCE
from clay_publish.producer.layouts.base import Unit
from clay_publish.producer.outputs.missing import lost_rows
from clay_publish.producer.outputs.parts import COVERAGE, PART_COVERAGE, finished_units, write_part, write_receipt
from clay_publish.producer.planning.previous_version import PublishedTables
from clay_publish.release import directory as paths
from clay_publish.release.manifest import run_record
from clay_publish.release.names import NameIndex
from clay_publish.release.stored_rows import StoredRows
from clay_publish.release.unit_receipts import SHOWN, PartEntry, UnitReceipt, unread_note


def take_over(units: Iterable[Unit], work: Work, tables: PublishedTables) -> int:
    """Write the rows of the units that are reused, and their receipts; how many chips of this run they are.

    Raises:
        ReleaseError: the version before cannot be read, or does not have these rows.
    """
    known, done = _Previous(tables), finished_units(work.release)
    chips = 0
    for unit in units:
        if unit.reused:
            chips += unit.chips
            if unit.id not in done:
                known.take(unit, work)
    return chips


class _Previous:
    """What was published."""

    def __init__(self, tables: PublishedTables) -> None:
        self.release = tables.release
        self.record = run_record(tables.release)
        self._tables = tables
        self._file, self._zone = lru_cache(maxsize=4)(tables.read), lru_cache(maxsize=2)(self._read_zone)

    def take(self, unit: Unit, work: Work) -> None:
        """Write a unit's parts and receipt from published rows."""
        coverage = self._coverage(unit)
        parts: dict[str, PartEntry] = {}
        wanted = coverage["id"].filter(pc.equal(coverage["status"], "embedded"))
        folder = set(self.release.data_files()) if len(wanted) else set()
        there = {file.token: path for file in unit.files if (path := f"{paths.EMBEDDINGS}/{file.name}") in folder}
        tables = {token: _rows(self._file(path), wanted) for token, path in there.items()}
        found = sum(table.num_rows for table in tables.values())
        if found != len(wanted) or any(not table.schema.equals(work.schema) for table in tables.values()):
            raise ReleaseError(
                self.release.store.path(paths.EMBEDDINGS),
                f"holds {found:,} of {len(wanted):,} chips that coverage/ says are embedded",
                "a row for each, with the columns of this version",
                "Restore the version before, or leave out `previous`.",
            )
        if self._reference is not None:
            rows = _rows(self._reference, wanted)
            if rows.num_rows:
                parts[REFERENCE] = write_part(work.release, unit.id, REFERENCE, [rows])
        for token, table in sorted(tables.items()):
            if table.num_rows:
                parts[token] = write_part(work.release, unit.id, token, [table])
        parts[COVERAGE] = write_part(work.release, unit.id, COVERAGE, [coverage])
        counts = Counter(reason or "embedded" for reason in coverage["reason"].to_pylist())
        items = [item.id for item in unit.items]
        receipt = UnitReceipt(
            unit=unit.id,
            images=len(items),
            items=items[:SHOWN],
            parts=parts,
            counts=dict(sorted(counts.items())),
            seconds=0.0,
            device="",
            notes=[note for note in self._notes if any(name in note for name in items)],
        )
        write_receipt(work.release, receipt)

    @cached_property
    def _notes(self) -> list[str]:
        """Notes but those on images that could not be read: what touches such an image is not reused."""
        notes = dict.fromkeys(self.record.notes)
        for batch in self._tables.batches(paths.SOURCES, ["id"]):
            for name in batch["id"].to_pylist():
                notes.pop(unread_note(name), None)
        return list(notes)

    @cached_property
    def _reference(self) -> pa.Table | None:
        return self._tables.read(paths.REFERENCE) if self.release.store.exists(paths.REFERENCE) else None

    def _read_zone(self, zone: int) -> tuple[NameIndex, StoredRows]:
        """Ids of the chips of a zone, and what became of each."""
        path = f"{paths.COVERAGE}/zone={zone:02d}.parquet"
        ids = self._tables.read(path, ["id"])["id"].cast(pa.large_string()).combine_chunks()
        return NameIndex(ids), self._tables.stored(path, ["status", "reason", "item_ids", "detail"])

    def _coverage(self, unit: Unit) -> pa.Table:
        """What became of each of a unit's chips."""
        frame, _ = lost_rows(unit, "failed", "")
        zones, tables, rows = frame["zone"].to_numpy(), [], []
        for zone in np.unique(zones).tolist():
            index, stored = self._zone(zone)
            rows.append(np.flatnonzero(zones == zone))
            tables.append(stored.take(index.find(frame["id"].take(pa.array(rows[-1])).combine_chunks())))
        table = pa.concat_tables(tables).take(pa.array(np.argsort(np.concatenate(rows))))
        embedded = pc.equal(table["status"], "embedded")
        outlines = pc.if_else(embedded, pa.scalar(None, pa.binary()), frame["geometry"])
        columns = {name: table[name] for name in ("status", "reason", "item_ids", "detail")} | {"geometry": outlines}
        return pa.table([columns.get(name, frame[name]) for name in PART_COVERAGE.names], schema=PART_COVERAGE)


def _rows(table: pa.Table, ids: pa.ChunkedArray) -> pa.Table:
    return table.filter(pc.is_in(table["id"], ids.combine_chunks()))
