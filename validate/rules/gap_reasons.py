"""Rules on the reasons for gaps, and on how gaps are counted and drawn."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely

from clay_publish.geo.area import read_area
from clay_publish.geo.utm_grid import UtmGrid
from clay_publish.release.directory import COVERAGE, GAPS, MANIFEST, SPEC
from clay_publish.release.tables import NOT_CLOUD_CHECKED, REASONS, STATUSES, without_cloud_fraction
from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.data.chips import ChipRows
from clay_publish.validate.data.coverage_table import coverage_batches, equals, first_items, micros, whole_numbers
from clay_publish.validate.data.footprints import meters_per_degree
from clay_publish.validate.data.sources import Source
from clay_publish.validate.expected.gap_shapes import MOST_CHIPS, expected_gaps
from clay_publish.validate.expected.layers import expected_windows, windows_of
from clay_publish.validate.outcomes import BadRows, Fault, NotChecked, Outcome, bad_rows
from clay_publish.validate.registry import row_rule, rule
from clay_publish.validate.spilled import distinct
from clay_publish.windows import Window

_SLACK = 1e-5
"""Fractions are stored as float32."""
_NEAR = 5e-6
"""Degrees, about half a meter: how far a gap may be drawn from its chips."""


@rule("COV007")
def reasons_are_known(context: ReleaseContext) -> Iterator[Outcome]:
    """Status and reason of every row."""
    pairs: Counter[tuple[str | None, str | None]] = Counter()
    for said, count in context.said.items():
        pairs[said.status, said.reason] += count
    for (status, reason), count in sorted(pairs.items(), key=str):
        if status not in STATUSES:
            yield Fault(COVERAGE, f"status {status!r} in {count:,} rows", " or ".join(STATUSES))
        elif status == "embedded" and reason is not None:
            yield Fault(COVERAGE, f"{count:,} embedded chips with the reason {reason!r}", "no reason")
        elif status == "missing" and reason not in REASONS:
            yield Fault(COVERAGE, f"{count:,} missing chips with the reason {reason!r}", "a known reason")


@rule("COV008")
def reasons_fit(context: ReleaseContext) -> Iterator[Outcome]:
    """Reasons against the spec, the sources, and the other chips of the image."""
    counts = _by_item(context)
    sources = context.sources
    embedded = set(distinct(context.scan.facts["items"]).tolist())
    for (reason, place), count in sorted(counts.items()):
        wrong = _contradiction(reason, sources.item(place) if place >= 0 else None, context, read=place in embedded)
        if wrong is not None:
            yield Fault(COVERAGE, f"{count:,} chips are missing as {reason!r}, but {wrong}", "another reason")
    if context.fingerprint.layout == "utm" and any(said.reason == "no_imagery" for said in context.said):
        yield from _imagery_after_all(context)


def _by_item(context: ReleaseContext) -> Counter[tuple[str, int]]:
    """Missing chips by reason and the place of their item; −1 where only the reason matters."""
    asked = {"excluded", "no_imagery", "unreadable"} if context.fingerprint.layout == "scene" else {"excluded"}
    counts: Counter[tuple[str, int]] = Counter()
    for said, count in context.said.items():
        if said.reason is not None and said.reason not in asked:
            counts[said.reason, -1] += count
    if not any(said.reason in asked for said in context.said):
        return counts
    for rows in coverage_batches(context.tables, ["reason", "item_ids"]):
        batch = rows.filter(rows.column("reason").is_valid())
        items = first_items(batch, context.sources)
        reasons = batch.column("reason")
        for number, word in enumerate(reasons.dictionary.to_pylist()):
            if word in asked:
                mine = reasons.indices.to_numpy(zero_copy_only=False) == number
                places, many = np.unique(items[mine], return_counts=True)
                counts.update({(word, int(place)): int(n) for place, n in zip(places, many, strict=True)})
    return counts


def _imagery_after_all(context: ReleaseContext) -> Iterator[Outcome]:
    """Cells called `no_imagery` that lie wholly inside a used image of their window."""
    grid = UtmGrid(context.grids.usual_side)
    expected = expected_windows(context.documents.spec, context.sources)
    by_start = {micros(step.window.start): step.window for step in expected}
    inner_of = cache(lambda window: _inner(context, window, grid.cell))
    for batch in coverage_batches(context.tables, ["reason", "epsg", "row", "col", "window_start"]):
        chosen = batch.filter(pa.array(equals(batch.column("reason"), "no_imagery")))
        starts = chosen.column("window_start").cast("int64").to_numpy(zero_copy_only=False)
        for start in np.unique(starts).tolist():
            inner = inner_of(by_start[start]) if start in by_start else None
            if inner is None:
                continue
            rows = chosen.filter(pa.array(starts == start))
            epsg, row, col = (whole_numbers(rows, name) for name in ("epsg", "row", "col"))
            inside = np.flatnonzero(shapely.intersects_xy(inner, *grid.centers(epsg, row, col)))
            if inside.size:
                first = f"zone {epsg[inside[0]] % 100}, row {row[inside[0]]} col {col[inside[0]]}"
                found = f"{inside.size:,} chips are missing as 'no_imagery' inside of used images"
                yield Fault(f"{COVERAGE}: {first}", found, "another reason")


def _inner(context: ReleaseContext, window: Window, cell: float) -> Any:
    """The ground of a window's used images, less a cell's diagonal along its edge; None where there is none."""
    sources = context.sources
    windows, own = windows_of(sources, context.documents.spec, sources.used)
    mine = sources.used[own == windows.index(window)] if window in windows else sources.used[:0]
    ground = shapely.union_all([shapely.union_all(shapes) for _, shapes in sources.footprints(mine)])
    if ground.is_empty:
        return None
    east, _ = meters_per_degree(np.array([np.abs(ground.bounds[1::2]).max()]))
    return ground.buffer(-1.5 * cell / max(float(east[0]), 1000.0))


def _contradiction(reason: str, source: Source | None, context: ReleaseContext, *, read: bool) -> str | None:
    """Why a reason cannot be true of chips of a source, of which others were read or not."""
    spec, scene = context.documents.spec, context.fingerprint.layout == "scene"
    status = source.status if source is not None else None
    name = source.id if source is not None else "its item"
    contradictions = {
        "cloud": (spec.chips.max_cloud >= 1 and not spec.combines, "the spec allows any share of cloud"),
        "too_few_images": (not spec.combines, "the spec asks for no composite"),
        "over_budget": (spec.cost.budget_usd is None, "the spec has no budget"),
        "excluded": (status in {"used", "unused"}, f"{name} is not excluded"),
        "no_imagery": (scene and status == "used", f"{name} was used"),
        "unreadable": (scene and read, f"other chips of {name} were read"),
    }
    applies, why = contradictions.get(reason, (False, ""))
    return why if applies else None


@row_rule("COV009")
def limits_are_kept(chips: ChipRows, context: ReleaseContext) -> Sequence[BadRows]:
    """`valid_fraction` and `cloud_fraction` against `max_nodata` and `max_cloud`."""
    limits = context.documents.spec.chips
    valid, cloud = chips.floats("valid_fraction"), chips.floats("cloud_fraction")
    least = 1 - limits.max_nodata
    with np.errstate(invalid="ignore"):
        return [
            *bad_rows(valid < least - _SLACK, lambda row: f"valid_fraction {valid[row]:.3f}", f"at least {least:g}"),
            *bad_rows(
                cloud > limits.max_cloud + _SLACK,
                lambda row: f"cloud_fraction {cloud[row]:.3f}",
                f"at most {limits.max_cloud:g}",
            ),
        ]


@rule("COV010")
def most_is_there(context: ReleaseContext) -> Iterator[Outcome]:
    """Share by window, with the reasons of what is missing."""
    shares: dict[int, Counter[str]] = {}
    for said, count in context.said.items():
        shares.setdefault(said.start or 0, Counter())[said.reason or "embedded"] += count
    for start, counted in sorted(shares.items()):
        total, there = counted.total(), counted["embedded"]
        if there < total / 2:
            rest = ", ".join(
                f"{count:,} {reason}" for reason, count in counted.most_common() if reason != "embedded" and count
            )
            day = np.datetime64(start, "us").astype("M8[D]")
            found = f"{there / total:.0%} of {total:,} chips ({rest})"
            yield Fault(f"{COVERAGE}: window from {day}", found, "at least half")


@rule("COV011")
def area_hides_nothing(context: ReleaseContext) -> Iterator[Outcome]:
    """Interior rings of the area that lie over images of the release."""
    for number, block in enumerate(context.documents.spec.imagery):
        if block.area is None or block.area == "land":
            continue
        parts = shapely.get_parts(read_area(block.area).geometry)
        rings = [ring for part in parts for ring in part.interiors]
        holes = shapely.polygons(rings) if rings else np.empty(0, dtype=object)
        shapely.prepare(holes)
        over = np.zeros(len(holes), dtype=bool)
        used = context.sources.used[context.sources.block[context.sources.used] == number]
        for _, shapes in context.sources.footprints(used) if rings else ():
            over |= [bool(shapely.intersects(hole, shapes).any()) for hole in holes]
        for hole in holes[over]:
            west, south, east, north = hole.bounds
            yield Fault(
                f"{SPEC}: imagery.{number}.area",
                f"has a hole from {west:.4f}, {south:.4f} to {east:.4f}, {north:.4f} over used images",
                "an area without holes, or reasons in the coverage",
            )


@rule("COV012")
def manifest_counts_agree(context: ReleaseContext) -> Iterator[Outcome]:
    """`run.coverage` of the manifest."""
    stated = {key: count for key, count in context.documents.manifest.run.coverage.items() if count}
    counted: Counter[str] = Counter()
    for said, count in context.said.items():
        counted["embedded" if said.status == "embedded" else str(said.reason)] += count
    counted["expected"] = counted.total()
    for key in sorted({*stated, *counted}):
        if stated.get(key, 0) != counted[key]:
            yield Fault(
                f"{MANIFEST}: run.coverage.{key}", f"{stated.get(key, 0):,}", f"{counted[key]:,} as in the coverage"
            )
    if stated.get("embedded", 0) != context.tables.rows:
        yield Fault(
            f"{MANIFEST}: run.coverage.embedded", f"{stated.get('embedded', 0):,}", f"{context.tables.rows:,} rows"
        )


@rule("COV013")
def gaps_agree(context: ReleaseContext) -> Iterator[Outcome]:
    """Every feature against those drawn again from the coverage and the pixel grids: properties, chips, outline.

    Nothing else may stand in it: with a `crs`, readers that heed it draw degrees elsewhere.
    """
    document = context.documents.json(GAPS)
    if document.get("type") != "FeatureCollection" or not isinstance(document.get("features"), list):
        yield Fault(GAPS, f"type {document.get('type')!r}", "a FeatureCollection")
        return
    for name in sorted(document.keys() - {"type", "features"}):
        yield Fault(f"{GAPS}: {name:.60}", f"{document[name]!s:.60}", "`type` and `features` alone")
    drawn: dict[Key, list[Any]] = {}
    for number, feature in enumerate(document["features"]):
        wrong = _wrong_gap(feature)
        if wrong is not None:
            yield Fault(f"{GAPS}: feature {number}", wrong, f"a polygon in degrees with {', '.join(_DRAWN)} alone")
        else:
            key = tuple(feature["properties"].get(name) for name in _DRAWN)
            drawn.setdefault(key, []).append(shapely.geometry.shape(feature["geometry"]))
    missing = sum(count for said, count in context.said.items() if said.status == "missing")
    if missing > MOST_CHIPS:
        yield NotChecked(f"{missing:,} missing chips are too many to be drawn again")
        return
    expected: dict[Key, list[Any]] = {}
    for gap in expected_gaps(context) if missing else ():
        expected.setdefault((gap.reason, gap.window, gap.detail, gap.chips), []).append(gap.shape)
    yield from _drawings_agree(drawn, expected)


Key = tuple[Any, ...]
_DRAWN = ("reason", "window", "detail", "chips")
"""Properties of a gap."""
_FEATURE = {"type", "geometry", "properties"}


def _drawings_agree(drawn: dict[Key, list[Any]], expected: dict[Key, list[Any]]) -> Iterator[Outcome]:
    for key in sorted({*drawn, *expected}, key=repr):
        mine, theirs = drawn.get(key, []), expected.get(key, [])
        said = f"{key[0]}, {key[1]}, {key[3]} chips"
        if len(mine) != len(theirs):
            yield Fault(f"{GAPS}: {said}", f"{len(mine):,} features", f"{len(theirs):,}, as in the coverage")
        elif mine:
            away = _farthest(np.array(mine, dtype=object), np.array(theirs, dtype=object))
            if away > _NEAR:
                yield Fault(f"{GAPS}: {said}", f"is drawn {away:.3g} degrees away", "the outline of the missing chips")


def _farthest(drawn: npt.NDArray[np.object_], expected: npt.NDArray[np.object_]) -> float:
    """Largest difference in degrees of outlines and their nearest ones: of bounds, or on average along the outline."""
    tree = shapely.STRtree(shapely.centroid(drawn))
    nearest = tree.nearest(shapely.centroid(expected))
    if np.unique(nearest).size < len(drawn):
        return float("inf")
    bounds = np.abs(shapely.bounds(drawn[nearest]) - shapely.bounds(expected)).max()
    between = shapely.area(shapely.symmetric_difference(drawn[nearest], expected)) / shapely.length(expected)
    return float(max(bounds, between.max()))


@rule("COV018")
def details_fit_reasons(context: ReleaseContext) -> Iterator[Outcome]:
    """`detail` of every row: numbers beyond the spec's limits for nodata and cloud, fixed words for others."""
    found: Counter[tuple[str | None, str | None]] = Counter()
    for batch in coverage_batches(context.tables, ["reason", "detail"]):
        pairs = pa.table({"reason": batch.column("reason").cast(pa.string()), "detail": batch.column("detail")})
        for row in pairs.group_by(["reason", "detail"]).aggregate([([], "count_all")]).to_pylist():
            found[row["reason"], row["detail"]] += row["count_all"]
    embedded = sum(count for (reason, _), count in found.items() if reason is None)
    if context.documents.spec.instrument.masks and embedded == context.tables.rows:  # COV003 to COV005
        unmasked = sum(without_cloud_fraction(context.tables.footer(path)) for path in context.tables.embeddings)
        said = found[None, NOT_CLOUD_CHECKED]
        if said != unmasked:
            where = f"{COVERAGE}: embedded"
            yield Fault(where, f"the detail {NOT_CLOUD_CHECKED!r} in {said:,} rows", f"{unmasked:,}, as the files say")
    for (reason, detail), count in sorted(found.items(), key=repr):
        expected = _expected_detail(reason, detail, context)
        if expected is not None:
            where = f"{COVERAGE}: {'embedded' if reason is None else reason}"
            yield Fault(where, f"the detail {detail!r:.80} in {count:,} rows", expected)


