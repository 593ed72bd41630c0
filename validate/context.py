"""A release as the rules see it: everything is read when a rule first asks, and once."""

import importlib.metadata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from clay_publish.errors import ClayPublishError, ReleaseError
from clay_publish.progress import Report, silent
from clay_publish.release.directory import CARD, CHANGELOG, EMBEDDINGS, Release, fingerprint_in
from clay_publish.release.fingerprint import Fingerprint
from clay_publish.validate.data.chips import ChipRows
from clay_publish.validate.data.coverage_table import Said, tally
from clay_publish.validate.data.documents import Documents
from clay_publish.validate.data.extra_tables import ExtraTables
from clay_publish.validate.data.files import ReleaseFiles, once
from clay_publish.validate.data.inputs import Input
from clay_publish.validate.data.neighbors import ComparedChips
from clay_publish.validate.data.parquet_tables import ParquetTables
from clay_publish.validate.data.scan import Pass, Scan, SeenFile
from clay_publish.validate.data.single_rows import value
from clay_publish.validate.data.sources import SourceTable, read_sources
from clay_publish.validate.data.zarr_groups import ArrayDocument, ZarrGroups
from clay_publish.validate.expected.cells import ChipGrids, Summary
from clay_publish.validate.expected.layers import CellInputs, count_cells
from clay_publish.validate.kept_scan import unpack
from clay_publish.validate.outcomes import BadRows, Broken, SkippedError
from clay_publish.validate.sandbox.stores import neighbor

Render = Callable[[Release, Release | None], Mapping[str, bytes]]
"""Renders the documents and figures that follow from the data of a release, given the version before; by path."""


@dataclass(frozen=True)
class Recompute:
    """How chips are made again from the imagery, and how many."""

    chips: int
    again: Callable[[Sequence[str]], Mapping[str, Mapping[str, Any]]]
    """Gives what JSON can say of chips by id, as `producer.recompute` states it; those that cannot be read lack."""


@dataclass(frozen=True)
class Rendered:
    """What the renderer gives for a release."""

    files: Mapping[str, bytes]
    """By path."""
    unknown: str | None
    """Why the version before, which the changelog tells about, is not known."""


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


RowCheck = Callable[[ChipRows, "ReleaseContext"], Sequence[BadRows]]


