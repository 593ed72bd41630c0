"""Ways to break times, columns and footers."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
from breakage import Broken, mutation

# Vectors


@mutation("TIM001", "times without a time zone", also="SCH002 SCH010 RDR005")
def no_time_zone(broken: Broken) -> None:
    broken.retype("datetime", pa.timestamp("us"))


@mutation("TIM002", "a period that ends before it starts", also="TIM003 TIM009")
def a_period_backwards(broken: Broken) -> None:
    table = broken.table(broken.data)
    start, end = table["start_datetime"].to_pylist(), table["end_datetime"].to_pylist()
    broken.column("start_datetime", lambda _: [v + timedelta(seconds=1) for v in end])
    broken.column("end_datetime", lambda _: start)


@mutation("TIM003", "chips of another day than their image", also="TIM005 TIM002 TIM007 STC007 TIM009")
def another_day(broken: Broken) -> None:
    for name in ("datetime", "start_datetime", "end_datetime"):
        broken.column(name, lambda values: [v + timedelta(days=40) for v in values])


@mutation("TIM004", "dates of 1970", also="TIM002 TIM003 TIM005 TIM007 STC007 TIM009")
def dates_of_1970(broken: Broken) -> None:
    for name in ("datetime", "start_datetime", "end_datetime"):
        broken.column(name, lambda values: [datetime(1970, 1, 1, tzinfo=UTC)] * len(values))


@mutation("TIM004", "a date to come", also="TIM002 TIM003 TIM005 TIM007 STC007 TIM009")
def a_date_to_come(broken: Broken) -> None:
    broken.value("datetime", 1, datetime(2099, 1, 1, tzinfo=UTC))


@mutation("TIM005", "a file of another day, with the same chips", also="TIM008")
def a_file_of_another_day(broken: Broken) -> None:
    broken.rename(broken.data.replace("_2016-01-12_2016-01-13", "_2016-01-13_2016-01-14"))


@mutation("TIM008", "a file of two days that holds one day's image")
def a_file_of_two_days(broken: Broken) -> None:
    broken.rename(broken.data.replace("_2016-01-12_2016-01-13", "_2016-01-12_2016-01-14"))


@mutation("TIM006", "a window that the spec does not ask for", also="COV PRV007")
def a_window_not_in_the_spec(broken: Broken) -> None:
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


@mutation("SCH001", "no Major TOM cells, which release.yaml asks for")
def no_grid_cell(broken: Broken) -> None:
    broken.yaml("release.yaml", lambda spec: spec["outputs"].update(major_tom_cell=True))


@mutation("SCH001", "no thumbnails, which release.yaml asks for", base="beside", also="SCH DOC")
def no_thumbnail(broken: Broken) -> None:
    broken.change(broken.data, lambda table: table.drop_columns(["thumbnail"]))


def _more(broken: Broken, name: str) -> None:
    def append(table: pa.Table) -> pa.Table:
        more = table.append_column(name, pa.array([18] * len(table)))
        return more.replace_schema_metadata(table.schema.metadata)

    broken.change(broken.data, append)


@mutation("SCH002", "vectors as lists of any length", also="SCH006 SCH010 RDR005 SCH003")
def lists_of_any_length(broken: Broken) -> None:
    broken.retype("embedding", pa.list_(pa.float32()))


@mutation("SCH002", "coordinates of the center as text", also="SCH010")
def centers_as_text(broken: Broken) -> None:
    broken.retype("lon", pa.string())


@mutation("SCH003", "a chip without a date", also="TIM RDR003")
def a_null_date(broken: Broken) -> None:
    _nullable(broken, "datetime")
    broken.value("datetime", 3, None)


@mutation("SCH003", "a chip without a vector", also="VEC011 VEC014 VEC018 RDR")
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


@mutation("SCH006", "the footer states another dimension than the column", also="DOC008 ANY006")
def a_wrong_dimension_in_the_footer(broken: Broken) -> None:
    broken.footer(broken.data, "emb", lambda emb: emb.update({"emb:dimensions": 768}))


@mutation("SCH009", "one row group of 20,000 rows", base="large", also="INT012 COV DOC GEO VEC RDR INT STC")
def a_large_row_group(broken: Broken) -> None:
    table = pa.concat_tables([broken.table(broken.data)] * 11)
    pages = {"write_page_index": True, "data_page_size": 65_536}
    pq.write_table(table, broken.folder / broken.data, row_group_size=25_000, write_page_checksum=True, **pages)


@mutation("SCH010", "the Hugging Face features state another length", also="RDR005")
def wrong_features(broken: Broken) -> None:
    broken.footer(broken.data, "huggingface", lambda hf: hf["info"]["features"]["embedding"].update(length=768))


@mutation("SCH011", "a GeoParquet version that does not exist")
def an_unknown_geoparquet_version(broken: Broken) -> None:
    broken.footer(broken.data, "geo", lambda geo: geo.update(version="1.9.0"))


@mutation("SCH012", "a text file in the embeddings folder", also="RDR")
def a_stray_file(broken: Broken) -> None:
    (broken.folder / "embeddings" / "_SUCCESS").write_text("done")


@mutation("SCH013", "a file name that names no window", also="SCH016 STC004 COV TIM GEO RDR006")
def a_nameless_file(broken: Broken) -> None:
    broken.rename("embeddings/zone=18/part-00000.parquet")


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
