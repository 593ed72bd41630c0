"""A share of a run: which of the units one worker of a batch service makes."""

import re
from dataclasses import dataclass
from typing import Self

from clay_publish.errors import SpecError

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
