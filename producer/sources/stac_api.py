"""Asking a STAC API: conformance first, then page after page."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import requests
import shapely
from pystac import STACError
from pystac_client import Client, ConformanceClasses
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO

from clay_publish.errors import SourceError
from clay_publish.producer.sources.http import RETRY, TIMEOUT
from clay_publish.producer.sources.query import Search
from clay_publish.windows import Window

_PAGE = 250
_MAX_POINTS = 1_000
"""Of an outline sent with a search; of larger ones the bounds are sent, and the outline is applied here."""


class Api:
    """A STAC API that can be searched.

    Raises:
        SourceError: here and below: it cannot be reached or searched, fails again and again, or answers garbage.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        with self._errors():
            self._client = Client.open(where, stac_io=StacApiIO(timeout=TIMEOUT, max_retries=RETRY))
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
            except APIError as error:
                if error.status_code == 404:
                    return None
                raise
            return None if found is None else found.to_dict(include_self_link=False, transform_hrefs=False)

    def _questions(self, search: Search) -> Iterator[dict[str, Any]]:
        """One a window: an API takes one interval."""
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
        except (requests.RequestException, APIError, STACError) as error:
            raise self._unusable(error, "Try again later.") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._unusable(error, "This is no answer of a STAC API.") from error

    def _unusable(self, error: Exception, fix: str) -> SourceError:
        said = " ".join(str(error).split())[:300]
        return SourceError(self.where, f"cannot be searched ({type(error).__name__}: {said})", "", fix)


def _ground(area: shapely.Geometry) -> dict[str, Any]:
    """The outline, or of a long one its bounds; across the antimeridian those are no use, and nothing is sent."""
    if shapely.get_num_coordinates(area) <= _MAX_POINTS:
        return {"intersects": shapely.geometry.mapping(area)}
    west, south, east, north = area.bounds
    return {} if west <= -180 and east >= 180 else {"bbox": [west, south, east, north]}


def _interval(window: Window) -> str:
    """Closed at both ends, as an API has it; whoever reads the items leaves out our end."""
    return f"{window.start:%Y-%m-%dT%H:%M:%SZ}/{window.end:%Y-%m-%dT%H:%M:%SZ}"
