"""Zonal statistics: the mean embedding of the ground of polygons, by window."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely
from scipy.sparse import csr_array

from clay_publish.geo.area import to_equal_area
from clay_publish.geo.footprints import normalize_footprint
from clay_publish.release.directory import DataFile, Release
from clay_publish.search.query import Extent, QueryError
from clay_publish.search.row_groups import Shelf, matching_groups, read, stored_columns, vectors
from clay_publish.windows import Window

Floats = npt.NDArray[np.float64]
Geometries = npt.NDArray[np.object_]


@dataclass
class _Sums:
    """Sums over the chips of one window, one entry per polygon."""

    weighted: Floats
    """[P, D] vectors times the ground they share with the polygon."""
    ground: Floats
    """[P] ground of chips in the polygon, m²; ground of several chips counted for each."""
    chips: npt.NDArray[np.int64]
    pieces: list[list[Any]] = field(default_factory=list)
    """Per polygon, what its chips cover of it, where chips may overlap."""

    @classmethod
    def empty(cls, polygons: int, dimensions: int) -> "_Sums":
        """Nothing added yet."""
        none: list[list[Any]] = [[] for _ in range(polygons)]
        return cls(np.zeros((polygons, dimensions)), np.zeros(polygons), np.zeros(polygons, np.int64), none)


def parse_polygons(polygons: Any) -> Geometries:
    """Return polygons as valid geometries in degrees (OGC:CRS84), cut at the antimeridian.

    Args:
        polygons: a GeoDataFrame or GeoSeries with a CRS, or a sequence of shapely geometries or of GeoJSON geometries
            or Features in degrees.

    Raises:
        QueryError: one is not a polygon, or covers no ground; the place in the sequence is named.
    """
    if hasattr(polygons, "to_crs"):
        if polygons.crs is None:
            raise QueryError("polygons", "have no CRS", "a GeoDataFrame with one", "Set it: `frame.set_crs(4326)`.")
        polygons = list(polygons.to_crs("OGC:CRS84").geometry)
    elif isinstance(polygons, dict) and polygons.get("type") == "FeatureCollection":
        polygons = polygons.get("features", [])
    elif isinstance(polygons, dict | shapely.Geometry):
        polygons = [polygons]
    return np.array([_polygon(one, number) for number, one in enumerate(polygons)], dtype=object)


def _polygon(one: Any, number: int) -> shapely.Geometry:
    where = f"polygon {number}"
    if isinstance(one, dict) and one.get("type") == "Feature":
        one = one.get("geometry")
    document = shapely.geometry.mapping(one) if isinstance(one, shapely.Geometry) else one
    kind = document.get("type") if isinstance(document, dict) else None
    if kind not in {"Polygon", "MultiPolygon"}:
        raise QueryError(where, f"is {kind or type(one).__name__}", "a Polygon or MultiPolygon")
    try:
        made = normalize_footprint(document)
    except (ValueError, TypeError, LookupError, shapely.errors.ShapelyError) as error:
        raise QueryError(where, f"is not a polygon on the Earth ({error})", "longitude and latitude") from error
    if made is None or made.area == 0:
        raise QueryError(where, "covers no ground", "a polygon with an area")
    return made


def aggregate(release: Release, shelf: Shelf, polygons: Geometries, dimensions: int, extent: Extent) -> pa.Table:
    """Return the mean embedding of the chips on the ground of each polygon, weighted by shared ground.

    In the `utm` layout, chips are cut to the strip of longitude of their zone, so that ground at the seam of two
    zones, which both have chips on it, counts once. In the `scene` layout images overlap; the mean then counts ground
    once per image, and `coverage` once.

    Args:
        release: what `shelf` is of.
        shelf: files to look in; only those that a polygon meets are read.
        polygons: [P] as `parse_polygons` returns them.
        dimensions: D.
        extent: the time to look in.

    Returns:
        One row per polygon and window with files there: `polygon` (place in the sequence), `window` (START/END),
        `chips` (how many share ground with it), `coverage` (share of the polygon's ground that they cover), and
        `embedding` (float32 [D]; null where no chip is). A polygon that no file meets has one row without a window.

    Raises:
        ReleaseError: a file cannot be read.
    """
    seams = release.fingerprint().layout == "utm"
    flat = np.array([to_equal_area(one) for one in polygons], dtype=object)
    shapely.prepare(flat)
    tree, degrees = shapely.STRtree(flat), shapely.STRtree(polygons)
    sums: dict[Window, _Sums] = {}
    seen: set[tuple[int, Window]] = set()
    for number, path in enumerate(shelf.paths):
        file = DataFile.parse(path)
        near = np.unique(np.concatenate([degrees.query(box, "intersects") for box in _boxes(shelf.boxes[number])]))
        if not len(near):
            continue
        window = sums.setdefault(file.window, _Sums.empty(len(polygons), dimensions))
        seen |= {(int(one), file.window) for one in near}
        here = Extent(_bounds(polygons[near]), extent.start, extent.end)
        for chips, rows in _chips(release, path, here, tree, file.square.zone if seams else None):
            _add(window, tree, flat, chips, vectors(rows), overlap=not seams)
    return _table(sums, seen, flat, dimensions)


def _boxes(box: Floats) -> list[Any]:
    """Bounds as polygons, two where they cross the antimeridian."""
    west, south, east, north = box
    if west <= east:
        return [shapely.box(west, south, east, north)]
    return [shapely.box(west, south, 180, north), shapely.box(-180, south, east, north)]


def _bounds(polygons: Geometries) -> tuple[float, float, float, float]:
    west, south, east, north = shapely.total_bounds(polygons).tolist()
    return west, south, east, north


def _chips(
    release: Release, path: str, extent: Extent, tree: shapely.STRtree, zone: int | None
) -> Iterator[tuple[Geometries, pa.Table]]:
    """Footprints in equal-area coordinates and vectors of the chips that a polygon meets, by row group."""
    file, where = release.parquet(path), release.store.path(path)
    names = stored_columns(["embedding"], file.schema_arrow.names)
    for group, mask in matching_groups(file, extent, where):
        shapes = shapely.from_wkb(read(file, [group], ["geometry"], where)["geometry"].to_numpy())
        if zone is not None:
            shapes = _cut(shapes, zone)
        shapes = np.asarray(to_equal_area(shapes))
        met = np.zeros(len(shapes), dtype=bool)
        met[tree.query(shapes, "intersects")[0]] = True
        chosen = np.flatnonzero(met & mask)
        if len(chosen):
            yield shapes[chosen], read(file, [group], names, where).take(pa.array(chosen))


def _cut(shapes: Geometries, zone: int) -> Geometries:
    """Footprints without what lies beyond their zone's strip of longitude."""
    west = -180.0 + 6 * (zone - 1)
    xmin, _, xmax, _ = shapely.bounds(shapes).T
    beyond = np.flatnonzero((xmin < west) | (xmax > west + 6))
    shapes = shapes.copy()
    shapes[beyond] = shapely.intersection(shapes[beyond], shapely.box(west, -90, west + 6, 90))
    return shapes


def _add(
    sums: _Sums,
    tree: shapely.STRtree,
    polygons: Geometries,
    chips: Geometries,
    values: npt.NDArray[np.float32],
    *,
    overlap: bool,
) -> None:
    chip, polygon = tree.query(chips, "intersects")
    whole = shapely.covers(polygons[polygon], chips[chip])
    shared = chips[chip]
    shared[~whole] = shapely.intersection(shared[~whole], polygons[polygon[~whole]])
    ground = shapely.area(shared)
    chip, polygon, shared, ground = (some[ground > 0] for some in (chip, polygon, shared, ground))
    weights = csr_array((ground, (polygon, chip)), shape=(len(polygons), len(chips)))
    sums.weighted += weights @ values.astype(np.float64)
    np.add.at(sums.ground, polygon, ground)
    np.add.at(sums.chips, polygon, 1)
    if overlap:
        for one in np.unique(polygon).tolist():
            sums.pieces[one] = [shapely.union_all([*sums.pieces[one], *shared[polygon == one]])]


def _table(sums: dict[Window, _Sums], seen: set[tuple[int, Window]], flat: Geometries, dimensions: int) -> pa.Table:
    size = shapely.area(flat)
    rows: dict[str, list[Any]] = {name: [] for name in ("polygon", "window", "chips", "coverage", "embedding")}
    for number in range(len(flat)):
        windows: Sequence[Window | None] = sorted(window for one, window in seen if one == number) or [None]
        for window in windows:
            of = sums.get(window) if window is not None else None
            chips = int(of.chips[number]) if of is not None else 0
            covered = 0.0
            if of is not None and chips:
                covered = of.pieces[number][0].area if of.pieces[number] else of.ground[number]
            rows["polygon"].append(number)
            rows["window"].append(window and str(window))
            rows["chips"].append(chips)
            rows["coverage"].append(min(covered / size[number], 1.0))
            rows["embedding"].append(of.weighted[number] / of.ground[number] if of is not None and chips else None)
    vector = pa.list_(pa.field("element", pa.float32(), nullable=False), dimensions)
    kinds = [("polygon", pa.int64()), ("window", pa.string()), ("chips", pa.int64()), ("coverage", pa.float64())]
    return pa.table(rows, schema=pa.schema([*kinds, ("embedding", vector)]))
