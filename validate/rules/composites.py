"""Rules on chips of several acquisitions: how many there are, which, and over which period."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from clay_publish.release.tables import COMBINED
from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.data.chips import ChipRows
from clay_publish.validate.data.coverage_table import micros
from clay_publish.validate.outcomes import BadRows, bad_rows
from clay_publish.validate.registry import row_rule

_SECOND = 1_000_000
"""Microseconds, as catalogs round."""
_FIRST, _LAST = np.iinfo(np.int64).min, np.iinfo(np.int64).max

Ints = npt.NDArray[np.int64]


@row_rule("PRV019")
def images_are_counted(chips: ChipRows, context: ReleaseContext) -> Sequence[BadRows]:
    """`images` and the observations, against `item_ids`, the acquisitions of the sources, and the spec."""
    every, there = np.ones(len(chips), dtype=bool), [name for name in COMBINED if chips.has(name)]
    if not context.fingerprint.combines:
        return bad_rows(every, f"has the columns {', '.join(there)}", "none of composites") if there else []
    if len(there) < len(COMBINED):
        return bad_rows(every, f"has of the columns of composites only {there}", ", ".join(COMBINED))
    images, least, median = (chips.floats(name) for name in COMBINED)
    spec = context.documents.spec
    composite, steps = spec.imagery[0].composite, spec.model.steps or 1
    most = steps if spec.images_in_order or composite is None else composite.most * steps
    needed = 1 if composite is None else composite.min_valid
    counted = _acquisitions(chips, context)
    with np.errstate(invalid="ignore"):
        return [
            *bad_rows(images != counted, _number("images", images), "the number of acquisitions of item_ids"),
            *bad_rows(~((images >= 1) & (images <= most)), _number("images", images), f"1 to {most}"),
            *bad_rows(~(least >= needed), _number("observations_min", least), f"at least {needed}, as min_valid says"),
            *bad_rows(
                ~((median >= least) & (median <= images)),
                _number("observations_median", median),
                "between observations_min and images",
            ),
        ]


@row_rule("TIM010")
def period_is_the_images_(chips: ChipRows, context: ReleaseContext) -> Sequence[BadRows]:
    """Start, end, moment and `item_id`, against the images that `item_ids` names."""
    if not context.fingerprint.combines:
        return []
    sources = context.sources.items
    if not sources:
        return []
    starts, ends, moments = (
        np.array([_FIRST if time is None else micros(time) for time in times], dtype=np.int64)
        for times in zip(*((s.start or s.moment, s.end or s.moment, s.moment) for s in sources), strict=True)
    )
    places, rows = _images(chips, context)
    known = (moments[places] != _FIRST) & (places >= 0)
    places, rows = places[known], rows[known]
    first, last = _over(np.minimum, moments[places], rows, chips), _over(np.maximum, moments[places], rows, chips)
    asked = np.zeros(len(chips), dtype=bool)
    asked[rows] = True
    said = {name: chips.micros(name) for name in ("datetime", "start_datetime", "end_datetime")}
    expected = {
        "datetime": np.where(asked, first, 0) // 2 + np.where(asked, last, 0) // 2,
        "start_datetime": _over(np.minimum, starts[places], rows, chips),
        "end_datetime": _over(np.maximum, ends[places], rows, chips),
    }
    found = []
    for name, values in said.items():
        far = np.abs(np.where(asked, values - expected[name], 0)) > _SECOND
        found += bad_rows(far, _time(name, values), "as the images of item_ids say")
    if chips.path in context.tables.named:
        middle = micros(context.tables.named[chips.path].window.middle)
        away = np.abs(moments - middle)
        own = context.sources.places(chips)
        nearest = _over(np.minimum, away[places], rows, chips)
        far = asked & (own >= 0) & (away[own] > nearest + _SECOND)
        found += bad_rows(
            far, lambda row: f"item_id {chips.value('item_id', row)!r}", "the image nearest to the window's middle"
        )
    return found


def _images(chips: ChipRows, context: ReleaseContext) -> tuple[Ints, Ints]:
    """Place of each image of each chip among the sources, −1 where it is not, and the chip's row."""

    def find() -> tuple[Ints, Ints]:
        lists = chips.column("item_ids")
        known = pc.index_in(pc.cast(pc.list_flatten(lists), "string"), value_set=context.sources.ids).fill_null(-1)
        rows = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False).astype(np.int64)
        return known.to_numpy(zero_copy_only=False).astype(np.int64), rows

    found: tuple[Ints, Ints] = chips.once("images", find)
    return found


def _acquisitions(chips: ChipRows, context: ReleaseContext) -> Ints:
    """How many acquisitions the images of each chip are of."""
    names = [source.counted_as for source in context.sources.items]
    number = np.unique(names, return_inverse=True)[1] if names else np.zeros(0, np.int64)
    places, rows = _images(chips, context)
    pairs = np.unique(np.stack([rows[places >= 0], number[places[places >= 0]]], axis=1), axis=0)
    return np.bincount(pairs[:, 0], minlength=len(chips)).astype(np.int64)


def _over(ufunc: np.ufunc, values: Ints, rows: Ints, chips: ChipRows) -> Ints:
    """The least or greatest of the values of each row."""
    made = np.full(len(chips), _LAST if ufunc is np.minimum else _FIRST, dtype=np.int64)
    ufunc.at(made, rows, values)
    return made


def _number(name: str, values: npt.NDArray[np.floating]) -> Callable[[int], str]:
    return lambda row: f"{name} {values[row]:g}"


def _time(name: str, values: Ints) -> Callable[[int], str]:
    return lambda row: f"{name} {np.datetime64(int(values[row]), 'us')}"
