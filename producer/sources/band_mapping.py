"""Which asset band holds which band of the sensor.

What the item says of a band (name, common name, center wavelength, description) comes first, then the title of its
asset, then the key. The sensor's order is assumed only where nothing is said and the number of bands fits.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from clay_publish.errors import SourceError
from clay_publish.producer.sources.asset_bands import (
    AssetBand,
    asset_bands,
    asset_name,
    band_count,
    band_list,
    is_image,
)
from clay_publish.spec.sensors import Band, Sensor

_COMMON = frozenset(
    {"coastal", "blue", "green", "green05", "yellow", "red", "rededge", "rededge071", "rededge075", "rededge078"}
    | {"nir", "nir08", "nir09", "cirrus", "swir16", "swir22", "lwir", "lwir11", "lwir12", "pan"}
)
"""Values of `common_name` that name a part of the spectrum."""
_LETTERS = {"r": ("red",), "g": ("green",), "b": ("blue",), "n": ("nir", "nir08")}
"""Names of one letter, as photographs have them."""
_TOKEN = re.compile(r"\b(?:sr_)?(b(?:and)?)[ _-]?0*(\d{1,2}a?)\b(?!\.\d)", re.IGNORECASE)
_GENERIC = re.compile(r"^(?:b|band|layer|channel)?[ _-]?0*(\d{1,2})$", re.IGNORECASE)
_WORDS: tuple[tuple[str, frozenset[str]], ...] = (
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


_OF_BANDS = frozenset({"name", "common_name", "description", "center_wavelength"})
"""What is said of a band itself, rather than of its asset."""


@dataclass(frozen=True)
class MappedBand:
    """An asset band that serves a band of the sensor."""

    name: str
    asset: str
    index: int | None
    """1-based band of the file; None where the file holds one."""
    count: int | None
    """Bands that the file must hold; None where it is not known to matter."""
    how: str
    """What the mapping follows from."""


def map_bands(
    item: Mapping[str, Any],
    assets: Mapping[str, Any],
    sensor: Sensor,
    where: str,
    *,
    stated: Mapping[str, str] | None = None,
    needed: Collection[str] | None = None,
) -> tuple[MappedBand, ...]:
    """The asset band of each band of the sensor, in the sensor's order.

    Args:
        item: the item as JSON.
        assets: its assets.
        sensor: whose bands to look for.
        where: for messages.
        stated: `imagery.bands` of the spec.
        needed: names of the bands that the encoder takes; default: all. Others may be missing.

    Raises:
        SourceError: a band that is needed is missing, or its asset is not unique.
    """
    stated, needed = stated or {}, set(needed or (band.name for band in sensor.bands))
    wanted = [band for band in sensor.bands if band.name in needed]
    found = {name: _explicit(item, assets, name, text, where) for name, text in stated.items() if name in needed}
    rest = [band for band in wanted if band.name not in found]
    described = _Described(item, sensor, asset_bands(item, assets), taken={(f.asset, f.index) for f in found.values()})
    missing, unclear = [], []
    for band in rest:
        candidates = described.best(band)
        if len(candidates) == 1:
            found[band.name] = candidates[0]
        elif candidates:
            unclear.append(f"{band.name} ({' or '.join(sorted(_label(c) for c in candidates))})")
        else:
            missing.append(band.name)
    if unclear:
        raise SourceError(
            where,
            f"does not say which asset is {', '.join(unclear)} of sensor {sensor.key}",
            "one asset for each band",
            "State it in `imagery.bands`.",
        )
    if missing:
        whole = None if stated else _whole(assets, sensor, described)
        if whole is None:
            raise SourceError(
                where,
                f"has no band {', '.join(missing)} of sensor {sensor.key}; its assets are {', '.join(sorted(assets))}"
                + described.hint(),
                fix="Choose the sensor that made it, or state the assets in `imagery.bands`.",
            )
        return tuple(each for each in whole if each.name in needed)
    _check_unique(found, assets, where)
    return tuple(found[band.name] for band in wanted)


def _label(band: MappedBand) -> str:
    return band.asset if band.index is None else f"{band.asset}#{band.index}"


def _check_unique(found: Mapping[str, MappedBand], assets: Mapping[str, Any], where: str) -> None:
    """Refuse one band of one file for two bands of the sensor, be it by the same asset or by two."""
    seen: dict[tuple[str, int], str] = {}
    for name, band in found.items():
        place = (str(assets[band.asset].get("href")), band.index or 1)
        other = seen.setdefault(place, name)
        if other != name:
            labels = " and ".join(sorted({_label(found[other]), _label(band)}))
            raise SourceError(
                where, f"has one band of one file, {labels}, for both {other} and {name}", "one for each",
                "State them in `imagery.bands`.",
            )  # fmt: skip


def _explicit(item: Mapping[str, Any], assets: Mapping[str, Any], name: str, text: str, where: str) -> MappedBand:
    """A band as the spec states it: `asset`, or `asset#band` with a name or 1-based number."""
    asset, _, band = text.partition("#")
    if asset not in assets:
        raise SourceError(
            where, f"has no asset {asset!r}, which imagery.bands.{name} names", f"one of {', '.join(sorted(assets))}"
        )
    if not band:
        return MappedBand(name, asset, None, None, "imagery.bands")
    if band.isdecimal() and int(band) > 0:
        return MappedBand(name, asset, int(band), None, "imagery.bands")
    names = [str(each.get("name")) for each in band_list(item, assets[asset])]
    if names.count(band) != 1:
        raise SourceError(
            where,
            f"has {names.count(band)} bands named {band!r} in asset {asset!r}, which imagery.bands.{name} names",
            f"one of {', '.join(names) or 'the numbers of its bands'}",
        )
    return MappedBand(name, asset, names.index(band) + 1, None, "imagery.bands")


class _Described:
    """What each asset band says of itself."""

    def __init__(
        self, item: Mapping[str, Any], sensor: Sensor, bands: list[AssetBand], taken: Collection[tuple[str, int | None]]
    ) -> None:
        self.sensor, self.platforms = sensor, platform_names(item)
        self.names = {band.name: _plain_names(band, self.platforms) for band in sensor.bands}
        usable = [b for b in bands if (b.asset, b.index) not in taken]
        self.bands = [b for b in usable if not b.is_picture or b.asset.lower() in sensor.images]
        self.matches: dict[int, tuple[int, frozenset[str], str]] = {}
        self.conflicts: list[str] = []
        for place, band in enumerate(self.bands):
            match = self._match(band)
            if match is not None:
                self.matches[place] = match

    def best(self, band: Band) -> list[MappedBand]:
        """The candidates that are left for a band of the sensor."""
        ranked = [
            (self._rank(band, self.bands[place], tier, names), place, how)
            for place, (tier, names, how) in self.matches.items()
            if band.name in names
        ]
        if not ranked:
            return []
        first = min(rank for rank, _, _ in ranked)
        return [self._mapped(band, self.bands[place], how) for rank, place, how in ranked if rank == first]

    def _rank(self, band: Band, found: AssetBand, tier: int, names: frozenset[str]) -> tuple[float, ...]:
        exact = 0 if found.common == band.name or len(names) == 1 else 1
        distance = 0.5 if found.gsd is None else abs(found.gsd / self.sensor.gsd - 1)
        return (tier, exact, found.is_picture, round(distance, 3), found.is_jp2, found.listed > 1)

    def _mapped(self, band: Band, found: AssetBand, how: str) -> MappedBand:
        how = f"{how} in {found.described_by}" if found.described_by and how in _OF_BANDS else how
        return MappedBand(band.name, found.asset, found.index, found.listed if found.listed > 1 else None, how)

    def _match(self, band: AssetBand) -> tuple[int, frozenset[str], str] | None:
        """Tier, bands of the sensor, and what says so; None where nothing does, or it is another band."""
        said = self._said(band)
        title, key = self._text(band.title), self._key(band)
        if said:
            names = frozenset.intersection(*(found for _, found in said))
            if not names:
                if all(found for _, found in said):
                    words = " and ".join(what for what, _ in said)
                    self.conflicts.append(f"{band.asset}{'' if band.index is None else f'#{band.index}'}: {words}")
                return None
            for further in (title, key):
                if further is not None and len(names) > 1 and names & further:
                    names &= further
            return 0, names, said[0][0].partition(" ")[0]
        if band.listed > 1:
            return None
        if title and key and not title & key:
            self.conflicts.append(f"{band.asset}: title {band.title!r}")
            return None
        if title:
            return (1, title & key if key else title, "title") if len(title & (key or title)) == 1 else None
        return (2, key, "key") if key else None

    def _said(self, band: AssetBand) -> list[tuple[str, frozenset[str]]]:
        """Each statement about the band itself, and the bands of the sensor that it fits; none may be."""
        said: list[tuple[str, frozenset[str]]] = []
        described = None if band.description is None else self._text(band.description, foreign=True)
        named = None if band.name is None else self._named(band.name)
        generic = band.name is not None and _GENERIC.match(band.name)
        if generic and band.listed > 1 and described is not None and int(generic[1]) == band.index:
            named = None  # a number that only counts
        if named is not None and (named or self._is_foreign(str(band.name))):
            said.append((f"name {band.name!r}", named))
        if band.common is not None and band.common.lower() in _COMMON:
            common = band.common.lower()
            said.append((f"common_name {band.common!r}", self._common(common)))
        if described is not None:
            said.append((f"description {band.description!r}", described))
        if not said and band.wavelength is not None and not self.sensor.decibels:
            said.append((f"center_wavelength {band.wavelength:g}", self._near(band.wavelength)))
        return said

    def _named(self, name: str) -> frozenset[str]:
        plain = _plain(name)
        if plain in _LETTERS:
            return frozenset().union(*(self._common(common) for common in _LETTERS[plain]))
        return frozenset(key for key, names in self.names.items() if plain in names)

    def _is_foreign(self, name: str) -> bool:
        """Whether a name means a band, if not one of this sensor: `B01` of Sentinel-2 does, `layer` does not."""
        numbered = re.fullmatch(r"(?:[a-z]+_)?b0*\d{1,2}a?", name.lower())
        return name.lower() in _COMMON or name.lower() in _LETTERS or bool(numbered and self._counts_bands())

    def _common(self, common: str) -> frozenset[str]:
        own = frozenset(b.name for b in self.sensor.bands if b.name == common)
        return own | frozenset(b.name for b in self.sensor.bands if common in b.common)

    def _near(self, wavelength: float) -> frozenset[str]:
        """The band nearest to a wavelength, within 0.02 µm, or 4 % beyond 1 µm."""
        band = min(self.sensor.bands, key=lambda each: abs(each.wavelength - wavelength))
        reach = 0.02 if wavelength < 1 else 0.04 * wavelength
        return frozenset({band.name}) if abs(band.wavelength - wavelength) <= reach else frozenset()

    def _text(self, text: str, *, foreign: bool = False) -> frozenset[str] | None:
        """The bands that a text names: a number such as `band 8A` first, else the words for a color."""
        named = self._named(text)
        if named:
            return named
        numbers = {f"b{found[2].lower()}" for found in _TOKEN.finditer(text)}
        found = frozenset(key for key, names in self.names.items() if names & numbers)
        if numbers and (found or self._counts_bands()):
            return found if found or foreign else None
        common: set[str] = set()
        rest = text.lower().replace("_", " ")
        for pattern, names in _WORDS:
            if re.search(pattern, rest):
                rest = re.sub(pattern, " ", rest)
                common |= names
        if not common:
            return None
        hit = frozenset().union(*(self._common(name) for name in common))
        hit |= frozenset(key for key in self.names if key in common)
        return hit if hit or foreign else None

    def _counts_bands(self) -> bool:
        """Whether the names of the sensor's bands are numbers."""
        return any(re.fullmatch(r"b\d{1,2}a?", name) for names in self.names.values() for name in names)

    def _key(self, band: AssetBand) -> frozenset[str] | None:
        name = re.sub(r"^band[ _-]?(?=\d)", "b", asset_name(band.asset), flags=re.IGNORECASE)
        return self._named(name) or None

    def statements(self) -> list[tuple[AssetBand, frozenset[str]]]:
        """The asset bands that say which band they are, and the bands of the sensor that this fits; none may."""
        said = [(band, self._said(band)) for band in self.bands]
        keyed = [(band, key) for band in self.bands if not band.listed and (key := self._key(band)) is not None]
        return [(band, frozenset.intersection(*(names for _, names in each))) for band, each in said if each] + keyed

    def hint(self) -> str:
        """What the item says in contradiction to itself."""
        return f" (contradictory: {'; '.join(self.conflicts[:3])})" if self.conflicts else ""


