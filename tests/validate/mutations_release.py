"""Ways to break what surrounds the embeddings: files, coverage, STAC, documents, provenance."""

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from breakage import Broken, mutation

from clay_publish.fingerprint import Fingerprint

# Files


@mutation("INT001", "the manifest names a file that is not there", also="INT010 STC009 STC011", settle=False)
def a_missing_file(broken: Broken) -> None:
    (broken.folder / "gaps.geojson").unlink()


@mutation(
    "INT001", "a file of the embeddings is lost", base="morocco", settle=False, also="STC COV003 COV012 COV014 DOC"
)
def a_lost_file(broken: Broken) -> None:
    (broken.folder / broken.data).unlink()


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


@mutation("INT002", "a file that the manifest does not name", settle=False)
def an_unlisted_file(broken: Broken) -> None:
    (broken.folder / "notes.txt").write_text("do not publish")


@mutation("INT003", "a document that was changed after the manifest", settle=False, also="INT004 STC009")
def a_changed_document(broken: Broken) -> None:
    with (broken.folder / "CHANGELOG.md").open("a") as file:
        file.write("one more line\n")


@mutation("INT004", "one bit of a picture flipped", settle=False, also="STC009")
def a_flipped_bit_in_a_picture(broken: Broken) -> None:
    _flip(broken.folder / "figures" / "coverage.png", 0.5)


@mutation("INT005", "SHA256SUMS of another version", settle=False)
def stale_checksums(broken: Broken) -> None:
    lines = (broken.folder / "SHA256SUMS").read_text().splitlines()
    (broken.folder / "SHA256SUMS").write_text("\n".join([f"{'0' * 64}{lines[0][64:]}", *lines[1:]]) + "\n")


