"""`collection.json`: the release as one STAC Collection, with the extension's schema and the model beside it."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from clay_publish import __version__
from clay_publish.catalog.item_table import (
    ARRAYS_TITLE,
    OPEN_KWARGS,
    PARQUET,
    STAC_VERSION,
    asset_key,
    table_title,
)
from clay_publish.catalog.model_item import model_item
from clay_publish.catalog.overview import Overview, rfc3339
from clay_publish.release import directory as paths
from clay_publish.release import metadata
from clay_publish.release.array_store import MEDIA_TYPE, STORE
from clay_publish.release.benchmarks import link_benchmarks
from clay_publish.release.directory import Release
from clay_publish.release.fingerprint import Fingerprint
from clay_publish.release.manifest import dump_json, run_record, sha256
from clay_publish.release.metadata import SCHEMA_FILE, SCHEMA_URI, schema_text
from clay_publish.release.public_urls import release_address
from clay_publish.release.tables import COLUMNS, without_cloud_fraction
from clay_publish.spec.models import Creator, Spec
from clay_publish.storage.address import HUB_DATASETS
from clay_publish.storage.store import is_url

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
    ("reference", paths.REFERENCE, _REFERENCE, "Vectors of some chips, computed a second time", ["metadata"]),
    ("benchmarks", paths.BENCHMARKS, "application/json", "How well the embeddings predict labels", ["metadata"]),
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
_ARRAYS = {"type": MEDIA_TYPE, "title": ARRAYS_TITLE, "roles": ["data"], "xarray:open_kwargs": OPEN_KWARGS}
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
    if release.store.exists(f"{STORE}/zarr.json"):
        assets["arrays"] = {"href": f"./{STORE}", **_ARRAYS}
    # Two runs of one release differ in this file alone: the Collection holds nothing of it.
    measured = {"href": f"./{paths.MEASUREMENTS}", "type": "application/json"}
    assets["run"] = {**measured, "title": "What was measured while it was made", "roles": ["metadata"]}
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


def table_columns(schema: pa.Schema) -> list[dict[str, str]]:
    """Name, meaning and type of each column.

    Source: STAC Table extension 1.2.0.
    """
    return [
        {"name": field.name, "description": COLUMNS.get(field.name, field.name), "type": _kind(field.type)}
        for field in schema
    ]


def _kind(kind: pa.DataType) -> str:
    if pa.types.is_fixed_size_list(kind):
        return f"fixed_size_list<{_kind(kind.value_type)}>[{kind.list_size}]"
    if pa.types.is_list(kind):
        return f"list<{_kind(kind.value_type)}>"
    if pa.types.is_struct(kind):
        return (
            "struct<"
            + ", ".join(f"{kind.field(i).name}: {_kind(kind.field(i).type)}" for i in range(kind.num_fields))
            + ">"
        )
    return _SHORT.get(str(kind), str(kind))


_SHORT = {"halffloat": "float16", "float": "float32", "double": "float64"}


_EXTENSIONS = [
    SCHEMA_URI,
    *(
        f"https://stac-extensions.github.io/{name}/schema.json"
        for name in (
            "processing/v1.2.0",
            "projection/v2.0.0",
            "scientific/v1.0.0",
            "version/v1.2.0",
            "table/v1.2.0",
            "file/v2.1.0",
        )
    ),
]
_WEB_MAP_LINKS = "https://stac-extensions.github.io/web-map-links/v1.2.0/schema.json"
_XARRAY = "https://stac-extensions.github.io/xarray-assets/v1.0.0/schema.json"
_KEYWORDS = ["embeddings", "geospatial", "Earth observation", "foundation model"]


def write_collection(release: Release) -> None:
    """Write `schemas/`, `model.json` and `collection.json`, and what arrays say of benchmarks.

    What they list must be there already.

    Raises:
        ReleaseError: there is no `items.parquet`, no embeddings, or no record of the run.
    """
    overview = Overview.read(release)
    link_benchmarks(release)
    release.store.write(f"{paths.SCHEMAS}/{SCHEMA_FILE}", schema_text())
    release.store.write(paths.MODEL, dump_json(model_item(release, overview)))
    document = collection_document(release, overview, assets=document_assets(release))
    maps = _maps(release)
    document["stac_extensions"] += [_WEB_MAP_LINKS] if maps else []
    document["links"] += _benchmark(release) + maps + _items(release)
    release.store.write(paths.COLLECTION, dump_json(document))


def collection_document(release: Release, overview: Overview, assets: Mapping[str, Any]) -> dict[str, Any]:
    """The Collection. Links are relative to the release."""
    spec, fingerprint, run = release.spec(), release.fingerprint(), run_record(release)
    first = release.data_files()[0]
    gsd = release.footer(first)["emb"]["gsd"]
    columns = table_columns(release.parquet(first).schema_arrow)
    fields = {
        **metadata.collection_fields(fingerprint, gsd),
        "emb:temporal_resolution": metadata.temporal_resolution(spec),
    }
    document: dict[str, Any] = {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "stac_extensions": [*_EXTENSIONS, *([_XARRAY] if spec.outputs.arrays else [])],
        "id": spec.name,
        "title": spec.title or spec.name,
        "description": spec.description or f"{overview.chips} embeddings by {fingerprint.model_name}.",
        "keywords": list(dict.fromkeys([*spec.keywords, *_KEYWORDS])),
        "license": spec.license,
        "providers": _providers(spec),
        **_attribution(release),
        "extent": {
            "spatial": {"bbox": [list(overview.bbox)]},
            "temporal": {"interval": [[rfc3339(overview.start), rfc3339(overview.end)]]},
        },
        "version": spec.version,
        **fields,
        **metadata.release_fields(fingerprint, loss=_has_loss(release, first)),
        "embrel:coverage": metadata.coverage_fields(run.coverage, _not_cloud_checked(release, spec)),
        "table:columns": columns,
        "table:primary_geometry": "geometry",
        "table:row_count": overview.chips,
        **_citation(spec),
        **({"sci:publications": papers} if (papers := metadata.publications(fingerprint)) else {}),
        "summaries": {
            "emb:type": [fields["emb:type"]],
            "emb:dimensions": [fields["emb:dimensions"]],
            "data_type": [fields["data_type"]],
            "gsd": [gsd],
            "proj:code": list(overview.codes),
        },
        "item_assets": {
            "embeddings": {
                "type": PARQUET,
                "title": "Embeddings (GeoParquet)",
                "description": "One row per chip; the columns are those of `table:columns`.",
                "roles": ["data"],
                "processing:lineage": _lineage(spec, fingerprint),
                "processing:software": {"clay-publish": __version__, **run.libraries},
            },
            **{
                asset_key(folder): {"type": PARQUET, "title": table_title(folder), "roles": ["data"]}
                for folder in _other_tables(release)
            },
            **({"arrays": _ARRAYS} if spec.outputs.arrays else {}),
        },
        "assets": dict(assets),
        "links": _links(spec),
    }
    return document


def _not_cloud_checked(release: Release, spec: Spec) -> int:
    """Chips whose images have no cloud mask; none of a sensor without masks."""
    if not spec.instrument.masks:
        return 0
    return sum(without_cloud_fraction(release.parquet(path).metadata) for path in release.data_files())


def _has_loss(release: Release, path: str) -> bool:
    """Whether the encoder gave losses; the column is there in any case."""
    group = release.parquet(path).metadata.row_group(0)
    columns = [group.column(place) for place in range(group.num_columns)]
    return any(c.path_in_schema == "loss" and c.statistics.null_count < c.num_values for c in columns)


def _other_tables(release: Release) -> list[str]:
    files = [path for top in (paths.PATCHES, paths.AGGREGATES) for path in release.data_files(top)]
    return sorted({path.partition("/zone=")[0] for path in files})


def _lineage(spec: Spec, fingerprint: Fingerprint) -> str:
    named = {name for block in spec.imagery for name in block.collections}
    imagery = ", ".join(sorted(named)) or spec.sensor
    return f"{imagery}; {metadata.preprocessing(fingerprint)}; {fingerprint.model_name}"


def _attribution(release: Release) -> dict[str, str]:
    """The attribution of the imagery, as OGC API Common defines it for collections."""
    table = release.parquet(paths.SOURCES).read(columns=["status", "attribution"])
    used: pa.Table = table.filter(pc.equal(table["status"], "used"))
    stated = sorted(text for text in used["attribution"].unique().to_pylist() if text)
    return {"attribution": " ".join(stated)} if stated else {}


def _providers(spec: Spec) -> list[dict[str, Any]]:
    providers: list[dict[str, Any]] = [_creator(creator) for creator in spec.creators]
    if spec.publish.source_coop:
        address = f"https://source.coop/{spec.publish.source_coop}"
        providers.append({"name": "Source Cooperative", "roles": ["host"], "url": address})
    if spec.publish.hugging_face:
        address = f"https://huggingface.co/datasets/{spec.publish.hugging_face}"
        providers.append({"name": "Hugging Face", "roles": ["host"], "url": address})
    return providers


def _creator(creator: Creator) -> dict[str, Any]:
    provider: dict[str, Any] = {"name": creator.name, "roles": ["producer", "processor"]}
    if creator.affiliation:
        provider["description"] = creator.affiliation
    if creator.orcid:
        provider["url"] = f"https://orcid.org/{creator.orcid.removeprefix('https://orcid.org/')}"
    return provider


def _citation(spec: Spec) -> dict[str, Any]:
    """`sci:citation`, as the card has it."""
    names = ", ".join(creator.name for creator in spec.creators) or f"The creators of {spec.name}"
    year = metadata.release_day(spec).year
    where = f" https://doi.org/{spec.doi}" if spec.doi else f" {release_address(spec) or ''}".rstrip()
    fields = {"sci:citation": f"{names} ({year}). {spec.title or spec.name}, version {spec.version}.{where}"}
    if spec.doi:
        fields["sci:doi"] = spec.doi
    return fields


def _links(spec: Spec) -> list[dict[str, str]]:
    # The release is a catalog of its own, wherever a copy of it lies; `catalog.json` beside it lists all versions.
    links = [
        {"rel": "root", "href": f"./{paths.COLLECTION}", "type": "application/json", "title": spec.title or spec.name},
        {"rel": "emb:model", "href": f"./{paths.MODEL}", "type": "application/geo+json", "title": "The model"},
        {
            "rel": "emb:source-data",
            "href": f"./{paths.SOURCES}",
            "type": PARQUET,
            "title": "Every source item considered: used, unused, excluded and why",
        },
        *_sources(spec),
        {"rel": "license", "href": f"./{paths.LICENSE}", "type": "text/plain", "title": spec.license},
        {"rel": "about", "href": f"./{paths.CARD}", "type": "text/markdown", "title": "Dataset card"},
    ]
    if spec.doi:
        links.append({"rel": "cite-as", "href": f"https://doi.org/{spec.doi}", "title": f"doi:{spec.doi}"})
    if spec.publish.base_url:
        address = f"{release_address(spec)}/{paths.COLLECTION}"
        links.insert(0, {"rel": "self", "href": address, "type": "application/json"})
        # A published version never changes, so it cannot link to the newest as `latest-version`; its parent does.
        title = "All versions, the newest marked"
        links.append({"rel": "parent", "href": "../catalog.json", "type": "application/json", "title": title})
    previous = spec.published().get("previous")
    if previous:
        base = previous.rstrip("/") if is_url(previous) else f"../{previous}"
        href = f"{base}/{paths.COLLECTION}"
        link = {"rel": "predecessor-version", "href": href, "type": "application/json"}
        links.append({**link, "title": "The version before"})
    return links


def _benchmark(release: Release) -> list[dict[str, str]]:
    """A link to what the maintainer measured on labels."""
    if not release.store.exists(paths.BENCHMARKS):
        return []
    link = {"rel": "emb:benchmark", "href": f"./{paths.BENCHMARKS}", "type": "application/json"}
    return [{**link, "title": "How well the embeddings predict labels"}]


def _maps(release: Release) -> list[dict[str, str]]:
    """Links to the coverage of each period as map tiles, where the release has an explorer."""
    found = []
    for path in release.store.files(f"{paths.EXPLORER}/tiles"):
        period, _, name = path.removeprefix(f"{paths.EXPLORER}/tiles/").partition("/")
        if name == "coverage.pmtiles":
            title = f"Coverage, {period.replace('_', ' to ')}: embedded, or the reason why not"
            found.append({"rel": "pmtiles", "href": f"./{path}", "type": "application/vnd.pmtiles", "title": title})
    return found


def _items(release: Release) -> list[dict[str, str]]:
    """Links to the items that are also JSON files."""
    there = release.store.files(paths.JSON_ITEMS)
    if not there:
        return []
    table = release.parquet(paths.ITEMS).read(columns=["id", "title"])
    titles = dict(zip(table["id"].to_pylist(), table["title"].to_pylist(), strict=True))
    named = [(path, titles[path.rpartition("/")[2].removesuffix(".json")]) for path in there]
    return [{"rel": "item", "href": f"./{path}", "type": _GEOJSON, "title": title} for path, title in named]


def _hub_page(source: str) -> str:
    """The page of a data set on the Hub; other places as they are."""
    return source.replace(HUB_DATASETS, "https://huggingface.co/datasets/", 1).partition("@")[0]


def _sources(spec: Spec) -> list[dict[str, str]]:
    """Where the imagery was found: catalogs, and their collections where they are APIs."""
    links = []
    for block in spec.published()["imagery"]:
        for source in block.get("stac") or [_hub_page(block["major_tom"])]:
            if not is_url(source):
                continue
            below = [f"{source.rstrip('/')}/collections/{name}" for name in block["collections"]] or [source]
            static = source.endswith((".json", ".parquet", ".geojson"))
            links += [
                {"rel": "emb:source-data", "href": href, "title": href.rpartition("/")[2]}
                for href in ([source] if static else below)
            ]
    return list({link["href"]: link for link in links}.values())
