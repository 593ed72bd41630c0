"""Read `release.yaml`: resolve its paths, inline an area file, and list every error with its line."""

import copy
import difflib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import shapely
import yaml
from pydantic import BaseModel, ValidationError

from clay_publish.errors import SpecError, shown
from clay_publish.geo.area import parse_area
from clay_publish.spec.models import Spec
from clay_publish.spec.sensors import read_sensor, sensor
from clay_publish.storage.address import is_hosted, readable
from clay_publish.storage.store import is_url

_MAX_SPEC = 10_000_000
"""Bytes; an area inlined as GeoJSON may be large, a bomb is larger."""


Place = tuple[int | str, ...]
"""Keys and positions that lead to a value."""


@dataclass(frozen=True)
class Document:
    """A YAML mapping, and where its keys are."""

    values: dict[str, Any]
    lines: Mapping[Place, int] = field(default_factory=dict)
    """Place of a key or list entry → line, from 1."""
    overridden: Mapping[Place, str] = field(default_factory=dict)
    """Place of a value of the command line → the option that says it."""

    def line(self, place: Place) -> int | None:
        """Line of a key, or of the nearest key around it; None where the document was not read from a file."""
        for length in range(len(place), 0, -1):
            if place[:length] in self.lines:
                return self.lines[place[:length]]
        return None

    def named(self, place: Place, where: str) -> str:
        """A key as messages name it: with its line, or with the option that sets it."""
        key = _key(place) or "the spec"
        for length in range(len(place), 0, -1):
            if option := self.overridden.get(place[:length]):
                return option if length == len(place) else f"{option}: {key}"
        line = self.line(place)
        return f"{where}:{line}: {key}" if line else f"{where}: {key}"


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
        document = _overridden(document, override)
    return resolve_spec(document.values, where=str(path), folder=path.resolve().parent, document=document)


def read_yaml(path: Path) -> Document:
    """Read a YAML mapping.

    Raises:
        SpecError: missing, too large, not YAML, not a mapping, or a key that occurs twice.
    """
    try:
        size = path.stat().st_size
        if size > _MAX_SPEC:
            raise SpecError(str(path), f"has {size:,} bytes", f"at most {_MAX_SPEC:,}")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SpecError(
            str(path),
            f"cannot be read ({error.strerror})",
            "a release spec",
            "`clay-publish init` writes one.",
        ) from error
    except UnicodeDecodeError as error:
        raise SpecError(str(path), f"is not UTF-8 (byte {error.start})", "a YAML text") from error
    loader = _SpecLoader(text)
    try:
        node = loader.get_single_node()
        values = loader.construct_document(node) if node is not None else None
    except (yaml.YAMLError, RecursionError, ValueError, TypeError) as error:
        raise SpecError(*_not_yaml(str(path), error)) from error
    finally:
        loader.dispose()
    if not isinstance(values, dict):
        raise SpecError(str(path), f"holds {type(values).__name__}", "keys and values such as `name: my-release`")
    assert node is not None
    repeated: list[SpecError] = []
    lines = dict(_lines(node, (), str(path), set(), repeated))
    if repeated:
        raise _together(str(path), repeated)
    return Document(values, lines)


class _SpecLoader(yaml.SafeLoader):
    """YAML as PyYAML reads it; what looks like a date stays text, so that a day that does not exist has a place."""


def _text(loader: yaml.SafeLoader, node: yaml.Node) -> str:
    assert isinstance(node, yaml.ScalarNode)
    return str(loader.construct_scalar(node))


_SpecLoader.add_constructor("tag:yaml.org,2002:timestamp", _text)


