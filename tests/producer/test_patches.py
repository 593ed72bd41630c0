"""Patches on their way from parts to published files."""

import numpy as np
import pyarrow as pa

from clay_publish.producer.outputs.patches import _groups, chip_places


def test_chips_are_found_across_chunks() -> None:
    first = pa.table({"chip_id": pa.chunked_array([["a", "a", "b"], ["b", "c"], ["c"], ["d"]])})
    second = pa.table({"chip_id": pa.chunked_array([["e", "e"]])})
    found = [(p.chip, p.table, p.start, p.rows) for p in chip_places([first, second])]
    assert found == [("a", 0, 0, 2), ("b", 0, 2, 2), ("c", 0, 4, 2), ("d", 0, 6, 1), ("e", 1, 0, 2)]


def test_groups_hold_whole_chips_and_fill_a_row_group() -> None:
    ids = np.repeat(np.arange(300), 100).astype(str)
    groups = list(_groups(list(chip_places([pa.table({"chip_id": ids})])), 16_384))
    rows = [sum(place.rows for place in group) for group in groups]
    assert sum(rows) == 30_000
    assert max(rows) <= 16_384
    assert min(rows[:-1]) > 16_384 - 100
    large = list(chip_places([pa.table({"chip_id": np.repeat(["x", "y"], 16_384 * 2)})]))
    assert [len(group) for group in _groups(large, 16_384)] == [1, 1]
