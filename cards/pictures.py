"""The pictures of the card, drawn from what is in the release."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from clay_publish.cards import colours
from clay_publish.cards.facts import Facts
from clay_publish.cards.formats import percent
from clay_publish.cards.gaps import Gap
from clay_publish.cards.ground import Floats, Ground
from clay_publish.cards.maps import WIDTH, Frame, draw_chips, draw_polygons, map_figure, png
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


def gaps_chart(facts: Facts) -> bytes | None:
    """Missing chips by reason; None where none is missing."""
    missing = list(facts.coverage.missing.items())[::-1]
    if not missing:
        return None
    figure = _chart(0.7 + 0.42 * len(missing))
    axes = figure.subplots()
    fills = [colours.REASONS.get(reason, colours.UNKNOWN) for reason, _ in missing]
    bars = axes.barh(
        [_words(reason) for reason, _ in missing],
        [number for _, number in missing],
        color=[fill.colour for fill in fills],
        hatch=[fill.hatch for fill in fills],
        edgecolor="white",
        height=0.7,
    )
    expected = facts.coverage.expected
    labels = [f" {number:,} ({percent(number / expected)} of the expected)" for _, number in missing]
    axes.bar_label(bars, labels=labels, fontsize=9)
    axes.set_xlim(0, max(number for _, number in missing) * 1.45)
    axes.set_xlabel("chips", fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    return png(figure)


def norms_chart(sample: Sample) -> bytes:
    """How long the vectors are."""
    figure = _chart(2.4)
    _histogram(figure.subplots(), sample.norms, "length of the vector (Euclidean norm)")
    return png(figure)


def loss_chart(sample: Sample) -> bytes | None:
    """How the reconstruction loss is distributed; None where there is none."""
    known = sample.loss[np.isfinite(sample.loss)]
    if not len(known):
        return None
    figure = _chart(2.4)
    _histogram(figure.subplots(), known, "reconstruction loss (mean absolute error of normalised pixels)")
    return png(figure)


def loss_map(facts: Facts, sample: Sample) -> bytes | None:
    """Where the model reconstructs badly; None where there is no loss."""
    known = np.flatnonzero(np.isfinite(sample.loss))
    if not len(known):
        return None
    frame = Frame.around(facts.bbox)
    figure, axes = map_figure(frame, below=0.55)
    low, high = np.percentile(sample.loss[known], [2, 98])
    scale = ScalarMappable(Normalize(low, max(high, low + 1e-9)), "cividis")
    geometry = sample.ground.geometry
    ground = Ground(geometry[known] if len(geometry) else geometry, sample.ground.lon[known], sample.ground.lat[known])
    draw_chips(axes, frame, ground, facts.ground, scale.to_rgba(sample.loss[known]))
    height = figure.get_figheight()
    bar = figure.colorbar(
        scale, cax=figure.add_axes((0.3, 0.34 / height, 0.45, 0.14 / height)), orientation="horizontal", extend="both"
    )
    bar.set_label("reconstruction loss", fontsize=8, labelpad=1)
    bar.ax.tick_params(labelsize=8, pad=1)
    return png(figure)


def _chart(height: float) -> Figure:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _histogram(axes: Axes, values: Floats, label: str) -> None:
    low, high = values.min(), values.max()
    # Values that are all alike are one bar, not a spike of rounding.
    around = (low - 0.5, high + 0.5) if high - low < 1e-6 * abs(high) else (low, high)
    axes.hist(values, bins=min(60, max(10, int(len(values) ** 0.5) * 2)), range=around, color=colours.EMBEDDED)
    median = float(np.median(values))
    axes.axvline(median, color=colours.MARK, linewidth=2, linestyle="--", label=f"median {median:.4g}")
    axes.set_xlabel(label, fontsize=9)
    axes.set_ylabel("chips", fontsize=9)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)


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
