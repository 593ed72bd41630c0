"""Ways to break the coverage: chips lost, promised, invented, or wrongly explained."""

import re
from datetime import timedelta
from typing import Any

import pyarrow as pa
from breakage import Broken, changed, mutation

from clay_publish.producer.outputs.missing import write_gaps

# Files


@mutation(
    "COV003",
    "a manifest that omits a band of longitude, as its catalog does",
    base="morocco",
    also="COV012 COV014 STC008 DOC",
)
def an_omitted_longitude_band(broken: Broken) -> None:
    gone = broken.data
    (broken.folder / gone).unlink()
    broken.change_items(lambda rows: [row for row in rows if row["assets"]["embeddings"]["href"] != gone])
    broken.rebound()
    broken.recount()


@mutation("COV001", "a chip is lost, and no row says so", also="")
def a_silent_gap(broken: Broken) -> None:
    _lose(broken, 7)
    broken.change(broken.coverage, lambda t: _without(t, [*_lost]))
    _expect_fewer(broken)


@mutation("COV001", "a chip of the utm grid is lost, and no row says so", base="utm")
def a_silent_gap_in_utm(broken: Broken) -> None:
    _lose(broken, 7)
    broken.change(broken.coverage, lambda t: _without(t, [*_lost]))
    _expect_fewer(broken)


@mutation("COV002", "chips of an image outside of the declared area", also="COV006 COV")
def chips_outside_of_the_area(broken: Broken) -> None:
    west, south, east, north = _bounds(broken)
    broken.yaml("release.yaml", lambda spec: spec["imagery"][0].update(area=[west, south, (west + east) / 2, north]))


@mutation("COV003", "the coverage says embedded, the file lacks the chip", also="COV012 COV014")
def a_chip_only_promised(broken: Broken) -> None:
    _lose(broken, 7)


@mutation("COV004", "the coverage says missing, the file has the chip", also="COV012 COV013 COV014")
def a_chip_called_missing(broken: Broken) -> None:
    _edit_row(broken, 5, status="missing", reason="cloud", detail=_DETAILS["cloud"])


@mutation("COV005", "an embedded chip is not in the coverage", also="COV012 COV014")
def a_chip_not_in_the_coverage(broken: Broken) -> None:
    broken.change(broken.coverage, lambda t: t.slice(1))


@mutation("COV006", "the coverage speaks of a row of chips that the image does not have", also="COV012 COV013")
def invented_gaps(broken: Broken) -> None:
    def more(table: pa.Table) -> pa.Table:
        row = table.slice(0, 1).to_pylist()[0] | {
            "id": "beyond",
            "row": 99,
            "status": "missing",
            "reason": "nodata",
            "detail": _DETAILS["nodata"],
        }
        return pa.concat_tables([table, pa.Table.from_pylist([row], schema=table.schema)])

    broken.change(broken.coverage, more)


@mutation("COV006", "the coverage speaks of a chip of another zone", base="morocco", also="COV005")
def another_zone_in_the_coverage(broken: Broken) -> None:
    broken.column("epsg", lambda codes: [*codes[:-1], codes[-1] + 1], broken.coverage)


@mutation(
    "COV006", "the coverage speaks of a window that the spec does not ask for", base="morocco", also="COV019 COV005"
)
def another_window_in_the_coverage(broken: Broken) -> None:
    for name in ("window_start", "window_end"):
        broken.column(name, lambda values: [*values[:-1], values[-1] + timedelta(days=1)], broken.coverage)


@mutation("COV007", "a gap without a reason", also="COV013")
def a_gap_without_a_reason(broken: Broken) -> None:
    _lose(broken, 7)
    _explain(broken, None)


@mutation("COV007", "a gap with an unknown reason", also="COV013")
def an_unknown_reason(broken: Broken) -> None:
    _lose(broken, 7)
    _explain(broken, "bad luck")


@mutation("COV008", "a gap blamed on a budget that the spec does not have")
def a_budget_that_does_not_exist(broken: Broken) -> None:
    _lose(broken, 7)
    _explain(broken, "over_budget")


@mutation("COV008", "a gap for want of images in a release of single images", also="COV018")
def too_few_images_of_one(broken: Broken) -> None:
    _lose(broken, 7)
    _explain(broken, "too_few_images")


