"""Names of millions of items as 64 bits each: to find them again, and to compare them."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clay_publish.errors import ReleaseError

U64 = npt.NDArray[np.uint64]

_AT_ONCE = 1 << 16
"""Names that are hashed together."""


class NameIndex:
    """Finds names again: 12 bytes for each, beside the column."""

    def __init__(self, names: pa.StringArray | pa.LargeStringArray) -> None:
        self.names = names
        parts = [hash_strings(names.slice(start, _AT_ONCE)) for start in range(0, len(names), _AT_ONCE)]
        hashes = np.concatenate([*parts, np.zeros(0, np.uint64)])
        self._order = np.argsort(hashes, kind="stable").astype(np.int32)
        self._hashes = hashes[self._order]

    def find(self, names: pa.Array) -> npt.NDArray[np.int32]:
        """Place of each name, the first if there are several; −1 where there is none. Fast where few are different."""
        coded = pc.cast(names, pa.string()).dictionary_encode()
        asked = coded.dictionary
        places = np.full(len(asked) + 1, -1, np.int32)
        if len(asked) and len(self.names):
            at = np.minimum(np.searchsorted(self._hashes, hash_strings(asked)), len(self._hashes) - 1)
            likely = self._order[at]
            there = self.names.take(pa.array(likely)).cast(asked.type)
            places[:-1] = np.where(pc.equal(there, asked).to_numpy(zero_copy_only=False), likely, -1)
        found: npt.NDArray[np.int32] = places[coded.indices.fill_null(len(asked)).to_numpy(zero_copy_only=False)]
        return found


def first_names(lists: pa.ListArray) -> pa.Array:
    """The first of each list; null of empty ones."""
    lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    return lists.flatten().take(pa.array(lengths.cumsum() - lengths, mask=lengths == 0))


def hash_strings(column: pa.Array) -> U64:
    """64 bits for each text; 0 where null. Two texts in 10¹⁹ share one."""
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise ReleaseError("id", f"is not a text but {column.type}")
    column = pc.cast(column, pa.string())
    hashes = np.zeros(len(column), np.uint64)
    if column.buffers()[2] is None:
        return hashes
    raw = np.frombuffer(column.buffers()[2], np.uint8)
    offsets = np.frombuffer(column.buffers()[1], np.int32)[column.offset : column.offset + len(column) + 1]
    lengths = np.diff(offsets)
    present = column.is_valid().to_numpy(zero_copy_only=False)
    for length in np.unique(lengths[present]).tolist():
        rows = np.flatnonzero(present & (lengths == length))
        padded = np.zeros((rows.size, -(-max(length, 1) // 8) * 8), np.uint8)
        if rows.size == len(column):  # texts of one length lie end to end
            padded[:, :length] = raw[offsets[0] : offsets[-1]].reshape(rows.size, length)
        else:
            padded[:, :length] = raw[offsets[rows].astype(np.int64)[:, None] + np.arange(length)]
        hashes[rows] = hash_words(padded.view(np.uint64)) ^ np.uint64(length)
    return hashes


def hash_words(words: U64) -> U64:
    """64 bits for each row: its words are mixed with their places, as splitmix64 does, and added up."""
    place = np.random.default_rng(7).integers(1, 2**63, words.shape[1], dtype=np.uint64)
    mixed = words + place
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return np.asarray(mixed.sum(axis=1, dtype=np.uint64))
