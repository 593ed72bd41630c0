"""Rules on what release format 2 promises: tables that are read in small pieces, one file of measurements, one day."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clay_publish.errors import ReleaseError
from clay_publish.release.directory import (
    CHANGELOG,
    CITATION,
    COLLECTION,
    COVERAGE,
    CROISSANT,
    DATACITE,
    ITEMS,
    JSON_LD,
    MANIFEST,
    MEASUREMENTS,
    SPEC,
)
from clay_publish.release.measurements import read_measurements
from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.data.coverage_table import coverage_batches
from clay_publish.validate.data.page_headers import page_headers
from clay_publish.validate.outcomes import Fault, Outcome, Sampled
from clay_publish.validate.registry import rule

_MEASURED = ("seconds", "usd", "energy_kwh", "device", "machine", "machines")
_ENERGY = "emb:energy"
_COVERAGE_ROWS = 4_096
_PAGE = 128 << 10
"""Bytes of a data page of vectors before compression, at most, where one vector is not larger."""
_CHECKED_FILES = 8
"""Files whose pages are looked at, spread over the release."""
_LAST = np.iinfo(np.int64).max
"""Stands for null, which comes last."""


@rule("PRV020")
def measurements_are_apart(context: ReleaseContext) -> Iterator[Outcome]:
    """`run.json`, and what manifest, footers, Items and the Collection's asset hold of it."""
    if MEASUREMENTS in context.files.paths:
        try:
            read_measurements(context.files.release)
        except ReleaseError as error:
            yield Fault(MEASUREMENTS, error.found[:300], "seconds, machines and libraries")
    stated = context.documents.json(MANIFEST).get("run")
    for key in _MEASURED:
        if isinstance(stated, dict) and key in stated:
            yield Fault(f"{MANIFEST}: run.{key}", repr(stated[key])[:60], f"{key} in {MEASUREMENTS} alone")
    for path, footer in context.tables.keys.items():
        if _ENERGY in footer.get("emb", {}):
            yield Fault(f"{path}: footer emb: {_ENERGY}", "is a measurement", f"measurements in {MEASUREMENTS} alone")
    if ITEMS in context.tables.readable and _ENERGY in context.tables.schema(ITEMS).names:
        yield Fault(f"{ITEMS}: {_ENERGY}", "is a measurement", f"measurements in {MEASUREMENTS} alone")
    asset = (context.documents.collection.get("assets") or {}).get("run")
    if not isinstance(asset, dict) or asset.get("href") != f"./{MEASUREMENTS}":
        yield Fault(f"{COLLECTION}: assets.run", repr(asset)[:60], f"an asset that leads to ./{MEASUREMENTS}")
    elif {"file:size", "file:checksum"} & asset.keys():
        yield Fault(f"{COLLECTION}: assets.run", "has a size or checksum", "neither: they differ from run to run")


@rule("DOC020")
def day_agrees(context: ReleaseContext) -> Iterator[Outcome]:
    """Spec, CITATION, Croissant, DataCite, JSON-LD, the changelog and `sci:citation`."""
    day = context.documents.spec.released
    if day is None:
        yield Fault(f"{SPEC}: released", "is missing", "YYYY-MM-DD")
        return
    stated: dict[str, Any] = {f"{CITATION}: date-released": context.documents.citation.get("date-released")}
    for path, key in ((CROISSANT, "datePublished"), (JSON_LD, "datePublished"), (DATACITE, "dates")):
        if path in context.files.paths:
            stated[f"{path}: {key}"] = _issued(context.documents.json(path).get(key))
    for place, found in stated.items():
        if str(found) != day.isoformat():
            yield Fault(place, repr(found)[:60], day.isoformat())
    entry = f"## {context.documents.spec.version} ({day.isoformat()})"
    if CHANGELOG in context.files.paths and entry not in context.files.text(CHANGELOG):
        yield Fault(CHANGELOG, "has no entry of this version and day", entry)
    cited = str(context.documents.collection.get("sci:citation", ""))
    if f"({day.year})" not in cited:
        yield Fault(f"{COLLECTION}: sci:citation", repr(cited)[:60], f"the year {day.year}")


