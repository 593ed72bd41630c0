"""What a layout decides: how the ground is cut into chips, which unit reads which of them, and how many there are."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Sequence
from dataclasses import astuple, dataclass, field, fields
from datetime import datetime
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely

from clay_publish.geo.area import Area
from clay_publish.geo.expected_cells import Runs
from clay_publish.geo.utm_zones import Square, squares_of
from clay_publish.producer.imagery.chips import ChipBlock, Reading
from clay_publish.producer.sources.item import SourceItem
from clay_publish.producer.sources.selection import Considered
from clay_publish.release.directory import DataFile
from clay_publish.release.fingerprint import canonical_json
from clay_publish.spec.models import Imagery
from clay_publish.windows import Window

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Chosen = npt.NDArray[np.bool_]
"""One truth value per chip."""
Areas = Sequence[Area | None]
"""Each imagery block's; None where it has none."""


@dataclass(frozen=True)
class Unit(ABC):
    """What one worker reads in one go."""

    id: str
    items: tuple[SourceItem, ...]
    """The images that its chips may be taken from."""
    window: Window
    """Of its chips."""
    files: tuple[DataFile, ...]
    """The published files it may add rows to."""
    reused: bool = field(default=False, kw_only=True)
    """Whether its rows are those of the version before."""

    @property
    @abstractmethod
    def chips(self) -> int:
        """Chips that it is asked for; 0 where that is not known before its image is read."""

    @property
    @abstractmethod
    def rivals(self) -> str:
        """As the layout's `rivals` answers for its images."""

    @abstractmethod
    def read(self, reading: Reading) -> Generator[ChipBlock]:
        """Its chips, some at a time.

        Raises:
            ImageryError: an image cannot be opened or read, or is not what its item says.
        """

    @abstractmethod
    def missing(self, reason: str, detail: str) -> ChipBlock | None:
        """All of its chips, missing for one reason; None where they are not known before its image is read."""

    def with_imagery(self) -> int:
        """Chips that one of its images may decide; 0 where they are not known before its image is read."""
        block = self.missing("", "")
        if block is None:
            return 0
        return int(np.count_nonzero(self.touched([item.geometry for item in self.items], block.geometry)))

    @abstractmethod
    def touched(self, images: Sequence[shapely.Geometry | None], outlines: npt.NDArray[np.object_]) -> Chosen:
        """Which of its chips, by their outlines in the order of `missing`, images with these footprints may decide."""

    @abstractmethod
    def part(self, chosen: Chosen, decided: dict[str, Any], *, reused: bool) -> "Unit":
        """The unit of some of its chips, in the order of `missing`."""


def unit_id(items: Iterable[SourceItem], ground: bytes | None, decided: dict[str, Any]) -> str:
    """Hash of the items, their content, the ground asked for, and all that decides the vectors.

    The release's name and version are not part of it: the next version reuses unchanged units.
    """
    document = {
        "items": [
            [item.id, item.window.token, [astuple(band) for band in item.resolved], sorted(item.contents.values())]
            for item in items
        ],
        "ground": None if ground is None else hashlib.sha256(ground).hexdigest(),
        "decided": {key: value for key, value in decided.items() if key not in {"name", "version"}},
    }
    return hashlib.sha256(canonical_json(document)).hexdigest()[:32]


@dataclass(frozen=True)
class Places:
    """Where chips or blocks of chips lie; one entry each."""

    ids: npt.NDArray[np.object_]
    epsg: npt.NDArray[Any]
    row: Ints
    col: Ints
    lon: Floats
    lat: Floats
    geometry: npt.NDArray[np.object_]
    """Footprints, OGC:CRS84."""
    across: int = 1
    """100 km squares along a side of the ground of one file."""

    def only(self, which: Ints | slice) -> "Places":
        """Some of them, in this order."""
        names = [each.name for each in fields(self) if each.name != "across"]
        return Places(**{name: getattr(self, name)[which] for name in names}, across=self.across)

    @cached_property
    def squares(self) -> list[Square]:
        """Which published file each belongs to."""
        return squares_of(self.lon, self.lat, self.across)

    def missing(
        self, squares: list[Square], epsg: int | None, items: tuple[str, ...], said: tuple[str, str]
    ) -> ChipBlock:
        """The same chips without pixels, and why: `said` is the reason and the detail, `items` the images tried."""
        count = len(self.ids)
        return ChipBlock(
            ids=self.ids.tolist(),
            epsg=epsg,
            rows=self.row.astype(np.int32),
            cols=self.col.astype(np.int32),
            geometry=self.geometry,
            lon=self.lon,
            lat=self.lat,
            gsd=0.0,
            squares=squares,
            reasons=[said[0]] * count,
            details=[said[1]] * count,
            pixels=np.empty((0, 0, 0, 0), dtype=np.float32),
            valid_fraction=np.zeros(count, dtype=np.float32),
            cloud_fraction=np.full(count, np.nan, dtype=np.float32),
            source=[None] * count,
            item_ids=[items] * count,
        )


