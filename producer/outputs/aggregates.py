"""Bigger chips as means of complete blocks of smaller ones: tables of their own, from the published embeddings alone.

A block is n × n chips of one window, and of one image in the `scene` layout. It is a cell of the grid that is n times
coarser, so its footprint is that cell's. Its vector is the mean of the n² published ones.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely

from clay_publish.producer.layouts.base import Ints, Layout, Places
from clay_publish.producer.outputs.assemble import describe_geometry, hilbert_order
from clay_publish.producer.outputs.parts import quantize
from clay_publish.producer.unit_plan import Plan
from clay_publish.release import directory as paths
from clay_publish.release.directory import DataFile, Release
from clay_publish.release.geoparquet import bbox_array, group_rows, table_writer
from clay_publish.release.metadata import footer_emb
from clay_publish.release.tables import COMBINED, TIMESTAMP, Dtype, embeddings_schema, hugging_face_features
from clay_publish.windows import Window


def block_rows(
    schema: pa.Schema, places: Places, chips: pa.Table, each: int, dtype: Dtype, *, acquisitions: Mapping[str, str]
) -> pa.Table:
    """Rows for blocks of `each` chips, which follow one another in `chips`.

    The mean of what is stored, in float32; a loss or cloud fraction only where every chip has one; the period from the
    first start to the last end, and its middle as the date; the image that most chips are taken from. Of composites,
    the number of acquisitions of all images, and the least and the median of what the chips say of their observations.

    Args:
        schema: of the rows.
        places: of the blocks.
        chips: theirs.
        each: chips of a block.
        dtype: of the stored values.
        acquisitions: item id → acquisition; needed for composites alone.
    """
    count = len(places.ids)
    kind = schema.field("embedding").type
    stored, scale = quantize(_means(chips, each), dtype)
    begin = chips["start_datetime"].to_numpy().reshape(count, each).min(axis=1)
    end = chips["end_datetime"].to_numpy().reshape(count, each).max(axis=1)
    images = chips["item_id"].to_pylist()
    sources = chips["item_ids"].to_pylist()
    together = [sorted(set().union(*sources[n : n + each])) for n in range(0, len(sources), each)]
    columns: dict[str, Any] = {
        "id": pa.array(places.ids, pa.string()),
        "geometry": shapely.to_wkb(places.geometry),
        "bbox": bbox_array(places.geometry),
        "datetime": pa.array(begin + (end - begin) // 2).cast(TIMESTAMP),
        "start_datetime": pa.array(begin).cast(TIMESTAMP),
        "end_datetime": pa.array(end).cast(TIMESTAMP),
        "lon": places.lon,
        "lat": places.lat,
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(stored.reshape(-1), kind.value_type), type=kind),
        "scale": scale,
        **{name: _mean(chips[name], each) for name in ("loss", "valid_fraction", "cloud_fraction")},
        "item_id": [_most(images[n : n + each]) for n in range(0, len(images), each)],
        "item_ids": together,
        "epsg": pa.array(places.epsg, pa.int32(), from_pandas=True),
        "row": pa.array(places.row, pa.int32()),
        "col": pa.array(places.col, pa.int32()),
    }
    if "images" in schema.names:
        least, median = (chips[name].to_numpy().reshape(count, each) for name in COMBINED[1:])
        images_of = [len({acquisitions[name] for name in names}) for names in together]
        columns |= dict(zip(COMBINED, (images_of, least.min(axis=1), np.median(median, axis=1)), strict=True))
    return pa.Table.from_arrays([pa.array(columns[f.name], f.type) for f in schema], schema=schema.remove_metadata())


def _means(chips: pa.Table, each: int) -> npt.NDArray[np.float32]:
    """[blocks, D]."""
    column = chips["embedding"].combine_chunks()
    values = column.flatten().to_numpy().reshape(chips.num_rows, -1).astype(np.float32)
    if "scale" in chips.column_names:
        values *= chips["scale"].to_numpy()[:, None]
    means: npt.NDArray[np.float32] = values.reshape(-1, each, values.shape[1]).mean(axis=1, dtype=np.float64)
    return means.astype(np.float32)


def _mean(column: pa.ChunkedArray, each: int) -> pa.Array:
    """Null where any chip has none."""
    values = column.to_numpy().astype(np.float64).reshape(-1, each).mean(axis=1)
    return pa.array(values.astype(np.float32), from_pandas=True)


def _most(names: list[str]) -> str:
    """The most frequent; of several, the first by name."""
    counts = Counter(names)
    return min(counts, key=lambda name: (-counts[name], name))


_MEMBERS = 1 << 16
"""Chips whose vectors are held at a time."""
_NEEDED = (
    "embedding",
    "scale",
    "loss",
    "valid_fraction",
    "cloud_fraction",
    "start_datetime",
    "end_datetime",
    "item_id",
    "item_ids",
    *COMBINED[1:],
)


def write_aggregates(release: Release, plan: Plan, layout: Layout, sides: Iterable[int], gsd: float) -> None:
    """Write `aggregates/NxN/…` for every side N, and remove what an earlier spec left there."""
    groups: dict[tuple[Window, int | None], list[DataFile]] = {}
    for path in release.data_files():
        file = DataFile.parse(path)
        groups.setdefault((file.window, layout.together(file)), []).append(file)
    written: set[str] = set()
    for side in sorted(set(sides)):
        for (window, _), files in sorted(groups.items(), key=lambda entry: entry[1]):
            written.update(_Blocks(release, plan, layout, side, window, tuple(files), gsd).write())
    for path in release.store.files(paths.AGGREGATES):
        if path not in written:
            release.store.remove(path)


@dataclass(frozen=True)
class _Blocks:
    """The complete blocks of some files of one window."""

    release: Release
    plan: Plan
    layout: Layout
    side: int
    window: Window
    files: tuple[DataFile, ...]
    gsd: float

    @cached_property
    def acquisitions(self) -> Mapping[str, str]:
        """Item id → acquisition of the images that composites are made of; empty where chips are of one image."""
        if not self.plan.fingerprint.combines:
            return {}
        units = (unit for unit in self.plan.units if not self._files.isdisjoint(unit.files))
        return {item.id: item.acquisition for unit in units for item in unit.items}

    @cached_property
    def _files(self) -> frozenset[DataFile]:
        return frozenset(self.files)

    @cached_property
    def index(self) -> pa.Table:
        """Where every chip lies: its cell, image, file and row."""
        tables = []
        for number, file in enumerate(self.files):
            table = self._open(file).read(columns=["epsg", "row", "col", "item_id"])
            place = {"file": np.full(table.num_rows, number), "at": np.arange(table.num_rows)}
            tables.append(pa.table({**{name: table[name] for name in table.column_names}, **place}))
        return pa.concat_tables(tables)

    def _open(self, file: DataFile) -> Any:
        return self.release.parquet(f"{paths.EMBEDDINGS}/{file.name}")

    def members(self) -> Ints:
        """[blocks, n²] numbers of index rows: each block's chips, row by row."""
        row, col = (self.index[name].to_numpy().astype(np.int64) for name in ("row", "col"))
        whose = self.layout.owners(self.index)
        order = np.lexsort((col, row, col // self.side, row // self.side, whose))
        keys = np.stack([whose, row // self.side, col // self.side], axis=1)[order]
        starts = np.flatnonzero(np.concatenate([[True], (keys[1:] != keys[:-1]).any(axis=1)]))
        counts = np.diff([*starts, len(keys)])
        first = starts[counts == self.side**2]
        return np.asarray(order[first[:, None] + np.arange(self.side**2)], dtype=np.int64)

    def write(self) -> Iterator[str]:
        """Write the files; their paths."""
        members = self.members()
        if not len(members):
            return
        place = self.layout.places(self.index.take(pa.array(members[:, 0])), self.side, self.window, self.plan.units)
        token = np.array([DataFile(square, self.window).token for square in place.squares])
        for name in dict.fromkeys(token.tolist()):
            mine = np.flatnonzero(token == name)
            file = DataFile(place.squares[mine[0]], self.window)
            path = f"{paths.AGGREGATES}/{self.side}x{self.side}/{file.name}"
            here = place.only(mine)
            order = hilbert_order(pa.table({"lon": here.lon, "lat": here.lat, "id": pa.array(here.ids, pa.string())}))
            self._write(path, here.only(order), members[mine][order])
            yield path

    def _write(self, path: str, place: Places, members: Ints) -> None:
        fingerprint = self.plan.fingerprint
        schema = embeddings_schema(fingerprint.dimensions, fingerprint.dtype, combined=fingerprint.combines)
        footer = self._footer(schema, place)
        step = max(1, min(group_rows(schema), _MEMBERS // self.side**2))
        with table_writer(self.release.store, path, schema.with_metadata(footer)) as writer:
            for start in range(0, len(members), step):
                some = slice(start, start + step)
                chips = self._gather(members[some].ravel())
                here, each = place.only(some), self.side**2
                rows = block_rows(schema, here, chips, each, fingerprint.dtype, acquisitions=self.acquisitions)
                writer.write_table(rows.replace_schema_metadata(footer), row_group_size=step)

    def _footer(self, schema: pa.Schema, place: Places) -> dict[str, str]:
        pixels = [self.plan.fingerprint.size * self.side] * 2
        emb = footer_emb(self.plan.fingerprint, self.gsd)
        emb["emb:chip_layout"] = {**emb["emb:chip_layout"], "chip_size": pixels, "stride": pixels}
        emb["embrel:aggregate"] = {"chips": [self.side, self.side], "method": "mean of the published embeddings"}
        return {
            "geo": json.dumps(describe_geometry(bbox_array(place.geometry)), sort_keys=True),
            "emb": json.dumps(emb, sort_keys=True),
            "huggingface": json.dumps({"info": {"features": hugging_face_features(schema)}}),
        }

    def _gather(self, numbers: Ints) -> pa.Table:
        """Rows of the embeddings files, in this order; only the row groups that hold them are read."""
        file, at = (self.index[name].to_numpy()[numbers] for name in ("file", "at"))
        taken, order = [], []
        for number in np.unique(file):
            opened = self._open(self.files[number])
            groups = [opened.metadata.row_group(n).num_rows for n in range(opened.num_row_groups)]
            starts = np.cumsum([0, *groups])
            mine = np.flatnonzero(file == number)
            group = np.searchsorted(starts, at[mine], side="right") - 1
            for one in np.unique(group):
                these = mine[group == one]
                table = opened.read_row_group(int(one), columns=[c for c in _NEEDED if c in opened.schema_arrow.names])
                taken.append(table.take(pa.array(at[these] - starts[one])).replace_schema_metadata(None))
                order.append(these)
        return pa.concat_tables(taken).combine_chunks().take(pa.array(np.argsort(np.concatenate(order))))
