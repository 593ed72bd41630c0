"""Colors of the figures, and chips on a map."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from clay_publish.cards.figures.sample import POINTS, ChipPositions, Floats
from clay_publish.geo.maps import WIDTH, Frame, draw_polygons

EMBEDDED = "#0072B2"
MARK = "#D55E00"


@dataclass(frozen=True)
class Fill:
    """How ground is painted: a color, and a hatch for who cannot tell the colors apart."""

    color: str
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
    "too_few_images": Fill("#332288", "\\\\"),
    "implausible": Fill("#882255", "xx"),
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


def component_colors(shares: Floats) -> npt.NDArray[np.float64]:
    """[n, 3] of 0…1 as sRGB: the first is lightness, the second blue to yellow, the third green to red.

    Lightness and blue–yellow are what all kinds of color vision see, so the two strongest components are shown by
    them.
    """
    lightness = 0.36 + 0.56 * shares[:, 0]
    blue_yellow = 0.21 * (shares[:, 1] - 0.5)
    green_red = 0.18 * (shares[:, 2] - 0.5)
    linear = (np.stack([lightness, green_red, blue_yellow], axis=1) @ _TO_LMS.T) ** 3 @ _TO_RGB.T
    linear = np.clip(linear, 0, 1)
    made: npt.NDArray[np.float64] = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return made


def draw_chips(
    axes: Axes,
    frame: Frame,
    ground: ChipPositions,
    side: float,
    colors: npt.NDArray[np.float64] | str,
) -> None:
    """Paint chips of `side` meters: their footprints, or points where they are many or small."""
    dots = side / frame.meters * WIDTH * 0.89 * 72
    if len(ground.geometry) and dots > 1.5:
        draw_polygons(axes, frame, ground.geometry, colors)
        return
    lon, lat = ground.lon, ground.lat
    step = max(1, len(lon) // POINTS)
    shown = colors if isinstance(colors, str) else colors[::step]
    width = max(dots, 6.0 if len(lon) < 500 else 1.5)
    axes.scatter(frame.unwrapped(lon[::step]), lat[::step], s=width**2, c=shown, marker="s", linewidths=0, zorder=2)
