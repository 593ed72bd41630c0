"""Ways to break the embeddings: vectors, places, times, and the tables themselves."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from breakage import Broken, mutation

# Vectors


@mutation("VEC001", "a NaN in one vector")
def nan_in_a_vector(broken: Broken) -> None:
    broken.vectors(lambda v: _set(v, (3, 7), np.nan))


@mutation("VEC001", "an infinite value in one vector")
def infinity_in_a_vector(broken: Broken) -> None:
    broken.vectors(lambda v: _set(v, (5, 0), -np.inf))


@mutation("VEC002", "zeros where there was no data")
def zeros_as_nodata(broken: Broken) -> None:
    broken.vectors(lambda v: _set(v, 4, 0))


@mutation("VEC003", "one vector has the same value everywhere", also="VEC012")
def a_constant_vector(broken: Broken) -> None:
    broken.vectors(lambda v: _set(v, 4, v[4].mean()))


@mutation("VEC007", "two chips share one vector")
def a_repeated_vector(broken: Broken) -> None:
    broken.vectors(lambda v: _set(v, 9, v[30]))


@mutation("VEC010", "the model has collapsed: all vectors nearly alike", also="VEC007 VEC011 VEC012")
def collapsed_vectors(broken: Broken) -> None:
    broken.vectors(lambda v: (v[:1] * (1 + 1e-4 * np.arange(len(v))[:, None])).astype(v.dtype))


@mutation("VEC011", "half of the dimensions never vary")
def dead_dimensions(broken: Broken) -> None:
    broken.vectors(lambda v: _set(v, (slice(None), slice(0, None, 2)), 0.25))


@mutation("VEC012", "one vector is a thousand times as long as the others", also="VEC010")
def an_outlying_norm(broken: Broken) -> None:
    broken.vectors(lambda v: _set(v, 8, v[8] * 1000))


@mutation("VEC013", "a batch of 256 chips is shifted against its neighbours", base="large")
def a_shifted_batch(broken: Broken) -> None:
    broken.vectors(lambda v: _set(v, slice(640, 896), v[640:896] + 4 * v.std(axis=0)))


@mutation("VEC004", "int8 vectors are clipped", base="int8", also="VEC014")
def clipped_integers(broken: Broken) -> None:
    broken.vectors(lambda v: np.clip(v.astype(np.int16) * 4, -127, 127).astype(np.int8))


@mutation("VEC005", "the scale of one vector is 0", base="int8", also="VEC002 VEC014")
def a_scale_of_zero(broken: Broken) -> None:
    broken.value("scale", 6, 0.0)


@mutation("VEC014", "scales are inverted: the reference vectors do not come out", base="int8", also="VEC012")
def inverted_scales(broken: Broken) -> None:
    broken.column("scale", lambda scales: [1 / s for s in scales])


@mutation("VEC014", "an int8 release without its reference vectors", base="int8", also="INT010")
def no_reference_vectors(broken: Broken) -> None:
    (broken.folder / "reference.parquet").unlink()
    broken.json("collection.json", lambda c: _drop_asset(c, "reference.parquet"))


@mutation("VEC015", "vectors moved since the version before, with the same fingerprint", base="next", also="VEC012")
def drift_since_last_version(broken: Broken) -> None:
    broken.vectors(lambda v: np.roll(v, 3, axis=1))


@mutation("VEC006", "valid_fraction in percent", also="")
def a_percentage_for_a_share(broken: Broken) -> None:
    broken.column("valid_fraction", lambda values: [100 * v for v in values])


@mutation("VEC006", "a negative loss")
def a_negative_loss(broken: Broken) -> None:
    broken.value("loss", 0, -1.0)


# Places


@mutation("GEO001", "one footprint crosses itself", also="GEO002 GEO004 GEO005 GEO009 GEO012 RDR")
def a_bow_tie(broken: Broken) -> None:
    def tie(shapes: np.ndarray) -> np.ndarray:
        west, south, east, north = shapes[2].bounds
        ring = [(west, south), (east, north), (east, south), (west, north), (west, south)]
        return _set(shapes, 2, shapely.Polygon(ring))

    broken.footprints(tie, rest=False)


@mutation("GEO001", "one geometry is a point", also="GEO004 SCH011")
def a_point_for_a_footprint(broken: Broken) -> None:
    broken.footprints(lambda shapes: _set(shapes, 2, shapes[2].centroid), rest=False)


@mutation("GEO001", "one geometry is no WKB", also="SCH011 RDR002 RDR003")
def garbage_for_a_geometry(broken: Broken) -> None:
    broken.value("geometry", 2, b"not a geometry")


@mutation("GEO002", "rings run clockwise", also="SCH011")
def clockwise_rings(broken: Broken) -> None:
    broken.footprints(shapely.reverse, rest=False)


@mutation("GEO003", "footprints in metres", also="GEO STC006 STC008 SCH011")
def footprints_in_metres(broken: Broken) -> None:
    broken.footprints(lambda shapes: shapely.transform(shapes, lambda xy: xy * 111_320), rest=False)


@mutation("GEO004", "a bbox that is not the bounds of its footprint", also="SCH011")
def a_wrong_bbox(broken: Broken) -> None:
    broken.column("bbox", lambda boxes: [{**boxes[0], "xmin": boxes[0]["xmin"] - 0.01}, *boxes[1:]])


@mutation("GEO005", "lon and lat are the upper left corner", also="GEO011 GEO013 GEO010")
def centres_at_the_corner(broken: Broken) -> None:
    boxes = broken.table(broken.data)["bbox"].to_pylist()
    broken.column("lon", lambda _: [box["xmin"] for box in boxes])
    broken.column("lat", lambda _: [box["ymax"] for box in boxes])


@mutation(
    "GEO006",
    "a footprint that goes round the Earth at the antimeridian",
    also="GEO001 GEO005 GEO008 GEO009 GEO012 GEO014 STC006 STC008",
)
def an_unsplit_antimeridian(broken: Broken) -> None:
    def spread(shapes: np.ndarray) -> np.ndarray:
        _, south, _, north = shapes[0].bounds
        return _set(shapes, 0, shapely.box(-179.99, south, 179.99, north))

    broken.footprints(spread)


@mutation("GEO007", "latitude comes first", also="GEO002 GEO005 GEO008 GEO009 GEO012 SCH011")
def swapped_axes(broken: Broken) -> None:
    broken.footprints(lambda shapes: shapely.transform(shapes, lambda xy: xy[:, ::-1]))


@mutation("GEO008", "all chips lie 2° east of their image", also="GEO011 GEO012 GEO013")
def chips_beside_their_image(broken: Broken) -> None:
    broken.footprints(lambda shapes: _moved(shapes, 2, 0))
    broken.column("lon", lambda values: [v + 2 for v in values])


@mutation("GEO009", "doubled footprints: the transform of the coarsest band", also="GEO012")
def doubled_footprints(broken: Broken) -> None:
    broken.footprints(lambda shapes: np.array([_scaled(s, 2) for s in shapes]))


@mutation("GEO009", "web mercator metres taken for metres on the ground", also="GEO012 GEO008")
def unscaled_web_mercator(broken: Broken) -> None:
    broken.footprints(lambda shapes: np.array([_scaled(s, 1 / np.cos(np.radians(s.centroid.y))) for s in shapes]))


@mutation("GEO010", "the same ground and day twice, with another vector and id", also="COV005 COV012 COV014")
def ground_embedded_twice(broken: Broken) -> None:
    def again(table: pa.Table) -> pa.Table:
        row = table.slice(3, 1).to_pylist()[0]
        row |= {"id": "another-id", "embedding": [1.01 * value + 0.001 for value in row["embedding"]]}
        return pa.concat_tables([table, pa.Table.from_pylist([row], schema=table.schema)])

    broken.change(broken.data, again)
    broken.recount()


@mutation("GEO011", "rows are counted from the bottom", also="GEO012")
def rows_upside_down(broken: Broken) -> None:
    broken.column("row", lambda rows: [max(rows) - r for r in rows])


@mutation(
    "GEO011", "a cell of the grid next to it", base="utm", also="GEO012 COV001 COV002 COV003 COV005 COV006 COV014"
)
def a_column_off_by_one(broken: Broken) -> None:
    broken.column("col", lambda cols: [c + 1 for c in cols])


@mutation("GEO012", "footprints half a pixel away from their pixels")
def footprints_half_a_pixel_off(broken: Broken) -> None:
    broken.footprints(lambda shapes: _moved(shapes, 0.00003, 0.00003))


@mutation("GEO013", "chips in the file of another square", also="STC004 SCH RDR")
def a_file_of_another_square(broken: Broken) -> None:
    old = broken.data
    new = old.replace("_04_41_", "_04_42_")
    (broken.folder / old).rename(broken.folder / new)
    broken.items(lambda item: item["assets"]["embeddings"].update(href=new))


@mutation("GEO014", "the footer's bbox leaves out half of the chips", also="SCH011")
def a_small_footer_bbox(broken: Broken) -> None:
    def shrink(geo: dict) -> None:
        west, south, east, north = geo["columns"]["geometry"]["bbox"]
        geo["columns"]["geometry"]["bbox"] = [west, south, (west + east) / 2, north]

    broken.footer(broken.data, "geo", shrink)


# Times


@mutation("TIM001", "times without a time zone", also="SCH002 SCH010 RDR005")
def no_time_zone(broken: Broken) -> None:
    broken.retype("datetime", pa.timestamp("us"))


@mutation("TIM002", "a period that ends before it starts", also="TIM003")
def a_period_backwards(broken: Broken) -> None:
    table = broken.table(broken.data)
    start, end = table["start_datetime"].to_pylist(), table["end_datetime"].to_pylist()
    broken.column("start_datetime", lambda _: [v + timedelta(seconds=1) for v in end])
    broken.column("end_datetime", lambda _: start)


@mutation("TIM003", "chips of another day than their image", also="TIM005 TIM002 TIM007 STC007")
def another_day(broken: Broken) -> None:
    for name in ("datetime", "start_datetime", "end_datetime"):
        broken.column(name, lambda values: [v + timedelta(days=40) for v in values])


@mutation("TIM004", "dates of 1970", also="TIM002 TIM003 TIM005 TIM007 STC007")
def dates_of_1970(broken: Broken) -> None:
    for name in ("datetime", "start_datetime", "end_datetime"):
        broken.column(name, lambda values: [datetime(1970, 1, 1, tzinfo=UTC)] * len(values))


@mutation("TIM004", "a date to come", also="TIM002 TIM003 TIM005 TIM007 STC007")
def a_date_to_come(broken: Broken) -> None:
    broken.value("datetime", 1, datetime(2099, 1, 1, tzinfo=UTC))


@mutation("TIM006", "a window that the spec does not ask for", also="COV PRV007")
def a_window_nobody_asked_for(broken: Broken) -> None:
    broken.yaml("release.yaml", lambda spec: spec["imagery"][0].update(windows=["2019-01-01/2020-01-01"]))


# Tables


@mutation("SCH001", "no column says which item a chip comes from", also="SCH010 PRV006 COV GEO TIM VEC SCH")
def no_item_id(broken: Broken) -> None:
    broken.change(broken.data, lambda table: table.drop_columns(["item_id"]))
    broken.footer(broken.data, "huggingface", lambda hf: hf["info"]["features"].pop("item_id"))


@mutation("RDR001", "a column with the name of the folder's key", also="SCH001 SCH010 RDR")
def a_column_called_zone(broken: Broken) -> None:
    _more(broken, "zone")


@mutation("SCH001", "an unknown column", also="SCH010 RDR005")
def an_unknown_column(broken: Broken) -> None:
    _more(broken, "tile")


def _more(broken: Broken, name: str) -> None:
    def append(table: pa.Table) -> pa.Table:
        more = table.append_column(name, pa.array([18] * len(table)))
        return more.replace_schema_metadata(table.schema.metadata)

    broken.change(broken.data, append)


@mutation("SCH002", "vectors as lists of any length", also="SCH006 SCH010 RDR005 SCH003")
def lists_of_any_length(broken: Broken) -> None:
    broken.retype("embedding", pa.list_(pa.float32()))


@mutation("SCH002", "coordinates of the centre as text", also="SCH010")
def centres_as_text(broken: Broken) -> None:
    broken.retype("lon", pa.string())


@mutation("SCH003", "a chip without a date", also="TIM RDR003")
def a_null_date(broken: Broken) -> None:
    _nullable(broken, "datetime")
    broken.value("datetime", 3, None)


@mutation("SCH003", "a chip without a vector", also="VEC011 RDR")
def a_null_vector(broken: Broken) -> None:
    _nullable(broken, "embedding")
    broken.value("embedding", 3, None)


@mutation("SCH004", "no emb footer: the file does not say which model made it", also="")
def no_emb_footer(broken: Broken) -> None:
    _without_footer(broken, b"emb")


@mutation("SCH004", "no geo footer at all", also="RDR002 RDR003 SCH011")
def no_geo_footer(broken: Broken) -> None:
    _without_footer(broken, b"geo")


@mutation("SCH005", "no CRS", also="RDR002")
def no_crs(broken: Broken) -> None:
    broken.footer(broken.data, "geo", lambda geo: geo["columns"]["geometry"].update(crs=None))


@mutation("SCH005", "no bbox covering")
def no_covering(broken: Broken) -> None:
    broken.footer(broken.data, "geo", lambda geo: geo["columns"]["geometry"].pop("covering"))


@mutation("SCH006", "the footer states another dimension than the column", also="DOC008")
def a_wrong_dimension_in_the_footer(broken: Broken) -> None:
    broken.footer(broken.data, "emb", lambda emb: emb.update({"emb:dimensions": 768}))


@mutation("SCH009", "one row group of 20,000 rows", base="large", also="INT012 COV DOC GEO VEC RDR INT STC")
def a_large_row_group(broken: Broken) -> None:
    table = pa.concat_tables([broken.table(broken.data)] * 11)
    pq.write_table(table, broken.folder / broken.data, row_group_size=25_000, write_page_checksum=True)


@mutation("SCH010", "the Hugging Face features state another length", also="RDR005")
def wrong_features(broken: Broken) -> None:
    broken.footer(broken.data, "huggingface", lambda hf: hf["info"]["features"]["embedding"].update(length=768))


@mutation("SCH011", "a GeoParquet version that does not exist")
def an_unknown_geoparquet_version(broken: Broken) -> None:
    broken.footer(broken.data, "geo", lambda geo: geo.update(version="1.9.0"))


@mutation("SCH012", "a text file in the embeddings folder", also="RDR")
def a_stray_file(broken: Broken) -> None:
    (broken.folder / "embeddings" / "_SUCCESS").write_text("done")


@mutation("SCH013", "a file name that names no window", also="STC004 COV TIM GEO RDR006")
def a_nameless_file(broken: Broken) -> None:
    new = "embeddings/zone=18/part-00000.parquet"
    (broken.folder / broken.data).rename(broken.folder / new)
    broken.items(lambda item: item["assets"]["embeddings"].update(href=new))


def _set(array: np.ndarray, place: object, value: object) -> np.ndarray:
    array = array.copy()
    array[place] = value
    return array


def _moved(shapes: np.ndarray, east: float, north: float) -> np.ndarray:
    return shapely.transform(shapes, lambda xy: xy + np.array([east, north]))


def _scaled(shape: shapely.Geometry, factor: float) -> shapely.Geometry:
    middle = np.array(shape.centroid.coords[0])
    return shapely.transform(shape, lambda xy: middle + (xy - middle) * factor)


def _nullable(broken: Broken, name: str) -> None:
    def allow(table: pa.Table) -> pa.Table:
        schema = table.schema
        place = schema.get_field_index(name)
        return table.cast(schema.set(place, schema.field(name).with_nullable(nullable=True)))

    broken.change(broken.data, allow)


def _without_footer(broken: Broken, key: bytes) -> None:
    def drop(table: pa.Table) -> pa.Table:
        return table.replace_schema_metadata({k: v for k, v in table.schema.metadata.items() if k != key})

    broken.change(broken.data, drop)


def _drop_asset(collection: dict, path: str) -> None:
    for key, asset in list(collection["assets"].items()):
        if asset["href"].removeprefix("./") == path:
            del collection["assets"][key]
