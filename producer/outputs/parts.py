"""What units leave in `.run/`: parts, and the receipt that says a unit is done."""

import hashlib
import io
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely

from clay_publish.errors import ReleaseError, StoreError
from clay_publish.geo.major_tom_grid import cells_at
from clay_publish.producer.encoders import Encoded
from clay_publish.producer.imagery.chips import ChipBlock
from clay_publish.release import directory as paths
from clay_publish.release.directory import DataFile, Release
from clay_publish.release.geoparquet import bbox_array
from clay_publish.release.manifest import dump_json, sha256
from clay_publish.release.tables import TIMESTAMP, Dtype, coverage_schema
from clay_publish.release.unit_receipts import RECEIPTS, PartEntry, UnitReceipt, checked_receipt, read_receipts
from clay_publish.windows import Window

PART_COVERAGE = (
    coverage_schema().append(pa.field("zone", pa.int32(), nullable=False)).append(pa.field("geometry", pa.binary()))
)
"""Coverage rows of a part: with their zone, and the footprint of what is missing, for drawing gaps."""


def quantize(vectors: npt.NDArray[np.float32], dtype: Dtype) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32] | None]:
    """[n, D] as they are stored, and the scale of each row where they are integers: value = stored × scale."""
    if dtype == "float32":
        return vectors, None
    if dtype == "float16":
        return vectors.astype(np.float16), None
    scale = (np.abs(vectors).max(axis=1) / np.float32(127)).astype(np.float32)
    scale[scale == 0] = 1  # of zeros, which patches may be
    return np.rint(vectors / scale[:, None]).astype(np.int8), scale


def sound(vectors: npt.NDArray[np.float32], dtype: Dtype) -> npt.NDArray[np.bool_]:
    """Which rows are finite as stored, and neither zero nor constant."""
    with np.errstate(over="ignore"):
        stored = vectors.astype(np.float16).astype(np.float32) if dtype == "float16" else vectors
    finite: npt.NDArray[np.bool_] = np.asarray(np.isfinite(stored).all(axis=1))
    return np.asarray(finite & (np.ptp(np.where(finite[:, None], stored, 0), axis=1) > 0), dtype=bool)


def embedding_rows(
    block: ChipBlock,
    encoded: Encoded,
    keep: npt.NDArray[np.int64],
    schema: pa.Schema,
    dtype: Dtype,
    *,
    pictures: list[bytes] | None = None,
) -> pa.Table:
    """Rows of the embeddings table for the chips `keep` of a block; `encoded`, `pictures` have one entry for each."""
    geometry = block.geometry[keep]
    vectors = encoded.embeddings
    field = schema.field("embedding").type
    sources = [item for item in (block.source[n] for n in keep) if item is not None]
    stored, scale = quantize(vectors, dtype)
    combined = [] if block.combined is None else [each for n in keep if (each := block.combined[n]) is not None]
    times = [(each.middle, each.start, each.end) for each in combined]
    times = times or [(item.acquired, item.start, item.end) for item in sources]
    columns: dict[str, Any] = {
        "id": [block.ids[n] for n in keep],
        "geometry": shapely.to_wkb(geometry),
        "bbox": bbox_array(geometry),
        "datetime": pa.array([middle for middle, _, _ in times], TIMESTAMP),
        "start_datetime": pa.array([start for _, start, _ in times], TIMESTAMP),
        "end_datetime": pa.array([end for _, _, end in times], TIMESTAMP),
        "lon": block.lon[keep],
        "lat": block.lat[keep],
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(stored.reshape(-1), field.value_type), type=field),
        "scale": scale,
        "loss": pa.nulls(len(keep), pa.float32()) if encoded.loss is None else encoded.loss,
        "valid_fraction": block.valid_fraction[keep],
        "cloud_fraction": pa.array(block.cloud_fraction[keep], pa.float32(), from_pandas=True),
        "item_id": [item.id for item in sources],
        "item_ids": [list(block.item_ids[n]) for n in keep],
        "images": [each.images for each in combined],
        "observations_min": [each.observations[0] for each in combined],
        "observations_median": [each.observations[1] for each in combined],
        "epsg": pa.array([block.epsg] * len(keep), pa.int32()),
        "row": block.rows[keep],
        "col": block.cols[keep],
    }
    if "grid_cell" in schema.names:
        columns["grid_cell"] = cells_at(block.lon[keep], block.lat[keep])
    if pictures is not None:
        names = [f"{block.ids[n]}.webp" for n in keep]
        columns["thumbnail"] = [{"bytes": b, "path": n} for b, n in zip(pictures, names, strict=True)]
    arrays = [pa.array(columns[f.name], f.type) for f in schema]
    return pa.Table.from_arrays(arrays, schema=schema.remove_metadata())


