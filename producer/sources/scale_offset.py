"""How the digital numbers of an image become those that the sensor's statistics are for.

Physical value = digital number × scale + offset. The model's input is (physical − sensor.offset) / sensor.scale, so
that the offset of Sentinel-2's baseline 04.00 is exactly −1,000. `docs/imagery.md` has the decision table.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clay_publish.errors import SourceError, shown
from clay_publish.producer.sources.asset_bands import Values, number
from clay_publish.producer.sources.watched import derive
from clay_publish.spec.models import Imagery
from clay_publish.spec.sensors import Sensor

_CLOSE = 1e-3
_BASELINE = re.compile(r"^[NV]?(\d{1,2})\.(\d{1,2})$|^[NV]?(\d{2})(\d{2})$", re.IGNORECASE)
_BASELINE_KEY = re.compile(r"(processing_?baseline|:baseline)$", re.IGNORECASE)
_VERSION = re.compile(r"^N?0\d\.?\d{2}$", re.IGNORECASE)
"""`processing:version` is the version of any program; a baseline is written `05.11`, one of sen2cor `2.11`."""
_PRODUCT = re.compile(
    r"S2[A-D]_MSIL(?:1C|2A)_\d{8}T\d{6}_N(\d{2})(\d{2})_|S2[A-D]_OPER_MSI_L2A_TL_\w+_N(\d{2})\.(\d{2})"
)
_ADDED = re.compile(r"(boa|radio(metric)?)_?(add_?)?offsets?(_values)?(_list)?(_b\d+a?)?$", re.IGNORECASE)
"""Properties that repeat what the product's own metadata state, in digital numbers."""
_APPLIED = re.compile(r"offsetapplied$|^harmoni[sz]ed$|:harmoni[sz]ed$")
_HARMONIZED = re.compile(r"(?<![a-z])(?<!non[^a-z])(?<!not[^a-z])harmoni[sz]ed", re.IGNORECASE)
"""Collections in which all pixels are as before the offset, such as those of Earth Engine."""
_SAID = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_FIX = "State `imagery.scale` and `imagery.offset` in the spec, or exclude the item."


@dataclass(frozen=True)
class Scaling:
    """Scale and offset of one band, and what they follow from."""

    scale: float
    offset: float
    source: str


def decide(
    properties: Mapping[str, Any],
    values: Values,
    sensor: Sensor,
    where: str,
    block: Imagery | None = None,
    *,
    usual: Values | None = None,
) -> Scaling:
    """Scale and offset of one band of an item.

    Args:
        properties: of the item, and its id.
        values: what the item states about the band.
        sensor: of the imagery.
        where: item and asset, for messages.
        block: the imagery block, whose `scale` and `offset` count before all else.
        usual: what the `item_assets` of the Collection state; they count where nothing else is known.

    Raises:
        SourceError: a value that the sensor does not know, or statements that contradict each other.
    """
    if block is not None and block.offset is not None and sensor.decibels:
        raise SourceError(
            "imagery.offset", f"is {block.offset:g}, and sensor {sensor.key} takes linear power",
            "a factor alone", "Remove it, and state `imagery.scale` where the power is scaled.",
        )  # fmt: skip
    if block is not None and (block.scale is not None or block.offset is not None):
        return Scaling(block.scale or sensor.scale, sensor.offset if block.offset is None else block.offset, "spec")
    if values.conflict is not None:
        raise SourceError(where, f"states {values.conflict}", "numbers, in statements that agree", _FIX)
    _check_known(values, sensor, where)
    stated = None if values.offset is None else _known(values.offset, sensor)
    if sensor.offset_from_baseline is not None:
        found = _by_baseline(properties, stated, sensor, where)
    elif values.scale is None and stated is None:
        found = Scaling(sensor.scale, sensor.offset, "sensor")
    else:
        found = Scaling(sensor.scale, sensor.offset if stated is None else stated, "item")
    if usual is None or usual.conflict is not None or found.source not in {"assumed", "sensor"}:
        return found
    _check_known(usual, sensor, f"{where}, as its Collection has it")
    return found if usual.offset is None else Scaling(sensor.scale, _known(usual.offset, sensor), "collection")


