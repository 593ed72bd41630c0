"""The files of a release: listed, opened, and read as tables and texts when a rule first asks."""

import hashlib
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import pyarrow as pa
import pyarrow.parquet as pq

from clay_publish.errors import ReleaseError, StoreError
from clay_publish.release import directory as paths
from clay_publish.release.directory import DataFile, Release, footer_keys
from clay_publish.storage.http import NoRangesError
from clay_publish.storage.store import Store
from clay_publish.validate.data import parquet_limits

if TYPE_CHECKING:
    from io import FileIO

QUICK_BYTES = 8_000_000
"""Larger tables and documents on a server are left alone by a quick look."""

MAX_TABLE = 400_000_000
"""Bytes in memory of a table that is read whole."""

MAX_ROWS = 1 << 16
_AT_ONCE = 4
"""Footers on a server that are read at a time. On a disk it is Python that takes the time, and threads would wait."""
_PIECE = 1 << 22


class Files:
    """Files of one release. What is read is kept; what cannot be raises `ReleaseError`."""

    def __init__(self, release: Release, *, quick: bool = False) -> None:
        self.release = release
        self.quick = quick
        """Whether only metadata, footers and a sample are read."""
        self.hashed: dict[str, str] = {}
        """SHA-256 of the files that were fetched."""
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._plain: dict[str, pa.Schema] = {}
        self._costs: dict[str, parquet_limits.DecodingCost | ReleaseError] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    @property
    def scratch(self) -> Path:
        """A folder for copies of what lies on a server; gone when the block ends."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="clay-publish-")
        return Path(self._folder.name)

    @cached_property
    def files(self) -> list[str]:
        """Every file of the release, but the ones of the run."""
        return [p for p in self.release.files() if not p.startswith(f"{paths.RUN}/")]

    @cached_property
    def embeddings(self) -> list[str]:
        """The embeddings files that can be opened at all."""
        return [p for p in self.data_paths if p not in self.unreadable]

    @cached_property
    def data_paths(self) -> list[str]:
        """Every file below `embeddings/` that calls itself Parquet; of another kind of release, every one there is."""
        below = [p for p in self.parquet_paths if p.startswith(f"{paths.EMBEDDINGS}/")]
        if below or not {paths.SPEC, paths.COLLECTION, paths.MANIFEST}.isdisjoint(self.files):
            return below
        return self.parquet_paths

    @cached_property
    def foreign(self) -> bool:
        """Whether other software made this: no spec, no manifest, and no footer that says what decided the vectors."""
        if not {paths.SPEC, paths.MANIFEST}.isdisjoint(self.files):
            return False
        return not any("embrel:decided_by" in footer.get("emb", {}) for footer in self.footers.values())

    @cached_property
    def parquet_paths(self) -> list[str]:
        """Every file that calls itself Parquet."""
        return [p for p in self.files if p.endswith(".parquet")]

    @cached_property
    def unreadable(self) -> dict[str, str]:
        """Parquet files that cannot be opened, and why."""
        failed = {}
        with ThreadPoolExecutor(1 if self.release.store.local else _AT_ONCE) as pool:
            for path, found in zip(self.parquet_paths, pool.map(self._opens, self.parquet_paths), strict=True):
                if isinstance(found, str):
                    failed[path] = found
                    continue
                self.metadata[path], self.schemas[path] = found
        return failed

    def _opens(self, path: str) -> str | tuple[pq.FileMetaData, pa.Schema]:
        """What a Parquet file says of itself, or why it cannot be opened."""
        store = self.release.store
        try:
            size = store.size(path)
            with store.ranges(path) as file:
                parquet_limits.check_tail(file, size, path)
            opened = self.release.parquet(path)
            footer = opened.metadata
            parquet_limits.check_footer(footer, size, path)
        except NoRangesError:
            raise  # so it is with every file: one error instead of a finding for each
        except StoreError as error:
            return error.found
        except ReleaseError as error:
            # A part of the file may be named: keep it.
            part = error.where.partition(f"{path}: ")[2]
            return f"{part}: {error.found}" if part else error.found
        return footer, opened.schema_arrow

    @cached_property
    def schemas(self) -> dict[str, pa.Schema]:
        """Arrow schemas of the Parquet files that could be opened, with their footer keys."""
        return {}

    @cached_property
    def metadata(self) -> dict[str, pq.FileMetaData]:
        """Footers of the Parquet files that could be opened."""
        return {}

    def footer_of(self, path: str) -> pq.FileMetaData:
        """The footer of a Parquet file.

        Raises:
            ReleaseError: missing or unreadable.
        """
        if path in self.unreadable:
            raise ReleaseError(path, self.unreadable[path])
        if path not in self.metadata:
            raise ReleaseError(path, "does not exist")
        return self.metadata[path]

    def cost_of(self, path: str, source: Any = None) -> parquet_limits.DecodingCost:
        """What reading a whole Parquet file takes; its page headers are looked at once, before anything is decoded.

        Args:
            path: the file.
            source: an Arrow input of its bytes, where they are open; they are left open.

        Raises:
            ReleaseError: missing, unreadable, or its pages are made to fill the memory.
        """
        footer = self.footer_of(path)
        if path not in self._costs:
            try:
                with nullcontext(source) if source is not None else self.release.store.arrow(path) as file:
                    self._costs[path] = parquet_limits.check_pages(file, footer, file.size(), path)
            except StoreError as error:
                raise ReleaseError(path, error.found) from error
            except ReleaseError as error:
                self._costs[path] = error
        cost = self._costs[path]
        if isinstance(cost, ReleaseError):
            raise cost.with_traceback(None)
        return cost

    def schema_of(self, path: str) -> pa.Schema:
        """The Arrow schema of a Parquet file, without its footer keys."""
        footer = self.footer_of(path)
        if path not in self._plain:
            self._plain[path] = footer.schema.to_arrow_schema().remove_metadata()
        return self._plain[path]

    @cached_property
    def footers(self) -> dict[str, dict[str, Any]]:
        """The footer keys of each embeddings file; those that are no JSON object are left out."""
        return {path: self._footer(path) for path in self.embeddings}

    def _footer(self, path: str) -> dict[str, Any]:
        try:
            return {k: v for k, v in footer_keys(self.schemas[path], path).items() if isinstance(v, dict)}
        except ReleaseError:  # SCH004 says so
            return {}

    def source(self, path: str) -> Any:
        """A file as an Arrow input; one on a server is fetched once, and hashed on the way.

        Raises:
            ReleaseError: missing, or more than a quick look fetches.
        """
        store = self.release.store
        self.afford(path)
        try:
            if store.local:
                return store.arrow(path)
            copy = self.scratch / hashlib.sha256(path.encode()).hexdigest()
            if path not in self.hashed:
                with copy.open("wb") as target:
                    self.hashed[path] = digest(store, path, target)
            return pa.memory_map(str(copy))
        except StoreError as error:
            raise ReleaseError(path, error.found) from error

    def afford(self, path: str) -> None:
        """Refuse what a quick look at a server leaves alone.

        Raises:
            ReleaseError: it is larger.
        """
        if self.quick and not self.release.store.local and (size := self.release.store.size(path)) > QUICK_BYTES:
            raise ReleaseError(path, f"has {size:,} bytes, which a quick look does not fetch")

    def batches(self, path: str, most: int, **options: Any) -> Iterator[pa.RecordBatch]:
        """The rows of a table, page checksums compared, as many at once as the memory takes.

        Raises:
            ReleaseError: missing, unreadable, damaged, or made to fill the memory.
        """
        self.footer_of(path)  # or why there is none, before anything is fetched
        source = self.source(path)
        cost = self.cost_of(path, source)
        dictionaries = options.pop("read_dictionary", None)
        try:
            with pq.ParquetFile(source, page_checksum_verification=True, read_dictionary=dictionaries) as file:
                yield from file.iter_batches(min(most, cost.rows), **options)
        except (pa.ArrowException, OSError) as error:
            raise ReleaseError(path, f"cannot be read ({' '.join(str(error).split())})") from error

    def table(self, path: str) -> pa.Table:
        """A whole small table, page checksums compared.

        Raises:
            ReleaseError: missing, unreadable, damaged, or too large.
        """
        parts, size = [], 0
        for batch in self.batches(path, MAX_ROWS):
            size += batch.nbytes
            if size > MAX_TABLE:
                raise ReleaseError(path, f"takes more than {MAX_TABLE:,} bytes of memory")
            parts.append(batch)
        schema = self.footer_of(path).schema.to_arrow_schema()
        return pa.Table.from_batches(parts, parts[0].schema if parts else schema)

    @cached_property
    def coverage_paths(self) -> list[str]:
        """The coverage files that can be opened.

        Raises:
            ReleaseError: there are none.
        """
        found = [p for p in self.metadata_paths if p.startswith(f"{paths.COVERAGE}/")]
        if not found:
            raise ReleaseError(paths.COVERAGE, "holds no coverage table")
        return found

    @cached_property
    def metadata_paths(self) -> list[str]:
        """The Parquet files that can be opened."""
        return [p for p in self.parquet_paths if p not in self.unreadable]

    @cached_property
    def data_files(self) -> dict[str, DataFile]:
        """Square and window of each embeddings file whose name gives them."""
        named = {}
        for path in self.embeddings:
            try:
                named[path] = DataFile.parse(path)
            except ReleaseError:  # SCH013 says so
                continue
        return named

    @cached_property
    def rows_told(self) -> int:
        """Chips in the release, as the footers of the files say."""
        return sum(self.footer_of(path).num_rows for path in self.embeddings)

    def text(self, path: str) -> str:
        """A text document.

        Raises:
            ReleaseError: missing or not UTF-8.
        """
        self.afford(path)
        try:
            return self.release.store.read(path, paths.MAX_DOCUMENT).decode("utf-8")
        except StoreError as error:
            raise ReleaseError(path, error.found) from error
        except UnicodeDecodeError as error:
            raise ReleaseError(path, f"is not UTF-8 (byte {error.start})") from error

    def check_pages(self, path: str) -> None:
        """Read a whole Parquet file and throw it away.

        Raises:
            ReleaseError: a page does not match its checksum or cannot be decoded.
        """
        for _ in self.batches(path, MAX_ROWS):
            pass


def digest(store: Store, path: str, target: Any = None) -> str:
    """SHA-256 of a file, optionally copied on the way."""
    with store.ranges(path) as file:
        if store.local and target is None:  # through one small buffer that stays in cache
            return hashlib.file_digest(cast("FileIO", file), "sha256").hexdigest()
        made = hashlib.sha256()
        while piece := file.read(_PIECE):
            made.update(piece)
            if target is not None:
                target.write(piece)
    return made.hexdigest()
