"""Pictures of what a model predicted: against the labels, and where it was wrong."""

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize, TwoSlopeNorm
from matplotlib.figure import Figure

from clay_publish.evaluate.comparison import ModelComparison
from clay_publish.evaluate.samples import Samples
from clay_publish.geo.maps import Frame, map_figure, png, whole_box
from clay_publish.release.benchmarks import METRICS, BenchmarkResult

_DOT = "#0072B2"
_WRONG = ListedColormap(["#0072B2", "#D55E00"])
_LARGE = 500
"""Places from which on dots are small."""


def best_result(comparison: ModelComparison, features: str) -> BenchmarkResult:
    """Return the better model on these features, by the first score."""
    fitting = [result for result in comparison.results if result.features == features]
    return max(fitting, key=lambda result: next(iter(result.scores.values())).mean)


def predicted_against_true(
    samples: Samples, comparison: ModelComparison, result: BenchmarkResult, target: str
) -> bytes:
    """Return a PNG: predictions over labels of a regression, or the confusion matrix of a classification."""
    predicted = comparison.predicted[result.features, result.model]
    figure = Figure(figsize=(5.6, 5.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    metric, score = next(iter(result.scores.items()))
    title = f"{result.features}, {result.model}: {METRICS[metric]} {score.text}"
    axes.set_title(title, fontsize=9, loc="left")
    if samples.task == "regression":
        true = samples.target.astype(np.float64)
        both = np.concatenate([true, predicted.astype(np.float64)])
        low, high = float(both.min()), float(both.max())
        axes.plot([low, high], [low, high], color="#333333", linewidth=0.8)
        axes.scatter(true, predicted, s=4 if len(true) > _LARGE else 14, color=_DOT, alpha=0.6, linewidths=0)
        axes.set_aspect("equal", adjustable="box")
        axes.set_xlabel(f"{target}, label")
        axes.set_ylabel(f"{target}, predicted")
        axes.grid(color="#CCCCCC", linewidth=0.5)
        return png(figure)
    classes = np.unique(np.concatenate([samples.target, predicted]))
    counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(counts, (np.searchsorted(classes, samples.target), np.searchsorted(classes, predicted)), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    names = [str(name)[:24] for name in classes]
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xlabel(f"{target}, predicted")
    axes.set_ylabel(f"{target}, label")
    for row, column in np.ndindex(*counts.shape):
        color = "white" if shares[row, column] > 0.6 else "black"
        axes.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", fontsize=8, color=color)
    return png(figure)


def residual_map(samples: Samples, comparison: ModelComparison, result: BenchmarkResult, target: str) -> bytes:
    """Return a PNG: where predictions are too high or too low, or the class is wrong."""
    predicted = comparison.predicted[result.features, result.model]
    frame = Frame.around(whole_box(samples.lon, samples.lat))
    figure, [(axes, frame), *_] = map_figure(frame, below=0.55)
    values: npt.NDArray[np.float64]
    scale: Normalize
    colors: str | ListedColormap
    if samples.task == "regression":
        values = predicted.astype(np.float64) - samples.target.astype(np.float64)
        largest = max(float(np.quantile(np.abs(values), 0.98)), 1e-12)
        scale, colors, label = TwoSlopeNorm(0, -largest, largest), "RdBu_r", f"{target}, predicted − label"
    else:
        values = (predicted != samples.target).astype(np.float64)
        scale, colors, label = Normalize(0, 1), _WRONG, f"{target}: right or wrong"
    order = np.argsort(np.abs(values))
    x = frame.unwrapped(samples.lon)
    size = 8 if len(values) > _LARGE else 22
    axes.scatter(
        x[order],
        samples.lat[order],
        c=values[order],
        cmap=colors,
        norm=scale,
        s=size,
        edgecolors="#333333",
        linewidths=0.2,
        zorder=3,
    )
    axes.set_title(f"{result.features}, {result.model}", fontsize=9, loc="left")
    bar = figure.add_axes((0.09, 0.4 / figure.get_figheight(), 0.4, 0.12 / figure.get_figheight()))
    drawn = figure.colorbar(ScalarMappable(scale, colors), cax=bar, orientation="horizontal")
    if samples.task == "classification":
        drawn.set_ticks([0.25, 0.75], labels=["right", "wrong"])
    bar.tick_params(labelsize=8)
    bar.set_title(label, fontsize=8, loc="left")
    return png(figure)
