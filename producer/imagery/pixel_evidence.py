"""Whether the pixel values of an image are what its item says: one fixed sample of each band, looked at once.

The smallest overview of at least 64 × 64 pixels is read, else a window in the center. Values are compared with the
sensor's statistics after scale and offset. Clearly implausible images are left out; ambiguous ones are reported.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from clay_publish.errors import ImageryError, SourceError
from clay_publish.producer.imagery.raster import OpenBand, open_bands
from clay_publish.producer.imagery.remote import known_masks, public_name
from clay_publish.producer.sources.item import SourceItem
from clay_publish.producer.sources.scale_offset import Scaling, check_agreement, check_tags
from clay_publish.release import directory as paths
from clay_publish.release.directory import Release, checked
from clay_publish.release.fingerprint import canonical_json
from clay_publish.spec.sensors import Band, Sensor

FOLDER = f"{paths.RUN}/evidence"
_FILE = re.compile(rf"{re.escape(FOLDER)}/([0-9a-f]{{16}})[0-9a-f]{{16}}\.json")
_WINDOW = 512
_OVERVIEW = 64
_ENOUGH = 400
"""Valid pixels below which a sample says nothing."""
_HIGH = 20.0
_LOW = 0.12
_NOISE = 100
"""Digital numbers by which noise goes below zero reflectance."""
_SHARE = 0.01
_ONE = 2.0
"""Above any reflectance of 1."""
_FEW = 0.01
"""Share of pixels that an average of others, as overviews have them, may give another value."""
_DARK = 0.03
"""Reflectance below zero that the atmospheric correction of dark water leaves."""
_FILLS = (-9999.0, -32768.0, -32767.0, -28672.0, -999.0)
"""Values that files have where there is no data."""

_RESCALE = "State imagery.scale and imagery.offset, choose another sensor, or set imagery.accept_values: true."
_REMAP = "State which bands to read in imagery.bands, or set imagery.accept_values: true."
_MARK = "State nodata in the file, or of its bands in the item, or set imagery.accept_values: true."

Status = Literal["plausible", "ambiguous", "implausible", "unread"]


class BandSample(BaseModel):
    """Quantiles of the valid pixels of one band's sample, as digital numbers of the file."""

    model_config = ConfigDict(frozen=True)

    name: str
    dtype: str
    valid: float
    """Share of the sample that is data."""
    minimum: float
    p1: float
    p50: float
    p99: float
    maximum: float
    low: float = 0.0
    """Share below the offset that the sensor's later products have in their pixels."""
    negative: float = 0.0
    """Share below 0."""
    extreme: float = 0.0
    """Share of 0 and 255."""
    tags: tuple[float, float] = (1.0, 0.0)
    """Scale and offset that the file states."""


class _Samples(BaseModel):
    """A record of the samples of an image."""

    item: str
    bands: list[BandSample]


class Evidence(BaseModel):
    """What the sample of an image says."""

    model_config = ConfigDict(frozen=True)

    status: Status
    sentences: list[str] = []
    bands: list[BandSample] = []


@dataclass(frozen=True)
class Examined:
    """An image after its sample was looked at."""

    item: SourceItem
    """With scale and offset of the file, where the item states none."""
    evidence: Evidence


def examine(item: SourceItem, sensor: Sensor, *, accept: bool, release: Release | None = None) -> Examined:
    """Sample the pixels of an image, or read the recorded sample.

    Args:
        item: the image.
        sensor: of the imagery.
        accept: whether the spec accepts implausible values.
        release: where the evidence is kept.

    Raises:
        ImageryError: a file cannot be opened or read.
    """
    known = None if release is None else recorded(item, sensor, accept=accept, release=release)
    if known is not None:
        return known
    samples = take_samples(item, sensor)
    if release is not None:
        document = _Samples(item=item.id, bands=samples).model_dump(mode="json")
        release.store.create(evidence_path(item), (json.dumps(document, indent=1) + "\n").encode())
    return _examined(item, samples, sensor, accept=accept)


def recorded(item: SourceItem, sensor: Sensor, *, accept: bool, release: Release) -> Examined | None:
    """Return what `examine` finds in the recorded sample of an image; None where there is none. No pixel is read.

    Raises:
        ReleaseError: the record cannot be read.
    """
    path = evidence_path(item)
    if not release.store.exists(path):
        return None
    fix = "Remove it; the image is looked at again."
    found = checked(_Samples, release.json(path), release.store.path(path), "a record of samples of an image", fix)
    return _examined(item, found.bands, sensor, accept=accept)


