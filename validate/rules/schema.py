"""Rules on the tables and their footers: columns, types, nulls, row groups, names, GeoParquet, features."""

import json
from collections.abc import Iterator, Sequence
from functools import partial

import pyarrow as pa
from pyproj import CRS
from pyproj.exceptions import CRSError

from clay_publish.errors import MissingExtraError, ReleaseError
from clay_publish.release.directory import COVERAGE, EMBEDDINGS, MANIFEST, SOURCES, SPEC, DataFile
from clay_publish.release.geoparquet import group_rows
from clay_publish.release.tables import (
    COMBINED,
    coverage_schema,
    embeddings_schema,
    hugging_face_features,
    sources_schema,
)
from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.data.chips import ChipRows
from clay_publish.validate.data.extra_tables import beside_paths
from clay_publish.validate.outcomes import BadRows, Fault, NotChecked, Outcome, Sampled, SkippedError, bad_rows
from clay_publish.validate.registry import row_rule, rule

_OPTIONAL = {"thumbnail", "scale", "grid_cell", *COMBINED}
"""PRV019 says whether those of composites have to be there."""
_EVERY = embeddings_schema(1, "int8", thumbnails=True, combined=True, cells=True)


@rule("SCH001")
def columns_are_there(context: ReleaseContext) -> Iterator[Outcome]:
    """Names and order, and the columns that are there where the spec asks for them alone."""
    for path in context.tables.embeddings:
        schema = context.tables.schema(path)
        expected = _EVERY.names
        missing = [n for n in expected if n not in schema.names and n not in _OPTIONAL]
        unknown = [n for n in schema.names if n not in expected]
        if "scale" not in schema.names and pa.types.is_integer(_value_type(schema)):
            missing.append("scale")
        if missing:
            yield Fault(path, f"lacks {', '.join(missing)}", "the columns of the table")
        if unknown:
            yield Fault(path, f"has the unknown column {', '.join(unknown)}", "the columns of the table")
        if not missing and not unknown and schema.names != [n for n in expected if n in schema.names]:
            yield Fault(path, f"has the order {', '.join(schema.names)}", ", ".join(expected))
    outputs = context.documents.spec.outputs
    asked = {"thumbnail": outputs.thumbnails > 0, "grid_cell": outputs.major_tom_cell}
    for path in context.tables.embeddings:
        for name, wanted in asked.items():
            if wanted != (name in context.tables.schema(path).names):
                found = "lacks" if wanted else "has"
                yield Fault(path, f"{found} the column {name}", f"{'one' if wanted else 'none'}, as {SPEC} says")


@rule("SCH002")
def types_agree(context: ReleaseContext) -> Iterator[Outcome]:
    """Arrow types, without nullability; the vectors' own type is checked by SCH006."""
    expected = _EVERY
    for path in context.tables.embeddings:
        for column in context.tables.schema(path):
            if column.name == "embedding":
                if not pa.types.is_fixed_size_list(column.type):
                    yield Fault(f"{path}: embedding", str(column.type), "a fixed-size list")
            elif column.name in expected.names and not same_type(column.type, expected.field(column.name).type):
                yield Fault(f"{path}: {column.name}", str(column.type), str(expected.field(column.name).type))


@row_rule("SCH003", alone=True)
def no_nulls(chips: ChipRows, _: ReleaseContext) -> Sequence[BadRows]:
    """Nulls in the columns that may have none, and inside vectors."""
    found: list[BadRows] = []
    for column in _EVERY:
        if column.nullable or not chips.has(column.name):
            continue
        array = chips.column(column.name)
        if array.null_count:
            found += bad_rows(chips.nulls(column.name), partial(_null, column.name), f"a value in {column.name}")
        if pa.types.is_fixed_size_list(array.type) and array.values.null_count:
            inner = array.values.slice(array.offset * array.type.list_size, len(array) * array.type.list_size)
            nulls = inner.is_null().to_numpy(zero_copy_only=False).reshape(len(array), -1).any(axis=1)
            found += bad_rows(nulls, "the vector holds nulls", "numbers")
    return found


def _null(name: str, _: int) -> str:
    return f"{name} is null"


