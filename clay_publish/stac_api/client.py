"""What the STAC API answers: items and the Collection, with addresses its clients can open."""

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import attr
import numpy as np
import pyarrow as pa
import shapely
from stac_fastapi.types.core import BaseCoreClient
from stac_fastapi.types.errors import NotFoundError
from stac_fastapi.types.requests import get_base_url
from stac_geoparquet.arrow import stac_table_to_items
from starlette.requests import Request

from clay_publish.release import directory as paths
from clay_publish.search.query import EXTENT_COLUMNS, Extent, QueryError
from clay_publish.search.reader import ReleaseReader
from clay_publish.search.row_groups import group_starts, read
from clay_publish.stac_api.cql2_arrow import geometry, matches, parse_filter, parse_json, properties

SECONDS = 20.0
"""Time that one question may take."""


class TimeLimitError(QueryError):
    """A question takes more time than a client may ask for."""


@dataclass(frozen=True)
class Question:
    """What a client asks for; None: no matter."""

    ids: Sequence[str] | None = None
    bbox: Sequence[float] | None = None
    intersects: Mapping[str, Any] | None = None
    datetime: str | None = None
    condition: Mapping[str, Any] | None = None
    """CQL2-JSON."""


@dataclass(frozen=True)
class Page:
    """Some of the items that were asked for."""

    items: pa.Table
    matched: int
    """How many there are on all pages."""
    following: int | None
    """Where the next page begins, in rows of `items.parquet`."""


def find_items(reader: ReleaseReader, question: Question, *, limit: int, start: int = 0) -> Page:
    """The items that answer a question, from row `start` of `items.parquet` on.

    Raises:
        QueryError: the query is invalid, or takes too long.
        ReleaseError: the table cannot be read.
    """
    release = reader.release
    file, where = release.parquet(paths.ITEMS), release.store.path(paths.ITEMS)
    shape, extent = _place(question)
    needed = _columns(question, exact=shape is not None)
    unknown = needed - set(file.schema_arrow.names)
    if unknown:
        raise QueryError("filter", f"asks for {min(unknown)!r}", "a property of the items", "`/queryables` lists them.")
    starts = group_starts(file.metadata)
    found, end = [], time.monotonic() + SECONDS
    for group in extent.row_groups(file.metadata):
        if time.monotonic() > end:
            raise TimeLimitError("search", f"takes more than {SECONDS:g} s", fix="Narrow bbox, datetime or filter.")
        rows = read(file, [group], sorted(needed), where)
        mask = extent.meets(rows)
        if question.ids is not None:
            mask &= np.isin(rows["id"].to_numpy(zero_copy_only=False), list(question.ids))
        if shape is not None and mask.any():
            near = np.flatnonzero(mask)
            wkb = rows["geometry"].to_numpy(zero_copy_only=False)[near]
            mask[near] = shapely.intersects(shapely.from_wkb(wkb), shape)
        if question.condition is not None and mask.any():
            mask &= matches(question.condition, rows)
        found.append(np.flatnonzero(mask) + starts[group])
    every = np.concatenate(found) if found else np.empty(0, dtype=np.int64)
    rest = every[every >= start]
    following = int(rest[limit]) if len(rest) > limit else None
    return Page(reader.rows(rest[:limit]), len(every), following)


def _place(question: Question) -> tuple[shapely.Geometry | None, Extent]:
    """The exact shape, and a box and time around it."""
    if question.bbox is not None and question.intersects is not None:
        raise QueryError("bbox", "and intersects exclude each other", "one of them")
    bbox = question.bbox
    if bbox is not None:
        sides = [bbox[0], bbox[1], bbox[3], bbox[4]] if len(bbox) == 6 else list(bbox)
        extent = Extent.of(sides, question.datetime)
        return geometry({"bbox": sides}), extent
    if question.intersects is not None:
        shape = geometry(question.intersects)
        if shape.is_empty:
            raise QueryError("intersects", "is empty", "a geometry with points")
        west, south, east, north = shape.bounds
        box = [max(west, -180), max(south, -90), min(east, 180), min(north, 90)]
        return shape, Extent.of(box, question.datetime)
    return None, Extent.of(None, question.datetime)


