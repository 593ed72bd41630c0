"""The files a Collection lists beside its items, with their sizes and checksums."""

from typing import Any

from clay_publish import release as paths
from clay_publish.catalog.extension import SCHEMA_FILE
from clay_publish.catalog.item_table import PARQUET
from clay_publish.manifest import sha256
from clay_publish.release import Release

# Search services take every asset of exactly the type `PARQUET` for a table of items.
_COVERAGE = f'{PARQUET}; profile="coverage"'
_SOURCES = f'{PARQUET}; profile="sources"'
_REFERENCE = f'{PARQUET}; profile="reference"'
_GEOJSON = "application/geo+json"
_SHA256 = "1220"
"""Multihash prefix: SHA-256, 32 bytes."""

_SINGLE = (
    ("items", paths.ITEMS, PARQUET, "Items (stac-geoparquet)", ["collection-mirror"]),
    ("sources", paths.SOURCES, _SOURCES, "Source items: used, unused, excluded and why", ["metadata"]),
    ("reference", paths.REFERENCE, _REFERENCE, "Some vectors before quantization", ["metadata"]),
    ("gaps", paths.GAPS, _GEOJSON, "Ground without embeddings, by reason", ["metadata"]),
    ("card", paths.CARD, "text/markdown", "Dataset card", ["metadata", "overview"]),
    ("citation", paths.CITATION, "application/yaml", "How to cite (CITATION.cff)", ["metadata"]),
    ("croissant", paths.CROISSANT, "application/ld+json", "Croissant metadata", ["metadata"]),
    ("datacite", paths.DATACITE, "application/json", "DataCite metadata", ["metadata"]),
    ("json-ld", paths.JSON_LD, "application/ld+json", "schema.org Dataset", ["metadata"]),
    ("changelog", paths.CHANGELOG, "text/markdown", "What changed since the version before", ["metadata"]),
    ("spec", paths.SPEC, "application/yaml", "The release's specification", ["metadata"]),
    ("schema", f"{paths.SCHEMAS}/{SCHEMA_FILE}", "application/schema+json", "Schema of `embrel:` fields", ["metadata"]),
    ("model", paths.MODEL, _GEOJSON, "The model (STAC Item)", ["metadata"]),
)
_THUMBNAILS = ("coverage.png", "embeddings.png")
"""Figures to show first, in order of preference."""


def document_assets(release: Release) -> dict[str, Any]:
    """Assets of the Collection, hrefs relative to it; what does not exist is left out."""
    assets: dict[str, Any] = {}
    for key, path, kind, title, roles in _SINGLE:
        if release.store.exists(path):
            assets[key] = _asset(release, path, kind, title, roles)
    for path in release.data_files(paths.COVERAGE):
        zone = path.rpartition("/")[2].removesuffix(".parquet").removeprefix("zone=")
        title = f"Expected chips of UTM zone {zone}, embedded or why not"
        assets[f"coverage-{zone}"] = _asset(release, path, _COVERAGE, title, ["metadata"])
    assets |= _figures(release)
    # It holds the Collection's own checksum and comes last.
    manifest = {"href": f"./{paths.MANIFEST}", "type": "application/json", "title": "Every file with its SHA-256"}
    assets["manifest"] = {**manifest, "roles": ["metadata"]}
    return assets


def _figures(release: Release) -> dict[str, Any]:
    pictures = [path for path in release.store.files(paths.FIGURES) if path.endswith(".png")]
    names = {path.rpartition("/")[2]: path for path in pictures}
    first = next((names[name] for name in _THUMBNAILS if name in names), pictures[0] if pictures else None)
    assets = {}
    for name, path in names.items():
        key = "thumbnail" if path == first else f"figure-{name.removesuffix('.png')}"
        roles = ["thumbnail"] if path == first else ["overview"]
        title = name.removesuffix(".png").replace("_", " ").replace("-", " ").capitalize()
        assets[key] = _asset(release, path, "image/png", title, roles)
    return assets


def _asset(release: Release, path: str, kind: str, title: str, roles: list[str]) -> dict[str, Any]:
    return {
        "href": f"./{path}",
        "type": kind,
        "title": title,
        "roles": roles,
        "file:size": release.store.size(path),
        "file:checksum": _SHA256 + sha256(release.store, path),
    }
