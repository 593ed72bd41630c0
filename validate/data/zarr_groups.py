"""The groups and arrays of a Zarr store, from its metadata documents; those of version 2 are brought to version 3."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from clay_publish.errors import ReleaseError
from clay_publish.release.array_store import STORE
from clay_publish.validate.data.documents import Documents
from clay_publish.validate.data.files import ReleaseFiles

DOCUMENT = "zarr.json"
GROUP_2, ARRAY_2, ATTRIBUTES_2 = ".zgroup", ".zarray", ".zattrs"
"""Documents of version 2."""
STORES = frozenset({DOCUMENT, GROUP_2})
"""Documents at the root of a store."""
_PLAIN = frozenset({"blosc", "bz2", "gzip", "lz4", "zlib", "zstd"})
"""Codecs of version 2 that are run: others, such as pickle, may run what the file says."""
MAX_CHUNK = 64 << 20
"""Bytes of a chunk that is decoded."""
_WIDTHS = {"int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "float16": 2, "int32": 4, "uint32": 4, "float32": 4}


@dataclass(frozen=True)
class ArrayDocument:
    """The metadata of an array."""

    path: str
    """Of the array, below the release."""
    document: Mapping[str, Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array; empty where it is not stated."""
        return _integers(self.document.get("shape"))

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the dimensions."""
        stated = self.document.get("dimension_names")
        return tuple(str(name) for name in stated) if isinstance(stated, list) else ()

    @property
    def dtype(self) -> str:
        """Type of its numbers."""
        return str(self.document.get("data_type"))

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Attributes."""
        stated = self.document.get("attributes")
        return stated if isinstance(stated, dict) else {}

    @property
    def shard(self) -> tuple[int, ...]:
        """Shape of what one file holds."""
        grid = self.document.get("chunk_grid")
        settings = grid.get("configuration") if isinstance(grid, dict) else None
        return _integers(settings.get("chunk_shape")) if isinstance(settings, dict) else ()

    @property
    def chunk(self) -> tuple[int, ...]:
        """Shape of what is decoded at once."""
        codecs = self.document.get("codecs")
        first = codecs[0] if isinstance(codecs, list) and codecs and isinstance(codecs[0], dict) else {}
        settings = first.get("configuration") if first.get("name") == "sharding_indexed" else None
        return _integers(settings.get("chunk_shape")) if isinstance(settings, dict) else self.shard

    @property
    def strange_codecs(self) -> list[str]:
        """Filters and compressors of version 2 that are not run."""
        if self.document.get("zarr_format") != 2:
            return []
        named = [each.get("name") for each in self.document["codecs"]]
        return [str(name) for name in named if name not in _PLAIN]

    def chunk_of(self, path: str) -> list[int] | None:
        """Place of the shard or chunk that a file holds; None for other files."""
        encoding = self.document.get("chunk_key_encoding")
        given: Mapping[str, Any] = encoding if isinstance(encoding, dict) else {}
        settings = given.get("configuration") if isinstance(given.get("configuration"), dict) else {}
        is_old = given.get("name") == "v2"
        separator = re.escape(str((settings or {}).get("separator", "." if is_old else "/")))
        start = f"{self.path}/".lstrip("/") + ("" if is_old else f"c{'/' if separator == '/' else '.'}")
        key = path.removeprefix(start)
        if not path.startswith(start) or re.fullmatch(rf"\d+({separator}\d+)*", key) is None:
            return None
        place = [int(number) for number in re.split(r"\D+", key)]
        return place if len(place) == len(self.shape) else None

    @property
    def chunk_bytes(self) -> int:
        """Of a chunk before compression; types that are not known count 8 bytes a number."""
        return math.prod(self.chunk) * _WIDTHS.get(self.dtype, 8)

    def middle(self, shard: list[int]) -> tuple[slice, ...]:
        """A part of a shard that can be decoded: all of it, or of a large one the chunk in its middle."""
        large = math.prod(self.shard) * _WIDTHS.get(self.dtype, 8) > MAX_CHUNK
        found = []
        for number, side, chunk, size in zip(shard, self.shard, self.chunk, self.shape, strict=True):
            start = number * side + (side // chunk // 2 * chunk if large else 0)
            found.append(slice(start, min(start + (chunk if large else side), size)))
        return tuple(found)


def _integers(stated: Any) -> tuple[int, ...]:
    if not isinstance(stated, list) or not all(isinstance(n, int) and n >= 0 for n in stated):
        return ()
    return tuple(stated)


@dataclass(frozen=True)
class GroupDocument:
    """The metadata of a group, and of the arrays in it."""

    path: str
    """Of the group, below the release; empty: the release is the store."""
    document: Mapping[str, Any]
    stated: Mapping[str, Any] = field(default_factory=dict)
    """Attributes, with those of the groups above where it has none of the name."""
    arrays: dict[str, ArrayDocument] = field(default_factory=dict)

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Attributes."""
        stated = self.document.get("attributes")
        return stated if isinstance(stated, dict) else {}

    @property
    def where(self) -> str:
        """Its document."""
        name = ATTRIBUTES_2 if self.document.get("zarr_format") == 2 else DOCUMENT
        return f"{self.path}/{name}".lstrip("/")

    def vectors(self) -> ArrayDocument | None:
        """The array that holds the embeddings: the one with a dimension as long as `geoemb:dimensions`, and y and x."""
        length = self.stated.get("geoemb:dimensions")
        found = [a for a in self.arrays.values() if len(a.shape) >= 3 and length in a.shape]
        named = [a for a in found if a.path.rpartition("/")[2] in {"embeddings", "embedding"}]
        return next(iter(named or found), None)


class ZarrGroups:
    """The store of a release, or a release that is a store itself."""

    def __init__(self, files: ReleaseFiles, documents: Documents) -> None:
        self.folder = "" if STORES & set(files.paths) else STORE
        self.documents = _documents(files, documents, self.folder)
        """Path of the group or array below the release → its metadata."""
        self.groups: dict[str, GroupDocument] = {}
        """By path below the store; the store itself is an empty text."""
        for path, document in sorted(self.documents.items()):
            if document.get("node_type") == "group":
                below = path.removeprefix(self.folder).lstrip("/")
                made = GroupDocument(path, document)
                above = [group for name, group in self.groups.items() if below.startswith(f"{name}/") or not name]
                stated = {key: value for group in above for key, value in group.attributes.items()}
                self.groups[below] = replace(made, stated=stated | dict(made.attributes))
        for path, document in sorted(self.documents.items()):
            if document.get("node_type") == "array":
                owner, _, name = path.removeprefix(self.folder).lstrip("/").rpartition("/")
                if owner in self.groups:
                    self.groups[owner].arrays[name] = ArrayDocument(path, document)

    @property
    def root(self) -> GroupDocument:
        """The store.

        Raises:
            ReleaseError: it is not a group.
        """
        if "" not in self.groups:
            raise ReleaseError(f"{self.folder}/{DOCUMENT}".lstrip("/"), "is not the metadata of a Zarr group")
        return self.groups[""]


def _documents(files: ReleaseFiles, documents: Documents, folder: str) -> dict[str, dict[str, Any]]:
    if DOCUMENT not in files.paths and GROUP_2 in files.paths:
        return _of_version_2(files, documents)
    start = f"{folder}/" if folder else ""
    named = [path for path in files.paths if path.startswith(start) and path.rpartition("/")[2] == DOCUMENT]
    found = {path.removesuffix(DOCUMENT).rstrip("/"): documents.json(path) for path in named}
    if list(found) == [folder]:  # a web server, which cannot list
        consolidated = found[folder].get("consolidated_metadata")
        members = consolidated.get("metadata") if isinstance(consolidated, dict) else None
        for path, document in members.items() if isinstance(members, dict) else ():
            if isinstance(document, dict):
                found[f"{start}{path}"] = document
    return found


def _of_version_2(files: ReleaseFiles, documents: Documents) -> dict[str, dict[str, Any]]:
    found = {}
    for path in files.paths:
        folder, _, name = path.rpartition("/")
        if name in {GROUP_2, ARRAY_2}:
            beside = f"{folder}/{ATTRIBUTES_2}".lstrip("/")
            attributes = documents.json(beside) if beside in files.paths else {}
            document = documents.json(path)
            found[folder] = _as_version_3(document, attributes) if name == ARRAY_2 else {"node_type": "group"}
            found[folder] |= {"attributes": attributes, "zarr_format": 2}
    return found


def _as_version_3(document: Mapping[str, Any], attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of an array of version 2, as those of version 3 have them."""
    stated, filters = document.get("dtype"), document.get("filters")
    found = re.fullmatch(r"[<>|]([iuf])(\d)", stated) if isinstance(stated, str) else None
    kinds = {"i": "int", "u": "uint", "f": "float"}
    codecs = [*(filters if isinstance(filters, list) else []), document.get("compressor")]
    separator = {"separator": document.get("dimension_separator", ".")}
    return {
        "node_type": "array",
        "shape": document.get("shape"),
        "dimension_names": attributes.get("_ARRAY_DIMENSIONS"),  # as xarray writes them
        "data_type": str(stated) if found is None else f"{kinds[found[1]]}{8 * int(found[2])}",
        "chunk_grid": {"configuration": {"chunk_shape": document.get("chunks")}},
        "chunk_key_encoding": {"name": "v2", "configuration": separator},
        "codecs": [{"name": each.get("id")} if isinstance(each, dict) else {} for each in codecs if each is not None],
    }
