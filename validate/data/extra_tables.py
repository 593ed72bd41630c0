"""The tables beside the embeddings, patches and aggregates: read once, in pieces, page checksums compared."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from clay_publish.errors import ReleaseError
from clay_publish.release.directory import AGGREGATES, EMBEDDINGS, PATCHES, DataFile
from clay_publish.release.fingerprint import Fingerprint
from clay_publish.release.names import hash_strings, hash_words
from clay_publish.validate.data.chip_facts import ReleaseFacts
from clay_publish.validate.data.chips import ChipRows
from clay_publish.validate.data.files import once
from clay_publish.validate.data.parquet_tables import ParquetTables
from clay_publish.validate.data.sources import SourceTable
from clay_publish.validate.outcomes import UNFORESEEN
from clay_publish.validate.spilled import SpilledColumn, spilled

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
    """Why the rules below cannot check it."""
    bad: list[tuple[int, str]] = field(default_factory=list)
    """Rows that hold no vector, and what they hold; the first, and their number."""
    wrong: int = 0
    again: int = 0
    """Patches that repeat another one of the same chip, or belong to a chip that has the patches of another one."""
    patches: dict[int, int] = field(default_factory=dict)
    """Patches of each chip, by the hash of its id."""
    sums: dict[int, int] = field(default_factory=dict)
    """Sum, modulo 2⁶⁴, of the hashes of each chip's patches."""
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


def beside_paths(tables: ParquetTables) -> list[str]:
    """Files of patches and aggregates that can be opened."""
    return [p for p in tables.readable if p.startswith((f"{PATCHES}/", f"{AGGREGATES}/"))]


