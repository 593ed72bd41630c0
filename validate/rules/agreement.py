"""Rules on facts that stand in several documents: all have to say the same."""

import json
import re
from collections.abc import Iterator
from typing import Any

from clay_publish.release.directory import CARD, CITATION, COLLECTION, ITEMS, MANIFEST, MODEL
from clay_publish.release.findings import Severity
from clay_publish.validate.context import View
from clay_publish.validate.registry import Fault, Outcome, rule

_ERROR = Severity.ERROR


def _agree(name: str, truth: Any, told: dict[str, Any]) -> Iterator[Outcome]:
    for where, value in told.items():
        if value is not None and value != truth:
            yield Fault(where, f"{name} {value!r}", f"{truth!r}")


def _item_field(view: View, name: str) -> Any:
    """The value that all items share; None where there is no such column."""
    if name not in view.items.column_names:
        return None
    values = {json.dumps(v, sort_keys=True, default=str) for v in view.items.column(name).to_pylist()}
    return json.loads(values.pop()) if len(values) == 1 else sorted(values)


@rule(
    "DOC007",
    _ERROR,
    "All documents state the dimension of the vectors",
    reason="A reader allocates, casts and indexes by it.",
    fix="Write card and catalog again; both take it from the files' footers.",
)
def dimension_agrees(view: View) -> Iterator[Outcome]:
    """Fingerprint, Collection, card, manifest."""
    yield from _agree(
        "dimension",
        view.fingerprint.dimensions,
        {
            f"{COLLECTION}: emb:dimensions": view.collection.get("emb:dimensions", "missing"),
            f"{CARD}: embedding_dimension": view.front_matter.get("embedding_dimension"),
            f"{MANIFEST}: run.fingerprint": view.manifest.run.fingerprint.dimensions,
        },
    )


@rule(
    "DOC008",
    _ERROR,
    "All documents state the type, layout and ground size of the vectors' chips",
    reason="A reader dequantizes, and matches ground, by them.",
    fix="Write card and catalog again; both take them from the files' footers.",
)
def layout_agrees(view: View) -> Iterator[Outcome]:
    """Footers against Collection and Items."""
    for path, footer in view.footers.items():
        emb = footer.get("emb", {})
        for key in ("emb:type", "data_type", "gsd", "emb:chip_layout"):
            if key in emb and emb[key] != view.collection.get(key):
                yield Fault(f"{COLLECTION}: {key}", repr(view.collection.get(key)), f"{emb[key]!r} as in {path}")
        for key in ("embrel:fingerprint", "gsd"):
            value = _item_field(view, key)
            if value is not None and key in emb and value != emb[key]:
                yield Fault(f"{ITEMS}: {key}", str(value)[:60], f"{str(emb[key])[:60]} as in {path}")
    told = view.collection.get("embrel:fingerprint")
    if told != view.fingerprint.digest:
        yield Fault(f"{COLLECTION}: embrel:fingerprint", f"{str(told)[:16]}…", f"{view.fingerprint.digest[:16]}…")


@rule(
    "DOC009",
    _ERROR,
    "All documents state the same licence",
    reason="Two licences are none: the careful reader leaves.",
    fix="Write card and catalog again; both take it from release.yaml.",
)
def licence_agrees(view: View) -> Iterator[Outcome]:
    """Spec, Collection, card, CITATION."""
    licence = view.spec.license
    yield from _agree("licence", licence, {f"{COLLECTION}: license": view.collection.get("license", "missing")})
    card = str(view.front_matter.get("license", "")).lower()
    # The Hub knows a list of identifiers in lower case; others are `other`, and named beside.
    if card not in {licence.lower(), "other"}:
        yield Fault(f"{CARD}: license", repr(card), licence.lower())
    cited = view.citation.get("license")
    if cited is not None and cited != licence:
        yield Fault(f"{CITATION}: license", repr(cited), licence)


