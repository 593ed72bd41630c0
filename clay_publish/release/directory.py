"""The release directory: the interface between the stages, every path in it, and the media types of its files."""

import mimetypes
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ValidationError

from clay_publish.errors import ReleaseError, StoreError, first_fault
from clay_publish.geo.utm_zones import Square
from clay_publish.release.fingerprint import Fingerprint
from clay_publish.spec.models import Spec
from clay_publish.storage.address import readable
from clay_publish.storage.http import Head
from clay_publish.storage.safe_parse import parse_json, parse_yaml
from clay_publish.storage.store import Store, is_safe
from clay_publish.windows import Window, parse_token

SPEC = "release.yaml"
SOURCES = "sources.parquet"
EMBEDDINGS = "embeddings"
PATCHES = "patches"
AGGREGATES = "aggregates"
ARRAYS = "arrays"
CODES = "codes"
CODES_MODEL = "codes/model.json"
REFERENCE = "reference.parquet"
COVERAGE = "coverage"
GAPS = "gaps.geojson"
ITEMS = "items.parquet"
JSON_ITEMS = "items"
FIGURES = "figures"
EXPLORER = "explore"
CARD = "README.md"
AGENTS = "AGENTS.md"
CITATION = "CITATION.cff"
LICENSE = "LICENSE"
CHANGELOG = "CHANGELOG.md"
CROISSANT = "croissant.json"
DATACITE = "datacite.json"
JSON_LD = "dataset.jsonld"
HOST_CARD = "hosts/source.coop/README.md"
SCHEMAS = "schemas"
MODEL = "model.json"
COLLECTION = "collection.json"
BENCHMARKS = "benchmarks.json"
MEASUREMENTS = "run.json"
MANIFEST = "manifest.json"
SHA256SUMS = "SHA256SUMS"
RUN = ".run"
"""Never published: plan, parts, receipts, journals, lock."""
PUBLISHED = ".run/published.json"
"""Where the release was published from here."""

MAX_JSON_ITEMS = 1_000
"""Items up to which each is a JSON file too by default."""

FOOTER_KEYS = ("geo", "emb", "huggingface")
"""What the footer of an embeddings file says in JSON."""

MAX_DOCUMENT = 32_000_000
"""Bytes of the largest JSON or YAML document a release may have."""

_ZONE = re.compile(r"zone=(\d{2})")


@dataclass(frozen=True, order=True)
class DataFile:
    """Which chips a file of a partitioned table holds: one 100 km square and one window."""

    square: Square
    window: Window

    @property
    def name(self) -> str:
        """Path below the table's folder: `zone=18/18_04_41_2023-01-01_2023-02-01.parquet`."""
        return f"zone={self.square.zone:02d}/{self.token}.parquet"

    @property
    def token(self) -> str:
        """File name without ending; also the id of the file's STAC Item."""
        return f"{self.square.token}_{self.window.token}"

    @classmethod
    def parse(cls, path: str) -> "DataFile":
        """Read a path that ends as `name` writes it.

        Raises:
            ReleaseError: the path names no square and window.
        """
        try:
            zone, file = path.split("/")[-2:]
            parts = file.removesuffix(".parquet").split("_", maxsplit=3)
            made = cls(Square.parse("_".join(parts[:3])), parse_token(parts[3]))
        except (ValueError, IndexError) as error:
            raise ReleaseError(path, "names no square and window", "zone=ZZ/ZZ_EE_NN_START_END.parquet") from error
        if _ZONE.fullmatch(zone) is None or zone != f"zone={made.square.zone:02d}":
            raise ReleaseError(path, f"lies in folder {zone}", f"zone={made.square.zone:02d}")
        return made


_Model = TypeVar("_Model", bound=BaseModel)


def checked(model: type[_Model], document: bytes | Mapping[str, Any], where: str, what: str, fix: str = "") -> _Model:
    """What a document says; bytes are JSON.

    Raises:
        ReleaseError: it is not `what`; names the first field that is wrong.
    """
    try:
        return model.model_validate_json(document) if isinstance(document, bytes) else model.model_validate(document)
    except ValidationError as error:
        raise ReleaseError(where, f"is not {what} ({first_fault(error)})", fix=fix) from error


