"""What a run will do, fixed before it starts: its inputs, units of work, and the hash that a resumed run must meet."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import accumulate
from statistics import median
from typing import Any

from clay_publish.errors import ReleaseError, shown
from clay_publish.geo.area import read_area
from clay_publish.geo.raster_grid import ground_size
from clay_publish.producer.encoders import Encoder, load_encoder
from clay_publish.producer.layouts import layout_of
from clay_publish.producer.layouts.base import Areas, Layout, Unit
from clay_publish.producer.sources.item import SourceItem
from clay_publish.producer.sources.selection import Selection, select
from clay_publish.progress import Progress, Report
from clay_publish.release.directory import Release
from clay_publish.release.fingerprint import SCALE_RULE, Fingerprint, canonical_json, composite_rule, mask_rule
from clay_publish.release.lease.base import Share
from clay_publish.release.manifest import UNITS, dump_json, libraries
from clay_publish.release.versions import check_previous
from clay_publish.spec.models import Spec
from clay_publish.spec.sensors import Sensor
from clay_publish.storage.retry import Limits, set_limits


@dataclass(frozen=True)
class Plan:
    """All units of a run."""

    units: tuple[Unit, ...]
    fingerprint: Fingerprint
    decided: dict[str, Any]
    """What else decides which chips there are."""

    @property
    def sha256(self) -> str:
        """Of everything that decides the embeddings files."""
        return hashlib.sha256(canonical_json(self.document(units=True))).hexdigest()

    def chips(self) -> dict[str, int]:
        """Chips that the units are asked for, and of these the ones to compute; 0 for those known only once read."""
        computed = sum(unit.chips for unit in self.units if unit.items and not unit.reused)
        return {"expected": sum(unit.chips for unit in self.units), "to_compute": computed}

    def document(self, *, units: bool) -> dict[str, Any]:
        """The plan as JSON."""
        document = {"fingerprint": self.fingerprint.model_dump(mode="json"), "decided": self.decided}
        return {**document, "units": [unit.id for unit in self.units]} if units else document

    def adopt(self, release: Release, today: date) -> date:
        """Write the plan, or make sure that the one there is the same: of workers that begin at once, one writes it.

        Returns the day on which the run began: `today`, or that of the run that wrote the plan.

        Raises:
            ReleaseError: the directory was begun with another plan; the fields that differ are named.
        """
        if not release.store.exists(UNITS):
            began = {"sha256": self.sha256, "began": today.isoformat()}
            document = {**began, **self.document(units=True), "libraries": libraries(), "chips": self.chips()}
            if release.store.create(UNITS, dump_json(document).encode()):
                return today
        if (conflict := self.conflict(release)) is not None:
            raise conflict
        return date.fromisoformat(release.json(UNITS)["began"])

    def conflict(self, release: Release) -> ReleaseError | None:
        """Why a release that was begun cannot go on with this plan; None where it can."""
        other = release.json(UNITS)
        if other.get("sha256") == self.sha256:
            return None
        return ReleaseError(
            release.store.where,
            f"was begun with another plan ({'; '.join(self._differences(other)) or 'other images'})",
            "the same spec, images and weights",
            "Use another version or --out, or remove the directory.",
        )

    def _differences(self, other: dict[str, Any]) -> Iterable[str]:
        said = self.fingerprint.model_dump(mode="json")
        for name, mine, theirs in (
            *((key, value, other.get("fingerprint", {}).get(key)) for key, value in said.items()),
            *((key, value, other.get("decided", {}).get(key)) for key, value in self.decided.items()),
        ):
            if mine != theirs:
                yield f"{name}: {shown(theirs)} → {shown(mine)}"


def decided_by(spec: Spec, fingerprint: Fingerprint) -> dict[str, Any]:
    """What, beside the images, decides the rows of a release."""
    return {
        "name": spec.name,
        "version": spec.version,
        "fingerprint": fingerprint.digest,
        "chips": spec.chips.model_dump(mode="json"),
        # Arrays are made of the rows: they may be asked for once these are there.
        "outputs": spec.outputs.model_dump(mode="json", exclude={"arrays"}),
    }


def fingerprint_of(spec: Spec, instrument: Sensor, encoder: Encoder) -> Fingerprint:
    """All that decides the vectors of a run."""
    layout = layout_of(spec, instrument)
    return Fingerprint(
        encoder=encoder.key,
        encoder_version=encoder.version,
        model_name=encoder.model_name,
        model_link=encoder.model_link,
        weights_sha256=encoder.weights_sha256,
        dimensions=encoder.dimensions,
        parameters=encoder.parameters,
        sensor=instrument.key,
        bands=encoder.bands,
        layout=spec.chips.layout,
        size=spec.chips.size,
        gsd=layout.gsd,
        scale=SCALE_RULE,
        mask=mask_rule(instrument, spec.imagery[0].mask),
        composite=composite_rule(spec.chips.layout, spec.imagery[0].composite, spec.model.steps),
        resampling=layout.resampling,
        nodata="pixels without data in any band are 0, the mean, in all bands after normalization",
        padding=encoder.padding,
        metadata=encoder.metadata,
        precision=encoder.precision,
        dtype=spec.outputs.dtype,
    )


@dataclass(frozen=True)
class Inputs:
    """What a spec leads to before anything is planned: the images, the model, and how the ground is cut."""

    spec: Spec
    sensor: Sensor
    encoder: Encoder
    areas: Areas
    selection: Selection
    layout: Layout
    fingerprint: Fingerprint

    @property
    def used(self) -> list[SourceItem]:
        """The images that chips are taken from."""
        return [each.item for each in self.selection.considered if each.status == "used"]

    @property
    def gsd(self) -> float:
        """Meters a pixel; of a layout that keeps the pixels of the images, the median of those known."""
        if self.layout.gsd is not None:
            return self.layout.gsd
        grids = [item.grid for item in self.used if item.grid is not None]
        return median(ground_size(grid, grid.height / 2) for grid in grids) if grids else self.sensor.gsd

    def plan(self) -> Plan:
        """The units of a run.

        Raises:
            SourceError: no image gives a whole chip.
        """
        decided = decided_by(self.spec, self.fingerprint)
        return Plan(self.layout.units(self.selection.considered, self.areas, decided), self.fingerprint, decided)


def read_inputs(spec: Spec, *, encoder: Encoder | None = None, report: Report) -> Inputs:
    """Read the sources and load the model; no pixel is read.

    Args:
        spec: the release spec.
        encoder: one that is loaded already; default: the one the spec names.
        report: receives the progress.

    Raises:
        SpecError, SourceError, LicenseError, EncoderError: the spec cannot be followed.
        ReleaseError: the release that the spec names as the one before cannot be read.
    """
    set_limits(Limits(spec.run.stall_seconds, spec.run.item_seconds))
    instrument = spec.instrument
    encoder = encoder or load_encoder(spec, instrument)
    areas = [None if block.area is None else read_area(block.area) for block in spec.imagery]
    report(Progress("plan", 0, 0, "reading the sources"))
    layout, grounds = layout_of(spec, instrument), [None if area is None else area.geometry for area in areas]
    selection = select(spec, instrument, grounds, [band.name for band in encoder.bands])
    fingerprint = fingerprint_of(spec, instrument, encoder)
    check_previous(spec, fingerprint)
    return Inputs(spec, instrument, encoder, areas, selection, layout, fingerprint)


def units_of(share: Share, units: Sequence[Unit]) -> tuple[Unit, ...]:
    """The units of one share, in the order of the plan. All shares have about as many chips to compute.

    Units are dealt out along the published files, so that most files are of one share alone, which publishes them.

    Args:
        share: which one.
        units: of the plan.
    """
    order = sorted(range(len(units)), key=lambda n: (units[n].files[:1], n))
    # A unit with an unknown number of chips counts as one, since it has to be computed; one that is copied, too.
    chips = [1 if units[n].reused else max(1, units[n].chips) for n in order]
    total = sum(chips)
    # A unit is of the share in which its middle lies. Twice the chips: whole numbers have no rounding to differ in.
    middles = (2 * until - count for until, count in zip(accumulate(chips), chips, strict=True))
    mine = [n for n, middle in zip(order, middles, strict=True) if middle * share.of // (2 * total) + 1 == share.number]
    return tuple(units[n] for n in sorted(mine))
