"""The planning stage: spec in; `plan.json`, `plan.parquet` and `plan.png` in `.run/` out."""

from clay_publish.area import read_area
from clay_publish.grid import UtmGrid
from clay_publish.producer.calibrate import calibrate as time_chips
from clay_publish.producer.encoders import load_encoder
from clay_publish.producer.estimate import Estimate, estimate, stated_rates
from clay_publish.producer.growth import check_growth
from clay_publish.producer.plan import decided_by
from clay_publish.producer.plan_files import write_estimate
from clay_publish.producer.plan_map import draw
from clay_publish.producer.previous import compare
from clay_publish.producer.produce import fingerprint_of
from clay_publish.producer.selection import select
from clay_publish.producer.sensors import sensor
from clay_publish.producer.units import scene_units, utm_units
from clay_publish.progress import Progress, Report, silent
from clay_publish.release import Release
from clay_publish.spec import Spec
from clay_publish.versions import check_previous


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
    instrument = sensor(spec.sensor)
    encoder = load_encoder(spec, instrument)
    areas = [None if block.area is None else read_area(block.area) for block in spec.imagery]
    report(Progress("plan", 0, 3, "reading the sources"))
    selection = select(spec, instrument, [None if area is None else area.geometry for area in areas])
    gsd = None if spec.chips.layout == "scene" else spec.chips.gsd or instrument.gsd
    fingerprint = fingerprint_of(spec, instrument, encoder, gsd)
    check_previous(spec, fingerprint)
    comparison, stays = None, frozenset[str]()
    if spec.previous is not None:
        comparison, stays = compare(selection, Release(spec.previous), fingerprint)
        grounds, decided = [None if area is None else area.geometry for area in areas], decided_by(spec, fingerprint)
        if gsd is None:
            units = scene_units(spec, selection.considered, grounds, decided)
        else:
            units = utm_units(spec, UtmGrid(spec.chips.size * gsd), selection.considered, grounds, decided)
        check_growth(spec, selection, fingerprint, units)
    rates, shares = stated_rates(spec), None
    if calibrate is not None:
        report(Progress("plan", 1, 3, f"timing {calibrate} chips"))
        rates, shares = time_chips(spec, instrument, encoder, selection, areas, chips=calibrate)
    report(Progress("plan", 2, 3, "counting cells"))
    made, counts = estimate(
        spec,
        instrument,
        encoder,
        selection,
        areas,
        rates=rates,
        shares=shares,
        comparison=comparison,
        stays=stays,
    )
    write_estimate(release, made, counts)
    draw(release, counts)
    report(Progress("plan", 3, 3, f"{made.chips['expected']} chips"))
    return made
