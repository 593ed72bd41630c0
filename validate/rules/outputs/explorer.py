"""Rules on the explorer: its summary, its index of files, and its overviews, drawn again."""

import hashlib
import itertools
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
from pmtiles.reader import Reader, traverse
from pmtiles.tile import MagicNumberNotFound, SpecVersionUnsupported, deserialize_header

from clay_publish.errors import ReleaseError
from clay_publish.release import directory as paths
from clay_publish.release.geoparquet import total_bbox
from clay_publish.release.public_urls import release_address
from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.data.overviews import SIDE, Pixels, Redrawing, Spot, decoded, stored
from clay_publish.validate.outcomes import Fault, NotChecked, Outcome, Sampled
from clay_publish.validate.registry import rule

_FOLDER = "explore"
_SUMMARY, _BASIS, _INDEX = (f"{_FOLDER}/{name}" for name in ("release.json", "basis.json", "files.parquet"))

_LICENSES = "https://spdx.org/licenses/"
_LISTED = 400
"""Windows that the summary lists; it counts the rest."""

TILES = 64
"""Tiles that are drawn again, at most."""
_MOST_TILES = 1_000_000
_LOSSY = 4.0
"""Largest mean difference of a lossy tile, of 255."""
_COARSE = 16.0
"""The same for a tile that is compared with the lossy ones below it."""
_LEAVES = 4
"""A tile above more tiles of the finest zoom than this is compared with the four below it, as they are stored."""
_KEPT = 24
_SCENE = 0.002
"""Share of a palette tile's pixels whose centers may lie so near an edge of two footprints that either is right."""


@rule("EXP001")
def summary_agrees(context: ReleaseContext) -> Iterator[Outcome]:
    """`explore/release.json` against spec, footers and coverage; nothing there where the spec asks for no explorer."""
    there = [path for path in context.files.paths if path.startswith(f"{_FOLDER}/")]
    if not context.documents.spec.outputs.explorer:
        if there:
            yield Fault(there[0], "is there", "no explorer, as release.yaml asks for none")
        return
    summary = _document(context, _SUMMARY)
    for key, value in (_facts(context) | _counts(context)).items():
        found: Any = summary
        for part in key.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        if found != value:
            yield Fault(f"{_SUMMARY}: {key}", str(found)[:80], str(value)[:80])
    stated, windows = summary.get("windows"), _windows(context)
    if summary.get("more_windows") != len(windows[_LISTED:]):
        yield Fault(f"{_SUMMARY}: more_windows", str(summary.get("more_windows"))[:80], str(len(windows[_LISTED:])))
    if not isinstance(stated, list):
        stated = [stated]
    for number, (found, value) in enumerate(itertools.zip_longest(stated, windows[:_LISTED])):
        if found != value:
            yield Fault(f"{_SUMMARY}: windows: {number}", str(found)[:200], str(value)[:200])
            return


def _facts(context: ReleaseContext) -> dict[str, Any]:
    """Key → value of the summary, from spec, fingerprint and files."""
    spec, decided, tables = context.documents.spec, context.fingerprint, context.tables
    paths_there, size = context.files.paths, context.files.store.size
    first = next(iter(tables.embeddings))
    gsd = tables.keys[first].get("emb", {}).get("gsd")
    boxes = [
        tables.keys[path].get("geo", {}).get("columns", {}).get("geometry", {}).get("bbox")
        for path in tables.embeddings
        if tables.count(path)
    ]
    address = release_address(spec)
    box = total_bbox(np.array([each for each in boxes if each], dtype=np.float64).reshape(-1, 4))
    return {
        "name": spec.name,
        "version": spec.version,
        "title": spec.title or spec.name,
        "description": spec.description or "",
        "license.id": spec.license,
        "license.href": None if spec.license.startswith("LicenseRef-") else f"{_LICENSES}{spec.license}.html",
        "model.href": decided.model_link,
        "address": None if address is None else quote(address, safe=":/%@~+,;=&$!"),
        "basemap": None if spec.outputs.basemap is None else spec.outputs.basemap.model_dump(),
        "model.name": decided.model_name,
        "model.dimensions": decided.dimensions,
        "model.dtype": decided.dtype,
        "chips.layout": decided.layout,
        "chips.size": decided.size,
        "chips.gsd": gsd,
        "chips.side": None if gsd is None else decided.size * gsd,
        "chips.count": tables.rows,
        "chips.files": len(tables.embeddings),
        "chips.bytes": sum(map(size, tables.embeddings)),
        "chips.thumbnails": "thumbnail" in tables.schema(first).names,
        "bbox": None if box is None else list(box),
        "codes": paths.CODES_MODEL in paths_there,
        "items": any(path.startswith(f"{paths.JSON_ITEMS}/") for path in paths_there),
        "coverage_files": [{"path": path, "size": size(path)} for path in sorted(tables.coverage)],
    }


