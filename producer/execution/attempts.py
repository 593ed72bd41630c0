"""Units that were begun, and what is known of those that never ended."""

import json
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from clay_publish.errors import ClayPublishError
from clay_publish.producer.execution.context import StoppedError, Work
from clay_publish.producer.execution.unit import run_unit, set_aside
from clay_publish.producer.layouts.base import Unit
from clay_publish.redaction import redact
from clay_publish.release.directory import Release
from clay_publish.release.manifest import dump_json
from clay_publish.release.unit_receipts import ATTEMPTS, FAILURES, UnitReceipt

TRIES = 3
"""After so many failures of its own a unit is set aside."""


def died_in(release: Release) -> dict[str, int]:
    """Units that were at work when a process ended, and how many runs ended so."""
    found = {}
    for path in release.store.files(ATTEMPTS):
        said = release.store.read_tagged(path)
        if said is None:
            continue  # of another share, which has just ended it
        try:
            runs = int(json.loads(said[0])["runs"])
        except (ValueError, KeyError, TypeError):
            runs = 1  # it says less than it should, and no more is at stake than another try
        found[path.rpartition("/")[2].removesuffix(".json")] = runs
    return found


@contextmanager
def at_work(work: Work, unit: str, runs: int) -> Iterator[None]:
    """Note, inside the block, that a unit is at work, for which so many runs have ended if this one does.

    Raises:
        StoppedError: the run ends.
    """
    with work.pace.beginning(unit):
        work.release.store.write(f"{ATTEMPTS}/{unit}.json", dump_json({"runs": runs}))
    try:
        yield
    except BaseException:
        _end_if_reached(work.release, unit)
        raise
    else:
        end(work.release, unit)
    finally:
        work.pace.ended(unit)


def give_back(work: Work) -> None:
    """Stop the units at work. Others may begin them at once: a thread that reads or computes goes on for nothing.

    Where the store is out of reach, the notes of these units stay, and the next run takes them for units in which a
    process ended.
    """
    for unit in work.pace.stop():
        _end_if_reached(work.release, unit)


def _end_if_reached(release: Release, unit: str) -> None:
    with suppress(ClayPublishError):  # what ends the unit is the one to tell
        end(release, unit)


def end(release: Release, unit: str) -> None:
    """Note that a unit is no longer at work."""
    release.store.remove(f"{ATTEMPTS}/{unit}.json")


def attempt(unit: Unit, work: Work) -> UnitReceipt:
    """Make a unit, a few times if need be; where it fails each time, it is set aside and the run goes on.

    Raises:
        ClayPublishError: what is wrong is not with this unit: the disk is full, the model is another.
        StoppedError: the run ends.
    """
    kind, path = "", f"{FAILURES}/{unit.id}.txt"
    with work.pace.at_work():
        for _ in range(TRIES):
            try:
                return run_unit(unit, work)
            except (ClayPublishError, StoppedError):
                raise
            except Exception as problem:  # noqa: BLE001 - whatever it is, the other units are not to suffer
                kind = type(problem).__name__
                work.release.store.write(path, redact(traceback.format_exc()))
        # The message may name paths of this machine; what is published is its kind.
        detail = f"failed {TRIES} times ({kind})"
        return set_aside(unit, work, detail, f"{kind}; {work.release.store.path(path)} has more")
