"""Rules on `sources.parquet`: each value is one that the image can have, and follows from what else is stated of it."""

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from clay_publish.errors import ReleaseError
from clay_publish.geo.footprints import footprints, to_lonlat
from clay_publish.release.directory import SOURCES
from clay_publish.spec.models import Spec
from clay_publish.spec.sensors import Sensor
from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.data.footprints import Footprints
from clay_publish.validate.data.sources import NO_TIME, Bools, Ints, Source, SourceTable, typed
from clay_publish.validate.expected.cells import scene_grid, units_of
from clay_publish.validate.expected.layers import windows_of
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
_OWN = ("cloud_cover", "bbox", "href", "assets", "geometry")
"""Columns that no two items need have in common."""
_CORNERS = np.array([[0.0, 0.0, 1.0, 1.0], [0.0, 1.0, 1.0, 0.0]])
"""Column and row of each, as shares of an image."""
_SAME = 1e-7
"""Degrees, about a centimeter."""
_FLAT = 1e-9
"""Share of its sides' product: pixels with less area may have none."""
# What passes these passes the patterns above; Arrow knows no other white space than that of ASCII.
_PLAIN_ADDRESS = r"^(?:https?|s3)://[!-.0-~]+/[!-~]*$"
_PLAIN_CONTENT = rf"^{_DIGEST}(?: {_DIGEST})?$"


@rule("PRV021")
def source_values_can_be(context: ReleaseContext) -> Iterator[Outcome]:
    """Imagery block, times, cloud cover, bounds, pixel grid, acquisition, product level, attribution, addresses.

    Whether platform, cloud cover, license, attribution, addresses and hashes are those of the item, only the item
    tells, which is not in the release.
    """
    sources, sensor, blocks = context.sources, instrument(context), len(context.documents.spec.imagery)
    read = sources.texts["bands"].there
    of_row, of_item, of_files, boxes, away = (Together() for _ in range(5))
    odd = {"row": _odd_rows(sources, blocks), "item": _odd_items(sources, sensor), "files": _odd_files(sources)}
    for rows, batch in sources.batches(context.tables, [*_OWN]):
        cloud, box, href, files, shapes = (typed(batch, name) for name in _OWN)
        for place in np.flatnonzero(odd["row"][rows] | _odd_clouds(cloud)):
            source = sources[int(rows[place])]
            of_row.add(source, _of_row(source, cloud[place].as_py(), blocks))
        for place in np.flatnonzero(odd["item"][rows] & read[rows]):
            source = sources[int(rows[place])]
            of_item.add(source, _of_item(source, sensor))
        for place in np.flatnonzero((odd["files"][rows] | _odd_addresses(href, files)) & read[rows]):
            source = sources[int(rows[place])]
            of_files.add(source, _of_files(source, href[place].as_py(), files[place].as_py() or ()))
        bounds = Footprints(shapes).bounds
        known = sources.has_geometry[rows]
        for place in np.flatnonzero(_odd_boxes(box, bounds, known)):
            source, stated = sources[int(rows[place])], box[place].as_py()
            expected = bounds[place] if known[place] else None
            boxes.add(source, _box(None if stated is None else tuple(stated.values()), expected))
    for row in _grids_elsewhere(sources):
        away.add(sources[row], iter([("proj_transform", "lies elsewhere", "pixels on the item's footprint")]))
    for each in (of_row, of_item, of_files, boxes, away):
        yield from each.faults()
    spec = context.documents.spec
    if spec.chips.layout == "utm":  # scenes are not mosaicked
        yield from _acquisitions_are_short(sources, spec)


class Together:
    """One fault for all sources with the same mistake."""

    def __init__(self) -> None:
        self._first: dict[tuple[str, str], tuple[str, str]] = {}
        self._count: Counter[tuple[str, str]] = Counter()

    def add(self, source: Source, said: Said) -> None:
        """Add what is wrong with a source."""
        for column, value, expected in said:
            self._first.setdefault((column, expected), (source.id, value))
            self._count[column, expected] += 1

    def faults(self) -> Iterator[Fault]:
        """What was added."""
        for (column, expected), (name, value) in self._first.items():
            where = and_more(f"{SOURCES}: {name}", self._count[column, expected])
            yield Fault(f"{where}: {column}", value, expected)


