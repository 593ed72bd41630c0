"""The source items of a release, as its `sources.parquet` tells.

There may be millions, so that they are columns: rules look at all rows of a column at once, and make a `Source` only of
rows that something is wrong with. What no two items share, such as addresses and samples of pixels, is not kept;
rules read it from the file in batches.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely

from clay_publish.errors import ReleaseError
from clay_publish.release.directory import SOURCES
from clay_publish.release.names import NameIndex
from clay_publish.release.tables import sources_schema
from clay_publish.validate.coded import Coded, Coder
from clay_publish.validate.data.chips import ChipRows
from clay_publish.validate.data.parquet_tables import ParquetTables
from clay_publish.validate.outcomes import short
from clay_publish.validate.sandbox.marks import marked
from clay_publish.validate.spilled import SpilledBytes
from clay_publish.windows import Window

Ints = npt.NDArray[np.integer]
Bools = npt.NDArray[np.bool_]

NO_TIME = np.iinfo(np.int64).min
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = 86_400_000_000
_AT_ONCE = 1 << 14
"""Rows whose footprints are read at a time."""
_PARTS = {"evidence": ("status", "sentences"), "assets": ("key",)}
"""What is kept of columns that differ from item to item."""
_LISTS = {"list", "element", "item", "array"}
"""Names that Parquet gives the levels of a list."""
_CODED = (
    *("status", "reason", "collection", "platform", "acquisition", "proj_code", "level", "license", "attribution"),
    *("block", "bands", "mask", "evidence", "assets", "proj_shape", "proj_transform"),
)
_TIMES = ("datetime", "start_datetime", "end_datetime")


@dataclass(frozen=True)
class Source:
    """One source item; what the table does not say is None."""

    id: str
    status: str
    reason: str | None
    block: int
    collection: str | None
    start: datetime | None
    end: datetime | None
    moment: datetime | None
    platform: str | None
    acquisition: str | None
    """Images of one acquisition count once in a composite."""
    crs: str | None
    """As in `proj:code`, or WKT."""
    shape: tuple[int, int] | None
    """Rows and columns of the finest band."""
    transform: tuple[float, ...] | None
    """Six numbers: x = a·col + b·row + c, y = d·col + e·row + f."""
    wkb: bytes | None
    bands: tuple[dict[str, Any], ...]
    """How each band is read: name, asset, band, scale, offset, source."""
    mask: dict[str, Any] | None
    """Asset, format, cloudy, nodata and bands of its cloud mask."""
    level: str | None
    """What says that it is the sensor's product."""
    license: str | None
    attribution: str | None
    evidence: dict[str, Any] | None
    """Status and sentences of a sample of its pixels."""
    assets: tuple[str, ...]
    """Keys of the assets."""

    @property
    def was_read(self) -> bool:
        """Whether the item could be read; of others there is a reason alone."""
        return bool(self.bands)

    @cached_property
    def geometry(self) -> Any:
        """Its footprint as a shapely geometry; None where it is unknown or unreadable."""
        return _shapes([self.wkb])[0]


def _shapes(wkb: list[bytes | None]) -> npt.NDArray[np.object_]:
    # While an embeddings file is read, in most cases.
    with marked("reading", SOURCES, sum(len(each or b"") for each in wkb)):
        found: npt.NDArray[np.object_] = shapely.from_wkb(np.array(wkb, dtype=object), on_invalid="ignore")
    return found


class CodedNumbers:
    """A column of lists of numbers: the first few of each."""

    def __init__(self, column: Coded, most: int, *, exactly: bool) -> None:
        self._codes = column.codes
        lengths = column.values.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
        there = lengths == most if exactly else lengths >= most
        inside = column.values.flatten()
        flat = inside.fill_null(np.nan if pa.types.is_floating(inside.type) else -1).to_numpy(zero_copy_only=False)
        self._values: npt.NDArray[Any] = np.full((len(lengths), most), -1, flat.dtype)
        starts = lengths.cumsum() - lengths
        self._values[there] = flat[starts[there][:, None] + np.arange(most)]
        self.there: Bools = there[self._codes]
        """Rows that state so many."""

    def __getitem__(self, rows: Ints) -> npt.NDArray[Any]:
        """The numbers of some rows, a line for each; −1 where they are not stated."""
        return np.asarray(self._values[self._codes[rows]])

    def where(self, test: Callable[[npt.NDArray[Any]], Bools]) -> Bools:
        """Rows whose numbers pass a test, which is given the different ones, a line for each."""
        return np.asarray(test(self._values)[self._codes])


