"""A release on a server, open for reading: each file is asked for once, and its ranges are fetched in parallel."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from threading import Lock, RLock
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clay_publish.errors import StoreError
from clay_publish.release.directory import Release
from clay_publish.storage.http import WHOLE_FILES, Head
from clay_publish.storage.place import RangeFile
from clay_publish.storage.range_cache import RangeCache
from clay_publish.storage.store import Store

_TAIL = 1 << 16
"""Bytes fetched first: the footer of most files."""
_GAP = 1 << 15
"""Bytes between two ranges that are fetched along with them instead of in a request of their own."""
_PIECE = 16 << 20
"""Bytes of joined ranges, at most; a longer one is a request of its own."""
_REQUESTS = 8
"""Requests at a time, per read."""
_FILES = 256
"""Files whose footers are kept in memory."""
_RUN = 1 << 17
"""Bytes of neighboring columns that are fetched together, at most: most questions about a chip need several of them."""
_RECENT = 32_000_000
"""Bytes of such columns that are kept in memory."""

Range = tuple[int, int]


class RemoteRelease(Release):
    """A published release on a server. Its files do not change; one that does is refused, not mixed with what it was.

    Args:
        store: where it lies.
        cache: of ranges on disk, or None.
    """

    def __init__(self, store: Store, cache: RangeCache | None) -> None:
        super().__init__(store)
        self._cache = cache
        self._lock = Lock()
        self._files: OrderedDict[str, _RemoteFile] = OrderedDict()
        self._recent = _Recent()

    def _opened(self, path: str, *, verify: bool) -> pq.ParquetFile:
        """Open a Parquet file; its size and footer are fetched once per session."""
        return _RemoteParquet(self._file(path), verify=verify)

    def head(self, path: str) -> Head:
        """Size and tag of a file, which is asked for once. As `Release.head`."""
        return self._file(path).head

    def _file(self, path: str) -> "_RemoteFile":
        with self._lock:
            file = self._files.setdefault(path, _RemoteFile(self.store, path, self._cache, self._recent))
            self._files.move_to_end(path)
            if len(self._files) > _FILES:
                self._files.popitem(last=False)
        return file


class _Recent:
    """Small ranges of files that were fetched last, in memory."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._held: OrderedDict[tuple[str, Range], bytes] = OrderedDict()
        self._size = 0

    def get(self, path: str, one: Range) -> bytes | None:
        with self._lock:
            if (path, one) in self._held:
                self._held.move_to_end((path, one))
            return self._held.get((path, one))

    def put(self, path: str, one: Range, data: bytes) -> None:
        with self._lock:
            if (path, one) not in self._held:
                self._held[path, one] = data
                self._size += len(data)
            while self._size > _RECENT:
                self._size -= len(self._held.popitem(last=False)[1])


class _RemoteFile:
    """What is known of a file on a server."""

    def __init__(self, store: Store, path: str, cache: RangeCache | None, recent: _Recent) -> None:
        self.store, self.path, self.cache, self.recent = store, path, cache, recent
        self.lock = RLock()

    @cached_property
    def head(self) -> Head:
        found = self.store.head(self.path)
        if found.size is None:
            raise StoreError(self.store.path(self.path), "the server does not state its size", *WHOLE_FILES)
        return found

    @cached_property
    def size(self) -> int:
        return int(self.head.size or 0)

    @cached_property
    def metadata(self) -> pq.FileMetaData:
        start = max(0, self.size - _TAIL)
        source = _Ranges(self, {(start, self.size): self.part(start, self.size)})
        return pq.read_metadata(pa.PythonFile(source, mode="r"))

    def part(self, start: int, end: int) -> bytes:
        """Bytes of the file, from the cache where they are kept."""
        where, tag = self.store.path(self.path), self.head.tag
        if self.cache is None or tag is None or not self.head.strong:
            return self.store.part(self.path, start, end, tag)
        data = self.cache.get(where, tag, start, end)
        if data is None:
            data = self.store.part(self.path, start, end, tag)
            self.cache.put(where, tag, start, data)
        return data


