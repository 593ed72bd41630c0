"""Items of a stac-geoparquet table, read as columns: what items that are described alike share is resolved once.

An item of each group is resolved while it records all that is read of it. Items that are equal in that share the
resolution; what each has of its own is filled in from the columns, by the code that also fills it in for a single item.
Items of which something cannot be read this way are left out, and so are groups whose item cannot be used: read one by
one, each gives its own reason.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from clay_publish.errors import SourceError
from clay_publish.producer.sources.equal_rows import Numbers
from clay_publish.producer.sources.item import ItemDescription, SourceItem
from clay_publish.producer.sources.item_grid import OF_GRID
from clay_publish.producer.sources.item_values import ItemColumn, ItemView, Question, Record, WatchedItem, WatchedValue
from clay_publish.producer.sources.reader import ItemBatch
from clay_publish.producer.sources.stac_item import MAX_ID, UNREADABLE, ItemReading, complete, resolve, times_of
from clay_publish.spec.models import Imagery
from clay_publish.spec.sensors import Sensor

_MOST_GROUPS = 64
"""Groups of one batch; what is left is read item by item."""
_SIDES = ("xmin", "ymin", "zmin", "xmax", "ymax", "zmax")
_PARTS = ("id", "collection", "links", "assets", "stac_version", "stac_extensions")
_NO_PROPERTIES = frozenset({*_PARTS, "type", "bbox", "geometry", "proj:geometry"})
"""Columns that are no properties; `proj:geometry` is not read."""
_TIMES = frozenset(
    {"datetime", "start_datetime", "end_datetime", "created", "updated", "expires", "published", "unpublished"}
)
"""Properties that stac-geoparquet keeps as times."""


def items_by_column(
    batch: ItemBatch, sensor: Sensor, *, block: Imagery, number: int, needed: Collection[str] | None
) -> dict[int, SourceItem]:
    """The items of a batch by row; rows that are to be read one by one are left out.

    Args:
        batch: rows of the table.
        sensor: whose bands to look for.
        block: the imagery block that asked for them.
        number: of the block.
        needed: bands that the encoder takes; default: all of the sensor.
    """
    schema = batch.rows.schema
    odd = any(not pa.types.is_timestamp(schema.field(name).type) for name in _TIMES & set(schema.names))
    if odd or len(set(schema.names)) < len(schema.names) or not {"id", "geometry", "assets"} <= set(schema.names):
        return {}
    return _Items(batch, sensor, block, number, needed).by_row()


@dataclass
class _Items:
    batch: ItemBatch
    sensor: Sensor
    block: Imagery
    number: int
    needed: Collection[str] | None

    def by_row(self) -> dict[int, SourceItem]:
        """The items that can be read by column."""
        try:
            self.items.children["assets"].share_members()
        except UNREADABLE:
            return {}
        made: dict[int, SourceItem] = {}
        left = np.flatnonzero([time is not None for time in self.times])
        for _ in range(_MOST_GROUPS):
            if not len(left):
                break
            shared, questions = self._resolve(int(left[0]))
            try:
                alike = self._alike(left, questions)
                made |= {} if shared is None else self._completed(shared, left[alike].tolist())
            except (*UNREADABLE, pa.ArrowException):
                break
            left = left[~alike]
        return made

    def _alike(self, rows: Numbers, questions: Iterable[Question]) -> npt.NDArray[np.bool_]:
        """Which rows have the same answers as the first."""
        same = np.ones(len(rows), dtype=bool)
        for question in questions:
            numbers = self._answers(question)
            if numbers is not None:
                same &= numbers[rows] == numbers[rows[0]]
        return same

    def _resolve(self, row: int) -> tuple[ItemReading | None, list[Question]]:
        """How an item is read, None where it cannot be, and all that was asked to find out."""
        record = Record()
        item = WatchedItem(self.items, row, record)
        try:
            shared = resolve(
                item,
                self.sensor,
                "item",
                day=WatchedValue(self.days, row, record),  # type: ignore[arg-type]
                asked=self.block,
                needed=self.needed,
                collection=self.batch.collections.get(str(item.get("collection"))) or {},
            )
        except (SourceError, *UNREADABLE):
            return None, record.questions
        return (None if _is_watched(shared) else shared), record.questions

    def _answers(self, question: Question) -> Numbers | None:
        """Equal numbers for rows with the same answer to a question; None where all have it."""
        method, column, args = question
        key = (method, id(column), *map(id, args))
        if key not in self._known:
            self._known[key] = question, getattr(column, method)(*args)
        return self._known[key][1]

    @cached_property
    def _known(self) -> dict[tuple[Any, ...], tuple[Question, Numbers | None]]:
        """Answers by the identities of what they are about, which the questions keep alive."""
        return {}

    def _completed(self, shared: ItemReading, rows: Sequence[int]) -> dict[int, SourceItem]:
        """Items that are read alike; without those that are to be read one by one."""
        grids = [*self._different_grids(dict.fromkeys(band.asset for band in shared.bands))]
        made: dict[int, SourceItem] = {}
        known: dict[Any, ItemDescription] = {}
        ids, outlines = self.items.children["id"].values, self.outlines
        for row in rows:
            item: Any = ItemView(self.items, row)
            outline = outlines[row]
            try:
                if outline is None:
                    own = self._outline(row)
                    item = own | {name: item[name] for name in item if name not in own}
                made[row] = complete(
                    item,
                    shared,
                    f"item {ids[row]}",
                    times=self.times[row],
                    block=self.number,
                    base=self.batch.where,
                    outline=outline,
                    grids=grids,
                    known=known,
                )
            except (SourceError, *UNREADABLE):
                continue
        return made

    def _different_grids(self, assets: Iterable[str]) -> Iterator[str]:
        """Of assets with the same grid in every item, the first."""
        known: set[tuple[int, ...]] = set()
        for asset in assets:
            children = self.items.children["assets"].children[asset].children
            grid = tuple(id(children.get(name)) for name in OF_GRID)
            if grid not in known:
                known.add(grid)
                yield asset

    @cached_property
    def items(self) -> ItemColumn:
        """The items of the batch."""
        columns = dict(zip(self.batch.rows.schema.names, self.batch.rows.columns, strict=True))
        properties = {name: ItemColumn(as_stated(name, c)) for name, c in columns.items() if name not in _NO_PROPERTIES}
        parts = {name: ItemColumn(columns[name]) for name in _PARTS if name in columns}
        # Footprints are read by `outlines` and `_outline`; reading them otherwise raises TypeError.
        parts |= dict.fromkeys(("geometry", "bbox"), ItemColumn(columns["geometry"]))
        types = ItemColumn(values=["Feature"] * self.batch.rows.num_rows)
        return ItemColumn(children={**parts, "type": types, "properties": ItemColumn(children=properties)})

    @cached_property
    def days(self) -> ItemColumn:
        """The day of each acquisition."""
        return ItemColumn(values=[time and time[0].date() for time in self.times])

    @cached_property
    def times(self) -> list[Any]:
        """Acquisition, start and end of each item that can be read by column; None for others."""
        return [self._times(row) for row in range(self.batch.rows.num_rows)]

    def _times(self, row: int) -> Any:
        item = ItemView(self.items, row)
        try:
            name = item.get("id")
            if not isinstance(name, str) or not 0 < len(name) <= MAX_ID or not self._is_item[row]:
                return None
            return times_of(item["properties"], "")
        except (SourceError, *UNREADABLE):
            return None

    @cached_property
    def _is_item(self) -> Sequence[bool]:
        if "type" not in self.batch.rows.schema.names:
            return [True] * self.batch.rows.num_rows
        return [value in {None, "Feature"} for value in self.batch.rows.column("type").to_pylist()]

    @cached_property
    def shapes(self) -> npt.NDArray[np.object_]:
        """The footprints as the table has them; None where they are missing or broken."""
        column = self.batch.rows.column("geometry").to_numpy(zero_copy_only=False)
        return np.asarray(shapely.from_wkb(column, on_invalid="ignore"))

    @cached_property
    def outlines(self) -> list[bytes | None]:
        """Footprints that need no change, as WKB in two dimensions; None elsewhere."""
        west, south, east, north = shapely.bounds(self.shapes).T
        with np.errstate(invalid="ignore"):
            plain = (west >= -180) & (east <= 180) & (east - west <= 180) & (south >= -90) & (north <= 90)
        plain &= (shapely.get_type_id(self.shapes) == shapely.GeometryType.POLYGON) & shapely.is_valid(self.shapes)
        plain &= shapely.area(self.shapes) > 0
        found: list[bytes | None] = shapely.to_wkb(np.where(plain, shapely.force_2d(self.shapes), None)).tolist()
        return found

    def _outline(self, row: int) -> dict[str, Any]:
        """Footprint and bbox of an item, as in JSON.

        Raises:
            TypeError: they are not both whole.
        """
        names = self.batch.rows.schema.names
        box = self.batch.rows.column("bbox")[row].as_py() if "bbox" in names else None
        sides = None if box is None else [box[name] for name in _SIDES if name in box]
        if self.shapes[row] is None or (sides is not None and None in sides):
            raise TypeError
        return {"geometry": shapely.geometry.mapping(self.shapes[row]), "bbox": sides}


def _is_watched(value: Any) -> bool:
    """Whether something holds a value that was not read, which would be that of one item."""
    if isinstance(value, tuple):
        return any(map(_is_watched, value))
    if is_dataclass(value):
        return any(_is_watched(getattr(value, field.name)) for field in fields(value))
    return type(value) in {WatchedItem, WatchedValue}


def as_stated(name: str, column: pa.Array) -> pa.Array:
    """A column of properties as items state it: times are text, written as stac-geoparquet does."""
    return (
        pc.strftime(column, format="%Y-%m-%dT%H:%M:%SZ")
        if name in _TIMES and pa.types.is_timestamp(column.type)
        else column
    )