def _examined(item: SourceItem, samples: list[BandSample], sensor: Sensor, *, accept: bool) -> Examined:
    try:
        tagged = _with_tags(item, samples, sensor)
    except SourceError as error:
        return Examined(item, Evidence(status="implausible", sentences=[str(error)], bands=samples))
    return Examined(tagged, weigh(tagged, samples, sensor, accept=accept))


def evidence_path(item: SourceItem) -> str:
    """Where the evidence of an image is kept: by the content of its files, which may have been moved."""
    return f"{FOLDER}/{_name(item)}.json"


def _name(item: SourceItem) -> str:
    masks = known_masks(item, None) if item.etags else {}
    known = item.contents
    contents = [[file.asset, known.get(file.href, file.href)] for file in item.bands]
    said = [item.id, item.block, contents, *([sorted(known[href] for href in masks)] if masks else ())]
    return hashlib.sha256(canonical_json(said)).hexdigest()[:32]


class EvidenceIndex:
    """Which images evidence is kept of: 8 bytes for each.

    Two names in 10¹⁹ share these, so that `recorded` may have nothing of an image that is found here.
    """

    def __init__(self, release: Release) -> None:
        names = (_FILE.fullmatch(path) for path in release.store.each_file(FOLDER))
        self._known = np.fromiter((int(name[1], 16) for name in names if name), np.uint64)
        self._known.sort()

    def __contains__(self, item: SourceItem) -> bool:
        wanted = np.uint64(int(_name(item)[:16], 16))
        place = int(np.searchsorted(self._known, wanted))
        return place < len(self._known) and bool(self._known[place] == wanted)


def take_samples(item: SourceItem, sensor: Sensor) -> list[BandSample]:
    """Read the sample of each band.

    Raises:
        ImageryError: a file cannot be opened or read.
    """
    floor = -(sensor.other_offsets[0] - sensor.offset) / sensor.scale if sensor.other_offsets else 0.0
    masks = known_masks(item, sensor.nodata)
    with open_bands(item.bands, sensor.nodata, masks, zero_is_nodata=sensor.zero_is_nodata) as opened:
        return [_sample(band, file.band, floor) for band, file in zip(opened, item.bands, strict=True)]


def _sample(band: OpenBand, name: str, floor: float) -> BandSample:
    values, valid = _pixels(band)
    data = values[valid].astype(np.float64)
    share = float(valid.mean()) if valid.size else 0.0
    tags = band.tags
    if not data.size:
        return BandSample(
            name=name, dtype=str(band.dtype), valid=0, minimum=0, p1=0, p50=0, p99=0, maximum=0, tags=tags
        )
    p1, p50, p99 = (float(q) for q in np.quantile(data, [0.01, 0.5, 0.99]))
    return BandSample(
        name=name,
        dtype=str(band.dtype),
        valid=share if data.size >= _ENOUGH else 0.0,
        minimum=float(data.min()),
        p1=p1,
        p50=p50,
        p99=p99,
        maximum=float(data.max()),
        low=float((data < floor - _NOISE).mean()),
        negative=float((data < 0).mean()),
        extreme=float(np.isin(data, (0, 255)).mean()),
        tags=tags,
    )


