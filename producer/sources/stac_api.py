"""Asking a STAC API: conformance first, then page after page."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import urlencode

import cql2
import shapely
from pystac import Link, STACError
from pystac.link import HREF
from pystac_client import Client, ConformanceClasses
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO

from clay_publish.errors import AccessError, SourceError, SpecError, StoreError
from clay_publish.storage.http import HttpClient, ServerError
from clay_publish.windows import Window

MAX_DOCUMENT = 256_000_000
"""Bytes of one document of STAC."""
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
                "imagery.query", f"is not a CQL2 filter ({error})", 'such as {"op": "<", "args": […]}'
            ) from error
        return expression


_PAGE = 250
_MAX_POINTS = 1_000
"""Of an outline sent with a search; of larger ones the bounds are sent, and the outline is applied here."""


class _Io(StacApiIO):
    """Requests of pystac-client, sent by the client of this program."""

    def __init__(self, where: str) -> None:
        super().__init__(max_retries=None)
        self._web = HttpClient(origin=where)

    def read_text(self, source: HREF, *args: Any, **kwargs: Any) -> str:
        """A document from a web server, never a local file."""
        if not isinstance(source, Link) and not str(source).startswith(("http://", "https://")):
            raise AccessError(str(source), "is not an address of an API", "http:// or https://")
        return super().read_text(source, *args, **kwargs)

    def request(
        self,
        href: str,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> str:
        """An answer, in bounded size and time."""
        posted = (method or "GET").upper() == "POST"
        asked = "" if posted or not parameters else f"{'&' if '?' in href else '?'}{urlencode(parameters)}"
        body = (parameters or {}) if posted else None
        data = self._web.read(
            f"{href}{asked}", MAX_DOCUMENT, method="POST" if posted else "GET", body=body, headers=headers
        )
        return data.decode("utf-8")


class Api:
    """A STAC API that can be searched.

    Raises:
        SourceError: here and below: it cannot be reached or searched, fails again and again, or answers garbage.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        with self._errors():
            self._client = Client.open(where, stac_io=_Io(where))
            if not self._client.conforms_to(ConformanceClasses.ITEM_SEARCH):
                raise SourceError(
                    where, "cannot be searched", "a STAC API with item-search", "Name a static catalog or a file."
                )

    def items(self, search: Search) -> Iterator[dict[str, Any]]:
        """Items that it finds, each once. What it cannot filter by is left for the reader to apply."""
        seen: set[tuple[Any, Any]] = set()
        with self._errors():
            for question in self._questions(search):
                for item in self._pages(question):
                    key = (item.get("collection"), item["id"])
                    if key not in seen:
                        seen.add(key)
                        yield item

    def collection(self, name: str) -> Mapping[str, Any] | None:
        """A collection as it describes it; None where it has none of this name."""
        with self._errors():
            try:
                found = self._client.get_collection(name)
            except ServerError as error:
                if error.status == 404:
                    return None
                raise
            return None if found is None else found.to_dict(include_self_link=False, transform_hrefs=False)

    def _questions(self, search: Search) -> Iterator[dict[str, Any]]:
        """One per window: an API takes one interval."""
        common: dict[str, Any] = {"limit": _PAGE}
        if search.collections:
            common["collections"] = list(search.collections)
        if search.area is not None:
            common |= _ground(search.area)
        if search.as_query() and self._client.conforms_to(ConformanceClasses.QUERY):
            common["query"] = search.as_query()
        elif search.as_cql2() and self._client.conforms_to(ConformanceClasses.FILTER):
            common |= {"filter": search.as_cql2(), "filter_lang": "cql2-json"}
        for window in search.windows or (None,):
            yield common if window is None else {**common, "datetime": _interval(window)}

    def _pages(self, question: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        here: set[tuple[Any, Any]] = set()
        for page in self._client.search(**question).pages_as_dicts():
            keys = {(item.get("collection"), item["id"]) for item in page["features"]}
            if keys and here >= keys:
                raise SourceError(self.where, "gives items of a page again on another one", "pages that end")
            here |= keys
            yield from page["features"]

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (StoreError, AccessError, APIError, STACError) as error:
            raise self._unusable(error, "Try again later.") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._unusable(error, "This is not an answer of a STAC API.") from error

    def _unusable(self, error: Exception, fix: str) -> SourceError:
        said = " ".join(str(error).split())[:300]
        return SourceError(self.where, f"cannot be searched ({type(error).__name__}: {said})", "", fix)


def _ground(area: shapely.Geometry) -> dict[str, Any]:
    """The outline, or of a long one its bounds; across the antimeridian those are of no use, and nothing is sent."""
    if shapely.get_num_coordinates(area) <= _MAX_POINTS:
        return {"intersects": shapely.geometry.mapping(area)}
    west, south, east, north = area.bounds
    return {} if west <= -180 and east >= 180 else {"bbox": [west, south, east, north]}


def _interval(window: Window) -> str:
    """Closed at both ends, as in the API; the caller drops items at our open end."""
    return f"{window.start:%Y-%m-%dT%H:%M:%SZ}/{window.end:%Y-%m-%dT%H:%M:%SZ}"
