"""The stage: spec in; sources, embeddings, coverage and gaps out, by one process or by one of several shares."""

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial

import pyarrow as pa

from clay_publish.errors import LockedError, ReleaseError, SpecError, require_extra, shown
from clay_publish.producer.encoders import Encoder, load_encoder
from clay_publish.producer.execution.context import make_work
from clay_publish.producer.execution.local import in_threads
from clay_publish.producer.execution.reuse import take_over
from clay_publish.producer.execution.run import Engine, Run, finish, run_units
from clay_publish.producer.outputs.arrays.shards import arrays_as_asked
from clay_publish.producer.outputs.patches import stated_before
from clay_publish.producer.outputs.sources_table import write_sources
from clay_publish.producer.planning.image_files import forget_identified, identify_files, keep_files
from clay_publish.producer.planning.previous_version import PreviousVersion, PublishedTables
from clay_publish.producer.planning.resolutions import notes
from clay_publish.producer.unit_plan import Inputs, Plan, read_inputs
from clay_publish.progress import Progress, Report, silent
from clay_publish.release import directory as paths
from clay_publish.release.directory import Release
from clay_publish.release.fingerprint import Fingerprint
from clay_publish.release.lease import lease
from clay_publish.release.lease.base import Lease, Share
from clay_publish.release.manifest import UNITS, RunRecord
from clay_publish.release.unit_receipts import Finish, UnitReceipt, read_receipts
from clay_publish.spec.load import dump_spec
from clay_publish.spec.models import Running, Spec
from clay_publish.storage.retry import RetryPolicy, retrying

Then = Callable[[RunRecord], None]


def engine_of(means: Running) -> Engine:
    """The engine that a spec asks for.

    Raises:
        MissingExtraError: it is not installed.
    """
    if means.engine == "local":
        return in_threads
    require_extra("ray", "The engine `ray`")
    from clay_publish.producer.execution.ray.engine import on_ray  # noqa: PLC0415 - Ray is imported by those who use it

    return partial(on_ray, means=means)


def produce(
    spec: Spec,
    release: Release,
    *,
    encoder: Encoder | None = None,
    check: str | None = None,
    report: Report = silent,
    then: Then | None = None,
) -> RunRecord:
    """Make the embeddings of a release. Run it again after anything: what is finished is not done twice.

    Args:
        spec: the release spec; `run` in it says on what.
        release: where to write to.
        encoder: one that is loaded already; default: the one the spec names. On Ray it only serves the plan: workers
            load the one the spec names, and refuse to begin where that is another.
        check: `module:name` of what validates each embeddings file where it is made; default: none is.
        report: receives the progress.
        then: called while the lease is still held; writes documents and manifest.

    Raises:
        SpecError, SourceError, LicenseError, EncoderError: before any pixel is read.
        MissingExtraError: Ray is asked for and not installed.
        LockedError: another process is at work there.
        ReleaseError: the directory was begun with another plan, or no chip could be embedded.
    """
    engine = engine_of(spec.run)
    model = encoder or load_encoder(spec, spec.instrument)
    with lease(release) as held:
        release.store.remove_orphans()
        run = begin(spec, release, model, check=check, report=report, held=held)
        record, end = finish(run, run_units(run, engine), engine), run.finish
        del run, model  # what follows may need the memory of millions of images
        return _complete(record, end, then)


def _complete(record: RunRecord, end: Finish, then: Then | None) -> RunRecord:
    """Say that the release is finished once all of it is there."""
    if then is not None:
        gc.collect()
        pa.system_memory_pool().release_unused()  # of the whole process: what was freed goes back to the system
        then(record)
    end.complete(described=then is not None)
    return record


def begin(
    spec: Spec,
    release: Release,
    encoder: Encoder,
    *,
    report: Report,
    held: Lease,
    check: str | None = None,
    share: Share | None = None,
) -> Run:
    """Plan a run or a share of it, make sure that the release was begun with the same plan, and write what is known.

    Several may do this at once, for shares of one run: what they write is the same, and the first plan counts.

    Raises:
        SpecError, SourceError, LicenseError, EncoderError: as `produce`.
        ReleaseError: the directory was begun with another plan.
    """
    inputs = read_inputs(spec, encoder=encoder, report=report)
    selection = inputs.selection
    begun = release.store.exists(UNITS)
    identify_files(release, selection.considered, inputs.sensor, keep=True, share=share, report=report)
    for note in notes(spec, inputs.sensor, inputs.used, inputs.layout.gsd):  # or refused, before anything is written
        report(Progress("plan", 0, 0, note))
    for sentence in inputs.layout.beyond(selection.considered, inputs.areas):
        report(Progress("plan", 0, 0, sentence))
    _check_arrays(spec, encoder)
    plan = _plan(inputs)
    work = make_work(release, spec, encoder, plan.fingerprint, check=check)
    keep_files(release, plan, selection.considered)
    try:
        began = plan.adopt(release, _today())
    except ReleaseError:
        if begun:
            raise
        identify_files(release, selection.considered, inputs.sensor)  # another share was first: what it found counts
        plan = _plan(inputs)
        began = plan.adopt(release, _today())
    forget_identified(release)
    if encoder.patches:
        report(Progress("plan", 0, 0, stated_before(encoder, spec.chips.size, spec.outputs.dtype)))
    release.store.write(paths.SPEC, dump_spec(_resolved(spec, plan.fingerprint, spec.released or began)))
    write_sources(release, selection.considered, selection.broken, spec)
    gsd = inputs.layout.ground_size(plan.units)
    run = Run.of(plan, work, selection, gsd, report=report, held=held, share=share)
    if spec.previous is not None:
        chips = take_over(run.units, work, PublishedTables(Release(spec.previous)))
        report(Progress("plan", 0, 0, f"reused from {spec.previous}: {chips:,} chips"))
    return run


