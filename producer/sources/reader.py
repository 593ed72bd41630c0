"""Reading STAC items from where `imagery.stac` points: an API, static catalogs, files, stac-geoparquet."""

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, Any, cast
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely
from stac_geoparquet.arrow import stac_table_to_items

from clay_publish.errors import AccessError, MissingExtraError, SourceError, StoreError
from clay_publish.producer.sources.stac_api import MAX_DOCUMENT, Api, Search
from clay_publish.producer.sources.stac_item import local_path, resolve_href
from clay_publish.storage.http import HttpClient
from clay_publish.storage.store import Store, is_url

MAX_TABLE = 8_000_000_000
"""Bytes of a stac-geoparquet file: 100 million items."""
_IN_MEMORY = 64 << 20
"""Bytes of a remote file held in memory; a larger one goes to the disk."""


def read_document(where: str, origin: str | None = None) -> bytes:
    """A whole document. Arguments and errors as `open_source`.

    Raises:
        SourceError: it is larger than `MAX_DOCUMENT`.
    """
    with open_source(where, origin, MAX_DOCUMENT) as file:
        data = file.read(MAX_DOCUMENT + 1)
    if len(data) > MAX_DOCUMENT:
        raise SourceError(where, f"is larger than {MAX_DOCUMENT} bytes", "a STAC document, or stac-geoparquet")
    return data


@contextmanager
def open_source(where: str, origin: str | None = None, limit: int = MAX_TABLE) -> Iterator[IO[bytes]]:
    """A file of STAC, seekable; one from a web server is fetched whole, since all of it will be read.

    Args:
        where: path or address.
        origin: address of the remote document that named it, which may not name local files or private servers.
        limit: most bytes that are fetched.

    Raises:
        SourceError: it cannot be read, or may not be.
        MissingExtraError: its kind of address needs a library that is not installed.
    """
    try:
        scheme = urlsplit(where).scheme.lower()
        if scheme in {"http", "https"}:
            with SpooledTemporaryFile(_IN_MEMORY) as file:
                HttpClient(origin).download(where, cast("IO[bytes]", file), limit)
                file.seek(0)
                yield cast("IO[bytes]", file)
        elif "://" in where and scheme != "file":
            folder, _, name = where.rpartition("/")
            with Store(folder).ranges(name) as remote:
                yield remote
        else:
            with _local(where, origin).open("rb") as local:
                yield local
    except MissingExtraError:
        raise
    except (StoreError, AccessError) as error:
        raise SourceError(where, f"cannot be read ({error.found})", error.expected or "a file of STAC") from error
    except OSError as error:
        raise SourceError(where, f"cannot be read ({error.strerror or error})", "a file of STAC") from error


def _local(where: str, origin: str | None) -> Path:
    path = Path(local_path(where))
    if origin is not None:
        raise SourceError(where, f"is a local file, named by the remote document {origin}", "an http(s):// address")
    if path.exists() and not path.is_file():
        raise SourceError(where, "is not a regular file", "a file of STAC")
    return path


_MAX_DEPTH = 32
_AT_ONCE = 8
"""Documents of a static catalog fetched side by side."""
_BATCH = 1024
_ROWS = 2 * _BATCH
"""Of a table, read at once."""
_BUFFER = 1 << 20
"""Bytes of a column of it, read at once."""


@dataclass(frozen=True)
class FoundItem:
    """An item, and what its source says around it."""

    document: dict[str, Any]
    base: str
    """Path or address against which its hrefs are relative."""
    collection: Mapping[str, Any] | None
    """Its Collection, where the source leads to it."""
    error: SourceError | None = None
    """Why the source's record cannot be read as an item."""


def read_items(where: str, search: Search | None = None) -> Iterator[FoundItem]:
    """Items of a STAC API, a static catalog or collection, an Item, an ItemCollection, a list or stac-geoparquet.

    An API is asked `search`; other sources give all they have.

    Raises:
        SourceError: unreadable, or not STAC.
        MissingExtraError: its kind of address needs a library that is not installed.
    """
    if is_table(where):
        for batch in read_batches(where):
            yield from batch.items(range(batch.rows.num_rows))
    else:
        yield from _walk(where, (), None, search or Search())