class SourceTable:
    """All of them, in the order of the table. Items have one row each, whatever imagery block asked for them.

    Where an id has several rows, its item is the used row, or the first. A chip's item is a place among the items.
    """

    def __init__(self, columns: "_Columns") -> None:
        self.count = columns.count
        """Rows."""
        coded = columns.ids.dictionary_encode()
        self.ids: pa.Array = coded.dictionary
        """Ids of the items, by their place."""
        self.item_of: npt.NDArray[np.int32] = coded.indices.to_numpy()
        """Place of each row's item."""
        self.texts: dict[str, Coded] = columns.coded
        """By the name of the column."""
        blocks = self.texts["block"]
        self.block = np.array([-1 if n is None else n for n in blocks.distinct()], dtype=np.int32)[blocks.codes]
        self.times = columns.times
        """By the name of the column, in microseconds since 1970; `NO_TIME` where null."""
        self.shapes = CodedNumbers(self.texts["proj_shape"], 2, exactly=True)
        """Rows and columns of the finest band."""
        self.transforms = CodedNumbers(self.texts["proj_transform"], 6, exactly=False)
        self._wkb, self.has_geometry = columns.wkb, columns.has_geometry
        self.is_used: Bools = self.texts["status"].where(lambda status: status == "used")
        """Rows of the items that offered pixels."""
        self.used: Ints = np.flatnonzero(self.is_used).astype(np.int32)
        self.row_of: Ints = np.zeros(len(self.ids), np.int32)
        """Row of each item."""
        for rows in (np.arange(self.count), self.used):
            self.row_of[self.item_of[rows][::-1]] = rows[::-1]
        self._index = NameIndex(self.ids)
        self.item = lru_cache(maxsize=4096)(self._item)

    def __getitem__(self, row: int) -> Source:
        """Return one row."""
        value = {name: column[row] for name, column in self.texts.items()}
        moment, start, end = (_moment(self.times[name][row]) for name in _TIMES)
        shape, transform = (numbers[np.array([row])][0] for numbers in (self.shapes, self.transforms))
        return Source(
            id=self.ids[int(self.item_of[row])].as_py(),
            status=value["status"],
            reason=value["reason"],
            block=int(self.block[row]),
            collection=value["collection"],
            start=start,
            end=end,
            moment=moment,
            platform=value["platform"],
            acquisition=value["acquisition"],
            crs=value["proj_code"],
            shape=(int(shape[0]), int(shape[1])) if self.shapes.there[row] else None,
            transform=tuple(transform.tolist()) if self.transforms.there[row] else None,
            wkb=self._stored(np.array([row]))[0],
            bands=tuple(value["bands"] or ()),
            mask=value["mask"],
            level=value["level"],
            license=value["license"],
            attribution=value["attribution"],
            evidence=value["evidence"],
            assets=tuple(asset["key"] for asset in value["assets"] or ()),
        )

    def rows(self, which: Ints) -> Iterator[Source]:
        """Some rows, one after the other."""
        return (self[row] for row in which.tolist())

    def _item(self, place: int) -> Source:
        """The item at a place."""
        return self[int(self.row_of[place])]

    def named(self, name: str) -> Source | None:
        """The item of an id."""
        place = int(self.find(pa.array([name], pa.string()))[0])
        return None if place < 0 else self.item(place)

    def name(self, row: int) -> str:
        """Id of a row."""
        return str(self.ids[int(self.item_of[row])].as_py())

    def at(self, places: Ints, column: npt.NDArray[Any], hole: Any) -> npt.NDArray[Any]:
        """The values that a column of the table has for some items, given their places, and one for the place −1."""
        if not self.count:
            return np.full(places.shape, hole, column.dtype)
        return np.where(places < 0, np.array(hole, column.dtype), column[self.row_of[places]])

    def times_of(self, name: str, places: Ints) -> npt.NDArray[np.int64]:
        """A time of some items, given the name of its column; `NO_TIME` for the place −1."""
        return self.at(places, self.times[name], NO_TIME)

    def spans(self, rows: Ints) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """First and last moment that each of some rows can have been acquired at, or `NO_TIME`."""
        moment = self.times["datetime"][rows]
        first, last = (self.times[name][rows] for name in _TIMES[1:])
        return np.where(first == NO_TIME, moment, first), np.where(last == NO_TIME, moment, last)

    def spans_of(self, places: Ints) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The same of some items, given their places; `NO_TIME` for the place −1."""
        moment, first, last = (self.times_of(name, places) for name in _TIMES)
        return np.where(first == NO_TIME, moment, first), np.where(last == NO_TIME, moment, last)

    def codes_of(self, places: Ints) -> npt.NDArray[np.int64]:
        """EPSG code of some items, 0 where the CRS has none, and for the place −1."""
        codes = self.at(places, self.texts["proj_code"].codes, 0)
        return np.where(places < 0, 0, self._epsg[codes]) if self.count else np.zeros(places.shape, np.int64)

    @cached_property
    def _epsg(self) -> npt.NDArray[np.int64]:
        """By the code of the CRS."""
        texts = [(text or "").removeprefix("EPSG:") for text in self.texts["proj_code"].distinct()]
        return np.array([int(text) if text.isdigit() and len(text) < 10 else 0 for text in texts], np.int64)

    def acquisitions(self, places: Ints) -> npt.NDArray[np.int64]:
        """A number for the acquisition of some items; an item without one is its own, and so is the place −1."""
        column = self.texts["acquisition"]
        own = len(column.values) + np.where(places < 0, len(self.ids), places)
        return np.where(self.at(places, column.there, False), self.at(places, column.codes, 0), own)  # noqa: FBT003

    def windows(self, rows: Ints) -> tuple[list[Window | None], Ints]:
        """The whole days that hold the acquisition or period of rows: the different ones, and each row's among them."""
        start, end = self.spans(rows)[0], self.times["end_datetime"][rows]
        last = np.where((end == NO_TIME) | (end == start), start, end)
        first_day, stop_day = start // _DAY, -(-last // _DAY)
        stop_day = np.maximum(stop_day, first_day + 1)
        days = np.where((start == NO_TIME)[:, None], NO_TIME, np.stack([first_day, stop_day], axis=1))
        different, own = np.unique(days, axis=0, return_inverse=True)
        made = [None if one == NO_TIME else Window(_day(one), _day(other)) for one, other in different.tolist()]
        return made, own.reshape(-1)

    def window(self, place: int) -> Window | None:
        """The whole days that hold an item's acquisition or period."""
        return self.windows(self.row_of[[place]])[0][0]

    def outlines(self, rows: Ints) -> npt.NDArray[np.object_]:
        """Footprints of some rows; None where one is unknown or unreadable."""
        return _shapes(self._stored(rows))

    def _stored(self, rows: Ints) -> list[bytes | None]:
        return [each if there else None for each, there in zip(self._wkb[rows], self.has_geometry[rows], strict=True)]

    def different_outlines(self, rows: Ints) -> npt.NDArray[np.object_]:
        """The known footprints of some rows, those with the same bytes once."""
        found = _shapes([*dict.fromkeys(self._stored(rows))])
        known: npt.NDArray[np.object_] = found[~shapely.is_missing(found)]
        return known

    def footprints(self, rows: Ints) -> Iterator[tuple[Ints, npt.NDArray[np.object_]]]:
        """Footprints of many rows, some at a time: the rows, and their geometries."""
        for start in range(0, len(rows), _AT_ONCE):
            part = rows[start : start + _AT_ONCE]
            yield part, self.outlines(part)

    @cached_property
    def middle_latitude(self) -> float:
        """Of the used items' footprints, in degrees."""
        parts = [shapely.get_y(shapely.centroid(shapes)) for _, shapes in self.footprints(self.used)]
        latitudes = np.concatenate([*parts, np.zeros(0)])
        known = latitudes[~np.isnan(latitudes)]
        return float(np.median(known if known.size else [0.0]))

    def find(self, names: pa.Array) -> npt.NDArray[np.int32]:
        """Place of the item of each id; −1 where there is none. Fast where few ids occur."""
        return self._index.find(names)

    def places(self, chips: ChipRows) -> npt.NDArray[np.int32]:
        """Place of each chip's item; −1 where it is not in the table."""
        places: npt.NDArray[np.int32] = chips.once("item places", lambda: self.find(chips.column("item_id")))
        return places

    def count_acquisitions(self, names: Iterable[str]) -> int:
        """How many acquisitions the items of these ids are of."""
        places = self.find(pa.array(list(names), pa.string()))
        return len(np.unique(self.acquisitions(places[places >= 0])))

    def by_item(self, chips: ChipRows) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
        """Place of each item that occurs, and its rows."""
        places = self.places(chips)
        for place in np.unique(places[places >= 0]).tolist():
            yield place, np.flatnonzero(places == place)

    def among_used(self, name: str, test: Callable[[Any], bool]) -> Ints:
        """Used rows whose value in a coded column passes a test."""
        return np.flatnonzero(self.is_used & self.texts[name].where(test))

    def said_of(self, name: str, rows: Ints) -> Iterator[Any]:
        """The different values of some rows in a coded column."""
        column = self.texts[name]
        return (column.values[code].as_py() for code in np.unique(column.codes[rows]).tolist())

    def kinds(self, names: Iterable[str], rows: Ints) -> tuple[Ints, Ints]:
        """One of these rows for each combination of values in coded columns, and each row's place among them."""
        number = np.zeros(len(rows), np.int64)
        first = np.zeros(min(len(rows), 1), np.int64)
        for name in names:
            codes = self.texts[name].codes[rows]
            joined = number * (int(codes.max(initial=0)) + 1) + codes
            _, first, number = np.unique(joined, return_index=True, return_inverse=True)
            number = number.reshape(-1)
        return rows[first], number

    def suspects(self, names: Iterable[str], rows: Ints, check: Callable[[Source], Iterable[object]]) -> Ints:
        """Those rows in which a check finds something. It looks at these coded columns alone, once for each kind."""
        first, own = self.kinds(names, rows)
        wrong = np.fromiter((any(True for _ in check(source)) for source in self.rows(first)), bool, len(first))
        found: Ints = rows[wrong[own]]
        return found

    def batches(self, tables: ParquetTables, columns: list[str]) -> Iterator[tuple[Ints, pa.RecordBatch]]:
        """Columns of the file: the numbers of some rows, and these rows."""
        start = 0
        for batch in tables.batches(SOURCES, columns=columns):
            yield np.arange(start, start + len(batch)), batch
            start += len(batch)


