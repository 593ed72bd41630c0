"""Which chips a release should have, computed from its own spec and sources, and which it has and describes.

`scene`: every whole chip of every used image, whose center lies in the area of its imagery block.
`utm`: in every window, the cells of the grid that meet the areas of the blocks that ask for it; where a block names no
area, the ground its used images cover.
"""

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely

from clay_publish.errors import ReleaseError
from clay_publish.geo.area import Area, items_area, read_area
from clay_publish.geo.expected_cells import ZoneCells, expected_cells
from clay_publish.geo.utm_grid import UtmGrid
from clay_publish.release.fingerprint import Fingerprint
from clay_publish.spec.models import Spec
from clay_publish.validate.data.chip_facts import ReleaseFacts
from clay_publish.validate.data.coverage_table import (
    COUNTED,
    Said,
    count,
    coverage_batches,
    distinct,
    equals,
    filled,
    first_items,
    micros,
    whole_numbers,
)
from clay_publish.validate.data.parquet_tables import ParquetTables
from clay_publish.validate.data.sources import Ints, SourceTable
from clay_publish.validate.expected.cells import (
    EXPECTED,
    PRESENT,
    SAID_EMBEDDED,
    SAID_MISSING,
    CellRaster,
    Summary,
    empty,
    scene_grid,
)
from clay_publish.validate.spilled import together
from clay_publish.windows import Window

_ZONE = re.compile(r"zone=(\d{2})\.parquet$")


@dataclass(frozen=True)
class ExpectedWindow:
    """One window and the ground that is asked for in it."""

    window: Window
    area: Area


@dataclass(frozen=True)
class CellInputs:
    """What decides which cells are expected, present and described."""

    spec: Spec
    fingerprint: Fingerprint
    sources: SourceTable
    facts: ReleaseFacts
    tables: ParquetTables


def expected_windows(spec: Spec, sources: SourceTable) -> list[ExpectedWindow]:
    """The windows of the release, in order, and the ground of each.

    A window's ground is the areas of the blocks that ask for it; a block without area asks for what its images cover.
    """
    blocks: dict[Window, set[int]] = defaultdict(set)
    for number, block in enumerate(spec.imagery):
        for window in block.parsed_windows():
            blocks[window].add(number)
    asking = np.flatnonzero(sources.texts["status"].where({"used", "excluded"}.__contains__))
    windows, own = windows_of(sources, spec, asking)
    for place, number in np.unique(np.stack([own, sources.block[asking]], axis=1), axis=0).tolist():
        window = windows[place]
        if window is not None:
            blocks[window].add(number)
    made = []
    for window in sorted(blocks):
        areas = [spec.imagery[number].area for number in sorted(blocks[window])]
        asked = [read_area(area).geometry for area in areas if area is not None]
        if len(asked) == len(areas):
            ground = Area("area", shapely.union_all(asked))
        else:
            place = windows.index(window) if window in windows else -1
            mine = asking[(own == place) & sources.is_used[asking]]
            shapes = sources.different_outlines(mine)
            ground = items_area(np.array([*shapes, *asked], dtype=object))
        if not ground.geometry.is_empty:
            made.append(ExpectedWindow(window, ground))
    return made


def windows_of(sources: SourceTable, spec: Spec, rows: Ints) -> tuple[list[Window | None], Ints]:
    """The windows of some rows: the different ones, and each row's among them.

    It is the window of its block that holds a source's moment, or its own days where the block names none.
    """
    known: dict[Window | None, int] = {None: 0}
    made = np.zeros(len(rows), np.int64)
    blocks, moments = sources.block[rows], sources.times["datetime"][rows]
    for number, block in enumerate(spec.imagery):
        mine = np.flatnonzero(blocks == number)
        windows = block.parsed_windows()
        if not windows:
            different, own = sources.windows(rows[mine])
            made[mine] = np.array([known.setdefault(w, len(known)) for w in different] or [0])[own]
        for window in reversed(windows):  # the first that holds it counts
            inside = (moments[mine] >= micros(window.start)) & (moments[mine] < micros(window.end))
            made[mine[inside]] = known.setdefault(window, len(known))
    return list(known), made


