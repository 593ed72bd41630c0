"""Rules on embeddings that anybody made: they hold vectors, place them on the Earth, and follow the conventions."""

import json
import posixpath
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urljoin

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clay_publish.release.names import hash_strings
from clay_publish.storage.store import OneFile, is_url
from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.data.chip_facts import repeated
from clay_publish.validate.data.chips import ChipRows
from clay_publish.validate.data.inputs import describes_arrays
from clay_publish.validate.data.others.columns import without_vectors
from clay_publish.validate.data.others.links import assets_of, beside, children_of, describes_embeddings, hrefs_in
from clay_publish.validate.data.stac_schemas import EMBEDDINGS as EXTENSION
from clay_publish.validate.data.stac_schemas import schema_of, violations
from clay_publish.validate.outcomes import BadRows, Fault, NotChecked, Outcome, Sampled, bad_rows, is_parquet
from clay_publish.validate.registry import row_rule, rule
from clay_publish.validate.rules.geometry import why_unsound

_NAMES = "a column of numeric lists, best named `embedding`"
_MOST = 10_000_000
"""Rows whose footprints are compared."""
_LEAST = 0.01
"""Square meters of a footprint that is a place: smaller ones are degrees taken for meters, or lines."""
_SCALE = re.compile(r"(.*_)?(scales?|quant)($|_)", re.IGNORECASE)
_NAMED = {"halffloat": "float16", "float": "float32", "double": "float64"}
"""Arrow's names of types that STAC calls otherwise."""


@rule("ANY001")
def vectors_are_there(context: ReleaseContext) -> Iterator[Outcome]:
    """A column of vectors in every data file, and rows."""
    given = context.input
    if not given.vectors:
        yield from _why_no_vectors(context)
    for path in given.lacking if given.vectors else ():
        yield Fault(path, "holds no embeddings, unlike other files with its columns", _NAMES)
    for path in given.vectors:
        if not context.tables.count(path):
            yield Fault(path, "has no rows", "at least one embedding")


def _why_no_vectors(context: ReleaseContext) -> Iterator[Outcome]:
    columns, documents = context.input.columns, context.input.documents
    if not columns:
        if context.tables.unreadable:
            yield NotChecked("no Parquet file can be opened")
            return
        stores = [path for path, document in documents.items() if describes_arrays(document)]
        folder = min(stores, key=len).rpartition("/")[0] if stores else ""
        if stores:
            again = f"run `validate` on {context.files.store.path(folder)}" if folder else "their store has no .zgroup"
            yield NotChecked(f"the embeddings are Zarr arrays: {again}")
            return
        elsewhere = [
            address for path, document in documents.items() for address in _tables_elsewhere(path, document, context)
        ]
        if elsewhere:
            yield NotChecked(f"the embeddings are elsewhere: run `validate` on {elsewhere[0]}")
            return
        if not context.files.store.local and any(map(describes_embeddings, documents.values())):
            yield NotChecked("the documents name no tables, and the server does not list them")
            return
    named = list(columns) or context.files.paths
    where = context.files.store.where if len(named) != 1 else named[0]
    fields = [(field.name, field.type) for path in columns for field in context.tables.schema(path)]
    why = without_vectors(fields) or f"it is {context.input.kind.partition(': ')[0]}"
    yield Fault(where, f"holds no embeddings: {why}", _NAMES)


def _tables_elsewhere(path: str, document: dict[str, Any], context: ReleaseContext) -> Iterator[str]:
    """Addresses outside the input of the tables that a STAC document names, and of its children."""
    described = describes_embeddings(document)
    hrefs = [href for href, asset in assets_of(document) if described or _is_table(href, asset)]
    hrefs += children_of(document) if described or document.get("type") == "Catalog" else ()
    for href in hrefs:
        if beside(path, href) is None:
            here = context.files.store.path(path)
            absolute = is_url(href) or is_url(here)
            yield urljoin(here, href) if absolute else posixpath.normpath(posixpath.join(here, "..", href))


def _is_table(href: str, asset: Mapping[str, Any]) -> bool:
    return is_parquet(href) or "parquet" in str(asset.get("type"))


@rule("ANY002")
def vectors_have_one_type(context: ReleaseContext) -> Iterator[Outcome]:
    """Type of the vector column of every file; lengths of lists over all rows."""
    first: tuple[str, pa.DataType | None] | None = None
    for path in context.input.vectors:
        kind = context.input.columns[path].numbers
        if first is None:
            first = path, kind
        elif kind != first[1]:
            yield Fault(path, f"vectors of type {kind}", f"{first[1]} as in {first[0]}")
    widths = context.scan.seen.lengths
    if widths == {0}:
        yield Fault(context.files.store.where, "vectors without values", "vectors of one length")
    elif len(widths) > 1:
        yield from _odd_lengths(context)


