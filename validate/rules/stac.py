"""Rules on STAC: valid documents, and an Item for every file that tells the truth about it."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import stac_geoparquet.arrow

from clay_publish.errors import ReleaseError
from clay_publish.release.directory import COLLECTION, ITEMS, MODEL
from clay_publish.release.findings import Severity
from clay_publish.release.public_urls import release_address
from clay_publish.storage.safe_parse import has_more_than
from clay_publish.validate.context import View
from clay_publish.validate.data.coverage_table import micros
from clay_publish.validate.data.stac_schemas import core_schema, schema_of, violations
from clay_publish.validate.registry import Fault, NotChecked, Outcome, Sampled, rule

_ERROR = Severity.ERROR
_ITEMS = 200
"""Items that are held against the schemas; all are held against their files."""
_VALUES = 20_000
"""In a document that is held against schemas, at most."""
_EXTENSIONS = 50
_PARQUET = "application/vnd.apache.parquet"
_NEAR = 1e-6
_SECOND = 1_000_000


def _judge(document: dict[str, Any], kind: str, where: str) -> Iterator[Outcome]:
    """Core, then every extension that the document declares."""
    version = document.get("stac_version")
    if version not in {"1.0.0", "1.1.0"}:
        yield Fault(where, f"stac_version {version!r}", "1.1.0")
        return
    if has_more_than(document, _VALUES):
        yield NotChecked(f"{where} holds more than {_VALUES:,} values, too many to hold against schemas")
        return
    declared = document.get("stac_extensions") or []
    for uri in [None, *declared[:_EXTENSIONS]]:
        try:
            schema = core_schema(kind, version) if uri is None else schema_of(uri)
            for violation in violations(document, schema)[:3]:
                place, _, message = violation.partition(": ")
                yield Fault(f"{where}: {place}", message, uri or "STAC core")
        except ReleaseError as error:
            yield NotChecked(f"{error.where} {error.found}")


@rule(
    "STC001",
    _ERROR,
    "The Collection is valid STAC, with every extension it declares",
    reason="Catalogs and clients drop or misread documents that are not valid.",
    fix="Write it again with `clay-publish catalog`.",
)
def collection_is_valid(view: View) -> Iterator[Outcome]:
    """JSON Schemas, offline."""
    if view.collection.get("type") != "Collection":
        yield Fault(COLLECTION, f"type {view.collection.get('type')!r}", "Collection")
        return
    links = view.collection.get("links")
    # A static catalog may link every Item: the first ones stand for all.
    shown = {"links": links[:_ITEMS]} if isinstance(links, list) else {}
    if isinstance(links, list):
        yield Sampled(len(shown["links"]), len(links), "links")
    yield from _judge({**view.collection, **shown}, "collection", COLLECTION)


@rule(
    "STC002",
    _ERROR,
    "Items are valid STAC, with every extension they declare",
    reason="Catalogs and clients drop or misread documents that are not valid.",
    fix="Write them again with `clay-publish catalog`.",
)
def items_are_valid(view: View) -> Iterator[Outcome]:
    """Some items, spread over the table."""
    step = max(1, view.items.num_rows // _ITEMS)
    chosen = view.items.take(pa.array(range(0, view.items.num_rows, step)))
    try:
        documents = list(stac_geoparquet.arrow.stac_table_to_items(chosen))
    except (KeyError, ValueError, TypeError, pa.ArrowException) as error:
        yield Fault(ITEMS, f"cannot be read as stac-geoparquet ({error!r})", "one STAC Item a row")
        return
    yield Sampled(len(documents), view.items.num_rows, "Items")
    for document in documents:
        yield from _judge(document, "item", f"{ITEMS}: {document.get('id')}")


@rule(
    "STC003",
    _ERROR,
    "The model's Item is valid STAC, with every extension it declares",
    reason="It is how a reader finds the weights and the normalisation that the vectors were made with.",
    fix="Write it again with `clay-publish catalog`.",
)
def model_is_valid(view: View) -> Iterator[Outcome]:
    """`model.json`."""
    yield from _judge(view.release.json(MODEL), "item", MODEL)


@rule(
    "STC004",
    _ERROR,
    "Every embeddings file has one Item, and every Item a file",
    reason="Who searches by STAC sees only what has an Item, and gets an error for an Item without its file.",
    fix="Write items.parquet again with `clay-publish catalog`.",
)
def one_item_a_file(view: View) -> Iterator[Outcome]:
    """By the asset `embeddings`."""
    paths = _paths(view)
    for path in sorted(set(view.data_paths) - set(paths)):
        yield Fault(ITEMS, f"has no Item for {path}", "one Item a file")
    seen: set[str] = set()
    for number, path in enumerate(paths):
        if path not in view.data_paths:
            yield Fault(f"{ITEMS}: row {number}", f"points to {path}, which is not there", "a file of the release")
        elif path in seen:
            yield Fault(f"{ITEMS}: row {number}", f"is another Item of {path}", "one Item a file")
        seen.add(path)


def _paths(view: View) -> list[str]:
    """Path, in the release, of each Item's embeddings."""
    if "assets" not in view.items.column_names:
        raise ReleaseError(ITEMS, "has no column 'assets'")
    address = release_address(view.spec)
    found = []
    for assets in view.items.column("assets").to_pylist():
        href = ((assets or {}).get("embeddings") or {}).get("href")
        if href is None:
            raise ReleaseError(ITEMS, "has an Item without the asset 'embeddings'")
        found.append(href.removeprefix(f"{address}/") if address else href.removeprefix("./"))
    return found


