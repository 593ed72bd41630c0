"""Rules on single vectors, and on pairs of them."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from clay_publish.release.directory import EMBEDDINGS
from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.data.chip_facts import ReleaseFacts, repeated
from clay_publish.validate.data.chips import ChipRows
from clay_publish.validate.data.neighbors import Floats, Ints, Pairs
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
_CHANCE = 1e-6
"""Of a finding on good vectors, after correction for the ways and runs of rows that are tried."""
_SHORTEST = 256
"""Rows of a run that is looked at alone, at least: fewer have too few neighbors."""
_LEAST = 0.1
"""Share by which neighbors differ less than random pairs, or than as they are; real ones do by 0.4 and more."""
_BOTH = 0.02
"""The same along rows and along columns alone: a road or a river is alike along its course, however rows are moved."""
_STEPS = (-2, -1, 1, 2)


@rule("VEC024")
def neighbors_are_alike(context: ReleaseContext) -> Iterator[Outcome]:
    """A few values of each vector: differences of neighbors, of random pairs, and of rows moved or reversed."""
    compared = context.compared
    values, files = compared.values, [np.arange(each.start, each.stop) for each in compared.files]
    pairs = Pairs.of(compared.keys)
    first, second = (np.concatenate([pairs.east[side], pairs.next[side]]) for side in (0, 1))
    if len(values) < _NEIGHBORS or len(first) < _NEIGHBORS:
        yield NotChecked(f"{len(first):,} pairs of neighbors are too few to tell")
        return

    def differences(order: Ints) -> Floats:
        return np.asarray(np.abs(values[order[first]] - values[order[second]]).mean(axis=1), dtype=np.float64)

    as_is, east = differences(np.arange(len(values))), np.arange(len(first)) < len(pairs.east[0])
    gains = {step: as_is - differences(np.concatenate([np.roll(each, step) for each in files])) for step in _STEPS}
    backward = as_is - differences(np.concatenate([each[::-1] for each in files]))
    everywhere, sure = np.zeros(len(first), np.int64), _quantile(len(gains) + 2)
    for name, gain, opposite in (
        *((f"moved by {step:+}", gain, gains[-step]) for step, gain in gains.items()),
        ("in reverse order", backward, np.zeros_like(backward)),
    ):
        if _certainty(everywhere, as_is, gain, opposite, east).max() > sure:
            yield Fault(
                EMBEDDINGS, f"neighbors are more alike if rows are {name}", "vectors in the rows of their chips"
            )
            return
    batch = _misplaced(np.minimum(first, second), as_is, gains, east)
    if batch is not None:
        start, count, step = batch
        path, row = context.scan.facts.place(int(compared.rows[start]))
        found = f"neighbors are more alike if about {count:,} rows are moved by {step:+}"
        yield Fault(f"{path}: from about row {row}", found, "vectors in the rows of their chips")
        return
    draw = np.random.default_rng(11)
    others = np.asarray(np.abs(values[first] - values[draw.permutation(second)]).mean(axis=1), dtype=np.float64)
    error = np.sqrt(as_is.var() / len(as_is) + others.var() / len(others))
    if others.mean() - as_is.mean() + sure * error < _LEAST * others.mean():
        found = f"neighbors differ {as_is.mean() / others.mean():.2f} times as much as random pairs"
        yield Fault(EMBEDDINGS, found, "clearly less: places beside each other look alike")


def _quantile(tests: int) -> float:
    """Standard errors that chance exceeds in one of so many tests with a probability of `_CHANCE`."""
    return NormalDist().inv_cdf(1 - _CHANCE / tests)


def _certainty(groups: Ints, as_is: Floats, gain: Floats, opposite: Floats, east: npt.NDArray[np.bool_]) -> Floats:
    """Return by how many standard errors neighbors of each group are more alike if rows are moved; 0 if not clearly.

    It is clear if they are so both along rows and along columns, and not as much if rows are moved the other way.

    Args:
        groups: of each pair of neighbors.
        as_is: difference of each pair.
        gain: how much smaller it is if rows are moved.
        opposite: the same, if they are moved the other way.
        east: whether the pair lies along a row.
    """

    def mean(each: Floats, which: npt.NDArray[np.bool_] | None = None) -> Floats:
        weights = np.ones(len(each)) if which is None else which.astype(np.float64)
        total = np.maximum(np.bincount(groups, weights), 1)
        return np.asarray(np.bincount(groups, weights * each) / total, dtype=np.float64)

    count, usual = np.bincount(groups), mean(gain)
    clear = (count >= _NEIGHBORS) & (usual > _LEAST * mean(as_is)) & (mean(opposite) < usual / 2)
    for along in (east, ~east):
        clear &= mean(gain, along) >= _BOTH * mean(as_is, along)
    spread = np.sqrt(np.maximum(mean(gain**2) - usual**2, 1e-24))
    return np.where(clear, usual / spread * np.sqrt(count), 0.0)


def _misplaced(
    places: Ints, as_is: Floats, gains: Mapping[int, Floats], east: npt.NDArray[np.bool_]
) -> tuple[int, int, int] | None:
    """Return start and number of rows whose neighbors are most certainly more alike if moved, and by which step.

    Args:
        places: of the first row of each pair.
        as_is: difference of each pair.
        gains: how much smaller it is if rows are moved, by step.
        east: whether the pair lies along a row.
    """
    rows = int(places.max()) + 1
    sizes = [_SHORTEST << power for power in range(max(1, (rows // _SHORTEST).bit_length()))]
    tries = list(product(((size, offset) for size in sizes for offset in (0, size // 2)), gains))
    best, found = _quantile(sum(rows // size + 2 for (size, _), _ in tries)), None
    for (size, offset), step in tries:
        sure = _certainty((places + offset) // size, as_is, gains[step], gains[-step], east)
        at = int(sure.argmax())
        if sure[at] > best:
            best, found = float(sure[at]), (max(at * size - offset, 0), size, step)
    return found
