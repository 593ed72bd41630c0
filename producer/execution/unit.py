"""One unit of work: unit in, parts and a receipt out. Every engine calls this same function."""

import queue
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clay_publish.errors import ImageryError
from clay_publish.producer.encoders import ChipBatch, Encoded
from clay_publish.producer.execution.context import READERS, Pace, Work, this_machine
from clay_publish.producer.imagery.chips import ChipBlock, ImplausibleError, Reading
from clay_publish.producer.imagery.pixel_evidence import Evidence, Examined, examine
from clay_publish.producer.imagery.raster import readers
from clay_publish.producer.imagery.remote import SourceChangedError
from clay_publish.producer.layouts.base import Unit
from clay_publish.producer.outputs.missing import Reason, lost_rows
from clay_publish.producer.outputs.parts import (
    COVERAGE,
    coverage_rows,
    embedding_rows,
    sound,
    write_part,
    write_receipt,
)
from clay_publish.producer.outputs.patches import PatchParts
from clay_publish.producer.sources.item import SourceItem
from clay_publish.release.directory import DataFile
from clay_publish.release.tables import NOT_CLOUD_CHECKED
from clay_publish.release.unit_receipts import SHOWN, PartEntry, UnitReceipt, unread_note

_BATCH_BYTES = 64 << 20


@dataclass
class _Rows:
    """Rows of a unit, by published file."""

    embeddings: dict[str, list[pa.Table]] = field(default_factory=dict)
    coverage: list[pa.Table] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def run_unit(unit: Unit, work: Work) -> UnitReceipt:
    """Read, embed and write one unit. Its receipt is written last.

    An image that cannot be read does not fail the run: its chips are recorded as `unreadable`, or taken from the next
    best image; the receipt has the error, and the next run makes the unit again.

    Raises:
        EncoderError: the model's output is not an embedding of this release.
        StoreError: a part cannot be written.
        StoppedError: the run ends.
    """
    rows = _Rows()
    unit, refused, notes = examined(unit, work)
    reading = reading_of(work, refused)
    try:
        with _patch_parts(unit, work) as patches:
            for block in ahead(unit.read(reading), work.pace):
                work.pace.check()
                _embed(block, unit, work, rows, patches)
    except ImageryError as problem:
        # What was embedded before the damage is dropped: half an image is not what the next run would find.
        if isinstance(problem, ImplausibleError):  # which the next run would find as well
            return _lose(unit, work, "implausible", detail=str(problem), notes=notes)
        reason: Reason = "source_changed" if isinstance(problem, SourceChangedError) else "unreadable"
        return _lose(unit, work, reason, detail=str(problem), error=str(problem), notes=notes)
    parts = patches.entries()
    for token, tables in sorted(rows.embeddings.items()):
        parts[token] = write_part(work.release, unit.id, token, tables)
    if rows.coverage:
        parts[COVERAGE] = write_part(work.release, unit.id, COVERAGE, rows.coverage)
    damaged = sorted(reading.damaged)
    notes += [unread_note(name) for name in damaged]
    error = f"item {damaged[0]}: {reading.damaged[damaged[0]]}" if damaged else None
    return _finish(unit, work, parts, rows.counts, error=error, notes=notes)


def set_aside(unit: Unit, work: Work, detail: str, error: str, reason: Reason = "failed") -> UnitReceipt:
    """Record a unit that is not made, so that the run goes on without it; the next run tries it again.

    Args:
        unit: that is left out.
        work: what the run needs.
        detail: why, as it is published.
        error: the reason, for the operator of the run.
        reason: of its chips in the coverage table.
    """
    return _lose(unit, work, reason, detail=detail, error=error)


def reading_of(work: Work, refused: Mapping[str, str]) -> Reading:
    """What images are read for; `refused` says, by id, why some cannot be used."""
    return Reading(
        sensor=work.sensor,
        bands=work.model.encoder.bands,
        rules=work.spec.chips,
        threads=READERS,
        refused=refused,
        composite=work.spec.imagery[0].composite,
        steps=work.spec.model.steps,
    )


