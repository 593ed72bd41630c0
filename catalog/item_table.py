"""`items.parquet`: stac-geoparquet, made column by column.

A million items as Python objects take minutes and gigabytes; the same as Arrow columns takes seconds.
Source: STAC GeoParquet specification 1.0, https://github.com/stac-utils/stac-geoparquet.
"""

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from stac_geoparquet.arrow import to_parquet

from clay_publish.catalog.overview import Overview
from clay_publish.errors import ReleaseError
from clay_publish.release import directory as paths
from clay_publish.release.array_store import MEDIA_TYPE, STORE
from clay_publish.release.geoparquet import geo_metadata, hilbert_distance, total_bbox
from clay_publish.storage.store import Store

_MAGIC = b"PAR1"
_TAIL = 8
"""Bytes after the footer: its length and the magic."""


def replace_geo(path: Path, geo: dict[str, Any]) -> None:
    """Replace the `geo` key of a local Parquet file.

    Row groups stay where they are; a new footer that points at them takes the place of the old one. This costs nothing,
    where a second pass over the data would double the work.
    """
    old = pq.read_metadata(path)
    schema = pq.read_schema(path)
    schema = schema.with_metadata({**(schema.metadata or {}), b"geo": json.dumps(geo).encode()})
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "footer"
        pq.write_metadata(schema, draft, metadata_collector=[old])
        footer = draft.read_bytes()
    with path.open("r+b") as file:
        file.seek(-_TAIL, 2)
        end = file.tell()
        length = int.from_bytes(file.read(4), "little")
        file.seek(end - length)
        file.truncate()
        file.write(footer.removeprefix(_MAGIC))


ROWS = 16_384
"""Of a row group: small enough to skip much of the table, large enough to be read in few requests."""

STAC_VERSION = "1.1.0"
PARQUET = "application/vnd.apache.parquet"
ARRAYS_TITLE = "Embeddings as arrays (Zarr)"
OPEN_KWARGS = {"engine": "zarr", "consolidated": True}
"""Arguments of `xarray.open_dataset`; with the Collection's asset, `group` names the zone."""
LINK = pa.struct([("rel", pa.string()), ("href", pa.string()), ("type", pa.string()), ("title", pa.string())])

Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ItemColumns:
    """What differs from item to item: arrays of one length."""

    id: pa.StringArray
    title: pa.StringArray
    path: pa.StringArray
    """Of the embeddings file, below the release."""
    geometry: pa.BinaryArray
    """WKB, OGC:CRS84."""
    bbox: pa.StructArray
    datetime: pa.TimestampArray
    """Null where the chips have different ones."""
    start_datetime: pa.TimestampArray
    end_datetime: pa.TimestampArray
    code: pa.StringArray
    """`EPSG:32618`; null where the chips have different ones."""
    square: pa.StringArray
    """`MGRS-18SVG`; null where there is none."""
    rows: pa.Int64Array
    size: pa.Int64Array
    coverage: pa.StructArray
    sources: pa.ListArray
    """Ids of source items: list<string>."""
    kinds: tuple[str, ...]
    """Geometry types that occur."""
    others: Mapping[str, pa.Int64Array] = field(default_factory=dict)
    """Folder of another table cut like the embeddings, `patches` or `aggregates/2x2` → bytes of each item's file;
    null where it has none."""

    def take(self, places: Places) -> "ItemColumns":
        """Some rows, in this order."""
        chosen = pa.array(places)
        whole = {"kinds", "others"}
        taken = {name: value.take(chosen) for name, value in vars(self).items() if name not in whole}
        others = {folder: sizes.take(chosen) for folder, sizes in self.others.items()}
        return ItemColumns(**taken, kinds=self.kinds, others=others)

    def overview(self) -> Overview:
        """Extent and totals."""
        names = ["bbox", "start_datetime", "end_datetime", "proj:code", "table:row_count"]
        columns = [self.bbox, self.start_datetime, self.end_datetime, self.code, self.rows]
        return Overview.of(pa.RecordBatch.from_arrays(columns, names=names))

    def __len__(self) -> int:
        return len(self.id)