@mutation(
    "INT006",
    "an embeddings file cut short in transfer",
    settle=False,
    also="INT003 INT004 STC RDR SCH COV GEO VEC TIM DOC PRV",
)
def a_truncated_file(broken: Broken) -> None:
    data = (broken.folder / broken.data).read_bytes()
    (broken.folder / broken.data).write_bytes(data[: len(data) // 2])


@mutation("INT007", "one bit of a vector flipped, checksums recomputed", also="RDR SCH011")
def a_flipped_bit_in_a_vector(broken: Broken) -> None:
    meta = pq.read_metadata(broken.folder / broken.data).row_group(0)
    chunk = next(c for c in map(meta.column, range(meta.num_columns)) if c.path_in_schema.startswith("embedding"))
    _flip_at(broken.folder / broken.data, chunk.data_page_offset + chunk.total_compressed_size // 2)


@mutation("INT008", "pages without checksums")
def no_page_checksums(broken: Broken) -> None:
    table = broken.table(broken.data)
    pq.write_table(table, broken.folder / broken.data, compression="zstd", write_page_checksum=False)


@mutation("INT009", "the manifest counts another number of rows", settle=False)
def a_wrong_row_count_in_the_manifest(broken: Broken) -> None:
    broken.json(
        "manifest.json", lambda m: [e.update(rows=e["rows"] + 1) for e in m["files"] if e["path"] == broken.data]
    )


@mutation("INT010", "a release without a citation", also="DOC STC009")
def no_citation(broken: Broken) -> None:
    (broken.folder / "CITATION.cff").unlink()


@mutation("INT011", "a path in the manifest that leads out of the release", settle=False, also="INT005")
def a_path_out_of_the_release(broken: Broken) -> None:
    broken.json(
        "manifest.json", lambda m: m["files"].append({"path": "../../etc/passwd", "size": 1, "sha256": "0" * 64})
    )


@mutation("INT012", "the same id twice", also="COV014 COV005")
def an_id_twice(broken: Broken) -> None:
    broken.column("id", lambda ids: [ids[1], *ids[1:]])


# Coverage


@mutation("COV001", "a chip is lost, and no row says so", also="")
def a_silent_gap(broken: Broken) -> None:
    _lose(broken, 7)
    broken.change(broken.coverage, lambda t: _without(t, _lost_id))
    _expect_fewer(broken)


@mutation("COV001", "a chip of the utm grid is lost, and no row says so", base="utm")
def a_silent_gap_in_utm(broken: Broken) -> None:
    _lose(broken, 7)
    broken.change(broken.coverage, lambda t: _without(t, _lost_id))
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
    _edit_row(broken, 5, status="missing", reason="cloud")


@mutation("COV005", "an embedded chip is not in the coverage", also="COV012 COV014")
def a_chip_not_in_the_coverage(broken: Broken) -> None:
    broken.change(broken.coverage, lambda t: t.slice(1))


@mutation("COV006", "the coverage speaks of a row of chips that the image does not have", also="COV012 COV013")
def invented_gaps(broken: Broken) -> None:
    def more(table: pa.Table) -> pa.Table:
        row = table.slice(0, 1).to_pylist()[0] | {"id": "beyond", "row": 99, "status": "missing", "reason": "nodata"}
        return pa.concat_tables([table, pa.Table.from_pylist([row], schema=table.schema)])

    broken.change(broken.coverage, more)


@mutation("COV007", "a gap without a reason", also="COV013")
def a_gap_without_a_reason(broken: Broken) -> None:
    _lose(broken, 7)
    _explain(broken, None)


@mutation("COV007", "a gap with a reason that nobody knows", also="COV013")
def an_unknown_reason(broken: Broken) -> None:
    _lose(broken, 7)
    _explain(broken, "bad luck")


@mutation("COV008", "a gap blamed on a budget that the spec does not have")
def a_budget_that_does_not_exist(broken: Broken) -> None:
    _lose(broken, 7)
    _explain(broken, "over_budget")


@mutation("COV008", "one chip called unreadable in an image that was read")
def unreadable_in_a_read_image(broken: Broken) -> None:
    _lose(broken, 7)
    _explain(broken, "unreadable")


@mutation("COV009", "a chip with more cloud than the spec allows")
def a_cloudy_chip(broken: Broken) -> None:
    broken.value("cloud_fraction", 2, 0.9)


@mutation("COV009", "a chip that is half nodata")
def a_half_empty_chip(broken: Broken) -> None:
    broken.value("valid_fraction", 2, 0.5)


@mutation("COV010", "two thirds of the chips missing, with reasons", also="VEC013 GEO")
def mostly_missing(broken: Broken) -> None:
    _lose(broken, *range(80))
    _explain(broken, "cloud")


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
    "COV015", "an image without grid that nobody mentions", also="COV002 COV003 COV004 COV005 COV006 GEO011 GEO012"
)
def an_image_nobody_counts(broken: Broken) -> None:
    def more(table: pa.Table) -> pa.Table:
        row = table.to_pylist()[0] | {"id": "blind", "proj_shape": None, "proj_transform": None}
        return pa.concat_tables([table, pa.Table.from_pylist([row], schema=table.schema)])

    broken.change("sources.parquet", more)


# STAC


@mutation("STC001", "a collection without its extent", also="STC008 TIM007")
def no_extent(broken: Broken) -> None:
    broken.json("collection.json", lambda c: c.pop("extent"))


@mutation("STC001", "an extension's field of the wrong type")
def a_wrong_extension_field(broken: Broken) -> None:
    broken.json("collection.json", lambda c: c.update({"embrel:pooling": 5}))


@mutation("STC002", "items that are no STAC items: no links to their collection's type", also="RDR STC011")
def items_of_another_version(broken: Broken) -> None:
    broken.items(lambda item: item.update(stac_version="0.5.0"))


@mutation("STC003", "a model item without its geometry's type", also="STC003")
def an_invalid_model(broken: Broken) -> None:
    broken.json("model.json", lambda m: m.update(geometry={"coordinates": [0, 0]}))


@mutation("STC004", "an embeddings file without an Item", also="STC DOC RDR007")
def no_item_for_a_file(broken: Broken) -> None:
    broken.items(
        lambda item: item["assets"]["embeddings"].update(
            href="embeddings/zone=18/18_04_40_2016-01-12_2016-01-13.parquet"
        )
    )


@mutation("STC005", "an Item counts other rows than its file has")
def a_wrong_row_count_in_an_item(broken: Broken) -> None:
    broken.items(lambda item: item.update({"table:row_count": 7}))


@mutation("STC006", "an Item's bbox is that of the scene, not of its chips")
def an_item_as_large_as_the_scene(broken: Broken) -> None:
    broken.items(lambda item: item["bbox"].update(xmin=item["bbox"]["xmin"] - 0.5))


@mutation("STC007", "an Item of another year", also="STC002")
def an_item_of_another_year(broken: Broken) -> None:
    def later(item: dict[str, Any]) -> None:
        for key in ("datetime", "start_datetime", "end_datetime"):
            if item[key] is not None:
                item[key] = item[key].replace(year=2019)

    broken.items(later)


@mutation("STC008", "the collection's extent is the whole Earth")
def a_worldwide_extent(broken: Broken) -> None:
    broken.json("collection.json", lambda c: c["extent"]["spatial"].update(bbox=[[-180, -90, 180, 90]]))


@mutation("STC009", "an asset's checksum of an earlier card", settle=False)
def a_stale_asset_checksum(broken: Broken) -> None:
    def stale(collection: dict[str, Any]) -> None:
        collection["assets"]["card"]["file:checksum"] = f"1220{'0' * 64}"

    broken.json("collection.json", stale)
    _rehash(broken, "collection.json")


@mutation("STC010", "two assets that call themselves the item table")
def two_item_tables(broken: Broken) -> None:
    broken.json(
        "collection.json",
        lambda c: next(a for k, a in c["assets"].items() if "coverage" in k and "parquet" in a["type"]).update(
            type="application/vnd.apache.parquet"
        ),
    )


@mutation("STC011", "a link to a file that is not there")
def a_dead_link(broken: Broken) -> None:
    broken.json("collection.json", lambda c: c["links"].append({"rel": "about", "href": "./ABOUT.md"}))


@mutation("STC012", "a collection that does not link to its model", also="STC001")
def no_model_link(broken: Broken) -> None:
    broken.json("collection.json", lambda c: c.update(links=[x for x in c["links"] if x["rel"] != "emb:model"]))


@mutation("TIM007", "the collection's interval leaves out the chips")
def a_wrong_interval(broken: Broken) -> None:
    interval = [["2019-01-01T00:00:00Z", "2020-01-01T00:00:00Z"]]
    broken.json("collection.json", lambda c: c["extent"]["temporal"].update(interval=interval))


# Documents


@mutation("DOC001", "a card without front matter", also="DOC RDR")
def no_front_matter(broken: Broken) -> None:
    text = (broken.folder / "README.md").read_text()
    (broken.folder / "README.md").write_text(text.split("---\n", 2)[2])


@mutation("DOC002", "a configuration that datasets cannot read")
def broken_configs(broken: Broken) -> None:
    broken.front(lambda matter: matter.update(configs=[{"config_name": "embeddings", "data_files": {"train": 3}}]))


@mutation("DOC003", "the front matter lacks a key of the geo-embeddings data card")
def a_missing_card_key(broken: Broken) -> None:
    broken.front(lambda matter: matter.pop("grid_spacing"))


@mutation("DOC004", "a citation without authors")
def no_authors(broken: Broken) -> None:
    broken.yaml("CITATION.cff", lambda cited: cited.pop("authors"))


@mutation("DOC006", "an empty licence")
def an_empty_licence(broken: Broken) -> None:
    (broken.folder / "LICENSE").write_text("\n")


@mutation("DOC007", "the card states another dimension")
def another_dimension_in_the_card(broken: Broken) -> None:
    broken.front(lambda matter: matter.update(embedding_dimension=768))


@mutation("DOC008", "the collection states another dtype")
def another_dtype_in_the_collection(broken: Broken) -> None:
    broken.json("collection.json", lambda c: c.update(data_type="float16"))


@mutation("DOC009", "the collection states another licence")
def another_licence_in_the_collection(broken: Broken) -> None:
    broken.json("collection.json", lambda c: c.update(license="CC0-1.0"))


@mutation("DOC010", "the citation is of another version")
def another_version_in_the_citation(broken: Broken) -> None:
    broken.yaml("CITATION.cff", lambda cited: cited.update(version="0.9.0"))


@mutation("DOC011", "the collection counts other chips")
def another_count_in_the_collection(broken: Broken) -> None:
    broken.json("collection.json", lambda c: c["embrel:coverage"].update(embedded=9))


@mutation("DOC012", "the card names another model")
def another_model_in_the_card(broken: Broken) -> None:
    broken.front(lambda matter: matter.update(model_name="Clay v1.5"))


@mutation("DOC013", "the collection has the id of another release", also="DOC")
def another_name_in_the_collection(broken: Broken) -> None:
    broken.json("collection.json", lambda c: c.update(id="landsat-annual"))


@mutation("DOC014", "a path of somebody's machine in the spec")
def a_local_path(broken: Broken) -> None:
    broken.yaml("release.yaml", lambda spec: spec["imagery"][0].update(stac=["/home/maria/items/item.json"]))


@mutation("DOC014", "a signed address in the sources")
def a_signed_address(broken: Broken) -> None:
    broken.sources(lambda row: row.update(href="https://store.example/item.json?X-Amz-Signature=abcdef"))


@mutation("DOC015", "a picture of the card that is not there")
def a_missing_picture(broken: Broken) -> None:
    broken.text("README.md", "](figures/coverage.png)", "](figures/map.png)")


@mutation("DOC016", "front matter in the card for source.coop")
def front_matter_for_source_coop(broken: Broken) -> None:
    card = broken.folder / "hosts" / "source.coop" / "README.md"
    card.write_text(f"---\nlicense: cc-by-4.0\n---\n{card.read_text()}")


# Provenance


@mutation("PRV001", "a fingerprint without its weights", also="PRV DOC VEC COV GEO TIM RDR SCH")
def an_incomplete_fingerprint(broken: Broken) -> None:
    broken.footer(broken.data, "emb", lambda emb: emb["embrel:decided_by"].pop("weights_sha256"))


@mutation("PRV002", "the manifest's run is of another model", settle=False)
def a_manifest_of_another_model(broken: Broken) -> None:
    broken.json("manifest.json", lambda m: m["run"]["fingerprint"].update(encoder_version="7"))


@mutation("PRV002", "mixed variants: one file of another model", base="utm", also="PRV DOC SCH006 VEC")
def mixed_variants(broken: Broken) -> None:
    def other(emb: dict[str, Any]) -> None:
        made = Fingerprint.model_validate({**emb["embrel:decided_by"], "encoder_version": "2"})
        emb["embrel:decided_by"] = made.model_dump(mode="json")
        emb["embrel:fingerprint"] = made.digest

    broken.footer(broken.data, "emb", other)


@mutation("PRV003", "the weights have no hash", also="PRV DOC")
def unnamed_weights(broken: Broken) -> None:
    _decide(broken, weights_sha256=None)


@mutation("PRV004", "wavelengths in nanometres", also="PRV DOC")
def wavelengths_in_nanometres(broken: Broken) -> None:
    bands = _decided(broken)["bands"]
    _decide(broken, bands=[{**band, "wavelength": band["wavelength"] * 1000} for band in bands])


@mutation("PRV005", "the spec names another encoder than the files")
def another_encoder_in_the_spec(broken: Broken) -> None:
    broken.yaml("release.yaml", lambda spec: spec["model"].update(encoder="clay"))


@mutation("PRV006", "a chip of an item that the sources do not list", also="COV GEO")
def an_unlisted_item(broken: Broken) -> None:
    broken.value("item_id", 2, "S2B_NOBODY_KNOWS")
    broken.value("item_ids", 2, ["S2B_NOBODY_KNOWS"])


@mutation("PRV007", "an item that the spec excludes was used", also="COV")
def an_excluded_item_used(broken: Broken) -> None:
    item = broken.table("sources.parquet")["id"][0].as_py()
    broken.yaml("release.yaml", lambda spec: spec["imagery"][0].update(exclude=[item]))


@mutation("PRV008", "nobody knows the licence of a source")
def an_unknown_licence(broken: Broken) -> None:
    broken.sources(lambda row: row.update(license=None))


@mutation("PRV009", "a source that forbids commercial use", also="")
def a_non_commercial_source(broken: Broken) -> None:
    broken.sources(lambda row: row.update(license="CC-BY-NC-4.0"))


@mutation("PRV010", "the card does not credit the imagery")
def no_attribution(broken: Broken) -> None:
    broken.sources(lambda row: row.update(attribution="Includes material © Planet Labs PBC."))


@mutation("PRV011", "the manifest names no software", settle=False)
def nameless_software(broken: Broken) -> None:
    broken.json("manifest.json", lambda m: m.update(software=" "))


@mutation("SCH007", "a spec with an unknown key", also="COV DOC PRV STC TIM VEC")
def an_invalid_spec(broken: Broken) -> None:
    broken.yaml("release.yaml", lambda spec: spec.update(licence="CC0-1.0"))


@mutation("SCH008", "the sources have no column for licences", also="COV GEO PRV TIM")
def sources_without_licences(broken: Broken) -> None:
    broken.change("sources.parquet", lambda t: t.drop_columns(["license"]))


@mutation("SCH014", "a manifest that is none", settle=False, also="INT DOC COV PRV")
def a_manifest_that_is_none(broken: Broken) -> None:
    (broken.folder / "manifest.json").write_text('{"files": "all of them"}')


_lost_id: list[str] = []


def _lose(broken: Broken, *rows: int) -> None:
    """Take chips out of the table; what counts rows counts the rest."""
    ids = broken.table(broken.data)["id"].to_pylist()
    _lost_id[:] = [ids[row] for row in rows]
    broken.keep([n for n in range(len(ids)) if n not in rows])
    broken.rebound()
    broken.recount()


def _expect_fewer(broken: Broken) -> None:
    """Nobody expects the lost chips any more; so say manifest and collection."""
    for path, place in (("manifest.json", ("run", "coverage")), ("collection.json", ("embrel:coverage",))):

        def lower(document: dict[str, Any], place: tuple[str, ...] = place) -> None:
            for key in place:
                document = document[key]
            document["expected"] -= len(_lost_id)

        broken.json(path, lower)


def _without(table: pa.Table, ids: list[str]) -> pa.Table:
    return table.filter(pa.array([i not in ids for i in table["id"].to_pylist()]))


def _explain(broken: Broken, reason: str | None) -> None:
    """Call the lost chips missing, everywhere."""

    def edit(table: pa.Table) -> pa.Table:
        rows = [
            row | {"status": "missing", "reason": reason} if row["id"] in _lost_id else row for row in table.to_pylist()
        ]
        return pa.Table.from_pylist(rows, schema=table.schema)

    broken.change(broken.coverage, edit)
    square = [[[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]]
    properties = {"reason": str(reason), "window": "2016-01-12/2016-01-13", "chips": len(_lost_id)}
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": square}, "properties": properties}
    broken.json("gaps.geojson", lambda gaps: gaps["features"].append(feature))
    broken.json("manifest.json", lambda m: m["run"]["coverage"].update({str(reason): len(_lost_id)}))


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


def _flip(file: Path, share: float) -> None:
    _flip_at(file, int(file.stat().st_size * share))


def _flip_at(file: Path, place: int) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 0x10
    file.write_bytes(bytes(data))


def _rehash(broken: Broken, path: str) -> None:
    """The manifest follows one document that has to stay as it is."""
    data = (broken.folder / path).read_bytes()
    value = hashlib.sha256(data).hexdigest()
    broken.json(
        "manifest.json",
        lambda m: [e.update(size=len(data), sha256=value) for e in m["files"] if e["path"] == path],
    )
    sums = (broken.folder / "SHA256SUMS").read_text().splitlines()
    lines = [f"{value}  {path}" if line.endswith(f"  {path}") else line for line in sums]
    (broken.folder / "SHA256SUMS").write_text("\n".join(lines) + "\n")


def _decided(broken: Broken) -> dict[str, Any]:
    return broken.release.footer(broken.data)["emb"]["embrel:decided_by"]


def _decide(broken: Broken, **changes: Any) -> None:
    """Change the fingerprint in every place where it stands."""
    made = Fingerprint.model_validate({**_decided(broken), **changes})
    document = made.model_dump(mode="json")
    told = {"embrel:decided_by": document, "embrel:fingerprint": made.digest}
    for path in broken.release.data_files():
        broken.footer(path, "emb", lambda emb: emb.update(told))
    broken.json("manifest.json", lambda m: m["run"].update(fingerprint=document))
    broken.json(
        "collection.json", lambda c: c.update({"embrel:fingerprint": made.digest, "embrel:decided_by": document})
    )

    def item(row: dict[str, Any]) -> None:
        row["embrel:fingerprint"] = made.digest
        row["emb:runtime_parameters"]["weights_sha256"] = made.weights_sha256

    broken.items(item)
