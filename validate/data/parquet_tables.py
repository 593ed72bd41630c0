"""The Parquet files of a release: footers, schemas and rows, read when a rule first asks."""

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
from clay_publish.validate.data.others.columns import Columns
from clay_publish.validate.outcomes import short
from clay_publish.windows import Window

MAX_TABLE = 400_000_000
"""Bytes in memory of a table that is read whole."""
MAX_ROWS = 1 << 16
MAX_BATCH = 16_000_000
"""Bytes of the rows that are decoded at once."""
_FORMATS = {
    b"version https://git-lfs": "a pointer of Git LFS to it (`git lfs pull` gets the file)",
    b"\x1f\x8b": "compressed with gzip (Parquet compresses its own pages)",
    b"\x28\xb5\x2f\xfd": "compressed with zstd (Parquet compresses its own pages)",
    b"pk\x03\x04": "a ZIP archive",
    b"<": "a web page or XML",
    b"{": "JSON",
    b"arrow1": "an Arrow IPC file",
    b"\x93numpy": "a NumPy array",
}
"""What files that are called Parquet really are, by their first bytes in lower case."""
_AT_ONCE = 4
"""Remote footers that are read at a time. On a disk Python takes the time, and threads would wait."""


@dataclass(frozen=True)
class _Opened:
    """What is kept of each Parquet file: parsed, footers take 80 kB a file."""

    rows: int
    schema: pa.Schema
    """Without footer keys."""
    keys: dict[str, bytes]
    """The footer keys that are ours."""
    footer: bytes | pq.FileMetaData
    """Of a file on a disk as a file without rows, compressed."""


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


@lru_cache(maxsize=256)
def _footer(kept: bytes) -> pq.FileMetaData:
    return pq.read_metadata(pa.BufferReader(zlib.decompress(kept)))


class ParquetTables:
    """The tables of one release. What cannot be read raises `ReleaseError`."""

    def __init__(self, files: ReleaseFiles) -> None:
        self.files = files
        self._schemas: dict[pa.Schema, pa.Schema] = {}
        """Without footer keys: most files have the same."""
        self._texts: dict[bytes, bytes] = {}
        """Footer keys, of which most are those of all files."""
        self._periods: dict[str, tuple[datetime, datetime] | None] = {}
        self._columns: dict[str, Columns] = {}

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
            return self._other_format(path) or below(error, path)
        schema, keys = opened.schema_arrow.remove_metadata(), opened.schema_arrow.metadata or {}
        return _Opened(
            rows,
            self._schemas.setdefault(schema, schema),
            {
                name: self._texts.setdefault(text, text)
                for name in FOOTER_KEYS
                if (text := keys.get(name.encode())) is not None
            },
            self._end(path) if store.local else footer,
        )

    def _end(self, path: str) -> bytes:
        # As it is: pyarrow 26 ends the process where it writes the metadata of encrypted columns.
        store, size = self.files.store, self.files.store.size(path)
        length = int.from_bytes(store.part(path, size - 8, size - 4), "little")
        return zlib.compress(b"PAR1" + store.part(path, size - 8 - length, size), 1)

    def _other_format(self, path: str) -> str | None:
        """What a file is that is not Parquet, by its first and last bytes; None where they do not say."""
        try:
            size = self.files.store.size(path)
            start, end = (self.files.store.part(path, at, min(at + 32, size)) for at in (0, max(0, size - 4)))
        except StoreError:
            return None
        if start.startswith(b"PAR1"):
            return None if end == b"PAR1" else "is a Parquet file without its end: it was not copied whole"
        named = next((what for first, what in _FORMATS.items() if start.lower().startswith(first)), None)
        return None if named is None else f"is not a Parquet file, but {named}"

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
        """The embeddings files that can be opened; of others' files, those with vectors, where any has them."""
        if not self.foreign:
            return self.data
        return [path for path in self.data if self.columns(path).vectors is not None] or self.data

    @cached_property
    def data(self) -> list[str]:
        """The files where embeddings are, as far as they can be opened."""
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
        kept = self._known(path).footer
        return _footer(kept) if isinstance(kept, bytes) else kept

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
        return _FooterKeys({path: self._known(path).keys for path in self.data})

    def columns(self, path: str) -> Columns:
        """Return which columns of a table that others made hold vectors, footprints, ids and times."""
        if path not in self._columns:
            self._columns[path] = Columns.of(self.schema(path), self.keys[path].get("geo", {}), self.footer(path))
        return self._columns[path]

    def names(self, path: str) -> set[str]:
        """Return the columns of a table, by the names that rules ask for."""
        schema = self.schema(path)
        if not self.foreign or path not in self.keys:
            return set(schema.names)
        columns = self.columns(path)
        boxes = not columns.projected and _holds_boxes(schema)
        return {*schema.names, *columns.names} - (set() if boxes else {"bbox"})

    def renamed(self, path: str, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return rows of a table with the column names that rules ask for."""
        return self.columns(path).renamed(batch) if self.foreign and path in self.keys else batch

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
        """Return how many rows of a file are read at once: so few that they take about 16 MB, at most `most`."""
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

    def table(self, path: str, columns: list[str] | None = None) -> pa.Table:
        """Read a whole small table, or some of its columns, page checksums compared.

        Raises:
            ReleaseError: missing, unreadable, damaged, or too large.
        """
        parts, size = [], 0
        for batch in self.batches(path, columns=columns):
            size += batch.nbytes
            if size > MAX_TABLE:
                raise ReleaseError(path, f"takes more than {MAX_TABLE:,} bytes of memory")
            parts.append(batch)
        if parts:
            return pa.Table.from_batches(parts)
        whole = self.footer(path).schema.to_arrow_schema().empty_table()
        return whole if columns is None else whole.select(columns)


def _holds_boxes(schema: pa.Schema) -> bool:
    """Whether the column `bbox` is the one of GeoParquet."""
    kind = schema.field("bbox").type if "bbox" in schema.names else pa.null()
    fields = {kind.field(n).name for n in range(kind.num_fields)} if pa.types.is_struct(kind) else set()
    return {"xmin", "ymin", "xmax", "ymax"} <= fields


def below(error: ClayPublishError, path: str) -> str:
    """What is wrong with a file, with the part of it that an error names."""
    part = error.where.partition(f"{path}: ")[2]
    return f"{part}: {error.found}" if part else error.found
