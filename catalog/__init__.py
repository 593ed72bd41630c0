"""Embeddings → STAC: items, collection, model, and the Embedding Release extension they declare."""

from clay_publish.catalog.collection import write_collection
from clay_publish.catalog.file_items import write_items, write_json_items

__all__ = ["write_collection", "write_items", "write_json_items"]
