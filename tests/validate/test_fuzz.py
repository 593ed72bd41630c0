"""Whatever lies in a release: a verdict or one clear error, never a traceback, and little memory."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clay_publish.release.directory import Release

Look = Callable[[str, bytes], None]
FUZZ = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
SLOW = ("RDR003", "RDR004", "RDR005", "DOC005", "SCH011")
"""Rules that call other people's readers."""
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KEYS = (
    "files",
    "run",
    "links",
    "assets",
    "extent",
    "stac_extensions",
    "features",
    "imagery",
    "name",
    "version",
    "chips",
)
DOCUMENTS = st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=8), VALUES, max_size=8)
NAMES = ("collection.json", "manifest.json", "model.json", "gaps.geojson", "croissant.json")


@pytest.fixture(scope="module")
def ground(good: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(good("small"), tmp_path_factory.mktemp("fuzz") / "release"))


@pytest.fixture
def with_file(ground: Path, verdict: Callable[..., object]) -> Look:
    """Validate the release with one file replaced."""

    def look(name: str, data: bytes) -> None:
        kept = (ground / name).read_bytes()
        try:
            (ground / name).write_bytes(data)
            verdict(ground, skip=SLOW)
        finally:
            (ground / name).write_bytes(kept)

    return look


@FUZZ
@given(name=st.sampled_from(NAMES), document=DOCUMENTS)
def test_json_of_any_shape(with_file: Look, name: str, document: object) -> None:
    with_file(name, json.dumps(document).encode())


@FUZZ
@given(name=st.sampled_from(["release.yaml", "CITATION.cff"]), document=DOCUMENTS, text=st.text(max_size=60))
def test_yaml_of_any_shape(ground: Path, with_file: Look, name: str, document: object, text: str) -> None:
    whole = yaml.safe_load((ground / name).read_text())
    written = yaml.safe_dump({**whole, **document} if isinstance(document, dict) else document, allow_unicode=True)
    with_file(name, (written + (f"\n{text}" if text[:1] in "#&*!" else "")).encode("utf-8", "surrogatepass"))


@FUZZ
@given(
    name=st.sampled_from(["data", "sources.parquet", "items.parquet", "coverage"]),
    places=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=6),
    tail=st.booleans(),
)
def test_parquet_with_flipped_bytes(
    ground: Path, with_file: Look, name: str, places: list[tuple[float, int]], *, tail: bool
) -> None:
    release = Release(str(ground))
    path = {"data": release.data_files()[0], "coverage": release.data_files("coverage")[0]}.get(name, name)
    data = bytearray((ground / path).read_bytes())
    (length,) = struct.unpack("<I", data[-8:-4])
    low = len(data) - 8 - length if tail else 4
    for place, value in places:
        data[low + int(place * (len(data) - 9 - low))] = value
    with_file(path, bytes(data))


@FUZZ
@given(
    key=st.sampled_from(["geo", "emb", "huggingface"]),
    value=st.binary(max_size=40) | VALUES.map(lambda v: json.dumps(v).encode()),
)
def test_footers_of_any_kind(ground: Path, with_file: Look, key: str, value: bytes) -> None:
    path = Release(str(ground)).data_files()[0]
    table = pq.read_table(ground / path, partitioning=None)
    metadata = {**(table.schema.metadata or {}), key.encode(): value}
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(metadata), sink)
    with_file(path, sink.getvalue().to_pybytes())
