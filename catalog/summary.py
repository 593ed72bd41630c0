"""What one embeddings file holds: read from its light columns, never from its vectors."""

import datetime as dt
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from clay_publish.catalog.footprint import lattice_union, union
from clay_publish.errors import ReleaseError
from clay_publish.footprint import to_lonlat
from clay_publish.geoparquet import bbox_array, total_bbox
from clay_publish.release import DataFile, Release

_COLUMNS = ["geometry", "bbox", "datetime", "start_datetime", "end_datetime", "lon", "lat"]
_COLUMNS += ["item_id", "item_ids", "epsg", "row", "col"]


@dataclass(frozen=True)
class FileSummary:
    """One embeddings file, as its Item tells it."""

    path: str
    """Below the release."""
    size: int
    """Bytes."""
    rows: int
    geometry: bytes
    """WKB, OGC:CRS84: the ground of its chips."""
    kind: str
    """`Polygon` or `MultiPolygon`."""
    bbox: tuple[float, float, float, float]
    """Of the chips and their outline; xmin > xmax across the antimeridian."""
    datetime: dt.datetime | None
    """Where all chips have the same."""
    start: dt.datetime
    end: dt.datetime
    epsg: int | None
    """Of the chips' pixel grid, where they share one."""
    sources: tuple[str, ...]
    """Ids of the STAC items that gave pixels, sorted."""

    @property
    def part(self) -> DataFile:
        """Square and window."""
        return DataFile.parse(self.path)


def summarise(release: Release, path: str, fingerprint: str) -> FileSummary:
    """Read what an Item says of a file.

    Raises:
        ReleaseError: unreadable, without a chip, with a geometry or time that cannot be, or made with another
            fingerprint than the release.
    """
    where = release.store.path(path)
    found = release.footer(path).get("emb", {}).get("embrel:fingerprint")
    if found != fingerprint:
        raise ReleaseError(where, f"was made with fingerprint {found}", fingerprint, "Two never mix in one version.")
    try:
        table = release.parquet(path).read(columns=_COLUMNS).combine_chunks()
        missing = sorted(set(_COLUMNS) - set(table.column_names))
        geometries = np.asarray(shapely.from_wkb(table["geometry"]), dtype=object) if not missing else None
    except (pa.ArrowException, OSError, shapely.GEOSException) as error:
        raise ReleaseError(where, f"cannot be read ({error})", "a table of embeddings") from error
    if missing:
        raise ReleaseError(where, f"has no column {missing[0]}", "a table of embeddings")
    if not table.num_rows:
        raise ReleaseError(where, "holds no chip", "at least one; a file without chips is not written")
    boxes = _sides(table["bbox"].combine_chunks())
    if not (np.isfinite(boxes).all() and np.abs(boxes[:, 1::2]).max() <= 90 and np.abs(boxes).max() <= 180):
        raise ReleaseError(where, "has chips whose bounds are no place on Earth", "degrees, WGS 84")
    times = {name: pc.min_max(table[name]) for name in ("datetime", "start_datetime", "end_datetime")}
    if any(value["min"].as_py() is None for value in times.values()):
        raise ReleaseError(where, "has chips without a date", "datetime, start_datetime and end_datetime")
    geometry = _ground(table, geometries)
    # The outline is thinned and may leave the chips by a metre: the box holds both.
    bbox = total_bbox(np.vstack([boxes, _sides(bbox_array(np.array([geometry], dtype=object)))]))
    assert bbox is not None
    moment = times["datetime"]
    return FileSummary(
        path=path,
        size=release.store.size(path),
        rows=table.num_rows,
        geometry=shapely.to_wkb(geometry),
        kind=geometry.geom_type,
        bbox=(bbox[0], bbox[1], bbox[2], bbox[3]),
        datetime=moment["min"].as_py() if moment["min"] == moment["max"] else None,
        start=times["start_datetime"]["min"].as_py(),
        end=times["end_datetime"]["max"].as_py(),
        epsg=_shared(table["epsg"]),
        sources=tuple(sorted({name for name in pc.list_flatten(table["item_ids"]).unique().to_pylist() if name})),
    )


def _sides(bbox: pa.StructArray) -> npt.NDArray[np.float64]:
    return np.column_stack([bbox.field(side).to_numpy() for side in ("xmin", "ymin", "xmax", "ymax")])


def _shared(epsg: pa.ChunkedArray) -> int | None:
    codes = epsg.unique().to_pylist()
    return codes[0] if len(codes) == 1 else None


def _ground(table: pa.Table, geometries: Any) -> shapely.Geometry:
    """The union of the chips, grid by grid: a projection, and in the `scene` layout a scene."""
    epsg = table["epsg"].fill_null(0).to_numpy()
    # In both layouts the chips of one item lie on one grid. In `utm` the items share it, which a fit of all finds.
    whole = _grids(table, geometries, [np.flatnonzero(epsg == code) for code in np.unique(epsg)], epsg)
    if whole is not None:
        return whole
    item = table["item_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    keys, group = np.unique(np.stack([epsg, item], axis=1), axis=0, return_inverse=True)
    split = _grids(table, geometries, [np.flatnonzero(group == place) for place in range(len(keys))], epsg)
    return split if split is not None else union(geometries)


def _grids(table: pa.Table, geometries: Any, groups: list[Any], epsg: Any) -> shapely.Geometry | None:
    """The union of groups that lie on a grid each; None where one does not."""
    lon, lat = table["lon"].to_numpy(), table["lat"].to_numpy()
    row, col = table["row"].to_numpy(), table["col"].to_numpy()
    parts = []
    for mine in groups:
        code = int(epsg[mine[0]])
        part = None
        if code:
            crs = f"EPSG:{code}"
            x, y = to_lonlat(crs).transform(lon[mine], lat[mine], direction="INVERSE")
            part = lattice_union(crs, row[mine], col[mine], np.asarray(x), np.asarray(y))
        if part is None and len(mine) > _FEW:
            return None
        parts.append(part if part is not None else union(geometries[mine]))
    return parts[0] if len(parts) == 1 else union(np.array(parts, dtype=object))


_FEW = 16
"""So few chips may be united by their outlines: in one row or column, they tell no grid."""
