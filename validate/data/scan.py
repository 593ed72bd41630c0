"""The one pass over the embeddings: every byte is read once, hashed, its pages compared, and shown to all rules."""

import hashlib
import os
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from clay_publish.errors import AccessError, ClayPublishError, ReleaseError
from clay_publish.progress import Progress, Report
from clay_publish.storage.store import Store
from clay_publish.validate.data.chip_facts import ReleaseFacts, RowFacts, facts_of
from clay_publish.validate.data.chips import ChipRows
from clay_publish.validate.data.files import digest
from clay_publish.validate.data.page_headers import without_checksum
from clay_publish.validate.data.parquet_tables import ParquetTables, below
from clay_publish.validate.outcomes import (
    UNFORESEEN,
    BadRows,
    Broken,
    Fault,
    NotChecked,
    Outcome,
    Sampled,
    SkippedError,
    short,
    unchecked,
)

BATCH = 8192
"""Rows at once, at most; of 1024 floats half as many, which stay in the cache of a processor better."""

QUICK_FILES = 8
"""Files that a quick look reads rows of, spread over the release."""

QUICK_ROWS = 256
"""Rows that it reads of each."""

WHOLE = 64_000_000
"""Bytes of a file on disk up to which it is read in one piece, hashed and decoded from there: no byte is read twice."""

NEAR = 500_000
"""Chips whose neighbors are compared, at most."""

_TOGETHER = 8
"""Files beside each other that are compared, at least."""

EXAMPLES = 2048
"""Vectors that are kept of the whole release, about."""

_AHEAD = 8
"""Files per thread that are read before they are needed."""

_BUFFER = 1 << 16


