"""Which items of the sources are used, and why the others are not."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import shapely

from clay_publish.errors import SourceError, SpecError
from clay_publish.producer.items import SourceItem, source_item
from clay_publish.producer.licenses import check, terms
from clay_publish.producer.sensors import Sensor
from clay_publish.producer.sources import read_items
from clay_publish.spec import Imagery, Spec

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda value, limit: bool(value == limit),
    "neq": lambda value, limit: bool(value != limit),
    "lt": lambda value, limit: bool(value < limit),
    "lte": lambda value, limit: bool(value <= limit),
    "gt": lambda value, limit: bool(value > limit),
    "gte": lambda value, limit: bool(value >= limit),
    "in": lambda value, limit: bool(value in limit),
}


@dataclass(frozen=True)
class Considered:
    """An item and what became of it."""

    item: SourceItem
    status: str
    """`used`, `unused` or `excluded`."""
    reason: str | None = None


def select(spec: Spec, sensor: Sensor, areas: list[shapely.Geometry | None]) -> list[Considered]:
    """Read every block's items and decide on each, ordered by block and id.

    Args:
        spec: the release spec.
        sensor: whose bands the items must have.
        areas: each block's area, OGC:CRS84; None where it has none.

    Raises:
        SourceError: a source cannot be read, or nothing is left to use.
        LicenseError: the terms of an item contradict the release's licence.
    """
    considered: list[Considered] = []
    broken: list[SourceError] = []
    for number, block in enumerate(spec.imagery):
        for item, properties in _items(block, sensor, number, broken):
            licensed = replace(
                item,
                license=terms(item.license, sensor.license, block.license),
                attribution=item.attribution or sensor.attribution,
            )
            status, reason = _decide(licensed, properties, block, areas[number])
            if status == "used":
                check(licensed.license, spec.license, f"item {licensed.id}")
            considered.append(Considered(licensed, status, reason))
    chosen = _without_repeats(considered)
    if not any(each.status == "used" for each in chosen):
        _refuse(spec, chosen, broken)
    return sorted(chosen, key=lambda each: (each.item.block, each.item.id))


def _items(
    block: Imagery, sensor: Sensor, number: int, broken: list[SourceError]
) -> list[tuple[SourceItem, Mapping[str, Any]]]:
    found = []
    for source in block.stac:
        for document, base in read_items(source):
            if block.collections and document.get("collection") not in block.collections:
                continue
            try:
                item = source_item(document, sensor, block=number, base=base)
            except SourceError as error:
                broken.append(error)
                continue
            found.append((item, document["properties"]))
    return found


def _decide(
    item: SourceItem, properties: Mapping[str, Any], block: Imagery, area: shapely.Geometry | None
) -> tuple[str, str | None]:
    if item.id in block.exclude:
        return "excluded", "named in the spec's exclude"
    windows = block.parsed_windows()
    if windows and not any(item.acquired in window for window in windows):
        return "unused", f"{item.acquired.isoformat()} lies in no window"
    if area is not None and item.geometry is not None and not shapely.intersects(area, item.geometry):
        return "unused", "lies outside the area"
    for key, tests in block.query.items():
        reason = _fails(key, properties.get(key), tests)
        if reason is not None:
            return "unused", reason
    return "used", None


def _fails(key: str, value: Any, tests: Any) -> str | None:
    """Why a property fails a filter of the STAC API's query extension; None where it passes."""
    if not isinstance(tests, dict):
        tests = {"eq": tests}
    for name, limit in tests.items():
        if name not in _COMPARE:
            raise SpecError(f"imagery.query.{key}", f"has the operator {name!r}", f"one of {', '.join(_COMPARE)}")
        if value is None:
            return f"has no {key}"
        try:
            passes = _COMPARE[name](value, limit)
        except TypeError as error:
            raise SpecError(
                f"imagery.query.{key}", f"compares {value!r} with {limit!r}", "a value of the same type"
            ) from error
        if not passes:
            return f"{key} is {value!r}, not {name} {limit!r}"
    return None


def _without_repeats(considered: list[Considered]) -> list[Considered]:
    """Of items with one id, the most recently updated is used."""
    best: dict[str, Considered] = {}
    for each in considered:
        if each.status == "used":
            known = best.get(each.item.id)
            if known is None or each.item.updated > known.item.updated:
                best[each.item.id] = each
    return [
        each if each.status != "used" or best[each.item.id] is each else replace(each, status="unused", reason=_REPEAT)
        for each in considered
    ]


_REPEAT = "another item of the same id is newer, or came first"


def _refuse(spec: Spec, considered: list[Considered], broken: list[SourceError]) -> None:
    sources = ", ".join(source for block in spec.imagery for source in block.stac)
    if broken and not considered:
        raise broken[0]
    reasons = sorted({each.reason or each.status for each in considered})
    raise SourceError(
        sources,
        f"has {len(considered)} items and none to use ({'; '.join(reasons[:3]) or 'it is empty'})",
        "at least one item that passes windows, area, query and exclude",
    )
