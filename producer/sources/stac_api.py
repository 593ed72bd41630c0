"""Asking a STAC API: conformance first, then page after page."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

import shapely
from pystac import Link, STACError
from pystac.link import HREF
from pystac_client import Client, ConformanceClasses
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO

from clay_publish.errors import AccessError, SourceError, StoreError
from clay_publish.producer.sources.http import MAX_DOCUMENT
from clay_publish.producer.sources.query import Search
from clay_publish.storage.http import Client as WebClient
from clay_publish.storage.http import ServerError
from clay_publish.windows import Window

_PAGE = 250
_MAX_POINTS = 1_000
"""Of an outline sent with a search; of larger ones the bounds are sent, and the outline is applied here."""


class _Io(StacApiIO):
    """Requests of pystac-client, sent by the client of this program."""

    def __init__(self, where: str) -> None:
        super().__init__(max_retries=None)
        self._web = WebClient(origin=where)

    def read_text(self, source: HREF, *args: Any, **kwargs: Any) -> str:
        """A document from a web server, never a local file."""
        if not isinstance(source, Link) and not str(source).startswith(("http://", "https://")):
            raise AccessError(str(source), "is no address of an API", "http:// or https://")
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
        except (StoreError, AccessError, APIError, STACError) as error:
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