@rule("SCH006")
def one_vector_type(context: ReleaseContext) -> Iterator[Outcome]:
    """Dimension and dtype, over all files and against the footer."""
    first: tuple[str, pa.DataType] | None = None
    for path in context.tables.embeddings:
        schema = context.tables.schema(path)
        if "embedding" not in schema.names:
            continue
        kind = schema.field("embedding").type
        size = kind.list_size if pa.types.is_fixed_size_list(kind) else None
        shape = (size, _name(_value_type(schema)))
        if first is None:
            first = (path, kind)
        elif kind != first[1]:
            yield Fault(f"{path}: embedding", str(kind), f"{first[1]} as in {first[0]}")
        stated = context.tables.keys[path].get("emb", {})
        for key, own in zip(("emb:dimensions", "data_type"), shape, strict=True):
            if own is not None and (key in stated or "embrel:decided_by" in stated) and stated.get(key) != own:
                yield Fault(f"{path}: footer emb: {key}", repr(stated.get(key)), f"{own}, as the column has")


@rule("SCH007")
def spec_is_valid(context: ReleaseContext) -> Iterator[Outcome]:
    """The spec."""
    if SPEC in context.files.paths:
        try:
            _ = context.documents.spec
        except ReleaseError as error:
            yield Fault(SPEC, error.found, "a spec that `clay-publish` accepts")


@rule("SCH008")
def tables_agree(context: ReleaseContext) -> Iterator[Outcome]:
    """The other tables' schemas."""
    for path in context.tables.readable:
        if path == SOURCES:
            expected = sources_schema()
        elif path.startswith(f"{COVERAGE}/"):
            expected = coverage_schema()
        else:
            continue
        yield from columns_agree(path, context.tables.schema(path), expected)


def columns_agree(path: str, schema: pa.Schema, expected: pa.Schema) -> Iterator[Outcome]:
    """A fault for each column that is missing or has another type."""
    for column in expected:
        if column.name not in schema.names:
            yield Fault(f"{path}: {column.name}", "is missing", str(column.type))
        elif not same_type(schema.field(column.name).type, column.type):
            yield Fault(f"{path}: {column.name}", str(schema.field(column.name).type), str(column.type))


@rule("SCH009")
def row_groups_are_small(context: ReleaseContext) -> Iterator[Outcome]:
    """Row groups of the embeddings, and of the tables beside them."""
    beside = (path for path in beside_paths(context.tables) if path not in context.tables.unreadable)
    for path in (*context.tables.embeddings, *beside):
        footer, most = context.tables.footer(path), group_rows(context.tables.schema(path))
        largest = max((footer.row_group(g).num_rows for g in range(footer.num_row_groups)), default=0)
        if largest > most:
            yield Fault(path, f"a row group of {largest:,} rows", f"at most {most:,}")


@rule("SCH012")
def only_parquet(context: ReleaseContext) -> Iterator[Outcome]:
    """The embeddings tree."""
    for path in context.files.paths:
        if path.startswith(f"{EMBEDDINGS}/") and not path.endswith(".parquet"):
            yield Fault(path, "is not a Parquet file", "GeoParquet files only")


@rule("SCH013")
def names_parse(context: ReleaseContext) -> Iterator[Outcome]:
    """File names."""
    for path in context.files.data:
        try:
            DataFile.parse(path)
        except ReleaseError as error:
            yield Fault(path, error.found, error.expected)


@rule("SCH014")
def manifest_is_valid(context: ReleaseContext) -> Iterator[Outcome]:
    """The manifest."""
    if MANIFEST in context.files.paths:
        try:
            _ = context.documents.manifest
        except ReleaseError as error:
            yield Fault(MANIFEST, error.found[:300], "a manifest as `clay-publish` writes it")


def _value_type(schema: pa.Schema) -> pa.DataType:
    if "embedding" not in schema.names:
        return pa.null()
    kind = schema.field("embedding").type
    nested = pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return kind.value_type if nested else kind


def _name(kind: pa.DataType) -> str:
    return {"float": "float32", "halffloat": "float16", "double": "float64"}.get(str(kind), str(kind))


def same_type(found: pa.DataType, expected: pa.DataType) -> bool:
    """Whether two types mean the same, whatever their nested fields are called and may be null."""
    if pa.types.is_fixed_size_list(expected) and (
        not pa.types.is_fixed_size_list(found) or found.list_size != expected.list_size
    ):
        return False
    if pa.types.is_nested(found) and pa.types.is_nested(expected):
        if pa.types.is_struct(found) != pa.types.is_struct(expected) or found.num_fields != expected.num_fields:
            return False
        pairs = [(found.field(i), expected.field(i)) for i in range(found.num_fields)]
        named = not pa.types.is_struct(found) or all(a.name == b.name for a, b in pairs)
        return named and all(same_type(a.type, b.type) for a, b in pairs)
    return bool(found == expected)


_MOST_ROWS = 16_384
_VERSIONS = ("1.0", "1.1", "2.0")
"""Of GeoParquet, that the community's validator knows."""
_SAID = 120
"""Letters of what it says that are quoted: it lists every row."""
_FILES = 8
"""Files that the community's validator is shown, spread over the release."""


