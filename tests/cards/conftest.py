"""What the tests of the cards share."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """`datasets` makes no request for newer versions."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="session")
def full_release(once: Callable[..., Path], run: Callable[..., object], golden_checkpoint: Path) -> Path:
    """The bundled sample, seen by a small Clay: with loss, thumbnails, patches and aggregates, as 8-bit integers."""

    def build(folder: Path) -> None:
        run("sample", folder / "first")
        spec = yaml.safe_load((folder / "first/release.yaml").read_text())
        spec["model"] = {"encoder": "clay", "weights": str(golden_checkpoint), "precision": "float32"}
        spec["chips"] = {"size": 128}
        spec["outputs"] = {"dtype": "int8", "loss": True, "thumbnails": 32, "patches": True, "aggregate": [2]}
        (folder / "first/release.yaml").write_text(yaml.safe_dump(spec))
        run("produce", folder / "first/release.yaml", "--out", folder / "release")
        run("catalog", folder / "release")

    return once("full", build) / "release"
