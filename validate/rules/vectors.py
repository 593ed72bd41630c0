"""Rules on single vectors, and on pairs of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from clay_publish.release.directory import EMBEDDINGS
from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.data.chip_facts import ReleaseFacts, repeated
from clay_publish.validate.data.chips import ChipRows
from clay_publish.validate.data.neighbors import EAST, Floats, Ints, mean_differences, on_all_cores
from clay_publish.validate.outcomes import BadRows, Fault, NotChecked, Outcome, Sampled, bad_rows
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
    ways = compared.differences.along
    first = np.concatenate([way.first for way in ways.values()])
    second = np.concatenate([way.second for way in ways.values()])
    if len(values) < _NEIGHBORS or len(first) < _NEIGHBORS:
        yield NotChecked(f"{len(first):,} pairs of neighbors are too few to tell")
        return
    yield Sampled(len(values), context.scan.facts.rows)
    as_is = np.concatenate([way.differences[way.first] for way in ways.values()]).astype(np.float64)
    kept = _PairSums(np.minimum(first, second) // _CELL, np.arange(len(first)) < len(ways[EAST].first), as_is)

    def moved(order: Ints) -> Gain:
        return kept.gain(as_is - mean_differences(values[order], first, second))

    orders = [np.concatenate([np.roll(each, step) for each in files]) for step in _STEPS]
    *gained, backward = on_all_cores(moved, [*orders, np.concatenate([each[::-1] for each in files])])
    gains, whole = dict(zip(_STEPS, gained, strict=True)), _Run(kept.cells, 0)
    sure = _quantile(len(gains) + 2)
    for name, gain, opposite in (
        *((f"moved by {step:+}", gain, gains[-step]) for step, gain in gains.items()),
        ("in reverse order", backward, None),
    ):
        if kept.certainty(whole, gain, opposite).max() > sure:
            yield Fault(
                EMBEDDINGS, f"neighbors are more alike if rows are {name}", "vectors in the rows of their chips"
            )
            return
    batch = _misplaced(kept, gains)
    if batch is not None:
        start, count, step = batch
        path, row = context.scan.facts.place(int(compared.rows[start]))
        found = f"neighbors are more alike if about {count:,} rows are moved by {step:+}"
        yield Fault(f"{path}: from about row {row}", found, "vectors in the rows of their chips")
        return
    draw = np.random.default_rng(11)
    others = mean_differences(values, first, draw.permutation(second))
    error = np.sqrt(as_is.var() / len(as_is) + others.var() / len(others))
    if others.mean() - as_is.mean() + sure * error < _LEAST * others.mean():
        found = f"neighbors differ {as_is.mean() / others.mean():.2f} times as much as random pairs"
        yield Fault(EMBEDDINGS, found, "clearly less: places beside each other look alike")


def _quantile(tests: int) -> float:
    """Standard errors that chance exceeds in one of so many tests with a probability of `_CHANCE`."""
    return NormalDist().inv_cdf(1 - _CHANCE / tests)


_CELL = _SHORTEST // 2
"""Rows whose pairs are summed up once: runs of rows begin and end with one."""

Gain = tuple[Floats, Floats]
"""How much smaller the differences of pairs are if rows are moved, and the squares of that: sums as of `_PairSums`."""


@dataclass(frozen=True)
class _Run:
    """Runs of so many cells, of which the first begins so many cells before the first row."""

    cells: int
    before: int

    def sums(self, each: Floats) -> Floats:
        """Add up what cells hold, [cells, 2], over the cells of each run."""
        runs = -(-(len(each) + self.before) // self.cells)
        padded = np.pad(each, ((self.before, runs * self.cells - self.before - len(each)), (0, 0)))
        return np.asarray(padded.reshape(runs, self.cells, 2).sum(axis=1), dtype=np.float64)


class _PairSums:
    """Pairs of neighbors, summed up by cells of rows, along columns and along rows of chips: [cells, 2]."""

    def __init__(self, cells: Ints, east: npt.NDArray[np.bool_], as_is: Floats) -> None:
        self._places, self.cells = 2 * cells + east, int(cells.max()) + 1
        self._count, self._as_is = self._sums(None), self._sums(as_is)

    def _sums(self, weights: Floats | None) -> Floats:
        sums = np.bincount(self._places, weights, 2 * self.cells)
        return np.asarray(sums.reshape(-1, 2), dtype=np.float64)

    def gain(self, gain: Floats) -> Gain:
        """Sum up how much smaller the difference of each pair is if rows are moved."""
        return self._sums(gain), self._sums(gain**2)

    def certainty(self, run: _Run, gain: Gain, opposite: Gain | None) -> Floats:
        """Return by how many standard errors neighbors in each run are more alike if rows are moved; 0 if not clearly.

        It is clear if they are so both along rows and along columns, and not as much if rows are moved the other way.
        """
        count, as_is, gained, squares = (run.sums(each) for each in (self._count, self._as_is, *gain))
        pairs, total = count.sum(axis=1), gained.sum(axis=1)
        clear = (pairs >= _NEIGHBORS) & (total > _LEAST * as_is.sum(axis=1)) & (gained >= _BOTH * as_is).all(axis=1)
        if opposite is not None:
            clear &= run.sums(opposite[0]).sum(axis=1) < total / 2
        usual = total / np.maximum(pairs, 1)
        spread = np.sqrt(np.maximum(squares.sum(axis=1) / np.maximum(pairs, 1) - usual**2, 1e-24))
        return np.where(clear, usual / spread * np.sqrt(pairs), 0.0)


def _misplaced(kept: _PairSums, gains: Mapping[int, Gain]) -> tuple[int, int, int] | None:
    """Return start and number of rows whose neighbors are most certainly more alike if moved, and by which step."""
    sizes = [2 << power for power in range(max(1, (kept.cells // 2).bit_length()))]
    tries = list(product((_Run(size, before) for size in sizes for before in (0, size // 2)), gains))
    best, found = _quantile(sum(kept.cells // run.cells + 2 for run, _ in tries)), None
    for run, step in tries:
        sure = kept.certainty(run, gains[step], gains[-step])
        at = int(sure.argmax())
        if sure[at] > best:
            best, found = float(sure[at]), (max(at * run.cells - run.before, 0) * _CELL, run.cells * _CELL, step)
    return found
