"""The shards of the arrays in a run: each waits for the files that hold its chips, and is assembled by any worker."""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Self

from clay_publish.errors import ReleaseError
from clay_publish.producer.execution.context import Work
from clay_publish.producer.layouts.base import Unit
from clay_publish.producer.outputs.arrays.shards import (
    ReadyShard,
    Shard,
    ShardReceipt,
    array_groups,
    assembled_shards,
    shards_of,
)
from clay_publish.producer.outputs.parts import PARTS, is_listed, standing
from clay_publish.producer.unit_plan import Plan
from clay_publish.release.directory import DataFile, Release
from clay_publish.release.lease.base import Share
from clay_publish.release.unit_receipts import UnitReceipt, read_receipts
from clay_publish.spec.models import Spec


@dataclass
class ShardQueue:
    """Which shards are waiting, ready and assembled; for several threads."""

    release: Release
    spec: Spec
    files: Mapping[Shard, set[DataFile]]
    """All shards of the plan, and the files that hold their chips."""
    _assembled: dict[Shard, ShardReceipt] = field(default_factory=dict)
    """From the receipts that its units have now."""
    _found: dict[str, ShardReceipt] = field(default_factory=dict)
    """By name, what was assembled when this process began: from these receipts or others."""
    _published: dict[DataFile, tuple[UnitReceipt, ...]] = field(default_factory=dict)
    _waiting: dict[DataFile, set[Shard]] = field(default_factory=dict)
    _ready: deque[ReadyShard] = field(default_factory=deque)
    _lock: Lock = field(default_factory=Lock)

    @classmethod
    def of(cls, plan: Plan, work: Work) -> Self:
        """The shards of a plan; none where its spec asks for no arrays."""
        if work.spec.outputs.array_dtype is None:
            return cls(work.release, work.spec, {})
        groups = array_groups(work.spec, plan.fingerprint, work.model.encoder)
        return cls(work.release, work.spec, shards_of(plan.units, work.spec, groups))

    def __post_init__(self) -> None:
        for shard, files in self.files.items():
            for file in files:
                self._waiting.setdefault(file, set()).add(shard)

    def __len__(self) -> int:
        return len(self._ready)

    def resume(self, *, alone: bool) -> None:
        """Find the shards that are assembled; where no other process is at work, forget those that lack a file."""
        if self.files:
            self._found = assembled_shards(self.release, remove=alone)

    def published(self, file: DataFile, receipts: tuple[UnitReceipt, ...]) -> None:
        """A file is published: the shards that waited for it alone are ready."""
        if file in self._published:
            return
        self._published[file] = receipts
        for shard in sorted(self._waiting.get(file, ())):
            files = tuple(sorted(self.files[shard]))
            if not all(each in self._published for each in files):
                continue
            ready = ReadyShard(shard, files, tuple(r for each in files for r in self._published[each]))
            there = self._found.get(shard.name)
            if there is not None and there.source == ready.source(self.spec):
                self._assembled[shard] = there
            else:
                self._ready.append(ready)

    def published_elsewhere(self, units: Iterable[Unit], share: Share) -> None:
        """Take in the files that other shares have published, once the units of this one are done.

        What is not ready now is of a share that is still at work, or is left to the process that finishes the run: a
        file of several shares is published by that one, and a unit that failed, or whose file is missing, may be made
        again. Shares that end together each begin at another place of the queue; two that assemble one shard write the
        same bytes.

        Args:
            units: all of the plan.
            share: the one of this process.
        """
        if not self.files:
            return
        there = standing(self.release)
        found = read_receipts(self.release)
        receipts = {name: each for name, each in found.items() if each.error is None and is_listed(each, there)}
        waiting = {path.split("/")[-2] for path in there if path.startswith(f"{PARTS}/")}
        made_by: dict[DataFile, list[str]] = {}
        for unit in units:
            for file in unit.files:
                made_by.setdefault(file, []).append(unit.id)
        for file, names in made_by.items():
            if file.token not in waiting and receipts.keys() >= set(names):
                self.published(file, tuple(receipts[name] for name in names))
        self._ready.rotate(-((share.number - 1) * len(self._ready) // share.of))

    def take(self) -> ReadyShard | None:
        """Take a shard that is ready; None where there is none."""
        with self._lock:
            return self._ready.popleft() if self._ready else None

    def put_back(self, ready: ReadyShard) -> None:
        """Give back a shard that was taken and is not assembled."""
        self._ready.append(ready)

    def done(self, ready: ReadyShard, receipt: ShardReceipt) -> None:
        """A shard is assembled."""
        self._assembled[ready.shard] = receipt

    def assembled(self) -> dict[Shard, ShardReceipt]:
        """Return the receipts of all shards of the plan.

        Raises:
            ReleaseError: some are not assembled.
        """
        missing = sorted(shard.name for shard in self.files.keys() - self._assembled.keys())
        if missing:
            found = f"has {len(missing):,} shards that are not assembled, {missing[0]} first"
            raise ReleaseError(self.release.store.where, found, fix="Run the command again.")
        return self._assembled
