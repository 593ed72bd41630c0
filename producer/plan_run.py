"""The planning stage: spec in; `plan.json`, `plan.parquet` and `plan.png` in `.run/` out."""

from clay_publish.producer.calibrate import calibrate as time_chips
from clay_publish.producer.planning.estimate import Estimate, estimate, stated_rates
from clay_publish.producer.planning.files import write_estimate
from clay_publish.producer.planning.map import CELLS, draw_plan
from clay_publish.producer.planning.previous_version import check_growth, compare
from clay_publish.producer.unit_plan import read_inputs
from clay_publish.progress import Progress, Report, silent
from clay_publish.release import directory as paths
from clay_publish.release.directory import Release
from clay_publish.spec.models import Spec

PICTURE = f"{paths.RUN}/plan.png"


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
    few = counts.with_imagery > 0 and counts.expected <= CELLS
    units = inputs.plan(inputs.selection.considered).units if few else ()
    drawn = draw_plan(inputs.areas, inputs.used, units, counts, spec.chips.size * inputs.gsd)
    release.store.write(PICTURE, drawn)
    report(Progress("plan", 3, 3, f"{made.chips['expected']} chips"))
    return made