def _plain_names(band: Band, platforms: Collection[str]) -> frozenset[str]:
    """The names of a band on the platforms that an item states; all that are possible where it states none."""
    others = [names for pattern, names in band.platform_aliases.items() if _any(pattern, platforms)]
    known = bool(platforms) or not band.platform_aliases
    if others:
        aliases = tuple(name for names in others for name in names)
    elif known:
        aliases = band.aliases
    else:
        aliases = (*band.aliases, *(name for names in band.platform_aliases.values() for name in names))
    return frozenset(_plain(name) for name in (band.name, *aliases))


def _any(pattern: str, texts: Collection[str]) -> bool:
    return any(re.search(pattern, text) for text in texts)


def _plain(name: str) -> str:
    """A name without case, separators and leading zeros: `SR_B04` and `sr-b4` are one."""
    text = re.sub(r"[^a-z0-9]", "", name.lower())
    return re.sub(r"(?<=[a-z])0+(?=\d)", "", text)


def platform_names(item: Mapping[str, Any]) -> list[str]:
    """Platform, instruments and the mission in the id, in lower-case letters and digits."""
    properties = item.get("properties", {})
    stated: list[Any] = []
    for key in ("platform", "eo:platform", "instruments", "eo:instrument"):
        value = properties.get(key)
        stated += value if isinstance(value, list) else [value]
    names = [re.sub(r"[^a-z0-9+]", "", text.lower()) for text in stated if isinstance(text, str)]
    mission = re.match(r"L[A-Z]0\d", str(item.get("id") or ""))
    return [name for name in (*names, mission[0].lower() if mission else "") if name]


def _whole(assets: Mapping[str, Any], sensor: Sensor, described: _Described) -> tuple[MappedBand, ...] | None:
    """The bands of one asset in the sensor's order, where the item says nothing, or just that, about each of them."""
    if described.conflicts:
        return None
    size, order = len(sensor.bands), [name.lower() for name in sensor.images]
    images = sorted(key for key in assets if is_image(assets[key]))
    known = [key for key in images if asset_name(key).lower() in order]
    known.sort(key=lambda key: order.index(asset_name(key).lower()))
    chosen = known[:1] or (images if len(images) == 1 and size > 1 else [])
    if not chosen or band_count(chosen[0], assets[chosen[0]]) not in {None, size}:
        return None
    names = [band.name for band in sensor.bands]
    for band, said in described.statements():
        in_order = band.asset == chosen[0] and band.index is not None and names[band.index - 1] in said
        if not in_order:
            return None
    return tuple(MappedBand(name, chosen[0], n, size, "order") for n, name in enumerate(names, start=1))
