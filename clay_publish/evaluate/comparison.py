"""Train simple models on every set of features, fold by fold, and score what they predict."""

import importlib.metadata
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.linear_model import RidgeClassifierCV, RidgeCV
from sklearn.metrics import accuracy_score, f1_score, mean_absolute_error, mean_squared_error, r2_score
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from clay_publish.evaluate.folds import Folds
from clay_publish.evaluate.samples import Samples
from clay_publish.progress import Progress, Report, silent
from clay_publish.release.benchmarks import BenchmarkResult, Score, Task
from clay_publish.search.query import QueryError

ALPHAS = tuple(float(value) for value in np.logspace(-2, 6, 17))
"""Penalties of ridge; the best is chosen within the training places, by leaving one out."""
NEIGHBORS = 10
_DIGITS = 6
Predicted = npt.NDArray[np.generic]


@dataclass(frozen=True)
class ModelComparison:
    """What came of it."""

    results: tuple[BenchmarkResult, ...]
    predicted: dict[tuple[str, str], Predicted]
    """By features and model: the prediction of each place, when it was tested."""


def compare(samples: Samples, folds: Folds, report: Report = silent) -> ModelComparison:
    """Return scores and predictions of ridge and nearest neighbors on every set of features.

    A set of features is divided by one number, so that penalties mean the same for all. Features of their own are not
    standardized: one that hardly varies among the training places would decide predictions elsewhere. A constant
    prediction is the floor.

    Raises:
        QueryError: the training places of a fold are all of one class.
    """
    if samples.task == "classification":
        for number in range(folds.count):
            if len(np.unique(samples.target[folds.train[number]])) < 2:
                fix = "Pass fewer --folds, or other labels."
                raise QueryError(f"fold {number}", "trains on one class alone", "at least two classes", fix)
    nothing = np.zeros((len(samples.target), 1))
    runs: list[tuple[str, int, str, npt.NDArray[np.float64]]] = [("none", 0, "constant", nothing)]
    for each in samples.features:
        scale = np.sqrt(each.values.var(axis=0).mean()) or 1.0
        runs += [(each.name, each.values.shape[1], model, each.values / scale) for model in ("ridge", "knn")]
    results, predictions = [], {}
    for done, (features, dimensions, model, values) in enumerate(runs, start=1):
        predicted = _cross_validate(values, samples, folds, model)
        predictions[features, model] = predicted
        scores = _scores(predicted, samples, folds)
        results.append(BenchmarkResult(features=features, dimensions=dimensions, model=model, scores=scores))
        report(Progress("evaluate", done, len(runs), f"{features}, {model}"))
    return ModelComparison(tuple(results), predictions)


def _cross_validate(values: npt.NDArray[np.float64], samples: Samples, folds: Folds, model: str) -> Predicted:
    predicted = np.empty_like(samples.target)
    for number in range(folds.count):
        train, test = folds.train[number], folds.fold == number
        made = _model(model, samples.task, int(train.sum()))
        with warnings.catch_warnings():
            # Features of a small area are nearly constant or dependent; the penalty is there for this.
            warnings.filterwarnings("ignore", message=".*[Ii]ll-conditioned matrix.*")
            made.fit(values[train], samples.target[train])
        predicted[test] = made.predict(values[test])
    return predicted


def _model(name: str, task: Task, training: int) -> Any:
    """A model of scikit-learn by name."""
    regression = task == "regression"
    if name == "constant":
        return DummyRegressor() if regression else DummyClassifier(strategy="most_frequent")
    if name == "ridge":
        return RidgeCV(ALPHAS) if regression else RidgeClassifierCV(ALPHAS)
    neighbors = min(NEIGHBORS, training)
    return KNeighborsRegressor(neighbors) if regression else KNeighborsClassifier(neighbors)


def _scores(predicted: Predicted, samples: Samples, folds: Folds) -> dict[str, Score]:
    by_fold: dict[str, list[float]] = {}
    for number in range(folds.count):
        test = folds.fold == number
        for metric, value in _score(samples.target[test], predicted[test], samples.task).items():
            by_fold.setdefault(metric, []).append(value)
    return {
        metric: Score(
            mean=round(float(np.mean(values)), _DIGITS),
            spread=round(float(np.std(values)), _DIGITS),
            folds=[round(value, _DIGITS) for value in values],
        )
        for metric, values in by_fold.items()
    }


def _score(true: Predicted, predicted: Predicted, task: Task) -> dict[str, float]:
    if task == "regression":
        return {
            "r2": float(r2_score(true, predicted)),
            "rmse": float(np.sqrt(mean_squared_error(true, predicted))),
            "mae": float(mean_absolute_error(true, predicted)),
        }
    return {
        "accuracy": float(accuracy_score(true, predicted)),
        "f1_macro": float(f1_score(true, predicted, average="macro", zero_division=0)),
    }


def libraries() -> dict[str, str]:
    """Versions of what decides the numbers."""
    return {name: importlib.metadata.version(name) for name in ("numpy", "scikit-learn", "scipy")}
