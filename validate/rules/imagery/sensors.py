"""Rules on the sensor: the one that a release names is the one that made its images."""

import itertools
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from clay_publish.errors import ReleaseError, SpecError, shown
from clay_publish.release.directory import SOURCES, SPEC
from clay_publish.release.fingerprint import SCALE_RULE, composite_rule, mask_rule
from clay_publish.spec.models import Imagery
from clay_publish.spec.sensors import SENSORS, Sensor
from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.data.footprints import meters_per_degree
from clay_publish.validate.data.sources import Source
from clay_publish.validate.expected.cells import scene_grid
from clay_publish.validate.outcomes import Fault, NotChecked, Outcome, and_more
from clay_publish.validate.registry import rule
from clay_publish.validate.spilled import distinct

_DECIDED = frozenset({"spec", "item", "collection", "sensor", "assumed", "file"})
"""What scale and offset may follow from, beside properties that state Sentinel-2's baseline or that it was applied."""
_FLAG = re.compile(r"baseline|applied|harmoni[sz]ed")
_EVIDENCE = ("plausible", "ambiguous", "implausible", "unread")
_NOISE = 100
"""Digital numbers by which noise goes below zero reflectance."""
_SHARE = 0.02
"""Of pixels below zero reflectance, at most; runs call it doubtful from half of it on."""
_FACTOR = 12
"""Images that were made coarser, or finer, by less are common."""


@rule("PRV012")
def sensor_made_images(context: ReleaseContext) -> Iterator[Outcome]:
    """Platform and collection of the used sources against the fingerprint's sensor; unknown names are ignored."""
    sensor = context.fingerprint.sensor
    own = set(instrument(context).missions)
    if not own:
        yield NotChecked(f"sensor {sensor!r} is not bound to a mission")
        return
    others: dict[str, list[str]] = {}
    for source in context.sources.used:
        named = [
            (name, stated) for name in (source.platform, source.collection) if name and (stated := _missions(name))
        ]
        if named and not any(own & stated for _, stated in named):
            others.setdefault(named[0][0], []).append(source.id)
    for name, items in sorted(others.items()):
        yield Fault(
            and_more(f"{SOURCES}: {items[0]}", len(items)), f"is an image of {name}", f"images of sensor {sensor}"
        )


def instrument(context: ReleaseContext) -> Sensor:
    """The sensor that the files were made for, as the package or the release's own spec defines it.

    Raises:
        ReleaseError: neither does.
    """
    key = context.fingerprint.sensor
    try:
        own = context.documents.spec.instrument
    except SpecError as error:
        raise ReleaseError(SPEC, str(error)) from error
    if own.key == key:
        return own
    if key not in SENSORS:
        raise ReleaseError(SPEC, f"does not define sensor {key!r}", "the sensor of the files")
    return SENSORS[key]


