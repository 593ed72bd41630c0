"""Chips as the reader gives them out: vectors as float32, and the `geo` metadata that geopandas looks for."""

import json
from collections.abc import Sequence

import pyarrow as pa

from clay_publish.release.geoparquet import geo_metadata
from clay_publish.search.row_groups import vectors


def readable_schema(stored: pa.Schema) -> pa.Schema:
    """Return the columns of a stored table as they are given out: `embedding` as float32, and no `scale`."""
    fields = [field for field in stored if field.name != "scale"]
    if "embedding" in stored.names:
        place, kind = [field.name for field in fields].index("embedding"), stored.field("embedding").type
        inner = kind.value_field.with_type(pa.float32())
        fields[place] = stored.field("embedding").with_type(pa.list_(inner, kind.list_size))
    return pa.schema(fields)


def with_geo(schema: pa.Schema) -> pa.Schema:
    """Return a schema with the `geo` metadata of GeoParquet and the type of GeoArrow, where it has a geometry."""
    if "geometry" not in schema.names:
        return schema
    geo = geo_metadata([], None)
    column = geo["columns"]["geometry"]
    if "bbox" not in schema.names:
        del column["covering"]
    kind = {"ARROW:extension:name": "geoarrow.wkb", "ARROW:extension:metadata": json.dumps({"crs": column["crs"]})}
    place = schema.get_field_index("geometry")
    typed = schema.set(place, schema.field(place).with_metadata(kind))
    return typed.with_metadata({b"geo": json.dumps(geo).encode()})


def stored_columns(columns: Sequence[str], stored: Sequence[str]) -> list[str]:
    """Return the columns to read for some that are given out: vectors of integers need their scale."""
    return [*columns, *(["scale"] if "embedding" in columns and "scale" in stored else [])]


def dequantized(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return stored rows with the columns of `schema`, vectors multiplied by their scale."""
    columns = []
    for field in schema:
        column = rows[field.name]
        if field.name == "embedding" and column.type != field.type:
            column = pa.FixedSizeListArray.from_arrays(pa.array(vectors(rows).ravel()), type=field.type)
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=schema)
