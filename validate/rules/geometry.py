"""Rules on footprints by themselves: sound, in degrees, and told the same way in every column."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import shapely

from clay_publish.release.findings import Severity
from clay_publish.validate.context import View
from clay_publish.validate.data.chips import ChipRows
from clay_publish.validate.data.footprints import metres_per_degree
from clay_publish.validate.registry import BadRows, Fault, Outcome, bad_rows, row_rule, rule

_ERROR = Severity.ERROR
_METRE = 0.1
"""How far a footprint may be from its pixels."""
_SAME = 1e-7
"""Degrees, about a centimetre."""

Bools = npt.NDArray[np.bool_]


@row_rule(
    "GEO001",
    _ERROR,
    "Footprints are valid polygons",
    reason="A geometry that crosses itself or is none makes spatial joins fail or lie.",
    fix="Write the footprint of the chip's pixels as WKB Polygon or MultiPolygon.",
)
def valid(chips: ChipRows, _: View) -> Sequence[BadRows]:
    """Readable, polygonal, simple."""
    prints, null = chips.footprints, chips.nulls("geometry")

    def found(row: int) -> str:
        if not prints.readable[row]:
            return "cannot be read as WKB"
        geometry = prints.geometries[row]
        return str(shapely.is_valid_reason(geometry) if prints.polygonal[row] else geometry.geom_type)

    bad = ~null & ~(prints.readable & prints.polygonal & prints.valid)
    return list(bad_rows(bad, found, "a valid Polygon or MultiPolygon"))


@row_rule(
    "GEO002",
    _ERROR,
    "Rings run counterclockwise",
    reason="Readers on a sphere take a clockwise ring for the whole Earth without the chip.",
    fix="Orient exterior rings counterclockwise (`shapely.orient_polygons`).",
)
def counterclockwise(chips: ChipRows, _: View) -> Sequence[BadRows]:
    """RFC 7946, 3.1.6; GeoParquet's `orientation`."""
    bad = chips.footprints.polygonal & ~chips.footprints.counterclockwise
    return list(bad_rows(bad, lambda _: "a clockwise ring", "counterclockwise exterior rings"))


@row_rule(
    "GEO003",
    _ERROR,
    "Coordinates are degrees of longitude and latitude",
    reason="Metres, or an unprojected pixel position, put a chip on another planet.",
    fix="Transform footprints to OGC:CRS84.",
)
def in_degrees(chips: ChipRows, _: View) -> Sequence[BadRows]:
    """Ranges of footprints and centres."""
    box = chips.footprints.bounds
    with np.errstate(invalid="ignore"):
        outside = (np.abs(box[:, [0, 2]]) > 180 + _SAME).any(axis=1) | (np.abs(box[:, [1, 3]]) > 90 + _SAME).any(axis=1)
        outside |= chips.footprints.polygonal & ~np.isfinite(box).all(axis=1)
        away = ~((np.abs(chips.floats("lon")) <= 180) & (np.abs(chips.floats("lat")) <= 90))
    away &= ~chips.nulls("lon") & ~chips.nulls("lat")
    return [
        *bad_rows(outside, lambda row: f"bounds {_numbers(box[row])}", "degrees, ±180 and ±90"),
        *bad_rows(
            away, lambda row: f"lon {chips.value('lon', row)}, lat {chips.value('lat', row)}", "degrees, ±180 and ±90"
        ),
    ]


@row_rule(
    "GEO004",
    _ERROR,
    "The column bbox is the bounds of the footprint",
    reason="Readers skip by it: a wrong box hides the chip from every search of its place.",
    fix="Compute bbox from geometry, to the last digit or outward.",
)
def bbox_is_bounds(chips: ChipRows, _: View) -> Sequence[BadRows]:
    """To a centimetre."""
    bounds, boxes = chips.footprints.bounds, chips.boxes
    known = np.isfinite(bounds).all(axis=1)
    same: Bools = np.all(np.abs(bounds - boxes) <= _SAME, axis=1)
    return list(bad_rows(known & ~same, lambda row: _numbers(boxes[row]), "the bounds of its geometry"))


@row_rule(
    "GEO005",
    _ERROR,
    "lon and lat are the centre of the footprint",
    reason="Labels are joined by centre; half a chip of offset trains a model on the neighbour's ground.",
    fix="Write the transformed centre of the chip's pixels.",
)
def centre_is_centre(chips: ChipRows, _: View) -> Sequence[BadRows]:
    """Within 2 % of the chip's side, as a projected square bends."""
    prints = chips.footprints
    lon, lat = chips.floats("lon"), chips.floats("lat")
    east, north = metres_per_degree(np.clip(lat, -90, 90))
    with np.errstate(invalid="ignore"):
        along = np.mod(lon - prints.centre[:, 0] + 180, 360) - 180
        away = np.hypot(along * east, (lat - prints.centre[:, 1]) * north)
        bad = away > np.maximum(0.02 * np.sqrt(prints.area), _METRE)
    return list(bad_rows(bad, lambda row: f"{away[row]:,.1f} m from the centre", "the centre of its pixels"))


@row_rule(
    "GEO006",
    _ERROR,
    "Footprints that cross the antimeridian are split there",
    reason="A ring from 179 to −179 degrees goes all the way round the Earth in every reader.",
    fix="Write a MultiPolygon cut at ±180 degrees and a bbox with xmin > xmax (RFC 7946, 3.1.9 and 5.2).",
)
def antimeridian(chips: ChipRows, _: View) -> Sequence[BadRows]:
    """A chip is never half the Earth wide."""
    box = chips.footprints.bounds
    with np.errstate(invalid="ignore"):
        wide = np.asarray(chips.footprints.polygonal & (box[:, 2] - box[:, 0] > 180))
    return list(bad_rows(wide, lambda row: f"{box[row, 2] - box[row, 0]:.1f} degrees wide", "two parts, cut at ±180"))


@rule(
    "GEO014",
    _ERROR,
    "The bbox in the geo footer holds all footprints of the file",
    reason="Readers skip whole files by it.",
    fix="Write the bounds of the file's footprints into the geo footer.",
)
def footer_bbox(view: View) -> Iterator[Outcome]:
    """`geo.columns.geometry.bbox` against the rows."""
    facts = view.scan.facts
    for path, box in facts.boxes.items():
        told = view.footers[path].get("geo", {}).get("columns", {}).get("geometry", {}).get("bbox")
        if told is None or len(told) != 4:
            continue
        west, south, east, north = told
        outside = (box[:, 1] < south - _SAME) | (box[:, 3] > north + _SAME)
        if west <= east:
            outside |= (box[:, 0] < west - _SAME) | (box[:, 2] > east + _SAME)
        else:
            outside |= (box[:, 0] < west - _SAME) & (box[:, 0] > east + _SAME)
        if outside.any():
            yield Fault(f"{path}: footer geo", f"bbox {_numbers(np.array(told))}", "the bounds of all footprints")


def _numbers(values: npt.NDArray[np.float64]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)
