"""Rules on the sensor: the one that a release names is the one that made its images."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from clay_publish.errors import ReleaseError, SpecError, shown
from clay_publish.release.directory import SOURCES, SPEC
from clay_publish.release.fingerprint import SCALE_RULE, composite_rule, mask_rule
from clay_publish.spec.models import Imagery
from clay_publish.spec.sensors import SENSORS, Sensor
from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.data.footprints import meters_per_degree
from clay_publish.validate.data.sources import Source, SourceTable, typed
from clay_publish.validate.expected.cells import units_of
from clay_publish.validate.outcomes import Fault, NotChecked, Outcome, and_more
from clay_publish.validate.registry import rule
from clay_publish.validate.rules.imagery.samples import doubtful_samples, sample_faults, stated_by
from clay_publish.validate.spilled import distinct

_DECIDED = frozenset({"spec", "item", "collection", "sensor", "assumed", "file"})
"""What scale and offset may follow from, beside properties that state Sentinel-2's baseline or that it was applied."""
_FLAG = re.compile(r"baseline|applied|harmoni[sz]ed")
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
    sources = context.sources
    others: dict[str, list[npt.NDArray[np.integer]]] = {}
    kinds, kind_of = sources.kinds(("platform", "collection"), sources.used)
    for number, source in enumerate(sources.rows(kinds)):
        named = [
            (name, stated) for name in (source.platform, source.collection) if name and (stated := _missions(name))
        ]
        if named and not any(own & stated for _, stated in named):
            others.setdefault(named[0][0], []).append(sources.used[kind_of == number])
    for name, parts in sorted(others.items()):
        first, count = min(int(part[0]) for part in parts), sum(map(len, parts))
        where = and_more(f"{SOURCES}: {sources.name(first)}", count)
        yield Fault(where, f"is an image of {name}", f"images of sensor {sensor}")


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
    sources = context.sources
    ambiguous = sources.among_used("evidence", lambda said: said is not None and said["status"] == "ambiguous")
    for source in sources.rows(ambiguous):
        for sentence in source.evidence["sentences"] if source.evidence else ():
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

    def check(source: Source) -> Iterator[Fault]:
        return _bands_faults(source, wanted, blocks, sensor)

    def check_mask(source: Source) -> Iterator[Fault]:
        return _mask_faults(source, sensor)

    sources = context.sources
    bad = np.zeros(sources.count, dtype=bool)
    bad[sources.suspects(("bands", "assets", "block"), sources.used, check)] = True
    bad[sources.suspects(("mask", "assets"), sources.used, check_mask)] = True
    for rows, batch in sources.batches(context.tables, ["evidence"]):
        evidence = typed(batch, "evidence")
        wrong = sources.is_used[rows] & (bad[rows] | doubtful_samples(evidence, sources, rows, sensor))
        for place in np.flatnonzero(wrong):
            source = sources[int(rows[place])]
            yield from check(source)
            yield from sample_faults(f"{SOURCES}: {source.id}: evidence", source, evidence[place].as_py(), sensor)
            yield from check_mask(source)


def _bands_faults(source: Source, wanted: list[str], blocks: Sequence[Imagery], sensor: Sensor) -> Iterator[Fault]:
    where = f"{SOURCES}: {source.id}: bands"
    names = [band["name"] for band in source.bands]
    if names != wanted:
        found = f"tells how {', '.join(names) or 'no band'} is read"
        yield Fault(where, found, f"an entry for each of {', '.join(wanted)}, in this order")
    places = [(band["asset"], band["band"]) for band in source.bands]
    if len(set(places)) < len(places):
        yield Fault(where, "has one band of an asset for several", "one for each")
    if len({(band["scale"], band["offset"]) for band in source.bands}) > 1:
        yield Fault(where, "has several scales or offsets", "one of all bands, as products have")
    block = blocks[source.block] if 0 <= source.block < len(blocks) else None
    for band in source.bands:
        yield from _band_faults(f"{where}: {band['name']}", band, source, sensor)
        if block is not None:
            yield from _other_than_asked(f"{where}: {band['name']}", band, block, sensor)


def _mask_faults(source: Source, sensor: Sensor) -> Iterator[Fault]:
    mask, where = source.mask, f"{SOURCES}: {source.id}: mask"
    if mask is None:
        return
    if mask["asset"] not in source.assets:
        yield Fault(where, f"is asset {mask['asset']!r}", f"one of {', '.join(source.assets)}")
    masks = {(each.format, each.cloudy, each.nodata, each.bands) for each in sensor.masks}
    stated = (mask["format"], *(tuple(mask[name]) for name in ("cloudy", "nodata", "bands")))
    if masks and stated not in masks:
        yield Fault(where, f"reads {mask['format']} {mask['cloudy']} as cloud", "the sensor's rule")


