"""Parsing JSON and YAML that anybody may have written, in bounded memory.

A document of some megabytes may say a thousand times as much: a list of empty lists takes twenty times its size as
Python objects, and nine lines of YAML whose aliases repeat each other are a billion nodes.
"""

import json
from typing import Any

import yaml

from clay_publish.errors import ReleaseError

MAX_VALUES = 1_000_000
"""Values in one JSON document: a manifest of 200,000 files has as many, twice what hosts take."""

MAX_YAML = 8_000_000
"""Bytes of YAML, which is parsed in Python."""

MAX_DEPTH = 100
"""How deep YAML may be nested; GeoJSON needs ten."""

MAX_NODES = 500_000
"""Values in one YAML document, counted as often as aliases repeat them."""

_ROOM = 96
"""Bytes of a Python object, on average."""


def parse_json(data: bytes, where: str) -> Any:
    """The value of a JSON document.

    Raises:
        ReleaseError: it is not JSON, nested too deeply, or holds too many values.
    """
    values = data.count(b",") + data.count(b"[") + data.count(b"{")
    if values > MAX_VALUES:
        raise ReleaseError(
            where, f"holds about {values:,} values ({values * _ROOM:,} bytes)", f"at most {MAX_VALUES:,}"
        )
    try:
        return json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ReleaseError(where, f"is not valid JSON ({_short(error)})") from error


def parse_yaml(data: bytes, where: str) -> Any:
    """The value of a YAML document: plain values only, no tag makes an object.

    Raises:
        ReleaseError: it is not YAML, asks for objects, or its aliases repeat too much.
    """
    if len(data) > MAX_YAML:
        raise ReleaseError(where, f"is larger than {MAX_YAML:,} bytes", "a document of ordinary size")
    try:
        text = data.decode("utf-8")
        _check_size(text, where)
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - _Loader is a SafeLoader
    except (ValueError, yaml.YAMLError, RecursionError, TypeError) as error:
        raise ReleaseError(where, f"is not valid YAML ({_short(error)})") from error


# libyaml parses release.yaml with an inlined area fifteen times faster; not every build of PyYAML has it.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _check_size(text: str, where: str) -> None:  # noqa: C901 - one branch a kind of event
    """Walk over the parser's events, counting each alias as all that its anchor holds."""
    sizes: dict[str, int] = {}
    open_: list[str | None] = []
    starts: list[int] = []
    count = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            open_.append(event.anchor)
            starts.append(count)
            count += 1
            if len(open_) > MAX_DEPTH:
                raise ReleaseError(where, f"is nested more than {MAX_DEPTH} levels deep", "flat values")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, start = open_.pop(), starts.pop()
            if anchor is not None:
                sizes[anchor] = count - start
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor in open_:
                raise ReleaseError(where, f"has the alias *{event.anchor} inside of itself", "plain values")
            count += sizes.get(str(event.anchor), 1)
        elif isinstance(event, yaml.ScalarEvent):
            count += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
        if count > MAX_NODES:
            raise ReleaseError(where, f"holds more than {MAX_NODES:,} values, its aliases written out", "fewer")


def has_more_than(document: Any, most: int) -> bool:
    """Whether parsed JSON or YAML holds more than so many values."""
    waiting, count = [document], 0
    while waiting and count <= most:
        value = waiting.pop()
        count += 1
        if isinstance(value, dict | list):
            if len(value) > most:
                return True
            waiting.extend(value.values() if isinstance(value, dict) else value)
    return count > most


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
