"""Picking an encoder by the spec."""

import importlib.util
from typing import Any

import pytest

from clay_publish.errors import MissingExtraError, SpecError
from clay_publish.producer.encoders import load_encoder
from clay_publish.spec.models import Spec
from clay_publish.spec.sensors import sensor


def spec(encoder: str) -> Spec:
    imagery = {"stac": "items.json", "sensor": "sentinel-2-l2a"}
    return Spec.model_validate({"name": "test", "imagery": imagery, "model": {"encoder": encoder}})


def test_an_unknown_encoder_is_refused_and_the_nearest_named() -> None:
    with pytest.raises(SpecError, match="Did you mean 'random-features'"):
        load_encoder(spec("random-feature"), sensor("sentinel-2-l2a"))


def test_without_torch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec

    def without_torch(name: str, package: str | None = None) -> Any:
        return None if name == "torch" else found(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without_torch)
    with pytest.raises(MissingExtraError, match=r"pip install 'clay-publish\[produce\]'"):
        load_encoder(spec("random-features"), sensor("sentinel-2-l2a"))