@dataclass
class FileScan:
    """What the pass saw in one file."""

    path: str
    rows: int = 0
    damage: str | None = None
    """Why reading stopped."""
    bad: dict[str, tuple[int, str, str, str]] = field(default_factory=dict)
    """First bad row by code: row, id, found, expected."""
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Bad rows by code."""
    gaps: dict[str, Broken | NotChecked] = field(default_factory=dict)
    """Why a rule could not check this file, by code."""
    facts: list[RowFacts] = field(default_factory=list)
    bare: list[str] = field(default_factory=list)
    """Columns whose pages carry no checksum."""


SeenFile = tuple[str | None, FileScan]
"""The SHA-256 of a file, where it is known, and what the pass saw in it."""


@dataclass
class Scan:
    """What the pass saw in all files."""

    files: dict[str, FileScan]
    digests: dict[str, str]
    """SHA-256 of every file that was read."""
    seen: ReleaseFacts
    """Of the rows that were read."""
    sampled: dict[str, Sampled]
    """What the rules that look at some rows only have seen, by code."""
    quick: bool = False

    @property
    def facts(self) -> ReleaseFacts:
        """Of all rows.

        Raises:
            ReleaseError: a quick look did not read them.
        """
        if self.quick:
            raise SkippedError("embeddings", "would have to be read whole, which a quick look does not")
        return self.seen

    @property
    def damaged(self) -> dict[str, str]:
        """Files that could not be read to their end, and why."""
        return {path: seen.damage for path, seen in self.files.items() if seen.damage is not None}

    def outcomes(self, code: str) -> Iterator[Outcome]:
        """What a rule on rows found: one fault a file, naming the first row."""
        for path, seen in self.files.items():
            if code in seen.counts:
                yield _fault(path, seen, code)
            if code in seen.gaps:
                yield seen.gaps[code]
        for path, why in self.damaged.items():
            yield Broken(path, f"{path} cannot be read ({why})")
        if code in self.sampled:
            yield self.sampled[code]
        if not self.files:
            yield NotChecked("there is no embeddings file that can be read")


def _fault(path: str, seen: FileScan, code: str) -> Fault:
    row, name, found, expected = seen.bad[code]
    count = seen.counts[code]
    more = "" if count == 1 else f"; {count:,} of {seen.rows:,} rows in all"
    return Fault(f"{path}: row {row}{f' ({name})' if name else ''}", found + more, expected)


@dataclass(frozen=True)
class Pass:
    """What the pass needs, and what it does with each batch."""

    tables: ParquetTables
    checks: Mapping[str, Callable[[ChipRows], Sequence[BadRows]]]
    """Checks of the rules on rows, by code."""
    places: Callable[[ChipRows], Any]
    """Gives each chip's place of its item among the sources."""
    step: int
    """Every so many rows, a sampled rule checks one."""
    report: Report
    sampled: AbstractSet[str] = frozenset()
    """Codes of the rules that check a sample."""
    threads: int | None = None
    """Files that are read at a time, at most."""
    verified: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of files in which rules on rows are known to hold; with these bytes those in `alone` are skipped."""
    alone: AbstractSet[str] = frozenset()
    """Codes of the rules that depend on the rows alone."""
    kept: Mapping[str, Callable[[], SeenFile | None]] = field(default_factory=dict)
    """Read what another process saw in a file, by file; None where that is damaged."""
    near: set[str] = field(default_factory=set)
    """Files whose chips are compared with their neighbors."""

    def run(self) -> Scan:
        """Read every embeddings file once."""
        files: dict[str, FileScan] = {}
        digests: dict[str, str] = {}
        facts = ReleaseFacts()
        for path, (sha256, seen) in self.read(self.chosen):
            facts.add(path, seen.rows, seen.facts)
            seen.facts = []
            files[path] = seen
            if sha256 is not None:
                digests[path] = sha256
        if self.tables.files.quick:
            seen_rows = Sampled(facts.rows, self.tables.rows)
            return Scan(files, digests, facts, dict.fromkeys(self.checks, seen_rows), quick=True)
        looked = sum(-(-seen.rows // self.step) for seen in files.values())
        return Scan(files, digests, facts, dict.fromkeys(self.sampled, Sampled(looked, facts.rows)))

    @property
    def chosen(self) -> list[str]:
        """The files that are read."""
        chosen = self.tables.embeddings
        return chosen[:: max(1, -(-len(chosen) // QUICK_FILES))] if self.tables.files.quick else chosen

    def read(self, paths: Sequence[str]) -> Iterator[tuple[str, SeenFile]]:
        """Read some of the files, and yield what was seen in each, in order."""
        self.near.update(_compared(self.tables))
        store = self.tables.files.store
        threads = self.threads or min(os.cpu_count() or 1, 8)
        with ThreadPoolExecutor(threads) as pool:
            submitted = (
                (
                    path,
                    pool.submit(digest, store, path) if self._is_hashed_apart(path) else None,
                    pool.submit(self._marked, path),
                )
                for path in paths
            )
            waiting = deque(islice(submitted, _AHEAD * threads))  # the others wait: what is seen in a file takes memory
            for done in range(1, len(paths) + 1):
                path, hashed, scanned = waiting.popleft()
                own, seen = scanned.result()
                waiting.extend(islice(submitted, 1))
                self.report(Progress("validate", done, len(paths), path, unit="files"))
                yield path, (hashed.result() if hashed is not None else own, seen)

    def _is_hashed_apart(self, path: str) -> bool:
        """Whether a file is too large to be hashed and decoded from one piece."""
        store = self.tables.files.store
        large = store.local and not self.tables.files.quick and store.size(path) > WHOLE
        return large and path not in self.verified and path not in self.kept

    def _marked(self, path: str) -> SeenFile:
        with self.tables.files.reading(path):
            seen = self.kept[path]() if path in self.kept else None
            return seen or self._file(path)

    def _file(self, path: str) -> SeenFile:
        """Read one file; its SHA-256, where it is known on the way, and what was seen."""
        files = self.tables.files
        try:
            if files.quick:
                with files.store.ranges(path) as file:
                    return None, self._parquet(path, pa.PythonFile(file, mode="r"))
            if files.store.local and not self._is_hashed_apart(path):
                if path in self.verified and files.store.size(path) > WHOLE:  # its hash decides how it is read
                    own = digest(files.store, path)
                    return own, self._parquet(path, files.source(path), own)
                data = files.store.read(path)
                own = hashlib.sha256(data).hexdigest()
                return own, self._parquet(path, pa.BufferReader(data), own)
            # A remote file is fetched once, hashed on the way, and read from the copy.
            source = files.source(path)
            seen = self._parquet(path, source, files.hashed.get(path))
            files.discard(path)
            return files.hashed.get(path), seen
        except AccessError:
            raise
        except ClayPublishError as error:
            return None, FileScan(path, damage=error.found)

    def _parquet(self, path: str, source: Any, sha256: str | None = None) -> FileScan:
        seen, footer, quick = FileScan(path), self.tables.footer(path), self.tables.files.quick
        # A quick validation reads the first pages in the middle of the file.
        groups = [footer.num_row_groups // 2] if quick and footer.num_row_groups else list(range(footer.num_row_groups))
        try:
            seen.bare = without_checksum(source, footer, path, groups, first=quick)
            self._rows(seen, source, groups, self._to_check(path, sha256))
        except ReleaseError as error:
            seen.damage = below(error, path)
        except (pa.ArrowException, OSError) as error:
            seen.damage = short(error)
        return seen

    def _to_check(self, path: str, sha256: str | None) -> Mapping[str, Callable[[ChipRows], Sequence[BadRows]]]:
        if sha256 is None or self.verified.get(path) != sha256:
            return self.checks
        return {code: check for code, check in self.checks.items() if code not in self.alone - self.sampled}

    def _rows(
        self,
        seen: FileScan,
        source: Any,
        groups: list[int],
        checks: Mapping[str, Callable[[ChipRows], Sequence[BadRows]]],
    ) -> None:
        quick, spread = self.tables.files.quick, max(1, self.tables.rows // EXAMPLES)
        buffer, most = (_BUFFER, QUICK_ROWS) if quick else (0, BATCH)
        with pq.ParquetFile(source, page_checksum_verification=True, pre_buffer=False, buffer_size=buffer) as file:
            rows = self.tables.batch_rows(seen.path, most)
            batches = file.iter_batches(rows, use_threads=False, row_groups=groups)
            for batch in islice(batches, 1 if quick else None):
                batch.validate(full=True)
                chips = ChipRows(seen.path, seen.rows, self.tables.renamed(seen.path, batch))
                seen.rows += len(chips)
                for code, check in checks.items():
                    _check_rows(code, check, chips, seen, self.tables.files.store)
                facts = facts_of(chips, self.places, spread)
                if seen.path in self.near:
                    facts.some = _some(chips)
                seen.facts.append(facts)


def _compared(tables: ParquetTables) -> Iterator[str]:
    """Files whose chips are compared with their neighbors: all, or runs of squares beside each other, spread evenly."""
    named = tables.named
    ordered = sorted(named, key=lambda path: (named[path].window, named[path].square))
    ordered += [path for path in tables.embeddings if path not in named]
    runs, left = [ordered[at : at + _TOGETHER] for at in range(0, len(ordered), _TOGETHER)], NEAR
    for path in chain.from_iterable(runs[:: -(-max(tables.rows, 1) // NEAR)]):
        left -= tables.count(path)
        if left < 0 and path != ordered[0]:
            return
        yield path


def _some(chips: ChipRows) -> npt.NDArray[np.float32] | None:
    try:
        return np.ascontiguousarray(chips.sums.some.T)
    except (ClayPublishError, *UNFORESEEN):  # the rules on vectors report it
        return None


def _check_rows(
    code: str, check: Callable[[ChipRows], Sequence[BadRows]], chips: ChipRows, seen: FileScan, store: Store
) -> None:
    try:
        for bad in check(chips):
            seen.counts[code] += len(bad.rows)
            if code not in seen.bad:
                row = int(bad.rows[0])
                name = str(chips.value("id", row)) if chips.has("id") else ""
                seen.bad[code] = (chips.start + row, name, bad.found(row), bad.expected)
    except ClayPublishError as error:
        seen.gaps.setdefault(code, unchecked(error, store))
    except UNFORESEEN as error:
        seen.gaps.setdefault(code, Broken(chips.path, f"{chips.path} holds what this rule cannot read ({error!r})"))
