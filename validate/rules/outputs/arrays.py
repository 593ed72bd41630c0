"""Rules on the arrays: which there are, and what they are made of."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from clay_publish.errors import require_extra
from clay_publish.release.array_store import (
    BLOCK_CELLS,
    BLOCK_CHIPS,
    SHARD_BYTES,
    STORE,
    array_windows,
    coverage_zone,
    patches_group,
    zone_group,
)
from clay_publish.release.benchmarks import GEOEMB, benchmark_addresses
from clay_publish.release.directory import ARRAYS, COVERAGE
from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.data.zarr_groups import MAX_CHUNK, ArrayDocument, GroupDocument
from clay_publish.validate.outcomes import Fault, NotChecked, Outcome, Sampled
from clay_publish.validate.registry import rule

_PIXEL = 1e-6
"""Of a pixel, by which a coordinate may be off."""
_MAX_COORDINATES = 20_000_000


def _alone(context: ReleaseContext) -> bool:
    """Whether the release is a store, without tables that it could be held against."""
    return context.zarr.folder == ""


@rule("ARR001")
def arrays_are_as_asked(context: ReleaseContext) -> Iterator[Outcome]:
    """The store and its groups against `release.yaml` and the zones of the coverage."""
    outputs = context.documents.spec.outputs
    present = sorted({path.split("/")[1] for path in context.files.paths if path.startswith(f"{ARRAYS}/")})
    if outputs.array_dtype is None:
        if present:
            yield Fault(ARRAYS, "is there", "no arrays, as release.yaml asks for none")
        return
    if not context.zarr.groups:
        yield Fault(STORE, "is missing", "arrays, as release.yaml asks for them")
        return
    if others := [name for name in present if name != STORE.partition("/")[2]]:
        yield Fault(f"{ARRAYS}/{others[0]}", "is there", f"{STORE} alone")
    zones = {coverage_zone(path) for path in context.tables.coverage}
    layers: list[int | None] = [*outputs.patch_layers] if outputs.patch_layers else [None]
    below = ["", *(f"/{patches_group(layer)}" for layer in layers)] if outputs.patch_format == "zarr" else [""]
    expected = {"", *(f"{zone_group(zone)}{name}" for zone in zones for name in below)}
    found = set(context.zarr.groups)
    for name in sorted(expected - found):
        yield Fault(f"{STORE}/{name}", "is missing", f"a group for every zone of {COVERAGE}/")
    for name in sorted(found - expected):
        yield Fault(f"{STORE}/{name}", "is there", "groups of the zones and outputs of the release alone")


@rule("ARR003")
def arrays_are_as_described(context: ReleaseContext) -> Iterator[Outcome]:
    """Types, dimensions, shards and coordinates against the attributes, and these against fingerprint and spec."""
    groups = context.zarr.groups
    if _alone(context) and all(group.vectors() is None for group in groups.values()):  # ARR002 says why
        yield NotChecked("no array of vectors is known")
    for name, group in groups.items():
        vectors = group.vectors()
        if vectors is None:
            if name and not _alone(context) and group.arrays:
                yield Fault(
                    group.path, "has no array of embeddings", f"one with {group.stated.get('geoemb:dimensions')}"
                )
            continue
        if vectors.dtype != group.stated.get("geoemb:data_type"):
            yield Fault(
                vectors.path, f"holds {vectors.dtype}", f"{group.stated.get('geoemb:data_type')} as geoemb: says"
            )
        if not _alone(context):
            yield from _of_release(context, name, group, vectors)
        yield from _coordinates(context, group)
    if not _alone(context):
        yield from _consolidated(context)


def _of_release(context: ReleaseContext, name: str, group: GroupDocument, vectors: ArrayDocument) -> Iterator[Outcome]:
    made, spec = context.fingerprint, context.documents.spec
    cells = group.attributes.get("embrel:cells")
    patches = cells.get("patches") if isinstance(cells, dict) else None
    top = cells.get("row_top") if isinstance(cells, dict) else None
    if not (isinstance(patches, int) and patches >= 1 and isinstance(top, int)):
        yield Fault(f"{group.where}: embrel:cells", f"{cells!r:.60}", "row_top and patches")
        return
    side = made.size * (made.gsd or 0)
    windows = array_windows(spec)
    block = BLOCK_CHIPS if patches == 1 else BLOCK_CELLS * patches
    shard = vectors.shard[1:3]
    transform = [side / patches, 0.0, 0.0, 0.0, -side / patches, (top + 1) * side]
    facts: dict[str, tuple[Any, Any]] = {
        "geoemb:dimensions": (group.attributes.get("geoemb:dimensions"), made.dimensions),
        "geoemb:data_type": (group.attributes.get("geoemb:data_type"), spec.outputs.array_dtype),
        "geoemb:model": (group.attributes.get("geoemb:model"), made.model_link),
        "embrel:fingerprint": (group.attributes.get("embrel:fingerprint"), made.digest),
        GEOEMB: (group.attributes.get(GEOEMB), benchmark_addresses(context.files.release, spec) or None),
    }
    if name:
        facts |= {
            "proj:code": (group.attributes.get("proj:code"), f"EPSG:{32600 + int(name[3:5])}"),
            "spatial:transform": (group.attributes.get("spatial:transform"), transform),
            "embrel:windows": (group.attributes.get("embrel:windows"), [str(window) for window in windows]),
            "chip_size": (_chip_size(group), [made.size // patches] * 2),
        }
    for key, (found, expected) in facts.items():
        if found != expected:
            yield Fault(f"{group.where}: {key}", f"{found!r:.60}", f"{expected!r:.60}")
    if vectors.dims != ("time", "y", "x", "band"):
        yield Fault(vectors.path, f"has dimensions {', '.join(vectors.dims)}", "time, y, x, band")
    if vectors.shape[:1] != (len(windows),):
        yield Fault(vectors.path, f"has {vectors.shape[0]} time steps", f"{len(windows)}, the windows of release.yaml")
    width = 1 if spec.outputs.array_dtype == "int8" else 2
    aligned = len(shard) == 2 and all(n and block % n == 0 for n in shard) and (top + 1) * patches % block == 0
    if not aligned or vectors.shard[:1] != (1,) or np.prod(vectors.shard) * width > SHARD_BYTES:
        found, most = f"has shards of {list(vectors.shard)} from row {top}", SHARD_BYTES >> 20
        yield Fault(
            vectors.path, found, f"one time step, at most {most} MiB, whole shards in {block} pixels from row 0"
        )


def _chip_size(group: GroupDocument) -> Any:
    layout = group.attributes.get("geoemb:chip_layout")
    return layout.get("chip_size") if isinstance(layout, dict) else None


def _consolidated(context: ReleaseContext) -> Iterator[Outcome]:
    """Readers believe the metadata that a group holds of what lies below it."""
    for name, group in context.zarr.groups.items():
        consolidated = group.document.get("consolidated_metadata")
        if consolidated is None and "/" in name:
            continue
        members = consolidated.get("metadata") if isinstance(consolidated, dict) else None
        start = f"{group.path}/"
        below = {
            path.removeprefix(start): doc for path, doc in context.zarr.documents.items() if path.startswith(start)
        }
        if not isinstance(members, dict) or members.keys() != below.keys():
            yield Fault(
                f"{group.where}: consolidated_metadata", "does not list what lies below", f"{len(below)} members"
            )
            continue
        for path, document in below.items():
            if members[path] != {k: v for k, v in document.items() if k != "consolidated_metadata"}:
                yield Fault(
                    f"{group.where}: consolidated_metadata", f"{path} differs", f"as in {start}{path}/zarr.json"
                )


def _coordinates(context: ReleaseContext, group: GroupDocument) -> Iterator[Outcome]:
    """Coordinates of the first and last pixels against the transform."""
    transform, dims = group.stated.get("spatial:transform"), group.stated.get("spatial:dimensions")
    if not (isinstance(transform, list) and len(transform) == 6 and isinstance(dims, list) and len(dims) == 2):
        return
    for dim, step, start in ((dims[0], transform[4], transform[5]), (dims[1], transform[0], transform[2])):
        array = group.arrays.get(str(dim))
        if array is None:
            if not _alone(context):
                yield Fault(f"{group.path}/{dim}", "is missing", "the coordinate of the dimension")
            continue
        if array.chunk_bytes > MAX_CHUNK or len(array.shape) != 1 or not 0 < array.shape[0] < _MAX_COORDINATES:
            yield NotChecked(f"{array.path} is too large to be read")
            continue
        values = np.asarray(context.zarr_array(array.path)[:], np.float64)
        expected = start + (np.arange(len(values)) + 0.5) * step
        if not np.allclose(values, expected, rtol=1e-12, atol=abs(step) * _PIXEL):
            row = int(np.argmax(~np.isclose(values, expected, rtol=1e-12, atol=abs(step) * _PIXEL)))
            yield Fault(f"{array.path}: {row}", f"{values[row]}", f"{expected[row]}, as spatial:transform gives")


@rule("ARR006")
def stores_hold_vectors(context: ReleaseContext) -> Iterator[Outcome]:
    """Some chunks of a store that is validated on its own: vectors that are finite and not all the same."""
    if not _alone(context):
        return
    require_extra("arrays", "the store")
    context.files.read_whole("the store")
    found = [(group, vectors) for group in context.zarr.groups.values() if (vectors := group.vectors()) is not None]
    if not found:  # ARR002 says why
        yield NotChecked("no array of vectors is known")
    for group, vectors in found:
        yield from _store(context, group, vectors)


def _store(context: ReleaseContext, group: GroupDocument, vectors: ArrayDocument) -> Iterator[Outcome]:
    places = {path: place for path in context.files.paths if (place := vectors.chunk_of(path)) is not None}
    keys = sorted(places)
    if not keys:
        yield NotChecked(f"{vectors.path} has no chunk that could be listed")
        return
    if vectors.chunk_bytes > MAX_CHUNK:
        yield NotChecked(f"{vectors.path} has chunks of {vectors.chunk_bytes:,} bytes, too large to be read")
        return
    array = context.zarr_array(vectors.path)
    band = vectors.shape.index(group.stated["geoemb:dimensions"])
    chosen = keys[:: max(1, -(-len(keys) // 8))]
    for key in chosen:
        values = np.moveaxis(np.asarray(array[vectors.middle(places[key])]), band, -1).reshape(-1, vectors.shape[band])
        fill = np.asarray(array.fill_value)
        there = ~((values == fill) | (np.isnan(values) & np.isnan(fill))).all(axis=1)
        rows = values[there].astype(np.float64)
        if len(rows) and not np.isfinite(rows).all():
            yield Fault(key, "holds NaN or infinite values beside others", "whole vectors, or nodata")
        elif len(rows) and (np.ptp(rows, axis=1) == 0).any():
            yield Fault(key, f"{int((np.ptp(rows, axis=1) == 0).sum())} vectors are the same everywhere", "vectors")
    yield Sampled(len(chosen), len(keys), "shards")
