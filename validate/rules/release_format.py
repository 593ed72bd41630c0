"""Rules on what release format 2 promises: one file of measurements, and one day in all documents."""

from collections.abc import Iterator
from typing import Any

from clay_publish.errors import ReleaseError
from clay_publish.release.directory import (
    CHANGELOG,
    CITATION,
    COLLECTION,
    CROISSANT,
    DATACITE,
    ITEMS,
    JSON_LD,
    MANIFEST,
    MEASUREMENTS,
    SPEC,
)
from clay_publish.release.findings import Severity
from clay_publish.release.measurements import read_measurements
from clay_publish.validate.context import View
from clay_publish.validate.registry import Fault, Outcome, rule

_ERROR = Severity.ERROR
_MEASURED = ("seconds", "usd", "energy_kwh", "device", "machine", "machines")
_ENERGY = "emb:energy"


@rule(
    "PRV014",
    _ERROR,
    "Measurements of the run are in run.json, and nowhere else",
    reason="Seconds and dollars differ from run to run: in any other file they would hide whether two runs agree.",
    fix="Write the documents again with `clay-publish catalog` and `clay-publish card`.",
)
def measurements_are_apart(view: View) -> Iterator[Outcome]:
    """`run.json`, and what manifest, footers, Items and the Collection's asset hold of it."""
    if MEASUREMENTS in view.files:
        try:
            read_measurements(view.release)
        except ReleaseError as error:
            yield Fault(MEASUREMENTS, error.found[:300], "seconds, machines and libraries")
    told = view.release.json(MANIFEST).get("run")
    for key in _MEASURED:
        if isinstance(told, dict) and key in told:
            yield Fault(f"{MANIFEST}: run.{key}", repr(told[key])[:60], f"{key} in {MEASUREMENTS} alone")
    for path, footer in view.footers.items():
        if _ENERGY in footer.get("emb", {}):
            yield Fault(f"{path}: footer emb: {_ENERGY}", "is a measurement", f"measurements in {MEASUREMENTS} alone")
    if ITEMS in view.metadata_paths and _ENERGY in view.schema_of(ITEMS).names:
        yield Fault(f"{ITEMS}: {_ENERGY}", "is a measurement", f"measurements in {MEASUREMENTS} alone")
    asset = (view.collection.get("assets") or {}).get("run")
    if not isinstance(asset, dict) or asset.get("href") != f"./{MEASUREMENTS}":
        yield Fault(f"{COLLECTION}: assets.run", repr(asset)[:60], f"an asset that leads to ./{MEASUREMENTS}")
    elif {"file:size", "file:checksum"} & asset.keys():
        yield Fault(f"{COLLECTION}: assets.run", "has a size or checksum", "neither: they differ from run to run")


@rule(
    "DOC017",
    _ERROR,
    "All documents carry the day that release.yaml states",
    reason="A date taken from the clock changes with every regeneration, and a citation with it.",
    fix="Write card and catalog again; both take the day from `released` in release.yaml.",
)
def day_agrees(view: View) -> Iterator[Outcome]:
    """Spec, CITATION, Croissant, DataCite, JSON-LD, the changelog and `sci:citation`."""
    day = view.spec.released
    if day is None:
        yield Fault(f"{SPEC}: released", "is missing", "YYYY-MM-DD")
        return
    told: dict[str, Any] = {f"{CITATION}: date-released": view.citation.get("date-released")}
    for path, key in ((CROISSANT, "datePublished"), (JSON_LD, "datePublished"), (DATACITE, "dates")):
        if path in view.files:
            told[f"{path}: {key}"] = _issued(view.release.json(path).get(key))
    for place, found in told.items():
        if str(found) != day.isoformat():
            yield Fault(place, repr(found)[:60], day.isoformat())
    if CHANGELOG in view.files and f"## {view.spec.version} ({day.isoformat()})" not in view.text(CHANGELOG):
        yield Fault(CHANGELOG, "has no entry of this version and day", f"## {view.spec.version} ({day.isoformat()})")
    cited = str(view.collection.get("sci:citation", ""))
    if f"({day.year})" not in cited:
        yield Fault(f"{COLLECTION}: sci:citation", repr(cited)[:60], f"the year {day.year}")


def _issued(value: Any) -> Any:
    """The date of issue among DataCite's dates; any other value as it is."""
    if not isinstance(value, list):
        return value
    issued = (each for each in value if isinstance(each, dict) and each.get("dateType") == "Issued")
    return next(issued, {}).get("date")
