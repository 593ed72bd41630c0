"""Rules on `sources.parquet`: each value is one that the image can have, and follows from what else is stated of it."""

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import shapely

from clay_publish.errors import ReleaseError
from clay_publish.geo.area import read_area
from clay_publish.geo.footprints import footprints
from clay_publish.release.directory import SOURCES
from clay_publish.spec.models import Imagery
from clay_publish.spec.sensors import Sensor
from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.data.footprints import Footprints
from clay_publish.validate.data.sources import Source
from clay_publish.validate.expected.cells import scene_grid
from clay_publish.validate.expected.layers import window_of
from clay_publish.validate.outcomes import Fault, Outcome, and_more
from clay_publish.validate.registry import rule
from clay_publish.validate.rules.imagery.sensors import instrument

Said = Iterator[tuple[str, str, str]]
"""What is wrong with a source: column, what it holds, what is expected."""

_ADDRESS = re.compile(r"(?:https?|s3)://[^/\s]+/\S*")
_PARQUET_VALUE = re.compile(r"[^\s#]+\.parquet#row=\d+&\S+")
"""Of an image of a local copy of Major TOM: the file, and which of its values."""
_DIGEST = r"sha256:[0-9a-f]{64}"
_LOCAL_CONTENT = re.compile(rf"{_DIGEST}(?: {_DIGEST})?")
"""Of a local image, and of the mask beside it."""
_STATEMENT = re.compile(r"(.+?) ((['\"]).*\3)", re.DOTALL)
_RENAMED = re.compile(r"-at-[0-9a-f]{8}$")
"""Added to an id that names images of several places."""
_PATH = re.compile(r"(.*?) ?\bpath (\d{1,3}) (\d{4}-\d\d-\d\d)")
"""An acquisition of Landsat: platform, path, day."""
_PATHS = 251
"""Of both Worldwide Reference Systems, at most."""
_DAY = timedelta(days=1)
_CORNERS = np.array([[0.0, 0.0, 1.0, 1.0], [0.0, 1.0, 1.0, 0.0]])
"""Column and row of each, as shares of an image."""
_SAME = 1e-7
"""Degrees, about a centimeter."""


@rule("PRV021")
def source_values_can_be(context: ReleaseContext) -> Iterator[Outcome]:
    """Imagery block, times, cloud cover, bounds, pixel grid, acquisition, product level, attribution, addresses.

    Whether platform, cloud cover, license, attribution, addresses and hashes are those of the item, only the item
    tells, which is not in the release.
    """
    spec, sensor = context.documents.spec, instrument(context)
    read = [source for source in context.sources.rows if source.was_read]
    yield from _together(context.sources.rows, lambda source: _of_row(source, len(spec.imagery)))
    yield from _together(read, lambda source: _of_item(source, sensor))
    yield from _together(read, _of_files)
    boxes = _bounds(context.sources.rows)
    yield from _together(context.sources.rows, lambda source: _box(source, boxes.get(id(source))))
    away = _grids_elsewhere(context.sources.used)
    yield from _together(away, lambda _: iter([("proj_transform", "lies elsewhere", "pixels on the item's footprint")]))
    yield from _acquisitions_are_short(context.sources.used)


def _together(sources: Iterable[Source], check: Callable[[Source], Said]) -> Iterator[Fault]:
    """One fault for all sources with the same mistake."""
    found: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for source in sources:
        for column, value, expected in check(source):
            found[column, expected].append((source.id, value))
    for (column, expected), places in found.items():
        (name, value), *_ = places
        yield Fault(f"{and_more(f'{SOURCES}: {name}', len(places))}: {column}", value, expected)


def _of_row(source: Source, blocks: int) -> Said:
    if not 0 <= source.block < blocks:
        yield "block", str(source.block), f"0 to {blocks - 1}, an imagery block of release.yaml"
    if source.moment is None and (source.was_read or source.status == "used"):
        yield "datetime", "null", "the time of the acquisition"
    if not source.was_read and source.status == "used":
        yield "bands", "none", "how each band is read"
    if source.start is not None and source.end is not None and source.start > source.end:
        yield "start_datetime", f"{source.start} is later than the end", "at most end_datetime"
    if source.cloud_cover is not None and not 0 <= source.cloud_cover <= 100:
        yield "cloud_cover", f"{source.cloud_cover:g}", "percent, 0 to 100, or null"
    if (source.shape is None) != (source.transform is None):
        yield "proj_shape", f"{source.shape}, with the transform {source.transform}", "both, or none"
    elif source.shape is not None:
        try:
            scene_grid(source, 1)
        except ReleaseError as error:
            yield "proj_transform", error.found, "the grid of an image"
        if min(source.shape) < 1:
            yield "proj_shape", str(source.shape), "rows and columns"


