"""A share of a run: which of the units one worker of a batch service makes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Self

from clay_publish.errors import SpecError
from clay_publish.producer.layouts.base import Unit

_WRITTEN = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")


@dataclass(frozen=True, order=True)
class Share:
    """Number N of M workers that make a run together; `str()` gives `N/M`."""

    number: int
    """From 1."""
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise _wrong(f"{self.number}/{self.of}")

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `2/4`.

        Raises:
            SpecError: it is no share: the number must be from 1 to the number of shares.
        """
        match = _WRITTEN.fullmatch(text.strip())
        if match is None:
            raise _wrong(text)
        return cls(int(match[1]), int(match[2]))


def _wrong(text: str) -> SpecError:
    return SpecError("share", f"is {text!r}", "N/M with N from 1 to M, such as 2/4")


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
