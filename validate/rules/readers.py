"""Rules on readers: the contracts of the libraries people open a release with, on the real ones where installed."""

import importlib
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import shapely

from clay_publish.errors import MissingExtraError, ReleaseError
from clay_publish.release.directory import EMBEDDINGS, ITEMS
from clay_publish.release.findings import Severity
from clay_publish.validate.context import View
from clay_publish.validate.registry import Fault, NotChecked, Outcome, Sampled, rule

_ERROR = Severity.ERROR
_FAILURES = (pa.ArrowException, OSError, ValueError, KeyError, TypeError, shapely.errors.ShapelyError)
"""What a library raises at data it cannot read."""


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(name, "is not installed", fix=f"pip install {name}") from error


def _local(view: View) -> str:
    """The embeddings folder, for readers that open files themselves.

    Raises:
        ReleaseError: the release is somewhere else.
    """
    if not view.release.store.local:
        raise ReleaseError(view.release.store.where, "is not local; this reader is only tried on directories")
    if view.quick:
        raise ReleaseError(EMBEDDINGS, "would have to be read whole, which a quick look does not")
    links = view.release.store.links()
    if links:
        raise ReleaseError(links[0], "is a link; this reader is only tried on plain files")
    if view.unreadable:
        path, why = next(iter(view.unreadable.items()))
        raise ReleaseError(path, f"is not given to a reader ({why})")
    for path in view.metadata_paths:
        view.cost_of(path)  # or it may fill the memory
    if any(path.startswith(f"{EMBEDDINGS}/") for path in view.files):
        return view.release.store.path(EMBEDDINGS)
    if len(view.files) > len(view.data_paths):
        raise ReleaseError(view.release.store.where, "holds other files beside the tables")
    return view.release.store.where if len(view.files) > 1 else view.release.store.path(view.files[0])


def _first(view: View) -> str:
    if not view.embeddings:
        raise ReleaseError(EMBEDDINGS, "holds no file that can be opened")
    return view.embeddings[0]


@rule(
    "RDR001",
    _ERROR,
    "pyarrow opens the folder as one dataset",
    reason="It is what most other tools read Parquet with.",
    fix="Write all files with the same schema, and nothing else into the folder.",
)
def pyarrow_opens(view: View) -> Iterator[Outcome]:
    """Hive partitions, one schema, all rows counted."""
    folder = _local(view)
    try:
        dataset = ds.dataset(folder, format="parquet", partitioning="hive")
        rows = dataset.count_rows()
        dataset.head(10)
    except (pa.ArrowException, OSError, ValueError) as error:
        yield Fault(EMBEDDINGS, f"pyarrow fails ({_short(error)})", "a dataset")
        return
    if rows != view.rows_told:
        yield Fault(EMBEDDINGS, f"pyarrow counts {rows:,} rows", f"{view.rows_told:,}")
    for path in view.embeddings[1:]:
        if view.schema_of(path) != view.schema_of(_first(view)):
            yield Fault(path, "has another schema than the first file", "one schema")


@rule(
    "RDR002",
    _ERROR,
    "geopandas reads a file with its geometry and CRS",
    reason="It is what people look at chips with.",
    fix="Write the `geo` footer as GeoParquet 1.1 says.",
)
def geopandas_reads(view: View) -> Iterator[Outcome]:
    """The first file."""
    geopandas = _library("geopandas")
    path = _first(view)
    _local(view)
    try:
        frame = geopandas.read_parquet(view.release.store.path(path))
    except _FAILURES as error:
        yield Fault(path, f"geopandas fails ({_short(error)})", "a GeoDataFrame")
        return
    if frame.crs is None or not frame.crs.equals("OGC:CRS84", ignore_axis_order=True):
        yield Fault(path, f"geopandas reads the CRS {frame.crs}", "OGC:CRS84")
    yield Sampled(len(frame), view.rows_told)


@rule(
    "RDR003",
    _ERROR,
    "TorchGeo's embeddings dataset reads the folder",
    reason="TorchGeo is how embeddings reach training code.",
    fix="Keep the columns embedding, geometry and datetime, one vector length, and nothing else in the folder.",
)
def torchgeo_reads(view: View) -> Iterator[Outcome]:
    """Its contract: geopandas reads the whole folder; `embedding`, `geometry`, `datetime` with a zone."""
    geopandas = _library("geopandas")
    folder = _local(view)
    if view.rows_told > 200_000:
        yield NotChecked(f"the folder is read whole, and has {view.rows_told:,} rows")
        return
    try:
        frame = geopandas.read_parquet(folder, columns=["embedding", "geometry", "datetime"])
    except _FAILURES as error:
        yield Fault(EMBEDDINGS, f"fails as TorchGeo reads it ({_short(error)})", "embedding, geometry, datetime")
        return
    lengths = {len(vector) for vector in frame["embedding"].dropna()}
    if len(lengths) != 1:
        yield Fault(EMBEDDINGS, f"vectors of {len(lengths)} lengths", "one")
    if str(frame["datetime"].dtype).partition("[")[0] != "datetime64":
        yield Fault(EMBEDDINGS, f"datetime of type {frame['datetime'].dtype}", "datetime64")
    if not frame.geometry.notna().all():
        yield Fault(EMBEDDINGS, "rows without geometry", "a footprint in every row")