@dataclass(frozen=True)
class SquareCount:
    """Chips of one square and window: one file of the release."""

    square: Square
    window: Window
    expected: int
    with_imagery: int
    excluded: int
    """Chips whose only images were left out as known to be bad."""
    images: int
    """That touch its chips."""

    @property
    def no_imagery(self) -> int:
        """Chips that no image covers."""
        return self.expected - self.with_imagery - self.excluded


@dataclass(frozen=True)
class UncoveredCells:
    """Cells of a zone and window without a candidate, as runs along rows."""

    zone: int
    window: Window
    reason: str
    """`no_imagery` or `excluded`."""
    runs: Runs


@dataclass(frozen=True)
class Counts:
    """All squares and windows of a release."""

    squares: tuple[SquareCount, ...]
    by_item: Ints
    """Chips that each considered image could give, in their order; 0 for those that are not used."""
    missing: tuple[UncoveredCells, ...] = ()
    """Cells without a candidate; a scene has none."""
    across: int = 1
    """100 km squares along a side of the ground of one file."""

    @property
    def expected(self) -> int:
        """Chips the spec asks for."""
        return sum(each.expected for each in self.squares)

    @property
    def with_imagery(self) -> int:
        """Of these, the ones some image covers."""
        return sum(each.with_imagery for each in self.squares)

    @property
    def excluded(self) -> int:
        """Of these, the ones only excluded images cover."""
        return sum(each.excluded for each in self.squares)

    @property
    def per_scene(self) -> int:
        """Chips that cutting every image on its own would make."""
        return int(self.by_item.sum())


class ItemTimes(Protocol):
    """What tells which chips an image is for."""

    @property
    def id(self) -> str:
        """Of the STAC item."""
        ...

    @property
    def acquired(self) -> datetime:
        """When it was taken."""
        ...

    @property
    def window(self) -> Window:
        """Its own days, or the composite's period."""
        ...


class Layout(Protocol):
    """One way to cut the ground into chips. Its units read them."""

    @property
    def gsd(self) -> float | None:
        """Meters a pixel that images are brought to; None where chips keep the pixels of their image."""
        ...

    @property
    def resampling(self) -> str:
        """How bands are brought to the chip's grid."""
        ...

    def units(self, considered: Sequence[Considered], areas: Areas, decided: dict[str, Any]) -> tuple[Unit, ...]:
        """The units of a run.

        Args:
            considered: the images, used and excluded.
            areas: each imagery block's.
            decided: what, beside the images, decides the rows of the release; part of each unit's id.
        """
        ...

    def count(self, considered: Sequence[Considered], areas: Areas) -> Counts:
        """How many chips there will be. No pixel is read."""
        ...

    def beyond(self, considered: Sequence[Considered], areas: Areas) -> list[str]:
        """A sentence for each part of the areas, and of the images of blocks without one, that it cannot cut."""
        ...

    def ground_size(self, units: Sequence[Unit]) -> float:
        """Meters a pixel covers on the ground, as the release states it."""
        ...

    def rivals(self, item: ItemTimes, block: Imagery) -> str | None:
        """Images with the same answer may decide the same chips; None where an image decides none.

        Args:
            item: of this version or of the one before.
            block: the imagery block that asked for it.
        """
        ...

    def together(self, file: DataFile) -> int | None:
        """Files of one window with the same answer may hold chips of one block of chips."""
        ...

    def owners(self, chips: pa.Table) -> Ints:
        """Equal numbers for chips whose rows and columns count from the same origin; from `epsg` and `item_id`."""
        ...

    def places(self, chips: pa.Table, side: int, window: Window, units: Sequence[Unit]) -> Places:
        """Where blocks of `side` × `side` chips lie, from `epsg`, `row`, `col` and `item_id` of one chip of each."""
        ...
