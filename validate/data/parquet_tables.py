"""The Parquet files of a release: footers, schemas and rows, read when a rule first asks."""

import re
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clay_publish.errors import ClayPublishError, ReleaseError, StoreError
from clay_publish.release import directory as paths
from clay_publish.release.directory import FOOTER_KEYS, DataFile
from clay_publish.storage.safe_parse import parse_json
from clay_publish.validate.data.files import ReleaseFiles
from clay_publish.validate.outcomes import short
from clay_publish.windows import Window

MAX_TABLE = 400_000_000
"""Bytes in memory of a table that is read whole."""
MAX_ROWS = 1 << 16
MAX_BATCH = 48_000_000
"""Bytes of the rows that are decoded at once."""
_AT_ONCE = 4
"""Remote footers that are read at a time. On a disk Python takes the time, and threads would wait."""


_VECTORS = ("embedding", "embeddings", "vector", "vectors", "features", "feature", "emb")
"""Names of vector columns, the likeliest first."""
_HINT = re.compile(r"emb|vec|feat", re.IGNORECASE)
_SHAPES = ("geometry", "geom", "wkb_geometry")
_LENGTH = 8
"""Values of a fixed-size list, at least, that is a vector whatever it is called."""
_TIMES = ("datetime", "date", "timestamp", "time", "acquired", "year", "start_datetime")


@dataclass(frozen=True)
class Columns:
    """The columns of one table, by what they hold; None where there is none."""

    vectors: str | None
    shapes: str | None
    ids: str | None
    times: tuple[str, ...]

    @classmethod
    def of(cls, schema: pa.Schema, primary: str | None) -> "Columns":
        """Find them by type and name."""
        kinds = dict(zip(schema.names, schema.types, strict=True))
        lists = [name for name, kind in kinds.items() if _is_vector(kind)]
        named = [name for name in _VECTORS if name in lists]
        hinted = [name for name in lists if _HINT.search(name)]
        fixed = [
            name for name in lists if pa.types.is_fixed_size_list(kinds[name]) and kinds[name].list_size >= _LENGTH
        ]
        binary = [name for name in (primary, *_SHAPES) if name in kinds and _is_binary(kinds[name])]
        texts = [
            name
            for name in ("id", "unique_id", "chip_id", "tile_id")
            if kinds.get(name) in {pa.string(), pa.large_string()}
        ]
        first = next(iter([*named, *hinted, *fixed]), None)
        return cls(first, next(iter(binary), None), next(iter(texts), None), tuple(n for n in _TIMES if n in kinds))

    @property
    def aliases(self) -> dict[str, str]:
        """Name in the file → name that rules ask for."""
        pairs = ((self.vectors, "embedding"), (self.shapes, "geometry"), (self.ids, "id"))
        return {own: name for own, name in pairs if own is not None and own != name}


def _is_vector(kind: pa.DataType) -> bool:
    nested = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return bool(nested and (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)))


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


@dataclass(frozen=True)
class _Opened:
    """What is kept of each Parquet file: parsed, footers take 80 kB a file."""

    rows: int
    schema: pa.Schema
    """Without footer keys."""
    keys: dict[str, bytes]
    """The footer keys that are ours."""
    footer: bytes
    """As a file of metadata, compressed."""


class _FooterKeys(Mapping[str, dict[str, Any]]):
    """The footer keys of each file, parsed when they are looked at: parsed, they take 25 kB a file."""

    def __init__(self, texts: dict[str, dict[str, bytes]]) -> None:
        self._texts = texts

    def __getitem__(self, path: str) -> dict[str, Any]:
        try:
            return {name: value for name, text in self._texts[path].items() if isinstance(value := _parsed(text), dict)}
        except ReleaseError:  # SCH004 reports it
            return {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)


@lru_cache(maxsize=256)
def _parsed(text: bytes) -> Any:
    return parse_json(text, "a footer key")


