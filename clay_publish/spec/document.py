"""A spec as it is written: YAML, where its keys are, and what the command line sets."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from clay_publish.errors import SpecError

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
        key = key_text(place) or "the spec"
        for length in range(len(place), 0, -1):
            if option := self.overridden.get(place[:length]):
                return option if length == len(place) else f"{option}: {key}"
        line = self.line(place)
        return f"{where}:{line}: {key}" if line else f"{where}: {key}"


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
        raise together(str(path), repeated)
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


def together(where: str, faults: Sequence[SpecError]) -> SpecError:
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
                repeated.append(
                    SpecError(f"{where}:{line}: {key_text((*place, name))}", fault, fix="Remove one of them.")
                )
            first.setdefault(name, line)
            yield (*place, name), line
            yield from _lines(value, (*place, name), where, seen, repeated)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield (*place, number), value.start_mark.line + 1
            yield from _lines(value, (*place, number), where, seen, repeated)


def overridden(document: Document, override: str) -> Document:
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


def key_text(place: Place) -> str:
    """`imagery.windows[0]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")
