"""Where a release's chips come from, and which ones are missing: read from its tables, not from its plan."""

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


def read_sources(release: Release) -> SourceCounts:
    """Sum up `sources.parquet`.

    Raises:
        ReleaseError: missing or unreadable.
    """
    table = release.parquet(paths.SOURCES).read(columns=list(_COLUMNS))
    used = table.filter(pc.equal(table["status"], "used"))
    terms = used.group_by(["license", "attribution"]).aggregate([([], "count_all")]).to_pylist()
    statuses = pc.value_counts(table["status"]).to_pylist()
    excluded = table.filter(pc.equal(table["status"], "excluded"))["id"].to_pylist()
    return SourceCounts(
        counts={row["values"]: row["counts"] for row in statuses},
        collections=_distinct(used["collection"]),
        platforms=_distinct(used["platform"]),
        terms=tuple(
            SourceTerms(row["license"], row["attribution"], row["count_all"])
            for row in sorted(
                terms, key=lambda row: (-row["count_all"], row["license"] or "", row["attribution"] or "")
            )
        ),
        excluded=tuple(sorted(excluded)[:100]),
        composite=any(
            start is not None and end is not None and end - start > timedelta(days=1)
            for start, end in zip(used["start_datetime"].to_pylist(), used["end_datetime"].to_pylist(), strict=True)
        ),
    )


def _distinct(column: pa.ChunkedArray) -> tuple[str, ...]:
    return tuple(sorted(value for value in column.unique().to_pylist() if value is not None))