def coverage_rows(block: ChipBlock, window: Window) -> pa.Table:
    """Rows of a coverage part for all chips of a block."""
    count = len(block.ids)
    outline = block.geometry.copy()
    outline[[reason is None for reason in block.reasons]] = None
    columns = {
        "id": block.ids,
        "epsg": pa.array([block.epsg] * count, pa.int32()),
        "row": block.rows,
        "col": block.cols,
        "window_start": [window.start] * count,
        "window_end": [window.end] * count,
        "status": ["missing" if reason else "embedded" for reason in block.reasons],
        "reason": block.reasons,
        "item_ids": [list(ids) for ids in block.item_ids],
        "detail": block.details,
        "zone": [square.zone for square in block.squares],
        "geometry": shapely.to_wkb(outline),
    }
    arrays = [pa.array(columns[f.name], f.type) for f in PART_COVERAGE]
    return pa.Table.from_arrays(arrays, schema=PART_COVERAGE)


_AT_ONCE = 8
PARTS = f"{paths.RUN}/parts"
COVERAGE = "coverage"
"""Name of a unit's part that holds its coverage rows."""
PATCHES_PREFIX = "patches_"
"""How the name of a part begins that holds patches."""


def part_path(unit: str, token: str) -> str:
    """Where a part lies: by published file, so that all parts of a file lie together."""
    return f"{PARTS}/{token}/{unit}.arrow"


def write_part(release: Release, unit: str, token: str, tables: Iterable[pa.Table]) -> PartEntry:
    """Write rows as an Arrow file; it appears complete or not at all."""
    table = pa.concat_tables(tables).combine_chunks()
    buffer = io.BytesIO()
    with pa.ipc.new_file(buffer, table.schema) as writer:
        writer.write_table(table)
    data = buffer.getbuffer()
    digest = hashlib.sha256(data).hexdigest()
    release.store.write(part_path(unit, token), bytes(data))
    zones = _zones(table) if token == COVERAGE else {}
    return PartEntry(sha256=digest, rows=table.num_rows, zones=zones)


def grid_rows(coverage: pa.Table) -> npt.NDArray[np.int64]:
    """A number for the grid row of each row of coverage: ascending in the order of `epsg` and `row`, null last."""
    last = np.iinfo(np.int32).max
    epsg, row = (coverage[name].cast(pa.int64()).fill_null(last).to_numpy() for name in ("epsg", "row"))
    return np.asarray(epsg << 32 | row + last + 1)


def _zones(coverage: pa.Table) -> dict[int, tuple[int, int]]:
    zone, place = coverage["zone"].to_numpy(), grid_rows(coverage)
    mine = {number: place[zone == number] for number in np.unique(zone).tolist()}
    return {number: (int(places.min()), int(places.max())) for number, places in mine.items()}


def read_part(release: Release, receipt: UnitReceipt, token: str) -> pa.Table:
    """Rows of a part, memory-mapped; what lies on a server is fetched to this machine's disk first.

    Raises:
        ReleaseError: it is not what the receipt says.
    """
    path = part_path(receipt.unit, token)
    entry = receipt.parts[token]
    buffer = release.store.mapped(path).read_buffer()
    if hashlib.sha256(memoryview(buffer)).hexdigest() != entry.sha256:
        raise ReleaseError(
            release.store.path(path),
            "is damaged",
            f"SHA-256 {entry.sha256}",
            "Rerun the command; damaged parts are computed again.",
        )
    return pa.ipc.open_file(buffer).read_all()


