"""What the tests of the cards share."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """`datasets` asks nobody whether there is something newer."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="session")
def full_release(tmp_path_factory: pytest.TempPathFactory, run: Callable[..., object], shared_data: Path) -> Path:
    """The bundled sample, seen by a small Clay: with loss, thumbnails, patches and aggregates, as 8-bit integers."""
    folder = tmp_path_factory.mktemp("full")
    run("sample", folder / "first")
    spec = yaml.safe_load((folder / "first/release.yaml").read_text())
    spec["model"] = {"encoder": "clay", "weights": str(shared_data / "clay_golden.ckpt"), "precision": "float32"}
    spec["chips"] = {"size": 128}
    spec["outputs"] = {"dtype": "int8", "loss": True, "thumbnails": 32, "patches": True, "aggregate": [2]}
    (folder / "first/release.yaml").write_text(yaml.safe_dump(spec))
    run("produce", folder / "first/release.yaml", "--out", folder / "release")
    run("catalog", folder / "release")
    return folder / "release"
