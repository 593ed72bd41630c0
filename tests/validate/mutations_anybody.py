"""Ways to break embeddings of somebody else: two GeoParquet files, a STAC Collection, attributes of an array."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from breakage import Broken, mutation
from pyproj import CRS

from clay_publish.release.geoparquet import geo_metadata

EXTENSION = "https://stac-extensions.github.io/embeddings/v0.0.1/schema.json"
ROWS = 300


def write_foreign(folder: Path) -> None:
    """Good embeddings of somebody else, with a collection.json and a zarr.json."""
    (folder / "embeddings").mkdir(parents=True)
    draw = np.random.default_rng(1)
    for number in range(2):
        at = np.arange(ROWS)
        west, south = number + at % 20 * 0.01, at // 20 * 0.01
        table = pa.table(
            {
                "tile": [f"{number}-{n}" for n in at],
                "vector": pa.array(list(draw.standard_normal((ROWS, 16), np.float32)), pa.list_(pa.float32(), 16)),
                "date": ["2024-06-01"] * ROWS,
                "geometry": shapely.to_wkb(shapely.box(west, south, west + 0.01, south + 0.01)),
            }
        )
        geo = json.dumps(geo_metadata({"Polygon"}, [number, 0, number + 0.201, 0.151]))
        geo = json.loads(geo)
        del geo["columns"]["geometry"]["covering"]
        pq.write_table(
            table.replace_schema_metadata({"geo": json.dumps(geo)}), folder / f"embeddings/part-{number}.parquet"
        )
    (folder / "collection.json").write_text(json.dumps(_collection()))


def _collection() -> dict[str, Any]:
    return {
        "type": "Collection",
        "stac_version": "1.1.0",
        "stac_extensions": [EXTENSION],
        "id": "others",
        "description": "Embeddings of somebody else.",
        "license": "CC-BY-4.0",
        "extent": {"spatial": {"bbox": [[0, 0, 2, 1]]}, "temporal": {"interval": [["2024-06-01T00:00:00Z", None]]}},
        "emb:type": "chip",
        "emb:dimensions": 16,
        "data_type": "float32",
        "links": [
            {"rel": "emb:model", "href": "https://example.org/model"},
            {"rel": "emb:source-data", "href": "https://example.org/data"},
        ],
    }


def _change(broken: Broken, edit: Any) -> None:
    """Edit the first file; its metadata stay unless `edit` changes them."""
    path = broken.folder / "embeddings" / "part-0.parquet"
    pq.write_table(edit(pq.read_table(path)), path)


def _set(table: pa.Table, column: pa.Array) -> pa.Table:
    return table.set_column(table.schema.get_field_index("vector"), "vector", column)


def _values(table: pa.Table) -> np.ndarray:
    return np.array(table["vector"].to_pylist(), np.float32)


@mutation("ANY001", "an external file without vectors", base="foreign", settle=False, also="RDR001")
def others_without_vectors(broken: Broken) -> None:
    _change(broken, lambda table: table.drop_columns(["vector"]))


@mutation("ANY001", "an external file without rows", base="foreign", settle=False)
def others_without_rows(broken: Broken) -> None:
    _change(broken, lambda table: table.slice(0, 0))


@mutation("ANY002", "two external files with vectors of two types", base="foreign", settle=False, also="RDR ANY006")
def others_of_two_types(broken: Broken) -> None:
    _change(broken, lambda t: _set(t, pa.array(list(_values(t).astype(float)), pa.list_(pa.float64(), 16))))


@mutation("ANY002", "lists of other lengths in two files", base="foreign", settle=False, also="RDR INT015 VEC")
def others_of_two_lengths(broken: Broken) -> None:
    _change(broken, lambda t: _set(t, pa.array(list(_values(t)[:, :12]), pa.list_(pa.float32()))))


@mutation("ANY003", "an external table without GeoParquet metadata", base="foreign", settle=False, also="SCH011")
def others_without_crs(broken: Broken) -> None:
    _change(broken, lambda table: table.replace_schema_metadata(None))


@mutation("ANY003", "GeoParquet whose CRS is null", base="foreign", settle=False)
def others_with_an_unknown_crs(broken: Broken) -> None:
    def edit(table: pa.Table) -> pa.Table:
        geo = json.loads(table.schema.metadata[b"geo"])
        geo["columns"]["geometry"]["crs"] = None
        return table.replace_schema_metadata({"geo": json.dumps(geo)})

    _change(broken, edit)


@mutation("ANY004", "duplicate footprints in an external table, with different vectors", base="foreign", settle=False)
def others_with_repeated_footprints(broken: Broken) -> None:
    def edit(table: pa.Table) -> pa.Table:
        place = table.schema.get_field_index("geometry")
        shapes = table["geometry"].to_pylist()
        return table.set_column(place, "geometry", pa.array([*shapes[:-5], *shapes[:5]], pa.binary()))

    _change(broken, edit)


@mutation(
    "ANY005",
    "integer vectors of an external table, no scale",
    base="foreign",
    settle=False,
    also="ANY002 ANY006 RDR",
)
def others_without_a_scale(broken: Broken) -> None:
    def edit(table: pa.Table) -> pa.Table:
        return _set(table, pa.array(list((40 * _values(table)).astype(np.int8)), pa.list_(pa.int8(), 16)))

    _change(broken, edit)


@mutation("ANY006", "emb:dimensions as a text", base="foreign", settle=False)
def an_emb_field_of_another_type(broken: Broken) -> None:
    broken.json("collection.json", lambda c: c.update({"emb:dimensions": "16"}))


@mutation("ANY006", "an emb: field that the extension does not have", base="foreign", settle=False)
def an_unknown_emb_field(broken: Broken) -> None:
    broken.json("collection.json", lambda c: c.update({"emb:flavor": "sweet"}))


@mutation("ANY006", "a footer that states another length than its vectors have", base="foreign", settle=False)
def an_emb_footer_of_another_length(broken: Broken) -> None:
    def edit(table: pa.Table) -> pa.Table:
        return table.replace_schema_metadata({**table.schema.metadata, b"emb": b'{"emb:dimensions": 32}'})

    _change(broken, edit)


@mutation("ANY006", "a release whose Collection has an unknown emb: field", also="STC")
def an_unknown_emb_field_of_ours(broken: Broken) -> None:
    broken.json("collection.json", lambda c: c.update({"emb:flavor": "sweet"}))


def _edit_footer(broken: Broken, edit: Any) -> None:
    def changed(table: pa.Table) -> pa.Table:
        geo = json.loads(table.schema.metadata[b"geo"])
        edit(geo["columns"]["geometry"])
        return table.replace_schema_metadata({"geo": json.dumps(geo)})

    _change(broken, changed)


def _lists(values: list[Any], kind: pa.DataType | None = None) -> pa.Array:
    return pa.array(values, pa.list_(kind or pa.float32()))


@mutation("ANY002", "one vector of an external table is cut off", base="foreign", settle=False, also="RDR")
def others_with_a_short_vector(broken: Broken) -> None:
    _change(broken, lambda t: _set(t, _lists([v.tolist()[: 5 if n == 7 else None] for n, v in enumerate(_values(t))])))


@mutation("ANY003", "GeoParquet with an unknown CRS", base="foreign", settle=False, also="SCH011")
def others_with_a_made_up_crs(broken: Broken) -> None:
    _edit_footer(broken, lambda column: column.update(crs="grid of my town"))


@mutation("ANY004", "the same ground and day, other vectors, in two files", base="foreign", settle=False, also="SCH011")
def others_with_footprints_of_the_other_file(broken: Broken) -> None:
    other = pq.read_table(broken.folder / "embeddings" / "part-1.parquet")["geometry"]
    _change(broken, lambda t: t.set_column(t.schema.get_field_index("geometry"), "geometry", other))


@mutation("ANY006", "a Collection that states another length than the vectors have", base="foreign", settle=False)
def another_length_in_the_collection(broken: Broken) -> None:
    broken.json("collection.json", lambda c: c.update({"emb:dimensions": 32}))


@mutation("ANY007", "a null in place of a vector", base="foreign", settle=False)
def others_without_one_vector(broken: Broken) -> None:
    _change(broken, lambda t: _set(t, pa.array([None, *_values(t)[1:].tolist()], pa.list_(pa.float32(), 16))))


@mutation("ANY007", "a null in place of a footprint", base="foreign", settle=False)
def others_without_one_footprint(broken: Broken) -> None:
    def edit(table: pa.Table) -> pa.Table:
        shapes = pa.array([None, *table["geometry"].to_pylist()[1:]], pa.binary())
        return table.set_column(table.schema.get_field_index("geometry"), "geometry", shapes)

    _change(broken, edit)


@mutation("ANY007", "degrees declared as meters of a UTM zone", base="foreign", settle=False, also="GEO SCH011")
def others_in_degrees_called_meters(broken: Broken) -> None:
    _edit_footer(broken, lambda column: column.update(crs=CRS(32631).to_json_dict()))


@mutation("ANY008", "a Collection that names a table which is not there", base="foreign", settle=False)
def others_with_a_broken_link(broken: Broken) -> None:
    broken.json("collection.json", lambda c: c.update(assets={"data": {"href": "./embeddings/part-2.parquet"}}))


@mutation("ARR002", "a store without an array as long as geoemb:dimensions says", base="foreign", settle=False)
def a_store_without_vectors(broken: Broken) -> None:
    for path in broken.folder.rglob("*.*"):
        path.unlink()
    names = {"geoemb:": "61c12cc5-0e28-4056-999a-480cf3fb7e4c"}
    attributes = {
        "zarr_conventions": [{"name": name, "uuid": uuid} for name, uuid in names.items()],
        "geoemb:type": "pixel",
        "geoemb:dimensions": 16,
        "geoemb:model": "https://example.org/model",
        "geoemb:source_data": ["https://example.org/data"],
        "geoemb:data_type": "float32",
    }
    (broken.folder / "zarr.json").write_text(
        json.dumps({"zarr_format": 3, "node_type": "group", "attributes": attributes})
    )
