"""The kind of a validation's input, recognized by columns and documents."""

from collections import Counter
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

from clay_publish.errors import ReleaseError
from clay_publish.release.directory import COLLECTION, JSON_ITEMS
from clay_publish.storage.safe_parse import parse_json
from clay_publish.validate.data.files import ReleaseFiles
from clay_publish.validate.data.others.columns import Columns
from clay_publish.validate.data.others.links import describes_embeddings
from clay_publish.validate.data.parquet_tables import ParquetTables

_DOCUMENTS, _ITEMS = 200, 4
"""JSON documents that are looked at, of others and of a release of our own."""


class Input:
    """The kind of the files."""

    def __init__(self, files: ReleaseFiles, tables: ParquetTables) -> None:
        self._files, self._tables = files, tables

    @cached_property
    def columns(self) -> dict[str, Columns]:
        """By data file that can be opened."""
        return {path: self._tables.columns(path) for path in self._tables.data}

    @cached_property
    def vectors(self) -> list[str]:
        """Data files with a column of vectors."""
        return [path for path, columns in self.columns.items() if columns.vectors is not None]

    @cached_property
    def documents(self) -> dict[str, dict[str, Any]]:
        """STAC documents and Zarr attributes among the JSON files, by path."""
        return {
            path: document
            for path, document in self._parsed.items()
            if isinstance(document, dict) and ("stac_version" in document or _is_zarr(path, document))
        }

    @cached_property
    def unread(self) -> dict[str, ReleaseError]:
        """Why documents that are looked at cannot be read."""
        return {path: found for path, found in self._parsed.items() if isinstance(found, ReleaseError)}

    @cached_property
    def json_files(self) -> list[str]:
        """JSON files that may be STAC documents or Zarr attributes, of which the first are looked at."""
        paths = [path for path in self._files.paths if path.endswith((".json", ".geojson", ".zattrs"))]
        if not self._tables.foreign:
            paths = [path for path in paths if path == COLLECTION or path.startswith(f"{JSON_ITEMS}/")]
        return paths

    @cached_property
    def looked_at(self) -> list[str]:
        """JSON files that are looked at."""
        return self.json_files[: _DOCUMENTS if self._tables.foreign else _ITEMS]

    @cached_property
    def _parsed(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for path in self.looked_at:
            try:
                found[path] = parse_json(self._files.text(path).encode(), path)
            except ReleaseError as error:
                found[path] = error
        return found

    @cached_property
    def lacking(self) -> list[str]:
        """Tables that lost their vectors: all their columns are those of a table with vectors."""
        known = [self._names(path) for path in self.vectors]
        without = [path for path, columns in self.columns.items() if columns.vectors is None]
        return [path for path in without if not known or any(names >= self._names(path) for names in known)]

    def _names(self, path: str) -> set[str]:
        return set(self._tables.schema(path).names)

    @cached_property
    def kind(self) -> str:
        """In words."""
        if not self._tables.foreign:
            return "a release of clay-publish"
        if not self.vectors:
            return self._without_vectors()
        columns, rest = self.columns[self.vectors[0]], len(self.columns) - len(self.vectors) - len(self.lacking)
        more = [f"vectors from `{columns.vectors}`, not from `{'`, `'.join(columns.others)}`"] if columns.others else []
        more += [f"{rest:,} other table{'' if rest == 1 else 's'} not looked at"] if rest else []
        return "; ".join([f"{self._layout()}: {_parquet(len(self.vectors) + len(self.lacking))}", *more])

    def _without_vectors(self) -> str:
        if self.columns:
            return f"tables without embeddings, such as an index or a registry: {_parquet(len(self.columns))}"
        if self._tables.unreadable:
            return f"{_parquet(len(self._tables.unreadable))} that cannot be opened"
        stac = [document for document in self.documents.values() if "stac_version" in document]
        if any(describes_arrays(document) for document in self.documents.values()):
            return "Zarr arrays of embeddings"
        if len(stac) < len(self.documents):
            return "a Zarr store without `geoemb:` attributes"
        if stac:
            one, described = len(stac) == 1, any(map(describes_embeddings, stac))
            said = f"that describe{'s' if one else ''} embeddings" if described else "without embeddings"
            return f"{len(stac):,} STAC document{'' if one else 's'} {said}"
        endings = Counter(PurePosixPath(path).suffix.lower() or "no extension" for path in self._files.paths)
        listed = ", ".join(f"{count:,} {ending}" for ending, count in endings.most_common(4))
        return f"files of other formats ({listed})"

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


def _parquet(count: int) -> str:
    return f"{count:,} Parquet file{'' if count == 1 else 's'}"


def describes_arrays(document: dict[str, Any]) -> bool:
    """Whether a Zarr document has an attribute of the geoemb convention."""
    attributes = document.get("attributes", document)
    return isinstance(attributes, dict) and any(str(key).startswith("geoemb:") for key in attributes)


def _is_zarr(path: str, document: dict[str, Any]) -> bool:
    return path.endswith(("zarr.json", ".zattrs")) and ("zarr_format" in document or path.endswith(".zattrs"))
