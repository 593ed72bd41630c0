"""A live STAC API over one release: core, features, and item search with CQL2 filters.

Source: STAC API 1.0.0, https://github.com/radiantearth/stac-api-spec. Needs the extra `serve`.
"""

import logging
import os
from collections.abc import Callable
from typing import Any, Literal

import attr
import pyarrow as pa
from fastapi import FastAPI
from pydantic import BaseModel, Field, create_model
from stac_fastapi.api.app import StacApi
from stac_fastapi.api.errors import DEFAULT_STATUS_CODES
from stac_fastapi.api.models import (
    ItemCollectionUri,
    create_get_request_model,
    create_post_request_model,
)
from stac_fastapi.extensions.filter import SearchFilterExtension
from stac_fastapi.extensions.filter.client import BaseFiltersClient
from stac_fastapi.extensions.filter.filter import FilterConformanceClasses
from stac_fastapi.extensions.pagination import TokenPaginationExtension
from stac_fastapi.extensions.pagination.request import GETTokenPagination
from stac_fastapi.types.config import ApiSettings
from stac_fastapi.types.requests import get_base_url
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.staticfiles import StaticFiles
from starlette.status import HTTP_500_INTERNAL_SERVER_ERROR
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clay_publish.catalog.item_table import STAC_VERSION
from clay_publish.errors import ReleaseError
from clay_publish.release import directory as paths
from clay_publish.search.query import QueryError
from clay_publish.search.reader import ReleaseReader
from clay_publish.stac_api.client import DATA, ReleaseClient, TimeLimitError

_LOG = logging.getLogger(__name__)
MAX_BODY = 1_000_000
"""Bytes of the body of a search."""
_HIDDEN = {"type", "stac_version", "stac_extensions", "bbox", "links", "assets"}


def queryables(schema: pa.Schema, address: str) -> dict[str, Any]:
    """Every property that has one value, nested ones with a dot: `embrel:coverage.embedded`."""
    found: dict[str, Any] = {}
    for field in schema:
        if field.name == "geometry":
            found[field.name] = {"$ref": "https://geojson.org/schema/Geometry.json"}
        elif field.name not in _HIDDEN:
            found |= _properties(field.name, field.type)
    return {
        "$schema": "https://json-schema.org/draft/2019-09/schema",
        "$id": address,
        "type": "object",
        "title": "Queryables",
        "properties": found,
        "additionalProperties": False,
    }


def _properties(name: str, kind: pa.DataType) -> dict[str, Any]:
    if pa.types.is_struct(kind):
        fields = [kind.field(i) for i in range(kind.num_fields)]
        return {key: value for f in fields for key, value in _properties(f"{name}.{f.name}", f.type).items()}
    if pa.types.is_timestamp(kind):
        return {name: {"type": "string", "format": "date-time"}}
    if pa.types.is_integer(kind):
        return {name: {"type": "integer"}}
    if pa.types.is_floating(kind):
        return {name: {"type": "number"}}
    if pa.types.is_boolean(kind):
        return {name: {"type": "boolean"}}
    return {name: {"type": "string"}} if pa.types.is_string(kind) else {}


_FILTERS: list[str] = [
    FilterConformanceClasses.FILTER,
    FilterConformanceClasses.SEARCH,
    FilterConformanceClasses.BASIC_CQL2,
    FilterConformanceClasses.CQL2_JSON,
    FilterConformanceClasses.CQL2_TEXT,
    FilterConformanceClasses.ADVANCED_COMPARISON_OPERATORS,
    FilterConformanceClasses.BASIC_SPATIAL_FUNCTIONS,
]


