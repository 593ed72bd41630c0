"""Ways to break the catalog and the documents."""

import hashlib
from typing import Any

from breakage import Broken, mutation
from PIL import Image

from clay_publish.cards import write_cards
from clay_publish.catalog import write_collection
from clay_publish.release.benchmarks import (
    Benchmark,
    BenchmarkResult,
    Benchmarks,
    FoldSizes,
    Labels,
    Sampling,
    Score,
    subject_of,
)
from clay_publish.release.manifest import dump_json

# Files


@mutation("STC001", "a collection without its extent", also="STC008 TIM007")
def no_extent(broken: Broken) -> None:
    broken.json("collection.json", lambda c: c.pop("extent"))


@mutation("STC001", "an extension's field of the wrong type")
def a_wrong_extension_field(broken: Broken) -> None:
    broken.json("collection.json", lambda c: c.update({"embrel:pooling": 5}))


@mutation("STC002", "items that are no STAC items: no links to their collection's type", also="RDR STC011 ANY006")
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


@mutation("STC013", "a JSON Item leads to another file than its row of the table", also="")
def a_json_item_that_leads_elsewhere(broken: Broken) -> None:
    broken.json_items_follow = False
    (path,) = broken.release.store.files("items")
    broken.json(path, lambda item: item["assets"]["embeddings"].update(href="../../coverage/zone=18.parquet"))


@mutation("STC013", "a JSON Item of an earlier run is left over", also="")
def a_json_item_too_many(broken: Broken) -> None:
    broken.json_items_follow = False
    (path,) = broken.release.store.files("items")
    broken.release.store.write(path.replace("2016-01-12", "2015-01-12"), broken.release.store.read(path))


@mutation("STC014", "the item table leads to the original, wherever a copy lies", also="STC RDR")
def absolute_addresses(broken: Broken) -> None:
    def lead(item: dict) -> None:
        asset = item["assets"]["embeddings"]
        asset["href"] = f"https://data.example.org/shore/1.0.0/{asset['href']}"

    broken.items(lead)


@mutation("STC014", "a self link that is not where the release is published")
def another_self(broken: Broken) -> None:
    link = {"rel": "self", "href": "https://example.org/other/collection.json", "type": "application/json"}
    broken.json("collection.json", lambda c: c["links"].append(link))


@mutation("STC012", "a collection that does not link to its model", also="STC001 ANY006")
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


@mutation("DOC003", "the card states the grid spacing as text")
def a_grid_spacing_as_text(broken: Broken) -> None:
    broken.front(lambda matter: matter.update(grid_spacing="1280 m"))


@mutation("DOC003", "the card states a spatial context in words of its own")
def a_spatial_context_in_own_words(broken: Broken) -> None:
    broken.front(lambda matter: matter.update(embedding_spatial_context="the chip and its neighbors"))


@mutation("DOC003", "the card states the temporal type as one word, where readers expect a list")
def a_temporal_type_as_one_word(broken: Broken) -> None:
    broken.front(lambda matter: matter.update(embedding_temporal_type="single-date"))


@mutation("DOC004", "a citation without authors")
def no_authors(broken: Broken) -> None:
    broken.yaml("CITATION.cff", lambda cited: cited.pop("authors"))


@mutation("DOC005", "a Croissant file whose columns have no type")
def a_croissant_without_types(broken: Broken) -> None:
    def strip(document: dict[str, Any]) -> None:
        for records in document["recordSet"]:
            for column in records["field"]:
                column.pop("dataType", None)

    broken.json("croissant.json", strip)


@mutation("DOC006", "an empty license")
def an_empty_license(broken: Broken) -> None:
    (broken.folder / "LICENSE").write_text("\n")


@mutation("DOC006", "a license text that does not ask for attribution")
def a_license_without_attribution(broken: Broken) -> None:
    (broken.folder / "LICENSE").write_text("Creative Commons 4.0: do with these data whatever you like.\n")


@mutation("DOC007", "the card states another dimension")
def another_dimension_in_the_card(broken: Broken) -> None:
    broken.front(lambda matter: matter.update(embedding_dimension=768))


@mutation("DOC008", "the collection states another dtype")
def another_dtype_in_the_collection(broken: Broken) -> None:
    broken.json("collection.json", lambda c: c.update(data_type="float16"))


@mutation("DOC009", "the collection states another license")
def another_license_in_the_collection(broken: Broken) -> None:
    broken.json("collection.json", lambda c: c.update(license="CC0-1.0"))


@mutation("DOC010", "the citation is of another version")
def another_version_in_the_citation(broken: Broken) -> None:
    broken.yaml("CITATION.cff", lambda cited: cited.update(version="0.9.0"))


@mutation("DOC011", "the collection counts other chips")
def another_count_in_the_collection(broken: Broken) -> None:
    broken.json("collection.json", lambda c: c["embrel:coverage"].update(embedded=9))