def _odd_lengths(context: ReleaseContext) -> Iterator[Outcome]:
    """The first row of each file whose vector is not as long as most are."""
    counts: Counter[int] = Counter()
    rows: dict[str, dict[int, tuple[int, int]]] = {}
    for path in context.input.vectors:
        columns, start, found = context.input.columns[path], 0, rows.setdefault(path, {})
        for batch in context.tables.batches(path, columns=list(columns.parts)):
            vectors = columns.renamed(batch).column("embedding")
            lengths = pc.list_value_length(vectors).fill_null(-1).to_numpy(zero_copy_only=False)
            for width, row, many in zip(*np.unique(lengths, return_index=True, return_counts=True), strict=True):
                first, before = found.get(int(width), (start + int(row), 0))
                found[int(width)] = first, before + int(many)
            start += len(lengths)
        counts.update({width: many for width, (_, many) in found.items() if width >= 0})
    usual = counts.most_common(1)[0][0]
    for path, found in rows.items():
        for width, (row, many) in sorted(found.items()):
            if width not in {usual, -1}:
                all_rows = f"; {many:,} rows in all" if many > 1 else ""
                yield Fault(f"{path}: row {row}", f"a vector of {width:,} values{all_rows}", f"{usual:,} as most have")


@rule("ANY003")
def places_are_stated(context: ReleaseContext) -> Iterator[Outcome]:
    """Footprints, and the CRS that they are in, which Parquet alone does not say."""
    for path in context.input.vectors:
        columns, geo = context.input.columns[path], context.tables.keys[path].get("geo")
        if columns.shapes is None:
            known = f", and places only as `{'`, `'.join(columns.places[:4])}`" if columns.places else ""
            yield Fault(path, f"has no column of footprints{known}", "a column `geometry` of WKB, with a CRS")
        elif columns.crs is not None:
            if columns.stated_crs is None:
                yield Fault(f"{path}: footer geo", f"has an unknown CRS: {str(columns.crs)[:60]}", "OGC:CRS84")
        elif geo is None:
            yield Fault(f"{path}: {columns.shapes}", "has no CRS: the file has no `geo` metadata", "GeoParquet")
        elif columns.described:
            yield Fault(f"{path}: footer geo", "has the CRS null, which means unknown", "OGC:CRS84, or another CRS")
        else:
            yield Fault(f"{path}: footer geo", f"says nothing of the column `{columns.shapes}`", "its encoding and CRS")


@rule("ANY004")
def footprints_have_one_vector(context: ReleaseContext) -> Iterator[Outcome]:
    """Rows of the same footprint, times and sources, and other vectors.

    Files are compared with each other where all have a column of times: names of files may say the time, too.
    """
    if context.tables.rows > _MOST:
        yield NotChecked(f"{context.tables.rows:,} rows are too many to compare their footprints")
        return
    placed = [path for path in context.input.vectors if context.input.columns[path].shapes is not None]
    dated = bool(placed) and all(context.input.columns[path].times for path in placed)
    for paths in [placed] if dated else [[path] for path in placed]:
        keys = [batch for path in paths for batch in _keys_of(path, context)]
        if not keys:
            continue
        facts, slices = context.scan.facts, context.scan.facts.slices()
        rows = np.concatenate([np.arange(slices[path].start, slices[path].stop) for path in paths])
        pairs = rows[np.array(list(repeated(np.concatenate(keys)).examples(100_000)), np.int64).reshape(-1, 2)]
        pairs = pairs[facts["vectors"][pairs[:, 0]] != facts["vectors"][pairs[:, 1]]]
        if len(pairs):
            (before, one), (path, row) = (facts.place(number) for number in pairs[0].tolist())
            same = f"row {one}" if before == path else f"{before}: row {one}"
            found = f"has the footprint and time of {same}, and another vector; {len(pairs):,} such pairs"
            yield Fault(f"{path}: row {row}", found, "one vector for each place and time")


def _keys_of(path: str, context: ReleaseContext) -> Iterator[npt.NDArray[np.uint64]]:
    """64 bits for footprint, times, sources and partition of each row of a file."""
    columns = context.input.columns[path]
    names = dict.fromkeys([str(columns.shapes), *columns.times, *columns.sources])
    partition = zlib.crc32("/".join(part for part in path.split("/")[:-1] if "=" in part).encode())
    for batch in context.tables.batches(path, columns=list(names)):
        yield _row_hashes(columns.renamed(batch)) + np.uint64(partition)


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
        columns, schema = context.input.columns[path], context.tables.schema(path)
        footer = context.tables.annotated_schema(path).metadata or {}
        said = stated or any(b"quantization" in value for value in footer.values())
        scaled = any(_SCALE.match(field.name) and _holds_numbers(field.type) for field in schema)
        if pa.types.is_integer(columns.numbers) and not (said or scaled):
            expected = "a column `scale`, or `emb:quantization`"
            yield Fault(f"{path}: {columns.vectors}", f"{columns.numbers} values without a scale", expected)


def _holds_numbers(kind: pa.DataType) -> bool:
    while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind))


