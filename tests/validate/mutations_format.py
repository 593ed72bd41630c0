"""Ways to break what release format 2 promises."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from breakage import Broken, mutation

# Tables


@mutation("SCH020", "embeddings without a page index")
def no_page_index(broken: Broken) -> None:
    table = broken.table(broken.data)
    pq.write_table(table, broken.folder / broken.data, write_page_checksum=True, data_page_size=65_536)


@mutation("SCH020", "data pages of a megabyte", base="large")
def large_pages(broken: Broken) -> None:
    table = broken.table(broken.data)
    options = {"write_page_checksum": True, "write_page_index": True, "use_dictionary": False}
    pq.write_table(table, broken.folder / broken.data, row_group_size=1_024, **options)


@mutation("SCH021", "coverage in the order of columns")
def coverage_in_another_order(broken: Broken) -> None:
    broken.change(broken.coverage, lambda table: table.sort_by([("col", "ascending"), ("row", "ascending")]))


@mutation("SCH021", "coverage in one row group of more than 4,096 rows", base="large", also="COV INT DOC")
def a_large_row_group_of_coverage(broken: Broken) -> None:
    table = broken.table(broken.coverage)
    many = table.take(pa.array(np.repeat(np.arange(len(table)), 3)))
    options = {"write_page_checksum": True, "write_page_index": True}
    pq.write_table(many, broken.folder / broken.coverage, row_group_size=10_000, **options)


# Measurements


@mutation("PRV020", "a run.json that is none")
def measurements_that_are_none(broken: Broken) -> None:
    broken.json("run.json", lambda run: run.update(seconds="long"))


@mutation("PRV020", "seconds in the manifest", settle=False)
def seconds_in_the_manifest(broken: Broken) -> None:
    broken.json("manifest.json", lambda m: m["run"].update(seconds=12.5))


@mutation("PRV020", "energy in the footer of an embeddings file")
def energy_in_a_footer(broken: Broken) -> None:
    broken.footer(broken.data, "emb", lambda emb: emb.update({"emb:energy": {"device_type": "cpu"}}))


@mutation("PRV020", "a checksum of run.json in the Collection")
def a_checksum_of_measurements(broken: Broken) -> None:
    broken.json("collection.json", lambda c: c["assets"]["run"].update({"file:size": 1}))


@mutation("INT010", "a release without run.json", also="DOC STC PRV020")
def no_measurements(broken: Broken) -> None:
    (broken.folder / "run.json").unlink()


# Dates


@mutation("DOC020", "a citation of another day than the spec's")
def a_citation_of_another_day(broken: Broken) -> None:
    broken.yaml("CITATION.cff", lambda cited: cited.update({"date-released": "2001-01-01"}))


@mutation("DOC020", "a DataCite document of another day")
def datacite_of_another_day(broken: Broken) -> None:
    broken.json("datacite.json", lambda d: d["dates"][0].update(date="2001-01-01"))


@mutation("DOC020", "a changelog that names another day")
def a_changelog_of_another_day(broken: Broken) -> None:
    day = str(broken.release.spec().released)
    broken.text("CHANGELOG.md", day, "2001-01-01")


@mutation("DOC020", "a collection that is cited with another year")
def a_collection_of_another_year(broken: Broken) -> None:
    broken.json("collection.json", lambda c: c.update({"sci:citation": "The creators (2001). Shore."}))


@mutation("DOC020", "a spec without the day of the release")
def a_spec_without_its_day(broken: Broken) -> None:
    broken.yaml("release.yaml", lambda spec: spec.pop("released"))
