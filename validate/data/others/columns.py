"""The columns of a table of others: found by type and name, and read under the names that rules ask for."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely
from pyproj import CRS
from pyproj.exceptions import CRSError

from clay_publish.geo.footprints import to_lonlat

_VECTORS = ("embedding", "embeddings", "vector", "vectors", "features", "feature", "emb")
"""Names of vector columns, the likeliest first."""
_HINT = re.compile(r"emb|vec|feat", re.IGNORECASE)
_SHAPES = ("geometry", "geom", "wkb_geometry")
_IDS = ("id", "unique_id", "chip_id", "tile_id")
_LENGTH = 8
"""Values, at least, of a list that is a vector whatever it is called, and of a vector with a column per value."""
_NUMBERED = re.compile(r"(.*?)_?(\d{1,5})")
_TIMES = re.compile(r"date|time|year|month|season|quarter|acquired|acquisition|(^|_)(start|end)(_|$)", re.IGNORECASE)
_SOURCES = re.compile(
    r"item|source|product|scene|image|model|sensor|instrument|satellite|mission|collection|platform|band|version",
    re.IGNORECASE,
)
_PLACES = re.compile(
    r"(centre_|center_)?(lat|lon|latitude|longitude|lng|x|y)|bbox|h3.*|geohash|quadkey|s2.*|grid_cell|mgrs.*|"
    r"geometry|geom|wkb.*|wkt.*|footprint",
    re.IGNORECASE,
)
_RAGGED = {
    "point": shapely.GeometryType.POINT,
    "polygon": shapely.GeometryType.POLYGON,
    "multipolygon": shapely.GeometryType.MULTIPOLYGON,
}
"""Encodings of GeoParquet 1.1 that are not WKB."""


@dataclass(frozen=True)
class Columns:
    """The columns of one table, by what they hold; None where there is none."""

    vectors: str | None
    """Name for people: a column, a field of a struct (`a.b`), or the first and last of a column per value."""
    parts: tuple[str, ...]
    """Columns that the vectors are read from."""
    numbers: pa.DataType | None
    """Type of the values of a vector."""
    width: int | None
    """Values of every vector, where the type says so."""
    others: tuple[str, ...]
    """Further columns that may hold vectors, which are not looked at."""
    shapes: str | None
    encoding: str
    """Of the footprints: WKB, or the name of a type of geometry."""
    crs: Any
    """Of the footprints, as the file states it; None where it states that it is unknown, or nothing."""
    described: bool
    """Whether the `geo` metadata describe the footprints."""
    ids: str | None
    times: tuple[str, ...]
    sources: tuple[str, ...]
    """Columns that name the image, model or product of a row."""
    places: tuple[str, ...]
    """Columns that say where a row is without being footprints, for messages."""

    @classmethod
    def of(cls, schema: pa.Schema, geo: Mapping[str, Any], footer: pq.FileMetaData) -> "Columns":
        """Find them by type and name."""
        kinds = dict(zip(schema.names, schema.types, strict=True))
        lists = {name: kind for name, kind in _leaves(kinds).items() if _numbers(kind) is not None}
        ranked = _ranked(lists, _widths(footer))
        numbered = () if ranked else _numbered(kinds)
        shapes = _footprints(kinds, geo)
        stated = _described(geo, shapes)
        singles = [name for name, kind in kinds.items() if not pa.types.is_nested(kind) and name not in numbered]
        name = ranked[0] if ranked else f"{numbered[0]} … {numbered[-1]}" if numbered else None
        one = lists[ranked[0]] if ranked else None
        sized = one is not None and pa.types.is_fixed_size_list(_storage(one))
        return cls(
            vectors=name,
            parts=(_column(ranked[0], kinds),) if ranked else numbered,
            numbers=_numbers(one) if one is not None else kinds[numbered[0]] if numbered else None,
            width=_storage(one).list_size if sized and one is not None else len(numbered) or None,
            others=tuple(ranked[1:]),
            shapes=shapes,
            encoding=str(stated.get("encoding", "WKB")),
            crs=stated.get("crs", "OGC:CRS84") if stated else _native_crs(footer, shapes),
            described=bool(stated),
            ids=next((n for n in _IDS if n in kinds and (_is_text(kinds[n]) or pa.types.is_integer(kinds[n]))), None),
            times=tuple(n for n in singles if pa.types.is_temporal(kinds[n]) or _TIMES.search(n)),
            sources=tuple(n for n in singles if _SOURCES.search(n)),
            places=tuple(n for n in kinds if n != shapes and _PLACES.fullmatch(n)),
        )

    @property
    def names(self) -> set[str]:
        """Names that rules ask for, of what there is."""
        found = ((self.vectors, "embedding"), (self.shapes, "geometry"), (self.ids, "id"))
        return {name for own, name in found if own is not None}

    def read_from(self, names: Iterable[str]) -> list[str]:
        """Columns of the file that hold what rules call by these names."""
        own = {"embedding": self.parts, "geometry": (self.shapes,), "id": (self.ids,)}
        return [part for name in names for part in (own[name] if name in self.names else (name,)) if part is not None]

    def renamed(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Rows of the table under the names that rules ask for, footprints as WKB of degrees."""
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        made = {}
        if self.parts and set(self.parts) <= columns.keys():
            made["embedding"] = _vectors([columns[part] for part in self.parts], self.vectors or "")
        if self.shapes is not None and self.shapes in columns:
            made["geometry"] = self._degrees(_wkb(columns[self.shapes], self.encoding))
        if self.ids is not None and self.ids in columns:
            made["id"] = pc.cast(columns[self.ids], pa.string())
        used = {*self.parts, self.shapes, self.ids}
        return pa.record_batch({**{n: c for n, c in columns.items() if n not in used}, **made})

    @cached_property
    def stated_crs(self) -> CRS | None:
        """The CRS of the footprints; None where the file states none that is known."""
        try:
            return None if self.crs is None else CRS.from_user_input(self.crs)
        except (CRSError, TypeError, ValueError, AttributeError):
            return None

    @property
    def projected(self) -> bool:
        """Whether the footprints are not in longitude and latitude."""
        return self.stated_crs is not None and not self.stated_crs.is_geographic

    def _degrees(self, wkb: pa.Array) -> pa.Array:
        if self.stated_crs is None or not self.projected or not _is_binary(wkb.type):
            return wkb
        turn = to_lonlat(self.stated_crs.to_json())
        stored = wkb.to_pylist()
        shapes = shapely.from_wkb(np.array(stored, object), on_invalid="ignore")
        turned = shapely.transform(shapes, lambda xy: np.stack(turn.transform(*xy.T), axis=1))
        # What cannot be read stays as it is, for the rule on footprints.
        made = [old if new is None else new for old, new in zip(stored, shapely.to_wkb(turned), strict=True)]
        return pa.array(made, pa.binary())


