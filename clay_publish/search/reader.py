"""Reading a published release: its items, and the chips at a place, near one, or like one.

Only the files, row groups and columns that are needed are read, wherever the release lies.
"""

import os
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clay_publish.errors import ClayPublishError, require_extra
from clay_publish.release import directory as paths
from clay_publish.release.array_store import array_windows
from clay_publish.release.directory import DataFile, Release
from clay_publish.release.format_version import check_release
from clay_publish.release.public_urls import rebase
from clay_publish.release.versions import refuse_root, version_address
from clay_publish.search import zonal
from clay_publish.search.arrays.cells import one_zone
from clay_publish.search.change import change_schema, changes, parse_window
from clay_publish.search.finder import LIGHT, ChipFinder
from clay_publish.search.nearest import nearest_chips
from clay_publish.search.points import coordinates, join
from clay_publish.search.query import Extent
from clay_publish.search.row_groups import (
    Rows,
    Shelf,
    dequantized,
    group_starts,
    read,
    select,
    stored_columns,
    stream,
)
from clay_publish.search.session import RemoteRelease
from clay_publish.search.status import inside, status_of
from clay_publish.storage.address import readable
from clay_publish.storage.range_cache import RangeCache
from clay_publish.storage.store import Store

if TYPE_CHECKING:
    import xarray as xr
    from geopandas import GeoDataFrame


