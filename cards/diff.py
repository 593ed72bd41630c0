"""Compare two versions of a release, wherever they lie, a row group at a time."""

from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from itertools import zip_longest

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from clay_publish.cards.figures.sample import vectors
from clay_publish.cards.filters import markdown
from clay_publish.errors import ReleaseError
from clay_publish.formats import number, percent
from clay_publish.release import directory as paths
from clay_publish.release.array_store import STORE
from clay_publish.release.directory import Release
from clay_publish.release.format_version import check_release
from clay_publish.release.tables import REASONS
from clay_publish.release.versions import Version, VersionStep
from clay_publish.search.row_groups import group_starts

NOT_EXPECTED = "not_expected"
"""Stands for a reason where the other version did not expect the chip at all."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class ChipChanges(_Model):
    """Chips of the new version against those of the old one, by their ids."""

    added: int
    removed: int
    changed: int | None
    """Vectors that moved farther than the tolerance; None where the fingerprints differ."""
    unchanged: int | None
    largest: float
    """Farthest any vector moved, as a share of its length."""


class CoverageChanges(_Model):
    """Expected chips of the new version against those of the old one."""

    expected_before: int
    expected: int
    gained: dict[str, int]
    """Chips that have an embedding now, by why they had none."""
    lost: dict[str, int]
    """Chips that have none any more, by why."""


class Difference(_Model):
    """Everything that differs."""

    old: str
    """Version."""
    new: str
    step: VersionStep
    """What the difference asks of the version number."""
    identical: bool
    """No chip, column, table, coverage row or fingerprint differs."""
    because: str
    """Why, in a few words."""
    chips: ChipChanges
    coverage: CoverageChanges
    columns: list[str]
    """Columns, tables and arrays: `embeddings: column loss added`."""
    fingerprint: list[str]
    """`field: before → after`."""

    @property
    def known_before(self) -> VersionStep:
        """The step without what only the run itself could tell: chips that are missing now."""
        only_removed = self.step is VersionStep.MINOR and not (self.chips.added or self.columns)
        return VersionStep.PATCH if only_removed else self.step

    def lines(self) -> list[str]:
        """One line a fact, plain text."""
        if self.identical:
            return ["identical: the same chips, vectors, coverage and columns"]
        chips, coverage = self.chips, self.coverage
        lines = [f"fingerprint, {line}" for line in self.fingerprint] + self.columns
        if chips.added:
            lines.append(f"{number(chips.added)} chips added{_by_reason(coverage.gained, 'before')}")
        if chips.removed:
            lines.append(f"{number(chips.removed)} chips removed{_by_reason(coverage.lost, 'now')}")
        if chips.changed is None:
            lines.append("vectors were not compared: the fingerprints differ")
        else:
            moved = f", by up to {percent(chips.largest)} of their length" if chips.changed else ""
            lines.append(f"{number(chips.changed)} vectors changed{moved}; {number(chips.unchanged or 0)} stayed")
        if coverage.expected != coverage.expected_before:
            change = coverage.expected - coverage.expected_before
            share = f", {percent(abs(change) / coverage.expected_before)}" if coverage.expected_before else ""
            more = f"{number(abs(change))} {'more' if change > 0 else 'fewer'}{share}"
            lines.append(
                f"{number(coverage.expected)} chips expected, {number(coverage.expected_before)} before ({more})"
            )
        return lines

    def markdown(self, day: str) -> str:
        """The entry of a changelog."""
        facts = "".join(f"- {markdown(line)}\n" for line in self.lines())
        return f"## {self.new} ({day})\n\nA {self.step} step from {self.old}: {markdown(self.because)}.\n\n{facts}"


def _by_reason(counts: dict[str, int], when: str) -> str:
    if not counts:
        return ""
    parts = [f"{number(count)} {_reason(reason, when)}" for reason, count in counts.items()]
    return f" ({', '.join(parts)})"


def _reason(reason: str, when: str) -> str:
    if reason == NOT_EXPECTED:
        return f"not expected {when}"
    return f"{when}: {REASONS.get(reason, reason)}"


TOLERANCE = 1e-3
"""Largest relative change of a vector that still counts as unchanged."""

_Places = npt.NDArray[np.int64]


def compare(old: Release, new: Release, tolerance: float = TOLERANCE) -> Difference:
    """What `new` differs in from `old`.

    Chips are matched by id inside files of the same name: a file's name tells the place and the time of its chips.

    Raises:
        ReleaseError: one of them is not a complete release, or `new` is the older version.
    """
    for release in (old, new):
        check_release(release)
    before, after = old.spec().version, new.spec().version
    if Version.parse(after) < Version.parse(before):
        raise ReleaseError(
            new.store.where, f"is version {after}, older than {before}", "the newer version", "Swap the two."
        )
    fingerprint = old.fingerprint().differences(new.fingerprint())
    columns, more = _schemas(old, new)
    chips = _chips(old, new, tolerance, comparable=not fingerprint)
    coverage = _coverage(old, new)
    step, because = _step(fingerprint, columns, chips, more=more)
    same = not (fingerprint or columns or more or chips.added or chips.removed or chips.changed)
    return Difference(
        identical=same and not coverage.gained and not coverage.lost and coverage.expected == coverage.expected_before,
        old=before,
        new=after,
        step=step,
        because=because,
        chips=chips,
        coverage=coverage,
        columns=[*columns, *more],
        fingerprint=fingerprint,
    )


def _step(
    fingerprint: list[str], columns: list[str], chips: ChipChanges, *, more: list[str]
) -> tuple[VersionStep, str]:
    if fingerprint:
        return VersionStep.MAJOR, "the fingerprint differs, so vectors of both must not be compared"
    if columns:
        return VersionStep.MAJOR, "its tables or arrays have other columns"
    if more:
        return VersionStep.MINOR, "it has more tables or arrays"
    if chips.added or chips.removed:
        what = (
            "adds and removes chips"
            if chips.added and chips.removed
            else "adds chips"
            if chips.added
            else "removes chips"
        )
        return VersionStep.MINOR, f"it {what}"
    return VersionStep.PATCH, "it corrects vectors" if chips.changed else "it changes documents only"


def _schemas(old: Release, new: Release) -> tuple[list[str], list[str]]:
    """What a reader of the old tables would stumble over, and what is merely more."""
    before, after = _tables(old), _tables(new)
    columns = [f"{_named(name)} removed" for name in before if name not in after]
    for name in before.keys() & after.keys():
        mine, theirs = before[name], after[name]
        columns += [f"{name}: column {field.name} removed" for field in mine if field.name not in theirs.names]
        columns += [f"{name}: column {field.name} added" for field in theirs if field.name not in mine.names]
        columns += [
            f"{name}: column {field.name} was {field.type}, is {theirs.field(field.name).type}"
            for field in mine
            if field.name in theirs.names and field.type != theirs.field(field.name).type
        ]
    return sorted(columns), [f"{_named(name)} added" for name in after if name not in before]


def _named(name: str) -> str:
    return name if name.startswith(STORE) else f"table {name}"


def _tables(release: Release) -> dict[str, pa.Schema]:
    """The schema of each partitioned table, by its folder; of arrays, the layers of chips and those of patches."""
    found: dict[str, pa.Schema] = {}
    for top in (paths.EMBEDDINGS, paths.PATCHES, paths.AGGREGATES):
        for path in release.data_files(top):
            folder = path.partition("/zone=")[0]
            if folder not in found:
                found[folder] = release.parquet(path).schema_arrow.remove_metadata()
    return found | _arrays(release)


def _arrays(release: Release) -> dict[str, pa.Schema]:
    """Names and types of the layers of each kind of group, which are the same in all zones."""
    path = f"{STORE}/zarr.json"
    if not release.store.exists(path):
        return {}
    found: dict[str, dict[str, pa.DataType]] = {}
    try:
        for name, document in release.json(path)["consolidated_metadata"]["metadata"].items():
            if document["node_type"] == "array" and len(document["shape"]) >= 3:
                _, *below, layer = name.split("/")
                kind = pa.type_for_alias(document["data_type"])
                found.setdefault("/".join([STORE, *below]), {})[layer] = kind
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ReleaseError(release.store.path(path), f"has no readable {error}", "metadata of Zarr v3") from error
    return {folder: pa.schema(list(layers.items())) for folder, layers in found.items()}


def _chips(old: Release, new: Release, tolerance: float, *, comparable: bool) -> ChipChanges:
    before, after = set(old.data_files()), set(new.data_files())
    added = sum(new.parquet(path).metadata.num_rows for path in after - before)
    removed = sum(old.parquet(path).metadata.num_rows for path in before - after)
    changed = unchanged = 0
    largest = 0.0
    for path in sorted(before & after):
        mine, theirs = old.parquet(path), new.parquet(path)
        ids, others = mine.read(columns=["id"])["id"], theirs.read(columns=["id"])["id"]
        places = pc.fill_null(pc.index_in(ids, value_set=others.combine_chunks()), -1).to_numpy()
        kept = int((places >= 0).sum())
        removed += len(ids) - kept
        added += len(others) - kept
        if comparable:
            for moved in _moved(mine, theirs, places):
                changed += int((moved > tolerance).sum())
                unchanged += int((moved <= tolerance).sum())
                largest = max(largest, float(moved.max(initial=0.0)))
    return ChipChanges(
        added=added,
        removed=removed,
        changed=changed if comparable else None,
        unchanged=unchanged if comparable else None,
        largest=largest,
    )


def _moved(old: pq.ParquetFile, new: pq.ParquetFile, places: _Places) -> Iterator[npt.NDArray[np.float64]]:
    """The relative distance of each vector of `old` from the one of `new`, row group by row group.

    `places` is where in `new` each row of `old` is, −1 for nowhere. Both files are in the same order, so what a row
    group of one needs lies in few row groups of the other.
    """
    starts = group_starts(new.metadata)
    columns = [name for name in ("embedding", "scale") if name in new.schema_arrow.names]

    @lru_cache(maxsize=3)
    def of(group: int) -> npt.NDArray[np.float32]:
        return vectors(new.read_row_group(group, columns=columns))

    first = 0
    for group in range(old.num_row_groups):
        mine = vectors(old.read_row_group(group, columns=columns))
        there = places[first : first + len(mine)]
        first += len(mine)
        for other in np.unique(np.searchsorted(starts, there[there >= 0], side="right") - 1):
            rows = np.flatnonzero((there >= starts[other]) & (there < starts[other + 1]))
            a, b = mine[rows].astype(np.float64), of(int(other))[there[rows] - starts[other]]
            lengths = np.linalg.norm(a, axis=1)
            yield np.linalg.norm(a - b, axis=1) / np.where(lengths > 0, lengths, 1)


def _coverage(old: Release, new: Release) -> CoverageChanges:
    before, after = set(old.data_files(paths.COVERAGE)), set(new.data_files(paths.COVERAGE))
    compared = _ComparedCoverage()
    for path in sorted(before | after):
        mine = _expected(old, path) if path in before else iter(())
        theirs = _expected(new, path) if path in after else iter(())
        for one, other in zip_longest(mine, theirs, fillvalue=_NOTHING):
            compared.add(one, other)
        compared.end_file()
    return CoverageChanges(
        expected_before=compared.before,
        expected=compared.after,
        gained=dict(compared.gained.most_common()),
        lost=dict(compared.lost.most_common()),
    )


_COLUMNS = ("id", "status", "reason")
_NOTHING = pa.table({name: pa.array([], pa.string()) for name in _COLUMNS})
_ROWS = 1 << 18
"""That are compared at a time."""


def _expected(release: Release, path: str) -> Iterator[pa.Table]:
    for batch in release.parquet(path).iter_batches(_ROWS, columns=list(_COLUMNS)):
        yield pa.Table.from_batches([batch]).cast(_NOTHING.schema)


class _ComparedCoverage:
    """Counts what became of expected chips, some rows of both versions at a time.

    Both are in the same order, so that most chips are found among the rows at hand. Those that are not wait for the
    next rows.
    """

    def __init__(self) -> None:
        self.before = self.after = 0
        self.gained: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self._old = self._new = _NOTHING
        """Chips of one version that were not yet met in the other."""

    def add(self, old: pa.Table, new: pa.Table) -> None:
        """Compare rows of both versions."""
        self.before += old.num_rows
        self.after += new.num_rows
        old, new = pa.concat_tables([self._old, old]), pa.concat_tables([self._new, new])
        places = pc.index_in(old["id"], value_set=new["id"].combine_chunks())
        met = places.is_valid()
        there = places.drop_null().combine_chunks()
        mine, theirs = old.filter(met), new.take(there)
        had, has = (pc.equal(each["status"], "embedded") for each in (mine, theirs))
        self.gained.update(_counts(mine["reason"].filter(pc.and_not(has, had))))
        self.lost.update(_counts(theirs["reason"].filter(pc.and_not(had, has))))
        rest = np.ones(new.num_rows, dtype=bool)
        rest[there.to_numpy()] = False
        self._old, self._new = old.filter(pc.invert(met)), new.filter(pa.array(rest))

    def end_file(self) -> None:
        """Chips that wait are expected in one version only."""
        for waiting, counts in ((self._new, self.gained), (self._old, self.lost)):
            embedded = pc.sum(pc.equal(waiting["status"], "embedded")).as_py()
            if embedded:
                counts[NOT_EXPECTED] += embedded
        self._old = self._new = _NOTHING


def _counts(reasons: pa.ChunkedArray) -> dict[str, int]:
    return {str(row["values"]): row["counts"] for row in pc.value_counts(reasons).to_pylist()}
