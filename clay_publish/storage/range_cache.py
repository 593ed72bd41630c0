"""A cache of byte ranges on disk, keyed by address and ETag, so that a second session fetches little again."""

import hashlib
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from threading import Lock

LIMIT = 200_000_000
"""Bytes kept, at most."""
_LARGEST = 4_000_000
"""Bytes of a range that is kept: footers and light columns are smaller, whole files of vectors are not."""
_DIGEST = hashlib.sha256().digest_size
_OFF = {"0", "off", "false", "no"}


def user_cache() -> Path | None:
    """Return the folder of all caches, below `XDG_CACHE_HOME` or `~/.cache`; None for a user without a home."""
    stated = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        root = stated if stated.is_absolute() else Path.home() / ".cache"  # a relative one is ignored, as XDG says
    except RuntimeError:
        return None
    return root / "clay-publish"


class RangeCache:
    """Ranges of published files below `folder`, the least recently used ones removed first.

    Each range is stored with its SHA-256; one that was damaged is removed and fetched again. A disk that is full or
    cannot be written to makes the cache keep nothing: reading a release goes on.
    """

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        self._folder, self._limit = folder, limit
        self._lock = Lock()
        self._held: int | None = None

    @classmethod
    def of_user(cls) -> "RangeCache | None":
        """Return the cache of this user; None where `CLAY_PUBLISH_CACHE=off` switches it off, or there is no home."""
        folder = user_cache()
        if folder is None or os.environ.get("CLAY_PUBLISH_CACHE", "").lower() in _OFF:
            return None
        return cls(folder / "ranges")

    def get(self, file: str, tag: str, start: int, end: int) -> bytes | None:
        """Return bytes `start` to `end` (exclusive) of a file with this strong ETag; None where they are not kept."""
        path = self._path(file, tag, start, end)
        try:
            stored = path.read_bytes()
            os.utime(path)
        except OSError:  # not there, or removed by another process
            return None
        data = stored[_DIGEST:]
        if len(data) == end - start and hashlib.sha256(data).digest() == stored[:_DIGEST]:
            return data
        with suppress(OSError):  # as the class says
            path.unlink()
        return None

    def put(self, file: str, tag: str, start: int, data: bytes) -> None:
        """Keep bytes of a file with this strong ETag, from `start` on."""
        if not 0 < len(data) <= min(_LARGEST, self._limit):
            return
        path = self._path(file, tag, start, start + len(data))
        with suppress(OSError), self._lock:  # as the class says
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".tmp-", delete=False) as draft:
                try:
                    draft.write(hashlib.sha256(data).digest() + data)
                    draft.close()
                    Path(draft.name).replace(path)
                except OSError:
                    Path(draft.name).unlink(missing_ok=True)
                    raise
            self._held = None if self._held is None else self._held + _DIGEST + len(data)
            if self._held is None or self._held > self._limit:
                self._held = self._evict()

    def _path(self, file: str, tag: str, start: int, end: int) -> Path:
        name = hashlib.sha256(f"{file}\n{tag}\n{start}-{end}".encode()).hexdigest()
        return self._folder / name[:2] / name

    def _evict(self) -> int:
        """Remove the least recently used ranges where there are too many; return the bytes that remain."""
        found = []
        for path in self._folder.glob("*/*"):
            with suppress(FileNotFoundError):  # another process removes, too
                status = path.stat()
                found.append((status.st_mtime, status.st_size, path))
        held = sum(size for _, size, _ in found)
        if held <= self._limit:
            return held
        for _, size, path in sorted(found):
            path.unlink(missing_ok=True)
            held -= size
            if held <= 0.9 * self._limit:
                break
        return held
