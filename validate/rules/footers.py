"""Rules on what files say of themselves in their footers: GeoParquet, the model, the features."""

import json
from collections.abc import Iterator

from pyproj import CRS
from pyproj.exceptions import CRSError

from clay_publish.errors import MissingExtraError
from clay_publish.release.tables import hugging_face_features
from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.outcomes import Fault, Outcome, Sampled, SkippedError
from clay_publish.validate.registry import rule

_MOST_ROWS = 16_384
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
                yield Fault(f"{path}: footer {key}", "is no JSON object", "a JSON object")


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
        told = footer.get("huggingface", {}).get("info", {}).get("features")
        if "huggingface" not in footer:
            continue  # SCH004
        expected = hugging_face_features(context.tables.schema(path))
        if told != expected:
            wrong = [n for n in {**expected, **(told or {})} if (told or {}).get(n) != expected.get(n)]
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
        with context.files.reading(path):
            report = geoparquet_validator.check(context.files.store.path(path), _MOST_ROWS)
        for outcome in report["outcomes"]:
            # The order of rows is checked for the hosts' sake, not for correctness.
            if outcome["status"] == "fail" and not outcome["id"].startswith("/conf/distribution"):
                yield Fault(path, f"{outcome['id']}: {outcome['message']}", "conformance")
    seen = sum(min(context.tables.footer(path).num_rows, _MOST_ROWS) for path in chosen)
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
