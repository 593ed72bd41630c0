"""How a stage tells what it is doing, without knowing who listens."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Progress:
    """One step of a stage."""

    stage: str
    """`plan`, `produce`, `catalog`, `card`, `validate`, `publish` or `verify`."""

    done: int
    """Units of work finished so far."""

    total: int
    """Units of work in all; 0 where nobody knows yet."""

    message: str = ""
    """What was just finished, or what the reader should know."""

    unit: Literal["units", "bytes"] = "units"
    """What is counted."""


Report = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """Report to nobody."""
