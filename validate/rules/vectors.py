"""Rules on single vectors."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from clay_publish.release.findings import Severity
from clay_publish.validate.context import View
from clay_publish.validate.data.chip_facts import repeated
from clay_publish.validate.data.chips import ChipRows
from clay_publish.validate.data.single_rows import value
from clay_publish.validate.registry import BadRows, Fault, Outcome, bad_rows, row_rule, rule

_ERROR, _WARNING = Severity.ERROR, Severity.WARNING
_CONSTANT = 1e-5
"""Standard deviation over the values of a vector, relative to its size, below which all are the same."""
_SATURATED = 0.02
"""Share of int8 values at the end of the range. A scale per row puts one value there, clipping puts many."""
_NEAR = 1e-5
"""Degrees, about a metre: chips nearer than this show the same ground."""


@row_rule(
    "VEC001",
    _ERROR,
    "No vector holds NaN or infinite values",
    reason="One NaN turns every distance, mean and model it enters into NaN.",
    fix="Drop the row and record the chip as `invalid_vector`.",
)
def finite(chips: ChipRows, _: View) -> Sequence[BadRows]:
    """Σx² is finite only when every x is; large values that overflow it are looked at again."""
    suspect = np.flatnonzero(~np.isfinite(chips.sums.squares))
    bad = np.zeros(len(chips), dtype=bool)
    if suspect.size:
        bad[suspect] = ~np.isfinite(chips.values(suspect)).all(axis=1)

    def found(row: int) -> str:
        values = chips.values(np.array([row]))[0]
        return f"{int(np.isnan(values).sum())} NaN and {int(np.isinf(values).sum())} infinite values"

    return list(bad_rows(bad, found, "finite numbers"))


@row_rule(
    "VEC002",
    _ERROR,
    "No vector is all zeros",
    reason="Zeros that mean `no data` look like a place: they have neighbours, and cosine is undefined.",
    fix="Drop the row and record the chip as `nodata` or `invalid_vector`.",
)
def not_zero(chips: ChipRows, _: View) -> Sequence[BadRows]:
    """Zeros as nodata."""
    zero = (chips.sums.squares == 0) & ~chips.nulls("embedding")
    if zero.any():
        zero[zero] = (chips.stored[zero] == 0).all(axis=1) | _scale_is_zero(chips)[zero]
    return list(bad_rows(zero, lambda _: "all values are 0", "a vector"))


def _scale_is_zero(chips: ChipRows) -> npt.NDArray[np.bool_]:
    return np.zeros(len(chips), dtype=bool) if chips.scales is None else chips.scales == 0


@row_rule(
    "VEC003",
    _ERROR,
    "No vector has the same value everywhere",
    reason="A constant vector is a fill value or a model that failed, not an embedding.",
    fix="Drop the row and record the chip as `invalid_vector`.",
)
def not_constant(chips: ChipRows, _: View) -> Sequence[BadRows]:
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
    return list(bad_rows(bad, lambda row: f"every value is {chips.values(np.array([row]))[0, 0]:g}", "a vector"))


@row_rule(
    "VEC004",
    _ERROR,
    "int8 vectors are not clipped",
    reason="Values cut off at ±127 are lost, and lost unevenly: the largest are what similarity depends on.",
    fix="Use a scale per row: the largest value of the row divided by 127.",
)
def not_saturated(chips: ChipRows, _: View) -> Sequence[BadRows]:
    """Share of values at the ends of the range."""
    if not np.issubdtype(chips.stored.dtype, np.signedinteger):
        return []
    ends = ((chips.stored >= 127) | (chips.stored <= -127)).mean(axis=1)
    most = max(_SATURATED, 3 / chips.stored.shape[1])
    return list(bad_rows(ends > most, lambda row: f"{ends[row]:.0%} of the values are ±127", f"at most {most:.0%}"))


@row_rule(
    "VEC005",
    _ERROR,
    "The scale of an int8 vector is a positive number",
    reason="value = stored × scale; a scale of 0, below 0 or NaN makes another vector of it.",
    fix="Write the scale that the vector was quantized with.",
)
def scale_is_positive(chips: ChipRows, _: View) -> Sequence[BadRows]:
    """The column `scale`."""
    if chips.scales is None:
        return []
    scales = chips.scales
    good = np.isfinite(scales) & (scales > 0)
    return list(bad_rows(~good, lambda row: f"scale {scales[row]:g}", "a positive number"))


@row_rule(
    "VEC006",
    _ERROR,
    "Loss and fractions are in their range",
    reason="People filter by them; a NaN or a percentage where a share is meant keeps the wrong chips.",
    fix="Write fractions as 0 to 1, losses as finite numbers from 0, and null where there is none.",
)
def quality_in_range(chips: ChipRows, _: View) -> Sequence[BadRows]:
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


@rule(
    "VEC007",
    _WARNING,
    "No two chips have the same vector",
    reason="The same vector for different ground means that pixels, or rows, were mixed up.",
    fix="Look at both chips: the same pixels, a fill value, or a batch that was written twice?",
)
def vectors_differ(view: View) -> Iterator[Outcome]:
    """Bit for bit; the same ground at the same time is GEO010's business."""
    facts = view.scan.facts
    groups = repeated(facts["vectors"])
    lon, lat, moments = facts["lon"], facts["lat"], facts["moments"]
    norms = facts["norms"]
    found: list[tuple[int, int]] = []
    for first, second in groups.examples():
        near = abs(lon[first] - lon[second]) < _NEAR and abs(lat[first] - lat[second]) < _NEAR
        if (near and moments[first] == moments[second]) or not norms[first] > 0:
            continue
        if value(view, "embedding", first) == value(view, "embedding", second):
            found.append((first, second))
            if len(found) == 3:
                break
    for first, second in found:
        a, b = facts.place(first), facts.place(second)
        more = f"; up to {groups.extra:,} rows repeat a vector" if groups.extra > len(found) else ""
        yield Fault(
            f"{b[0]}: row {b[1]} ({value(view, 'id', second)})",
            f"has the vector of row {a[1]} of {a[0]} ({value(view, 'id', first)}){more}",
            "vectors of their own",
        )