_MAX_CELLS = 4_000_000_000
"""Chips of a release that are counted."""


def utm_layers(inputs: CellInputs, counted: Counter[Said]) -> Iterator[Summary]:
    """One layer for each zone and window; only one zone's bitmaps are held at a time.

    What the coverage says is counted on the way: its tables are long.

    Raises:
        ReleaseError: spec, sources, embeddings or coverage do not tell enough.
    """
    if inputs.fingerprint.gsd is None:
        raise ReleaseError("fingerprint", "has no gsd, which the utm layout needs")
    side = inputs.fingerprint.size * inputs.fingerprint.gsd
    grid = UtmGrid(side)
    asked = expected_windows(inputs.spec, inputs.sources)
    chips = sum(step.area.km2 for step in asked) * 1e6 / max(side, 1e-3) ** 2
    if chips > _MAX_CELLS:
        raise ReleaseError("release.yaml", f"asks for about {chips:,.0f} chips", f"at most {_MAX_CELLS:,}")
    streams = [expected_cells(grid, step.area.geometry, rule=step.area.rule) for step in asked]
    waiting: list[ZoneCells | None] = [next(stream, None) for stream in streams]
    coverage, files = _coverage_by_zone(inputs.tables), _files_by_zone(inputs.tables)
    for zone in range(1, 61):
        found: dict[Window | None, CellRaster] = {}
        for number, step in enumerate(asked):
            cells = waiting[number]
            if cells is not None and cells.zone == zone:
                found[step.window] = expected_layer(cells, str(step.window))
                waiting[number] = next(streams[number], None)
        for path in files.get(zone, []):
            window = inputs.tables.named[path].window
            rows = inputs.facts.slices()[path]
            _layer(found, zone, window).mark(inputs.facts["rows"][rows], inputs.facts["cols"][rows], PRESENT)
        _mark_table(inputs.tables, zone, coverage.get(zone, []), found, counted)
        yield from (layer.summary() for layer in found.values())


def expected_layer(cells: ZoneCells, name: str) -> CellRaster:
    """A layer that just holds the expected cells of a zone."""
    row, first, stop = cells.runs
    low, left = int(row.min()), int(first.min())
    shape = (int(row.max()) + 1 - low, int(stop.max()) - left)
    title = f"zone {cells.zone}, {name}"
    layer = CellRaster(title, low, left, empty(title, *shape))
    layer.mark_runs(row, first, stop, EXPECTED)
    return layer


def _layer(found: dict[Window | None, CellRaster], zone: int, window: Window) -> CellRaster:
    if window not in found:
        found[window] = _nothing(f"zone {zone}, {window} (not asked for)")
    return found[window]


def _nothing(name: str) -> CellRaster:
    """A layer in which no cell is expected."""
    return CellRaster(name, 0, 0, np.zeros((0, 0), np.uint8))


def _mark_table(
    tables: ParquetTables, zone: int, paths: list[str], found: dict[Window | None, CellRaster], counted: Counter[Said]
) -> None:
    by_start = {micros(window.start): layer for window, layer in found.items() if window is not None}
    stray = found[None] = _nothing(f"coverage of zone {zone}, other zones or windows")
    for batch in coverage_batches(tables, ["col", "epsg", *COUNTED], paths):
        count(counted, batch)
        starts = filled(batch.column("window_start").cast("int64"), 0)
        row, col = whole_numbers(batch, "row"), whole_numbers(batch, "col")
        embedded = equals(batch.column("status"), "embedded")
        foreign = whole_numbers(batch, "epsg") % 100 != zone
        if foreign.any():
            for flag, which in ((SAID_EMBEDDED, foreign & embedded), (SAID_MISSING, foreign & ~embedded)):
                stray.mark(row[which], col[which], flag)
            starts, row, col, embedded = (each[~foreign] for each in (starts, row, col, embedded))
        for start, mine in distinct(starts):
            layer = by_start.get(start, stray)
            for flag, which in ((SAID_EMBEDDED, embedded), (SAID_MISSING, ~embedded)):
                chosen = which if mine is None else which & mine
                if chosen.all():
                    layer.mark(row, col, flag)
                elif chosen.any():
                    layer.mark(row[chosen], col[chosen], flag)