def _issued(value: Any) -> Any:
    """The date of issue among DataCite's dates; any other value as it is."""
    if not isinstance(value, list):
        return value
    issued = (each for each in value if isinstance(each, dict) and each.get("dateType") == "Issued")
    return next(issued, {}).get("date")


@rule("SCH020")
def pages_are_small(context: ReleaseContext) -> Iterator[Outcome]:
    """Offset and column index of every column; headers of the first row group's pages in some files."""
    tables = [
        *context.tables.embeddings,
        *(path for path in context.tables.readable if path.startswith(f"{COVERAGE}/")),
    ]
    for path in tables:
        footer = context.tables.footer(path)
        for number in range(footer.num_columns if footer.num_row_groups else 0):
            column = footer.row_group(0).column(number)
            if not column.has_offset_index:
                yield Fault(f"{path}: {column.path_in_schema}", "has no page index", "one for every column")
                break
    chosen = (
        context.tables.embeddings[:: max(1, -(-len(context.tables.embeddings) // _CHECKED_FILES))]
        if context.files.store.local
        else []
    )
    for path in chosen:
        largest, most = _largest_page(context, path)
        if largest > most:
            yield Fault(f"{path}: embedding", f"a data page of {largest:,} bytes", f"at most {most:,}")
    yield Sampled(len(chosen), len(context.tables.embeddings), "files")


def _largest_page(context: ReleaseContext, path: str) -> tuple[int, int]:
    """Bytes of the largest page of vectors in the first row group, and how many it may have."""
    schema = context.tables.schema(path)
    if "embedding" not in schema.names or not context.tables.count(path):
        return 0, _PAGE
    group = context.tables.footer(path).row_group(0)
    columns = (group.column(number) for number in range(group.num_columns))
    column = next(each for each in columns if each.path_in_schema.split(".")[0] == "embedding")
    start = column.dictionary_page_offset if column.has_dictionary_page else column.data_page_offset
    with context.files.store.ranges(path) as file:
        pages = page_headers(file, start, start + column.total_compressed_size)
        largest = max((page.uncompressed for page in pages if not page.dictionary), default=0)
    kind = schema.field("embedding").type
    width = kind.list_size * kind.value_type.bit_width // 8 if pa.types.is_fixed_size_list(kind) else 0
    return largest, max(_PAGE, 2 * width)


@rule("SCH021")
def coverage_is_ordered(context: ReleaseContext) -> Iterator[Outcome]:
    """Row groups, and every row against the one before."""
    for path in context.tables.coverage:
        footer = context.tables.footer(path)
        largest = max((footer.row_group(g).num_rows for g in range(footer.num_row_groups)), default=0)
        if largest > _COVERAGE_ROWS:
            yield Fault(path, f"a row group of {largest:,} rows", f"at most {_COVERAGE_ROWS:,}")
        row = _first_out_of_order(context, path)
        if row is not None:
            yield Fault(f"{path}: row {row:,}", "comes after a cell of a higher number", "the order of epsg, row, col")


def _first_out_of_order(context: ReleaseContext, path: str) -> int | None:
    """The first row whose cell comes before that of the row above it."""
    seen, last = 0, np.full((3, 1), np.iinfo(np.int64).min)
    for batch in coverage_batches(context.tables, ["epsg", "row", "col"], [path]):
        cells = [pc.fill_null(batch.column(name).cast("int64"), _LAST).to_numpy() for name in ("epsg", "row", "col")]
        joined = np.concatenate([last, np.stack(cells)], axis=1)
        earlier, same = np.zeros(batch.num_rows, dtype=bool), np.ones(batch.num_rows, dtype=bool)
        for above, here in zip(joined[:, :-1], joined[:, 1:], strict=True):
            earlier |= same & (here < above)
            same &= here == above
        if earlier.any():
            return seen + int(earlier.argmax())
        if batch.num_rows:
            seen, last = seen + batch.num_rows, joined[:, -1:]
    return None