def without_vectors(kinds: Iterable[tuple[str, pa.DataType]]) -> str | None:
    """What is wrong with the column that is called as if it held vectors; None where none is."""
    found = dict(kinds)
    named = [*(name for name in _VECTORS if name in found), *(name for name in found if _HINT.search(name))]
    return f"`{named[0]}` is of type {found[named[0]]}, which is not a list of numbers" if named else None


def _leaves(kinds: Mapping[str, pa.DataType]) -> dict[str, pa.DataType]:
    """Columns, and the fields of structs by `column.field`."""
    found = dict(kinds)
    for name, kind in kinds.items():
        if pa.types.is_struct(kind):
            found |= {f"{name}.{kind.field(n).name}": kind.field(n).type for n in range(kind.num_fields)}
    return found


def _column(leaf: str, kinds: Mapping[str, pa.DataType]) -> str:
    return leaf if leaf in kinds else leaf.rpartition(".")[0]


def _storage(kind: pa.DataType) -> pa.DataType:
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _numbers(kind: pa.DataType) -> pa.DataType | None:
    """Type of the values of a list of numbers."""
    types, kind = pa.types, _storage(kind)
    views = types.is_list_view(kind) or types.is_large_list_view(kind)
    if not (types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind) or views):
        return None
    value = kind.value_type
    return value if types.is_floating(value) or types.is_integer(value) or types.is_decimal(value) else None


def _widths(footer: pq.FileMetaData) -> dict[str, float]:
    """Values per row of each list, from the first row group."""
    if not footer.num_row_groups or not footer.row_group(0).num_rows:
        return {}
    group, found = footer.row_group(0), {}
    for number in range(footer.num_columns):
        leaf = footer.schema.column(number)
        if leaf.max_repetition_level == 1:
            found[leaf.path.rsplit(".", 2)[0]] = group.column(number).num_values / group.num_rows
    return found


