"""The rule on chips that are made again from the published imagery, on request."""

import hashlib
import heapq
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clay_publish.errors import ClayPublishError, shown
from clay_publish.release.directory import COVERAGE, PATCHES
from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.data.chips import ChipRows
from clay_publish.validate.data.coverage_table import coverage_batches
from clay_publish.validate.data.single_rows import column_of, table_rows
from clay_publish.validate.outcomes import Fault, NotChecked, Outcome, Sampled
from clay_publish.validate.registry import rule
from clay_publish.validate.rules.outputs.pictures import decoded
from clay_publish.validate.rules.readers import wrong_image

_COSINE = {"float32": 1e-5, "bfloat16": 5e-4}
"""How far the cosine of a vector that is computed again may be below 1, by precision."""
_PATCHES = 4
"""Times as far the cosine of a patch may be: it is not averaged over the chip."""
_LENGTH = {"float32": 1e-3, "bfloat16": 2e-2}
"""Share by which the length of a vector, or a loss, may differ."""
_FRACTIONS = ("valid_fraction", "cloud_fraction")
_SHARE = 0.005
"""By which a fraction of a chip's pixels may differ."""
_LEVELS = 3.0
"""Of 255, by which the colors of a thumbnail may differ on average."""

Floats = npt.NDArray[np.float64]


@rule("VEC023")
def chips_can_be_made_again(context: ReleaseContext) -> Iterator[Outcome]:
    """Chips of the lowest SHA-256 of all, from the published imagery with the published model; `--recompute N`.

    As many gaps because of cloud, nodata or too few images, and what the coverage says of them.
    """
    assert context.recompute is not None, "the rule is checked on request alone"
    chosen = heapq.nsmallest(context.recompute.chips, _hashed(context))
    gaps = heapq.nsmallest(context.recompute.chips, _gaps(context))
    try:
        again = context.recompute.again([*(chip[1] for chip in chosen), *(gap[1] for gap in gaps)])
    except ClayPublishError as error:
        yield NotChecked(f"{error.where} {error.found}")
        return
    known = {name for name, made in again.items() if made.get("reason") in {None, *_READ}}
    there = [(path, row, name) for _, name, path, row in chosen if name in known]
    if not there:
        yield NotChecked(f"the imagery of none of {len(chosen):,} chips can be read")
        return
    for path, row, name in there:
        yield from _chip(context, path, row, again[name])
    for _, name, reason in gaps:
        found = again[name].get("reason") if name in known else reason
        if found != reason:
            yield Fault(f"{COVERAGE}: {shown(name)}", f"is missing as {reason!r}", f"{found or 'embedded'}, made again")
    if gaps and not any(name in known for _, name, _ in gaps):
        yield NotChecked(f"the imagery of none of {len(gaps):,} gaps can be read")
    yield Sampled(len(there), context.tables.rows)


_READ = ("cloud", "nodata", "too_few_images")
"""Reasons that pixels give."""


def _gaps(context: ReleaseContext) -> Iterator[tuple[bytes, str, str]]:
    for batch in coverage_batches(context.tables, ["id", "reason"]):
        rows = batch.filter(pc.is_in(batch.column("reason").cast(pa.string()), value_set=pa.array(_READ)))
        for name, reason in zip(rows.column("id").to_pylist(), rows.column("reason").to_pylist(), strict=True):
            yield hashlib.sha256(name.encode()).digest(), name, reason


def _hashed(context: ReleaseContext) -> Iterator[tuple[bytes, str, str, int]]:
    for path in context.tables.embeddings:
        for row, name in enumerate(column_of(context.tables, path, "id")):
            if name:
                yield hashlib.sha256(name.encode()).digest(), name, path, row


