"""The one pass over the embeddings: every byte is read once, hashed, its pages compared, and shown to all rules."""

import hashlib
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from clay_publish.errors import ClayPublishError
from clay_publish.progress import Progress
from clay_publish.store import Store
from clay_publish.validate.chips import Chips
from clay_publish.validate.facts import Facts, ReleaseFacts, facts_of
from clay_publish.validate.rules import UNFORESEEN, Fault, Gap, Outcome, Rule, Sampled

if TYPE_CHECKING:
    from clay_publish.validate.view import View

BATCH = 8192
"""Rows at once: 32 MB of 1024 floats."""
_PIECE = 1 << 22


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
    facts: list[Facts] = field(default_factory=list)


@dataclass
class Scan:
    """What the pass saw in all files."""

    files: dict[str, FileScan]
    digests: dict[str, str]
    """SHA-256 of every file that was read."""
    facts: ReleaseFacts
    sampled: dict[str, Sampled]
    """What the rules that look at some rows only have seen, by code."""

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
                yield Gap(seen.gaps[code])
        for path, why in self.damaged.items():
            yield Gap(f"{path} cannot be read ({why})")
        if code in self.sampled:
            yield self.sampled[code]
        if not self.files:
            yield Gap("there is no embeddings file that can be read")


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
        for path in view.embeddings:
            hashed = pool.submit(digest, store, path) if store.local else None
            waiting.append((path, hashed, pool.submit(_scan_file, view, path, rules, scratch)))
        for done, (path, hashed, scanned) in enumerate(waiting, start=1):
            own, files[path] = scanned.result()
            digests[path] = hashed.result() if hashed is not None else str(own)
            view.report(Progress("validate", done, total, path))
    facts = ReleaseFacts()
    for path, seen in files.items():
        facts.add(path, seen.rows, seen.facts)
        seen.facts = []
    looked = sum(-(-seen.rows // view.step) for seen in files.values())
    return Scan(files, digests, facts, {r.code: Sampled(looked, facts.rows) for r in rules if r.sampled})


def digest(store: Store, path: str, target: Any = None) -> str:
    """SHA-256 of a file, optionally copied on the way."""
    made = hashlib.sha256()
    with store.open(path) as file:
        while piece := file.read(_PIECE):
            made.update(piece)
            if target is not None:
                target.write(piece)
    return made.hexdigest()


def _scan_file(view: "View", path: str, rules: Sequence[Rule], scratch: str) -> tuple[str | None, FileScan]:
    store = view.release.store
    if store.local:
        return None, _scan_parquet(view, path, store.arrow(path), rules)
    # A remote file is fetched once, hashed on the way, and read from here.
    with tempfile.NamedTemporaryFile(dir=scratch, delete=False) as copy:
        own = digest(store, path, copy)
    try:
        return own, _scan_parquet(view, path, pa.memory_map(copy.name), rules)
    finally:
        Path(copy.name).unlink()


def _scan_parquet(view: "View", path: str, source: Any, rules: Sequence[Rule]) -> FileScan:
    seen = FileScan(path)
    try:
        with pq.ParquetFile(source, page_checksum_verification=True) as file:
            for batch in file.iter_batches(BATCH, use_threads=False):
                chips = Chips(path, seen.rows, batch)
                seen.rows += len(chips)
                for rule in rules:
                    _judge(rule, chips, view, seen)
                seen.facts.append(facts_of(chips, view))
    except (pa.ArrowException, OSError) as error:
        seen.damage = " ".join(str(error).split())
    return seen


def _judge(rule: Rule, chips: Chips, view: "View", seen: FileScan) -> None:
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
