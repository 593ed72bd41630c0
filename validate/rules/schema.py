"""Rules on the tables: columns, types, nulls, row groups and names."""

from collections.abc import Iterator, Sequence
from functools import partial

import pyarrow as pa

from clay_publish.errors import ReleaseError
from clay_publish.release.directory import COVERAGE, EMBEDDINGS, MANIFEST, SOURCES, SPEC, DataFile
from clay_publish.release.findings import Severity
from clay_publish.release.tables import coverage_schema, embeddings_schema, sources_schema
from clay_publish.validate.context import View
from clay_publish.validate.data.chips import ChipRows
from clay_publish.validate.registry import BadRows, Fault, Outcome, bad_rows, row_rule, rule

_OPTIONAL = {"thumbnail", "scale"}
_MOST_ROWS = 16_384
_ERROR, _WARNING = Severity.ERROR, Severity.WARNING


@rule(
    "SCH001",
    _ERROR,
    "Every embeddings file has the columns of the table",
    reason="Readers ask for columns by name; without date, id and source item a vector cannot be used or checked.",
    fix="Write the files with the columns that the documentation of the release directory lists.",
)
def columns_are_there(view: View) -> Iterator[Outcome]:
    """Names and order."""
    for path in view.embeddings:
        schema = view.schema_of(path)
        expected = embeddings_schema(1, "int8", thumbnails=True).names
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


@rule(
    "SCH002",
    _ERROR,
    "Columns have the types of the table",
    reason="A date as text, a vector as a list of any length, or a time without its zone works in one reader only.",
    fix="Write the files with the Arrow types that the documentation of the release directory lists.",
)
def types_agree(view: View) -> Iterator[Outcome]:
    """Arrow types, without nullability; the vectors' own type is judged by SCH006."""
    expected = embeddings_schema(1, "int8", thumbnails=True)
    for path in view.embeddings:
        for column in view.schema_of(path):
            if column.name == "embedding":
                if not pa.types.is_fixed_size_list(column.type):
                    yield Fault(f"{path}: embedding", str(column.type), "a fixed-size list")
            elif column.name in expected.names and not same_type(column.type, expected.field(column.name).type):
                yield Fault(f"{path}: {column.name}", str(column.type), str(expected.field(column.name).type))


@row_rule(
    "SCH003",
    _ERROR,
    "No row lacks what every chip has",
    reason="A chip without geometry, date or vector is a hole that looks like data.",
    fix="Leave such rows out and say why in the coverage table.",
)
def no_nulls(chips: ChipRows, _: View) -> Sequence[BadRows]:
    """Nulls in the columns that may have none, and inside vectors."""
    found: list[BadRows] = []
    for column in embeddings_schema(1, "int8"):
        if column.nullable or not chips.has(column.name):
            continue
        array = chips.column(column.name)
        if array.null_count:
            found += bad_rows(chips.nulls(column.name), partial(_null, column.name), f"a value in {column.name}")
        if pa.types.is_fixed_size_list(array.type) and array.values.null_count:
            inner = array.values.slice(array.offset * array.type.list_size, len(array) * array.type.list_size)
            nulls = inner.is_null().to_numpy(zero_copy_only=False).reshape(len(array), -1).any(axis=1)
            found += bad_rows(nulls, lambda _: "the vector holds nulls", "numbers")
    return found


def _null(name: str, _: int) -> str:
    return f"{name} is null"


@rule(
    "SCH006",
    _ERROR,
    "All files hold vectors of one length and type, as their footers say",
    reason="Vectors of two models or sizes in one version cannot be compared, and readers fail in the middle.",
    fix="Make one version per model, dimension and dtype.",
)
def one_vector_type(view: View) -> Iterator[Outcome]:
    """Dimension and dtype, over all files and against the footer."""
    first: tuple[str, pa.DataType] | None = None
    for path in view.embeddings:
        schema = view.schema_of(path)
        if "embedding" not in schema.names:
            continue
        kind = schema.field("embedding").type
        size = kind.list_size if pa.types.is_fixed_size_list(kind) else None
        shape = (size, _name(_value_type(schema)))
        if first is None:
            first = (path, kind)
        elif kind != first[1]:
            yield Fault(f"{path}: embedding", str(kind), f"{first[1]} as in {first[0]}")
        told = view.footers[path].get("emb", {})
        for key, own in zip(("emb:dimensions", "data_type"), shape, strict=True):
            if own is not None and (key in told or "embrel:decided_by" in told) and told.get(key) != own:
                yield Fault(f"{path}: footer emb: {key}", repr(told.get(key)), f"{own}, as the column has")


