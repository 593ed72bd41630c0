"""A share of a run: one of several workers that make the units of one plan, and the last of which finishes it all."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from clay_publish.errors import LockedError, SpecError
from clay_publish.producer.encoders import Encoder, load_encoder
from clay_publish.producer.execution.local import in_threads
from clay_publish.producer.execution.run import Run, finish, run_units
from clay_publish.producer.produce import Then, begin
from clay_publish.progress import Report, silent
from clay_publish.release.directory import Release
from clay_publish.release.lease import lease
from clay_publish.release.lease.base import Lease, Share
from clay_publish.release.manifest import RunRecord
from clay_publish.release.unit_receipts import is_finished, read_receipts
from clay_publish.spec.models import Spec
from clay_publish.storage.retry import RetryPolicy, retrying

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
    report: Report = silent,
    then: Then = lambda _: None,
) -> RunRecord | ShareDone:
    """Make the units of one share. Where it is the last to be done, finish the release as `produce` does.

    Workers of other shares may be at work, or not begin before this one has ended. Of workers that end at the same
    moment one finishes. Units that fail are set aside and do not stand in the way of that.

    Args:
        spec: the release spec, the same for all.
        release: where to write to, the same for all.
        share: which one.
        encoder: as in `produce`.
        report: who is told how far it is.
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
    encoder = encoder or load_encoder(spec, spec.instrument)
    with _patient_lease(release, share) as held:
        run = begin(spec, release, encoder, report=report, held=held, share=share)
        run_units(run, in_threads)
    waiting = ShareDone(share, len(run.units), _left(run))
    if waiting.left:
        return waiting
    try:
        with _patient_lease(release) as held:
            done = _finish(Run.of(run.plan, run.work, run.selection, run.gsd, report=report, held=held), waiting)
            if isinstance(done, RunRecord):
                then(done)
            return done
    except LockedError:
        return waiting  # whoever holds it is done later than this one, and looks again


def _left(run: Run) -> int:
    return len({unit.id for unit in run.plan.units} - read_receipts(run.work.release).keys())


def _finish(run: Run, waiting: ShareDone) -> RunRecord | ShareDone:
    """Publish what is of several shares, and what is made of all of them together; nobody else is at work."""
    release = run.work.release
    receipts = read_receipts(release)
    if is_finished(release, [receipts[unit.id] for unit in run.plan.units]):
        return waiting
    in_threads(run, [], run.resume(failed=True))
    damaged = len(run.plan.units) - len(run.receipts)
    if damaged:  # made again by the share that they are of, or by a whole run
        return ShareDone(waiting.share, waiting.units, damaged)
    return finish(run, [run.receipts[unit.id] for unit in run.plan.units], in_threads)


@contextmanager
def _patient_lease(release: Release, share: Share | None = None) -> Iterator[Lease]:
    """A lease, asked for several times: one that is just looking whether all is done holds it for a moment."""
    with ExitStack() as stack:
        locked = retrying(lambda error: isinstance(error, LockedError), _RETRIES)
        yield locked(lambda: stack.enter_context(lease(release, share)))
