"""The one pass over the embeddings: every byte is read once, hashed, its pages compared, and shown to all rules."""

import hashlib
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from clay_publish.errors import ClayPublishError, ReleaseError, StoreError
from clay_publish.progress import Progress
from clay_publish.validate.data import parquet_limits
from clay_publish.validate.data.chip_facts import ReleaseFacts, RowFacts, facts_of
from clay_publish.validate.data.chips import ChipRows
from clay_publish.validate.data.files import digest
from clay_publish.validate.registry import UNFORESEEN, Fault, NotChecked, Outcome, Rule, Sampled

if TYPE_CHECKING:
    from clay_publish.validate.context import View

BATCH = 8192
"""Rows at once: 32 MB of 1024 floats."""

QUICK_FILES = 8
"""Files that a quick look reads rows of, spread over the release."""

QUICK_ROWS = 256
"""Rows that it reads of each."""

HEAVY = 48_000_000
"""Bytes of open pages from which on one file is read at a time."""
WHOLE = 64_000_000
"""Bytes of a file on disk up to which it is read in one piece, hashed and decoded from there: no byte is read twice."""

_BUFFER = 1 << 16


@dataclass
class FileScan:
    """What the pass saw in one file."""

    path: str
    rows: int = 0
    damage: str | None = None
    """Why reading stopped."""
    bad: dict[str, list[tuple[int, str, str, str]]] = field(default_factory=lambda: defaultdict(list))
    """First bad rows by code: row, id, found, expected."""
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Bad rows by code."""
    gaps: dict[str, str] = field(default_factory=dict)
    """Why a rule could not judge this file, by code."""
    facts: list[RowFacts] = field(default_factory=list)
    bare: list[str] = field(default_factory=list)
    """Columns whose pages carry no checksum."""


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
            raise ReleaseError("embeddings", "would have to be read whole, which a quick look does not")
        return self.seen

    @property
    def damaged(self) -> dict[str, str]:
        """Files that could not be read to their end, and why."""
        return {path: seen.damage for path, seen in self.files.items() if seen.damage is not None}

    def outcomes(self, code: str) -> Iterator[Outcome]:
        """What a rule on rows found: one fault a file, naming the first row."""
        for path, seen in self.files.items():
            if seen.counts[code]:
                yield _fault(path, seen, code)
            if code in seen.gaps:
                yield NotChecked(seen.gaps[code])
        for path, why in self.damaged.items():
            yield NotChecked(f"{path} cannot be read ({why})")
        if code in self.sampled:
            yield self.sampled[code]
        if not self.files:
            yield NotChecked("there is no embeddings file that can be read")


def _fault(path: str, seen: FileScan, code: str) -> Fault:
    row, name, found, expected = seen.bad[code][0]
    count = seen.counts[code]
    more = "" if count == 1 else f"; {count:,} of {seen.rows:,} rows in all"
    return Fault(f"{path}: row {row}{f' ({name})' if name else ''}", found + more, expected)


def scan(view: "View", rules: Sequence[Rule]) -> Scan:
    """Read every embeddings file once."""
    store = view.release.store
    workers = min(os.cpu_count() or 1, 8)
    total = len(view.embeddings)
    files, digests = {}, {}
    with ThreadPoolExecutor(workers) as pool, tempfile.TemporaryDirectory(prefix="clay-publish-") as scratch:
        waiting: list[tuple[str, Future[str] | None, Future[tuple[str | None, FileScan]]]] = []
        chosen = view.embeddings[:: max(1, -(-total // QUICK_FILES))] if view.quick else view.embeddings
        for path in chosen:
            hashed = pool.submit(digest, store, path) if _is_hashed_apart(view, path) else None
            waiting.append((path, hashed, pool.submit(_scan_file, view, path, rules, scratch)))
        for done, (path, hashed, scanned) in enumerate(waiting, start=1):
            own, files[path] = scanned.result()
            known = hashed.result() if hashed is not None else own
            if known is not None:
                digests[path] = known
            view.report(Progress("validate", done, len(waiting), path))
    facts = ReleaseFacts()
    for path, seen in files.items():
        facts.add(path, seen.rows, seen.facts)
        seen.facts = []
    if view.quick:
        seen_rows = Sampled(facts.rows, view.rows_told)
        return Scan(files, digests, facts, {r.code: seen_rows for r in rules}, quick=True)
    looked = sum(-(-seen.rows // view.step) for seen in files.values())
    return Scan(files, digests, facts, {r.code: Sampled(looked, facts.rows) for r in rules if r.sampled})


def _is_hashed_apart(view: "View", path: str) -> bool:
    """Whether a file is too large to be hashed and decoded from one piece."""
    store = view.release.store
    return store.local and not view.quick and store.size(path) > WHOLE


def _scan_file(view: "View", path: str, rules: Sequence[Rule], scratch: str) -> tuple[str | None, FileScan]:
    store = view.release.store
    if view.quick:
        with store.ranges(path) as file:
            return None, _scan_parquet(view, path, pa.PythonFile(file, mode="r"), rules)
    if _is_hashed_apart(view, path):
        return None, _scan_parquet(view, path, store.arrow(path), rules)
    if store.local:
        try:
            data = store.read(path)
        except StoreError as error:
            return None, FileScan(path, damage=error.found)
        return hashlib.sha256(data).hexdigest(), _scan_parquet(view, path, pa.BufferReader(data), rules)
    # A remote file is fetched once, hashed on the way, and read from here.
    with tempfile.NamedTemporaryFile(dir=scratch, delete=False) as copy:
        try:
            own = digest(store, path, copy)
        except StoreError as error:
            return None, FileScan(path, damage=error.found)
    try:
        return own, _scan_parquet(view, path, pa.memory_map(copy.name), rules)
    finally:
        Path(copy.name).unlink()


def _scan_parquet(view: "View", path: str, source: Any, rules: Sequence[Rule]) -> FileScan:
    seen, footer = FileScan(path), view.footer_of(path)
    # A quick look reads the first pages in the middle of the file.
    groups = [footer.num_row_groups // 2] if view.quick and footer.num_row_groups else None
    try:
        if view.quick:
            cost = parquet_limits.check_pages(source, footer, source.size(), path, groups=groups, first=True)
        else:
            cost = view.cost_of(path, source)
        seen.bare = cost.bare
        with view.heavy if cost.pages > HEAVY else nullcontext():
            _scan_rows(view, seen, source, rules, (groups, cost.rows))
    except ReleaseError as error:
        part = error.where.partition(f"{path}: ")[2]
        seen.damage = f"{part}: {error.found}" if part else error.found
    except (pa.ArrowException, OSError) as error:
        seen.damage = " ".join(str(error).split())
    return seen


def _scan_rows(
    view: "View", seen: FileScan, source: Any, rules: Sequence[Rule], part: tuple[list[int] | None, int]
) -> None:
    groups, rows = part
    buffer = _BUFFER if view.quick else 0
    most = QUICK_ROWS if view.quick else BATCH
    with pq.ParquetFile(source, page_checksum_verification=True, pre_buffer=False, buffer_size=buffer) as file:
        batches = file.iter_batches(min(most, rows), use_threads=False, row_groups=groups)
        for batch in islice(batches, 1 if view.quick else None):
            chips = ChipRows(seen.path, seen.rows, batch)
            seen.rows += len(chips)
            for rule in rules:
                _judge(rule, chips, view, seen)
            seen.facts.append(facts_of(chips, view))


def _judge(rule: Rule, chips: ChipRows, view: "View", seen: FileScan) -> None:
    assert rule.rows is not None
    try:
        for bad in rule.rows(chips, view):
            seen.counts[rule.code] += len(bad.rows)
            if len(seen.bad[rule.code]) < 1:
                row = int(bad.rows[0])
                name = str(chips.value("id", row)) if chips.has("id") else ""
                seen.bad[rule.code].append((chips.start + row, name, bad.found(row), bad.expected))
    except ClayPublishError as error:
        seen.gaps.setdefault(rule.code, f"{error.where} {error.found}")
    except UNFORESEEN as error:
        seen.gaps.setdefault(rule.code, f"{chips.path} holds what this rule cannot read ({error!r})")
