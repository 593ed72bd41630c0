"""`plan.png`: the area, the footprints of the images and the expected chips, at their true size."""

from collections import Counter
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import shapely
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import LinearSegmentedColormap, ListedColormap
from matplotlib.patches import Patch

from clay_publish.geo.footprints import footprints
from clay_publish.geo.maps import Floats, Frame, map_figure, png, sites_of, whole_box
from clay_publish.geo.utm_zones import SQUARE, Square
from clay_publish.producer.layouts.base import Areas, Counts, Unit
from clay_publish.producer.sources.item import SourceItem

CELLS = 20_000
"""More chips than this are drawn as the 100 km squares that hold them."""
_OUTLINES = 3_000
"""More footprints than this would hide the map."""
_HAIRLINES = 100
"""More footprints than this are drawn in thin lines, so that chips and coastlines stay visible between them."""
_HARDLY_COVERED, _COVERED, _UNCOVERED = "#e5f5e0", "#74c476", "#c1440e"
_FOOTPRINT, _AREA = "#2171b5", "#111111"


def draw_plan(areas: Areas, images: Sequence[SourceItem], units: Sequence[Unit], counts: Counts, side: float) -> bytes:
    """The map as PNG.

    Args:
        areas: of the imagery blocks.
        images: the used ones.
        units: of the run, whose chips are drawn; empty where they are more than `CELLS`.
        counts: chips by 100 km square.
        side: of a chip, in meters.
    """
    ground = [area.geometry for area in areas if area is not None]
    located = [footprint for item in images if (footprint := item.footprint) is not None]
    outlines = list(shapely.from_wkb(located)) if len(located) <= _OUTLINES else []
    shown = _chips(units, counts) if units else None
    cells, colors = shown if shown is not None else _squares(counts)
    shapes = np.array([*ground, *cells, *([] if cells else outlines)], dtype=object)
    west, south, east, north = shapely.bounds(shapely.get_parts(shapes)).T
    frame = Frame.around(whole_box(west, np.append(south, north), east))
    middles = shapely.get_coordinates(shapely.centroid(np.array(cells, dtype=object)))
    sites = (
        sites_of(frame, middles[:, 0], middles[:, 1], side if shown is not None else counts.across * SQUARE)
        if cells
        else []
    )
    figure, panels = map_figure(frame, below=0.75, sites=sites)
    for axes, part in panels:
        rings, owner = _rings(cells, part)
        axes.add_collection(
            PolyCollection(rings, facecolors=colors[owner], edgecolors="white", linewidths=0.3, zorder=2)
        )
        lines, _ = _rings(outlines, part)
        width = 0.8 if len(outlines) <= _HAIRLINES else 0.2
        axes.add_collection(LineCollection(lines, colors=_FOOTPRINT, linewidths=width, zorder=3))
        axes.add_collection(
            LineCollection(_lines(ground, part), colors=_AREA, linewidths=1.4, linestyles="dashed", zorder=4)
        )
    what = "chips" if shown is not None else f"{counts.across * 100} km squares, by the share of their chips"
    handles = [
        Patch(facecolor=_COVERED, label=f"{what} with imagery: {counts.with_imagery:,} of {counts.expected:,}"),
        Patch(facecolor=_UNCOVERED, label=f"without: {counts.expected - counts.with_imagery:,}"),
    ]
    if images and len(located) <= _OUTLINES:
        handles.append(Patch(fill=False, edgecolor=_FOOTPRINT, label=f"image footprints: {len(outlines):,}"))
    if ground:
        handles.append(Patch(fill=False, edgecolor=_AREA, linestyle="dashed", label="area"))
    figure.legend(handles=handles, loc="lower center", ncols=2, frameon=False, fontsize=9)
    return png(figure)


def _chips(units: Sequence[Unit], counts: Counts) -> tuple[list[shapely.Geometry], Floats] | None:
    """Footprints of all chips, each once, and their colors; None where a unit does not know its chips."""
    uncovered = {
        (each.zone, int(row), col)
        for each in counts.missing
        for row, start, end in zip(*(part.tolist() for part in each.runs), strict=True)
        for col in range(start, end)
    }
    cells: dict[bytes, bool] = {}
    for unit in units:
        block = unit.missing("no_imagery", "")
        if block is None:
            return None
        zone = 0 if block.epsg is None else block.epsg % 100
        for geometry, row, col in zip(block.geometry, block.rows.tolist(), block.cols.tolist(), strict=True):
            wkb = geometry if isinstance(geometry, bytes) else shapely.to_wkb(geometry)
            cells[wkb] = cells.get(wkb, False) or (zone, row, col) not in uncovered
    fills = np.array([mpl.colors.to_rgba(_COVERED if covered else _UNCOVERED) for covered in cells.values()])
    return list(shapely.from_wkb(list(cells))), fills


def _squares(counts: Counts) -> tuple[list[shapely.Geometry], Floats]:
    """Outlines of the squares, and colors by the share of their chips with imagery, all windows together."""
    expected: Counter[Square] = Counter()
    covered: Counter[Square] = Counter()
    for each in counts.squares:
        expected[each.square] += each.expected
        covered[each.square] += each.with_imagery
    shares = LinearSegmentedColormap.from_list("shares", [_HARDLY_COVERED, _COVERED])
    scale = ListedColormap(np.vstack([mpl.colors.to_rgba(_UNCOVERED), shares(np.linspace(0, 1, 100))]))
    ordered, side = sorted(expected), counts.across * SQUARE
    zone, column, row = np.array([(square.zone, square.column, square.row) for square in ordered]).T
    corners = np.stack([column, row], axis=-1)[:, None] * SQUARE + side * np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    outlines = np.empty(len(ordered), dtype=object)
    for number in np.unique(zone).tolist():
        mine = zone == number
        # Northings counted from the equator, in the northern projection continued to the south.
        outlines[mine] = footprints(f"EPSG:{32600 + number}", corners[mine].astype(np.float64), _STRAY)
    return outlines.tolist(), scale(np.array([covered[square] / expected[square] for square in ordered]))


_STRAY = 10.0
"""Meters by which an outline of a square may leave it: a pixel of the map is 100 m or more."""
_FINEST = 1 / 1500
"""Of the width of a map: areas are drawn no finer, as its coastlines."""


def _rings(shapes: Sequence[shapely.Geometry], frame: Frame) -> tuple[list[Floats], np.ndarray]:
    """Outer rings, moved by whole turns into the frame, and which shape each is of."""
    parts, owner = shapely.get_parts(np.array(list(shapes), dtype=object), return_index=True)
    points, ring = shapely.get_coordinates(shapely.get_exterior_ring(parts), return_index=True)
    counts = np.bincount(ring, minlength=len(parts))
    middles = np.bincount(ring, points[:, 0], len(parts)) / counts
    points[:, 0] += np.repeat(frame.unwrapped(middles) - middles, counts)
    return np.split(points, np.cumsum(counts)[:-1]) if len(parts) else [], owner


def _lines(areas: Sequence[shapely.Geometry], frame: Frame) -> list[Floats]:
    """Outer rings of areas, as fine as the map; what is smaller than that is kept."""
    whole = [shapely.linestrings(ring) for ring in _rings(areas, frame)[0]]
    coarse = shapely.simplify(whole, _FINEST * (frame.east - frame.west), preserve_topology=False)
    lines = np.where(shapely.length(coarse) > 0, coarse, whole)
    return [shapely.get_coordinates(line) for line in lines]
