"""The planning stage: spec in; `plan.json`, `plan.parquet` and `plan.png` in `.run/` out."""

import shutil
from pathlib import Path

from clay_publish.errors import ReleaseError
from clay_publish.producer.calibrate import calibrate as time_chips
from clay_publish.producer.calibrate import observed
from clay_publish.producer.outputs.parts import finished_units
from clay_publish.producer.planning.estimate import Comparison, Done, Estimate, estimate, stated_rates
from clay_publish.producer.planning.estimate_files import write_estimate
from clay_publish.producer.planning.image_files import identify_files, read_grids, read_some_grids
from clay_publish.producer.planning.map import CELLS, draw_plan
from clay_publish.producer.planning.observations import draw_observations, estimated
from clay_publish.producer.planning.previous_version import PreviousVersion
from clay_publish.producer.unit_plan import Inputs, read_inputs
from clay_publish.progress import Progress, Report, silent
from clay_publish.release import directory as paths
from clay_publish.release.directory import Release
from clay_publish.release.manifest import UNITS
from clay_publish.spec.models import Spec


def _free(release: Release) -> int | None:
    """Free bytes where a release in a directory goes."""
    if not release.store.local:
        return None
    where = Path(release.store.where)
    return shutil.disk_usage(next(each for each in (where, *where.parents) if each.exists())).free


PICTURE = f"{paths.RUN}/plan.png"
OBSERVATIONS = f"{paths.RUN}/observations.png"
_MASKS = 16
"""Cells of each window whose masks a calibration reads, at most: each takes the masks of all images there."""


def _done(inputs: Inputs, release: Release) -> tuple[Comparison | None, Done, ReleaseError | None]:
    """What a run need not compute; how images differ from the version before; why the release cannot go on."""
    plan, comparison, reused, chips = inputs.plan(), None, 0, {}
    if inputs.spec.previous is not None:
        previous = PreviousVersion(inputs)
        split = previous.split(plan)
        comparison, plan, reused, chips = previous.compare(), split.plan, split.reused, split.to_compute
    if not release.store.exists(UNITS):
        return comparison, Done(reused), None
    conflict = plan.conflict(release)
    if conflict is not None:
        return comparison, Done(reused), conflict
    there = finished_units(release, failed=True)
    units = [unit for unit in plan.units if unit.id in there and not unit.reused]
    done = [unit for unit in units if there[unit.id].error is None]
    computed = sum(chips[unit.id] if unit.id in chips else unit.with_imagery() for unit in done)
    return comparison, Done(reused, computed, sum(there[unit.id].seconds for unit in units)), None


def plan(
    spec: Spec,
    release: Release,
    *,
    calibrate: int | None = None,
    read_headers: bool = False,
    report: Report = silent,
) -> Estimate:
    """Say what a run of this spec will be. Of pixels, only samples and those of a calibration are read.

    Args:
        spec: the release spec.
        release: the directory the run will write to; the plan is kept in its `.run/`.
        calibrate: about how many real chips to time on this machine.
        read_headers: read the headers of all images that do not state their grid, were there more than 10,000.
        report: receives the progress.

    Raises:
        SpecError, SourceError, LicenseError, EncoderError: as `produce`.
    """
    inputs = read_inputs(spec, report=report)
    if inputs.layout.gsd is None:
        report(Progress("plan", 0, 3, "reading headers"))
        unread = read_grids(inputs.selection.considered, inputs.sensor, every=read_headers)
        if unread:
            report(Progress("plan", 0, 3, f"{unread:,} headers are not read: chips are estimated; use --read-headers"))
    else:
        read_some_grids(inputs.selection.considered, inputs.sensor)
    comparison, done, conflict = None, Done(), None
    if spec.previous is not None or release.store.exists(UNITS):
        identify_files(release, inputs.selection.considered, inputs.sensor, report=report)
        comparison, done, conflict = _done(inputs, release)
    rates, shares = stated_rates(spec), None
    if calibrate is not None:
        report(Progress("plan", 1, 3, f"timing {calibrate} chips"))
        rates, shares = time_chips(inputs, chips=calibrate)
    seen = estimated(inputs) if spec.combines else []
    if seen and calibrate is not None:
        report(Progress("plan", 1, 3, "reading cloud masks"))
        seen = observed(inputs, cells=min(calibrate, _MASKS))
    report(Progress("plan", 2, 3, "counting cells"))
    made, counts = estimate(
        inputs,
        rates=rates,
        shares=shares,
        comparison=comparison,
        done=done,
        seen=seen,
        free_bytes=_free(release),
    )
    if conflict is not None:
        made = made.model_copy(update={"warnings": [*made.warnings, f"`run` refuses this: {conflict}"]})
    write_estimate(release, made, counts)
    few = counts.with_imagery > 0 and counts.expected <= CELLS
    units = inputs.plan().units if few else ()
    drawn = draw_plan(inputs.areas, inputs.used, units, counts, spec.chips.size * inputs.gsd)
    release.store.write(PICTURE, drawn)
    if seen:
        release.store.write(OBSERVATIONS, draw_observations(seen))
    report(Progress("plan", 3, 3, f"{made.chips['expected']:,} chips expected"))
    return made