def _pixels(band: OpenBand) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Values of the sample, and where they are data: an overview, else the center, else the middles of the quarters."""
    overview = band.read_overview(_OVERVIEW)
    if overview is not None and overview[1].any():
        return overview
    places = [(0.5, 0.5), (0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75)]
    read = overview
    for down, right in places:
        rows, columns = min(_WINDOW, band.height), min(_WINDOW, band.width)
        top = int(np.clip(round(down * band.height - rows / 2), 0, band.height - rows))
        left = int(np.clip(round(right * band.width - columns / 2), 0, band.width - columns))
        read = band.read(top, left, rows, columns)
        if read[1].any():
            break
    if read is None:
        raise ImageryError(band.where, "has no pixels", "an image")
    return read


def _with_tags(item: SourceItem, samples: Sequence[BandSample], sensor: Sensor) -> SourceItem:
    made, scalings = [], []
    for band, sample in zip(item.resolved, samples, strict=True):
        source = band.source.rpartition("values: ")[2]
        where = f"item {item.id}, asset {band.asset} ({public_name(_href(item, band.name))})"
        found = check_tags(Scaling(band.scale, band.offset, source), sample.tags, sensor, where)
        scalings.append((band.name, found))
        if found.source != source:
            source = band.source.replace(f"values: {source}", f"values: {found.source}")
            band = replace(band, scale=found.scale, offset=found.offset, source=source)  # noqa: PLW2901
        made.append(band)
    check_agreement(scalings, f"item {item.id}")
    return item.changed(resolved=tuple(made), shift=made[0].to_input(sensor)[1])


def _href(item: SourceItem, band: str) -> str:
    return next(file.href for file in item.bands if file.band == band)


@dataclass(frozen=True)
class _Weighed:
    """A band's sample in the digital numbers of the sensor's statistics."""

    band: Band
    sample: BandSample
    p1: float
    p50: float
    p99: float
    minimum: float
    maximum: float

    @property
    def limit(self) -> float:
        """Mean plus three standard deviations: few pixels are brighter."""
        return self.band.mean + 3 * self.band.std


def weigh(item: SourceItem, samples: Sequence[BandSample], sensor: Sensor, *, accept: bool) -> Evidence:
    """Compare the samples of an image with the statistics of its sensor."""
    usable = [sample for sample in samples if sample.valid > 0]
    weighed = [_weighed(item, sample, sensor) for sample in usable]
    wrong = [] if not weighed else (_radar(weighed) if sensor.decibels else _optical(weighed, sensor))
    doubts = [] if not weighed or sensor.decibels else [*_shifts(item, weighed, sensor), *_fills(weighed)]
    if sensor.decibels and weighed and not wrong:
        doubts = _amplitude(weighed)
    named = [f"item {item.id}: {sentence}" for sentence in (wrong or doubts)]
    if wrong and not accept:
        fix = _MARK if "nodata" in wrong[0] else _REMAP if "alpha" in wrong[0] else _RESCALE
        return Evidence(status="implausible", sentences=[f"{named[0]} {fix}"], bands=list(samples))
    return Evidence(status="ambiguous" if named else "plausible", sentences=named, bands=list(samples))


def _weighed(item: SourceItem, sample: BandSample, sensor: Sensor) -> _Weighed:
    factor, summand = (1.0, 0.0) if sensor.decibels else item.scaling(sample.name).to_input(sensor)
    p1, p50, p99, low, high = (
        value * factor + summand for value in (sample.p1, sample.p50, sample.p99, sample.minimum, sample.maximum)
    )
    return _Weighed(sensor.band(sample.name), sample, p1, p50, p99, low, high)


def _optical(bands: Sequence[_Weighed], sensor: Sensor) -> list[str]:
    said = next((sentence for each in bands if (sentence := _outlying(each, sensor)) is not None), None)
    said = said or _other_unit(bands) or _below_zero(bands, sensor) or _alpha(bands)
    return [] if said is None else [said]


def _outlying(each: _Weighed, sensor: Sensor) -> str | None:
    """What is wrong with a band whose values no measurement of the sensor has."""
    most = min(_HIGH * each.limit, sensor.maximum or np.inf)
    name = f"band {each.band.name}"
    if max(abs(each.maximum), abs(each.minimum)) > 1000 * each.limit:
        return f"{name} has values from {each.minimum:.3g} to {each.maximum:.3g}, which look like unmarked nodata."
    if each.p99 > most:
        found = f"{name} has a 99th percentile of {each.p99:,.6g}, where at most {most:,.6g} is plausible"
        return f"{found}: the values look multiplied."
    if sensor.maximum is not None and sensor.maximum <= 255 < each.maximum:  # of more bits, saturated pixels exceed it
        found = f"{name} has the value {each.maximum:,.6g}, where {sensor.maximum:,.6g} is the largest"
        return f"{found}: it looks like unmarked nodata."
    if each.sample.minimum in _FILLS and each.minimum < -0.5 * each.limit:
        return f"{name} has the value {each.sample.minimum:,.0f}, which looks like unmarked nodata."
    if each.p1 < -0.5 * each.limit:
        return f"{name} has a 1st percentile of {each.p1:,.6g}, which looks like unmarked nodata or another unit."
    return None


def _other_unit(bands: Sequence[_Weighed]) -> str | None:
    """What is wrong with an image all of whose bands are in another unit."""
    limits = [band.limit for band in bands]
    largest = max(band.maximum for band in bands)
    if min(limits) > 1000 and all(band.sample.dtype == "uint8" for band in bands):
        return "its values are 8 bits (0 to 255): they look like a picture for the eye, not like measurements."
    narrow = next(
        (band for band in bands if band.sample.dtype == "uint8" and band.maximum <= 255 < band.limit / 4), None
    )
    if narrow is not None and largest > 255:
        return f"band {narrow.band.name} has 8 bits (0 to 255), where other bands reach {largest:,.6g}."
    real = [band for band in bands if band.sample.dtype.startswith("float")]
    if min(limits) > 100 and largest <= 10 and real:
        return f"its values are real numbers up to {largest:.3g}: they look like reflectance from 0 to 1."
    single = next((band for band in real if band.limit > 1000 and band.maximum <= _ONE < largest / 100), None)
    if single is not None:
        found = f"band {single.band.name} has real numbers up to {single.maximum:.3g}, where other bands reach"
        return f"{found} {largest:,.6g}: it looks like reflectance from 0 to 1."
    if all(band.p99 < _LOW * band.limit for band in bands) and _is_land(bands):
        ratio = max(band.p99 / band.limit for band in bands)
        found = (
            f"no band reaches {_LOW:.0%} of what bright pixels have (at most {ratio:.1%}), with the spectrum of land"
        )
        return f"{found}: the values look like reflectance × 1,000 or another smaller scale."
    return None


def _below_zero(bands: Sequence[_Weighed], sensor: Sensor) -> str | None:
    """What is wrong with an image of which most pixels would reflect less than nothing."""
    if sensor.scale == 1:
        return None
    middles = sorted(band.p50 * sensor.scale + sensor.offset for band in bands)
    middle = middles[len(middles) // 2]
    if middle > -_DARK:
        return None
    return f"its median reflectance would be {middle:.2g}: the values look like those of another scale and offset."


def _alpha(bands: Sequence[_Weighed]) -> str | None:
    """What is wrong with an image one of whose bands says where the others are opaque."""
    two = [band for band in bands if band.sample.extreme > 1 - _FEW]  # an overview has means along the edges
    if len(two) != 1 or two[0].sample.maximum != 255 or len(bands) < 3:
        return None
    return f"band {two[0].band.name} holds little but 0 and 255, and looks like an alpha band or a mask."


def _is_land(bands: Sequence[_Weighed]) -> bool:
    """Whether the near infrared is brighter than the shortest wavelength: over water, snow and at night it is not."""
    shortest = min(bands, key=lambda band: band.band.wavelength)
    infrared = [band.p50 for band in bands if 0.75 < band.band.wavelength < 0.95]
    return bool(infrared) and shortest.band.wavelength < 0.7 and max(infrared) > 1.3 * shortest.p50 > 0


def _shifts(item: SourceItem, bands: Sequence[_Weighed], sensor: Sensor) -> list[str]:
    """Whether the offset of Sentinel-2's later baselines is still in the pixels, or was taken off twice."""
    if not sensor.other_offsets or item.resolved[0].source.endswith("spec"):
        return []
    full = (sensor.offset - sensor.other_offsets[0]) / sensor.scale
    low = float(np.mean([band.sample.low for band in bands]))
    stated = item.resolved[0].source.rpartition("values: ")[2]
    if item.shift < 0 and low > _SHARE:
        found = f"{full:,.0f} is taken off its pixels ({stated}), yet {low:.0%} of them are below {full - _NOISE:,.0f}"
        return [f"{found}: the offset may have been applied before."]
    smallest = min(band.sample.minimum for band in bands)
    if item.shift == 0 and smallest >= full and "baseline" not in stated:
        found = f"nothing is taken off its pixels ({stated}), yet none of any band is below {smallest:,.0f}"
        return [f"{found}: the offset of {full:,.0f} may still be in them."]
    return []


