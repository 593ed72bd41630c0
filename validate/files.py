"""The files of a release: listed, opened, and read as tables and texts when a rule first asks."""

from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clay_publish import release as paths
from clay_publish.errors import ReleaseError, StoreError
from clay_publish.release import DataFile, Release


class Files:
    """Files of one release. What is read is kept; what cannot be raises `ReleaseError`."""

    def __init__(self, release: Release) -> None:
        self.release = release

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
        """Every file below `embeddings/` that calls itself Parquet."""
        return [p for p in self.files if p.startswith(f"{paths.EMBEDDINGS}/") and p.endswith(".parquet")]

    @cached_property
    def parquet_paths(self) -> list[str]:
        """Every file that calls itself Parquet."""
        return [p for p in self.files if p.endswith(".parquet")]

    @cached_property
    def unreadable(self) -> dict[str, str]:
        """Parquet files that cannot be opened, and why."""
        return {path: error for path in self.parquet_paths if (error := self._opens(path)) is not None}

    def _opens(self, path: str) -> str | None:
        try:
            self.metadata[path] = self.release.parquet(path).metadata
        except ReleaseError as error:
            return error.found
        return None

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

    def schema_of(self, path: str) -> pa.Schema:
        """The Arrow schema of a Parquet file, without its footer keys."""
        return self.footer_of(path).schema.to_arrow_schema().remove_metadata()

    @cached_property
    def footers(self) -> dict[str, dict[str, Any]]:
        """The footer keys of each embeddings file; those that are no JSON object are left out."""
        return {path: self._footer(path) for path in self.embeddings}

    def _footer(self, path: str) -> dict[str, Any]:
        try:
            return {k: v for k, v in self.release.footer(path).items() if isinstance(v, dict)}
        except ReleaseError:  # SCH004 says so
            return {}

    def table(self, path: str) -> pa.Table:
        """A whole small table, page checksums compared.

        Raises:
            ReleaseError: missing, unreadable, or damaged.
        """
        self.footer_of(path)
        try:
            return self.release.parquet(path, verify=True).read()
        except (pa.ArrowException, OSError) as error:
            raise ReleaseError(path, f"cannot be read ({error})") from error

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
        try:
            for _ in self.release.parquet(path, verify=True).iter_batches():
                pass
        except (pa.ArrowException, OSError) as error:
            raise ReleaseError(path, " ".join(str(error).split())) from error
