"""Ways to break the tables beside the embeddings: patches and aggregates."""

import io
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from breakage import Broken, mutation
from PIL import Image, ImageOps


@mutation("SCH015", "patches of other vectors than the footer says", base="beside")
def patches_of_another_length(broken: Broken) -> None:
    def shorten(table: pa.Table) -> pa.Table:
        field = table.schema.field("embedding")
        values = table["embedding"].combine_chunks().values.to_numpy().reshape(len(table), -1)[:, :-1]
        kind = pa.list_(field.type.value_field, values.shape[1])
        made = pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).reshape(-1)), type=kind)
        return table.set_column(table.schema.get_field_index("embedding"), field.with_type(kind), made)

    broken.change(broken.patches, shorten)


@mutation("SCH015", "patches of a model that is not the chips'", base="beside")
def patches_of_another_model(broken: Broken) -> None:
    broken.footer(broken.patches, "emb", lambda emb: emb.update({"embrel:fingerprint": "0" * 64}))


@mutation(
    "SCH015", "aggregates in the folder of another side", base="beside", also="COV017 VEC017 STC DOC VEC022 GEO016"
)
def aggregates_of_another_side(broken: Broken) -> None:
    (broken.folder / "aggregates" / "2x2").rename(broken.folder / "aggregates" / "4x4")


@mutation("VEC016", "a NaN in one patch", base="beside")
def nan_in_a_patch(broken: Broken) -> None:
    broken.vectors(lambda v: _set(v, (70, 3), np.nan), broken.patches)


@mutation("VEC016", "an infinite value in one aggregate", base="beside")
def infinity_in_an_aggregate(broken: Broken) -> None:
    broken.vectors(lambda v: _set(v, (2, 3), np.inf), broken.aggregates)


@mutation("INT013", "a chip without its patches", base="beside", also="DOC002")
def a_chip_without_patches(broken: Broken) -> None:
    chip = broken.table(broken.patches)["chip_id"][0].as_py()
    broken.change(broken.patches, lambda t: t.filter(pa.array([c != chip for c in t["chip_id"].to_pylist()])))
    _recount(broken, "patches")


@mutation("INT013", "patches of a chip that is not there", base="beside")
def patches_of_no_chip(broken: Broken) -> None:
    chip = broken.table(broken.patches)["chip_id"][0].as_py()
    broken.column("chip_id", lambda ids: ["nowhere" if i == chip else i for i in ids], broken.patches)


@mutation("INT013", "one patch of a chip twice, and another one lost", base="beside")
def a_patch_twice(broken: Broken) -> None:
    broken.column("patch_col", lambda cols: [cols[1], *cols[1:]], broken.patches)


@mutation("COV017", "a block of chips that has no aggregate", base="beside", also="DOC002")
def a_lost_aggregate(broken: Broken) -> None:
    broken.change(broken.aggregates, lambda table: table.slice(1))
    _recount(broken, "aggregates")


@mutation("COV017", "the same aggregate twice", base="beside", also="DOC002")
def an_aggregate_twice(broken: Broken) -> None:
    broken.change(broken.aggregates, lambda table: pa.concat_tables([table, table.slice(0, 1)]))
    _recount(broken, "aggregates")


