"""One self-contained page: no script, no request, every text of the release escaped."""

import base64
import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import jinja2
import shapely

from clay_publish import __version__
from clay_publish.geo.area import land
from clay_publish.release.findings import GroundMap, Histogram, Measures, Severity, ValidationReport
from clay_publish.validate.registry import Rule
from clay_publish.validate.reports.grouping import by_kind, rule_link

WIDTH = 640
_TALL = 480
_BARS = (640, 180)
_RINGS = 1000


@dataclass(frozen=True)
class Map:
    """The ground of one window."""

    window: str
    width: int
    height: int
    embedded: str
    """SVG path."""
    missing: list[tuple[str, int, str]]
    """Reason, number of its color, SVG path."""
    land: str
    """SVG path."""
    places: list[tuple[str, float, float, int]]
    """Rules of the findings at a place, x, y, and how many."""


@dataclass(frozen=True)
class Bars:
    """A distribution."""

    name: str
    path: str
    low: str
    middle: str
    high: str
    chips: int


def maps(measures: Measures) -> list[Map]:
    """One for each window that lacks chips; one in all where none does."""
    ground = measures.ground
    middle = (ground.bbox[0] + ground.bbox[2]) / 2 if ground else 0.0
    around = [point for outline in measures.outlines for point in outline.ring if _on_earth(point)]
    points = [(_turned(lon, middle), lat) for lon, lat in around]
    if ground is None and not points:
        return []
    west, south, east, north = _bounds(ground, points)
    # Degrees of longitude are shorter than degrees of latitude, by the cosine of the latitude.
    shrink = max(0.05, math.cos(math.radians((south + north) / 2)))
    scale = min(WIDTH / ((east - west) * shrink), _TALL / (north - south))

    def place(lon: float, lat: float) -> tuple[float, float]:
        return (_turned(lon, middle) - west) * shrink * scale, (north - lat) * scale

    width, height = (math.ceil(size) for size in place(east, south))
    embedded = _cells(ground, place) if ground else ""
    coast = "".join(_ring([place(*point) for point in ring]) for ring in _land(west, south, east, north))
    spots: dict[tuple[float, float], list[str]] = {}
    for found in measures.places:
        x, y = place(found.lon, found.lat)
        spots.setdefault((round(x), round(y)), []).append(found.code)
    marks = [(", ".join(sorted(set(codes))), x, y, len(codes)) for (x, y), codes in sorted(spots.items())]
    reasons = reasons_of(measures)
    windows = sorted({outline.window for outline in measures.outlines}) or [""]
    drawn = []
    for window in windows:
        missing = []
        for number, reason in enumerate(reasons):
            rings = [o.ring for o in measures.outlines if (o.window, o.reason) == (window, reason)]
            rings = [ring for ring in rings if ring and all(map(_on_earth, ring))]
            if rings:
                missing.append((reason, number, "".join(_ring([place(*point) for point in ring]) for ring in rings)))
        drawn.append(Map(window, max(width, 1), max(height, 1), embedded, missing, coast, marks))
    return drawn


def _turned(lon: float, middle: float) -> float:
    """A longitude on the side of the antimeridian where a map's middle is."""
    return lon + 360 if middle - lon > 180 else lon


def _land(west: float, south: float, east: float, north: float) -> list[list[tuple[float, float]]]:
    """Rings of the land in a box, which may go on beyond 180 degrees."""
    boxes = [(west, min(east, 180.0)), *([(-180.0, east - 360)] if east > 180 else [])]
    parts = shapely.get_parts([shapely.clip_by_rect(land(), a, south, b, north) for a, b in boxes])
    rings = [part.exterior for part in parts if part.geom_type == "Polygon" and not part.is_empty]
    return [[(float(x), float(y)) for x, y in ring.coords] for ring in rings[:_RINGS]]


def reasons_of(measures: Measures) -> list[str]:
    """Every reason that chips lack for, in the order of their colors."""
    return sorted({m.reason for m in measures.missing} | {o.reason for o in measures.outlines})