class ReleaseReader(ChipFinder):
    """A release at some place, open for reading. Make one with `open_release`."""

    def __repr__(self) -> str:
        try:
            chips, windows = len(self), len(self.windows)
        except ClayPublishError:
            return f"ReleaseReader({self.release.store.where!r})"
        said = f"{chips:,} chips, {self.dimensions} dimensions, {windows} {'window' if windows == 1 else 'windows'}"
        return f"ReleaseReader({self.release.store.where!r}: {said})"

    def items(
        self, bbox: Sequence[float] | None = None, datetime: str | None = None, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """The STAC Items, one an embeddings file, that meet a box and a time.

        Args:
            bbox: west, south, east, north in degrees; west > east across the antimeridian.
            datetime: year, month, date, time, or interval: `2023`, `2023-01-01/2023-02-01`, `../2023-06-30`.
            columns: of `items.parquet`; default: all.

        Returns:
            A table as stac-geoparquet has it; the embeddings' addresses lead to where the release was opened.

        Raises:
            QueryError: no box, no time, or no such column.
            ReleaseError: the release has no readable `items.parquet`, or one that leads out of it.
        """
        extent = Extent.of(bbox, datetime)
        table = select(self._items, extent, columns, self.release.store.path(paths.ITEMS))
        return rebase(self.release.store, table) if "assets" in table.column_names else table

    def rows(self, numbers: npt.NDArray[np.int64]) -> pa.Table:
        """Rows of `items.parquet` by number, as `items` gives them.

        Raises:
            ReleaseError: as for `items`.
        """
        file, where = self.release.parquet(paths.ITEMS), self.release.store.path(paths.ITEMS)
        starts = group_starts(file.metadata)
        groups = np.unique(np.searchsorted(starts, numbers, side="right") - 1)
        parts = [
            read(file, [int(group)], file.schema_arrow.names, where).take(
                pa.array(numbers[(numbers >= starts[group]) & (numbers < starts[group + 1])] - starts[group])
            )
            for group in groups
        ]
        return rebase(self.release.store, pa.concat_tables(parts) if parts else file.schema_arrow.empty_table())

    def chips(
        self, bbox: Sequence[float] | None = None, datetime: str | None = None, columns: Sequence[str] | None = None
    ) -> pa.RecordBatchReader:
        """The chips whose bounds meet a box and whose period meets a time, file by file.

        Args:
            bbox: as for `items`.
            datetime: as for `items`.
            columns: of the embeddings files; default: all, the embedding too, as float32 whatever is stored.

        Returns:
            A stream with `geo` metadata: `.read_all()` makes it a table, and a loop over it never holds more than a
            row group. `GeoDataFrame.from_arrow`, `polars.from_arrow` and `pandas` take it as it is.

        Raises:
            QueryError, ReleaseError: as for `items`.
        """
        extent = Extent.of(bbox, datetime)
        shelf = self.shelf(extent)
        schema = self.schema(columns)
        names = stored_columns(schema.names, self._stored.names)

        def batches() -> Iterator[pa.RecordBatch]:
            for path in shelf.paths:
                where = self.release.store.path(path)
                for rows in stream(self.release.parquet(path), extent, names, where):
                    yield from dequantized(rows, schema).to_batches()

        return pa.RecordBatchReader.from_batches(schema, batches())

    def sample(self, points: pa.Table, datetime: str | None = None, *, max_distance: float | None = None) -> pa.Table:
        """Join the nearest chip's embedding to each row of a table of places, and why it is missing where it is.

        The vectors are read from the arrays of the release where these hold the same numbers as its tables (both int8,
        or both float16) and fewer bytes are read.

        Args:
            points: has a column `lon` or `longitude` and one `lat` or `latitude`, in degrees.
            datetime: as for `items`; of chips equally near, the one of the newest window.
            max_distance: meters; a place farther from every center gets no embedding.

        Returns:
            The table with `distance` (meters to the nearest center), `chip_id`, `chip_datetime`, `chip_lon`,
            `chip_lat`, `embedding` (float32), and of the place itself: `status` (`embedded` where it lies in a chip;
            a reason of the coverage table; `outside` where no chip was expected), `window` (START/END, of the chip or
            of the reason), `detail`.

        Raises:
            QueryError: no such columns, or a row that is not a place on Earth.
            ReleaseError: as for `items`.
        """
        extent = Extent.of(None, datetime)
        shelf = self.shelf(extent).newest_first()
        lon, lat = coordinates(points)
        rows, meters = nearest_chips(self.release, shelf, lon, lat, k=1, extent=extent)
        limit = np.inf if max_distance is None else max_distance
        meters = np.where(meters <= limit, meters, np.inf)
        found = np.flatnonzero(np.isfinite(meters))
        chips = self._sampled(rows.take(found), shelf)
        covered = np.zeros(len(lon), bool)
        covered[found] = inside(lon[found], lat[found], chips["bbox"].combine_chunks())
        known = status_of(self.release, lon, lat, covered, extent)
        windows = np.array([str(DataFile.parse(path).window) for path in shelf.paths], dtype=object)
        known.window[covered] = windows[rows.file[covered]] if len(windows) else None
        return join(points, chips, meters, {"status": known.status, "window": known.window, "detail": known.detail})

    def probe(self, lon: float, lat: float, datetime: str | None = None) -> dict[str, Any]:
        """What the release has at one place: the row that `sample` gives, as a dictionary.

        Raises:
            QueryError, ReleaseError: as for `sample`.
        """
        row: dict[str, Any] = self.sample(pa.table({"lon": [float(lon)], "lat": [float(lat)]}), datetime).to_pylist()[0]
        return row

    def aggregate(self, polygons: Any, datetime: str | None = None) -> pa.Table:
        """Return the mean embedding of the ground of each polygon and window, weighted by shared ground.

        Args:
            polygons: a GeoDataFrame or GeoSeries with a CRS, or a sequence of shapely geometries or of GeoJSON
                geometries, Features or a FeatureCollection in degrees.
            datetime: as for `items`.

        Returns:
            One row per polygon and window: `polygon` (place in the sequence), `window` (START/END), `chips`,
            `coverage` (share of the polygon's ground under chips, 0 to 1) and `embedding` (float32; null where no chip
            is). In the `utm` layout, ground at the seam of two zones counts once.

        Raises:
            QueryError: one is not a polygon, or no such time.
            ReleaseError: as for `items`.
        """
        extent = Extent.of(None, datetime)
        shapes = zonal.parse_polygons(polygons)
        return zonal.aggregate(self.release, self.shelf(extent), shapes, self.dimensions, extent)

    def change(self, before: str, after: str, bbox: Sequence[float] | None = None) -> pa.RecordBatchReader:
        """Return the cosine distance between the embeddings that each chip has in two windows, file by file.

        Args:
            before: a window, as START/END or as its start where that is enough: `2023-01`.
            after: another one.
            bbox: as for `items`.

        Returns:
            A stream with `id_before`, `id_after`, `geometry`, `bbox`, `lon`, `lat` and `distance` (1 − cosine, 0 to 2)
            of the chips that both windows have, with `geo` metadata.

        Raises:
            QueryError: no such window or box, or a release in the `scene` layout, which has no common grid.
            ReleaseError: as for `items`.
        """
        extent = Extent.of(bbox, None)
        earlier, later = (parse_window(text, self.windows) for text in (before, after))
        batches = changes(self.release, self.shelf(extent), earlier, later, extent)
        return pa.RecordBatchReader.from_batches(change_schema(self._stored), batches)

    def coverage(self) -> pa.RecordBatchReader:
        """The coverage table, one row per expected chip, as a stream."""
        return self._stream(paths.COVERAGE)

    def patches(self) -> pa.RecordBatchReader:
        """The patches, as stored, as a stream.

        Raises:
            ReleaseError: the release has none.
        """
        return self._stream(paths.PATCHES)

    def aggregates(self, side: int) -> pa.RecordBatchReader:
        """The means of blocks of `side` × `side` chips, as a stream.

        Raises:
            ReleaseError: the release has none of this side.
        """
        return self._stream(f"{paths.AGGREGATES}/{side}x{side}")

    def to_xarray(
        self,
        zone: int | None = None,
        bbox: Sequence[float] | None = None,
        window: str | None = None,
        *,
        patches: bool | int = False,
        chunks: Any = None,
    ) -> "xr.Dataset":
        """Return the chips of one UTM zone as arrays of time, y, x and band; values are read when they are used.

        From the arrays of the release; where it has none, from its tables. Chips of neighboring zones overlap at their
        seam, and each is in its own zone.

        Args:
            zone: 1 to 60; may be left out where the box, or the release, lies in one.
            bbox: as for `items`: the pixels that share ground with it. Default: the whole zone.
            window: START/END, or as much of START as names one window; default: all.
            patches: True, or the number of a layer: the patches instead of the chips. They need arrays.
            chunks: as of `xarray.open_dataset`, for dask; default: no dask.

        Returns:
            A Dataset in the zone's northern projection, northings negative in the south: `embeddings` (float32, NaN
            where there is none), of chips also `valid` and `cloud` (shares of pixels) and `reason` (number of a reason
            of the coverage table).

        Raises:
            QueryError: the box meets several zones, no such window or zone, or a release in the `scene` layout.
            ReleaseError: as for `items`; or there are no such patches.
            MissingExtraError: xarray or zarr is not installed.
        """
        require_extra("arrays", "to_xarray")
        from clay_publish.search.arrays.dataset import open_dataset  # noqa: PLC0415 - comes with an extra

        extent = Extent.of(bbox, None)
        files = [DataFile.parse(path) for path in self.shelf(extent).paths]
        steps = array_windows(self.release.spec()) or self.windows
        place = None if window is None else steps.index(parse_window(window, steps))
        made = open_dataset(self.release, one_zone(zone, files), steps, extent.bbox, patches=patches)
        chosen = made if place is None else made.isel(time=slice(place, place + 1))
        return chosen if chunks is None else chosen.chunk(chunks)

    def to_geopandas(
        self, bbox: Sequence[float] | None = None, datetime: str | None = None, columns: Sequence[str] = LIGHT
    ) -> "GeoDataFrame":
        """The chips as a GeoDataFrame; arguments as for `chips`."""
        from geopandas import GeoDataFrame  # noqa: PLC0415 - half a second that few need

        return GeoDataFrame.from_arrow(self.chips(bbox, datetime, columns).read_all())

    def _sampled(self, rows: Rows, shelf: Shelf) -> pa.Table:
        """The chips that `sample` joins; their vectors from the arrays where that is cheaper and the same."""
        light, cells = ["id", "datetime", "lon", "lat", "bbox"], ["epsg", "row", "col"]
        assets = self._items.schema_arrow.field("assets").type
        kind = self._stored.field("embedding").type if len(rows.file) else pa.list_(pa.float32(), 1)
        rounded = kind.value_type != pa.float32() and {*cells} <= {*self._stored.names}
        if not rounded or assets.get_field_index("arrays") < 0 or find_spec("zarr") is None:
            return self._read(rows, shelf, [*light, "embedding"])
        from clay_publish.search.arrays.chip_vectors import chip_vectors  # noqa: PLC0415 - comes with an extra

        table = self._read(rows, shelf, [*light, *cells])
        found = chip_vectors(self.release, shelf, rows, table.select(cells), kind)
        field = self.schema(["embedding"]).field("embedding")
        if found is None:
            column = self._read(rows, shelf, ["embedding"])["embedding"]
        else:
            column = pa.chunked_array([pa.FixedSizeListArray.from_arrays(pa.array(found.ravel()), type=field.type)])
        return table.drop_columns(cells).append_column(field, column)


def open_release(
    where: str | os.PathLike[str], version: str | None = None, *, cache: bool = True, **options: Any
) -> ReleaseReader:
    """Open a release in a directory, or at an `http(s)://`, `s3://` or `hf://` address.

    Args:
        where: the folder of one version; with `version`, the root of a product. `huggingface/OWNER/NAME/1.0.0` and
            `source.coop/ACCOUNT/PRODUCT/1.0.0` are addresses, too.
        version: which version of the product: `1.0.0`, or `latest`, the newest that is not yanked.
        cache: whether what a server sends is kept for later sessions: up to 200 MB below `XDG_CACHE_HOME`, by ETag.
            `CLAY_PUBLISH_CACHE=off` in the environment switches it off, too.
        options: of `s3://`: `anon=True` for a public bucket, `endpoint_url`, `key`, `secret`, `token`.

    Raises:
        ReleaseError: the root of a product without `version`; its versions are named. Or it has no such version.
        StoreError: no such kind of place.
        MissingExtraError: reading from there needs an extra.
        ReleaseError: it is of another format than this version reads.
    """
    address = readable(os.fspath(where))
    if version is not None:
        address = version_address(Release(Store(address, **options)), version)
    store = Store(address, **options)
    release = Release(store) if store.local else RemoteRelease(store, RangeCache.of_user() if cache else None)
    if not release.store.exists(paths.ITEMS):
        refuse_root(release)
    check_release(release)
    return ReleaseReader(release)
