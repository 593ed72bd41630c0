"""Rules on single vectors, and on pairs of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, product
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from clay_publish.release.directory import EMBEDDINGS
from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.data.chip_facts import ReleaseFacts, repeated
from clay_publish.validate.data.chips import ChipRows
from clay_publish.validate.data.neighbors import Ints, Pairs
from clay_publish.validate.outcomes import BadRows, Fault, NotChecked, Outcome, bad_rows
from clay_publish.validate.registry import row_rule, rule

_CONSTANT = 1e-5
"""Standard deviation over the values of a vector, relative to its size, below which all are the same."""
_SATURATED = 0.02
"""Share of int8 values at the end of the range. A scale per row puts one value there, clipping puts many."""
_NEAR = 1e-5
"""Degrees, about a metre: chips nearer than this show the same ground."""


@row_rule("VEC001", alone=True)
def finite(chips: ChipRows, _: ReleaseContext) -> Sequence[BadRows]:
    """Σx² is finite only when every x is; large values that overflow it are looked at again."""
    suspect = np.flatnonzero(~np.isfinite(chips.sums.squares))
    bad = np.zeros(len(chips), dtype=bool)
    if suspect.size:
        bad[suspect] = ~np.isfinite(chips.values(suspect)).all(axis=1)

    def found(row: int) -> str:
        values = chips.values(np.array([row]))[0]
        return f"{int(np.isnan(values).sum())} NaN and {int(np.isinf(values).sum())} infinite values"

    return bad_rows(bad, found, "finite numbers")


@row_rule("VEC002", alone=True)
def not_zero(chips: ChipRows, _: ReleaseContext) -> Sequence[BadRows]:
    """Zeros as nodata."""
    zero = (chips.sums.squares == 0) & ~chips.nulls("embedding")
    if zero.any():
        zero[zero] = (chips.stored[zero] == 0).all(axis=1) | _scale_is_zero(chips)[zero]
    return bad_rows(zero, "all values are 0", "a vector")


def _scale_is_zero(chips: ChipRows) -> npt.NDArray[np.bool_]:
    return np.zeros(len(chips), dtype=bool) if chips.scales is None else chips.scales == 0


@row_rule("VEC003", alone=True)
def not_constant(chips: ChipRows, _: ReleaseContext) -> Sequence[BadRows]:
    """Constant vectors other than zero."""
    dimensions = chips.stored.shape[1]
    if dimensions < 2:
        return []
    # Where the spread over all values is that small, so it is over a few of them, up to √D times it.
    high, low = chips.sums.some.max(axis=0), chips.sums.some.min(axis=0)
    with np.errstate(invalid="ignore", over="ignore"):
        near = high - low <= 4 * _CONSTANT * np.sqrt(dimensions) * np.maximum(np.abs(high), np.abs(low))
    suspect = np.flatnonzero(near & (chips.sums.squares > 0))
    bad = np.zeros(len(chips), dtype=bool)
    if suspect.size:
        values = chips.values(suspect).astype(np.float64)
        with np.errstate(invalid="ignore"):
            bad[suspect] = values.std(axis=1) <= _CONSTANT * np.abs(values).max(axis=1)
    return bad_rows(bad, lambda row: f"every value is {chips.values(np.array([row]))[0, 0]:g}", "a vector")


@row_rule("VEC004", alone=True)
def not_saturated(chips: ChipRows, _: ReleaseContext) -> Sequence[BadRows]:
    """Share of values at the ends of the range."""
    if not np.issubdtype(chips.stored.dtype, np.signedinteger):
        return []
    ends = ((chips.stored >= 127) | (chips.stored <= -127)).mean(axis=1)
    most = max(_SATURATED, 3 / chips.stored.shape[1])
    return bad_rows(ends > most, lambda row: f"{ends[row]:.0%} of the values are ±127", f"at most {most:.0%}")


@row_rule("VEC005", alone=True)
def scale_is_positive(chips: ChipRows, _: ReleaseContext) -> Sequence[BadRows]:
    """The column `scale`."""
    if chips.scales is None:
        return []
    scales = chips.scales
    good = np.isfinite(scales) & (scales > 0)
    return bad_rows(~good, lambda row: f"scale {scales[row]:g}", "a positive number")


@row_rule("VEC006", alone=True)
def quality_in_range(chips: ChipRows, _: ReleaseContext) -> Sequence[BadRows]:
    """`loss`, `valid_fraction`, `cloud_fraction`."""
    found: list[BadRows] = []
    for name, high in (("loss", np.inf), ("valid_fraction", 1.0), ("cloud_fraction", 1.0)):
        if not chips.has(name):
            continue
        values = chips.floats(name)
        with np.errstate(invalid="ignore"):
            good = (values >= 0) & (values <= high) & np.isfinite(values)
        bad = ~good & ~chips.nulls(name)
        limit = "0 to 1" if high == 1 else "a finite number from 0"
        found += bad_rows(bad, partial(_number, name, values), limit)
    return found


def _number(name: str, values: npt.NDArray[np.float64], row: int) -> str:
    return f"{name} {values[row]:g}"


def _is_same_ground(facts: ReleaseFacts, first: int, second: int) -> bool:
    near = all(abs(facts[name][first] - facts[name][second]) < _NEAR for name in ("lon", "lat"))
    return bool(near and facts["moments"][first] == facts["moments"][second])


@rule("VEC007")
def vectors_differ(context: ReleaseContext) -> Iterator[Outcome]:
    """Bit for bit; the same ground at the same time is GEO010's business."""
    facts = context.scan.facts
    groups = repeated(facts["vectors"])
    norms = facts["norms"]
    scaled = any("scale" in context.tables.schema(path).names for path in facts.paths)
    stored = ("embedding", "scale") if scaled else ("embedding",)  # integers alone are half of a vector
    found: list[tuple[int, int]] = []
    for first, second in groups.examples():
        if not norms[first] > 0 or (not context.tables.foreign and _is_same_ground(facts, first, second)):
            continue
        if all(context.value(name, first) == context.value(name, second) for name in stored):
            found.append((first, second))
            if len(found) == 3:
                break
    more = f"; up to {groups.extra:,} rows repeat a vector" if groups.extra > len(found) else ""
    for first, second in found:
        yield Fault(context.name(second), f"has the vector of {context.name(first)}{more}", "vectors of their own")