def _coverage_by_zone(tables: ParquetTables) -> dict[int, list[str]]:
    """Coverage tables by zone."""
    found: dict[int, list[str]] = defaultdict(list)
    for path in tables.coverage:
        match = _ZONE.search(path)
        if match is None:
            raise ReleaseError(path, "does not name its zone", "coverage/zone=ZZ.parquet")
        found[int(match[1])].append(path)
    return found


def _files_by_zone(tables: ParquetTables) -> dict[int, list[str]]:
    """Embeddings files by zone.

    Raises:
        ReleaseError: a file's name does not tell.
    """
    found: dict[int, list[str]] = defaultdict(list)
    for path in tables.embeddings:
        if path not in tables.named:
            raise ReleaseError(path, "does not name its square and window")
        found[tables.named[path].square.zone].append(path)
    return found


def count_cells(inputs: CellInputs, counted: Counter[Said]) -> Iterator[Summary]:
    """Expected, present and described cells of the release, counted by layer.

    In the `utm` layout, `counted` takes what the coverage says.

    Raises:
        ReleaseError: spec, sources, embeddings or coverage do not tell enough.
    """
    if inputs.fingerprint.layout == "utm":
        yield from utm_layers(inputs, counted)
        return
    found, facts, sources = _expected(inputs), inputs.facts, inputs.sources
    for items, rows, cols in together(facts["items"], facts["rows"], facts["cols"]):
        _mark_by_layer(found, items, rows, cols, PRESENT)
    for batch in coverage_batches(inputs.tables, ["row", "col", "status", "item_ids"]):
        known = batch.column("row").is_valid().to_numpy(zero_copy_only=False)
        known &= batch.column("col").is_valid().to_numpy(zero_copy_only=False)
        item = first_items(batch, sources)
        row, col = whole_numbers(batch, "row"), whole_numbers(batch, "col")
        embedded = equals(batch.column("status"), "embedded")
        for flag, which in ((SAID_EMBEDDED, known & embedded), (SAID_MISSING, known & ~embedded)):
            _mark_by_layer(found, item[which], row[which], col[which], flag)
    yield from (layer.summary() for layer in found if layer is not None)


def _expected(inputs: CellInputs) -> list[CellRaster | None]:
    """A layer for each source item by its place; None for those that give no chips."""
    size = inputs.fingerprint.size
    areas = [None if block.area is None else read_area(block.area).geometry for block in inputs.spec.imagery]
    table = inputs.sources
    made: list[CellRaster | None] = [None] * len(table.ids)
    for place in np.flatnonzero((table.is_used & table.shapes.there)[table.row_of]).tolist():
        source = table.item(place)
        if source.shape is None:
            continue
        rows, cols = source.shape[0] // size, source.shape[1] // size
        name = f"item {source.id}"
        layer = CellRaster(name, 0, 0, empty(name, rows, cols))
        area = areas[source.block] if 0 <= source.block < len(areas) else None
        if area is None:
            layer.flags[:] = EXPECTED
        else:
            row, col = np.divmod(np.arange(rows * cols), max(cols, 1))
            lon, lat = scene_grid(source, size).to_lonlat(col + 0.5, row + 0.5)
            layer.flags[:] = shapely.intersects_xy(area, lon, lat).reshape(rows, cols) * EXPECTED
        made[place] = layer
    return made


def _mark_by_layer(
    found: list[CellRaster | None],
    items: npt.NDArray[np.integer],
    rows: npt.NDArray[np.integer],
    cols: npt.NDArray[np.integer],
    flag: int,
) -> None:
    order = np.argsort(items, kind="stable")
    places, first = np.unique(items[order], return_index=True)
    for place, (start, stop) in zip(places.tolist(), itertools.pairwise([*first, len(order)]), strict=True):
        mine = order[start:stop]
        if place >= 0:
            marked = found[place] or CellRaster("an unused item", 0, 0, np.zeros((0, 0), np.uint8))
            marked.mark(rows[mine], cols[mine], flag)
            found[place] = marked
