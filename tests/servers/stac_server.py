"""A STAC API on loopback: stac-fastapi over items in memory."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Thread
from typing import Any

import attr
import cql2
import shapely
import uvicorn
from stac_fastapi.api.app import StacApi
from stac_fastapi.api.models import create_get_request_model, create_post_request_model
from stac_fastapi.extensions import QueryExtension, SearchFilterExtension, TokenPaginationExtension
from stac_fastapi.types.config import ApiSettings
from stac_fastapi.types.core import BaseCoreClient
from stac_fastapi.types.errors import NotFoundError

_COMPARE = {
    "eq": lambda a, b: a == b,
    "lt": lambda a, b: a < b,
    "lte": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "gte": lambda a, b: a >= b,
}


@attr.s
class Memory(BaseCoreClient):
    """Items of some collections, and every search that was asked."""

    items: list[dict[str, Any]] = attr.ib(factory=list)
    collections: dict[str, dict[str, Any]] = attr.ib(factory=dict)
    page: int = attr.ib(default=10)
    """Items a page at most, whatever the client asks for."""
    asked: list[dict[str, Any]] = attr.ib(factory=list)

    def post_search(self, search_request: Any, **kwargs: Any) -> Any:
        asked = search_request.model_dump(mode="json", exclude_none=True, by_alias=True)
        self.asked.append(asked)
        wanted = getattr(search_request, "filter_expr", None)
        passes = cql2.Expr(wanted).matches if wanted else lambda _: True
        found = [item for item in self.items if self._matches(item, search_request) and passes(item)]
        start = int(search_request.token or 0)
        stop = start + min(self.page, search_request.limit or self.page)
        links = []
        if stop < len(found):
            href = str(kwargs["request"].url)
            body = {**asked, "token": str(stop)}
            links.append({"rel": "next", "href": href, "method": "POST", "type": "application/geo+json", "body": body})
        return {"type": "FeatureCollection", "features": found[start:stop], "links": links}

    def _matches(self, item: dict[str, Any], search: Any) -> bool:
        taken = datetime.fromisoformat(item["properties"]["datetime"])
        taken = taken if taken.tzinfo else taken.replace(tzinfo=UTC)
        tests = [
            not search.collections or item["collection"] in search.collections,
            search.start_date is None or taken >= search.start_date,
            search.end_date is None or taken <= search.end_date,
            self._near(item, search),
            all(
                _COMPARE[name.value if hasattr(name, "value") else name](item["properties"].get(key), limit)
                for key, each in (getattr(search, "query", None) or {}).items()
                for name, limit in each.items()
            ),
        ]
        return all(tests)

    def _near(self, item: dict[str, Any], search: Any) -> bool:
        ground = shapely.geometry.shape(item["geometry"])
        if search.intersects is not None:
            return bool(shapely.geometry.shape(search.intersects.model_dump(mode="json")).intersects(ground))
        return search.bbox is None or bool(shapely.box(*search.bbox).intersects(ground))

    def get_collection(self, collection_id: str, **_: Any) -> Any:
        if collection_id not in self.collections:
            raise NotFoundError(collection_id)
        return self.collections[collection_id]

    def all_collections(self, **_: Any) -> Any:
        return {"collections": list(self.collections.values()), "links": []}

    def get_search(self, **_: Any) -> Any:
        raise NotImplementedError

    def get_item(self, item_id: str, collection_id: str, **_: Any) -> Any:
        raise NotImplementedError

    def item_collection(self, collection_id: str, **_: Any) -> Any:
        raise NotImplementedError


def collection(name: str, license_: str = "proprietary") -> dict[str, Any]:
    """A Collection of the whole Earth."""
    return {
        "type": "Collection",
        "id": name,
        "stac_version": "1.0.0",
        "description": name,
        "license": license_,
        "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}},
        "links": [],
    }


@contextmanager
def stac_server(memory: Memory, extensions: Iterable[str] = ("query", "filter")) -> Iterator[str]:
    """Serve until the block ends; the address of the landing page."""
    known = {"query": QueryExtension, "filter": SearchFilterExtension}
    chosen = [known[name]() for name in extensions]
    memory.extensions = [*chosen, TokenPaginationExtension()]
    api = StacApi(
        settings=ApiSettings(
            stac_fastapi_title="t", stac_fastapi_description="d", stac_fastapi_landing_id="i", stac_fastapi_version="1"
        ),
        client=memory,
        extensions=memory.extensions,
        search_get_request_model=create_get_request_model(memory.extensions),
        search_post_request_model=create_post_request_model(memory.extensions),
    )
    server = uvicorn.Server(uvicorn.Config(api.app, host="127.0.0.1", port=0, log_level="error", lifespan="off"))
    thread = Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            thread.join(0.02)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.should_exit = True
        thread.join()
