import itertools
import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pystac
import pytest
import shapely
from stac_geoparquet.arrow import stac_table_to_items

from clay_publish.catalog import write_items
from clay_publish.errors import ReleaseError
from clay_publish.geo.utm_zones import Square
from clay_publish.release.directory import ITEMS, Release
from clay_publish.release.geoparquet import write_table
from clay_publish.search.reader import open_release

MakeRelease = Callable[..., Release]


def items_of(release: Release) -> dict[str, dict[str, Any]]:
    table = pq.read_table(release.store.path(ITEMS))
    return {item["id"]: item for item in stac_table_to_items(table)}


def test_one_item_per_embeddings_file_says_what_the_file_holds(make_release: MakeRelease) -> None:
    release = make_release()
    assert write_items(release) == 3
    items = items_of(release)
    item = items["18_04_41_2023-01-01_2023-02-01"]
    properties = item["properties"]
    assert item["collection"] == "tiny-release"
    assert properties["table:row_count"] == 12
    assert properties["proj:code"] == "EPSG:32618"
    assert properties["grid:code"] == "MGRS-18SVG"
    assert properties["embrel:coverage"] == {"expected": 15, "embedded": 12, "missing": {"nodata": 1, "cloud": 2}}
    assert properties["datetime"].startswith("2023-01-10T10:30:00")
    assert "emb:energy" not in properties  # run.json alone holds what was measured
    embeddings = pq.read_table(release.store.path(item["assets"]["embeddings"]["href"]))
    assert embeddings.num_rows == 12
    assert item["assets"]["embeddings"]["file:size"] == release.store.size(item["assets"]["embeddings"]["href"])


def test_several_dates_in_one_file_become_a_period(make_release: MakeRelease) -> None:
    release = make_release()
    write_items(release)
    properties = items_of(release)["18_04_41_2023-07-01_2023-08-01"]["properties"]
    assert properties["datetime"] is None
    assert properties["start_datetime"].startswith("2023-07-04T10:00:00")
    assert properties["end_datetime"].startswith("2023-07-09T10:00:00")


def test_source_links_lead_to_public_items_or_to_the_table_of_all(make_release: MakeRelease) -> None:
    release = make_release(hrefs={"scene-1": None, "scene-3": "file:///home/ada/scene-3.json"})
    write_items(release)
    links = {
        name: [link["href"] for link in item["links"] if link["rel"] == "emb:source-data"]
        for name, item in items_of(release).items()
    }
    assert links["18_04_41_2023-01-01_2023-02-01"] == ["sources.parquet"]
    assert links["18_04_41_2023-07-01_2023-08-01"] == ["https://example.org/stac/scene-2.json"]
    assert links["34_05_-03_2023-01-01_2023-02-01"] == ["https://example.org/stac/scene-4.json"]


def test_addresses_are_relative_to_the_table(make_release: MakeRelease) -> None:
    hosts = {
        "base_url": "https://data.source.coop/clay/tiny",
        "source_coop": "clay/tiny",
        "hugging_face": "made-with-clay/tiny",
    }
    release = make_release(spec={"publish": hosts})
    write_items(release)
    row = items_of(release)["18_04_41_2023-01-01_2023-02-01"]
    asset = row["assets"]["embeddings"]
    name = "embeddings/zone=18/18_04_41_2023-01-01_2023-02-01.parquet"
    assert asset["href"] == name
    other = f"https://huggingface.co/datasets/made-with-clay/tiny/resolve/v1.0.0/{name}"
    assert asset["alternate"] == {"hugging-face": {"href": other, "alternate:name": "hugging-face"}}
    assert {link["rel"]: link["href"] for link in row["links"] if link["rel"] != "emb:source-data"} == dict.fromkeys(
        ("parent", "collection"), "collection.json"
    )
    assert row["properties"]["title"] == "18SVG, 2023-01-01/2023-02-01"
    for where in (release.store.path(ITEMS), "https://mirror.example.org/tiny/1.0.0/items.parquet"):
        item = pystac.Item.from_dict(row, href=where)
        assert item.to_dict()["id"] == row["id"]  # nothing is fetched for it
        assert item.get_assets()["embeddings"].get_absolute_href() == f"{where.removesuffix(ITEMS)}{name}"


def test_no_path_of_this_machine_is_published(make_release: MakeRelease) -> None:
    release = make_release()
    write_items(release)
    assert release.store.where.encode() not in release.store.read(ITEMS)