@mutation("DOC011", "the collection counts fewer chips that are not cloud-checked")
def fewer_unchecked_in_the_collection(broken: Broken) -> None:
    broken.not_cloud_checked_follows = False
    broken.json("collection.json", lambda c: c["embrel:coverage"].update(not_cloud_checked=1))


@mutation("DOC012", "the card names another model")
def another_model_in_the_card(broken: Broken) -> None:
    broken.front(lambda matter: matter.update(model_name="Clay v1.5"))


@mutation("DOC013", "the collection has the id of another release", also="DOC")
def another_name_in_the_collection(broken: Broken) -> None:
    broken.json("collection.json", lambda c: c.update(id="landsat-annual"))


@mutation("DOC014", "a local path in the spec")
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


def _evaluated(broken: Broken) -> None:
    """The release as `clay-publish evaluate --card` leaves it."""
    release = broken.release
    score = Score(mean=0.5, spread=0.1, folds=[0.4, 0.6])
    rows = sum(len(broken.table(path)) for path in release.data_files())
    spec = release.spec()
    made = Benchmark(
        task="regression",
        labels=Labels(file="stations.csv", sha256="0" * 64, rows=20, target="meanT"),
        release=subject_of(spec.name, spec.version, release.fingerprint(), rows),
        sampling=Sampling(used=20, unlabeled=0, too_far=0, limit_m=640, median_m=100, farthest_m=300),
        folds=FoldSizes(count=2, block_km=1, buffer_km=0.6, seed=0, test=[10, 10], train=[10, 10]),
        results=[BenchmarkResult(features="shore 1.0.0", dimensions=8, model="ridge", scores={"r2": score})],
        libraries={},
    )
    release.store.write("benchmarks.json", dump_json(Benchmarks(benchmarks=[made]).model_dump(mode="json")))
    write_cards(release)
    write_collection(release)


@mutation("DOC017", "a score on the card that was not measured")
def a_better_score_on_the_card(broken: Broken) -> None:
    _evaluated(broken)
    broken.text("README.md", "| 0.500 ± 0.100 |", "| 0.900 ± 0.100 |")


@mutation("DOC017", "benchmarks of other vectors than those that are published")
def benchmarks_of_other_vectors(broken: Broken) -> None:
    _evaluated(broken)
    broken.json("benchmarks.json", lambda b: b["benchmarks"][0]["release"].update(fingerprint="0" * 64))


@mutation("DOC017", "a mean that its folds do not have")
def a_mean_that_its_folds_do_not_have(broken: Broken) -> None:
    _evaluated(broken)
    broken.json("benchmarks.json", lambda b: b["benchmarks"][0]["results"][0]["scores"]["r2"].update(folds=[0.1, 0.6]))


@mutation("DOC017", "an evaluation on the card without benchmarks.json", also="INT STC")
def scores_without_a_file(broken: Broken) -> None:
    _evaluated(broken)
    (broken.folder / "benchmarks.json").unlink()
    broken.json("collection.json", lambda c: c["assets"].pop("benchmarks"))
    broken.json(
        "collection.json", lambda c: c.update(links=[link for link in c["links"] if link["rel"] != "emb:benchmark"])
    )


# Provenance


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


@mutation("DOC021", "a card that praises itself")
def an_edited_card(broken: Broken) -> None:
    broken.text("README.md", "## ", "The best embeddings of the world.\n\n## ")


@mutation("DOC021", "the card for a host that was not regenerated")
def a_stale_host_card(broken: Broken) -> None:
    broken.text("hosts/source.coop/README.md", "# ", "# Old ")


@mutation("DOC021", "a citation of other authors")
def a_citation_of_others(broken: Broken) -> None:
    broken.yaml("CITATION.cff", lambda c: c.update(authors=[{"name": "Somebody else"}]))


@mutation("DOC021", "the text of another license")
def the_text_of_another_license(broken: Broken) -> None:
    text = (broken.folder / "LICENSE").read_text()
    (broken.folder / "LICENSE").write_text(text.replace("Adapter", "Somebody") + "\nNo warranty. Attribution 4.0.\n")


@mutation("DOC021", "a changelog that tells of another change")
def a_changelog_of_another_change(broken: Broken) -> None:
    broken.text("CHANGELOG.md", "First release.", "Everything is better.")


@mutation("DOC021", "DataCite metadata of another publisher")
def datacite_of_another_publisher(broken: Broken) -> None:
    broken.json("datacite.json", lambda d: d.update(publisher={"name": "Somebody else"}))


@mutation("DOC021", "JSON-LD that describes another dataset")
def json_ld_of_another_dataset(broken: Broken) -> None:
    broken.json("dataset.jsonld", lambda d: d.update(description="Photographs of cats."))