@dataclass(frozen=True)
class ItemConstants:
    """What all items of a release share."""

    collection: dict[str, Any]
    """The Collection as `items.parquet` carries it."""
    alternates: Mapping[str, str]
    """Host → root of the release there."""
    extensions: tuple[str, ...]
    fields: Mapping[str, Any]
    """Properties with the same value in every item."""
    source_hrefs: pa.Table
    """Public address of source items."""
    arrays: bool = False
    """Whether the release has arrays, of which each item names its zone's."""


def write_item_table(store: Store, path: str, columns: ItemColumns, constants: ItemConstants) -> None:
    """Write the items along a Hilbert curve; the file appears complete or not at all.

    Raises:
        ReleaseError: a shared property cannot be a column.
    """
    order = hilbert_order(columns.bbox)
    schema = _batch(columns.take(np.arange(min(1, len(columns)))), constants).schema

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, len(order), ROWS):
            yield _batch(columns.take(order[start : start + ROWS]), constants)

    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "items.parquet"
        to_parquet(
            pa.RecordBatchReader.from_batches(schema, batches()),
            draft,
            collections={constants.collection["id"]: constants.collection},
            compression="zstd",
            compression_level=1,
            write_page_checksum=True,
            write_page_index=True,
            bloom_filter_options={"id": {"ndv": ROWS, "fpp": 0.01}},
        )
        replace_geo(draft, geo_metadata(columns.kinds, total_bbox(_boxes(columns.bbox))))
        with draft.open("rb") as made, store.writer(path) as file:
            while piece := made.read(1 << 20):
                file.write(piece)


def hilbert_order(bbox: pa.StructArray) -> Places:
    """Order of boxes along a Hilbert curve over the Earth, by their centers; equal ones keep their order."""
    boxes = _boxes(bbox)
    width = np.where(boxes[:, 2] < boxes[:, 0], boxes[:, 2] + 360, boxes[:, 2]) - boxes[:, 0]
    lon = np.mod(boxes[:, 0] + width / 2 + 180, 360) - 180
    lat = (boxes[:, 1] + boxes[:, 3]) / 2
    order: Places = np.argsort(hilbert_distance(lon, lat), kind="stable")
    return order


def _boxes(bbox: pa.StructArray) -> npt.NDArray[np.float64]:
    return np.column_stack([bbox.field(side).to_numpy() for side in ("xmin", "ymin", "xmax", "ymax")])


def _batch(columns: ItemColumns, constants: ItemConstants) -> pa.RecordBatch:
    rows = len(columns)
    identifier = constants.collection["id"]
    arrays: dict[str, pa.Array] = {
        "type": _same("Feature", rows),
        "stac_version": _same(STAC_VERSION, rows),
        "stac_extensions": _same(list(constants.extensions), rows),
        "id": columns.id,
        "collection": _same(identifier, rows),
        "geometry": columns.geometry,
        "bbox": columns.bbox,
        "title": columns.title,
        "datetime": columns.datetime,
        "start_datetime": columns.start_datetime,
        "end_datetime": columns.end_datetime,
        "proj:code": columns.code,
        "grid:code": columns.square,
        "table:row_count": columns.rows,
        "embrel:coverage": columns.coverage,
        **{name: _same(value, rows) for name, value in constants.fields.items()},
        "links": _links(columns, constants),
        "assets": _assets(columns, constants),
    }
    return pa.RecordBatch.from_pydict(arrays)


def _same(value: Any, rows: int) -> pa.Array:
    """A column of one value."""
    try:
        return pa.repeat(pa.array([value])[0], rows)
    except pa.ArrowException as error:
        raise ReleaseError(
            "items.parquet", f"{value!r} cannot be a column ({error})", "values of one type in a list"
        ) from error


