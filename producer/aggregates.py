"""Bigger chips as means of complete blocks of smaller ones: tables of their own, from the published embeddings alone.

A block is n × n chips of one window, and of one image in the `scene` layout. It is a cell of the grid that is n times
coarser, so its footprint is that cell's. Its vector is the mean of the n² published ones.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clay_publish import release as paths
from clay_publish.geoparquet import ROW_GROUP, bbox_array, table_writer
from clay_publish.grid import UtmGrid
from clay_publish.metadata import footer_emb
from clay_publish.producer.aggregate_rows import Places, block_rows
from clay_publish.producer.assemble import describe_geometry
from clay_publish.producer.plan import Plan
from clay_publish.producer.scene import SceneChips
from clay_publish.release import DataFile, Release
from clay_publish.tables import embeddings_schema, hugging_face_features
from clay_publish.windows import Window

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
)

Ints = npt.NDArray[np.int64]


def write_aggregates(release: Release, plan: Plan, sides: Iterable[int], gsd: float) -> None:
    """Write `aggregates/NxN/…` for every side N, and remove what an earlier spec left there."""
    groups: dict[tuple[Window, int | None], list[DataFile]] = {}
    for path in release.data_files():
        file = DataFile.parse(path)
        # A cell of the utm grid lies in its zone's folder; a scene may reach over the edge of a zone.
        zone = file.square.zone if plan.fingerprint.layout == "utm" else None
        groups.setdefault((file.window, zone), []).append(file)
    written: set[str] = set()
    for side in sorted(set(sides)):
        for (window, _), files in sorted(groups.items(), key=lambda entry: entry[1]):
            written.update(_Blocks(release, plan, side, window, tuple(files), gsd).write())
    for path in release.store.files(paths.AGGREGATES):
        if path not in written:
            release.store.remove(path)


@dataclass(frozen=True)
class _Blocks:
    """The complete blocks of some files of one window."""

    release: Release
    plan: Plan
    side: int
    window: Window
    files: tuple[DataFile, ...]
    gsd: float

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
        images = self.index["item_id"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
        crs = pc.fill_null(self.index["epsg"], 0).to_numpy().astype(np.int64)
        whose = images if self.plan.fingerprint.layout == "scene" else crs
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
        place = self._place(self.index.take(pa.array(members[:, 0])))
        token = np.array([DataFile(square, self.window).token for square in place.squares])
        for name in dict.fromkeys(token.tolist()):
            mine = np.flatnonzero(token == name)
            file = DataFile(place.squares[mine[0]], self.window)
            path = f"{paths.AGGREGATES}/{self.side}x{self.side}/{file.name}"
            here = place.only(mine)
            self._write(path, here.only(here.order), members[mine][here.order])
            yield path

    def _place(self, first: pa.Table) -> Places:
        """Where blocks lie, from one chip of each."""
        row, col = (first[name].to_numpy() // self.side for name in ("row", "col"))
        fingerprint = self.plan.fingerprint
        if fingerprint.gsd is not None:
            grid = UtmGrid(fingerprint.size * fingerprint.gsd * self.side)
            epsg = first["epsg"].to_numpy()
            lon, lat = grid.centers(epsg, row, col)
            cells = zip(epsg.tolist(), row.tolist(), col.tolist(), strict=True)
            ids = np.array([grid.chip_id(*cell, self.window) for cell in cells], dtype=object)
            outlines = grid.footprints(epsg, row, col)
            return Places(ids, epsg, row, col, lon, lat, outlines)
        items = first["item_id"].to_numpy()
        ids, outlines = np.empty(len(row), object), np.empty(len(row), object)
        lon, lat = np.empty(len(row)), np.empty(len(row))
        for name, scene in self._scenes(items).items():
            mine = np.flatnonzero(items == name)
            rows, cols = row[mine].astype(np.int32), col[mine].astype(np.int32)
            ids[mine], outlines[mine] = scene.ids(rows, cols), scene.footprints(rows, cols)
            lon[mine], lat[mine] = scene.centres(rows, cols)
        return Places(ids, first["epsg"].to_numpy(), row, col, lon, lat, outlines)

    def _scenes(self, names: npt.NDArray[np.object_]) -> Mapping[str, SceneChips]:
        size, wanted = self.plan.fingerprint.size * self.side, set(names.tolist())
        items = {unit.items[0].id: unit.items[0] for unit in self.plan.units}
        return {name: SceneChips(items[name], grid, size) for name in wanted if (grid := items[name].grid) is not None}

    def _write(self, path: str, place: Places, members: Ints) -> None:
        fingerprint = self.plan.fingerprint
        schema = embeddings_schema(fingerprint.dimensions, fingerprint.dtype)
        footer = self._footer(schema, place)
        step = max(1, min(ROW_GROUP, _MEMBERS // self.side**2))
        with table_writer(self.release.store, path, schema.with_metadata(footer)) as writer:
            for start in range(0, len(members), step):
                some = slice(start, start + step)
                rows = block_rows(
                    schema, place.only(some), self._gather(members[some].ravel()), self.side**2, fingerprint.dtype
                )
                writer.write_table(rows.replace_schema_metadata(footer), row_group_size=ROW_GROUP)

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