def _odd_rows(sources: SourceTable, blocks: int) -> Bools:
    """All rows in which `_of_row` finds something, and maybe some more."""
    moment, start, end = sources.times.values()
    read = sources.texts["bands"].there
    odd = np.asarray((sources.block < 0) | (sources.block >= blocks))
    odd |= ((moment == NO_TIME) & (read | sources.is_used)) | (sources.is_used & ~read)
    odd |= (start != NO_TIME) & (end != NO_TIME) & (start > end)
    has_shape = sources.shapes.there
    odd |= has_shape != sources.transforms.there
    odd |= has_shape & ~(sources.shapes.where(lambda sizes: np.asarray((sizes >= 1).all(axis=1))) & _has_grid(sources))
    return odd


def _has_grid(sources: SourceTable) -> Bools:
    """Rows whose pixel grid `scene_grid` accepts, but for some whose grid is nearly a line."""

    def wide(transforms: npt.NDArray[Any]) -> Bools:
        a, b, _, d, e, _ = transforms.T
        with np.errstate(invalid="ignore", over="ignore"):
            is_wide = np.abs(a * e - b * d) > _FLAT * (np.abs(a * e) + np.abs(b * d))
        return np.asarray(np.isfinite(transforms).all(axis=1) & is_wide)

    known = np.isfinite(units_of(sources))[sources.texts["proj_code"].codes]
    return np.asarray(sources.transforms.there & sources.transforms.where(wide) & known)


def _odd_clouds(cloud: pa.Array) -> Bools:
    share = cloud.fill_null(0).to_numpy(zero_copy_only=False)
    return np.asarray(~((share >= 0) & (share <= 100)))


def _of_row(source: Source, cloud_cover: float | None, blocks: int) -> Said:
    if not 0 <= source.block < blocks:
        yield "block", str(source.block), f"0 to {blocks - 1}, an imagery block of release.yaml"
    if source.moment is None and (source.was_read or source.status == "used"):
        yield "datetime", "null", "the time of the acquisition"
    if not source.was_read and source.status == "used":
        yield "bands", "none", "how each band is read"
    if source.start is not None and source.end is not None and source.start > source.end:
        yield "start_datetime", f"{source.start} is later than the end", "at most end_datetime"
    if cloud_cover is not None and not 0 <= cloud_cover <= 100:
        yield "cloud_cover", f"{cloud_cover:g}", "percent, 0 to 100, or null"
    if (source.shape is None) != (source.transform is None):
        yield "proj_shape", f"{source.shape}, with the transform {source.transform}", "both, or none"
    elif source.shape is not None:
        try:
            scene_grid(source, 1)
        except ReleaseError as error:
            yield "proj_transform", error.found, "the grid of an image"
        if min(source.shape) < 1:
            yield "proj_shape", str(source.shape), "rows and columns"


def _odd_items(sources: SourceTable, sensor: Sensor) -> Bools:
    """All rows in which `_of_item` finds something, and maybe some more."""
    odd = ~sources.texts["attribution"].there if sensor.attribution else np.zeros(sources.count, dtype=bool)
    odd |= _odd_acquisitions(sources)
    signs = () if sensor.level is None else sensor.level.signs

    def is_sign(level: str | None) -> bool:
        text = None if level is None else _statement(level)[1]
        return text is not None and any(re.search(sign, text) for sign in signs)

    level = sources.texts["level"]
    unstated = level.where(lambda text: text is None)
    by_name = level.where(lambda text: text is not None and text.startswith(("id ", "collection ")))
    ids = sources.ids.take(pa.array(sources.item_of[by_name]))
    own = pc.binary_join_element_wise("id '", pc.utf8_lower(ids), "'", "")
    stated = level.values.take(pa.array(level.codes[by_name]))
    by_name[by_name] = ~pc.equal(own, stated).to_numpy(zero_copy_only=False)
    return odd | by_name | (unstated if signs else ~level.where(is_sign)) | ~(unstated | level.where(is_sign))


