"""`sample`, `init` and `schema`: begin a release."""

import json as jsons
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated

import typer

from clay_publish.cli.console import Json, Screen
from clay_publish.cli.search import numbers
from clay_publish.errors import SpecError, StoreError


def sample(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory to write to.")] = Path("my-first-release"),
    json: Json = False,
) -> None:
    """Write a short spec and the real Sentinel-2 scene it uses."""
    with as_file(files("clay_publish") / "sample") as bundled:
        for source in sorted(p for p in bundled.rglob("*") if p.is_file()):
            _put(directory / source.relative_to(bundled), source.read_bytes())
    spec = directory / "release.yaml"
    Screen(quiet=False, as_json=json).result(f"{spec}: now `clay-publish run {spec}`", {"spec": str(spec)})


def init(
    path: Annotated[Path, typer.Argument(metavar="SPEC", help="File to write.")] = Path("release.yaml"),
    sensor: Annotated[str | None, typer.Option(metavar="KEY", help="Key of a sensor.")] = None,
    bbox: Annotated[str | None, typer.Option(metavar="W,S,E,N", help="Area, in degrees.")] = None,
    from_item: Annotated[
        str | None, typer.Option(metavar="ITEM", help="File or address of a STAC Item: its imagery, nothing else.")
    ] = None,
    json: Json = False,
) -> None:
    """Write a spec with every key and its meaning."""
    text = (files("clay_publish.spec") / "template.yaml").read_text(encoding="utf-8")
    if from_item is not None:
        source = str(Path(from_item).resolve()) if Path(from_item).exists() else from_item
        text = _replaced(text, "stac", jsons.dumps(source, ensure_ascii=False))
        for key in ("collections", "area", "windows"):
            text = _removed(text, key)
    if sensor is not None:
        from clay_publish.spec.sensors import sensor as find

        text = _replaced(text, "sensor", find(sensor).key)
        if from_item is None and sensor != "sentinel-2-l2a":
            text = _removed(text, "collections")
    if bbox is not None:
        west, south, east, north = numbers(bbox, "--bbox", 4)
        if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south < north <= 90):
            raise SpecError("--bbox", f"found {bbox}", "west,south,east,north in degrees")
        text = _replaced(text, "area", f"[{west:g}, {south:g}, {east:g}, {north:g}]")
    _put(path, text.encode())
    Screen(quiet=False, as_json=json).result(f"{path}: edit it, then `clay-publish plan {path}`", {"spec": str(path)})


def schema() -> None:
    """Print the JSON Schema of the spec, for editors."""
    from clay_publish.spec.models import Spec

    document = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Spec.model_json_schema()}
    typer.echo(jsons.dumps(document, indent=2, ensure_ascii=False))


def _lines_of(text: str, key: str) -> tuple[int, int, list[str]]:
    """First and last line of a key of the imagery block, with its comment lines, and all lines."""
    lines = text.splitlines()
    start = next(n for n, line in enumerate(lines) if line.lstrip("# ").startswith(f"{key}:") and line[:2] == "  ")
    end = start + 1
    while end < len(lines) and lines[end].startswith("        ") and lines[end].lstrip().startswith(("#", "stac-")):
        end += 1
    return start, end, lines


def _replaced(text: str, key: str, value: str) -> str:
    start, end, lines = _lines_of(text, key)
    return "\n".join([*lines[:start], f"  {key}: {value}", *lines[end:]]) + "\n"


def _removed(text: str, key: str) -> str:
    start, end, lines = _lines_of(text, key)
    return "\n".join([*lines[:start], *lines[end:]]) + "\n"


def _put(path: Path, data: bytes) -> None:
    """Write a new file; an existing one must have the same content."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            file.write(data)
    except FileExistsError as error:
        if not path.is_file() or path.read_bytes() != data:
            raise StoreError(str(path), "exists with other content", fix="Move it away first.") from error
    except OSError as error:
        raise StoreError(str(path), f"cannot be written ({error.strerror})") from error
