"""Where a release's chips come from, and which ones are missing: read from its tables, not from its plan."""

import heapq
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from clay_publish.release import directory as paths
from clay_publish.release.directory import Release
from clay_publish.release.tables import NOT_CLOUD_CHECKED


@dataclass(frozen=True)
class CoverageCounts:
    """Expected chips against embedded ones."""

    expected: int
    embedded: int
    missing: dict[str, int]
    """Chips by reason, the most frequent first."""
    windows: dict[tuple[datetime, datetime], tuple[int, int]]
    """Window → expected and embedded chips."""

    unchecked: int
    """Embedded chips whose images have no cloud mask, of a sensor that has masks."""

    @property
    def share(self) -> float:
        """Embedded chips of the expected ones, 0 to 1."""
        return self.embedded / self.expected if self.expected else 0.0


@dataclass(frozen=True)
class SourceTerms:
    """Images under the same terms of use."""

    license: str | None
    attribution: str | None
    items: int


@dataclass(frozen=True)
class SourceCounts:
    """The source items of a release."""

    counts: dict[str, int]
    """Items by status: used, unused, excluded."""
    collections: tuple[str, ...]
    platforms: tuple[str, ...]
    terms: tuple[SourceTerms, ...]
    """Of the used items."""
    excluded: tuple[str, ...]
    """Ids, at most a hundred."""
    composite: bool
    """Whether any used item stands for more than a day."""


def read_coverage(release: Release) -> CoverageCounts:
    """Count the coverage table.

    Raises:
        ReleaseError: a file of it cannot be read.
    """
    expected: Counter[tuple[datetime, datetime]] = Counter()
    embedded: Counter[tuple[datetime, datetime]] = Counter()
    missing: Counter[str] = Counter()
    unchecked = 0
    for path in release.data_files(paths.COVERAGE):
        table = release.parquet(path).read(columns=["window_start", "window_end", "status", "reason", "detail"])
        unchecked += pc.sum(pc.equal(table["detail"], NOT_CLOUD_CHECKED)).as_py() or 0
        counts = table.group_by(["window_start", "window_end", "status", "reason"]).aggregate([([], "count_all")])
        for row in counts.to_pylist():
            window = (row["window_start"], row["window_end"])
            expected[window] += row["count_all"]
            if row["status"] == "embedded":
                embedded[window] += row["count_all"]
            else:
                missing[row["reason"]] += row["count_all"]
    return CoverageCounts(
        expected=expected.total(),
        embedded=embedded.total(),
        missing=dict(missing.most_common()),
        windows={window: (expected[window], embedded[window]) for window in sorted(expected)},
        unchecked=unchecked,
    )


_COLUMNS = (
    "id",
    "collection",
    "status",
    "platform",
    "license",
    "attribution",
    "start_datetime",
    "end_datetime",
)
_MOST_EXCLUDED = 100
"""Excluded items that are named."""


def read_sources(release: Release) -> SourceCounts:
    """Sum up `sources.parquet`.

    Raises:
        ReleaseError: missing or unreadable.
    """
    counts: Counter[str] = Counter()
    terms: Counter[tuple[str | None, str | None]] = Counter()
    names: dict[str, set[str]] = {"collection": set(), "platform": set()}
    excluded: list[str] = []
    composite = False
    for batch in release.parquet(paths.SOURCES).iter_batches(columns=list(_COLUMNS)):
        table = pa.Table.from_batches([batch])
        used = table.filter(pc.equal(table["status"], "used"))
        counts.update({row["values"]: row["counts"] for row in pc.value_counts(table["status"]).to_pylist()})
        for row in used.group_by(["license", "attribution"]).aggregate([([], "count_all")]).to_pylist():
            terms[row["license"], row["attribution"]] += row["count_all"]
        for column, found in names.items():
            found.update(name for name in used[column].unique().to_pylist() if name is not None)
        out = table.filter(pc.equal(table["status"], "excluded"))["id"].to_pylist()
        excluded = heapq.nsmallest(_MOST_EXCLUDED, [*excluded, *out])
        periods = pc.subtract(used["end_datetime"], used["start_datetime"])
        composite |= bool(pc.any(pc.greater(periods, pa.scalar(timedelta(days=1)))).as_py())
    return SourceCounts(
        counts=dict(counts),
        collections=tuple(sorted(names["collection"])),
        platforms=tuple(sorted(names["platform"])),
        terms=tuple(
            SourceTerms(license_, attribution, count)
            for (license_, attribution), count in sorted(
                terms.items(), key=lambda term: (-term[1], term[0][0] or "", term[0][1] or "")
            )
        ),
        excluded=tuple(excluded),
        composite=composite,
    )
