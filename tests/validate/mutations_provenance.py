"""Ways to break what is stated of models, sources and licenses."""

from datetime import timedelta
from typing import Any

import pyarrow as pa
from breakage import Broken, mutation

from clay_publish.release.fingerprint import Fingerprint

# Files


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


@mutation("PRV004", "wavelengths in nanometers", also="PRV DOC")
def wavelengths_in_nanometers(broken: Broken) -> None:
    bands = _decided(broken)["bands"]
    _decide(broken, bands=[{**band, "wavelength": band["wavelength"] * 1000} for band in bands])


@mutation("PRV005", "the spec names another encoder than the files")
def another_encoder_in_the_spec(broken: Broken) -> None:
    broken.yaml("release.yaml", lambda spec: spec["model"].update(encoder="clay"))


@mutation("PRV017", "clouds by another rule than the spec's", base="clouds")
def another_mask_in_the_fingerprint(broken: Broken) -> None:
    _decide(broken, mask="none")


@mutation("PRV017", "a composite that is not in the spec", also="PRV019")
def another_composite_in_the_fingerprint(broken: Broken) -> None:
    _decide(broken, composite="median of 16")


@mutation("PRV017", "a composite whose spec asks for fewer images", base="composite", also="PRV019 DOC STC")
def a_smaller_composite_in_the_spec(broken: Broken) -> None:
    broken.yaml("release.yaml", lambda spec: spec["imagery"][0]["composite"].update(images=1))


@mutation("PRV019", "chips count one acquisition twice", base="composite")
def an_acquisition_counted_twice(broken: Broken) -> None:
    broken.column("images", lambda values: [values[0] + 1, *values[1:]])


@mutation("PRV019", "a pixel without an observation in a composite", base="composite", also="VEC022")
def no_observation(broken: Broken) -> None:
    broken.value("observations_min", 1, 0)


@mutation("PRV019", "a composite without its counts", base="composite", also="DOC SCH STC RDR TIM")
def uncounted_images(broken: Broken) -> None:
    broken.change(broken.data, lambda table: table.drop_columns(["images"]))


@mutation("TIM010", "the period of a composite leaves an image out", base="composite", also="VEC022")
def a_period_too_short(broken: Broken) -> None:
    broken.column("end_datetime", lambda values: [values[0] - timedelta(days=1), *values[1:]])


@mutation("TIM010", "a composite named after the image that is farthest from the middle", base="composite")
def named_after_the_farthest(broken: Broken) -> None:
    def farthest(table: pa.Table) -> pa.Table:
        first, second = table["item_ids"][0].as_py(), table["item_id"][0].as_py()
        names = [next(name for name in first if name != second), *table["item_id"].to_pylist()[1:]]
        return table.set_column(table.schema.get_field_index("item_id"), table.schema.field("item_id"), pa.array(names))

    broken.change(broken.data, farthest)


@mutation("PRV006", "a chip of an item that the sources do not list", also="COV GEO")
def an_unlisted_item(broken: Broken) -> None:
    broken.value("item_id", 2, "S2B_UNKNOWN")
    broken.value("item_ids", 2, ["S2B_UNKNOWN"])


@mutation("PRV007", "an item that the spec excludes was used", also="COV")
def an_excluded_item_used(broken: Broken) -> None:
    item = broken.table("sources.parquet")["id"][0].as_py()
    broken.yaml("release.yaml", lambda spec: spec["imagery"][0].update(exclude=[item]))


@mutation("PRV008", "a source of unknown license")
def an_unknown_license(broken: Broken) -> None:
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


@mutation("PRV012", "Sentinel-2 images under the statistics of another sensor", also="PRV015 PRV017 PRV021")
def another_sensors_statistics(broken: Broken) -> None:
    broken.yaml("release.yaml", lambda spec: spec["imagery"][0].update(sensor="landsat-c2l2-sr"))
    _decide(broken, sensor="landsat-c2l2-sr")


@mutation("PRV014", "samples of pixels contradict an item", also="PRV022")
def pixels_contradict_an_item(broken: Broken) -> None:
    sentence = "item a: the offset may have been applied before."
    broken.sources(lambda row: row["evidence"].update(status="ambiguous", sentences=[sentence]))


@mutation("PRV016", "chips of an image that was left out as implausible", also="PRV022")
def chips_of_an_implausible_image(broken: Broken) -> None:
    broken.sources(lambda row: row["evidence"].update(status="implausible", sentences=["values look multiplied"]))


@mutation("PRV015", "an offset unknown to the sensor and not stated")
def an_unknown_offset(broken: Broken) -> None:
    broken.sources(lambda row: row["bands"][0].update(offset=-0.7))


@mutation("PRV015", "a band of an asset that the item does not have", also="PRV021")
def a_band_of_no_asset(broken: Broken) -> None:
    broken.sources(lambda row: row["bands"][0].update(asset="ultraviolet"))


@mutation("PRV015", "sources do not say how a band was read", also="PRV021")
def an_unresolved_band(broken: Broken) -> None:
    broken.sources(lambda row: row["bands"].pop(3))


@mutation("PRV015", "a mask whose classes are not those of the sensor", base="clouds")
def another_rule_of_cloud(broken: Broken) -> None:
    broken.sources(lambda row: row["mask"].update(cloudy=[4]))


@mutation("PRV013", "pixels of 10 m under a sensor of 500 m", also="PRV015 PRV017 PRV021")
def pixels_of_another_size(broken: Broken) -> None:
    broken.yaml("release.yaml", lambda spec: spec["imagery"][0].update(sensor="modis"))
    broken.sources(lambda row: row.update(platform=None, collection=None))
    _decide(broken, sensor="modis")
    broken.tell()


def _decided(broken: Broken) -> dict[str, Any]:
    return broken.release.footer(broken.data)["emb"]["embrel:decided_by"]


def _decide(broken: Broken, **changes: Any) -> None:
    """Change the fingerprint in every place where it stands."""
    made = Fingerprint.model_validate({**_decided(broken), **changes})
    document = made.model_dump(mode="json")
    stated = {"embrel:decided_by": document, "embrel:fingerprint": made.digest}
    for path in broken.release.data_files():
        broken.footer(path, "emb", lambda emb: emb.update(stated))
    broken.json("manifest.json", lambda m: m["run"].update(fingerprint=document))
    broken.json(
        "collection.json", lambda c: c.update({"embrel:fingerprint": made.digest, "embrel:decided_by": document})
    )

    def item(row: dict[str, Any]) -> None:
        row["embrel:fingerprint"] = made.digest
        row["emb:runtime_parameters"]["weights_sha256"] = made.weights_sha256

    broken.items(item)
