"""Writing what a search found: GeoParquet, or GeoJSON for a map."""

import json
import tempfile
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from stac_geoparquet.arrow import stac_table_to_items, to_parquet

from clay_publish.release.geoparquet import geo_metadata
from clay_publish.search.query import QueryError
from clay_publish.storage.store import Store

if TYPE_CHECKING:
    from clay_publish.search.reader import ReleaseReader

FORMATS = (".parquet", ".geojson")


def check_output(out: Path) -> None:
    """Refuse a file name before the search begins.

    Raises:
        QueryError: its ending names no format.
    """
    if out.suffix not in FORMATS:
        raise QueryError(str(out), f"ends with {out.suffix or 'nothing'}", " or ".join(FORMATS))


def write_chips(out: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
    """Write chips as they come; the file appears complete or not at all.

    Returns:
        How many.

    Raises:
        QueryError: as `check_output`.
    """
    check_output(out)
    with Store(out.resolve().parent).writer(out.name) as file:
        if out.suffix == ".geojson":
            return write_features(file, (f for batch in batches for f in chip_features(batch)))
        geo = {b"geo": json.dumps(geo_metadata([], None)).encode()} if "geometry" in schema.names else {}
        rows = 0
        with pq.ParquetWriter(file, schema.with_metadata(geo), compression="zstd", compression_level=1) as writer:
            for batch in batches:
                writer.write_batch(batch.replace_schema_metadata(geo))
                rows += batch.num_rows
        return rows


def write_zonal(out: Path, reader: "ReleaseReader", polygons: Path, datetime: str | None) -> int:
    """Write the means of polygons from a file as GeoParquet, with the columns that the polygons have.

    Returns:
        How many rows.

    Raises:
        QueryError: the file cannot be read, has no polygons, or has a column of a name that is added.
    """
    import geopandas as gpd  # noqa: PLC0415 - half a second that few need

    if out.suffix != ".parquet":
        raise QueryError(str(out), f"ends with {out.suffix or 'nothing'}", ".parquet")
    try:
        frame = gpd.read_parquet(polygons) if polygons.suffix == ".parquet" else gpd.read_file(polygons)
    except (OSError, ValueError, RuntimeError, pa.ArrowException) as error:
        raise QueryError(str(polygons), f"cannot be read ({error})", "GeoJSON or GeoParquet with polygons") from error
    if not isinstance(frame, gpd.GeoDataFrame):
        raise QueryError(str(polygons), "has no geometry", "polygons")
    table = reader.aggregate(frame, datetime)
    added = table.drop_columns("polygon").to_pandas()
    taken = [name for name in added if name in frame.columns]
    if taken:
        raise QueryError(str(polygons), f"has a column {taken[0]!r} already", "another name for it")
    joined = frame.iloc[table["polygon"].to_numpy()].reset_index(drop=True).join(added)
    with Store(out.resolve().parent).writer(out.name) as file:
        joined.to_parquet(file)
    return int(table.num_rows)


def write_items(out: Path, items: pa.Table) -> None:
    """Write STAC Items as stac-geoparquet, or as an ItemCollection.

    Raises:
        QueryError: as `check_output`.
    """
    check_output(out)
    if out.suffix == ".geojson":
        with Store(out.resolve().parent).writer(out.name) as file:
            write_features(file, iter(stac_table_to_items(items)))
        return
    with tempfile.TemporaryDirectory(dir=out.resolve().parent) as folder:
        draft = Path(folder) / "items.parquet"
        to_parquet(items, draft)
        draft.replace(out)


def write_features(file: IO[bytes], features: Iterator[dict[str, Any]]) -> int:
    """A FeatureCollection, a feature a line; how many."""
    file.write(b'{"type": "FeatureCollection", "features": [\n')
    number = 0
    for number, feature in enumerate(features, start=1):
        file.write(b",\n" if number > 1 else b"")
        file.write(json.dumps(feature, ensure_ascii=False, default=plain).encode())
    file.write(b"\n]}\n")
    return number


def chip_features(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """Chips as GeoJSON, without their vectors."""
    names = [name for name in batch.schema.names if name not in {"id", "geometry", "embedding", "scale", "thumbnail"}]
    shapes = np.asarray(shapely.to_geojson(shapely.from_wkb(batch["geometry"])))
    ids = batch["id" if "id" in batch.schema.names else "id_after"]
    for shape, name, row in zip(shapes, ids.to_pylist(), batch.select(names).to_pylist(), strict=True):
        box = row.pop("bbox", None)
        feature = {"type": "Feature", "id": name, "geometry": json.loads(shape), "properties": row}
        yield feature | ({"bbox": list(box.values())} if box else {})


def plain(value: Any) -> Any:
    """What JSON has no type for, as text."""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    msg = f"{type(value).__name__} has no place in JSON"
    raise TypeError(msg)
