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
        "similarity": attempt("similarity", lambda: histogram(_cosines(facts["examples"]))),
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


def histogram(values: npt.NDArray[Any]) -> Histogram | None:
    """Of the finite values; None where there are none.

    Raises:
        ReleaseError: there are only values that are not finite.
    """
    finite = np.asarray(values, np.float64)[np.isfinite(values)]
    if not finite.size:
        raise ReleaseError(EMBEDDINGS, "holds no such number")
    low, high = float(finite.min()), float(finite.max())
    counts, edges = np.histogram(finite, BINS if high > low else 1, (low, high) if high > low else None)
    return Histogram(edges=edges.tolist(), counts=counts.tolist())


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
    if not {"lon", "lat"} <= set(context.tables.schema(context.tables.embeddings[0]).names):
        lon, lat = facts["centers"].astype(np.float64).T
    else:
        lon, lat = facts["lon"], facts["lat"]
    inside = (np.abs(lon) <= 180) & (np.abs(lat) <= 90)
    lon, lat = lon[inside], lat[inside]
    if not lon.size:
        raise ReleaseError(EMBEDDINGS, "holds no chip with a place on Earth")
    lon = _together(lon)
    # A margin, so that one chip has ground around it.
    margin = max(np.ptp(lon), np.ptp(lat), 0.01) * 0.02
    west, east = max(lon.min() - margin, -180), lon.max() + margin
    east = east if lon.max() > 180 else min(east, 180)
    south, north = max(lat.min() - margin, -90), min(lat.max() + margin, 90)
    step = max(east - west, north - south) / min(_GRID, max(4, int(0.8 * np.sqrt(lon.size))))
    shape = (max(1, int(np.ceil((north - south) / step))), max(1, int(np.ceil((east - west) / step))))
    row = np.minimum((lat - south) * (shape[0] / (north - south)), shape[0] - 1).astype(np.int64)
    col = np.minimum((lon - west) * (shape[1] / (east - west)), shape[1] - 1).astype(np.int64)
    counts = np.bincount(row * shape[1] + col, minlength=shape[0] * shape[1]).reshape(shape)
    return GroundMap(bbox=(float(west), float(south), float(east), float(north)), counts=counts.tolist())


def _together(lon: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Longitudes that go on beyond 180 where the chips lie on both sides of the antimeridian, and not all around."""
    empty = np.bincount((np.floor(lon).astype(np.int64) + 180) % 360, minlength=360) == 0
    if np.ptp(lon) <= 180 or not empty.any():
        return lon
    # Empty degrees twice round the Earth, so that a run may go across the antimeridian.
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.tile(empty, 2).astype(np.int8), [0]])))
    starts, ends = edges[::2], edges[1::2]
    longest = int(np.argmax(ends - starts))
    west = ends[longest] % 360 - 180
    return lon if ends[longest] - starts[longest] < 180 else (lon - west) % 360 + west


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
