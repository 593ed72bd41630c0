"""Rules on the sensor: the one that a release names is the one that made its images."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from clay_publish.errors import ReleaseError, SpecError, shown
from clay_publish.release.directory import SOURCES, SPEC
from clay_publish.release.fingerprint import SCALE_RULE, composite_rule, mask_rule
from clay_publish.spec.sensors import SENSORS, Sensor
from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.data.footprints import meters_per_degree
from clay_publish.validate.data.sources import Source
from clay_publish.validate.expected.cells import scene_grid
from clay_publish.validate.outcomes import Fault, NotChecked, Outcome, and_more
from clay_publish.validate.registry import rule
from clay_publish.validate.spilled import distinct

_DECIDED = frozenset({"spec", "item", "sensor", "assumed", "file"})
"""What scale and offset may follow from, beside properties that state Sentinel-2's baseline or that it was applied."""
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
    """`bands` and `mask` of the used sources, against the bands that the fingerprint and the sensor have."""
    wanted = {band.name for band in context.fingerprint.bands}
    sensor = instrument(context)
    masks = {(mask.format, mask.cloudy, mask.nodata, mask.bands) for mask in sensor.masks}
    for source in context.sources.used:
        where = f"{SOURCES}: {source.id}"
        missing = sorted(wanted - {band["name"] for band in source.bands})
        if missing:
            yield Fault(f"{where}: bands", f"does not say how {', '.join(missing)} is read", "an entry for each band")
        for band in source.bands:
            yield from _band_faults(f"{where}: bands: {band['name']}", band, source, sensor)
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
    by = band["source"].rpartition("values: ")[2]
    if by not in _DECIDED and "baseline" not in by and "applied" not in by:
        yield Fault(where, f"scale and offset follow from {by!r}", "a statement of the spec, the item or the sensor")
    known = any(np.isclose(band["offset"], each) for each in (sensor.offset, *sensor.other_offsets))
    if by != "spec" and not (np.isclose(band["scale"], sensor.scale) and known):
        found = f"scale {band['scale']:g} and offset {band['offset']:g} by {by!r}"
        yield Fault(where, found, f"those of sensor {sensor.key}, or the spec's")


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