@mutation("COV008", "one chip called unreadable in an image that was read")
def unreadable_in_a_read_image(broken: Broken) -> None:
    _lose(broken, 7)
    _explain(broken, "unreadable")


@mutation("COV008", "a cell in the middle of an image said to have no imagery", base="utm")
def no_imagery_in_an_image(broken: Broken) -> None:
    rows = broken.table(broken.data).select(["row", "col"]).to_pandas()
    away = (rows - rows.median()).abs().sum(axis=1)
    _lose(broken, int(away.argmin()))
    _explain(broken, "no_imagery")


@mutation(
    "COV016", "a cell twice in one window, with another vector and id", base="utm", also="COV012 COV014 GEO010 SCH017"
)
def a_cell_twice(broken: Broken) -> None:
    def again(table: pa.Table) -> pa.Table:
        row = table.slice(2, 1).to_pylist()[0]
        row |= {"id": "another-id", "embedding": changed(row["embedding"])}
        return pa.concat_tables([table, pa.Table.from_pylist([row], schema=table.schema)])

    broken.change(broken.data, again)
    broken.recount()


@mutation("COV009", "a chip with more cloud than the spec allows", also="COV018 PRV018")
def a_cloudy_chip(broken: Broken) -> None:
    broken.value("cloud_fraction", 2, 0.9)


@mutation("COV009", "a chip that is half nodata")
def a_half_empty_chip(broken: Broken) -> None:
    broken.value("valid_fraction", 2, 0.5)


@mutation("COV010", "two thirds of the chips missing, with reasons", also="VEC013 GEO")
def mostly_missing(broken: Broken) -> None:
    _lose(broken, *range(80))
    _explain(broken, "cloud")
    broken.tell()


@mutation("COV011", "the declared area has a hole where the image is", also="COV002 COV006 COV")
def a_hole_in_the_area(broken: Broken) -> None:
    west, south, east, north = _bounds(broken)
    x, y = (west + east) / 2, (south + north) / 2
    outer = [
        [west - 1, south - 1],
        [east + 1, south - 1],
        [east + 1, north + 1],
        [west - 1, north + 1],
        [west - 1, south - 1],
    ]
    hole = [[x, y], [x, y + 0.01], [x + 0.01, y + 0.01], [x + 0.01, y], [x, y]]
    area = {"type": "Polygon", "coordinates": [outer, hole]}
    broken.yaml("release.yaml", lambda spec: spec["imagery"][0].update(area=area))


@mutation("COV012", "the manifest counts more chips than there are", settle=False, also="DOC011")
def a_boasting_manifest(broken: Broken) -> None:
    broken.json("manifest.json", lambda m: m["run"]["coverage"].update(expected=10_000, embedded=10_000))


@mutation("COV013", "gaps.geojson draws a gap that is none")
def a_gap_that_is_none(broken: Broken) -> None:
    square = [[[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]]
    feature = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": square},
        "properties": {"reason": "cloud", "chips": 3},
    }
    broken.json("gaps.geojson", lambda gaps: gaps["features"].append(feature))


@mutation("COV014", "the coverage names a chip by another id")
def another_id_in_the_coverage(broken: Broken) -> None:
    broken.value("id", 4, "somebody-else", broken.coverage)


@mutation(
    "COV015",
    "an image without grid that coverage omits",
    also="COV002 COV003 COV004 COV005 COV006 GEO011 GEO012 PRV021",
)
def an_image_that_is_not_counted(broken: Broken) -> None:
    def more(table: pa.Table) -> pa.Table:
        row = table.to_pylist()[0] | {"id": "blind", "proj_shape": None, "proj_transform": None}
        return pa.concat_tables([table, pa.Table.from_pylist([row], schema=table.schema)])

    broken.change("sources.parquet", more)


# STAC


_lost: dict[str, bytes] = {}
"""Id and footprint of the chips that were lost."""


def _lose(broken: Broken, *rows: int) -> None:
    """Take chips out of the table; what counts rows counts the rest."""
    table = broken.table(broken.data)
    ids, shapes = table["id"].to_pylist(), table["geometry"].to_pylist()
    _lost.clear()
    _lost.update((ids[row], shapes[row]) for row in rows)
    broken.keep([n for n in range(len(ids)) if n not in rows])
    broken.rebound()
    broken.recount()


