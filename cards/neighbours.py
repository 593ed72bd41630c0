"""Chips and the ones most like them, where a release has thumbnails."""

import io
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, UnidentifiedImageError

from clay_publish.cards.colours import EMBEDDED
from clay_publish.cards.maps import WIDTH, png
from clay_publish.cards.sample import vectors
from clay_publish.errors import ReleaseError
from clay_publish.release import Release

ROWS, COLUMNS = 4, 6
LOOKED_AT = 20_000
"""Chips among which neighbours are looked for."""


@dataclass(frozen=True)
class _Chips:
    """Chips of a release that have a thumbnail."""

    vectors: np.ndarray[tuple[int, int], np.dtype[np.float32]]
    """[n, D], of length 1."""
    thumbnails: list[bytes]


def neighbours_picture(release: Release) -> bytes | None:
    """Rows of thumbnails: a chip, and the five most similar ones; None where the release has too few thumbnails.

    Raises:
        ReleaseError: a thumbnail is no picture.
    """
    chips = _read(release)
    if chips is None or len(chips.thumbnails) <= COLUMNS:
        return None
    height = ROWS * WIDTH / COLUMNS
    figure = Figure(figsize=(WIDTH, height + 0.25))
    FigureCanvasAgg(figure)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.96, bottom=0.01, wspace=0.06, hspace=0.16)
    axes = figure.subplots(ROWS, COLUMNS, squeeze=False)
    for row, chip in enumerate(_queries(chips)):
        similarity = chips.vectors @ chips.vectors[chip]
        similarity[chip] = np.inf
        for column, found in enumerate(np.argsort(-similarity, kind="stable")[:COLUMNS]):
            place = axes[row, column]
            place.imshow(_picture(release, chips.thumbnails[found]))
            place.set_xticks([])
            place.set_yticks([])
            title = f"{similarity[found]:.3f}" if column else "chip"
            place.set_title(title, fontsize=8, pad=2, color=EMBEDDED if not column else "black")
            place.spines[:].set(color=EMBEDDED, linewidth=3 if not column else 0)
    return png(figure)


def _read(release: Release) -> _Chips | None:
    found: list[np.ndarray[tuple[int, int], np.dtype[np.float32]]] = []
    thumbnails: list[bytes] = []
    files = release.data_files()
    if "thumbnail" not in release.parquet(files[0]).schema_arrow.names:
        return None
    step = max(1, sum(release.parquet(path).metadata.num_rows for path in files) // LOOKED_AT)
    for path in files:
        file = release.parquet(path)
        columns = [name for name in ("embedding", "scale", "thumbnail") if name in file.schema_arrow.names]
        for number in range(file.num_row_groups):
            table: pa.Table = file.read_row_group(number, columns=columns)
            table = table.take(np.arange(0, table.num_rows, step))
            rows = table.column("thumbnail").to_pylist()
            kept = [place for place, row in enumerate(rows) if row and row["bytes"]]
            found.append(vectors(table.take(kept)))
            thumbnails += [rows[place]["bytes"] for place in kept]
    made = np.concatenate(found)
    lengths = np.linalg.norm(made, axis=1, keepdims=True)
    return _Chips(np.divide(made, lengths, out=np.zeros_like(made), where=lengths > 0), thumbnails)


def _queries(chips: _Chips) -> list[int]:
    """Chips as different as possible: each the least similar to those chosen before, the first to the mean of all."""
    nearest = chips.vectors @ chips.vectors.mean(axis=0)
    chosen: list[int] = []
    for _ in range(ROWS):
        chosen.append(int(nearest.argmin()))
        likeness = chips.vectors @ chips.vectors[chosen[-1]]
        nearest = likeness if len(chosen) == 1 else np.maximum(nearest, likeness)
    return chosen


def _picture(release: Release, data: bytes) -> Image.Image:
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "WEBP", "JPEG")) as picture:
            return picture.convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise ReleaseError(release.store.where, "has a thumbnail that is no picture", "PNG, WebP or JPEG") from error
