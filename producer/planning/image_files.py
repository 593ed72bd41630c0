"""The files of the images of a plan: what identifies their content, and their pixel grids."""

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
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
    share: Share | None = None,
    report: Report = silent,
) -> None:
    """Add to the used items, in place, what identifies the content of their files, and their pixel grids.

    The first run asks the files themselves; a resumed one takes what was found then, so that a file that has changed
    since is seen where it is read. Of many images on servers, what is found of some is kept before more are asked: a
    run that ends goes on there, and shares of a run ask about others each.
    """
    places = _places(each.status == "used" for each in considered)
    many = len(places) > _BATCH
    known = _Identified(release, instrument, many=many)

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
                if known.keep(items, made):
                    return made
            return pool.map(look, items, found)

        for done in _replace(considered, places, looked, share):
            if many:
                report(Progress("plan", done, len(places), "files of images are identified", unit="items"))


def _places(wanted: Iterable[bool]) -> npt.NDArray[np.int64]:
    """Return the places of those that are wanted: 8 bytes for each."""
    return np.flatnonzero(np.fromiter(wanted, bool))


def _replace(
    considered: list[Considered],
    places: npt.NDArray[np.int64],
    looked: Callable[[Sequence[SourceItem]], Iterable[SourceItem]],
    share: Share | None = None,
) -> Iterator[int]:
    """Replace items in the list, some at a time: all of them before and after may not fit into memory.

    Yields how many are replaced. A share begins with a part of its own, and goes on with those of others.
    """
    starts = range(0, len(places), _BATCH)
    first = 0 if share is None else len(starts) * (share.number - 1) // share.of
    done = 0
    for start in (*starts[first:], *starts[:first]):
        some = places[start : start + _BATCH].tolist()
        for n, item in zip(some, looked([considered[n].item for n in some]), strict=True):
            considered[n] = replace(considered[n], item=item)
        done += len(some)
        yield done


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


def _without_grid(considered: Sequence[Considered]) -> npt.NDArray[np.int64]:
    return _places(each.status == "used" and not each.item.has_grid for each in considered)


def _read_grids(
    considered: list[Considered],
    without: npt.NDArray[np.int64],
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
        for _ in _replace(considered, without, lambda items: pool.map(look, items)):
            pass


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
        many: whether anything is kept before there is a plan. A few images are soon asked again.
    """

    def __init__(self, release: Release, instrument: Sensor, *, many: bool) -> None:
        self._release, self._instrument, self._many = release, instrument, many
        self._planned = _planned_files(release)

    def find(self, items: Sequence[SourceItem]) -> Sequence[_Planned | None] | None:
        """Return what is known of each of these images; None where they have to be asked."""
        if self._planned is None and self._many:
            path = self._path(items)
            kept = self._release.store.read_tagged(path)
            if kept is not None:
                return [_planned(row) for row in _rows(kept[0], self._release.store.path(path))]
            self._planned = _planned_files(self._release)  # another share of the run may have written it since
        return None if self._planned is None else self._planned.find(items)

    def keep(self, items: Sequence[SourceItem], found: Sequence[SourceItem]) -> bool:
        """Keep what was found of images on servers; False where another share was first, and what it found counts."""
        if not self._many or any(item.digests for item in found):
            return True
        data = io.BytesIO()
        pq.write_table(_table(found), data, compression="zstd")
        return self._release.store.create(self._path(items), data.getvalue())

    def _path(self, items: Sequence[SourceItem]) -> str:
        """Named after all that decides what is found: other images, or others of their files, are asked about."""
        said = [repr(self._instrument.nodata), [[_key(item), *_asked_about(item)] for item in items]]
        return f"{_IDENTIFIED}/{hashlib.sha256(canonical_json(said)).hexdigest()[:32]}.parquet"


def _rows(data: bytes, where: str) -> list[dict[str, Any]]:
    try:
        return list(pq.read_table(io.BytesIO(data)).to_pylist())
    except pa.ArrowException as error:
        raise ReleaseError(where, f"cannot be read ({error})", fix="Remove it; the images are asked again.") from error


def _asked_about(item: SourceItem) -> Iterable[Any]:
    yield [file.href for file in item.files]
    yield [[file.href, file.has_external_mask, repr(file.nodata)] for file in item.bands]


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
