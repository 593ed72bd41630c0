"""What a release says about itself: the only source of its documents."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
import pyarrow as pa

from clay_publish.cards.provenance import CoverageCounts, SourceCounts, read_coverage, read_sources
from clay_publish.errors import ReleaseError
from clay_publish.release import directory as paths
from clay_publish.release import manifest
from clay_publish.release.array_store import STORE, coverage_zone, zone_group
from clay_publish.release.benchmarks import Benchmark, read_benchmarks
from clay_publish.release.directory import Release
from clay_publish.release.fingerprint import Fingerprint
from clay_publish.release.geoparquet import total_bbox
from clay_publish.release.manifest import RunRecord
from clay_publish.release.public_urls import release_address, source_coop_address
from clay_publish.release.tables import COLUMNS, THUMBNAIL
from clay_publish.spec.models import Spec


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    name: str
    kind: str
    """Its type, as a reader would say it."""
    nullable: bool


@dataclass(frozen=True)
class Table:
    """One partitioned table of a release."""

    config: str
    """Name of its configuration for `datasets`: `embeddings`, `patches`, `aggregates_2x2`."""
    folder: str
    files: int
    rows: int
    size: int
    """Bytes on disk."""
    memory: int
    """Bytes of its values when read."""
    schema: pa.Schema

    @property
    def pattern(self) -> str:
        """The files of this table, and no others."""
        return f"{self.folder}/**/*.parquet"

    @property
    def noun(self) -> str:
        """What a row stands for."""
        if self.folder == paths.PATCHES:
            return "patch"
        if self.folder.startswith(f"{paths.AGGREGATES}/"):
            return f"square of {self.folder.rpartition('/')[2].replace('x', ' × ')} chips"
        return "chip"

    @property
    def format(self) -> str:
        """GeoParquet where its rows have a place of their own."""
        return "GeoParquet 1.1" if "geometry" in self.schema.names else "Parquet"

    @property
    def key(self) -> tuple[str, ...]:
        """The columns that together name a row."""
        return ("id",) if "id" in self.schema.names else ("chip_id", "patch_row", "patch_col")

    def meaning(self, column: str) -> str:
        """What a column holds; empty for one that is not known here."""
        if column in {"id", "embedding"} and self.noun != "chip":
            return {"id": f"Identifier of the {self.noun}.", "embedding": f"The embedding of the {self.noun}."}[column]
        return COLUMNS.get(column, "")

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns, in order."""
        return tuple(Column(f.name, _kind(f.type), f.nullable) for f in self.schema)


@dataclass(frozen=True)
class CardFacts:
    """Everything the documents of a release say, read from the release."""

    spec: Spec
    fingerprint: Fingerprint
    run: RunRecord
    gsd: float
    """Meters a pixel."""
    tables: tuple[Table, ...]
    """The embeddings first."""
    bbox: tuple[float, float, float, float]
    """West, south, east, north in degrees; west > east where the chips cross the antimeridian."""
    start: datetime
    end: datetime
    coverage: CoverageCounts
    sources: SourceCounts
    reference: bool
    """Whether there are vectors before rounding to compare with."""
    codes: dict[str, Any] | None
    """`codes/model.json`; None where the release has no codes."""
    benchmarks: tuple[Benchmark, ...] = ()
    """What the maintainer measured on labels."""
    arrays: tuple[str, ...] = ()
    """Groups of the arrays, one per UTM zone."""

    @property
    def embeddings(self) -> Table:
        """The table every release has."""
        return self.tables[0]

    @property
    def title(self) -> str:
        """Its title, or its name where the spec gives none."""
        return self.spec.title or self.spec.name

    @property
    def multi_date(self) -> bool:
        """Whether a chip shows more than one date: of several acquisitions, or of images that are composites."""
        return self.sources.composite or self.fingerprint.combines

    @property
    def ground(self) -> float:
        """Side of a chip in meters."""
        return self.fingerprint.size * self.gsd

    @property
    def home(self) -> str | None:
        """The page a person would be sent to; None where the spec names none."""
        publish = self.spec.publish
        if publish.source_coop:
            return f"https://source.coop/{publish.source_coop}"
        if publish.hugging_face:
            return f"https://huggingface.co/datasets/{publish.hugging_face}"
        return self.address

    @property
    def address(self) -> str | None:
        """Where this version will be found on the web."""
        found = release_address(self.spec)
        return quote(found, safe=":/%@~+,;=&$!") if found else None

    @property
    def explorer_page(self) -> str | None:
        """Where a browser shows the explorer: source.coop sends it as a page, the Hub as text."""
        shown = source_coop_address(self.spec) or self.address
        return f"{shown}/explore/index.html" if shown and urlsplit(shown).hostname != "huggingface.co" else None


