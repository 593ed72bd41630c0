"""Labels joined to the embeddings of releases, and to baselines that need no model."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image, UnidentifiedImageError

from clay_publish.errors import ReleaseError
from clay_publish.release.benchmarks import Sampling, Task
from clay_publish.search.nearest import unit_vectors
from clay_publish.search.points import coordinates
from clay_publish.search.query import QueryError
from clay_publish.search.reader import ReleaseReader

Floats = npt.NDArray[np.float64]

DEGREES = 10
"""Degrees of the spherical harmonics: 0 to 9, 100 features."""
_FEW = 20
"""A column of so few different integers may be classes or counts."""


@dataclass(frozen=True)
class FeatureSet:
    """One description of every place."""

    name: str
    values: Floats
    """[n, D]."""


@dataclass(frozen=True)
class Samples:
    """The places of a comparison; arrays have one entry per place."""

    lon: Floats
    lat: Floats
    target: npt.NDArray[np.generic]
    """float64 of a regression, text of a classification."""
    task: Task
    chips: npt.NDArray[np.str_]
    """Id of the chip of the first release."""
    features: tuple[FeatureSet, ...]
    sampling: Sampling
    side_m: float
    """Side of the largest chip."""


def collect(
    readers: Sequence[ReleaseReader],
    labels: pa.Table,
    target: str,
    *,
    task: Task | None = None,
    max_distance: float | None = None,
    datetime: str | None = None,
) -> Samples:
    """Join each labeled place to the nearest chip of every release.

    All releases are compared on the same places: those with a label and with a chip of each release.

    Args:
        readers: the releases, the evaluated one first.
        labels: has columns of longitude and latitude, and the target.
        target: column to predict.
        task: default: regression for real numbers, classification for text and truth values.
        max_distance: meters to the center of the chip; default: a chip's side of each release.
        datetime: as `ReleaseReader.sample`.

    Raises:
        QueryError: no such column, a target that may be numbers or classes, or no place left.
    """
    lon, lat = coordinates(labels)
    column = _column(labels, target)
    task = task or _task(column, target)
    values, labeled = _values(column, target, task)
    places = pa.table({"lon": lon, "lat": lat})
    near = labeled.copy()
    joined = []
    limits = [reader.chip_side if max_distance is None else max_distance for reader in readers]
    for reader, limit in zip(readers, limits, strict=True):
        found = reader.sample(places, datetime, max_distance=limit)
        joined.append(found)
        near &= pc.is_valid(found["distance"]).to_numpy(zero_copy_only=False)
    if not near.any():
        raise QueryError(
            f"labels, column {target}",
            f"no labeled place of {labels.num_rows:,} is near a chip of every release",
            f"places within {max(limits):g} m of a chip",
            "Check that longitude and latitude are not swapped, or pass --max-distance METERS.",
        )
    rows = np.flatnonzero(near)
    kept = [found.take(pa.array(rows)) for found in joined]
    chips = kept[0]["chip_id"].to_numpy(zero_copy_only=False).astype(str)
    features = [FeatureSet(name, _matrix(table)) for name, table in zip(_names(readers), kept, strict=True)]
    thumbnails = _thumbnail_features(readers[0], chips, lon[rows], lat[rows])
    features += [] if thumbnails is None else [thumbnails]
    features.append(FeatureSet("spherical harmonics of the place", harmonics(lon[rows], lat[rows])))
    distances = kept[0]["distance"].to_numpy()
    sampling = Sampling(
        used=len(rows),
        unlabeled=int((~labeled).sum()),
        too_far=int((labeled & ~near).sum()),
        limit_m=round(max(limits), 3),
        median_m=round(float(np.median(distances)), 3),
        farthest_m=round(float(distances.max()), 3),
    )
    side = max(reader.chip_side for reader in readers)
    return Samples(lon[rows], lat[rows], values[rows], task, chips, tuple(features), sampling, side)


def _names(readers: Sequence[ReleaseReader]) -> list[str]:
    names = []
    for reader in readers:
        spec = reader.release.spec()
        names.append(f"{spec.name} {spec.version}")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise QueryError(twice, "is given twice", "releases of different names or versions")
    return names


def _column(labels: pa.Table, target: str) -> pa.ChunkedArray:
    if target not in labels.column_names:
        raise QueryError(f"column {target}", "not found in the labels", f"one of {', '.join(labels.column_names)}")
    return labels[target]


def _task(column: pa.ChunkedArray, target: str) -> Task:
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_boolean(kind):
        return "classification"
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "regression"
    if not pa.types.is_integer(kind):
        raise QueryError(f"column {target}", f"holds {kind}", "numbers or text")
    if pc.count_distinct(column).as_py() <= _FEW:
        raise QueryError(
            f"column {target}",
            f"holds {pc.count_distinct(column).as_py()} different integers, which may be classes or amounts",
            "a stated task",
            "Pass --task classification or --task regression.",
        )
    return "regression"


def _values(column: pa.ChunkedArray, target: str, task: Task) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.bool_]]:
    """The target of every row, and where there is one."""
    try:
        cast = pc.cast(column, pa.float64() if task == "regression" else pa.string())
    except pa.ArrowException as error:
        raise QueryError(f"column {target}", f"holds no numbers ({error})", f"a target of a {task}") from error
    if task == "classification":
        known = pc.is_valid(cast).to_numpy(zero_copy_only=False)
        return pc.fill_null(cast, "").to_numpy(zero_copy_only=False).astype(str), known
    numbers = pc.fill_null(cast, np.nan).to_numpy(zero_copy_only=False)
    return numbers, np.isfinite(numbers)


def _matrix(table: pa.Table) -> Floats:
    vectors = table["embedding"].combine_chunks()
    return np.asarray(vectors.flatten().to_numpy(), dtype=np.float64).reshape(len(vectors), -1)


def _thumbnail_features(
    reader: ReleaseReader, chips: npt.NDArray[np.str_], lon: Floats, lat: Floats
) -> FeatureSet | None:
    """Mean and standard deviation of red, green and blue of each chip's thumbnail; None without thumbnails."""
    if "thumbnail" not in reader.schema().names:
        return None
    wanted, found = set(chips.tolist()), {}
    side = 2 * reader.chip_side / 111_000
    wide = np.minimum(side / np.maximum(np.cos(np.radians(np.abs(lat))), 0.01), 180)
    box = (
        float(max(-180, (lon - wide).min())),
        float(max(-90, lat.min() - side)),
        float(min(180, (lon + wide).max())),
        float(min(90, lat.max() + side)),
    )
    for batch in reader.chips(box, columns=["id", "thumbnail"]):
        for name, thumbnail in zip(batch["id"].to_pylist(), batch["thumbnail"], strict=True):
            if name in wanted:
                found[name] = _colors(thumbnail["bytes"].as_py(), name)
    if any(found.get(name) is None for name in wanted):
        return None
    return FeatureSet("band means and deviations of thumbnails", np.array([found[name] for name in chips.tolist()]))