def _band_faults(where: str, band: dict[str, Any], source: Source, sensor: Sensor) -> Iterator[Fault]:
    if band["asset"] not in source.assets or band["band"] < 1:
        found = f"is band {band['band']} of asset {band['asset']!r}"
        yield Fault(where, found, f"a band of {', '.join(source.assets)}")
    by = stated_by(band)
    if by not in _DECIDED and _FLAG.search(by.lower()) is None:
        yield Fault(where, f"scale and offset follow from {by!r}", "a statement of the spec, the item or the sensor")
    known = any(np.isclose(band["offset"], each) for each in (sensor.offset, *sensor.other_offsets))
    if by != "spec" and not (np.isclose(band["scale"], sensor.scale) and known):
        found = f"scale {band['scale']:g} and offset {band['offset']:g} by {by!r}"
        yield Fault(where, found, f"those of sensor {sensor.key}, or the spec's")


def _other_than_asked(where: str, band: dict[str, Any], block: Imagery, sensor: Sensor) -> Iterator[Fault]:
    """Where a band is read in another way than its imagery block asks for."""
    by_spec = block.scale is not None or block.offset is not None
    if by_spec != (stated_by(band) == "spec"):
        expected = "the spec, which states them" if by_spec else "what the item or the sensor says"
        yield Fault(where, f"scale and offset follow from {stated_by(band)!r}", expected)
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
    masked = context.sources.among_used("mask", lambda mask: mask is not None)
    if made.mask == "none" and masked.size:
        where = and_more(f"{SOURCES}: {context.sources.name(masked[0])}", len(masked))
        yield Fault(where, "was read with a mask", "none, as the fingerprint")


@rule("PRV016")
def implausible_are_left_out(context: ReleaseContext) -> Iterator[Outcome]:
    """Items of the chips, against sources whose `evidence` is `implausible`."""
    sources, used = context.sources, distinct(context.scan.facts["items"])
    rows = sources.row_of[used[used >= 0]]
    implausible = sources.texts["evidence"].where(lambda said: said is not None and said["status"] == "implausible")
    for source in sources.rows(rows[implausible[rows]]):
        said = " ".join(source.evidence["sentences"]) if source.evidence else ""
        yield Fault(f"{SOURCES}: {source.id}", f"gave chips, and is implausible ({said})", "chips of other images")


@rule("PRV013")
def pixels_fit_sensor(context: ReleaseContext) -> Iterator[Outcome]:
    """Ground size of the used sources' pixels against the sensor's; more than twelve times larger or smaller."""
    sensor, gsd = context.fingerprint.sensor, instrument(context).gsd
    sources = context.sources
    off: dict[str, float] = {}
    for rows, shapes in sources.footprints(sources.used):
        sizes = _pixels(sources, rows, shapes)
        for place in np.flatnonzero(~np.isnan(sizes) & ~((sizes / gsd > 1 / _FACTOR) & (sizes / gsd < _FACTOR))):
            off.setdefault(sources.name(rows[place]), float(sizes[place]))
    for name, size in list(off.items())[:1]:
        where = and_more(f"{SOURCES}: {name}", len(off))
        yield Fault(where, f"pixels of {size:.3g} m", f"about {gsd:g} m, as {sensor} has")


def _pixels(
    sources: SourceTable, rows: npt.NDArray[np.integer], shapes: npt.NDArray[np.object_]
) -> npt.NDArray[np.float64]:
    """Meters a pixel of images; NaN where the grid of one is not stated, which COV015 reports."""
    unit = units_of(sources)[sources.texts["proj_code"].codes[rows]]
    latitudes = np.zeros(len(rows))
    latitudes[unit > 1000] = np.nan_to_num(shapely.get_y(shapely.centroid(shapes[unit > 1000])))
    degrees = np.sqrt(np.prod(meters_per_degree(latitudes), axis=0))
    transforms = sources.transforms[rows]
    matrix = transforms.reshape(-1, 2, 3)[:, :, :2]
    with np.errstate(invalid="ignore"):
        side = np.sqrt(np.abs(np.linalg.det(matrix)))
    known = sources.transforms.there[rows] & (side > 0) & np.isfinite(transforms).all(axis=1)
    return np.where(known, side * np.where(unit > 1000, degrees, unit), np.nan)
