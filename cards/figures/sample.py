"""The chips that pictures and quality figures are made from: all of them, or evenly chosen row groups of a big release.

Vectors are seen twice, a row group at a time; what is kept of a chip is a handful of numbers.
"""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from clay_publish.errors import ReleaseError
from clay_publish.release import directory as paths
from clay_publish.release.directory import Release

Floats = npt.NDArray[np.float64]

POINTS = 500_000
"""More points than this, or twice as many, hide one another."""

POLYGONS = 30_000
"""More chips than this are smaller than a few dots each, and are drawn as points."""


@dataclass(frozen=True)
class ChipPositions:
    """Footprints and centers."""

    geometry: npt.NDArray[np.object_]
    """WKB; empty where the chips are too many to be drawn as polygons."""
    lon: Floats
    lat: Floats


def read_ground(release: Release) -> ChipPositions:
    """Read it; of very many chips every second, third and so on, as `POINTS` says.

    Raises:
        ReleaseError: an embeddings file cannot be read.
    """
    files = release.data_files()
    total = sum(release.parquet(path).metadata.num_rows for path in files)
    draw, step = total <= POLYGONS, max(1, total // POINTS)
    columns = ["lon", "lat", *(["geometry"] if draw else [])]
    tables, start = [], 0
    for path in files:
        table = release.parquet(path).read(columns=columns)
        tables.append(table.take(np.arange(-start % step, table.num_rows, step)) if step > 1 else table)
        start += table.num_rows
    return ChipPositions(
        geometry=np.array([g for t in tables for g in t.column("geometry").to_pylist()] if draw else [], dtype=object),
        lon=np.concatenate([t.column("lon").to_numpy() for t in tables]),
        lat=np.concatenate([t.column("lat").to_numpy() for t in tables]),
    )


@dataclass(frozen=True)
class GapPolygon:
    """Ground without an embedding."""

    reason: str
    geometry: shapely.Geometry


def read_gaps(release: Release) -> list[GapPolygon]:
    """The gaps; none where the release has no such file.

    Raises:
        ReleaseError: the file holds no polygons with reasons.
    """
    if not release.store.exists(paths.GAPS):
        return []
    try:
        return [
            GapPolygon(str(feature["properties"]["reason"]), shapely.from_geojson(json.dumps(feature["geometry"])))
            for feature in release.json(paths.GAPS)["features"]
            if feature["geometry"] is not None
        ]
    except (KeyError, TypeError, shapely.errors.GEOSException) as error:
        raise ReleaseError(
            release.store.path(paths.GAPS), f"is not a collection of gaps ({error!r})", "polygons with a reason"
        ) from error


BUDGET, ROWS = 1 << 30, 2_000_000
"""Bytes of stored vectors, and chips, that are read for the pictures."""

FITTED = 20_000
"""Vectors the principal components are computed from."""


@dataclass(frozen=True)
class Components:
    """Principal axes of the vectors."""

    mean: Floats
    """[D]."""
    axes: Floats
    """[3, D], or fewer where the vectors span less."""
    explained: Floats
    """[3], share of the variance."""
    effective: float
    """How many equally strong directions would spread the vectors as much: (Σλ)² / Σλ²."""


@dataclass(frozen=True)
class Sample:
    """Chips of a release, without their vectors."""

    total: int
    """Chips of the release."""
    ground: ChipPositions
    norms: Floats
    """Length of each vector."""
    loss: Floats
    """NaN where there is none."""
    cosine: float | None
    """Mean cosine similarity of two chips drawn at random; None where there is only one."""
    scores: Floats
    """[n, 3]: the vectors on the principal axes."""
    components: Components

    @property
    def whole(self) -> bool:
        """Whether this is every chip."""
        return len(self.norms) == self.total


@dataclass(frozen=True)
class _RowGroup:
    path: str
    number: int
    rows: int
    size: int


def vectors(table: pa.Table | pa.RecordBatch) -> npt.NDArray[np.float32]:
    """The embeddings of a table as [n, D] float32, dequantized where they are integers."""
    column = table.column("embedding")
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    flat = array.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    found: npt.NDArray[np.float32] = flat.reshape(table.num_rows, -1)
    if "scale" in table.schema.names:
        found = found * table.column("scale").to_numpy().astype(np.float32)[:, None]
    return found


def read_sample(release: Release) -> Sample:
    """Read it.

    Raises:
        ReleaseError: an embeddings file cannot be read.
    """
    groups = list(_row_groups(release))
    total = sum(group.rows for group in groups)
    chosen = _within_budget(groups)
    components = _fit(release, chosen)
    described = _DESCRIBED if sum(group.rows for group in chosen) <= POLYGONS else _DESCRIBED[1:]
    parts = [_describe(_read(release, group, described), components) for group in chosen]
    joined = [np.concatenate(column) for column in zip(*parts, strict=True)]
    geometry, lon, lat, norms, loss, directions, scores = joined
    ground = ChipPositions(geometry, lon, lat)
    return Sample(total, ground, norms, loss, _cosine(directions, len(norms)), scores, components)


def _row_groups(release: Release) -> Iterator[_RowGroup]:
    for path in release.data_files():
        footer = release.parquet(path).metadata
        for number in range(footer.num_row_groups):
            group = footer.row_group(number)
            if group.num_rows:
                yield _RowGroup(path, number, group.num_rows, group.total_byte_size)


def _within_budget(groups: list[_RowGroup]) -> list[_RowGroup]:
    share = min(BUDGET / max(sum(g.size for g in groups), 1), ROWS / max(sum(g.rows for g in groups), 1))
    if share >= 1:
        return groups
    places = np.linspace(0, len(groups) - 1, max(1, int(len(groups) * share))).astype(int)
    return [groups[place] for place in np.unique(places)]


_DESCRIBED = ("geometry", "lon", "lat", "loss")


def _read(release: Release, group: _RowGroup, described: Collection[str] = ()) -> pa.Table:
    file: pq.ParquetFile = release.parquet(group.path)
    wanted = {"embedding", "scale", *described}
    columns = [name for name in file.schema_arrow.names if name in wanted]
    return file.read_row_group(group.number, columns=columns)


def _fit(release: Release, groups: list[_RowGroup]) -> Components:
    step = max(1, sum(group.rows for group in groups) // FITTED)
    chosen = []
    for group in groups:
        table = _read(release, group)
        chosen.append(vectors(table.take(np.arange(0, group.rows, step))))
    data = np.concatenate(chosen).astype(np.float64)
    return principal_components(data[np.isfinite(data).all(axis=1)])


def principal_components(data: Floats) -> Components:
    """The first three principal axes of vectors, [n, D]; zero where there is no variance left.

    The sign of an axis is arbitrary: its largest entry is made positive, so that pictures are the same every time.
    """
    mean = data.mean(axis=0)
    centered = data - mean
    # Eigenvectors of the smaller of the two Gram matrices.
    if len(centered) < centered.shape[1]:
        values, left = np.linalg.eigh(centered @ centered.T)
        axes = _normalized(left.T @ centered)
    else:
        values, right = np.linalg.eigh(centered.T @ centered)
        axes = right.T
    values, axes = np.maximum(values[::-1], 0), axes[::-1]
    whole = values.sum()
    if whole == 0:
        return Components(mean, np.zeros((3, data.shape[1])), np.zeros(3), 0.0)
    first, shares = np.zeros((3, data.shape[1])), np.zeros(3)
    found = min(3, len(values))
    signs = np.sign(axes[np.arange(found), np.abs(axes[:found]).argmax(axis=1)])
    first[:found], shares[:found] = axes[:found] * signs[:, None], values[:found] / whole
    return Components(mean, first, shares, float(whole**2 / (values**2).sum()))


def _normalized(rows: Floats) -> Floats:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    made: Floats = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    return made


def _describe(table: pa.Table, components: Components) -> tuple[npt.NDArray[np.generic], ...]:
    found = vectors(table).astype(np.float64)
    norms = np.linalg.norm(found, axis=1)
    directions = np.divide(found, norms[:, None], out=np.zeros_like(found), where=norms[:, None] > 0)
    loss = table.column("loss").to_numpy().astype(np.float64)
    return (
        np.array(table["geometry"].to_pylist() if "geometry" in table.column_names else [], dtype=object),
        table.column("lon").to_numpy(),
        table.column("lat").to_numpy(),
        norms,
        loss,
        directions.sum(axis=0, keepdims=True),
        (found - components.mean) @ components.axes.T,
    )


def _cosine(directions: Floats, number: int) -> float | None:
    """Mean over all pairs of different chips, from the sum of their unit vectors: (|Σu|² − n) / (n (n − 1))."""
    if number < 2:
        return None
    total = directions.sum(axis=0)
    return float((total @ total - number) / (number * (number - 1)))


@dataclass(frozen=True)
class Spread:
    """How values are distributed."""

    low: float
    """Smallest."""
    lower: float
    """5th percentile."""
    median: float
    upper: float
    """95th percentile."""
    high: float
    """Largest."""

    @classmethod
    def of(cls, values: Floats) -> "Spread":
        """The spread of at least one value."""
        low, lower, median, upper, high = (float(v) for v in np.percentile(values, [0, 5, 50, 95, 100]))
        return cls(low, lower, median, upper, high)


@dataclass(frozen=True)
class Quality:
    """What was found."""

    vectors: int
    """How many were looked at."""
    whole: bool
    """Whether these are all there are."""
    norm: Spread
    loss: Spread | None
    cosine: float | None
    """Mean cosine similarity of two chips drawn at random; None where there is only one."""
    explained: float
    """Share of the variance in the first three principal components."""
    effective: float
    """Effective number of dimensions."""


def quality(sample: Sample) -> Quality:
    """Sum up a sample."""
    losses = sample.loss[np.isfinite(sample.loss)]
    return Quality(
        vectors=len(sample.norms),
        whole=sample.whole,
        norm=Spread.of(sample.norms),
        loss=Spread.of(losses) if len(losses) else None,
        cosine=sample.cosine,
        explained=float(sample.components.explained.sum()),
        effective=sample.components.effective,
    )
