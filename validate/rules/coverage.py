"""Rules on cells: what should be there, what is there, and what is said about it."""

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clay_publish.release.directory import COVERAGE
from clay_publish.release.findings import Severity
from clay_publish.validate.context import View
from clay_publish.validate.data.chip_facts import hash_strings
from clay_publish.validate.data.coverage_table import coverage_batches, equals, first_items
from clay_publish.validate.expected.cells import EXPECTED, PRESENT, SAID_EMBEDDED, SAID_MISSING, Summary, combinations
from clay_publish.validate.registry import Fault, Outcome, rule

_ERROR = Severity.ERROR


def _cells(view: View, *, required: int, absent: int, found: str, expected: str) -> Iterator[Outcome]:
    """A fault for each layer that has cells with these flags and without those."""
    for layer in view.layers:
        wrong = [c for c in combinations(required=required, absent=absent) if layer.counts[c]]
        if wrong:
            yield _fault(layer, sum(layer.counts[c] for c in wrong), layer.cells.get(wrong[0], []), found, expected)


def _fault(layer: Summary, count: int, cells: list[tuple[int, int]], found: str, expected: str) -> Fault:
    listed = ", ".join(f"row {row} col {col}" for row, col in cells)
    more = ", …" if count > len(cells) else ""
    return Fault(f"{layer.name}: {listed}{more}", f"{count:,} {found}", expected)


@rule(
    "COV001",
    _ERROR,
    "Every expected chip is embedded, or a row says why not",
    reason="A hole that nobody mentions is found by the user who needed that place.",
    fix="Run the units again that should have made them, or record the reason.",
)
def no_silent_gaps(view: View) -> Iterator[Outcome]:
    """Expected from release.yaml and sources.parquet; present in the embeddings; explained in the coverage."""
    yield from _cells(
        view,
        required=EXPECTED,
        absent=PRESENT | SAID_MISSING | SAID_EMBEDDED,
        found="expected chips are missing without a word",
        expected="an embedding, or a row in the coverage table with the reason",
    )


@rule(
    "COV002",
    _ERROR,
    "No chip is embedded that the spec does not ask for",
    reason="Chips outside of the declared images and area have no source that could be checked, and no licence.",
    fix="Correct the spec and the sources, or leave the chips out.",
)
def none_unexpected(view: View) -> Iterator[Outcome]:
    """Present and not expected."""
    yield from _cells(
        view, required=PRESENT, absent=EXPECTED, found="chips are not asked for", expected="chips of used images"
    )
    yield from _strangers(view, PRESENT, "chips lie outside of their image")


@rule(
    "COV003",
    _ERROR,
    "What the coverage calls embedded is in the files",
    reason="A table that promises chips the files lack is the defect users of published embeddings met most.",
    fix="Restore the missing rows from the run, or record why they are missing.",
)
def said_embedded_is_there(view: View) -> Iterator[Outcome]:
    """Said embedded and not present."""
    yield from _cells(
        view,
        required=SAID_EMBEDDED,
        absent=PRESENT,
        found="chips are called embedded and are in no file",
        expected="a row in the embeddings",
    )


@rule(
    "COV004",
    _ERROR,
    "What the coverage calls missing is not in the files",
    reason="A reason for a gap that is none hides a real one elsewhere.",
    fix="Write the coverage again from the files.",
)
def said_missing_is_missing(view: View) -> Iterator[Outcome]:
    """Said missing and present."""
    yield from _cells(
        view,
        required=SAID_MISSING | PRESENT,
        absent=0,
        found="chips are called missing and are embedded",
        expected="`embedded` in the coverage table",
    )


