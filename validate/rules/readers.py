"""Rules on readers: the contracts of the libraries people open a release with, on the real ones where installed."""

import glob
import importlib
import io
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import shapely
from PIL import Image

from clay_publish.errors import MissingExtraError, ReleaseError
from clay_publish.release.directory import EMBEDDINGS, ITEMS
from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.outcomes import Fault, NotChecked, Outcome, Sampled, SkippedError, short
from clay_publish.validate.registry import rule
from clay_publish.validate.sandbox.marks import marked

_FAILURES = (pa.ArrowException, OSError, ValueError, KeyError, TypeError, shapely.errors.ShapelyError)
"""What a library raises at data it cannot read."""
MAX_PIXELS = 16_000_000
"""Pixels of a thumbnail, at most; larger ones are not decoded."""
_OPENED = 512
"""Files whose footers are in memory at a time."""
_MOST = 200_000
"""Rows of a folder that is read whole."""

Read = Callable[[Any, ReleaseContext, str], Iterator[Outcome]]
"""Takes the library, the release, and the path of its embeddings: of the folder, or of one file."""


def reader(code: str, name: str) -> Callable[[Read], Read]:
    """Register a rule that opens the embeddings with a library; what that raises is a fault."""

    def wrap(read: Read) -> Read:
        @rule(code)
        def check(context: ReleaseContext) -> Iterator[Outcome]:
            try:
                library = importlib.import_module(name)
            except ImportError as error:
                raise MissingExtraError(name, "is not installed", fix=f"pip install {name}") from error
            folder = _local(context)
            size = sum(map(context.files.store.size, context.files.parquet))
            try:
                with marked("reading", f":{code}", size):  # the library opens files by itself
                    yield from read(library, context, folder)
            except (*_FAILURES, getattr(library, "Error", OSError)) as error:
                if isinstance(error, ReleaseError):
                    raise
                yield Fault(EMBEDDINGS, f"{name} fails ({short(error)})", "files that it reads")

        return read

    return wrap


def _local(context: ReleaseContext) -> str:
    """The embeddings folder, for readers that open files themselves.

    Raises:
        ReleaseError: the release is somewhere else.
    """
    if not context.files.store.local:
        raise SkippedError(context.files.store.where, "is not local; this reader is only tried on directories")
    if context.files.quick:
        raise SkippedError(EMBEDDINGS, "would have to be read whole, which a quick look does not")
    links = context.files.store.links()
    if links:
        raise SkippedError(links[0], "is a link; this reader is only tried on plain files")
    if context.tables.unreadable:
        path, why = next(iter(context.tables.unreadable.items()))
        raise ReleaseError(path, f"is not given to a reader ({why})")
    if any(path.startswith(f"{EMBEDDINGS}/") for path in context.files.paths):
        return context.files.store.path(EMBEDDINGS)
    if len(context.files.paths) > len(context.tables.embeddings):
        raise SkippedError(context.files.store.where, "holds other files beside the tables")
    return (
        context.files.store.where if len(context.files.paths) > 1 else context.files.store.path(context.files.paths[0])
    )


def _first(context: ReleaseContext) -> str:
    if not context.tables.embeddings:
        raise ReleaseError(EMBEDDINGS, "holds no file that can be opened")
    return context.tables.embeddings[0]


@reader("RDR001", "pyarrow")
def pyarrow_opens(_: Any, context: ReleaseContext, folder: str) -> Iterator[Outcome]:
    """Hive partitions, one schema, all rows counted."""
    import pyarrow.dataset as ds  # noqa: PLC0415 - slow to import, with pandas

    dataset = ds.dataset(folder, format="parquet", partitioning="hive")
    dataset.head(10)
    files, rows = dataset.files, 0
    for start in range(0, len(files), _OPENED):  # a dataset keeps the footers of all files that it has counted
        some, root = files[start : start + _OPENED], {"partitioning": "hive", "partition_base_dir": folder}
        rows += ds.dataset(some, schema=dataset.schema, format="parquet", **root).count_rows()
    yield from _counts("pyarrow", rows, context)
    tables = context.tables
    for path in tables.embeddings[1:]:
        if tables.schema(path) != tables.schema(tables.embeddings[0]):
            yield Fault(path, "has another schema than the first file", "one schema")


@reader("RDR002", "geopandas")
def geopandas_reads(geopandas: Any, context: ReleaseContext, _: str) -> Iterator[Outcome]:
    """The first file, with its geometry and CRS."""
    path = _first(context)
    frame = geopandas.read_parquet(context.files.store.path(path))
    if frame.crs is None or not frame.crs.equals("OGC:CRS84", ignore_axis_order=True):
        yield Fault(path, f"geopandas reads the CRS {frame.crs}", "OGC:CRS84")
    yield Sampled(len(frame), context.tables.rows)