def bars(name: str, histogram: Histogram) -> Bars:
    """A histogram as one path, and the numbers at its ends and its middle."""
    width, height = _BARS
    step, most = width / len(histogram.counts), max(histogram.counts)
    path = "".join(
        f"M{n * step:.1f} {height}v{-height * count / most:.1f}h{max(step - 1, 0.5):.1f}V{height}z"
        for n, count in enumerate(histogram.counts)
        if count
    )
    total, seen, middle = sum(histogram.counts), 0, 0
    while seen + histogram.counts[middle] < total / 2:
        seen += histogram.counts[middle]
        middle += 1
    edges = histogram.edges
    low, high = f"{edges[0]:.4g}", f"{edges[-1]:.4g}"
    return Bars(name, path, low, f"{(edges[middle] + edges[middle + 1]) / 2:.4g}", high, total)


def _on_earth(point: Sequence[float]) -> bool:
    return -180 <= point[0] <= 180 and -90 <= point[1] <= 90


def _bounds(ground: GroundMap | None, points: list[tuple[float, float]]) -> tuple[float, float, float, float]:
    corners = [*points, *([(ground.bbox[0], ground.bbox[1]), (ground.bbox[2], ground.bbox[3])] if ground else [])]
    lons, lats = [lon for lon, _ in corners], [lat for _, lat in corners]
    west, south, east, north = min(lons), min(lats), max(lons), max(lats)
    return west, south, max(east, west + 1e-6), max(north, south + 1e-6)


def _cells(ground: GroundMap, place: Callable[[float, float], tuple[float, float]]) -> str:
    west, south, east, north = ground.bbox
    rows, columns = len(ground.counts), len(ground.counts[0])
    path = []
    for row, counts in enumerate(ground.counts):
        start = None
        for column, count in enumerate([*counts, 0]):
            if count and start is None:
                start = column
            elif not count and start is not None:
                left, top = place(west + (east - west) * start / columns, south + (north - south) * (row + 1) / rows)
                right, bottom = place(west + (east - west) * column / columns, south + (north - south) * row / rows)
                path.append(f"M{left:.1f} {top:.1f}H{right:.1f}V{bottom:.1f}H{left:.1f}z")
                start = None
    return "".join(path)


def _ring(points: list[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) + "z"


_CAPTIONS = {
    "norm": "Length of the vectors",
    "loss": "Reconstruction loss",
    "similarity": "Cosine of two chips drawn at random",
}


def html(validation: ValidationReport, rules: Sequence[Rule]) -> str:
    """The report as a page. Its policy lets a browser load nothing and run nothing."""
    measures = validation.measures
    style = (files("clay_publish.validate.reports") / "templates" / "report.css").read_text(encoding="utf-8")
    return _template().render(
        validation=validation,
        version=__version__,
        style=style,
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        verdict=verdict(validation),
        worst=validation.worst(),
        kinds=by_kind(validation.findings),
        link=rule_link,
        foreign="ANY001" in validation.checked,
        titles={rule.code: rule.title for rule in rules},
        unchecked=[(c, s.partition(": ")[2]) for c, s in validation.checked.items() if s.startswith("not checked")],
        passed=[(c, s) for c, s in validation.checked.items() if s.startswith("passed")],
        measures=measures,
        maps=maps(measures) if measures else [],
        reasons=reasons_of(measures) if measures else [],
        bars=[(bars(n, h), _CAPTIONS[n]) for n, h in measures.distributions.items()] if measures else [],
    )


def verdict(validation: ValidationReport) -> str:
    """One line that says it all."""
    if all(state.startswith("not checked") for state in validation.checked.values()):
        return "Not validated: no rule could be checked"
    worst = validation.worst()
    if worst is None:
        return "Valid as far as a quick look tells" if validation.quick else "Valid: nothing is wrong"
    counts = [(sum(f.severity == s for f in validation.findings), str(s)) for s in reversed(Severity)]
    counted = ", ".join(f"{n} {name}{'s' if n != 1 and name != 'info' else ''}" for n, name in counts if n)
    return f"{'Not valid' if worst is Severity.ERROR else 'Valid, with remarks'}: {counted}"


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    text = (files("clay_publish.validate.reports") / "templates" / "report.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(text)
