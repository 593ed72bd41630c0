"""Maps in degrees, north up, with land, a scale bar, and a panel for each of a few distant sites."""

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import FuncFormatter, MaxNLocator

from clay_publish.geo.area import land

Floats = npt.NDArray[np.float64]
Box = tuple[float, float, float, float]
"""West, south, east, north in degrees; west > east across the antimeridian."""

LINE = "#333333"
GRID = "#CCCCCC"
LAND = "#E2E2E2"
SITE = "#D55E00"

WIDTH = 8.6
"""Inches; at 110 dots per inch about as wide as the hosts show a card."""

MAX_BYTES = 500_000
_METERS_A_DEGREE = 111_320.0
_BINS = 64
_REACH = _BINS // 10
"""Bins: what is not farther apart is one site, which must be smaller than this."""
_MOST_SITES = 4


@dataclass(frozen=True)
class Frame:
    """The part of the Earth a map shows; west may be below −180, never is east more than 360 beyond it."""

    west: float
    south: float
    east: float
    north: float

    @classmethod
    def around(cls, bbox: tuple[float, float, float, float]) -> "Frame":
        """A frame with a margin around west, south, east, north; west > east crosses the antimeridian."""
        west, south, east, north = bbox
        if west > east:
            east += 360
        stretch = 1 / max(np.cos(np.radians((south + north) / 2)), 0.05)
        side = max((east - west) / stretch, north - south, 1e-4)
        # Not narrower than a third of its other side, with a margin all around.
        wide, high = (max(east - west, side * stretch / 3) * 1.08), max(north - south, side / 3) * 1.08
        x, y = (west + east) / 2, (south + north) / 2
        wide = min(wide, 360.0)
        return cls(x - wide / 2, max(y - high / 2, -90.0), x + wide / 2, min(y + high / 2, 90.0))

    @property
    def aspect(self) -> float:
        """How much longer a degree of latitude is drawn than one of longitude."""
        return float(1 / max(np.cos(np.radians((self.south + self.north) / 2)), 0.05))

    @property
    def meters(self) -> float:
        """Width of the frame on the ground, at its middle."""
        return (self.east - self.west) * _METERS_A_DEGREE / self.aspect

    def unwrapped(self, lon: Floats) -> Floats:
        """Longitudes moved by whole turns into the frame."""
        middle = (self.west + self.east) / 2
        moved: Floats = (lon - middle + 180) % 360 - 180 + middle
        return moved

    def square(self) -> "Frame":
        """A frame as wide as high on the ground, around the same middle."""
        side = max((self.east - self.west) / self.aspect, self.north - self.south)
        x, y = (self.west + self.east) / 2, (self.south + self.north) / 2
        wide = side * self.aspect
        return Frame(x - wide / 2, y - side / 2, x + wide / 2, y + side / 2)


def whole_box(lon: Floats, lat: Floats, east: Floats | None = None) -> Box:
    """The smallest box around points, across the antimeridian where that is narrower.

    Shapes reach from `lon` to `east`; then `lat` holds their southern and their northern bounds.
    """
    if len(lon) == 0:
        return -180.0, -90.0, 180.0, 90.0
    order = np.argsort(lon)
    west, reach = lon[order], np.maximum.accumulate((lon if east is None else east)[order])
    gaps = np.append(west[1:], west[0] + 360) - reach
    widest = int(gaps.argmax())
    if gaps[widest] <= 0:
        return -180.0, float(lat.min()), 180.0, float(lat.max())
    return float(west[(widest + 1) % len(west)]), float(lat.min()), float(reach[widest]), float(lat.max())


def sites_of(frame: Frame, lon: Floats, lat: Floats, side: float) -> list[Box]:
    """Boxes of a few sites that are small and far apart in the frame; none where one map shows everything.

    Two sites of a field each, a continent apart, are two dots on one map: each gets a panel of its own. `lon` and `lat`
    are middles of ground that reaches `side` / 2 meters around them.
    """
    x, y = frame.unwrapped(lon), lat
    column = np.clip((x - frame.west) / (frame.east - frame.west) * _BINS, 0, _BINS - 1).astype(int)
    row = np.clip((y - frame.south) / (frame.north - frame.south) * _BINS, 0, _BINS - 1).astype(int)
    left, labels, count = np.zeros((_BINS, _BINS), dtype=bool), np.full((_BINS, _BINS), -1), 0
    left[row, column] = True
    while left.any():
        group = np.zeros_like(left)
        group[np.unravel_index(left.T.argmax(), left.T.shape)[::-1]] = True  # the westernmost
        while (grown := _around(group) & left).sum() > group.sum():
            group = grown
        small = max(np.ptp(place) for place in np.nonzero(group)) < _REACH
        if count == _MOST_SITES or not small:
            return []
        labels[group] = count
        left &= ~group
        count += 1
    if count < 2 or side > frame.meters / _BINS:
        return []
    of = labels[row, column]
    high = side / 2 / _METERS_A_DEGREE
    wide = high * frame.aspect
    places = [(x[of == n], y[of == n]) for n in range(count)]
    return [
        (float(e.min() - wide), float(n.min() - high), float(e.max() + wide), float(n.max() + high)) for e, n in places
    ]