def test_no_property_is_single_precision(make_release: MakeRelease) -> None:
    release = make_release()
    write_items(release)

    def leaves(kind: pa.DataType) -> list[pa.DataType]:
        if pa.types.is_nested(kind):
            return [leaf for place in range(kind.num_fields) for leaf in leaves(kind.field(place).type)]
        return [kind]

    kinds = {leaf for field in pq.read_schema(release.store.path(ITEMS)) for leaf in leaves(field.type)}
    assert kinds.isdisjoint({pa.float32(), pa.float16()})


def test_the_footer_tells_types_and_bounds(make_release: MakeRelease) -> None:
    release = make_release()
    write_items(release)
    metadata = pq.read_schema(release.store.path(ITEMS)).metadata
    geo = json.loads(metadata[b"geo"])["columns"]["geometry"]
    table = pq.read_table(release.store.path(ITEMS))
    shapes = shapely.from_wkb(table["geometry"])
    assert set(geo["geometry_types"]) == {shape.geom_type for shape in shapes}
    np.testing.assert_allclose(geo["bbox"], shapely.total_bounds(shapes), atol=1e-4)
    assert geo["covering"]["bbox"]["xmin"] == ["bbox", "xmin"]
    assert json.loads(metadata[b"stac-geoparquet"])["collections"]["tiny-release"]["id"] == "tiny-release"


def test_items_are_valid_geoparquet_and_the_readers_agree(make_release: MakeRelease) -> None:
    release = make_release()
    write_items(release)
    where = release.store.path(ITEMS)
    items = items_of(release)
    rows = duckdb.sql(
        f"select id, bbox.xmin, \"table:row_count\", assets.embeddings.href from '{where}' order by id"  # noqa: S608
    ).fetchall()
    assert rows == [
        (i["id"], i["bbox"][0], i["properties"]["table:row_count"], i["assets"]["embeddings"]["href"])
        for i in sorted(items.values(), key=lambda item: item["id"])
    ]
    import geopandas as gpd
    import geoparquet_validator

    assert geoparquet_validator.failed(geoparquet_validator.check(where)) == []
    frame = gpd.read_parquet(where)
    assert frame.crs.to_authority() == ("OGC", "CRS84")
    assert sorted(frame["id"]) == sorted(items)


def test_rustac_reads_the_same_items(make_release: MakeRelease) -> None:
    import rustac

    release = make_release()
    write_items(release)
    items = items_of(release)
    found = rustac.read_sync(release.store.path(ITEMS))["features"]
    assert sorted(item["id"] for item in found) == sorted(items)
    for item in found:
        ours = items[item["id"]]
        assert item["assets"] == ours["assets"]
        assert item["links"] == ours["links"]
        np.testing.assert_allclose(item["bbox"], ours["bbox"])
        there = shapely.geometry.shape(item["geometry"])
        assert there.equals_exact(shapely.geometry.shape(ours["geometry"]), 1e-9)
        for name in ("emb:runtime_parameters", "embrel:coverage", "table:row_count", "gsd"):
            assert item["properties"][name] == ours["properties"][name]


def test_every_item_is_valid_with_its_extensions(make_release: MakeRelease, validator: Any) -> None:
    publish = {"base_url": "https://data.source.coop/clay/tiny", "hugging_face": "clay/tiny"}
    for options in ({}, {"dtype": "int8", "spec": {"publish": publish}}):
        release = make_release(**options)
        write_items(release)
        for item in items_of(release).values():
            pystac.Item.from_dict(item, preserve_dict=True).validate(validator=validator)


def test_quantized_items_say_how_to_undo_it(make_release: MakeRelease) -> None:
    release = make_release(dtype="int8")
    write_items(release)
    for item in items_of(release).values():
        quantization = item["properties"]["emb:quantization"]
        assert quantization["quantized_dtype"] == "int8"
        assert quantization["link"]["href"].startswith("https://")


def test_items_lie_along_a_curve(make_release: MakeRelease, part: Any) -> None:
    """Neighbors on the ground are neighbors in the table."""
    parts = [
        part(Square(zone, 4, 40 + north), [(3160 + 80 * north, 330)], times=(datetime(2023, 1, 5, tzinfo=UTC),))
        for north in range(4)
        for zone in (10, 11, 40, 41)
    ]
    release = make_release(*parts)
    write_items(release)
    xs = [item["bbox"][0] for item in items_of(release).values()]
    jumps = sum(abs(a - b) > 90 for a, b in itertools.pairwise(xs))
    assert jumps == 1


