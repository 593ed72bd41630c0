"""Items of a stac-geoparquet table, read as columns: one item of each group is parsed, the others follow from it.

While an item is parsed, it is recorded what of it is looked at. Rows that are equal in all of that are read in the same
way. What differs from item to item (id, hrefs, times, footprint, origin of the grid) is left out of the comparison;
in its place are compared the answers to the questions that are asked of it, its traits. Rows of which something cannot
be read this way, and groups whose item cannot be used, are left to `source_item`, which gives each its own reason.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from clay_publish.errors import SourceError
from clay_publish.producer.sources.asset_bands import number
from clay_publish.producer.sources.cloud_mask import empty_masks
from clay_publish.producer.sources.equal_rows import (
    Numbers,
    children_of,
    is_there,
    numbers_of,
    numbers_of_column,
    together,
)
from clay_publish.producer.sources.item import BandFile, RasterGrid, SourceItem
from clay_publish.producer.sources.reader import ItemBatch
from clay_publish.producer.sources.scale_offset import PRODUCT_KEYS, product_baseline
from clay_publish.producer.sources.sensor_check import is_product_key, names_mission, product_names, signs_of
from clay_publish.producer.sources.stac_item import (
    DATATAKES,
    MAX_ID,
    acquisition_of,
    check_crs,
    finest_grid,
    footprint_of,
    read_item,
    self_href,
    times_of,
)
from clay_publish.spec.models import Imagery
from clay_publish.spec.sensors import Sensor

Path = tuple[str, ...]
_MOST_GROUPS = 64
"""Groups of one batch; what is left is read item by item."""
_COPIED = frozenset(
    {"updated", "s2:generation_time", "eo:cloud_cover", "landsat:wrs_path", *DATATAKES}
    | {"datetime", "start_datetime", "end_datetime"}
)
"""Properties that are copied into the item, or that no more than the times of the item follow from."""
_SIDES = ("xmin", "ymin", "zmin", "xmax", "ymax", "zmax")
_MOVES = (2, 5)
"""Places in `proj:transform` of the corner of the image."""
_TOP = frozenset({"stac_version", "stac_extensions", "type", "id", "bbox", "geometry", "collection", "links", "assets"})
"""Columns that are no properties."""
_TIMES = frozenset(
    {"datetime", "start_datetime", "end_datetime", "created", "updated", "expires", "published", "unpublished"}
)
"""Properties that stac-geoparquet keeps as times."""
_PLAIN = re.compile(r"(?:https?|s3)://[^\\?#;\[\]\s\x00-\x1f\x7f-\U0010ffff]*")
_TOP = frozenset({"stac_version", "stac_extensions", "type", "id", "bbox", "geometry", "collection", "links", "assets"})
"""Columns that are no properties."""
_TIMES = frozenset(
    {"datetime", "start_datetime", "end_datetime", "created", "updated", "expires", "published", "unpublished"}
)
"""Properties that stac-geoparquet keeps as times."""


class _WatchedPart(Mapping[str, Any]):
    """A part of an item that records what of it is looked at, with paths ending in None for which keys there are."""

    def __init__(self, values: Mapping[str, Any], path: Path, seen: set[tuple[str | None, ...]]) -> None:
        self._values, self._path, self._seen = values, path, seen

    def __getitem__(self, key: str) -> Any:
        value = self._values.get(key)
        if isinstance(value, dict) and key != "geometry":
            self._seen.add((*self._path, key, None, None))
            return _WatchedPart(value, (*self._path, key), self._seen)
        self._seen.add((*self._path, key))
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        self._seen.add((*self._path, None))
        return iter(self._values)

    def __len__(self) -> int:
        return len(list(iter(self)))


@dataclass(frozen=True)
class _Question:
    """What the spec asks of the items."""

    sensor: Sensor
    block: Imagery
    number: int
    needed: Collection[str] | None


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
    names = batch.rows.schema.names
    if sensor.decibels or len(set(names)) < len(names) or not {"id", "geometry", "assets"} <= set(names):
        return {}
    return _TableColumns(batch, _Question(sensor, block, number, needed)).items()


class _TableColumns:
    def __init__(self, batch: ItemBatch, asked: _Question) -> None:
        self.batch, self.asked = batch, asked
        self.columns = {name: as_stated(name, batch.rows.column(name)) for name in batch.rows.schema.names}
        self.properties = {name: column for name, column in self.columns.items() if name not in _TOP}
        self._numbers: dict[tuple[str | None, ...], Numbers | None] = {}
        self._lists: dict[Path, list[Any]] = {}
        self._parts: dict[str, tuple[Any, ...]] = {}

    def items(self) -> dict[int, SourceItem]:
        """The items that can be read by column."""
        made: dict[int, SourceItem] = {}
        left = self._readable()
        for _ in range(_MOST_GROUPS):
            if not len(left):
                break
            first = int(left[0])
            item, seen = self._parse(first)
            same = np.ones(len(left), dtype=bool)
            for path in seen:
                numbers = self.numbers(path)
                if numbers is not None:
                    same &= numbers[left] == numbers[first]
            if item is not None:
                made |= _AlikeRows(self, item, self.document(first)).items(left[same].tolist())
            left = left[~same]
        return made

    def _readable(self) -> Numbers:
        ids = self.list(("id",))
        fine = [isinstance(each, str) and 0 < len(each) <= MAX_ID for each in ids]
        fine = [a and b is not None for a, b in zip(fine, self.times, strict=True)]
        return np.flatnonzero(np.array(fine, dtype=bool))

    @cached_property
    def times(self) -> list[Any]:
        """Time, start and end of each row; None where they are not, or at the ends of the calendar."""
        names = ("datetime", "start_datetime", "end_datetime")
        return [
            _times(dict(zip(names, row, strict=True)))
            for row in zip(*(self.list(("properties", name)) for name in names), strict=True)
        ]

    def _parse(self, row: int) -> tuple[SourceItem | None, set[tuple[str | None, ...]]]:
        """The item of a row, None where it cannot be used or says too little, and what was looked at to read it."""
        seen: set[tuple[str | None, ...]] = {("collection",)}
        document, asked = self.document(row), self.asked
        # Each has a footprint of its own, and that of one says nothing about the others.
        watched = _WatchedPart({**document, "geometry": None, "bbox": None}, (), seen)
        try:
            item = read_item(
                watched,
                asked.sensor,
                block=asked.number,
                base=self.batch.where,
                asked=asked.block,
                needed=asked.needed,
                collection=self.batch.collections.get(str(document.get("collection"))) or {},
            )
        except SourceError:
            return None, seen
        known = names_mission(document) or not asked.sensor.missions
        by_href = item.level is not None and item.level.startswith("href ")
        return (item if known and not by_href else None), seen

    def document(self, row: int) -> dict[str, Any]:
        """The item of a row."""
        return next(self.batch.items([row])).document

    def list(self, path: Path) -> list[Any]:
        """The values of a column; None where there are none."""
        if path not in self._lists:
            array = self.array(path)
            self._lists[path] = [None] * self.batch.rows.num_rows if array is None else array.to_pylist()
        return self._lists[path]

    def array(self, path: Path) -> pa.Array | None:
        """A column, with the nulls of what holds it."""
        own = path[0] != "properties"
        array = self.columns.get(path[0] if own else path[1])
        for name in path[1:] if own else path[2:]:
            if array is None or not pa.types.is_struct(array.type) or array.type.get_field_index(name) < 0:
                return None
            array = array.flatten()[array.type.get_field_index(name)]
        return array

    def numbers(self, path: tuple[str | None, ...]) -> Numbers | None:
        """Equal numbers for rows that are the same in what is recorded as a path; None where all are."""
        if path not in self._numbers:
            self._numbers[path] = self._compared(path)
        return self._numbers[path]

    def _compared(self, path: tuple[str | None, ...]) -> Numbers | None:
        names = tuple(name for name in path if name is not None)
        nones = len(path) - len(names)
        if nones == 1:  # which keys there are
            children = self.properties if names == ("properties",) else children_of(self.array(names))
            return together([is_there(child) for child in children.values()])
        array = None if names == ("properties",) else self.array(names)
        if array is None:
            return None
        if nones == 2:  # whether it is there
            return is_there(array)
        trait = self._trait(names, array)
        return numbers_of_column(array) if trait is None else trait[0]

    def _trait(self, path: Path, array: pa.Array) -> tuple[Numbers | None] | None:
        """What is compared of a value that differs from item to item; None where the value itself is."""
        if path in {("geometry",), ("bbox",), ("links",)}:
            return (None,)
        found: tuple[Numbers | None] | None = None
        if path == ("id",):
            found = (numbers_of(self.text(each) for each in self.list(path)),)
        elif len(path) == 2 and path[0] == "properties":
            found = self._trait_of_property(path, array)
        elif len(path) == 3 and path[0] == "assets" and path[2] == "href" and _is_text(array):
            found = (numbers_of(self.href(each) for each in self.list(path)),)
        return self._trait_of_grid(path, array) if found is None else found

    @staticmethod
    def _trait_of_grid(path: Path, array: pa.Array) -> tuple[Numbers | None] | None:
        if path[0] not in {"properties", "assets"} or path[-1] not in {"proj:transform", "proj:epsg", "proj:code"}:
            return None
        if path[-1] != "proj:transform":
            return (is_there(array),)
        numbers = pa.types.is_list(array.type) and _is_number(array.type.value_type)
        return (_numbers_of_shapes(array),) if numbers else None

    def _trait_of_property(self, path: Path, array: pa.Array) -> tuple[Numbers | None] | None:
        name = path[1]
        if name in {"datetime", "start_datetime", "end_datetime"}:
            masks = (moment and empty_masks(self.asked.sensor, moment[0].date()) for moment in self.times)
            return (together([is_there(array), numbers_of(masks)]),)
        if name in _COPIED:
            return (None,)
        if _is_text(array) and (is_product_key(name) or name in PRODUCT_KEYS or name == "title"):
            return (numbers_of(self.text(each) for each in self.list(path)),)
        return None

    def text(self, text: str | None) -> tuple[Any, ...] | None:
        """What is asked of an id, or of the name of a product."""
        if text is None:
            return None
        spaced, landsat = " " in text.strip(), re.match(r"L[A-Z]0\d", text)
        return signs_of(text, self.asked.sensor), product_baseline(text), spaced, landsat and landsat[0]

    def href(self, href: str | None) -> tuple[Any, ...] | None:
        """What is asked of the address of a file. Folder and name are asked apart: most are those of many files."""
        if href is None or href.partition("?")[0].lower().endswith(".msk"):
            return (href,)
        folder, _, name = href.rpartition("/")
        return (self._part(folder), self._part(name))

    def _part(self, text: str) -> tuple[Any, ...]:
        if text not in self._parts:
            lower = text.lower()
            ending = re.search(r"\.[a-z0-9]+$", lower)
            signs = tuple(signs_of(name, self.asked.sensor) for name in product_names(text))
            outlines = re.search(r"gml|json|xml|shp|gpkg|\bvector", lower) is not None
            self._parts[text] = (ending and ending[0], "jp2" in lower, outlines, product_baseline(text), signs)
        return self._parts[text]

    @cached_property
    def shapes(self) -> npt.NDArray[np.object_]:
        """The footprints as the table has them; None where they are missing or broken."""
        return np.asarray(
            shapely.from_wkb(self.columns["geometry"].to_numpy(zero_copy_only=False), on_invalid="ignore")
        )

    @cached_property
    def footprints(self) -> npt.NDArray[np.object_]:
        """Those that need no change, in two dimensions; None elsewhere."""
        bounds = shapely.bounds(self.shapes)
        west, south, east, north = bounds.T
        with np.errstate(invalid="ignore"):
            plain = (west >= -180) & (east <= 180) & (east - west <= 180) & (south >= -90) & (north <= 90)
        plain &= (shapely.get_type_id(self.shapes) == shapely.GeometryType.POLYGON) & shapely.is_valid(self.shapes)
        return np.asarray(np.where(plain, shapely.force_2d(self.shapes), None))

    def outline(self, row: int) -> dict[str, Any]:
        """Footprint and bbox of an item."""
        shape, box = self.shapes[row], self.list(("bbox",))[row]
        sides = None if box is None else [box[name] for name in _SIDES if name in box]
        if shape is None or (sides is not None and None in sides):
            return self.document(row)
        return {"geometry": shapely.geometry.mapping(shape), "bbox": sides}


class _AlikeRows:
    """Rows that are read as one of them is."""

    def __init__(self, batch: _TableColumns, item: SourceItem, document: dict[str, Any]) -> None:
        self._batch, self._item, self._document = batch, item, document
        assets = document["assets"]
        self._keys = list(dict.fromkeys(band.asset for band in item.bands))
        self._finest, _ = finest_grid(document, assets, self._keys, item.id)
        self._codes = {path for key in self._keys if (path := self._code_path(key)) is not None}
        self._code = self._code_path(self._finest)
        self._fixed = {key: value for key in ("platform",) if (value := document["properties"].get(key)) is not None}
        columns = [key for key in sorted(_COPIED) if batch.array(("properties", key)) is not None]
        self._copied = {key: batch.list(("properties", key)) for key in columns}
        self._good: set[str] = set()

    def items(self, rows: Sequence[int]) -> dict[int, SourceItem]:
        """Their items; without those that are to be read one by one."""
        files = self._item.files
        if any(file.href != self._document["assets"][file.asset]["href"] for file in files):
            return {}
        hrefs = {file.asset: self._batch.list(("assets", file.asset, "href")) for file in files}
        made = {}
        for row in rows:
            own = {key: values[row] for key, values in hrefs.items()}
            distinct = len({own[key] for key in self._keys}) == len(self._keys)
            found = self._made(row, own) if distinct and all(map(_is_plain, own.values())) else None
            if found is not None:
                made[row] = found
        return made

    def _made(self, row: int, hrefs: Mapping[str, str]) -> SourceItem | None:
        batch, like = self._batch, self._item
        copied = {key: value for key, values in self._copied.items() if (value := values[row]) is not None}
        properties = {**self._fixed, **copied}
        geometry = batch.footprints[row]
        if geometry is None:
            try:
                geometry = footprint_of(batch.outline(row), like.id)
            except SourceError:
                return None
        if not self._has_grids(row):
            return None
        moment, start, end = batch.times[row]
        return SourceItem(
            id=batch.list(("id",))[row],
            collection=like.collection,
            block=like.block,
            geometry=geometry,
            acquired=moment,
            start=start,
            end=end,
            bands=tuple(_moved(file, hrefs) for file in like.bands),
            mask=like.mask and replace(like.mask, files=tuple(_moved(file, hrefs) for file in like.mask.files)),
            mask_note=like.mask_note,
            grid=self._grid(row),
            proj_code=like.proj_code if self._code is None else self._text_of(self._code, row),
            resolved=like.resolved,
            shift=like.shift,
            level=self._level(row),
            platform=like.platform,
            acquisition=acquisition_of(self._document, properties, start, end),
            cloud_cover=number(copied.get("eo:cloud_cover")),
            license=like.license,
            attribution=like.attribution,
            href=self_href({"links": batch.list(("links",))[row]}),
            updated=str(copied.get("updated") or copied.get("s2:generation_time") or ""),
        )

    def _level(self, row: int) -> str | None:
        """What says that it is the product, in the words of the row."""
        level = self._item.level
        key = "" if level is None else level.partition(" ")[0]
        path = ("id",) if key == "id" else ("properties", key)
        if level is None or key in {"collection", "asset"} or (key != "id" and key not in self._document["properties"]):
            return level
        return f"{key} {self._batch.list(path)[row].lower()!r}"

    def _code_path(self, asset: str | None) -> Path | None:
        """Where the code of the reference system of an asset stands."""
        places: list[tuple[Path, Any]] = [(("properties",), self._document["properties"])]
        if asset is not None:
            places.insert(0, (("assets", asset), self._document["assets"][asset]))
        for path, holder in places:
            if isinstance(holder.get("proj:code"), str):
                return (*path, "proj:code")
            if isinstance(holder.get("proj:epsg"), int):
                return (*path, "proj:epsg")
        return None

    def _text_of(self, path: Path, row: int) -> str:
        value = self._batch.list(path)[row]
        return value if path[-1] == "proj:code" else f"EPSG:{value}"

    def _has_grids(self, row: int) -> bool:
        """Whether the reference systems of all bands are known to PROJ."""
        for path in self._codes:
            code = self._text_of(path, row)
            if code not in self._good:
                try:
                    check_crs(code, self._item.id)
                except SourceError:
                    return False
                self._good.add(code)
        return True

    def _grid(self, row: int) -> RasterGrid | None:
        like = self._item.grid
        if like is None or self._finest is None:
            return None
        own = self._batch.list(("assets", self._finest, "proj:transform"))[row]
        moved = own if own is not None else self._batch.list(("properties", "proj:transform"))[row]
        a, b, _, d, e, _ = like.transform
        crs = like.crs if self._code is None else self._text_of(self._code, row)
        return RasterGrid(crs, like.height, like.width, (a, b, float(moved[2]), d, e, float(moved[5])))


def _moved(file: BandFile, hrefs: Mapping[str, str]) -> BandFile:
    return BandFile(
        file.band, file.asset, hrefs[file.asset], file.index, file.nodata, file.origin, file.count,
        file.has_external_mask,
    )  # fmt: skip


def _is_plain(href: str) -> bool:
    """Whether it is an address on a server that stays what it is when it is resolved."""
    return _PLAIN.fullmatch(href) is not None


def as_stated(name: str, column: pa.Array) -> pa.Array:
    """A column of properties as items state it: times are text, written as `stac_table_to_items` does."""
    if name in _TIMES and pa.types.is_timestamp(column.type):
        return pc.strftime(column, format="%Y-%m-%dT%H:%M:%SZ")
    return column


def _times(properties: dict[str, Any]) -> Any:
    try:
        found = times_of(properties, "")
    except SourceError:
        return None
    return found if all(1 < moment.year < 9999 for moment in found) else None


def _numbers_of_shapes(transforms: pa.Array) -> Numbers | None:
    """Equal numbers for transforms that differ in the corner of the image alone."""
    lengths, numbers = pc.list_value_length(transforms), transforms.flatten()
    if transforms.null_count or numbers.null_count or pc.any(pc.less(lengths, 1 + max(_MOVES))).as_py():
        return numbers_of_column(transforms)
    found = numbers.to_numpy(zero_copy_only=False)
    if len(found) != len(transforms) * len(transforms[0]):
        return numbers_of_column(transforms)
    columns = found.reshape(len(transforms), -1).T
    return together(
        [
            np.isfinite(column).astype(np.int64) if place in _MOVES else np.unique(column, return_inverse=True)[1]
            for place, column in enumerate(columns)
        ]
    )


def _is_text(array: pa.Array) -> bool:
    return bool(pa.types.is_string(array.type) or pa.types.is_large_string(array.type))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))
