"""The chips whose codes are most like a vector: one bit per dimension first, all bits for those that are left."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import numpy.typing as npt

from clay_publish.release.directory import Release
from clay_publish.search.code_files import CodeBatch, CodeFile, code_files
from clay_publish.search.codes import Codes, Encoding, Query
from clay_publish.search.query import Extent
from clay_publish.search.row_groups import THREADS, Rows, Shelf

Ints = npt.NDArray[np.int64]

_SHARE, _FEWEST, _MOST = 0.05, 2_000, 200_000
"""Codes that are compared with all bits: this share, but not fewer and not more."""
_FEW = 2_000
"""Chips whose vectors are compared without looking at codes."""


@dataclass(frozen=True)
class _Places:
    """Codes that may be among the best: file of codes, batch and row in it, and an estimate."""

    file: Ints
    batch: Ints
    row: Ints
    score: npt.NDArray[np.float32]

    def best(self, count: int) -> "_Places":
        """Return the ones with the largest estimates."""
        if len(self.score) <= count:
            return self
        chosen = np.sort(np.argpartition(-self.score, count - 1)[:count])
        return _Places(self.file[chosen], self.batch[chosen], self.row[chosen], self.score[chosen])

    @staticmethod
    def joined(parts: "list[_Places]") -> "_Places":
        """Return all of several."""
        return _Places(*(np.concatenate([getattr(p, n) for p in parts]) for n in ("file", "batch", "row", "score")))


def best_codes(
    release: Release,
    encoding: Encoding,
    shelf: Shelf,
    direction: npt.NDArray[np.float64],
    *,
    count: int,
    extent: Extent,
) -> tuple[Rows, npt.NDArray[np.float32]] | None:
    """Return the chips with the best codes and their estimated cosines.

    Args:
        release: where the codes lie.
        encoding: of the codes.
        shelf: the embeddings files to look in.
        direction: [D], of length 1.
        count: how many chips, at most.
        extent: what the chips must meet; those at the edge of its box may lie just outside.

    Returns:
        None where the codes cannot tell, since a window lies only partly within the extent, or where so few chips lie
        within it that their vectors are read as fast.
    """
    files = [CodeFile(release, path, encoding) for path in code_files(shelf.paths)]
    if not all(_within(file, extent) for file in files):
        return None
    search = _CodeSearch(files, shelf, extent, encoding.query(direction.astype(np.float32)[None]), encoding.bits)
    with ThreadPoolExecutor(THREADS) as pool:
        return search.run(pool, count)


def _within(file: CodeFile, extent: Extent) -> bool:
    """Whether a window lies in the interval, and with it every chip of the file."""
    last = file.window.end - timedelta(microseconds=1)
    return not ((extent.start and file.window.start < extent.start) or (extent.end and last > extent.end))


@dataclass(frozen=True)
class _CodeSearch:
    files: list[CodeFile]
    shelf: Shelf
    extent: Extent
    query: Query
    bits: int

    def run(self, pool: ThreadPoolExecutor, count: int) -> tuple[Rows, npt.NDArray[np.float32]] | None:
        coarse = 1 if self.bits == 4 else self.bits
        tasks = [(n, b) for n, file in enumerate(self.files) for b in range(file.num_batches)]
        total = sum(file.num_rows for file in self.files)
        kept = int(np.clip(_SHARE * total, max(_FEWEST, count), max(_MOST, count))) if coarse < self.bits else count
        parts: list[_Places] = []
        held = seen = 0
        for matching, part in pool.map(lambda task: self._first(task, coarse, kept), tasks):
            seen += matching
            parts.append(part)
            held += len(part.score)
            if held > 2 * kept:
                parts = [_Places.joined(parts).best(kept)]
                held = kept
        if seen <= _FEW:
            return None
        places = _Places.joined(parts).best(kept)
        if coarse < self.bits:
            again = pool.map(self._again, _by_batch(places))
            places = _Places.joined(list(again))
        places = places.best(count)
        return self._rows(places), places.score

    def _first(self, task: tuple[int, int], planes: int, kept: int) -> tuple[int, _Places]:
        """Estimate from the first planes; return how many chips lie in the extent, and the best of them."""
        number, batch = task
        rows = self.files[number].batch(batch, planes)
        mask = self._mask(number, rows)
        codes = rows.codes(planes)
        scores = self.query.cosines(codes.planes, codes.factor if planes == self.bits else None)[0]
        chosen = np.arange(len(rows)) if mask is None else np.flatnonzero(mask)
        places = _Places(np.full(len(chosen), number), np.full(len(chosen), batch), chosen, scores[chosen])
        return len(chosen), places.best(kept)

    def _again(self, part: _Places) -> _Places:
        """Estimate from all planes, for codes of one batch."""
        codes = self.files[part.file[0]].batch(int(part.batch[0])).codes()
        chosen = Codes(tuple(plane[part.row] for plane in codes.planes), codes.factor[part.row])
        return _Places(part.file, part.batch, part.row, self.query.cosines(chosen.planes, chosen.factor)[0])

    def _mask(self, number: int, rows: CodeBatch) -> npt.NDArray[np.bool_] | None:
        """Which chips lie in the box, grown by a chip's reach, and in a file of the shelf; None: all."""
        if self.extent.bbox is None:
            return None
        files, (east, north) = self.files[number].head
        known = set(self.shelf.paths)
        west, south, right, top = self.extent.bbox
        lon, lat = rows.column("lon").astype(np.float64), rows.column("lat")
        width = (right - west if west <= right else right - west + 360) + 2 * east
        inside = (np.mod(lon - west + east, 360) <= width) & (lat >= south - north) & (lat <= top + north)
        return np.asarray(inside & np.array([path in known for path in files])[rows.column("file")])

    def _rows(self, places: _Places) -> Rows:
        """Where the chips lie in the files of the shelf."""
        place = {path: number for number, path in enumerate(self.shelf.paths)}
        file, row = np.empty(len(places.row), np.int64), np.empty(len(places.row), np.int64)
        for part, where in _by_batch_with_places(places):
            code_file = self.files[part.file[0]]
            rows = code_file.batch(int(part.batch[0]), 0)
            names = code_file.head[0]
            file[where] = [place[names[number]] for number in rows.column("file")[part.row].tolist()]
            row[where] = rows.column("row")[part.row]
        return Rows(file, row)


def _by_batch(places: _Places) -> list[_Places]:
    return [part for part, _ in _by_batch_with_places(places)]


def _by_batch_with_places(places: _Places) -> Iterator[tuple[_Places, Ints]]:
    """The codes of each batch, and where they stand."""
    if not len(places.row):
        return
    order = np.lexsort((places.batch, places.file))
    keys = np.stack([places.file, places.batch])[:, order]
    starts = np.flatnonzero(np.concatenate([[True], (keys[:, 1:] != keys[:, :-1]).any(axis=0)]))
    for where in np.split(order, starts[1:]):
        yield _Places(places.file[where], places.batch[where], places.row[where], places.score[where]), where