@mutation("VEC017", "aggregates that are their first chip, not the mean of all", base="beside")
def aggregates_of_one_chip(broken: Broken) -> None:
    chips, blocks = broken.table(broken.data), broken.table(broken.aggregates)
    places = zip(chips["row"].to_pylist(), chips["col"].to_pylist(), strict=True)
    first = {(row // 2, col // 2): n for n, (row, col) in enumerate(places) if row % 2 == col % 2 == 0}
    rows = [first[cell] for cell in zip(blocks["row"].to_pylist(), blocks["col"].to_pylist(), strict=True)]
    values = chips["embedding"].combine_chunks().values.to_numpy().reshape(len(chips), -1)
    broken.vectors(lambda _: values[rows], broken.aggregates)


@mutation("VEC016", "the patches of one chip are zeros", base="beside", also="VEC020")
def patches_of_zeros(broken: Broken) -> None:
    broken.vectors(lambda v: _set(v, slice(64, 128), 0), broken.patches)


@mutation("VEC016", "all patches of a chip have one value", base="beside", also="VEC020")
def constant_patches(broken: Broken) -> None:
    broken.vectors(lambda v: _set(v, slice(64, 128), 0.5), broken.patches)


@mutation("VEC020", "patches are twice as long", base="beside")
def patches_of_twice_the_scale(broken: Broken) -> None:
    broken.vectors(lambda v: 2 * v, broken.patches)


@mutation("VEC020", "patches are those of the chip before", base="beside", also="VEC021")
def patches_of_the_chip_before(broken: Broken) -> None:
    broken.vectors(lambda v: np.roll(v, 64, axis=0), broken.patches)


@mutation("VEC020", "patches are those of other chips, shuffled", base="beside", also="VEC021")
def patches_of_other_chips(broken: Broken) -> None:
    broken.vectors(lambda v: _by_chip(v)[np.random.default_rng(3).permutation(len(v) // 64)], broken.patches)


@mutation("VEC020", "all patches of a chip are their mean", base="beside")
def patches_that_are_their_mean(broken: Broken) -> None:
    broken.vectors(lambda v: np.repeat(_by_chip(v).mean(axis=(1, 2)), 64, axis=0), broken.patches)


@mutation("VEC020", "ten chips have the patches of ten others", base="beside")
def patches_of_chips_twice(broken: Broken) -> None:
    broken.vectors(lambda v: _set(v, slice(len(v) - 640, len(v)), v[-1280:-640]), broken.patches)


@mutation("VEC021", "patches lie in their chips in an order of their own", base="beside")
def patches_in_another_order(broken: Broken) -> None:
    order = np.random.default_rng(1).permutation(64)
    broken.vectors(lambda v: v.reshape(-1, 64, v.shape[1])[:, order].copy(), broken.patches)


@mutation("VEC021", "patches are transposed", base="beside")
def transposed_patches(broken: Broken) -> None:
    broken.vectors(lambda v: _by_chip(v).swapaxes(1, 2).copy(), broken.patches)


@mutation("VEC021", "patches are upside down", base="beside")
def patches_upside_down(broken: Broken) -> None:
    broken.vectors(lambda v: _by_chip(v)[:, ::-1].copy(), broken.patches)


@mutation("GEO016", "aggregates are centered on their first chip", base="beside")
def aggregates_off_center(broken: Broken) -> None:
    broken.column("lon", lambda values: [value - 0.003 for value in values], broken.aggregates)


@mutation("GEO016", "aggregates have the ids of chips", base="beside")
def aggregates_with_ids_of_chips(broken: Broken) -> None:
    broken.column("id", lambda ids: [one.replace("scene-128px", "scene-64px") for one in ids], broken.aggregates)


@mutation("GEO016", "aggregates have the footprint of another one", base="beside")
def aggregates_with_other_footprints(broken: Broken) -> None:
    broken.column("geometry", lambda shapes: [*shapes[1:], shapes[0]], broken.aggregates)


@mutation("VEC022", "aggregates of another day", base="beside")
def aggregates_of_another_day(broken: Broken) -> None:
    for name in ("datetime", "start_datetime", "end_datetime"):
        broken.column(name, lambda values: [value + timedelta(days=1) for value in values], broken.aggregates)


@mutation("VEC022", "aggregates have the loss of one chip", base="beside")
def aggregates_of_another_loss(broken: Broken) -> None:
    broken.column("loss", lambda values: [value * 1.01 for value in values], broken.aggregates)


@mutation("VEC022", "aggregates name no image", base="beside")
def aggregates_of_no_image(broken: Broken) -> None:
    broken.column("item_ids", lambda values: [[] for _ in values], broken.aggregates)


@mutation("VEC022", "aggregates of composites count an acquisition of each chip", base="composite")
def aggregates_of_too_many_images(broken: Broken) -> None:
    broken.column("images", lambda values: [4 * value for value in values], broken.aggregates)


@mutation("VEC022", "aggregates of composites have more observations than their chips", base="composite")
def aggregates_of_too_many_observations(broken: Broken) -> None:
    broken.column("observations_min", lambda values: [value + 1 for value in values], broken.aggregates)


@mutation("SCH015", "aggregates of composites without their counts", base="composite", also="VEC022 DOC STC")
def aggregates_without_counts(broken: Broken) -> None:
    broken.change(broken.aggregates, lambda table: table.drop_columns(["observations_median"]))


@mutation("SCH019", "thumbnails of another size", base="beside", also="GEO017")
def thumbnails_of_another_size(broken: Broken) -> None:
    _pictures(broken, lambda pictures: [picture.resize((16, 16)) for picture in pictures])


@mutation("SCH019", "thumbnails are black", base="beside")
def black_thumbnails(broken: Broken) -> None:
    _pictures(broken, lambda pictures: [Image.new("RGB", picture.size) for picture in pictures])


@mutation("SCH019", "thumbnails that cannot be decoded", base="beside", also="RDR005")
def broken_thumbnails(broken: Broken) -> None:
    broken.column("thumbnail", lambda values: [value | {"bytes": value["bytes"][:40]} for value in values])


@mutation("GEO017", "thumbnails are those of the row before", base="beside")
def thumbnails_of_the_row_before(broken: Broken) -> None:
    broken.column("thumbnail", lambda values: [values[-1], *values[:-1]])


@mutation("GEO017", "thumbnails are shuffled", base="beside")
def shuffled_thumbnails(broken: Broken) -> None:
    order = np.random.default_rng(3).permutation(len(broken.table(broken.data)))
    broken.column("thumbnail", lambda values: [values[n] for n in order])


@mutation("GEO017", "thumbnails are mirrored", base="beside")
def mirrored_thumbnails(broken: Broken) -> None:
    _pictures(broken, lambda pictures: [ImageOps.mirror(picture) for picture in pictures])


@mutation("SCH019", "thumbnails have the mean color of their chips", base="beside", also="GEO017")
def thumbnails_of_one_color_each(broken: Broken) -> None:
    def edit(pictures: list[Image.Image]) -> list[Image.Image]:
        return [Image.new("RGB", each.size, each.resize((1, 1)).getpixel((0, 0))) for each in pictures]

    _pictures(broken, edit)


@mutation("GEO017", "all thumbnails are the same", base="beside")
def one_thumbnail_for_all(broken: Broken) -> None:
    broken.column("thumbnail", lambda values: [values[70] for _ in values])


@mutation("GEO017", "half of the thumbnails are those of the row before", base="beside")
def thumbnails_late_from_the_middle_on(broken: Broken) -> None:
    broken.column("thumbnail", lambda values: [*values[:60], values[-1], *values[60:-1]])


@mutation("VEC023", "patches have the other sign", base="beside")
def patches_of_the_other_sign(broken: Broken) -> None:
    broken.vectors(lambda v: -v, broken.patches)


@mutation("VEC023", "patches are half as long again", base="beside")
def patches_half_as_long_again(broken: Broken) -> None:
    broken.vectors(lambda v: np.float32(1.5) * v, broken.patches)


@mutation("VEC023", "losses are in percent", base="beside")
def losses_in_percent(broken: Broken) -> None:
    for path in (broken.data, broken.aggregates):
        broken.column("loss", lambda values: [100 * value for value in values], path)


@mutation("VEC023", "red and blue of thumbnails are swapped", base="beside")
def thumbnails_in_other_colors(broken: Broken) -> None:
    _pictures(broken, lambda pictures: [Image.merge("RGB", picture.split()[::-1]) for picture in pictures])


@mutation("VEC023", "thumbnails show the middle of their chips, enlarged", base="beside")
def thumbnails_of_the_middle(broken: Broken) -> None:
    _pictures(broken, lambda pictures: [p.crop((8, 8, 24, 24)).resize(p.size) for p in pictures])


def _pictures(broken: Broken, edit: Callable[[list[Image.Image]], list[Image.Image]]) -> None:
    """Edit the thumbnails, decoded."""

    def change(values: list[Any]) -> list[Any]:
        made = edit([Image.open(io.BytesIO(value["bytes"])).convert("RGB") for value in values])
        files = [io.BytesIO() for _ in made]
        for picture, file in zip(made, files, strict=True):
            picture.save(file, "WEBP", quality=90)
        return [value | {"bytes": file.getvalue()} for value, file in zip(values, files, strict=True)]

    broken.column("thumbnail", change)


def _by_chip(vectors: np.ndarray) -> np.ndarray:
    """[chips, rows, columns, values] of 8 × 8 patches a chip."""
    return vectors.reshape(-1, 8, 8, vectors.shape[-1])


def _recount(broken: Broken, table: str) -> None:
    """The card counts the rows that are there."""
    rows = sum(len(broken.table(path)) for path in broken.release.data_files(table))

    def edit(matter: dict) -> None:
        for info in matter["dataset_info"]:
            if info["config_name"].startswith(table):
                info["splits"][0]["num_examples"] = rows

    broken.front(edit)


def _set(array: np.ndarray, place: object, value: object) -> np.ndarray:
    array = array.copy()
    array[place] = value
    return array
