"""The source items of a release, as its `sources.parquet` tells."""

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely

from clay_publish.errors import ReleaseError
from clay_publish.release.directory import SOURCES
from clay_publish.release.tables import sources_schema
from clay_publish.windows import Window


@dataclass(frozen=True)
class Source:
    """One source item; what the table does not say is None."""

    id: str
    status: str
    reason: str | None
    block: int
    collection: str | None
    start: datetime | None
    end: datetime | None
    moment: datetime | None
    platform: str | None
    crs: str | None
    """As in `proj:code`, or WKT."""
    shape: tuple[int, int] | None
    """Rows and columns of the finest band."""
    transform: tuple[float, ...] | None
    """Six numbers: x = a·col + b·row + c, y = d·col + e·row + f."""
    license: str | None
    attribution: str | None
    wkb: bytes | None

    @property
    def window(self) -> Window | None:
        """The whole days that hold its acquisition or period."""
        start = self.start or self.moment
        if start is None:
            return None
        return Window.of_days(start, self.end if self.end and self.end != start else None)

    @property
    def interval(self) -> tuple[datetime, datetime] | None:
        """First and last moment it can have been acquired at."""
        start, end = self.start or self.moment, self.end or self.moment
        return (start, end) if start is not None and end is not None else None


@dataclass(frozen=True)
class SourceTable:
    """All of them, in the order of the table. Items have one row each, whatever imagery block asked for them."""

    rows: list[Source]

    @cached_property
    def by_id(self) -> dict[str, Source]:
        """The used row of each item, or its first."""
        found: dict[str, Source] = {}
        for source in self.rows:
            if source.id not in found or (source.status == "used" and found[source.id].status != "used"):
                found[source.id] = source
        return found

    @property
    def used(self) -> list[Source]:
        """Items that offered pixels."""
        return [s for s in self.rows if s.status == "used"]

    def geometry(self, source: Source) -> Any:
        """Footprint of an item as a shapely geometry; None where it is not told or not readable."""
        return None if source.wkb is None else shapely.from_wkb(source.wkb, on_invalid="ignore")


def read_sources(table: pa.Table) -> SourceTable:
    """Read the table.

    Raises:
        ReleaseError: columns are missing.
    """
    wanted = [name for name in sources_schema().names if name not in {"assets", "bbox"}]
    missing = [name for name in wanted if name not in table.column_names]
    if missing:
        raise ReleaseError(SOURCES, f"has no column {', '.join(missing)}")
    return SourceTable([_source(row) for row in table.select(wanted).to_pylist()])


def _source(row: dict[str, Any]) -> Source:
    shape, transform = row["proj_shape"], row["proj_transform"]
    return Source(
        id=row["id"],
        status=row["status"],
        reason=row["reason"],
        block=row["block"],
        collection=row["collection"],
        start=row["start_datetime"],
        end=row["end_datetime"],
        moment=row["datetime"],
        platform=row["platform"],
        crs=row["proj_code"],
        shape=(int(shape[0]), int(shape[1])) if shape and len(shape) == 2 else None,
        transform=tuple(map(float, transform[:6])) if transform and len(transform) >= 6 else None,
        license=row["license"],
        attribution=row["attribution"],
        wkb=row["geometry"],
    )


def pixel_matrix(source: Source) -> npt.NDArray[np.float64] | None:
    """The 2 × 3 matrix from (column, row, 1) to coordinates; None where it is not told."""
    return None if source.transform is None else np.array(source.transform, dtype=np.float64).reshape(2, 3)
