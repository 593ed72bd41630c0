"""Properties that are computed once."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from clay_publish.errors import ClayPublishError

T = TypeVar("T")


class once(Generic[T]):  # noqa: N801 - used as a decorator
    """As `functools.cached_property`, and an error is remembered too: what is slow to refuse is read once."""

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute = compute
        self._name = compute.__name__
        self.__doc__ = compute.__doc__

    def __get__(self, instance: Any, _: type) -> T:
        failures: dict[str, ClayPublishError] = instance.__dict__.setdefault("_failures", {})
        if self._name in failures:
            raise failures[self._name].with_traceback(None)
        try:
            value = self._compute(instance)
        except ClayPublishError as error:
            failures[self._name] = error
            raise
        instance.__dict__[self._name] = value  # found before this descriptor from now on
        return value