@mutation("DOC021", "Croissant that describes another dataset")
def croissant_of_another_dataset(broken: Broken) -> None:
    broken.json("croissant.json", lambda d: d.update(description="Photographs of cats."))


@mutation("DOC021", "a Collection with another description")
def a_collection_of_another_description(broken: Broken) -> None:
    broken.json("collection.json", lambda c: c.update(description="Photographs of cats."))


@mutation("DOC021", "a Collection of other keywords")
def a_collection_of_other_keywords(broken: Broken) -> None:
    broken.json("collection.json", lambda c: c.update(keywords=["clouds"]))


@mutation("DOC021", "a model's Item with another input")
def a_model_of_another_input(broken: Broken) -> None:
    broken.json("model.json", lambda m: m["properties"]["mlm:input"][0].update(name="photographs"))


@mutation("DOC021", "a JSON Item with another box", also="STC013")
def a_json_item_of_another_box(broken: Broken) -> None:
    broken.json_items_follow = False
    path = broken.release.store.files("items")[0]
    broken.json(path, lambda item: item.update(bbox=[side + 0.1 for side in item["bbox"]]))


@mutation("DOC021", "a JSON Item of another projection", also="STC013")
def a_json_item_of_another_projection(broken: Broken) -> None:
    broken.json_items_follow = False
    path = broken.release.store.files("items")[0]
    broken.json(path, lambda item: item["properties"].update({"proj:code": "EPSG:32719"}))


@mutation("DOC022", "a figure that is white")
def a_blank_figure(broken: Broken) -> None:
    Image.new("RGB", (640, 480), "white").save(broken.folder / "figures" / "coverage.png")


@mutation("DOC022", "a figure that is cut short")
def a_figure_cut_short(broken: Broken) -> None:
    file = broken.folder / "figures" / "embeddings.png"
    file.write_bytes(file.read_bytes()[:2000])


@mutation("DOC022", "a figure that is mirrored")
def a_mirrored_figure(broken: Broken) -> None:
    file = broken.folder / "figures" / "coverage.png"
    with Image.open(file) as picture:
        picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(file)


@mutation("DOC022", "two figures are swapped")
def swapped_figures(broken: Broken) -> None:
    first, second = (broken.folder / "figures" / name for name in ("coverage.png", "norms.png"))
    pictures = first.read_bytes(), second.read_bytes()
    second.write_bytes(pictures[0])
    first.write_bytes(pictures[1])


@mutation("DOC022", "a white figure with one black dot")
def a_figure_with_one_dot(broken: Broken) -> None:
    picture = Image.new("RGB", (640, 480), "white")
    picture.putpixel((3, 3), (0, 0, 0))
    picture.save(broken.folder / "figures" / "coverage.png")


@mutation("DOC022", "a figure that does not belong to the release", also="DOC021")
def a_figure_too_many(broken: Broken) -> None:
    (broken.folder / "figures" / "loss.png").write_bytes((broken.folder / "figures" / "norms.png").read_bytes())


@mutation("DOC006", "the first half of a license")
def half_a_license(broken: Broken) -> None:
    text = (broken.folder / "LICENSE").read_text()
    (broken.folder / "LICENSE").write_text(text[: len(text) // 2])


@mutation("DOC006", "a license of other terms under the same text")
def a_license_of_other_terms(broken: Broken) -> None:
    broken.text("LICENSE", "Attribution 4.0 International", "Attribution-NonCommercial 4.0 International")


@mutation("STC013", "a JSON Item of another quantization", base="int8")
def a_json_item_of_another_quantization(broken: Broken) -> None:
    broken.json_items_follow = False
    path = broken.release.store.files("items")[0]
    broken.json(path, lambda item: item["properties"].pop("emb:quantization"))


@mutation("STC013", "a JSON Item that counts other rows")
def a_json_item_of_other_rows(broken: Broken) -> None:
    broken.json_items_follow = False
    path = broken.release.store.files("items")[0]
    broken.json(path, lambda item: item["properties"].update({"table:row_count": 9}))


@mutation("DOC002", "the card counts other patches than there are", base="beside")
def other_patches_in_the_card(broken: Broken) -> None:
    broken.front(lambda matter: matter["dataset_info"][1]["splits"][0].update(num_examples=9))


@mutation("DOC002", "a configuration that leads to no file")
def a_configuration_of_no_file(broken: Broken) -> None:
    broken.front(lambda matter: matter["configs"][0]["data_files"][0].update(path="vectors/**/*.parquet"))


@mutation("DOC002", "the card promises vectors of another length")
def features_of_another_length(broken: Broken) -> None:
    def edit(matter: dict[str, Any]) -> None:
        for feature in matter["dataset_info"][0]["features"]:
            if feature["name"] == "embedding":
                feature["length"] = 99

    broken.front(edit)
