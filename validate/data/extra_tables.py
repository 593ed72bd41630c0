"""The tables beside the embeddings, patches and aggregates: read once, in pieces, page checksums compared."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from clay_publish.errors import ReleaseError
from clay_publish.release.directory import AGGREGATES, EMBEDDINGS, PATCHES, DataFile
from clay_publish.validate.data.chip_facts import hash_strings
from clay_publish.validate.data.chips import ChipRows
from clay_publish.validate.registry import UNFORESEEN

if TYPE_CHECKING:
    from clay_publish.validate.context import View

Ints = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

_BATCH = 8192
_SIDE = re.compile(rf"{AGGREGATES}/(\d+)x(\d+)/zone=")

SAMPLE = 256
"""Blocks of one side whose means are taken again, at most."""


@dataclass
class Beside:
    """What one reading of such a file leaves."""

    path: str
    rows: int = 0
    damage: str | None = None
    """Why reading stopped."""
    gap: str | None = None
    """Why the rules below cannot judge it."""
    bad: list[tuple[int, str]] = field(default_factory=list)
    """Rows that hold no vector, and what they hold; the first, and their number."""
    wrong: int = 0
    patches: dict[int, int] = field(default_factory=dict)
    """Patches of each chip, by the hash of its id."""
    cells: Counter[tuple[int, int, int]] = field(default_factory=Counter)
    """Chips that have a patch of this layer, row and column."""
    keys: list[Ints] = field(default_factory=list)
    """Number of each block: its image or zone and window, row and column."""
    examples: dict[int, tuple[int, npt.NDArray[np.float32], float]] = field(default_factory=dict)
    """Of some blocks, by key: row, vector, and half a step of its quantization."""

    @property
    def counterpart(self) -> str:
        """The embeddings file of the same square and window."""
        return f"{EMBEDDINGS}/{'/'.join(self.path.split('/')[-2:])}"


def side_of(path: str) -> int | None:
    """Chips along a side of an aggregate's blocks; None where the folder does not say."""
    match = _SIDE.match(path)
    return int(match[1]) if match and match[1] == match[2] and int(match[1]) > 1 else None


def beside_paths(view: "View") -> list[str]:
    """Files of patches and aggregates that can be opened."""
    return [p for p in view.metadata_paths if p.startswith((f"{PATCHES}/", f"{AGGREGATES}/"))]


def read_beside(view: "View", path: str) -> Beside:
    """Read one file.

    Raises:
        ReleaseError: a quick look does not read it whole.
    """
    if view.quick:
        raise ReleaseError(path, "would have to be read whole, which a quick look does not")
    made = Beside(path)
    step = max(1, view.footer_of(path).num_rows // 64)
    try:
        for batch in view.batches(path, _BATCH, use_threads=False):
            chips = ChipRows(path, made.rows, batch)
            made.rows += len(chips)
            try:
                if made.gap is None:
                    _look_at(made, chips, view, step)
            except ReleaseError as error:
                made.gap = f"{error.where} {error.found}"
            except UNFORESEEN as error:
                made.gap = f"{path} holds what cannot be read ({error!r})"
    except ReleaseError as error:
        made.damage, made.gap = error.found, f"{path} cannot be read ({error.found})"
    return made


def _look_at(made: Beside, chips: ChipRows, view: "View", step: int) -> None:
    _look_at_vectors(made, chips)
    if made.path.startswith(f"{PATCHES}/"):
        _count_patches(made, chips)
    else:
        _number_blocks(made, chips, view, step)


def _look_at_vectors(made: Beside, chips: ChipRows) -> None:
    suspect = np.flatnonzero(~np.isfinite(chips.sums.squares))
    if suspect.size:
        suspect = suspect[~np.isfinite(chips.values(suspect)).all(axis=1)]
    if chips.scales is not None:
        suspect = np.union1d(suspect, np.flatnonzero(~(chips.scales > 0)))
    if suspect.size:
        made.wrong += suspect.size
        row = int(suspect[0])
        values = chips.values(np.array([row]))[0]
        said = f"{int((~np.isfinite(values)).sum())} values that are not finite"
        made.bad.append((chips.start + row, said if chips.scales is None else f"scale {chips.scales[row]:g}, {said}"))


def _count_patches(made: Beside, chips: ChipRows) -> None:
    ids, counts = np.unique(hash_strings(chips.column("chip_id")), return_counts=True)
    for chip, count in zip(ids.tolist(), counts.tolist(), strict=True):
        made.patches[chip] = made.patches.get(chip, 0) + count
    layer = chips.integers("layer") if chips.has("layer") else np.zeros(len(chips), np.int64)
    cells = np.stack([layer, chips.integers("patch_row"), chips.integers("patch_col")], axis=1)
    kinds, many = np.unique(cells, axis=0, return_counts=True)
    for (one, row, col), count in zip(kinds.tolist(), many.tolist(), strict=True):
        made.cells[one, row, col] += count


def _number_blocks(made: Beside, chips: ChipRows, view: "View", step: int) -> None:
    whose = whose_of(view, made.path, chips.integers("epsg"), view.item_places(chips))
    keys = block_keys(whose, chips.integers("row"), chips.integers("col"))
    made.keys.append(keys)
    for row in range(-chips.start % step, len(chips), step):
        slack = 0.0 if chips.scales is None else float(chips.scales[row]) / 2
        vector = chips.values(np.array([row]))[0]
        made.examples[int(keys[row])] = (chips.start + row, vector, slack)


def whose_of(
    view: "View", path: str, epsg: npt.NDArray[np.integer], items: npt.NDArray[np.integer]
) -> npt.NDArray[np.int64]:
    """The image that a file's chips were cut from, or their zone and window: blocks do not reach beyond.

    Raises:
        ReleaseError: the file's name does not tell its window.
    """
    if view.fingerprint.layout == "scene":
        return np.asarray(items, np.int64)
    window = DataFile.parse(path).window
    return np.asarray(epsg, np.int64) % 1000 * 4096 + view.windows.index(window) % 4096


def block_keys(whose: Ints, row: npt.NDArray[np.integer], col: npt.NDArray[np.integer]) -> Ints:
    """One number a block; rows and columns of blocks within ±500,000."""
    half = 1 << 19
    return (whose << 40) + ((np.asarray(row, np.int64) + half) << 20) + np.asarray(col, np.int64) + half


def blocks_of_chips(view: "View", side: int) -> Ints:
    """The block of each embedded chip, in the order of the release."""
    facts = view.scan.facts
    rows, cols = facts["rows"] // side, facts["cols"] // side
    parts = [
        block_keys(whose_of(view, path, _codes(view, mine), facts["items"][mine]), rows[mine], cols[mine])
        for path, mine in facts.slices().items()
    ]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def _codes(view: "View", mine: slice) -> npt.NDArray[np.integer]:
    if view.fingerprint.layout == "scene":
        return np.zeros(0, np.int32)
    return np.asarray(view.scan.facts["epsg"][mine])


def tables(view: "View") -> Iterator[tuple[int, list[Beside]]]:
    """The aggregates of each side, asked for or there."""
    found: dict[int, list[Beside]] = {side: [] for side in view.spec.outputs.aggregate}
    for path, made in view.beside.items():
        side = side_of(path)
        if side is not None:
            found.setdefault(side, []).append(made)
    yield from sorted(found.items())