def _odd_acquisitions(sources: SourceTable) -> Bools:
    """All rows whose acquisition `_is_acquisition` does not accept, and those of which it depends on the times."""

    def check(source: Source) -> Iterator[str]:
        text = source.acquisition
        if not text or _PATH.fullmatch(text) or not _is_datatake(text, _platform(source)):
            yield "does not follow from the name alone"

    every = np.arange(sources.count)
    odd = np.zeros(sources.count, dtype=bool)
    odd[sources.suspects(("acquisition", "platform"), every, check)] = True
    return odd


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
    platform = _platform(source)
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
    return _is_datatake(text, platform)


def _platform(source: Source) -> str:
    return (source.platform or "").casefold().replace("_", "-")


def _is_datatake(text: str, platform: str) -> bool:
    if "/" in text or text.strip() != text:
        return False  # the period of another image
    return not platform or text.startswith(f"{platform} ") or " " not in text


def _odd_files(sources: SourceTable) -> Bools:
    """All rows whose assets are not those of bands and mask."""

    def check(source: Source) -> Iterator[str]:
        return (column for column, *_ in _of_files(source, None, ()))

    odd = np.zeros(sources.count, dtype=bool)
    odd[sources.suspects(("bands", "mask", "assets"), np.arange(sources.count), check)] = True
    return odd


def _odd_addresses(href: pa.Array, files: pa.ListArray) -> Bools:
    """All rows in whose addresses, checksums and sizes `_of_files` finds something, and maybe some more."""
    flat, owner = files.flatten(), pc.list_parent_indices(files).to_numpy(zero_copy_only=False)
    address, etag, size = (flat.field(name) for name in ("href", "etag", "size"))
    local = pc.and_(address.is_null(), pc.invert(_matches(etag, _PLAIN_CONTENT)))
    wrong = [pc.invert(_matches(address, _PLAIN_ADDRESS)), local, pc.invert(_matches(etag, "[!-~]"))]
    odd: Bools = pc.invert(_matches(href, _PLAIN_ADDRESS)).to_numpy(zero_copy_only=False)
    for each in (*wrong, pc.less_equal(size.fill_null(1), 0)):
        odd[owner[each.to_numpy(zero_copy_only=False)]] = True
    return odd


def _matches(texts: pa.Array, pattern: str) -> pa.Array:
    return pc.match_substring_regex(texts, pattern).fill_null(fill_value=True)


def _of_files(source: Source, href: str | None, files: Sequence[dict[str, Any]]) -> Said:
    used = [band["asset"] for band in source.bands] + ([] if source.mask is None else [source.mask["asset"]])
    if list(source.assets) != list(dict.fromkeys(used)):
        yield "assets", ", ".join(source.assets) or "none", f"{', '.join(dict.fromkeys(used))}, as bands and mask name"
    if href is not None and _ADDRESS.fullmatch(href) is None:
        yield "href", href[:100], "an address, or null"
    for file in files:
        if file["href"] is not None and not any(p.fullmatch(file["href"]) for p in (_ADDRESS, _PARQUET_VALUE)):
            yield "assets: href", file["href"][:100], "an address, or null where the file was local or signed"
        if file["href"] is None and file["etag"] is not None and _LOCAL_CONTENT.fullmatch(file["etag"]) is None:
            yield "assets: etag", file["etag"][:40], "the SHA-256 of a local file, or null"
        if file["etag"] is not None and not file["etag"].strip():
            yield "assets: etag", repr(file["etag"]), "what the server calls the content, or null"
        if file["size"] is not None and file["size"] <= 0:
            yield "assets: size", f"{file['size']:,} bytes", "more than 0, or null"


