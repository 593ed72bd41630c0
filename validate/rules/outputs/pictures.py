"""Rules on what shows a chip from inside: thumbnails and patches, which fit together where chips are neighbors."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from clay_publish.release.directory import PATCHES
from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.data.chips import ChipRows
from clay_publish.validate.data.neighbors import (
    Pairs,
    Tiles,
    better_arrangement,
    edge_differences,
    random_differences,
    scattered_places,
)
from clay_publish.validate.data.single_rows import rows_of, table_rows
from clay_publish.validate.outcomes import Fault, NotChecked, Outcome, Sampled
from clay_publish.validate.registry import rule
from clay_publish.validate.rules.readers import wrong_image

_FILES = 32
"""Files that are looked at, spread over the release."""
_ROWS = 256
"""Chips of each, which follow one another."""
_PAIRS = 60
"""Neighbors, at least, that say how pictures fit."""
_ERRORS = 6.0
"""Standard errors by which another arrangement fits better: p < 1e-8."""
_UNRELATED = 0.9
"""Difference of neighbors over that of random pairs from which they are no more alike."""
_FLAT = 2.0
"""Mean difference of random pairs, of 255, below which all pictures are alike."""
_WEBP = 4
"""Of 255, by which WebP lets a single color vary."""
_DETAIL = 32.0
"""Of 255, within which pictures of water and the like may be the same."""
_SCATTERED = 0.25
"""Share of what the most alike places have in common that adjacent ones have at least."""
_LEAST = 0.05
"""What places in a chip have in common, at least, to say where they belong."""
_CHIPS = 30
"""Chips, at least, of which relations are compared."""
_NORMS = 1.6
"""Most by which vectors of patches and chips that left one layer differ in length."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Stretch:
    """Consecutive chips of one file."""

    path: str
    rows: npt.NDArray[np.int64]
    pairs: Pairs


