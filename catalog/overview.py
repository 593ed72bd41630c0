"""Extent and totals of a release, from its items."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clay_publish.errors import ReleaseError
from clay_publish.release import directory as paths
from clay_publish.release.directory import Release
from clay_publish.release.geoparquet import total_bbox

_COLUMNS = ["bbox", "start_datetime", "end_datetime", "proj:code", "table:row_count"]


@dataclass(frozen=True)
class Overview:
    """What the Collection says of all items together."""

    bbox: tuple[float, float, float, float]
    """West, south, east, north; west > east across the antimeridian."""
    start: datetime
    end: datetime
    codes: tuple[str, ...]
    """Projections of the chips: `EPSG:32618`."""
    files: int
    chips: int

    @classmethod
    def of(cls, table: pa.Table | pa.RecordBatch) -> "Overview":
        """Sum up columns named as in `items.parquet`.

        Raises:
            ReleaseError: there is no item.
        """
        if not table.num_rows:
            raise ReleaseError(paths.ITEMS, "holds no item", "at least one embeddings file")
        bounds = pa.Table.from_struct_array(table["bbox"])
        box = total_bbox(np.column_stack([bounds[side].to_numpy() for side in ("xmin", "ymin", "xmax", "ymax")]))
        assert box is not None
        return cls(
            bbox=(box[0], box[1], box[2], box[3]),
            start=pc.min(table["start_datetime"]).as_py(),
            end=pc.max(table["end_datetime"]).as_py(),
            codes=tuple(sorted(code for code in pc.unique(table["proj:code"]).to_pylist() if code)),
            files=table.num_rows,
            chips=pc.sum(table["table:row_count"]).as_py(),
        )

    @classmethod
    def read(cls, release: Release) -> "Overview":
        """Sum up a release's `items.parquet`.

        Raises:
            ReleaseError: there is none, or it is unreadable or empty.
        """
        return cls.of(release.parquet(paths.ITEMS).read(columns=_COLUMNS))

    def polygon(self) -> dict[str, Any]:
        """The bounds as GeoJSON; two rectangles across the antimeridian."""
        west, south, east, north = self.bbox
        if west <= east:
            return {"type": "Polygon", "coordinates": [_ring(west, south, east, north)]}
        parts = [[_ring(west, south, 180.0, north)], [_ring(-180.0, south, east, north)]]
        return {"type": "MultiPolygon", "coordinates": parts}


def _ring(west: float, south: float, east: float, north: float) -> list[list[float]]:
    return [[west, south], [east, south], [east, north], [west, north], [west, south]]


def rfc3339(moment: datetime) -> str:
    """`2023-01-01T00:00:00Z`, with microseconds where there are any."""
    return moment.isoformat().replace("+00:00", "Z")
