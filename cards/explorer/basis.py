"""The scale of the overviews' colors: principal axes and value ranges, fitted on a sample that ids alone decide."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from clay_publish.cards.figures.sample import principal_components, vectors
from clay_publish.release.directory import Release

Floats = npt.NDArray[np.float64]

SAMPLE = 16_384
"""Vectors that the axes are fitted on."""
FILES = 256
"""Files that they are taken from."""
_DIGITS = 7
"""Axes are rounded to this, so that the order in which a processor adds cannot change a tile."""


@dataclass(frozen=True)
class Basis:
    """How a vector becomes a color, and a loss a shade."""

    mean: Floats
    """[D]."""
    axes: Floats
    """[3, D], unit length; zero where the vectors do not vary that way."""
    explained: Floats
    """[3], share of the variance."""
    low: Floats
    """[3], score drawn as the lower end of the scale: 2nd percentile of the sample."""
    high: Floats
    """[3], 98th percentile."""
    loss: tuple[float, float] | None
    """2nd and 98th percentile of the loss; None where the release has none."""
    chips: int
    """Size of the sample."""

    def shares(self, found: npt.NDArray[np.float32]) -> Floats:
        """[n, 3], each score brought to 0…1 between `low` and `high`; 0.5 on an axis without variance."""
        scores = (found.astype(np.float64) - self.mean) @ self.axes.T
        spread = self.high - self.low
        made: Floats = np.where(spread > 0, (scores - self.low) / np.where(spread > 0, spread, 1), 0.5)
        return np.clip(made, 0, 1)

    def document(self) -> dict[str, Any]:
        """The basis as JSON: what anybody needs to draw the tiles again."""
        return {
            "mean": self.mean.tolist(),
            "axes": self.axes.tolist(),
            "explained": self.explained.tolist(),
            "low": self.low.tolist(),
            "high": self.high.tolist(),
            "loss": None if self.loss is None else list(self.loss),
            "sample": self.chips,
        }


def fit_basis(release: Release) -> Basis:
    """Fit the axes on at most `SAMPLE` chips of at most `FILES` files: those whose ids have the lowest SHA-256.

    Raises:
        ReleaseError: an embeddings file cannot be read.
    """
    files = sorted(release.data_files(), key=_digest)[:FILES]
    opened = [(path, release.parquet(path).metadata.num_rows) for path in sorted(files)]
    total = max(1, sum(rows for _, rows in opened))
    parts, losses = [], []
    for path, rows in opened:
        quota = min(rows, -(-rows * SAMPLE // total))
        found, loss = _sample(release.parquet(path), quota)
        parts.append(found)
        losses.append(loss)
    data = np.concatenate(parts).astype(np.float64)
    whole = np.isfinite(data).all(axis=1)
    data = data[whole]
    components = principal_components(data)
    axes = np.round(components.axes, _DIGITS)
    mean = np.round(components.mean, _DIGITS)
    scores = (data - mean) @ axes.T
    low, high = (np.round(np.percentile(scores, q, axis=0), _DIGITS) for q in (2, 98))
    known = np.concatenate(losses)
    known = known[np.isfinite(known)]
    shades = (_rounded(np.percentile(known, 2)), _rounded(np.percentile(known, 98))) if len(known) else None
    return Basis(mean, axes, np.round(components.explained, _DIGITS), low, high, shades, len(data))


def _rounded(value: Any) -> float:
    return float(np.round(value, _DIGITS))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _sample(file: pq.ParquetFile, quota: int) -> tuple[npt.NDArray[np.float32], Floats]:
    """Vectors and losses of the `quota` rows whose ids have the lowest digests."""
    ids = file.read(columns=["id"]).column("id").to_pylist()
    chosen = np.sort(np.array(sorted(range(len(ids)), key=lambda row: _digest(ids[row]))[:quota], dtype=np.int64))
    names = [name for name in ("embedding", "scale", "loss") if name in file.schema_arrow.names]
    found, losses, start = [], [], 0
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        mine = chosen[(chosen >= start) & (chosen < start + rows)] - start
        if len(mine):
            table = file.read_row_group(group, columns=names).take(mine)
            found.append(vectors(table))
            losses.append(table.column("loss").to_numpy().astype(np.float64))
        start += rows
    return np.concatenate(found), np.concatenate(losses)