def _fills(bands: Sequence[_Weighed]) -> list[str]:
    """Values that often stand for nodata, and that dark pixels may have as well: -999 where an offset was taken off."""
    found = next((band for band in bands if band.sample.minimum in _FILLS), None)
    if found is None:
        return []
    return [f"band {found.band.name} has the value {found.sample.minimum:,.0f}: it may be unmarked nodata."]


def _radar(bands: Sequence[_Weighed]) -> list[str]:
    if any(band.sample.negative > 0.1 for band in bands):
        share = max(band.sample.negative for band in bands)
        return [f"{share:.0%} of its values are negative: they look like decibels, where linear power is expected."]
    if (least := min(band.minimum for band in bands)) < -1:
        return [f"its minimum is {least:,.6g}, which looks like unmarked nodata, where linear power is expected."]
    middle, largest = max(band.p50 for band in bands), max(band.maximum for band in bands)
    if middle > 5 or largest > 1e6:
        found = f"its median is {middle:.3g} and its maximum {largest:.3g}, where calibrated linear power is expected"
        return [f"{found}: the values look like amplitude or digital numbers of a GRD product."]
    return []


def _amplitude(bands: Sequence[_Weighed]) -> list[str]:
    """Amplitude is the root of power: brighter, and its polarizations are nearer to each other."""
    if len(bands) < 2:
        return []
    like, cross = bands[0].p50, bands[1].p50
    if like > 0.2 and cross > 0.35 * like:
        return [f"medians of {like:.2g} and {cross:.2g} look like amplitude rather than power."]
    return []
