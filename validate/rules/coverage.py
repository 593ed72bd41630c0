"""Rules on cells: what should be there, what is there, and what is said about it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clay_publish.release.directory import COVERAGE
from clay_publish.release.names import hash_strings
from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.data.coverage_table import coverage_batches, equals, first_items, micros, whole_numbers
from clay_publish.validate.expected.cells import EXPECTED, PRESENT, SAID_EMBEDDED, SAID_MISSING, Summary, combinations
from clay_publish.validate.expected.layers import expected_windows
from clay_publish.validate.outcomes import Fault, Outcome
from clay_publish.validate.registry import Rule, register, rule
from clay_publish.validate.spilled import in_order, pieces, spilled


@dataclass(frozen=True)
class WrongCells:
    """Cells that have all of some flags and none of others, which none should have."""

    having: int
    lacking: int
    found: str
    expected: str
    beyond: str | None = None
    """What is found where cells with the flags lie outside of their layer's rectangle."""
    repeated: tuple[int, ...] = ()
    """Flags that a cell should have once."""


_NO_CELL = 1 << 4
"""A flag that no cell has."""
_SAID = SAID_EMBEDDED | SAID_MISSING
_STRANGE = ("rows of chips that are not expected", "expected chips", "rows of chips outside the image")

CELL_RULES: dict[str, tuple[WrongCells, ...]] = {
    "COV001": (
        WrongCells(EXPECTED, PRESENT | _SAID, "expected chips are missing without a word", "a row that says why"),
    ),
    "COV002": (
        WrongCells(
            PRESENT, EXPECTED, "chips are not asked for", "chips of used images", "chips lie outside their image"
        ),
    ),
    "COV003": (
        WrongCells(SAID_EMBEDDED, PRESENT, "chips are called embedded and are in no file", "rows in the files"),
    ),
    "COV004": (WrongCells(SAID_MISSING | PRESENT, 0, "chips are called missing and are embedded", "`embedded`"),),
    "COV005": (
        WrongCells(
            PRESENT | EXPECTED,
            _SAID,
            "embedded chips are not in the coverage table",
            "one row per chip",
            repeated=(SAID_EMBEDDED, SAID_MISSING),
        ),
    ),
    "COV006": (
        WrongCells(SAID_EMBEDDED, EXPECTED | PRESENT, *_STRANGE),
        WrongCells(SAID_MISSING, EXPECTED | PRESENT, *_STRANGE),
    ),
    # Overlapping images are GEO010's.
    "COV016": (WrongCells(_NO_CELL, 0, "", "one chip per cell", repeated=(PRESENT,)),),
}


def _wrong_cells(kinds: tuple[WrongCells, ...], context: ReleaseContext) -> Iterator[Outcome]:
    for kind in kinds:
        for layer in context.layers:
            wrong = [c for c in combinations(required=kind.having, absent=kind.lacking) if layer.counts[c]]
            if wrong:
                count = sum(layer.counts[c] for c in wrong)
                yield _fault(layer, count, layer.cells.get(wrong[0], []), kind.found, kind.expected)
            again = sum(layer.twice.get(flag, 0) for flag in kind.repeated)
            if again:
                yield Fault(layer.name, f"{again:,} rows repeat a cell", kind.expected)
            if kind.beyond is not None and kind.having in layer.unexpected:
                (count, _), *cells = layer.unexpected[kind.having]
                rows, cols = layer.shape
                yield _fault(layer, count, cells, kind.beyond, f"{rows} rows and {cols} columns")


def _fault(layer: Summary, count: int, cells: list[tuple[int, int]], found: str, expected: str) -> Fault:
    listed = ", ".join(f"row {row} col {col}" for row, col in cells)
    more = ", …" if count > len(cells) else ""
    return Fault(f"{layer.name}: {listed}{more}", f"{count:,} {found}", expected)


for _code, _kinds in CELL_RULES.items():
    register(Rule(_code, partial(_wrong_cells, _kinds)))


@rule("COV014")
def ids_agree(context: ReleaseContext) -> Iterator[Outcome]:
    """Hashes of the ids that are called embedded, against those of the files."""
    ours = context.scan.facts["ids"]
    if _sums(_said_ids(context)) == _sums(pieces(ours)):
        return
    alone = [0, 0]
    for mine, theirs in in_order(ours, spilled(_said_ids(context), np.dtype(np.uint64))):
        alone[0] += np.setdiff1d(mine, theirs).size
        alone[1] += np.setdiff1d(theirs, mine).size
    yield Fault(
        COVERAGE,
        f"{alone[0]:,} ids of the files are not in it, {alone[1]:,} of its ids are in no file",
        "the same ids",
    )


def _said_ids(context: ReleaseContext) -> Iterator[npt.NDArray[np.uint64]]:
    """Hashes of the ids that are called embedded."""
    for batch in coverage_batches(context.tables, ["id", "status"]):
        embedded = equals(batch.column("status"), "embedded")
        column = batch.column("id")
        yield hash_strings(column if embedded.all() else column.filter(pa.array(embedded)))


def _sums(parts: Iterable[npt.NDArray[np.uint64]]) -> tuple[int, int, int]:
    """Number, sum, and sum of squares, modulo 2⁶⁴.

    They are the same for the same hashes in any order, and for others as good as never.
    """
    count, total, squares = 0, np.uint64(0), np.uint64(0)
    with np.errstate(over="ignore"):
        for part in parts:
            count += len(part)
            total += part.sum(dtype=np.uint64)
            squares += (part * part).sum(dtype=np.uint64)
    return count, int(total), int(squares)


@rule("COV019")
def windows_and_grids_are_the_chips_(context: ReleaseContext) -> Iterator[Outcome]:
    """Windows against those of the spec and the images; in the `scene` layout each row against its image."""
    scene, sources = context.fingerprint.layout == "scene", context.sources
    windows = sources.windows(sources.row_of)[0] if scene else []
    windows += [step.window for step in expected_windows(context.documents.spec, sources)]
    known = {(micros(window.start), micros(window.end)) for window in windows if window is not None}
    for start, end in sorted({(said.start, said.end) for said in context.said} - known, key=str):
        period = " to ".join("null" if side is None else str(np.datetime64(side, "us"))[:10] for side in (start, end))
        yield Fault(COVERAGE, f"names the window {period}", "a window of the spec, or the days of an image")
    if not scene:
        return  # `epsg` tells cells apart
    for path in context.tables.coverage:
        wrong = 0
        for batch in coverage_batches(context.tables, ["epsg", "item_ids"], [path]):
            own, found = sources.codes_of(first_items(batch, sources)), whole_numbers(batch, "epsg")
            wrong += int(((own != found) & (own != 0) & (found != 0)).sum())
        if wrong:
            yield Fault(f"{path}: epsg", f"is another in {wrong:,} rows", "the code of the image's pixel grid")


@rule("COV015")
def unknown_grids_are_said(context: ReleaseContext) -> Iterator[Outcome]:
    """Used items without shape."""
    sources = context.sources
    blind = set(np.flatnonzero((sources.is_used & ~sources.shapes.there)[sources.row_of]).tolist())
    if context.fingerprint.layout != "scene" or not blind:
        return
    for batch in coverage_batches(context.tables, ["item_ids", "status"]):
        blind -= set(np.unique(first_items(batch, sources)).tolist())
    for place in sorted(blind):
        yield Fault(COVERAGE, f"does not mention {sources.ids[place].as_py()}, whose grid is unknown", "a row")
