"""Compact codes: the encoding, its files, and how well they find neighbors."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from clay_publish.errors import ReleaseError
from clay_publish.producer.outputs.codes import measure_recall, write_codes
from clay_publish.release.directory import CODES_MODEL, Release
from clay_publish.search.code_files import CodeFile, code_files, parse_code_path
from clay_publish.search.codes import Codes, Encoding

MakeRelease = Callable[..., Release]


def vectors(count: int, dimensions: int, seed: int = 0) -> np.ndarray:
    """Clustered, away from the origin: what embeddings look like."""
    generator = np.random.default_rng(seed)
    centers = generator.normal(size=(20, dimensions)) + 2 * generator.normal(size=dimensions)
    made = centers[generator.integers(0, 20, count)] + 0.4 * generator.normal(size=(count, dimensions))
    return made.astype(np.float32)


@pytest.mark.parametrize("dimensions", [8, 96, 100, 255, 512, 768, 1024])
def test_estimates_are_near_the_cosine(dimensions: int) -> None:
    encoding, values = Encoding.of(dimensions), vectors(300, dimensions)
    codes = encoding.encode(values)
    estimate = encoding.query(values[:5]).cosines(codes.planes, codes.factor)
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    limit = 0.02 if dimensions < 256 else 3 / np.sqrt(dimensions) / 4
    np.testing.assert_allclose(estimate, unit[:5] @ unit.T, atol=limit)
    np.testing.assert_allclose(estimate[np.arange(5), np.arange(5)], 1, atol=1e-5)


@pytest.mark.parametrize("dimensions", [96, 512])
def test_estimates_are_those_of_the_decoded_vectors(dimensions: int) -> None:
    encoding, values = Encoding.of(dimensions), vectors(50, dimensions)
    codes, query = encoding.encode(values), encoding.query(values[:3])
    np.testing.assert_allclose(
        query.cosines(codes.planes, codes.factor), query.directions @ encoding.decode(codes).T, atol=1e-5
    )


def test_a_code_depends_on_its_own_vector_alone() -> None:
    encoding, values = Encoding.of(300), vectors(1500, 300)
    whole = encoding.encode(values)
    for some in (slice(0, 1), slice(700, 1400), slice(3, None, 7)):
        part = encoding.encode(values[some])
        assert all((a[some] == b).all() for a, b in zip(whole.planes, part.planes, strict=True))
        np.testing.assert_array_equal(whole.factor[some], part.factor)


def test_codes_are_the_same_in_every_version_of_this_software() -> None:
    values = (np.arange(-3000, 3144, dtype=np.float32).reshape(6, 1024) % 97 - 40) / 16
    codes = Encoding.of(1024).encode(values)
    digest = hashlib.sha256(b"".join(plane.tobytes() for plane in codes.planes)).hexdigest()
    assert digest == "7709fbce5982b1180e10e5308f58c2fc440af022ae135ef66bfd0e389111ee66"


def test_rotation_keeps_angles() -> None:
    for dimensions in (5, 96, 512, 1000):
        values = vectors(20, dimensions)
        turned = Encoding.of(dimensions).rotate(values).T
        ratio = (turned @ turned.T) / (values @ values.T)
        np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-3)


def test_codes_are_described_well_enough_to_encode_without_this_software() -> None:
    """As docs/outputs.md tells it, in float64 with a matrix."""
    values = vectors(40, 768)
    described = Encoding.of(768).document()
    turned, span = values.astype(np.float64).T, described["transform_size"]
    hadamard = np.ones((1, 1))
    while len(hadamard) < span:
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    for signs, part in zip(described["signs"], (slice(0, span), slice(768 - span, 768)), strict=True):
        negative = np.unpackbits(np.frombuffer(bytes.fromhex(signs), np.uint8), count=768).astype(bool)
        turned = turned * np.where(negative, -1, 1)[:, None]
        mixed = turned * np.sqrt(span)
        mixed[part] = hadamard @ turned[part]
        turned = mixed
    half = 2 ** (described["bits"] - 1)
    step = described["clip"] * np.sqrt((turned**2).mean(axis=0)) / half
    levels = np.clip(np.floor(turned / step) + half, 0, 2 * half - 1).T
    stored = Encoding.of(768).encode(values)
    found = sum(
        np.unpackbits(plane, axis=1, count=768).astype(int) << bit
        for bit, plane in zip(range(3, -1, -1), stored.planes, strict=True)
    )
    assert (levels != found).mean() < 1e-4  # float32 rounds a few at the border of two levels
    factor = np.linalg.norm(turned, axis=0) / np.einsum("nd,dn->n", levels - half + 0.5, turned)
    np.testing.assert_allclose(stored.factor, factor, rtol=1e-3)


def test_vectors_without_direction_have_no_likeness() -> None:
    encoding = Encoding.of(512)
    values = np.zeros((2, 512), np.float32)
    values[1] = 1
    codes = encoding.encode(values)
    assert codes.factor[0] == 0
    assert encoding.query(values[1:]).cosines(codes.planes, codes.factor)[0, 0] == 0
    assert len(encoding.encode(values[:0]).factor) == 0


@pytest.mark.parametrize("change", [{"bits": 5}, {"dimensions": 0}, {"signs": []}, {"method": "PCA"}, {"clip": 3}])
def test_another_encoding_is_refused(change: dict[str, Any]) -> None:
    document = Encoding.of(512).document() | change
    with pytest.raises(ReleaseError, match="cannot read"):
        Encoding.read(document, "codes/model.json")


def test_recall_counts_neighbors_that_codes_find() -> None:
    measured = measure_recall(vectors(2000, 512), Encoding.of(512))
    assert measured is not None
    assert measured["reranked"] >= 0.99 > measured["codes"] > 0.4
    assert (measured["queries"], measured["chips"]) == (100, 2000)
    assert measure_recall(vectors(11, 512), Encoding.of(512)) is None


def test_files_name_every_chip_once(make_release: MakeRelease) -> None:
    release = make_release(dtype="int8")
    write_codes(release, release.fingerprint(), wanted=True)
    encoding = Encoding.read(release.json(CODES_MODEL), CODES_MODEL)
    expected = code_files(release.data_files())
    assert sorted(expected) == [path for path in release.files("codes") if path != CODES_MODEL]
    seen = 0
    for path, members in expected.items():
        file = CodeFile(release, path, encoding)
        assert file.head[0] == members
        assert parse_code_path(path)[1] == file.window
        for batch in file.batches():
            stored = batch.codes()
            for number, row in zip(batch.column("file"), batch.column("row"), strict=True):
                chip = pq.read_table(release.store.path(members[number])).slice(row, 1)
                scaled = np.array(chip["embedding"][0].as_py(), np.float32) * np.float32(chip["scale"][0].as_py())
                own = encoding.encode(scaled[None])
                place = int(np.flatnonzero((batch.column("file") == number) & (batch.column("row") == row))[0])
                assert all((a[place] == b[0]).all() for a, b in zip(stored.planes, own.planes, strict=True))
                assert batch.column("lon")[place] == pytest.approx(chip["lon"][0].as_py(), abs=2e-5)
            seen += len(batch)
    assert seen == sum(pq.read_metadata(release.store.path(path)).num_rows for path in release.data_files())


def test_files_open_in_arrow(make_release: MakeRelease) -> None:
    release = make_release()
    write_codes(release, release.fingerprint(), wanted=True)
    found = pa.dataset.dataset(
        [release.store.path(p) for p in release.files("codes") if p.endswith(".arrow")], format="ipc"
    ).to_table()
    assert found.num_rows == 26
    assert found.schema.field("plane_7").type == pa.binary(2)
    with pa.memory_map(release.store.path(release.files("codes")[1])) as source:
        assert pa.ipc.open_file(source).get_batch(0)["factor"].to_numpy(zero_copy_only=True).size


def test_coarse_reading_leaves_the_other_planes_alone(make_release: MakeRelease) -> None:
    release = make_release()
    write_codes(release, release.fingerprint(), wanted=True)
    path = next(iter(code_files(release.data_files())))
    batch = CodeFile(release, path, Encoding.of(8)).batch(0, 1)
    assert batch.rows.schema.names == ["plane_7", "factor", "lon", "lat", "file", "row"]
    assert isinstance(batch.codes(), Codes)


def test_codes_go_when_the_spec_no_longer_asks_for_them(make_release: MakeRelease) -> None:
    release = make_release()
    write_codes(release, release.fingerprint(), wanted=True)
    before = {path: Path(release.store.path(path)).read_bytes() for path in release.files("codes")}
    write_codes(release, release.fingerprint(), wanted=True)
    assert before == {path: Path(release.store.path(path)).read_bytes() for path in release.files("codes")}
    write_codes(release, release.fingerprint(), wanted=False)
    assert release.files("codes") == []


@pytest.mark.parametrize("path", ["codes/18.arrow", "codes/zone=18/x.arrow", "codes/zone=18/2023-01-01_2023-02-01.bin"])
def test_other_names_are_refused(path: str) -> None:
    with pytest.raises(ReleaseError, match="zone and window"):
        parse_code_path(path)


def test_produce_makes_codes_and_the_card_tells_recall(run: Any, release_copy: Path) -> None:
    described = json.loads((release_copy / "codes" / "model.json").read_text())
    assert described["dimensions"] == 512
    run("card", release_copy)
    assert "`codes/`" in (release_copy / "README.md").read_text()
    manifest = json.loads((release_copy / "manifest.json").read_text())
    assert {entry["path"] for entry in manifest["files"]} >= {"codes/model.json"}