def _not_yaml(where: str, error: Exception) -> tuple[str, str]:
    """Place, with the line, and what is wrong with a text that is not YAML."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{where}:{error.problem_mark.line + 1}", f"is not YAML ({error.problem or error.context})"
    return where, f"is not YAML ({' '.join(str(error).split()) or type(error).__name__})"


def _together(where: str, faults: Sequence[SpecError]) -> SpecError:
    """One error that lists all."""
    if len(faults) == 1:
        return faults[0]
    listed = "\n".join(f"  {fault}" for fault in faults)
    return SpecError(where, f"has {len(faults)} errors", fix=f"\n{listed}")


def _lines(
    node: yaml.Node, place: Place, where: str, seen: set[int], repeated: list[SpecError]
) -> Iterator[tuple[Place, int]]:
    """The line of every key and list entry; duplicate keys go to `repeated`. What aliases repeat is walked once."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        first: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            name = str(key.value)
            if name in first and key.tag != "tag:yaml.org,2002:merge":
                fault = f"is a duplicate key (first on line {first[name]})"
                repeated.append(SpecError(f"{where}:{line}: {_key((*place, name))}", fault, fix="Remove one of them."))
            first.setdefault(name, line)
            yield (*place, name), line
            yield from _lines(value, (*place, name), where, seen, repeated)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield (*place, number), value.start_mark.line + 1
            yield from _lines(value, (*place, number), where, seen, repeated)


