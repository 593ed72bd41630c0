"""The items once more as JSON files, for tools that browse static catalogs."""

import json
from collections.abc import Iterator
from typing import Any

from stac_geoparquet.arrow import stac_table_to_items

from clay_publish.release import directory as paths
from clay_publish.release.directory import Release
from clay_publish.release.manifest import dump_json
from clay_publish.release.public_urls import data_path

FOLDER = "items"


def write_json_items(release: Release) -> int:
    """Write `items/ID.json` for each row of `items.parquet`, addresses relative to the file; how many."""
    remove_json_items(release)
    number = 0
    for item in items_of(release):
        release.store.write(f"{FOLDER}/{item['id']}.json", dump_json(_relative(item)))
        number += 1
    return number


def remove_json_items(release: Release) -> None:
    """Remove what an earlier run left."""
    for path in release.store.files(FOLDER):
        release.store.remove(path)


def items_of(release: Release) -> Iterator[dict[str, Any]]:
    """The rows of `items.parquet` as STAC JSON, a row group in memory at a time."""
    for batch in release.parquet(paths.ITEMS).iter_batches():
        for item in stac_table_to_items(batch):
            yield json.loads(json.dumps(item))


def _relative(item: dict[str, Any]) -> dict[str, Any]:
    for asset in item["assets"].values():
        asset["href"] = f"../{data_path(asset['href'])}"
    for link in item["links"]:
        name = link["href"].rpartition("/")[2]
        if (link["rel"], name) in {("collection", paths.COLLECTION), ("emb:source-data", paths.SOURCES)}:
            link["href"] = f"../{name}"
    parent = {
        "rel": "parent",
        "href": f"../{paths.COLLECTION}",
        "type": "application/json",
        "title": item["collection"],
    }
    item["links"].append(parent)
    return item
