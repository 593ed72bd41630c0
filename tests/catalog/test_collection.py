import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pystac
import pytest
from referencing import Registry, Resource

from clay_publish.catalog import write_collection, write_items
from clay_publish.errors import ReleaseError
from clay_publish.release.directory import COLLECTION, MODEL, SPEC, Release
from clay_publish.release.fingerprint import Fingerprint
from clay_publish.release.metadata import SCHEMA_FILE, SCHEMA_URI, schema_text
from clay_publish.validate.data.stac_schemas import EMBEDDINGS, known

MakeRelease = Callable[..., Release]
PARQUET = "application/vnd.apache.parquet"


@pytest.fixture
def cataloged(make_release: MakeRelease) -> Callable[..., Release]:
    def make(*parts: Any, **options: Any) -> Release:
        release = make_release(*parts, **options)
        write_items(release)
        for path in ("README.md", "CHANGELOG.md", "croissant.json", "figures/coverage.png", "figures/embeddings.png"):
            release.store.write(path, path)
        release.store.write("CITATION.cff", "date-released: 2026-11-22\n")
        write_collection(release)
        return release

    return make


def accepts(document: dict[str, Any], validator: Any) -> list[str]:
    """What the community's schema says, read with STAC 1.1 core; it insists on its own name in `stac_extensions`."""
    community = json.loads(
        json.dumps(known()[EMBEDDINGS]).replace("schemas.stacspec.org/v1.0.0", "schemas.stacspec.org/v1.1.0")
    )
    declared = copy.deepcopy(document)
    declared["stac_extensions"].append(community["$id"].rstrip("#"))
    resources = [(uri, Resource.from_contents(s)) for uri, s in validator.schema_cache.items()]
    checker = jsonschema.Draft7Validator(community, registry=Registry().with_resources(resources))
    return [error.message for error in checker.iter_errors(declared)]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dtype": "int8"},
        {
            "spec": {
                "previous": "0.9.0",
                "doi": "10.5281/zenodo.1234567",
                "creators": [{"name": "Ada", "orcid": "0000-0002-1825-0097", "affiliation": "Clay"}],
                "publish": {
                    "base_url": "https://data.source.coop/clay/tiny",
                    "source_coop": "clay/tiny",
                    "hugging_face": "clay/tiny",
                },
            }
        },
    ],
)
def test_collection_and_model_are_valid_and_the_community_accepts_them(
    cataloged: Callable[..., Release], options: dict[str, Any], validator: Any
) -> None:
    release = cataloged(**options)
    collection = release.json(COLLECTION)
    checked = pystac.Collection.from_file(release.store.path(COLLECTION)).validate(validator=validator)
    assert len(checked) == 1 + len(collection["stac_extensions"])
    pystac.Item.from_file(release.store.path(MODEL)).validate(validator=validator)
    assert accepts(collection, validator) == []


def test_the_community_accepts_items(cataloged: Callable[..., Release], validator: Any) -> None:
    import pyarrow.parquet as pq
    from stac_geoparquet.arrow import stac_table_to_items

    release = cataloged(dtype="int8")
    items = list(stac_table_to_items(pq.read_table(release.store.path("items.parquet"))))
    assert len(items) == 3
    for item in items:
        assert accepts(item, validator) == []


def test_assets_carry_the_size_and_checksum_of_their_files(cataloged: Callable[..., Release]) -> None:
    release = cataloged()
    assets = release.json(COLLECTION)["assets"]
    assert {"items", "sources", "gaps", "card", "croissant", "thumbnail", "coverage-18", "coverage-34"} <= set(assets)
    for key, asset in assets.items():
        path = asset["href"].removeprefix("./")
        if key in {"manifest", "run"}:
            assert "file:checksum" not in asset
            continue
        data = release.store.read(path)
        assert asset["file:size"] == len(data)
        assert asset["file:checksum"] == "1220" + hashlib.sha256(data).hexdigest()


def test_only_the_item_table_has_exactly_the_type_of_parquet(cataloged: Callable[..., Release]) -> None:
    assets = cataloged().json(COLLECTION)["assets"]
    assert [key for key, asset in assets.items() if asset["type"] == PARQUET] == ["items"]
    assert assets["items"]["roles"] == ["collection-mirror"]


def test_the_release_carries_the_schema_it_declares(cataloged: Callable[..., Release]) -> None:
    release = cataloged()
    assert release.store.read(f"schemas/{SCHEMA_FILE}").decode() == schema_text()
    assert json.loads(schema_text())["$id"] == f"{SCHEMA_URI}#"
    assert SCHEMA_URI in release.json(COLLECTION)["stac_extensions"]


def test_extent_and_totals_are_those_of_the_files(cataloged: Callable[..., Release]) -> None:
    collection = cataloged().json(COLLECTION)
    assert collection["table:row_count"] == 26
    assert collection["embrel:coverage"] == {"expected": 29, "embedded": 26, "missing": {"cloud": 2, "nodata": 1}}
    assert collection["extent"]["temporal"]["interval"] == [["2023-01-10T10:30:00Z", "2023-07-09T10:00:00Z"]]
    west, south, east, north = collection["extent"]["spatial"]["bbox"][0]
    assert (west, south) < (-75, 0) < (east, north)
    assert [column["name"] for column in collection["table:columns"]][:2] == ["id", "geometry"]