def read_facts(release: Release) -> CardFacts:
    """Read them.

    Raises:
        ReleaseError: the release has no embeddings, spec, coverage or record of its run.
    """
    tables = tuple(_tables(release))
    bbox, start, end = _extent(release)
    gsd = release.footer(release.data_files()[0])["emb"].get("gsd")
    evaluated = read_benchmarks(release)
    if gsd is None:
        raise ReleaseError(release.store.path(release.data_files()[0]), "does not tell the ground size of its pixels")
    return CardFacts(
        spec=release.spec(),
        fingerprint=release.fingerprint(),
        run=manifest.run_record(release),
        gsd=float(gsd),
        tables=tables,
        bbox=bbox,
        start=start,
        end=end,
        coverage=read_coverage(release),
        sources=read_sources(release),
        reference=release.store.exists(paths.REFERENCE),
        codes=release.json(paths.CODES_MODEL) if release.store.exists(paths.CODES_MODEL) else None,
        benchmarks=() if evaluated is None else tuple(evaluated.benchmarks),
        arrays=_array_groups(release),
    )


def _array_groups(release: Release) -> tuple[str, ...]:
    if not release.store.exists(f"{STORE}/zarr.json"):
        return ()
    return tuple(zone_group(zone) for zone in sorted(map(coverage_zone, release.data_files(paths.COVERAGE))))


def _tables(release: Release) -> list[Table]:
    if not release.data_files():
        raise ReleaseError(release.store.where, "has no embeddings", fix="Run `clay-publish produce` first.")
    found = [_table(release, paths.EMBEDDINGS, "embeddings")]
    for folder in (paths.PATCHES, paths.AGGREGATES):
        below = sorted({_table_folder(path) for path in release.data_files(folder)})
        found += [_table(release, name, name.replace("/", "_")) for name in below]
    return found


def _table_folder(path: str) -> str:
    """`aggregates/2x2/zone=18/….parquet` lies in the table `aggregates/2x2`."""
    return path.partition("/zone=")[0]


def _table(release: Release, folder: str, config: str) -> Table:
    files = release.data_files(folder)
    rows = size = memory = 0
    for path in files:
        footer = release.parquet(path).metadata
        rows += footer.num_rows
        size += release.store.size(path)
        groups = (footer.row_group(i) for i in range(footer.num_row_groups))
        memory += sum(group.total_byte_size for group in groups)
    schema = release.parquet(files[0]).schema_arrow
    return Table(config, folder, len(files), rows, size, memory, schema)


def _extent(release: Release) -> tuple[tuple[float, float, float, float], datetime, datetime]:
    """Bounds and period of all chips, from footers alone."""
    boxes, starts, ends = [], [], []
    for path in release.data_files():
        footer = release.parquet(path).metadata
        bbox = release.footer(path).get("geo", {}).get("columns", {}).get("geometry", {}).get("bbox")
        if footer.num_rows == 0 or bbox is None:
            continue
        boxes.append(bbox)
        starts.append(_statistic(footer, "start_datetime", "min"))
        ends.append(_statistic(footer, "end_datetime", "max"))
    box = total_bbox(np.array(boxes, dtype=np.float64).reshape(-1, 4))
    if box is None:
        raise ReleaseError(release.store.where, "holds no chip", "at least one embedding to document")
    west, south, east, north = box
    return (west, south, east, north), min(starts), max(ends)


def _statistic(footer: Any, column: str, which: str) -> datetime:
    place = next(i for i in range(footer.num_columns) if footer.row_group(0).column(i).path_in_schema == column)
    values = [getattr(footer.row_group(g).column(place).statistics, which) for g in range(footer.num_row_groups)]
    chosen: datetime = min(values) if which == "min" else max(values)
    return chosen


_SHORT = {"halffloat": "float16", "float": "float32", "double": "float64"}


def _kind(kind: pa.DataType) -> str:
    if pa.types.is_fixed_size_list(kind):
        return f"list of {kind.list_size} {_kind(kind.value_type)}"
    if pa.types.is_list(kind):
        return f"list of {_kind(kind.value_type)}"
    if kind == THUMBNAIL:
        return "picture"
    if pa.types.is_struct(kind):
        return f"struct of {', '.join(kind.field(i).name for i in range(kind.num_fields))}"
    if pa.types.is_timestamp(kind):
        return "timestamp, UTC"
    return _SHORT.get(str(kind), str(kind))