def examined(unit: Unit, work: Work) -> tuple[Unit, dict[str, str], list[str]]:
    """Look at a sample of each image's pixels, before candidates are ranked.

    Returns:
        The unit, its images with scale and offset of their files; why images cannot be used, by id; and what a reader
        of the release should know of them.
    """

    def look(item: SourceItem) -> Examined:
        accept = work.spec.imagery[item.block].accept_values
        try:
            return examine(item, work.sensor, accept=accept, release=work.release)
        except ImageryError:
            return Examined(item, Evidence(status="unread"))  # reading it meets the same error, and records it

    with readers(min(READERS, max(1, len(unit.items)))) as pool:
        found = list(pool.map(look, unit.items))
    refused = {each.item.id: each.evidence.sentences[0] for each in found if each.evidence.status == "implausible"}
    notes = [sentence for each in found for sentence in each.evidence.sentences]
    return replace(unit, items=tuple(each.item for each in found)), refused, notes


def _lose(
    unit: Unit, work: Work, reason: Reason, *, detail: str, error: str | None = None, notes: list[str] | None = None
) -> UnitReceipt:
    rows, counts = lost_rows(unit, reason, detail)
    parts = {COVERAGE: write_part(work.release, unit.id, COVERAGE, [rows])}
    return _finish(unit, work, parts, counts, error=error, notes=notes)


def _finish(
    unit: Unit,
    work: Work,
    parts: dict[str, PartEntry],
    counts: Counter[str],
    *,
    error: str | None = None,
    notes: list[str] | None = None,
) -> UnitReceipt:
    receipt = UnitReceipt(
        unit=unit.id,
        images=len(unit.items),
        items=[item.id for item in unit.items[:SHOWN]],
        parts=parts,
        counts=dict(sorted(counts.items())),
        seconds=work.pace.lap(),
        finished=round(time.time(), 3),
        device=work.model.encoder.device,
        machine=this_machine(),
        error=error,
        notes=notes or [],
    )
    return write_receipt(work.release, receipt)


def ahead(blocks: Generator[ChipBlock], pace: Pace) -> Iterator[ChipBlock]:
    """Read ahead in a separate thread, as far as there is room."""
    waiting: queue.SimpleQueue[ChipBlock | BaseException | None] = queue.SimpleQueue()
    stop = threading.Event()

    def read() -> None:
        try:
            with closing(blocks):  # in the thread that opened the files
                while not stop.is_set() and (block := _next(blocks, pace)) is not None:
                    waiting.put(block)
            waiting.put(None)
        except BaseException as error:  # noqa: BLE001 - handed over to the thread that takes the blocks
            waiting.put(error)

    thread = threading.Thread(target=read, name="reader", daemon=True)
    thread.start()
    try:
        while (thing := waiting.get()) is not None:
            if isinstance(thing, BaseException):
                raise thing
            try:
                yield thing
            finally:
                pace.give_room()
    finally:
        stop.set()
        _drain(waiting, thread, pace)


def _next(blocks: Generator[ChipBlock], pace: Pace) -> ChipBlock | None:
    """The next block, once there is room for it."""
    pace.take_room()
    block = None
    try:
        block = next(blocks, None)
    finally:
        if block is None:
            pace.give_room()
    return block


def _drain(
    waiting: "queue.SimpleQueue[ChipBlock | BaseException | None]", thread: threading.Thread, pace: Pace
) -> None:
    """Wait for a reader to end, and throw away what it has read."""
    while thread.is_alive() or not waiting.empty():
        try:
            thing = waiting.get(timeout=0.05)
        except queue.Empty:
            continue
        if isinstance(thing, ChipBlock):
            pace.give_room()


def _patch_parts(unit: Unit, work: Work) -> PatchParts:
    outputs = work.spec.outputs
    layers = work.model.encoder.patch_layers if outputs.patch_layers is not None else ()
    return PatchParts(work.release, unit.id, layers, outputs.dtype)


