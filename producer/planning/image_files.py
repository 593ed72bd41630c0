"""The files of the images of a plan: what identifies their content, and their pixel grids."""

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import islice, repeat
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from clay_publish.errors import ImageryError, ReleaseError
from clay_publish.geo.raster_grid import RasterGrid, ground_size
from clay_publish.producer.imagery.raster import grid_of, open_bands
from clay_publish.producer.imagery.remote import digests, etags
from clay_publish.producer.imagery.strips import fine_grid
from clay_publish.producer.sources.item import SourceItem
from clay_publish.producer.sources.selection import Considered
from clay_publish.producer.unit_plan import Plan
from clay_publish.progress import Progress, Report, silent
from clay_publish.release import directory as paths
from clay_publish.release.directory import Release
from clay_publish.release.fingerprint import canonical_json
from clay_publish.release.geoparquet import group_rows, table_writer
from clay_publish.release.lease.base import Share
from clay_publish.release.manifest import UNITS
from clay_publish.release.names import hash_strings
from clay_publish.release.stored_rows import StoredRows
from clay_publish.spec.sensors import Sensor

_ASKED = 16
"""Images whose files are asked for at a time what identifies them: most of the time is spent waiting for servers."""
_OPENED = 8
"""Images whose headers are read at a time."""
_BATCH = 4_096
"""Items that are replaced before more are looked at; those of before are freed."""
_IDENTIFIED = f"{paths.RUN}/identified"
"""What was found of the files of many images, before there is a plan."""
_ASKED_AT = b"asked"
"""Key of the time when it was found."""
_FRESH = timedelta(days=7)
"""Images change, and the run has not begun: what is older is asked for again."""
_Places = npt.NDArray[np.int64]


def files_path(plan: str) -> str:
    """Where the files of a plan, named by its hash, are listed: workers that plan at once never see each other's."""
    return f"{paths.RUN}/files-{plan[:16]}.parquet"


@dataclass(frozen=True)
class _Planned:
    etags: Mapping[str, str]
    digests: Mapping[str, str]
    grid: RasterGrid | None


def identify_files(
    release: Release,
    considered: list[Considered],
    instrument: Sensor,
    *,
    keep: bool = False,
    share: Share | None = None,
    report: Report = silent,
) -> None:
    """Add to the used items, in place, what identifies the content of their files, and their pixel grids.

    The first run asks the files themselves; a resumed one takes what was found then, so that a file that has changed
    since is seen where it is read.

    Args:
        release: where a run keeps what it found.
        considered: the images; those that are used are replaced.
        instrument: of the imagery.
        keep: of many images on servers, keep what is found of some before others are asked: a run that ends goes on
            there, and shares of a run ask about others each.
        share: which share of a run asks.
        report: receives the progress, of many images.

    Raises:
        ReleaseError: what was kept is damaged.
    """
    places = _places(each.status == "used" for each in considered)
    many = len(places) > _BATCH
    known = _Identified(release, instrument, keep=keep and many)

    def look(item: SourceItem, planned: _Planned | None) -> SourceItem:
        # Files that were moved since are looked at again; their content is still that of the plan, or it is another.
        here = {file.href for file in item.files} | {file.external_mask.href for file in item.bands}
        known_here = planned is not None and planned.etags.keys() <= here
        if planned is not None and known_here:
            now = planned
        else:
            now = _Planned(etags(item, instrument.nodata), digests(item), None)
        item = item.changed(etags=now.etags, digests=now.digests)
        if not item.has_grid:
            grid = planned.grid if planned is not None else None
            with suppress(ImageryError):  # its unit meets the same error, and records it
                item = item.changed(grid=grid or _opened_grid(item, instrument))
        return item

    with ThreadPoolExecutor(_ASKED) as pool:

        def looked(items: Sequence[SourceItem]) -> Iterable[SourceItem]:
            while (found := known.find(items)) is None:
                made = list(pool.map(look, items, repeat(None)))
                if known.keep(made):
                    return made
            return pool.map(look, items, found)

        done = 0
        for batch in _by_content(considered, places, share) if known.keeps else _even(places):
            _replace(considered, batch, looked)
            done += len(batch)
            if many:
                report(Progress("plan", done, len(places), "identifying image files", unit="items"))


def _places(wanted: Iterable[bool]) -> _Places:
    """Return the places of those that are wanted: 8 bytes for each."""
    return np.flatnonzero(np.fromiter(wanted, bool))


def _even(places: _Places) -> list[_Places]:
    return [places[start : start + _BATCH] for start in range(0, len(places), _BATCH)]


