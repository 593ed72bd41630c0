"""Reading sensor definitions: those of the package, and those that a spec brings."""

import difflib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from clay_publish.errors import SpecError, shown
from clay_publish.spec.sensors.definition import Sensor

_MAX_BYTES = 1_000_000


def parse_sensor(document: Any, where: str) -> Sensor:
    """Check a sensor definition.

    Raises:
        SpecError: not a mapping, an unknown key, or a wrong value.
    """
    if not isinstance(document, Mapping):
        raise SpecError(where, f"found {type(document).__name__}", "a mapping with key, title, gsd, bands, …")
    try:
        return Sensor.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"]) or "the definition"
        if first["type"] == "missing":
            raise SpecError(
                f"{where}: {key}", "is missing", fix="Add it; `clay-publish sensors KEY` prints one."
            ) from error
        if first["type"] == "extra_forbidden":
            known = ", ".join(Sensor.model_fields)
            raise SpecError(f"{where}: {key}", "is an unknown key", fix=f"Known keys: {known}.") from error
        message = str(first["msg"]).removeprefix("Value error, ")
        raise SpecError(f"{where}: {key}", f"found {shown(first['input'])}", message) from error


def read_sensor(path: Path, where: str | None = None) -> Sensor:
    """Read a sensor definition from a YAML file.

    Raises:
        SpecError: missing, too large, not YAML, or not a sensor definition.
    """
    where = where or str(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SpecError(where, f"{path} cannot be read ({error.strerror})", "a sensor definition in YAML") from error
    if len(data) > _MAX_BYTES:
        raise SpecError(where, f"{path} has {len(data):,} bytes", f"at most {_MAX_BYTES:,}")
    try:
        document = yaml.safe_load(data)
    except (yaml.YAMLError, RecursionError, UnicodeDecodeError) as error:
        raise SpecError(where, f"{path} is not YAML ({' '.join(str(error).split())})") from error
    return parse_sensor(document, where)


def _registry() -> dict[str, Sensor]:
    folder = files("clay_publish.spec") / "sensors"
    definitions = sorted((each for each in folder.iterdir() if each.name.endswith(".yaml")), key=lambda each: each.name)
    found = [parse_sensor(yaml.safe_load(each.read_bytes()), each.name) for each in definitions]
    return {each.key: each for each in found}


SENSORS: dict[str, Sensor] = _registry()
"""The sensors of the package by key."""


def sensor(key: str) -> Sensor:
    """The registered sensor of this key.

    Raises:
        SpecError: there is none; the nearest is named.
    """
    if key in SENSORS:
        return SENSORS[key]
    near = difflib.get_close_matches(key, SENSORS, n=1, cutoff=0.4)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    raise SpecError("imagery.sensor", f"{key!r} is unknown", fix=f"{hint}Known: {', '.join(SENSORS)}.")
