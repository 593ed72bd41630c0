"""Units that the version before made already: taken over by hash, not made again.

A unit's id is the hash of its images, their content, its cells, and all that decides its vectors. Where the version
before made a unit of the same id, its rows are read from what was published, checked against the manifest, and laid
down as this run's own parts: whatever comes after cannot tell the difference.
"""

from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc

from clay_publish.errors import ReleaseError
from clay_publish.producer.execution.context import Work
from clay_publish.producer.layouts.base import Unit
from clay_publish.producer.outputs.missing import LASTING, lost_rows
from clay_publish.producer.outputs.parts import COVERAGE, PART_COVERAGE, write_part, write_receipt
from clay_publish.producer.outputs.reference import REFERENCE
from clay_publish.release import directory as paths
from clay_publish.release.directory import Release
from clay_publish.release.manifest import Manifest, RunRecord, read_manifest, run_record, sha256
from clay_publish.release.unit_receipts import PartEntry, UnitReceipt, read_receipts


def take_over(units: Iterable[Unit], work: Work, previous: Release) -> int:
    """Take over what the version before made of the same units; how many they are.

    Raises:
        ReleaseError: the version before cannot be read, or a file of it is not what its manifest says.
    """
    if work.spec.outputs.patches:
        return 0  # feature maps are large and by chip: they are made again
    known, done = _Previous(previous), read_receipts(work.release)
    taken = 0
    for unit in units:
        if unit.id in known.units and unit.id not in done and unit.files:
            taken += known.take(unit, work)
    return taken


class _Previous:
    """What was published."""

    def __init__(self, release: Release) -> None:
        self.release = release
        self.record: RunRecord = run_record(release)
        self.units = frozenset(self.record.units)
        self._sums = _checksums(release)
        self._table = lru_cache(maxsize=4)(self._read)

    def take(self, unit: Unit, work: Work) -> bool:
        """Write a unit's parts and receipt from published rows; False where they do not tell all of it."""
        coverage = self._coverage(unit)
        if coverage is None:
            return False
        parts: dict[str, PartEntry] = {}
        wanted = coverage["id"].filter(pc.equal(coverage["status"], "embedded"))
        found = {file.token: self._rows(f"{paths.EMBEDDINGS}/{file.name}", wanted, work.schema) for file in unit.files}
        tables = {token: table for token, table in found.items() if table is not None and table.num_rows}
        if sum(table.num_rows for table in tables.values()) != len(wanted):
            return False
        if work.references:
            rows = self._rows(paths.REFERENCE, wanted, None)
            if rows is not None and rows.num_rows:
                parts[REFERENCE] = write_part(work.release, unit.id, REFERENCE, [rows])
        for token, table in sorted(tables.items()):
            parts[token] = write_part(work.release, unit.id, token, [table])
        parts[COVERAGE] = write_part(work.release, unit.id, COVERAGE, [coverage])
        counts = Counter(reason or "embedded" for reason in coverage["reason"].to_pylist())
        items = [item.id for item in unit.items]
        notes = [note for note in self.record.notes if any(name in note for name in items)]
        write_receipt(
            work.release,
            UnitReceipt(
                unit=unit.id,
                items=items,
                parts=parts,
                counts=dict(sorted(counts.items())),
                seconds=0.0,
                device=self.record.device,
                notes=notes,
            ),
        )
        return True

    def _coverage(self, unit: Unit) -> pa.Table | None:
        """What became of each of a unit's chips; None where that is not known of all, or may be mended now."""
        frame, _ = lost_rows(unit, "failed", "")
        told = []
        for zone in pc.unique(frame["zone"]).to_pylist():
            table = self._table(f"{paths.COVERAGE}/zone={zone:02d}.parquet")
            if table is not None:
                told.append(table.filter(pc.is_in(table["id"], frame["id"].combine_chunks())))
        if not told:
            return None
        table = pa.concat_tables(told).combine_chunks()
        place = pc.index_in(frame["id"], table["id"].combine_chunks())
        if place.null_count or pc.any(pc.is_in(table["reason"], pa.array(LASTING))).as_py():
            return None
        table = table.take(place.combine_chunks() if isinstance(place, pa.ChunkedArray) else place)
        embedded = pc.equal(table["status"], "embedded")
        outlines = pc.if_else(embedded, pa.scalar(None, pa.binary()), frame["geometry"])
        columns = {name: table[name] for name in ("status", "reason", "item_ids", "detail")} | {"geometry": outlines}
        return pa.table([columns.get(name, frame[name]) for name in PART_COVERAGE.names], schema=PART_COVERAGE)

    def _rows(self, path: str, ids: pa.ChunkedArray, schema: pa.Schema | None) -> pa.Table | None:
        table = self._table(path)
        if table is None or (schema is not None and not table.schema.equals(schema)):
            return None
        return table.filter(pc.is_in(table["id"], ids.combine_chunks()))

    def _read(self, path: str) -> pa.Table | None:
        """A published table, checked against the manifest; None where there is none."""
        if not self.release.store.exists(path):
            return None
        if path in self._sums and sha256(self.release.store, path) != self._sums[path]:
            raise ReleaseError(
                self.release.store.path(path),
                "is not what the manifest says",
                f"SHA-256 {self._sums[path]}",
                "Mend the version before, or leave out `previous`.",
            )
        return self.release.parquet(path).read().replace_schema_metadata(None)


def _checksums(release: Release) -> dict[str, str]:
    if not release.store.exists(paths.MANIFEST):
        return {}  # a run that was never described; its parts were checked when they were joined
    manifest: Manifest = read_manifest(release)
    return {entry.path: entry.sha256 for entry in manifest.files}
