"""The pictures of the card, drawn from what is in the release."""

import io
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import shapely
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from PIL import Image, UnidentifiedImageError

from clay_publish.cards.figures import maps
from clay_publish.cards.figures.maps import EMBEDDED, draw_chips
from clay_publish.cards.figures.sample import ChipPositions, Floats, GapPolygon, Sample, vectors
from clay_publish.cards.release_facts import CardFacts
from clay_publish.errors import ReleaseError
from clay_publish.formats import percent
from clay_publish.geo.maps import WIDTH, Frame, draw_polygons, map_figure, png, sites_of, whole_box
from clay_publish.release.directory import Release

ROWS, COLUMNS = 4, 6
LOOKED_AT = 20_000
"""Chips among which neighbors are looked for."""


@dataclass(frozen=True)
class _Chips:
    """Chips of a release that have a thumbnail."""

    vectors: np.ndarray[tuple[int, int], np.dtype[np.float32]]
    """[n, D], of length 1."""
    thumbnails: list[bytes]


def neighbors_picture(release: Release) -> bytes | None:
    """Rows of thumbnails: a chip, and the five most similar ones; None where the release has too few thumbnails.

    Raises:
        ReleaseError: a thumbnail is not a picture.
    """
    chips = _read(release)
    if chips is None or len(chips.thumbnails) <= COLUMNS:
        return None
    height = ROWS * WIDTH / COLUMNS
    figure = Figure(figsize=(WIDTH, height + 0.25))
    FigureCanvasAgg(figure)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.96, bottom=0.01, wspace=0.06, hspace=0.16)
    axes = figure.subplots(ROWS, COLUMNS, squeeze=False)
    for row, chip in enumerate(_queries(chips)):
        similarity = chips.vectors @ chips.vectors[chip]
        similarity[chip] = np.inf
        for column, found in enumerate(np.argsort(-similarity, kind="stable")[:COLUMNS]):
            place = axes[row, column]
            place.imshow(_picture(release, chips.thumbnails[found]))
            place.set_xticks([])
            place.set_yticks([])
            title = f"{similarity[found]:.3f}" if column else "chip"
            place.set_title(title, fontsize=8, pad=2, color=EMBEDDED if not column else "black")
            place.spines[:].set(color=EMBEDDED, linewidth=3 if not column else 0)
    return png(figure)


def _read(release: Release) -> _Chips | None:
    found: list[np.ndarray[tuple[int, int], np.dtype[np.float32]]] = []
    thumbnails: list[bytes] = []
    files = release.data_files()
    if "thumbnail" not in release.parquet(files[0]).schema_arrow.names:
        return None
    step = max(1, sum(release.parquet(path).metadata.num_rows for path in files) // LOOKED_AT)
    for path in files:
        file = release.parquet(path)
        columns = [name for name in ("embedding", "scale", "thumbnail") if name in file.schema_arrow.names]
        for number in range(file.num_row_groups):
            table: pa.Table = file.read_row_group(number, columns=columns)
            table = table.take(np.arange(0, table.num_rows, step))
            rows = table.column("thumbnail").to_pylist()
            kept = [place for place, row in enumerate(rows) if row and row["bytes"]]
            found.append(vectors(table.take(kept)))
            thumbnails += [rows[place]["bytes"] for place in kept]
    made = np.concatenate(found)
    lengths = np.linalg.norm(made, axis=1, keepdims=True)
    return _Chips(np.divide(made, lengths, out=np.zeros_like(made), where=lengths > 0), thumbnails)


def _queries(chips: _Chips) -> list[int]:
    """Chips as different as possible: each the least similar to those chosen before, the first to the mean of all."""
    nearest = chips.vectors @ chips.vectors.mean(axis=0)
    chosen: list[int] = []
    for _ in range(ROWS):
        chosen.append(int(nearest.argmin()))
        likeness = chips.vectors @ chips.vectors[chosen[-1]]
        nearest = likeness if len(chosen) == 1 else np.maximum(nearest, likeness)
    return chosen


def _picture(release: Release, data: bytes) -> Image.Image:
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "WEBP", "JPEG")) as picture:
            return picture.convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise ReleaseError(release.store.where, "has a thumbnail that is not a picture", "PNG, WebP or JPEG") from error


