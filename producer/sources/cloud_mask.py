"""The cloud mask of an item, by the names and descriptions that catalogs use."""

import re
from collections.abc import Mapping
from typing import Any

from clay_publish.errors import SourceError
from clay_publish.producer.sources.asset_bands import is_image, number
from clay_publish.spec.sensors import CloudMask, Sensor

_SUFFIX = re.compile(r"([-_ ](\d{1,3}m|jp2|cog|tiff?))+$|\.(tiff?|jp2)$", re.IGNORECASE)
_METERS = re.compile(r"(\d{1,3}) ?m(?:$|[^a-z])", re.IGNORECASE)
NO_MASK = "none"
"""What a spec states for imagery that shall not be checked for cloud."""


def find_mask(
    assets: Mapping[str, Any], sensor: Sensor, stated: str | None, where: str
) -> tuple[str, CloudMask] | None:
    """Key of the mask's asset, and what its values mean; None where the item has none, or the spec wants none.

    Raises:
        SourceError: the spec names an asset that the item lacks, or one for a sensor without masks.
    """
    if stated == NO_MASK:
        return None
    if stated is not None:
        return _stated(assets, sensor, stated, where)
    images = {key: asset for key, asset in assets.items() if is_image(asset)}
    for mask in sensor.masks:
        known = {_plain(name) for name in mask.assets}
        keys = [key for key in images if _plain(key) in known]
        if not keys and mask.title is not None:
            keys = [key for key in images if re.search(mask.title, _words(images[key]))]
        if keys:
            return min(keys, key=lambda key: _rank(key, images[key], sensor)), mask
    return None


def _stated(assets: Mapping[str, Any], sensor: Sensor, stated: str, where: str) -> tuple[str, CloudMask]:
    if stated not in assets:
        raise SourceError(
            where, f"has no asset {stated!r}, which imagery.mask names", f"one of {', '.join(sorted(assets))}, or none"
        )
    if not sensor.masks:
        raise SourceError(
            where, f"has a mask in imagery.mask, and sensor {sensor.key} does not say what its values mean",
            "a sensor with `masks`", "Remove imagery.mask, or define a sensor of your own.",
        )  # fmt: skip
    fitting = (
        mask
        for mask in sensor.masks
        if _plain(stated) in {_plain(name) for name in mask.assets}
        or (mask.title is not None and re.search(mask.title, _words(assets[stated])))
    )
    return stated, next(fitting, sensor.masks[0])


def _plain(key: str) -> str:
    return re.sub(r"[^a-z0-9]", "", _SUFFIX.sub("", key).lower())


def _words(asset: Mapping[str, Any]) -> str:
    return f"{asset.get('title') or ''} {asset.get('description') or ''}".lower()


def _rank(key: str, asset: Mapping[str, Any], sensor: Sensor) -> tuple[float, int, str]:
    """The one nearest to the sensor's pixels; of several files of it the TIFF."""
    named = _METERS.search(key)
    size = number(asset.get("gsd")) or (float(named[1]) if named else None) or 2 * sensor.gsd
    return abs(size / sensor.gsd - 1), int("jp2" in f"{key}{asset.get('type')}".lower()), key
