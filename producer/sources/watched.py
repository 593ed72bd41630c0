"""Values of an item that may be watched, to know which other items are read in the same way."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any


class Recording(ABC):
    """A value that records what is read of it."""

    __slots__ = ()

    @abstractmethod
    def derive(self, function: Callable[..., Any], *args: Any) -> Any:
        """Return `function(value, *args)`, and record this result instead of the value."""


def derive(value: Any, function: Callable[..., Any], *args: Any) -> Any:
    """Return `function(value, *args)`. Of a watched value, this result is recorded instead of the value.

    Use it for what differs from item to item, such as names of files: two items are read in the same way where the
    results are equal, even if the values are not. What is read otherwise is compared as a whole.

    Args:
        value: of an item; None where it has none.
        function: of a module, without effects; returns text, numbers, booleans, None, or tuples of these.
        args: further arguments, which are the same for all items.
    """
    return value.derive(function, *args) if isinstance(value, Recording) else function(value, *args)
