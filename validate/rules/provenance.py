"""Rules on where the vectors come from, and under which terms."""

import re
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow.compute as pc

from clay_publish.release.directory import CARD, MANIFEST, SOURCES, SPEC
from clay_publish.release.findings import Severity
from clay_publish.release.fingerprint import Fingerprint
from clay_publish.validate.context import View
from clay_publish.validate.data.chips import ChipRows
from clay_publish.validate.registry import BadRows, Fault, NotChecked, Outcome, bad_rows, row_rule, rule

Statistics = dict[str, tuple[float, float, float]]

_OPTICAL = ("red", "green", "blue", "nir08", "swir16", "swir22")
_LANDSAT_WAVES = (0.65, 0.56, 0.48, 0.86, 1.6, 2.2)
_LANDSAT_L1 = ((10678, 6025), (10563, 5411), (11083, 5468), (14792, 6746), (12276, 5897), (10114, 4850))
_LANDSAT_L2 = ((13705, 9578), (13310, 9408), (12474, 10144), (17801, 8277), (14615, 5300), (12701, 4522))


def _landsat(values: tuple[tuple[float, float], ...]) -> Statistics:
    rows = zip(_OPTICAL, values, _LANDSAT_WAVES, strict=True)
    return {name: (mean, std, wave) for name, (mean, std), wave in rows}


CLAY_STATISTICS: dict[str, Statistics] = {
    "sentinel-2-l2a": {
        "blue": (1105, 1809, 0.493),
        "green": (1355, 1757, 0.56),
        "red": (1552, 1888, 0.665),
        "rededge1": (1887, 1870, 0.704),
        "rededge2": (2422, 1732, 0.74),
        "rededge3": (2630, 1697, 0.783),
        "nir": (2743, 1742, 0.842),
        "nir08": (2785, 1648, 0.865),
        "swir16": (2388, 1470, 1.61),
        "swir22": (1835, 1379, 2.19),
    },
    "landsat-c2l1": _landsat(_LANDSAT_L1),
    "landsat-c2l2-sr": _landsat(_LANDSAT_L2),
    "naip": {
        "red": (110.16, 47.23, 0.65),
        "green": (115.41, 39.82, 0.56),
        "blue": (98.15, 35.43, 0.48),
        "nir": (139.04, 49.86, 0.842),
    },
    "linz": {"red": (89.96, 41.83, 0.635), "green": (99.46, 36.96, 0.555), "blue": (89.51, 31.45, 0.465)},
    "sentinel-1-rtc": {"vv": (-12.113, 8.314, 3.5), "vh": (-18.673, 8.017, 4.0)},
    "modis": {
        "sur_refl_b01": (1072, 1643, 0.645),
        "sur_refl_b02": (1624, 1878, 0.858),
        "sur_refl_b03": (931, 1449, 0.469),
        "sur_refl_b04": (1023, 1538, 0.555),
        "sur_refl_b05": (1599, 1763, 1.24),
        "sur_refl_b06": (1404, 1618, 1.64),
        "sur_refl_b07": (1051, 1396, 2.13),
    },
}


_ERROR, _WARNING = Severity.ERROR, Severity.WARNING
_SHA256 = re.compile(r"[0-9a-f]{64}")
_ATTRIBUTIONS = 1000
"""That are looked for in the card, at most."""


@rule(
    "PRV001",
    _ERROR,
    "Every file's footer holds a complete fingerprint",
    reason="Vectors whose model, weights or normalisation nobody knows cannot be compared with anything.",
    fix="Make the files again with `clay-publish produce`.",
)
def fingerprints_are_complete(view: View) -> Iterator[Outcome]:
    """`embrel:decided_by`, and its digest `embrel:fingerprint`."""
    for path, footer in view.footers.items():
        emb = footer.get("emb")
        if emb is None:
            continue  # SCH004
        try:
            made = Fingerprint.model_validate(emb.get("embrel:decided_by"))
        except ValueError as error:
            yield Fault(f"{path}: footer emb", f"no complete fingerprint ({str(error).splitlines()[0]})", "one")
            continue
        if emb.get("embrel:fingerprint") != made.digest:
            told = str(emb.get("embrel:fingerprint"))[:16]
            yield Fault(f"{path}: embrel:fingerprint", f"{told}…", f"{made.digest[:16]}…, the digest of decided_by")


@rule(
    "PRV002",
    _ERROR,
    "All files have the same fingerprint",
    reason="Two models, weights or normalisations in one version give vectors that look alike and do not compare.",
    fix="Publish them as two versions.",
)
def one_fingerprint(view: View) -> Iterator[Outcome]:
    """Footers, manifest and items against the first file."""
    mine = view.fingerprint
    for path, footer in view.footers.items():
        emb = footer.get("emb", {})
        try:
            other = Fingerprint.model_validate(emb.get("embrel:decided_by"))
        except ValueError:
            continue  # PRV001
        if other != mine:
            yield Fault(f"{path}: footer emb", "; ".join(mine.differences(other)[:3]), "the same as in the other files")
    if view.manifest.run.fingerprint != mine:
        differing = "; ".join(mine.differences(view.manifest.run.fingerprint)[:3])
        yield Fault(f"{MANIFEST}: run.fingerprint", differing, "the files' own")


