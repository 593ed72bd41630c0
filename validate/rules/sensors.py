"""Rules on the sensor: the one that a release names is the one that made its images."""

import re
from collections.abc import Iterator

import numpy as np

from clay_publish.errors import ReleaseError, SpecError
from clay_publish.release.directory import MANIFEST, SOURCES, SPEC
from clay_publish.release.findings import Severity
from clay_publish.spec.sensors import SENSORS, Sensor
from clay_publish.validate.context import View
from clay_publish.validate.data.footprints import metres_per_degree
from clay_publish.validate.data.sources import Source
from clay_publish.validate.expected.cells import scene_grid
from clay_publish.validate.registry import Fault, NotChecked, Outcome, rule

_FACTOR = 12
"""Images that were made coarser, or finer, by less are common."""


@rule(
    "PRV012",
    Severity.ERROR,
    "The sensor is the one that made the images",
    reason="Another sensor's statistics and wavelengths give vectors that look fine and mean nothing.",
    fix="Set `imagery.sensor` to the images' own and make the release again.",
)
def sensor_made_images(view: View) -> Iterator[Outcome]:
    """Platform and collection of the used sources against the fingerprint's sensor; names nobody knows say nothing."""
    sensor = view.fingerprint.sensor
    own = set(_instrument(view).missions)
    if not own:
        yield NotChecked(f"sensor {sensor!r} is not bound to a mission")
        return
    strangers: dict[str, list[str]] = {}
    for source in view.sources.used:
        named = [(name, told) for name in (source.platform, source.collection) if name and (told := _missions(name))]
        if named and not any(own & told for _, told in named):
            strangers.setdefault(named[0][0], []).append(source.id)
    for name, items in sorted(strangers.items()):
        more = f" and {len(items) - 1} more" if len(items) > 1 else ""
        yield Fault(f"{SOURCES}: {items[0]}{more}", f"is an image of {name}", f"images of sensor {sensor}")


def _instrument(view: View) -> Sensor:
    """The sensor that the files were made for, as the package or the release's own spec defines it.

    Raises:
        ReleaseError: neither does.
    """
    key = view.fingerprint.sensor
    try:
        own = view.spec.instrument
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


@rule(
    "PRV014",
    Severity.WARNING,
    "Pixel values are what the items say",
    reason="An offset applied twice, or amplitude taken for power, gives vectors that look fine and mean nothing.",
    fix="Look at the images that are named, and state `imagery.scale` and `imagery.offset`, or exclude them.",
)
def pixel_values_agree(view: View) -> Iterator[Outcome]:
    """What samples of the pixels said when the run read them, from the notes of the manifest."""
    for note in view.manifest.run.notes:
        yield Fault(MANIFEST, note, "values as the item describes them")


@rule(
    "PRV013",
    Severity.WARNING,
    "Pixels are about as large as the sensor's",
    reason="A model was trained on ground of a certain size a pixel; ten times as much of it is another picture.",
    fix="Make sure that the sensor is the right one, or say in the description that the images were resampled.",
)
def pixels_fit_sensor(view: View) -> Iterator[Outcome]:
    """Ground size of the used sources' pixels against the sensor's; more than twelve times larger or smaller."""
    sensor, gsd = view.fingerprint.sensor, _instrument(view).gsd
    off = []
    for source in view.sources.used:
        size = _pixel(source, view)
        if size is not None and not 1 / _FACTOR < size / gsd < _FACTOR:
            off.append((source.id, size))
    if off:
        more = f" and {len(off) - 1} more" if len(off) > 1 else ""
        yield Fault(
            f"{SOURCES}: {off[0][0]}{more}", f"pixels of {off[0][1]:.3g} m", f"about {gsd:g} m, as {sensor} has"
        )


def _pixel(source: Source, view: View) -> float | None:
    """Metres a pixel of an image; None where its grid is not told, which COV015 speaks of."""
    try:
        grid = scene_grid(source, 1)
    except ReleaseError:
        return None
    shape = view.sources.geometry(source)
    lat = 0.0 if shape is None else float(shape.centroid.y)
    east, north = metres_per_degree(np.array([lat]))
    return grid.side * (float(np.sqrt(east[0] * north[0])) if grid.unit > 1000 else grid.unit)