def _by_content(considered: Sequence[Considered], places: _Places, share: Share | None) -> list[_Places]:
    """Split where the names of images say so: with one image more or less, one batch is another.

    A share begins with batches of its own, and goes on with those of others.
    """
    ends, start = list[int](), 0
    for some in _even(places):
        names = pa.array([_key(considered[n].item) for n in some.tolist()], pa.string())
        ends += (np.flatnonzero(hash_strings(names) % (_BATCH // 2) == 0) + start + 1).tolist()
        start += len(some)
    batches = [batch for batch in np.split(places, ends) if len(batch)]
    first = 0 if share is None else len(batches) * (share.number - 1) // share.of
    return batches[first:] + batches[:first]


def _replace(
    considered: list[Considered], batch: _Places, looked: Callable[[Sequence[SourceItem]], Iterable[SourceItem]]
) -> None:
    """Replace items in the list, some at a time: all of them before and after may not fit into memory."""
    some = batch.tolist()
    for n, item in zip(some, looked([considered[n].item for n in some]), strict=True):
        considered[n] = replace(considered[n], item=item)


def keep_files(release: Release, plan: Plan, considered: Sequence[Considered]) -> None:
    """Keep what `identify_files` found for later runs; before the plan itself is written, which refers to it."""
    path = files_path(plan.sha256)
    if not release.store.exists(path):
        used = (each.item for each in considered if each.status == "used")
        rows = group_rows(_FILES)
        with table_writer(release.store, path, _FILES) as writer:
            while items := list(islice(used, rows)):
                writer.write_table(_table(items), row_group_size=rows)


def forget_identified(release: Release) -> None:
    """Remove what was kept on the way to the plan, which is there now."""
    for path in release.store.files(_IDENTIFIED):
        release.store.remove(path)


HEADERS = 10_000
"""Images whose headers a plan reads without being asked to."""
_SAMPLED = 4


def read_grids(considered: list[Considered], instrument: Sensor, *, every: bool) -> int:
    """Add to the used items that do not state their pixel grids, in place, those of their files.

    Returns:
        How many headers were not read since there are too many.
    """
    without = _without_grid(considered)
    if len(without) > HEADERS and not every:
        return len(without)
    _read_grids(considered, without, instrument, _opened_grid)
    return 0


def read_some_grids(considered: list[Considered], instrument: Sensor) -> None:
    """Add to a few of the used items, in place, the pixel grids of their files: enough for a warning."""
    _read_grids(considered, _without_grid(considered)[:_SAMPLED], instrument, _any_grid)


def _without_grid(considered: Sequence[Considered]) -> _Places:
    return _places(each.status == "used" and not each.item.has_grid for each in considered)


def _read_grids(
    considered: list[Considered],
    without: _Places,
    instrument: Sensor,
    read: Callable[[SourceItem, Sensor], RasterGrid],
) -> None:
    def look(item: SourceItem) -> SourceItem:
        try:
            return item.changed(grid=read(item, instrument))
        except ImageryError as error:  # which its unit meets as well, and records
            return item.changed(
                note=f"cannot be read ({error.where}: {error.found}): chips that only it gives will be unreadable"
            )

    with ThreadPoolExecutor(_OPENED) as pool:
        for batch in _even(without):
            _replace(considered, batch, lambda items: pool.map(look, items))


def _opened_grid(item: SourceItem, instrument: Sensor) -> RasterGrid:
    """The grid of an image whose bands can be cut together."""
    with open_bands(item.bands, instrument.nodata) as bands:
        return fine_grid(bands, None)


def _any_grid(item: SourceItem, instrument: Sensor) -> RasterGrid:
    """The grid of the finest band, however the bands lie."""
    with open_bands(item.bands, instrument.nodata) as bands:
        return min((grid_of(band) for band in bands), key=lambda grid: ground_size(grid, grid.height / 2))


def _key(item: SourceItem) -> str:
    """Return what names a used image: of those with one id in a block, one is used in each window."""
    return f"{item.block}/{item.id}/{item.acquired.isoformat()}"


_TEXTS = pa.list_(pa.string())
_FILES = pa.schema(
    [("id", pa.string()), ("hrefs", _TEXTS), ("etags", _TEXTS), ("digests", _TEXTS), ("grid", pa.string())]
)


def _table(items: Sequence[SourceItem]) -> pa.Table:
    texts = [item.texts for item in items]
    columns = {
        "id": [_key(item) for item in items],
        "hrefs": [list(each.etags) for each in texts],
        "etags": [list(each.etags.values()) for each in texts],
        "digests": [[each.digests.get(href) for href in each.etags] for each in texts],
        "grid": [None if item.grid is None else json.dumps(asdict(item.grid)) for item in items],
    }
    return pa.table(columns, schema=_FILES)


class _Identified:
    """What was found of images before: what the plan of a run says, or what was kept on the way to it.

    Args:
        release: where it is kept.
        instrument: of the imagery.
        keep: whether anything is kept on the way to the plan. A few images are soon asked about again.
    """

    def __init__(self, release: Release, instrument: Sensor, *, keep: bool) -> None:
        self._release, self._instrument = release, instrument
        self._planned = _planned_files(release)
        self._path = ""
        self.keeps = keep and self._planned is None

    def find(self, items: Sequence[SourceItem]) -> Sequence[_Planned | None] | None:
        """Return what is known of each of these images; None where all have to be asked about."""
        if self._planned is None and self.keeps:
            self._planned = _planned_files(self._release)  # another share of the run may have written it since
        if self._planned is not None:
            return self._planned.find(items)
        if not self.keeps:
            return None
        self._path = self._path_of(items)
        kept = self._kept()
        return None if kept is None else [kept.get(_key(item)) for item in items]

    def keep(self, found: Sequence[SourceItem]) -> bool:
        """Keep what was found of the images; False where another share was first, and what it found counts.

        Images that were not reached, or not all of them, are asked about again, and so are local files, which are soon
        looked at: all of these may be put right before there is a plan.
        """
        whole = [item for item in found if self.keeps and _is_identified(item)]
        if not whole:
            return True
        self._planned = _planned_files(self._release)
        if self._planned is not None:
            return False
        table, file = _table(whole), io.BytesIO()
        stamped = table.replace_schema_metadata({_ASKED_AT: datetime.now(UTC).isoformat()})
        pq.write_table(stamped, file, compression="zstd")
        data = file.getvalue()
        return self._release.store.create(self._path, hashlib.sha256(data).digest() + data)

    def _kept(self) -> dict[str, _Planned] | None:
        store = self._release.store
        found = store.read_tagged(self._path)
        if found is None:
            return None
        digest, data = found[0][:32], found[0][32:]
        if hashlib.sha256(data).digest() != digest:
            raise ReleaseError(store.path(self._path), "is damaged", fix="Remove it; what it says is asked for again.")
        table = pq.read_table(io.BytesIO(data))
        if datetime.now(UTC) - datetime.fromisoformat(table.schema.metadata[_ASKED_AT].decode()) > _FRESH:
            store.remove(self._path)
            return None
        return {row["id"]: _planned(row) for row in table.to_pylist()}

    def _path_of(self, items: Sequence[SourceItem]) -> str:
        """Named after all that decides what is found of these images."""
        said = [repr(self._instrument.nodata), [[_key(item), *_asked_about(item)] for item in items]]
        return f"{_IDENTIFIED}/{hashlib.sha256(canonical_json(said)).hexdigest()[:32]}"


def _asked_about(item: SourceItem) -> Iterable[Any]:
    yield [file.href for file in item.files]
    yield [[file.href, file.has_external_mask, repr(file.nodata)] for file in item.bands]
    yield item.has_grid


def _is_identified(item: SourceItem) -> bool:
    """Whether all of its files lie on servers that said what identifies them."""
    tags = item.etags
    return not item.digests and all(tags.values()) and all(file.href in tags for file in item.files)


def _planned_files(release: Release) -> "_PlannedFiles | None":
    if not release.store.exists(UNITS):
        return None
    path = files_path(str(release.json(UNITS).get("sha256")))
    return _PlannedFiles(release, path) if release.store.exists(path) else None


class _PlannedFiles:
    """What a plan says of the files of its images: 12 bytes for each, and rows when they are asked for."""

    def __init__(self, release: Release, path: str) -> None:
        file = release.parquet(path)
        hashes = [hash_strings(batch["id"]) for batch in file.iter_batches(group_rows(_FILES), columns=["id"])]
        whole = np.concatenate([*hashes, np.zeros(0, np.uint64)])
        order = np.argsort(whole, kind="stable")
        self._hashes = whole[order]
        self._numbers = np.append(order, -1).astype(np.int32)  # the last for names that are not there
        self._rows = StoredRows(file, _FILES.names)

    def find(self, items: Sequence[SourceItem]) -> list[_Planned | None]:
        """Return what it says of each of these images; in the order of the plan, row groups are read once."""
        names = [_key(item) for item in items]
        hashes = hash_strings(pa.array(names, pa.string()))
        first, stop = (np.searchsorted(self._hashes, hashes, side) for side in ("left", "right"))
        rows = self._rows.take(self._numbers[np.where(first < stop, first, -1)]).to_pylist()
        # An image whose name has the hash of another one is not found, and is looked at again.
        return [_planned(row) if row["id"] == name else None for name, row in zip(names, rows, strict=True)]


def _planned(row: dict[str, Any]) -> _Planned:
    return _Planned(
        dict(zip(row["hrefs"], row["etags"], strict=True)),
        {href: digest for href, digest in zip(row["hrefs"], row["digests"], strict=True) if digest is not None},
        None if row["grid"] is None else _grid(json.loads(row["grid"])),
    )


def _grid(fields: dict[str, Any]) -> RasterGrid:
    a, b, c, d, e, f = fields["transform"]
    return RasterGrid(fields["crs"], fields["height"], fields["width"], (a, b, c, d, e, f))
