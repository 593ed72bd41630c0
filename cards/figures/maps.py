"""A plain map: chips and ground in degrees, north up, with a scale bar."""

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

from clay_publish.cards.figures.sample import ChipPositions, Floats
from clay_publish.geo.area import land

EMBEDDED = "#0072B2"
MARK = "#D55E00"
LINE = "#333333"
GRID = "#CCCCCC"
LAND = "#E2E2E2"


@dataclass(frozen=True)
class Fill:
    """How ground is painted: a colour, and a hatch for who cannot tell the colours apart."""

    colour: str
    hatch: str


REASONS = {
    "no_imagery": Fill("#BBBBBB", "||||"),
    "nodata": Fill("#666666", "////"),
    "cloud": Fill("#56B4E9", "...."),
    "excluded": Fill("#CC79A7", "xxxx"),
    "unreadable": Fill("#D55E00", "\\\\\\\\"),
    "source_changed": Fill("#E69F00", "++++"),
    "invalid_vector": Fill("#F0E442", "oooo"),
    "failed": Fill("#000000", ""),
    "over_budget": Fill("#009E73", "----"),
}
UNKNOWN = Fill("#FFFFFF", "**")

_TO_LMS = np.array(
    [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.2914855480]]
)
_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


def stretched(scores: Floats) -> Floats:
    """Each column brought to 0…1 between its 2nd and 98th percentile; a constant one becomes 0.5."""
    low, high = np.percentile(scores, [2, 98], axis=0)
    spread = high - low
    made: Floats = np.where(spread > 0, (scores - low) / np.where(spread > 0, spread, 1), 0.5)
    return np.clip(made, 0, 1)


def component_colours(shares: Floats) -> npt.NDArray[np.float64]:
    """[n, 3] of 0…1 as sRGB: the first is lightness, the second blue to yellow, the third green to red.

    Lightness and blue–yellow are what all kinds of colour vision see, so the two strongest components are shown by
    them.
    """
    lightness = 0.36 + 0.56 * shares[:, 0]
    blue_yellow = 0.21 * (shares[:, 1] - 0.5)
    green_red = 0.18 * (shares[:, 2] - 0.5)
    linear = (np.stack([lightness, green_red, blue_yellow], axis=1) @ _TO_LMS.T) ** 3 @ _TO_RGB.T
    linear = np.clip(linear, 0, 1)
    made: npt.NDArray[np.float64] = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return made


WIDTH = 8.6
"""Inches; at 110 dots an inch about as wide as the hosts show a card."""

MAX_BYTES = 500_000
POINTS = 500_000
"""More points than this hide one another."""
_METRES_A_DEGREE = 111_320.0


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
    def metres(self) -> float:
        """Width of the frame on the ground, at its middle."""
        return (self.east - self.west) * _METRES_A_DEGREE / self.aspect

    def unwrapped(self, lon: Floats) -> Floats:
        """Longitudes moved by whole turns into the frame."""
        middle = (self.west + self.east) / 2
        moved: Floats = (lon - middle + 180) % 360 - 180 + middle
        return moved


def map_figure(frame: Frame, *, below: float = 0.0) -> tuple[Figure, Axes]:
    """An empty map; `below` inches are left free under it."""
    ratio = (frame.north - frame.south) * frame.aspect / (frame.east - frame.west)
    height = min(max(ratio * (WIDTH - 1.1), 2.2), 5.4) + 0.85
    figure = Figure(figsize=(WIDTH, height + below))
    FigureCanvasAgg(figure)
    whole = height + below
    axes = figure.add_axes((0.09, (below + 0.45) / whole, 0.89, (height - 0.7) / whole))
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
    return figure, axes


def draw_chips(
    axes: Axes,
    frame: Frame,
    ground: ChipPositions,
    side: float,
    colours: npt.NDArray[np.float64] | str,
) -> None:
    """Paint chips of `side` metres: their footprints, or points where they are many or small."""
    dots = side / frame.metres * WIDTH * 0.89 * 72
    if len(ground.geometry) and dots > 1.5:
        draw_polygons(axes, frame, ground.geometry, colours)
        return
    lon, lat = ground.lon, ground.lat
    step = max(1, len(lon) // POINTS)
    shown = colours if isinstance(colours, str) else colours[::step]
    width = max(dots, 6.0 if len(lon) < 500 else 1.5)
    axes.scatter(frame.unwrapped(lon[::step]), lat[::step], s=width**2, c=shown, marker="s", linewidths=0, zorder=2)


def draw_polygons(
    axes: Axes,
    frame: Frame,
    geometry: npt.NDArray[np.object_],
    colours: npt.NDArray[np.float64] | str,
    hatch: str = "",
) -> None:
    """Paint polygons given as WKB or as shapely geometries."""
    shapes = shapely.from_wkb(geometry) if len(geometry) and isinstance(geometry[0], bytes) else geometry
    parts, owner = shapely.get_parts(shapes, return_index=True)
    rings = [shapely.get_coordinates(ring) for ring in shapely.get_exterior_ring(parts)]
    for ring in rings:
        # A ring lies on one side of the antimeridian: it moves as a whole.
        ring[:, 0] += frame.unwrapped(np.array([ring[:, 0].mean()]))[0] - ring[:, 0].mean()
    faces = colours if isinstance(colours, str) else colours[owner]
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
    """The land under the chips, on maps that are wider than its coastlines are coarse."""
    if frame.metres < 200_000:
        return
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


def _scale_bar(axes: Axes, frame: Frame) -> None:
    """A bar of a round length; none on maps of a continent or more, where no length is true everywhere."""
    if frame.metres > 4_000_000:
        return
    wanted = frame.metres / 5
    power = 10 ** np.floor(np.log10(wanted))
    length = max(step * power for step in (1, 2, 5) if step * power <= wanted)
    share = length / frame.metres
    text = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    where = axes.transAxes
    # Above the map: on it, it would hide chips.
    axes.plot([1 - share, 1], [1.015, 1.015], transform=where, color=LINE, linewidth=3, clip_on=False)
    axes.text(0.99 - share, 1.015, text, transform=where, ha="right", va="center", fontsize=8, color=LINE)
