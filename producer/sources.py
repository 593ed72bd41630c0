"""Reading STAC items from where `imagery.stac` points: files and static catalogs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec

from clay_publish.errors import SourceError
from clay_publish.producer.items import resolve_href
from clay_publish.store import is_url

_MAX_DOCUMENT = 256_000_000
_MAX_DEPTH = 32


def read_items(where: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Items of an Item, an ItemCollection, a list of items, or a static catalog or collection.

    Yields:
        The item as JSON, and the path or address against which its hrefs are relative.

    Raises:
        SourceError: unreadable, not JSON, or not STAC.
    """
    yield from _walk(where, ())


def _walk(where: str, above: tuple[str, ...]) -> Iterator[tuple[dict[str, Any], str]]:
    if where in above or len(above) > _MAX_DEPTH:
        raise SourceError(where, "links back to itself or lies deeper than 32 catalogs", "a tree of STAC documents")
    document = _read_json(where)
    kind = document.get("type") if isinstance(document, dict) else None
    if isinstance(document, list):
        yield from ((_item(each, where), where) for each in document)
    elif kind == "Feature":
        yield _item(document, where), where
    elif kind == "FeatureCollection":
        yield from ((_item(each, where), where) for each in document.get("features", []))
    elif kind in {"Catalog", "Collection"}:
        for link in document.get("links", []):
            if isinstance(link, dict) and link.get("rel") in {"child", "item"} and isinstance(link.get("href"), str):
                yield from _walk(resolve_href(link["href"], where), (*above, where))
    else:
        raise SourceError(
            where, f"has type {kind!r}", "a STAC Item, ItemCollection, Catalog or Collection (type Feature, …)"
        )


def _item(document: Any, where: str) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise SourceError(where, f"holds {type(document).__name__} among its items", "STAC Items")
    return document


def _read_json(where: str) -> Any:
    try:
        if is_url(where):
            with fsspec.open(where, "rb") as file:
                data = file.read(_MAX_DOCUMENT + 1)
        else:
            with Path(where).open("rb") as file:
                data = file.read(_MAX_DOCUMENT + 1)
    except (OSError, ValueError) as error:
        raise SourceError(where, f"cannot be read ({error or type(error).__name__})", "a STAC document") from error
    if len(data) > _MAX_DOCUMENT:
        raise SourceError(where, f"is larger than {_MAX_DOCUMENT} bytes", "a STAC document, or stac-geoparquet")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise SourceError(where, f"is no JSON ({error})", "a STAC document") from error