def _plan(inputs: Inputs) -> Plan:
    plan = inputs.plan()
    return plan if inputs.spec.previous is None else PreviousVersion(inputs).split(plan).plan


def _check_arrays(spec: Spec, encoder: Encoder) -> None:
    """Check that arrays can be made, before any pixel is read.

    Raises:
        MissingExtraError: zarr is not installed.
        SpecError: patches do not divide a chip, so that they are not pixels of one size.
    """
    if spec.outputs.array_dtype is not None:
        require_extra("arrays", "outputs.arrays")
    if spec.outputs.patch_format == "zarr" and encoder.padding != "none":
        raise SpecError(
            "outputs.patches.format",
            f"is zarr, and chips of {spec.chips.size} pixels are padded ({encoder.padding})",
            "a chips.size that the patches divide",
            "Choose another chips.size, or the format parquet.",
        )


def _today() -> date:
    """The day that SOURCE_DATE_EPOCH names, in UTC; without it, the clock's.

    Raises:
        SpecError: it is not a number of seconds.
    """
    stated = os.environ.get("SOURCE_DATE_EPOCH")
    if stated is None:
        return datetime.now(UTC).date()
    try:
        return datetime.fromtimestamp(int(stated), UTC).date()
    except (ValueError, OverflowError, OSError) as error:
        raise SpecError(
            "SOURCE_DATE_EPOCH", f"found {shown(stated)}", "seconds since 1970-01-01, such as 1764288000"
        ) from error


def _resolved(spec: Spec, fingerprint: Fingerprint, released: date) -> dict[str, object]:
    document = spec.model_copy(update={"released": released}).published()
    document["model"]["precision"] = fingerprint.precision
    if spec.model.weights is not None:
        document["model"]["sha256"] = fingerprint.weights_sha256
    if fingerprint.gsd is not None:
        document["chips"]["gsd"] = fingerprint.gsd
    return document


_RETRIES = RetryPolicy(attempts=4, first=1.0)
"""Seconds before each try to take a lease: workers that end at the same moment step out of each other's way."""


@dataclass(frozen=True)
class ShareDone:
    """A share is done, and the release was not finished by this worker."""

    share: Share
    units: int
    """Of this share."""
    left: int
    """Units of other shares that are not done; 0: another worker finishes the release, or has."""


def produce_share(
    spec: Spec,
    release: Release,
    share: Share,
    *,
    encoder: Encoder | None = None,
    check: str | None = None,
    report: Report = silent,
    then: Then | None = None,
) -> RunRecord | ShareDone:
    """Make the units of one share. Where it is the last to be done, finish the release as `produce` does.

    Workers of other shares may be at work, or not begin before this one has ended. Of workers that end at the same
    moment one finishes. Units that fail are set aside and do not stand in the way of that.

    Args:
        spec: the release spec, the same for all.
        release: where to write to, the same for all.
        share: which one.
        encoder: as in `produce`.
        check: as in `produce`.
        report: receives the progress.
        then: as in `produce`, where this worker finishes the release.

    Raises:
        SpecError, SourceError, LicenseError, EncoderError: before any pixel is read.
        LockedError: another process is at work on this share, or on the whole.
        ReleaseError: the directory was begun with another plan, or no chip of it could be embedded.
    """
    if spec.run.engine != "local":
        raise SpecError(
            "run.engine", f"is {spec.run.engine}", "local, for a share of a run", "Ray shares it out itself."
        )
    model = encoder or load_encoder(spec, spec.instrument)
    with _retried_lease(release, share) as held:
        run = begin(spec, release, model, check=check, report=report, held=held, share=share)
        run_units(run, in_threads)
        run.shards.published_elsewhere(run.plan.units, share)
        in_threads(run, [], [])
    waiting = ShareDone(share, len(run.units), _left(run))
    if waiting.left:
        return waiting
    try:
        with _retried_lease(release) as held:
            whole = Run.of(run.plan, run.work, run.selection, run.gsd, report=report, held=held)
            receipts = _published(whole, waiting, described=then is not None)
            if isinstance(receipts, ShareDone):
                return receipts
            record, end = finish(whole, receipts, in_threads), whole.finish
            del run, whole, model
            return _complete(record, end, then)
    except LockedError:
        return waiting  # the holder ends later than this process, and checks again


def _left(run: Run) -> int:
    return len({unit.id for unit in run.plan.units} - read_receipts(run.work.release).keys())


def _published(run: Run, waiting: ShareDone, *, described: bool) -> list[UnitReceipt] | ShareDone:
    """Publish the files of several shares; no other process is at work. Return the receipts of all units.

    Or a share that is done, where the release was finished before, or units are to be made again.
    """
    release = run.work.release
    found = read_receipts(release)
    receipts = [found[unit.id] for unit in run.plan.units]
    if run.finish.as_left(receipts, described=described) and arrays_as_asked(release, run.work.spec):
        return waiting
    in_threads(run, [], run.resume(failed=True))
    damaged = len(run.plan.units) - len(run.receipts)
    if damaged:  # made again by the share that they are of, or by a whole run
        return ShareDone(waiting.share, waiting.units, damaged)
    return [run.receipts[unit.id] for unit in run.plan.units]


@contextmanager
def _retried_lease(release: Release, share: Share | None = None) -> Iterator[Lease]:
    """A lease, asked for several times: one that is just looking whether all is done holds it for a moment."""
    with ExitStack() as stack:
        locked = retrying(lambda error: isinstance(error, LockedError), _RETRIES)
        yield locked(lambda: stack.enter_context(lease(release, share)))
