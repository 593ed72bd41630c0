"""Which of the units one worker of a batch service makes."""

from collections.abc import Sequence
from itertools import accumulate

from clay_publish.producer.layouts.base import Unit
from clay_publish.release.lease.base import Share


def units_of(share: Share, units: Sequence[Unit]) -> tuple[Unit, ...]:
    """The units of one share, in the order of the plan. All shares have about as many expected chips.

    Units are dealt out along the published files, so that most files are of one share alone, which publishes them.

    Args:
        share: which one.
        units: of the plan.
    """
    order = sorted(range(len(units)), key=lambda n: (units[n].files[:1], n))
    # A unit of which nobody knows how many chips it has counts as one: it is there, and somebody has to make it.
    chips = [max(1, units[n].chips) for n in order]
    total = sum(chips)
    # A unit is of the share in which its middle lies. Twice the chips: whole numbers have no rounding to differ in.
    middles = (2 * until - count for until, count in zip(accumulate(chips), chips, strict=True))
    mine = [n for n, middle in zip(order, middles, strict=True) if middle * share.of // (2 * total) + 1 == share.number]
    return tuple(units[n] for n in sorted(mine))