@rule(
    "COV005",
    _ERROR,
    "The coverage has one row for every embedded chip",
    reason="Counts and maps are made from it.",
    fix="Write the coverage again from the files.",
)
def embedded_is_said(view: View) -> Iterator[Outcome]:
    """Present and not mentioned, or mentioned twice."""
    yield from _cells(
        view,
        required=PRESENT | EXPECTED,
        absent=SAID_EMBEDDED | SAID_MISSING,
        found="embedded chips are not in the coverage table",
        expected="a row each",
    )
    for layer in view.layers:
        again = layer.twice.get(SAID_EMBEDDED, 0) + layer.twice.get(SAID_MISSING, 0)
        if again:
            yield Fault(f"{COVERAGE}: {layer.name}", f"{again:,} rows repeat a chip", "one row a chip")


@rule(
    "COV006",
    _ERROR,
    "The coverage speaks of expected chips only",
    reason="Rows that nobody asked for make the share of coverage look worse, or better, than it is.",
    fix="Write the coverage again from the plan.",
)
def said_is_expected(view: View) -> Iterator[Outcome]:
    """Mentioned and not expected."""
    for flag in (SAID_EMBEDDED, SAID_MISSING):
        yield from _cells(
            view,
            required=flag,
            absent=EXPECTED | PRESENT,
            found="rows speak of chips that nobody expects",
            expected="expected chips",
        )
        yield from _strangers(view, flag, "rows speak of chips outside of the image")


def _strangers(view: View, flag: int, found: str) -> Iterator[Outcome]:
    for layer in view.layers:
        if flag in layer.strangers:
            (count, _), *cells = layer.strangers[flag]
            rows, cols = layer.shape
            yield _fault(layer, count, cells, found, f"{rows} rows and {cols} columns")


@rule(
    "COV014",
    _ERROR,
    "Ids in the coverage are the ids in the files",
    reason="Coverage and embeddings are joined by id.",
    fix="Write the coverage again from the files.",
)
def ids_agree(view: View) -> Iterator[Outcome]:
    """Hashes of the ids that are called embedded, against those of the files."""
    ours = view.scan.facts["ids"]
    if _sums(_said_ids(view)) == _sums([ours]):
        return
    said = [*_said_ids(view), np.empty(0, np.uint64)]
    theirs, ours = np.sort(np.concatenate(said)), np.sort(ours)
    alone = np.setdiff1d(ours, theirs).size, np.setdiff1d(theirs, ours).size
    yield Fault(
        COVERAGE,
        f"{alone[0]:,} ids of the files are not in it, {alone[1]:,} of its ids are in no file",
        "the same ids",
    )


def _said_ids(view: View) -> Iterator[npt.NDArray[np.uint64]]:
    """Hashes of the ids that are called embedded."""
    for batch in coverage_batches(view, ["id", "status"]):
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


@rule(
    "COV015",
    _ERROR,
    "Images that could not be counted are in the coverage as a whole",
    reason="An image whose grid nobody knows gives no chips to count; without a row it would vanish.",
    fix="Record one missing row for the item, without row and column.",
)
def unknown_grids_are_said(view: View) -> Iterator[Outcome]:
    """Used items without shape."""
    blind = {n for n, s in enumerate(view.sources.by_id.values()) if s.status == "used" and s.shape is None}
    if view.fingerprint.layout != "scene" or not blind:
        return
    for batch in coverage_batches(view, ["item_ids", "status"]):
        blind -= set(np.unique(first_items(batch, view.source_ids)).tolist())
    for place in sorted(blind):
        yield Fault(COVERAGE, f"does not mention {view.source_ids[place].as_py()}, whose grid is unknown", "a row")


@rule(
    "COV016",
    _ERROR,
    "No cell is embedded twice in one image or window",
    reason="Two vectors for one cell need not agree, and count the place twice.",
    fix="Find the unit that was written twice and make the release again.",
)
def cells_once(view: View) -> Iterator[Outcome]:
    """Rows of one image, or of one zone and window, that share row and column; overlapping images are GEO010's."""
    for layer in view.layers:
        again = layer.twice.get(PRESENT, 0)
        if again:
            yield Fault(layer.name, f"{again:,} chips repeat a cell", "one chip a cell")
