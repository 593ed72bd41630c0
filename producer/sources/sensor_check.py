"""Whether the sensor that a spec names is the one that made an image, as far as its item says.

Catalogs write these names in many ways (`Sentinel-2A`, `sentinel 2`, `LANDSAT_8`); letters and digits are compared.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from clay_publish.errors import SourceError
from clay_publish.geo.raster_grid import ground_size
from clay_publish.producer.sources.asset_bands import band_list, is_image, with_descriptions
from clay_publish.producer.sources.band_mapping import check_unique, map_bands
from clay_publish.producer.sources.item import SourceItem
from clay_publish.producer.sources.watched import derive
from clay_publish.spec.sensors import SENSORS, ProductLevel, Sensor

_SAID = (
    "constellation",
    "platform",
    "instruments",
    "eo:constellation",  # before STAC 1.0
    "eo:platform",
    "eo:instrument",
)
_PRODUCT = re.compile(
    r"(product[_:]?type|processing[_:]?level|landsat:correction|product_uri|product_id|product_name|collection_number"
    r"|asset_type)$",
    re.IGNORECASE,
)
_PRODUCT_NAME = re.compile(
    r"s1[a-d]_[a-z0-9]{2}_\w+|3b_analyticms\w*|s2[a-d]_msil(?:1c|2a)_\d{8}t\d{6}_|hls\.[sl]30\.t\w{5}\.\d{7}t\d{6}|l[cotem]\d{2}_l[12]\w{2}_\d{6}_\d{8}_\d{8}_\d{2}_\w{2}"
)
"""Full names of products in lower case, as files and folders of agencies have them."""
_LEVEL_WORDS = re.compile(
    r"\btoar?\b|(top|bottom)[- ]of[- ](the[- ])?atmosphere|surface[- ]reflectance|radiance", re.IGNORECASE
)
"""What titles and descriptions of images say of their processing; their other words may be about anything."""
_CALIBRATION = re.compile(
    r"(calibration|radiometry|measurement_type|backscatter[_:]?(type|coefficient))$", re.IGNORECASE
)
_OTHER_MAKERS = re.compile(
    r"maxar|worldview|geoeye|quickbird|vantor|skysat|pleiades|spot-?[567]|airbus|blacksky|capella|umbra|iceye"
    r"|rapideye|planetscope|planet labs|satellogic|aster\b|viirs|noaa|\bsnpp\b|suomi|jpss|prisma\b|enmap|spot-?[1-5]\b"
    r"|\balos\b|alos-?[24]|saocom|nisar|risat|kompsat|formosat|deimos|\bpneo|gaofen|sentinel-?3|cbers|palsar|radarsat|terrasar|tandem|cosmo-?skymed"
)
"""Makers of images that no sensor of the package covers, or another one does."""
_FACTOR = 4.0
"""Pixels so many times larger or smaller than the sensor's are worth a word; half or double of it is common."""


@dataclass(frozen=True)
class Statement:
    """Something that an item says about its product."""

    key: str
    """What says it."""
    path: tuple[str, ...]
    """Where in the item."""
    value: Any = None
    read: Callable[[str], str | None] = str.lower
    """What of the value is said."""

    def of(self, item: Mapping[str, Any]) -> "Statement":
        """The same statement of another item."""
        if not self.path:
            return self
        value: Any = item
        for name in self.path:
            value = value[name]
        return replace(self, value=value)

    @property
    def text(self) -> str:
        """In lower case."""
        return str(self.read(str(self.value)))

    def __str__(self) -> str:
        return f"{self.key} {self.text!r}"


def check_origin(
    item: Mapping[str, Any], sensor: Sensor, where: str, collection: Mapping[str, Any] | None = None
) -> Statement | None:
    """Refuse an item that says that another sensor made it, or that it is another product.

    One that says nothing passes, as does an unknown name.

    Returns:
        What says that it is the sensor's product; None where nothing does.

    Raises:
        SourceError: it names the mission, or the product, of other sensors alone.
    """
    properties = item.get("properties", {})
    said = [*_said(properties), ("collection", str(item.get("collection") or ""))]
    known = [(key, name, missions) for key, name in said if (missions := _missions(name))]
    if sensor.missions and known and not any(set(missions) & set(sensor.missions) for _, _, missions in known):
        key, name, missions = known[0]
        fitting = _fitting(item, [other for other in SENSORS.values() if set(missions) & set(other.missions)])
        raise SourceError(
            where,
            f"says {key} {name!r}, which is not imagery of sensor {sensor.key}",
            sensor.title,
            f"Set `imagery.sensor` to {fitting}, or choose other collections.",
        )
    statements = [*_statements(item), *(_calibration(item) if sensor.decibels else ())]
    level = _check_level(statements, sensor, where, item)
    if not known:
        names = [name for _, name in said]
        _check_identity(names, statements, item, sensor=sensor, where=where, collection=collection)
    return level


