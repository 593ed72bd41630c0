"""`evaluate`: how well the vectors of releases predict labels."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clay_publish.cli.console import Json, Quiet, Screen, release_at
from clay_publish.errors import ReleaseError

if TYPE_CHECKING:
    from clay_publish.release.benchmarks import Task
    from clay_publish.release.directory import Release


def evaluate(
    releases: Annotated[
        list[str], typer.Argument(metavar="RELEASE", help="Directories or addresses; the first is the evaluated one.")
    ],
    labels: Annotated[Path, typer.Option(metavar="FILE", help="CSV or Parquet with lon, lat and the target.")],
    target: Annotated[str, typer.Option(metavar="COLUMN", help="The column to predict.")],
    *,
    task: Annotated[
        str | None, typer.Option(metavar="TASK", help="regression or classification; default: by the column's type.")
    ] = None,
    max_distance: Annotated[
        float | None,
        typer.Option(metavar="METERS", min=0, help="How far the center of a chip may be; default: one chip side."),
    ] = None,
    datetime: Annotated[str | None, typer.Option(metavar="TIME", help="A year, month, date or interval.")] = None,
    folds: Annotated[int, typer.Option(metavar="N", min=2, max=100, help="Folds of the cross-validation.")] = 5,
    block: Annotated[
        float | None,
        typer.Option(metavar="KM", min=0.001, help="Side of a spatial block; default: four blocks per fold."),
    ] = None,
    buffer: Annotated[
        float | None,
        typer.Option(metavar="KM", min=0, help="No training place is nearer to a test place; default: block / 10."),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of the order of blocks.")] = 0,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write predicted.png, residuals.png, predictions.parquet.")
    ] = None,
    card: Annotated[
        bool, typer.Option("--card", help="Publish the result with the first release: benchmarks.json and the card.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare how well embeddings and baselines predict labels, by spatially blocked cross-validation."""
    from clay_publish.errors import require_extra

    require_extra("evaluate", "clay-publish evaluate")
    from clay_publish.evaluate.evaluation import FoldOptions, table_lines, write_benchmark
    from clay_publish.evaluate.evaluation import evaluate as compare
    from clay_publish.search.reader import open_release

    screen = Screen(quiet=quiet, as_json=json)
    first = release_at(releases[0])
    if card:
        _refuse_published(first)
    readers = [open_release(where) for where in releases]
    options = FoldOptions(folds, block, buffer, seed)
    with screen.progress() as report:
        made = compare(
            readers,
            labels,
            target,
            task=_task(task),
            max_distance=max_distance,
            datetime=datetime,
            folds=options,
            report=report,
        )
        written = [] if out is None else made.write(out)
        if card:
            from clay_publish.cli.describe import describe
            from clay_publish.release.lease import lease_if_run

            with lease_if_run(first):
                write_benchmark(first, made.benchmark)
                describe(first, report, items=False)
    document = made.benchmark.model_dump(mode="json", exclude_none=True)
    lines = [*table_lines(made.benchmark), *(f"{path}" for path in written)]
    screen.result("\n".join(lines), document)


def _task(text: str | None) -> "Task | None":
    from clay_publish.search.query import QueryError

    known: dict[str, Task] = {"regression": "regression", "classification": "classification"}
    if text is not None and text not in known:
        raise QueryError("--task", f"found {text!r}", "regression or classification")
    return None if text is None else known[text]


def _refuse_published(release: "Release") -> None:
    """Make sure that a release is not published: a published version is immutable.

    Raises:
        ReleaseError: it is, or a place that its spec names cannot be asked.
    """
    from clay_publish.storage.store import is_url

    where = release.store.where
    fix = "Cut a patch version, with `previous:` in its spec, and evaluate that before it is published."
    if is_url(where) and not where.startswith("s3://"):
        raise ReleaseError(where, "cannot be written to", "a directory or s3://", fix)
    place = _published_here(release) or _published_at(release)
    if place is not None:
        raise ReleaseError(
            where, f"version {release.spec().version} is published at {place}", "an unpublished version", fix
        )


def _published_here(release: "Release") -> str | None:
    """Where it was published from this copy; or the product that this copy is a version of."""
    from clay_publish.release.directory import PUBLISHED, Release
    from clay_publish.release.versions import root_versions

    if release.store.exists(PUBLISHED):
        return ", ".join(map(str, release.json(PUBLISHED).get("places", [])))
    parent, spec = release.store.where.rstrip("/").rpartition("/")[0], release.spec()
    found = root_versions(Release(parent)) if parent else None
    return parent if found is not None and found.name == spec.name and found.find(spec.version) else None


def _published_at(release: "Release") -> str | None:
    """The first of the places that its spec names where this version is published."""
    from clay_publish.errors import ClayPublishError, PublishError
    from clay_publish.publish import versions

    spec = release.spec()
    stated = {"source.coop": spec.publish.source_coop, "huggingface": spec.publish.hugging_face}
    for place in (f"{host}/{product}" for host, product in stated.items() if product is not None):
        try:
            if versions(place).find(spec.version) is not None:
                return place
        except PublishError:
            continue  # nothing is published there
        except ClayPublishError as error:
            raise ReleaseError(
                release.store.where,
                f"cannot tell whether it is published ({error})",
                f"an answer of {place}",
                "Rerun the command when the host answers.",
            ) from error
    return None