def coverage_map(facts: CardFacts, ground: ChipPositions, gaps: list[GapPolygon]) -> bytes:
    """All expected ground: embedded chips, and the missing ground by reason."""
    corners = [shapely.get_coordinates(gap.geometry) for gap in gaps]
    west, south, east, north = facts.bbox
    lon = np.concatenate([[west, east], ground.lon, *(xy[:, 0] for xy in corners)])
    lat = np.concatenate([[south, north], ground.lat, *(xy[:, 1] for xy in corners)])
    frame = Frame.around(whole_box(lon, lat))
    sites = sites_of(frame, lon[2:], lat[2:], facts.ground)
    reasons = {reason: n for reason, n in facts.coverage.missing.items() if n}
    figure, panels = map_figure(frame, below=0.3 * (1 + len(reasons) // 3), sites=sites)
    for axes, part in panels:
        for gap in gaps:
            fill = maps.REASONS.get(gap.reason, maps.UNKNOWN)
            draw_polygons(axes, part, np.array([gap.geometry], dtype=object), fill.color, fill.hatch)
        draw_chips(axes, part, ground, facts.ground, maps.EMBEDDED)
    handles = [Patch(facecolor=maps.EMBEDDED, label=f"embedded: {facts.coverage.embedded:,}")]
    for reason, number in reasons.items():
        fill = maps.REASONS.get(reason, maps.UNKNOWN)
        handles.append(
            Patch(facecolor=fill.color, hatch=fill.hatch, edgecolor="white", label=f"{_words(reason)}: {number:,}")
        )
    figure.legend(handles=handles, loc="lower center", ncols=3, frameon=False, fontsize=9)
    return png(figure)


def gaps_chart(facts: CardFacts) -> bytes | None:
    """Missing chips by reason; None where none is missing."""
    missing = list(facts.coverage.missing.items())[::-1]
    if not missing:
        return None
    figure = _chart(0.7 + 0.42 * len(missing))
    axes = figure.subplots()
    fills = [maps.REASONS.get(reason, maps.UNKNOWN) for reason, _ in missing]
    bars = axes.barh(
        [_words(reason) for reason, _ in missing],
        [number for _, number in missing],
        color=[fill.color for fill in fills],
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
    _histogram(figure.subplots(), known, "reconstruction loss (mean absolute error of normalized pixels)")
    return png(figure)


def loss_map(facts: CardFacts, sample: Sample) -> bytes | None:
    """Where the model reconstructs badly; None where there is no loss."""
    known = np.flatnonzero(np.isfinite(sample.loss))
    if not len(known):
        return None
    frame = Frame.around(facts.bbox)
    figure, panels = map_figure(
        frame, below=0.55, sites=sites_of(frame, sample.ground.lon, sample.ground.lat, facts.ground)
    )
    low, high = np.percentile(sample.loss[known], [2, 98])
    scale = ScalarMappable(Normalize(low, max(high, low + 1e-9)), "cividis")
    geometry = sample.ground.geometry
    ground = ChipPositions(
        geometry[known] if len(geometry) else geometry, sample.ground.lon[known], sample.ground.lat[known]
    )
    for axes, part in panels:
        draw_chips(axes, part, ground, facts.ground, scale.to_rgba(sample.loss[known]))
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
    axes.hist(values, bins=min(60, max(10, int(len(values) ** 0.5) * 2)), range=around, color=maps.EMBEDDED)
    median = float(np.median(values))
    axes.axvline(median, color=maps.MARK, linewidth=2, linestyle="--", label=f"median {median:.4g}")
    axes.set_xlabel(label, fontsize=9)
    axes.set_ylabel("chips", fontsize=9)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)


def components_map(facts: CardFacts, sample: Sample) -> bytes:
    """The first three principal components as color on the map."""
    frame = Frame.around(facts.bbox)
    figure, panels = map_figure(
        frame, below=0.55, sites=sites_of(frame, sample.ground.lon, sample.ground.lat, facts.ground)
    )
    colors = maps.component_colors(maps.stretched(sample.scores))
    for axes, part in panels:
        draw_chips(axes, part, sample.ground, facts.ground, colors)
    for place in range(3):
        explained = f"component {place + 1}: {sample.components.explained[place]:.0%} of the variance"
        _ramp(figure, place, explained)
    return png(figure)


def _ramp(figure: Figure, place: int, label: str) -> None:
    """What one component does to the color while the others stay in the middle."""
    height = figure.get_figheight()
    axes: Axes = figure.add_axes((0.09 + 0.305 * place, 0.30 / height, 0.28, 0.16 / height))
    shares = np.full((128, 3), 0.5)
    shares[:, place] = np.linspace(0, 1, 128)
    axes.imshow(maps.component_colors(shares)[None], aspect="auto")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel(label, fontsize=8, labelpad=3)


def _words(reason: str) -> str:
    return reason.replace("_", " ")