def _of_item(source: Source, sensor: Sensor) -> Said:
    if sensor.attribution and not source.attribution:
        yield "attribution", repr(source.attribution), "the item's, or the sensor's"
    if not source.acquisition or not _is_acquisition(source.acquisition, source):
        expected = "a datatake of its platform, a pass, or its collection with its day or period"
        yield "acquisition", repr(source.acquisition), expected
    names = {"id": _RENAMED.sub("", source.id).lower(), "collection": (source.collection or "").lower()}
    signs = () if sensor.level is None else sensor.level.signs
    own = next((name for name, text in names.items() if any(re.search(sign, text) for sign in signs)), None)
    if source.level is None:
        if own is not None:
            yield "level", "null", f"a statement such as its {own}, {names[own]!r}"
        return
    key, text = _statement(source.level)
    if text is None or not any(re.search(sign, text) for sign in signs):
        expected = "a statement of no product" if sensor.level is None else sensor.level.name
        yield "level", source.level, f"{expected}, or null"
    elif key in names and text != names[key]:
        yield "level", source.level, f"the {key}, {names[key]!r}"


def _statement(level: str) -> tuple[str, str | None]:
    """What says it, and the text that it says; None where it cannot be read."""
    found = _STATEMENT.fullmatch(level)
    if found is None:
        return level, None
    try:
        return found[1], str(ast.literal_eval(found[2]))
    except (ValueError, SyntaxError):
        return found[1], None


def _is_acquisition(text: str, source: Source) -> bool:
    platform = (source.platform or "").casefold().replace("_", "-")
    start, end = source.start or source.moment, source.end or source.moment
    if start is None or end is None:
        return True
    collection = source.collection or ""
    day, period = start.date().isoformat(), f"{start.isoformat()}/{end.isoformat()}"
    if text in {f"{collection} {period}".strip(), *(f"{collection} {of} {day}".strip() for of in (platform, ""))}:
        return True
    passed = _PATH.fullmatch(text)
    if passed is not None:
        on = datetime.fromisoformat(passed[3]).replace(tzinfo=start.tzinfo)
        near = abs(on - start) < 2 * _DAY  # its path crosses the equator on another day than its image
        return passed[1] in {"", platform} and 1 <= int(passed[2]) <= _PATHS and near
    if "/" in text or text.strip() != text:
        return False  # the period of another image
    return not platform or text.startswith(f"{platform} ") or " " not in text


def _of_files(source: Source) -> Said:
    used = [band["asset"] for band in source.bands] + ([] if source.mask is None else [source.mask["asset"]])
    if list(source.assets) != list(dict.fromkeys(used)):
        yield "assets", ", ".join(source.assets) or "none", f"{', '.join(dict.fromkeys(used))}, as bands and mask name"
    if source.href is not None and _ADDRESS.fullmatch(source.href) is None:
        yield "href", source.href[:100], "an address, or null"
    for file in source.files:
        if file["href"] is not None and not any(p.fullmatch(file["href"]) for p in (_ADDRESS, _PARQUET_VALUE)):
            yield "assets: href", file["href"][:100], "an address, or null where the file was local or signed"
        if file["href"] is None and file["etag"] is not None and _LOCAL_CONTENT.fullmatch(file["etag"]) is None:
            yield "assets: etag", file["etag"][:40], "the SHA-256 of a local file, or null"
        if file["etag"] is not None and not file["etag"].strip():
            yield "assets: etag", repr(file["etag"]), "what the server calls the content, or null"
        if file["size"] is not None and file["size"] <= 0:
            yield "assets: size", f"{file['size']:,} bytes", "more than 0, or null"


def _bounds(sources: Iterable[Source]) -> dict[int, Any]:
    """Bounds of each footprint by the identity of its source."""
    known = [source for source in sources if source.wkb is not None]
    bounds = Footprints(pa.array([source.wkb for source in known], pa.binary())).bounds
    return {id(source): box for source, box in zip(known, bounds, strict=True)}


def _box(source: Source, expected: Any) -> Said:
    if expected is None:
        if source.bbox is not None:
            yield "bbox", str(source.bbox), "null, as the geometry"
    elif not np.isfinite(expected).all():
        yield "geometry", "cannot be read", "a polygon in degrees"
    elif source.bbox is None or not (np.abs(np.array(source.bbox) - expected) <= _SAME).all():
        yield "bbox", str(source.bbox), "the bounds of its geometry"


