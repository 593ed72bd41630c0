"""The version before: which of its images stay, and which of its chips need not be computed again.

A chip depends on what decides its vectors (the fingerprint, the rules of the spec) and on the images that may decide
it: their content and what was resolved of each, as `sources.parquet` of both versions has them. Where all of that is
the same, the row of the version before is the row of this one.
"""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, lru_cache
from sys import intern
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely

from clay_publish.errors import ReleaseError
from clay_publish.producer.layouts.base import Chosen, Unit
from clay_publish.producer.outputs.missing import RETRIED
from clay_publish.producer.outputs.sources_table import decides, planned_sources
from clay_publish.producer.planning.estimate import Comparison
from clay_publish.producer.unit_plan import Inputs, Plan
from clay_publish.release import directory as paths
from clay_publish.release.directory import Release
from clay_publish.release.manifest import read_manifest, run_record, sha256
from clay_publish.release.names import NameIndex
from clay_publish.release.stored_rows import StoredRows
from clay_publish.release.unit_receipts import unread_note
from clay_publish.release.versions import Version, VersionStep, check_version
from clay_publish.windows import Window

_ABSENT, _EMBEDDED, _MISSING, _UNCOVERED, _RETRIED = range(5)
"""What became of a chip: not expected; embedded; missing; without any image; missing for a reason of that run."""

_ROWS = 4096
"""Rows that are Python objects at a time."""
_WITHOUT_IMAGES = ("no_imagery", "excluded")


@dataclass(frozen=True, slots=True)
class _Image:
    """What is compared of a row of `sources.parquet`, of which there may be millions."""

    id: str
    status: str
    block: int
    acquired: datetime
    start: datetime
    end: datetime
    wkb: bytes | None
    decides: bytes | None
    """Digest of what `decides` gives; None: an image of unknown content is never the same as another."""
    was_read: bool
    """Whether the item could be read."""

    @classmethod
    def of(cls, row: dict[str, Any]) -> "_Image":
        times = (row["datetime"], row["start_datetime"], row["end_datetime"])
        return cls(
            row["id"], intern(row["status"]), row["block"], *times, row["geometry"], decides(row), bool(row["assets"])
        )

    @property
    def window(self) -> Window:
        """The whole days that hold its acquisition or period."""
        return Window.of_days(self.start) if self.start == self.end else Window.of_days(self.start, self.end)

    @property
    def geometry(self) -> shapely.Geometry | None:
        """Footprint, OGC:CRS84."""
        return shapely.from_wkb(self.wkb)


@dataclass
class _Images:
    """Images of one version that may decide the same chips."""

    used: dict[bytes, _Image] = field(default_factory=dict)
    """By what they decide."""
    unknown: list[_Image] = field(default_factory=list)
    """Used ones whose content is not known."""
    excluded: dict[tuple[str, bytes], _Image] = field(default_factory=dict)


@dataclass(frozen=True)
class _Changes:
    """Footprints of images that only one of two versions has."""

    used: list[shapely.Geometry | None]
    fresh: list[shapely.Geometry | None]
    """Of these, the ones of the new version."""
    excluded: list[shapely.Geometry | None]


@dataclass(frozen=True)
class Split:
    """A plan whose units are reused or computed as a whole."""

    plan: Plan
    reused: int
    """Chips with imagery whose rows are taken from the version before."""
    to_compute: dict[str, int]
    """Chips with imagery that are not, by unit."""


