"""The engine of one machine: units side by side in threads, each file published as soon as its last unit is done."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from clay_publish.producer.attempts import at_work, attempt
from clay_publish.producer.engine import Ready, Run, publish
from clay_publish.producer.isolated import run_isolated
from clay_publish.producer.plan import Unit
from clay_publish.producer.work import SIDE_BY_SIDE
from clay_publish.receipts import Receipt


def in_threads(run: Run, units: Sequence[Unit], ready: Sequence[Ready]) -> None:
    """Make units, a few at a time; each that is to be careful with in a process of its own, at the end.

    Raises:
        ClayPublishError: the run cannot go on; what is finished stays.
    """
    _publish(run, ready)
    _side_by_side(run, [unit for unit in units if not run.careful(unit)])
    for unit in units:
        if run.careful(unit):
            _publish(run, run.done(unit, run_isolated(unit, run.work)))


def _side_by_side(run: Run, units: Sequence[Unit]) -> None:
    pool = ThreadPoolExecutor(SIDE_BY_SIDE, "unit")
    running = {pool.submit(_one, run, unit): unit for unit in units}
    try:
        for future in as_completed(running):
            _publish(run, run.done(running[future], future.result()))
    finally:
        run.work.pace.stop()
        pool.shutdown(cancel_futures=True)
        run.work.pace.resume()


def _one(run: Run, unit: Unit) -> Receipt:
    left = run.left_out(unit)
    if left is not None:
        return left
    with at_work(run.work.release, unit.id, run.died.get(unit.id, 0) + 1):
        receipt = attempt(unit, run.work)
    run.books.enter(receipt)  # at once, so that no unit begins when the budget is spent
    return receipt


def _publish(run: Run, ready: Sequence[Ready]) -> None:
    for each in ready:
        publish(each, run.work.release, run.plan, run.gsd)