_NEIGHBORS = 200
"""Chips, and pairs of neighbors, at least, about which anything is said."""
_SURE = 5.2
"""Standard errors: p < 1e-6 after correction for the few ways that are tried."""
_CHANCE = 1e-6
"""Of a finding on good vectors, after correction for the runs of rows that are tried."""
_SHORTEST = 256
"""Rows of a run that is looked at alone, at least: fewer have too few neighbors."""
_LEAST = 0.1
"""Share by which neighbors differ less than random pairs; real ones do by 0.4 and more."""


@rule("VEC024")
def neighbors_are_alike(context: ReleaseContext) -> Iterator[Outcome]:
    """A few values of each vector: differences of neighbors, of random pairs, and of rows moved or reversed."""
    values, keys, rows = _some_of_each(context)
    pairs = Pairs.of(keys)
    first, second = (np.concatenate([pairs.east[side], pairs.next[side]]) for side in (0, 1))
    if len(keys) < _NEIGHBORS or len(first) < _NEIGHBORS:
        yield NotChecked(f"{len(first):,} pairs of neighbors are too few to tell")
        return
    starts = [0, *np.flatnonzero(np.diff(_files(context, rows))) + 1, len(rows)]

    def differences(order: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        return np.asarray(np.abs(values[order[first]] - values[order[second]]).mean(axis=1), dtype=np.float64)

    as_is = differences(np.arange(len(values)))
    files = [np.arange(start, stop) for start, stop in pairwise(starts)]
    moved = {f"moved by {step:+}": np.concatenate([np.roll(each, step) for each in files]) for step in (-2, -1, 1, 2)}
    gains = {name: as_is - differences(order) for name, order in moved.items()}
    whole = {**gains, "in reverse order": as_is - differences(np.concatenate([each[::-1] for each in files]))}
    for name, gain in whole.items():
        if gain.mean() > _SURE * gain.std() / np.sqrt(len(gain)) and gain.mean() > _LEAST * as_is.mean():
            yield Fault(
                EMBEDDINGS, f"neighbors are more alike if rows are {name}", "vectors in the rows of their chips"
            )
            return
    batch = _batch_of_other_rows(np.minimum(first, second), as_is, gains)
    if batch is not None:
        path, row = context.scan.facts.place(int(rows[batch.start]))
        found = f"neighbors are more alike if {batch.rows:,} rows are {batch.name}"
        yield Fault(f"{path}: from about row {row}", found, "vectors in the rows of their chips")
        return
    draw = np.random.default_rng(11)
    others = np.asarray(np.abs(values[first] - values[draw.permutation(second)]).mean(axis=1), dtype=np.float64)
    error = np.sqrt(as_is.var() / len(as_is) + others.var() / len(others))
    if others.mean() - as_is.mean() + _SURE * error < _LEAST * others.mean():
        found = f"neighbors differ {as_is.mean() / others.mean():.2f} times as much as random pairs"
        yield Fault(EMBEDDINGS, found, "clearly less: places beside each other look alike")


@dataclass(frozen=True)
class _Batch:
    """Rows that belong elsewhere."""

    start: int
    rows: int
    name: str


def _batch_of_other_rows(
    places: Ints, as_is: npt.NDArray[np.float64], gains: Mapping[str, npt.NDArray[np.float64]]
) -> _Batch | None:
    """Find a run of rows whose neighbors are more alike if they are moved; of several, the one that is the surest.

    Args:
        places: of the first row of each pair.
        as_is: difference of each pair.
        gains: how much smaller it is if rows are moved, by how they are.
    """
    half = np.bincount(places // (_SHORTEST // 2))
    sizes = [_SHORTEST << power for power in range(max(1, (len(half) * (_SHORTEST // 2) // _SHORTEST).bit_length()))]
    tests = sum(2 * (len(half) * (_SHORTEST // 2) // size + 1) for size in sizes) * len(gains)
    best, found = NormalDist().inv_cdf(1 - _CHANCE / tests), None
    for size, shifted, (name, gain) in product(sizes, (False, True), gains.items()):
        offset = size // 2 if shifted else 0
        labels = (places + offset) // size
        count = np.maximum(np.bincount(labels), 1)
        mean, usual = (np.bincount(labels, each) / count for each in (gain, as_is))
        spread = np.sqrt(np.maximum(np.bincount(labels, gain**2) / count - mean**2, 1e-24))
        sure = np.where((count >= _NEIGHBORS) & (mean > _LEAST * usual), mean / spread * np.sqrt(count), -np.inf)
        at = int(sure.argmax())
        if sure[at] > best:
            best, found = float(sure[at]), _Batch(max(at * size - offset, 0), size, name)
    return found


def _some_of_each(context: ReleaseContext) -> tuple[npt.NDArray[np.float32], Ints, Ints]:
    """Return a few values of each chip of the files that are compared, its key for `Pairs`, and its row."""
    facts, slices = context.scan.facts, context.scan.facts.slices()
    paths = [path for path in facts.some if len(facts.some[path]) == slices[path].stop - slices[path].start]
    if not paths:
        return np.empty((0, 1), np.float32), np.empty(0, np.int64), np.empty(0, np.int64)
    rows = np.concatenate([np.arange(slices[path].start, slices[path].stop) for path in paths])
    keys = context.extra.blocks_of_chips(facts, 1)[rows]
    return _standardized(np.concatenate([facts.some[path] for path in paths])), keys, rows


def _files(context: ReleaseContext, rows: Ints) -> Ints:
    """Number of the file of each row of the release."""
    return np.asarray(np.searchsorted(context.scan.facts.starts, rows, side="right"), np.int64)


def _standardized(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Each column less its median, in robust standard deviations, cut at five."""
    with np.errstate(invalid="ignore", over="ignore"):
        finite = np.nan_to_num(values, posinf=0, neginf=0)
        centered = finite - np.median(finite, axis=0)
        spread = 1.4826 * np.median(np.abs(centered), axis=0) + 1e-12
        return np.asarray(np.clip(centered / spread, -5, 5), dtype=np.float32)
