"""Rules on the values of the arrays: the vectors of the tables, the reasons of the coverage, and nothing else."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clay_publish.errors import require_extra
from clay_publish.release.array_store import (
    CLOUD,
    EMBEDDED,
    EMBEDDINGS,
    NODATA,
    REASON,
    REASON_CODES,
    SCALES,
    STORE,
    VALID,
    array_windows,
)
from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.data.coverage_table import coverage_batches, equals, micros, whole_numbers
from clay_publish.validate.data.single_rows import column_of, vectors_at
from clay_publish.validate.data.zarr_groups import ArrayDocument, GroupDocument
from clay_publish.validate.outcomes import Fault, Outcome, Sampled, and_more
from clay_publish.validate.registry import rule
from clay_publish.validate.spilled import starts

Ints = npt.NDArray[np.int64]
_SAMPLE = 256
"""Pixels that are compared with the table, at most."""
_SHARDS = 64
"""Shards of a group whose nodata is looked at, at most."""
_ROUNDING = 1e-5
_HALF = 2.0**-11
"""Largest relative error of a cast to float16."""
_REASONS = pa.array(list(REASON_CODES))


def _chips(context: ReleaseContext) -> list[tuple[int, GroupDocument]]:
    """Zone and group of the chips' arrays.

    Raises:
        ReleaseError: a quick look does not read them, or zarr is not installed.
    """
    groups = {name: group for name, group in context.zarr.groups.items() if name and "/" not in name}
    if groups and context.zarr.folder == STORE:
        require_extra("arrays", STORE)
        context.files.read_whole(STORE)
        return [(int(name[3:5]), group) for name, group in groups.items() if REASON in group.arrays]
    return []


def _pixels(context: ReleaseContext, group: GroupDocument, rows: Ints) -> tuple[Ints, Ints, Ints]:
    """Time, y and x of the upper left pixel of chips, by their rows in the release."""
    facts = context.scan.facts
    cells, windows = group.attributes["embrel:cells"], array_windows(context.documents.spec)
    number = {path: windows.index(file.window) for path, file in context.tables.named.items() if file.window in windows}
    steps = np.array([number.get(path, -1) for path in facts.paths], np.int64)
    files = np.searchsorted(facts.starts, rows, side="right") - 1
    y = (cells["row_top"] - facts["rows"][rows].astype(np.int64)) * cells["patches"]
    return steps[files], y, facts["cols"][rows].astype(np.int64) * cells["patches"]


def _sampled_rows(context: ReleaseContext, zone: int, most: int) -> tuple[Ints, int]:
    """Rows of some chips of a zone, and how many it has."""
    parts = (start + np.flatnonzero(piece % 100 == zone) for start, piece in starts(context.scan.facts["epsg"]))
    mine = np.concatenate([np.empty(0, np.int64), *parts])
    return mine[:: max(1, -(-len(mine) // most))], len(mine)


@rule("ARR004")
def pixels_are_the_vectors(context: ReleaseContext) -> Iterator[Outcome]:
    """Some pixels of each zone, dequantized, with `valid` and `cloud`, against their rows of the table."""
    zones = _chips(context)
    total = seen = 0
    for zone, group in zones:
        rows, chips = _sampled_rows(context, zone, max(4, _SAMPLE // len(zones)))
        total += chips
        places = _pixels(context, group, rows)
        vectors = dict(vectors_at(context.tables, context.scan.facts, rows))
        expected_columns = {column: _column(context, rows, column) for column in ("valid_fraction", "cloud_fraction")}
        for number, row in enumerate(rows.tolist()):
            pixel = tuple(int(axis[number]) for axis in places)
            where = f"{group.path}/{EMBEDDINGS}: {list(pixel)} ({context.name(row)})"
            if pixel[0] < 0:
                continue
            yield from _pixel(context, group, pixel, vectors[row], where)
            for layer, column in ((VALID, "valid_fraction"), (CLOUD, "cloud_fraction")):
                found, expected = (
                    float(context.zarr_array(f"{group.path}/{layer}")[pixel]),
                    expected_columns[column][number],
                )
                if not np.isclose(found, np.nan if expected is None else expected, rtol=1e-6, equal_nan=True):
                    yield Fault(f"{group.path}/{layer}: {list(pixel)}", f"{found}", f"{expected}, as {column} says")
            seen += 1
    if seen < total:
        yield Sampled(seen, total)


def _column(context: ReleaseContext, rows: Ints, name: str) -> list[Any]:
    found: list[Any] = []
    for path, mine in context.scan.facts.slices().items():
        wanted = rows[(rows >= mine.start) & (rows < mine.stop)] - mine.start
        if wanted.size:
            values = column_of(context.tables, path, name)
            found += [values[row] for row in wanted.tolist()]
    return found


def _pixel(
    context: ReleaseContext, group: GroupDocument, pixel: tuple[int, ...], vector: npt.NDArray[np.float64], where: str
) -> Iterator[Outcome]:
    stored = np.asarray(context.zarr_array(f"{group.path}/{EMBEDDINGS}")[pixel]).astype(np.float64)
    largest = np.abs(vector).max()
    if SCALES in group.arrays:
        scale = float(context.zarr_array(f"{group.path}/{SCALES}")[pixel])
        if not (np.isfinite(scale) and scale > 0):
            yield Fault(where, f"scale {scale}", "a positive number, as its chip is embedded")
            return
        stored *= scale
        allowed = scale / 2 + _ROUNDING * largest
    else:
        allowed = _HALF * largest + 2.0**-25
    away = np.abs(stored - vector).max()
    if not away <= allowed:
        yield Fault(where, f"differs by {away:.3g} from its row", f"{allowed:.3g} at most, by its quantization")


@dataclass(frozen=True)
class _ZoneCoverage:
    """Every expected chip of a zone, from the coverage, one entry each."""

    time: Ints
    y: Ints
    x: Ints
    code: Ints

    @classmethod
    def read(cls, context: ReleaseContext, zone: int, top: int) -> "_ZoneCoverage":
        """Read them; chips of windows that the arrays do not have are left out."""
        windows = array_windows(context.documents.spec)
        columns = ["epsg", "row", "col", "window_start", "window_end", "status", "reason"]
        parts = [np.empty((0, 4), np.int64)]
        for batch in coverage_batches(context.tables, columns):
            epsg, row, col = (whole_numbers(batch, name).astype(np.int64) for name in columns[:3])
            start, end = (pc.fill_null(batch.column(name).cast(pa.int64()), 0).to_numpy() for name in columns[3:5])
            time = np.full(len(epsg), -1)
            for number, window in enumerate(windows):
                time[(start == micros(window.start)) & (end == micros(window.end))] = number
            known = pc.index_in(batch.column("reason").cast(pa.string()), _REASONS)
            code = pc.fill_null(known, list(REASON_CODES).index("failed")).to_numpy() + EMBEDDED + 1
            code[equals(batch.column("status"), "embedded")] = EMBEDDED
            mine = (
                (epsg % 100 == zone)
                & (epsg > 0)
                & (time >= 0)
                & pc.is_valid(batch.column("row")).to_numpy(zero_copy_only=False)
            )
            parts.append(np.stack([time, top - row, col, code], axis=1)[mine])
        return cls(*np.concatenate(parts).T)

    def blocks(self, side: int) -> dict[tuple[int, int, int], npt.NDArray[np.uint8]]:
        """Time, and place among the blocks of so many cells, of the blocks that hold some, and their reasons."""
        keys = np.stack([self.time, self.y // side, self.x // side], axis=1)
        unique, owner = np.unique(keys, axis=0, return_inverse=True)
        found = {}
        for number, key in enumerate(unique.tolist()):
            mine = np.flatnonzero(owner.ravel() == number)
            block = np.zeros((side, side), np.uint8)
            block[self.y[mine] % side, self.x[mine] % side] = self.code[mine]
            found[key[0], key[1], key[2]] = block
        return found


@rule("ARR005")
def layers_agree_with_coverage(context: ReleaseContext) -> Iterator[Outcome]:
    """`reason` of every expected chip and of every pixel there is; vectors where a chip is embedded, and only there."""
    for zone, group in _chips(context):
        expected = _ZoneCoverage.read(context, zone, group.attributes["embrel:cells"]["row_top"])
        yield from _reasons(context, group, expected)
        yield from _vectors(context, group, expected, 1)
        for patches in context.zarr.groups.values():
            if patches.path.startswith(f"{group.path}/"):
                yield from _vectors(context, patches, expected, patches.attributes["embrel:cells"]["patches"])


def _present(context: ReleaseContext, array: ArrayDocument) -> set[tuple[int, int, int]]:
    """Shards of an array that have a file."""
    start = f"{array.path}/c/"
    keys = [path.removeprefix(start).split("/")[:3] for path in context.files.paths if path.startswith(start)]
    return {(int(t), int(y), int(x)) for t, y, x in keys if (t + y + x).isdigit()}


def _read(context: ReleaseContext, array: ArrayDocument, key: tuple[int, int, int]) -> npt.NDArray[Any]:
    """The pixels of one shard."""
    time, y, x = key
    height, width = array.shard[1:3]
    found = context.zarr_array(array.path)[time, y * height : (y + 1) * height, x * width : (x + 1) * width]
    return np.asarray(found)


def _reasons(context: ReleaseContext, group: GroupDocument, expected: _ZoneCoverage) -> Iterator[Outcome]:
    array = group.arrays[REASON]
    blocks = expected.blocks(array.shard[1])
    for key in sorted(blocks.keys() | _present(context, array)):
        found = _read(context, array, key)
        right = blocks.get(key, np.zeros((array.shard[1], array.shard[1]), np.uint8))[
            : found.shape[0], : found.shape[1]
        ]
        if (found != right).any():
            y, x = np.argwhere(found != right)[0]
            where = f"{array.path}: {[key[0], key[1] * array.shard[1] + int(y), key[2] * array.shard[2] + int(x)]}"
            count = int((found != right).sum())
            yield Fault(
                where, f"{and_more(_meaning(found[y, x]), count)}", f"{_meaning(right[y, x])}, as the coverage says"
            )


def _meaning(code: int) -> str:
    names = ["not_expected", "embedded", *REASON_CODES]
    return names[code] if code < len(names) else str(code)


def _vectors(context: ReleaseContext, group: GroupDocument, expected: _ZoneCoverage, patches: int) -> Iterator[Outcome]:
    """Where there are vectors: by their scales, or, of float16, by one chunk of each shard."""
    scaled = SCALES in group.arrays
    array = group.arrays[SCALES if scaled else EMBEDDINGS]
    side = array.shard[1]
    blocks = expected.blocks(side // patches)
    there = {key: block for key, block in blocks.items() if (block == EMBEDDED).any()}
    present = _present(context, array)
    for key in sorted(there.keys() ^ present):
        fault = "is missing" if key in there else "is there, and none of its chips is embedded"
        yield Fault(f"{array.path}/c/{'/'.join(map(str, key))}", fault, "shards of embedded chips")
    keys = sorted(there.keys() & present)
    chosen = keys[:: max(1, -(-len(keys) // _SHARDS))]
    for key in chosen:
        wanted = np.kron(there[key] == EMBEDDED, np.ones((patches, patches), bool))
        if scaled:
            found = np.asarray(np.isfinite(_read(context, array, key)))
            yield from _nodata(context, group.arrays[EMBEDDINGS], key, wanted)
        else:
            found = wanted.copy()
            first, corner = _first_chunk(context, array, key, wanted)
            found[corner] = np.isfinite(first).all(axis=-1)
        wanted = wanted[: found.shape[0], : found.shape[1]]
        if (found != wanted).any():
            y, x = np.argwhere(found != wanted)[0]
            said = "has a vector" if found[y, x] else "has no vector"
            pixel = [key[0], key[1] * side + int(y), key[2] * side + int(x)]
            count = int((found != wanted).sum())
            yield Fault(f"{array.path}: {pixel}", and_more(said, count), "vectors where the coverage says embedded")
    if len(chosen) < len(keys):
        yield Sampled(len(chosen), len(keys), "shards")


def _first_chunk(
    context: ReleaseContext, array: ArrayDocument, key: tuple[int, int, int], wanted: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[Any], tuple[slice, slice]]:
    """The first chunk of a shard that has a vector, and where it lies in it."""
    (y, x), side, shard = np.argwhere(wanted)[0] // array.chunk[1], array.chunk[1], array.shard[1]
    down, right = key[1] * shard + int(y) * side, key[2] * shard + int(x) * side
    found = np.asarray(context.zarr_array(array.path)[key[0], down : down + side, right : right + side])
    height, width = found.shape[:2]
    return found, (slice(y * side, y * side + height), slice(x * side, x * side + width))


def _nodata(
    context: ReleaseContext, array: ArrayDocument, key: tuple[int, int, int], wanted: npt.NDArray[np.bool_]
) -> Iterator[Outcome]:
    """Integers of a pixel without a vector are all nodata; of one with a vector none is."""
    found, corner = _first_chunk(context, array, key, wanted)
    missing = (found == NODATA["int8"]).all(axis=-1)
    some = (found == NODATA["int8"]).any(axis=-1)
    wrong = np.where(wanted[corner], some, ~missing)
    if wrong.any():
        yield Fault(
            f"{array.path}: {list(key)}", f"{int(wrong.sum())} pixels", "-128 where there is no vector, and only there"
        )