class Release:
    """A release at some place. Every stage reads it and adds to it through `store`."""

    def __init__(self, where: str | Store) -> None:
        self.store = where if isinstance(where, Store) else Store(readable(where))

    def __repr__(self) -> str:
        return f"Release({self.store.where!r})"

    def spec(self) -> Spec:
        """The published spec.

        Raises:
            ReleaseError: there is none, or it cannot be read.
        """
        return checked(Spec, self.yaml(SPEC), self.store.path(SPEC), "a release spec")

    def json(self, path: str) -> dict[str, Any]:
        """A JSON document.

        Raises:
            ReleaseError: missing, not JSON, or not an object.
        """
        return self._document(path, parse_json)

    def yaml(self, path: str) -> dict[str, Any]:
        """A YAML document.

        Raises:
            ReleaseError: missing, not YAML, or not a mapping.
        """
        return self._document(path, parse_yaml)

    def _document(self, path: str, parse: Callable[[bytes, str], Any]) -> dict[str, Any]:
        try:
            document = parse(self.store.read(path, MAX_DOCUMENT), self.store.path(path))
        except StoreError as error:
            raise ReleaseError(error.where, error.found, error.expected, error.fix) from error
        if not isinstance(document, dict):
            raise ReleaseError(self.store.path(path), f"holds {type(document).__name__}", "an object")
        return document

    def files(self, folder: str = "") -> list[str]:
        """Every file below a folder, sorted; as the manifest names them where the place cannot list."""
        found = self.store.files(folder)
        if found or self.store.local or not self.store.exists(MANIFEST):
            return found
        entries = self.json(MANIFEST).get("files")
        entries = [e for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []
        named = {str(e.get("path")) for e in entries} | {MANIFEST, SHA256SUMS}
        return sorted(path for path in named if is_safe(path) and (not folder or path.startswith(f"{folder}/")))

    def data_files(self, table: str = EMBEDDINGS) -> list[str]:
        """Paths of a partitioned table's files, sorted."""
        return [path for path in self.files(table) if path.endswith(".parquet")]

    def published_files(self) -> list[str]:
        """Every file that is published, but the manifest and the checksums."""
        hidden = (MANIFEST, SHA256SUMS)
        return [p for p in self.files() if p not in hidden and not p.startswith(f"{RUN}/")]

    def parquet(self, path: str, *, verify: bool = False) -> pq.ParquetFile:
        """Open a Parquet file; with `verify`, page checksums are compared while reading.

        Raises:
            ReleaseError: missing, or not a readable Parquet file.
        """
        try:
            return self._opened(path, verify=verify)
        except StoreError as error:
            raise ReleaseError(error.where, error.found, error.expected, error.fix) from error
        except (pa.ArrowException, OSError) as error:
            raise ReleaseError(self.store.path(path), f"is not a readable Parquet file ({error})") from error

    def _opened(self, path: str, *, verify: bool) -> pq.ParquetFile:
        # Elsewhere the ranges of a read are asked for at once instead of column by column.
        options = {"page_checksum_verification": verify, "pre_buffer": not self.store.local}
        return pq.ParquetFile(self.store.arrow(path), **options)

    def head(self, path: str) -> Head:
        """Size of a file, and the tag that its ranges must have where the release is one on a server.

        Raises:
            StoreError: missing, or its server does not state its size.
        """
        return Head(self.store.size(path), None)

    def footer(self, path: str) -> dict[str, Any]:
        """The JSON values of a Parquet file's footer keys (`geo`, `emb`, `huggingface`).

        Raises:
            ReleaseError: unreadable, or a key that holds no JSON.
        """
        return footer_keys(self.parquet(path).schema_arrow, self.store.path(path))

    def fingerprint(self) -> Fingerprint:
        """What decided the vectors, from the footer of the first embeddings file.

        Raises:
            ReleaseError: there is no embeddings file, or its footer does not say.
        """
        files = self.data_files()
        if not files:
            raise ReleaseError(self.store.where, "has no embeddings", fix="Run `clay-publish produce` first.")
        return fingerprint_in(self.footer(files[0]), self.store.path(files[0]))


def fingerprint_in(footer: Mapping[str, Any], where: str) -> Fingerprint:
    """What decided the vectors of a file, from its footer keys.

    Raises:
        ReleaseError: they do not say.
    """
    emb = footer.get("emb")
    stated = emb.get("embrel:decided_by") if isinstance(emb, dict) else None
    if stated is None:
        raise ReleaseError(where, "has no fingerprint in its footer", "a file written by clay-publish")
    try:
        return Fingerprint.model_validate(stated)
    except ValidationError as error:
        found = f"has no complete fingerprint in its footer ({first_fault(error)})"
        raise ReleaseError(where, found, "a file written by clay-publish") from error


def footer_keys(schema: pa.Schema, where: str) -> dict[str, Any]:
    """The JSON values of a table's footer keys.

    Raises:
        ReleaseError: a key that holds no JSON.
    """
    metadata = schema.metadata or {}
    return {
        key: parse_json(metadata[key.encode()], f"{where}: footer key {key}")
        for key in FOOTER_KEYS
        if key.encode() in metadata
    }


_TYPES = {
    ".parquet": "application/vnd.apache.parquet",
    ".pmtiles": "application/vnd.pmtiles",
    ".geojson": "application/geo+json",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".md": "text/markdown; charset=utf-8",
    ".cff": "text/yaml; charset=utf-8",
    ".yaml": "text/yaml; charset=utf-8",
    ".bin": "application/octet-stream",
}


def content_type(path: str) -> str:
    """Return the media type of a file by the ending of its name; text for names without a known one."""
    name = path.rpartition("/")[2]
    if ".zarr/" in path and "." not in name:
        return "application/octet-stream"  # a shard, whose name is a number
    ending = name[name.rfind(".") :] if "." in name else ""
    return _TYPES.get(ending) or mimetypes.guess_type(path)[0] or "text/plain; charset=utf-8"
