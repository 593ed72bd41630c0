"""Which asset band holds which band of the sensor.

What the item says of a band (name, common name, center wavelength, description) comes first, then the title of its
asset, then the key. The sensor's order is assumed only where nothing is said and the number of bands fits.
"""

import re
from collections.abc import Collection, Iterable, Mapping
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
from clay_publish.producer.sources.band_order import COMMON, LETTERS, WORDS, other_orders, unknown_names
from clay_publish.producer.sources.watched import derive
from clay_publish.spec.sensors import Band, Sensor

_TOKEN = re.compile(r"\b(?:sr_)?(b(?:and)?)[ _-]?0*(\d{1,2}a?)\b(?!\.\d)", re.IGNORECASE)
_LANDSAT = re.compile(r"(?<![A-Za-z0-9])L[A-Z]0[1-9](?![0-9])")
"""Instrument and mission, as ids and collections of Landsat have them."""
_GENERIC = re.compile(r"^(?:b|band|layer|channel)?[ _-]?0*(\d{1,2})$", re.IGNORECASE)
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
        SourceError: a band that is needed is missing, or its asset is not unique. `check_unique` looks at the files.
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
        whole = None if stated else _whole(item, assets, sensor, described)
        if whole is None:
            raise SourceError(
                where,
                f"has no band {', '.join(missing)} of sensor {sensor.key}; its assets are {', '.join(sorted(assets))}"
                + described.hint(),
                fix="Choose the sensor that made it, or state the assets in `imagery.bands`.",
            )
        return tuple(each for each in whole if each.name in needed)
    return tuple(found[band.name] for band in wanted)


def _label(band: MappedBand) -> str:
    return band.asset if band.index is None else f"{band.asset}#{band.index}"


def check_unique(bands: Iterable[MappedBand], hrefs: Mapping[str, str], where: str) -> None:
    """Refuse one band of one file for two bands of the sensor, be it by the same asset or by two.

    Args:
        bands: of the sensor.
        hrefs: of the assets, by key.
        where: for messages.

    Raises:
        SourceError: two bands share one.
    """
    seen: dict[tuple[str, int], MappedBand] = {}
    for band in bands:
        other = seen.setdefault((hrefs[band.asset], band.index or 1), band)
        if other is not band:
            labels = " and ".join(sorted({_label(other), _label(band)}))
            raise SourceError(
                where, f"has one band of one file, {labels}, for both {other.name} and {band.name}", "one for each",
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
        self.unknown: list[str] = []
        """What an asset says of the order of its bands that is another one, or not understood."""
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
            near = None if band.wavelength is None or self.sensor.decibels else self._near(band.wavelength)
            for further in (near, title, key):
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
        counts = _counts(band) and described is not None  # a number that only counts
        if band.name is not None and not counts and (named := self._name(band.name)) is not None:
            said.append((f"name {band.name!r}", named))
        if band.common is not None and band.common.lower() in COMMON:
            said.append((f"common_name {band.common!r}", self._common(band.common.lower())))
        further = [text for text in band.also if text not in {band.name, band.common}]
        said += [(f"name {text!r}", named) for text in further if (named := self._name(text)) is not None]
        if described is not None:
            said.append((f"description {band.description!r}", described))
        if band.wavelength is None or self.sensor.decibels:
            return said
        near = self._near(band.wavelength)
        if not said or self._is_far(band.wavelength, frozenset.intersection(*(names for _, names in said))):
            said.append((f"center_wavelength {band.wavelength:g}", near))
        return said

    def _name(self, name: str) -> frozenset[str] | None:
        """The bands that a name fits, as it stands or by its words; None where it means nothing."""
        named = self._named(name)
        if named or self._is_foreign(name):
            return named
        return None if _GENERIC.match(name) else self._text(name, foreign=True)

    def _is_far(self, wavelength: float, names: frozenset[str]) -> bool:
        """Whether a wavelength is that of another part of the spectrum than all bands of these names."""
        apart = [abs(band.wavelength - wavelength) for band in self.sensor.bands if band.name in names]
        return bool(apart) and min(apart) > (0.06 if wavelength < 1 else 0.15 * wavelength)

    def _named(self, name: str) -> frozenset[str]:
        plain = _plain(name)
        if plain in LETTERS:
            return frozenset().union(*(self._common(common) for common in LETTERS[plain]))
        return frozenset(key for key, names in self.names.items() if plain in names)

    def _is_foreign(self, name: str) -> bool:
        """Whether a name means a band, if not one of this sensor: `B01` of Sentinel-2 does, `layer` does not."""
        numbered = re.fullmatch(r"(?:[a-z]+_)?b0*\d{1,2}a?", name.lower())
        return name.lower() in COMMON or name.lower() in LETTERS or bool(numbered and self._counts_bands())

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
        for pattern, names in WORDS:
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
        """What the item says in contradiction to itself, or to the sensor's order of bands."""
        conflicts = f" (contradictory: {'; '.join(self.conflicts[:3])})" if self.conflicts else ""
        return conflicts + (f" (not in the sensor's order: {'; '.join(self.unknown[:3])})" if self.unknown else "")


def _plain_names(band: Band, platforms: Collection[str]) -> frozenset[str]:
    """The names of a band on the platforms that an item states; all that are possible where it states no known one."""
    every = band.platform_aliases
    here = [names for pattern, names in every.items() if _any(pattern, platforms)] or [*filter(None, every.values())]
    further = [name for names in here for name in names] if all(here) else []
    return frozenset(_plain(name) for name in (band.name, *band.aliases, *further))


def _counts(band: AssetBand) -> bool:
    """Whether the name of a band is its number among several, and no more."""
    generic = band.name is not None and _GENERIC.match(band.name)
    return bool(generic and band.listed > 1 and int(generic[1]) == band.index)


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
    found = (name for key in ("id", "collection") for name in derive(item.get(key), _landsats))
    return [name for name in (*names, *found) if name]


def _landsats(text: str | None) -> tuple[str, ...]:
    return tuple(found.lower() for found in _LANDSAT.findall(str(text)))


def _whole(
    item: Mapping[str, Any], assets: Mapping[str, Any], sensor: Sensor, described: _Described
) -> tuple[MappedBand, ...] | None:
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
    described.unknown += unknown_names([band for band in described.bands if band.asset == chosen[0] and band.listed])
    described.unknown += other_orders(item, chosen[0], assets[chosen[0]], sensor)
    listed = (band_count(chosen[0], {key: found}) for key, found in assets[chosen[0]].items() if key.endswith("bands"))
    counts = sorted({count for count in listed if count is not None})
    if len(counts) > 1:
        described.unknown.append(f"lists of {' and '.join(map(str, counts))} bands")
    if described.unknown:
        return None
    return tuple(MappedBand(name, chosen[0], n, size, "order") for n, name in enumerate(names, start=1))
