"""What a release looks like, for people who read a report: distributions, the ground, the gaps."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clay_publish.errors import ClayPublishError, ReleaseError
from clay_publish.release.directory import EMBEDDINGS, GAPS
from clay_publish.release.findings import Finding, FindingPlace, GroundMap, Histogram, Measures, MissingChips, Outline
from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.data.chip_facts import ReleaseFacts
from clay_publish.validate.data.coverage_table import coverage_batches, equals
from clay_publish.validate.outcomes import UNFORESEEN
from clay_publish.validate.spilled import Column, pieces, together

BINS = 40
_PAIRS = 2000
_GRID = 96
"""Cells along the longer side of the ground, at most; fewer where chips are few, so that they touch."""
_OUTLINES = 2000
_POINTS = 100
_TEXT = 120
"""Letters of a reason or window that are kept."""


def measure(context: ReleaseContext, findings: Sequence[Finding] = ()) -> Measures | None:
    """Measure what the rules have read; None where they read no rows."""
    scan = context.__dict__.get("scan")
    if scan is None:
        return None
    facts: ReleaseFacts = scan.seen
    unmeasured: dict[str, str] = {}

    def attempt(name: str, make: Callable[[], Any]) -> Any:
        try:
            return make()
        except ClayPublishError as error:
            unmeasured[name] = f"{error.where} {error.found}"
        except UNFORESEEN as error:
            unmeasured[name] = f"cannot be read ({error!r})"[:300]
        return None

    ours = not context.tables.foreign  # tables of others have neither loss nor coverage
    made = {
        "norm": attempt("norm", lambda: histogram(facts["norms"])),
        "loss": attempt("loss", lambda: histogram(facts["loss"])) if ours else None,
        "similarity": attempt("similarity", lambda: histogram(_cosines(facts["examples"][:]))),
    }
    return Measures(
        chips=facts.rows,
        distributions={name: found for name, found in made.items() if found is not None},
        missing=(attempt("missing chips", lambda: _missing(context)) or []) if ours else [],
        outlines=(attempt("gaps", lambda: _outlines(context)) or []) if ours else [],
        ground=attempt("ground", lambda: _ground(facts, context)),
        places=attempt("places of findings", lambda: list(_places(facts, findings))) or [],
        unmeasured=unmeasured,
    )


def histogram(values: Column) -> Histogram:
    """Of the finite values.

    Raises:
        ReleaseError: there are only values that are not finite.
    """
    sides = [(piece.min(), piece.max()) for piece in _finite(values)]
    if not sides:
        raise ReleaseError(EMBEDDINGS, "holds no such number")
    low, high = float(min(low for low, _ in sides)), float(max(high for _, high in sides))
    edges = np.histogram_bin_edges([low, high], BINS if high > low else 1, (low, high) if high > low else None)
    counts = np.zeros(len(edges) - 1, np.int64)
    for piece in _finite(values):
        counts += np.histogram(piece, len(edges) - 1, (edges[0], edges[-1]))[0]
    return Histogram(edges=edges.tolist(), counts=counts.tolist())


def _finite(values: Column) -> Iterator[npt.NDArray[np.float64]]:
    for piece in pieces(values):
        finite = piece[np.isfinite(piece)].astype(np.float64)
        if finite.size:
            yield finite


def _cosines(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    if len(vectors) < 2:
        raise ReleaseError(EMBEDDINGS, "holds fewer than two chips")
    draw = np.random.default_rng(5)
    a = draw.integers(0, len(vectors), _PAIRS)
    b = (a + draw.integers(1, len(vectors), _PAIRS)) % len(vectors)
    with np.errstate(all="ignore"):
        wide = vectors.astype(np.float64)
        unit = wide / np.linalg.norm(wide, axis=1, keepdims=True)
        cosines: npt.NDArray[np.float64] = np.clip(np.einsum("nd,nd->n", unit[a], unit[b]), -1, 1)
    return cosines


def _missing(context: ReleaseContext) -> list[MissingChips]:
    counted: Counter[tuple[str, str]] = Counter()
    for batch in coverage_batches(context.tables, ["status", "reason", "window_start", "window_end"]):
        missing = batch.filter(pa.array(~equals(batch.column("status"), "embedded")))
        # Moments become texts when they are few: in Arrow that takes longer than reading them.
        columns = [
            missing.column("reason").cast(pa.string()),
            missing.column("window_start"),
            missing.column("window_end"),
        ]
        table = pa.table(columns, names=["reason", "start", "end"])
        for row in table.group_by(["reason", "start", "end"]).aggregate([([], "count_all")]).to_pylist():
            window = f"{str(row['start'])[:10]}/{str(row['end'])[:10]}"
            counted[window, str(row["reason"])[:_TEXT]] += row["count_all"]
    return [MissingChips(window=w, reason=r, chips=n) for (w, r), n in sorted(counted.items())][:_OUTLINES]


def _outlines(context: ReleaseContext) -> list[Outline]:
    features = context.documents.json(GAPS).get("features", [])
    made: list[Outline] = []
    for feature in features[:_OUTLINES]:
        shape, said = feature["geometry"], feature.get("properties") or {}
        polygons = [shape["coordinates"]] if shape["type"] == "Polygon" else shape["coordinates"]
        for polygon in polygons[:_POINTS]:
            ring = [(float(point[0]), float(point[1])) for point in polygon[0][:: max(1, len(polygon[0]) // _POINTS)]]
            made.append(
                Outline(window=str(said.get("window"))[:_TEXT], reason=str(said.get("reason"))[:_TEXT], ring=ring)
            )
    return [outline for outline in made if np.isfinite(outline.ring).all()][:_OUTLINES]


def _ground(facts: ReleaseFacts, context: ReleaseContext) -> GroundMap:
    stated = {"lon", "lat"} <= set(context.tables.schema(context.tables.embeddings[0]).names)
    used = np.zeros(360, bool)
    for lon, _ in _on_earth(facts, stated):
        used[(np.floor(lon).astype(np.int64) + 180) % 360] = True
    first = first_degree(used)

    def places() -> Iterator[npt.NDArray[np.float64]]:
        for lon, lat in _on_earth(facts, stated):
            yield np.stack([eastward(lon, first), lat])

    sides = [(at.min(axis=1), at.max(axis=1), at.shape[1]) for at in places()]
    if not sides:
        raise ReleaseError(EMBEDDINGS, "holds no chip with a place on Earth")
    west, south = np.min([low for low, _, _ in sides], axis=0).tolist()
    east, north = np.max([high for _, high, _ in sides], axis=0).tolist()
    chips = sum(number for _, _, number in sides)
    # A margin, so that one chip has ground around it.
    margin = max(east - west, north - south, 0.01) * 0.02
    west, east = max(west - margin, -180), east + margin if east > 180 else min(east + margin, 180)
    south, north = max(south - margin, -90), min(north + margin, 90)
    step = max(east - west, north - south) / min(_GRID, max(4, int(0.8 * np.sqrt(chips))))
    shape = (max(1, int(np.ceil((north - south) / step))), max(1, int(np.ceil((east - west) / step))))
    counts = np.zeros(shape[0] * shape[1], np.int64)
    for at in places():
        row = np.minimum((at[1] - south) * (shape[0] / (north - south)), shape[0] - 1).astype(np.int64)
        col = np.minimum((at[0] - west) * (shape[1] / (east - west)), shape[1] - 1).astype(np.int64)
        counts += np.bincount(row * shape[1] + col, minlength=len(counts))
    return GroundMap(bbox=(float(west), float(south), float(east), float(north)), counts=counts.reshape(shape).tolist())


def _on_earth(facts: ReleaseFacts, stated: bool) -> Iterator[npt.NDArray[np.float64]]:
    """Longitudes and latitudes of chips, [2, chips], some at a time; stated in columns, or centers of footprints."""
    parts = together(facts["lon"], facts["lat"]) if stated else (piece.T for piece in pieces(facts["centers"]))
    for lon, lat in parts:
        inside = (np.abs(lon) <= 180) & (np.abs(lat) <= 90)
        if inside.any():
            yield np.stack([lon[inside], lat[inside]]).astype(np.float64)


def first_degree(used: npt.NDArray[np.bool_]) -> int:
    """Return the degree of longitude where a map begins: −180 unless chips lie on both sides of the antimeridian.

    Args:
        used: whether there are chips in each degree, eastward from −180.
    """
    # Empty degrees twice round the Earth, so that a run may go across the antimeridian.
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.tile(~used, 2).astype(np.int8), [0]])))
    starts, ends = edges[::2], edges[1::2]
    longest = int(np.argmax(ends - starts)) if starts.size else 0
    return int(ends[longest] % 360) - 180 if starts.size and ends[longest] - starts[longest] >= 180 else -180


def eastward(lon: npt.NDArray[np.float64], first: int) -> npt.NDArray[np.float64]:
    """Return longitudes that go on beyond 180 west of the first degree of a map."""
    return np.where(lon < first, lon + 360, lon)


_ROW = re.compile(r"(\S+): row (\d+)\b")


def _places(facts: ReleaseFacts, findings: Sequence[Finding]) -> Iterator[FindingPlace]:
    """Chips that findings name by file and row; of files, the middle of their box."""
    slices = facts.slices()
    for finding in findings[:_OUTLINES]:
        match = _ROW.match(finding.where)
        path = match[1] if match else finding.where.partition(": ")[0]
        if path not in slices:
            continue
        row = slices[path].start + int(match[2]) if match else None
        if row is not None and row < slices[path].stop and {"lon", "lat"} <= facts.names:
            lon, lat = float(facts["lon"][row]), float(facts["lat"][row])
        elif row is not None and row < slices[path].stop and "centers" in facts.names:
            lon, lat = map(float, facts["centers"][row])
        else:
            boxes = facts.boxes.get(path, np.empty((0, 4)))
            lon, lat = (float(np.nanmean(boxes[:, side])) for side in ([0, 2], [1, 3])) if len(boxes) else (np.nan,) * 2
        if np.isfinite([lon, lat]).all() and abs(lon) <= 180 and abs(lat) <= 90:
            yield FindingPlace(code=finding.code, lon=lon, lat=lat)
