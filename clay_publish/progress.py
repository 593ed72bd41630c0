"""How a stage tells what it is doing, without knowing who listens."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Progress:
    """One step of a stage."""

    stage: str
    """`plan`, `produce`, `catalog`, `card`, `validate`, `rules`, `publish`, `verify` or `audit`."""

    done: int
    """How many of `unit` are finished so far."""

    total: int
    """How many in all; 0 while unknown."""

    message: str = ""
    """What was just finished, or what the reader should know."""

    unit: Literal["steps", "chips", "files", "items", "rules", "versions", "bytes"] = "steps"
    """What is counted."""


Report = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """Report nothing."""
