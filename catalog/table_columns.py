"""`table:columns`: what the columns of the embeddings files mean."""

import pyarrow as pa

from clay_publish.tables import COLUMNS


def table_columns(schema: pa.Schema) -> list[dict[str, str]]:
    """Name, meaning and type of each column.

    Source: STAC Table extension 1.2.0.
    """
    return [
        {"name": field.name, "description": COLUMNS.get(field.name, field.name), "type": _kind(field.type)}
        for field in schema
    ]


def _kind(kind: pa.DataType) -> str:
    if pa.types.is_fixed_size_list(kind):
        return f"fixed_size_list<{_kind(kind.value_type)}>[{kind.list_size}]"
    if pa.types.is_list(kind):
        return f"list<{_kind(kind.value_type)}>"
    if pa.types.is_struct(kind):
        return (
            "struct<"
            + ", ".join(f"{kind.field(i).name}: {_kind(kind.field(i).type)}" for i in range(kind.num_fields))
            + ">"
        )
    return _SHORT.get(str(kind), str(kind))


_SHORT = {"halffloat": "float16", "float": "float32", "double": "float64"}
