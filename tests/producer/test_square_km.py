"""`outputs.square_km`: larger files of the same chips."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from clay_publish.catalog import write_items
from clay_publish.geo.utm_zones import Square
from clay_publish.release.directory import Release
from clay_publish.validate import validate

from .processes import start
from .scattered import scattered


def test_a_square_of_several_is_named_by_its_south_west() -> None:
    assert Square(18, 5, 41).within(2) == Square(18, 4, 40)
    assert Square(18, 5, -5).within(4) == Square(18, 4, -8)  # rows are counted from the equator in both directions
    assert Square(18, 5, 41).within(1) == Square(18, 5, 41)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["scene", "utm"])
def test_files_of_200_km_hold_the_same_chips(layout: str, tmp_path: Path) -> None:
    spec = scattered(tmp_path / "spec")
    document = yaml.safe_load(spec.read_text())
    document |= {"chips": {"layout": layout, "size": 64}, "released": "2026-01-02"}
    if layout == "utm":
        document["imagery"]["windows"] = ["2016-01-01/2016-03-01"]
    made = {}
    for side in (100, 200):
        document["outputs"] = {"square_km": side, "aggregate": [2]}
        spec.write_text(yaml.safe_dump(document))
        out = tmp_path / str(side)
        start(spec, out).finish()
        files = sorted((out / "embeddings").rglob("*.parquet"))
        table = pa.concat_tables(pq.read_table(path) for path in files).sort_by("id")
        made[side] = ({path.name.rsplit("_", 2)[0] for path in files}, table.select(["id", "row", "col", "item_ids"]))
        write_items(Release(str(out)))
        items = pq.read_table(out / "items.parquet", columns=["embrel:coverage", "grid:code"])
        assert sum(row["expected"] for row in items["embrel:coverage"].to_pylist()) == len(table)
        assert all((code is None) == (side == 200) for code in items["grid:code"].to_pylist())
        findings = validate(Release(str(out)), only=["GEO013", "COV001", "VEC014"]).findings
        assert findings == []
    assert made[100][0] == {"18_04_41", "18_05_41"}
    assert made[200][0] == {"18_04_40"}
    assert made[100][1].equals(made[200][1])
