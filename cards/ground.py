"""Where all chips of a release lie, for drawing."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clay_publish.release import Release

Floats = npt.NDArray[np.float64]

POLYGONS = 30_000
"""More chips than this are smaller than a few dots each, and are drawn as points."""


@dataclass(frozen=True)
class Ground:
    """Footprints and centres."""

    geometry: npt.NDArray[np.object_]
    """WKB; empty where the chips are too many to be drawn as polygons."""
    lon: Floats
    lat: Floats


def read_ground(release: Release) -> Ground:
    """Read it.

    Raises:
        ReleaseError: an embeddings file cannot be read.
    """
    files = [release.parquet(path) for path in release.data_files()]
    draw = sum(file.metadata.num_rows for file in files) <= POLYGONS
    columns = ["lon", "lat", *(["geometry"] if draw else [])]
    tables = [file.read(columns=columns) for file in files]
    return Ground(
        geometry=np.array([g for t in tables for g in t.column("geometry").to_pylist()] if draw else [], dtype=object),
        lon=np.concatenate([t.column("lon").to_numpy() for t in tables]),
        lat=np.concatenate([t.column("lat").to_numpy() for t in tables]),
    )