def _moment(micros: int) -> datetime | None:
    return None if micros == NO_TIME else _EPOCH + timedelta(microseconds=int(micros))


def _day(number: int) -> datetime:
    return _EPOCH + timedelta(days=number)


class _Columns:
    """What is kept of each row, read batch by batch."""

    def __init__(self, batches: Iterable[pa.RecordBatch], kinds: dict[str, pa.DataType]) -> None:
        coders = {name: Coder(kinds[name]) for name in _CODED}
        ids, there = [pa.array([], pa.string())], [np.zeros(0, np.bool_)]
        times: dict[str, list[npt.NDArray[np.int64]]] = {name: [np.zeros(0, np.int64)] for name in _TIMES}
        self.count, self.wkb = 0, SpilledBytes()
        for batch in batches:
            self.count += len(batch)
            column = {name: _cast(batch, name, kind) for name, kind in kinds.items()}
            for name, coder in coders.items():
                coder.add(column[name])
            ids.append(column["id"].fill_null(""))
            shapes = pc.cast(column["geometry"], pa.binary())
            self.wkb.append(shapes)
            there.append(shapes.is_valid().to_numpy(zero_copy_only=False))
            for name, parts in times.items():
                stored = column[name].cast(pa.int64()).fill_null(NO_TIME)
                parts.append(stored.to_numpy(zero_copy_only=False))
        self.ids, self.has_geometry = pa.concat_arrays(ids), np.concatenate(there)
        self.times = {name: np.concatenate(parts) for name, parts in times.items()}
        self.coded = {name: coder.done() for name, coder in coders.items()}


