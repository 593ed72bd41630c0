"""Rules on where the vectors come from, and under which terms."""

import re
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from clay_publish.errors import ReleaseError
from clay_publish.release.array_store import STORE
from clay_publish.release.directory import CARD, HOST_CARD, MANIFEST, MEASUREMENTS, REFERENCE, SOURCES, fingerprint_in
from clay_publish.release.manifest import ARRAY_LIBRARIES, LIBRARIES, arrow_version, omitted_notes
from clay_publish.release.measurements import read_measurements
from clay_publish.release.unit_receipts import unread_note
from clay_publish.spec.models import spdx_identifiers
from clay_publish.spec.sensors import BandStatistics
from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.data.chips import ChipRows
from clay_publish.validate.outcomes import BadRows, Fault, Outcome, Sampled, and_more, bad_rows
from clay_publish.validate.registry import row_rule, rule
from clay_publish.validate.rules.imagery.sensors import instrument
from clay_publish.validate.spilled import distinct

_SHA256 = re.compile(r"[0-9a-f]{64}")
_VERSION = re.compile(r"\d+(\.\d+)*((a|b|rc)\d+)?(\.post\d+)?(\.dev\d+)?(\+[a-z0-9]+([._-][a-z0-9]+)*)?")
"""As PEP 440 has it."""
_ATTRIBUTIONS = 1000
"""That are looked for in the card, at most."""


@rule("PRV001")
def fingerprints_are_complete(context: ReleaseContext) -> Iterator[Outcome]:
    """`embrel:decided_by`, and its digest `embrel:fingerprint`."""
    for path, footer in context.tables.keys.items():
        emb = footer.get("emb")
        if emb is None:
            continue  # SCH004
        try:
            made = fingerprint_in(footer, path)
        except ReleaseError as error:
            yield Fault(f"{path}: footer emb", error.found, "a complete fingerprint")
            continue
        if emb.get("embrel:fingerprint") != made.digest:
            stated = str(emb.get("embrel:fingerprint"))[:16]
            yield Fault(f"{path}: embrel:fingerprint", f"{stated}…", f"{made.digest[:16]}…, the digest of decided_by")


@rule("PRV002")
def one_fingerprint(context: ReleaseContext) -> Iterator[Outcome]:
    """Footers, manifest and items against the first file."""
    mine = context.fingerprint
    for path, footer in context.tables.keys.items():
        try:
            other = fingerprint_in(footer, path)
        except ReleaseError:
            continue  # PRV001
        if other != mine:
            yield Fault(f"{path}: footer emb", "; ".join(mine.differences(other)[:3]), "the same as in the other files")
    if context.documents.manifest.run.fingerprint != mine:
        differing = "; ".join(mine.differences(context.documents.manifest.run.fingerprint)[:3])
        yield Fault(f"{MANIFEST}: run.fingerprint", differing, "the files' own")


@rule("PRV003")
def weights_are_named(context: ReleaseContext) -> Iterator[Outcome]:
    """`weights_sha256`, against the spec's where that states one."""
    stated = context.fingerprint.weights_sha256
    if stated is None or not _SHA256.fullmatch(stated):
        yield Fault("fingerprint: weights_sha256", repr(stated), "64 hexadecimal digits")
    wanted = context.documents.spec.model.sha256
    if wanted is not None and wanted != stated:
        yield Fault("fingerprint: weights_sha256", repr(stated), f"{wanted} as release.yaml asks for")


@rule("PRV004")
def statistics_are_sound(context: ReleaseContext) -> Iterator[Outcome]:
    """Ranges for every model; for Clay's, the statistics of the sensor, which it was trained with."""
    fingerprint = context.fingerprint
    where = "fingerprint: bands"
    names = [band.name for band in fingerprint.bands]
    if not names or len(set(names)) < len(names):
        yield Fault(where, ", ".join(names) or "none", "each band once")
    for band in fingerprint.bands:
        if not (np.isfinite(band.mean) and np.isfinite(band.std) and band.std > 0):
            yield Fault(f"{where}.{band.name}", f"mean {band.mean:g}, std {band.std:g}", "finite, std above 0")
        if not 0.3 <= band.wavelength <= 15:
            yield Fault(f"{where}.{band.name}", f"wavelength {band.wavelength:g}", "micrometers, 0.3 to 15")
    if fingerprint.encoder == "clay":
        known = {band.name: band.statistics for band in instrument(context).bands}
        for band in fingerprint.bands:
            if band != known.get(band.name):
                stated, expected = _statistics(band), _statistics(known.get(band.name))
                yield Fault(f"{where}.{band.name}", stated, f"{expected}, as sensor {fingerprint.sensor} has")


