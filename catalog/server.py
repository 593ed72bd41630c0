"""A live STAC API over one release: core, features, and item search with CQL2 filters.

Source: STAC API 1.0.0, https://github.com/radiantearth/stac-api-spec. Needs the extra `serve`.
"""

import os
from typing import Any

import attr
from fastapi import FastAPI
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
from starlette.staticfiles import StaticFiles

from clay_publish import release as paths
from clay_publish.catalog.answers import DATA, ReleaseClient
from clay_publish.catalog.item_table import STAC_VERSION
from clay_publish.catalog.queryables import queryables
from clay_publish.errors import ReleaseError
from clay_publish.reader import ReleaseReader
from clay_publish.reading.extent import QueryError

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
    api = StacApi(
        settings=settings,
        stac_version=STAC_VERSION,
        client=ReleaseClient(
            reader=reader, document=collection, landing_page_id=collection["id"], base_conformance_classes=_core()
        ),
        extensions=extensions,
        exceptions={**DEFAULT_STATUS_CODES, QueryError: 400, ReleaseError: 500},
        search_get_request_model=create_get_request_model(extensions),
        search_post_request_model=create_post_request_model(extensions),
        items_get_request_model=_ItemsRequest,
        middlewares=[
            Middleware(
                CORSMiddleware,
                allow_origins=["*"],
                allow_methods=["GET", "HEAD", "OPTIONS", "POST"],
                allow_headers=["Content-Type", "Range"],
                expose_headers=["Accept-Ranges", "Content-Length", "Content-Range"],
            )
        ],
    )
    app: FastAPI = api.app
    if reader.release.store.local:
        app.mount(f"/{DATA}", _Published(directory=reader.release.store.where))
    return app


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