def _grids_elsewhere(sources: Iterable[Source]) -> list[Source]:
    """Sources none of whose pixels lie on their footprint."""
    found = []
    by_crs: dict[str, list[tuple[Source, Any]]] = defaultdict(list)
    for source in sources:
        if source.shape is not None and source.geometry is not None:
            try:
                grid = scene_grid(source, 1)
            except ReleaseError:
                continue  # said above
            row, col = source.shape[0] * _CORNERS[1], source.shape[1] * _CORNERS[0]
            if np.isfinite(grid.to_lonlat(col, row)).all():  # those of an image of half the Earth are not on it
                by_crs[grid.crs].append((source, np.stack([col, row, np.ones(4)], axis=1) @ grid.matrix.T))
    for crs, members in by_crs.items():
        ground = footprints(crs, np.array([corners for _, corners in members]))
        shapes = np.array([source.geometry for source, _ in members], dtype=object)
        found += [members[n][0] for n in np.flatnonzero(~shapely.intersects(ground, shapes))]
    return found


def _acquisitions_are_short(sources: Iterable[Source]) -> Iterator[Fault]:
    """Images of one acquisition were taken within a day; those of a period have the same."""
    seen: dict[str, tuple[datetime, Source]] = {}
    for source in sources:
        start = source.start or source.moment
        if source.acquisition and start is not None:
            first, other = seen.setdefault(source.acquisition, (start, source))
            if abs(first - start) > _DAY:
                found = f"{source.acquisition!r}, as {other.id} of {first.date()}"
                yield Fault(f"{SOURCES}: {source.id}: acquisition", found, f"one of {start.date()}")


@rule("PRV007")
def status_follows_from_spec(context: ReleaseContext) -> Iterator[Outcome]:
    """`status` of each source against `exclude`, `windows`, `area` and `collections` of its imagery block.

    Items are used unless the spec leaves them out; only a `query`, and which of several of one id is newer, cannot be
    checked without the items.
    """
    spec, rows = context.documents.spec, context.sources.rows
    outside = {
        id(source)
        for number, block in enumerate(spec.imagery)
        for source in _outside(block, [source for source in rows if source.block == number])
    }
    used = Counter(_identity(source, context) for source in context.sources.used)

    def check(source: Source) -> Said:
        if source.status not in {"used", "unused", "excluded"}:
            yield "status", repr(source.status), "used, unused or excluded"
        if source.status != "used" and not source.reason:
            yield "status", f"is {source.status} without a reason", "a reason"
        if source.status == "used" and used[_identity(source, context)] > 1:
            yield "status", "is used twice", "one item of an id in a window"
        if 0 <= source.block < len(spec.imagery):  # PRV021
            block = spec.imagery[source.block]
            why = _left_out(source, block, is_outside=id(source) in outside)
            yield from _other_status(source, block, why, is_known=used[_identity(source, context)] > 0)

    yield from _together(rows, check)


def _other_status(source: Source, block: Imagery, why: str | None, *, is_known: bool) -> Said:
    """Where a status is not what the spec asks for; `is_known` tells that an item of its id is used."""
    if source.status == "used" and why is not None:
        yield "status", f"is used, and {why}", "excluded or unused, as release.yaml says"
    elif source.status == "excluded" and not _is_excluded(source, block):
        yield "status", "is excluded, and not named in `exclude`", "used or unused"
    elif source.status == "unused" and source.was_read and why is None and not block.query and not is_known:
        yield "status", "is unused, and nothing in release.yaml leaves it out", "used"


def _identity(source: Source, context: ReleaseContext) -> tuple[str, Any]:
    """Items that share it are versions of one."""
    spec = context.documents.spec
    by_window = context.fingerprint.layout == "utm" and 0 <= source.block < len(spec.imagery)
    windows = spec.imagery[source.block].windows if by_window else []
    return source.id, window_of(source, spec) if windows else None


def _left_out(source: Source, block: Imagery, *, is_outside: bool) -> str | None:
    """Why the spec does not ask for an item; None where it does."""
    if _is_excluded(source, block):
        return "named in `exclude`"
    windows = block.parsed_windows()
    if windows and source.moment is not None and not any(source.moment in window for window in windows):
        return f"lies in no window ({source.moment})"
    if is_outside:
        return "lies outside the area"
    if block.stac and block.collections and source.collection not in block.collections:
        return f"is of collection {source.collection!r}"
    return None


def _is_excluded(source: Source, block: Imagery) -> bool:
    """Whether the list names it; the published one holds the last part of ids with slashes alone."""
    return bool({source.id, source.id.rpartition("/")[2]} & set(block.exclude))


def _outside(block: Imagery, sources: list[Source]) -> list[Source]:
    """Sources of a block whose footprints are not on the ground that it asks for."""
    if block.area is None:
        return []
    area = read_area(block.area).geometry
    shapely.prepare(area)
    shapes = np.array([source.geometry for source in sources], dtype=object)
    known = ~shapely.is_missing(shapes) if len(shapes) else np.zeros(0, dtype=bool)
    away = known & ~shapely.intersects(area, shapes) if len(shapes) else known
    return [sources[number] for number in np.flatnonzero(away)]
