"""A release with everything a spec can ask for."""

from pathlib import Path

import duckdb
import pytest
from huggingface_hub import DatasetCard

from .copies import ids_of
from .test_snippets import blocks, run_python

pytestmark = pytest.mark.slow

CONFIGS = ["embeddings", "patches", "aggregates_2x2"]


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("config", CONFIGS)
def test_every_configuration_loads_as_declared(config: str, full_release: Path, tmp_path: Path) -> None:
    from datasets import load_dataset
    from datasets.info import DatasetInfosDict
    from PIL import Image

    declared = DatasetInfosDict.from_dataset_card_data(DatasetCard.load(full_release / "README.md").data)
    assert list(declared) == CONFIGS
    loaded = load_dataset(str(full_release), config, split="train", cache_dir=str(tmp_path))
    assert loaded.features == declared[config].features
    assert loaded.num_rows == declared[config].splits["train"].num_examples
    if config == "embeddings":
        assert isinstance(loaded[0]["thumbnail"], Image.Image)
        assert loaded[0]["thumbnail"].size == (32, 32)


@pytest.mark.filterwarnings("ignore:ConjunctiveGraph is deprecated", "ignore:The inplace keyword")
def test_croissant_loads_every_table(full_release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import itertools

    import mlcroissant
    from PIL import Image

    monkeypatch.chdir(full_release)
    dataset = mlcroissant.Dataset("croissant.json")
    assert not dataset.metadata.issues.errors
    assert not dataset.metadata.issues.warnings
    for config in CONFIGS:
        (record,) = itertools.islice(dataset.records(config), 1)
        assert len(record[f"{config}/embedding"]) == 96
        if config == "embeddings":
            assert isinstance(record["embeddings/thumbnail"], Image.Image)


def test_the_examples_run(full_release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(full_release)
    text = Path("README.md").read_text()
    assert [duckdb.sql(code).to_arrow_table().num_rows for code in blocks(text, "sql")] == [5, 5]
    assert 'vectors *= table["scale"]' in text
    dequantize = [code for code in blocks(text, "python") if "numpy" in code]
    assert run_python(dequantize, full_release, tmp_path) == [f"({len(ids_of(full_release))}, 96)\n"]


def test_the_card_shows_what_there_is(full_release: Path) -> None:
    text = (full_release / "README.md").read_text()
    figures = sorted(path.name for path in (full_release / "figures").iterdir())
    assert figures == ["coverage.png", "embeddings.png", "loss-map.png", "loss.png", "neighbors.png", "norms.png"]
    assert all(f"](figures/{name})" in text for name in figures)
    assert "| `embedding` | list of 96 int8 | The embedding of the patch. |" in text
    assert "one per square of 2 × 2 chips" in text
    assert "| `thumbnail` | picture, may be null | Small picture of the chip. |" in text
    assert "`reference.parquet` holds some of them computed a second time in float32" in text
