"""Rules on the sensor: the one that a release names is the one that made its images."""

import re
from collections.abc import Iterator

import numpy as np

from clay_publish.errors import ReleaseError, SpecError
from clay_publish.release.directory import MANIFEST, SOURCES, SPEC
from clay_publish.spec.sensors import SENSORS, Sensor
from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.data.footprints import metres_per_degree
from clay_publish.validate.data.sources import Source
from clay_publish.validate.expected.grids import scene_grid
from clay_publish.validate.outcomes import Fault, NotChecked, Outcome, and_more
from clay_publish.validate.registry import rule

_FACTOR = 12
"""Images that were made coarser, or finer, by less are common."""


@rule("PRV012")
def sensor_made_images(context: ReleaseContext) -> Iterator[Outcome]:
    """Platform and collection of the used sources against the fingerprint's sensor; names nobody knows say nothing."""
    sensor = context.fingerprint.sensor
    own = set(instrument(context).missions)
    if not own:
        yield NotChecked(f"sensor {sensor!r} is not bound to a mission")
        return
    strangers: dict[str, list[str]] = {}
    for source in context.sources.used:
        named = [(name, told) for name in (source.platform, source.collection) if name and (told := _missions(name))]
        if named and not any(own & told for _, told in named):
            strangers.setdefault(named[0][0], []).append(source.id)
    for name, items in sorted(strangers.items()):
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
    """What samples of the pixels said when the run read them, from the notes of the manifest."""
    for note in context.documents.manifest.run.notes:
        yield Fault(MANIFEST, note, "values as the item describes them")


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
    """Metres a pixel of an image; None where its grid is not told, which COV015 speaks of."""
    try:
        grid = scene_grid(source, 1)
    except ReleaseError:
        return None
    shape = source.geometry
    lat = 0.0 if shape is None else float(shape.centroid.y)
    east, north = metres_per_degree(np.array([lat]))
    return grid.side * (float(np.sqrt(east[0] * north[0])) if grid.unit > 1000 else grid.unit)