def typed(batch: pa.RecordBatch, name: str) -> pa.Array:
    """A column of the file in the type that it has to have.

    Raises:
        ReleaseError: it has another.
    """
    return _cast(batch, name, sources_schema().field(name).type)


def _cast(batch: pa.RecordBatch, name: str, kind: pa.DataType) -> pa.Array:
    column = batch.column(name)
    try:
        return column if column.type == kind else pc.cast(column, kind)
    except pa.ArrowException as error:
        raise ReleaseError(SOURCES, f"has the column {name!r} as {column.type!s:.100} ({short(error)})") from error


def read_sources(tables: ParquetTables) -> SourceTable:
    """Read the table, without what differs from item to item.

    Raises:
        ReleaseError: columns are missing or of another type, or the table cannot be read.
    """
    schema, names = sources_schema(), tables.schema(SOURCES).names
    missing = [name for name in schema.names if name not in names]
    if missing:
        raise ReleaseError(SOURCES, f"has no column {', '.join(missing)}")
    kinds = {name: schema.field(name).type for name in ("id", "geometry", *_TIMES, *_CODED)}
    kinds |= {name: _part(kinds[name], parts) for name, parts in _PARTS.items()}
    wanted = [leaf for leaf in _leaves(tables.footer(SOURCES)) if _is_kept(leaf.split("."), kinds)]
    return SourceTable(_Columns(tables.batches(SOURCES, columns=wanted), kinds))


def _leaves(footer: pq.FileMetaData) -> list[str]:
    return [footer.schema.column(number).path for number in range(footer.num_columns)]


def _is_kept(path: list[str], kinds: dict[str, pa.DataType]) -> bool:
    """Whether a leaf column is kept, of structs and lists of structs some fields."""
    if path[0] not in _PARTS:
        return path[0] in kinds
    field = next((name for name in path[1:] if name not in _LISTS), None)
    return field is None or field in _PARTS[path[0]]


def _part(kind: pa.DataType, names: tuple[str, ...]) -> pa.DataType:
    """A struct, or a list of structs, with some of its fields."""
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_part(kind.value_type, names)))
    return pa.struct([kind.field(name) for name in names])