@reader("RDR003", "geopandas")
def torchgeo_reads(geopandas: Any, context: ReleaseContext, folder: str) -> Iterator[Outcome]:
    """TorchGeo's contract: geopandas reads the whole folder; `embedding`, `geometry`, `datetime` with a zone."""
    if context.tables.rows > _MOST:
        yield NotChecked(f"the folder is read whole, and has {context.tables.rows:,} rows")
        return
    frame = geopandas.read_parquet(folder, columns=["embedding", "geometry", "datetime"])
    lengths = {len(vector) for vector in frame["embedding"].dropna()}
    if len(lengths) != 1:
        yield Fault(EMBEDDINGS, f"vectors of {len(lengths)} lengths", "one")
    if str(frame["datetime"].dtype).partition("[")[0] != "datetime64":
        yield Fault(EMBEDDINGS, f"datetime of type {frame['datetime'].dtype}", "datetime64")
    if not frame.geometry.notna().all():
        yield Fault(EMBEDDINGS, "rows without geometry", "a footprint in every row")


@reader("RDR004", "duckdb")
def duckdb_reads(duckdb: Any, context: ReleaseContext, _: str) -> Iterator[Outcome]:
    """Hive partitions and FLOAT[n]. Files are listed by name: the folder may have `[ ? *` in its own."""
    store, dimensions = context.files.store, context.fingerprint.dimensions
    with duckdb.connect() as connection:
        files = [glob.escape(store.path(path)) for path in context.tables.embeddings]
        table = connection.read_parquet(files, hive_partitioning=True)
        ((rows,),) = table.count("*").fetchall()
        some = table.select(f"embedding::FLOAT[{dimensions}], bbox.xmin, datetime::VARCHAR, id").limit(1).fetchall()
    yield from _counts("DuckDB", rows, context)
    if some and len(some[0][0]) != dimensions:
        yield Fault(EMBEDDINGS, f"DuckDB reads vectors of {len(some[0][0])}", str(dimensions))


@reader("RDR005", "datasets")
def datasets_reads(datasets: Any, context: ReleaseContext, _: str) -> Iterator[Outcome]:
    """The footer's features against the columns, and a row decoded by them."""
    path = _first(context)
    features = datasets.Features.from_arrow_schema(context.tables.annotated_schema(path))
    table = next(context.tables.open(path).iter_batches(1), None)
    if table is None:
        yield NotChecked(f"{path} has no rows")
        return
    cast = datasets.table.table_cast(pa.Table.from_batches([table]), features.arrow_schema)
    row = cast.to_pylist()[0]
    for name, feature in features.items():
        if isinstance(feature, datasets.Image):  # which opens whatever path or address the row names
            wrong = wrong_image(row.pop(name))
            if wrong is not None:
                yield Fault(f"{path}: {name}", wrong, "bytes of a PNG, JPEG or WebP image")
    row = datasets.Features({name: features[name] for name in row}).decode_example(row)
    length = getattr(features["embedding"], "length", None)
    if length != len(row["embedding"]):
        yield Fault(path, f"datasets reads a list of length {length}", f"{len(row['embedding'])}")


def wrong_image(stored: Any) -> str | None:
    """Return what is wrong with a stored image; it is decoded from its bytes alone."""
    data = stored.get("bytes") if isinstance(stored, dict) else stored
    if not isinstance(data, bytes):
        return None if stored is None else "has no bytes"
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as image:
            if image.width * image.height > MAX_PIXELS:
                return f"has {image.width:,} × {image.height:,} pixels"
            image.load()
    except (*_FAILURES, SyntaxError, Image.DecompressionBombError) as error:
        return f"cannot be decoded ({short(error)})"
    return None


@rule("RDR006")
def geovibes_reads(context: ReleaseContext) -> Iterator[Outcome]:
    """GeoVibes' contract: `id`, `geometry`, `embedding`, a square in the name; it casts integers as unsigned."""
    for path in context.tables.embeddings:
        missing = {"id", "geometry", "embedding"} - set(context.tables.schema(path).names)
        if missing:
            yield Fault(path, f"lacks {', '.join(sorted(missing))}", "id, geometry, embedding")
        if path not in context.tables.named:
            yield Fault(path, "does not name its square", "the square in the file's name")


@reader("RDR007", "geopandas")
def items_are_read(geopandas: Any, context: ReleaseContext, _: str) -> Iterator[Outcome]:
    """Items as geopandas reads them, without links: of these there may be millions."""
    names = [name for name in context.tables.schema(ITEMS).names if name != "links"]
    frame = geopandas.read_parquet(context.files.store.path(ITEMS), columns=names)
    if not frame.geometry.is_valid.all():
        yield Fault(ITEMS, f"{int((~frame.geometry.is_valid).sum())} geometries are not valid", "valid ones")


def _counts(name: str, rows: int, context: ReleaseContext) -> Iterator[Outcome]:
    if rows != context.tables.rows:
        yield Fault(EMBEDDINGS, f"{name} counts {rows:,} rows", f"{context.tables.rows:,}")
