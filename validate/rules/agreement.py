"""Rules on facts that several documents state: all have to agree. They are data: facts, and where they are stated."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from clay_publish.release.directory import (
    AGENTS,
    CARD,
    CITATION,
    COLLECTION,
    CROISSANT,
    DATACITE,
    HOST_CARD,
    ITEMS,
    JSON_LD,
    MANIFEST,
    MODEL,
    SPEC,
)
from clay_publish.release.tables import REASONS, without_cloud_fraction
from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.data.documents import LETTERS, Documents
from clay_publish.validate.outcomes import Fault, Outcome, Sampled
from clay_publish.validate.registry import Rule, register
from clay_publish.windows import parse_time

_MISSING = "missing"


@dataclass(frozen=True)
class Fact:
    """One fact, and the documents that state it."""

    name: str
    truth: Callable[[ReleaseContext], Any]
    stated: dict[str, str]
    """Document → dotted key. One that ends in `!` has to be there; others may be missing or null."""
    plain: Callable[[Any], Any] | None = None
    """Values are compared after this."""
    unstated: tuple[Any, ...] = ()
    """Values that state nothing."""
    in_card: Callable[[Any], set[str]] | None = None
    """Texts of which the body of the card has to hold one."""
    said: str = ""
    """Topic of the statements in documents."""


_DOCUMENTS: dict[str, Callable[[Documents], Any]] = {
    COLLECTION: lambda documents: documents.collection,
    CARD: lambda documents: documents.front_matter,
    CITATION: lambda documents: documents.citation,
    MANIFEST: lambda documents: documents.manifest,
    MODEL: lambda documents: documents.model,
    SPEC: lambda documents: documents.spec,
    **{path: partial(Documents.json, path=path) for path in (DATACITE, JSON_LD, CROISSANT)},
}
_OPTIONAL = (DATACITE, JSON_LD, CROISSANT, HOST_CARD, AGENTS)
"""Documents that releases of other software may lack."""
_SAYING = (CARD, HOST_CARD, AGENTS, COLLECTION, MODEL, DATACITE, JSON_LD, CROISSANT)
"""Documents with statements."""


def _stated(documents: Documents, document: str, key: str) -> Any:
    """What a document says, None where it says nothing."""
    if document == ITEMS:
        return _shared(documents.items, key)
    value = _DOCUMENTS[document](documents)
    return _at(value, [key] if isinstance(value, dict) and key in value else key.split("."))


def _at(value: Any, parts: list[str]) -> Any:
    """The value at a path; `*` stands for every element of a list, a number for one."""
    for number, part in enumerate(parts):
        if isinstance(value, list):
            if part == "*":
                return [_at(each, parts[number + 1 :]) for each in value]
            value = value[int(part)] if part.isdecimal() and int(part) < len(value) else None
        else:
            value = value.get(part) if isinstance(value, dict) else getattr(value, part, None)
    return value


def _shared(items: pa.Table, key: str) -> Any:
    """The value that all items share; None where there is no such column."""
    column, _, field = key.partition(".")
    if column not in items.column_names:
        return None
    values = {json.dumps(v, sort_keys=True, default=str) for v in items.column(column).to_pylist()}
    value = json.loads(values.pop()) if len(values) == 1 else sorted(values)
    return value.get(field) if field and isinstance(value, dict) else value


def _disagreements(facts: tuple[Fact, ...], context: ReleaseContext) -> Iterator[Outcome]:
    for fact in facts:
        truth = fact.truth(context)
        if truth is not None:
            yield from _other_values(fact, truth, context)
            yield from _other_words(fact, truth, context)
    sizes = context.documents.letters.values()
    yield Sampled(sum(min(size, LETTERS) for size in sizes), sum(sizes), "letters of its documents")


def _other_values(fact: Fact, truth: Any, context: ReleaseContext) -> Iterator[Outcome]:
    """Values under keys."""
    for document, key in fact.stated.items():
        if document in _OPTIONAL and document not in context.files.paths:
            continue
        value = _stated(context.documents, document, key.removesuffix("!"))
        if value is None and key.endswith("!"):
            value = _MISSING
        if value is None or value in fact.unstated or _same(fact, value, truth):
            continue
        yield Fault(f"{document}: {key.removesuffix('!')}", f"{fact.name} {_short(value)}", _short(truth))


def _other_words(fact: Fact, truth: Any, context: ReleaseContext) -> Iterator[Outcome]:
    """Statements, and texts that are missing."""
    for document in _SAYING if fact.said else ():
        if document in context.files.paths:
            for value in sorted(context.documents.statements(document).get(fact.said, ())):
                if not _same(fact, value, str(truth)):
                    yield Fault(document, f"states the {fact.name} {_short(value)}", _short(truth))
    body = context.documents.card.split("\n---", 2)[-1]
    if fact.in_card is not None and not any(text in body for text in fact.in_card(truth)):
        yield Fault(CARD, f"does not state the {fact.name}", _short(truth))


def _same(fact: Fact, value: Any, truth: Any) -> bool:
    return bool(value == truth if fact.plain is None else fact.plain(value) == fact.plain(truth))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _lower(value: Any) -> str:
    return str(value).lower()


def _letters(value: Any) -> str:
    return re.sub(r"[^a-z0-9]", "", str(value).lower())


def _words(value: Any) -> str:
    """Letters and digits of any script, of the part that documents do not cut: escapes do not count."""
    return re.sub(r"[\W_]+", "", " ".join(value) if isinstance(value, list) else str(value)).lower()[:200]


def _meters(value: Any) -> str:
    """Four digits of `640`, `640 m` or `1.28 km`."""
    number, _, unit = str(value).partition(" ")
    return f"{float(number.replace(',', '')) * (1000 if unit == 'km' else 1):.4g}"


def _second(value: Any) -> str:
    """A moment to the second."""
    return value if value == _MISSING else parse_time(value).isoformat(timespec="seconds")


def _numbers(value: Any) -> set[str]:
    return {f"{value:,}", str(value)}


def _footer(key: str) -> Callable[[ReleaseContext], Any]:
    """The value of a key of the `emb` footers; a list where the files differ, which agrees with nothing."""

    def find(context: ReleaseContext) -> Any:
        values: list[Any] = []
        for keys in context.tables.keys.values():
            value = keys.get("emb", {}).get(key)
            if value is not None and value not in values:
                values.append(value)
        return values if len(values) > 1 else next(iter(values), None)

    return find


def _fingerprint(field: str) -> Callable[[ReleaseContext], Any]:
    return lambda context: getattr(context.fingerprint, field)


def _spec(field: str) -> Callable[[ReleaseContext], Any]:
    return lambda context: getattr(context.documents.spec, field)


def _list(truth: Callable[[ReleaseContext], Any]) -> Callable[[ReleaseContext], Any]:
    """The same value as the only one of a summary."""

    def find(context: ReleaseContext) -> Any:
        value = truth(context)
        return None if value is None else [value]

    return find


def _rows(context: ReleaseContext) -> int:
    return context.tables.rows


def _side(context: ReleaseContext) -> float | None:
    gsd = _footer("gsd")(context)
    return None if gsd is None else context.fingerprint.size * gsd


def _decided(context: ReleaseContext) -> Any:
    return context.fingerprint.model_dump(mode="json")


def _of_bands(field: str) -> Callable[[ReleaseContext], list[Any]]:
    return lambda context: [getattr(band, field) for band in context.fingerprint.bands]


def _columns(context: ReleaseContext) -> list[str]:
    return list(context.tables.schema(context.tables.embeddings[0]).names)


def _providers(context: ReleaseContext) -> list[str]:
    publish = context.documents.spec.publish
    hosts = {"Source Cooperative": publish.source_coop, "Hugging Face": publish.hugging_face}
    return (_creators(context) or []) + [name for name, place in hosts.items() if place]


def _doi(context: ReleaseContext) -> str:
    return context.documents.spec.doi or "none"


def _creators(context: ReleaseContext) -> list[str] | None:
    return [creator.name for creator in context.documents.spec.creators] or None


def _projections(context: ReleaseContext) -> list[str]:
    """Those of files whose chips share one."""
    facts = context.scan.facts
    codes = {path: np.unique(facts["epsg"][rows]).tolist() for path, rows in facts.slices().items()}
    return sorted({f"EPSG:{own[0]}" for own in codes.values() if len(own) == 1 and own[0]})


def _missing(context: ReleaseContext) -> dict[str, int]:
    counted: Counter[str] = Counter()
    for said, count in context.said.items():
        if said.status == "missing":
            counted[str(said.reason)] += count
    return dict(counted)


def _count(reason: str) -> Callable[[ReleaseContext], int]:
    return lambda context: _missing(context).get(reason, 0)


def _edge(side: str) -> Callable[[ReleaseContext], str | None]:
    """The first start, or the last end, of all chips, as the footers of the files say; None where one does not."""

    def find(context: ReleaseContext) -> str | None:
        periods = [context.tables.period(path) for path in context.tables.embeddings if context.tables.rows_of(path)]
        if not periods or None in periods:
            return None
        known = [period for period in periods if period is not None]
        edge = min(start for start, _ in known) if side == "start" else max(end for _, end in known)
        return edge.isoformat()

    return find


def _day(side: str) -> Callable[[ReleaseContext], str | None]:
    def find(context: ReleaseContext) -> str | None:
        edge = _edge(side)(context)
        return None if edge is None else edge[:10]

    return find


def _metadata(context: ReleaseContext) -> str | None:
    return None if context.fingerprint.metadata == "none" else context.fingerprint.metadata


def _title(context: ReleaseContext) -> str:
    return context.documents.spec.title or context.documents.spec.name


def _expected(context: ReleaseContext) -> int | None:
    return context.documents.manifest.run.coverage.get("expected")


def _unchecked(context: ReleaseContext) -> int | None:
    """Chips without a share of cloud, where the sensor has masks; None where there are none to speak of."""
    if not context.documents.spec.instrument.masks:
        return None
    return sum(without_cloud_fraction(context.tables.footer(path)) for path in context.tables.embeddings) or None


_UNCHECKED = {COLLECTION: "embrel:coverage.not_cloud_checked!"}
_DIMENSIONS = {
    COLLECTION: "emb:dimensions!",
    CARD: "embedding_dimension",
    MANIFEST: "run.fingerprint.dimensions",
    MODEL: "properties.mlm:output.0.result.shape.1",
}
_VERSIONS = {
    MANIFEST: "version",
    COLLECTION: "version!",
    CARD: "version",
    CITATION: "version!",
    **dict.fromkeys((DATACITE, JSON_LD, CROISSANT), "version!"),
}
_FINGERPRINTS = {COLLECTION: "embrel:fingerprint!", ITEMS: "embrel:fingerprint"}
_WEIGHTS = {ITEMS: "emb:runtime_parameters.weights_sha256"}
_SUMMARIES = {"emb:type": _footer("emb:type"), "data_type": _fingerprint("dtype"), "gsd": _footer("gsd")}
_MODELS = {
    CARD: "model_name",
    MODEL: "properties.title",
    JSON_LD: "measurementTechnique",
    CITATION: "references.0.title",
}
_TITLES = {
    CITATION: "title!",
    COLLECTION: "title!",
    CARD: "pretty_name!",
    DATACITE: "titles.0.title!",
    JSON_LD: "name!",
    CROISSANT: "alternateName!",
}
_CREATORS = {DATACITE: "creators.*.name!", JSON_LD: "creator.*.name!", CROISSANT: "creator.*.name!"}
_SCALING = "properties.mlm:input.0.value_scaling.*"
_Z_SCORE = {"mean": "mean", "stddev": "std"}
_PERIODS = {
    side: {COLLECTION: f"extent.temporal.interval.0.{place}!", MODEL: f"properties.{side}_datetime"}
    for place, side in enumerate(("start", "end"))
}

AGREEMENTS: dict[str, tuple[Fact, ...]] = {
    "DOC007": (
        Fact("dimension", _fingerprint("dimensions"), _DIMENSIONS, said="dimensions"),
        Fact("dimension", _list(_fingerprint("dimensions")), {COLLECTION: "summaries.emb:dimensions"}),
    ),
    "DOC008": (
        *(Fact(key, _footer(key), {COLLECTION: f"{key}!"}) for key in ("emb:type", "data_type", "emb:chip_layout")),
        *(Fact(key, _list(truth), {COLLECTION: f"summaries.{key}"}) for key, truth in _SUMMARIES.items()),
        Fact("gsd", _footer("gsd"), {COLLECTION: "gsd!", ITEMS: "gsd", CROISSANT: "geocr:spatialResolution.value"}),
        Fact("gsd", _footer("gsd"), {}, plain=_meters, said="gsd"),
        Fact("side of a chip", _side, {CARD: "grid_spacing.0.0"}, plain=_meters, said="ground"),
        Fact("projections", _projections, {COLLECTION: "summaries.proj:code"}, plain=sorted),
        Fact("fingerprint", _fingerprint("digest"), _FINGERPRINTS, said="fingerprint"),
        Fact("fingerprint", _decided, {COLLECTION: "embrel:decided_by"}),
        Fact("dtype", _fingerprint("dtype"), {}, plain=_lower, said="dtype"),
        Fact(
            "dtype", _fingerprint("dtype"), {CARD: "quantization!"}, plain=lambda v: "float32" if v == _MISSING else v
        ),
        Fact("layout", _fingerprint("layout"), {}, said="layout"),
        Fact("chip size", _fingerprint("size"), {MODEL: "properties.mlm:input.0.input.shape.2"}, said="size"),
        Fact("bands", _of_bands("name"), {MODEL: "properties.mlm:input.0.bands"}),
        Fact("bands", _of_bands("name"), {MODEL: "assets.model.bands.*.name"}),
        Fact(
            "precision",
            _fingerprint("precision"),
            {MODEL: "properties.mlm:hyperparameters.precision"},
            said="precision",
        ),
        Fact("preprocessing", _footer("emb:preprocessing"), {ITEMS: "emb:preprocessing"}),
        Fact("quantization", _footer("emb:quantization"), {ITEMS: "emb:quantization"}),
        *(
            Fact(f"{key} of the bands", _of_bands(field), {MODEL: f"{_SCALING}.{key}"})
            for key, field in _Z_SCORE.items()
        ),
        Fact("columns", _columns, {COLLECTION: "table:columns.*.name"}),
        Fact("sensor", _fingerprint("sensor"), {}, said="sensor"),
    ),
    "DOC009": (
        Fact("license", _spec("license"), {COLLECTION: "license!", CITATION: "license"}, said="license"),
        # The Hub knows a list of identifiers in lower case; others are `other`, and named beside.
        Fact("license", _spec("license"), {CARD: "license!"}, plain=_lower, unstated=("other",)),
        Fact("license", _spec("license"), {CARD: "license_name"}, plain=_lower),
    ),
    "DOC010": (
        Fact("version", _spec("version"), _VERSIONS, plain=str, in_card=lambda version: {version}, said="version"),
    ),
    "DOC011": (
        Fact("number of chips", _rows, {COLLECTION: "embrel:coverage.embedded"}, in_card=_numbers, said="rows"),
        Fact("number of chips", _rows, {COLLECTION: "table:row_count"}, said="embedded"),
        Fact("number of expected chips", _expected, {COLLECTION: "embrel:coverage.expected"}, said="expected"),
        Fact("missing chips", _missing, {COLLECTION: "embrel:coverage.missing"}),
        *(
            Fact(f"number of chips missing as {reason}", _count(reason), {}, said=f"missing.{reason}")
            for reason in REASONS
        ),
        Fact("number of chips not cloud-checked", _unchecked, _UNCHECKED, in_card=_numbers),
    ),
    "DOC012": (
        Fact("model", _fingerprint("model_name"), _MODELS, plain=_letters, said="model"),
        Fact("link", _fingerprint("model_link"), {CARD: "model_link"}),
        Fact("model", _fingerprint("model_name"), {MODEL: "properties.mlm:name!"}, plain=_letters),
        Fact("encoder", _fingerprint("encoder"), {MODEL: "properties.mlm:hyperparameters.encoder"}),
        Fact("weights", _fingerprint("weights_sha256"), _WEIGHTS, said="weights"),
        Fact("parameters", _footer("emb:runtime_parameters"), {ITEMS: "emb:runtime_parameters"}),
    ),
    "DOC013": (
        Fact("name", _spec("name"), {MANIFEST: "name", COLLECTION: "id", ITEMS: "collection", CROISSANT: "name!"}),
        Fact("name", _spec("name"), {JSON_LD: "alternateName"}),
        Fact("title", _title, _TITLES, plain=_words, said="title"),
        Fact("creators", _creators, _CREATORS, plain=_words),
        Fact("creators", _creators, {CARD: "creator!"}, plain=_words),
        Fact("providers", _providers, {COLLECTION: "providers.*.name"}, plain=_words),
        Fact("DOI", _doi, {COLLECTION: "sci:doi", CARD: "doi", CITATION: "doi", DATACITE: "doi"}),
        Fact("name", _spec("name"), {MODEL: "collection"}),
    ),
    "TIM007": (
        *(Fact(f"{side} of the period", _edge(side), stated, plain=_second) for side, stated in _PERIODS.items()),
        *(Fact(f"{side} of the period", _day(side), {}, said=side) for side in _PERIODS),
    ),
    "PRV005": (
        Fact("sensor", _fingerprint("sensor"), {SPEC: "sensor"}),
        Fact("layout", _fingerprint("layout"), {SPEC: "chips.layout"}),
        Fact("chip size", _fingerprint("size"), {SPEC: "chips.size"}),
        Fact("encoder", _fingerprint("encoder"), {SPEC: "model.encoder"}),
        Fact("dtype", _fingerprint("dtype"), {SPEC: "outputs.dtype"}),
        Fact("precision", _fingerprint("precision"), {SPEC: "model.precision"}, unstated=("auto",)),
        Fact("metadata", _metadata, {SPEC: "model.metadata"}),
    ),
}

for _code, _facts in AGREEMENTS.items():
    register(Rule(_code, partial(_disagreements, _facts)))
