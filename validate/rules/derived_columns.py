"""Rules on columns that follow from the chip's cell and its images: id, epsg, periods, counts, cloud fraction, loss."""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clay_publish.geo.utm_grid import UtmGrid
from clay_publish.release.directory import EMBEDDINGS
from clay_publish.release.tables import COMBINED
from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.data.chips import ChipRows
from clay_publish.validate.data.coverage_table import micros
from clay_publish.validate.outcomes import BadRows, Fault, Outcome, bad_rows
from clay_publish.validate.registry import row_rule, rule

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_MILLISECOND = 1_000
_SECOND = 1_000_000
"""Microseconds, as catalogs round."""
_FEW = 16
"""Chips, at least, whose losses differ."""
_NONE, _LAST = np.iinfo(np.int64).min, np.iinfo(np.int64).max

Ints = npt.NDArray[np.int64]


@row_rule("SCH017")
def ids_follow_the_rule(chips: ChipRows, context: ReleaseContext) -> Sequence[BadRows]:
    """`scene-PXpx_ITEM_ROW_COL_WINDOW`, or `utm-SIDEm_EPSG_ROW_COL_WINDOW`."""
    made, named = context.fingerprint, context.tables.named
    if made.layout == "scene":
        sources, different = context.sources, np.unique(context.sources.places(chips))
        different = different[different >= 0]
        places = context.sources.places(chips)
        own = pa.array(np.searchsorted(different, places), mask=places < 0)
        names = [f"scene-{made.size}px_{_safe(name)}" for name in sources.ids.take(pa.array(different)).to_pylist()]
        windows, place = sources.windows(sources.row_of[different])
        tokens = pa.array([window and window.token for window in windows], pa.string())
        head, tail = pa.array(names, pa.string()).take(own), tokens.take(pa.array(place)).take(own)
    elif chips.path in named:
        token = UtmGrid(context.grids.usual_side).token
        head = pc.binary_join_element_wise(token, pc.cast(chips.column("epsg"), pa.string()), "_")
        tail = pa.scalar(named[chips.path].window.token)
    else:
        return []  # SCH013
    cell = (pc.cast(chips.column(name), pa.string()) for name in ("row", "col"))
    expected = pc.binary_join_element_wise(head, *cell, tail, "_")
    same = pc.equal(chips.column("id"), expected).fill_null(pa.scalar(value=True)).to_numpy(zero_copy_only=False)
    return bad_rows(~same, "an id of another cell", "the id of its grid, cell and window")


def _safe(name: str) -> str:
    """An item's id as part of a chip's: unsafe characters replaced, and then a digest added."""
    safe = _UNSAFE.sub("-", name)[:100]
    return safe if safe == name else f"{safe}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


@row_rule("GEO015")
def epsg_is_that_of_the_grid(chips: ChipRows, context: ReleaseContext) -> Sequence[BadRows]:
    """`epsg` against the image's CRS; in the `utm` layout against the zone of the file."""
    found = chips.integers("epsg")
    if context.fingerprint.layout == "utm":
        if chips.path not in context.tables.named:
            return []  # SCH013
        expected = np.full(len(chips), context.tables.named[chips.path].square.epsg)
    else:
        places = context.sources.places(chips)
        stated = context.sources.codes_of(places)
        expected = np.where(places < 0, found, np.where(stated == 0, _NONE, stated))  # PRV006 reports unknown items
    return bad_rows(found != expected, lambda row: f"epsg {found[row]}", "the code of the chip's pixel grid")


@row_rule("TIM009")
def period_is_the_item_s(chips: ChipRows, context: ReleaseContext) -> Sequence[BadRows]:
    """`datetime`, `start_datetime` and `end_datetime` against those of the chip's item, within a millisecond."""
    if chips.has("images"):
        return []  # a composite has the period of all of its acquisitions
    places = context.sources.places(chips)
    bad = np.zeros(len(chips), dtype=bool)
    for name in context.sources.times:
        stated, own = context.sources.times_of(name, places), chips.micros(name)
        known = (stated != _NONE) & (own != _NONE)
        bad |= known & (np.abs(own - np.where(known, stated, own)) > _MILLISECOND)
    return bad_rows(bad, lambda row: _period(chips, row), "the times that sources.parquet states for the item")


def _period(chips: ChipRows, row: int) -> str:
    moment, start, end = (chips.value(name, row) for name in ("datetime", "start_datetime", "end_datetime"))
    return f"{moment}, {start} to {end}; item {chips.value('item_id', row)}"


@row_rule("PRV018")
def cloud_needs_a_mask(chips: ChipRows, context: ReleaseContext) -> Sequence[BadRows]:
    """`cloud_fraction` is null where none of the chip's items has a cloud mask."""
    cloud = ~chips.nulls("cloud_fraction")
    if not cloud.any():
        return []
    sources, (places, rows) = context.sources, _images(chips, context)
    masked = sources.texts["mask"].there
    some = sources.at(sources.places(chips), masked, hole=True)
    some[rows[sources.at(places, masked, hole=True)]] = True
    bad = cloud & ~some
    values = chips.floats("cloud_fraction")
    return bad_rows(bad, lambda row: f"cloud_fraction {values[row]:g}, and no item has a mask", "null")


