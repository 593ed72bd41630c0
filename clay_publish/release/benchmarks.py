"""`benchmarks.json`: how well the vectors of a release predict labels, as its maintainer measured it."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from clay_publish.errors import ReleaseError
from clay_publish.release import directory as paths
from clay_publish.release.array_store import STORE
from clay_publish.release.directory import Release, checked
from clay_publish.release.fingerprint import Fingerprint
from clay_publish.release.manifest import dump_json
from clay_publish.release.public_urls import release_address
from clay_publish.spec.models import Spec

Task = Literal["regression", "classification"]

METRICS: dict[str, str] = {
    "r2": "R²",
    "rmse": "RMSE",
    "mae": "MAE",
    "accuracy": "accuracy",
    "f1_macro": "F1, macro",
}
"""Scores by key, and how documents call them."""
GEOEMB = "geoemb:benchmark"
"""Attribute of groups of arrays."""


class _BenchmarkPart(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Labels(_BenchmarkPart):
    """The table of labels."""

    file: str
    sha256: str
    rows: int
    target: str
    classes: list[str] | None = None
    """Of a classification, sorted."""


class Subject(_BenchmarkPart):
    """The release whose vectors were evaluated."""

    name: str
    version: str
    fingerprint: str
    """Its digest."""
    chips: int


class Sampling(_BenchmarkPart):
    """Which places were used, and how far their chips are."""

    used: int
    unlabeled: int
    """Rows without a value of the target."""
    too_far: int
    """Rows without a chip of every compared release within the limit."""
    limit_m: float
    median_m: float
    farthest_m: float


class FoldSizes(_BenchmarkPart):
    """How places were divided."""

    count: int
    block_km: float
    buffer_km: float
    seed: int
    test: list[int]
    """Places of each fold."""
    train: list[int]
    """Places that each fold's models were trained on, without those in the buffer."""


class Score(_BenchmarkPart):
    """One score of one model over all folds."""

    mean: float
    spread: float
    """Standard deviation over the folds."""
    folds: list[float]

    @property
    def text(self) -> str:
        """As documents print it."""
        return f"{self.mean:.3f} ± {self.spread:.3f}"


class BenchmarkResult(_BenchmarkPart):
    """One set of features and one model."""

    features: str
    dimensions: int
    model: str
    scores: dict[str, Score]


class Benchmark(_BenchmarkPart):
    """One comparison on one target."""

    task: Task
    labels: Labels
    release: Subject
    sampling: Sampling
    folds: FoldSizes
    results: list[BenchmarkResult]
    libraries: dict[str, str]

    @property
    def key(self) -> tuple[str, str]:
        """What a rerun replaces."""
        return self.labels.file, self.labels.target


class Benchmarks(_BenchmarkPart):
    """All comparisons that a release publishes."""

    format: Literal[1] = 1
    benchmarks: list[Benchmark]

    def with_benchmark(self, made: Benchmark) -> "Benchmarks":
        """With one more, which replaces the one on the same labels and target."""
        kept = [each for each in self.benchmarks if each.key != made.key]
        return Benchmarks(benchmarks=sorted([*kept, made], key=lambda each: each.key))


def subject_of(name: str, version: str, fingerprint: Fingerprint, chips: int) -> Subject:
    """Return what identifies the vectors that were evaluated."""
    return Subject(name=name, version=version, fingerprint=fingerprint.digest, chips=chips)


def read_benchmarks(release: Release) -> Benchmarks | None:
    """Return the comparisons of a release; None where it has no `benchmarks.json`.

    Raises:
        ReleaseError: the file is not in this format.
    """
    if not release.store.exists(paths.BENCHMARKS):
        return None
    fix = "Regenerate it with `clay-publish evaluate --card`."
    where = release.store.path(paths.BENCHMARKS)
    return checked(Benchmarks, release.json(paths.BENCHMARKS), where, "a benchmarks document of format 1", fix)


def benchmark_addresses(release: Release, spec: Spec) -> list[str]:
    """Return what `geoemb:benchmark` of the arrays lists: `benchmarks.json`, or nothing where there is none."""
    if not release.store.exists(paths.BENCHMARKS):
        return []
    return [f"{release_address(spec) or '../..'}/{paths.BENCHMARKS}"]


def with_benchmarks(attributes: Mapping[str, Any], addresses: list[str]) -> dict[str, Any]:
    """Return the attributes of a group of arrays with these addresses, or with none."""
    others = {key: value for key, value in attributes.items() if key != GEOEMB}
    return others | ({GEOEMB: addresses} if addresses else {})


def link_benchmarks(release: Release) -> None:
    """Bring `geoemb:benchmark` of the arrays up to date: a release is evaluated after its arrays are written.

    Raises:
        ReleaseError: the metadata of the arrays cannot be read.
    """
    if not release.store.exists(f"{STORE}/zarr.json"):
        return
    addresses = benchmark_addresses(release, release.spec())
    documents = [path for path in release.store.files(STORE) if path.endswith("/zarr.json")]
    for path in documents:
        stored = release.json(path)
        try:
            whole = _linked(stored, addresses)
        except (AttributeError, KeyError, TypeError) as error:
            raise ReleaseError(release.store.path(path), f"has no readable {error}", "metadata of Zarr v3") from error
        if whole != stored:
            release.store.write(path, dump_json(whole, compact="consolidated_metadata" in whole))


def _linked(document: dict[str, Any], addresses: list[str]) -> dict[str, Any]:
    if document["node_type"] != "group":
        return document
    linked = {**document, "attributes": with_benchmarks(document["attributes"], addresses)}
    if "consolidated_metadata" in document:
        below = document["consolidated_metadata"]
        members = {name: _linked(member, addresses) for name, member in below["metadata"].items()}
        linked["consolidated_metadata"] = {**below, "metadata": members}
    return linked
