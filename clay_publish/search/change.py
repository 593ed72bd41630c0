"""Change between two windows: the cosine distance of each chip's two embeddings, as a table and as a map."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from clay_publish.geo.maps import Frame, draw_polygons, map_figure, png, whole_box
from clay_publish.release.directory import DataFile, Release
from clay_publish.search.query import Extent, QueryError
from clay_publish.search.row_groups import Shelf, stored_columns, stream, vectors, with_geo
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


_MOST_DRAWN = 20_000
_BINS = 500
_COLORS = "viridis"


def change_map(table: pa.Table, title: str) -> bytes:
    """Return a PNG of where chips changed: footprints colored by distance, or means of bins of very many.

    Args:
        table: as `changes` yields them.
        title: above the map.

    Raises:
        QueryError: the table holds no chips to draw.
    """
    if not table.num_rows:
        raise QueryError("change", "no chip is in both windows", "windows and a box that share ground")
    lon, lat = table["lon"].to_numpy(), table["lat"].to_numpy()
    distance = table["distance"].to_numpy()
    frame = Frame.around(whole_box(lon, lat))
    figure, [(axes, frame), *_] = map_figure(frame, below=0.55)
    scale = Normalize(0, max(float(np.quantile(distance, 0.99)), 1e-6))
    if table.num_rows <= _MOST_DRAWN:
        shapes = shapely.from_wkb(table["geometry"].to_numpy())
        draw_polygons(axes, frame, shapes, colormaps[_COLORS](scale(distance)))
    else:
        x = frame.unwrapped(lon)
        sides = [[frame.west, frame.east], [frame.south, frame.north]]
        count, *_ = np.histogram2d(x, lat, bins=_BINS, range=sides)
        total, *_ = np.histogram2d(x, lat, bins=_BINS, range=sides, weights=distance)
        with np.errstate(invalid="ignore"):
            mean = np.ma.masked_invalid((total / count).T)
        box = (frame.west, frame.east, frame.south, frame.north)
        axes.imshow(mean, origin="lower", extent=box, aspect="auto", cmap=_COLORS, norm=scale, zorder=2)
        axes.set_aspect(frame.aspect)
    axes.set_title(title, fontsize=10, loc="left")
    bar = figure.add_axes((0.09, 0.4 / figure.get_figheight(), 0.4, 0.12 / figure.get_figheight()))
    figure.colorbar(ScalarMappable(scale, _COLORS), cax=bar, orientation="horizontal", extend="max")
    bar.tick_params(labelsize=8)
    bar.set_title("cosine distance", fontsize=8, loc="left")
    return png(figure)