def _overridden(document: Document, override: str) -> Document:
    """The document with one value replaced, as `--set` asks for."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise SpecError(f"--set {override}", "is not an assignment", "key=value such as chips.size=256")
    try:
        value = yaml.load(text, Loader=_SpecLoader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, RecursionError, ValueError, TypeError) as error:
        raise SpecError(f"--set {override}", _not_yaml("", error)[1]) from error
    *path, last = (int(part) if part.isdigit() else part for part in key.split("."))
    values = copy.deepcopy(document.values)
    holder: Any = values
    place: list[int | str] = []
    for part, following in zip(path, [*path, last][1:], strict=True):
        if isinstance(holder, dict) and isinstance(part, str):
            holder = holder.setdefault(part, {})
        elif isinstance(holder, list) and isinstance(part, int) and part < len(holder):
            holder = holder[part]
        else:
            holder = None
        place.append(part)
        if isinstance(holder, list) and len(holder) == 1 and isinstance(following, str):
            holder = holder[0]  # `imagery.sensor`, where the list has one block
            place.append(0)
    fits = (
        isinstance(last, str) if isinstance(holder, dict) else isinstance(holder, list) and last in range(len(holder))
    )
    if not fits:
        raise SpecError(f"--set {override}", f"{key} is not a key of the spec", "dotted keys such as chips.size")
    holder[last] = value
    return Document(values, document.lines, {**document.overridden, (*place, last): f"--set {key}"})


def resolve_spec(values: Mapping[str, Any], *, where: str, folder: Path, document: Document | None = None) -> Spec:
    """Check a spec that was read already; `document` knows the lines of its keys.

    Raises:
        SpecError: as `load_spec`.
    """
    try:
        spec = Spec.model_validate(_with_sensor_files(values, where, folder))
    except ValidationError as error:
        raise _explain(error, where, document or Document(dict(values))) from error
    named, faults = (document or Document(dict(values))).named, []

    def resolved(place: Place, resolve: Callable[[Any, Path], Any], value: Any) -> Any:
        try:
            return resolve(value, folder)
        except SpecError as error:
            faults.append(_at(named(_as_written(place, values), where), error))

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
        raise _together(where, faults)
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


def _at(place: str, error: SpecError) -> SpecError:
    """The error of a value, with the place of the value."""
    return SpecError(place, error.found, error.expected, error.fix)


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


def _explain(error: ValidationError, where: str, document: Document) -> SpecError:
    """One error that lists everything that is wrong, in the order of the lines."""
    # Of a union, the branch that the value has the type of says more than the others.
    errors = sorted(error.errors(include_url=False), key=lambda each: each["type"].endswith("_type"))
    unknown = [each for each in errors if each["type"] == "extra_forbidden"]
    meant = {(each["loc"][:-1], near) for each in unknown if (near := _nearest(each["loc"]))}
    messages: dict[tuple[int, str], SpecError] = {}
    for each in errors:
        place = _as_written(each["loc"], document.values)
        if each["type"] == "missing" and (each["loc"][:-1], each["loc"][-1]) in meant:
            continue  # the misspelled key explains it
        made = _described(each, document.named(place, where))
        messages.setdefault((document.line(place) or 0, _key(place)), made)
    return _together(where, [messages[key] for key in sorted(messages)])


def _described(each: Mapping[str, Any], place: str) -> SpecError:
    if each["type"] == "extra_forbidden":
        near = _nearest(each["loc"])
        hint = f"Did you mean {near!r}?" if near else f"Known keys: {', '.join(_keys_beside(each['loc']))}."
        return SpecError(place, "is an unknown key", fix=hint)
    if each["type"] == "missing":
        return SpecError(place, "is missing", fix="Add it.")
    ours = each.get("ctx", {}).get("error")
    if isinstance(ours, SpecError):
        return _at(place, ours)
    if each["type"] == "value_error" and not str(ours).startswith("expected "):
        return SpecError(place, str(ours))
    if each["type"] == "value_error":
        expected = str(ours).removeprefix("expected ")
    elif each["type"] in _EXPECTED:
        expected = _EXPECTED[each["type"]].format(**each.get("ctx", {}))
    else:
        expected = str(each["msg"]).removeprefix("Input should be ")
    if each["type"] == "string_pattern_mismatch":
        expected = _FORMS.get(each["loc"][-1], expected)
    number = each["type"] == "string_type" and isinstance(each["input"], int | float)
    return SpecError(place, f"found {shown(each['input'])}", expected, "Write it in quotes." if number else "")


_FORMS: Mapping[int | str, str] = {
    "base_url": "an http(s) address without ? and #",
    "doi": "a DOI such as 10.5281/zenodo.1234",
    "hugging_face": "OWNER/NAME",
    "license": "an identifier of the SPDX license list, or LicenseRef-NAME for own terms",
    "orcid": "an ORCID iD such as 0000-0002-1825-0097",
    "sha256": "64 of 0-9 and a-f",
    "source_coop": "ACCOUNT/PRODUCT",
    "tiles": "https://…/{z}/{x}/{y}, with an ending such as .png",
}
"""Key → what is valid, in words instead of its pattern."""


_EXPECTED = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    **dict.fromkeys(
        ("date_from_datetime_inexact", "date_from_datetime_parsing", "date_parsing", "date_type"),
        "a day that exists, as YYYY-MM-DD: 2026-11-28",
    ),
    "dict_type": "keys and values",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "float_type": "a number",
    "greater_than": "a number greater than {gt:g}",
    "greater_than_equal": "a number of at least {ge:g}",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number of ordinary size",
    "int_type": "a whole number",
    "less_than_equal": "a number of at most {le:g}",
    "list_type": "a list",
    "literal_error": "{expected}",
    "model_type": "keys and values",
    "string_pattern_mismatch": "text that matches {pattern}",
    "string_too_long": "at most {max_length:,} characters",
    "string_type": "text",
    "string_unicode": "text in Unicode",
    "too_long": "at most {max_length} entries",
    "too_short": "at least {min_length} entries",
}
"""Kind of pydantic's error → what is valid; our own validators say it themselves."""


def _nearest(loc: Place) -> str | None:
    near = difflib.get_close_matches(str(loc[-1]), _keys_beside(loc), n=1, cutoff=0.5)
    return near[0] if near else None


def _as_written(loc: Place, values: Mapping[str, Any]) -> Place:
    """The place of an error in the document, without the branches of unions and lists that pydantic made."""
    place = tuple(part for part in loc if not _is_branch(part))
    if place[:2] == ("imagery", 0) and isinstance(values.get("imagery"), dict):
        place = ("imagery", *place[2:])
    return place


def _key(place: Place) -> str:
    """`imagery.windows[0]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")


def _is_branch(part: int | str) -> bool:
    """Pydantic names the branch of a union it tried; the reader did not write that."""
    return isinstance(part, str) and (part in {"str", "bool", "Arrays", "Patches"} or "[" in part)


def _keys_beside(loc: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = Spec
    for part in loc[:-1]:
        if isinstance(part, str) and part in model.model_fields:
            model = _model_in(model.model_fields[part].annotation) or model
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in get_args(annotation):
        found = _model_in(inner)
        if found is not None:
            return found
    return None