def _items_of_files(view: View, columns: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    missing = [name for name in columns if name not in view.items.column_names]
    if missing:
        raise ReleaseError(ITEMS, f"has no column {', '.join(missing)}")
    rows = view.items.select(["id", *columns]).to_pylist()
    for path, row in zip(_paths(view), rows, strict=True):
        if path in view.embeddings:
            yield path, row


@rule(
    "STC005",
    _ERROR,
    "Items count the rows of their files",
    reason="The count is how a client plans its reading, and how a lost row is noticed.",
    fix="Write items.parquet again with `clay-publish catalog`.",
)
def item_rows_agree(view: View) -> Iterator[Outcome]:
    """`table:row_count`."""
    for path, row in _items_of_files(view, ["table:row_count"]):
        rows = view.footer_of(path).num_rows
        if row["table:row_count"] != rows:
            yield Fault(f"{ITEMS}: {row['id']}", f"table:row_count {row['table:row_count']}", f"{rows:,} as in {path}")


@rule(
    "STC006",
    _ERROR,
    "An Item's bbox is the bounds of its chips",
    reason="A search by place looks at the Item first: too small hides chips, too large fetches files for nothing.",
    fix="Write items.parquet again with `clay-publish catalog`.",
)
def item_boxes_agree(view: View) -> Iterator[Outcome]:
    """To a decimetre."""
    for path, row in _items_of_files(view, ["bbox"]):
        own = view.scan.facts.boxes.get(path)
        if own is None or not len(own):
            yield NotChecked(f"{path} has no footprints")
            continue
        told = tuple(row["bbox"][side] for side in ("xmin", "ymin", "xmax", "ymax"))
        crossing = (own[:, 0] > own[:, 2]).any() or told[0] > told[2]
        sides = (1, 3) if crossing else (0, 1, 2, 3)
        bounds = (own[:, 0].min(), own[:, 1].min(), own[:, 2].max(), own[:, 3].max())
        if any(abs(told[side] - bounds[side]) > _NEAR for side in sides):
            yield Fault(
                f"{ITEMS}: {row['id']}",
                f"bbox {', '.join(f'{v:.5f}' for v in told)}",
                ", ".join(f"{v:.5f}" for v in bounds),
            )


@rule(
    "STC007",
    _ERROR,
    "An Item's period holds its chips",
    reason="A search by date looks at the Item first.",
    fix="Write items.parquet again with `clay-publish catalog`.",
)
def item_times_agree(view: View) -> Iterator[Outcome]:
    """datetime, or start and end, against the chips' times."""
    facts = view.scan.facts
    rows_of = facts.slices()
    names = [n for n in ("datetime", "start_datetime", "end_datetime") if n in view.items.column_names]
    for path, row in _items_of_files(view, names):
        moments = facts["moments"][rows_of[path]]
        moments = moments[moments != np.iinfo(np.int64).min]
        start = row.get("start_datetime") or row.get("datetime")
        end = row.get("end_datetime") or row.get("datetime")
        if start is None or end is None:
            yield Fault(f"{ITEMS}: {row['id']}", "has no time", "datetime, or start_datetime and end_datetime")
        elif moments.size and (moments.min() < micros(start) - _SECOND or moments.max() > micros(end) + _SECOND):
            yield Fault(f"{ITEMS}: {row['id']}", f"{start.isoformat()}/{end.isoformat()}", f"the times in {path}")


@rule(
    "STC008",
    _ERROR,
    "The Collection's extent is that of the chips",
    reason="The extent is what catalogs draw and filter by.",
    fix="Write the collection again with `clay-publish catalog`.",
)
def extent_agrees(view: View) -> Iterator[Outcome]:
    """The first bbox of the spatial extent."""
    boxes = view.collection.get("extent", {}).get("spatial", {}).get("bbox", [])
    if not boxes or len(boxes[0]) != 4:
        yield NotChecked(f"{COLLECTION} has no spatial extent of four numbers")
        return
    told = boxes[0]
    own = np.concatenate(list(view.scan.facts.boxes.values()) or [np.empty((0, 4))])
    if not len(own):
        yield NotChecked("no file has footprints")
        return
    crossing = bool((own[:, 0] > own[:, 2]).any()) or told[0] > told[2]
    bounds = (own[:, 0].min(), own[:, 1].min(), own[:, 2].max(), own[:, 3].max())
    for side in (1, 3) if crossing else (0, 1, 2, 3):
        if abs(told[side] - bounds[side]) > _NEAR:
            yield Fault(
                f"{COLLECTION}: extent.spatial",
                ", ".join(f"{v:.5f}" for v in told),
                ", ".join(f"{v:.5f}" for v in bounds),
            )
            return


@rule(
    "STC009",
    _ERROR,
    "Assets exist, and have the size and checksum that the documents say",
    reason="A broken link or a checksum of another version is what a reader meets first.",
    fix="Write the documents again, in their order: items, card, collection.",
)
def assets_agree(view: View) -> Iterator[Outcome]:
    """`file:size` and `file:checksum` (multihash of SHA-256) of the collection's assets and the items' files."""
    there = set(view.files)
    for key, asset in (view.collection.get("assets") or {}).items():
        where, href = f"{COLLECTION}: assets.{key}", str(asset.get("href", ""))
        if "://" in href:
            continue
        path = href.removeprefix("./")
        if path not in there:
            yield Fault(where, f"{href} is not there", "a file of the release")
            continue
        size, told = asset.get("file:size"), asset.get("file:checksum")
        if size is not None and size != view.release.store.size(path):
            yield Fault(where, f"file:size {size}", f"{view.release.store.size(path)}")
        if told is not None and told != f"1220{view.digests[path]}":
            yield Fault(where, f"file:checksum {told[:20]}…", f"1220{view.digests[path][:16]}…")
    for path, row in _items_of_files(view, ["assets"]):
        size = row["assets"]["embeddings"].get("file:size")
        if size is not None and size != view.release.store.size(path):
            yield Fault(f"{ITEMS}: {row['id']}", f"file:size {size}", f"{view.release.store.size(path)}")


@rule(
    "STC010",
    _ERROR,
    "Only the item table has the plain Parquet type among the Collection's assets",
    reason="STAC servers over GeoParquet take every asset of exactly this type for items, and fail on two.",
    fix=f'Give other tables a type with a profile: `{_PARQUET}; profile="coverage"`.',
)
def one_item_table(view: View) -> Iterator[Outcome]:
    """Types of the collection's assets."""
    assets = view.collection.get("assets") or {}
    tables = {key: asset.get("href", "") for key, asset in assets.items() if asset.get("type") == _PARQUET}
    if [href.removeprefix("./").rpartition("/")[2] for href in tables.values()] != [ITEMS]:
        yield Fault(f"{COLLECTION}: assets", f"{', '.join(tables) or 'none'} of type {_PARQUET}", f"{ITEMS} alone")


@rule(
    "STC011",
    _ERROR,
    "Links inside the release lead to files that are there",
    reason="A catalog with dead links is not followed twice.",
    fix="Write the documents again with `clay-publish catalog`.",
)
def links_lead_somewhere(view: View) -> Iterator[Outcome]:
    """Relative links of the Collection and the model's Item."""
    there = set(view.files)
    for path in (COLLECTION, MODEL):
        for link in view.release.json(path).get("links", []):
            href = str(link.get("href", ""))
            outside = "://" in href or href.startswith(("#", "../"))  # another version, beside this one
            if not outside and href.removeprefix("./") not in there:
                yield Fault(f"{path}: link {link.get('rel')}", f"{href} is not there", "a file of the release")


@rule(
    "STC012",
    _ERROR,
    "The Collection links to its model, sources and licence",
    reason="Where vectors come from and what may be done with them has to be one click away.",
    fix="Write the collection again with `clay-publish catalog`.",
)
def links_are_there(view: View) -> Iterator[Outcome]:
    """The relations that the embedding extension and STAC ask for."""
    relations = {link.get("rel") for link in view.collection.get("links", [])}
    for relation in ("emb:model", "emb:source-data", "license"):
        if relation not in relations:
            yield Fault(f"{COLLECTION}: links", f"none with rel {relation!r}", "a link")
