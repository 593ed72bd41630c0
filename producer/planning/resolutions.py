"""How images are read, as the plan shows it: groups of items of one mapping, scale, offset, mask and product."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from pydantic import BaseModel, ConfigDict

from clay_publish.errors import ImageryError, SpecError
from clay_publish.formats import crossing
from clay_publish.geo.raster_grid import ground_size
from clay_publish.producer.imagery.pixel_evidence import examine
from clay_publish.producer.sources.cloud_mask import NO_MASK
from clay_publish.producer.sources.item import ItemDescription, SourceItem
from clay_publish.producer.sources.sensor_check import size_note
from clay_publish.spec.models import Spec
from clay_publish.spec.sensors import Sensor

_SAMPLED = 2
"""Images of a group whose pixels a plan looks at."""


_Key = tuple[tuple[str, ...], tuple[str, ...], str | None, str | None]


class Resolution(BaseModel):
    """Images that are read in one way."""

    model_config = ConfigDict(frozen=True)

    images: int
    example: str
    """Id of the first."""
    bands: list[str]
    """`name ← asset`, with the number of the band where the asset holds several."""
    values: list[str]
    """Scale, offset, and what they follow from."""
    mask: str | None
    """Asset of the cloud mask."""
    level: str | None
    """What says that they are the sensor's product."""


def resolutions(items: Iterable[SourceItem], sensor: Sensor) -> list[Resolution]:
    """Groups of images, the largest first."""
    counted: Counter[_Key] = Counter()
    first: dict[_Key, str] = {}
    for item, key in _with_keys(items, sensor):
        counted[key] += 1
        first.setdefault(key, item.id)
    return [
        Resolution(images=count, example=first[key], bands=list(bands), values=list(values), mask=mask, level=level)
        for key, count in counted.most_common()
        for bands, values, mask, level in [key]
    ]


def _with_keys(items: Iterable[SourceItem], sensor: Sensor) -> Iterator[tuple[SourceItem, _Key]]:
    """Images with the key of their group, which is made once for those of one description."""
    known: dict[int, tuple[ItemDescription, _Key]] = {}
    for item in items:
        number = id(item.common)
        if number not in known:
            known[number] = item.common, _key(item.common, sensor)  # which keeps the number from being used again
        yield item, known[number][1]


def _key(item: ItemDescription, sensor: Sensor) -> _Key:
    several = {file.asset for file in item.bands if file.index is not None}
    bands = tuple(
        f"{band.name} ← {band.asset}{f'#{band.band}' if band.asset in several else ''} ({_how(band.source)})"
        for band in item.resolved
    )
    values = tuple(
        dict.fromkeys(
            f"{band.scale:g} · DN {band.offset:+g} by {band.source.rpartition('values: ')[2]}"
            + _added(band.to_input(sensor))
            for band in item.resolved
        )
    )
    mask = None if item.mask is None else f"{item.mask.asset} (read as {item.mask.values.assets[0]})"
    return bands, values, mask, item.product_key


def _how(source: str) -> str:
    return source.removeprefix("band: ").partition(";")[0]


def _added(linear: tuple[float, float]) -> str:
    factor, summand = linear
    if factor != 1:
        return f": DN × {factor:g} {summand:+,g}"
    return f": {summand:+,g} on each DN" if summand else ""


def doubts(items: Iterable[SourceItem], spec: Spec, sensor: Sensor) -> list[str]:
    """What samples of pixels say against the first images of each group; those that cannot be read say nothing."""
    seen: Counter[_Key] = Counter()
    said: list[str] = []
    for item, key in _with_keys(items, sensor):
        seen[key] += 1
        if seen[key] > _SAMPLED:
            continue
        try:
            found = examine(item, sensor, accept=spec.imagery[item.block].accept_values)
        except ImageryError as error:
            said.append(f"item {item.id}: its pixels cannot be looked at ({error.where}: {error.found})")
            seen[key] += _SAMPLED  # the next one of the group may lie on the same server
            continue
        said += found.evidence.sentences
    return said


def notes(spec: Spec, sensor: Sensor, used: Sequence[SourceItem], gsd: float | None) -> list[str]:
    """What the reader of a plan or a run should know of area, pixels and masks. No pixel is read.

    Args:
        spec: the release spec.
        sensor: of the imagery.
        used: the images.
        gsd: meters a pixel that images are brought to; None where chips keep the pixels of their image.

    Raises:
        SpecError: as `check_masks`.
    """
    said = [
        f"imagery.area {block.area} {crosses}"
        for block in spec.imagery
        if isinstance(block.area, list) and (crosses := crossing(block.area))
    ]
    found = (_oversampled(used, gsd), size_note(used, sensor), _doubtful(used), check_masks(used, spec, sensor))
    return said + [note for note in found if note is not None]


def _doubtful(used: Sequence[SourceItem]) -> str | None:
    """What to say where the places of images are doubtful."""
    noted = [item for item in used if item.note is not None]
    more = f"; {len(noted) - 1:,} more images are doubtful" if len(noted) > 1 else ""
    return f"{noted[0].id} {noted[0].note}{more}" if noted else None


def _oversampled(used: Sequence[SourceItem], gsd: float | None) -> str | None:
    """What to say where chips have more than four pixels for each one of their images."""
    sizes = [] if gsd is None else [ground_size(i.grid, i.grid.height / 2) for i in used if i.grid is not None]
    coarse = [size for size in sizes if gsd is not None and gsd < size / 2]
    if not coarse:
        return None
    return (
        f"chips.gsd {gsd:g} m is less than half the pixel size of {len(coarse):,} of {len(used):,} images"
        f" ({min(coarse):g} m): chips would hold interpolated pixels, and cover less ground for the same price"
    )


def check_masks(items: Iterable[SourceItem], spec: Spec, sensor: Sensor) -> str | None:
    """What to say where images of a sensor with cloud masks have none.

    Raises:
        SpecError: the spec limits cloud explicitly, and some images cannot be checked.
    """
    used = list(items)
    without = [item.id for item in used if not item.has_mask and spec.imagery[item.block].mask != NO_MASK]
    if not sensor.masks or not without:
        return None
    said = (
        f"{len(without):,} of {len(used):,} images have no cloud mask ({without[0]}{', …' if len(without) > 1 else ''})"
        + next((f"; {item.mask_note}" for item in used if item.mask_note and item.id in set(without)), "")
    )
    if "max_cloud" in spec.chips.model_fields_set and spec.chips.max_cloud < 1:
        raise SpecError(
            "chips.max_cloud",
            f"is {spec.chips.max_cloud:g}, and {said}",
            "images with one of the masks of the sensor",
            "Name its asset in `imagery.mask`, or state `imagery.mask: none`.",
        )
    return f"{said}: their chips are not cloud-checked"
