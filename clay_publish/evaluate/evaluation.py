"""One comparison from labels to a publishable record, and the files that show it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from clay_publish.evaluate.comparison import ModelComparison, compare, libraries
from clay_publish.evaluate.figures import best_result, predicted_against_true, residual_map
from clay_publish.evaluate.folds import Folds, split
from clay_publish.evaluate.samples import Samples, collect
from clay_publish.progress import Report, silent
from clay_publish.release import directory as paths
from clay_publish.release.benchmarks import METRICS, Benchmark, Benchmarks, Labels, Task, read_benchmarks, subject_of
from clay_publish.release.directory import Release
from clay_publish.release.manifest import dump_json
from clay_publish.search.points import read_points
from clay_publish.search.reader import ReleaseReader
from clay_publish.storage.store import Store


@dataclass(frozen=True)
class FoldOptions:
    """How places are divided; None where the default of `split` holds."""

    count: int = 5
    block_km: float | None = None
    buffer_km: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class Evaluation:
    """A record, and the places and predictions behind it."""

    benchmark: Benchmark
    samples: Samples
    folds: Folds
    comparison: ModelComparison

    def write(self, folder: Path) -> list[Path]:
        """Write `predictions.parquet` and two pictures of the better model on the first release; their paths."""
        target = self.benchmark.labels.target
        shown = best_result(self.comparison, self.samples.features[0].name)
        pictures = {
            "predicted.png": predicted_against_true(self.samples, self.comparison, shown, target),
            "residuals.png": residual_map(self.samples, self.comparison, shown, target),
        }
        folder.mkdir(parents=True, exist_ok=True)
        store = Store(folder)
        for name, picture in pictures.items():
            store.write(name, picture)
        with store.writer("predictions.parquet") as file:
            pq.write_table(self._table(), file, compression="zstd")
        return [folder / name for name in (*pictures, "predictions.parquet")]

    def _table(self) -> pa.Table:
        samples = self.samples
        columns = {
            "lon": samples.lon,
            "lat": samples.lat,
            "chip_id": samples.chips,
            "label": samples.target,
            "fold": self.folds.fold,
        }
        predicted = {f"{features}, {model}": each for (features, model), each in self.comparison.predicted.items()}
        return pa.table({name: pa.array(values) for name, values in (columns | predicted).items()})


def evaluate(
    readers: Sequence[ReleaseReader],
    labels: Path,
    target: str,
    *,
    task: Task | None = None,
    max_distance: float | None = None,
    datetime: str | None = None,
    folds: FoldOptions | None = None,
    report: Report = silent,
) -> Evaluation:
    """Compare releases and baselines on a table of labels.

    Args:
        readers: the releases; the record is about the first.
        labels: CSV or Parquet with longitude, latitude and the target.
        target: column to predict.
        task: as `collect`.
        max_distance: as `collect`.
        datetime: as `collect`.
        folds: how places are divided.
        report: receives each trained model.

    Raises:
        QueryError: labels that cannot be used, or too few of them near chips.
        ReleaseError: a release cannot be read.
    """
    table = read_points(str(labels))
    samples = collect(readers, table, target, task=task, max_distance=max_distance, datetime=datetime)
    options = folds or FoldOptions()
    divided = split(samples, options.count, block_km=options.block_km, buffer_km=options.buffer_km, seed=options.seed)
    comparison = compare(samples, divided, report)
    first = readers[0].release
    spec = first.spec()
    classes = sorted(set(samples.target.tolist())) if samples.task == "classification" else None
    with labels.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    benchmark = Benchmark(
        task=samples.task,
        labels=Labels(file=labels.name, sha256=digest, rows=table.num_rows, target=target, classes=classes),
        release=subject_of(spec.name, spec.version, first.fingerprint(), len(readers[0])),
        sampling=samples.sampling,
        folds=divided.sizes,
        results=list(comparison.results),
        libraries=libraries(),
    )
    return Evaluation(benchmark, samples, divided, comparison)


def write_benchmark(release: Release, made: Benchmark) -> None:
    """Add a comparison to `benchmarks.json`; it replaces the one on the same labels and target."""
    known = read_benchmarks(release) or Benchmarks(benchmarks=[])
    document = known.with_benchmark(made).model_dump(mode="json", exclude_none=True)
    release.store.write(paths.BENCHMARKS, dump_json(document))


def table_lines(made: Benchmark) -> list[str]:
    """Return the comparison as aligned text, one line per set of features and model."""
    metrics = list(made.results[0].scores)
    heads = ["features", "dim", "model", *(METRICS[metric] for metric in metrics)]
    rows = [
        [result.features, str(result.dimensions), result.model, *(result.scores[metric].text for metric in metrics)]
        for result in made.results
    ]
    wide = [max(len(row[place]) for row in [heads, *rows]) for place in range(len(heads))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, wide, strict=True)).rstrip() for row in [heads, *rows]
    ]
    sampling, folds = made.sampling, made.folds
    facts = (
        f"{made.labels.target}: {sampling.used:,} places of {made.labels.rows:,}"
        f" ({sampling.unlabeled:,} without a label,"
        f" {sampling.too_far:,} farther than {sampling.limit_m:g} m from a chip);"
        f" to the chip {sampling.median_m:.0f} m in the median, {sampling.farthest_m:.0f} m at most"
    )
    split_facts = (
        f"{folds.count} folds of blocks of {folds.block_km:g} km, buffer {folds.buffer_km:g} km, seed {folds.seed};"
        f" tested {min(folds.test):,} to {max(folds.test):,}, trained on {min(folds.train):,} to {max(folds.train):,};"
        " mean ± standard deviation over folds"
    )
    return [facts, split_facts, "", *lines]
