"""Change between two windows: the cosine distance of each chip's two embeddings."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clay_publish.release.directory import DataFile, Release
from clay_publish.search.arrow import stored_columns, with_geo
from clay_publish.search.query import Extent, QueryError
from clay_publish.search.row_groups import Shelf, stream, vectors
from clay_publish.windows import Window

_PLACE = ("geometry", "bbox", "lon", "lat")


def parse_window(text: str, windows: Sequence[Window]) -> Window:
    """Return the window that a text names: START/END, START_END as in file names, or the start of just one.

    Raises:
        QueryError: none, or several; the windows of the release are named.
    """
    wanted = text.replace("_", "/")
    exact = [window for window in windows if str(window) == wanted]
    starting = [window for window in windows if str(window).startswith(wanted)] if wanted else []
    found = exact or starting
    if len(found) != 1:
        known = ", ".join(map(str, windows[:20])) + (", …" if len(windows) > 20 else "")
        raise QueryError("window", f"{text!r} names {len(found) or 'none'} of the windows", f"one of {known}")
    return found[0]


def change_schema(stored: pa.Schema) -> pa.Schema:
    """Return the columns of `change`."""
    fields = [("id_before", pa.string()), ("id_after", pa.string())]
    place = [stored.field(name) for name in _PLACE]
    return with_geo(pa.schema([*(pa.field(*one) for one in fields), *place, pa.field("distance", pa.float64())]))


def changes(release: Release, shelf: Shelf, before: Window, after: Window, extent: Extent) -> Iterator[pa.RecordBatch]:
    """Yield the chips that two windows both have, file by file, with the cosine distance of their embeddings.

    Args:
        release: in the `utm` layout, where windows share one grid.
        shelf: its files.
        before: the earlier window.
        after: the other one.
        extent: the box to look in.

    Raises:
        QueryError: the release has another layout.
        ReleaseError: a file cannot be read.
    """
    if release.fingerprint().layout != "utm":
        raise QueryError("change", "the release has the layout `scene`", "layout `utm`, whose windows share one grid")
    files = {(DataFile.parse(path).square, DataFile.parse(path).window): path for path in shelf.paths}
    for square in sorted({square for square, _ in files}, key=lambda one: one.token):
        if (square, before) not in files or (square, after) not in files:
            continue
        tables = [
            _read(release, files[square, window], extent, names)
            for window, names in ((before, ("id",)), (after, ("id", *_PLACE)))
        ]
        keys = [
            pc.replace_substring_regex(table["id"], f"_{window.token}$", "").combine_chunks()
            for table, window in zip(tables, (before, after), strict=True)
        ]
        found = pc.index_in(keys[1], keys[0])
        kept = pc.is_valid(found)
        old, new = tables[0].take(found.filter(kept)), tables[1].filter(kept)
        schema = change_schema(new.schema)
        columns = [old["id"], new["id"], *(new[name] for name in _PLACE), pa.chunked_array([_distances(old, new)])]
        yield from pa.Table.from_arrays(columns, schema=schema).to_batches()


def _read(release: Release, path: str, extent: Extent, names: Sequence[str]) -> pa.Table:
    file, where = release.parquet(path), release.store.path(path)
    columns = [*names, *stored_columns(["embedding"], file.schema_arrow.names)]
    parts = list(stream(file, extent, columns, where))
    empty = pa.schema([file.schema_arrow.field(name) for name in columns]).empty_table()
    return pa.concat_tables(parts or [empty])


def _distances(old: pa.Table, new: pa.Table) -> npt.NDArray[np.float64]:
    """[n] 1 − cosine."""
    a, b = vectors(old).astype(np.float64), vectors(new).astype(np.float64)
    return np.asarray(1 - np.einsum("nd,nd->n", a, b) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1))
