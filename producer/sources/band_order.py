"""Words for the bands of an image, and what an item says of their order where it does not map them."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from clay_publish.producer.sources.asset_bands import AssetBand, band_list
from clay_publish.producer.sources.watched import derive
from clay_publish.spec.sensors import Sensor

COMMON = frozenset(
    {"coastal", "blue", "green", "green05", "yellow", "red", "rededge", "rededge071", "rededge075", "rededge078"}
    | {"nir", "nir08", "nir09", "cirrus", "swir16", "swir22", "lwir", "lwir11", "lwir12", "pan"}
)
"""Values of `common_name` that name a part of the spectrum."""
LETTERS = {"r": ("red",), "g": ("green",), "b": ("blue",), "n": ("nir", "nir08")}
"""Names of one letter, as photographs have them."""
WORDS: tuple[tuple[str, frozenset[str]], ...] = (
    (r"coastal|aerosol|ultra.?blue", frozenset({"coastal", "coastal_blue"})),
    (r"red.?edge", frozenset({"rededge"})),
    (r"green.?i\b|green.?1\b", frozenset({"green_i", "green05"})),
    (r"near.?infra.?red|\bnir\b|\bnir", frozenset({"nir", "nir08"})),
    (r"short.?wave|\bswir", frozenset({"swir16", "swir22"})),
    (r"thermal|long.?wave|\blwir", frozenset({"lwir11"})),
    (r"panchro|\bpan\b", frozenset({"pan"})),
    (r"cirrus", frozenset({"cirrus"})),
    (r"water.?vapou?r", frozenset({"nir09"})),
    (r"yellow", frozenset({"yellow"})),
    (r"\bblue\b", frozenset({"blue"})),
    (r"\bgreen\b", frozenset({"green"})),
    (r"\bred\b", frozenset({"red"})),
)

_NOTHING = re.compile(r"gr[ae]y|undefined|unknown|unspecified|none|null|alpha|default|palette", re.IGNORECASE)
"""Words for the color of a band that do not say which part of the spectrum it is; GDAL has most of them."""
_LAST_NUMBER = re.compile(r"(?:^|[^0-9])0*(\d{1,2})$")
_INITIALS = re.compile(r"(?:nir|ir|[nirgb]){3,4}")
_INFRARED = re.compile(r"\bcir\b|infra-?red|false[ _-]?colou?r", re.IGNORECASE)


def unknown_names(bands: Sequence[AssetBand]) -> list[str]:
    """Names of the bands of one asset that are not understood, or that tell another order."""
    places = [_LAST_NUMBER.search(band.name or "") for band in bands]
    numbers = [None if place is None else int(place[1]) for place in places]
    stems = {place.string[: place.start(1)].rstrip("0") for place in places if place is not None}
    if len(stems) > 1:  # `IR_1` and `R_2` are not just counted
        numbers = [None] * len(bands)
    counted = [*range(1, len(bands) + 1)], [*range(len(bands))]
    if len(bands) > 1 and None not in numbers and numbers not in counted:
        return [f"band {band.index} is named {band.name!r}" for band in bands]
    texts = [(band.index, band.name if number is None else None) for band, number in zip(bands, numbers, strict=True)]
    texts += [(band.index, band.common) for band in bands]
    return [f"band {index} is named {text!r}" for index, text in texts if text and not _is_known(text)]


def _is_known(text: str) -> bool:
    """Whether a name of a band means a part of the spectrum, or nothing at all."""
    words = text.lower().replace("_", " ")
    common = words in COMMON or words in LETTERS or any(re.search(pattern, words) for pattern, _ in WORDS)
    return common or bool(_NOTHING.fullmatch(text.strip()))


def other_orders(item: Mapping[str, Any], key: str, asset: Mapping[str, Any], sensor: Sensor) -> list[str]:
    """What the texts of an asset that lists no bands say of an order other than the sensor's: `BGR`, false color."""
    names, properties, said = [band.name for band in sensor.bands], item.get("properties", {}), []
    polarizations = properties.get("sar:polarizations")
    if sensor.decibels and isinstance(polarizations, list) and [str(each).lower() for each in polarizations] != names:
        said.append(f"sar:polarizations {polarizations}")
    texts: dict[str, Any] = {
        "key": key,
        **{name: str(asset[name]) for name in ("title", "description") if asset.get(name)},
    }
    if sensor.decibels:
        pairs = ((name, text, re.findall(r"(?<![a-z])[vh]{2}(?![a-z])", text.lower())) for name, text in texts.items())
        said += [f"{name} {text!r}" for name, text, found in pairs if not _in_order([*dict.fromkeys(found)], names)]
    if not set(_COLORS.values()) <= set(names):
        return said
    texts |= {f"band {text!r}": text for each in band_list(item, asset) if (text := str(each.get("name") or ""))}
    terse = ("key", "band ")
    orders = ((name, text, _sequence(text, key=name.startswith(terse))) for name, text in texts.items())
    said += [f"{name} {text!r}" for name, text, order in orders if not _in_order(order, names)]
    if len(names) == len(_COLORS):
        further = {"id": item.get("id"), "collection": item.get("collection")}
        texts |= {**further, "the item's title": properties.get("title")}
        said += [f"{name} {str(text)!r}" for name, text in texts.items() if derive(text, _is_infrared)]
    return [*dict.fromkeys(said)]


def _is_infrared(text: str | None) -> bool:
    return bool(_INFRARED.search(re.sub(r"[_.\d]", " ", str(text or ""))))


def _sequence(text: str, *, key: bool) -> list[str]:
    """The colors that a text names, in its order: by their words, or by initials such as `BGR`."""
    for token in re.findall(r"[A-Za-z]+", text):
        if (key or token.isupper()) and _INITIALS.fullmatch(token.lower()):
            for initials in (r"[nirgb]", r"nir|ir|[nirgb]"):  # `IRG` and `RGBIR`
                found = [_COLORS.get(each, "nir") for each in re.findall(initials, token.lower())]
                if len(set(found)) == len(found) and {"red", "green"} <= set(found):
                    return found
    words = text.replace("_", " ")
    places = [(place.start(), name) for pattern, name in _COLOR_WORDS for place in re.finditer(pattern, words)]
    return list(dict.fromkeys(name for _, name in sorted(places)))


_COLORS = {"r": "red", "g": "green", "b": "blue"}
_COLOR_WORDS = (
    (r"(?i:near[ -]?infra[ -]?red|\bnir\b)", "nir"),
    *((rf"(?i:\b{name}\b)|\b{letter.upper()}\b", name) for letter, name in _COLORS.items()),
)


def _in_order(found: Sequence[str], names: Sequence[str]) -> bool:
    """Whether colors come in the order of a sensor's bands; one alone does not tell an order."""
    places = [names.index(name) for name in found if name in names]
    return places == sorted(places) and (len(found) < 2 or len(places) == len(found))