def _around(cells: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Cells at most `_REACH` rows and columns from one of these."""
    for _ in range(2):
        near = cells.copy()
        for step in range(1, _REACH + 1):
            near[step:] |= cells[:-step]
            near[:-step] |= cells[step:]
        cells = near.T
    return cells


def map_figure(
    frame: Frame, *, below: float = 0.0, sites: list[Box] | None = None
) -> tuple[Figure, list[tuple[Axes, Frame]]]:
    """Empty maps: of the frame, and below it one of each site, whose places the first map shows by numbers.

    `below` inches are left free under the maps.
    """
    ratio = (frame.north - frame.south) * frame.aspect / (frame.east - frame.west)
    height = min(max(ratio * (WIDTH - 1.1), 2.2), 5.4) + 0.85
    panels = [Frame.around(site) for site in sites or []]
    side = (WIDTH - 0.7) / max(len(panels), 3)
    extra = side + 0.3 if panels else 0.0
    whole = height + extra + below
    figure = Figure(figsize=(WIDTH, whole))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.09, (below + extra + 0.45) / whole, 0.89, (height - 0.7) / whole))
    maps = [(axes, frame)]
    _furnish(axes, frame)
    for number, panel in enumerate(panels):
        place = (
            (0.35 + number * side + 0.3) / WIDTH,
            (below + 0.45) / whole,
            (side - 0.45) / WIDTH,
            (side - 0.5) / whole,
        )
        square = panel.square()
        added = figure.add_axes(place)
        _furnish(added, square)
        added.tick_params(labelbottom=False, labelleft=False, length=0)
        x, y = (square.west + square.east) / 2, (square.south + square.north) / 2
        x = float(frame.unwrapped(np.array([x]))[0])
        at = f"{_degrees(round(y, 2), 'N', 'S')} {_degrees(round((x + 180) % 360 - 180, 2), 'E', 'W')}"
        added.set_xlabel(at, fontsize=8, color=LINE, labelpad=2)
        added.set_title(str(number + 1), fontsize=9, color=SITE, loc="left", pad=2)
        maps.append((added, square))
        axes.annotate(
            str(number + 1), (x, y), xytext=(6, 6), textcoords="offset points", fontsize=9, color=SITE, zorder=4
        )
        axes.plot([x], [y], marker="s", markersize=9, fillstyle="none", color=SITE, zorder=4)
    return figure, maps


def _furnish(axes: Axes, frame: Frame) -> None:
    axes.set_xlim(frame.west, frame.east)
    axes.set_ylim(frame.south, frame.north)
    axes.set_aspect(frame.aspect)
    axes.set_facecolor("#F7F7F7")
    axes.grid(color=GRID, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _degrees((value + 180) % 360 - 180, "E", "W")))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _degrees(value, "N", "S")))
    axes.tick_params(labelsize=8, colors=LINE)
    _land(axes, frame)
    _scale_bar(axes, frame)


def draw_polygons(
    axes: Axes,
    frame: Frame,
    geometry: npt.NDArray[np.object_],
    colors: npt.NDArray[np.float64] | str,
    hatch: str = "",
) -> None:
    """Paint polygons given as WKB or as shapely geometries."""
    shapes = shapely.from_wkb(geometry) if len(geometry) and isinstance(geometry[0], bytes) else geometry
    parts, owner = shapely.get_parts(shapes, return_index=True)
    rings = [shapely.get_coordinates(ring) for ring in shapely.get_exterior_ring(parts)]
    for ring in rings:
        # A ring lies on one side of the antimeridian: it moves as a whole.
        ring[:, 0] += frame.unwrapped(np.array([ring[:, 0].mean()]))[0] - ring[:, 0].mean()
    faces = colors if isinstance(colors, str) else colors[owner]
    edges = "white" if hatch else "face"
    axes.add_collection(
        PolyCollection(rings, facecolors=faces, edgecolors=edges, linewidths=0.3, hatch=hatch or None, zorder=2)
    )


def png(figure: Figure) -> bytes:
    """The picture, with fewer dots an inch where it would be larger than `MAX_BYTES`."""
    for dots in (110, 80, 50):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=dots, facecolor="white", metadata={"Software": None})
        if buffer.tell() <= MAX_BYTES:
            break
    return buffer.getvalue()


def _degrees(value: float, positive: str, negative: str) -> str:
    text = f"{abs(value):.4f}".rstrip("0").rstrip(".")
    if float(text) == 0:
        return "0°"
    return f"{text}°{positive if value > 0 else negative}"


def _land(axes: Axes, frame: Frame) -> None:
    """The land and its coastline; near shores the line is as coarse as Natural Earth's 1:10 million."""
    everywhere, finest = land(), (frame.east - frame.west) / 1500
    rings = []
    for turn in (-360, 0, 360):
        seen = shapely.clip_by_rect(everywhere, frame.west - turn, frame.south, frame.east - turn, frame.north)
        polygons = shapely.get_parts(shapely.simplify(seen, finest, preserve_topology=False))
        large = polygons[shapely.area(polygons) > finest**2]
        rings += [shapely.get_coordinates(ring) + [turn, 0] for ring in shapely.get_rings(large)]  # noqa: RUF005 - adds
    if rings:
        # Inner rings run the other way round, so what they enclose stays free.
        outline = Path.make_compound_path(*(Path(ring, closed=True) for ring in rings))
        axes.add_patch(PathPatch(outline, facecolor=LAND, linewidth=0, zorder=0.4))
        axes.add_patch(PathPatch(outline, fill=False, edgecolor="#404040", linewidth=0.5, zorder=3.5))  # above all


def _scale_bar(axes: Axes, frame: Frame) -> None:
    """A bar of a round length; none on maps of a continent or more, where no length is true everywhere."""
    if frame.meters > 4_000_000:
        return
    wanted = frame.meters / 5
    power = 10 ** np.floor(np.log10(wanted))
    length = max(step * power for step in (1, 2, 5) if step * power <= wanted)
    share = length / frame.meters
    text = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    where = axes.transAxes
    # Above the map: on it, it would hide chips.
    axes.plot([1 - share, 1], [1.015, 1.015], transform=where, color=LINE, linewidth=3, clip_on=False)
    axes.text(0.99 - share, 1.015, text, transform=where, ha="right", va="center", fontsize=8, color=LINE)
