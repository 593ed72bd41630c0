"""The source items of a release, as its `sources.parquet` tells."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from clay_publish.errors import ReleaseError
from clay_publish.release.directory import SOURCES
from clay_publish.release.tables import sources_schema
from clay_publish.validate.data.chips import ChipRows
from clay_publish.validate.sandbox.marks import marked
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
    acquisition: str | None
    """Images of one acquisition count once in a composite."""
    crs: str | None
    """As in `proj:code`, or WKT."""
    shape: tuple[int, int] | None
    """Rows and columns of the finest band."""
    transform: tuple[float, ...] | None
    """Six numbers: x = a·col + b·row + c, y = d·col + e·row + f."""
    license: str | None
    attribution: str | None
    wkb: bytes | None
    bands: tuple[dict[str, Any], ...]
    """How each band is read: name, asset, band, scale, offset, source."""
    mask: dict[str, Any] | None
    """Asset, format, cloudy, nodata and bands of its cloud mask."""
    level: str | None
    """What says that it is the sensor's product."""
    evidence: dict[str, Any] | None
    """Status, sentences and bands of a sample of its pixels."""
    files: tuple[dict[str, Any], ...]
    """Key, href, etag and size of the asset of each."""
    cloud_cover: float | None
    """Percent."""
    bbox: tuple[float, ...] | None
    """West, south, east, north."""
    href: str | None

    @property
    def assets(self) -> tuple[str, ...]:
        """Keys of the assets."""
        return tuple(file["key"] for file in self.files)

    @property
    def was_read(self) -> bool:
        """Whether the item could be read; of others there is a reason alone."""
        return bool(self.bands)

    @property
    def counted_as(self) -> str:
        """The acquisition; an item without one counts by itself."""
        return self.acquisition or f"item {self.id}"

    @property
    def window(self) -> Window | None:
        """The whole days that hold its acquisition or period."""
        start = self.start or self.moment
        if start is None:
            return None
        return Window.of_days(start, self.end if self.end and self.end != start else None)

    @cached_property
    def geometry(self) -> Any:
        """Its footprint as a shapely geometry; None where it is unknown or unreadable."""
        with marked("reading", SOURCES, len(self.wkb or b"")):  # while an embeddings file is, in most cases
            return None if self.wkb is None else shapely.from_wkb(self.wkb, on_invalid="ignore")

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

    @cached_property
    def items(self) -> list[Source]:
        """Each item once; a chip's item is an index into this list."""
        return list(self.by_id.values())

    @cached_property
    def ids(self) -> pa.Array:
        """Ids of the items, by their place."""
        return pa.array(list(self.by_id), pa.string())

    @cached_property
    def outlines(self) -> list[Any]:
        """Footprint of each item, by its place; None where it is unknown."""
        return [source.geometry for source in self.items]

    @cached_property
    def middle_latitude(self) -> float:
        """Of the used items' footprints, in degrees."""
        shapes = [source.geometry for source in self.used]
        return float(np.median([shape.centroid.y for shape in shapes if shape is not None] or [0.0]))

    def places(self, chips: ChipRows) -> npt.NDArray[np.int32]:
        """Place of each chip's item in the list; −1 where it is not in it."""

        def find() -> npt.NDArray[np.int32]:
            found = pc.index_in(pc.cast(chips.column("item_id"), pa.string()), value_set=self.ids)
            return np.asarray(found.fill_null(-1).to_numpy(zero_copy_only=False), dtype=np.int32)

        places: npt.NDArray[np.int32] = chips.once("item places", find)
        return places

    def acquisitions(self, names: Iterable[str]) -> int:
        """How many acquisitions the items of these ids are of."""
        return len({self.by_id[name].counted_as for name in names if name in self.by_id})

    def by_item(self, chips: ChipRows) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
        """Place of each item that occurs, and its rows."""
        places = self.places(chips)
        for place in np.unique(places[places >= 0]).tolist():
            yield place, np.flatnonzero(places == place)


def read_sources(table: pa.Table) -> SourceTable:
    """Read the table.

    Raises:
        ReleaseError: columns are missing.
    """
    wanted = sources_schema().names
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
        acquisition=row["acquisition"],
        crs=row["proj_code"],
        shape=(int(shape[0]), int(shape[1])) if shape and len(shape) == 2 else None,
        transform=tuple(map(float, transform[:6])) if transform and len(transform) >= 6 else None,
        license=row["license"],
        attribution=row["attribution"],
        wkb=row["geometry"],
        bands=tuple(row["bands"] or ()),
        mask=row["mask"],
        level=row["level"],
        evidence=row["evidence"],
        files=tuple(row["assets"] or ()),
        cloud_cover=row["cloud_cover"],
        bbox=None if row["bbox"] is None else tuple(row["bbox"].values()),
        href=row["href"],
    )
