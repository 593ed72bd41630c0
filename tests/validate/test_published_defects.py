"""A release with the defects that embeddings were really published with, rebuilt: every one of them is named."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import shapely
from breakage import Broken
from mutations_places import doubled_footprints

from clay_publish.release.directory import Release
from clay_publish.release.fingerprint import Fingerprint
from clay_publish.validate import validate


def _defects(broken: Broken) -> None:
    """Footprints from the coarsest band; no CRS; chips again with other vectors; zeros where there was no data."""
    doubled_footprints(broken)

    def repeat(table: pa.Table) -> pa.Table:
        rows = table.slice(0, 4).to_pylist()
        for number, row in enumerate(rows):
            row["id"] = f"again-{number}"
            row["embedding"] = [value * 1.3 + 0.01 for value in row["embedding"]]
        return pa.concat_tables([table, pa.Table.from_pylist(rows, schema=table.schema)])

    broken.change(broken.data, repeat)
    broken.vectors(_zeros)
    broken.footer(broken.data, "geo", lambda geo: geo["columns"]["geometry"].update(crs=None))
    broken.settle()


def _zeros(vectors: np.ndarray) -> np.ndarray:
    vectors[10:13] = 0
    return vectors


def test_all_defects_of_a_published_release_are_found_at_once(broken: Callable[[str], Broken]) -> None:
    release = broken("small")
    _defects(release)
    report = validate(Release(str(release.folder)))
    found = {finding.code: finding.found for finding in report.findings}
    assert {"GEO009", "GEO012", "SCH005", "GEO010", "VEC002", "COV012"} <= set(found)
    assert "4 pairs in all" in found["GEO010"]
    assert "3 of" in found["VEC002"]


def test_a_longitude_band_that_manifest_and_catalog_omit_is_found(broken: Callable[[str], Broken]) -> None:
    release = broken("morocco")
    gone = release.data
    lost = pa.parquet.read_metadata(release.folder / gone).num_rows
    (release.folder / gone).unlink()
    release.change_items(lambda rows: [row for row in rows if row["assets"]["embeddings"]["href"] != gone])
    release.rebound()
    release.recount()
    release.settle()
    report = validate(Release(str(release.folder)))
    promised = next(finding for finding in report.findings if finding.code == "COV003")
    assert promised.found.startswith(f"{lost} chips are called embedded")
    assert report.checked["INT001"] == report.checked["INT004"] == "passed"


def test_mixed_variants_in_one_version_are_found(broken: Callable[[str], Broken]) -> None:
    release = broken("morocco")

    def other(emb: dict) -> None:
        made = Fingerprint.model_validate({**emb["embrel:decided_by"], "metadata": "zeros", "encoder_version": "0"})
        emb |= {"embrel:decided_by": made.model_dump(mode="json"), "embrel:fingerprint": made.digest}

    release.footer(release.release.data_files()[1], "emb", other)
    release.settle()
    report = validate(Release(str(release.folder)), only=("PRV002",))
    assert any("encoder_version" in finding.found for finding in report.findings)


def test_footprints_of_good_releases_are_those_of_the_pixels_recomputed_here(good: Callable[[str], Path]) -> None:
    """Not through the code under test: corners of one chip by hand."""
    release = Release(str(good("small")))
    (source,) = release.parquet("sources.parquet").read().to_pylist()
    row = release.parquet(release.data_files()[0]).read().to_pylist()[5]
    from pyproj import Transformer

    a, _, c, _, e, f = source["proj_transform"][:6]
    x, y = c + a * 64 * row["col"], f + e * 64 * row["row"]
    to_degrees = Transformer.from_crs(source["proj_code"], "OGC:CRS84", always_xy=True)
    corner = shapely.Point(to_degrees.transform(x, y))
    assert corner.distance(shapely.from_wkb(row["geometry"])) * 111_320 < 0.1
