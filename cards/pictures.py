"""The pictures of the card, drawn from what is in the release."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from clay_publish.cards import colours
from clay_publish.cards.facts import Facts
from clay_publish.cards.gaps import Gap
from clay_publish.cards.ground import Ground
from clay_publish.cards.maps import Frame, draw_chips, draw_polygons, map_figure, png
from clay_publish.cards.sample import Sample


def coverage_map(facts: Facts, ground: Ground, gaps: list[Gap]) -> bytes:
    """Embedded chips, and the missing ground by reason."""
    frame = Frame.around(facts.bbox)
    reasons = {reason: n for reason, n in facts.coverage.missing.items() if n}
    figure, axes = map_figure(frame, below=0.3 * (1 + len(reasons) // 3))
    for gap in gaps:
        fill = colours.REASONS.get(gap.reason, colours.UNKNOWN)
        draw_polygons(axes, frame, np.array([gap.geometry], dtype=object), fill.colour, fill.hatch)
    draw_chips(axes, frame, ground, facts.ground, colours.EMBEDDED)
    handles = [Patch(facecolor=colours.EMBEDDED, label=f"embedded: {facts.coverage.embedded:,}")]
    for reason, number in reasons.items():
        fill = colours.REASONS.get(reason, colours.UNKNOWN)
        handles.append(
            Patch(facecolor=fill.colour, hatch=fill.hatch, edgecolor="white", label=f"{_words(reason)}: {number:,}")
        )
    figure.legend(handles=handles, loc="lower center", ncols=3, frameon=False, fontsize=9)
    return png(figure)


def components_map(facts: Facts, sample: Sample) -> bytes:
    """The first three principal components as colour on the map."""
    frame = Frame.around(facts.bbox)
    figure, axes = map_figure(frame, below=0.55)
    shares = colours.stretched(sample.scores)
    draw_chips(axes, frame, sample.ground, facts.ground, colours.component_colours(shares))
    for place in range(3):
        explained = f"component {place + 1}: {sample.components.explained[place]:.0%} of the variance"
        _ramp(figure, place, explained)
    return png(figure)


def _ramp(figure: Figure, place: int, label: str) -> None:
    """What one component does to the colour while the others stay in the middle."""
    height = figure.get_figheight()
    axes: Axes = figure.add_axes((0.09 + 0.305 * place, 0.30 / height, 0.28, 0.16 / height))
    shares = np.full((128, 3), 0.5)
    shares[:, place] = np.linspace(0, 1, 128)
    axes.imshow(colours.component_colours(shares)[None], aspect="auto")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel(label, fontsize=8, labelpad=3)


def _words(reason: str) -> str:
    return reason.replace("_", " ")