@rule(
    "RDR004",
    _ERROR,
    "DuckDB reads the folder, and its vectors cast to an array",
    reason="It is how most people will look at the tables, over the network too.",
    fix="Write vectors as lists of one length, and all files with the same schema.",
)
def duckdb_reads(view: View) -> Iterator[Outcome]:
    """Hive partitions and FLOAT[n]."""
    duckdb = _library("duckdb")
    folder = _local(view)
    pattern = (folder if folder.endswith(".parquet") else f"{folder}/**/*.parquet").replace("'", "''")
    dimensions = view.fingerprint.dimensions
    try:
        with duckdb.connect() as connection:
            source = f"read_parquet('{pattern}', hive_partitioning=true)"
            rows = connection.execute(f"SELECT count(*) FROM {source}").fetchone()[0]  # noqa: S608 - a quoted path
            vector = connection.execute(
                f"SELECT embedding::FLOAT[{dimensions}], bbox.xmin, datetime::VARCHAR, id FROM {source} LIMIT 1"  # noqa: S608
            ).fetchone()
    except duckdb.Error as error:
        yield Fault(EMBEDDINGS, f"DuckDB fails ({_short(error)})", "a table")
        return
    if rows != view.rows_told:
        yield Fault(EMBEDDINGS, f"DuckDB counts {rows:,} rows", f"{view.rows_told:,}")
    if vector is not None and len(vector[0]) != dimensions:
        yield Fault(EMBEDDINGS, f"DuckDB reads vectors of {len(vector[0])}", str(dimensions))


@rule(
    "RDR005",
    _ERROR,
    "`datasets` reads a file with a vector of fixed length",
    reason="`load_dataset` is the first line of the card.",
    fix="Write the `huggingface` footer from the table's schema.",
)
def datasets_reads(view: View) -> Iterator[Outcome]:
    """The footer's features against the columns, and a row decoded by them."""
    datasets = _library("datasets")
    path = _first(view)
    _local(view)
    metadata = view.release.parquet(path).schema_arrow
    try:
        features = datasets.Features.from_arrow_schema(metadata)
        table = next(view.release.parquet(path).iter_batches(1), None)
        if table is None:
            yield NotChecked(f"{path} has no rows")
            return
        cast = datasets.table.table_cast(pa.Table.from_batches([table]), features.arrow_schema)
        row = features.decode_example(cast.to_pylist()[0])
    except (pa.ArrowException, ValueError, TypeError, KeyError) as error:
        yield Fault(path, f"datasets fails ({_short(error)})", "features that fit the columns")
        return
    length = getattr(features["embedding"], "length", None)
    if length != len(row["embedding"]):
        yield Fault(path, f"datasets reads a list of length {length}", f"{len(row['embedding'])}")


@rule(
    "RDR006",
    _ERROR,
    "GeoVibes can index the files",
    reason="It is how embeddings are searched on a map without writing code.",
    fix="Keep id, geometry and embedding, and the square in the file's name; store floats, or int8 with its scale.",
)
def geovibes_reads(view: View) -> Iterator[Outcome]:
    """Its contract: `id`, `geometry`, `embedding`, a square in the name; it casts integers as unsigned."""
    for path in view.embeddings:
        schema = view.schema_of(path)
        missing = [name for name in ("id", "geometry", "embedding") if name not in schema.names]
        if missing:
            yield Fault(path, f"lacks {', '.join(missing)}", "id, geometry, embedding")
        if path not in view.data_files:
            yield Fault(path, "does not name its square", "the square in the file's name")


@rule(
    "RDR007",
    _ERROR,
    "stac-geoparquet and DuckDB read the item table",
    reason="A serverless search reads items.parquet in place.",
    fix="Write it again with `clay-publish catalog`.",
)
def items_are_read(view: View) -> Iterator[Outcome]:
    """Items as geopandas reads them."""
    geopandas = _library("geopandas")
    _local(view)
    view.footer_of(ITEMS)
    try:
        frame = geopandas.read_parquet(view.release.store.path(ITEMS))
    except _FAILURES as error:
        yield Fault(ITEMS, f"geopandas fails ({_short(error)})", "a GeoDataFrame")
        return
    if not frame.geometry.is_valid.all():
        yield Fault(ITEMS, f"{int((~frame.geometry.is_valid).sum())} geometries are not valid", "valid ones")


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