def _missions(name: str) -> set[str]:
    """What a name says of its mission: catalogs write `Sentinel-2A`, `sentinel 2`, `LANDSAT_8`."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    known = {mission for sensor in SENSORS.values() for mission in sensor.missions if len(mission) > 3}
    return {mission for mission in known if plain.startswith(mission)}


@rule("PRV014")
def pixel_values_agree(context: ReleaseContext) -> Iterator[Outcome]:
    """What samples of the pixels said when the run read them: `evidence` of the used sources."""
    for source in context.sources.used:
        if source.evidence is not None and source.evidence["status"] == "ambiguous":
            for sentence in source.evidence["sentences"]:
                yield Fault(f"{SOURCES}: {source.id}", sentence, "values as the item describes them")


@rule("PRV015")
def bands_are_resolved(context: ReleaseContext) -> Iterator[Outcome]:
    """`bands`, `mask` and `evidence` of the used sources, against the fingerprint, the sensor, and the imagery block.

    Which of several bands of an item is the right one, only its files tell; values of the sample tell an offset of
    Sentinel-2 that is taken off wrongly.
    """
    read = {band.name for band in context.fingerprint.bands}
    sensor, blocks = instrument(context), context.documents.spec.imagery
    wanted = [band.name for band in sensor.bands if band.name in read]
    masks = {(mask.format, mask.cloudy, mask.nodata, mask.bands) for mask in sensor.masks}
    for source in context.sources.used:
        where = f"{SOURCES}: {source.id}"
        names = [band["name"] for band in source.bands]
        if names != wanted:
            found = f"tells how {', '.join(names) or 'no band'} is read"
            yield Fault(f"{where}: bands", found, f"an entry for each of {', '.join(wanted)}, in this order")
        places = [(band["asset"], band["band"]) for band in source.bands]
        if len(set(places)) < len(places):
            yield Fault(f"{where}: bands", "has one band of an asset for several", "one for each")
        if len({(band["scale"], band["offset"]) for band in source.bands}) > 1:
            yield Fault(f"{where}: bands", "has several scales or offsets", "one of all bands, as products have")
        block = blocks[source.block] if 0 <= source.block < len(blocks) else None
        for band in source.bands:
            yield from _band_faults(f"{where}: bands: {band['name']}", band, source, sensor)
            if block is not None:
                yield from _other_than_asked(f"{where}: bands: {band['name']}", band, block, sensor)
        yield from _evidence_faults(f"{where}: evidence", source, sensor)
        if source.mask is not None:
            mask = source.mask
            if mask["asset"] not in source.assets:
                yield Fault(f"{where}: mask", f"is asset {mask['asset']!r}", f"one of {', '.join(source.assets)}")
            stated = (mask["format"], *(tuple(mask[name]) for name in ("cloudy", "nodata", "bands")))
            if masks and stated not in masks:
                yield Fault(f"{where}: mask", f"reads {mask['format']} {mask['cloudy']} as cloud", "the sensor's rule")


def _band_faults(where: str, band: dict[str, Any], source: Source, sensor: Sensor) -> Iterator[Fault]:
    if band["asset"] not in source.assets or band["band"] < 1:
        found = f"is band {band['band']} of asset {band['asset']!r}"
        yield Fault(where, found, f"a band of {', '.join(source.assets)}")
    by = _stated_by(band)
    if by not in _DECIDED and _FLAG.search(by.lower()) is None:
        yield Fault(where, f"scale and offset follow from {by!r}", "a statement of the spec, the item or the sensor")
    known = any(np.isclose(band["offset"], each) for each in (sensor.offset, *sensor.other_offsets))
    if by != "spec" and not (np.isclose(band["scale"], sensor.scale) and known):
        found = f"scale {band['scale']:g} and offset {band['offset']:g} by {by!r}"
        yield Fault(where, found, f"those of sensor {sensor.key}, or the spec's")


def _stated_by(band: dict[str, Any]) -> str:
    """What scale and offset of a band follow from."""
    return str(band["source"].rpartition("values: ")[2])


def _other_than_asked(where: str, band: dict[str, Any], block: Imagery, sensor: Sensor) -> Iterator[Fault]:
    """Where a band is read in another way than its imagery block asks for."""
    by_spec = block.scale is not None or block.offset is not None
    if by_spec != (_stated_by(band) == "spec"):
        expected = "the spec, which states them" if by_spec else "what the item or the sensor says"
        yield Fault(where, f"scale and offset follow from {_stated_by(band)!r}", expected)
    elif by_spec:
        scale, offset = block.scale or sensor.scale, sensor.offset if block.offset is None else block.offset
        if (band["scale"], band["offset"]) != (scale, offset):
            found = f"scale {band['scale']:g} and offset {band['offset']:g}"
            yield Fault(where, found, f"{scale:g} and {offset:g}, as release.yaml says")
    asset, _, number = block.bands.get(band["name"], "").partition("#")
    by_name = band["source"].startswith("band: imagery.bands;")
    if (
        by_name != bool(asset)
        or (asset and band["asset"] != asset)
        or (number.isdecimal() and band["band"] != int(number))
    ):
        expected = f"{block.bands[band['name']]!r}, as release.yaml says" if asset else "as the item says"
        yield Fault(where, f"is band {band['band']} of asset {band['asset']!r} ({band['source']})", expected)


def _evidence_faults(where: str, source: Source, sensor: Sensor) -> Iterator[Fault]:
    """Where a sample of the pixels contradicts itself, or the offset of the bands."""
    if source.evidence is None:
        return
    status, samples = source.evidence["status"], source.evidence["bands"]
    silent = status in {"plausible", "unread"}
    if status not in _EVIDENCE or silent == bool(source.evidence["sentences"]):
        found = f"is {status!r} with {len(source.evidence['sentences'])} sentences"
        yield Fault(where, found, f"{', '.join(_EVIDENCE)}, and sentences unless it is plausible")
    if status == "unread":
        return
    names = [band["name"] for band in source.bands]
    if [sample["name"] for sample in samples] != names:
        yield Fault(where, f"samples {', '.join(s['name'] for s in samples) or 'no band'}", ", ".join(names))
    for sample in samples:
        ordered = [sample[name] for name in ("minimum", "p1", "p50", "p99", "maximum")]
        if not 0 <= sample["valid"] <= 1 or not all(low <= high for low, high in itertools.pairwise(ordered)):
            yield Fault(f"{where}: {sample['name']}", f"share {sample['valid']:g}, values {ordered}", "growing values")
    if status == "plausible" and (doubt := _wrong_offset(source, samples, sensor)) is not None:
        yield Fault(where, f"is plausible, and {doubt}", "the offset that its pixels have, or `ambiguous`")


def _wrong_offset(source: Source, samples: list[dict[str, Any]], sensor: Sensor) -> str | None:
    """What in a sample contradicts an offset of sensors whose later products have one; None where nothing does."""
    seen = [sample for sample in samples if sample["valid"] > 0]
    if not sensor.other_offsets or not seen or not source.bands or _stated_by(source.bands[0]) == "spec":
        return None
    full = (sensor.offset - sensor.other_offsets[0]) / sensor.scale
    taken = (sensor.offset - source.bands[0]["offset"]) / sensor.scale
    below = [0.99 if s["p99"] < full - _NOISE else 0.5 if s["p50"] < full - _NOISE else 0.0 for s in seen]
    if taken > 0 and sum(below) > _SHARE * len(seen):
        return f"{taken:,.0f} is taken off, yet more than {sum(below) / len(seen):.0%} of its pixels are smaller"
    smallest = min(sample["minimum"] for sample in seen)
    if taken == 0 and smallest >= full and "baseline" not in _stated_by(source.bands[0]):
        return f"nothing is taken off, yet no pixel is below {smallest:,.0f}"
    return None


@rule("PRV017")
def pixel_rules_are_the_spec_s(context: ReleaseContext) -> Iterator[Outcome]:
    """`scale`, `mask` and `composite` of the fingerprint; masks of the spec's imagery, and of the used sources."""
    made, spec = context.fingerprint, context.documents.spec
    blocks = spec.imagery
    asked = sorted({block.mask or "" for block in blocks})
    if len(asked) > 1:
        yield Fault(f"{SPEC}: imagery", f"names the masks {', '.join(map(shown, asked))}", "one for all blocks")
        return
    for name, found, expected in (
        ("scale", made.scale, SCALE_RULE),
        ("mask", made.mask, mask_rule(instrument(context), blocks[0].mask)),
        ("composite", made.composite, composite_rule(made.layout, blocks[0].composite, spec.model.steps)),
    ):
        if found != expected:
            yield Fault(f"fingerprint: {name}", shown(found), f"{expected}, as {SPEC} asks for")
    masked = [source.id for source in context.sources.used if source.mask is not None]
    if made.mask == "none" and masked:
        yield Fault(
            and_more(f"{SOURCES}: {masked[0]}", len(masked)), "was read with a mask", "none, as the fingerprint"
        )


