"""The cloud mask of an item, by the names and descriptions that catalogs use."""

import re
from collections.abc import Mapping
from datetime import date
from typing import Any

from clay_publish.errors import SourceError
from clay_publish.producer.sources.asset_bands import asset_name, is_image, number
from clay_publish.producer.sources.watched import derive
from clay_publish.spec.sensors import CloudMask, Sensor

_METERS = re.compile(r"(\d{1,3}) ?m(?:$|[^a-z])", re.IGNORECASE)
_OUTLINES = re.compile(r"^msk_?clouds|gml")
"""Cloud masks of Sentinel-2 before baseline 04.00 are outlines in GML."""
NO_MASK = "none"
"""What a spec states for imagery that shall not be checked for cloud."""


def find_mask(
    assets: Mapping[str, Any], sensor: Sensor, stated: str | None, where: str, day: date
) -> tuple[str, CloudMask] | None:
    """Key of the mask's asset, and what its values mean; None where the item has none, or the spec wants none.

    Args:
        assets: of the item.
        sensor: of the imagery.
        stated: `imagery.mask` of the spec.
        where: for messages.
        day: of the acquisition.

    Raises:
        SourceError: the spec names an asset that the item lacks, that is not an image, that is empty on that day, or
            one for a sensor without masks.
    """
    if stated == NO_MASK:
        return None
    if stated is not None:
        key, mask = _stated(assets, sensor, stated, where)
        if derive(day, _is_empty, mask):
            raise SourceError(
                where, f"is of {day}, and masks such as {key!r} are empty {_period(mask)}",
                "a mask that was filled", "Name another mask, or state `imagery.mask: none`.",
            )  # fmt: skip
        return key, mask
    images = {key: asset for key, asset in assets.items() if is_image(asset)}
    for mask in sensor.masks:
        if derive(day, _is_empty, mask):
            continue
        keys = [key for key in images if _has_name(key, mask)]
        if not keys and mask.title is not None:
            keys = [key for key in images if re.search(mask.title, _words(images[key]))]
        if keys:
            return min(keys, key=lambda key: _rank(key, images[key], sensor)), mask
    return None


def unread_mask(assets: Mapping[str, Any], sensor: Sensor, day: date) -> str | None:
    """Why a cloud mask that an item has is not used: not an image, or empty on that day; None where there is none."""
    for key, asset in sorted(assets.items()) if sensor.masks else ():
        if not isinstance(asset, Mapping):
            continue
        if is_image(asset):
            empty = next((mask for mask in sensor.masks if _has_name(key, mask) and derive(day, _is_empty, mask)), None)
            if empty is not None:
                return f"its mask {key!r} is not used: those of acquisitions {_period(empty)} are empty"
            continue
        named = _OUTLINES.match(asset_name(key).lower()) or any(_has_name(key, mask) for mask in sensor.masks)
        if named and (_is_vector(str(asset.get("type"))) or derive(asset.get("href"), _is_vector)):
            return f"its mask {key!r} holds outlines (GML or another vector format), which are not read"
    return None


def _stated(assets: Mapping[str, Any], sensor: Sensor, stated: str, where: str) -> tuple[str, CloudMask]:
    if stated not in assets:
        raise SourceError(
            where, f"has no asset {stated!r}, which imagery.mask names", f"one of {', '.join(sorted(assets))}, or none"
        )
    if not is_image(assets[stated]):
        kind = assets[stated].get("type") if isinstance(assets[stated], Mapping) else None
        raise SourceError(
            where,
            f"has no image in asset {stated!r}, which imagery.mask names (type {kind})",
            "a raster; outlines such as GML are not read",
            "Name a raster mask, or state `imagery.mask: none`.",
        )
    if not sensor.masks:
        raise SourceError(
            where, f"has a mask in imagery.mask, and sensor {sensor.key} does not say what its values mean",
            "a sensor with `masks`", "Remove imagery.mask, or define a sensor of your own.",
        )  # fmt: skip
    fitting = (
        mask
        for mask in sensor.masks
        if _has_name(stated, mask) or (mask.title is not None and re.search(mask.title, _words(assets[stated])))
    )
    return stated, next(fitting, sensor.masks[0])


def _is_vector(text: str | None) -> bool:
    return bool(re.search(r"gml|json|xml|shp|gpkg|\bvector", str(text).lower()))


def _is_empty(day: date, mask: CloudMask) -> bool:
    return mask.empty is not None and mask.empty[0] <= day <= mask.empty[1]


def _period(mask: CloudMask) -> str:
    return "" if mask.empty is None else f"from {mask.empty[0]} to {mask.empty[1]}"


def _has_name(key: str, mask: CloudMask) -> bool:
    return _plain(asset_name(key)) in {_plain(name) for name in mask.assets}


def _plain(key: str) -> str:
    return re.sub(r"[^a-z0-9]", "", key.lower())


def _words(asset: Mapping[str, Any]) -> str:
    return f"{asset.get('title') or ''} {asset.get('description') or ''}".lower()


def _rank(key: str, asset: Mapping[str, Any], sensor: Sensor) -> tuple[float, int, str]:
    """The one nearest to the sensor's pixels; of several files of it the TIFF."""
    named = _METERS.search(key)
    size = number(asset.get("gsd")) or (float(named[1]) if named else None) or 2 * sensor.gsd
    return abs(size / sensor.gsd - 1), int("jp2" in f"{key}{asset.get('type')}".lower()), key
