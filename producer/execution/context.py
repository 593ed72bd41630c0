"""What the units at work in one process share: the release, the model, room for pixels, and the order to stop."""

import itertools
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import torch

from clay_publish.errors import EncoderError
from clay_publish.producer.encoders import ChipBatch, Encoded, Encoder
from clay_publish.producer.encoders.base import Floats
from clay_publish.producer.outputs.thumbnails import Thumbnails
from clay_publish.release.directory import Release
from clay_publish.release.findings import FileVerdict
from clay_publish.release.fingerprint import Fingerprint
from clay_publish.release.tables import embeddings_schema
from clay_publish.spec.models import Spec
from clay_publish.spec.sensors import Sensor

if TYPE_CHECKING:
    from clay_publish.producer.outputs.arrays.write import ArrayWriter

SIDE_BY_SIDE = 2
"""Units, or shards of the arrays, at work at a time: while one ends or begins, the other keeps the model busy."""
BLOCKS = 4
"""Blocks of chips in memory at a time, being read, waiting, or with the model; all units together."""
READERS = 16
"""Files of a unit read at a time; most wait for a server."""


def this_machine() -> str:
    """Return what a run tells of its machine: `Linux x86_64, 2 cores, AVX512, Python 3.11.9`; no name or address."""
    kind = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return f"{kind}, {torch.backends.cpu.get_cpu_capability()}, Python {platform.python_version()}"


class StoppedError(Exception):
    """The run ends for another reason and leaves this unit unfinished."""


class Pace:
    """Keeps units that run side by side within their means."""

    def __init__(self) -> None:
        self._room = threading.BoundedSemaphore(BLOCKS)
        self._stop = threading.Event()
        self._lock, self._begins = threading.Lock(), threading.Lock()
        self._begun = set[str]()
        self._units, self._since, self._unreported = 0, 0.0, 0.0

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """A unit is at work inside the block. Time during which none is, as in the second pass, is not counted."""
        with self._lock:
            self._count()
            self._units += 1
        try:
            yield
        finally:
            with self._lock:
                self._count()
                self._units -= 1

    def lap(self) -> float:
        """Seconds of work since any unit last asked: what all of them ask for adds up to the time that went by."""
        with self._lock:
            self._count()
            reported, self._unreported = self._unreported, 0.0
            return reported

    def _count(self) -> None:
        now = time.perf_counter()
        self._unreported += now - self._since if self._units else 0.0
        self._since = now

    @contextmanager
    def beginning(self, unit: str) -> Iterator[None]:
        """Note inside the block that a unit begins.

        Raises:
            StoppedError: the run ends.
        """
        with self._begins:
            self.check()
            self._begun.add(unit)
            yield

    def ended(self, unit: str) -> None:
        """A unit is no longer at work."""
        with self._begins:
            self._begun.discard(unit)

    def stop(self) -> list[str]:
        """Ask all units to end where they are, and let none begin. Return those that are at work."""
        with self._begins:
            self._stop.set()
            return sorted(self._begun)

    def take_room(self) -> None:
        """Wait until another block may be read.

        Raises:
            StoppedError: the run ends.
        """
        while not self._room.acquire(timeout=0.1):
            self.check()
        if self._stop.is_set():
            self._room.release()
            raise StoppedError

    def give_room(self) -> None:
        """A block is gone from memory."""
        self._room.release()

    def check(self) -> None:
        """Go on only if the run does.

        Raises:
            StoppedError: it ends.
        """
        if self._stop.is_set():
            raise StoppedError


class EncoderPool:
    """The encoder, called by all units: on a CPU by one thread per core, which beats many threads in one call."""

    def __init__(self, encoder: Encoder, cores: int | None = None) -> None:
        self.encoder = encoder
        cpu = encoder.device == "cpu"
        self._calls = (cores or os.cpu_count() or 1) if cpu else 1
        self._pool = ThreadPoolExecutor(self._calls, "model", initializer=_alone if cpu else None)

    def encode(self, chips: ChipBatch) -> Encoded:
        """Embed a batch.

        Raises:
            EncoderError: the model gave vectors of another shape than it said.
        """
        count = len(chips.pixels)
        edges = np.linspace(0, count, min(self._calls, count) + 1).astype(int).tolist()
        shares = [_share(chips, a, b) for a, b in itertools.pairwise(edges)]
        parts = list(self._pool.map(self.encoder.encode, shares))
        encoded = Encoded(
            np.concatenate([part.embeddings for part in parts]),
            _joined([part.loss for part in parts]),
            _joined([part.patches for part in parts]),
        )
        expected = (count, self.encoder.dimensions)
        if encoded.embeddings.shape != expected:
            raise EncoderError(
                f"encoder {self.encoder.key}", f"gave embeddings of shape {encoded.embeddings.shape}", f"{expected}"
            )
        return encoded


def _alone() -> None:
    torch.set_num_threads(1)


def _share(chips: ChipBatch, start: int, stop: int) -> ChipBatch:
    mine = slice(start, stop)
    steps = None if chips.steps is None else chips.steps.only(mine)
    return ChipBatch(chips.pixels[mine], chips.lon[mine], chips.lat[mine], chips.times[mine], chips.gsd, steps)


def _joined(parts: list[Floats | None]) -> Floats | None:
    there = [part for part in parts if part is not None]
    return np.concatenate(there) if there else None


FileChecker = Callable[[str], FileVerdict]
"""Validates a published embeddings file, by its path."""


@dataclass(frozen=True)
class Work:
    """What every unit of a run needs; made once a process."""

    release: Release
    spec: Spec
    sensor: Sensor
    model: EncoderPool
    fingerprint: Fingerprint
    schema: pa.Schema
    thumbnails: Thumbnails | None = None
    check: FileChecker | None = None
    """Validates each embeddings file as soon as it is there."""
    check_name: str | None = None
    """`module:name` of it, for workers elsewhere."""
    pace: Pace = field(default_factory=Pace)

    @cached_property
    def arrays(self) -> "ArrayWriter":
        """Assembles the shards of the arrays."""
        from clay_publish.producer.outputs.arrays.write import ArrayWriter  # noqa: PLC0415 - zarr comes with an extra

        return ArrayWriter(self.release, self.spec, self.fingerprint, self.model.encoder)


def make_work(
    release: Release,
    spec: Spec,
    encoder: Encoder,
    fingerprint: Fingerprint,
    *,
    cores: int | None = None,
    check: str | None = None,
) -> Work:
    """What the units of a run need.

    Args:
        release: where their parts go.
        spec: what to make.
        encoder: as the spec names it.
        fingerprint: of the plan.
        cores: that the model may use; default: all of this machine.
        check: `module:name` of what gives, for a release, its `FileChecker`. Stages do not import one another.

    Raises:
        SpecError: the encoder does not take the bands that thumbnails need.
    """
    instrument, outputs = spec.instrument, spec.outputs
    thumbnails = Thumbnails.of(outputs.thumbnails, instrument, encoder.bands) if outputs.thumbnails else None
    return Work(
        release=release,
        spec=spec,
        sensor=instrument,
        model=EncoderPool(encoder, cores),
        fingerprint=fingerprint,
        schema=embeddings_schema(
            encoder.dimensions,
            outputs.dtype,
            thumbnails=thumbnails is not None,
            combined=spec.combines,
            cells=outputs.major_tom_cell,
        ),
        thumbnails=thumbnails,
        check=None if check is None else _named(check)(release),
        check_name=check,
    )


def _named(check: str) -> Callable[[Release], FileChecker]:
    module, _, name = check.partition(":")
    made: Callable[[Release], FileChecker] = getattr(import_module(module), name)
    return made