_NUMBERED = {
    "nodata": re.compile(r"(\d\.\d{3}) of the pixels are valid"),
    "cloud": re.compile(r"(\d\.\d{3}) of the pixels are under cloud"),
}
_WORDS = {
    "invalid_vector": "the model gave NaN, infinite, zero or constant values",
    "over_budget": "the budget was spent before its turn",
}
_DIGIT = 5e-4
"""Rounding of a share in a detail."""


def _expected_detail(reason: str | None, detail: str | None, context: ReleaseContext) -> str | None:
    """What the detail of a reason should be; None where it is that."""
    limits = context.documents.spec.chips
    if reason is not None and reason not in REASONS:
        return None  # COV007
    if reason in _NUMBERED:
        match = _NUMBERED[reason].fullmatch(detail or "")
        share = float(match[1]) if match else -1.0
        least, most = (limits.max_cloud, 1.0) if reason == "cloud" else (0.0, max(1 - limits.max_nodata, _DIGIT))
        return None if match and least - _DIGIT <= share <= most + _DIGIT else f"a share from {least:g} to {most:g}"
    if reason in _WORDS:
        return None if detail == _WORDS[reason] else repr(_WORDS[reason])
    own: dict[str | None, set[str | None]] = {
        None: {None, NOT_CLOUD_CHECKED},
        "no_imagery": {None},
        "excluded": {None},
    }
    if reason in own:
        return None if detail in own[reason] else " or ".join(map(str, own[reason]))
    of_others = detail in {*_WORDS.values(), NOT_CLOUD_CHECKED} or any(
        p.fullmatch(detail or "") for p in _NUMBERED.values()
    )
    return "what happened" if of_others or not detail else None