def test_coverage_tiles_are_linked(cataloged: Callable[..., Release], validator: Any) -> None:
    release = cataloged()
    assert not [uri for uri in release.json(COLLECTION)["stac_extensions"] if "web-map-links" in uri]
    for layer in ("coverage", "components"):
        release.store.write(f"explore/tiles/2023-01-01_2023-02-01/{layer}.pmtiles", layer)
    write_collection(release)
    pystac.Collection.from_file(release.store.path(COLLECTION)).validate(validator=validator)
    (link,) = [link for link in release.json(COLLECTION)["links"] if link["rel"] == "pmtiles"]
    assert link["href"] == "./explore/tiles/2023-01-01_2023-02-01/coverage.pmtiles"
    assert link["type"] == "application/vnd.pmtiles"
    assert [uri for uri in release.json(COLLECTION)["stac_extensions"] if "web-map-links" in uri]


def test_an_older_version_and_the_newest_are_linked(cataloged: Callable[..., Release]) -> None:
    publish = {"base_url": "https://data.source.coop/clay/tiny/"}
    links = cataloged(spec={"version": "1.1.0", "previous": "1.0.0", "publish": publish}).json(COLLECTION)["links"]
    found = {link["rel"]: link["href"] for link in links}
    assert found["predecessor-version"] == "../1.0.0/collection.json"
    assert found["parent"] == "../catalog.json"
    assert "latest-version" not in found  # browsers call a version with such a link outdated
    assert found["self"] == "https://data.source.coop/clay/tiny/1.1.0/collection.json"
    assert found["root"] == "./collection.json"
    assert "https://example.org/stac/collections/imagery" in [
        link["href"] for link in links if link["rel"] == "emb:source-data"
    ]


def test_megabytes_of_description_are_refused(make_release: MakeRelease) -> None:
    release = make_release()
    spec = release.yaml(SPEC) | {"description": "words" * 1_400_000}
    release.store.write(SPEC, json.dumps(spec))
    with pytest.raises(ReleaseError, match="description") as refused:
        write_items(release)
    assert len(str(refused.value)) < 2000


def test_the_collection_needs_the_items(make_release: MakeRelease) -> None:
    with pytest.raises(ReleaseError, match=r"items\.parquet"):
        write_collection(make_release())


def test_the_sample_is_cataloged_as_a_whole(sample_release: Path, validator: Any) -> None:
    import pyarrow.parquet as pq
    from stac_geoparquet.arrow import stac_table_to_items

    collection = pystac.Collection.from_file(str(sample_release / COLLECTION))
    collection.validate(validator=validator)
    pystac.Item.from_file(str(sample_release / MODEL)).validate(validator=validator)
    assert accepts(collection.to_dict(transform_hrefs=False), validator) == []
    items = list(stac_table_to_items(pq.read_table(sample_release / "items.parquet")))
    for item in items:
        pystac.validation.validate_dict(item, validator=validator)
        assert accepts(item, validator) == []
    assert sum(item["properties"]["table:row_count"] for item in items) == collection.extra_fields["table:row_count"]
    listed = {asset.href.removeprefix("./") for asset in collection.assets.values()}
    assert {"items.parquet", "sources.parquet", "README.md", "croissant.json", "manifest.json"} <= listed
    for asset in collection.assets.values():
        assert (sample_release / asset.href).is_file()
    assert "thumbnail" in collection.assets


def test_the_grid_is_defined_and_the_model_s_paper_named(cataloged: Callable[..., Release]) -> None:
    release = cataloged()
    collection = release.json(COLLECTION)
    defined = collection["emb:chip_layout"]["grid_definition"]["href"]
    page, _, section = defined.partition("#")
    assert page == SCHEMA_URI.removesuffix("schema.json")
    text = (Path(__file__).resolve().parents[2] / "catalog" / "embedding-release" / "README.md").read_text()
    assert section in {
        line.lstrip("# ").lower().replace(" ", "-") for line in text.splitlines() if line.startswith("#")
    }
    assert release.footer(release.data_files()[0])["emb"]["emb:chip_layout"] == collection["emb:chip_layout"]
    (paper,) = collection["sci:publications"]
    assert paper["doi"] == "10.1038/s41467-021-24638-z"
    assert paper["citation"].startswith("Rolf, E.")


def test_a_model_without_a_paper_names_none() -> None:
    from clay_publish.release.metadata import publications

    def named(link: str) -> list[dict[str, str]]:
        return publications(Fingerprint.model_construct(model_link=link))

    assert named("https://huggingface.co/made-with-clay/Clay") == []
    assert named("https://doi.org/10.5281/zenodo.7") == [{"doi": "10.5281/zenodo.7"}]
