"""Coverage rows of units that could not be made: every chip they were expected to give, with the reason."""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely

from clay_publish.geo.utm_zones import utm_zones
from clay_publish.producer.layouts.base import Unit
from clay_publish.producer.layouts.scene import safe_name
from clay_publish.producer.outputs.parts import PART_COVERAGE, coverage_rows
from clay_publish.release import directory as paths
from clay_publish.release.directory import Release
from clay_publish.release.manifest import dump_json
from clay_publish.windows import Window

RETRIED = ("unreadable", "source_changed", "failed", "over_budget")
"""Reasons that say something of that run, not of the ground: such chips are tried again."""


MAX_FEATURES = 5_000
"""Beyond it the runs of a reason and window are drawn as one box a square degree."""


def write_gaps(release: Release, missing: Iterable[pa.Table]) -> None:
    """Write the missing chips as polygons: neighbors in a row that lack for the same reason are merged.

    Args:
        release: to write to.
        missing: rows of parts of coverage; a row of the grid is not in two tables.
    """
    found, squares = list[_Placed](), _Squares()
    for table in missing:
        found += _features(table)
        if squares or len(found) > MAX_FEATURES:
            squares.add(feature for _, feature in found)
            found.clear()
    found.sort(key=itemgetter(0))  # whatever units the chips are of
    features = squares.features() if squares else (feature for _, feature in found)
    document = {"type": "FeatureCollection", "features": [*map(_geojson, features)]}
    release.store.write(paths.GAPS, dump_json(document))


_Placed = tuple[tuple[Any, ...], dict[str, Any]]
"""A feature behind what orders it: its zone, what it has in common, and its first cell."""


def _features(table: pa.Table) -> list[_Placed]:
    rows = [row for row in table.to_pylist() if row["geometry"] is not None]
    rows.sort(key=lambda row: (*_kind(row), row["row"] or 0, row["col"] or 0))
    features = []
    for _, run in groupby(enumerate(rows), key=_run):
        members = [row for _, row in run]
        outline = shapely.union_all(shapely.from_wkb([row["geometry"] for row in members]))
        first = members[0]
        order = (first["zone"], *_kind(first), first["row"] or 0, first["col"] or 0)
        features.append((order, {**_properties(first), "chips": len(members), "geometry": outline}))
    return features


def _kind(row: dict[str, Any]) -> tuple[Any, ...]:
    return (row["window_start"], row["window_end"], row["reason"], row["item_ids"], row["epsg"] or 0)


def _run(numbered: tuple[int, dict[str, Any]]) -> tuple[Any, ...]:
    """The same for neighbors: column minus position is constant along a run."""
    place, row = numbered
    return (*_kind(row), row["row"], (row["col"] or 0) - place)


def _properties(row: dict[str, Any]) -> dict[str, Any]:
    window = Window(row["window_start"], row["window_end"])
    return {"reason": row["reason"], "window": str(window), "detail": row["detail"]}


class _Squares:
    """One box for what lacks for the same reason, in the same window, within the same degree."""

    def __init__(self) -> None:
        self._found: dict[tuple[Any, ...], tuple[int, npt.NDArray[np.float64]]] = {}
        """Chips and bounds by reason, window, longitude and latitude."""

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, features: Iterable[dict[str, Any]]) -> None:
        for feature in features:
            shape = feature["geometry"]
            key = (feature["reason"], feature["window"], np.floor(shape.centroid.x), np.floor(shape.centroid.y))
            chips, bounds = self._found.get(key, (0, np.array(shape.bounds)))
            both = np.stack([bounds, shape.bounds])
            bounds = np.concatenate([both[:, :2].min(axis=0), both[:, 2:].max(axis=0)])
            self._found[key] = chips + feature["chips"], bounds

    def features(self) -> Iterator[dict[str, Any]]:
        for (reason, window, _, _), (chips, bounds) in sorted(self._found.items(), key=itemgetter(0)):
            detail = "drawn coarsely; the coverage table counts chips"
            yield {
                "reason": reason,
                "window": window,
                "detail": detail,
                "chips": chips,
                "geometry": shapely.box(*bounds),
            }


def _geojson(feature: dict[str, Any]) -> dict[str, Any]:
    geometry = shapely.set_precision(feature["geometry"], 1e-7)
    properties = {key: value for key, value in feature.items() if key != "geometry"}
    return {"type": "Feature", "geometry": shapely.geometry.mapping(geometry), "properties": properties}


Reason = Literal["unreadable", "source_changed", "failed", "over_budget", "implausible"]


def lost_rows(unit: Unit, reason: Reason, detail: str) -> tuple[pa.Table, Counter[str]]:
    """Rows of the coverage table for a whole unit, and the chips by reason.

    For an image of unknown grid, one row stands for the whole item.
    """
    block = unit.missing(reason, detail)
    if block is not None:
        return coverage_rows(block, unit.window), Counter(each for each in block.reasons if each is not None)
    (item,) = unit.items
    row = {
        "id": f"item_{safe_name(item.id)}_{unit.window.token}",
        "window_start": unit.window.start,
        "window_end": unit.window.end,
        "status": "missing",
        "reason": reason,
        "item_ids": [item.id],
        "detail": detail,
        "zone": 1 if item.geometry is None else int(utm_zones(np.array([item.geometry.centroid.x]))[0]),
        "geometry": None if item.geometry is None else shapely.to_wkb(item.geometry),
    }
    return pa.Table.from_pylist([row], schema=PART_COVERAGE), Counter([reason])
