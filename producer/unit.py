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
from clay_publish.producer.chips import ChipBlock
from clay_publish.producer.encoders import Chips, Encoded, Encoder
from clay_publish.producer.parts import COVERAGE, PartEntry, Receipt, write_part, write_receipt
from clay_publish.producer.plan import Unit
from clay_publish.producer.raster import session
from clay_publish.producer.rows import PART_COVERAGE, embedding_rows, sound
from clay_publish.producer.scene import SceneChips, inside, read_scene
from clay_publish.producer.sensors import Sensor
from clay_publish.release import DataFile, Release
from clay_publish.spec import Spec
from clay_publish.squares import Square, squares_of, utm_zones

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


@dataclass
class _Rows:
    """Rows of a unit, by published file."""

    embeddings: dict[str, list[pa.Table]] = field(default_factory=dict)
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
    try:
        with session():
            for block in _ahead(_read(unit, work)):
                _embed(block, unit, work, rows)
    except ImageryError as problem:
        # What was embedded before the damage is dropped: half an image is not what the next run would find.
        error = str(problem)
        rows = _Rows()
        _add_missing(_lost(unit, work, error), rows)
    parts: dict[str, PartEntry] = {}
    for token, tables in sorted(rows.embeddings.items()):
        parts[token] = write_part(work.release, unit.id, token, tables)
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
    (item,) = unit.items
    size = work.spec.chips.size
    return read_scene(item, work.sensor, work.encoder.bands, size, unit.area, threads=work.threads)


def _ahead(blocks: Iterator[ChipBlock]) -> Iterator[ChipBlock]:
    """Read in a thread of its own, at most `_AHEAD` blocks in front of whoever takes them."""
    room = threading.Semaphore(_AHEAD)
    waiting: queue.SimpleQueue[ChipBlock | BaseException | None] = queue.SimpleQueue()
    stop = threading.Event()

    def read() -> None:
        try:
            with session():
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


def _embed(block: ChipBlock, unit: Unit, work: Work, rows: _Rows) -> None:
    """Decide on each chip of a block, embed those that pass, and add all of them to the rows."""
    reasons, details = _judge(block, work.spec)
    keep = np.array([n for n, reason in enumerate(reasons) if reason is None], dtype=np.int64)
    made: list[pa.Table] = []
    batch = max(1, _BATCH_BYTES // max(1, block.pixels[:1].nbytes))
    for start in range(0, len(keep), batch):
        chosen = keep[start : start + batch]
        encoded = _encode(block, chosen, work)
        good = sound(encoded.embeddings, work.spec.outputs.dtype)
        for n in chosen[~good]:
            reasons[n], details[n] = "invalid_vector", "the model gave NaN, infinite, zero or constant values"
        if good.any():
            made.append(embedding_rows(block, _only(encoded, good), chosen[good], work.schema, work.spec.outputs.dtype))
    squares = squares_of(block.lon, block.lat)
    tokens = [DataFile(s, unit.window).token for s in squares]
    place = {identifier: n for n, identifier in enumerate(block.ids)}
    for table in made:
        _split(table, [tokens[place[i]] for i in table["id"].to_pylist()], rows)
    rows.counts.update(reason or "embedded" for reason in reasons)
    rows.coverage.append(_coverage(block, unit, squares, reasons, details))


def _split(table: pa.Table, tokens: list[str], rows: _Rows) -> None:
    names = np.array(tokens)
    for token in dict.fromkeys(tokens):
        mine = np.flatnonzero(names == token)
        part = table if len(mine) == table.num_rows else table.take(mine)
        rows.embeddings.setdefault(token, []).append(part)


def _encode(block: ChipBlock, chosen: npt.NDArray[np.int64], work: Work) -> Encoded:
    chips = Chips(
        pixels=block.pixels if len(chosen) == len(block.ids) else block.pixels[chosen],
        lon=block.lon[chosen],
        lat=block.lat[chosen],
        times=[block.times[n] for n in chosen],
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


def _judge(block: ChipBlock, spec: Spec) -> tuple[list[str | None], list[str | None]]:
    reasons: list[str | None] = []
    details: list[str | None] = []
    for valid, cloud in zip(block.valid_fraction.tolist(), block.cloud_fraction.tolist(), strict=True):
        if valid == 0 or valid < 1 - spec.chips.max_nodata - 1e-6:
            reasons.append("nodata")
            details.append(f"{valid:.3f} of the pixels are valid")
        elif cloud > spec.chips.max_cloud + 1e-6:  # NaN, no mask, is not more
            reasons.append("cloud")
            details.append(f"{cloud:.3f} of the pixels are under cloud")
        else:
            reasons.append(None)
            details.append(None)
    return reasons, details


def _coverage(
    block: ChipBlock, unit: Unit, squares: list[Square], reasons: list[str | None], details: list[str | None]
) -> pa.Table:
    window = unit.window
    count = len(block.ids)
    missing = np.array([reason is not None for reason in reasons])
    outline = block.geometry.copy()
    outline[~missing] = None
    columns = {
        "id": block.ids,
        "epsg": pa.array([block.epsg] * count, pa.int32()),
        "row": block.rows,
        "col": block.cols,
        "window_start": [window.start] * count,
        "window_end": [window.end] * count,
        "status": ["missing" if reason else "embedded" for reason in reasons],
        "reason": reasons,
        "item_ids": [list(ids) for ids in block.item_ids],
        "detail": details,
        "zone": [square.zone for square in squares],
        "geometry": shapely.to_wkb(outline),
    }
    arrays = [pa.array(columns[f.name], f.type) for f in PART_COVERAGE]
    return pa.Table.from_arrays(arrays, schema=PART_COVERAGE)


def _add_missing(table: pa.Table, rows: _Rows) -> None:
    rows.coverage.append(table)
    rows.counts.update(table["reason"].to_pylist())


def _lost(unit: Unit, work: Work, detail: str) -> pa.Table:
    """Coverage rows of an image that cannot be read: every chip it was expected to give, or one for the whole item."""
    (item,) = unit.items
    window = unit.window
    common = {
        "window_start": window.start,
        "window_end": window.end,
        "status": "missing",
        "reason": "unreadable",
        "item_ids": [item.id],
        "detail": detail,
    }
    if item.grid is None:
        zone = 1 if item.geometry is None else int(utm_zones(np.array([item.geometry.centroid.x]))[0])
        outline = None if item.geometry is None else shapely.to_wkb(item.geometry)
        row = {"id": f"item_{item.id}_{window.token}", **common, "zone": zone, "geometry": outline}
        return pa.Table.from_pylist([row], schema=PART_COVERAGE)
    scene = SceneChips(item, item.grid, work.spec.chips.size)
    row_numbers, col_numbers = scene.all()
    lon, lat = scene.centres(row_numbers, col_numbers)
    mine = inside(unit.area, lon, lat)
    row_numbers, col_numbers = row_numbers[mine], col_numbers[mine]
    outlines = scene.footprints(row_numbers, col_numbers)
    zones = utm_zones(lon[mine])
    places = zip(
        scene.ids(row_numbers, col_numbers),
        row_numbers.tolist(),
        col_numbers.tolist(),
        zones.tolist(),
        shapely.to_wkb(outlines),
        strict=True,
    )
    found = [
        {"id": i, "epsg": scene.epsg, "row": r, "col": c, "zone": z, "geometry": g, **common}
        for i, r, c, z, g in places
    ]
    return pa.Table.from_pylist(found, schema=PART_COVERAGE)
