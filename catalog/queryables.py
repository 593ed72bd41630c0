"""`/queryables`: which properties of the items a filter may ask for, as JSON Schema."""

from typing import Any

import pyarrow as pa

_HIDDEN = {"type", "stac_version", "stac_extensions", "bbox", "links", "assets"}


def queryables(schema: pa.Schema, address: str) -> dict[str, Any]:
    """Every property that has one value, nested ones with a dot: `embrel:coverage.embedded`."""
    found: dict[str, Any] = {}
    for field in schema:
        if field.name == "geometry":
            found[field.name] = {"$ref": "https://geojson.org/schema/Geometry.json"}
        elif field.name not in _HIDDEN:
            found |= _properties(field.name, field.type)
    return {
        "$schema": "https://json-schema.org/draft/2019-09/schema",
        "$id": address,
        "type": "object",
        "title": "Queryables",
        "properties": found,
        "additionalProperties": False,
    }


def _properties(name: str, kind: pa.DataType) -> dict[str, Any]:
    if pa.types.is_struct(kind):
        fields = [kind.field(i) for i in range(kind.num_fields)]
        return {key: value for f in fields for key, value in _properties(f"{name}.{f.name}", f.type).items()}
    if pa.types.is_timestamp(kind):
        return {name: {"type": "string", "format": "date-time"}}
    if pa.types.is_integer(kind):
        return {name: {"type": "integer"}}
    if pa.types.is_floating(kind):
        return {name: {"type": "number"}}
    if pa.types.is_boolean(kind):
        return {name: {"type": "boolean"}}
    return {name: {"type": "string"}} if pa.types.is_string(kind) else {}