@rule("ANY006")
def emb_fields_are_valid(context: ReleaseContext) -> Iterator[Outcome]:
    """`emb:` fields of every STAC document against the schema of the extension, without the core of STAC."""
    yield from _unknown(context)
    for path, document in context.input.documents.items():
        if "stac_version" in document and describes_embeddings(document):
            yield from _against_extension(path, document)
            if context.tables.foreign:
                yield from _against_tables(path, document, context)
    for path in context.input.vectors:
        emb = context.tables.keys[path].get("emb")
        if emb is not None:
            yield from _footer_faults(path, {**emb, **(emb.get("properties") or {})}, context)


def _unknown(context: ReleaseContext) -> Iterator[Outcome]:
    """Documents that cannot be read, and that there are more than are looked at."""
    for error in context.input.unread.values():
        yield NotChecked(f"{error.where} {error.found}")
    yield Sampled(len(context.input.looked_at), len(context.input.json_files), "documents")


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


def _against_tables(path: str, document: dict[str, Any], context: ReleaseContext) -> Iterator[Outcome]:
    """Length and type of the vectors that the only Collection states, against those of the tables."""
    alone = sum("emb:dimensions" in each for each in context.input.documents.values()) == 1
    if not alone or not context.input.vectors:
        return
    widths = context.scan.seen.lengths
    stated, kind = document.get("emb:dimensions"), document.get("data_type")
    if isinstance(stated, int) and len(widths) == 1 and stated not in widths:
        yield Fault(f"{path}: emb:dimensions", f"{stated:,}", f"{next(iter(widths)):,}, the length of the vectors")
    numbers = context.input.columns[context.input.vectors[0]].numbers
    found = _NAMED.get(str(numbers), str(numbers))
    if isinstance(kind, str) and kind != found and "emb:quantization" not in json.dumps(document):
        yield Fault(f"{path}: data_type", kind[:40], f"{found}, the type of the vectors")


def _footer_faults(path: str, emb: Mapping[str, Any], context: ReleaseContext) -> Iterator[Outcome]:
    width = context.input.columns[path].width
    stated = emb.get("emb:dimensions")
    if stated is not None and (not isinstance(stated, int) or stated < 1 or (width and stated != width)):
        yield Fault(f"{path}: footer emb: emb:dimensions", repr(stated)[:40], f"{width or 'a whole number from 1'}")
    if emb.get("emb:type", "chip") not in {"chip", "pixel"}:
        yield Fault(f"{path}: footer emb: emb:type", repr(emb["emb:type"])[:40], "chip or pixel")


@row_rule("ANY007")
def rows_are_whole(chips: ChipRows, context: ReleaseContext) -> Sequence[BadRows]:
    """A vector without nulls, and a footprint that can be read; a point is a place, too."""
    if not context.tables.foreign:  # rules on releases say more
        return []
    found = bad_rows(chips.nulls("embedding"), "the vector is null", "a vector")
    lists = chips.column("embedding")
    if pa.types.is_integer(lists.type.value_type) and lists.flatten().null_count:
        parents = pc.list_parent_indices(lists).filter(pc.is_null(lists.flatten())).to_numpy(zero_copy_only=False)
        holed = np.zeros(len(chips), dtype=bool)
        holed[parents] = True
        found += bad_rows(holed, "the vector has nulls", "an integer in every place")
    if not chips.has("geometry"):
        return found
    prints, null = chips.footprints, chips.nulls("geometry")
    found += bad_rows(null, "the footprint is null", "a footprint")
    points = np.zeros(len(chips), dtype=bool)
    points[[row for row, shape in prints.others.items() if shape.geom_type == "Point" and not shape.is_empty]] = True
    unsound = ~null & ~points & ~(prints.readable & prints.polygonal & prints.valid)
    found += bad_rows(unsound, lambda row: why_unsound(prints, row), "a valid Polygon, MultiPolygon or Point")
    with np.errstate(invalid="ignore"):
        tiny = prints.valid & (prints.area < _LEAST)
    return found + bad_rows(tiny, lambda row: f"a footprint of {prints.area[row]:.2g} m²", f"at least {_LEAST} m²")


@rule("ANY008")
def links_lead_to_files(context: ReleaseContext) -> Iterator[Outcome]:
    """Relative hrefs of assets and children, as far as they stay inside the input."""
    yield from _unknown(context)
    there, alone = set(context.files.paths), isinstance(context.files.store, OneFile)
    if alone or not context.files.store.local:
        if any(href for document in context.input.documents.values() for href in hrefs_in(document)):
            yield NotChecked("one file is looked at" if alone else "a server does not list its files")
        return
    for path, document in context.input.documents.items():
        if "stac_version" in document:
            for href in hrefs_in(document):
                target = beside(path, href)
                if target is not None and target not in there and not _is_folder(target, there):
                    yield Fault(f"{path}: {href}", "does not exist", "a file beside the document")


def _is_folder(target: str, there: set[str]) -> bool:
    return any(path.startswith(f"{target}/") for path in there)