def test_a_file_across_the_antimeridian(make_release: MakeRelease, part: Any, validator: Any) -> None:
    # At 16°S, zone 60's eastern edge lies at about E 820 km; these cells straddle 180°.
    edge = [(-1382, col) for col in range(636, 650)]
    release = make_release(part(Square(60, 8, -18), edge))
    write_items(release)
    (item,) = items_of(release).values()
    west, _, east, _ = item["bbox"]
    assert west > east
    assert item["geometry"]["type"] == "MultiPolygon"
    for polygon in item["geometry"]["coordinates"]:
        longitudes = [lon for lon, _ in polygon[0]]
        assert max(longitudes) - min(longitudes) < 1
    pystac.Item.from_dict(item, preserve_dict=True).validate(validator=validator)


def damage(release: Release, column: str, change: Callable[[pa.Table], pa.Array]) -> None:
    path = release.data_files()[0]
    table = pq.read_table(release.store.path(path))
    place = table.schema.get_field_index(column)
    write_table(release.store, path, table.set_column(place, table.schema.field(place), change(table)))


def test_bounds_that_are_no_number_are_refused(make_release: MakeRelease) -> None:
    release = make_release()

    def nan(table: pa.Table) -> pa.Array:
        rows = table["bbox"].to_pylist()
        rows[3]["xmin"] = math.nan
        return pa.array(rows, table.schema.field("bbox").type)

    damage(release, "bbox", nan)
    with pytest.raises(ReleaseError, match="not a place on Earth"):
        write_items(release)
    assert not release.store.exists(ITEMS)


def test_files_of_different_fingerprints_are_refused(make_release: MakeRelease) -> None:
    release = make_release()
    path = release.data_files()[-1]
    table = pq.read_table(release.store.path(path))
    emb = json.loads(table.schema.metadata[b"emb"]) | {"embrel:fingerprint": "f" * 64}
    keys = {**table.schema.metadata, b"emb": json.dumps(emb).encode()}
    write_table(release.store, path, table.replace_schema_metadata(keys))
    with pytest.raises(ReleaseError, match="Two never mix"):
        write_items(release)


def test_a_release_without_embeddings_says_what_to_do(make_release: MakeRelease) -> None:
    release = make_release()
    for path in release.data_files():
        release.store.remove(path)
    with pytest.raises(ReleaseError, match="produce"):
        write_items(release)


def test_the_same_release_gives_the_same_bytes(make_release: MakeRelease) -> None:
    release = make_release()
    write_items(release)
    first = release.store.read(ITEMS)
    write_items(release)
    assert release.store.read(ITEMS) == first


def test_tables_cut_like_the_embeddings_are_assets_too(make_release: MakeRelease, validator: Any) -> None:
    release = make_release()
    name = "zone=18/18_04_41_2023-01-01_2023-02-01.parquet"
    for folder in ("patches", "aggregates/2x2"):
        table = pq.read_table(release.store.path(f"embeddings/{name}"))
        write_table(release.store, f"{folder}/{name}", table)
    write_items(release)
    items = items_of(release)
    assets = items["18_04_41_2023-01-01_2023-02-01"]["assets"]
    assert {key: asset["href"] for key, asset in assets.items()} == {
        "embeddings": f"embeddings/{name}",
        "patches": f"patches/{name}",
        "aggregates-2x2": f"aggregates/2x2/{name}",
    }
    assert assets["patches"]["file:size"] == release.store.size(f"patches/{name}")
    assert set(items["18_04_41_2023-07-01_2023-08-01"]["assets"]) == {"embeddings"}
    for item in items.values():
        pystac.validation.validate_dict(item, validator=validator)
    opened = {item["id"]: item for item in stac_table_to_items(open_release(release.store.where).items())}
    hrefs = [asset["href"] for asset in opened["18_04_41_2023-01-01_2023-02-01"]["assets"].values()]
    assert sorted(hrefs) == sorted(release.store.path(asset["href"]) for asset in assets.values())
    assert set(opened["34_05_-03_2023-01-01_2023-02-01"]["assets"]) == {"embeddings"}
