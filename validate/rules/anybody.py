"""Rules on embeddings that anybody made: they hold vectors, place them on the Earth, and follow the conventions."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.data.chip_facts import hash_strings, repeated
from clay_publish.validate.data.inputs import describes_arrays, describes_embeddings
from clay_publish.validate.data.stac_schemas import EMBEDDINGS as EXTENSION
from clay_publish.validate.data.stac_schemas import schema_of, violations
from clay_publish.validate.outcomes import PARQUET, Fault, NotChecked, Outcome
from clay_publish.validate.registry import rule

_NAMES = "a column of numeric lists, best named `embedding`"
_MOST = 10_000_000
"""Rows whose footprints are compared."""
"""Attributes that the convention for dense embeddings asks for."""


@rule("ANY001")
def vectors_are_there(context: ReleaseContext) -> Iterator[Outcome]:
    """A column of vectors in every data file, and rows."""
    columns = context.input.columns
    if not context.input.vectors:
        elsewhere = [asset for document in context.input.documents.values() for asset in _assets(document)]
        if not columns and elsewhere:
            yield NotChecked(f"the embeddings are elsewhere, and links are not followed: {elsewhere[0]}")
            return
        stores = [path for path, document in context.input.documents.items() if describes_arrays(document)]
        if not columns and stores:
            folder = min(stores, key=len).rpartition("/")[0]
            yield NotChecked(f"the embeddings are arrays in {folder}, which has to be validated by itself")
            return
        where = context.files.store.where if len(columns) != 1 else next(iter(columns))
        yield Fault(where, f"holds no embeddings: it is {context.input.kind.partition(':')[0]}", _NAMES)
        return
    for path, found in columns.items():
        if found.vectors is None:
            yield Fault(path, f"holds no embeddings among {', '.join(context.tables.schema(path).names[:8])}", _NAMES)
        elif not context.tables.count(path):
            yield Fault(path, "has no rows", "at least one embedding")


def _assets(document: dict[str, Any]) -> Iterator[str]:
    """Addresses of the tables that a STAC document leads to, and of all assets and Items where it has `emb:` fields."""
    described, links, assets = describes_embeddings(document), document.get("links"), document.get("assets")
    for asset in assets.values() if isinstance(assets, dict) else ():
        if isinstance(asset, dict) and isinstance(asset.get("href"), str):
            table = asset["href"].endswith(PARQUET) or "parquet" in str(asset.get("type"))
            if described or table:
                yield asset["href"]
    for link in links if isinstance(links, list) else ():
        followed = ("child", "item") if document.get("type") == "Catalog" else ("item",) if described else ()
        if isinstance(link, dict) and link.get("rel") in followed:
            yield str(link.get("href"))


@rule("ANY002")
def vectors_have_one_type(context: ReleaseContext) -> Iterator[Outcome]:
    """Type of the vector column of every file; lengths of lists over all rows."""
    first: tuple[str, pa.DataType] | None = None
    for path in context.input.vectors:
        kind = context.tables.schema(path).field(context.input.columns[path].vectors).type
        if first is None:
            first = path, kind
        elif kind != first[1]:
            yield Fault(path, f"vectors of type {kind}", f"{first[1]} as in {first[0]}")
    widths = {shape[0] for shape in context.scan.seen.shapes["low"]}
    if len(widths) > 1:
        listed = ", ".join(map(str, sorted(widths)[:5]))
        yield Fault(context.files.store.where, f"vectors of {listed} values", "vectors of one length")


@rule("ANY003")
def places_are_stated(context: ReleaseContext) -> Iterator[Outcome]:
    """Footprints, and the CRS that they are in, which Parquet alone does not say."""
    for path in context.input.vectors:
        shapes, geo = context.input.columns[path].shapes, context.tables.keys[path].get("geo")
        if shapes is None:
            yield Fault(path, "has no column of footprints", "a column `geometry` of WKB")
        elif geo is None:
            yield Fault(f"{path}: {shapes}", "has no CRS: the file has no `geo` metadata", "GeoParquet with a CRS")
        elif geo.get("columns", {}).get(shapes, {}).get("crs", "") is None:
            yield Fault(f"{path}: footer geo", "has the CRS null, which means unknown", "OGC:CRS84, or another CRS")


@rule("ANY004")
def footprints_have_one_vector(context: ReleaseContext) -> Iterator[Outcome]:
    """Rows of the same footprint and the same times, and other vectors."""
    if context.tables.rows > _MOST:
        yield NotChecked(f"{context.tables.rows:,} rows are too many to compare their footprints")
        return
    for path in context.input.vectors:
        columns = context.input.columns[path]
        if columns.shapes is None:
            continue
        names = [columns.shapes, *columns.times]
        keys = [_row_hashes(batch) for batch in context.tables.batches(path, columns=names)]
        if not keys:
            continue
        own = context.scan.facts["vectors"][context.scan.facts.slices()[path]]
        pairs = [(a, b) for a, b in repeated(np.concatenate(keys)).examples(100_000) if own[a] != own[b]]
        if pairs:
            first, second = pairs[0]
            found = f"has the footprint and time of row {first}, and another vector; {len(pairs):,} such pairs"
            yield Fault(f"{path}: row {second}", found, "one vector for each place and time")


def _row_hashes(batch: pa.RecordBatch) -> npt.NDArray[np.uint64]:
    """64 bits for the values of each row."""
    made = np.zeros(batch.num_rows, np.uint64)
    for column in batch.columns:
        texts = column if _is_binary(column.type) else pc.cast(column, pa.string())
        hashes = hash_strings(pc.cast(texts, pa.binary()).fill_null(b"").view(pa.string()))
        made = made * np.uint64(0x9E3779B97F4A7C15) + hashes
    return made


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


@rule("ANY005")
def integers_have_a_scale(context: ReleaseContext) -> Iterator[Outcome]:
    """A column `scale`, or `emb:quantization` in the footer or a STAC document."""
    stated = any("emb:quantization" in json.dumps(document) for document in context.input.documents.values())
    for path in context.input.vectors:
        kind = context.tables.schema(path).field(context.input.columns[path].vectors).type.value_type
        footer = context.tables.annotated_schema(path).metadata or {}
        said = stated or any(b"quantization" in value for value in footer.values())
        scaled = any(name.startswith(("scale", "quant")) for name in context.tables.schema(path).names)
        if pa.types.is_integer(kind) and not (said or scaled):
            yield Fault(
                f"{path}: {context.input.columns[path].vectors}",
                f"{kind} values without a scale",
                "a column `scale`, or `emb:quantization`",
            )


@rule("ANY006")
def emb_fields_are_valid(context: ReleaseContext) -> Iterator[Outcome]:
    """`emb:` fields of every STAC document against the schema of the extension, without the core of STAC."""
    for path, document in context.input.documents.items():
        if "stac_version" in document and describes_embeddings(document):
            yield from _against_extension(path, document)
    for path in context.input.vectors:
        emb = context.tables.keys[path].get("emb")
        if emb is not None:
            yield from _footer_faults(path, {**emb, **(emb.get("properties") or {})}, context)


def _against_extension(path: str, document: dict[str, Any]) -> Iterator[Outcome]:
    """One fault for each violation; the schema refers to the core of STAC 1.0.0, which other versions do not follow."""
    kind = "Collection" if document.get("type") == "Collection" else "Item"
    whole = json.loads(json.dumps(schema_of(EXTENSION)).replace("org/v1.0.0/", "org/v1.1.0/"))  # for its definitions
    branch = next(each for each in whole["oneOf"] if kind in str(each.get("title")))
    own = [part for part in branch["allOf"] if "stacspec.org" not in str(part.get("$ref"))]  # STC001 and STC002
    schema = {"$schema": whole["$schema"], "definitions": whole["definitions"], "allOf": own}
    declared = document.get("stac_extensions")
    known = list(dict.fromkeys([*(declared if isinstance(declared, list) else []), EXTENSION]))
    for violation in violations({**document, "stac_extensions": known}, schema)[:5]:
        place, _, message = violation.partition(": ")
        yield Fault(f"{path}: {place}", message, "the STAC Embedding extension 0.0.1")


def _footer_faults(path: str, emb: Mapping[str, Any], context: ReleaseContext) -> Iterator[Outcome]:
    kind = context.tables.schema(path).field(context.input.columns[path].vectors).type
    stated, width = emb.get("emb:dimensions"), kind.list_size if pa.types.is_fixed_size_list(kind) else None
    if stated is not None and (not isinstance(stated, int) or stated < 1 or (width and stated != width)):
        yield Fault(f"{path}: footer emb: emb:dimensions", repr(stated)[:40], f"{width or 'a whole number from 1'}")
    if emb.get("emb:type", "chip") not in {"chip", "pixel"}:
        yield Fault(f"{path}: footer emb: emb:type", repr(emb["emb:type"])[:40], "chip or pixel")
