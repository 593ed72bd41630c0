"""Sensors: what the bands of each kind of imagery mean, and how a model expects them.

A sensor is a YAML file of this folder, or a mapping or file that a spec brings. Producer and `validate` read the same
definitions; nothing in the package has to be edited for a new one.
"""

from clay_publish.spec.sensors.definition import (
    SENSORS,
    Band,
    BandStatistics,
    CloudMask,
    ProductLevel,
    Sensor,
    StatisticsSource,
    parse_sensor,
    read_sensor,
    sensor,
)

__all__ = [
    "SENSORS",
    "Band",
    "BandStatistics",
    "CloudMask",
    "ProductLevel",
    "Sensor",
    "StatisticsSource",
    "parse_sensor",
    "read_sensor",
    "sensor",
]
