"""Some chips of a published release, made again from its imagery with its model."""

import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from clay_publish.errors import ReleaseError
from clay_publish.producer.execution.context import Work, make_work
from clay_publish.producer.execution.second_pass import ChipAgain, GapAgain, chips_again
from clay_publish.producer.unit_plan import read_inputs
from clay_publish.progress import Report, silent
from clay_publish.release.directory import Release
from clay_publish.release.fingerprint import Fingerprint
from clay_publish.spec.models import Imagery, Spec
from clay_publish.storage.store import is_url


def recompute(
    spec: Spec,
    fingerprint: Fingerprint,
    ids: Collection[str],
    *,
    imagery: str | None = None,
    weights: str | None = None,
    report: Report = silent,
) -> dict[str, dict[str, Any]]:
    """Return what a release holds of these chips, by id; chips whose imagery cannot be read are left out.

    Of each: `embedding`, `valid_fraction`, `cloud_fraction` (null without a mask); where the spec asks for them `loss`,
    `thumbnail` (a picture as hexadecimal digits), and `patches`: some vectors of the last layer by their place, row ×
    columns + column. Of one that is not embedded: `reason`.

    Args:
        spec: the release's own.
        fingerprint: of its vectors.
        ids: of the chips.
        imagery: a directory with the items that the spec names, or a STAC file or address, instead of the published
            one.
        weights: a file of the model's weights, where the spec names no address.
        report: hears of the progress.

    Raises:
        SpecError, SourceError, EncoderError: the imagery or the model cannot be found.
        ReleaseError: model, sensor or rules here are not those that made the release.
    """
    blocks = [_relocated(block, imagery) for block in spec.imagery]
    model = spec.model if weights is None else spec.model.model_copy(update={"weights": weights})
    here = spec.model_copy(update={"imagery": blocks, "model": model, "previous": None})
    inputs = read_inputs(here, report=report)
    plan = inputs.plan()
    if plan.fingerprint != fingerprint:
        differing = "; ".join(fingerprint.differences(plan.fingerprint)[:3])
        raise ReleaseError(
            "fingerprint", f"cannot be made again here: {differing}", "the model and rules of the release"
        )
    chips: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="clay-publish-") as folder:
        work = make_work(Release(folder), here, inputs.encoder, plan.fingerprint)
        for unit in plan.units:
            missing = set(ids) - chips.keys()
            if not missing:
                break
            chips |= {name: _stated(again, work) for name, again in chips_again(unit, missing, work)}
    return chips


_PATCHES = 16
"""Patches of a chip that are given, spread over it."""


def _stated(again: ChipAgain | GapAgain, work: Work) -> dict[str, Any]:
    """What JSON can say of a chip."""
    if isinstance(again, GapAgain):
        return {"reason": again.reason}
    encoded = again.encoded
    found: dict[str, Any] = {
        "embedding": encoded.embeddings[0].tolist(),
        "valid_fraction": again.valid_fraction,
        "cloud_fraction": None if np.isnan(again.cloud_fraction) else again.cloud_fraction,
    }
    if encoded.loss is not None:
        found["loss"] = float(encoded.loss[0])
    if encoded.patches is not None:
        last = encoded.patches[0, -1].reshape(-1, encoded.patches.shape[-1])
        places = np.unique(np.linspace(0, len(last) - 1, _PATCHES).round().astype(int))
        found["patches"] = {str(place): last[place].tolist() for place in places.tolist()}
    if work.thumbnails is not None:
        found["thumbnail"] = work.thumbnails.draw(again.pixels)[0].hex()
    return found


def _relocated(block: Imagery, imagery: str | None) -> Imagery:
    """The block with its imagery where it lies here."""
    if block.major_tom is None:
        return block.model_copy(update={"stac": _found(block.stac, imagery)})
    [place] = _found([block.major_tom], imagery)
    return block.model_copy(update={"major_tom": place})


def _found(named: list[str], imagery: str | None) -> list[str]:
    """Where items lie that a published spec names: addresses, and names of files."""
    if imagery is None:
        return named
    if is_url(imagery) or not Path(imagery).is_dir():
        return [imagery]
    return [each if is_url(each) else str(Path(imagery) / Path(each).name) for each in named]
