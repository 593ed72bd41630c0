import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urljoin

import pystac
import pytest

from clay_publish.catalog import write_collection, write_items
from clay_publish.catalog.json_items import items_of
from clay_publish.release.directory import Release

MakeRelease = Callable[..., Release]


@pytest.mark.parametrize("base", [None, "https://data.source.coop/clay/tiny"])
def test_each_file_equals_its_row(make_release: MakeRelease, base: str | None, validator: Any) -> None:
    release = make_release(spec={"publish": {"base_url": base}} if base else {})
    write_items(release, json_items=True)
    rows = list(items_of(release))
    assert len(rows) == len(release.store.files("items")) == 3
    address = f"{base}/1.0.0/" if base else ""
    for row in rows:
        item = release.json(f"items/{row['id']}.json")
        pystac.Item.from_file(release.store.path(f"items/{row['id']}.json")).validate(validator=validator)
        item["links"] = [link for link in item["links"] if link["rel"] != "parent"]
        for place in (item["assets"]["embeddings"], *item["links"]):
            if not place["href"].startswith("http"):
                assert place["href"].startswith("../")
                place["href"] = urljoin(address, place["href"].removeprefix("../"))
        assert json.dumps(item, sort_keys=True) == json.dumps(row, sort_keys=True)


def test_a_browser_walks_from_the_collection_to_the_files(make_release: MakeRelease) -> None:
    release = make_release()
    write_items(release, json_items=True)
    write_collection(release)
    collection = pystac.Collection.from_file(release.store.path("collection.json"))
    items = list(collection.get_items())
    assert len(items) == 3
    for item in items:
        asset = item.get_assets()["embeddings"].get_absolute_href()
        assert asset is not None
        assert release.store.exists(asset.removeprefix(f"{release.store.where}/"))


def test_files_of_an_earlier_run_do_not_stay(make_release: MakeRelease) -> None:
    release = make_release()
    write_items(release, json_items=True)
    write_items(release)
    assert release.store.files("items") == []