def stac_api(reader: ReleaseReader) -> FastAPI:
    """The API as an ASGI application.

    Raises:
        ReleaseError: the release has no readable Collection or items.
    """
    collection = reader.release.json(paths.COLLECTION)
    title = str(collection.get("title", collection["id"]))
    filters = SearchFilterExtension(client=_Queryables(reader=reader), conformance_classes=_FILTERS)
    extensions = [filters, TokenPaginationExtension()]
    settings = ApiSettings(
        _env_file=None,
        stac_fastapi_title=title,
        stac_fastapi_description=f"STAC API of the release {title}.",
        stac_fastapi_version=str(collection.get("version", "1.0.0")),
        stac_fastapi_landing_id=collection["id"],
    )
    statuses = {**DEFAULT_STATUS_CODES, TimeLimitError: 503, QueryError: 400, ReleaseError: 500}
    api = StacApi(
        settings=settings,
        stac_version=STAC_VERSION,
        client=ReleaseClient(
            reader=reader, document=collection, landing_page_id=collection["id"], base_conformance_classes=_core()
        ),
        extensions=extensions,
        exceptions={},
        search_get_request_model=create_get_request_model(extensions),
        search_post_request_model=_with_text(create_post_request_model(extensions)),
        items_get_request_model=_ItemsRequest,
        middlewares=[
            Middleware(_LimitedBody),
            Middleware(
                CORSMiddleware,
                allow_origins=["*"],
                allow_methods=["GET", "HEAD", "OPTIONS", "POST"],
                allow_headers=["Content-Type", "Range"],
                expose_headers=["Accept-Ranges", "Content-Length", "Content-Range"],
            ),
        ],
    )
    app: FastAPI = api.app
    for kind, status in statuses.items():
        app.add_exception_handler(kind, _handler(status))
    if reader.release.store.local:
        app.mount(f"/{DATA}", _Published(directory=reader.release.store.where))
    return app


def _handler(status: int) -> Callable[[Request, Exception], JSONResponse]:
    """Answer an error with this status. The handlers of stac-fastapi log a mistake of a client as an error, too."""

    def answer(request: Request, error: Exception) -> JSONResponse:
        if status == HTTP_500_INTERNAL_SERVER_ERROR:
            _LOG.error("%s %s: %s", request.method, request.url.path, error)
        return JSONResponse({"code": type(error).__name__, "description": str(error)}, status)

    return answer


def _core() -> list[str]:
    return [
        *(
            f"https://api.stacspec.org/v1.0.0/{name}"
            for name in ("core", "collections", "ogcapi-features", "item-search")
        ),
        *(f"http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/{name}" for name in ("core", "geojson", "oas30")),
    ]


@attr.s
class _ItemsRequest(ItemCollectionUri, GETTokenPagination):
    """`/collections/{id}/items`, with pages."""


def _with_text(model: type[BaseModel]) -> type[BaseModel]:
    """The body of `POST /search`, whose filter may be CQL2-text too; stac-fastapi's takes JSON alone."""
    languages = Literal["cql2-json", "cql2-text"]
    return create_model(
        "SearchBody",
        __base__=model,
        filter_expr=(dict[str, Any] | str | None, Field(None, alias="filter")),
        filter_lang=(languages | None, Field("cql2-json", alias="filter-lang")),
    )


class _LimitedBody:
    """Refuse a body that no search needs, before it is read whole."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        parts, size, more = [], 0, True
        while more:
            message = await receive()
            parts.append(message.get("body", b""))
            size, more = size + len(parts[-1]), message.get("more_body", False)
            if size > MAX_BODY:
                answer = {"code": "QueryError", "description": f"body: is larger than {MAX_BODY:,} bytes"}
                await JSONResponse(answer, 413)(scope, receive, send)
                return
        body = b"".join(parts)

        async def whole() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, whole, send)


class _Published(StaticFiles):
    """The files of a release, but not the traces of its making."""

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        if any(part.startswith(".") for part in path.split("/")):
            return "", None
        return super().lookup_path(path)


@attr.s
class _Queryables(BaseFiltersClient):
    reader: ReleaseReader = attr.ib(kw_only=True)

    def get_queryables(self, collection_id: str | None = None, **more: Any) -> dict[str, Any]:  # noqa: ARG002
        address = f"{get_base_url(more['request'])}queryables"
        return queryables(self.reader.release.parquet(paths.ITEMS).schema_arrow, address)
