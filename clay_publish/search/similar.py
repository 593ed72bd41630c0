"""The chips most similar to a vector by cosine: by comparing every embedding, or the best candidates by code."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clay_publish.errors import ReleaseError
from clay_publish.release.directory import Release
from clay_publish.search.candidates import best_codes
from clay_publish.search.codes import Encoding
from clay_publish.search.query import EXTENT_COLUMNS, Extent, QueryError
from clay_publish.search.row_groups import THREADS, Ints, Rows, Shelf, group_starts, matching_groups, read, vectors

Floats = npt.NDArray[np.float64]
Like = str | tuple[float, float] | npt.ArrayLike
"""A chip's id, a place (longitude, latitude: a tuple of two numbers), or a vector."""

_GROUPS = 16
"""Row groups read by one task."""
_CANDIDATES = 100
_CANDIDATES_FAR = 20
"""Codes whose vectors are compared, at least: on a disk; where each vector costs a row group over the network."""
_MISFIT = 0.15
"""No estimate is farther from the cosine: such codes are not those of the vectors."""


@dataclass(frozen=True)
class Ranked:
    """The chips most like one query, the most similar first."""

    rows: Rows
    cosine: Floats


def check_vectors(asked: npt.ArrayLike) -> Floats:
    """Return vectors [q, D] of length 1.

    Raises:
        QueryError: a vector without direction.
    """
    whole = np.atleast_2d(np.asarray(asked, dtype=np.float64))
    lengths = np.linalg.norm(whole, axis=1, keepdims=True)
    if whole.ndim != 2 or not np.isfinite(lengths).all() or not (lengths > 0).all():
        raise QueryError("vector", "has no direction", "finite numbers that are not all zero")
    return np.asarray(whole / lengths)


def direction_of(
    like: Like | Sequence[Like],
    unlike: Like | Sequence[Like],
    dimensions: int,
    of_chip: Callable[[str], npt.ArrayLike],
    of_place: Callable[[float, float], npt.ArrayLike],
) -> Floats:
    """Return the direction [D] of one search.

    The mean of the unit vectors of everything to be alike, minus the mean of everything not to be alike.

    Args:
        like: one or several.
        unlike: none or several.
        dimensions: D.
        of_chip: the vector of an id.
        of_place: the vector of the chip nearest to a longitude and latitude.

    Raises:
        QueryError: nothing to be alike, or vectors of another length.
    """

    def mean(some: Any) -> Floats:
        found = [_vector(one, dimensions, of_chip, of_place) for one in _several(some)]
        return np.mean(check_vectors(np.stack(found)), axis=0) if found else np.zeros(dimensions)

    if not _several(like):
        raise QueryError("like", "names nothing", "a chip's id, a place (lon, lat), a vector, or a list of these")
    return np.asarray(check_vectors(mean(like) - mean(unlike))[0])


def _several(some: Any) -> list[Any]:
    """A list as it is, rows of a matrix, and one thing as a list of it."""
    if isinstance(some, str | tuple):
        return [some] if not isinstance(some, tuple) or len(some) else []
    if isinstance(some, np.ndarray):
        return list(np.atleast_2d(some)) if some.size else []
    if isinstance(some, list) and some and all(isinstance(one, int | float) for one in some):
        return [some]
    return list(some)


def _vector(
    like: Any,
    dimensions: int,
    of_chip: Callable[[str], npt.ArrayLike],
    of_place: Callable[[float, float], npt.ArrayLike],
) -> Floats:
    if isinstance(like, str):
        return np.asarray(of_chip(like), dtype=np.float64)
    if isinstance(like, tuple) and len(like) == 2:
        return np.asarray(of_place(float(like[0]), float(like[1])), dtype=np.float64)
    made = np.asarray(like, dtype=np.float64).ravel()
    if len(made) != dimensions:
        raise QueryError("vector", f"has {len(made)} numbers", f"{dimensions}, as the embeddings")
    return made


def exact_chips(release: Release, shelf: Shelf, directions: Floats, *, k: int, extent: Extent) -> list[Ranked]:
    """The `k` chips whose embeddings have the largest cosine with each vector; every embedding is compared.

    Args:
        release: where they lie.
        shelf: the files to look in.
        directions: [q, D], of length 1.
        k: how many.
        extent: what the chips must meet.

    Returns:
        At most `k` for each vector. Of equal ones, the first in the release.

    Raises:
        QueryError: vectors of another length.
        ReleaseError: a file cannot be read.
    """
    best = [Ranked(Rows(np.empty(0, np.int64), np.empty(0, np.int64)), np.empty(0)) for _ in directions]

    def compare(task: tuple[int, range]) -> list[Ranked]:
        return _compare(release, shelf, task, directions, k=k, extent=extent)

    with ThreadPoolExecutor(THREADS) as pool:
        for found in pool.map(compare, _tasks(release, shelf)):
            best = [_merge(so_far, here, k) for so_far, here in zip(best, found, strict=True)]
    return best


