"""Rules on the sensor: the one that a release names is the one that made its images."""

import re
from collections.abc import Iterator

import numpy as np

from clay_publish.errors import ReleaseError
from clay_publish.release.directory import SOURCES
from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.data.footprints import metres_per_degree
from clay_publish.validate.data.sources import Source
from clay_publish.validate.expected.grids import scene_grid
from clay_publish.validate.outcomes import Fault, NotChecked, Outcome, and_more
from clay_publish.validate.registry import rule

MISSIONS: dict[str, tuple[tuple[str, ...], float]] = {
    "sentinel-2-l2a": (("sentinel2",), 10),
    "sentinel-2-rgbnir": (("sentinel2",), 10),
    "landsat-c2l1": (("landsat",), 30),
    "landsat-c2l2-sr": (("landsat",), 30),
    "naip": (("naip",), 1),
    "linz": (("linz",), 0.5),
    "sentinel-1-rtc": (("sentinel1",), 10),
    "modis": (("modis", "terra", "aqua", "mod09", "mcd43"), 500),
    "planetscope-sr": (("planetscope",), 5),
    "satellogic-MSI-L1D": (("satellogic", "newsat"), 1),
}
"""How platforms and collections of a sensor's images begin, in small letters and digits, and metres of their pixels.

Written down here a second time on purpose: a validator that reads them from where the producer does would find nothing.
"""

_FACTOR = 12
"""Images that were made coarser, or finer, by less are common."""


@rule("PRV012")
def sensor_made_images(context: ReleaseContext) -> Iterator[Outcome]:
    """Platform and collection of the used sources against the fingerprint's sensor; names nobody knows say nothing."""
    sensor = context.fingerprint.sensor
    if sensor not in MISSIONS:
        yield NotChecked(f"nothing is known of the images of sensor {sensor!r}")
        return
    own = set(MISSIONS[sensor][0])
    strangers: dict[str, list[str]] = {}
    for source in context.sources.used:
        named = [(name, told) for name in (source.platform, source.collection) if name and (told := _missions(name))]
        if named and not any(own & told for _, told in named):
            strangers.setdefault(named[0][0], []).append(source.id)
    for name, items in sorted(strangers.items()):
        yield Fault(
            and_more(f"{SOURCES}: {items[0]}", len(items)), f"is an image of {name}", f"images of sensor {sensor}"
        )


def _missions(name: str) -> set[str]:
    """What a name says of its mission: catalogs write `Sentinel-2A`, `sentinel 2`, `LANDSAT_8`."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    return {mission for missions, _ in MISSIONS.values() for mission in missions if plain.startswith(mission)}


@rule("PRV013")
def pixels_fit_sensor(context: ReleaseContext) -> Iterator[Outcome]:
    """Ground size of the used sources' pixels against the sensor's; more than twelve times larger or smaller."""
    sensor = context.fingerprint.sensor
    if sensor not in MISSIONS:
        yield NotChecked(f"nothing is known of the images of sensor {sensor!r}")
        return
    gsd = MISSIONS[sensor][1]
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