@rule(
    "PRV003",
    _ERROR,
    "The weights are named by their SHA-256",
    reason="A model's name says nothing after its weights were updated in place.",
    fix="Record the SHA-256 of the weights' file.",
)
def weights_are_named(view: View) -> Iterator[Outcome]:
    """`weights_sha256`, against the spec's where that states one."""
    told = view.fingerprint.weights_sha256
    if told is None or not _SHA256.fullmatch(told):
        yield Fault("fingerprint: weights_sha256", repr(told), "64 hexadecimal digits")
    wanted = view.spec.model.sha256
    if wanted is not None and wanted != told:
        yield Fault("fingerprint: weights_sha256", repr(told), f"{wanted} as release.yaml asks for")


@rule(
    "PRV004",
    _ERROR,
    "Band statistics can be right",
    reason="A wavelength in nanometres, a standard deviation of 0 or another sensor's mean gives vectors "
    "that look fine and mean nothing.",
    fix="Use the statistics the model was trained with.",
)
def statistics_are_sound(view: View) -> Iterator[Outcome]:
    """Ranges for every model; for Clay's, the statistics it was trained with."""
    fingerprint = view.fingerprint
    where = "fingerprint: bands"
    names = [band.name for band in fingerprint.bands]
    if not names or len(set(names)) < len(names):
        yield Fault(where, ", ".join(names) or "none", "each band once")
    for band in fingerprint.bands:
        if not (np.isfinite(band.mean) and np.isfinite(band.std) and band.std > 0):
            yield Fault(f"{where}.{band.name}", f"mean {band.mean:g}, std {band.std:g}", "finite, std above 0")
        if not 0.3 <= band.wavelength <= 15:
            yield Fault(f"{where}.{band.name}", f"wavelength {band.wavelength:g}", "micrometres, 0.3 to 15")
    known = CLAY_STATISTICS.get(fingerprint.sensor)
    if fingerprint.encoder == "clay" and known is not None:
        for band in fingerprint.bands:
            told = (band.mean, band.std, band.wavelength)
            if told != known.get(band.name):
                yield Fault(f"{where}.{band.name}", f"{told}", f"{known.get(band.name)}, as Clay was trained")


@rule(
    "PRV005",
    _ERROR,
    "The fingerprint is what the spec asks for",
    reason="Who reads release.yaml has to know what was done, not what was meant.",
    fix="Publish the spec that the run was made with.",
)
def fingerprint_fits_spec(view: View) -> Iterator[Outcome]:
    """Sensor, layout, size, encoder, dtype, precision."""
    spec, made = view.spec, view.fingerprint
    pairs = (
        ("imagery.sensor", spec.sensor, made.sensor),
        ("chips.layout", spec.chips.layout, made.layout),
        ("chips.size", spec.chips.size, made.size),
        ("model.encoder", spec.model.encoder, made.encoder),
        ("outputs.dtype", spec.outputs.dtype, made.dtype),
    )
    for key, asked, done in pairs:
        if asked != done:
            yield Fault(f"{SPEC}: {key}", repr(asked), f"{done!r}, as in the files")
    if spec.model.precision not in {"auto", made.precision}:
        yield Fault(f"{SPEC}: model.precision", repr(spec.model.precision), repr(made.precision))
    if made.metadata not in {"none", spec.model.metadata}:
        yield Fault(f"{SPEC}: model.metadata", repr(spec.model.metadata), repr(made.metadata))


@row_rule(
    "PRV006",
    _ERROR,
    "Every chip names a source item that the sources list as used",
    reason="Without its source a chip cannot be checked, credited or licensed.",
    fix="List every item that gave pixels in sources.parquet.",
)
def items_are_listed(chips: ChipRows, view: View) -> Sequence[BadRows]:
    """`item_id` among the used sources, and in `item_ids`."""
    places = view.item_places(chips)
    used = np.array([source.status == "used" for source in view.sources.by_id.values()] + [False])
    found = list(
        bad_rows(~used[places], lambda row: f"item {chips.value('item_id', row)!r}", "an item that the sources use")
    )
    lists = chips.column("item_ids")
    lengths = pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False)
    found += bad_rows(lengths == 0, lambda _: "item_ids is empty", "all items that gave pixels")
    flat, parents = pc.list_flatten(lists), pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
    same = pc.equal(flat, chips.column("item_id").fill_null("").take(pc.list_parent_indices(lists)))
    named = np.zeros(len(chips), dtype=bool)
    named[parents[same.to_numpy(zero_copy_only=False)]] = True
    known = pc.index_in(flat, value_set=view.source_ids).fill_null(-1).to_numpy(zero_copy_only=False)
    strange = np.zeros(len(chips), dtype=bool)
    strange[parents[~used[known]]] = True
    found += bad_rows(
        (~named & (lengths > 0)) | (strange & used[places]),
        lambda row: f"item_ids {chips.value('item_ids', row)}",
        "item_id and other used items",
    )
    return found


