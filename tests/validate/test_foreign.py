"""Releases that were not made here are validated as far as they can be, and break nothing."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from breakage import Broken

from clay_publish.release.directory import Release
from clay_publish.validate import validate


def _bare(folder: Path, **columns: pa.Array) -> Release:
    (folder / "embeddings").mkdir()
    pq.write_table(pa.table(columns), folder / "embeddings" / "part-0.parquet")
    return Release(str(folder))


def test_a_table_of_embedding_and_geometry_alone_gets_useful_findings(tmp_path: Path) -> None:
    vectors = np.random.default_rng(1).standard_normal((40, 8), dtype=np.float32)
    vectors[3, 2] = np.nan
    shapes = [shapely.to_wkb(shapely.box(n, 0, n + 0.01, 0.01)) for n in range(40)]
    report = validate(_bare(tmp_path, embedding=pa.array(list(vectors)), geometry=pa.array(shapes)))
    found = {finding.code for finding in report.findings}
    assert found == {"VEC001", "ANY003"}
    assert report.checked["ANY007"] == "passed"
    assert "GEO011" not in report.checked


@pytest.mark.parametrize("text", ["[]", "{}", '{"links": 5, "assets": [1], "extent": "all", "features": {}}', "\\x00"])
def test_documents_of_another_shape_are_no_crash(broken: Callable[[str], Broken], text: str) -> None:
    release = broken("small")
    for name in ("collection.json", "model.json", "gaps.geojson", "manifest.json", "croissant.json"):
        (release.folder / name).write_text(text)
    report = validate(Release(str(release.folder)), skip=("GEO", "VEC", "RDR"))
    assert report.worst() is not None


def test_columns_of_the_wrong_kind_are_no_crash(broken: Callable[[str], Broken]) -> None:
    release = broken("small")
    count = pq.read_metadata(release.folder / release.data).num_rows
    names = pq.read_schema(release.folder / release.data).names
    wrong = pa.table({name: pa.array([{"a": [n]} for n in range(count)]) for name in names})
    pq.write_table(wrong, release.folder / release.data)
    report = validate(Release(str(release.folder)))
    assert {"SCH002", "SCH004"} <= {finding.code for finding in report.findings}
    assert report.checked["VEC001"].startswith("not checked")
    assert report.checked["GEO001"].startswith("not checked")
