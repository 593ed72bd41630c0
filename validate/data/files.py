"""The files of a release: listed, read and hashed when a rule first asks, and once."""

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast

import pyarrow as pa

from clay_publish.errors import ClayPublishError, ReleaseError, StoreError
from clay_publish.release import directory as paths
from clay_publish.release.directory import Release
from clay_publish.release.versions import CATALOG
from clay_publish.storage.safe_parse import parse_json
from clay_publish.storage.store import Store
from clay_publish.validate.data.others.links import beside, hrefs_in
from clay_publish.validate.outcomes import SkippedError, is_parquet
from clay_publish.validate.sandbox.marks import marked

if TYPE_CHECKING:
    from io import FileIO

T = TypeVar("T")


class once(Generic[T]):  # noqa: N801 - used as a decorator
    """As `functools.cached_property`, and an error is remembered too: what is slow to refuse is read once."""

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute = compute
        self._name = compute.__name__
        self.__doc__ = compute.__doc__

    def __get__(self, instance: Any, _: type) -> T:
        failures: dict[str, ClayPublishError] = instance.__dict__.setdefault("_failures", {})
        if self._name in failures:
            raise failures[self._name].with_traceback(None)
        try:
            value = self._compute(instance)
        except ClayPublishError as error:
            failures[self._name] = error
            raise
        instance.__dict__[self._name] = value  # found before this descriptor from now on
        return value


QUICK_BYTES = 8_000_000
"""Larger tables and documents on a server are not fetched by a quick validation."""
_SMALL = 1_000_000
"""Bytes of a file that is hashed in one piece."""
_PIECE = 1 << 22
_METADATA_2 = ".zmetadata"
_LINKED = 1000
"""Documents and tables that are looked for on a server, at most."""


