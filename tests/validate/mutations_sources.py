"""Ways to break what is stated of the images, and of the run that read them."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from breakage import Broken, mutation

Row = dict[str, Any]

# Status


@mutation("PRV007", "an image that was asked for is called unused", also="COV PRV006 PRV010 PRV012 TIM GEO")
def an_image_left_out(broken: Broken) -> None:
    broken.sources(lambda row: row.update(status="unused", reason="another item of the same id is newer"))


@mutation("PRV007", "an image is used outside of the windows that are asked for", also="COV SCH TIM GEO PRV006")
def an_image_outside_of_the_windows(broken: Broken) -> None:
    broken.yaml("release.yaml", lambda spec: spec["imagery"][0].update(windows=["2019-01-01/2019-02-01"]))


@mutation("PRV007", "an image is used far from the area that is asked for", also="COV GEO")
def an_image_outside_of_the_area(broken: Broken) -> None:
    broken.yaml("release.yaml", lambda spec: spec["imagery"][0].update(area=[10.0, 50.0, 11.0, 51.0]))


@mutation("PRV007", "an image of a collection that is not asked for")
def an_image_of_another_collection(broken: Broken) -> None:
    broken.yaml("release.yaml", lambda spec: spec["imagery"][0].update(collections=["sentinel-2-c9-l1c"]))


# Values


@mutation("PRV021", "an image of an imagery block that the spec does not have", also="COV TIM")
def a_block_out_of_range(broken: Broken) -> None:
    broken.sources(lambda row: row.update(block=7))


@mutation("PRV021", "a cloud cover of 999 percent")
def a_cloud_cover_beyond_the_sky(broken: Broken) -> None:
    broken.sources(lambda row: row.update(cloud_cover=999.0))


@mutation("PRV021", "bounds of an image are not those of its footprint")
def a_bbox_beside_its_geometry(broken: Broken) -> None:
    broken.sources(lambda row: row["bbox"].update(xmin=row["bbox"]["xmin"] - 1, xmax=row["bbox"]["xmax"] - 1))


@mutation("PRV021", "an image begins after its end", also="TIM SCH017 COV")
def an_image_backwards(broken: Broken) -> None:
    broken.sources(lambda row: row.update(start_datetime=row["end_datetime"] + timedelta(days=1)))


@mutation("PRV021", "the pixel grid of an image lies beside its footprint", base="utm")
def a_grid_beside_its_footprint(broken: Broken) -> None:
    def edit(row: Row) -> None:
        row["proj_transform"][2] += 90_000

    broken.sources(edit)


@mutation("PRV021", "the pixels of an image overflow", base="utm")
def a_grid_that_overflows(broken: Broken) -> None:
    broken.sources(lambda row: row.update(proj_transform=[1e200, 1e200, 0.0, 1e200, 1e200, 0.0]))


@mutation("PRV021", "an acquisition of another period")
def an_acquisition_of_another_period(broken: Broken) -> None:
    broken.sources(lambda row: row.update(acquisition=row["acquisition"].replace("2016", "2017")))


@mutation("PRV021", "a datatake of another platform", base="clouds")
def an_acquisition_of_another_platform(broken: Broken) -> None:
    broken.sources(lambda row: row.update(acquisition=row["acquisition"].replace("2a ", "2b ", 1)))


@mutation("PRV021", "images of different months are one acquisition", base="composite", also="PRV019 VEC")
def one_acquisition_of_all_images(broken: Broken) -> None:
    broken.sources(lambda row: row.update(acquisition="sentinel-2a GS2A_20200219T112111_024344"))


@mutation("PRV021", "the level follows from the id of another image")
def a_level_of_another_image(broken: Broken) -> None:
    broken.sources(lambda row: row.update(level="id 's2b_18svg_20190112_0_l1c'"))


@mutation("PRV021", "the level follows from the name of another product", base="clouds")
def a_level_of_another_product(broken: Broken) -> None:
    broken.sources(lambda row: row.update(level="s2:product_type 's2msi1c'"))


@mutation("PRV021", "nothing says of which level an image is, whose id does")
def no_level(broken: Broken) -> None:
    broken.sources(lambda row: row.update(level=None))


@mutation("PRV021", "an image without attribution")
def an_image_without_attribution(broken: Broken) -> None:
    broken.sources(lambda row: row.update(attribution=None))
    broken.json("collection.json", lambda collection: collection.pop("attribution"))


@mutation("PRV008", "a license that SPDX does not list")
def a_license_without_identifier(broken: Broken) -> None:
    broken.sources(lambda row: row.update(license="Freely-Free-9.0"))


@mutation("PRV021", "the address of an item is none")
def an_address_that_is_none(broken: Broken) -> None:
    broken.sources(lambda row: row.update(href="see the catalog"))


@mutation("PRV021", "the addresses of images are none")
def addresses_of_images_that_are_none(broken: Broken) -> None:
    _each_asset(broken, lambda asset: asset.update(href="tile.tif"))


@mutation("PRV021", "hashes of images are cut off")
def hashes_that_are_cut_off(broken: Broken) -> None:
    _each_asset(broken, lambda asset: asset.update(etag=asset["etag"][:30]))


@mutation("PRV021", "an image that no band is read from")
def an_asset_that_is_not_read(broken: Broken) -> None:
    broken.sources(lambda row: row["assets"].append({**row["assets"][0], "key": "thumbnail"}))


def _each_asset(broken: Broken, edit: Callable[[Row], Any]) -> None:
    def each(row: Row) -> None:
        for asset in row["assets"]:
            edit(asset)

    broken.sources(each)


# Bands


@mutation("PRV015", "bands in another order than the model reads them", also="PRV021")
def bands_in_another_order(broken: Broken) -> None:
    broken.sources(lambda row: row["bands"].reverse())


@mutation("PRV015", "an entry for a band that the model does not read")
def a_band_that_is_not_read(broken: Broken) -> None:
    broken.sources(lambda row: row["bands"].append({**row["bands"][0], "name": "coastal", "band": 2}))


@mutation("PRV015", "two bands are read from the same band of an asset", also="PRV021")
def one_band_for_two(broken: Broken) -> None:
    broken.sources(lambda row: row["bands"][1].update(asset=row["bands"][0]["asset"]))


@mutation("PRV015", "the offset of one band is that of a later product")
def an_offset_of_one_band(broken: Broken) -> None:
    broken.sources(lambda row: row["bands"][0].update(offset=-0.1))


@mutation("PRV015", "an offset that leaves most pixels below zero")
def an_offset_below_zero(broken: Broken) -> None:
    def edit(row: Row) -> None:
        for band in row["bands"]:
            band["offset"] = -0.1

    broken.sources(edit)


@mutation("PRV015", "scale and offset by a spec that states none")
def a_scale_by_no_spec(broken: Broken) -> None:
    def edit(row: Row) -> None:
        for band in row["bands"]:
            band.update(scale=0.001, source=f"{band['source'].partition(';')[0]}; values: spec")

    broken.sources(edit)


@mutation("PRV015", "a band that the spec asks for from another asset")
def a_band_of_another_asset(broken: Broken) -> None:
    broken.yaml("release.yaml", lambda spec: spec["imagery"][0].update(bands={"blue": "ultraviolet"}))


@mutation("PRV015", "a sample of pixels whose median is below its minimum")
def a_sample_that_cannot_be(broken: Broken) -> None:
    broken.sources(lambda row: row["evidence"]["bands"][0].update(p50=row["evidence"]["bands"][0]["minimum"] - 1))


@mutation("PRV015", "a doubtful sample that nothing is said of")
def a_doubt_without_a_word(broken: Broken) -> None:
    broken.sources(lambda row: row["evidence"].update(status="ambiguous"))


# The run


@mutation("PRV011", "the manifest does not name the version of numpy")
def libraries_without_numpy(broken: Broken) -> None:
    for path in ("manifest.json", "run.json"):
        broken.json(path, lambda made: made.get("run", made)["libraries"].pop("numpy"))


@mutation("PRV011", "the version of a library that cannot be")
def a_version_that_cannot_be(broken: Broken) -> None:
    for path in ("manifest.json", "run.json"):
        broken.json(path, lambda made: made.get("run", made)["libraries"].update(shapely="the newest"))


@mutation("PRV011", "manifest.json and run.json name other versions")
def versions_of_another_run(broken: Broken) -> None:
    broken.json("manifest.json", lambda made: made["run"]["libraries"].update(numpy="1.26.4"))


@mutation("PRV011", "files written by another version of pyarrow than is stated")
def another_writer_of_the_files(broken: Broken) -> None:
    for path in ("manifest.json", "run.json"):
        broken.json(path, lambda made: made.get("run", made)["libraries"].update(pyarrow="15.0.0"))


@mutation("PRV011", "software without its version")
def software_without_version(broken: Broken) -> None:
    broken.json("manifest.json", lambda made: made.update(software="clay-publish"))


@mutation("PRV011", "the digest of a plan is a word")
def a_plan_that_is_a_word(broken: Broken) -> None:
    broken.json("manifest.json", lambda made: made["run"].update(plan_sha256="as planned"))


@mutation("PRV022", "a note on an image that the sources do not list")
def a_note_on_no_image(broken: Broken) -> None:
    note = "item S2B_UNKNOWN could not be read: chips that it reaches are taken from other images, or missing"
    broken.json("manifest.json", lambda made: made["run"].update(notes=[note]))


@mutation("PRV022", "reference vectors are said to be left out, and are all there")
def a_note_on_no_gap(broken: Broken) -> None:
    note = "3 of 64 reference vectors are left out, as their imagery cannot be read any more."
    broken.json("manifest.json", lambda made: made["run"].update(notes=[note]))


@mutation("PRV022", "the manifest is silent about an image whose pixels are doubtful", also="PRV014")
def a_doubt_that_is_not_noted(broken: Broken) -> None:
    sentence = "item a: the offset may have been applied before."
    broken.sources(lambda row: row["evidence"].update(status="ambiguous", sentences=[sentence]))