def _walk(
    where: str, above: tuple[str, ...], collection: Mapping[str, Any] | None, search: Search
) -> Iterator[FoundItem]:
    if where in above or len(above) > _MAX_DEPTH:
        raise SourceError(where, "links back to itself or lies deeper than 32 catalogs", "a tree of STAC documents")
    yield from _expand(_read_json(where, _remote(above)), where, above, collection, search)


def _expand(
    document: Any, where: str, above: tuple[str, ...], collection: Mapping[str, Any] | None, search: Search
) -> Iterator[FoundItem]:
    kind = document.get("type") if isinstance(document, dict) else None
    if isinstance(document, list) or kind == "FeatureCollection":
        items = document if isinstance(document, list) else document.get("features", [])
        for item in items if isinstance(items, list) else [items]:
            yield FoundItem(_item(item, where), where, collection)
    elif kind == "Feature":
        yield FoundItem(document, where, collection)
    elif kind in {"Catalog", "Collection"} and isinstance(document.get("conformsTo"), list):
        yield from _searched(where, search)
    elif kind in {"Catalog", "Collection"}:
        yield from _linked(document, where, above, document if kind == "Collection" else collection, search)
    else:
        raise SourceError(
            where,
            f"has type {kind!r}",
            "a STAC Item, ItemCollection, Catalog or Collection (type Feature, …), or the landing page of an API",
        )


def _searched(where: str, search: Search) -> Iterator[FoundItem]:
    api = Api(where)
    known: dict[str, Mapping[str, Any] | None] = {}
    for item in api.items(search):
        name = _item(item, where).get("collection")
        if isinstance(name, str) and name not in known:
            known[name] = api.collection(name)
        yield FoundItem(_absolute(item, where), where, known[name] if isinstance(name, str) else None)


def _absolute(item: dict[str, Any], where: str) -> dict[str, Any]:
    """An item whose hrefs no longer depend on the address that it claims for itself, which decides no trust."""
    links = item.get("links", [])
    own = next((str(link["href"]) for link in links if isinstance(link, dict) and link.get("rel") == "self"), where)
    base = resolve_href(own, where)
    for asset in item.get("assets", {}).values():
        if isinstance(asset, dict) and isinstance(asset.get("href"), str):
            asset["href"] = resolve_href(asset["href"], base)
    return item


def _remote(above: tuple[str, ...]) -> str | None:
    """The remote document that leads to the one that is read next; None where a local one or the user does."""
    return above[-1] if above and is_url(above[-1]) else None


def _linked(
    document: Mapping[str, Any],
    where: str,
    above: tuple[str, ...],
    collection: Mapping[str, Any] | None,
    search: Search,
) -> Iterator[FoundItem]:
    """Items and children, in the order of their links; the documents of items are fetched side by side."""
    links = [link for link in document.get("links", []) if isinstance(link, dict) and isinstance(link.get("href"), str)]
    below = (*above, where)
    items = [resolve_href(link["href"], where) for link in links if link.get("rel") == "item"]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for start in range(0, len(items), 16 * _AT_ONCE):
            some = items[start : start + 16 * _AT_ONCE]
            for address, read in zip(some, pool.map(lambda one: _read_json(one, _remote(below)), some), strict=True):
                yield from _expand(read, address, below, collection, search)
    for link in links:
        if link.get("rel") == "child":
            yield from _walk(resolve_href(link["href"], where), below, collection, search)


def is_table(where: str) -> bool:
    """Whether a source is stac-geoparquet, by its name."""
    return where.partition("?")[0].endswith((".parquet", ".geoparquet"))


