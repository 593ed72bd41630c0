"""Files of compact codes: one Arrow IPC file per UTM zone and window, uncompressed, so that it can be memory-mapped."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from clay_publish.errors import ReleaseError, StoreError
from clay_publish.release.directory import CODES, EMBEDDINGS, DataFile, Release
from clay_publish.search.codes import Codes, Encoding
from clay_publish.windows import Window, parse_token

BATCH = 65_536
"""Chips of a record batch."""
_KEY = b"clay_publish:codes"
_PLACE = ("lon", "lat", "file", "row")
_NAME = re.compile(rf"{CODES}/zone=(\d{{2}})/([^/]+)\.arrow")


def code_path(zone: int, window: Window) -> str:
    """Return the path of a file of codes: `codes/zone=18/2023-01-01_2023-02-01.arrow`."""
    return f"{CODES}/zone={zone:02d}/{window.token}.arrow"


def parse_code_path(path: str) -> tuple[int, Window]:
    """Return the zone and window of a path that `code_path` made.

    Raises:
        ReleaseError: the path does not name them.
    """
    match = _NAME.fullmatch(path)
    try:
        if match is not None:
            return int(match[1]), parse_token(match[2])
    except ValueError:
        pass
    raise ReleaseError(path, "names no zone and window", f"{CODES}/zone=ZZ/START_END.arrow")


def code_files(files: Sequence[str]) -> dict[str, list[str]]:
    """Return the files of codes that embeddings files call for, each with its embeddings files in order."""
    wanted: dict[str, list[str]] = {}
    for path in sorted(files):
        file = DataFile.parse(path)
        wanted.setdefault(code_path(file.square.zone, file.window), []).append(path)
    return dict(sorted(wanted.items()))


def code_schema(encoding: Encoding, files: Sequence[str], reach: tuple[float, float]) -> pa.Schema:
    """Return the schema of a file of codes.

    Args:
        encoding: how the vectors were encoded.
        files: the embeddings files whose chips are in it; `file` counts from 0 in this list.
        reach: degrees of longitude and latitude from a chip's center to its bounds, at most.
    """
    plane = pa.binary(encoding.plane_bytes)
    kinds = {f"plane_{bit}": plane for bit in reversed(range(encoding.bits))}
    kinds |= {"factor": pa.float32(), "lon": pa.float32(), "lat": pa.float32(), "file": pa.int32(), "row": pa.int32()}
    head = {"files": [path.removeprefix(f"{EMBEDDINGS}/") for path in files], "reach": list(reach)}
    fields = [pa.field(name, kind, nullable=False) for name, kind in kinds.items()]
    return pa.schema(fields, metadata={_KEY: json.dumps(head).encode()})


def code_columns(codes: Codes) -> list[pa.Array]:
    """Return the columns of `code_schema` that hold codes: the planes and the factor."""
    width = codes.planes[0].shape[1]
    planes = [
        pa.Array.from_buffers(pa.binary(width), len(plane), [None, pa.py_buffer(np.ascontiguousarray(plane))])
        for plane in codes.planes
    ]
    return [*planes, pa.array(codes.factor)]


@dataclass(frozen=True)
class CodeBatch:
    """Codes of some chips, and where the chips lie."""

    rows: pa.RecordBatch

    def __len__(self) -> int:
        return int(self.rows.num_rows)

    def column(self, name: str) -> Any:
        """Return a column of numbers as a numpy array; no copy is made."""
        return self.rows[name].to_numpy(zero_copy_only=True)

    def codes(self, planes: int | None = None) -> Codes:
        """Return the codes: all planes, or the first ones."""
        names = [name for name in self.rows.schema.names if name.startswith("plane_")][:planes]
        arrays = []
        for name in names:
            column = self.rows[name]
            width = column.type.byte_width
            flat = np.frombuffer(column.buffers()[1], np.uint8)[column.offset * width :]
            arrays.append(flat[: len(column) * width].reshape(-1, width))
        return Codes(tuple(arrays), self.column("factor"))


class CodeFile:
    """A file of codes, open for reading."""

    def __init__(self, release: Release, path: str, encoding: Encoding) -> None:
        self._release, self.path, self.encoding = release, path, encoding
        self.where = release.store.path(path)
        self.window = parse_code_path(path)[1]
        self._readers: dict[tuple[int, ...], pa.RecordBatchFileReader] = {}

    @cached_property
    def _source(self) -> Any:
        store = self._release.store
        return store.mapped(self.path) if store.local else store.arrow(self.path)

    def _open(self, fields: Sequence[int] = ()) -> pa.RecordBatchFileReader:
        """Open with some columns only: the others are not even read."""
        key = tuple(fields)
        if key not in self._readers:
            try:
                options = pa.ipc.IpcReadOptions(included_fields=list(fields), use_threads=False)
                self._readers[key] = pa.ipc.open_file(self._source, options=options)
            except StoreError as error:
                raise ReleaseError(error.where, error.found, error.expected, error.fix) from error
            except (pa.ArrowException, OSError) as error:
                raise ReleaseError(self.where, f"cannot be read ({error})", "an Arrow IPC file") from error
        return self._readers[key]

    @cached_property
    def head(self) -> tuple[list[str], tuple[float, float]]:
        """Embeddings files, below the release, and the reach of a chip, as in `code_schema`.

        Raises:
            ReleaseError: unreadable, or with other columns than codes of this encoding.
        """
        schema = self._open().schema
        try:
            head = json.loads((schema.metadata or {})[_KEY])
            files, (east, north) = [f"{EMBEDDINGS}/{name}" for name in head["files"]], head["reach"]
            expected = code_schema(self.encoding, files, (float(east), float(north)))
        except (KeyError, TypeError, ValueError) as error:
            raise ReleaseError(self.where, "does not name its embeddings files", "a file of codes") from error
        if schema.remove_metadata() != expected.remove_metadata():
            raise ReleaseError(self.where, "has other columns than its codes/model.json says", str(expected.names))
        return files, (float(east), float(north))

    def batches(self, planes: int | None = None) -> Iterator[CodeBatch]:
        """Yield the codes of all planes, or of the first ones, a batch at a time."""
        for number in range(self._open().num_record_batches):
            yield self.batch(number, planes)

    def batch(self, number: int, planes: int | None = None) -> CodeBatch:
        """Return one batch of codes.

        Raises:
            ReleaseError: damaged.
        """
        assert self.head  # the columns are what is read below
        bits = self.encoding.bits
        fields = [*range(bits if planes is None else planes), *range(bits, bits + 1 + len(_PLACE))]
        try:
            rows = self._open(fields).get_batch(number)
            rows.validate(full=True)
        except (pa.ArrowException, OSError) as error:
            raise ReleaseError(self.where, f"cannot be read ({error})", "an Arrow IPC file") from error
        return CodeBatch(rows)