def _stretches(context: ReleaseContext) -> Iterator[_Stretch]:
    facts = context.scan.facts
    for path in facts.paths[:: max(1, -(-len(facts.paths) // _FILES))]:
        mine, keys = facts.slices()[path], context.extra.blocks_of_file(facts, path, 1)
        first = max(0, (mine.stop - mine.start - _ROWS) // 2)
        rows = np.arange(first, min(first + _ROWS, mine.stop - mine.start))
        yield _Stretch(path, rows, Pairs.of(keys[rows]))


@rule("SCH019")
def thumbnails_are_pictures(context: ReleaseContext) -> Iterator[Outcome]:
    """Some of each file, decoded: size, and more than one color; a file of dark water alone may have one."""
    side, total, seen = context.documents.spec.outputs.thumbnails, 0, 0
    plain: dict[bool, list[str]] = {True: [], False: []}
    for path in context.tables.embeddings:
        there = "thumbnail" in context.tables.schema(path).names
        if there != bool(side):
            yield Fault(path, f"{'has' if there else 'has no'} column thumbnail", f"outputs.thumbnails is {side}")
    if not side:
        return
    for part in _stretches(context):
        stored = _stored(context, part)
        total, seen = total + context.tables.count(part.path), seen + len(stored)
        colors = []
        for row, picture in zip(part.rows.tolist(), stored, strict=True):
            wrong = wrong_image(picture)
            if wrong is None and picture is not None:
                shown = decoded(picture["bytes"])
                colors.append((shown.min(axis=(0, 1)), shown.max(axis=(0, 1))))
                wrong = None if shown.shape[:2] == (side, side) else f"has {shown.shape[1]} × {shown.shape[0]} pixels"
            if wrong is not None or picture is None:
                yield Fault(f"{part.path}: row {row}: thumbnail", wrong or "is null", f"a picture of {side} × {side}")
                break
        if len(colors) >= 2:
            plain[_are_plain(np.array(colors, np.int64))].append(part.path)
    if plain[True] and not plain[False]:
        yield Fault(f"{plain[True][0]}: thumbnail", "pictures of one color each", "pictures of the chips")
    yield Sampled(seen, total)


def _are_plain(colors: npt.NDArray[np.int64]) -> bool:
    """Whether pictures have one color each: the same one, or, as WebP keeps it, several that differ by far.

    Args:
        colors: least and greatest of each channel: [pictures, 2, 3].
    """
    within = (colors[:, 1] - colors[:, 0]).max()
    return bool(within == 0 or (within <= _WEBP and np.ptp(colors[:, 0], axis=0).max() > 4 * _WEBP))


def _stored(context: ReleaseContext, part: _Stretch) -> list[Any]:
    return list(table_rows(context.tables, part.path, part.rows, ["thumbnail"])["thumbnail"].to_pylist())


def decoded(data: bytes) -> npt.NDArray[np.uint8]:
    """Return the pixels of a picture: [rows, columns, 3]."""
    with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as image:
        return np.asarray(image.convert("RGB"))


@rule("GEO017")
def thumbnails_fit_together(context: ReleaseContext) -> Iterator[Outcome]:
    """Edges of neighbors, against those of random pairs, other rows, and pictures that are turned or mirrored."""
    if not context.documents.spec.outputs.thumbnails:
        return
    for part in _stretches(context):
        stored = _stored(context, part)
        if any(wrong_image(picture) is not None or picture is None for picture in stored):
            continue  # SCH019
        pictures = [decoded(picture["bytes"]) for picture in stored]
        if len({picture.shape for picture in pictures}) == 1:
            tiles = np.stack(pictures).astype(np.float32)
            spread = np.ptp(tiles, axis=(1, 2)).max(axis=-1)
            again = _repeated([picture["bytes"] for picture in stored], spread > _DETAIL)
            if again is not None:
                first, second = (part.rows[place] for place in again)
                yield Fault(f"{part.path}: row {second}: thumbnail", f"is that of row {first}", "a picture of its own")
                continue
            yield from _fit(context, f"{part.path}: thumbnail", tiles, part, flat=_FLAT)


def _repeated(pictures: list[bytes], worth: npt.NDArray[np.bool_]) -> tuple[int, int] | None:
    """Places of the first two pictures that are the same, among those that show something."""
    known: dict[bytes, int] = {}
    for place in np.flatnonzero(worth).tolist():
        if pictures[place] in known:
            return known[pictures[place]], place
        known[pictures[place]] = place
    return None


def _better(tiles: Tiles, part: _Stretch, *, southward: bool) -> str | None:
    """How the tiles of all rows, or of a half of them, fit better than they are."""
    middle = len(part.rows) // 2
    for name, start, stop in (("", 0, len(part.rows)), ("first ", 0, middle), ("last ", middle, len(part.rows))):
        pairs = part.pairs.among(start, stop)
        better = better_arrangement(tiles, pairs, southward=southward) if pairs.count >= _PAIRS else None
        if better is not None and better[1] > _ERRORS:
            whose = f" of the {name}{stop - start:,} rows" if name else ""
            return f"neighbors{whose} fit better {better[0]} (by {better[1]:.0f} standard errors)"
    return None


def _fit(context: ReleaseContext, where: str, tiles: Tiles, part: _Stretch, *, flat: float) -> Iterator[Outcome]:
    southward = context.fingerprint.layout == "scene"
    if part.pairs.count < _PAIRS:
        yield NotChecked(f"{where.partition(':')[0]}: {part.pairs.count} pairs of neighbors are too few")
        return
    better = _better(tiles, part, southward=southward)
    if better is not None:
        yield Fault(where, better, "as they are")
        return
    near, others = edge_differences(tiles, part.pairs, southward=southward), random_differences(tiles, part.pairs)
    if others.mean() > flat and near.mean() > _UNRELATED * others.mean():
        yield Fault(
            where, f"neighbors fit no better than random pairs ({near.mean() / others.mean():.2f})", "below 0.9"
        )


@rule("VEC020")
def patches_are_of_their_chips(context: ReleaseContext) -> Iterator[Outcome]:
    """Repeated patches; similarities of chips by the means of their patches and by their vectors; lengths of both."""
    for path, made in context.extra.files.items():
        if made.again:
            yield Fault(path, f"{made.again:,} patches are those of another place or chip", "patches of their own")
    for part, patches in _patches(context):
        own = np.stack([vector for _, vector in rows_of(context.tables, part.path, part.rows)])
        means = patches.reshape(len(patches), -1, patches.shape[-1]).mean(axis=1)
        where = f"{PATCHES}/{part.path.partition('/')[2]}"
        ratio = float(np.median(np.linalg.norm(patches, axis=-1)) / np.median(np.linalg.norm(own, axis=1)))
        if not 1 / _NORMS < ratio < _NORMS:
            yield Fault(
                where, f"patches are {ratio:.2f} times as long as their chips", "about as long: one layer gives both"
            )
        if len(own) < _CHIPS:
            yield NotChecked(f"{where}: {len(own)} chips are too few to compare")
            continue
        as_is = _agreement(means, own)
        moved = {f"{step:+}": _agreement(np.roll(means, step, axis=0), own) for step in (*range(-8, 0), *range(1, 9))}
        moved["in reverse order"] = _agreement(means[::-1], own)
        best = max(moved, key=moved.__getitem__)
        if moved[best] > as_is + 0.1:
            yield Fault(where, f"agree better with the chips of other rows ({best})", "patches of the chip they name")
        elif as_is < 0.1:
            yield Fault(where, f"agree with their chips by {as_is:.2f}", "a correlation of similarities above 0.1")


def _patches(context: ReleaseContext) -> Iterator[tuple[_Stretch, Tiles]]:
    """Patches of some chips of each file, of a model whose last layer alone is kept, as INT013 wants them ordered."""
    beside = context.extra.files
    for part in _stretches(context):
        path = f"{PATCHES}/{part.path.partition('/')[2]}"
        made = beside.get(path)
        if made is None or made.gap is not None or "layer" in context.tables.schema(path).names or not len(part.rows):
            continue
        each = len(made.cells)
        rows = np.arange(part.rows[0] * each, (part.rows[-1] + 1) * each)
        if rows[-1] >= made.rows:
            continue  # INT013
        table = table_rows(context.tables, path, rows, ["chip_id", "patch_row", "patch_col", "embedding", "scale"])
        ids = table_rows(context.tables, part.path, part.rows, ["id"])["id"].to_pylist()
        if table["chip_id"].to_pylist()[::each] != ids:
            continue  # INT013
        chips = ChipRows(path, 0, pa.Table.combine_chunks(table).to_batches()[0])
        height, width = (int(table[name].to_numpy().max()) + 1 for name in ("patch_row", "patch_col"))
        if height * width != each:
            continue  # INT013
        order = np.lexsort((table["patch_col"], table["patch_row"], np.arange(len(rows)) // each))
        values = chips.values(slice(None))[order]
        if np.isfinite(values).all():
            yield part, values.reshape(len(ids), height, width, -1)


def _agreement(first: Floats, second: Floats) -> float:
    """Correlation of the similarities of all pairs by two kinds of vectors (Mantel)."""
    above = np.triu_indices(len(first), 1)
    with np.errstate(invalid="ignore"):
        return float(np.nan_to_num(np.corrcoef(_similarity(first)[above], _similarity(second)[above])[0, 1]))


def _similarity(vectors: Floats) -> Floats:
    centered = vectors - vectors.mean(axis=0)
    unit = centered / np.maximum(np.linalg.norm(centered, axis=1, keepdims=True), 1e-12)
    return np.asarray(unit @ unit.T, dtype=np.float64)


@rule("VEC021")
def patches_are_in_place(context: ReleaseContext) -> Iterator[Outcome]:
    """Patches along the common edge of neighbors, as they are placed, and turned or mirrored."""
    for part, patches in _patches(context):
        centered = patches - patches.mean(axis=0)  # what a place in the chip has in common
        unit = centered / np.maximum(np.linalg.norm(centered, axis=-1, keepdims=True), 1e-12)
        where = f"{PATCHES}/{part.path.partition('/')[2]}"
        southward = context.fingerprint.layout == "scene"
        better = _better(unit, part, southward=southward) if part.pairs.count >= _PAIRS else None
        if better is not None:
            yield Fault(where, better, "as they are")
        elif len(unit) >= _CHIPS:
            alike = scattered_places(unit)
            if alike is not None and alike[1] > _LEAST and alike[0] < _SCATTERED * alike[1]:
                found = f"adjacent ones have {alike[0]:.0%} in common, others of the same chip {alike[1]:.0%}"
                yield Fault(where, found, "most in common with those beside them")