def _ranked(lists: Mapping[str, pa.DataType], widths: Mapping[str, float]) -> list[str]:
    """Columns that may hold vectors, the likeliest first: by name, by a part of the name, by length."""

    def width(name: str) -> float:
        return widths.get(name, getattr(_storage(lists[name]), "list_size", 0))

    named = [name for name in _VECTORS if name in lists]
    named += sorted((name for name in lists if name not in named and _HINT.search(name)), key=width, reverse=True)
    long = sorted((n for n in lists if n not in named and width(n) >= _LENGTH), key=width, reverse=True)
    return [*named, *(long if not named else [])]


def _numbered(kinds: Mapping[str, pa.DataType]) -> tuple[str, ...]:
    """The longest run of columns of numbers that one name and consecutive numbers have: `A00` to `A63`."""
    runs: dict[str, list[tuple[int, str]]] = {}
    for name, kind in kinds.items():
        match = _NUMBERED.fullmatch(name)
        if match and (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
            runs.setdefault(match[1], []).append((int(match[2]), name))
    best: tuple[str, ...] = ()
    for run in runs.values():
        run.sort()
        whole = [number for number, _ in run] == list(range(run[0][0], run[0][0] + len(run))) and run[0][0] < 2
        same = len({kinds[name] for _, name in run}) == 1
        if whole and same and len(run) >= max(_LENGTH, len(best) + 1):
            best = tuple(name for _, name in run)
    return best


def _vectors(parts: list[pa.Array], name: str) -> pa.Array:
    """A column of lists."""
    column = parts[0]
    if len(parts) > 1:
        values = np.stack([pc.cast(part, pa.float64()).to_numpy(zero_copy_only=False) for part in parts], axis=1)
        kind = parts[0].type
        holes = sum(part.null_count for part in parts)
        flat = pa.array(values.ravel(), pa.float64(), mask=np.isnan(values).ravel() if holes else None)
        return pa.FixedSizeListArray.from_arrays(pc.cast(flat, kind), len(parts))
    if pa.types.is_struct(column.type):
        column = pc.struct_field(column, name.rpartition(".")[2])
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    kind = _numbers(column.type)
    plain = pa.float64() if kind is not None and pa.types.is_decimal(kind) else kind
    if pa.types.is_fixed_size_list(column.type):
        return column if plain == kind else pc.cast(column, pa.list_(plain, column.type.list_size))
    return column if pa.types.is_list(column.type) and plain == kind else pc.cast(column, pa.large_list(plain))


def _footprints(kinds: Mapping[str, pa.DataType], geo: Mapping[str, Any]) -> str | None:
    primary = geo.get("primary_column")
    for name in (*([primary] if isinstance(primary, str) else []), *_SHAPES):
        native = _described(geo, name).get("encoding") in _RAGGED
        if name in kinds and (_is_binary(_storage(kinds[name])) or native):
            return name
    return None


def _described(geo: Mapping[str, Any], name: str | None) -> dict[str, Any]:
    """What the `geo` metadata say of a column."""
    columns = geo.get("columns")
    found = columns.get(name) if isinstance(columns, dict) else None
    return found if isinstance(found, dict) else {}


def _native_crs(footer: pq.FileMetaData, shapes: str | None) -> str | None:
    """The CRS of a column of Parquet's own types GEOMETRY and GEOGRAPHY; None where it is of another type."""
    for number in range(footer.num_columns):
        leaf = footer.schema.column(number)
        if leaf.path == shapes and (match := re.match(r"Geo(?:metry|graphy)\(crs=([^,)]*)", str(leaf.logical_type))):
            return match[1] or "OGC:CRS84"
    return None


def _wkb(column: pa.Array, encoding: str) -> pa.Array:
    """Footprints as WKB."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if encoding not in _RAGGED:
        return pc.cast(column, pa.binary()) if pa.types.is_binary_view(column.type) else column
    points, offsets = column, []
    null = column.is_null().to_numpy(zero_copy_only=False)
    while pa.types.is_list(points.type) or pa.types.is_large_list(points.type):
        starts = points.offsets.to_numpy()
        offsets.append(starts - starts[0])
        points = points.flatten()
    if pa.types.is_struct(points.type):
        xy = np.stack([pc.struct_field(points, side).to_numpy(zero_copy_only=False) for side in ("x", "y")], axis=1)
    else:
        xy = points.flatten().to_numpy(zero_copy_only=False).reshape(len(points), -1)[:, :2]
    shapes = shapely.from_ragged_array(_RAGGED[encoding], np.ascontiguousarray(xy, float), tuple(offsets[::-1]) or None)
    return pa.array(shapely.to_wkb(np.where(null, None, shapes)), pa.binary())


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))