@rule("SCH004")
def footers_are_there(context: ReleaseContext) -> Iterator[Outcome]:
    """Footer keys that hold a JSON object."""
    for path in context.tables.embeddings:
        metadata = context.tables.annotated_schema(path).metadata or {}
        for key in ("geo", "emb", "huggingface"):
            text = metadata.get(key.encode())
            if text is None:
                yield Fault(f"{path}: footer {key}", "is missing", "a JSON object")
            elif not _is_object(text):
                yield Fault(f"{path}: footer {key}", "is not a JSON object", "a JSON object")


@rule("SCH005")
def geo_footer(context: ReleaseContext) -> Iterator[Outcome]:
    """The `geo` footer."""
    for path, footer in context.tables.keys.items():
        geo = footer.get("geo")
        if geo is None:
            continue  # SCH004
        column = geo.get("columns", {}).get(geo.get("primary_column"), {})
        where = f"{path}: footer geo"
        if geo.get("primary_column") != "geometry" or "geometry" not in geo.get("columns", {}):
            yield Fault(where, f"primary column {geo.get('primary_column')!r}", "geometry")
            continue
        if not str(geo.get("version", "")).startswith("1."):
            yield Fault(where, f"version {geo.get('version')!r}", "1.1.0")
        if column.get("encoding") != "WKB":
            yield Fault(where, f"encoding {column.get('encoding')!r}", "WKB")
        if not _is_crs84(column):
            yield Fault(where, f"crs {str(column.get('crs'))[:60]}", "OGC:CRS84")
        if column.get("edges", "planar") != "planar":
            yield Fault(where, f"edges {column['edges']!r}", "planar")
        if column.get("covering", {}).get("bbox", {}).get("xmin") != ["bbox", "xmin"]:
            yield Fault(where, "no covering by the column bbox", '{"bbox": {"xmin": ["bbox", "xmin"], …}}')


@rule("SCH010")
def features_agree(context: ReleaseContext) -> Iterator[Outcome]:
    """The `huggingface` footer key against the columns."""
    for path, footer in context.tables.keys.items():
        stated = footer.get("huggingface", {}).get("info", {}).get("features")
        if "huggingface" not in footer:
            continue  # SCH004
        expected = hugging_face_features(context.tables.schema(path))
        if stated != expected:
            wrong = [n for n in {**expected, **(stated or {})} if (stated or {}).get(n) != expected.get(n)]
            yield Fault(f"{path}: footer huggingface", f"differs in {', '.join(wrong[:5])}", "the table's columns")


@rule("SCH011")
def geoparquet_conforms(context: ReleaseContext) -> Iterator[Outcome]:
    """The community's validator on some files; all rows are checked by our own rules on geometry."""
    try:
        import geoparquet_validator  # noqa: PLC0415 - optional
    except ImportError as error:
        raise MissingExtraError(
            "geoparquet-validator", "is not installed", "pip install geoparquet-validator"
        ) from error
    if not context.files.store.local:
        raise SkippedError(context.files.store.where, "is not local; the validator opens files by itself")
    chosen = context.tables.embeddings[:: max(1, -(-len(context.tables.embeddings) // _FILES))]
    for path in chosen:
        version = str(context.tables.keys[path].get("geo", {}).get("version"))
        if context.tables.foreign and not version.startswith(_VERSIONS):
            yield NotChecked(f"{path} states version {version} of GeoParquet, which the validator does not know")
            continue
        with context.files.reading(path):
            report = geoparquet_validator.check(context.files.store.path(path), _MOST_ROWS)
        for outcome in report["outcomes"]:
            # The order of rows is checked for the hosts' sake, not for correctness.
            if outcome["status"] == "fail" and not outcome["id"].startswith("/conf/distribution"):
                yield Fault(path, f"{outcome['message'][:_SAID]} ({outcome['id']})", "what GeoParquet asks for")
    seen = sum(min(context.tables.count(path), _MOST_ROWS) for path in chosen)
    yield Sampled(seen, context.tables.rows)


def _is_object(text: bytes) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _is_crs84(column: dict[str, object]) -> bool:
    """Whether the CRS is longitude and latitude on WGS 84; a missing key means that, null means nothing."""
    if "crs" not in column:
        return True
    if column["crs"] is None:
        return False
    try:
        crs = CRS.from_user_input(column["crs"])
    except CRSError:
        return False
    return bool(crs.equals(CRS("OGC:CRS84"), ignore_axis_order=True))