class ReleaseFiles:
    """The bytes of one release. What cannot be read raises `ReleaseError`."""

    def __init__(self, release: Release, *, quick: bool = False) -> None:
        self.release = release
        self.store = release.store
        self.quick = quick
        """Whether only metadata, footers and a sample are read."""
        self.hashed: dict[str, str] = {}
        """SHA-256 of the files that were fetched."""
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._making = Lock()
        self._fetching: dict[str, Lock] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    @property
    def scratch(self) -> Path:
        """A folder for copies of remote files, removed when the block ends."""
        with self._making:
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(prefix="clay-publish-")
        return Path(self._folder.name)

    @cached_property
    def paths(self) -> list[str]:
        """Every file of the release, except those of the run."""
        found = [p for p in self.release.files() if not p.startswith(f"{paths.RUN}/")]
        # A web server cannot list; Zarr metadata and STAC documents there say what they hold.
        return found or [p for p in ("zarr.json",) if self.store.exists(p)] or self._zarr_2() or self._linked()

    def _zarr_2(self) -> list[str]:
        """Documents of a Zarr store of version 2 on a server: those that its consolidated metadata name."""
        if not self.store.exists(".zgroup"):
            return []
        found = [p for p in (".zgroup", ".zattrs", _METADATA_2) if self.store.exists(p)]
        stated = self.json(_METADATA_2).get("metadata") if _METADATA_2 in found else None
        for path in islice(stated, _LINKED) if isinstance(stated, dict) else ():
            is_document = path.rpartition("/")[2] in {".zgroup", ".zarray", ".zattrs"}
            if is_document and path not in found and beside(_METADATA_2, path) == path:
                found.append(path)
        return found

    def _linked(self) -> list[str]:
        """STAC documents of a server, and the tables below them that they name."""
        found = [p for p in (paths.COLLECTION, CATALOG) if self.store.exists(p)]
        for path in found:  # which grows
            for href in hrefs_in(self.json(path)) if path.endswith(".json") and len(found) < _LINKED else ():
                below = beside(path, href)
                if below is not None and below not in found and (is_parquet(below) or below.endswith(".json")):
                    found.append(below)
        return found

    def json(self, path: str) -> dict[str, Any]:
        """Return a JSON object; an empty one where the file is something else."""
        try:
            document = parse_json(self.text(path).encode(), path)
        except ReleaseError:
            return {}
        return document if isinstance(document, dict) else {}

    @cached_property
    def parquet(self) -> list[str]:
        """Every Parquet file, by its name; a file alone may be called anything."""
        found = [p for p in self.paths if is_parquet(p)]
        if not found and len(self.paths) == 1 and not self.paths[0].endswith(".json"):
            return [p for p in self.paths if self.store.part(p, 0, 4) == b"PAR1"]
        return found

    @cached_property
    def data(self) -> list[str]:
        """Parquet files below `embeddings/`; all of them if others made this, whose Collection may lie beside them."""
        below = [p for p in self.parquet if p.startswith(f"{paths.EMBEDDINGS}/")]
        if below or not {paths.SPEC, paths.MANIFEST}.isdisjoint(self.paths):
            return below
        return self.parquet

    def read_whole(self, where: str = "the release") -> None:
        """Check that whole files may be read.

        Raises:
            ReleaseError: this is a quick validation.
        """
        if self.quick:
            raise SkippedError(where, "would have to be read whole, which a quick look does not")

    @contextmanager
    def reading(self, path: str, *, whole: bool = True) -> Iterator[None]:
        """Mark a file while the block reads it, so that it is known if reading it ends this process.

        With `whole`, the block may take memory and time by the file's size.
        """
        try:
            size = self.store.size(path) if whole else 0
        except StoreError:
            size = 0
        with marked("reading", getattr(self.store, "prefix", "") + path, size):
            yield

    def afford(self, path: str) -> None:
        """Check that a file may be fetched.

        Raises:
            ReleaseError: it is larger than a quick validation fetches.
        """
        if self.quick and not self.store.local and (size := self.store.size(path)) > QUICK_BYTES:
            raise SkippedError(path, f"has {size:,} bytes, which a quick look does not fetch")

    def source(self, path: str) -> Any:
        """Open a file as an Arrow input; a remote one is fetched once, and hashed on the way.

        Raises:
            ReleaseError: missing, or more than a quick validation fetches.
        """
        self.afford(path)
        try:
            if self.store.local:
                return self.store.arrow(path)
            copy = self.scratch / _name(path)
            # Rules and the pass over the files may ask for one at the same time.
            with self._fetching.setdefault(path, Lock()):
                if not copy.exists():
                    with copy.open("wb") as target:
                        self.hashed[path] = digest(self.store, path, target)
                return pa.memory_map(str(copy))
        except StoreError as error:
            raise ReleaseError(path, error.found) from error

    def discard(self, path: str) -> None:
        """Remove the copy of a remote file that is not read again."""
        with self._fetching.setdefault(path, Lock()):
            (self.scratch / _name(path)).unlink(missing_ok=True)

    def text(self, path: str) -> str:
        """Return a text document.

        Raises:
            ReleaseError: missing or not UTF-8.
        """
        self.afford(path)
        try:
            return self.store.read(path, paths.MAX_DOCUMENT).decode("utf-8")
        except StoreError as error:
            raise ReleaseError(path, error.found) from error
        except UnicodeDecodeError as error:
            raise ReleaseError(path, f"is not UTF-8 (byte {error.start})") from error

    def digests(self, known: dict[str, str]) -> dict[str, str]:
        """Return the SHA-256 of every file, of which some are known."""
        known = {**known, **self.hashed}
        return known | {path: self._digest(path) for path in self.paths if path not in known}

    def _digest(self, path: str) -> str:
        if not self.store.local and self.store.size(path) <= _SMALL:  # most were read already, and are remembered
            return hashlib.sha256(self.store.read(path)).hexdigest()
        return digest(self.store, path)


def _name(path: str) -> str:
    return hashlib.sha256(path.encode()).hexdigest()


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