def _columns(question: Question, *, exact: bool) -> set[str]:
    needed = {*EXTENT_COLUMNS}
    if question.ids is not None:
        needed.add("id")
    if exact:
        needed.add("geometry")
    return needed | (properties(question.condition) if question.condition is not None else set())


DATA = "data"
"""Where the files of a release in a directory are found."""

_TITLES = {
    "self": "This document",
    "root": "The API",
    "parent": "What holds this",
    "collection": "The release",
    "items": "Its items",
    "next": "The next page",
}
_GEOJSON = "application/geo+json"
_JSON = "application/json"


@attr.s
class ReleaseClient(BaseCoreClient):
    """What the API answers."""

    reader: ReleaseReader = attr.ib(kw_only=True)
    document: dict[str, Any] = attr.ib(kw_only=True)

    def landing_page(self, **more: Any) -> Any:
        """`GET /`."""
        page = super().landing_page(**more)
        href = f"{get_base_url(more['request'])}collections/{self._id}"
        page["links"].append(
            {"rel": "child", "href": href, "type": _JSON, "title": self.document.get("title", self._id)}
        )
        return page

    def all_collections(self, **more: Any) -> Any:
        """`GET /collections`: the release alone."""
        base = get_base_url(more["request"])
        links = [_link("self", f"{base}collections", _JSON), _link("root", base, _JSON)]
        return {"collections": [self.get_collection(self._id, **more)], "links": links}

    def get_collection(self, collection_id: str, **more: Any) -> Any:
        """`GET /collections/{id}`."""
        self._check(collection_id)
        base = get_base_url(more["request"])
        here = f"{base}collections/{self._id}"
        made = copy.deepcopy(self.document)
        for place in (*made.get("assets", {}).values(), *made.get("links", [])):
            place["href"] = self._absolute(place["href"], base)
        kept = [link for link in made.get("links", []) if link["rel"] not in {"self", "root", "parent", "items"}]
        own = [
            _link("self", here, _JSON),
            _link("parent", base, _JSON),
            _link("root", base, _JSON),
            _link("items", f"{here}/items", _GEOJSON),
        ]
        return made | {"links": own + kept}

    def get_item(self, item_id: str, collection_id: str, **more: Any) -> Any:
        """`GET /collections/{id}/items/{id}`."""
        self._check(collection_id)
        page = find_items(self.reader, Question(ids=[item_id]), limit=1)
        if not page.matched:
            msg = f"{collection_id} has no item {item_id}"
            raise NotFoundError(msg)
        return self._features(page.items, get_base_url(more["request"]))[0]

    def item_collection(
        self,
        collection_id: str,
        bbox: Any = None,
        datetime: str | None = None,
        limit: int | None = 10,
        token: str | None = None,
        **more: Any,
    ) -> Any:
        """`GET /collections/{id}/items`."""
        self._check(collection_id)
        request = more["request"]
        page = find_items(self.reader, Question(bbox=bbox, datetime=datetime), limit=limit or 10, start=_start(token))
        here = f"{get_base_url(request)}collections/{self._id}/items"
        return self._answer(page, request, [_link("self", here, _GEOJSON), *_next_get(page, request)])

    def get_search(  # noqa: PLR0917 - as the method it fills in
        self,
        collections: Any = None,
        ids: Any = None,
        bbox: Any = None,
        intersects: Any = None,
        datetime: str | None = None,
        limit: int | None = 10,
        **more: Any,
    ) -> Any:
        """`GET /search`."""
        request = more["request"]
        text = more.get("filter_expr")
        question = Question(
            ids=ids,
            bbox=bbox,
            intersects=_geometry(intersects),
            datetime=datetime,
            condition=parse_filter(text, more.get("filter_lang") or "cql2-text") if text else None,
        )
        page = self._find(question, collections, limit, more.get("token"))
        return self._answer(page, request, _next_get(page, request))

    def post_search(self, search_request: Any, **more: Any) -> Any:
        """`POST /search`."""
        request = more["request"]
        condition = search_request.filter_expr
        parsed = (
            parse_filter(condition, search_request.filter_lang or "cql2-json") if condition else None
        )  # before anything recursive touches it
        asked = search_request.model_dump(mode="json", exclude_none=True, by_alias=True)
        question = Question(
            ids=asked.get("ids"),
            bbox=asked.get("bbox"),
            intersects=asked.get("intersects"),
            datetime=asked.get("datetime"),
            condition=parsed,
        )
        page = self._find(question, asked.get("collections"), asked.get("limit"), asked.get("token"))
        links = []
        if page.following is not None:
            href = f"{get_base_url(request)}search"
            body = {**asked, "token": str(page.following)}
            links.append({**_link("next", href, _GEOJSON), "method": "POST", "body": body})
        return self._answer(page, request, links)

    @property
    def _id(self) -> str:
        return str(self.document["id"])

    def _check(self, collection: str) -> None:
        if collection != self._id:
            msg = f"there is no collection {collection}"
            raise NotFoundError(msg)

    def _find(self, question: Question, collections: Any, limit: int | None, token: str | None) -> Page:
        if collections and self._id not in collections:
            return Page(self.reader.rows(np.empty(0, dtype=np.int64)), 0, None)
        return find_items(self.reader, question, limit=limit or 10, start=_start(token))

    def _answer(self, page: Page, request: Request, links: list[dict[str, Any]]) -> dict[str, Any]:
        base = get_base_url(request)
        features = self._features(page.items, base)
        return {
            "type": "FeatureCollection",
            "features": features,
            "links": [_link("root", base, _JSON), *links],
            "numberMatched": page.matched,
            "numberReturned": len(features),
        }

    def _features(self, items: pa.Table, base: str) -> list[dict[str, Any]]:
        made = []
        for item in stac_table_to_items(items):
            here = f"{base}collections/{self._id}"
            for asset in item["assets"].values():
                asset["href"] = self._absolute(asset["href"], base)
            kept = [link for link in item["links"] if link["rel"] not in {"self", "root", "parent", "collection"}]
            for link in kept:
                link["href"] = self._absolute(link["href"], base)
            item["links"] = [
                _link("self", f"{here}/items/{quote(item['id'], safe='')}", _GEOJSON),
                _link("parent", here, _JSON),
                _link("collection", here, _JSON),
                _link("root", base, _JSON),
                *kept,
            ]
            made.append(item)
        return made

    def _absolute(self, href: str, base: str) -> str:
        """An address that this API's clients can open."""
        store = self.reader.release.store
        if href.startswith("../"):  # another version lies beside this one
            return href if store.local else f"{store.where.rpartition('/')[0]}/{href[3:]}"
        if "://" not in href and not href.startswith("/"):
            href = store.path(href.removeprefix("./"))
        return f"{base}{DATA}{href.removeprefix(store.where)}" if store.local and href.startswith(store.where) else href


def _link(rel: str, href: str, kind: str) -> dict[str, Any]:
    return {"rel": rel, "href": href, "type": kind, "title": _TITLES[rel]}


def _start(token: str | None) -> int:
    if not token:
        return 0
    if not token.isascii() or not token.isdigit() or len(token) > 12:
        raise QueryError("token", f"{token[:40]!r} is none of this API", "one from a `next` link")
    return int(token)


def _next_get(page: Page, request: Request) -> list[dict[str, Any]]:
    if page.following is None:
        return []
    asked = {key: value for key, value in request.query_params.items() if key != "token"}
    address = str(request.url.replace(query=urlencode({**asked, "token": page.following})))
    return [{**_link("next", address, _GEOJSON), "method": "GET"}]


def _geometry(intersects: Any) -> Mapping[str, Any] | None:
    if not intersects:
        return None
    parsed = parse_json(intersects, "intersects") if isinstance(intersects, str) else intersects
    if not isinstance(parsed, Mapping):
        raise QueryError("intersects", "is not a GeoJSON geometry", "a Polygon, for example")
    return parsed