@rule(
    "PRV007",
    _ERROR,
    "Sources have a known status, and the spec's excluded items are excluded",
    reason="A bad scene that was named as such and used all the same is worse than one nobody knew of.",
    fix="Make the release again without the excluded items.",
)
def excluded_are_excluded(view: View) -> Iterator[Outcome]:
    """`status` of the sources against the spec's `exclude`."""
    for source in view.sources.rows:
        if source.status not in {"used", "unused", "excluded"}:
            yield Fault(f"{SOURCES}: {source.id}", f"status {source.status!r}", "used, unused or excluded")
        excluded = view.spec.imagery[source.block].exclude if 0 <= source.block < len(view.spec.imagery) else []
        if source.id in excluded and source.status == "used":
            yield Fault(f"{SOURCES}: {source.id}", "is used", "excluded, as release.yaml says")
        if source.status != "used" and not source.reason:
            yield Fault(f"{SOURCES}: {source.id}", f"is {source.status} without a reason", "a reason")


@rule(
    "PRV008",
    _WARNING,
    "The licence of every used source is known",
    reason="Nobody may use what nobody knows the terms of; `publish` stops here.",
    fix="State `imagery.license` in the spec, or leave the items out.",
)
def licences_are_known(view: View) -> Iterator[Outcome]:
    """`license` of the used sources."""
    unknown = [s.id for s in view.sources.used if (s.license or "").lower() in {"", "proprietary", "various", "other"}]
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        yield Fault(f"{SOURCES}: {unknown[0]}{more}", "has no known licence", "an SPDX identifier or public-domain")


@rule(
    "PRV009",
    _ERROR,
    "The licence of no source forbids the release's",
    reason="Non-commercial, no-derivatives and share-alike terms go on in what is made of the images.",
    fix="Leave the items out, or release under terms they allow.",
)
def licences_are_compatible(view: View) -> Iterator[Outcome]:
    """Creative Commons' NC, ND and SA terms, and ODbL, against the release's licence."""
    release = view.spec.license
    for source in view.sources.used:
        forbidden = _forbids(source.license or "", release)
        if forbidden:
            found = f"is under {source.license} ({forbidden})"
            yield Fault(f"{SOURCES}: {source.id}", found, f"terms that allow {release}")


def _forbids(source: str, release: str) -> str | None:
    """Why a source's licence does not allow the release's; None where it does, as far as its name tells."""
    parts, own = set(source.upper().split("-")), set(release.upper().split("-"))
    if "ND" in parts:
        return "no derivatives"
    if "NC" in parts and "NC" not in own:
        return "non-commercial"
    if ("SA" in parts or source.upper().startswith("ODBL")) and source.upper() != release.upper():
        return "share alike"
    return None


@rule(
    "PRV010",
    _ERROR,
    "The card carries the attribution that the sources ask for",
    reason="Attribution is a condition of nearly every licence of imagery.",
    fix="Write the card again with `clay-publish card`.",
)
def attribution_is_there(view: View) -> Iterator[Outcome]:
    """Each used source's attribution, word by word."""
    words = _plain(view.card)
    asked = sorted({s.attribution for s in view.sources.used if s.attribution})
    if len(asked) > _ATTRIBUTIONS:
        yield NotChecked(f"the sources ask for {len(asked):,} attributions; {_ATTRIBUTIONS:,} were looked for")
    for text in asked[:_ATTRIBUTIONS]:
        if _plain(text) not in words:
            yield Fault(CARD, f"does not say {text!r}", "the attribution of every source")


def _plain(text: str) -> str:
    """Letters and digits only: escapes of Markdown and HTML do not count."""
    return re.sub(r"[^0-9a-z]+", " ", re.sub(r"&[a-z]+;|&#\d+;", " ", text.lower())).strip()


@rule(
    "PRV011",
    _ERROR,
    "The manifest names the software and library versions that made the release",
    reason="The same vectors can only be made again with what made them.",
    fix="Write the manifest again with `clay-publish`.",
)
def software_is_named(view: View) -> Iterator[Outcome]:
    """`software` and `run.libraries`."""
    manifest = view.manifest
    if not manifest.software.strip():
        yield Fault(f"{MANIFEST}: software", "is empty", "name and version")
    if not manifest.run.libraries or any(not version for version in manifest.run.libraries.values()):
        yield Fault(f"{MANIFEST}: run.libraries", f"{manifest.run.libraries}", "library → version")
    if not _SHA256.fullmatch(manifest.run.plan_sha256):
        yield Fault(f"{MANIFEST}: run.plan_sha256", manifest.run.plan_sha256[:20], "64 hexadecimal digits")
