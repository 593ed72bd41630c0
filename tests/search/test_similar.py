"""Search by likeness: from codes and from vectors, by ids, places, vectors, and what not to be like."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clay_publish
from clay_publish.errors import ReleaseError
from clay_publish.release.directory import Release
from clay_publish.search import candidates
from clay_publish.search.query import QueryError
from clay_publish.search.reader import ReleaseReader
from clay_publish.search.row_groups import vectors

SPEC = """
name: fine
version: 1.0.0
imagery: {{stac: {item}, sensor: sentinel-2-l1c}}
chips: {{layout: scene, size: {size}}}
outputs: {{dtype: {dtype}}}
"""


@pytest.fixture(scope="module", params=["float32", "int8"])
def fine(request: Any, run: Any, tmp_path_factory: pytest.TempPathFactory) -> ReleaseReader:
    """The sample's imagery in chips of 8 pixels: enough of them for codes to matter."""
    from clay_publish.catalog import write_items

    folder = tmp_path_factory.mktemp("fine")
    run("sample", folder / "first", cwd=folder)
    item = folder / "first" / "imagery" / "item.json"
    (folder / "release.yaml").write_text(SPEC.format(item=item, size=8, dtype=request.param))
    run("produce", folder / "release.yaml", "--out", folder / "release", cwd=folder)
    write_items(Release(str(folder / "release")))
    return clay_publish.open_release(folder / "release")


@pytest.fixture
def all_by_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "_FEW", 0)


def matrix(reader: ReleaseReader) -> tuple[list[str], np.ndarray]:
    table = reader.chips(columns=["id", "embedding"]).read_all()
    values = vectors(table).astype(np.float64)
    return table["id"].to_pylist(), values / np.linalg.norm(values, axis=1, keepdims=True)


@pytest.mark.usefixtures("all_by_code")
def test_codes_find_what_all_vectors_find(fine: ReleaseReader) -> None:
    ids, unit = matrix(fine)
    found = right = 0
    for chip in range(0, len(ids), len(ids) // 10):
        table = fine.similar(ids[chip], k=10)
        assert table["similarity"][0].as_py() == pytest.approx(1, abs=1e-6)
        best = np.sort(unit @ unit[chip])[::-1][:10]
        right += int((table["similarity"].to_numpy() >= best[-1] - 1e-9).sum())
        found += table.num_rows
        exact = fine.similar(ids[chip], k=10, exact=True)
        np.testing.assert_allclose(exact["similarity"].to_numpy(), best, atol=1e-7)
        np.testing.assert_allclose(table["similarity"].to_numpy(), best[: table.num_rows], atol=1e-3)
    assert right / found >= 0.95  # open water: thousands of chips that are alike to the fifth digit


@pytest.mark.usefixtures("all_by_code")
def test_codes_keep_to_the_box(fine: ReleaseReader) -> None:
    table = fine.chips(columns=["id", "lon", "lat"]).read_all()
    lon, lat = table["lon"].to_numpy(), table["lat"].to_numpy()
    box = (float(np.quantile(lon, 0.3)), float(np.quantile(lat, 0.2)), float(np.quantile(lon, 0.8)), float(np.max(lat)))
    like = table["id"][5].as_py()
    by_code, exact = fine.similar(like, 20, box), fine.similar(like, 20, box, exact=True)
    assert set(exact["id"].to_pylist()) <= set(fine.chips(box, columns=["id"]).read_all()["id"].to_pylist())
    assert set(by_code["id"].to_pylist()) <= set(fine.chips(box, columns=["id"]).read_all()["id"].to_pylist())
    np.testing.assert_allclose(by_code["similarity"].to_numpy(), exact["similarity"].to_numpy(), atol=1e-3)


def test_one_thing_can_be_said_in_several_ways(fine: ReleaseReader) -> None:
    chip = fine.chips(columns=["id", "lon", "lat", "embedding"]).read_all().slice(7, 1)
    name, lon, lat = (chip[column][0].as_py() for column in ("id", "lon", "lat"))
    vector = vectors(chip)[0]
    first = fine.similar(name, 5)["id"].to_pylist()
    for like in ((lon, lat), vector, vector.tolist(), [name], [name, (lon, lat)], vector[None], 5 * vector):
        assert fine.similar(like, 5)["id"].to_pylist() == first
    each = fine.similar_each([name, vector], 5)
    assert each["id"].to_pylist() == first * 2
    assert each["query"].to_pylist() == [0] * 5 + [1] * 5


def test_the_result_is_not_like_what_it_is_not_to_be_like(fine: ReleaseReader) -> None:
    ids, unit = matrix(fine)
    asked = unit[3] - unit[500]
    best = ids[int(np.argmax(unit @ asked))]
    assert fine.similar(ids[3], 1, unlike=ids[500])["id"].to_pylist() == [best]
    with pytest.raises(QueryError, match="direction"):
        fine.similar(ids[3], unlike=ids[3])
    with pytest.raises(QueryError, match="names nothing"):
        fine.similar([])
    with pytest.raises(QueryError, match="has 3 numbers"):
        fine.similar([1.0, 2.0, 3.0])
    with pytest.raises(QueryError, match="nowhere"):
        fine.similar("nowhere")


@pytest.mark.usefixtures("all_by_code")
def test_codes_of_other_vectors_are_noticed(fine: ReleaseReader, tmp_path: Path) -> None:
    import shutil

    from clay_publish.search.code_files import CodeFile, code_columns, code_files, code_schema
    from clay_publish.search.codes import Encoding

    where = Path(shutil.copytree(fine.release.store.where, tmp_path / "copy"))
    release = Release(str(where))
    encoding = Encoding.of(512)
    path, files = next(iter(code_files(release.data_files()).items()))
    import pyarrow as pa

    rows = CodeFile(release, path, encoding).batch(0).rows
    strange = encoding.encode(np.random.default_rng(0).normal(size=(rows.num_rows, 512)).astype(np.float32))
    place = [rows[name] for name in ("lon", "lat", "file", "row")]
    schema = code_schema(encoding, files, (0.1, 0.1))
    with pa.OSFile(str(where / path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.record_batch([*code_columns(strange), *place], schema=schema))
    reader = clay_publish.open_release(where)
    like = reader.chips(columns=["id"]).read_all()["id"][0].as_py()
    with pytest.raises(ReleaseError, match="another vector"):
        reader.similar(like)
    assert reader.similar(like, exact=True).num_rows == 10
