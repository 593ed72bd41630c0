"""Budgets: a run that stops cleanly, says what is left, and goes on when there is more to spend."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from clay_publish.errors import ReleaseError
from clay_publish.producer.execution.run import Ledger
from clay_publish.producer.planning.cost import Rates
from clay_publish.producer.produce import produce
from clay_publish.progress import Progress
from clay_publish.release.directory import Release
from clay_publish.release.measurements import read_measurements
from clay_publish.release.unit_receipts import RECEIPTS, UnitReceipt, read_receipts
from clay_publish.spec.load import load_spec
from clay_publish.spec.models import Spec

from .processes import start


def a_receipt(number: int, chips: int, seconds: float) -> UnitReceipt:
    return UnitReceipt(
        unit=f"u{number}", images=0, items=[], parts={}, counts={"embedded": chips}, seconds=seconds, device="cpu"
    )


def test_dollars_and_their_projection_follow_from_seconds() -> None:
    ledger = Ledger(total=1000, usd_per_hour=3.6, budget_usd=1.0, planned=None)
    ledger.enter(a_receipt(1, 100, 50))
    ledger.enter(a_receipt(1, 100, 50))  # entered before
    assert ledger.usd == pytest.approx(0.05)
    assert ledger.projected_usd == pytest.approx(0.5)
    assert not ledger.spent
    assert ledger.line() == "$0.05 of about $0.50"
    ledger.enter(a_receipt(2, 100, 950))
    assert ledger.spent
    assert "budget of $1 is spent" in ledger.line()


@pytest.mark.parametrize(("images", "left"), [(0, 1000), (25, 960)])
def test_chips_that_no_image_reaches_are_not_left_to_compute(images: int, left: int) -> None:
    """Those of units without images were not counted in the first place."""
    ledger = Ledger(total=1000, usd_per_hour=None, budget_usd=None, planned=None)
    counts = {"embedded": 60, "no_imagery": 30, "excluded": 10}
    ledger.enter(a_receipt(1, 60, 1).model_copy(update={"images": images, "counts": counts}))
    assert ledger.total == left


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(36.0, ""), (30.0, ""), (60.0, "1.67× slower than planned"), (18.0, "2× faster than planned")],
)
def test_a_run_that_strays_from_the_plan_says_so(seconds: float, said: str) -> None:
    rates = Rates(chips_per_hour=10_000, usd_per_hour=None, measured=False)
    ledger = Ledger(total=1000, usd_per_hour=None, budget_usd=None, planned=rates)
    ledger.enter(a_receipt(1, 100, seconds))
    assert ("than planned" in ledger.line()) == bool(said)
    assert said in ledger.line()


@pytest.fixture
def four_units(tmp_path: Path, shared_data: Path) -> Path:
    """The real scene four times, as images of four days: four units."""
    source = shared_data / "s2_l1c_T18SVG_20160112"
    item = json.loads((source / "item.json").read_text())
    items = []
    for day in range(4):
        one = json.loads(json.dumps(item))
        one["id"] = f"day-{day}"
        one["properties"] |= {
            "start_datetime": f"2016-01-1{day}T00:00:00Z",
            "end_datetime": f"2016-01-1{day}T23:59:59Z",
        }
        for asset in one["assets"].values():
            asset["href"] = str((source / asset["href"]).resolve())
        items.append(one)
    (tmp_path / "items.json").write_text(json.dumps(items))
    return tmp_path


def a_spec(folder: Path, **cost: Any) -> Spec:
    document = {
        "name": "four-days",
        "imagery": {"stac": "items.json", "sensor": "sentinel-2-l1c"},
        "chips": {"layout": "scene", "size": 256},
        "cost": cost,
    }
    (folder / "release.yaml").write_text(yaml.safe_dump(document))
    return load_spec(folder / "release.yaml")


def coverage(release: Release) -> dict[str, int]:
    reasons: dict[str, int] = {}
    for path in release.data_files("coverage"):
        for status, reason in zip(*pq.read_table(release.store.path(path), columns=["status", "reason"]), strict=True):
            key = reason.as_py() or status.as_py()
            reasons[key] = reasons.get(key, 0) + 1
    return reasons


def test_a_run_that_stopped_at_its_budget_says_so_and_exits_with_1(four_units: Path) -> None:
    a_spec(four_units, usd_per_hour=1e6, budget_usd=0.01)
    program = start(four_units / "release.yaml", four_units / "release")
    program.finish(code=1)
    said = program.errors.read_text()
    assert " over_budget: the run stopped at its budget. Raise `cost.budget_usd` and run again" in said
    a_spec(four_units, usd_per_hour=1e6, budget_usd=1e9)
    start(four_units / "release.yaml", four_units / "release").finish()


def test_a_run_stops_at_its_budget_and_goes_on_with_a_greater_one(four_units: Path) -> None:
    """An hour of a million dollars is soon spent: the units at work are finished, the others left for later."""
    said: list[Progress] = []
    poor, rich = Release(str(four_units / "poor")), Release(str(four_units / "rich"))
    record = produce(a_spec(four_units, usd_per_hour=1e6, budget_usd=0.01), poor, report=said.append)
    assert record.coverage["over_budget"] >= record.coverage["expected"] / 2  # two units at work at most
    assert record.coverage["embedded"] > 0
    assert coverage(poor) == {k: v for k, v in record.coverage.items() if k != "expected"}
    assert (read_measurements(poor).usd or 0) > 0.01
    assert any("budget of $0.01 is spent" in step.message for step in said)

    again = produce(a_spec(four_units, usd_per_hour=1e6, budget_usd=1e9), poor)
    produce(a_spec(four_units), rich)
    assert "over_budget" not in again.coverage
    assert coverage(poor) == coverage(rich)
    files = rich.data_files()
    assert poor.data_files() == files
    for path in files:
        assert (four_units / "poor" / path).read_bytes() == (four_units / "rich" / path).read_bytes()


@pytest.mark.parametrize(
    ("change", "said"), [({"images": None}, r"images: Input should be a valid integer"), ({}, r"unit: Field required")]
)
def test_a_receipt_of_another_program_is_named(tmp_path: Path, change: dict[str, None], said: str) -> None:
    release = Release(str(tmp_path))
    document = a_receipt(1, 5, 2.0).model_dump(mode="json") | change if change else {}
    release.store.write(f"{RECEIPTS}/u1.json", json.dumps(document))
    with pytest.raises(ReleaseError, match=rf"u1\.json: is not a receipt of this program \({said}"):
        read_receipts(release)