def _statistics(band: BandStatistics | None) -> str:
    return "no such band" if band is None else f"mean {band.mean:g}, std {band.std:g}, wavelength {band.wavelength:g}"


@row_rule("PRV006")
def items_are_listed(chips: ChipRows, context: ReleaseContext) -> Sequence[BadRows]:
    """`item_id` among the used sources, and in `item_ids`."""
    places = context.sources.places(chips)
    sources = context.sources
    used = sources.at(places, sources.is_used, hole=False)
    found = list(bad_rows(~used, lambda row: f"item {chips.value('item_id', row)!r}", "an item that the sources use"))
    lists = chips.column("item_ids")
    lengths = pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False)
    found += bad_rows(lengths == 0, "item_ids is empty", "all items that gave pixels")
    flat, parents = pc.list_flatten(lists), pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
    same = pc.equal(flat, chips.column("item_id").fill_null("").take(pc.list_parent_indices(lists)))
    named = np.zeros(len(chips), dtype=bool)
    named[parents[same.to_numpy(zero_copy_only=False)]] = True
    known = sources.find(flat)
    strange = np.zeros(len(chips), dtype=bool)
    strange[parents[~sources.at(known, sources.is_used, hole=False)]] = True
    found += bad_rows(
        (~named & (lengths > 0)) | (strange & used),
        lambda row: f"item_ids {chips.value('item_ids', row)}",
        "item_id and other used items",
    )
    return found


@rule("PRV008")
def licenses_are_known(context: ReleaseContext) -> Iterator[Outcome]:
    """`license` of the used sources: an identifier that SPDX knows, or what the spec or the sensor states."""
    blocks = context.documents.spec.imagery
    stated = {instrument(context).license, *(block.license for block in blocks)} - {None}
    sources = context.sources
    unknown = sources.among_used("license", lambda text: not _is_known(text or "", stated))
    if unknown.size:
        where = and_more(f"{SOURCES}: {sources.name(unknown[0])}", len(unknown))
        yield Fault(where, "has no known license", "an SPDX identifier or public-domain")


def _is_known(text: str, stated: set[str | None]) -> bool:
    if text.lower() in {"", "proprietary", "various", "other"}:
        return False
    own = text.lower().startswith("licenseref-") or text.lower() in {"public-domain", "copernicus"}
    return own or text in stated or text.lower() in spdx_identifiers()


@rule("PRV009")
def licenses_are_compatible(context: ReleaseContext) -> Iterator[Outcome]:
    """Creative Commons' NC, ND and SA terms, and ODbL, against the release's license."""
    release = context.documents.spec.license
    sources = context.sources
    for source in sources.rows(sources.among_used("license", lambda text: _forbids(text or "", release) is not None)):
        forbidden = _forbids(source.license or "", release)
        found = f"is under {source.license} ({forbidden})"
        yield Fault(f"{SOURCES}: {source.id}", found, f"terms that allow {release}")


def _forbids(source: str, release: str) -> str | None:
    """Why a source's license does not allow the release's; None where it does, as far as its name tells."""
    parts, own = set(source.upper().split("-")), set(release.upper().split("-"))
    if "ND" in parts:
        return "no derivatives"
    if "NC" in parts and "NC" not in own:
        return "non-commercial"
    if ("SA" in parts or source.upper().startswith("ODBL")) and source.upper() != release.upper():
        return "share alike"
    return None


@rule("PRV010")
def attribution_is_there(context: ReleaseContext) -> Iterator[Outcome]:
    """Each used source's attribution, word by word, in the cards."""
    cards = {path: _plain(context.files.text(path)) for path in (CARD, HOST_CARD) if path in context.files.paths}
    asked = sorted(text for text in context.sources.said_of("attribution", context.sources.used) if text)
    if len(asked) > _ATTRIBUTIONS:
        yield Sampled(_ATTRIBUTIONS, len(asked), "attributions")
    for text in asked[:_ATTRIBUTIONS]:
        for path, words in cards.items():
            if _plain(text) not in words:
                yield Fault(path, f"does not say {text!r}", "the attribution of every source")


