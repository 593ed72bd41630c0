"""Items as JSON: a static catalog that plain STAC readers walk, from the release and from its product."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pystac
import pytest

from clay_publish.catalog import write_collection, write_items
from clay_publish.catalog.file_items import items_of, json_path
from clay_publish.publish.bucket import LocalBucket
from clay_publish.publish.version_catalog import PublishedVersion, Versions, change
from clay_publish.release import directory
from clay_publish.release.directory import Release

MakeRelease = Callable[..., Release]


@pytest.mark.parametrize("base", [None, "https://data.source.coop/clay/tiny"])
def test_each_file_equals_its_row(make_release: MakeRelease, base: str | None, validator: Any) -> None:
    release = make_release(spec={"publish": {"base_url": base}} if base else {})
    write_items(release)
    write_collection(release)
    rows = list(items_of(release))
    assert sorted(release.store.files("items")) == sorted(json_path(row["id"]) for row in rows)
    assert {path.split("/")[1] for path in release.store.files("items")} == {"zone=18", "zone=34"}
    for row in rows:
        path = json_path(row["id"])
        item = release.json(path)
        pystac.Item.from_file(release.store.path(path)).validate(validator=validator)
        own = [link["href"] for link in item["links"] if link["rel"] == "self"]
        assert own == ([f"{base}/1.0.0/{path}"] if base else [])
        assert item["links"].pop(len(own))["rel"] == "root"
        item["links"] = [link for link in item["links"] if link["rel"] != "self"]
        for place in (item["assets"]["embeddings"], *item["links"]):
            if not place["href"].startswith("http"):
                place["href"] = urljoin(f"/{path}", place["href"]).removeprefix("/")
        assert json.dumps(item, sort_keys=True) == json.dumps(row, sort_keys=True)


def _check_walk(found: list[pystac.Item], release: Release) -> None:
    assert sorted(item.id for item in found) == sorted(row["id"] for row in items_of(release))
    for item in found:
        assert item.properties["title"]
        asset = item.get_assets()["embeddings"].get_absolute_href()
        assert asset is not None
        assert release.store.exists(asset.removeprefix(f"{release.store.where}/"))


@pytest.mark.parametrize("base", [None, "https://data.source.coop/clay/tiny"])
def test_pystac_walks_from_the_collection(make_release: MakeRelease, base: str | None) -> None:
    release = make_release(spec={"publish": {"base_url": base}} if base else {})
    write_items(release)
    write_collection(release)
    collection = pystac.Collection.from_file(release.store.path("collection.json"))
    _check_walk(list(collection.get_items(recursive=True)), release)
    links = [link for link in release.json("collection.json")["links"] if link["rel"] == "item"]
    assert {link["title"] for link in links} == {row["properties"]["title"] for row in items_of(release)}


def test_pystac_walks_from_the_root_of_a_product(make_release: MakeRelease) -> None:
    release = make_release(spec={"publish": {"base_url": "https://data.source.coop/clay/tiny"}})
    write_items(release)
    write_collection(release)
    product, _, version = release.store.where.rpartition("/")
    start = Versions(name="tiny-release", title="Tiny", versions=[])
    published = PublishedVersion(version=version)
    change(LocalBucket(Path(product)), start, lambda versions: versions.with_version(published))
    catalog = pystac.Catalog.from_file(f"{product}/catalog.json")
    found = list(catalog.get_items(recursive=True))
    assert sorted(item.id for item in found) == sorted(row["id"] for row in items_of(release))
    assert {item.get_root().id for item in found} == {catalog.id}
    assert [child.id for child in catalog.get_children()] == ["tiny-release"]


def test_many_items_are_json_only_where_somebody_asks(
    make_release: MakeRelease, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = make_release()
    write_items(release, json_items=False)
    assert release.store.files("items") == []
    monkeypatch.setattr(directory, "MAX_JSON_ITEMS", 2)
    write_items(release, json_items=True)
    assert len(release.store.files("items")) == 3
    write_items(release)
    assert release.store.files("items") == []
    write_collection(release)
    assert not [link for link in release.json("collection.json")["links"] if link["rel"] == "item"]