def _embed(block: ChipBlock, unit: Unit, work: Work, rows: _Rows, patches: PatchParts) -> None:
    """Embed the chips of a block that can be, and add all of them to the rows."""
    keep = np.array([n for n, reason in enumerate(block.reasons) if reason is None], dtype=np.int64)
    tokens = np.array([DataFile(square, unit.window).token for square in block.squares])
    batch = max(1, _BATCH_BYTES // max(1, block.pixels[:1].nbytes))
    for start in range(0, len(keep), batch):
        chosen = keep[start : start + batch]
        pixels = block.pixels[start : start + batch]
        encoded = encode(block, pixels, chosen, work)
        good = sound(encoded.embeddings, work.spec.outputs.dtype)
        for n in chosen[~good]:
            block.reasons[n] = "invalid_vector"
            block.details[n] = "the model gave NaN, infinite, zero or constant values"
        if good.any():
            mine = slice(None) if good.all() else good  # pixels are not copied without need
            kept = _Kept(chosen[mine], pixels[mine], _only(encoded, mine))
            _add(block, kept, tokens[kept.places], work, rows=rows, patches=patches)
    _cover(block, unit, rows, work)


@dataclass(frozen=True)
class _Kept:
    """Chips of a block that were embedded."""

    places: npt.NDArray[np.int64]
    pixels: npt.NDArray[np.float32]
    encoded: Encoded


def _add(
    block: ChipBlock, kept: _Kept, tokens: npt.NDArray[np.str_], work: Work, *, rows: _Rows, patches: PatchParts
) -> None:
    """Add embedded chips to every table that the spec asks for."""
    dtype = work.spec.outputs.dtype
    pictures = None if work.thumbnails is None else work.thumbnails.draw(shown_pixels(block, kept.places, kept.pixels))
    table = embedding_rows(block, kept.encoded, kept.places, work.schema, dtype, pictures=pictures)
    _split(table, tokens, rows)
    ids = [block.ids[n] for n in kept.places]
    if kept.encoded.patches is not None:
        for token in dict.fromkeys(tokens.tolist()):
            mine = np.flatnonzero(tokens == token)
            patches.add(token, [ids[n] for n in mine], kept.encoded.patches[mine])


def shown_pixels(
    block: ChipBlock, places: npt.NDArray[np.int64], pixels: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """What pictures of some chips of a block are drawn from: of several steps, the mean of those that are there."""
    if block.steps is None:
        return pixels
    there = block.steps.there[places].sum(axis=1, dtype=np.float32)
    return np.asarray(pixels.sum(axis=1) / there[:, None, None, None], dtype=np.float32)


def _cover(block: ChipBlock, unit: Unit, rows: _Rows, work: Work) -> None:
    for n in np.flatnonzero(np.isnan(block.cloud_fraction)) if work.sensor.masks else ():
        if block.reasons[n] is None:
            block.details[n] = NOT_CLOUD_CHECKED
    rows.counts.update(reason or "embedded" for reason in block.reasons)
    rows.coverage.append(coverage_rows(block, unit.window))


def _split(table: pa.Table, tokens: npt.NDArray[np.str_], rows: _Rows) -> None:
    for token in dict.fromkeys(tokens.tolist()):
        mine = np.flatnonzero(tokens == token)
        part = table if len(mine) == table.num_rows else table.take(mine)
        rows.embeddings.setdefault(token, []).append(part)


def encode(block: ChipBlock, pixels: npt.NDArray[np.float32], chosen: npt.NDArray[np.int64], work: Work) -> Encoded:
    """What the model gives for the chips `chosen` of a block, whose pixels these are."""
    sources, combined = [block.source[n] for n in chosen], block.combined
    times = [item.acquired for item in sources if item is not None]
    if combined is not None:
        times = [each.encoder_time for n in chosen if (each := combined[n]) is not None]
    chips = ChipBatch(
        pixels=pixels,
        lon=block.lon[chosen],
        lat=block.lat[chosen],
        times=times,
        gsd=block.gsd,
        steps=None if block.steps is None else block.steps.only(chosen),
    )
    return work.model.encode(chips)


def _only(encoded: Encoded, mine: slice | npt.NDArray[np.bool_]) -> Encoded:
    return Encoded(
        embeddings=encoded.embeddings[mine],
        loss=None if encoded.loss is None else encoded.loss[mine],
        patches=None if encoded.patches is None else encoded.patches[mine],
    )