def _plain(text: str) -> str:
    """Letters and digits only: escapes of Markdown and HTML do not count."""
    return re.sub(r"[^0-9a-z]+", " ", re.sub(r"&[a-z]+;|&#\d+;", " ", text.lower())).strip()


@rule("PRV011")
def software_is_named(context: ReleaseContext) -> Iterator[Outcome]:
    """`software`, `run.libraries` and `run.plan_sha256`; libraries against `run.json` and the footers' writer.

    The plan that the last is the digest of is not published, so that only its form is checked.
    """
    manifest = context.documents.manifest
    name, _, version = manifest.software.strip().partition(" ")
    if not name or _VERSION.fullmatch(version) is None:
        yield Fault(f"{MANIFEST}: software", repr(manifest.software), "name and version")
    stated, where = manifest.run.libraries, f"{MANIFEST}: run.libraries"
    has_arrays = any(path.startswith(f"{STORE}/") for path in context.files.paths)
    needed = [*LIBRARIES, *(ARRAY_LIBRARIES if has_arrays else ())]
    if missing := [each for each in needed if each not in stated]:
        yield Fault(where, f"does not name {', '.join(missing)}", "name and version of each library that decides bytes")
    for each, version in stated.items():
        if _VERSION.fullmatch(version) is None:
            yield Fault(f"{where}: {each}", repr(version), "a version such as 2.4.6")
    measured = read_measurements(context.files.release).libraries if MEASUREMENTS in context.files.paths else stated
    for each in sorted({*stated, *measured}):
        if stated.get(each) != measured.get(each):
            yield Fault(f"{where}: {each}", f"{stated.get(each)}", f"{measured.get(each)}, as in {MEASUREMENTS}")
    writers = {context.tables.footer(path).created_by for path in context.tables.embeddings}
    arrow = {wrote for writer in writers if (wrote := arrow_version(writer)) is not None}
    if arrow and "pyarrow" in stated and stated["pyarrow"] not in arrow:
        yield Fault(f"{where}: pyarrow", stated["pyarrow"], f"{', '.join(sorted(arrow))}, which wrote the files")
    if not _SHA256.fullmatch(manifest.run.plan_sha256):
        yield Fault(f"{MANIFEST}: run.plan_sha256", manifest.run.plan_sha256[:20], "64 hexadecimal digits")


@rule("PRV022")
def notes_are_of_the_images(context: ReleaseContext) -> Iterator[Outcome]:
    """`run.notes`: what samples of the pixels said, images that could not be read, reference vectors left out.

    Whether an image could be read is not seen in the files, as others may have taken its place: such a note is only
    held against the list of sources.
    """
    notes, where = context.documents.manifest.run.notes, f"{MANIFEST}: run.notes"
    sources = context.sources
    read = np.flatnonzero(sources.texts["bands"].there)
    said = _sentences(context, read)
    rows = [context.tables.count(path) for path in context.tables.embeddings]
    omitted = omitted_notes(rows, context.tables.count(REFERENCE)) if REFERENCE in context.tables.readable else []
    strange = set(notes) - said - {*omitted}
    if strange:
        strange -= {unread_note(sources.name(row)) for row in read.tolist()}
    for note in sorted(strange):
        yield Fault(where, f"says {note!r:.200}", "what follows from sources and reference vectors")
    if len(set(notes)) < len(notes):
        yield Fault(where, "says something twice", "each note once")
    gave = distinct(context.scan.facts["items"])
    needed = _sentences(context, sources.row_of[gave[gave >= 0]])
    for note in sorted((needed | {*omitted}) - set(notes)):
        yield Fault(where, f"does not say {note!r:.200}", "what is doubtful about images and reference vectors")


def _sentences(context: ReleaseContext, rows: npt.NDArray[np.integer]) -> set[str]:
    """What samples of the pixels of these sources said."""
    said = context.sources.said_of("evidence", rows)
    return {sentence for evidence in said if evidence for sentence in evidence["sentences"]}