def _expect_fewer(broken: Broken) -> None:
    """The lost chips are not expected any more; so say manifest and collection."""
    for path, place in (("manifest.json", ("run", "coverage")), ("collection.json", ("embrel:coverage",))):

        def lower(document: dict[str, Any], place: tuple[str, ...] = place) -> None:
            for key in place:
                document = document[key]
            document["expected"] -= len(_lost)

        broken.json(path, lower)


def _without(table: pa.Table, ids: list[str]) -> pa.Table:
    return table.filter(pa.array([i not in ids for i in table["id"].to_pylist()]))


_DETAILS = {
    "cloud": "0.900 of the pixels are under cloud",
    "nodata": "0.100 of the pixels are valid",
    "over_budget": "the budget was spent before its turn",
    "unreadable": "the image could not be read",
}


def _explain(broken: Broken, reason: str | None) -> None:
    """Call the lost chips missing, everywhere."""
    more = {"status": "missing", "reason": reason, "detail": _DETAILS.get(str(reason))}

    def edit(table: pa.Table) -> pa.Table:
        rows = [row | more if row["id"] in _lost else row for row in table.to_pylist()]
        return pa.Table.from_pylist(rows, schema=table.schema)

    broken.change(broken.coverage, edit)
    missing = [row for row in broken.table(broken.coverage).to_pylist() if row["status"] == "missing"]
    drawn = [row | {"geometry": _lost[row["id"]], "zone": (row["epsg"] or 0) % 100} for row in missing]
    write_gaps(broken.release, [pa.Table.from_pylist(drawn)])
    broken.json("manifest.json", lambda m: m["run"]["coverage"].update({str(reason): len(_lost)}))


def _edit_row(broken: Broken, row: int, **values: object) -> None:
    for name, value in values.items():
        broken.value(name, row, value, broken.coverage)


def _bounds(broken: Broken) -> tuple[float, float, float, float]:
    boxes = broken.table(broken.data)["bbox"].to_pylist()
    return (
        min(b["xmin"] for b in boxes),
        min(b["ymin"] for b in boxes),
        max(b["xmax"] for b in boxes),
        max(b["ymax"] for b in boxes),
    )


@mutation("INT015", "an image that would hold more chips than can be numbered", also="GEO SCH PRV STC")
def an_image_of_too_many_chips(broken: Broken) -> None:
    broken.sources(lambda row: row.update(proj_shape=[2_000_000_000, 2_000_000_000]))


@mutation("INT007", "text of the coverage table that is not UTF-8", also="COV SCH")
def a_status_that_is_no_text(broken: Broken) -> None:
    def spoil(table: pa.Table) -> pa.Table:
        words = [b"emb\xff\xfeded" if n == 0 else str(w).encode() for n, w in enumerate(table["status"].to_pylist())]
        column = pa.array(words, pa.binary()).view(pa.string())
        return table.set_column(table.schema.get_field_index("status"), table.schema.field("status"), column)

    broken.change(broken.coverage, spoil)


@mutation("VEC023", "cloud fractions of 0 where there is cloud", base="clouds")
def no_cloud_at_all(broken: Broken) -> None:
    broken.column("cloud_fraction", lambda shares: [0.0 for _ in shares])


@mutation("VEC023", "gaps because of cloud are said to have no data", base="clouds")
def clouds_called_nodata(broken: Broken) -> None:
    def relabel(table: pa.Table) -> pa.Table:
        rows = table.to_pylist()
        for row in rows:
            if row["reason"] == "cloud":
                row.update(reason="nodata", detail=_valid(row["detail"]))
        return pa.Table.from_pylist(rows, schema=table.schema)

    broken.change(broken.coverage, relabel)
    for path in ("README.md", "hosts/source.coop/README.md"):
        broken.text(path, "(`cloud`)", "(`nodata`)")
    for path in ("collection.json", "manifest.json", "gaps.geojson"):
        broken.text(path, '"cloud"', '"nodata"')
    gaps = broken.folder / "gaps.geojson"
    gaps.write_text(_valid(gaps.read_text()))


def _valid(text: str) -> str:
    """A share of cloud as a smaller one of valid pixels."""
    shares = re.compile(r"(\d\.\d{3}) of the pixels are under cloud")
    return shares.sub(lambda found: f"{(1 - float(found[1])) / 2:.3f} of the pixels are valid", text)
