"""The command line: parses, calls a stage, prints."""

import atexit
import json
import os
import signal
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from clay_publish.cli import describe, evaluate, plan, publish, run, search, sensors, spec, status, validate
from clay_publish.cli.interrupts import heard, resumable
from clay_publish.errors import ClayPublishError
from clay_publish.redaction import redact_output
from clay_publish.storage.unfinished import remove_unfinished

_ENDED_BY_SIGNAL = {128 + signal.SIGINT, 128 + signal.SIGTERM}
_AGAIN = "Run the same command again"
_INTERRUPTED = {
    "publish": f"what has arrived is kept, and no unfinished version is visible. {_AGAIN} to continue.",
    "mirror": f"what has arrived is kept, and no unfinished version is visible. {_AGAIN} to continue.",
    "catalog": f"the data is unchanged, and documents may be of both runs. {_AGAIN}.",
    "card": f"the data is unchanged, and documents may be of both runs. {_AGAIN}.",
    "evaluate": f"the data is unchanged; with --card, documents may be of both runs. {_AGAIN}.",
    "yank": f"the version may be marked already. {_AGAIN}.",
}
"""What an interrupted command leaves; others change nothing, or say it themselves."""


class _Command(TyperCommand):
    def invoke(self, ctx: Any) -> Any:
        """Run the command; on Ctrl-C and SIGTERM it ends with one line."""
        with resumable(lambda: _INTERRUPTED.get(str(self.name), f"nothing was changed. {_AGAIN}.")):
            return super().invoke(ctx)

    def get_params(self, ctx: Any) -> list[Any]:
        """The options, of which flags show no type: they take no value."""
        return _without_types(super().get_params(ctx))


class _Group(TyperGroup):
    def get_params(self, ctx: Any) -> list[Any]:
        """As of a command."""
        return _without_types(super().get_params(ctx))


def _without_types(params: list[Any]) -> list[Any]:
    for param in params:
        if isinstance(param, TyperOption) and param.metavar is None and (param.is_flag or "--help" in param.opts):
            param.metavar = ""
    return params


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # an unexpected error keeps its whole traceback
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Turn satellite images into a published, versioned, searchable dataset of embeddings.",
)


def _version(asked: bool) -> None:
    if asked:
        from clay_publish import __version__

        typer.echo(f"clay-publish {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    pass


_MAKE, _INSPECT, _PUBLISH, _USE = "Make a release", "Inspect", "Publish", "Use a release"

for _group, _command, _example in (
    (_MAKE, spec.sample, "clay-publish sample my-first-release"),
    (_MAKE, spec.init, "clay-publish init release.yaml --sensor sentinel-2-l2a --bbox -75.72,37.62,-75.54,37.77"),
    (_MAKE, spec.schema, "clay-publish schema > release.schema.json"),
    (_MAKE, sensors.sensors, "clay-publish sensors sentinel-2-l2a > my-sensor.yaml"),
    (_MAKE, sensors.sensor_stats, "clay-publish sensor-stats release.yaml --out my-sensor.yaml"),
    (_MAKE, plan.plan, "clay-publish plan release.yaml --calibrate 200"),
    (_MAKE, run.run, "clay-publish run release.yaml --set chips.size=256"),
    (_MAKE, run.produce, "clay-publish produce release.yaml --unit 3/16"),
    (_MAKE, describe.catalog, "clay-publish catalog my-release/1.0.0"),
    (_MAKE, describe.card, "clay-publish card my-release/1.1.0 --previous my-release/1.0.0"),
    (_INSPECT, status.status, "clay-publish status s3://BUCKET/my-release/1.0.0 --watch"),
    (_INSPECT, validate.validate, "clay-publish validate https://data.source.coop/ACCOUNT/PRODUCT/1.0.0"),
    (_INSPECT, validate.rules, "clay-publish rules --json"),
    (_INSPECT, describe.explore, "clay-publish explore my-release/1.0.0"),
    (_INSPECT, describe.diff, "clay-publish diff my-release/1.0.0 my-release/1.1.0"),
    (_PUBLISH, publish.publish, "clay-publish publish my-release/1.0.0 --to source.coop --dry-run"),
    (_PUBLISH, publish.mirror, "clay-publish mirror https://data.source.coop/ACCOUNT/PRODUCT/1.0.0 --to huggingface"),
    (_PUBLISH, publish.versions, "clay-publish versions https://data.source.coop/ACCOUNT/PRODUCT"),
    (_PUBLISH, publish.yank, "clay-publish yank s3://BUCKET/my-release 1.0.0 --reason 'wrong offset'"),
    (_PUBLISH, publish.audit, "clay-publish audit source.coop/ACCOUNT/PRODUCT"),
    (_USE, search.search, "clay-publish search my-release/1.0.0 --bbox -75.7,37.6,-75.6,37.7 --out chips.parquet"),
    (_USE, search.sample_points, "clay-publish sample-points my-release/1.0.0 stations.csv --out joined.parquet"),
    (_USE, search.aggregate, "clay-publish aggregate my-release/1.0.0 fields.geojson --out means.parquet"),
    (
        _USE,
        evaluate.evaluate,
        "clay-publish evaluate my-release/1.0.0 mosaiks/1.0.0 --labels stations.csv --target meanT --out evaluation",
    ),
    (_USE, search.change, "clay-publish change my-release/1.0.0 2023-01 2023-07 --out change.parquet --map change.png"),
    (_USE, search.serve, "clay-publish serve my-release/1.0.0"),
):
    app.command(cls=_Command, rich_help_panel=_group, epilog=f"Example: {_example}")(_command)


def main() -> None:
    """Run the program: exit code 0, 1 for findings, 2 where something stands in the way."""
    redact_output()
    with heard():
        try:
            app(prog_name="clay-publish")
        except ClayPublishError as error:
            _tell(error)
            sys.exit(error.exit_code)
        except SystemExit as ended:
            if isinstance(ended.code, int) and ended.code in _ENDED_BY_SIGNAL:
                _end(ended.code)
            raise


def _end(code: int) -> None:
    """End as the interpreter does, but wait for no thread: it may read from a server, or compute, for minutes."""
    atexit._run_exitfuncs()  # noqa: SLF001 - as `multiprocessing` does; there is no public name
    remove_unfinished()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def _tell(error: ClayPublishError) -> None:
    if "--json" not in sys.argv:
        print(f"error: {error}", file=sys.stderr)
        return
    parts = {"where": error.where, "found": error.found, "expected": error.expected, "fix": error.fix}
    document = {"kind": type(error).__name__, "message": str(error), **parts}
    print(json.dumps({"error": document}, ensure_ascii=False), file=sys.stderr)