class ExtraTables:
    """The patches and aggregates of a release, each file read once."""

    def __init__(
        self, tables: ParquetTables, fingerprint: Callable[[], Fingerprint], sources: Callable[[], SourceTable]
    ) -> None:
        self._tables = tables
        self._fingerprint = fingerprint
        self._sources = sources

    @once
    def files(self) -> dict[str, Beside]:
        """What each file holds.

        Raises:
            ReleaseError: this is a quick validation, which does not read them.
        """
        return {path: self._read(path) for path in beside_paths(self._tables)}

    def by_side(self, asked: Sequence[int]) -> Iterator[tuple[int, list[Beside]]]:
        """The aggregates of each side that is asked for or there."""
        found: dict[int, list[Beside]] = {side: [] for side in asked}
        for path, made in self.files.items():
            side = side_of(path)
            if side is not None:
                found.setdefault(side, []).append(made)
        yield from sorted(found.items())

    def blocks_of_chips(self, facts: ReleaseFacts, side: int) -> SpilledColumn:
        """The block of each embedded chip, in the order of the release."""
        return spilled((self.blocks_of_file(facts, path, side) for path in facts.paths), np.int64)

    def blocks_of_file(self, facts: ReleaseFacts, path: str, side: int) -> Ints:
        """The same of the chips of one file."""
        mine = facts.slices()[path]
        items = facts["items"][mine]
        whose = self._whose(path, items if self._fingerprint().layout == "scene" else facts["epsg"][mine], items)
        return _keys(whose, facts["rows"][mine] // side, facts["cols"][mine] // side)

    def _whose(self, path: str, epsg: npt.NDArray[np.integer], items: npt.NDArray[np.integer]) -> Ints:
        """The image that a file's chips were cut from, or their zone and window: blocks do not reach beyond.

        Raises:
            ReleaseError: the file's name does not give its window.
        """
        if self._fingerprint().layout == "scene":
            return np.asarray(items, np.int64)
        window = DataFile.parse(path).window
        return np.asarray(epsg, np.int64) % 1000 * 4096 + self._tables.windows.index(window) % 4096

    def _read(self, path: str) -> Beside:
        self._tables.files.read_whole(path)
        made = Beside(path)
        step = max(1, self._tables.count(path) // 64)
        try:
            for batch in self._tables.batches(path, _BATCH, use_threads=False):
                chips = ChipRows(path, made.rows, batch)
                made.rows += len(chips)
                try:
                    if made.gap is None:
                        self._look_at(made, chips, step)
                except ReleaseError as error:
                    made.gap = f"{error.where} {error.found}"
                except UNFORESEEN as error:
                    made.gap = f"{path} holds what cannot be read ({error!r})"
        except ReleaseError as error:
            made.damage, made.gap = error.found, f"{path} cannot be read ({error.found})"
        alike = [count for total, count in Counter(made.sums.values()).items() if count > 1 and total]
        made.again += sum(count - 1 for count in alike) * len(made.cells)
        made.sums.clear()
        return made

    def _look_at(self, made: Beside, chips: ChipRows, step: int) -> None:
        _look_at_vectors(made, chips)
        if made.path.startswith(f"{PATCHES}/"):
            _count_patches(made, chips)
            return
        whose = self._whose(made.path, chips.integers("epsg"), self._sources().places(chips))
        keys = _keys(whose, chips.integers("row"), chips.integers("col"))
        made.keys.append(keys)
        for row in range(-chips.start % step, len(chips), step):
            slack = 0.0 if chips.scales is None else float(chips.scales[row]) / 2
            vector = chips.values(np.array([row]))[0]
            made.examples[int(keys[row])] = (chips.start + row, vector, slack)


_CONSTANT = 1e-5
"""Standard deviation over the values of a vector, relative to the largest, below which all are the same."""


def _look_at_vectors(made: Beside, chips: ChipRows) -> None:
    """Note vectors that are none: not finite, zero, or the same value everywhere."""
    some = chips.sums.some
    with np.errstate(invalid="ignore"):
        # Where all values are alike, a few of them are.
        alike = np.ptp(some, axis=0) <= 4 * _CONSTANT * np.sqrt(chips.stored.shape[1]) * np.abs(some).max(axis=0)
    suspect = np.flatnonzero(~np.isfinite(chips.sums.squares) | alike)
    found: dict[int, str] = {}
    for row, values in zip(suspect.tolist(), chips.values(suspect), strict=True):
        wild = int((~np.isfinite(values)).sum())
        if wild:
            found[row] = f"{wild} values that are not finite"
        elif values.std(dtype=np.float64) <= _CONSTANT * np.abs(values).max():
            found[row] = f"every value is {values[0]:g}"
    if chips.scales is not None:
        found |= {row: f"scale {chips.scales[row]:g}" for row in np.flatnonzero(~(chips.scales > 0)).tolist()}
    if found:
        made.wrong += len(found)
        row = min(found)
        made.bad.append((chips.start + row, found[row]))


def _count_patches(made: Beside, chips: ChipRows) -> None:
    ids, whose, counts = np.unique(hash_strings(chips.column("chip_id")), return_inverse=True, return_counts=True)
    hashes = hash_words(chips.sums.words)
    if chips.scales is not None:
        hashes = hashes + chips.scales.view(np.uint32) * np.uint64(0x9E3779B97F4A7C15)
    sums = np.zeros(len(ids), np.uint64)
    np.add.at(sums, whose, hashes)
    for chip, count, total in zip(ids.tolist(), counts.tolist(), sums.tolist(), strict=True):
        made.patches[chip] = made.patches.get(chip, 0) + count
        made.sums[chip] = (made.sums.get(chip, 0) + total) % 2**64
    made.again += len(hashes) - len(np.unique(np.stack([whose.astype(np.uint64), hashes]), axis=1).T)
    layer = chips.integers("layer") if chips.has("layer") else np.zeros(len(chips), np.int64)
    cells = np.stack([layer, chips.integers("patch_row"), chips.integers("patch_col")], axis=1)
    kinds, many = np.unique(cells, axis=0, return_counts=True)
    for (one, row, col), count in zip(kinds.tolist(), many.tolist(), strict=True):
        made.cells[one, row, col] += count


def _keys(whose: Ints, row: npt.NDArray[np.integer], col: npt.NDArray[np.integer]) -> Ints:
    """One number a block; rows and columns of blocks within ±500,000."""
    half = 1 << 19
    return (whose << 40) + ((np.asarray(row, np.int64) + half) << 20) + np.asarray(col, np.int64) + half
