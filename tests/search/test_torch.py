"""Embeddings as a PyTorch dataset."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from torch.utils.data import DataLoader

from clay_publish.catalog import write_items
from clay_publish.release.directory import Release
from clay_publish.search.query import QueryError
from clay_publish.search.reader import open_release
from clay_publish.search.row_groups import vectors
from clay_publish.torch import EmbeddingsDataset

MakeRelease = Callable[..., Release]


@pytest.fixture
def where(make_release: MakeRelease) -> str:
    release = make_release(dtype="int8")
    write_items(release)
    return release.store.where


def test_every_chip_comes_once_with_its_values(where: str) -> None:
    dataset = EmbeddingsDataset(where)
    chips = open_release(where).chips().read_all()
    assert len(dataset) == chips.num_rows == 26
    items = [dataset[n] for n in range(len(dataset))]
    assert [item["id"] for item in items] == chips["id"].to_pylist()
    np.testing.assert_array_equal(np.stack([item["embedding"].numpy() for item in items]), vectors(chips))
    assert items[3]["time"] == chips["datetime"][3].as_py().timestamp()
    assert dataset[-1]["id"] == items[-1]["id"]
    with pytest.raises(IndexError, match="26 chips"):
        dataset[26]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_a_loader_give_what_one_process_gives(where: str, method: str) -> None:
    dataset = EmbeddingsDataset(where)
    dataset[0]  # files are open when workers start
    loader: Any = DataLoader(dataset, batch_size=8, num_workers=2, multiprocessing_context=method)  # type: ignore[arg-type]
    names = [name for batch in loader for name in batch["id"]]
    assert names == [dataset[n]["id"] for n in range(len(dataset))]


def test_a_box_and_a_time_choose_chips(where: str) -> None:
    reader = open_release(where)
    box, time = (-77.0, 36.0, -74.0, 39.0), "2023-07-01/.."
    dataset = EmbeddingsDataset(reader, box, time)
    expected = reader.chips(box, time, ["id"]).read_all()["id"].to_pylist()
    assert [dataset[n]["id"] for n in range(len(dataset))] == expected
    with pytest.raises(QueryError, match="no chip"):
        EmbeddingsDataset(where, (0, 60, 1, 61))
