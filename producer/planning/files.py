"""The files of a plan, in `.run/`."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clay_publish.errors import ImageryError, ReleaseError
from clay_publish.geo.raster_grid import RasterGrid, ground_size
from clay_publish.geo.utm_grid import epsg_of
from clay_publish.producer.imagery.raster import grid_of, open_bands
from clay_publish.producer.imagery.remote import digests, etags
from clay_publish.producer.imagery.strips import fine_grid
from clay_publish.producer.layouts.base import Counts, SquareCount, UncoveredCells
from clay_publish.producer.planning.cost import Rates, stored_bytes
from clay_publish.producer.planning.estimate import Estimate, stated_rates
from clay_publish.producer.sources.item import SourceItem
from clay_publish.producer.sources.selection import Considered
from clay_publish.producer.unit_plan import Plan
from clay_publish.release import directory as paths
from clay_publish.release.directory import DataFile, Release
from clay_publish.release.geoparquet import group_rows, table_writer, write_table
from clay_publish.release.manifest import UNITS, dump_json
from clay_publish.release.names import hash_strings
from clay_publish.release.stored_rows import StoredRows
from clay_publish.release.tables import TIMESTAMP
from clay_publish.spec.models import Spec
from clay_publish.spec.sensors import Sensor

_ASKED = 16
"""Images whose files are asked for at a time what identifies them: most of the time is spent waiting for servers."""
_OPENED = 8
"""Images whose headers are read at a time."""
_BATCH = 4_096
"""Items that are replaced before more are looked at; those of before are freed."""


def files_path(plan: str) -> str:
    """Where the files of a plan, named by its hash, are listed: workers that plan at once never see each other's."""
    return f"{paths.RUN}/files-{plan[:16]}.parquet"


@dataclass(frozen=True)
class _Planned:
    etags: Mapping[str, str]
    digests: Mapping[str, str]
    grid: RasterGrid | None


def identify_files(release: Release, considered: list[Considered], instrument: Sensor) -> None:
    """Add to the used items, in place, what identifies the content of their files, and their pixel grids.

    The first run asks the files themselves; a resumed one takes what was found then, so that a file that has changed
    since is seen where it is read.
    """
    known = _planned_files(release)

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
            return pool.map(look, items, [None] * len(items) if known is None else known.find(items))

        _replace(considered, _places(each.status == "used" for each in considered), looked)


def _places(wanted: Iterable[bool]) -> npt.NDArray[np.int64]:
    """Return the places of those that are wanted: 8 bytes for each."""
    return np.flatnonzero(np.fromiter(wanted, bool))


def _replace(
    considered: list[Considered],
    places: npt.NDArray[np.int64],
    looked: Callable[[Sequence[SourceItem]], Iterable[SourceItem]],
) -> None:
    """Replace items in the list, some at a time: all of them before and after may not fit into memory."""
    for start in range(0, len(places), _BATCH):
        some = places[start : start + _BATCH].tolist()
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
        _replace(considered, without, lambda items: pool.map(look, items))


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


PLAN = f"{paths.RUN}/plan.json"
SQUARES = f"{paths.RUN}/plan.parquet"
"""One row a 100 km square and window."""
MISSING = f"{paths.RUN}/plan-missing.parquet"
"""Cells without a candidate, as runs along rows."""


def planned_rates(release: Release, spec: Spec) -> Rates | None:
    """The rates of the plan that was made for this directory, else those that the spec states.

    Raises:
        ReleaseError: there is a plan, and it cannot be read.
    """
    if not release.store.exists(PLAN):
        return stated_rates(spec)
    rates = release.json(PLAN).get("rates")
    try:
        return None if rates is None else Rates.model_validate(rates)
    except ValueError as error:
        raise ReleaseError(
            release.store.path(PLAN), f"is not a plan ({error})", fix="Plan again, or remove it."
        ) from error


def write_estimate(release: Release, made: Estimate, counts: Counts) -> None:
    """Write the plan, its squares, and its cells without imagery."""
    release.store.write(PLAN, dump_json(made.model_dump(mode="json")))
    table = pa.Table.from_pylist([_row(each, made) for each in counts.squares], schema=_SCHEMA)
    write_table(release.store, SQUARES, table, index="file")
    parts = [_missing(each) for each in counts.missing]
    write_table(release.store, MISSING, pa.concat_tables(parts) if parts else _MISSING_SCHEMA.empty_table())


_SCHEMA = pa.schema(
    [
        ("file", pa.string()),
        ("zone", pa.int32()),
        ("column", pa.int32()),
        ("row", pa.int32()),
        ("mgrs", pa.string()),
        ("window_start", TIMESTAMP),
        ("window_end", TIMESTAMP),
        ("expected", pa.int64()),
        ("with_imagery", pa.int64()),
        ("no_imagery", pa.int64()),
        ("excluded", pa.int64()),
        ("images", pa.int64()),
        ("bytes_to_store", pa.int64()),
    ]
)


_MISSING_SCHEMA = pa.schema(
    [
        ("epsg", pa.int32()),
        ("row", pa.int32()),
        ("first_col", pa.int32()),
        ("last_col", pa.int32()),
        ("window_start", TIMESTAMP),
        ("window_end", TIMESTAMP),
        ("reason", pa.string()),
    ]
)


def _missing(each: UncoveredCells) -> pa.Table:
    row, first, stop = each.runs
    count, window = len(row), each.window
    columns = [
        pa.array(epsg_of(np.full(count, each.zone), row), pa.int32()),
        pa.array(row, pa.int32()),
        pa.array(first, pa.int32()),
        pa.array(stop - 1, pa.int32()),
        pa.repeat(pa.scalar(window.start, TIMESTAMP), count),
        pa.repeat(pa.scalar(window.end, TIMESTAMP), count),
        pa.repeat(each.reason, count),
    ]
    return pa.Table.from_arrays(columns, schema=_MISSING_SCHEMA)


def _row(each: SquareCount, made: Estimate) -> dict[str, Any]:
    return {
        "file": DataFile(each.square, each.window).name,
        "zone": each.square.zone,
        "column": each.square.column,
        "row": each.square.row,
        "mgrs": each.square.mgrs(),
        "window_start": each.window.start,
        "window_end": each.window.end,
        "expected": each.expected,
        "with_imagery": each.with_imagery,
        "no_imagery": each.no_imagery,
        "excluded": each.excluded,
        "images": each.images,
        "bytes_to_store": stored_bytes(each.with_imagery, made.dimensions, made.dtype, made.patches),  # type: ignore[arg-type]
    }
