"""Compact codes of embeddings: a fixed rotation, then a few bits per dimension, for search by cosine.

A code depends on its own vector alone, so that codes of a file never change when a release grows. Every step is an
element-wise IEEE operation in a fixed order: the same vector gives the same code on every machine.

The estimate of a cosine follows RaBitQ (Gao & Long 2024, https://doi.org/10.1145/3654970, and Gao et al. 2025,
https://doi.org/10.1145/3725413): the inner product with the code, multiplied by what makes it exact for the vector
itself. The rotation is a product of signs and Walsh-Hadamard transforms (Ailon & Chazelle 2009).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from clay_publish.errors import ReleaseError

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

METHOD = "signed Walsh-Hadamard rotation, uniform quantization per vector, bit planes"
_SEED = b"clay-publish codes 1"
_CLIP = {4: 2.68, 8: 3.94}
"""Largest value kept, in root mean squares: the uniform quantizer of least error for normal values (Max 1960)."""
_NARROW = 256
"""Vectors of fewer dimensions get 8 bits per dimension: with 4, too few bits are left for neighbors to differ in."""
_BLOCK = 512
"""Vectors encoded at a time: few enough to stay in a core's cache."""
_WORD = 16
"""Bits looked up at once."""


@dataclass(frozen=True)
class Codes:
    """Codes of n vectors."""

    planes: tuple[Bytes, ...]
    """One bit of every dimension each, the highest first: [n, bytes per plane]."""
    factor: Floats
    """[n]: multiplies the inner product of a query with a code; 0 for a vector without direction."""


