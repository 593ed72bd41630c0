"""The shards of the arrays: what each is made of, and the receipts of those that are assembled. Needs no zarr."""

import hashlib
import importlib.metadata
import math
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from clay_publish.producer.encoders import Encoder
from clay_publish.producer.layouts.base import Unit
from clay_publish.producer.layouts.utm_layout import UtmUnit
from clay_publish.producer.outputs.parts import remove_all
from clay_publish.release import array_store as names
from clay_publish.release import directory as paths
from clay_publish.release.array_store import ArrayGrid
from clay_publish.release.directory import DataFile, Release, checked
from clay_publish.release.fingerprint import Fingerprint, canonical_json
from clay_publish.release.manifest import ARRAY_LIBRARIES, dump_json
from clay_publish.release.unit_receipts import UnitReceipt, receipts_digest
from clay_publish.search.arrays.cells import CellBox
from clay_publish.spec.models import Spec

SHARDS = f"{paths.RUN}/shards"
"""One receipt per assembled shard."""
_READ_AT_ONCE = 16


@dataclass(frozen=True)
class ArrayGroup:
    """A group that every zone may have: the chips, or the patches of one layer."""

    name: str
    """Below the zone's group; empty: the zone's group itself."""
    grid: ArrayGrid
    layer: int = 0
    """Of patches: place of the layer among those of a chip."""

    @property
    def layer_patches(self) -> int:
        """Patches per chip and layer."""
        return self.grid.patches**2


def array_groups(spec: Spec, fingerprint: Fingerprint, encoder: Encoder) -> list[ArrayGroup]:
    """The groups of a zone; the chips first."""
    width = 1 if spec.outputs.array_dtype == "int8" else 2
    cell = fingerprint.size * (fingerprint.gsd or 0)
    groups = [ArrayGroup("", ArrayGrid(cell, fingerprint.dimensions, width))]
    if spec.outputs.patch_format != "zarr":
        return groups
    layers = encoder.patch_layers
    grid = ArrayGrid(cell, fingerprint.dimensions, width, math.isqrt(encoder.patches // len(layers)))
    for place, layer in enumerate(layers):
        name = names.patches_group(layer if spec.outputs.patch_layers is not None else None)
        groups.append(ArrayGroup(name, grid, place))
    return groups


@dataclass(frozen=True, order=True)
class Shard:
    """A shard of each array of one group, by its place in the arrays."""

    zone: int
    group: str
    """Below the zone's group."""
    time: int
    south: int
    east: int

    @property
    def folder(self) -> str:
        """The group, below the store."""
        return f"{names.zone_group(self.zone)}/{self.group}".rstrip("/")

    @property
    def name(self) -> str:
        """`utm18/patches/0/912/34`."""
        return f"{self.folder}/{self.time}/{self.south}/{self.east}"

    def box(self, grid: ArrayGrid) -> CellBox:
        """Its cells."""
        side = grid.cells_per_shard
        top, left = grid.row_top - self.south * side, self.east * side
        return CellBox(self.zone, (top - side + 1, top + 1), (left, left + side))


def shards_of(units: Iterable[Unit], spec: Spec, groups: Sequence[ArrayGroup]) -> dict[Shard, set[DataFile]]:
    """Every shard that the expected chips of units lie in, and the files that hold these chips."""
    windows = {window: time for time, window in enumerate(names.array_windows(spec))}
    found: dict[Shard, set[DataFile]] = {}
    for unit in units:
        assert isinstance(unit, UtmUnit), "arrays need the utm layout"
        for group in groups:
            side, top = group.grid.cells_per_shard, group.grid.row_top
            places = np.stack([(top - unit.cells.rows) // side, unit.cells.cols // side], axis=1)
            for south, east in np.unique(places, axis=0).tolist():
                shard = Shard(unit.cells.cut.square.zone, group.name, windows[unit.window], south, east)
                found.setdefault(shard, set()).update(unit.files)
    return found


@dataclass(frozen=True)
class ReadyShard:
    """A shard whose files are all published."""

    shard: Shard
    files: tuple[DataFile, ...]
    receipts: tuple[UnitReceipt, ...]
    """Of the units of these files."""

    def source(self, spec: Spec) -> str:
        """SHA-256 of all that decides its bytes."""
        document = {
            "shard": self.shard.name,
            "files": [file.token for file in self.files],
            "receipts": receipts_digest(self.receipts),
            "made": array_record(spec),
        }
        return hashlib.sha256(canonical_json(document)).hexdigest()


def array_record(spec: Spec) -> dict[str, Any]:
    """What decides the bytes of all shards, beside the rows: `.run/arrays.json` of a finished run."""
    return {
        "outputs": spec.outputs.model_dump(mode="json", include={"arrays", "patches"}),
        "libraries": array_libraries(),
    }


def array_libraries() -> dict[str, str]:
    """Versions of the libraries that decide the bytes of arrays."""
    return {name: importlib.metadata.version(name) for name in ARRAY_LIBRARIES}


class ShardReceipt(BaseModel):
    """An assembled shard. Written after its files."""

    model_config = ConfigDict(frozen=True)

    shard: str
    source: str
    """As `ReadyShard.source` gives it."""
    files: list[str]
    """Paths in the release."""

    @classmethod
    def read(cls, release: Release, path: str) -> "ShardReceipt | None":
        """Read a receipt; None where there is none.

        Raises:
            ReleaseError: it cannot be read.
        """
        found = release.store.read_tagged(path)
        if found is None:
            return None
        return checked(cls, found[0], release.store.path(path), "a receipt", "Remove it; the shard is assembled again.")

    def write(self, release: Release) -> None:
        """From now on the shard is done."""
        release.store.write(receipt_path(self.shard), dump_json(self.model_dump(mode="json")))


def receipt_path(shard: str) -> str:
    """Where the receipt of a shard lies."""
    return f"{SHARDS}/{shard}.json"


def assembled_shards(release: Release, *, remove: bool = False) -> dict[str, ShardReceipt]:
    """Receipts of the shards all of whose files are there, by name.

    Args:
        release: that is being made.
        remove: remove the other receipts; no other process may be at work.
    """
    with ThreadPoolExecutor(_READ_AT_ONCE) as pool:
        read = pool.map(lambda path: ShardReceipt.read(release, path), release.store.files(SHARDS))
        found = [receipt for receipt in read if receipt is not None]
    there = frozenset(release.store.files(paths.ARRAYS))  # listed after the receipts, which are written after the files
    whole = {receipt.shard: receipt for receipt in found if there.issuperset(receipt.files)}
    if remove:
        remove_all(release, [receipt_path(each.shard) for each in found if each.shard not in whole])
    return whole


def remove_arrays(release: Release) -> None:
    """Remove the arrays of an earlier spec, and what was kept of how they were made."""
    remove_all(release, [*release.store.files(paths.ARRAYS), *release.store.files(SHARDS), names.MADE])


def arrays_as_asked(release: Release, spec: Spec) -> bool:
    """Whether a finished release has the arrays that its spec asks for now, which may have been changed since."""
    if spec.outputs.array_dtype is None:
        return not release.store.exists(names.MADE)
    return release.store.exists(names.MADE) and release.json(names.MADE) == array_record(spec)
