"""Make another version out of a copy of a release, by changing its tables."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .specs import respecify

Change = Callable[[pa.Table], pa.Table]


def change_table(folder: Path, below: str, change: Change) -> None:
    """Rewrite each Parquet file below a folder of a release."""
    for path in sorted((folder / below).rglob("*.parquet")):
        table = pq.ParquetFile(path).read()
        made = change(table)
        pq.write_table(made.replace_schema_metadata(made.schema.metadata or table.schema.metadata), path)


def lose(folder: Path, ids: list[str], reason: str) -> None:
    """Take chips out of the embeddings, and say why in the coverage."""
    gone = pa.array(ids)

    def without(table: pa.Table) -> pa.Table:
        return table.filter(pc.invert(pc.is_in(table["id"], gone)))

    def missing(table: pa.Table) -> pa.Table:
        lost = pc.is_in(table["id"], gone)
        for name, value in (("status", "missing"), ("reason", reason)):
            place = table.column_names.index(name)
            table = table.set_column(place, table.schema.field(name), pc.if_else(lost, value, table[name]))
        return table

    change_table(folder, "embeddings", without)
    change_table(folder, "coverage", missing)


def ids_of(folder: Path) -> list[str]:
    """The chips of a release, sorted."""
    return sorted(pq.read_table(folder / "embeddings", columns=["id"])["id"].to_pylist())


def move(folder: Path, chip: str, factor: float) -> None:
    """Multiply the vector of a chip."""

    def moved(table: pa.Table) -> pa.Table:
        rows = [
            [value * factor for value in vector] if name == chip else vector
            for name, vector in zip(table["id"].to_pylist(), table["embedding"].to_pylist(), strict=True)
        ]
        place = table.column_names.index("embedding")
        return table.set_column(
            place, table.schema.field("embedding"), pa.array(rows, table.schema.field("embedding").type)
        )

    change_table(folder, "embeddings", moved)


def version(folder: Path, number: str) -> None:
    """Give a release another number."""
    respecify(folder, version=number)
