"""What an imagery block asks of its sources, and the filters that are applied to whatever they answer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cql2
import shapely

from clay_publish.errors import SpecError
from clay_publish.windows import Window

_COMPARE: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "eq": ("=", lambda value, limit: bool(value == limit)),
    "neq": ("<>", lambda value, limit: bool(value != limit)),
    "lt": ("<", lambda value, limit: bool(value < limit)),
    "lte": ("<=", lambda value, limit: bool(value <= limit)),
    "gt": (">", lambda value, limit: bool(value > limit)),
    "gte": (">=", lambda value, limit: bool(value >= limit)),
    "in": ("in", lambda value, limit: bool(value in limit)),
}
"""Operators of the STAC API's query extension, and their names in CQL2."""


@dataclass(frozen=True)
class Search:
    """One block's question."""

    collections: tuple[str, ...] = ()
    windows: tuple[Window, ...] = ()
    area: shapely.Geometry | None = None
    """OGC:CRS84."""
    query: Mapping[str, Any] | None = None
    """As in the spec: the query extension's form, or a filter in CQL2 JSON (`op`, `args`)."""

    def __post_init__(self) -> None:
        if self.is_cql2:
            _ = self._expression
            return
        for key, tests in self._tests():
            if unknown := set(tests) - set(_COMPARE):
                raise SpecError(
                    f"imagery.query.{key}",
                    f"has the operator {min(unknown)!r}",
                    f"one of {', '.join(_COMPARE)}, or a filter in CQL2 JSON",
                )

    @property
    def is_cql2(self) -> bool:
        """Whether `query` is a CQL2 filter."""
        return self.query is not None and set(self.query) == {"op", "args"}

    def as_query(self) -> dict[str, Any] | None:
        """For an API with the query extension."""
        return None if self.is_cql2 or not self.query else {key: dict(tests) for key, tests in self._tests()}

    def as_cql2(self) -> dict[str, Any] | None:
        """For an API with the filter extension."""
        if not self.query:
            return None
        if self.is_cql2:
            return dict(self.query)
        every = [
            {"op": _COMPARE[name][0], "args": [{"property": key}, limit]}
            for key, tests in self._tests()
            for name, limit in tests.items()
        ]
        return every[0] if len(every) == 1 else {"op": "and", "args": every}

    def fails(self, item: Mapping[str, Any]) -> str | None:
        """Why an item does not pass the query; None where it does.

        Raises:
            SpecError: a value cannot be compared with what the spec says.
        """
        if self.is_cql2:
            try:
                passes = self._expression.matches(dict(item))
            except Exception as error:  # noqa: BLE001 - cql2 raises no class of its own
                return f"cannot be asked the filter ({error})"
            return None if passes else "does not pass the filter"
        for key, tests in self._tests():
            value = item["properties"].get(key)
            for name, limit in tests.items():
                if value is None:
                    return f"has no {key}"
                try:
                    passes = _COMPARE[name][1](value, limit)
                except TypeError as error:
                    raise SpecError(
                        f"imagery.query.{key}", f"compares {value!r} with {limit!r}", "a value of the same type"
                    ) from error
                if not passes:
                    return f"{key} is not {name} {limit!r} ({value!r})"
        return None

    def _tests(self) -> list[tuple[str, Mapping[str, Any]]]:
        return [(key, tests if isinstance(tests, dict) else {"eq": tests}) for key, tests in (self.query or {}).items()]

    @cached_property
    def _expression(self) -> Any:
        try:
            expression = cql2.Expr(dict(self.query or {}))
            expression.validate()
        except Exception as error:
            raise SpecError(
                "imagery.query", f"is no CQL2 filter ({error})", 'such as {"op": "<", "args": […]}'
            ) from error
        return expression