def _chip(context: ReleaseContext, path: str, row: int, again: Mapping[str, Any]) -> Iterator[Outcome]:
    columns = ["id", "embedding", "scale", "loss", "thumbnail", *_FRACTIONS]
    table = table_rows(context.tables, path, np.array([row]), columns).combine_chunks()
    chip, made = ChipRows(path, row, table.to_batches()[0]), context.fingerprint
    where = f"{path}: {shown(chip.value('id', 0))}"
    if "reason" in again:
        yield Fault(where, "is embedded", f"missing as {again['reason']!r}, made again")
        return
    for name in _FRACTIONS:
        stored, truth = chip.value(name, 0), again[name]
        if (stored is None) != (truth is None) or abs((stored or 0) - (truth or 0)) > _SHARE:
            yield Fault(f"{where}: {name}", str(stored), f"{truth}, read again")
    far = _COSINE[made.precision]
    yield from _vector(where, chip.values(np.array([0]))[0], again["embedding"], context, far)
    if "loss" in again and chip.has("loss"):
        stored, limit = chip.value("loss", 0), _LENGTH[made.precision] * abs(again["loss"])
        if stored is not None and not abs(stored - again["loss"]) <= limit:  # SCH018
            yield Fault(f"{where}: loss", f"{stored:.6g}", f"{again['loss']:.6g}, computed again")
    if "thumbnail" in again and chip.has("thumbnail"):
        yield from _thumbnail(f"{where}: thumbnail", chip.value("thumbnail", 0), bytes.fromhex(again["thumbnail"]))
    patches = f"{PATCHES}/{path.partition('/')[2]}"
    if "patches" in again and patches in context.tables.readable:
        yield from _patches(context, patches, row, chip.value("id", 0), again["patches"])


def _vector(where: str, found: npt.NDArray[Any], again: Any, context: ReleaseContext, far: float) -> Iterator[Outcome]:
    truth, stored, made = np.asarray(again, np.float64), found.astype(np.float64), context.fingerprint
    if truth.shape != stored.shape:
        yield Fault(where, f"has {stored.size} values", f"{truth.size}, computed again")
        return
    lengths = np.linalg.norm(truth), np.linalg.norm(stored)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine, longer = float(truth @ stored / (lengths[0] * lengths[1])), float(lengths[1] / lengths[0])
    step = _step(truth, made.dtype)
    least, most = 1 - far - step, _LENGTH[made.precision] + 2 * step
    if not cosine >= least:
        found_cosine = f"has a cosine of {cosine:.6f} with the vector computed again"
        yield Fault(where, found_cosine, f"at least {least:.6f}")
    elif not abs(longer - 1) <= most:
        yield Fault(where, f"is {longer:.4f} times as long as the vector computed again", f"1 ± {most:.4f}")


def _step(vector: Floats, dtype: str) -> float:
    """How far half a quantization step in every value can take the cosine below 1."""
    largest = float(np.abs(vector).max(initial=0))
    half = {"float16": largest / 2**11, "int8": largest / 254}.get(dtype, 0.0)
    return 0.5 * vector.size * half**2 / max(float(vector @ vector), 1e-300)


def _thumbnail(where: str, picture: Any, again: bytes) -> Iterator[Outcome]:
    if picture is None or wrong_image(picture) is not None:
        return  # SCH019
    stored, truth = decoded(picture["bytes"]).astype(np.float32), decoded(again).astype(np.float32)
    if stored.shape != truth.shape:
        return  # SCH019
    away = float(np.abs(stored - truth).mean())
    if away > _LEVELS:
        yield Fault(
            where, f"differs by {away:.0f} of 255 on average from the picture drawn again", f"at most {_LEVELS:g}"
        )


def _patches(context: ReleaseContext, path: str, row: int, name: str, again: Mapping[str, Any]) -> Iterator[Outcome]:
    each = len(context.extra.files[path].cells)
    rows = np.arange(row * each, (row + 1) * each)
    if not each or rows[-1] >= context.extra.files[path].rows:
        return  # INT013
    columns = ["chip_id", "layer", "patch_row", "patch_col", "embedding", "scale"]
    table = table_rows(context.tables, path, rows, columns)
    if set(table["chip_id"].to_pylist()) != {name}:
        return  # INT013
    if "layer" in table.column_names:
        layers = table["layer"].to_numpy()
        table = table.filter(pa.array(layers == layers.max()))
    chips = ChipRows(path, int(rows[0]), table.combine_chunks().to_batches()[0])
    width = int(chips.integers("patch_col").max()) + 1
    places = {
        place: n for n, place in enumerate((chips.integers("patch_row") * width + chips.integers("patch_col")).tolist())
    }
    far = _PATCHES * _COSINE[context.fingerprint.precision]
    for place, vector in again.items():
        if int(place) not in places:
            continue  # INT013
        where = f"{path}: {shown(name)}, row {int(place) // width} column {int(place) % width}"
        stored = chips.values(np.array([places[int(place)]]))[0]
        faults = list(_vector(where, stored, vector, context, far))
        if faults:
            yield faults[0]  # the others of this chip say the same
            return
