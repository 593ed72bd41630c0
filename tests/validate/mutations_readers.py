"""Ways to break what single readers need, and as little else as can be."""

import pyarrow as pa
import pyarrow.parquet as pq
from breakage import Broken, mutation

from clay_publish.release.tables import hugging_face_features


@mutation("RDR002", "the footer's primary column is none of the file's", also="SCH005 SCH011 RDR003")
def a_primary_column_that_is_not_there(broken: Broken) -> None:
    broken.footer(broken.data, "geo", lambda geo: geo.update(primary_column="footprint"))


@mutation("RDR003", "days for dates: no time of day", also="SCH002 TIM RDR005")
def days_for_dates(broken: Broken) -> None:
    broken.retype("datetime", pa.date32())
    features = hugging_face_features(broken.table(broken.data).schema)
    broken.footer(broken.data, "huggingface", lambda hf: hf["info"].update(features=features))


@mutation("RDR004", "half-precision vectors in an encoding that DuckDB cannot read", base="float16", also="SCH020")
def an_encoding_that_one_reader_lacks(broken: Broken) -> None:
    pq.write_table(
        broken.table(broken.data),
        broken.folder / broken.data,
        compression="zstd",
        use_dictionary=False,
        column_encoding={"embedding.list.element": "BYTE_STREAM_SPLIT"},
        write_page_checksum=True,
    )


@mutation("RDR005", "vectors as lists of any length, as the footer says too", also="SCH002 SCH003 SCH006")
def lists_that_the_footer_admits(broken: Broken) -> None:
    broken.retype("embedding", pa.list_(pa.float32()))
    features = hugging_face_features(broken.table(broken.data).schema)
    broken.footer(broken.data, "huggingface", lambda hf: hf["info"].update(features=features))


@mutation("RDR006", "a file named by its date alone", also="SCH013 SCH016 STC004 COV TIM GEO")
def a_file_without_its_square(broken: Broken) -> None:
    broken.rename("embeddings/zone=18/2016-01-12_2016-01-13.parquet")


@mutation("RDR007", "an item table without the footer that makes it GeoParquet")
def items_that_are_no_geoparquet(broken: Broken) -> None:
    table = broken.table("items.parquet")
    footer = {key: value for key, value in table.schema.metadata.items() if key != b"geo"}
    file = broken.folder / "items.parquet"
    pq.write_table(table.replace_schema_metadata(footer), file, write_page_checksum=True)
