"""The planning stage: spec in; `plan.json`, `plan.parquet` and `plan.png` in `.run/` out."""

import io

import matplotlib as mpl
import numpy as np
import shapely
from matplotlib.collections import PolyCollection
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from clay_publish.geo.area import land
from clay_publish.geo.footprints import footprints
from clay_publish.geo.utm_zones import SQUARE
from clay_publish.producer.calibrate import calibrate as time_chips
from clay_publish.producer.layouts.base import Counts
from clay_publish.producer.planning.estimate import Estimate, estimate, stated_rates
from clay_publish.producer.planning.files import write_estimate
from clay_publish.producer.planning.previous_version import check_growth, compare
from clay_publish.producer.unit_plan import read_inputs
from clay_publish.progress import Progress, Report, silent
from clay_publish.release import directory as paths
from clay_publish.release.directory import Release
from clay_publish.spec.models import Spec

PICTURE = f"{paths.RUN}/plan.png"

_NONE = "#c1440e"
"""Squares without any imagery stand out."""


def draw(release: Release, counts: Counts) -> None:
    """Write `plan.png`: each 100 km square by the share of its chips that some image covers, all windows together."""
    expected: dict[object, int] = {}
    covered: dict[object, int] = {}
    for each in counts.squares:
        expected[each.square] = expected.get(each.square, 0) + each.expected
        covered[each.square] = covered.get(each.square, 0) + each.with_imagery
    outlines, shares = [], []
    for square in sorted({each.square for each in counts.squares}):
        x, y = square.column * SQUARE, square.row * SQUARE
        corners = np.array([[[x, y], [x + SQUARE, y], [x + SQUARE, y + SQUARE], [x, y + SQUARE]]], dtype=np.float64)
        # Northings counted from the equator, in the northern projection continued to the south.
        for part in shapely.get_parts(footprints(f"EPSG:{32600 + square.zone}", corners)[0]):
            outlines.append(shapely.get_coordinates(part))
            shares.append(covered[square] / expected[square])
    west, south, east, north = _frame(outlines)
    slant = max(np.cos(np.radians((south + north) / 2)), 0.2)
    height = float(np.clip((north - south) / ((east - west) * slant) * 8, 3, 9))
    figure = Figure(figsize=(10, height + 0.8), layout="constrained")
    axes = figure.add_subplot()
    _draw_land(axes, (west, south, east, north))
    colours = ListedColormap(np.vstack([mpl.colors.to_rgba(_NONE), mpl.colormaps["YlGn"](np.linspace(0.25, 1, 100))]))
    drawn = axes.add_collection(
        PolyCollection(outlines, array=np.array(shares), cmap=colours, edgecolors="white", linewidths=0.2, alpha=0.85)
    )
    drawn.set_clim(0, 1)
    figure.colorbar(drawn, ax=axes, label="share of the expected chips with imagery", shrink=0.7)
    axes.locator_params(nbins=7)
    axes.set(xlim=(west, east), ylim=(south, north), xlabel="longitude", ylabel="latitude")
    axes.set_aspect(1 / slant)
    axes.set_title(f"{counts.with_imagery:,} of {counts.expected:,} expected chips have imagery")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    release.store.write(PICTURE, picture.getvalue())


def _frame(outlines: list[np.ndarray]) -> tuple[float, float, float, float]:
    """Around everything, with some room."""
    if not outlines:
        return -180.0, -90.0, 180.0, 90.0
    every = np.concatenate(outlines)
    (west, south), (east, north) = every.min(axis=0), every.max(axis=0)
    room = max(0.5, 0.08 * max(east - west, north - south))
    return max(west - room, -180), max(south - room, -90), min(east + room, 180), min(north + room, 90)


def _draw_land(axes: mpl.axes.Axes, frame: tuple[float, float, float, float]) -> None:
    shown = shapely.clip_by_rect(land(), *frame)
    drawn = shapely.simplify(shapely.get_parts(shown), (frame[2] - frame[0]) / 2000, preserve_topology=False)
    rings = [shapely.get_coordinates(shapely.get_exterior_ring(p)) for p in shapely.get_parts(drawn)]
    axes.add_collection(PolyCollection(rings, facecolors="#ececec", edgecolors="#b0b0b0", linewidths=0.4))


def plan(spec: Spec, release: Release, *, calibrate: int | None = None, report: Report = silent) -> Estimate:
    """Say what a run of this spec will be. No pixel is read, but for those of a calibration.

    Args:
        spec: the release spec.
        release: the directory the run will write to; the plan is kept in its `.run/`.
        calibrate: about how many real chips to time on this machine.
        report: who is told how far it is.

    Raises:
        SpecError, SourceError, LicenseError, EncoderError: as `produce`.
    """
    inputs = read_inputs(spec, report=report)
    comparison, stays = None, frozenset[str]()
    if spec.previous is not None:
        comparison, stays = compare(inputs.selection, Release(spec.previous), inputs.fingerprint)
        check_growth(inputs, inputs.plan(inputs.selection.considered).units)
    rates, shares = stated_rates(spec), None
    if calibrate is not None:
        report(Progress("plan", 1, 3, f"timing {calibrate} chips"))
        rates, shares = time_chips(inputs, chips=calibrate)
    report(Progress("plan", 2, 3, "counting cells"))
    made, counts = estimate(inputs, rates=rates, shares=shares, comparison=comparison, stays=stays)
    write_estimate(release, made, counts)
    draw(release, counts)
    report(Progress("plan", 3, 3, f"{made.chips['expected']} chips"))
    return made