def _links(columns: ItemColumns, constants: ItemConstants) -> pa.ListArray:
    """The Collection, then a link for each source item whose address is known; else one to the table of sources.

    There is no `self`, since hrefs are relative to the table, and no `root`: pystac would read it for every row.
    """
    rows = len(columns)
    known, hrefs = (constants.source_hrefs[name].combine_chunks() for name in ("id", "href"))
    names = columns.sources.flatten()
    owner = np.repeat(np.arange(rows), columns.sources.value_lengths().to_numpy(zero_copy_only=False))
    place = pc.index_in(names, known)
    public = place.is_valid().to_numpy(zero_copy_only=False)
    named, owner = names.filter(pa.array(public)), owner[public]
    without = np.setdiff1d(np.arange(rows), owner)

    def constant(rel: str, href: str, kind: str, title: str, number: int) -> pa.StructArray:
        return pa.repeat(pa.scalar({"rel": rel, "href": href, "type": kind, "title": title}, LINK), number)

    sources = pa.StructArray.from_arrays(
        [
            pa.repeat("emb:source-data", len(named)),
            hrefs.take(place.drop_null()),
            pa.repeat("application/geo+json", len(named)),
            named,
        ],
        fields=list(LINK),
    )
    values = pa.concat_arrays(
        [
            *(
                constant(rel, paths.COLLECTION, "application/json", constants.collection["title"], rows)
                for rel in ("parent", "collection")
            ),
            sources,
            constant("emb:source-data", paths.SOURCES, PARQUET, "All source items", len(without)),
        ]
    )
    owners = np.concatenate([*([np.arange(rows)] * 2), owner, without])
    order = np.argsort(owners, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=rows))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values.take(pa.array(order)))


def _assets(columns: ItemColumns, constants: ItemConstants) -> pa.StructArray:
    made = {"embeddings": _asset(columns.path, "Embeddings (GeoParquet)", columns.size, constants)}
    for folder, sizes in columns.others.items():
        path = pc.replace_substring_regex(columns.path, f"^{paths.EMBEDDINGS}/", f"{folder}/")
        made[asset_key(folder)] = _asset(path, table_title(folder), sizes, constants)
    if constants.arrays:
        made["arrays"] = _arrays_asset(columns, constants)
    return _struct(made)


def asset_key(folder: str) -> str:
    """Key of a table's asset: `aggregates-2x2` of `aggregates/2x2`."""
    return folder.replace("/", "-")


def table_title(folder: str) -> str:
    """What a person calls a table: `Aggregates 2x2 (GeoParquet)`."""
    return f"{folder.replace('/', ' ').capitalize()} (GeoParquet)"


def _asset(path: pa.StringArray, title: str, sizes: pa.Int64Array, constants: ItemConstants) -> pa.StructArray:
    """Null where there is no file."""
    rows = len(path)
    fields: dict[str, pa.Array] = {
        "href": path,
        "type": _same(PARQUET, rows),
        "title": _same(title, rows),
        "roles": _same(["data"], rows),
        "file:size": sizes,
    }
    if constants.alternates:
        fields["alternate"] = _alternates(path, constants)
    return _struct(fields, mask=sizes.is_null() if sizes.null_count else None)


def _arrays_asset(columns: ItemColumns, constants: ItemConstants) -> pa.StructArray:
    """The group of the item's zone, with which its id begins. The schema of xarray-assets 1.0.0 refuses every Item."""
    rows = len(columns)
    path = pc.binary_join_element_wise(f"{STORE}/utm", pc.utf8_slice_codeunits(columns.id, 0, 2), "")
    fields: dict[str, pa.Array] = {
        "href": path,
        "type": _same(MEDIA_TYPE, rows),
        "title": _same(ARRAYS_TITLE, rows),
        "roles": _same(["data"], rows),
        "xarray:open_kwargs": _same(OPEN_KWARGS, rows),
    }
    if constants.alternates:
        fields["alternate"] = _alternates(path, constants)
    return _struct(fields)


def _alternates(path: pa.StringArray, constants: ItemConstants) -> pa.StructArray:
    return _struct(
        {
            host: _struct({"href": _below(address, path), "alternate:name": _same(host, len(path))})
            for host, address in constants.alternates.items()
        }
    )


def _below(address: str, path: pa.StringArray) -> pa.StringArray:
    return pc.binary_join_element_wise(f"{address}/", path, "")


def _struct(fields: Mapping[str, pa.Array], mask: pa.BooleanArray | None = None) -> pa.StructArray:
    return pa.StructArray.from_arrays(list(fields.values()), names=list(fields), mask=mask)
