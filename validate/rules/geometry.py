"""Rules on footprints by themselves: sound, in degrees, and told the same way in every column."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import shapely

from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.data.chips import ChipRows
from clay_publish.validate.data.footprints import metres_per_degree
from clay_publish.validate.outcomes import BadRows, Fault, Outcome, bad_rows
from clay_publish.validate.registry import row_rule, rule

_METRE = 0.1
"""How far a footprint may be from its pixels."""
_SAME = 1e-7
"""Degrees, about a centimetre."""

Bools = npt.NDArray[np.bool_]


@row_rule("GEO001")
def valid(chips: ChipRows, _: ReleaseContext) -> Sequence[BadRows]:
    """Readable, polygonal, simple."""
    prints, null = chips.footprints, chips.nulls("geometry")

    def found(row: int) -> str:
        if not prints.readable[row]:
            return "cannot be read as WKB"
        geometry = prints.geometries[row]
        return str(shapely.is_valid_reason(geometry) if prints.polygonal[row] else geometry.geom_type)

    bad = ~null & ~(prints.readable & prints.polygonal & prints.valid)
    return bad_rows(bad, found, "a valid Polygon or MultiPolygon")


@row_rule("GEO002")
def counterclockwise(chips: ChipRows, _: ReleaseContext) -> Sequence[BadRows]:
    """RFC 7946, 3.1.6; GeoParquet's `orientation`."""
    bad = chips.footprints.polygonal & ~chips.footprints.counterclockwise
    return bad_rows(bad, "a clockwise ring", "counterclockwise exterior rings")


@row_rule("GEO003")
def in_degrees(chips: ChipRows, _: ReleaseContext) -> Sequence[BadRows]:
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


@row_rule("GEO004")
def bbox_is_bounds(chips: ChipRows, _: ReleaseContext) -> Sequence[BadRows]:
    """To a centimetre."""
    bounds, boxes = chips.footprints.bounds, chips.boxes
    known = np.isfinite(bounds).all(axis=1)
    same: Bools = np.all(np.abs(bounds - boxes) <= _SAME, axis=1)
    return bad_rows(known & ~same, lambda row: _numbers(boxes[row]), "the bounds of its geometry")


@row_rule("GEO005")
def centre_is_centre(chips: ChipRows, _: ReleaseContext) -> Sequence[BadRows]:
    """Within 2 % of the chip's side, as a projected square bends."""
    prints = chips.footprints
    lon, lat = chips.floats("lon"), chips.floats("lat")
    east, north = metres_per_degree(np.clip(lat, -90, 90))
    with np.errstate(invalid="ignore"):
        along = np.mod(lon - prints.centre[:, 0] + 180, 360) - 180
        away = np.hypot(along * east, (lat - prints.centre[:, 1]) * north)
        bad = away > np.maximum(0.02 * np.sqrt(prints.area), _METRE)
    return bad_rows(bad, lambda row: f"{away[row]:,.1f} m from the centre", "the centre of its pixels")


@row_rule("GEO006")
def antimeridian(chips: ChipRows, _: ReleaseContext) -> Sequence[BadRows]:
    """A chip is never half the Earth wide."""
    box = chips.footprints.bounds
    with np.errstate(invalid="ignore"):
        wide = np.asarray(chips.footprints.polygonal & (box[:, 2] - box[:, 0] > 180))
    return bad_rows(wide, lambda row: f"{box[row, 2] - box[row, 0]:.1f} degrees wide", "two parts, cut at ±180")


@rule("GEO014")
def footer_bbox(context: ReleaseContext) -> Iterator[Outcome]:
    """`geo.columns.geometry.bbox` against the rows."""
    facts = context.scan.facts
    for path, box in facts.boxes.items():
        told = context.tables.keys[path].get("geo", {}).get("columns", {}).get("geometry", {}).get("bbox")
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
