"""CQL2 over Arrow columns: which items a filter means.

Source: OGC 21-065r2, Common Query Language (CQL2); the basic conformance class, with like, between, in, s_intersects
and t_intersects.
"""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from clay_publish.search.query import QueryError
from clay_publish.windows import parse_time

MAX_DEPTH = 64
"""Deepest nesting of a filter."""
MAX_NODES = 10_000
MAX_VERTICES = 5_000
"""Of a geometry that items are compared with."""

_ARITY = {"not": 1, "isNull": 1, "between": 3} | dict.fromkeys(("in", "like", "s_intersects", "t_intersects"), 2)

_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "=": pc.equal,
    "<>": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}
_ARITY |= dict.fromkeys(_COMPARISONS, 2)
_INTERVAL = ["start_datetime", "end_datetime"]


def parse_filter(text: str | Mapping[str, Any], language: str | None) -> dict[str, Any]:
    """A filter as CQL2-JSON.

    Args:
        text: CQL2-JSON, parsed or not, or CQL2-text.
        language: `cql2-json` or `cql2-text`.

    Raises:
        QueryError: not CQL2, or nested too deeply.
    """
    import cql2  # noqa: PLC0415 - of the extra `serve`

    if isinstance(text, str) and language == "cql2-json":
        text = parse_json(text, "filter")
    if not isinstance(text, str):
        _check_size(text)
    elif text.count("(") > MAX_DEPTH or len(text) > 100_000:
        raise QueryError("filter", "is too long or nested too deeply", f"at most {MAX_DEPTH} parentheses")
    try:
        parsed = cql2.parse_text(text) if isinstance(text, str) else cql2.parse_json(json.dumps(text))
        document: dict[str, Any] = parsed.to_json()
    except (cql2.ParseError, cql2.ValidationError, ValueError) as error:
        raise QueryError(
            "filter", f"is not a CQL2 ({str(error)[:300]})", "such as \"proj:code\" = 'EPSG:32618'"
        ) from error
    return document


def properties(node: Any) -> set[str]:
    """Columns that a filter needs."""
    if isinstance(node, Mapping):
        name = node.get("property")
        if isinstance(name, str):
            return {*_INTERVAL, "datetime"} if name == "datetime" else {_path(name)[0]}
        return set().union(*(properties(value) for value in node.values()))
    if isinstance(node, list):
        return set().union(*(properties(value) for value in node))
    return set()


def matches(node: Mapping[str, Any], rows: pa.Table) -> npt.NDArray[np.bool_]:
    """Which rows a filter means; what is unknown for a row is not meant.

    Raises:
        QueryError: an operator or property that is not known, or values that cannot be compared.
    """
    try:
        found = _condition(node, rows)
    except pa.ArrowException as error:
        raise QueryError("filter", f"compares what cannot be compared ({error})", "values of one type") from error
    if isinstance(found, pa.Scalar):  # of literals alone
        found = pa.repeat(found, rows.num_rows)
    whole = found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found
    return np.asarray(pc.fill_null(whole, fill_value=False).to_numpy(zero_copy_only=False), dtype=bool)


def _condition(node: Any, rows: pa.Table) -> Any:
    if isinstance(node, bool):
        return pa.repeat(pa.scalar(node), rows.num_rows)
    operator, arguments = _operation(node)
    if operator in {"and", "or"}:
        join = pc.and_kleene if operator == "and" else pc.or_kleene
        result = _condition(arguments[0], rows)
        for argument in arguments[1:]:
            result = join(result, _condition(argument, rows))
        return result
    if operator == "not":
        return pc.invert(_condition(arguments[0], rows))
    if operator == "s_intersects":
        return _intersects(arguments, rows)
    if operator == "t_intersects":
        return _meets(arguments, rows)
    return _comparison(operator, arguments, rows)


def _comparison(operator: str, arguments: list[Any], rows: pa.Table) -> Any:
    left = _value(arguments[0], rows)
    if operator in _COMPARISONS:
        return _COMPARISONS[operator](*_alike(left, _value(arguments[1], rows)))
    if operator == "isNull":
        return pc.is_null(left)
    if operator == "between":
        low, high = (_value(argument, rows) for argument in arguments[1:3])
        return pc.and_kleene(pc.greater_equal(*_alike(left, low)), pc.less_equal(*_alike(left, high)))
    if operator == "in":
        if not isinstance(arguments[1], list) or not arguments[1]:
            raise QueryError("filter", "gives 'in' no values", "a list of one value or more")
        conditions = [pc.equal(*_alike(left, _value(option, rows))) for option in arguments[1]]
        result = conditions[0]
        for condition in conditions[1:]:
            result = pc.or_kleene(result, condition)
        return result
    if operator == "like":
        return pc.match_like(left, str(arguments[1]))
    raise QueryError(
        "filter", f"has the operator {operator!r}", "one of the basic ones, like, between, in, s_intersects"
    )


def _intersects(arguments: list[Any], rows: pa.Table) -> pa.Array:
    shape = next((a for a in arguments if isinstance(a, Mapping) and "property" not in a), None)
    if {"property": "geometry"} not in arguments or shape is None:
        raise QueryError("filter", "s_intersects compares other things", "the property geometry and a GeoJSON geometry")
    return pa.array(
        shapely.intersects(shapely.from_wkb(rows["geometry"].to_numpy(zero_copy_only=False)), geometry(shape))
    )