def _colors(data: bytes | None, chip: str) -> Floats | None:
    if data is None:
        return None
    try:
        pixels = np.asarray(Image.open(BytesIO(data)).convert("RGB"), dtype=np.float64)
    except (UnidentifiedImageError, OSError) as error:
        raise ReleaseError(f"thumbnail of {chip}", f"cannot be read ({error})", "a picture") from error
    return np.concatenate([pixels.mean(axis=(0, 1)), pixels.std(axis=(0, 1))])


def harmonics(lon: Floats, lat: Floats, degrees: int = DEGREES) -> Floats:
    """Real orthonormal spherical harmonics of places, [n, degrees²].

    Source: the location encoder of SatCLIP (Klemmer et al. 2023), before its network.
    """
    from scipy.special import sph_harm_y_all  # noqa: PLC0415 - scipy 1.15, which the extra brings

    values = sph_harm_y_all(degrees - 1, degrees - 1, np.radians(90 - lat), np.radians(lon))
    columns = []
    for n in range(degrees):
        for m in range(-n, n + 1):
            value = values[n, abs(m)]
            part = value.imag if m < 0 else value.real
            columns.append(part if m == 0 else np.sqrt(2) * (-1) ** m * part)
    return np.asarray(np.stack(columns, axis=1), dtype=np.float64)


def positions(samples: Samples) -> Floats:
    """[n, 3]: places on a sphere of radius 1."""
    return unit_vectors(samples.lon, samples.lat)