def _by_baseline(properties: Mapping[str, Any], stated: float | None, sensor: Sensor, where: str) -> Scaling:
    """Sentinel-2: a flag that the offset was applied, else the item's offset and the baseline, which must agree."""
    applied = _applied(properties, where)
    if applied == ("collection", True) and stated is not None and not _same(stated, sensor.offset):
        raise SourceError(
            where, f"states the offset {stated:g}, and is of collection {properties['collection']}",
            "statements that agree", _FIX,
        )  # fmt: skip
    if applied is not None and applied[1]:
        return Scaling(sensor.scale, sensor.offset, applied[0])
    baseline = baseline_of(properties, where)
    if baseline is None:
        source = "assumed" if stated is None else "item"
        return Scaling(sensor.scale, sensor.offset if stated is None else stated, source)
    late = sensor.offset_from_baseline is not None and baseline[1] >= sensor.offset_from_baseline
    expected = sensor.other_offsets[0] if late else sensor.offset
    if stated is not None and not _same(stated, expected):
        raise SourceError(
            where,
            f"states the offset {stated:g}, and {baseline[0]} {baseline[1]:05.2f}, from which {expected:g} follows",
            "statements that agree",
            _FIX,
        )
    return Scaling(sensor.scale, expected, baseline[0] if stated is None else "item")


def _check_known(values: Values, sensor: Sensor, where: str) -> None:
    """Refuse a scale or offset that no imagery of the sensor has."""
    if values.scale is not None and abs(values.scale / sensor.scale - 1) > _CLOSE:
        raise SourceError(
            where, f"has the scale {values.scale:g}", f"{sensor.scale:g}, as sensor {sensor.key} has", _FIX
        )
    if values.offset is not None and not any(_same(values.offset, known) for known in _offsets(sensor)):
        known = " or ".join(f"{offset:g}" for offset in _offsets(sensor))
        raise SourceError(where, f"has the offset {values.offset:g}", f"{known}, as sensor {sensor.key} has", _FIX)


def check_tags(scaling: Scaling, tags: tuple[float, float], sensor: Sensor, where: str) -> Scaling:
    """Scale and offset of a band, after looking at those that its file states.

    Raises:
        SourceError: the file contradicts the item, or states values that the sensor does not know.
    """
    scale, offset = tags
    if (scale, offset) == (1.0, 0.0) or scaling.source == "spec":
        return scaling
    _check_known(Values(scale, offset, None), sensor, where)
    offset = _known(offset, sensor)
    if _same(offset, scaling.offset):
        return scaling
    if scaling.source in {"assumed", "sensor", "collection"}:
        return Scaling(sensor.scale, offset, "file")
    raise SourceError(
        where, f"states the offset {offset:g}", f"{scaling.offset:g}, as follows from {scaling.source}", _FIX
    )


def check_agreement(bands: Sequence[tuple[str, Scaling]], where: str) -> None:
    """Make sure that no band is taken to be without an offset that another band of the same image has.

    Args:
        bands: name, scale and offset of each.
        where: for messages.

    Raises:
        SourceError: some bands state an offset that others leave to be assumed.
    """
    silent = [name for name, scaling in bands if scaling.source == "assumed"]
    shifted = [(name, found) for name, found in bands if silent and found.offset != dict(bands)[silent[0]].offset]
    if shifted:
        name, found = shifted[0]
        raise SourceError(
            where,
            f"states the offset {found.offset:g} ({found.source}) for {name}, and none for {', '.join(silent[:3])}",
            "one for every band", _FIX,
        )  # fmt: skip


def _offsets(sensor: Sensor) -> tuple[float, ...]:
    return (sensor.offset, *sensor.other_offsets)