def _counts(context: ReleaseContext) -> dict[str, Any]:
    """Key → number of chips that the coverage says."""
    embedded, missing = 0, Counter[str]()
    for said, number in context.said.items():
        if said.status == "embedded":
            embedded += number
        else:
            missing[str(said.reason)] += number
    return {
        "coverage.expected": embedded + missing.total(),
        "coverage.embedded": embedded,
        "coverage.missing": dict(missing),
    }


def _windows(context: ReleaseContext) -> list[dict[str, Any]]:
    """The windows of the coverage in order, and how many of their chips were expected and are embedded."""
    expected, embedded = Counter[tuple[int, int]](), Counter[tuple[int, int]]()
    for said, number in context.said.items():
        if said.start is not None and said.end is not None:
            expected[said.start, said.end] += number
            embedded[said.start, said.end] += number if said.status == "embedded" else 0
    return [
        {"start": _stamp(window[0]), "end": _stamp(window[1]), "expected": number, "embedded": embedded[window]}
        for window, number in sorted(expected.items())
    ]


def _stamp(micros: int) -> str:
    return str(np.datetime_as_string(np.datetime64(micros, "us"), unit="s", timezone="UTC"))


@rule("EXP002")
def index_agrees(context: ReleaseContext) -> Iterator[Outcome]:
    """`explore/files.parquet` against the files."""
    if not context.documents.spec.outputs.explorer:
        return
    rows = {row["path"]: row for row in context.tables.table(_INDEX).to_pylist()}
    expected = {path for path in context.tables.embeddings if context.tables.count(path)}
    for path in sorted(expected ^ set(rows)):
        yield Fault(
            f"{_INDEX}: {path}", "is not named" if path in expected else "is named", "every file with rows, once"
        )
    for path in sorted(expected & set(rows)):
        row, file = rows[path], context.tables.named.get(path)
        box = context.tables.keys[path].get("geo", {}).get("columns", {}).get("geometry", {}).get("bbox")
        wanted: dict[str, Any] = {"rows": context.tables.count(path), "size": context.files.store.size(path)}
        if file is not None:
            wanted |= {"start": file.window.start, "end": file.window.end}
        if box is not None:
            wanted |= dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
        for key, value in wanted.items():
            if row.get(key) != value:
                yield Fault(f"{_INDEX}: {path}: {key}", str(row.get(key)), str(value))


@rule("EXP003")
def overviews_agree(context: ReleaseContext) -> Iterator[Outcome]:
    """Tiles chosen by their SHA-256, of every layer, against the tables; coarser ones against the four below them."""
    if not context.documents.spec.outputs.explorer:
        return
    if context.files.quick:
        yield NotChecked("a quick look draws no tiles")
        return
    try:
        summary = _document(context, _SUMMARY)
        archives = {
            (layer["id"], period): _Archive(context, f"{_FOLDER}/tiles/{period}/{layer['id']}.pmtiles")
            for layer in summary["layers"]
            for period in layer["periods"]
        }
        named = {archive.path for archive in archives.values()}
        for path in context.files.paths:
            if path.startswith(f"{_FOLDER}/tiles/") and path not in named:
                yield Fault(path, "is not named by release.json", "overviews of its layers and periods")
        yield from _tiles(context, summary, archives)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        yield Fault(_SUMMARY, f"does not describe the overviews ({error!r:.80})", "layers, periods and scales")