def check_titles(item: Mapping[str, Any], sensor: Sensor, where: str, assets: Iterable[str]) -> None:
    """Refuse an item whose assets of these keys are titled, or described, as those of another product.

    Raises:
        SourceError: as of `check_origin`.
    """
    said = []
    for key in sorted(set(assets)):
        holder = item["assets"][key]
        texts = ((name, holder[name]) for name in ("title", "description") if _is_text(holder.get(name)))
        said += [
            Statement(f"asset {key}: {name}", ("assets", key, name), text)
            for name, text in texts
            if derive(text, _says_level)
        ]
    if said:
        _check_level([*_statements(item), *said], sensor, where, item)


def sensors_of(item: Mapping[str, Any], collection: Mapping[str, Any] | None = None) -> list[str]:
    """The sensors of the package that an item can be of: what it says of mission, product and bands fits.

    Those whose mission or product it names come alone; otherwise all whose bands it has.
    """
    fitting, named = [], []
    for sensor in SENSORS.values():
        try:
            level = check_origin(item, sensor, "the item", collection)
            mapped = map_bands(item, with_descriptions(item, collection), sensor, "the item")
            check_titles(item, sensor, "the item", (band.asset for band in mapped))
            check_unique(mapped, {key: str(asset.get("href")) for key, asset in item["assets"].items()}, "the item")
        except SourceError:
            continue
        fitting.append(sensor.key)
        said = {mission for _, name in _said(item.get("properties", {})) for mission in _missions(name)}
        if level is not None or (sensor.level is None and said & set(sensor.missions)):
            named.append(sensor.key)
    return named or fitting


def _says_level(text: str) -> bool:
    return bool(_LEVEL_WORDS.search(text))


def _products(text: str, read: Callable[[str], str | None], level: ProductLevel) -> tuple[bool, tuple[str, ...]]:
    """Whether a statement names a product of the sensor, and which others it names."""
    said = read(text)
    if said is None:
        return False, ()
    others = (name for name, pattern in level.others.items() if re.search(pattern, said))
    return any(re.search(sign, said) for sign in level.signs), tuple(others)


def _check_level(
    statements: Iterable[Statement], sensor: Sensor, where: str, item: Mapping[str, Any]
) -> Statement | None:
    level = sensor.level
    if level is None:
        return None
    named = [(said, *derive(said.value, _products, said.read, level)) for said in statements]
    ours = [said for said, own, _ in named if own]
    theirs = [(said, name) for said, _, others in named for name in others if not (ours and name in level.derived_from)]
    if theirs:
        said, name = theirs[0]
        also = f", and {ours[0]}" if ours else ""
        others = [other for other in SENSORS.values() if set(other.missions) & set(sensor.missions)]
        own = (
            f" If it is {level.name} all the same, give `imagery.sensor` a file: `clay-publish sensors {sensor.key}`"
            " prints one; remove what misleads from its level."
            if ours
            else ""
        )
        fix = _fitting(item, [other for other in others if other.key != sensor.key and _is_product(item, other)])
        raise SourceError(
            where,
            f"says {said} ({name}){also}, which is not imagery of sensor {sensor.key}",
            f"{sensor.title}: {level.name}",
            (f"Set `imagery.sensor` to {fix}." if fix else "Choose a collection of that product.") + own,
        )
    if not ours:
        return None
    first: Statement = min(ours, key=lambda each: each.text) if ours[0].key == "href" else ours[0]
    return first


def _is_product(item: Mapping[str, Any], sensor: Sensor) -> bool:
    level = sensor.level
    statements = [said.text for said in _statements(item) if said.read(str(said.value)) is not None]
    if level is None or any(re.search(p, text) for p in level.others.values() for text in statements):
        return False
    return any(re.search(sign, text) for sign in level.signs for text in statements)


def _fitting(item: Mapping[str, Any], sensors: Sequence[Sensor]) -> str:
    """The sensors that an item may be of: those whose product it names, else all."""
    exact = [each.key for each in sensors if _is_product(item, each)]
    return " or ".join(exact or [each.key for each in sensors])