@rule(
    "DOC010",
    _ERROR,
    "All documents state the same version",
    reason="A citation of another version points to other bytes.",
    fix="Write card, catalog and manifest again; all take it from release.yaml.",
)
def version_agrees(view: View) -> Iterator[Outcome]:
    """Spec, manifest, Collection, card, CITATION."""
    yield from _agree(
        "version",
        view.spec.version,
        {
            f"{MANIFEST}: version": view.manifest.version,
            f"{COLLECTION}: version": view.collection.get("version", "missing"),
            f"{CARD}: version": view.front_matter.get("version"),
            f"{CITATION}: version": str(view.citation.get("version", "missing")),
        },
    )
    if f"{view.spec.version}" not in view.card:
        yield Fault(CARD, "does not name its version", view.spec.version)


@rule(
    "DOC011",
    _ERROR,
    "All documents count the same chips",
    reason="The first number a reader sees is the one that gets quoted.",
    fix="Write card, catalog and manifest again, after the last change of the data.",
)
def counts_agree(view: View) -> Iterator[Outcome]:
    """Rows of the files against Collection, card, Items."""
    rows = view.rows_told
    coverage = view.collection.get("embrel:coverage") or {}
    yield from _agree("count", rows, {f"{COLLECTION}: embrel:coverage.embedded": coverage.get("embedded")})
    if "table:row_count" in view.collection:
        yield from _agree("count", rows, {f"{COLLECTION}: table:row_count": view.collection["table:row_count"]})
    told = [c for c in (coverage.get("expected"),) if c is not None]
    expected = view.manifest.run.coverage.get("expected")
    for count in told:
        if count != expected:
            yield Fault(f"{COLLECTION}: embrel:coverage.expected", f"{count:,}", f"{expected} as in the manifest")
    body = view.card.split("\n---", 2)[-1]
    if f"{rows:,}" not in body and str(rows) not in body:
        yield Fault(CARD, f"does not say that there are {rows:,} chips", "the number of rows")


@rule(
    "DOC012",
    _ERROR,
    "All documents name the same model",
    reason="Vectors of a model are used with vectors of the same model, or not at all.",
    fix="Write card and catalog again; both take it from the files' footers.",
)
def model_agrees(view: View) -> Iterator[Outcome]:
    """Fingerprint, card, model.json, Items."""
    made = view.fingerprint
    yield from _agree(
        "model",
        made.model_name,
        {f"{CARD}: model_name": view.front_matter.get("model_name")},
    )
    yield from _agree("link", made.model_link, {f"{CARD}: model_link": view.front_matter.get("model_link")})
    model = view.release.json(MODEL).get("properties") or {}
    if _letters(model.get("mlm:name")) != _letters(made.model_name):
        yield Fault(f"{MODEL}: mlm:name", repr(model.get("mlm:name")), repr(made.model_name))
    parameters = _item_field(view, "emb:runtime_parameters")
    if isinstance(parameters, dict) and parameters.get("weights_sha256") != made.weights_sha256:
        found = str(parameters.get("weights_sha256"))
        yield Fault(f"{ITEMS}: emb:runtime_parameters.weights_sha256", f"{found[:16]}…", str(made.weights_sha256))


def _letters(text: object) -> str:
    return re.sub(r"[^a-z0-9]", "", str(text).lower())


@rule(
    "DOC013",
    _ERROR,
    "All documents name the same release",
    reason="A card of another dataset is the mistake nobody looks for.",
    fix="Write card, catalog and manifest again; all take it from release.yaml.",
)
def name_agrees(view: View) -> Iterator[Outcome]:
    """Spec, manifest, Collection, Items, CITATION."""
    title = view.spec.title or view.spec.name
    told: dict[str, Any] = {
        f"{MANIFEST}: name": view.manifest.name,
        f"{COLLECTION}: id": view.collection.get("id"),
        f"{ITEMS}: collection": _item_field(view, "collection"),
    }
    yield from _agree("name", view.spec.name, told)
    if " ".join(str(view.citation.get("title")).split()) != " ".join(title.split()):
        yield Fault(f"{CITATION}: title", repr(view.citation.get("title")), repr(title))
