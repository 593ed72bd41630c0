"""Chips near a place or similar to others, whose rows are read once they are found."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clay_publish.formats import meters
from clay_publish.search.nearest import nearest_chips
from clay_publish.search.query import SWAPPED, Extent, QueryError
from clay_publish.search.row_groups import Rows, Shelf, Vectors, vectors
from clay_publish.search.similar import Like, direction_of, exact_chips, likely_chips
from clay_publish.search.tables import ReleaseTables

LIGHT = (
    "id",
    "geometry",
    "bbox",
    "datetime",
    "start_datetime",
    "end_datetime",
    "lon",
    "lat",
    "valid_fraction",
    "cloud_fraction",
    "item_id",
)
"""Columns that a search gives by default: all about a chip but its vector."""


class ChipFinder(ReleaseTables):
    """The chips of a release, found by distance or by similarity. `ReleaseReader` gives out the rest."""

    def nearest(
        self,
        lon: float,
        lat: float,
        k: int = 1,
        datetime: str | None = None,
        columns: Sequence[str] = LIGHT,
        *,
        max_distance: float | None = None,
        every_window: bool = False,
    ) -> pa.Table:
        """The `k` chips whose centers are nearest to a place, the nearest first.

        Args:
            lon: degrees, WGS 84.
            lat: degrees.
            k: how many.
            datetime: as for `items`.
            columns: of the embeddings files.
            max_distance: meters; chips farther away are left out.
            every_window: whether a chip of several windows is given for each; otherwise for the newest alone.

        Returns:
            These columns and `distance`, meters on the ellipsoid (float64).

        Raises:
            QueryError: not a place on Earth, no such time, or k below 1.
            ReleaseError: as for `items`.
        """
        _check_count(k)
        extent = Extent.of(None, datetime)
        shelf = self.shelf(extent)
        place = np.array([lon], dtype=np.float64), np.array([lat], dtype=np.float64)
        more = 1 if every_window else shelf.windows
        rows, meters = nearest_chips(self.release, shelf, *place, k=k * more, extent=extent)
        limit = np.inf if max_distance is None else max_distance
        found = np.flatnonzero(np.isfinite(meters) & (meters <= limit))
        if more > 1:
            found = found[self._one_per_place(rows.take(found), shelf, -np.round(meters[found], 3))]
        found = found[:k]
        table = self._read(rows.take(found), shelf, columns)
        return table.append_column("distance", pa.array(meters[found]))

    def similar(
        self,
        like: Like | Sequence[Like],
        k: int = 10,
        bbox: Sequence[float] | None = None,
        datetime: str | None = None,
        columns: Sequence[str] = LIGHT,
        *,
        unlike: Like | Sequence[Like] = (),
        exact: bool = False,
        every_window: bool = False,
        max_distance: float | None = None,
    ) -> pa.Table:
        """The `k` chips whose embeddings have the largest cosine with what is asked for, the most similar first.

        Where the release has codes, the vectors of the best codes are compared (at least 100 of them; 20 over the
        network); otherwise, or with `exact`, all vectors in the box and time.

        Args:
            like: a chip's id, a place as a tuple (lon, lat), a vector, or a list of these, whose mean is taken.
            k: how many.
            bbox: as for `items`.
            datetime: as for `items`.
            columns: of the embeddings files.
            unlike: the same, for what the result is not to be like.
            exact: compare every vector.
            every_window: whether a chip of several windows is given for each; otherwise for the most similar alone.
            max_distance: meters from a place that is named to the center of its chip; default: three chip sides.

        Returns:
            These columns and `similarity`, the cosine (float64), computed from the published vectors.

        Raises:
            QueryError: an unknown chip, a place far from any, a vector of another length or without direction.
            ReleaseError: as for `items`.
        """
        asked = [self._direction(like, unlike, max_distance)]
        table = self.similar_each(asked, k, bbox, datetime, columns, exact=exact, every_window=every_window)
        return table.drop_columns("query")

    def similar_each(
        self,
        likes: Sequence[Like],
        k: int = 10,
        bbox: Sequence[float] | None = None,
        datetime: str | None = None,
        columns: Sequence[str] = LIGHT,
        *,
        exact: bool = False,
        every_window: bool = False,
    ) -> pa.Table:
        """As `similar`, for several searches at once; the vectors are read once for all.

        Returns:
            The rows of all, with `query`, the place in `likes` (int64), and `similarity`.

        Raises:
            QueryError, ReleaseError: as for `similar`.
        """
        _check_count(k)
        extent = Extent.of(bbox, datetime)
        shelf = self.shelf(extent)
        directions = np.stack([self._direction(like, (), None) for like in likes]) if len(likes) else np.empty((0, 0))
        more = 1 if every_window else shelf.windows
        found = None
        if self.encoding is not None and not exact and shelf.paths:
            found = likely_chips(self.release, self.encoding, shelf, directions, k=k * more, extent=extent)
        if found is None:
            found = exact_chips(self.release, shelf, directions, k=k * more, extent=extent)
        parts = []
        for number, one in enumerate(found):
            chosen = np.arange(len(one.cosine))
            if more > 1:
                chosen = chosen[self._one_per_place(one.rows, shelf, one.cosine)]
            chosen = chosen[:k]
            table = self._read(one.rows.take(chosen), shelf, columns)
            table = table.append_column("query", pa.array(np.full(len(chosen), number)))
            parts.append(table.append_column("similarity", pa.array(one.cosine[chosen])))
        return pa.concat_tables(parts)

    def near_enough(self, place: tuple[float, float], found: pa.Table, max_distance: float | None) -> pa.Table:
        """The rows of `nearest` to a place (lon, lat) within a distance, meters; default: three chip sides.

        Raises:
            QueryError: there is none; the distance of the nearest is stated, and whether lon and lat look swapped.
        """
        limit = 3 * self.chip_side if max_distance is None else max_distance
        close = found.filter(pc.less_equal(found["distance"], limit))
        if found.num_rows and not close.num_rows:
            raise QueryError(
                f"{place[0]:g},{place[1]:g}",
                f"is {meters(found['distance'][0].as_py())} from the center of the nearest chip",
                f"at most {meters(limit)}" + (", three chip sides" if max_distance is None else ""),
                SWAPPED
                if self.is_swapped(*place, limit)
                else "Ask for another place, or pass --max-distance METERS (max_distance=).",
            )
        return close

    def is_swapped(self, lon: float, lat: float, within: float) -> bool:
        """Return whether chips lie within meters of a place once its longitude and latitude are exchanged."""
        return abs(lon) <= 90 and self.nearest(lat, lon, 1, columns=["id"], max_distance=within).num_rows > 0

    def _direction(
        self, like: Like | Sequence[Like], unlike: Like | Sequence[Like], max_distance: float | None
    ) -> npt.NDArray[np.float64]:
        def of_place(lon: float, lat: float) -> npt.ArrayLike:
            found = self.near_enough((lon, lat), self.nearest(lon, lat, 1, columns=["embedding"]), max_distance)
            if not found.num_rows:
                raise QueryError(f"{lon:g},{lat:g}", "has no chip near it: the release is empty", "a place with chips")
            values: Vectors = vectors(found)[0]
            return values

        return direction_of(like, unlike, self.dimensions, self.vector, of_place)

    def _one_per_place(self, rows: Rows, shelf: Shelf, order: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Which of some chips remain when each place has one: of the largest `order`, then of the newest window."""
        table = self._read(rows, shelf, ["lon", "lat", "start_datetime"])
        start = table["start_datetime"].cast(pa.int64()).to_numpy()
        ranked = np.lexsort((-start, -order))
        place = np.stack([table["lon"].to_numpy(), table["lat"].to_numpy()], axis=1)[ranked]
        _, first = np.unique(place, axis=0, return_index=True)
        return np.asarray(ranked[np.sort(first)], dtype=np.int64)


def _check_count(k: int) -> None:
    if not isinstance(k, int | np.integer) or k < 1:
        raise QueryError("k", f"{k} chips were asked for", "a whole number, one or more")
