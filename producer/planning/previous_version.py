"""The version before: which of its images stay, and which are new, mended, changed or gone."""

from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import shapely

from clay_publish.producer.layouts.base import Unit
from clay_publish.producer.outputs.missing import LASTING, lost_rows
from clay_publish.producer.planning.estimate import Comparison
from clay_publish.producer.sources.item import SourceItem
from clay_publish.producer.sources.selection import Selection
from clay_publish.producer.unit_plan import Inputs
from clay_publish.release import directory as paths
from clay_publish.release.directory import Release
from clay_publish.release.fingerprint import Fingerprint
from clay_publish.release.semver import Version, VersionStep, check_version

_COVERAGE_COLUMNS = ["id", "status", "reason"]


def check_growth(inputs: Inputs, units: Iterable[Unit]) -> None:
    """Refuse a version number that is too small for the chips that there are images for and the one before lacks.

    Such a chip may turn out to be cloud or nodata all the same; by then the run would be paid for.

    Raises:
        SpecError: the version is a patch, and more chips are to be made.
        ReleaseError: the version before cannot be read.
    """
    spec = inputs.spec
    if spec.previous is None:
        return
    before = Release(spec.previous)
    theirs = before.spec().version
    if Version.parse(spec.version) >= Version.parse(theirs).smallest_after(VersionStep.MINOR):
        return  # enough for any number of chips, which need not be counted then
    _, stays = compare(inputs.selection, before, inputs.fingerprint)
    known = {path: before.parquet(path).read(columns=_COVERAGE_COLUMNS) for path in before.data_files(paths.COVERAGE)}
    for unit in units:
        more = _more(unit, known, stays)
        if more:
            because = f"there are images now for chips without an embedding there ({more} around {unit.items[0].id})"
            check_version(spec.version, theirs, VersionStep.MINOR, because)


def _more(unit: Unit, known: dict[str, pa.Table], stays: frozenset[str]) -> int:
    """Chips of a unit that the version before has no embedding of, and that images may give now."""
    if not unit.items or not unit.chips:
        return 0  # no image, or one of which nobody knows yet whether it gives any
    frame, _ = lost_rows(unit, "failed", "")
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


_COLUMNS = ["id", "status", "offset", "datetime", "assets"]


def compare(selection: Selection, previous: Release, fingerprint: Fingerprint) -> tuple[Comparison, frozenset[str]]:
    """Images of this version against those of the one before.

    Returns:
        The comparison, and the ids of images whose chips will be taken over.

    Raises:
        ReleaseError: the version before cannot be read.
    """
    before = {row["id"]: row for row in previous.parquet(paths.SOURCES).read(columns=_COLUMNS).to_pylist()}
    unreadable = _unreadable(previous)
    used = {each.item.id: each.item for each in selection.considered if each.status == "used"}
    known = {name: row for name, row in before.items() if row["status"] == "used" and name not in unreadable}
    kept = used.keys() & known.keys()
    changed = {name for name in kept if _content(used[name]) != _content_before(known[name])}
    mended = {name for name in used.keys() - known.keys() if _was_bad(before.get(name), name in unreadable)}
    same_model = not previous.fingerprint().differences(fingerprint)
    comparison = Comparison(
        previous=previous.store.where,
        new=len(used.keys() - known.keys() - mended),
        mended=len(mended),
        stays=len(kept) - len(changed),
        changed=len(changed),
        gone=len(known.keys() - used.keys()),
        same_model=same_model,
    )
    return comparison, frozenset(kept - changed) if same_model else frozenset()


def _unreadable(previous: Release) -> set[str]:
    """Images that could not be read."""
    found: set[str] = set()
    for path in previous.data_files(paths.COVERAGE):
        table = previous.parquet(path).read(columns=["reason", "item_ids"]).to_pydict()
        for reason, ids in zip(table["reason"], table["item_ids"], strict=True):
            if reason in {"unreadable", "source_changed", "failed"}:
                found.update(ids)
    return found


def _was_bad(row: dict[str, Any] | None, unreadable: bool) -> bool:
    """Whether an image that is used now was excluded, unusable or unreadable before."""
    return unreadable or (row is not None and (row["status"] == "excluded" or not row["assets"]))


def _content(item: SourceItem) -> tuple[Any, ...]:
    return (item.acquired, item.offset)


def _content_before(row: dict[str, Any]) -> tuple[Any, ...]:
    return (row["datetime"], row["offset"])