@dataclass(frozen=True)
class Encoding:
    """How vectors of some length become codes."""

    dimensions: int
    bits: int
    """Per dimension: 4, or 8."""

    @classmethod
    def of(cls, dimensions: int) -> "Encoding":
        """Return the default for vectors of this length."""
        return cls(dimensions, 8 if dimensions < _NARROW else 4)

    @classmethod
    def read(cls, document: dict[str, Any], where: str) -> "Encoding":
        """Return the encoding that `codes/model.json` describes.

        Raises:
            ReleaseError: it is not one that this version knows.
        """
        dimensions, bits = document.get("dimensions"), document.get("bits")
        if isinstance(dimensions, int) and 0 < dimensions <= 1 << 16 and bits in _CLIP and isinstance(bits, int):
            made = cls(dimensions, bits)
            if all(document.get(key) == value for key, value in made.document().items()):
                return made
        raise ReleaseError(
            where, "describes codes that this version cannot read", METHOD, "Upgrade clay-publish, or search exactly."
        )

    def document(self) -> dict[str, Any]:
        """Return what a reader needs to encode a query, as JSON."""
        return {
            "method": METHOD,
            "metric": "cosine",
            "dimensions": self.dimensions,
            "bits": self.bits,
            "clip": _CLIP[self.bits],
            "transform_size": self._span,
            "signs": [np.packbits(signs < 0).tobytes().hex() for signs in self._signs],
        }

    @property
    def plane_bytes(self) -> int:
        """Bytes of one bit of every dimension, a multiple of two."""
        return -(-self.dimensions // _WORD) * _WORD // 8

    @property
    def bytes_per_chip(self) -> int:
        """Bytes of a code with its factor."""
        return self.bits * self.plane_bytes + 4

    @property
    def _span(self) -> int:
        return 1 << (self.dimensions.bit_length() - 1)

    @cached_property
    def _signs(self) -> list[Floats]:
        """[dimensions] of +1 and −1 before each of the two transforms."""
        count = -(-self.dimensions // 8)
        stream = [hashlib.shake_256(_SEED + bytes([number])).digest(count) for number in range(2)]
        bits = [np.unpackbits(np.frombuffer(one, np.uint8), count=self.dimensions) for one in stream]
        return [1 - 2 * one.astype(np.float32) for one in bits]

    def rotate(self, vectors: Floats) -> Floats:
        """Return [dimensions, n], each column a vector of [n, dimensions] rotated, and longer by a constant factor.

        The first 2^k dimensions are transformed, then the last 2^k, so that vectors of any length are mixed.
        """
        turned = np.ascontiguousarray(vectors.T, dtype=np.float32)
        span = self._span
        norm = np.float32(2.0 ** -(span.bit_length() // 2))  # keeps numbers near where they were, without rounding
        for number, signs in enumerate(self._signs):
            turned *= signs[:, None] * norm
            _hadamard(turned[:span] if number % 2 == 0 else turned[-span:])
            if span < self.dimensions:  # what was not transformed must grow alike: by the root of the span
                rest = turned[span:] if number % 2 == 0 else turned[:-span]
                rest *= np.float32(np.sqrt(span))
        return turned

    def encode(self, vectors: Floats) -> Codes:
        """Return the codes of [n, dimensions] vectors; those that are not finite are encoded as zeros."""
        parts = [self._encode(_finite(vectors[n : n + _BLOCK])) for n in range(0, max(1, len(vectors)), _BLOCK)]
        planes = tuple(np.concatenate([part.planes[k] for part in parts]) for k in range(self.bits))
        return Codes(planes, np.concatenate([part.factor for part in parts]))

    def _encode(self, vectors: Floats) -> Codes:
        turned, half = self.rotate(vectors), np.float32(1 << (self.bits - 1))
        squares = _sums(turned * turned)
        step = np.float32(_CLIP[self.bits]) * np.sqrt(squares / np.float32(self.dimensions)) / half
        safe = np.where(step > 0, step, np.float32(1))
        levels = np.clip(np.floor(turned / safe) + half, 0, 2 * half - 1)
        along = _sums((levels - half + np.float32(0.5)) * turned)
        factor = np.where(along > 0, np.sqrt(squares) / np.where(along > 0, along, 1), 0).astype(np.float32)
        whole = np.zeros((len(vectors), 8 * self.plane_bytes), dtype=np.uint8)
        whole[:, : self.dimensions] = levels.T
        planes = (np.packbits((whole >> bit) & 1, axis=1) for bit in reversed(range(self.bits)))
        return Codes(tuple(planes), factor)

    def decode(self, codes: Codes) -> Floats:
        """Return [n, dimensions]: unit vectors in rotated space that the codes stand for, up to rounding."""
        levels = np.zeros((len(codes.factor), self.dimensions), dtype=np.float32)
        for plane in codes.planes:
            levels = 2 * levels + np.unpackbits(plane, axis=1, count=self.dimensions)
        return np.asarray((levels - (1 << (self.bits - 1)) + 0.5) * codes.factor[:, None], dtype=np.float32)

    def query(self, vectors: Floats) -> "Query":
        """Prepare [q, dimensions] vectors to be compared with codes."""
        turned = self.rotate(vectors).T.astype(np.float64)
        lengths = np.linalg.norm(turned, axis=1, keepdims=True)
        return Query(self, (turned / np.where(lengths > 0, lengths, 1)).astype(np.float32))


def _finite(vectors: Floats) -> Floats:
    usable = np.asarray(np.isfinite(vectors).all(axis=1))
    return np.where(usable[:, None], vectors, np.float32(0))


def _hadamard(rows: Floats) -> None:
    """Walsh-Hadamard transform of each column of [2^k, n], in place and unnormalized."""
    size, count = rows.shape
    half = 1
    while half < size:
        pairs = rows.reshape(size // (2 * half), 2, half, count)
        first, second = pairs[:, 0], pairs[:, 1]
        difference = first - second
        first += second
        second[:] = difference
        half *= 2


def _sums(rows: Floats) -> Floats:
    """Return the sums [n] of the columns of [m, n], added in an order that does not depend on n."""
    while len(rows) > 1:
        head = rows[: (len(rows) + 1) // 2].copy()
        head[: len(rows) - len(head)] += rows[len(head) :]
        rows = head
    total: Floats = rows[0]
    return total


@dataclass(frozen=True)
class Query:
    """Vectors to look for."""

    encoding: Encoding
    directions: Floats
    """[q, dimensions], rotated, of length 1."""

    @cached_property
    def _tables(self) -> list[list[Floats]]:
        """For each query and each word of a plane, the inner product of every pattern of its bits."""
        words = self.encoding.plane_bytes // 2
        padded = np.zeros((len(self.directions), words * _WORD), np.float32)
        padded[:, : self.encoding.dimensions] = self.directions
        return [[_patterns(part) for part in one.reshape(words, _WORD)] for one in padded]

    def cosines(self, planes: Sequence[Bytes], factor: Floats | None = None) -> Floats:
        """Return [q, n] estimated cosines.

        With fewer planes than a code has, the first ones: a coarser estimate. Without factors, each vector's code is
        taken to be as long as any other.
        """
        count = len(planes[0])
        total = np.zeros((len(self.directions), count), dtype=np.float32)
        part = np.empty(count, dtype=np.float32)
        levels = (1 << len(planes)) - 1
        for number, tables in enumerate(self._tables):
            for place, plane in enumerate(planes):
                weight = np.float32(1 << (len(planes) - 1 - place))
                words = plane.view(np.uint16)
                here = np.zeros(count, dtype=np.float32)
                for column, table in enumerate(tables):
                    here += np.take(table, words[:, column], out=part, mode="clip")
                total[number] += weight * here
            total[number] -= levels / 2 * self.directions[number].sum()
        return total if factor is None else total * factor


def _patterns(values: Floats) -> Floats:
    """[65,536] sums of the values whose bits are set in a little-endian word of two packed bytes."""
    halves = []
    for eight in (values[:8], values[8:]):
        sums = np.zeros(1, dtype=np.float32)
        for value in eight[::-1]:  # the first value is the highest bit
            sums = np.concatenate([sums, sums + value])
        halves.append(sums)
    low, high = halves
    return (high[:, None] + low[None, :]).ravel()
