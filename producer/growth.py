"""Whether a version will cover more than the one before: known, mostly, before any pixel is read."""

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc
import shapely

from clay_publish import release as paths
from clay_publish.fingerprint import Fingerprint
from clay_publish.producer.lost import lost_rows
from clay_publish.producer.plan import Unit
from clay_publish.producer.previous import compare
from clay_publish.producer.selection import Selection
from clay_publish.producer.takeover import LASTING
from clay_publish.release import Release
from clay_publish.spec import Spec
from clay_publish.versions import Step, Version, check_version

_COLUMNS = ["id", "status", "reason"]


def check_growth(spec: Spec, selection: Selection, fingerprint: Fingerprint, units: Iterable[Unit]) -> None:
    """Refuse a version number that is too small for the chips that there are images for and the one before lacks.

    Such a chip may turn out to be cloud or nodata all the same; by then the run would be paid for.

    Raises:
        SpecError: the version is a patch, and more chips are to be made.
        ReleaseError: the version before cannot be read.
    """
    if spec.previous is None:
        return
    before = Release(spec.previous)
    theirs = before.spec().version
    if Version.parse(spec.version) >= Version.parse(theirs).smallest_after(Step.MINOR):
        return  # enough for any number of chips, which need not be counted then
    _, stays = compare(selection, before, fingerprint)
    known = {path: before.parquet(path).read(columns=_COLUMNS) for path in before.data_files(paths.COVERAGE)}
    for unit in units:
        more = _more(unit, spec.chips.size, known, stays)
        if more:
            because = f"there are images now for chips without an embedding there ({more} around {unit.items[0].id})"
            check_version(spec.version, theirs, Step.MINOR, because)


def _more(unit: Unit, size: int, known: dict[str, pa.Table], stays: frozenset[str]) -> int:
    """Chips of a unit that the version before has no embedding of, and that images may give now."""
    if not unit.items or (unit.cells is None and unit.items[0].grid is None):
        return 0  # no image, or one of which nobody knows yet whether it gives any
    frame, _ = lost_rows(unit, size, "failed", "")
    more = 0
    for zone in pc.unique(frame["zone"]).to_pylist():
        chips = frame.filter(pc.equal(frame["zone"], zone)).combine_chunks()
        table = known.get(f"{paths.COVERAGE}/zone={zone:02d}.parquet")
        if table is None:
            more += chips.num_rows
            continue
        place = pc.index_in(chips["id"], table["id"].combine_chunks())
        status, reason = (table[name].take(place.combine_chunks()) for name in ("status", "reason"))
        lacking = pc.not_equal(status, "embedded")
        again = pc.and_(lacking, pc.or_(pc.is_in(reason, pa.array(LASTING)), _touched(chips, unit, stays)))
        more += pc.sum(pc.fill_null(again, fill_value=True)).as_py() or 0
    return more


def _touched(chips: pa.Table, unit: Unit, stays: frozenset[str]) -> pa.Array:
    """Whether an image that the version before did not use reaches each chip."""
    fresh = [item.geometry for item in unit.items if item.id not in stays]
    if not fresh or None in fresh:
        return pa.array([bool(fresh)] * chips.num_rows)
    ground = shapely.union_all(fresh)
    shapely.prepare(ground)
    return pa.array(shapely.intersects(ground, shapely.from_wkb(chips["geometry"].to_numpy(zero_copy_only=False))))
