"""Whether the sensor that a spec names is the one that made an image, as far as its item says.

Catalogs write these names in many ways (`Sentinel-2A`, `sentinel 2`, `LANDSAT_8`); letters and digits are compared.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from clay_publish.errors import SourceError
from clay_publish.producer.sources.item import SourceItem, ground_size
from clay_publish.spec.sensors import SENSORS, Sensor

_SAID = (
    "constellation",
    "platform",
    "instruments",
    "eo:constellation",  # before STAC 1.0
    "eo:platform",
    "eo:instrument",
)
_FACTOR = 4.0
"""Pixels so many times larger or smaller than the sensor's are worth a word; half or double of it is common."""


def check_origin(properties: Mapping[str, Any], sensor: Sensor, where: str) -> None:
    """Refuse an item that says that another sensor made it. One that says nothing passes, as does an unknown name.

    Raises:
        SourceError: it names the mission, or the level of processing, of other sensors alone.
    """
    known = [(key, name, missions) for key, name in _said(properties) if (missions := _missions(name))]
    if sensor.missions and known and not any(set(missions) & set(sensor.missions) for _, _, missions in known):
        key, name, missions = known[0]
        fitting = [other.key for other in SENSORS.values() if set(missions) & set(other.missions)]
        raise SourceError(
            where,
            f"says {key} {name!r}, which is no imagery of sensor {sensor.key}",
            sensor.title,
            f"Set `imagery.sensor` to {' or '.join(fitting)}, or choose other collections.",
        )
    if sensor.level is not None:
        key, beginning = sensor.level
        stated = properties.get(key)
        if isinstance(stated, str) and not stated.startswith(beginning):
            raise SourceError(
                where,
                f"says {key} {stated!r}, which is no imagery of sensor {sensor.key}",
                f"{sensor.title}, {key} {beginning}…",
                "Set `imagery.sensor` to the one of that level.",
            )


def size_note(items: Iterable[SourceItem], sensor: Sensor) -> str | None:
    """What to say where pixels are of quite another size than the sensor's: right for a few, a mistake for most."""
    off = []
    for item in items:
        if item.grid is not None:
            size = ground_size(item.grid, item.grid.height / 2)
            if not 1 / _FACTOR <= size / sensor.gsd <= _FACTOR:
                off.append((item.id, size))
    if not off:
        return None
    name, size = off[0]
    more = f" and of {len(off) - 1} more images" if len(off) > 1 else ""
    return (
        f"pixels of {name}{more} measure {size:.3g} m, those of sensor {sensor.key} {sensor.gsd:g} m:"
        " make sure that the sensor is the right one"
    )


def _said(properties: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key in _SAID:
        value = properties.get(key)
        names: Sequence[Any] = value if isinstance(value, list) else [value]
        yield from ((key, name) for name in names if isinstance(name, str))


def _missions(name: str) -> tuple[str, ...]:
    """The missions of the registry that a name belongs to."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    return tuple(sorted({each for sensor in SENSORS.values() for each in sensor.missions if plain.startswith(each)}))
