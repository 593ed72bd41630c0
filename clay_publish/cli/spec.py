"""`sample`, `init` and `schema`: begin a release."""

import json as jsons
from collections.abc import Mapping
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated

import typer

from clay_publish.cli.console import Json, Screen
from clay_publish.cli.search import box_of
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
        str | None,
        typer.Option(metavar="ITEM", help="File or address of a STAC Item, for its imagery and sensor."),
    ] = None,
    json: Json = False,
) -> None:
    """Write a spec with every key and its meaning; `--from-item` also finds the sensor."""
    text = (files("clay_publish.spec") / "template.yaml").read_text(encoding="utf-8")
    changes: dict[str, str | None] = {}
    if from_item is not None:
        source = str(Path(from_item).resolve()) if Path(from_item).exists() else from_item
        changes = {"stac": jsons.dumps(source, ensure_ascii=False), **dict.fromkeys(("collections", "area", "windows"))}
        sensor = sensor or _sensor_of(source)
    if sensor is not None:
        from clay_publish.spec.sensors import sensor as find

        changes["sensor"] = find(sensor).key
        if sensor != "sentinel-2-l2a":
            changes["collections"] = None
    if bbox is not None:
        west, south, east, north = box_of(bbox)
        if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south < north <= 90):
            raise SpecError("--bbox", f"found {bbox}", "west,south,east,north in degrees")
        changes["area"] = f"[{west:g}, {south:g}, {east:g}, {north:g}]"
    _put(path, _changed(text, changes).encode())
    said = f"{path}: edit it, then `clay-publish plan {path}`"
    found = changes.get("sensor") if from_item is not None else None
    Screen(quiet=False, as_json=json).result(
        f"{said} (sensor {found})" if found else said, {"spec": str(path), **({"sensor": found} if found else {})}
    )


def _sensor_of(source: str) -> str:
    """The one sensor of the package that the item's statements, bands and product fit."""
    from clay_publish.errors import require_extra

    require_extra("produce", "Finding the sensor of an item")
    from clay_publish.producer.sources.reader import read_items
    from clay_publish.producer.sources.sensor_check import sensors_of

    first = next(iter(read_items(source)), None)
    if first is None:
        raise SpecError("--from-item", f"{source} holds no item", "a STAC Item")
    found = sensors_of(first.document, first.collection)
    if len(found) != 1:
        named = f"fits the sensors {', '.join(found)}" if found else "fits no sensor of the package"
        fix = "Name one with --sensor; `clay-publish sensors` lists them."
        raise SpecError("--from-item", f"{source} {named}", "an item of one sensor", fix)
    return found[0]


def schema() -> None:
    """Print the JSON Schema of the spec, for editors."""
    from clay_publish.spec.models import Spec

    document = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Spec.model_json_schema()}
    typer.echo(jsons.dumps(document, indent=2, ensure_ascii=False))


def _changed(text: str, changes: Mapping[str, str | None]) -> str:
    """The template with other values of keys of the imagery block; None removes a key, and the comment below it."""
    lines = text.splitlines()
    starts = {}
    for key in changes:
        begins = (f"  {key}:", f"  # {key}:")
        starts[next(number for number, line in enumerate(lines) if line.startswith(begins))] = key
    made, dropping = [], False
    for number, line in enumerate(lines):
        begun = starts.get(number)
        dropping = begun is not None or (dropping and line.startswith(" " * 8))
        if begun is not None and (value := changes[begun]) is not None:
            made.append(f"  {begun}: {value}")
        elif not dropping:
            made.append(line)
    return "\n".join(made) + "\n"


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
