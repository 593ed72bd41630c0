"""Rules on facts that several documents state: all have to agree. They are data: facts, and where they are stated."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from clay_publish.release.directory import CARD, CITATION, COLLECTION, ITEMS, MANIFEST, MODEL, SPEC
from clay_publish.release.tables import without_cloud_fraction
from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.data.documents import Documents
from clay_publish.validate.outcomes import Fault, Outcome
from clay_publish.validate.registry import Rule, register

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


_DOCUMENTS: dict[str, Callable[[Documents], Any]] = {
    COLLECTION: lambda documents: documents.collection,
    CARD: lambda documents: documents.front_matter,
    CITATION: lambda documents: documents.citation,
    MANIFEST: lambda documents: documents.manifest,
    MODEL: lambda documents: documents.model.get("properties"),
    SPEC: lambda documents: documents.spec,
}


def _stated(documents: Documents, document: str, key: str) -> Any:
    """What a document says, None where it says nothing."""
    if document == ITEMS:
        return _shared(documents.items, key)
    value = _DOCUMENTS[document](documents)
    for part in [key] if isinstance(value, dict) and key in value else key.split("."):
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
        if truth is None:
            continue
        for document, key in fact.stated.items():
            value = _stated(context.documents, document, key.removesuffix("!"))
            if value is None and key.endswith("!"):
                value = _MISSING
            if value is None or value in fact.unstated or _same(fact, value, truth):
                continue
            yield Fault(f"{document}: {key.removesuffix('!')}", f"{fact.name} {_short(value)}", _short(truth))
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


def _words(value: Any) -> list[str]:
    return str(value).split()


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


def _rows(context: ReleaseContext) -> int:
    return context.tables.rows


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
_DIMENSIONS = {COLLECTION: "emb:dimensions!", CARD: "embedding_dimension", MANIFEST: "run.fingerprint.dimensions"}
_VERSIONS = {MANIFEST: "version", COLLECTION: "version!", CARD: "version", CITATION: "version!"}
_FINGERPRINTS = {COLLECTION: "embrel:fingerprint!", ITEMS: "embrel:fingerprint"}
_WEIGHTS = {ITEMS: "emb:runtime_parameters.weights_sha256"}

AGREEMENTS: dict[str, tuple[Fact, ...]] = {
    "DOC007": (Fact("dimension", _fingerprint("dimensions"), _DIMENSIONS),),
    "DOC008": (
        *(Fact(key, _footer(key), {COLLECTION: f"{key}!"}) for key in ("emb:type", "data_type", "emb:chip_layout")),
        Fact("gsd", _footer("gsd"), {COLLECTION: "gsd!", ITEMS: "gsd"}),
        Fact("fingerprint", _fingerprint("digest"), _FINGERPRINTS),
    ),
    "DOC009": (
        Fact("license", _spec("license"), {COLLECTION: "license!", CITATION: "license"}),
        # The Hub knows a list of identifiers in lower case; others are `other`, and named beside.
        Fact("license", _spec("license"), {CARD: "license!"}, plain=_lower, unstated=("other",)),
    ),
    "DOC010": (Fact("version", _spec("version"), _VERSIONS, plain=str, in_card=lambda version: {version}),),
    "DOC011": (
        Fact("number of chips", _rows, {COLLECTION: "embrel:coverage.embedded"}, in_card=_numbers),
        Fact("number of chips", _rows, {COLLECTION: "table:row_count"}),
        Fact("number of expected chips", _expected, {COLLECTION: "embrel:coverage.expected"}),
        Fact("number of chips not cloud-checked", _unchecked, _UNCHECKED, in_card=_numbers),
    ),
    "DOC012": (
        Fact("model", _fingerprint("model_name"), {CARD: "model_name"}),
        Fact("link", _fingerprint("model_link"), {CARD: "model_link"}),
        Fact("model", _fingerprint("model_name"), {MODEL: "mlm:name!"}, plain=_letters),
        Fact("weights", _fingerprint("weights_sha256"), _WEIGHTS),
    ),
    "DOC013": (
        Fact("name", _spec("name"), {MANIFEST: "name", COLLECTION: "id", ITEMS: "collection"}),
        Fact("title", _title, {CITATION: "title!"}, plain=_words),
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