def _wrong_gap(feature: Any) -> str | None:
    properties = feature.get("properties") if isinstance(feature, dict) else None
    if not isinstance(properties, dict):
        return "has no properties"
    for name, members, own in (("feature", feature, _FEATURE), ("properties", properties, set(_DRAWN))):
        if members.keys() != own:
            return f"has the {name} {', '.join(map(repr, sorted(members.keys() ^ own)))}, or lacks them"
    kinds = {"reason": str, "window": str, "detail": str | None, "chips": int}
    wrong = [name for name, kind in kinds.items() if not isinstance(properties[name], kind)]
    if wrong or isinstance(properties["chips"], bool) or feature["type"] != "Feature":
        return f"has {', '.join(f'{name} {properties[name]!r:.40}' for name in wrong) or 'another type'}"
    return None if _is_geojson_polygon(feature["geometry"]) else "has no valid polygon"


def _is_geojson_polygon(geometry: object) -> bool:
    if not isinstance(geometry, dict) or geometry.keys() != {"type", "coordinates"}:
        return False
    if geometry["type"] not in {"Polygon", "MultiPolygon"}:
        return False
    try:
        shape = shapely.geometry.shape(geometry)
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, shapely.errors.GEOSException):
        return False
    west, south, east, north = shape.bounds
    return bool(shape.is_valid and not shape.has_z and west >= -180 and east <= 180 and south >= -90 and north <= 90)
