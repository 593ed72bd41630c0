"""What samples of the pixels of images say, held against themselves and against the offset of the bands."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clay_publish.spec.sensors import Sensor
from clay_publish.validate.coded import hash_rows
from clay_publish.validate.data.sources import Source, SourceTable
from clay_publish.validate.outcomes import Fault

_EVIDENCE = ("plausible", "ambiguous", "implausible", "unread")
_NOISE = 100
"""Digital numbers by which noise goes below zero reflectance."""
_SHARE = 0.02
"""Of pixels below zero reflectance, at most; runs call it doubtful from half of it on."""
_ORDER = ("minimum", "p1", "p50", "p99", "maximum")


def stated_by(band: dict[str, Any]) -> str:
    """What scale and offset of a band follow from."""
    return str(band["source"].rpartition("values: ")[2])


def sample_faults(where: str, source: Source, evidence: dict[str, Any] | None, sensor: Sensor) -> Iterator[Fault]:
    """Where a sample of the pixels contradicts itself, or the offset of the bands."""
    if evidence is None:
        return
    status, samples = evidence["status"], evidence["bands"]
    if not _is_said(evidence):
        found = f"is {status!r} with {len(evidence['sentences'])} sentences"
        yield Fault(where, found, f"{', '.join(_EVIDENCE)}, and sentences unless it is plausible")
    if status == "unread":
        return
    names = [band["name"] for band in source.bands]
    if [sample["name"] for sample in samples] != names:
        yield Fault(where, f"samples {', '.join(s['name'] for s in samples) or 'no band'}", ", ".join(names))
    for sample in samples:
        ordered = [sample[name] for name in _ORDER]
        if not 0 <= sample["valid"] <= 1 or not all(low <= high for low, high in itertools.pairwise(ordered)):
            yield Fault(f"{where}: {sample['name']}", f"share {sample['valid']:g}, values {ordered}", "growing values")
    if status == "plausible" and (doubt := _wrong_offset(source, samples, sensor)) is not None:
        yield Fault(where, f"is plausible, and {doubt}", "the offset that its pixels have, or `ambiguous`")


def _wrong_offset(source: Source, samples: list[dict[str, Any]], sensor: Sensor) -> str | None:
    """What in a sample contradicts an offset of sensors whose later products have one; None where nothing does."""
    seen = [sample for sample in samples if sample["valid"] > 0]
    if not sensor.other_offsets or not seen or not source.bands or stated_by(source.bands[0]) == "spec":
        return None
    full = (sensor.offset - sensor.other_offsets[0]) / sensor.scale
    taken = (sensor.offset - source.bands[0]["offset"]) / sensor.scale
    below = [0.99 if s["p99"] < full - _NOISE else 0.5 if s["p50"] < full - _NOISE else 0.0 for s in seen]
    if taken > 0 and sum(below) > _SHARE * len(seen):
        return f"{taken:,.0f} is taken off, yet more than {sum(below) / len(seen):.0%} of its pixels are smaller"
    smallest = min(sample["minimum"] for sample in seen)
    if taken == 0 and smallest >= full and "baseline" not in stated_by(source.bands[0]):
        return f"nothing is taken off, yet no pixel is below {smallest:,.0f}"
    return None


def _is_said(evidence: dict[str, Any]) -> bool:
    """Whether the status is one that there is, with sentences where it needs them."""
    status, sentences = evidence["status"], evidence["sentences"]
    return status in _EVIDENCE and (status in {"plausible", "unread"}) != bool(sentences)


def doubtful_samples(
    evidence: pa.StructArray, sources: SourceTable, rows: npt.NDArray[np.integer], sensor: Sensor
) -> npt.NDArray[np.bool_]:
    """All rows in which `sample_faults` finds something, and maybe some more. It looks at all of them at once."""
    said = sources.texts["evidence"]
    doubt = ~said.where(lambda each: each is None or _is_said(each))[rows]
    samples = evidence.field("bands")
    known = evidence.is_valid().to_numpy(zero_copy_only=False)
    lengths = np.where(known, samples.value_lengths().fill_null(0).to_numpy(zero_copy_only=False), 0)
    flat = samples.filter(pa.array(known)).flatten()
    owner = np.repeat(np.arange(len(rows)), lengths)
    names = pa.ListArray.from_arrays(pa.array(np.append(0, lengths.cumsum()), pa.int32()), flat.field("name"))
    bands = sources.texts["bands"]
    of_bands = pa.array([[band["name"] for band in each or ()] for each in bands.distinct()], names.type)
    doubt |= hash_rows(names) != hash_rows(of_bands)[bands.codes[rows]]
    value = {name: flat.field(name).to_numpy(zero_copy_only=False) for name in ("valid", *_ORDER)}
    right = (value["valid"] >= 0) & (value["valid"] <= 1)
    for low, high in itertools.pairwise(_ORDER):
        right &= value[low] <= value[high]
    doubt[owner[~right]] = True
    doubt |= _doubtful_offsets(value, owner, sources, rows, sensor)
    unread = said.where(lambda each: each is not None and each["status"] == "unread" and _is_said(each))
    return np.asarray(known & doubt & ~unread[rows])


def _doubtful_offsets(
    value: dict[str, npt.NDArray[np.float64]],
    owner: npt.NDArray[np.integer],
    sources: SourceTable,
    rows: npt.NDArray[np.integer],
    sensor: Sensor,
) -> npt.NDArray[np.bool_]:
    """The rows for which `_wrong_offset` may find something."""
    if not sensor.other_offsets:
        return np.zeros(len(rows), dtype=bool)
    bands = sources.texts["bands"]
    first = [each[0] if each and stated_by(each[0]) != "spec" else None for each in bands.distinct()]
    offsets = np.array([np.nan if band is None else band["offset"] for band in first])[bands.codes[rows]]
    full = (sensor.offset - sensor.other_offsets[0]) / sensor.scale
    taken = (sensor.offset - offsets) / sensor.scale
    seen = value["valid"] > 0
    p50, p99, minimum = (value[name][seen] for name in ("p50", "p99", "minimum"))
    owner = owner[seen]
    below = np.where(p99 < full - _NOISE, 0.99, np.where(p50 < full - _NOISE, 0.5, 0.0))
    share = np.bincount(owner, below, len(rows)) / np.maximum(np.bincount(owner, minlength=len(rows)), 1)
    smallest = np.full(len(rows), np.inf)
    np.minimum.at(smallest, owner, minimum)
    wrong = ((taken > 0) & (share > 0.99 * _SHARE)) | ((taken == 0) & (smallest >= full) & np.isfinite(smallest))
    return np.asarray(wrong)
