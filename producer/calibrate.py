"""Timing some real chips on this machine, end to end: what they cost is what the others will."""

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import shapely

from clay_publish.errors import ClayPublishError, SourceError
from clay_publish.geo.area import Area
from clay_publish.geo.expected_cells import ZoneCells
from clay_publish.producer.encoders import ChipBatch, Encoded, Encoder
from clay_publish.producer.execution.context import READERS
from clay_publish.producer.imagery.chips import Reading
from clay_publish.producer.layouts.utm import Piece, read_cells
from clay_publish.producer.layouts.utm_composite import clear_by_masks
from clay_publish.producer.layouts.utm_layout import UtmLayout
from clay_publish.producer.planning.cost import Rates
from clay_publish.producer.planning.estimate import Shares
from clay_publish.producer.planning.observations import Seen, composite_of, may_lack, samples, summary
from clay_publish.producer.produce import produce
from clay_publish.producer.sources.item import SourceItem
from clay_publish.producer.unit_plan import Inputs
from clay_publish.progress import Progress
from clay_publish.release.directory import Release
from clay_publish.release.measurements import read_measurements
from clay_publish.spec.models import Spec
from clay_publish.storage.store import Store
from clay_publish.windows import Window

_TRIES = 5


def calibrate(inputs: Inputs, *, chips: int) -> tuple[Rates, Shares]:
    """Make about `chips` chips of the release into a temporary directory.

    Args:
        inputs: what the spec leads to.
        chips: how many; the more, the truer.

    Raises:
        SourceError: no image gives a chip.
    """
    spec, used = inputs.spec, [item for item in inputs.used if item.geometry is not None]
    problem: ClayPublishError | None = None
    for item in used[:: max(1, len(used) // _TRIES)][:_TRIES]:
        ground = _ground(item, inputs.areas[item.block], chips, spec.chips.size * inputs.gsd)
        try:
            return _timed(_only(spec, item, ground), inputs.encoder)
        except ClayPublishError as error:
            problem = error  # perhaps all cloud: the next image may do
    raise SourceError("--calibrate", f"no image gives a chip ({problem})", "images with chips that can be embedded")


def observed(inputs: Inputs, *, cells: int) -> list[Seen]:
    """What the masks of some cells of each window say of their composites; no band is read.

    Args:
        inputs: what the spec leads to.
        cells: of each window, at most.
    """
    spec, layout = inputs.spec, inputs.layout
    assert isinstance(layout, UtmLayout), "composites are of this layout"
    asked, rules = composite_of(spec), spec.chips
    composite = asked.model_copy(update={"method": "mean"})  # which images are chosen does not depend on it
    reading = Reading(inputs.sensor, inputs.encoder.bands, rules, READERS, composite=composite)

    def count(piece: Piece, window: Window) -> list[tuple[int, npt.NDArray[np.uint8]]]:
        return clear_by_masks(piece, window, composite)

    found = []
    for sample in samples(inputs, cells):
        images, counts = [], []
        for epsg, row, col in zip(sample.epsg.tolist(), sample.row.tolist(), sample.col.tolist(), strict=True):
            one = ZoneCells(layout.grid, epsg % 100, (np.array([row]), np.array([col]), np.array([col + 1])))
            for cell in layout.by_square(one, ()):
                for chips in read_cells(cell, tuple(sample.used), sample.window, reading, count):
                    images += [number for number, _ in chips]
                    counts += [seen for _, seen in chips]
        per_pixel = np.array([seen.mean() for seen in counts])
        enough = np.array([(seen >= asked.min_valid).mean() for seen in counts])
        observations = summary(
            sample,
            per_pixel,
            np.array(images),
            enough,
            most=asked.most,
            lacking=may_lack(spec),
            measured=True,
        )
        found.append(Seen(sample, per_pixel, observations))
    return found


class _Clock:
    """Seconds during which at least one thread did one kind of work."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._lock, self._running, self._begun = threading.Lock(), 0, 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        with self._lock:
            self._running += 1
            if self._running == 1:
                self._begun = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1
                if not self._running:
                    self.seconds += time.perf_counter() - self._begun


class _CoreClock:
    """Seconds of all cores that threads spent on one kind of work.

    On a CPU, readers and model wait for each other's cores; that time is neither's.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._lock, self._cores = threading.Lock(), os.cpu_count() or 1

    @contextmanager
    def running(self) -> Iterator[None]:
        begun = time.thread_time()
        try:
            yield
        finally:
            with self._lock:
                self.seconds += (time.thread_time() - begun) / self._cores


class _TimedEncoder:
    """An encoder, and how long it works."""

    def __init__(self, encoder: Encoder, clock: _Clock | _CoreClock) -> None:
        self._encoder, self._clock = encoder, clock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def encode(self, chips: ChipBatch) -> Encoded:
        with self._clock.running():
            return self._encoder.encode(chips)


class _TimedStore(Store):
    """A directory, and how long files take to be written there."""

    def __init__(self, where: str, clock: _Clock) -> None:
        super().__init__(where)
        self._clock = clock

    @contextmanager
    def writer(self, path: str) -> Iterator[IO[bytes]]:
        with self._clock.running(), super().writer(path) as file:
            yield file


def _timed(spec: Spec, encoder: Encoder) -> tuple[Rates, Shares]:
    model = _CoreClock() if encoder.device == "cpu" else _Clock()
    disk = _Clock()
    at_end = (0.0, 0.0)

    def note(progress: Progress) -> None:
        """Once the last unit is done: the second pass, which computes a few chips of a release, is most of these."""
        nonlocal at_end
        if progress.stage == "produce" and progress.done < progress.total:
            at_end = (0.0, 0.0)
        elif progress.stage == "produce" and at_end == (0.0, 0.0):
            at_end = (model.seconds, disk.seconds)

    with tempfile.TemporaryDirectory(prefix="clay-publish-") as folder:
        timed: Any = _TimedEncoder(encoder, model)
        release = Release(_TimedStore(folder, disk))
        record = produce(spec, release, encoder=timed, report=note)
        wall = read_measurements(release).seconds
    rates = Rates(
        chips_per_hour=record.coverage["embedded"] / wall * 3600, usd_per_hour=spec.cost.usd_per_hour, measured=True
    )
    inference = min(at_end[0] / wall, 1.0)
    writing = min(at_end[1] / wall, 1.0 - inference)
    return rates, Shares(reading=1.0 - inference - writing, inference=inference, writing=writing)


def _ground(item: SourceItem, area: Area | None, chips: int, cell: float) -> dict[str, Any]:
    """A square of about so many chips around the middle of an image, inside the area."""
    assert item.geometry is not None
    ground = item.geometry if area is None else shapely.intersection(item.geometry, area.geometry)
    middle = shapely.point_on_surface(ground)
    half = np.sqrt(chips) * cell / 111_000 / 2
    wide = half / np.cos(np.radians(middle.y))
    square = shapely.box(middle.x - wide, middle.y - half, middle.x + wide, middle.y + half)
    return dict(shapely.geometry.mapping(shapely.intersection(square, ground)))


def _only(spec: Spec, item: SourceItem, ground: dict[str, Any]) -> Spec:
    """The same spec for one block and a little ground."""
    block = spec.imagery[item.block].model_copy(update={"area": ground})
    return spec.model_copy(update={"imagery": [block], "previous": None})