def _known(offset: float, sensor: Sensor) -> float:
    """The known offset that a stated one means."""
    return next(known for known in _offsets(sensor) if _same(offset, known))


def _same(one: float, other: float) -> bool:
    return abs(one - other) <= _CLOSE * max(abs(one), abs(other))


def _applied(properties: Mapping[str, Any], where: str) -> tuple[str, bool] | None:
    """Whether the provider took Sentinel-2's offset off the pixels, and which property says so.

    Raises:
        SourceError: two properties contradict each other.
    """
    known: dict[str, bool] = {}
    if _HARMONIZED.search(str(properties.get("collection") or "")):
        known["collection"] = True
    for key, value in sorted(properties.items()):
        if _APPLIED.search(re.sub(r"[^a-z:]", "", key.lower())) and value is not None:
            said = _SAID.get(str(value).strip().lower())
            if said is None:
                raise SourceError(where, f"says {key} {value!r}", "true or false", _FIX)
            known[key] = said
    if len(set(known.values())) > 1:
        texts = ", ".join(f"{key} {str(value).lower()}" for key, value in known.items())
        raise SourceError(where, f"says {texts}", "statements that agree", _FIX)
    return next(iter(known.items()), None)


def baseline_of(properties: Mapping[str, Any], where: str) -> tuple[str, float] | None:
    """Sentinel-2's processing baseline, and the property that states it.

    Raises:
        SourceError: a property states one that cannot be read, or properties state baselines from before and after the
            offset was introduced.
    """
    found = list(_baselines(properties, where))
    if len({value >= 4 for _, value in found}) > 1:
        said = ", ".join(f"{key} {value:05.2f}" for key, value in found)
        raise SourceError(where, f"says {said}", "baselines that agree", _FIX)
    return found[0] if found else None


def _baselines(properties: Mapping[str, Any], where: str) -> Iterator[tuple[str, float]]:
    for key in sorted(properties):
        if _BASELINE_KEY.search(key) and properties[key] is not None:
            value = _baseline(properties[key])
            if value is None:
                raise SourceError(where, f"says {key} {properties[key]!r}", "a baseline such as 05.09", _FIX)
            yield key, value
    version = properties.get("processing:version")
    if isinstance(version, str) and _VERSION.match(version.strip()) and not _is_software(version, properties):
        yield "baseline in processing:version", float(_baseline(version) or 0)
    for key, value in sorted(properties.items()):
        product = derive(value, _baseline_of_product) if isinstance(value, str) else None
        if product is not None:
            yield f"baseline in {key}", product
        if _ADDED.search(key) and value is not None:
            numbers = {number(each) for each in (value if isinstance(value, list) else [value])}
            if numbers not in ({0.0}, {-1000.0}):
                raise SourceError(where, f"says {key} {shown(value)}", "0 or -1000 for every band", _FIX)
            yield f"{key} of baselines from", 4.0 * (numbers == {-1000.0})


def _baseline_of_product(text: str) -> float | None:
    """The baseline in the name of a product."""
    found = _PRODUCT.search(text)
    return None if found is None else _number(found)


def _is_software(version: str, properties: Mapping[str, Any]) -> bool:
    """Whether an item says of another program that this is its version."""
    software = properties.get("processing:software")
    stated = software.values() if isinstance(software, Mapping) else ()
    return version.strip() in {str(each).strip().removeprefix("v") for each in stated}


def _baseline(value: Any) -> float | None:
    """A baseline as catalogs write it: `05.09`, `5.09`, `N0509`, 5.09; None where it is something else."""
    if isinstance(value, float) and 0 < value < 100:
        return value
    found = _BASELINE.match(str(value).strip())
    return None if found is None else _number(found)


def _number(found: re.Match[str]) -> float:
    major, minor = (part for part in found.groups() if part is not None)
    return float(f"{major}.{minor:0>2}")