def _tiles(context: ReleaseContext, summary: dict[str, Any], archives: "_Archives") -> Iterator[Outcome]:
    truth = _Truth(
        Redrawing(context.tables, context.fingerprint, context.sources, summary, _document(context, _BASIS)),
        archives,
        float(summary["chips"]["side"]),
    )
    layers = truth.drawing.layers
    spots = sorted(
        {Spot(period, *place) for (_, period), archive in archives.items() for place in archive.places},
        key=lambda s: hashlib.sha256(f"{s.period}/{s.z}/{s.x}/{s.y}".encode()).digest(),
    )
    chosen = spots[: max(1, math.ceil(TILES / max(1, len(layers))))]
    for spot in chosen:
        exact = truth.leaves(spot) <= _LEAVES
        share = _SCENE if truth.drawing.grid is None and exact else 0.0
        for name, layer in layers.items():
            archive = archives.get((name, spot.period))
            where = f"{_FOLDER}/tiles/{spot.period}/{name}.pmtiles: tile {spot.z}/{spot.x}/{spot.y}"
            found = archive.pixels(spot) if archive else np.zeros((SIDE * SIDE, 4), dtype=np.uint8)
            expected = truth.pixels(spot)[name] if exact else truth.from_below(spot, name)
            palette = layer["kind"] == "palette"
            yield from _compare(where, found, expected, palette=palette, share=share, most=_LOSSY if exact else _COARSE)
    yield Sampled(len(chosen), len(spots), "tiles of each layer")


@dataclass
class _Truth:
    """What tiles should show."""

    drawing: Redrawing
    archives: "_Archives"
    side: float
    known: dict[Spot, dict[str, Pixels]] = field(default_factory=dict)

    def leaves(self, spot: Spot) -> int:
        """Tiles of the finest zoom below a tile, counted up to `_LEAVES` and one."""
        if spot.is_leaf(self.side):
            return 1
        count = 0
        for below in spot.below():
            if count > _LEAVES:
                break
            count += self.leaves(below) if self._there(below) else 0
        return count

    def _there(self, spot: Spot) -> bool:
        return any(
            (spot.z, spot.x, spot.y) in a.places for (_, period), a in self.archives.items() if period == spot.period
        )

    def pixels(self, spot: Spot) -> dict[str, Pixels]:
        """Layer → pixels, drawn from the tables."""
        if spot not in self.known:
            if spot.is_leaf(self.side):
                made = self.drawing.draw(spot)
            else:
                below = [self.pixels(each) if self._there(each) else None for each in spot.below()]
                made = {name: self._half(name, [b[name] if b else None for b in below]) for name in self.drawing.layers}
            self.known[spot] = made
            if len(self.known) > _KEPT:
                self.known.pop(next(iter(self.known)))
            return made
        return self.known[spot]

    def from_below(self, spot: Spot, name: str) -> Pixels:
        """A tile from the four below it, as they are stored."""
        archive = self.archives.get((name, spot.period))
        return self._half(name, [archive.pixels(each) if archive else None for each in spot.below()])

    def _half(self, name: str, quarters: list[Pixels | None]) -> Pixels:
        whole = np.zeros((2 * SIDE, 2 * SIDE, 4), dtype=np.uint8)
        for (row, col), quarter in zip(itertools.product((0, 1), (0, 1)), quarters, strict=True):
            if quarter is not None:
                part = quarter.reshape(SIDE, SIDE, 4)
                whole[row * SIDE : (row + 1) * SIDE, col * SIDE : (col + 1) * SIDE] = part
        four = whole.reshape(SIDE, 2, SIDE, 2, 4).swapaxes(1, 2).reshape(-1, 4, 4)
        some = np.flatnonzero(four[..., 3].any(axis=1))
        made = np.zeros((SIDE * SIDE, 4), dtype=np.uint8)
        palette = self.drawing.layers[name]["kind"] == "palette"
        made[some] = _commonest(four[some], self.drawing.codes(name)) if palette else _mean(four[some])
        return made