@rule("SCH018")
def loss_is_in_every_file_or_none(context: ReleaseContext) -> Iterator[Outcome]:
    """Nulls of `loss`, as the statistics in the footers count them, against `outputs.loss`; more than one value."""
    bounds = set()
    asked = context.documents.spec.outputs.loss
    for path in context.tables.embeddings:
        footer = context.tables.footer(path)
        groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
        columns = [number for number in range(footer.num_columns) if footer.schema.column(number).path == "loss"]
        statistics = [group.column(number).statistics for group in groups for number in columns]
        if not statistics or any(each is None or each.null_count is None for each in statistics):
            continue
        nulls = sum(each.null_count for each in statistics)
        bounds |= {value for each in statistics if each.has_min_max for value in (each.min, each.max)}
        if nulls != (0 if asked else footer.num_rows):
            expected = (
                "a loss in every row, as release.yaml asks for" if asked else "none, as release.yaml asks for no loss"
            )
            yield Fault(f"{path}: loss", f"null in {nulls:,} of {footer.num_rows:,} rows", expected)
    if asked and len(bounds) == 1 and context.tables.rows >= _FEW:
        found = f"{bounds.pop():g} in all of {context.tables.rows:,} rows"
        yield Fault(f"{EMBEDDINGS}: loss", found, "losses that differ from chip to chip")


@row_rule("PRV019")
def images_are_counted(chips: ChipRows, context: ReleaseContext) -> Sequence[BadRows]:
    """`images` and the observations, against `item_ids`, the acquisitions of the sources, and the spec."""
    every, there = np.ones(len(chips), dtype=bool), [name for name in COMBINED if chips.has(name)]
    if not context.fingerprint.combines:
        return bad_rows(every, f"has the columns {', '.join(there)}", "none of composites") if there else []
    if len(there) < len(COMBINED):
        return bad_rows(every, f"has of the columns of composites only {there}", ", ".join(COMBINED))
    images, least, median = (chips.floats(name) for name in COMBINED)
    spec = context.documents.spec
    composite, steps = spec.imagery[0].composite, spec.model.steps or 1
    most = steps if spec.images_in_order or composite is None else composite.most * steps
    needed = 1 if composite is None else composite.min_valid
    counted = _acquisitions(chips, context)
    with np.errstate(invalid="ignore"):
        return [
            *bad_rows(images != counted, _number("images", images), "the number of acquisitions of item_ids"),
            *bad_rows(~((images >= 1) & (images <= most)), _number("images", images), f"1 to {most}"),
            *bad_rows(~(least >= needed), _number("observations_min", least), f"at least {needed}, as min_valid says"),
            *bad_rows(
                ~((median >= least) & (median <= images)),
                _number("observations_median", median),
                "between observations_min and images",
            ),
        ]


@row_rule("TIM010")
def period_is_the_images_(chips: ChipRows, context: ReleaseContext) -> Sequence[BadRows]:
    """Start, end, moment and `item_id`, against the images that `item_ids` names."""
    if not context.fingerprint.combines:
        return []
    if not context.sources.count:
        return []
    sources, (places, rows) = context.sources, _images(chips, context)
    known = (sources.times_of("datetime", places) != _NONE) & (places >= 0)
    places, rows = places[known], rows[known]
    moments, (starts, ends) = sources.times_of("datetime", places), sources.spans_of(places)
    first, last = _over(np.minimum, moments, rows, chips), _over(np.maximum, moments, rows, chips)
    asked = np.zeros(len(chips), dtype=bool)
    asked[rows] = True
    said = {name: chips.micros(name) for name in ("datetime", "start_datetime", "end_datetime")}
    expected = {
        "datetime": np.where(asked, first, 0) // 2 + np.where(asked, last, 0) // 2,
        "start_datetime": _over(np.minimum, starts, rows, chips),
        "end_datetime": _over(np.maximum, ends, rows, chips),
    }
    found = []
    for name, values in said.items():
        far = np.abs(np.where(asked, values - expected[name], 0)) > _SECOND
        found += bad_rows(far, _time(name, values), "as the images of item_ids say")
    if chips.path in context.tables.named:
        middle = micros(context.tables.named[chips.path].window.middle)
        own = sources.places(chips)
        away = np.abs(sources.times_of("datetime", own) - middle)
        nearest = _over(np.minimum, np.abs(moments - middle), rows, chips)
        far = asked & (own >= 0) & (away > nearest + _SECOND)
        found += bad_rows(
            far, lambda row: f"item_id {chips.value('item_id', row)!r}", "the image nearest to the window's middle"
        )
    return found


def _images(chips: ChipRows, context: ReleaseContext) -> tuple[Ints, Ints]:
    """Place among the sources of each image of each chip, −1 where it is none of them, and the chip's row."""

    def find() -> tuple[Ints, Ints]:
        lists = chips.column("item_ids")
        known = context.sources.find(pc.list_flatten(lists))
        rows = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False).astype(np.int64)
        return known.astype(np.int64), rows

    found: tuple[Ints, Ints] = chips.once("images", find)
    return found


def _acquisitions(chips: ChipRows, context: ReleaseContext) -> Ints:
    """How many acquisitions the images of each chip are of."""
    places, rows = _images(chips, context)
    places, rows = places[places >= 0], rows[places >= 0]
    pairs = np.unique(np.stack([rows, context.sources.acquisitions(places)], axis=1), axis=0)
    return np.bincount(pairs[:, 0], minlength=len(chips)).astype(np.int64)


def _over(ufunc: np.ufunc, values: Ints, rows: Ints, chips: ChipRows) -> Ints:
    """The least or greatest of the values of each row."""
    made = np.full(len(chips), _LAST if ufunc is np.minimum else _NONE, dtype=np.int64)
    ufunc.at(made, rows, values)
    return made


def _number(name: str, values: npt.NDArray[np.floating]) -> Callable[[int], str]:
    return lambda row: f"{name} {values[row]:g}"


def _time(name: str, values: Ints) -> Callable[[int], str]:
    return lambda row: f"{name} {np.datetime64(int(values[row]), 'us')}"
