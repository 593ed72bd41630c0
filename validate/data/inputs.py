"""The kind of a validation's input, recognized by columns and documents."""

from functools import cached_property
from typing import Any

from clay_publish.errors import ReleaseError
from clay_publish.release.directory import COLLECTION, JSON_ITEMS
from clay_publish.storage.safe_parse import parse_json
from clay_publish.validate.data.files import ReleaseFiles
from clay_publish.validate.data.parquet_tables import Columns, ParquetTables

_DOCUMENTS, _ITEMS = 200, 4
"""JSON documents that are looked at, of others and of a release of our own."""


class Input:
    """The kind of the files."""

    def __init__(self, files: ReleaseFiles, tables: ParquetTables) -> None:
        self._files, self._tables = files, tables

    @cached_property
    def columns(self) -> dict[str, Columns]:
        """By data file that can be opened."""
        return {path: self._tables.columns(path) for path in self._tables.embeddings}

    @cached_property
    def vectors(self) -> list[str]:
        """Data files with a column of vectors."""
        return [path for path, columns in self.columns.items() if columns.vectors is not None]

    @cached_property
    def documents(self) -> dict[str, dict[str, Any]]:
        """STAC documents and Zarr attributes among the JSON files, by path."""
        paths = [path for path in self._files.paths if path.endswith((".json", ".geojson", ".zattrs"))]
        if not self._tables.foreign:
            paths = [path for path in paths if path == COLLECTION or path.startswith(f"{JSON_ITEMS}/")][:_ITEMS]
        found = {}
        for path in paths[:_DOCUMENTS]:
            try:
                document = parse_json(self._files.text(path).encode(), path)
            except ReleaseError:
                continue
            if isinstance(document, dict) and ("stac_version" in document or _is_zarr(path, document)):
                found[path] = document
        return found

    @cached_property
    def kind(self) -> str:
        """In words."""
        if not self._tables.foreign:
            return "a release of clay-publish"
        tables = f"{len(self.columns):,} Parquet {'files' if len(self.columns) != 1 else 'file'}"
        if not self.vectors:
            return self._without_vectors(tables)
        return f"{self._layout()}: {tables}"

    def _without_vectors(self, tables: str) -> str:
        if self.columns:
            return f"tables without embeddings, such as an index or a registry: {tables}"
        stac = [document for document in self.documents.values() if "stac_version" in document]
        if any(describes_arrays(document) for document in self.documents.values()):
            return "Zarr arrays of embeddings"
        if stac:
            said = "that describe embeddings" if any(map(describes_embeddings, stac)) else "without embeddings"
            return f"{len(stac):,} STAC document{'' if len(stac) == 1 else 's'} {said}"
        return "files without embeddings"

    def _layout(self) -> str:
        first = self._tables.schema(self.vectors[0])
        names, metadata = set(first.names), self._tables.annotated_schema(self.vectors[0]).metadata or {}
        if {"unique_id", "grid_cell", "product_id"} <= names:
            return "Major TOM embeddings"
        if {"source_url", "embeddings"} <= names:
            return "Clay v0 embeddings"
        if {"item", "embeddings"} <= names or names in ({"embedding", "geometry"}, {"embeddings", "geometry"}):
            return "Clay v1 or v1.5 embeddings in LGND's layout"
        if names in ({"id", "embedding", "geometry"}, {"tile_id", "embedding", "geometry"}):
            return "Earth Index embeddings"
        return "GeoParquet with vectors" if b"geo" in metadata else "Parquet with vectors"


def describes_embeddings(document: dict[str, Any]) -> bool:
    """Whether a STAC document has a field of the Embedding extension."""
    properties = document.get("properties")
    fields = [*document, *(properties if isinstance(properties, dict) else ())]
    return any(key.startswith("emb:") for key in fields)


def describes_arrays(document: dict[str, Any]) -> bool:
    """Whether a Zarr document has an attribute of the geoemb convention."""
    attributes = document.get("attributes", document)
    return isinstance(attributes, dict) and any(str(key).startswith("geoemb:") for key in attributes)


def _is_zarr(path: str, document: dict[str, Any]) -> bool:
    return path.endswith(("zarr.json", ".zattrs")) and ("zarr_format" in document or path.endswith(".zattrs"))
