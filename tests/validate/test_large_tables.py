"""Rules on tables of millions of rows or links look at some rows at a time, and find the same."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from clay_publish.release.directory import ITEMS, Release
from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.rules import documents

PRIVATE = [
    "/home/maria/items/item.json",
    "file:///x/item.json",
    "file://server/item.json",
    r"C:\data\item.json",
    "https://store.example/item.json?x=1&x-amz-signature=abc",
    "https://store.example/item.json?sig=abc",
    "s3://bucket/item.json?token=abc",
    "https://maria:secret@store.example/item.json",
    "hf_" + "a" * 34,
    "AKIA" + "A1B2" * 4,
]
PUBLIC = [
    "https://store.example/data/item.json",
    "s3://bucket/tmp/item.json",
    "assets/home/a.tif",
    "a token= b",
    "hf_short",
]


@pytest.mark.parametrize("text", PRIVATE)
def test_private_texts_are_found_wherever_they_lie(text: str) -> None:
    link = {"rel": "via", "href": f"see {text}"}
    column = pa.array([[{"rel": "self", "href": "a.json"}], None, [link]])
    flat = list(documents._texts(column))
    assert sum(int(pc.sum(pc.match_substring_regex(each, documents._SUSPECT)).as_py() or 0) for each in flat) == 1
    assert list(documents._private("items.parquet", json.dumps([link["href"]])))


@pytest.mark.parametrize(
    "column",
    [
        pa.array([PRIVATE[0]]).dictionary_encode(),
        pa.array([PRIVATE[0].encode()]),
        pa.array([PRIVATE[0]], pa.string_view()),
        pa.array([[("key", PRIVATE[0])]], pa.map_(pa.string(), pa.string())),
        pa.array([[PRIVATE[0]]], pa.list_(pa.dictionary(pa.int8(), pa.string()))),
    ],
    ids=lambda column: str(column.type)[:12],
)
def test_private_texts_are_found_however_they_are_stored(column: pa.Array) -> None:
    found = [pc.sum(pc.match_substring_regex(each, documents._SUSPECT)).as_py() for each in documents._texts(column)]
    assert sum(found) == 1


@pytest.mark.parametrize("text", PUBLIC)
def test_public_texts_are_not(text: str) -> None:
    assert not list(documents._private("items.parquet", json.dumps([text])))


def test_patterns_have_the_same_meaning_to_arrow() -> None:
    """Arrow has no looking behind, which `_LOCAL` alone has."""
    for pattern in (documents._SIGNED, documents._SECRET):
        found = pc.match_substring_regex(pa.array(PRIVATE), f"(?i:{pattern.pattern})").to_pylist()
        assert found == [re.search(f"(?i:{pattern.pattern})", text) is not None for text in PRIVATE]


def test_rows_of_items_are_read_with_their_links(good: Callable[[str], Path]) -> None:
    folder = good("utm")
    with ReleaseContext(Release(str(folder))) as context:
        whole = pq.read_table(folder / ITEMS)
        assert "links" not in context.documents.items.column_names
        assert context.documents.items.equals(whole.drop_columns(["links"]))
        rows = np.arange(len(whole))[::2]
        assert context.documents.whole_items(rows).equals(whole.take(pa.array(rows)))