def _tasks(release: Release, shelf: Shelf) -> Iterator[tuple[int, range]]:
    for number, path in enumerate(shelf.paths):
        groups = release.parquet(path).num_row_groups
        for start in range(0, groups, _GROUPS):
            yield number, range(start, min(start + _GROUPS, groups))


def _compare(
    release: Release, shelf: Shelf, task: tuple[int, range], directions: Floats, *, k: int, extent: Extent
) -> list[Ranked]:
    number, groups = task
    path = shelf.paths[number]
    file, where = release.parquet(path), release.store.path(path)
    starts = group_starts(file.metadata)
    names = [name for name in ("embedding", "scale") if name in file.schema_arrow.names]
    best = [Ranked(Rows(np.empty(0, np.int64), np.empty(0, np.int64)), np.empty(0)) for _ in directions]
    light = directions.astype(np.float32)
    for group, mask in matching_groups(file, extent, where, groups):
        values = vectors(read(file, [group], names, where, threads=False))
        if values.shape[1] != directions.shape[1]:
            raise QueryError("vector", f"has {directions.shape[1]} numbers", f"{values.shape[1]}, as {where}")
        with np.errstate(divide="ignore", invalid="ignore"):
            lengths = np.sqrt(np.vecdot(values, values))
            # Not a matrix product: the threads of BLAS would compete with those that decode.
            estimates = [np.vecdot(values, one) / lengths for one in light]
        for place, cosine in enumerate(estimates):
            few = _largest(np.where(mask, cosine, np.nan), 2 * k + 10)  # float32 may swap neighbors
            found = Ranked(
                Rows(np.full(len(few), number), few + starts[group]), _cosines(values[few], directions[place])
            )
            best[place] = _merge(best[place], found, k)
    return best


def likely_chips(
    release: Release, encoding: Encoding, shelf: Shelf, directions: Floats, *, k: int, extent: Extent
) -> list[Ranked] | None:
    """As `exact_chips`, from the codes: only the vectors of the best codes are compared.

    Returns:
        None where comparing all vectors is as good: few chips, or windows that lie only partly within the extent.

    Raises:
        QueryError, ReleaseError: as for `exact_chips`; the codes are not those of the vectors.
    """
    if encoding.dimensions != directions.shape[1]:
        raise QueryError("vector", f"has {directions.shape[1]} numbers", f"{encoding.dimensions}, as the codes")
    count = max(_CANDIDATES, 3 * k) if release.store.local else max(_CANDIDATES_FAR, k)
    made = []
    for direction in directions:
        found = best_codes(release, encoding, shelf, direction, count=count, extent=extent)
        if found is None:
            return None
        rows, estimate = found
        table = rows.read(release, shelf, _needed(release, shelf, extent))
        cosine = _cosines(vectors(table), direction)
        wrong = np.flatnonzero(~(np.abs(cosine - estimate) <= _MISFIT))
        if len(wrong):
            raise ReleaseError(
                release.store.path(shelf.paths[rows.file[wrong[0]]]),
                f"has another vector in row {rows.row[wrong[0]]} than its code was made from",
                "codes of the published vectors",
                "Search exactly (`exact=True`), and validate the release.",
            )
        mask = np.ones(len(cosine), bool) if extent.everything else extent.meets(table)
        kept = np.flatnonzero(mask)
        kept = kept[np.lexsort((rows.row[kept], rows.file[kept], -cosine[kept]))[:k]]
        made.append(Ranked(Rows(rows.file[kept], rows.row[kept]), cosine[kept]))
    return made


def _needed(release: Release, shelf: Shelf, extent: Extent) -> Sequence[str]:
    known = release.parquet(shelf.paths[0]).schema_arrow.names
    names = [name for name in ("embedding", "scale") if name in known]
    return names if extent.everything else [*names, *EXTENT_COLUMNS]


def _largest(cosines: npt.NDArray[Any], k: int) -> Ints:
    """Where the k largest finite values are, in order of place."""
    finite = np.flatnonzero(np.isfinite(cosines))
    if len(finite) <= k:
        return finite
    return np.asarray(np.sort(finite[np.argpartition(-cosines[finite], k - 1)[:k]]), dtype=np.int64)


def _cosines(values: npt.NDArray[Any], direction: Floats) -> Floats:
    exact = values.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.vecdot(exact, direction) / np.linalg.norm(exact, axis=1))


def _merge(best: Ranked, more: Ranked, k: int) -> Ranked:
    cosine = np.concatenate([best.cosine, more.cosine])
    order = np.argsort(-cosine, kind="stable")[:k]
    file, row = (np.concatenate([getattr(best.rows, name), getattr(more.rows, name)]) for name in ("file", "row"))
    return Ranked(Rows(file[order], row[order]), cosine[order])
