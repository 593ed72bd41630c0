"""Which chips a release should have, computed from its own spec and sources, and which it has and speaks of.

`scene`: every whole chip of every used image, whose centre lies in the area of its imagery block.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely

from clay_publish.area import read_area
from clay_publish.errors import ReleaseError
from clay_publish.validate.bitmaps import EXPECTED, PRESENT, SAID_EMBEDDED, SAID_MISSING, Layer
from clay_publish.validate.cells import scene_grid

if TYPE_CHECKING:
    from clay_publish.validate.view import View

_BATCH = 1 << 20


def layers(view: "View") -> Iterator[Layer]:
    """Expected, present and described cells of the release, some layers at a time.

    Raises:
        ReleaseError: spec, sources, embeddings or coverage do not tell enough.
    """
    if view.fingerprint.layout == "scene":
        yield from _scene_layers(view)
    else:
        raise ReleaseError("release.yaml", "has the utm layout, whose cells are not recomputed yet")


def _scene_layers(view: "View") -> list[Layer]:
    found = _expected_in_scenes(view)
    facts = view.scan.facts
    items, rows, cols = facts["items"], facts["rows"], facts["cols"]
    _mark_by_layer(found, items, rows, cols, PRESENT)
    for batch in coverage_batches(view, ["row", "col", "status", "item_ids"]):
        known = batch.column("row").is_valid().to_numpy(zero_copy_only=False)
        known &= batch.column("col").is_valid().to_numpy(zero_copy_only=False)
        item = first_items(batch, view.source_ids)
        row = batch.column("row").fill_null(0).to_numpy(zero_copy_only=False)
        col = batch.column("col").fill_null(0).to_numpy(zero_copy_only=False)
        embedded = equals(batch.column("status"), "embedded")
        for flag, which in ((SAID_EMBEDDED, known & embedded), (SAID_MISSING, known & ~embedded)):
            _mark_by_layer(found, item[which], row[which], col[which], flag)
    return [layer for layer in found if layer is not None]


def _expected_in_scenes(view: "View") -> list[Layer | None]:
    """A layer for each source item by its place; None for those that give no chips."""
    size = view.fingerprint.size
    areas = [None if block.area is None else read_area(block.area).geometry for block in view.spec.imagery]
    made: list[Layer | None] = []
    for source in view.sources.by_id.values():
        if source.status != "used" or source.shape is None:
            made.append(None)
            continue
        rows, cols = source.shape[0] // size, source.shape[1] // size
        layer = Layer(f"item {source.id}", 0, 0, np.zeros((rows, cols), np.uint8))
        area = areas[source.block] if 0 <= source.block < len(areas) else None
        if area is None:
            layer.flags[:] = EXPECTED
        else:
            row, col = np.divmod(np.arange(rows * cols), max(cols, 1))
            lon, lat = scene_grid(source, size).to_lonlat(col + 0.5, row + 0.5)
            layer.flags[:] = shapely.intersects_xy(area, lon, lat).reshape(rows, cols) * EXPECTED
        made.append(layer)
    return made


def _mark_by_layer(
    found: list[Layer | None],
    items: npt.NDArray[np.integer],
    rows: npt.NDArray[np.integer],
    cols: npt.NDArray[np.integer],
    flag: int,
) -> None:
    order = np.argsort(items, kind="stable")
    ends = np.searchsorted(items[order], np.arange(-1, len(found) + 1))
    for place, layer in enumerate(found):
        mine = order[ends[place + 1] : ends[place + 2]]
        if mine.size:
            marked = layer or Layer("an unused item", 0, 0, np.zeros((0, 0), np.uint8))
            marked.mark(rows[mine], cols[mine], flag)
            found[place] = marked


def coverage_batches(view: "View", columns: list[str]) -> Iterator[pa.RecordBatch]:
    """All rows of the coverage tables, text as dictionaries.

    Raises:
        ReleaseError: no table, no such column, or damaged.
    """
    for path in view.coverage_paths:
        missing = [name for name in columns if name not in view.schema_of(path).names]
        if missing:
            raise ReleaseError(path, f"has no column {', '.join(missing)}")
        text = [name for name in ("status", "reason") if name in columns]
        try:
            with pq.ParquetFile(
                view.release.store.arrow(path), page_checksum_verification=True, read_dictionary=text
            ) as file:
                yield from file.iter_batches(_BATCH, columns=columns)
        except (pa.ArrowException, OSError) as error:
            raise ReleaseError(path, f"cannot be read ({' '.join(str(error).split())})") from error


def first_items(batch: pa.RecordBatch, known: pa.Array) -> npt.NDArray[np.int32]:
    """Place among `known` of the first of each row's items; −1 where there is none."""
    lists = batch.column("item_ids")
    offsets = lists.offsets.to_numpy()
    some = np.flatnonzero(np.diff(offsets) > 0)
    places = np.full(len(lists), -1, np.int32)
    firsts = lists.values.take(pa.array(offsets[:-1][some]))
    places[some] = pc.index_in(firsts, value_set=known).fill_null(-1).to_numpy(zero_copy_only=False)
    return places


def equals(column: pa.Array, text: str) -> npt.NDArray[np.bool_]:
    """Which rows of a text column, plain or of dictionaries, hold this text."""
    if not pa.types.is_dictionary(column.type):
        return np.asarray(pc.equal(column.fill_null(""), text).to_numpy(zero_copy_only=False), dtype=bool)
    words = column.dictionary.to_pylist()
    if text not in words:
        return np.zeros(len(column), dtype=bool)
    same: npt.NDArray[np.bool_] = column.indices.fill_null(-1).to_numpy(zero_copy_only=False) == words.index(text)
    return same
