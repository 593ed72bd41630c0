"""Ways to break the tables beside the embeddings: patches and aggregates."""

import numpy as np
import pyarrow as pa
from breakage import Broken, mutation


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


@mutation("SCH015", "aggregates in the folder of another side", base="beside", also="COV017 VEC017 STC DOC")
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
