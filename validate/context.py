"""A release as the rules see it: everything is read when a rule first asks, and once."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar, overload
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clay_publish.errors import ClayPublishError, ReleaseError
from clay_publish.progress import Report
from clay_publish.release import directory as paths
from clay_publish.release.directory import EMBEDDINGS, SPEC, Release
from clay_publish.release.fingerprint import Fingerprint
from clay_publish.release.manifest import Manifest, read_manifest
from clay_publish.spec.models import Spec
from clay_publish.storage.safe_parse import parse_yaml
from clay_publish.storage.store import Store, is_url
from clay_publish.validate.data.chips import ChipRows
from clay_publish.validate.data.coverage_table import Said, tally
from clay_publish.validate.data.extra_tables import Beside, beside_paths, read_beside
from clay_publish.validate.data.files import Files, digest
from clay_publish.validate.data.scan import Scan, scan
from clay_publish.validate.data.sources import SourceTable, read_sources
from clay_publish.validate.expected.cells import Grid, Summary, scene_grid, stretch, utm_grid
from clay_publish.validate.expected.scene import layers
from clay_publish.validate.registry import Rule
from clay_publish.windows import Window

T = TypeVar("T")


class once(cached_property[T]):  # noqa: N801 - as the one it follows
    """As cached_property, and an error is remembered too: a document that takes long to refuse is refused once."""

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> "once[T]": ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> T: ...
    def __get__(self, instance: object | None, owner: type | None = None) -> "once[T] | T":
        if instance is None:
            return self
        failures: dict[str, ClayPublishError] = instance.__dict__.setdefault("_failures", {})
        name = str(self.attrname)
        if name in failures:
            raise failures[name].with_traceback(None)
        try:
            value: Any = super().__get__(instance, owner)
        except ClayPublishError as error:
            failures[name] = error
            raise
        return value  # type: ignore[no-any-return]


_SMALL = 1_000_000
"""Bytes of a file that is hashed in one piece."""


class View(Files):
    """What the rules ask of a release. Attributes raise `ReleaseError` where the release does not have them."""

    def __init__(
        self,
        release: Release,
        rules: Sequence[Rule],
        sample: int,
        report: Report,
        *,
        quick: bool = False,
        previous: Release | None = None,
    ) -> None:
        super().__init__(release, quick=quick)
        self._previous = previous
        self.heavy = Lock()
        """Held while a file is read that takes much memory."""
        self.sample = sample
        """Rows that the costly checks look at, at most."""
        self.report = report
        self._row_rules = [r for r in rules if r.rows is not None]

    @once
    def spec(self) -> Spec:
        """`release.yaml`."""
        return self.release.spec()

    @once
    def fingerprint(self) -> Fingerprint:
        """What decided the vectors, from the first embeddings file that says so."""
        for path, footer in self.footers.items():
            decided = footer.get("emb", {}).get("embrel:decided_by")
            if decided is not None:
                try:
                    return Fingerprint.model_validate(decided)
                except ValueError as error:
                    raise ReleaseError(path, "has no complete fingerprint in its footer") from error
        raise ReleaseError(paths.EMBEDDINGS, "holds no file whose footer says what decided the vectors")

    @once
    def manifest(self) -> Manifest:
        """`manifest.json`."""
        return read_manifest(self.release)

    @once
    def collection(self) -> dict[str, Any]:
        """`collection.json`."""
        return self.release.json(paths.COLLECTION)

    @once
    def sources(self) -> SourceTable:
        """`sources.parquet`."""
        return read_sources(self.table(paths.SOURCES))

    @cached_property
    def source_ids(self) -> pa.Array:
        """Ids of the source items; a chip's item is told by its place in here."""
        return pa.array(list(self.sources.by_id), pa.string())

    def item_places(self, chips: ChipRows) -> npt.NDArray[np.int32]:
        """Place of each chip's item among the sources; −1 where it is not there."""

        def find() -> npt.NDArray[np.int32]:
            found = pc.index_in(pc.cast(chips.column("item_id"), pa.string()), value_set=self.source_ids)
            return np.asarray(found.fill_null(-1).to_numpy(zero_copy_only=False), dtype=np.int32)

        places: npt.NDArray[np.int32] = chips.once("item places", find)
        return places

    @cached_property
    def outlines(self) -> list[Any]:
        """Footprint of each source item, by its place; None where it is not told."""
        return [self.sources.geometry(source) for source in self.sources.by_id.values()]

    @cached_property
    def scene_grids(self) -> list[Grid | ReleaseError]:
        """Chip grid of each source item, by its place."""
        made: list[Grid | ReleaseError] = []
        for source in self.sources.by_id.values():
            try:
                made.append(scene_grid(source, self.fingerprint.size))
            except ReleaseError as error:
                made.append(error)
        return made

    def grids(self, chips: ChipRows) -> Iterator[tuple[Grid, npt.NDArray[np.int64]]]:
        """The grids in which a batch's chips are numbered, and the rows of each.

        Raises:
            ReleaseError: what the grid is made of is not told.
        """
        if self.fingerprint.layout == "utm":
            codes = chips.integers("epsg")
            for code in np.unique(codes).tolist():
                yield utm_grid(code, self.fingerprint), np.flatnonzero(codes == code)
            return
        places = self.item_places(chips)
        for place in np.unique(places[places >= 0]).tolist():
            grid = self.scene_grids[place]
            if isinstance(grid, ReleaseError):
                raise grid
            yield grid, np.flatnonzero(places == place)

    @once
    def layers(self) -> list[Summary]:
        """Expected, present and described cells."""
        counted: Counter[Said] = Counter()
        found = list(layers(self, counted))
        if counted:  # the tables need not be read again
            vars(self).setdefault("said", counted)
        return found

    @once
    def beside(self) -> dict[str, Beside]:
        """What the tables of patches and aggregates hold, by file.

        Raises:
            ReleaseError: a quick look does not read them.
        """
        return {path: read_beside(self, path) for path in beside_paths(self)}

    @once
    def windows(self) -> list[Window]:
        """The windows of the embeddings files, in order."""
        return sorted({file.window for file in self.data_files.values()})

    @once
    def said(self) -> Counter[Said]:
        """How many rows of the coverage say what."""
        return tally(self)

    @cached_property
    def usual_side(self) -> float:
        """Metres a chip's side is said to have on the ground."""
        for footer in self.footers.values():
            gsd = footer.get("emb", {}).get("gsd")
            if isinstance(gsd, int | float):
                return self.fingerprint.size * float(gsd)
        raise ReleaseError(EMBEDDINGS, "holds no file whose footer states the gsd")

    def stated_side(self, chips: ChipRows, size: float, gsd: float) -> npt.NDArray[np.float64]:
        """Metres a side of each chip should have; one gsd is stated for images whose pixels shrink with latitude."""
        side = np.full(len(chips), size * gsd)
        if self.fingerprint.layout == "utm":
            return side
        places = self.item_places(chips)
        for place in np.unique(places[places >= 0]).tolist():
            grid = self.scene_grids[place]
            kind = "none" if isinstance(grid, ReleaseError) else stretch(grid.crs)
            if kind != "none":
                rows = places == place
                ratio = np.cos(np.radians(chips.floats("lat")[rows])) / np.cos(np.radians(self.middle_latitude))
                side[rows] *= ratio if kind == "mercator" else np.sqrt(ratio)
        return side

    @cached_property
    def middle_latitude(self) -> float:
        """Of the used images' footprints, in degrees."""
        shapes = [self.sources.geometry(source) for source in self.sources.used]
        return float(np.median([shape.centroid.y for shape in shapes if shape is not None] or [0.0]))

    @cached_property
    def step(self) -> int:
        """Costly checks look at every so-manieth row of a file."""
        return max(1, -(-self.rows_told // max(self.sample, 1)))

    def sampled(self, chips: ChipRows) -> npt.NDArray[np.int64]:
        """Rows of a batch that costly checks look at."""
        return np.arange(-chips.start % self.step, len(chips), self.step)

    @once
    def items(self) -> pa.Table:
        """`items.parquet`."""
        return self.table(paths.ITEMS)

    @once
    def card(self) -> str:
        """The text of `README.md`."""
        return self.text(paths.CARD)

    @once
    def front_matter(self) -> dict[str, Any]:
        """The YAML at the top of the card.

        Raises:
            ReleaseError: there is none, or it is no mapping.
        """
        lines = self.card.splitlines()
        if not lines or lines[0].strip() != "---" or "---" not in [line.strip() for line in lines[1:]]:
            raise ReleaseError(paths.CARD, "has no front matter between two lines `---`")
        end = [line.strip() for line in lines[1:]].index("---") + 1
        matter = parse_yaml("\n".join(lines[1:end]).encode(), f"{paths.CARD}: front matter")
        if not isinstance(matter, dict):
            raise ReleaseError(paths.CARD, "has front matter that is no mapping")
        return matter

    @once
    def citation(self) -> dict[str, Any]:
        """`CITATION.cff`."""
        return self.release.yaml(paths.CITATION)

    @cached_property
    def digests(self) -> dict[str, str]:
        """SHA-256 of every file; the embeddings are hashed in the pass that reads them."""
        if self.quick:
            raise ReleaseError(self.release.store.where, "would have to be read whole, which a quick look does not")
        known = {**self.scan.digests, **self.hashed}
        rest = [path for path in self.files if path not in known]
        return known | {path: self._digest(path) for path in rest}

    def _digest(self, path: str) -> str:
        store = self.release.store
        if not store.local and store.size(path) <= _SMALL:  # most were read already, and are remembered
            return hashlib.sha256(store.read(path)).hexdigest()
        return digest(store, path)

    @cached_property
    def previous(self) -> "View | None":
        """The version before, where the spec names one.

        Raises:
            ReleaseError: it is named and not to be found from here.
        """
        if self._previous is not None:
            before = self._previous
        elif self.spec.previous is None:
            return None
        else:
            before = Release(neighbour(self.release.store, self.spec.previous))
        view = View(before, [], self.sample, self.report, quick=self.quick)
        if not view.data_paths:
            raise ReleaseError(before.store.where, "holds no embeddings of the previous version")
        return view

    @cached_property
    def scan(self) -> Scan:
        """The one pass over all embeddings files."""
        return scan(self, self._row_rules)


def neighbour(store: Store, named: str) -> str:
    """Where the version before lies, as a release names it: on the same server, or in the folder beside.

    Raises:
        ReleaseError: it is named somewhere else; a release is not what decides where this program goes.
    """
    fix = "Name it with --previous."
    if is_url(named):
        mine, its = urlsplit(store.where), urlsplit(named)
        if store.local or (mine.scheme, mine.netloc) != (its.scheme, its.netloc):
            raise ReleaseError(SPEC, f"names the previous version {named!r}, which lies elsewhere", fix=fix)
        return named
    name = Path(named).name
    if not store.local or name in {"", ".."}:
        raise ReleaseError(SPEC, f"names the previous version {named!r} without its address", fix=fix)
    return str(Path(store.where).parent / name)
