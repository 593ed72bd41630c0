"""One unit of work: unit in, parts and a receipt out. Every engine calls this same function."""

import queue
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely

from clay_publish.errors import EncoderError, ImageryError
from clay_publish.fingerprint import Fingerprint
from clay_publish.producer.chips import ChipBlock, Reading
from clay_publish.producer.content import SourceChangedError, check_unchanged
from clay_publish.producer.encoders import Chips, Encoded, Encoder
from clay_publish.producer.parts import COVERAGE, PartEntry, Receipt, write_part, write_receipt
from clay_publish.producer.patches import PatchParts
from clay_publish.producer.plan import Unit
from clay_publish.producer.reference import REFERENCE, lowest, reference_rows
from clay_publish.producer.rows import PART_COVERAGE, embedding_rows, sound
from clay_publish.producer.scene import SceneChips, lost_scene, read_scene, safe_name
from clay_publish.producer.sensors import Sensor
from clay_publish.producer.thumbnails import Thumbnails
from clay_publish.producer.utm import read_cells
from clay_publish.release import DataFile, Release
from clay_publish.spec import Patches, Spec
from clay_publish.squares import utm_zones

_BATCH_BYTES = 64 << 20
_AHEAD = 2
"""Blocks read while the model works."""


@dataclass(frozen=True)
class Work:
    """What every unit of a run needs; made once a worker."""

    release: Release
    spec: Spec
    sensor: Sensor
    encoder: Encoder
    fingerprint: Fingerprint
    schema: pa.Schema
    threads: int
    thumbnails: Thumbnails | None = None
    references: int = 0
    """Vectors that each unit keeps in float32."""


@dataclass
class _Rows:
    """Rows of a unit, by published file."""

    embeddings: dict[str, list[pa.Table]] = field(default_factory=dict)
    references: list[pa.Table] = field(default_factory=list)
    coverage: list[pa.Table] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def run_unit(unit: Unit, work: Work) -> Receipt:
    """Read, embed and write one unit. Its receipt is written last.

    An image that cannot be read is no error of the run: its chips are recorded as `unreadable`.

    Raises:
        EncoderError: the model gave something that is no embedding of this release.
    """
    started = time.perf_counter()
    rows = _Rows()
    error: str | None = None
    parts: dict[str, PartEntry] = {}
    try:
        with _patch_parts(unit, work) as patches:
            for block in _ahead(_read(unit, work)):
                _embed(block, unit, work, rows, patches)
        parts = patches.entries()
    except ImageryError as problem:
        reason = "source_changed" if isinstance(problem, SourceChangedError) else "unreadable"
        # What was embedded before the damage is dropped: half an image is not what the next run would find.
        error = str(problem)
        rows = _Rows()
        _lose(unit, work, reason, error, rows)
    for token, tables in sorted(rows.embeddings.items()):
        parts[token] = write_part(work.release, unit.id, token, tables)
    if rows.references:
        parts[REFERENCE] = write_part(work.release, unit.id, REFERENCE, rows.references)
    if rows.coverage:
        parts[COVERAGE] = write_part(work.release, unit.id, COVERAGE, rows.coverage)
    receipt = Receipt(
        unit=unit.id,
        items=[item.id for item in unit.items],
        parts=parts,
        counts=dict(sorted(rows.counts.items())),
        seconds=time.perf_counter() - started,
        device=work.encoder.device,
        error=error,
    )
    write_receipt(work.release, receipt)
    return receipt


def _read(unit: Unit, work: Work) -> Iterator[ChipBlock]:
    reading = Reading(work.sensor, work.encoder.bands, work.spec.chips, work.threads)
    if unit.cells is not None:
        return read_cells(unit.cells, unit.items, unit.window, reading)
    (item,) = unit.items
    check_unchanged(item)
    return read_scene(item, reading, unit.area)


def _ahead(blocks: Iterator[ChipBlock]) -> Iterator[ChipBlock]:
    """Read in a thread of its own, at most `_AHEAD` blocks in front of whoever takes them."""
    room = threading.Semaphore(_AHEAD)
    waiting: queue.SimpleQueue[ChipBlock | BaseException | None] = queue.SimpleQueue()
    stop = threading.Event()

    def read() -> None:
        try:
            for block in blocks:
                waiting.put(block)
                room.acquire()
                if stop.is_set():
                    break
            waiting.put(None)
        except BaseException as error:  # noqa: BLE001 - handed over to the thread that takes the blocks
            waiting.put(error)

    thread = threading.Thread(target=read, name="reader", daemon=True)
    thread.start()
    try:
        while (thing := waiting.get()) is not None:
            if isinstance(thing, BaseException):
                raise thing
            yield thing
            room.release()
    finally:
        stop.set()
        room.release()
        thread.join()


def _patch_parts(unit: Unit, work: Work) -> PatchParts:
    outputs = work.spec.outputs
    layers = work.encoder.patch_layers if isinstance(outputs.patches, Patches) else ()
    return PatchParts(work.release, unit.id, layers, outputs.dtype)


