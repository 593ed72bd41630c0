"""The JSON Schemas of STAC core and of the extensions a release declares, without trusting the release.

Core comes with pystac, the extensions that releases declare with this package (`schemas/`). Another extension's schema
comes from the folder that CLAY_PUBLISH_SCHEMAS names, from the cache of this machine, or, once, from the extension's
own address; with CLAY_PUBLISH_SCHEMAS set, nothing is ever fetched.
"""

import json
import os
import urllib.parse
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
from jsonschema.protocols import Validator
from pystac.validation.local_validator import get_local_schema_cache
from referencing import Registry, Resource
from referencing.exceptions import NoSuchResource, Unresolvable

from clay_publish.errors import AccessError, ReleaseError, StoreError
from clay_publish.release.metadata import SCHEMA_URI, schema
from clay_publish.storage.http import HttpClient
from clay_publish.storage.range_cache import user_cache
from clay_publish.storage.retry import RetryPolicy

FOLDER = "CLAY_PUBLISH_SCHEMAS"
"""Environment variable: a folder of JSON Schemas to use instead of the network."""

EMBEDDINGS = "https://stac-extensions.github.io/embeddings/v0.0.1/schema.json"
"""The community's Embedding extension."""

_FIX = f"Put it into the folder that {FOLDER} names."
_HOSTS = {"stac-extensions.github.io", "schemas.stacspec.org", "proj.org"}
"""Where schemas are fetched from. A release may name any address; it is not asked."""
_MAX_BYTES = 2_000_000
_CORE = "https://schemas.stacspec.org/v{version}/{kind}-spec/json-schema/{kind}.json"


@cache
def known() -> dict[str, dict[str, Any]]:
    """Return the schemas that lie on this machine, by address."""
    found = {uri.rstrip("#"): document for uri, document in get_local_schema_cache().items()}
    found[SCHEMA_URI] = schema()
    for folder in (os.environ.get(FOLDER), Path(__file__).parent / "schemas", _cache_folder()):
        for file in sorted(Path(folder).glob("*.json")) if folder else []:
            document = json.loads(file.read_text(encoding="utf-8"))
            if isinstance(document.get("$id"), str):
                found.setdefault(document["$id"].rstrip("#"), document)
    # mlm 1.5 refers to a definition that no published schema of raster 1.1.0 has: the names of data types.
    if _RASTER in found:
        kinds = {"items": {"properties": {"data_type": {"type": "string", "enum": _DATA_TYPES}}}}
        found[_RASTER] = {**found[_RASTER], "definitions": {"bands": kinds, **found[_RASTER].get("definitions", {})}}
    return found


_RASTER = "https://stac-extensions.github.io/raster/v1.1.0/schema.json"
_DATA_TYPES = [
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"),
    *("cint16", "cint32", "cfloat32", "cfloat64", "other"),
]


def _cache_folder() -> Path | None:
    folder = user_cache()
    return None if folder is None else folder / "schemas"


@cache
def fetched_schema(uri: str) -> dict[str, Any]:
    """Fetch a schema, once, and keep it.

    Raises:
        ReleaseError: not available.
    """
    parts = urllib.parse.urlsplit(uri)
    if os.environ.get(FOLDER) or parts.scheme != "https" or parts.hostname not in _HOSTS:
        raise ReleaseError(uri, "is not among the schemas of this machine", fix=_FIX)
    try:
        document: dict[str, Any] = json.loads(HttpClient(policy=RetryPolicy(attempts=1)).read(uri, _MAX_BYTES))
    except (StoreError, AccessError, ValueError) as error:
        raise ReleaseError(uri, f"cannot be fetched ({error})", fix=_FIX) from error
    folder = _cache_folder()
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{urllib.parse.quote(uri, safe='')}.json").write_text(json.dumps(document), encoding="utf-8")
    return document


fetch: Callable[[str], dict[str, Any]] = fetched_schema
"""A process without a network asks another one."""


def schema_of(uri: str) -> dict[str, Any]:
    """The schema at an address.

    Raises:
        ReleaseError: not available.
    """
    plain = uri.rstrip("#")
    return known()[plain] if plain in known() else fetch(plain)


def core_schema(kind: str, version: str) -> dict[str, Any]:
    """Schema of a STAC `item` or `collection`.

    Raises:
        ReleaseError: not of a version that is here.
    """
    return schema_of(_CORE.format(version=version, kind=kind))


def violations(document: dict[str, Any], schema: dict[str, Any]) -> list[str]:
    """What a schema has to say about a document: `place: message`.

    Raises:
        ReleaseError: the schema refers to one that is not available.
    """
    kind: type[Validator] = jsonschema.validators.validator_for(schema)
    validator = kind(schema, registry=_registry())
    try:
        errors = list(validator.iter_errors(document))
    except Unresolvable as error:
        raise ReleaseError(str(schema.get("$id")), f"refers to a schema that is not available ({error})") from error
    best = sorted(errors, key=jsonschema.exceptions.relevance, reverse=True)
    return [_message(error) for error in best]


def _message(error: jsonschema.ValidationError) -> str:
    deepest = error
    while deepest.context:
        deepest = jsonschema.exceptions.best_match(deepest.context)
    place = ".".join(str(part) for part in deepest.absolute_path)
    return f"{place or 'document'}: {deepest.message[:200]}"


@cache
def _registry() -> Any:
    """All schemas that are known, read once; others are fetched when a schema refers to them."""

    def retrieve(uri: str) -> Any:
        try:
            return Resource.from_contents(schema_of(uri))
        except ReleaseError as error:
            raise NoSuchResource(uri) from error

    resources = [(uri, Resource.from_contents(document)) for uri, document in known().items()]
    return Registry(retrieve=retrieve).with_resources(resources).crawl()  # type: ignore[call-arg]