class ReleaseContext:
    """The parts of one release that rules read. Attributes raise `ReleaseError` where the release lacks them."""

    def __init__(
        self,
        release: Release,
        *,
        checks: Mapping[str, RowCheck] = {},
        sampled: frozenset[str] = frozenset(),
        sample: int = 1,
        quick: bool = False,
        threads: int | None = None,
        previous: Release | None = None,
        verified: Mapping[str, str] = {},
        scans: Mapping[str, str] = {},
        alone: frozenset[str] = frozenset(),
        sources: SourceTable | None = None,
        open_previous: Callable[[str], Release] | None = None,
        render: Render | None = None,
        recompute: Recompute | None = None,
        report: Report = silent,
    ) -> None:
        self.files = ReleaseFiles(release, quick=quick)
        """Its files: listed, read, hashed."""
        self.tables = ParquetTables(self.files)
        """Its Parquet files: footers, schemas, rows."""
        self.documents = Documents(self.files, self.tables)
        """What it says about itself."""
        self.input = Input(self.files, self.tables)
        """The kind of input."""
        self.extra = ExtraTables(self.tables, lambda: self.fingerprint, lambda: self.sources)
        """Its patches and aggregates."""
        self.recompute = recompute
        """Computes vectors again, where that is asked for."""
        self._render = render
        self._zarr_arrays: dict[str, Any] = {}
        self.broken: list[Broken] = []
        """What kept rules from being checked, so far."""
        self._checks, self._sampled, self._sample = checks, sampled, sample
        self._previous, self._report, self._threads = previous, report, threads
        self._verified, self._scans, self._alone = verified, scans, alone
        if sources is not None:
            vars(self)["sources"] = sources
        self._open_previous = open_previous or (lambda named: Release(neighbor(self.files.store, named)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Give back the room on the disk: a child process is used again."""
        vars(self).pop("scan", None)

    @once
    def rendered(self) -> Rendered:
        """Its documents and figures, rendered again by the software and libraries that made them.

        Raises:
            SkippedError: they cannot be compared.
        """
        if self._render is None:
            raise SkippedError("documents", "are rendered again by the command line alone")
        self.files.read_whole(CARD)
        if not self.files.store.local:
            raise SkippedError("documents", "are rendered again for directories alone")
        for name, old in self.documents.manifest.run.libraries.items():
            if (own := _installed(name)) != old:
                found = f"was made with {name} {old}, and {own or 'none'} is installed here"
                raise SkippedError("the release", found)
        unknown = None
        try:
            previous = None if self.documents.spec.previous is None else self.previous
        except ClayPublishError as error:
            previous, unknown = None, f"{CHANGELOG}: {error.where} {error.found}"
        before = None if previous is None else previous.files.release
        return Rendered(self._render(self.files.release, before), unknown)

    @once
    def fingerprint(self) -> Fingerprint:
        """What decided the vectors, from the first embeddings file that says so."""
        for path, footer in self.tables.keys.items():
            if "embrel:decided_by" in footer.get("emb", {}):
                return fingerprint_in(footer, path)
        raise ReleaseError(EMBEDDINGS, "holds no file whose footer says what decided the vectors")

    @once
    def sources(self) -> SourceTable:
        """`sources.parquet`."""
        return read_sources(self.tables)

    @once
    def grids(self) -> ChipGrids:
        """The pixel grids in which its chips are numbered."""
        return ChipGrids(self.fingerprint, lambda: self.sources, self.tables)

    @once
    def layers(self) -> list[Summary]:
        """Expected, present and described cells."""
        counted: Counter[Said] = Counter()
        inputs = CellInputs(self.documents.spec, self.fingerprint, self.sources, self.scan.facts, self.tables)
        found = list(count_cells(inputs, counted))
        if counted:  # the tables need not be read again
            vars(self).setdefault("said", counted)
        return found

    @once
    def compared(self) -> ComparedChips:
        """The chips that are compared with their neighbors."""
        facts = self.scan.facts
        return ComparedChips.of(facts, self.extra.blocks_of_chips(facts, 1))

    @once
    def zarr(self) -> ZarrGroups:
        """The groups and arrays of the store."""
        return ZarrGroups(self.files, self.documents)

    def zarr_array(self, path: str) -> Any:
        """A `zarr.Array`, opened once.

        Raises:
            ReleaseError: it cannot be read.
            SkippedError: it has a codec that is not run.
        """
        if path not in self._zarr_arrays:
            document = self.zarr.documents.get(path, {})
            if strange := ArrayDocument(path, document).strange_codecs:
                raise SkippedError(path, f"has the codec {strange[0]!r:.60}, which is not run")
            from clay_publish.search.arrays.zarr_store import open_array  # noqa: PLC0415 - zarr comes with an extra

            self._zarr_arrays[path] = open_array(self.files.release, path, 2 if document.get("zarr_format") == 2 else 3)
        return self._zarr_arrays[path]

    @once
    def said(self) -> Counter[Said]:
        """How many rows of the coverage say what."""
        return tally(self.tables)

    @cached_property
    def scan(self) -> Scan:
        """What the one pass over all embeddings files saw."""
        with suppress(ReleaseError):  # the rules that need them say why they are not there
            _ = self.sources  # before, since a file is blamed for the memory that is taken while it is read
        return self.rows_pass.run()

    @cached_property
    def rows_pass(self) -> Pass:
        """The one pass over the embeddings files."""
        return Pass(
            self.tables,
            {code: partial(_bound, check, self) for code, check in self._checks.items()},
            self._places,
            self.step,
            self._report,
            self._sampled,
            self._threads,
            self._verified,
            self._alone,
            {path: partial(self._kept, kept) for path, kept in self._scans.items()},
        )

    def _kept(self, path: str) -> SeenFile | None:
        return unpack(self.files.store.read(path), self.among)

    @property
    def among(self) -> tuple[int, int]:
        """Rows and files that a file is read among: they decide which rows are looked at in a sample."""
        return self.tables.rows, len(self.tables.embeddings)

    def _places(self, chips: ChipRows) -> npt.NDArray[np.int32]:
        return self.sources.places(chips)

    @cached_property
    def step(self) -> int:
        """Every so many rows of a file, a sampled rule checks one."""
        return max(1, -(-self.tables.rows // max(self._sample, 1)))

    def sampled(self, chips: ChipRows) -> npt.NDArray[np.int64]:
        """Rows of a batch that a sampled rule checks."""
        return np.arange(-chips.start % self.step, len(chips), self.step)

    def name(self, row: int) -> str:
        """Return file, row and id of a chip, by its row in the release."""
        path, number = self.scan.facts.place(row)
        return f"{path}: row {number} ({self.value('id', row)})"

    def value(self, column: str, row: int) -> Any:
        """Return one value of the embeddings, by its row in the release."""
        return value(self.tables, self.scan.facts, column, row)

    @once
    def digests(self) -> dict[str, str]:
        """SHA-256 of every file; the embeddings are hashed in the pass that reads them."""
        self.files.read_whole(self.files.store.where)
        return self.files.digests(self.scan.digests)

    @cached_property
    def previous(self) -> "ReleaseContext | None":
        """The previous version, where the spec names one.

        Raises:
            ReleaseError: it is named and cannot be found from here.
        """
        if self._previous is not None:
            before = self._previous
        elif self.documents.spec.previous is None:
            return None
        else:
            before = self._open_previous(self.documents.spec.previous)
        context = ReleaseContext(before, quick=self.files.quick)
        if not context.files.data:
            raise SkippedError(before.store.where, "holds no embeddings of the previous version")
        return context


def _bound(check: RowCheck, context: ReleaseContext, chips: ChipRows) -> Sequence[BadRows]:
    return check(chips, context)
