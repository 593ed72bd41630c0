"""`run.json`: what was measured while a release was made. No other file of a release holds a measurement."""

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict

from clay_publish.release import directory as paths
from clay_publish.release.directory import Release, checked
from clay_publish.release.manifest import dump_json
from clay_publish.release.unit_receipts import UnitReceipt


class Machine(BaseModel):
    """One kind of machine, and what it did."""

    model_config = ConfigDict(frozen=True)

    machine: str
    """System, processor, instruction set and Python: no name or address."""
    device: str
    """What the model ran on: `cpu`, or the name of a GPU."""
    units: int
    chips: int
    """Embedded ones."""
    seconds: float
    """Wall time of its units, summed."""


class Measurements(BaseModel):
    """Time and energy of the run. Chips reused from the previous version count as nothing."""

    model_config = ConfigDict(frozen=True)

    seconds: float
    usd: float | None = None
    """At the price that the spec states; None where it states none."""
    energy_kwh: float | None = None
    machines: list[Machine]
    libraries: dict[str, str]
    """Versions of what decides bytes."""


def measured(receipts: Iterable[UnitReceipt], usd_per_hour: float | None, libraries: dict[str, str]) -> Measurements:
    """Sum up the receipts of a run."""
    machines: dict[tuple[str, str], list[UnitReceipt]] = {}
    for receipt in receipts:
        if receipt.seconds:
            machines.setdefault((receipt.machine, receipt.device), []).append(receipt)
    found = [
        Machine(
            machine=machine,
            device=device,
            units=len(mine),
            chips=sum(receipt.counts.get("embedded", 0) for receipt in mine),
            seconds=round(sum(receipt.seconds for receipt in mine), 3),
        )
        for (machine, device), mine in sorted(machines.items())
    ]
    seconds = round(sum(each.seconds for each in found), 3)
    return Measurements(
        seconds=seconds,
        usd=None if usd_per_hour is None else round(seconds / 3600 * usd_per_hour, 4),
        machines=found,
        libraries=libraries,
    )


def dump_measurements(made: Measurements) -> str:
    """Return `run.json`."""
    return dump_json(made.model_dump(mode="json", exclude_none=True))


def read_measurements(release: Release) -> Measurements:
    """Read `run.json`.

    Raises:
        ReleaseError: missing, or not a record of measurements.
    """
    document, where = release.json(paths.MEASUREMENTS), release.store.path(paths.MEASUREMENTS)
    return checked(Measurements, document, where, "a record of measurements")
