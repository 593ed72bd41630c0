"""Runs of cells against plain sets of cells."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from shapely import box

from clay_publish.geo import expected_cells as expected
from clay_publish.geo.utm_grid import UtmGrid
from clay_publish.geo.utm_zones import squares_of

Cell = tuple[int, int]
some_runs = st.lists(
    st.tuples(st.integers(-3, 3), st.integers(-20, 20), st.integers(1, 9)).map(lambda r: (r[0], r[1], r[1] + r[2])),
    max_size=12,
)


def made(pieces: list[tuple[int, int, int]]) -> expected.Runs:
    columns = np.array(pieces, dtype=np.int64).reshape(-1, 3).T
    return expected.union(columns[0], columns[1], columns[2])


def cells(these: expected.Runs) -> set[Cell]:
    return {(r, c) for r, a, b in zip(*(part.tolist() for part in these), strict=True) for c in range(a, b)}


def of(pieces: list[tuple[int, int, int]]) -> set[Cell]:
    return {(r, c) for r, a, b in pieces for c in range(a, b)}


def is_tidy(these: expected.Runs) -> bool:
    row, first, stop = (part.tolist() for part in these)
    ordered = all((row[n], stop[n]) < (row[n + 1], first[n + 1]) for n in range(len(row) - 1))
    return ordered and all(a < b for a, b in zip(first, stop, strict=True))


@given(some_runs, some_runs)
def test_union_difference_and_intersection_are_those_of_sets(
    left: list[tuple[int, int, int]], right: list[tuple[int, int, int]]
) -> None:
    a, b = made(left), made(right)
    for found, truth in (
        (a, of(left)),
        (expected.difference(a, b), of(left) - of(right)),
        (expected.intersection(a, b)[1], of(left) & of(right)),
    ):
        assert cells(found) == truth
        assert expected.size(found) == len(truth)
        assert is_tidy(found)


def test_cells_are_counted_by_the_square_of_their_center() -> None:
    grid = UtmGrid(1280)
    for zone in expected.expected_cells(grid, box(29.0, -1.3, 31.2, 1.1), rule="intersects"):
        truth = Counter(squares_of(*grid.centers(*zone.cells())))
        by_zone = {square: count for square, count in zone.squares() if square.column not in {0, 9}}
        # A center beyond the seam lies in another zone's square; here the cell stays in the zone that owns it.
        same = {square: count for square, count in truth.items() if square.zone == zone.zone}
        assert sum(by_zone.values()) == len(zone)
        assert all(by_zone[square] >= count for square, count in same.items())
        assert sum(by_zone.values()) - sum(same.values()) < 0.01 * len(zone) + 400
