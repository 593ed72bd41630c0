"""The chips most like a vector: every embedding compared, a row group at a time."""

from typing import Any

import numpy as np
import numpy.typing as npt

from clay_publish.release.directory import Release
from clay_publish.search.query import Extent, QueryError
from clay_publish.search.row_groups import Ints, Rows, Shelf, judge, read, vectors

Floats = npt.NDArray[np.float64]


def similar_chips(
    release: Release, shelf: Shelf, vector: npt.ArrayLike, *, k: int, extent: Extent
) -> tuple[Rows, Floats]:
    """The `k` chips whose embeddings have the largest cosine with a vector.

    Args:
        release: where they lie.
        shelf: the files to look in.
        vector: [D].
        k: how many.
        extent: what the chips must meet.

    Returns:
        Rows, the most similar first, and their cosines; at most `k`. Of equal ones, the first in the release.

    Raises:
        QueryError: a vector of another length or without direction, or k below 1.
        ReleaseError: a file cannot be read.
    """
    asked = np.asarray(vector, dtype=np.float64).ravel()
    length = np.linalg.norm(asked)
    if not np.isfinite(length) or length == 0:
        raise QueryError("vector", "has no direction", "finite numbers that are not all zero")
    if k < 1:
        raise QueryError("k", f"{k} chips were asked for", "one or more")
    direction = (asked / length).astype(np.float32)
    best = np.empty(0), np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    for number, path in enumerate(shelf.paths):
        file, where = release.parquet(path), release.store.path(path)
        starts = np.cumsum([0, *(file.metadata.row_group(g).num_rows for g in range(file.num_row_groups))])
        names = [name for name in ("embedding", "scale") if name in file.schema_arrow.names]
        for group, mask in judge(file, extent, where):
            values = vectors(read(file, [group], names, where))
            if values.shape[1] != len(direction):
                raise QueryError("vector", f"has {len(direction)} numbers", f"{values.shape[1]}, as {where}")
            kept = _largest(np.where(mask, _cosines(values, direction), np.nan), k)
            exact = _cosines(values[kept].astype(np.float64), asked / length)
            best = _merge(best, exact, np.full(len(kept), number), kept + starts[group], k)
    cosine, file_number, row = best
    return Rows(file_number, row), cosine


def _largest(cosines: Floats, k: int) -> Ints:
    """Where the k largest finite values are, in order of place."""
    finite = np.flatnonzero(np.isfinite(cosines))
    if len(finite) <= k:
        return finite
    return np.asarray(np.sort(finite[np.argpartition(-cosines[finite], k - 1)[:k]]), dtype=np.int64)


def _cosines(values: npt.NDArray[Any], direction: npt.NDArray[Any]) -> Floats:
    lengths = np.sqrt(np.einsum("nd,nd->n", values, values, dtype=np.float64))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((values @ direction).astype(np.float64) / lengths)


def _merge(best: tuple[Floats, Ints, Ints], cosine: Floats, file: Ints, row: Ints, k: int) -> tuple[Floats, Ints, Ints]:
    together = (np.concatenate([best[0], cosine]), np.concatenate([best[1], file]), np.concatenate([best[2], row]))
    order = np.argsort(-together[0], kind="stable")[:k]
    return together[0][order], together[1][order], together[2][order]
