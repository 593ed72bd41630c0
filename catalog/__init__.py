"""Embeddings → STAC: items, collection, model, and the Embedding Release extension they declare."""

from clay_publish.catalog.collection import write_collection
from clay_publish.catalog.items import write_items

__all__ = ["write_collection", "write_items"]