@rule("PRV016")
def implausible_are_left_out(context: ReleaseContext) -> Iterator[Outcome]:
    """Items of the chips, against sources whose `evidence` is `implausible`."""
    sources, used = context.sources, set(distinct(context.scan.facts["items"]).tolist())
    for place, source in enumerate(sources.items):
        if place in used and source.evidence is not None and source.evidence["status"] == "implausible":
            said = " ".join(source.evidence["sentences"])
            yield Fault(f"{SOURCES}: {source.id}", f"gave chips, and is implausible ({said})", "chips of other images")


@rule("PRV013")
def pixels_fit_sensor(context: ReleaseContext) -> Iterator[Outcome]:
    """Ground size of the used sources' pixels against the sensor's; more than twelve times larger or smaller."""
    sensor, gsd = context.fingerprint.sensor, instrument(context).gsd
    sizes = {source.id: _pixel(source) for source in context.sources.used}
    off = {name: size for name, size in sizes.items() if size is not None and not 1 / _FACTOR < size / gsd < _FACTOR}
    for name, size in list(off.items())[:1]:
        where = and_more(f"{SOURCES}: {name}", len(off))
        yield Fault(where, f"pixels of {size:.3g} m", f"about {gsd:g} m, as {sensor} has")


def _pixel(source: Source) -> float | None:
    """Meters a pixel of an image; None where its grid is not stated, which COV015 reports."""
    try:
        grid = scene_grid(source, 1)
    except ReleaseError:
        return None
    shape = source.geometry
    lat = 0.0 if shape is None else float(shape.centroid.y)
    east, north = meters_per_degree(np.array([lat]))
    return grid.side * (float(np.sqrt(east[0] * north[0])) if grid.unit > 1000 else grid.unit)
