"""Sensor definitions: their schema, and those that the package brings."""

import difflib
import re
from collections.abc import Mapping
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from clay_publish.errors import SpecError, shown


def _is_pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        msg = f"{text!r} is not a regular expression ({error})"
        raise ValueError(msg) from error
    return text


Pattern = Annotated[str, AfterValidator(_is_pattern)]
"""A regular expression, searched in lower-case text."""


class _SensorPart(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BandStatistics(_SensorPart):
    """How one band is normalized: (value − mean) / std."""

    name: str
    """Common name of the band."""
    mean: float
    std: float
    wavelength: float
    """Center, in micrometers."""


class Band(_SensorPart):
    """One band of a sensor."""

    name: str
    aliases: tuple[str, ...] = ()
    """Names that catalogs give the band, or its asset."""
    platform_aliases: dict[Pattern, tuple[str, ...]] = {}
    """Names on the platforms that a pattern matches, beside `aliases`; an empty list where no name tells the band."""
    common: tuple[str, ...] = ()
    """Values of `common_name` that catalogs give the band; its own name always counts."""
    wavelength: Annotated[float, Field(gt=0)]
    """Center, in micrometers."""
    mean: float
    std: Annotated[float, Field(gt=0)]

    @property
    def names(self) -> tuple[str, ...]:
        """Every name, its own first."""
        return (self.name, *self.aliases)

    @property
    def statistics(self) -> BandStatistics:
        """What decides its normalization."""
        return BandStatistics(name=self.name, mean=self.mean, std=self.std, wavelength=self.wavelength)


class CloudMask(_SensorPart):
    """A cloud mask that items of the sensor may have."""

    assets: tuple[str, ...]
    """Keys of the asset; a suffix such as `_20m` does not matter."""
    title: Pattern | None = None
    """What the title or description of the asset says, where its key is another."""
    format: Literal["classes", "bits", "probability"] = "classes"
    cloudy: tuple[int, ...]
    """Classes that mean cloud or cloud shadow; bits of which any is set; or the lowest percentage that counts."""
    nodata: tuple[int, ...] = ()
    """Values that mean no data."""
    highest: int | None = None
    """Highest value beside `nodata`; a file with others is not such a mask."""
    bands: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (1,)
    """Bands of the file, from 1, that are looked at; a pixel is under cloud where any of them says so."""
    empty: tuple[date, date] | None = None
    """First and last day of acquisitions whose masks of this kind hold nothing."""


class ProductLevel(_SensorPart):
    """How items state the product and its processing level."""

    name: str
    signs: tuple[Pattern, ...]
    """Patterns of product type, processing level, collection, id and assets of this product."""
    others: dict[str, Pattern] = {}
    """Products that are not this one, by name."""
    derived_from: tuple[str, ...] = ()
    """Those of `others` that items may also name, as what they were computed from."""


class StatisticsSource(_SensorPart):
    """Where means and standard deviations come from."""

    source: str
    computed: bool = False
    """Whether they were computed, rather than published with the model."""


class Sensor(_SensorPart):
    """One kind of imagery."""

    key: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    title: str
    statistics: StatisticsSource
    gsd: Annotated[float, Field(gt=0)]
    """Nominal ground size of a pixel, meters."""
    bands: Annotated[tuple[Band, ...], Field(min_length=1)]
    """In the order in which the model takes them."""
    rgb: tuple[str, str, str]
    """Bands for red, green and blue; false color where there are none."""
    license: str | None = None
    """SPDX identifier, `proprietary` or `public-domain`; None where it depends on the item."""
    attribution: str
    scale: Annotated[float, Field(gt=0)] = 1.0
    """Physical value = digital number × scale + offset, for the digital numbers of the statistics."""
    offset: float = 0.0
    other_offsets: tuple[float, ...] = ()
    """Further offsets that items of the sensor may state."""
    offset_from_baseline: float | None = None
    """Processing baseline from which the first of `other_offsets` applies."""
    nodata: float | None = None
    """Digital number without data, where neither file nor item says."""
    zero_is_nodata: bool = False
    """Whether 0 is never a measurement, whatever file and item state."""
    maximum: float | None = None
    """Largest plausible digital number; a 99th percentile above it is not this sensor's."""
    decibels: bool = False
    """Linear power in the file: ≤ 0 becomes 1e-10, then 10·log10."""
    masks: tuple[CloudMask, ...] = ()
    """In order of preference."""
    images: tuple[str, ...] = ()
    """Keys of an asset that holds all bands in this order, where the item does not describe its bands."""
    missions: tuple[str, ...] = ()
    """How constellation, platform or instrument of its items begin, in lower-case letters and digits only."""
    level: ProductLevel | None = None
    any_maker: bool = False
    """Whether images of makers that no sensor covers are of this one."""
    identity: tuple[Pattern, ...] = ()
    """What an item must say somewhere; for sensors whose bands alone tell nothing."""

    @model_validator(mode="after")
    def _bands_are_consistent(self) -> Self:
        names = [band.name for band in self.bands]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            msg = f"band {twice[0]!r} is defined twice"
            raise ValueError(msg)
        if unknown := [name for name in self.rgb if name not in names]:
            msg = f"rgb names band {unknown[0]!r}; expected one of {', '.join(names)}"
            raise ValueError(msg)
        if self.offset_from_baseline is not None and not self.other_offsets:
            msg = "offset_from_baseline needs other_offsets, whose first value applies from then on"
            raise ValueError(msg)
        return self

    def band(self, name: str) -> Band:
        """The band of this name.

        Raises:
            SpecError: the sensor has no such band.
        """
        for band in self.bands:
            if band.name == name:
                return band
        known = ", ".join(b.name for b in self.bands)
        raise SpecError(f"sensor {self.key}", f"has no band {name!r}", f"one of {known}")


_MAX_BYTES = 1_000_000


def parse_sensor(document: Any, where: str) -> Sensor:
    """Check a sensor definition.

    Raises:
        SpecError: not a mapping, an unknown key, or a wrong value.
    """
    if not isinstance(document, Mapping):
        raise SpecError(where, f"found {type(document).__name__}", "a mapping with key, title, gsd, bands, …")
    try:
        return Sensor.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"]) or "the definition"
        if first["type"] == "missing":
            raise SpecError(
                f"{where}: {key}", "is missing", fix="Add it; `clay-publish sensors KEY` prints one."
            ) from error
        if first["type"] == "extra_forbidden":
            known = ", ".join(Sensor.model_fields)
            raise SpecError(f"{where}: {key}", "is an unknown key", fix=f"Known keys: {known}.") from error
        message = str(first["msg"]).removeprefix("Value error, ")
        raise SpecError(f"{where}: {key}", f"found {shown(first['input'])}", message) from error


def read_sensor(path: Path, where: str | None = None) -> Sensor:
    """Read a sensor definition from a YAML file.

    Raises:
        SpecError: missing, too large, not YAML, or not a sensor definition.
    """
    where = where or str(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SpecError(where, f"{path} cannot be read ({error.strerror})", "a sensor definition in YAML") from error
    if len(data) > _MAX_BYTES:
        raise SpecError(where, f"{path} has {len(data):,} bytes", f"at most {_MAX_BYTES:,}")
    try:
        document = yaml.safe_load(data)
    except (yaml.YAMLError, RecursionError, ValueError, TypeError) as error:
        raise SpecError(where, f"{path} is not YAML ({' '.join(str(error).split())})") from error
    return parse_sensor(document, where)


def _registry() -> dict[str, Sensor]:
    folder = files("clay_publish.spec") / "sensors"
    definitions = sorted((each for each in folder.iterdir() if each.name.endswith(".yaml")), key=lambda each: each.name)
    found = [parse_sensor(yaml.safe_load(each.read_bytes()), each.name) for each in definitions]
    return {each.key: each for each in found}


SENSORS: dict[str, Sensor] = _registry()
"""The sensors of the package by key."""


def sensor(key: str) -> Sensor:
    """The registered sensor of this key.

    Raises:
        SpecError: there is none; the nearest is named.
    """
    if key in SENSORS:
        return SENSORS[key]
    near = difflib.get_close_matches(key, SENSORS, n=1, cutoff=0.4)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    raise SpecError("imagery.sensor", f"{key!r} is unknown", fix=f"{hint}Known: {', '.join(SENSORS)}.")
