"""Vectors of some chips of a published release, computed again from its imagery with its model."""

import tempfile
from collections.abc import Collection
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clay_publish.errors import ReleaseError
from clay_publish.producer.execution.context import make_work
from clay_publish.producer.execution.second_pass import vectors_again
from clay_publish.producer.unit_plan import read_inputs
from clay_publish.progress import Report, silent
from clay_publish.release.directory import Release
from clay_publish.release.fingerprint import Fingerprint
from clay_publish.spec.models import Spec
from clay_publish.storage.store import is_url


def recompute(
    spec: Spec,
    fingerprint: Fingerprint,
    ids: Collection[str],
    *,
    imagery: str | None = None,
    weights: str | None = None,
    report: Report = silent,
) -> dict[str, npt.NDArray[np.float32]]:
    """Return the vectors of these chips by id; chips whose imagery cannot be read are left out.

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
    blocks = [block.model_copy(update={"stac": _found(block.stac, imagery)}) for block in spec.imagery]
    model = spec.model if weights is None else spec.model.model_copy(update={"weights": weights})
    here = spec.model_copy(update={"imagery": blocks, "model": model, "previous": None})
    inputs = read_inputs(here, report=report)
    plan = inputs.plan()
    if plan.fingerprint != fingerprint:
        differing = "; ".join(fingerprint.differences(plan.fingerprint)[:3])
        raise ReleaseError(
            "fingerprint", f"cannot be made again here: {differing}", "the model and rules of the release"
        )
    vectors: dict[str, npt.NDArray[np.float32]] = {}
    with tempfile.TemporaryDirectory(prefix="clay-publish-") as folder:
        work = make_work(Release(folder), here, inputs.encoder, plan.fingerprint)
        for unit in plan.units:
            missing = set(ids) - vectors.keys()
            if not missing:
                break
            vectors |= dict(vectors_again(unit, missing, work))
    return vectors


def _found(named: list[str], imagery: str | None) -> list[str]:
    """Where items lie that a published spec names: addresses, and names of files."""
    if imagery is None:
        return named
    if is_url(imagery) or not Path(imagery).is_dir():
        return [imagery]
    return [each if is_url(each) else str(Path(imagery) / Path(each).name) for each in named]
