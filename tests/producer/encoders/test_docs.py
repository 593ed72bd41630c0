"""The encoder that the documentation writes works as it stands there."""

import re
import sys
import types
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from clay_publish.producer.encoders.base import ENCODERS
from clay_publish.producer.produce import produce
from clay_publish.release.directory import Release
from clay_publish.spec.load import resolve_spec

DOCS = Path(__file__).parents[3] / "docs" / "new-encoder.md"


def test_an_encoder_is_added_in_under_twenty_lines(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert len(code.strip().splitlines()) < 20
    name = "clay_publish.producer.encoders.band_means"
    module = types.ModuleType(name)
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(ENCODERS, "band-means", "band_means")
    exec(compile(code, str(DOCS), "exec"), module.__dict__)  # noqa: S102 - our own documentation
    item = shared_data / "s2_l1c_T18SVG_20160112" / "item.json"
    document = {
        "name": "documented",
        "imagery": {"stac": str(item), "sensor": "sentinel-2-l1c"},
        "chips": {"layout": "scene", "size": 256},
        "model": {"encoder": "band-means"},
    }
    release = Release(str(tmp_path / "release"))
    produce(resolve_spec(document, where="docs", folder=tmp_path), release)
    table = pq.read_table(release.store.path(release.data_files()[0]))
    vectors = np.stack(table["embedding"].to_numpy())
    assert vectors.shape == (4, 10)
    assert release.fingerprint().model_name == "Band means"
