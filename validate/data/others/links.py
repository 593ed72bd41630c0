"""What STAC documents of others lead to."""

import posixpath
from collections.abc import Iterator
from typing import Any

_FOLLOWED = ("child", "item", "items")


def describes_embeddings(document: dict[str, Any]) -> bool:
    """Whether a STAC document has a field of the Embedding extension."""
    properties = document.get("properties")
    fields = [*document, *(properties if isinstance(properties, dict) else ())]
    return any(key.startswith("emb:") for key in fields)


def assets_of(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Href and fields of each asset."""
    assets = document.get("assets")
    for asset in assets.values() if isinstance(assets, dict) else ():
        if isinstance(asset, dict) and isinstance(asset.get("href"), str):
            yield asset["href"], asset


def children_of(document: dict[str, Any]) -> Iterator[str]:
    """Hrefs of the Collections and Items below a document."""
    links = document.get("links")
    for link in links if isinstance(links, list) else ():
        if isinstance(link, dict) and link.get("rel") in _FOLLOWED and isinstance(link.get("href"), str):
            yield link["href"]


def hrefs_in(document: dict[str, Any]) -> Iterator[str]:
    """Hrefs of assets and children."""
    yield from (href for href, _ in assets_of(document))
    yield from children_of(document)


def beside(path: str, href: str) -> str | None:
    """The path in the release that an href of a document leads to; None where that is elsewhere."""
    if "://" in href or href.startswith("/"):
        return None
    joined = posixpath.normpath(posixpath.join(posixpath.dirname(path), href.partition("#")[0]))
    return None if joined.startswith("../") or joined in {"..", "."} else joined
