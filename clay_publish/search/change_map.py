"""A map of the change between two windows."""

import numpy as np
import pyarrow as pa
import shapely
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from clay_publish.geo.maps import Frame, draw_polygons, map_figure, png, whole_box
from clay_publish.search.query import QueryError

_MOST_DRAWN = 20_000
_BINS = 500
_COLORS = "viridis"


def change_map(table: pa.Table, title: str) -> bytes:
    """Return a PNG of where chips changed: footprints colored by distance, or means of bins of very many.

    Args:
        table: as `changes` yields them.
        title: above the map.

    Raises:
        QueryError: there is no chip to draw.
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