def _check_identity(
    names: Sequence[str],
    statements: Iterable[Statement],
    item: Mapping[str, Any],
    *,
    sensor: Sensor,
    where: str,
    collection: Mapping[str, Any] | None,
) -> None:
    """Refuse images of other makers to a sensor whose bands alone tell nothing, such as red, green and blue."""
    if not sensor.missions:
        return
    texts = [each.text for each in statements if each.read(str(each.value)) is not None]
    said = " ".join([*map(str, names), *texts, *_makers(item), *_makers(collection or {})]).lower()
    if sensor.identity and not any(re.search(pattern, said) for pattern in sensor.identity):
        raise SourceError(
            where,
            f"does not say that it is imagery of sensor {sensor.key}",
            sensor.title,
            "Set `imagery.sensor` to aerial-rgb or aerial-rgbn, or define a sensor of your own.",
        )
    other = _OTHER_MAKERS.search(said)
    plain = re.sub(r"[^a-z0-9]", "", said)
    if other and not sensor.any_maker and not any(mission in plain for mission in sensor.missions):
        raise SourceError(
            where,
            f"names {other[0]!r}, which is not imagery of sensor {sensor.key}",
            sensor.title,
            "Set `imagery.sensor` to the right one, such as aerial-rgb, or define a sensor of your own.",
        )


def _makers(document: Mapping[str, Any]) -> Iterator[str]:
    """Who made an item or collection: providers, title, license links, hosts, reference system."""
    properties = document.get("properties") if isinstance(document.get("properties"), dict) else {}
    for holder in (document, properties or {}):
        for provider in holder.get("providers") or []:
            if isinstance(provider, dict):
                yield str(provider.get("name"))
        yield from (str(holder[key]) for key in ("title", "proj:code") if holder.get(key))
        if holder.get("proj:epsg"):
            yield f"EPSG:{holder['proj:epsg']}"
    for link in document.get("links") or []:
        if isinstance(link, dict) and "://" in str(link.get("href")):
            yield str(link["href"])
    assets = document.get("assets")
    yield from (
        urlsplit(a["href"]).netloc for a in (assets.values() if isinstance(assets, dict) else ()) if is_image(a)
    )


def _statements(item: Mapping[str, Any]) -> Iterator[Statement]:
    """What an item says about its product: properties, collection, id, asset keys, names of products in hrefs."""
    properties = item.get("properties", {})
    keys = [key for key in sorted(properties) if _PRODUCT.search(key)]
    yield from _of_properties(item, keys)
    yield from (replace(each, read=_product_title) for each in _of_properties(item, ["title"]))
    yield from (Statement(key, (key,), item[key]) for key in ("collection", "id") if _is_text(item.get(key)))
    assets = item.get("assets")
    if isinstance(assets, dict):
        images = {key: assets[key] for key in sorted(assets) if is_image(assets[key])}
        yield from (Statement("asset", (), key) for key in images)
        yield from (
            Statement("href", ("assets", key, "href"), asset["href"], _product_name) for key, asset in images.items()
        )


def _of_properties(item: Mapping[str, Any], keys: Iterable[str]) -> Iterator[Statement]:
    properties = item.get("properties", {})
    for key in keys:
        if _is_text(properties.get(key)):
            yield Statement(key, ("properties", key), properties[key])


def _product_title(title: str) -> str | None:
    """A title that is the name of a product, not a sentence."""
    return None if " " in title.strip() else title.lower()


def _product_name(href: str) -> str | None:
    found = _PRODUCT_NAME.search(href.lower())  # ignoring case would take twice the time
    return None if found is None else found[0]


def _file_name(href: str) -> str:
    return PurePosixPath(urlsplit(href).path).name.lower()


def _calibration(item: Mapping[str, Any]) -> Iterator[Statement]:
    """What an item of radar says about its backscatter: properties, and the words for its images and their bands."""
    properties = item.get("properties", {})
    yield from _of_properties(item, (key for key in sorted(properties) if _CALIBRATION.search(key)))
    yield from _of_properties(item, ("title", "description"))
    assets = item.get("assets")
    for name, asset in sorted(assets.items()) if isinstance(assets, dict) else ():
        if not is_image(asset):
            continue
        yield Statement(f"file of asset {name}", ("assets", name, "href"), asset["href"], _file_name)
        for holder in (asset, *band_list(item, asset)):
            yield from (
                Statement(f"asset {name}: {key}", (), holder[key])
                for key in ("title", "description", "name")
                if _is_text(holder.get(key))
            )


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


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
    known = {each for sensor in SENSORS.values() for each in sensor.missions}
    return tuple(sorted(each for each in known if plain.startswith(each)))