def read_parts(release: Release, receipts: Iterable[UnitReceipt], token: str) -> list[pa.Table]:
    """The parts of this name of those units that have one, in their order; errors as `read_part`."""
    mine = [receipt for receipt in receipts if token in receipt.parts]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(lambda receipt: read_part(release, receipt, token), mine))


def remove_all(release: Release, files: Iterable[str]) -> None:
    """Remove files, a few at a time: on a server most of the time is spent waiting."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(release.store.remove, files))


def part_is_whole(release: Release, receipt: UnitReceipt, token: str) -> bool:
    """Whether a part that is there holds what its receipt says.

    A server has compared what it took, and to ask again would be to fetch it all: `read_part` compares it once more.
    """
    if not release.store.local:
        return True
    return sha256(release.store, part_path(receipt.unit, token)) == receipt.parts[token].sha256


def file_of(token: str) -> DataFile | None:
    """The published file whose rows a part holds; None for the other parts of a unit."""
    try:
        return DataFile.parse(f"zone={token[:2]}/{token}.parquet")
    except ReleaseError:
        return None


def standing(release: Release) -> frozenset[str]:
    """Paths of all parts and published files, listed at once: to ask a server for each would take hours."""
    return frozenset(
        path for folder in (PARTS, paths.EMBEDDINGS, paths.PATCHES) for path in release.store.files(folder)
    )


def is_listed(receipt: UnitReceipt, there: Collection[str]) -> bool:
    """Whether all that a receipt speaks of is among these files: as a part, or in its published file."""
    return all(part_path(receipt.unit, token) in there or _published(token) in there for token in receipt.parts)


def is_there(release: Release, receipt: UnitReceipt, there: Collection[str]) -> bool:
    """Whether all that a receipt speaks of is among these files, and its parts are not damaged."""
    if not is_listed(receipt, there):
        return False
    for token in receipt.parts:
        path, published = part_path(receipt.unit, token), _published(token)
        if path not in there:
            continue
        try:
            if not part_is_whole(release, receipt, token):
                return False
        except StoreError:  # a run at work may have published its file, and removed it, since these were listed
            if release.store.exists(path):
                raise
            if published is None or not release.store.exists(published):
                return False
    return True


def finished_units(release: Release, *, failed: bool = False) -> dict[str, UnitReceipt]:
    """Receipts of the units that no run does again, by unit; with `failed`, of those that failed, too."""
    there = standing(release)
    return {
        name: receipt
        for name, receipt in read_receipts(release).items()
        if (failed or receipt.error is None) and is_there(release, receipt, there)
    }


def _published(token: str) -> str | None:
    folder = paths.PATCHES if token.startswith(PATCHES_PREFIX) else paths.EMBEDDINGS
    file = file_of(token.removeprefix(PATCHES_PREFIX))
    return None if file is None else f"{folder}/{file.name}"


def write_receipt(release: Release, receipt: UnitReceipt) -> UnitReceipt:
    """From now on the unit is done. Of several that did it the first is believed; its receipt is given back.

    Unless that one failed, or lists parts that are missing or differ.
    """
    path, data = f"{RECEIPTS}/{receipt.unit}.json", dump_json(receipt.model_dump(mode="json")).encode()
    while not release.store.create(path, data):
        found = release.store.read_tagged(path)
        if found is None:
            continue
        there = checked_receipt(release, path, found[0])
        if _stays(release, there, receipt):
            return there
        both = receipt.model_copy(update={"seconds": receipt.seconds + there.seconds})  # what it cost in all
        if release.store.put(path, dump_json(both.model_dump(mode="json")).encode(), found[1]) is not None:
            return both
    return receipt


def _stays(release: Release, there: UnitReceipt, other: UnitReceipt) -> bool:
    """Whether a receipt that is there is as good as another of the same unit."""
    if there.error is not None:
        return False
    return there.parts == other.parts if other.error is None else is_there(release, there, standing(release))
