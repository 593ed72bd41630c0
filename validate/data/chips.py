"""A batch of rows of an embeddings file, as the rules on rows see it, and sums over its vectors in one sweep.

Nothing here goes through BLAS: its threads wait for work by spinning, and every file is already read by a thread of its
own.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clay_publish.errors import ReleaseError
from clay_publish.validate.data.footprints import Footprints

Floats32 = npt.NDArray[np.float32]

SOME = 8
"""Values, and 8-byte words, that are kept of each vector."""

_BLOCK = 256
"""Rows at once: 1 MB of 1024 floats."""


class Sums:
    """Sums over the vectors of a batch."""

    def __init__(self, rows: int, dimensions: int) -> None:
        self.squares = np.zeros(rows, dtype=np.float32)
        """Σ x², by row; not finite where a vector has NaN or Inf, or where it overflows."""
        self.low = np.full(dimensions, np.inf, dtype=np.float32)
        """A value by dimension: below `high` where the dimension varies, the same where it does not."""
        self.high = np.full(dimensions, -np.inf, dtype=np.float32)
        self.some = np.zeros((min(SOME, dimensions), rows), dtype=np.float32)
        """Values of a few dimensions, spread over all: a line a dimension."""
        self.words: npt.NDArray[np.uint64] = np.zeros((rows, 0), dtype=np.uint64)
        """A few 8-byte words of each vector as it is stored, and last the sum of all of them."""


def sums_of(stored: npt.NDArray[Any], values: Callable[[slice], Floats32]) -> Sums:
    """Sweep over the vectors, (n, D) as they are stored; `values` gives some rows of them as float32."""
    rows, dimensions = stored.shape
    made = Sums(rows, dimensions)
    if dimensions == 0:
        return made
    length = -(-dimensions * stored.itemsize // 8)
    step = max(1, length // SOME)
    made.words = np.empty((rows, -(-length // step) + 1), dtype=np.uint64)
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, rows, _BLOCK):
            part = slice(start, min(start + _BLOCK, rows))
            block = values(part)
            words = _words(stored[part], length)
            made.words[part, :-1] = words[:, ::step]
            words.sum(axis=1, out=made.words[part, -1])
            made.some[:, part] = block[:, :: dimensions // len(made.some)][:, :SOME].T
            np.vecdot(block, block, out=made.squares[part])
            # A dimension that was seen to vary need not be looked at again.
            still = np.flatnonzero(~(made.low < made.high))
            if still.size:
                rest = block if still.size == dimensions else block[:, still]
                made.low[still] = np.fmin(made.low[still], rest.min(axis=0))
                made.high[still] = np.fmax(made.high[still], rest.max(axis=0))
    return made


def _words(stored: npt.NDArray[Any], length: int) -> npt.NDArray[np.uint64]:
    """The bytes of vectors as so many 8-byte words each, zeros behind them."""
    raw = np.ascontiguousarray(stored).view(np.uint8).reshape(len(stored), -1)
    if raw.shape[1] % 8:
        raw = np.pad(raw, ((0, 0), (0, -raw.shape[1] % 8)))
    return raw.view(np.uint64).reshape(-1, length)


Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


class ChipRows:
    """Some consecutive rows of one file. What a rule needs is decoded when it first asks."""

    def __init__(self, path: str, start: int, batch: pa.RecordBatch) -> None:
        self.path = path
        self.start = start
        """Row number in the file of the batch's first row."""
        self.batch = batch
        self._known: dict[str, Any] = {}

    def once(self, name: str, compute: Callable[[], Any]) -> Any:
        """What several rules need of this batch, computed for the first of them."""
        if name not in self._known:
            self._known[name] = compute()
        return self._known[name]

    def __len__(self) -> int:
        return int(self.batch.num_rows)

    def column(self, name: str) -> pa.Array:
        """A column.

        Raises:
            ReleaseError: the file has no such column.
        """
        index = self.batch.schema.get_field_index(name)
        if index < 0:
            raise ReleaseError(self.path, f"has no column {name!r}")
        return self.batch.column(index)

    def has(self, name: str) -> bool:
        """Whether the file has this column."""
        return bool(self.batch.schema.get_field_index(name) >= 0)

    def floats(self, name: str) -> Floats:
        """A number column as float64, NaN where null."""
        column = self.column(name)
        if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
            raise ReleaseError(self.path, f"has no numbers in {name!r} but {column.type}")
        values: Floats = self._plain(name, pa.float64(), np.nan)
        return values

    def micros(self, name: str) -> npt.NDArray[np.int64]:
        """A timestamp column as microseconds since 1970 (UTC where it has no zone); the least integer where null."""
        column = self.column(name)
        if not pa.types.is_timestamp(column.type):
            raise ReleaseError(self.path, f"has no timestamps in {name!r} but {column.type}")
        values: npt.NDArray[np.int64] = self._plain(name, pa.timestamp("us", tz=column.type.tz), np.iinfo(np.int64).min)
        return values

    def integers(self, name: str) -> npt.NDArray[np.int64]:
        """An integer column; the least integer where null."""
        column = self.column(name)
        if not pa.types.is_integer(column.type):
            raise ReleaseError(self.path, f"has no integers in {name!r} but {column.type}")
        values: npt.NDArray[np.int64] = self._plain(name, pa.int64(), np.iinfo(np.int64).min)
        return values

    def _plain(self, name: str, kind: pa.DataType, hole: float) -> npt.NDArray[Any]:
        """A column as 64-bit numbers, converted for the first rule that asks. Not to be written into."""

        def convert() -> npt.NDArray[Any]:
            column = self.column(name)
            values = column if column.type == kind else pc.cast(column, kind)
            if pa.types.is_timestamp(kind):
                values = values.view(pa.int64())
            if values.null_count:
                values = values.fill_null(hole)
            return np.asarray(values.to_numpy(zero_copy_only=False))

        return np.asarray(self.once(f"{name} as {kind}", convert))

    def nulls(self, name: str) -> Bools:
        """Which rows have no value."""
        column = self.column(name)
        if not column.null_count:
            return np.zeros(len(column), dtype=bool)
        values: Bools = column.is_null().to_numpy(zero_copy_only=False)
        return values

    def value(self, name: str, row: int) -> Any:
        """One value, for a message."""
        return self.column(name)[row].as_py()

    @cached_property
    def footprints(self) -> Footprints:
        """The column `geometry`."""
        column = self.column("geometry")
        if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
            raise ReleaseError(self.path, f"has no WKB in 'geometry' but {column.type}")
        return Footprints(pc.cast(column, pa.binary()))

    @cached_property
    def boxes(self) -> Floats:
        """The column `bbox` as (n, 4): xmin, ymin, xmax, ymax."""
        column = self.column("bbox")
        if not pa.types.is_struct(column.type):
            raise ReleaseError(self.path, f"has no boxes in 'bbox' but {column.type}")
        names = [column.type.field(i).name for i in range(column.type.num_fields)]
        if not {"xmin", "ymin", "xmax", "ymax"} <= set(names):
            raise ReleaseError(self.path, f"has a 'bbox' of {', '.join(names)}")
        sides = [column.field(names.index(side)) for side in ("xmin", "ymin", "xmax", "ymax")]
        return np.stack([pc.cast(s, pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False) for s in sides], 1)

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """The different numbers of values that vectors have, without null vectors."""
        lengths = pc.list_value_length(self.column("embedding")).drop_null()
        return np.unique(lengths.to_numpy(zero_copy_only=False)).astype(np.int64)

    @cached_property
    def stored(self) -> npt.NDArray[Any]:
        """The vectors as they are stored, (n, D); a null vector is zeros, a null in a vector of floats NaN.

        Raises:
            ReleaseError: no such column, no numbers, or vectors of several lengths.
        """
        column = self.column("embedding")
        kind = column.type
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            lengths = self.lengths.tolist()
            if len(lengths) != 1:
                found = f"vectors of {len(lengths)} different lengths" if lengths else "nulls in place of vectors"
                raise ReleaseError(self.path, f"has {found}")
            column = pc.cast(column, pa.list_(kind.value_type, lengths[0]))
            kind = column.type
        if not pa.types.is_fixed_size_list(kind) or not (
            pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)
        ):
            raise ReleaseError(self.path, f"has no vectors in 'embedding' but {kind}")
        values = column.values.slice(column.offset * kind.list_size, len(column) * kind.list_size)
        hole = np.nan if pa.types.is_floating(kind.value_type) else 0
        flat = values.fill_null(pa.scalar(hole, kind.value_type)) if values.null_count else values
        vectors: npt.NDArray[Any] = flat.to_numpy(zero_copy_only=False).reshape(len(column), kind.list_size)
        if column.null_count:
            vectors = np.where(self.nulls("embedding")[:, None], vectors.dtype.type(0), vectors)
        return vectors

    @cached_property
    def scales(self) -> npt.NDArray[np.float32] | None:
        """What stored integers are multiplied with; None for floats, and where no column states it."""
        if np.issubdtype(self.stored.dtype, np.integer) and self.has("scale"):
            return self.floats("scale").astype(np.float32)
        return None

    def values(self, rows: slice | npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """The vectors of some rows as float32, dequantized."""
        values: npt.NDArray[np.float32] = self.stored[rows].astype(np.float32, copy=False)
        if self.scales is not None:
            np.multiply(values, self.scales[rows, None], out=values)  # the cast of integers made a copy
        return values

    @cached_property
    def sums(self) -> Sums:
        """What one sweep over the vectors gives."""
        return sums_of(self.stored, self.values)