def _odd_boxes(box: pa.StructArray, bounds: npt.NDArray[np.float64], known: Bools) -> Bools:
    """The rows in which `_box` finds something."""
    sides = [side.fill_null(np.nan).to_numpy(zero_copy_only=False) for side in box.flatten()]
    same = (np.abs(np.stack(sides, axis=1) - bounds) <= _SAME).all(axis=1)
    stated = box.is_valid().to_numpy(zero_copy_only=False)
    return np.where(known, ~same, stated)


def _box(stated: tuple[float, ...] | None, expected: Any) -> Said:
    if expected is None:
        if stated is not None:
            yield "bbox", str(stated), "null, as the geometry"
    elif not np.isfinite(expected).all():
        yield "geometry", "cannot be read", "a polygon in degrees"
    elif stated is None or not (np.abs(np.array(stated) - expected) <= _SAME).all():
        yield "bbox", str(stated), "the bounds of its geometry"


def _grids_elsewhere(sources: SourceTable) -> list[int]:
    """Rows of used sources none of whose pixels lie on their footprint."""
    found: dict[str, list[int]] = defaultdict(list)
    with_grid = sources.used[(sources.shapes.there & _has_grid(sources))[sources.used]]
    codes = sources.texts["proj_code"]
    for some, geometries in sources.footprints(with_grid):
        known = ~shapely.is_missing(geometries)
        for code in dict.fromkeys(codes.codes[some[known]].tolist()):
            crs = codes.values[code].as_py()
            mine = known & (codes.codes[some] == code)
            found[crs] += _away(crs, sources, some[mine], geometries[mine])
    return [row for rows in found.values() for row in rows]


def _away(crs: str, sources: SourceTable, rows: Ints, shapes: npt.NDArray[np.object_]) -> list[int]:
    """Rows of images in one CRS none of whose pixels lie on their footprint."""
    matrix, size = sources.transforms[rows].reshape(-1, 2, 3), sources.shapes[rows].astype(np.float64)
    col, row = size[:, 1:] * _CORNERS[0], size[:, :1] * _CORNERS[1]
    corners = np.stack([col, row, np.ones_like(col)], axis=2) @ matrix.transpose(0, 2, 1)
    places = np.concatenate([corners, corners.mean(axis=1, keepdims=True)], axis=1)
    lon, lat = to_lonlat(crs).transform(places[..., 0], places[..., 1])
    # Corners of an image of half the Earth are not on it. Where the middle lies on the footprint, pixels do.
    known = np.isfinite([lon[:, :4], lat[:, :4]]).all(axis=(0, 2))
    rest = np.flatnonzero(known & ~shapely.intersects_xy(shapes, lon[:, 4], lat[:, 4]))
    return rows[rest[~shapely.intersects(footprints(crs, corners[rest]), shapes[rest])]].tolist() if rest.size else []


def _acquisitions_are_short(sources: SourceTable, spec: Spec) -> Iterator[Fault]:
    """Images of one acquisition and window were taken within a day; those of a period have the same."""
    column, known = sources.texts["acquisition"], sources.used
    known = known[column.there[known]]
    start = sources.spans(known)[0]
    known, start = known[start != NO_TIME], start[start != NO_TIME]
    windows = windows_of(sources, spec, known)[1]
    order = np.lexsort((start, windows, column.codes[known]))
    known, windows, start = known[order], windows[order], start[order]
    begins = np.diff(column.codes[known].astype(np.int64), prepend=-1) != 0
    begins |= np.diff(windows, prepend=-1) != 0
    first = np.flatnonzero(begins)[np.cumsum(begins) - 1]
    far = start - start[first] > _DAY / timedelta(microseconds=1)
    for place in np.flatnonzero(far).tolist():
        row, seen = known[place], known[first[place]]
        days = (np.datetime64(int(start[each]), "us").astype("M8[D]") for each in (first[place], place))
        before, day = days
        found = f"{column[row]!r}, as {sources.name(seen)} of {before}"
        yield Fault(f"{SOURCES}: {sources.name(row)}: acquisition", found, f"one of {day}")