class PublishedTables:
    """The tables of a published version, each compared with the manifest when it is first read."""

    def __init__(self, release: Release) -> None:
        self.release = release
        described = release.store.exists(paths.MANIFEST)
        # A run that was never described has none; its parts were compared when they were joined.
        entries = read_manifest(release).files if described else []
        self._unread = {entry.path: entry.sha256 for entry in entries}

    def read(self, path: str, columns: Sequence[str] | None = None) -> pa.Table:
        """A table without the metadata of its schema.

        Raises:
            ReleaseError: it cannot be read, or is not what the manifest says.
        """
        return self._compared(path).read(columns=columns).replace_schema_metadata(None)

    def batches(self, path: str, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """A table, some rows at a time. Errors as `read`."""
        yield from self._compared(path).iter_batches(_ROWS, columns=columns)

    def stored(self, path: str, columns: Sequence[str]) -> StoredRows:
        """Rows of a table by their numbers. Errors as `read`."""
        return StoredRows(self._compared(path), columns)

    def _compared(self, path: str) -> pq.ParquetFile:
        opened, expected = self.release.parquet(path), self._unread.get(path)
        if expected is not None and sha256(self.release.store, path) != expected:
            raise ReleaseError(
                self.release.store.path(path),
                "is not what the manifest says",
                f"SHA-256 {expected}",
                "Restore the version before, or leave out `previous`.",
            )
        self._unread.pop(path, None)
        return opened


class PreviousVersion:
    """What the version before has, as far as this one can use it.

    Args:
        inputs: what the spec leads to, with what identifies the content of its images; it names a version before.

    Raises:
        ReleaseError: the version before cannot be read.
    """

    def __init__(self, inputs: Inputs) -> None:
        assert inputs.spec.previous is not None, "the spec names one"
        self._inputs = inputs
        self._release = Release(inputs.spec.previous)
        self._tables = PublishedTables(self._release)
        self._spec = self._release.spec()
        self._same_model = not self._release.fingerprint().differences(inputs.fingerprint)
        self._zones = frozenset(self._release.data_files(paths.COVERAGE))
        if not self._zones:
            raise ReleaseError(
                self._release.store.path(paths.COVERAGE),
                "has no file",
                "one for each UTM zone",
                "Correct `previous`, or leave it out to compute every chip.",
            )
        self._zone, self._known = lru_cache(2)(self._read_zone), lru_cache(3)(self._states_of)
        self._unread: set[str] = set()
        """Images that could not be read, so that others may have taken their place."""
        self._unreadable = self._with_unreadable_chips()
        self._before, self._now, self._stays = self._different()

    def _different(self) -> tuple[list[_Image], list[_Image], int]:
        """Images of both versions without those that are the same in both, and how many used ones these are.

        Which these are is known by 16 bytes of each image, so that the whole of millions is never held. Images that
        are not used are left out, too, but those that could not be read.
        """
        notes = set(run_record(self._release).notes)
        keys, kept = list[bytes | None](), set[bytes]()
        for batch in self._tables.batches(paths.SOURCES):
            for image in map(_Image.of, batch.to_pylist()):
                if unread_note(image.id) in notes:
                    self._unread.add(image.id)
                keys.append(self._key(image, self._spec.imagery))
        self._unreadable |= self._unread
        theirs, now, stays = {key for key in keys if key is not None}, list[_Image](), 0
        for image in map(_Image.of, planned_sources(self._inputs.selection.considered)):
            key = self._key(image, self._inputs.spec.imagery)
            if key not in theirs or image.id in self._unreadable:
                now += [image] if image.status != "unused" else []
            elif key not in kept:
                kept.add(key)
                stays += image.status == "used"
        before, start = list[_Image](), 0
        for batch in self._tables.batches(paths.SOURCES):
            other = [key not in kept for key in keys[start : start + len(batch)]]
            others = map(_Image.of, batch.filter(pa.array(other, pa.bool_())).to_pylist())
            before += [image for image in others if image.status != "unused" or not image.was_read]
            start += len(batch)
        return before, now, stays

    def _key(self, image: _Image, blocks: Sequence[Any]) -> bytes | None:
        """The same for images that decide the same chips in the same way; None where nothing says so."""
        group = self._group(image, blocks)
        if image.decides is None or group is None:
            return None
        return hashlib.blake2b(image.decides + f"{image.status} {group}".encode(), digest_size=16).digest()

    def _group(self, image: _Image, blocks: Sequence[Any]) -> str | None:
        """Which images may decide the same chips; None of one that decides none."""
        if image.status not in {"used", "excluded"} or image.acquired is None:
            return None
        return self._inputs.layout.rivals(image, blocks[image.block])

    @cached_property
    def usable(self) -> bool:
        """Whether any chip may be reused: the same model, rules and columns. Patches are always computed."""
        mine, theirs = self._inputs.spec, self._spec
        columns = all(
            getattr(mine.outputs, name) == getattr(theirs.outputs, name)
            for name in ("thumbnails", "loss", "square_km", "major_tom_cell")
        )
        rules = mine.chips.model_copy(update={"gsd": None}) == theirs.chips.model_copy(update={"gsd": None})
        return self._same_model and columns and rules and not mine.outputs.patches

    def compare(self) -> Comparison:
        """Images of this version against those of the one before."""
        before, now = (
            {image.id: image for image in sorted(images, key=lambda image: image.status == "used")}
            for images in (self._before, self._now)
        )
        used = {name for name, image in now.items() if image.status == "used"}
        known = {name for name, image in before.items() if image.status == "used" and name not in self._unreadable}
        kept = used & known
        changed = {name for name in kept if now[name].decides is None or now[name].decides != before[name].decides}
        fixed = {name for name in used - known if _was_bad(before.get(name), name in self._unreadable)}
        return Comparison(
            previous=self._release.store.where,
            new=len(used - known - fixed),
            fixed=len(fixed),
            stays=self._stays + len(kept) - len(changed),
            changed=len(changed),
            gone=len(known - used),
            same_model=self._same_model,
        )

    def split(self, plan: Plan) -> Split:
        """The plan with units that are reused or computed as a whole.

        Raises:
            SpecError: the version is a patch, and more chips are to be made.
        """
        units: list[Unit] = []
        reused = 0
        to_compute: dict[str, int] = {}
        for unit in plan.units:
            parts, counts, more = self._parts(unit, plan.decided)
            if more:
                self._check_growth(more, unit)
            units += parts
            reused += counts[0]
            to_compute |= {part.id: counts[1] for part in parts if not part.reused}
        return Split(Plan(tuple(units), plan.fingerprint, plan.decided), reused, to_compute)

    def _check_growth(self, more: int, unit: Unit) -> None:
        """Refuse a version number that is too small for chips that there are images for and the one before lacks.

        Such a chip may turn out to be cloud or nodata all the same; by then the run would be paid for.
        """
        mine, theirs = self._inputs.spec.version, self._spec.version
        if Version.parse(mine) < Version.parse(theirs).smallest_after(VersionStep.MINOR):
            because = f"there are images now for chips without an embedding there ({more} around {unit.items[0].id})"
            check_version(mine, theirs, VersionStep.MINOR, because)

    def _parts(self, unit: Unit, decided: dict[str, Any]) -> tuple[list[Unit], tuple[int, int], int]:
        """A unit's reused and computed parts; chips with imagery of each; chips that may be embedded only now."""
        block = unit.missing("", "")
        if block is None:
            return [unit], (0, 0), 0  # its chips are not known yet
        was = self._states(block.ids, [square.zone for square in block.squares], unit.window)
        changes = self._changed.get(unit.rivals, _Changes([], [], []))
        reached = unit.touched([item.geometry for item in unit.items], block.geometry)
        changed = unit.touched(changes.used, block.geometry)
        # Images that are left out only explain why a chip has none.
        changed |= (was == _UNCOVERED) & unit.touched(changes.excluded, block.geometry)
        reuse = np.isin(was, (_EMBEDDED, _MISSING, _UNCOVERED)) & ~changed & self.usable
        lacking = (was != _EMBEDDED) & reached
        again = np.isin(was, (_ABSENT, _RETRIED)) | unit.touched(changes.fresh, block.geometry)
        counts = int(np.count_nonzero(reached & reuse)), int(np.count_nonzero(reached & ~reuse))
        return _cut(unit, reuse, decided), counts, int(np.count_nonzero(lacking & again))

    @cached_property
    def _changed(self) -> dict[str, _Changes]:
        """By group of images that may decide the same chips."""
        before = self._images(self._before, self._spec.imagery, self._unread)
        now = self._images(self._now, self._inputs.spec.imagery)
        found = {}
        for group in before.keys() | now.keys():
            old, new = before[group], now[group]
            fresh = [new.used[key].geometry for key in new.used.keys() - old.used.keys()]
            fresh += [image.geometry for image in new.unknown]
            gone = [old.used[key].geometry for key in old.used.keys() - new.used.keys()]
            gone += [image.geometry for image in old.unknown]
            excluded = [
                (old.excluded.get(key) or new.excluded[key]).geometry
                for key in old.excluded.keys() ^ new.excluded.keys()
            ]
            found[group] = _Changes([*fresh, *gone], fresh, excluded)
        return found

    def _images(
        self, images: Iterable[_Image], blocks: Sequence[Any], unread: Collection[str] = ()
    ) -> defaultdict[str, _Images]:
        found: defaultdict[str, _Images] = defaultdict(_Images)
        for image in images:
            group = self._group(image, blocks)
            if group is None:
                continue
            if image.status == "excluded":
                found[group].excluded[image.id, image.wkb or b""] = image
            elif image.decides is None or image.id in unread:
                found[group].unknown.append(image)
            else:
                found[group].used[image.decides] = image
        return found

    def _states(self, ids: list[str], zones: list[int], window: Window) -> npt.NDArray[np.int8]:
        """What became of each chip."""
        names, places = pa.array(ids, pa.string()), np.array(zones)
        found = np.full(len(ids), _ABSENT, dtype=np.int8)
        for zone in np.unique(places).tolist():
            known, states = self._known(zone, window)
            mine = np.flatnonzero(places == zone)
            found[mine] = np.append(states, np.int8(_ABSENT))[known.find(names.take(pa.array(mine)))]
        return found

    def _states_of(self, zone: int, window: Window) -> tuple[NameIndex, npt.NDArray[np.int8]]:
        """Ids of the chips of a zone and window, and what became of each."""
        table = self._zone(zone)
        if table is None:
            return NameIndex(pa.array([], pa.large_string())), np.empty(0, np.int8)
        start, end = (pa.scalar(moment, table["window_start"].type) for moment in (window.start, window.end))
        table = table.filter(pc.and_(pc.equal(table["window_start"], start), pc.equal(table["window_end"], end)))
        reason = table["reason"]
        states = np.where(pc.equal(table["status"], "embedded").to_numpy(), _EMBEDDED, _MISSING).astype(np.int8)
        states[pc.is_in(reason, pa.array(_WITHOUT_IMAGES)).to_numpy()] = _UNCOVERED
        states[pc.is_in(reason, pa.array(RETRIED)).to_numpy()] = _RETRIED
        return NameIndex(table["id"].cast(pa.large_string()).combine_chunks()), states

    def _read_zone(self, zone: int) -> pa.Table | None:
        path = f"{paths.COVERAGE}/zone={zone:02d}.parquet"
        if path not in self._zones:
            return None
        return self._tables.read(path, columns=["id", "window_start", "window_end", "status", "reason"])

    def _with_unreadable_chips(self) -> set[str]:
        """Images of chips that are missing since they could not be read."""
        found = set[str]()
        for path in self._zones:
            table = self._tables.read(path, columns=["reason", "item_ids"])
            bad = table.filter(pc.is_in(table["reason"], pa.array(("unreadable", "source_changed", "failed"))))
            found.update(pc.list_flatten(bad["item_ids"]).to_pylist())
        return found


def _cut(unit: Unit, reuse: Chosen, decided: dict[str, Any]) -> list[Unit]:
    if not reuse.any():
        return [unit]
    parts = [unit.part(reuse, decided, reused=True)]
    return parts if reuse.all() else [*parts, unit.part(~reuse, decided, reused=False)]


def _was_bad(image: _Image | None, unreadable: bool) -> bool:
    """Whether an image that is used now was excluded, unusable or unreadable before."""
    return unreadable or (image is not None and (image.status == "excluded" or not image.was_read))
