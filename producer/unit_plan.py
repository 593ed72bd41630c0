"""What a run will do, fixed before it starts: units of work, and the hash that a resumed run must meet."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import shapely

from clay_publish.errors import ReleaseError, shown
from clay_publish.producer.encoders import Encoder
from clay_publish.producer.imagery import warp
from clay_publish.producer.layouts import scene
from clay_publish.producer.layouts.utm import Cells
from clay_publish.producer.sources.item import SourceItem
from clay_publish.release.directory import DataFile, Release
from clay_publish.release.fingerprint import Fingerprint, canonical_json
from clay_publish.release.manifest import UNITS, dump_json, libraries
from clay_publish.spec.models import Spec
from clay_publish.spec.sensors import Sensor
from clay_publish.windows import Window


@dataclass(frozen=True)
class Unit:
    """What one worker reads in one go."""

    id: str
    items: tuple[SourceItem, ...]
    """`scene`: one image. `utm`: the candidates of a square and window."""
    window: Window
    """Of its chips."""
    area: shapely.Geometry | None
    """Only chips whose centre lies in it, OGC:CRS84."""
    files: tuple[DataFile, ...]
    """The published files it may add rows to."""
    cells: Cells | None = None
    """`utm`: what is asked for."""


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

    def document(self, *, units: bool) -> dict[str, Any]:
        """The plan as JSON."""
        document = {"fingerprint": self.fingerprint.model_dump(mode="json"), "decided": self.decided}
        return {**document, "units": [unit.id for unit in self.units]} if units else document

    def adopt(self, release: Release) -> None:
        """Write the plan, or make sure that the one there is the same: of workers that begin at once, one writes it.

        Raises:
            ReleaseError: the directory was begun with another plan; the fields that differ are named.
        """
        if not release.store.exists(UNITS):
            document = {"sha256": self.sha256, **self.document(units=True), "libraries": libraries()}
            if release.store.create(UNITS, dump_json(document).encode()):
                return
        other = release.json(UNITS)
        if other.get("sha256") == self.sha256:
            return
        raise ReleaseError(
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


def unit_id(items: Iterable[SourceItem], ground: bytes | None, decided: dict[str, Any]) -> str:
    """Hash of the items, their content, the ground asked for, and all that decides the vectors.

    Not of the release's name and version: the next version takes over units that have not changed.
    """
    document = {
        "items": [[item.id, item.window.token, item.offset, sorted(item.etags.values())] for item in items],
        "ground": None if ground is None else hashlib.sha256(ground).hexdigest(),
        "decided": {key: value for key, value in decided.items() if key not in {"name", "version"}},
    }
    return hashlib.sha256(canonical_json(document)).hexdigest()[:32]


def decided_by(spec: Spec, fingerprint: Fingerprint) -> dict[str, Any]:
    """What, beside the images, decides the rows of a release."""
    return {
        "name": spec.name,
        "version": spec.version,
        "fingerprint": fingerprint.digest,
        "chips": spec.chips.model_dump(mode="json"),
        "outputs": spec.outputs.model_dump(mode="json"),
    }


def fingerprint_of(spec: Spec, instrument: Sensor, encoder: Encoder, gsd: float | None) -> Fingerprint:
    """All that decides the vectors of a run."""
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
        gsd=gsd,
        resampling=scene.RESAMPLING if gsd is None else warp.RESAMPLING,
        nodata="pixels without data in any band are 0, the mean, in all bands after normalisation",
        padding=encoder.padding,
        metadata=encoder.metadata,
        precision=encoder.precision,
        dtype=spec.outputs.dtype,
    )


def chips_of(unit: Unit, size: int) -> int:
    """Chips that a unit is asked for; 0 where its image's grid is not known before it is read."""
    if unit.cells is not None:
        return len(unit.cells.rows)
    (item,) = unit.items
    if item.grid is None:
        return 0
    chips = scene.SceneChips(item, item.grid, size)
    return chips.rows * chips.columns
