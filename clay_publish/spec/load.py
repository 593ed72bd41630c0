"""Read `release.yaml`: resolve its paths, inline an area file, and list every error with its line."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import shapely
import yaml
from pydantic import ValidationError

from clay_publish.errors import SpecError, shown
from clay_publish.geo.area import parse_area
from clay_publish.spec.document import Document, Place, overridden, read_yaml, together
from clay_publish.spec.explain import as_written, at_place, explain
from clay_publish.spec.models import Spec
from clay_publish.spec.sensors import read_sensor, sensor
from clay_publish.storage.address import is_hosted, readable
from clay_publish.storage.store import is_url


def load_spec(path: str | Path, overrides: Sequence[str] = ()) -> Spec:
    """Read and check a spec. Relative paths in it are resolved against its folder, an area file is inlined.

    Args:
        path: the YAML file.
        overrides: `key=value` with dotted keys, such as `chips.size=256`; the value is YAML.

    Raises:
        SpecError: missing, not YAML, unknown keys (the nearest known ones are named), wrong values, missing files. All
            errors of keys and values are listed at once, with their lines.
    """
    path = Path(path)
    document = read_yaml(path)
    for override in overrides:
        document = overridden(document, override)
    return resolve_spec(document.values, where=str(path), folder=path.resolve().parent, document=document)


def resolve_spec(values: Mapping[str, Any], *, where: str, folder: Path, document: Document | None = None) -> Spec:
    """Check a spec that was read already; `document` knows the lines of its keys.

    Raises:
        SpecError: as `load_spec`.
    """
    try:
        spec = Spec.model_validate(_with_sensor_files(values, where, folder))
    except ValidationError as error:
        raise explain(error, where, document or Document(dict(values))) from error
    named, faults = (document or Document(dict(values))).named, []

    def resolved(place: Place, resolve: Callable[[Any, Path], Any], value: Any) -> Any:
        try:
            return resolve(value, folder)
        except SpecError as error:
            faults.append(at_place(named(as_written(place, values), where), error))

    blocks = [
        block.model_copy(
            update={
                key: resolved(("imagery", number, key), resolve, getattr(block, key))
                for key, resolve in _RESOLVED.items()
            }
        )
        for number, block in enumerate(spec.imagery)
    ]
    weights = resolved(("model", "weights"), _local, spec.model.weights)
    previous = resolved(("previous",), _previous, spec.previous)
    if faults:
        raise together(where, faults)
    model = spec.model.model_copy(update={"weights": weights})
    return spec.model_copy(update={"imagery": blocks, "model": model, "previous": previous})


def _with_sensor_files(document: Mapping[str, Any], where: str, folder: Path) -> Mapping[str, Any]:
    """Replace each sensor file by the definition in it, so that the published spec is complete."""
    blocks = document.get("imagery")
    many = blocks if isinstance(blocks, list) else [blocks]
    if not any(isinstance(block, dict) and _is_file(block.get("sensor")) for block in many):
        return document
    read = [
        {**block, "sensor": _defined(folder / block["sensor"], f"{where}: imagery.sensor")}
        if isinstance(block, dict) and _is_file(block.get("sensor"))
        else block
        for block in many
    ]
    return {**document, "imagery": read}


def _is_file(sensor: Any) -> bool:
    return isinstance(sensor, str) and ("/" in sensor or sensor.endswith((".yaml", ".yml")))


def _defined(path: Path, where: str) -> dict[str, Any]:
    return read_sensor(path, where).model_dump(mode="json", exclude_defaults=True)


def _known_sensor(stated: str | dict[str, Any], _: Path) -> str | dict[str, Any]:
    if isinstance(stated, str):
        sensor(stated)
    return stated


def _sources(stated: list[str], folder: Path) -> list[str]:
    sources = [_local(source, folder) or source for source in stated]
    missing = [source for source in sources if not is_url(source) and not Path(source).exists()]
    if missing:
        raise SpecError("stac", f"{', '.join(missing)} not found", "a file or address of STAC items")
    return sources


def _major_tom(stated: str | None, folder: Path) -> str | None:
    copy_of = _local(stated, folder)
    if copy_of is not None and not is_url(copy_of) and not (Path(copy_of) / "metadata.parquet").is_file():
        expected = "a copy of Major TOM Core, or hf://datasets/…"
        raise SpecError("major_tom", f"{copy_of} has no metadata.parquet", expected)
    return copy_of


def _local(source: str | None, folder: Path) -> str | None:
    if source is None or is_url(source):
        return source
    path = folder / source.removeprefix("file://")
    try:
        path.exists()
        return str(path.resolve())
    except (OSError, ValueError) as error:
        raise SpecError("path", f"{shown(source)} cannot be a path ({_reason(error)})", "a file or address") from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _read(named: str, folder: Path, key: str, expected: str) -> tuple[str, str]:
    """A file that the spec names: its path and its text."""
    path = _local(named, folder) or named
    try:
        return path, Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise SpecError(key, f"{path} not found", expected) from error
    except (OSError, ValueError) as error:
        raise SpecError(key, f"{path} cannot be read ({_reason(error)})", expected) from error


def _previous(where: str | None, folder: Path) -> str | None:
    return readable(where) if where is not None and is_hosted(where) else _local(where, folder)


def _excluded(stated: list[str], folder: Path) -> list[str]:
    """An id as it is, a file as the ids in it: one per line, `#` starts a comment."""
    ids = []
    for entry in stated:
        if "/" not in entry and not entry.endswith((".txt", ".csv")):
            ids.append(entry)
            continue
        _, text = _read(entry, folder, "exclude", "item ids, or a file with one per line")
        lines = (line.partition("#")[0].strip() for line in text.splitlines())
        ids += [line for line in lines if line]
    return ids


def _inline_area(area: Any, folder: Path) -> Any:
    if area is None or isinstance(area, list) or area == "land":
        return area
    if isinstance(area, str):
        path, text = _read(area, folder, "area", "`land`, a bbox, a GeoJSON file, or GeoJSON")
        try:
            area = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise SpecError("area", f"{path} is not GeoJSON ({error})") from error
    return json.loads(shapely.to_geojson(parse_area(area, "area")))


_RESOLVED: dict[str, Callable[[Any, Path], Any]] = {
    "sensor": _known_sensor,
    "stac": _sources,
    "major_tom": _major_tom,
    "area": _inline_area,
    "exclude": _excluded,
}
"""Keys of an imagery block whose values are completed or looked for, relative to the folder of the spec."""


def dump_spec(document: Mapping[str, Any]) -> str:
    """The spec as YAML text."""
    return yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True, width=110)