class _Ranges(RangeFile):
    """A file on a server, some ranges of which were fetched beforehand."""

    def __init__(self, file: _RemoteFile, held: dict[Range, bytes] | None = None) -> None:
        super().__init__(self._get_held, file.size)
        self._file, self._held = file, held or {}

    def fetch(self, ranges: Iterable[Range]) -> None:
        """Fetch ranges in parallel, those that lie near each other at once; what was fetched before is dropped."""
        file, every = self._file, list(ranges)
        known = {one: file.recent.get(file.path, one) for one in every}
        self._held = {one: data for one, data in known.items() if data is not None}
        wanted = _joined(one for one in every if one not in self._held)
        if len(wanted) > 1:
            with ThreadPoolExecutor(min(_REQUESTS, len(wanted))) as pool:
                parts = list(pool.map(lambda one: file.part(*one), wanted))
        else:
            parts = [file.part(*one) for one in wanted]
        self._held |= zip(wanted, parts, strict=True)
        for start, end in every:
            if end - start <= _RUN and known[start, end] is None:
                file.recent.put(file.path, (start, end), self._get_held(start, end))

    def _get_held(self, start: int, end: int) -> bytes:
        for (first, last), data in self._held.items():
            if first <= start and end <= last:
                return data[start - first : end - first]
        return self._file.part(start, end)


class _RemoteParquet(pq.ParquetFile):  # type: ignore[misc]
    """A Parquet file whose ranges of a read are fetched at once, each by a request of its own.

    Arrow reads a Python file one range after another.
    """

    def __init__(self, file: _RemoteFile, *, verify: bool) -> None:
        with file.lock:
            metadata = file.metadata
        self._ranges, self._reading = _Ranges(file), Lock()
        source = pa.PythonFile(self._ranges, mode="r")
        super().__init__(source, metadata=metadata, page_checksum_verification=verify, pre_buffer=False)

    def read_row_groups(self, row_groups: Sequence[int], columns: Sequence[str] | None = None, **options: Any) -> Any:
        """As in pyarrow."""
        with self._reading:
            self._ranges.fetch(_runs(self.metadata, row_groups, columns))
            try:
                return super().read_row_groups(row_groups, columns=columns, **options)
            finally:
                self._ranges.fetch([])


def _runs(metadata: pq.FileMetaData, groups: Sequence[int], columns: Sequence[str] | None) -> Iterable[Range]:
    """Where the chunks of some columns lie, with their neighbors in the row group where these are small."""
    for number in groups:
        group = metadata.row_group(number)
        chunks = [group.column(place) for place in range(metadata.num_columns)]
        asked = [_is_asked(chunk.path_in_schema, columns) for chunk in chunks]
        ranges = [_range(chunk) for chunk in chunks]
        for first, last in _neighbors(ranges):
            if ranges[last][1] - ranges[first][0] <= _RUN:
                if any(asked[first : last + 1]):
                    yield ranges[first][0], ranges[last][1]
            else:
                yield from (ranges[place] for place in range(first, last + 1) if asked[place])


def _is_asked(path: str, columns: Sequence[str] | None) -> bool:
    return columns is None or any(path == name or path.startswith(f"{name}.") for name in columns)


def _range(chunk: Any) -> Range:
    start = chunk.data_page_offset
    if chunk.has_dictionary_page and chunk.dictionary_page_offset is not None:
        start = min(start, chunk.dictionary_page_offset)
    return start, start + chunk.total_compressed_size


def _neighbors(ranges: Sequence[Range]) -> list[tuple[int, int]]:
    """First and last place of each run of chunks that lie side by side, none of which is larger than a run may be."""
    runs: list[tuple[int, int]] = []
    for place, (start, end) in enumerate(ranges):
        beside = runs and 0 <= start - ranges[place - 1][1] <= _GAP
        if beside and all(last - first <= _RUN for first, last in (ranges[place - 1], (start, end))):
            runs[-1] = runs[-1][0], place
        else:
            runs.append((place, place))
    return runs


def _joined(ranges: Iterable[Range]) -> list[Range]:
    """Ranges in order, joined where little lies between two."""
    made: list[Range] = []
    for start, end in sorted(ranges):
        if made and start - made[-1][1] <= _GAP and end - made[-1][0] <= _PIECE:
            made[-1] = made[-1][0], max(made[-1][1], end)
        else:
            made.append((start, end))
    return made