@rule(
    "SCH007",
    _ERROR,
    "release.yaml is a release spec",
    reason="The spec is what the release promises; without it nobody can tell what is missing.",
    fix="Publish the resolved spec as `clay-publish produce` writes it.",
)
def spec_is_valid(view: View) -> Iterator[Outcome]:
    """The spec."""
    if SPEC in view.files:
        try:
            view.release.spec()
        except ReleaseError as error:
            yield Fault(SPEC, error.found, "a spec that `clay-publish` accepts")


@rule(
    "SCH008",
    _ERROR,
    "sources.parquet and the coverage tables have their columns and types",
    reason="Gaps can only be explained, and licences only be met, from tables that can be read.",
    fix="Write them again with `clay-publish produce`.",
)
def tables_agree(view: View) -> Iterator[Outcome]:
    """The other tables' schemas."""
    for path in view.metadata_paths:
        if path == SOURCES:
            expected = sources_schema()
        elif path.startswith(f"{COVERAGE}/"):
            expected = coverage_schema()
        else:
            continue
        schema = view.schema_of(path)
        for column in expected:
            if column.name not in schema.names:
                yield Fault(f"{path}: {column.name}", "is missing", str(column.type))
            elif not same_type(schema.field(column.name).type, column.type):
                yield Fault(f"{path}: {column.name}", str(schema.field(column.name).type), str(column.type))


@rule(
    "SCH009",
    _WARNING,
    "Row groups hold at most 16,384 rows",
    reason="A reader that wants one chip fetches a whole row group; large ones make every look-up expensive.",
    fix="Write row groups of at most 16,384 rows.",
)
def row_groups_are_small(view: View) -> Iterator[Outcome]:
    """Row groups."""
    for path in view.embeddings:
        footer = view.footer_of(path)
        largest = max((footer.row_group(g).num_rows for g in range(footer.num_row_groups)), default=0)
        if largest > _MOST_ROWS:
            yield Fault(path, f"a row group of {largest:,} rows", f"at most {_MOST_ROWS:,}")


@rule(
    "SCH012",
    _ERROR,
    "Nothing but GeoParquet lies in the embeddings folder",
    reason="TorchGeo and others open every file of the folder; one that is something else breaks them all.",
    fix="Move it elsewhere.",
)
def only_parquet(view: View) -> Iterator[Outcome]:
    """The embeddings tree."""
    for path in view.files:
        if path.startswith(f"{EMBEDDINGS}/") and not path.endswith(".parquet"):
            yield Fault(path, "is no Parquet file", "GeoParquet files only")


@rule(
    "SCH013",
    _ERROR,
    "Files are named by zone, 100 km square and window",
    reason="Names are how a reader finds the files of a place and date without opening them.",
    fix="Name them zone=ZZ/ZZ_EE_NN_START_END.parquet.",
)
def names_parse(view: View) -> Iterator[Outcome]:
    """File names."""
    for path in view.data_paths:
        try:
            DataFile.parse(path)
        except ReleaseError as error:
            yield Fault(path, error.found, error.expected)


@rule(
    "SCH014",
    _ERROR,
    "manifest.json is a manifest",
    reason="Without it nothing can be verified after a transfer.",
    fix="Write it again with `clay-publish`.",
)
def manifest_is_valid(view: View) -> Iterator[Outcome]:
    """The manifest."""
    if MANIFEST in view.files:
        try:
            _ = view.manifest
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