@dataclass(frozen=True)
class ItemBatch:
    """Rows of a stac-geoparquet file."""

    rows: pa.RecordBatch
    where: str
    """The file."""
    collections: Mapping[str, Mapping[str, Any]]
    """By id, those that the file carries."""

    def of_collections(self, names: Sequence[str]) -> "ItemBatch":
        """The items of some collections."""
        if "collection" not in self.rows.schema.names:
            return replace(self, rows=self.rows.slice(0, 0))
        chosen = pc.is_in(self.rows.column("collection").cast(pa.string()), pa.array(names, pa.string()))
        return replace(self, rows=self.rows.filter(chosen))

    def items(self, rows: Sequence[int]) -> Iterator[FoundItem]:
        """The items of some rows."""
        for start in range(0, len(rows), _BATCH):
            with _as_table(self.where):
                batch = self.rows.take(pa.array(rows[start : start + _BATCH], pa.int64()))
                for item in _items_of(pa.Table.from_batches([batch])):
                    collection = self.collections.get(str(item.get("collection")))
                    yield FoundItem(present(item), self.where, collection)


def read_batches(where: str) -> Iterator[ItemBatch]:
    """The rows of a stac-geoparquet file.

    Raises:
        SourceError: unreadable, or not stac-geoparquet.
        MissingExtraError: its kind of address needs a library that is not installed.
    """
    with _as_table(where), open_source(where) as stream:
        file = pq.ParquetFile(stream, buffer_size=_BUFFER, pre_buffer=False)
        collections = _collections(file.schema_arrow.metadata or {})
        # In one thread: each would keep memory of its own, and reading is a small part of what follows.
        for batch in file.iter_batches(_ROWS, use_threads=False):
            yield ItemBatch(batch, where, collections)


@contextmanager
def _as_table(where: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
        raise SourceError(
            where, f"is not stac-geoparquet ({' '.join(str(error).split())})", "a table of STAC Items"
        ) from error


_NOWHERE = shapely.to_wkb(shapely.Point())


_NO_BOX = pa.struct([(side, pa.float64()) for side in ("xmin", "ymin", "xmax", "ymax")])


def _items_of(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Items of a stac-geoparquet table, of whose rows some may have no bbox, or no geometry or a broken one."""
    if "proj:geometry" in table.column_names:  # not used, and null where an item has none
        table = table.drop_columns(["proj:geometry"])
    if "bbox" not in table.column_names:
        table = table.append_column("bbox", pa.nulls(table.num_rows, _NO_BOX))
    if "geometry" not in table.column_names:
        table = table.append_column("geometry", pa.nulls(table.num_rows, pa.binary()))
    shapes, boxes = table["geometry"].to_pylist(), table["bbox"].to_pylist()
    good = [shape is not None for shape in shapely.from_wkb(shapes, on_invalid="ignore")]
    box = dict.fromkeys([field.name for field in table.schema.field("bbox").type], 0.0)
    table = _filled(table, "geometry", [shape if fine else _NOWHERE for shape, fine in zip(shapes, good, strict=True)])
    table = _filled(table, "bbox", [each or box for each in boxes])
    for item, shape, fine, stated in zip(stac_table_to_items(table), shapes, good, boxes, strict=True):
        geometry = item["geometry"] if fine else None if shape is None else "not WKB"
        yield {**item, "geometry": geometry, "bbox": item["bbox"] if stated else None}


def _filled(table: pa.Table, name: str, values: list[Any]) -> pa.Table:
    place = table.schema.get_field_index(name)
    field = table.schema.field(name)
    return table.set_column(place, field, pa.array(values, field.type))


def _collections(metadata: Mapping[bytes, bytes]) -> dict[str, Mapping[str, Any]]:
    """Collections that a stac-geoparquet footer carries (key `stac-geoparquet`)."""
    footer = json.loads(metadata.get(b"stac-geoparquet", b"{}"))
    every = footer.get("collections") or {}
    one = footer.get("collection")
    return {**every, **({one["id"]: one} if one else {})}


def present(value: Any) -> Any:
    """A value without the nulls that a table has where an item has nothing; what STAC asks for stays."""
    if isinstance(value, dict):
        return {k: present(v) for k, v in value.items() if v is not None or k in {"datetime", "geometry"}}
    return [present(v) for v in value] if isinstance(value, list) else value


def _item(document: Any, where: str) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise SourceError(where, f"holds {type(document).__name__} among its items", "STAC Items")
    return document


def _read_json(where: str, origin: str | None = None) -> Any:
    try:
        return json.loads(read_document(where, origin))
    except (ValueError, RecursionError) as error:
        raise SourceError(where, f"is not valid JSON ({error})", "a STAC document") from error