def _embed(block: ChipBlock, unit: Unit, work: Work, rows: _Rows, patches: PatchParts) -> None:
    """Embed the chips of a block that can be, and add all of them to the rows."""
    keep = np.array([n for n, reason in enumerate(block.reasons) if reason is None], dtype=np.int64)
    tokens = np.array([DataFile(square, unit.window).token for square in block.squares])
    batch = max(1, _BATCH_BYTES // max(1, block.pixels[:1].nbytes))
    for start in range(0, len(keep), batch):
        chosen = keep[start : start + batch]
        pixels = block.pixels[start : start + batch]
        encoded = _encode(block, pixels, chosen, work)
        good = sound(encoded.embeddings, work.spec.outputs.dtype)
        for n in chosen[~good]:
            block.reasons[n] = "invalid_vector"
            block.details[n] = "the model gave NaN, infinite, zero or constant values"
        if good.any():
            kept = _Kept(chosen[good], pixels[good], _only(encoded, good))
            _add(block, kept, tokens[kept.places], work, rows=rows, patches=patches)
    _cover(block, unit, rows)


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
    pictures = None if work.thumbnails is None else work.thumbnails.draw(kept.pixels)
    table = embedding_rows(block, kept.encoded, kept.places, work.schema, dtype, pictures=pictures)
    _split(table, tokens, rows)
    ids = [block.ids[n] for n in kept.places]
    if kept.encoded.patches is not None:
        for token in dict.fromkeys(tokens.tolist()):
            mine = np.flatnonzero(tokens == token)
            patches.add(token, [ids[n] for n in mine], kept.encoded.patches[mine])
    if work.references:
        added = reference_rows(ids, kept.encoded, dtype)
        rows.references = [lowest([*rows.references, added], work.references)]


def _cover(block: ChipBlock, unit: Unit, rows: _Rows) -> None:
    rows.counts.update(reason or "embedded" for reason in block.reasons)
    rows.coverage.append(_coverage(block, unit))


def _split(table: pa.Table, tokens: npt.NDArray[np.str_], rows: _Rows) -> None:
    for token in dict.fromkeys(tokens.tolist()):
        mine = np.flatnonzero(tokens == token)
        part = table if len(mine) == table.num_rows else table.take(mine)
        rows.embeddings.setdefault(token, []).append(part)


def _encode(block: ChipBlock, pixels: npt.NDArray[np.float32], chosen: npt.NDArray[np.int64], work: Work) -> Encoded:
    sources = (block.source[n] for n in chosen)
    chips = Chips(
        pixels=pixels,
        lon=block.lon[chosen],
        lat=block.lat[chosen],
        times=[item.acquired for item in sources if item is not None],
        gsd=block.gsd,
    )
    encoded = work.encoder.encode(chips)
    expected = (len(chosen), work.fingerprint.dimensions)
    if encoded.embeddings.shape != expected:
        raise EncoderError(
            f"encoder {work.encoder.key}", f"gave embeddings of shape {encoded.embeddings.shape}", f"{expected}"
        )
    return encoded


def _only(encoded: Encoded, good: npt.NDArray[np.bool_]) -> Encoded:
    return Encoded(
        embeddings=encoded.embeddings[good],
        loss=None if encoded.loss is None else encoded.loss[good],
        patches=None if encoded.patches is None else encoded.patches[good],
    )


def _coverage(block: ChipBlock, unit: Unit) -> pa.Table:
    count = len(block.ids)
    outline = block.geometry.copy()
    outline[[reason is None for reason in block.reasons]] = None
    columns = {
        "id": block.ids,
        "epsg": pa.array([block.epsg] * count, pa.int32()),
        "row": block.rows,
        "col": block.cols,
        "window_start": [unit.window.start] * count,
        "window_end": [unit.window.end] * count,
        "status": ["missing" if reason else "embedded" for reason in block.reasons],
        "reason": block.reasons,
        "item_ids": [list(ids) for ids in block.item_ids],
        "detail": block.details,
        "zone": [square.zone for square in block.squares],
        "geometry": shapely.to_wkb(outline),
    }
    arrays = [pa.array(columns[f.name], f.type) for f in PART_COVERAGE]
    return pa.Table.from_arrays(arrays, schema=PART_COVERAGE)


def _lose(unit: Unit, work: Work, reason: str, detail: str, rows: _Rows) -> None:
    """Record an image that cannot be read: every chip it was expected to give, or one row for the whole item."""
    (item,) = unit.items
    if item.grid is not None:
        _cover(lost_scene(SceneChips(item, item.grid, work.spec.chips.size), unit.area, reason, detail), unit, rows)
        return
    row = {
        "id": f"item_{safe_name(item.id)}_{unit.window.token}",
        "window_start": unit.window.start,
        "window_end": unit.window.end,
        "status": "missing",
        "reason": reason,
        "item_ids": [item.id],
        "detail": detail,
        "zone": 1 if item.geometry is None else int(utm_zones(np.array([item.geometry.centroid.x]))[0]),
        "geometry": None if item.geometry is None else shapely.to_wkb(item.geometry),
    }
    rows.counts[reason] += 1
    rows.coverage.append(pa.Table.from_pylist([row], schema=PART_COVERAGE))
