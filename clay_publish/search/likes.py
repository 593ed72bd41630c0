"""What a search by likeness starts from: chips by id, places, vectors, and what the result should not be like."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from clay_publish.search.query import QueryError
from clay_publish.search.similar import check_vectors

Floats = npt.NDArray[np.float64]
Like = str | tuple[float, float] | npt.ArrayLike
"""A chip's id, a place (longitude, latitude: a tuple of two numbers), or a vector."""


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