def geometry(document: Mapping[str, Any]) -> shapely.Geometry:
    """A GeoJSON geometry, or a bbox as CQL2 writes it.

    Raises:
        QueryError: neither.
    """
    try:
        if "bbox" in document:
            sides = [float(side) for side in document["bbox"]]
            west, south, east, north = (sides[0], sides[1], sides[-2], sides[-1]) if len(sides) != 6 else (
                sides[0], sides[1], sides[3], sides[4]
            )  # fmt: skip
            if west <= east:
                return shapely.box(west, south, east, north)
            return shapely.union_all([shapely.box(west, south, 180, north), shapely.box(-180, south, east, north)])
        if _vertices(document) > MAX_VERTICES:
            raise QueryError("geometry", "has too many vertices", f"at most {MAX_VERTICES:,}", "Simplify it.")
        shape = shapely.from_geojson(json.dumps(document))
    except (KeyError, TypeError, ValueError, IndexError, shapely.GEOSException) as error:
        raise QueryError("intersects", f"is not a GeoJSON geometry ({error})", "a Polygon, for example") from error
    if not shape.is_valid:  # fixing it takes minutes where some hundred vertices cross each other
        reason = shapely.is_valid_reason(shape)
        raise QueryError("geometry", f"is not valid ({reason})", "rings that do not cross themselves")
    return shape


def _vertices(document: Any) -> int:
    """Numbers of a GeoJSON geometry, by two."""
    level, numbers = [document], 0
    while level and numbers <= 2 * MAX_VERTICES:
        numbers += sum(isinstance(child, int | float) for child in level)
        level = [child for parent in level for child in _children(parent)]
    return numbers // 2


def _meets(arguments: list[Any], rows: pa.Table) -> Any:
    """Whether an item's period and an interval have a moment in common."""
    other = next((a for a in arguments if not (isinstance(a, Mapping) and "property" in a)), None)
    if {"property": "datetime"} not in arguments or other is None:
        raise QueryError("filter", "t_intersects compares other things", "the property datetime and an interval")
    ends = other["interval"] if isinstance(other, Mapping) and "interval" in other else [other, other]
    if not isinstance(ends, list) or len(ends) != 2:
        raise QueryError("filter", f"has the interval {json.dumps(ends)[:100]}", "a start and an end")
    start, end = (None if e == ".." else _moment(e) for e in ends)
    result = pa.repeat(pa.scalar(value=True), rows.num_rows)
    if end is not None:
        result = pc.and_kleene(result, pc.less_equal(rows["start_datetime"], pa.scalar(end)))
    if start is not None:
        result = pc.and_kleene(result, pc.greater_equal(rows["end_datetime"], pa.scalar(start)))
    return result


def _value(node: Any, rows: pa.Table) -> Any:
    if isinstance(node, Mapping):
        if "property" in node:
            return _column(str(node["property"]), rows)
        if "timestamp" in node or "date" in node:
            return pa.scalar(_moment(node))
        raise QueryError("filter", f"has {json.dumps(node)[:100]} as a value", "a property, number, text or time")
    if node is None or isinstance(node, str | int | float | bool):
        return pa.scalar(node)
    raise QueryError("filter", f"has a {type(node).__name__} as a value", "a property, number, text or time")


def _column(name: str, rows: pa.Table) -> Any:
    path = _path(name)
    if path[0] not in rows.column_names:
        raise QueryError("filter", f"asks for {name!r}", "a property of the items", "`/queryables` lists them.")
    if name == "datetime":  # null where the chips have several
        return pc.coalesce(rows["datetime"], rows["start_datetime"])
    column = rows[path[0]]
    for step in path[1:]:
        kind = column.type
        if not pa.types.is_struct(kind) or kind.get_field_index(step) < 0:
            raise QueryError("filter", f"asks for {name!r}", "a property of the items", "`/queryables` lists them.")
        column = pc.struct_field(column, step)
    return column


def _path(name: str) -> list[str]:
    return name.removeprefix("properties.").split(".")


def _alike(left: Any, right: Any) -> tuple[Any, Any]:
    """Text compared with a time is a time."""
    for one, other in ((left, right), (right, left)):
        if pa.types.is_timestamp(one.type) and pa.types.is_string(other.type):
            if not isinstance(other, pa.Scalar):
                raise QueryError("filter", "compares a property that is text with a time", "values of one type")
            moment = pa.scalar(_moment(other.as_py()))
            return (left, moment) if other is right else (moment, right)
    return left, right


def _moment(node: Any) -> datetime:
    text = node.get("timestamp", node.get("date")) if isinstance(node, Mapping) else node
    try:
        return parse_time(str(text)).astimezone(UTC)
    except ValueError as error:
        raise QueryError("filter", f"{text!r} is not a time", "such as 2023-01-01T00:00:00Z") from error


def _operation(node: Any) -> tuple[str, list[Any]]:
    if isinstance(node, Mapping):
        operator, arguments = node.get("op"), node.get("args")
        if isinstance(operator, str) and isinstance(arguments, list) and arguments:
            wanted = _ARITY.get(operator, len(arguments))
            if len(arguments) != wanted:
                raise QueryError("filter", f"gives {operator!r} {len(arguments)} arguments", f"{wanted}")
            return operator, arguments
    raise QueryError("filter", f"has {json.dumps(node)[:100]} as a condition", 'an object with "op" and "args"')


def parse_json(text: str, what: str) -> Any:
    """JSON from a client.

    Raises:
        QueryError: it is none.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise QueryError(what, f"is not a JSON ({error})", "JSON") from error


def _check_size(node: Any) -> None:
    """Refuse what would exhaust the stack of a parser."""
    level, nodes = [node], 0
    for _ in range(2 * MAX_DEPTH):
        level = [child for parent in level for child in _children(parent)]
        nodes += len(level)
        if not level:
            return
        if nodes > MAX_NODES:
            break
    raise QueryError("filter", "is nested too deeply, or too long", f"at most {MAX_DEPTH} levels")


def _children(node: Any) -> list[Any]:
    if isinstance(node, Mapping):
        return list(node.values())
    return node if isinstance(node, list) else []
