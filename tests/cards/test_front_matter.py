"""What the Hub, `datasets` and the geo-embeddings data card read of a card."""

from pathlib import Path

import pytest
from huggingface_hub import DatasetCard

from .copies import ids_of

REQUIRED = {
    "license",
    "creator",
    "tags",
    "embedding_spatial_types",
    "embedding_temporal_type",
    "embedding_spatial_context",
    "embedding_temporal_context",
    "embedding_dimension",
    "grid_spacing",
    "inference_datasets",
    "model_name",
    "model_link",
}
"""Of the geo-embeddings data card."""


@pytest.fixture(scope="module")
def card(sample_release: Path) -> DatasetCard:
    return DatasetCard.load(sample_release / "README.md")


def test_the_keys_of_the_geo_embeddings_card_are_there(card: DatasetCard) -> None:
    data = card.data.to_dict()
    assert data.keys() >= REQUIRED
    assert all(data[key] for key in REQUIRED)
    assert data["embedding_spatial_types"] == ["patch"]
    assert data["embedding_temporal_type"] == ["single-date"]
    assert data["embedding_spatial_context"] == "spatial context determined by embedding spatial type"
    assert data["embedding_temporal_context"] == "temporal context determined by embedding spatial type"
    assert data["grid_spacing"] == [[640, 640]]
    assert data["license"] == "cc-by-4.0"


def test_the_hub_finds_the_configurations(card: DatasetCard) -> None:
    from datasets.utils.metadata import MetadataConfigs

    configs = MetadataConfigs.from_dataset_card_data(card.data)
    assert configs["embeddings"]["data_files"] == [{"split": "train", "path": "embeddings/**/*.parquet"}]
    assert configs.get_default_config_name() == "embeddings"


@pytest.mark.usefixtures("offline")
def test_the_declared_features_are_those_that_load(card: DatasetCard, sample_release: Path, tmp_path: Path) -> None:
    from datasets import load_dataset
    from datasets.info import DatasetInfosDict

    declared = DatasetInfosDict.from_dataset_card_data(card.data)["embeddings"]
    loaded = load_dataset(str(sample_release), "embeddings", split="train", cache_dir=str(tmp_path))
    assert loaded.features == declared.features
    assert loaded.num_rows == declared.splits["train"].num_examples == len(ids_of(sample_release))
    assert "zone" not in loaded.column_names
    assert len(loaded[0]["embedding"]) == card.data["embedding_dimension"]