class ParquetTables:
    """The tables of one release. What cannot be read raises `ReleaseError`."""

    def __init__(self, files: ReleaseFiles) -> None:
        self.files = files
        self._schemas: dict[pa.Schema, pa.Schema] = {}
        """Without footer keys: most files have the same."""
        self._texts: dict[bytes, bytes] = {}
        """Footer keys, of which most are those of all files."""
        self._periods: dict[str, tuple[datetime, datetime] | None] = {}

    @cached_property
    def _opened(self) -> dict[str, str | _Opened]:
        with ThreadPoolExecutor(1 if self.files.store.local else _AT_ONCE) as pool:
            return dict(zip(self.files.parquet, pool.map(self._opens, self.files.parquet), strict=True))

    def _opens(self, path: str) -> str | _Opened:
        """What a Parquet file says of itself, or why it cannot be opened."""
        store = self.files.store
        try:
            store.size(path)
            with self.files.reading(path, whole=False):
                opened = self.files.release.parquet(path)
            footer = opened.metadata
            rows = sum(footer.row_group(number).num_rows for number in range(footer.num_row_groups))
            if footer.num_rows != rows:
                return f"claims {footer.num_rows:,} rows and has {rows:,} in its row groups"
        except (StoreError, ReleaseError) as error:
            return below(error, path)
        schema, kept = opened.schema_arrow.remove_metadata(), pa.BufferOutputStream()
        footer.write_metadata_file(kept)
        keys = opened.schema_arrow.metadata or {}
        return _Opened(
            rows,
            self._schemas.setdefault(schema, schema),
            {
                name: self._texts.setdefault(text, text)
                for name in FOOTER_KEYS
                if (text := keys.get(name.encode())) is not None
            },
            zlib.compress(kept.getvalue(), 1),
        )

    @cached_property
    def unreadable(self) -> dict[str, str]:
        """Parquet files that cannot be opened, and why."""
        return {path: found for path, found in self._opened.items() if isinstance(found, str)}

    @cached_property
    def readable(self) -> list[str]:
        """The Parquet files that can be opened."""
        return [path for path, found in self._opened.items() if not isinstance(found, str)]

    @cached_property
    def embeddings(self) -> list[str]:
        """The embeddings files that can be opened."""
        return [path for path in self.files.data if path not in self.unreadable]

    @cached_property
    def coverage(self) -> list[str]:
        """The coverage files that can be opened.

        Raises:
            ReleaseError: there are none.
        """
        found = [path for path in self.readable if path.startswith(f"{paths.COVERAGE}/")]
        if not found:
            raise ReleaseError(paths.COVERAGE, "holds no coverage table")
        return found

    @cached_property
    def named(self) -> dict[str, DataFile]:
        """Square and window of each embeddings file whose name gives them."""
        named = {}
        for path in self.embeddings:
            try:
                named[path] = DataFile.parse(path)
            except ReleaseError:  # SCH013 reports it
                continue
        return named

    @cached_property
    def windows(self) -> list[Window]:
        """The windows of the embeddings files, in order."""
        return sorted({file.window for file in self.named.values()})

    @cached_property
    def rows(self) -> int:
        """Chips in the release, as the footers of the files say."""
        return sum(self.count(path) for path in self.embeddings)

    def _known(self, path: str) -> _Opened:
        found = self._opened.get(path, "does not exist")
        if isinstance(found, str):
            raise ReleaseError(path, found)
        return found

    def footer(self, path: str) -> pq.FileMetaData:
        """Return the footer of a Parquet file.

        Raises:
            ReleaseError: missing or unreadable.
        """
        return pq.read_metadata(pa.BufferReader(zlib.decompress(self._known(path).footer)))

    def count(self, path: str) -> int:
        """Return the number of rows of a Parquet file.

        Raises:
            ReleaseError: missing or unreadable.
        """
        return self._known(path).rows

    def rows_of(self, path: str) -> int | None:
        """Return the number of rows of a Parquet file; None where it is another kind of file, or cannot be opened."""
        found = self._opened.get(path)
        return found.rows if isinstance(found, _Opened) else None

    def period(self, path: str) -> tuple[datetime, datetime] | None:
        """Return the first start and the last end of a table's chips, by the footer; None where it does not say."""
        if path not in self._periods:
            first, last = self._extremes(path, "start_datetime"), self._extremes(path, "end_datetime")
            self._periods[path] = None if first is None or last is None else (first[0], last[1])
        return self._periods[path]

    def _extremes(self, path: str, name: str) -> tuple[datetime, datetime] | None:
        footer = self.footer(path)
        groups = [footer.row_group(n) for n in range(footer.num_row_groups)]
        places = [n for n in range(footer.num_columns) if footer.schema.column(n).path == name]
        found = [group.column(n).statistics for group in groups for n in places]
        if not found or any(each is None or not isinstance(each.min, datetime) for each in found):
            return None
        return min(each.min for each in found), max(each.max for each in found)

    def schema(self, path: str) -> pa.Schema:
        """Return the Arrow schema of a Parquet file, without its footer keys."""
        return self._known(path).schema

    def annotated_schema(self, path: str) -> pa.Schema:
        """Return the Arrow schema of a Parquet file, with its footer keys."""
        return self.footer(path).schema.to_arrow_schema()

    @cached_property
    def keys(self) -> Mapping[str, dict[str, Any]]:
        """The footer keys of each embeddings file; those that are not JSON objects are left out."""
        return _FooterKeys({path: self._known(path).keys for path in self.embeddings})

    def columns(self, path: str) -> Columns:
        """Return which columns of a table hold vectors, footprints, ids and times; by name in tables of our own."""
        geo = self.keys[path].get("geo", {})
        primary = geo.get("primary_column")
        return Columns.of(self.schema(path), primary if isinstance(primary, str) else None)

    def renamed(self, path: str, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return rows of a table with the column names that rules ask for."""
        aliases = self.columns(path).aliases if self.foreign and path in self.keys else {}
        taken = set(batch.schema.names)
        names = [alias if (alias := aliases.get(n, n)) == n or alias not in taken else n for n in batch.schema.names]
        return batch.rename_columns(names) if aliases else batch

    @cached_property
    def foreign(self) -> bool:
        """Whether other software made this: no spec, no manifest, and no footer that says what decided the vectors."""
        if not {paths.SPEC, paths.MANIFEST}.isdisjoint(self.files.paths):
            return False
        return not any("embrel:decided_by" in footer.get("emb", {}) for footer in self.keys.values())

    def open(self, path: str) -> pq.ParquetFile:
        """Open a file to read single row groups of it.

        Raises:
            ReleaseError: unreadable, or this is a quick validation.
        """
        self.files.read_whole(path)
        self.footer(path)
        return self.files.release.parquet(path)

    def batch_rows(self, path: str, most: int) -> int:
        """Return how many rows of a file are read at once: so few that they take about 48 MB, at most `most`."""
        footer = self.footer(path)
        size = sum(footer.row_group(number).total_byte_size for number in range(footer.num_row_groups))
        width = max(size // max(footer.num_rows, 1), footer.num_columns)
        return max(1, min(most, int(MAX_BATCH // max(width, 1))))

    def batches(self, path: str, most: int = MAX_ROWS, **options: Any) -> Iterator[pa.RecordBatch]:
        """The rows of a table, page checksums compared, as many at once as the memory takes.

        Raises:
            ReleaseError: missing, unreadable, damaged.
        """
        self.footer(path)  # or why there is none, before anything is fetched
        source = self.files.source(path)
        dictionaries = options.pop("read_dictionary", None)
        try:
            with (
                self.files.reading(path),
                pq.ParquetFile(source, page_checksum_verification=True, read_dictionary=dictionaries) as file,
            ):
                for batch in file.iter_batches(self.batch_rows(path, most), **options):
                    batch.validate(full=True)  # text is UTF-8, indices are those of dictionaries
                    yield batch
        except (pa.ArrowException, OSError) as error:
            raise ReleaseError(path, f"cannot be read ({short(error)})") from error

    def table(self, path: str) -> pa.Table:
        """Read a whole small table, page checksums compared.

        Raises:
            ReleaseError: missing, unreadable, damaged, or too large.
        """
        parts, size = [], 0
        for batch in self.batches(path):
            size += batch.nbytes
            if size > MAX_TABLE:
                raise ReleaseError(path, f"takes more than {MAX_TABLE:,} bytes of memory")
            parts.append(batch)
        return pa.Table.from_batches(parts, parts[0].schema if parts else self.footer(path).schema.to_arrow_schema())


def below(error: ClayPublishError, path: str) -> str:
    """What is wrong with a file, with the part of it that an error names."""
    part = error.where.partition(f"{path}: ")[2]
    return f"{part}: {error.found}" if part else error.found
