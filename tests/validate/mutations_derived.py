"""Ways to break what follows from a chip's cell and images: ids, codes of grids, periods, cloud, loss, gaps."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pyarrow as pa
from breakage import Broken, mutation

Row = dict[str, Any]


def _rows(broken: Broken, path: str, edit: Callable[[int, Row], Any]) -> None:
    """Edit the rows of a table as Python values."""

    def change(table: pa.Table) -> pa.Table:
        rows = table.to_pylist()
        for number, row in enumerate(rows):
            edit(number, row)
        return pa.Table.from_pylist(rows, schema=table.schema)

    broken.change(path, change)


def _rename(broken: Broken, new: Callable[[int, str], str]) -> None:
    """Give chips other ids, in every table that names them."""
    before = broken.table(broken.data)["id"].to_pylist()
    names = {old: new(number, old) for number, old in enumerate(before)}
    for path in (broken.data, broken.coverage):
        broken.column("id", lambda ids: [names.get(one, one) for one in ids], path)


@mutation("SCH017", "ids of two chips are swapped, in all tables", base="utm", also="VEC014 COV014")
def ids_of_other_cells(broken: Broken) -> None:
    before = broken.table(broken.data)["id"].to_pylist()
    swap = {before[3]: before[9], before[9]: before[3]}
    _rename(broken, lambda _, old: swap.get(old, old))


@mutation("SCH017", "ids are numbers of an external numbering")
def ids_that_are_numbers(broken: Broken) -> None:
    _rename(broken, lambda number, _: f"chip-{number:05}")


@mutation("SCH017", "ids name the window of another month")
def ids_of_another_window(broken: Broken) -> None:
    _rename(broken, lambda _, old: old.replace("2016-01", "2016-02"))


@mutation("SCH018", "one file lacks the loss that the others have", base="beside", also="VEC022")
def a_file_without_loss(broken: Broken) -> None:
    broken.column("loss", lambda values: [None] * len(values))


@mutation("SCH018", "a loss where release.yaml asks for none")
def a_loss_that_is_not_asked_for(broken: Broken) -> None:
    broken.column("loss", lambda values: [0.5] * len(values))


@mutation("SCH018", "all losses are 0", base="beside")
def losses_that_are_zero(broken: Broken) -> None:
    for path in (broken.data, broken.aggregates):
        broken.column("loss", lambda values: [0.0] * len(values), path)


@mutation("COV019", "the coverage places chips in the next zone")
def coverage_in_the_next_zone(broken: Broken) -> None:
    broken.column("epsg", lambda codes: [code + 1 for code in codes], broken.coverage)


@mutation("COV019", "the windows of the coverage end a day later")
def longer_windows_in_the_coverage(broken: Broken) -> None:
    broken.column("window_end", lambda values: [value + timedelta(days=1) for value in values], broken.coverage)


@mutation("COV018", "the coverage does not say which chips were not cloud-checked")
def coverage_that_was_cloud_checked(broken: Broken) -> None:
    _rows(broken, broken.coverage, lambda _, row: row.update(detail=None))


@mutation("GEO015", "the EPSG code is that of the next zone", also="COV019")
def epsg_of_the_next_zone(broken: Broken) -> None:
    for path in (broken.data, broken.coverage):
        broken.column("epsg", lambda codes: [code + 1 for code in codes], path)


@mutation("GEO015", "one chip has the EPSG code of the next zone", base="utm", also="COV GEO011 GEO012 GEO013 SCH017")
def one_epsg_of_the_next_zone(broken: Broken) -> None:
    broken.column("epsg", lambda codes: [codes[0] + 1, *codes[1:]])


@mutation("TIM009", "periods end a day after the acquisition")
def periods_that_end_later(broken: Broken) -> None:
    broken.column("end_datetime", lambda values: [value + timedelta(days=1) for value in values])


@mutation("TIM009", "periods begin a day before the acquisition", base="utm")
def periods_that_begin_earlier(broken: Broken) -> None:
    broken.column("start_datetime", lambda values: [value - timedelta(days=1) for value in values])


@mutation("PRV018", "a cloud fraction of 0 that was never measured")
def a_cloud_fraction_without_a_mask(broken: Broken) -> None:
    broken.column("cloud_fraction", lambda values: [0.0] * len(values))
    _rows(broken, broken.coverage, lambda _, row: row.update(detail=None))
    broken.json("collection.json", lambda c: c["embrel:coverage"].pop("not_cloud_checked", None))


@mutation("COV018", "chips under cloud, and the detail of nodata", base="clouds")
def details_of_another_reason(broken: Broken) -> None:
    def edit(_: int, row: Row) -> None:
        if row["reason"] == "cloud":
            row["detail"] = "0.400 of the pixels are valid"

    _rows(broken, broken.coverage, edit)
    _redraw(broken, "0.400 of the pixels are valid")


@mutation("COV018", "chips missing for a share of cloud that the spec allows", base="clouds")
def details_within_the_limit(broken: Broken) -> None:
    def edit(_: int, row: Row) -> None:
        if row["reason"] == "cloud":
            row["detail"] = "0.010 of the pixels are under cloud"

    _rows(broken, broken.coverage, edit)
    _redraw(broken, "0.010 of the pixels are under cloud")


@mutation("COV018", "an embedded chip with the detail of one that is missing")
def a_detail_of_an_embedded_chip(broken: Broken) -> None:
    broken.value("detail", 3, "the budget was spent before its turn", broken.coverage)


def _redraw(broken: Broken, detail: str) -> None:
    """Details of gaps under cloud follow."""

    def edit(gaps: dict[str, Any]) -> None:
        for feature in gaps["features"]:
            if feature["properties"]["reason"] == "cloud":
                feature["properties"]["detail"] = detail

    broken.json("gaps.geojson", edit)


@mutation("COV013", "gaps.geojson draws the gaps a kilometer farther east", base="clouds")
def gaps_elsewhere(broken: Broken) -> None:
    def edit(gaps: dict[str, Any]) -> None:
        for feature in gaps["features"]:
            rings = feature["geometry"]["coordinates"]
            feature["geometry"]["coordinates"] = [[[x + 0.01, y] for x, y in ring] for ring in rings]

    broken.json("gaps.geojson", edit)


@mutation("COV013", "gaps are drawn upside down", base="clouds")
def gaps_upside_down(broken: Broken) -> None:
    def edit(gaps: dict[str, Any]) -> None:
        for feature in gaps["features"]:
            [ring] = feature["geometry"]["coordinates"]
            middle = min(y for _, y in ring) + max(y for _, y in ring)
            feature["geometry"]["coordinates"] = [[[x, middle - y] for x, y in reversed(ring)]]

    broken.json("gaps.geojson", edit)


@mutation("COV013", "gaps.geojson names another CRS", base="clouds")
def gaps_of_another_crs(broken: Broken) -> None:
    broken.json("gaps.geojson", lambda gaps: gaps.update(crs={"type": "name", "properties": {"name": "EPSG:32629"}}))


@mutation("COV013", "one gap is drawn with two chips more, another with two less", base="clouds")
def gaps_of_other_sizes(broken: Broken) -> None:
    def edit(gaps: dict[str, Any]) -> None:
        large = [f["properties"] for f in gaps["features"] if f["properties"]["chips"] > 2]
        gaps["features"][0]["properties"]["chips"] += 2
        large[-1]["chips"] -= 2

    broken.json("gaps.geojson", edit)


@mutation("COV013", "the gaps of one reason are drawn as another's", base="clouds")
def gaps_of_another_reason(broken: Broken) -> None:
    broken.json("gaps.geojson", lambda gaps: gaps["features"][0]["properties"].update(reason="nodata"))


@mutation("COV013", "gaps.geojson names another window", base="clouds")
def gaps_of_another_window(broken: Broken) -> None:
    broken.json("gaps.geojson", lambda gaps: gaps["features"][0]["properties"].update(window="2020-03-01/2020-04-01"))


@mutation("COV013", "gaps.geojson has a member beside its features", base="clouds")
def gaps_with_a_member_more(broken: Broken) -> None:
    broken.json("gaps.geojson", lambda gaps: gaps.update(name="gaps of another release"))


@mutation("COV013", "gaps have a property that does not follow from the coverage", base="clouds")
def gaps_with_a_property_more(broken: Broken) -> None:
    _each_gap(broken, lambda gap: gap["properties"].update(planned="2027"))


@mutation("COV013", "gaps lack their detail", base="clouds")
def gaps_without_detail(broken: Broken) -> None:
    _each_gap(broken, lambda gap: gap["properties"].pop("detail"))


@mutation("COV013", "gaps have ids and boxes of their own", base="clouds")
def gaps_with_members_more(broken: Broken) -> None:
    _each_gap(broken, lambda gap: gap.update(id=1, bbox=[0, 0, 1, 1]))


@mutation("COV013", "gaps have heights", base="clouds")
def gaps_with_heights(broken: Broken) -> None:
    def edit(gap: dict[str, Any]) -> None:
        gap["geometry"]["coordinates"] = [[[x, y, 8848] for x, y in ring] for ring in gap["geometry"]["coordinates"]]

    _each_gap(broken, edit)


@mutation("COV013", "a gap is drawn twice", base="clouds")
def a_gap_drawn_twice(broken: Broken) -> None:
    broken.json("gaps.geojson", lambda gaps: gaps["features"].append(gaps["features"][0]))


def _each_gap(broken: Broken, edit: Callable[[dict[str, Any]], Any]) -> None:
    broken.json("gaps.geojson", lambda gaps: [edit(gap) for gap in gaps["features"]])