def _compare(
    where: str, found: Pixels, expected: Pixels, *, palette: bool, share: float, most: float
) -> Iterator[Outcome]:
    there, wanted = found[:, 3] > 0, expected[:, 3] > 0
    doubtful = share * max(1, int(wanted.sum()))
    wrong = int((there != wanted).sum())
    if wrong > doubtful:
        yield Fault(
            where, f"{int(there.sum()):,} pixels drawn, {wrong:,} of them wrongly or not", f"{int(wanted.sum()):,}"
        )
        return
    both = there & wanted
    if palette:
        wrong = int((found[both] != expected[both]).any(axis=1).sum())
        if wrong > doubtful:
            yield Fault(where, f"{wrong:,} pixels of another color", "the colors of the legend, exactly")
    elif both.any():
        kept = stored(expected)
        error = float(np.abs(found[both, :3].astype(int) - kept[both, :3].astype(int)).mean())
        if error > most:
            yield Fault(where, f"differs by {error:.1f} of 255 on average", f"at most {most:g}")


def _mean(four: npt.NDArray[np.uint8]) -> Pixels:
    """The mean color of those of four pixels that are drawn."""
    there = four[..., 3:] > 0
    mean = np.where(there, four[..., :3].astype(float), 0).sum(axis=1) / there.sum(axis=1)
    return np.column_stack([np.floor(mean + 0.5), np.full(len(four), 255)]).astype(np.uint8)


def _commonest(four: npt.NDArray[np.uint8], codes: dict[int, int]) -> Pixels:
    """The commonest color of four; of ties, the one that comes first in the legend."""
    packed = four.astype(np.int64) @ np.array([1 << 24, 1 << 16, 1 << 8, 1])
    colors, place = np.unique(packed, return_inverse=True)
    rank = np.array([codes.get(color, 255) for color in colors.tolist()])[place].reshape(packed.shape)
    same = (packed[:, :, None] == packed[:, None, :]).sum(axis=2)
    score = np.where(packed & 255 > 0, same * 256 - rank, -1)
    made: Pixels = np.take_along_axis(four, score.argmax(axis=1)[:, None, None], axis=1)[:, 0]
    return made


class _Archive:
    """A PMTiles file of the release."""

    def __init__(self, context: ReleaseContext, path: str) -> None:
        self.path, self._store = path, context.files.store
        try:
            header = deserialize_header(self._bytes(0, 127))
            tiles = int(header["tile_data_offset"])

            def directories(start: int, size: int) -> bytes:
                """Read directories alone: the tiles are not wanted yet."""
                return b"" if start >= tiles else self._bytes(start, size)

            found = traverse(directories, header, header["root_offset"], header["root_length"])
            self.places = {place for place, _ in itertools.islice(found, _MOST_TILES)}
        except (EOFError, OSError, ValueError, KeyError, MagicNumberNotFound, SpecVersionUnsupported) as error:
            raise ReleaseError(path, "is not a PMTiles archive") from error

    def _bytes(self, start: int, size: int) -> bytes:
        with self._store.ranges(self.path) as file:
            file.seek(start)
            return file.read(size)

    def pixels(self, spot: Spot) -> Pixels:
        """RGBA of a stored tile; transparent where there is none."""
        data = Reader(self._bytes).get(spot.z, spot.x, spot.y) if (spot.z, spot.x, spot.y) in self.places else None
        if data is None:
            return np.zeros((SIDE * SIDE, 4), dtype=np.uint8)
        return decoded(data, f"{self.path}: tile {spot.z}/{spot.x}/{spot.y}")


_Archives = dict[tuple[str, str], _Archive]


def _document(context: ReleaseContext, path: str) -> dict[str, Any]:
    return context.documents.json(path)
