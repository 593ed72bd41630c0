"""Which items of the sources are used, and why the others are not."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import shapely

from clay_publish.errors import LicenseError, SourceError
from clay_publish.formats import crossing
from clay_publish.geo.area import read_area
from clay_publish.producer.sources.item import ItemDescription, SourceItem
from clay_publish.producer.sources.item_columns import as_stated, items_by_column
from clay_publish.producer.sources.major_tom import read_major_tom
from clay_publish.producer.sources.reader import FoundItem, ItemBatch, is_table, read_batches, read_items
from clay_publish.producer.sources.stac_api import Search
from clay_publish.producer.sources.stac_item import source_item
from clay_publish.spec.models import Imagery, Spec
from clay_publish.spec.sensors import Sensor
from clay_publish.windows import Window, window_of

_OPEN = re.compile(
    r"CC-BY-\d\.\d(-[A-Z]+)?|CC0-1\.0|CC-PDDC|PDDL-1\.0|ODC-By-1\.0|public-domain|LicenseRef-Copernicus"
    r"|copernicus|OGL-UK-\d\.\d|OGL-Canada-\d\.\d|etalab-2\.0|DL-DE-BY-2\.0|DL-DE-ZERO-2\.0|NLOD-\d\.\d|MIT|Apache-2\.0",
    re.IGNORECASE,
)
"""Terms that allow a release under any license that names its sources."""

_FORBIDS = re.compile(r"(^|[-_ ])(NC|ND)($|[-_ ])", re.IGNORECASE)
_SHARE_ALIKE = re.compile(r"(^|[-_ ])SA($|[-_ ])|^(ODbL|GPL|AGPL)", re.IGNORECASE)


@cache
def terms(item: str | None, collection: str | None, sensor: str | None, spec: str | None) -> str | None:
    """The license of a source: as the item says, else its collection, else as the sensor usually has, else the spec.

    What STAC writes where a license has no SPDX identifier (`proprietary`, `various`, `other`) says nothing about the
    terms, and neither does an unknown name: the next one is asked. None is unknown, which stops `publish`.
    """
    for stated in (item, collection, sensor):
        if stated is not None and (_OPEN.fullmatch(stated) or _contradicts(stated)):
            return stated
    return spec


def check(stated: str | None, release: str, where: str) -> None:
    """Refuse terms that contradict the license of the release. Unknown terms (None) pass here and stop `publish`.

    Raises:
        LicenseError: non-commercial or no-derivatives terms, or share-alike ones other than the release's own.
    """
    if stated is None or stated == release:
        return
    if _contradicts(stated):
        raise LicenseError(
            where,
            f"is under {stated}",
            f"terms that allow a release under {release}",
            "Leave it out with `exclude`, or correct `imagery.license`.",
        )


@cache
def _contradicts(stated: str) -> bool:
    return bool(_FORBIDS.search(stated) or _SHARE_ALIKE.search(stated))


@dataclass(frozen=True, slots=True)
class Considered:
    """An item and what became of it."""

    item: SourceItem
    status: str
    """`used`, `unused` or `excluded`."""
    reason: str | None = None


@dataclass(frozen=True)
class UnreadItem:
    """An item that cannot be used for what it is: no time, no such band."""

    id: str
    collection: str | None
    block: int
    reason: str


@dataclass
class Selection:
    """All that the sources gave."""

    considered: list[Considered] = field(default_factory=list)
    """Ordered by block and id."""
    broken: list[UnreadItem] = field(default_factory=list)


def select(
    spec: Spec,
    sensor: Sensor,
    areas: Sequence[shapely.Geometry | None],
    needed: Collection[str] | None = None,
) -> Selection:
    """Read every block's items and decide on each.

    In the `utm` layout chips are made of the images of a window: of items with one id one is used in each, and images
    of one acquisition that are more than a day apart in it are refused. In the `scene` layout one of an id is used.

    Args:
        spec: the release spec.
        sensor: whose bands the items must have.
        areas: each block's area, OGC:CRS84; None where it has none.
        needed: names of the bands that the encoder takes; default: all of the sensor.

    Raises:
        SourceError: a source cannot be read, nothing is left to use, or images of one acquisition are days apart.
        LicenseError: the terms of an item or its collection contradict the release's license.
    """
    selection = Selection()
    for number, block in enumerate(spec.imagery):
        search = Search(tuple(block.collections), tuple(block.parsed_windows()), areas[number], block.query)
        if search.area is not None:
            shapely.prepare(search.area)
        taking = _BlockItems(selection, number, search, spec, sensor, needed)
        if block.major_tom is not None:
            for found in read_major_tom(block, sensor, search):
                taking.take(found)
        for source in block.stac:
            taking.take_source(source)
    _name_places(selection.considered)
    _leave_out_repeats(spec, selection.considered)
    selection.considered.sort(key=lambda each: each.item.id)
    selection.considered.sort(key=lambda each: each.item.block)
    selection.broken.sort(key=lambda each: (each.block, each.id))
    if not any(each.status == "used" for each in selection.considered):
        _refuse(spec, selection, areas)
    if spec.chips.layout == "utm":
        _check_acquisitions(spec, selection.considered)
    return selection


def sample_of(spec: Spec, count: int) -> list[SourceItem]:
    """Up to `count` of the images that a spec uses, spread evenly over all in the order of their ids.

    Raises:
        SpecError, SourceError, LicenseError: the sources cannot be read, or hold nothing to use.
    """
    areas = [None if block.area is None else read_area(block.area).geometry for block in spec.imagery]
    chosen = select(spec, spec.instrument, areas)
    found = [each.item for each in chosen.considered if each.status == "used"]
    places = np.linspace(0, len(found) - 1, min(count, len(found))).round().astype(int)
    return [found[place] for place in places.tolist()]


@dataclass(frozen=True)
class _BlockItems:
    """Decides on the items of one imagery block."""

    selection: Selection
    number: int
    """Of the block."""
    search: Search
    spec: Spec
    sensor: Sensor
    needed: Collection[str] | None
    described: dict[tuple[int, str | None, str | None], tuple[ItemDescription, ItemDescription]] = field(
        default_factory=dict
    )
    """Descriptions of images as they are, and under the terms that were found."""

    @property
    def block(self) -> Imagery:
        return self.spec.imagery[self.number]

    def take_source(self, source: str) -> None:
        """Decide on the items of a source, in its order."""
        if is_table(source):
            for batch in read_batches(source):
                self.take_batch(batch)
            return
        for found in read_items(source, self.search):
            if not self.block.collections or found.document.get("collection") in self.block.collections:
                self.take(found)

    def take(self, found: FoundItem) -> None:
        """Decide on one item."""
        document, collection = found.document, found.collection or {}
        try:
            if found.error is not None:
                raise found.error
            item = source_item(
                document,
                self.sensor,
                block=self.number,
                base=found.base,
                asked=self.block,
                needed=self.needed,
                collection=collection,
            )
        except SourceError as error:
            name, of = _printable(document.get("id")), _optional(document.get("collection"))
            self.selection.broken.append(UnreadItem(name, of, self.number, _printable(error)))
            return
        self.consider(item, document, collection, outside=self._outside([item])[0])

    def take_batch(self, batch: ItemBatch) -> None:
        """Decide on the items of a batch, in the order of its rows."""
        if self.block.collections:
            batch = batch.of_collections(self.block.collections)
        made, every = self._by_column(batch), range(batch.rows.num_rows)
        others = batch.items([row for row in every if row not in made])
        asked, outside = self._asked(batch), dict(zip(made, self._outside([*made.values()]), strict=True))
        for row in every:
            item = made.get(row)
            if item is None:
                self.take(next(others))
            else:
                document = {"properties": {key: values[row] for key, values in asked.items()}}
                collection = batch.collections.get(str(item.collection)) or {}
                self.consider(item, document, collection, outside=outside[row])

    def _by_column(self, batch: ItemBatch) -> dict[int, SourceItem]:
        if self.search.is_cql2:
            return {}
        return items_by_column(batch, self.sensor, block=self.block, number=self.number, needed=self.needed)

    def _asked(self, batch: ItemBatch) -> dict[str, list[Any]]:
        """The properties that the query compares."""
        names = set(self.search.query or {}) & set(batch.rows.schema.names)
        return {name: as_stated(name, batch.rows.column(name)).to_pylist() for name in names}

    def _outside(self, items: Sequence[SourceItem]) -> list[bool]:
        """Whether the footprints of items do not share ground with the area."""
        if self.search.area is None:
            return [False] * len(items)
        area, shapes = self.search.area, shapely.from_wkb([item.footprint for item in items])
        # Where the first corner lies in the area, which is known sooner, so does ground of the footprint.
        first = shapely.get_point(shapely.get_exterior_ring(shapes), 0)
        found = ~shapely.is_missing(shapes) & ~shapely.intersects_xy(area, shapely.get_x(first), shapely.get_y(first))
        rest = np.flatnonzero(found)
        found[rest] = ~shapely.intersects(area, shapes[rest])
        outside: list[bool] = found.tolist()
        return outside

    def consider(
        self, item: SourceItem, document: Mapping[str, object], collection: Mapping[str, Any], *, outside: bool
    ) -> None:
        """Decide on an item that can be used."""
        described = collection.get("license")
        licensed = terms(item.license, described, self.sensor.license, self.block.license)
        status, reason = _decide(item, document, self.block, self.search, outside=outside)
        if status == "used":
            own = licensed == item.license or licensed != described
            where = f"item {item.id}" if own else f"collection {collection.get('id')}"
            check(licensed, self.spec.license, where)
        attribution = item.attribution or self.sensor.attribution
        if (licensed, attribution) != (item.license, item.attribution):
            # Once for all images of one description, which is kept, so that its number is not used again.
            key = id(item.common), licensed, attribution
            if key not in self.described:
                changed = replace(item.common, license=licensed, attribution=attribution)
                self.described[key] = item.common, changed
            item = replace(item, common=self.described[key][1])
        self.selection.considered.append(Considered(item, status, reason))


def _printable(value: object) -> str:
    """Text that UTF-8 can hold."""
    return str(value).encode(errors="replace").decode()


def _optional(value: object) -> str | None:
    return None if value is None else _printable(value)


def _decide(
    item: SourceItem, document: Mapping[str, object], block: Imagery, search: Search, *, outside: bool
) -> tuple[str, str | None]:
    if block.exclude and item.id in block.exclude:
        return "excluded", "named in the spec's exclude"
    acquired = item.acquired
    if search.windows and not any(acquired in window for window in search.windows):
        return "unused", f"lies in no window ({acquired.isoformat()})"
    if outside:
        return "unused", _OUTSIDE
    reason = search.fails(document)
    return ("used", None) if reason is None else ("unused", reason)


def _repeated(considered: Sequence[Considered]) -> list[list[int]]:
    """The places of used items that have one id, where there are several; of ids as text only these are in memory."""
    used = np.array([n for n, each in enumerate(considered) if each.status == "used"], dtype=np.int64)
    hashes = np.array([hash(considered[n].item.id) for n in used.tolist()], dtype=np.int64)
    values, counts = np.unique(hashes, return_counts=True)
    by_id: dict[str, list[int]] = defaultdict(list)
    for n in used[np.isin(hashes, values[counts > 1])].tolist():
        by_id[considered[n].item.id].append(n)
    return [numbers for numbers in by_id.values() if len(numbers) > 1]


def _leave_out_repeats(spec: Spec, considered: list[Considered]) -> None:
    """Of items with one id, use the one that was updated last."""
    windows = [block.parsed_windows() if spec.chips.layout == "utm" else [] for block in spec.imagery]
    for numbers in _repeated(considered):
        best: dict[Window | None, int] = {}
        for n in numbers:
            item = considered[n].item
            window = window_of(item.acquired, windows[item.block])
            known = best.setdefault(window, n)
            if item.updated > considered[known].item.updated:
                best[window] = n
        for n in set(numbers).difference(best.values()):
            considered[n] = replace(considered[n], status="unused", reason=_REPEAT)


def _check_acquisitions(spec: Spec, considered: Sequence[Considered]) -> None:
    """Refuse images of one acquisition that are more than a day apart: they would be mosaicked under one date."""
    windows = [block.parsed_windows() for block in spec.imagery]
    # Without windows, those of one day are a chip's.
    used = [n for n, each in enumerate(considered) if each.status == "used" and windows[each.item.block]]
    items = (considered[n].item for n in used)
    keys = ((item.acquisition, window_of(item.acquired, windows[item.block])) for item in items)
    names = np.array([hash(key) for key in keys], dtype=np.int64)
    starts = np.array([considered[n].item.start.replace(tzinfo=None) for n in used], dtype="M8[us]")
    order = np.lexsort((starts, names))
    _, first, own = np.unique(names[order], return_index=True, return_inverse=True)
    late = np.flatnonzero(starts[order] - starts[order][first][own] > _ONE_PASS)
    if late.size:
        latest = min(late.tolist(), key=lambda n: used[order[n]])
        one, other = (considered[used[order[n]]].item for n in (first[own[latest]], latest))
        raise SourceError(
            f"items {one.id} and {other.id}",
            f"state one acquisition ({one.acquisition}), and begin at {one.start.isoformat()} and "
            f"{other.start.isoformat()}",
            "images of one acquisition within a day",
            "Correct the datatake or orbit of the items, or leave them out with `exclude`.",
        )


_ONE_PASS = np.timedelta64(1, "D")
_SAME_PLACE = 0.5
"""Share of the smaller footprint that versions of one image have in common."""


def _name_places(considered: list[Considered]) -> None:
    """Give items of one id for several places ids of their own, so that none stands for another."""
    for same in _repeated(considered):
        numbers = [n for n in same if considered[n].item.footprint is not None]
        shapes = {n: considered[n].item.geometry for n in numbers}
        ordered = sorted(numbers, key=lambda n: shapely.bounds(shapes[n]).tolist())
        places = _places([shapes[n] for n in ordered])
        for number, place in zip(ordered, places, strict=True) if len(set(places)) > 1 else ():
            item = considered[number].item
            note = f"its id {item.id} names images of several places"
            considered[number] = replace(considered[number], item=item.changed(id=f"{item.id}-at-{place}"), reason=note)


def _places(shapes: Sequence[shapely.Geometry | None]) -> list[str]:
    """A name for the place of each footprint, the same for those of one place."""
    tree = shapely.STRtree(shapes)
    places: dict[int, int] = {}
    for number, shape in enumerate(shapes):
        near = [n for n in sorted(tree.query(shape, "intersects").tolist()) if n in places]
        first = next((n for n in near if places[n] == n and _same_place(shapes[n], shape)), number)
        places[number] = first
    bounds = np.round(shapely.bounds(np.array(shapes, dtype=object)), 4) + 0.0  # without a negative zero
    return [hashlib.sha256(bounds[places[n]].tobytes()).hexdigest()[:8] for n in range(len(shapes))]


def _same_place(one: shapely.Geometry, other: shapely.Geometry) -> bool:
    smaller = min(one.area, other.area)
    return bool(smaller == 0 or shapely.intersection(one, other).area >= _SAME_PLACE * smaller)


_OUTSIDE = "lies outside the area"
_REPEAT = "another item of the same id is newer, or came first"


def _refuse(spec: Spec, selection: Selection, areas: Sequence[shapely.Geometry | None]) -> None:
    sources = ", ".join(source for block in spec.imagery for source in block.sources)
    reasons = sorted({each.reason or each.status for each in selection.considered})
    alike: dict[str, list[str]] = {}
    for each in selection.broken:
        alike.setdefault(each.reason.partition(": ")[2], []).append(each.reason)
    reasons += [
        same[0] + (f" {len(same) - 1} more are like it." if len(same) > 1 else "") for _, same in sorted(alike.items())
    ]
    count = len(selection.considered) + len(selection.broken)
    raise SourceError(
        sources,
        f"found {count:,} item{'' if count == 1 else 's'}, none usable ({'; '.join(reasons[:3]) or 'it is empty'})",
        "at least one item that passes windows, area, query and exclude",
        " ".join([*_crossing(spec), _swapped(selection, areas)]).strip(),
    )


def _crossing(spec: Spec) -> Iterator[str]:
    """What to say of an area that is nearly the whole Earth, where west and east were confused."""
    for block in spec.imagery:
        if isinstance(block.area, list) and (crosses := crossing(block.area)):
            yield f"The area {block.area} {crosses}; for the ground between them, the smaller longitude comes first."


def _swapped(selection: Selection, areas: Sequence[shapely.Geometry | None]) -> str:
    """What to say where images lie outside the area, and inside it once latitude and longitude are swapped."""
    inside = 0
    for each in selection.considered:
        area, shape = areas[each.item.block], each.item.geometry
        if each.reason == _OUTSIDE and area is not None and shape is not None:
            inside += bool(shapely.intersects(shapely.transform(area, lambda xy: xy[:, ::-1]), shape))
    if not inside:
        return ""
    return f"Latitude and longitude look swapped, in the area or in the items: swapped, {inside:,} items lie in it."
