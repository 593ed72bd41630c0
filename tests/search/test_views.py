"""Tables with the columns of Major TOM and Earth Index embeddings."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
from majortom_eg import MajorTomGrid
from torchgeo_wheel import torchgeo_environment

from clay_publish.geo.major_tom_grid import bounds_of_cell, cells_at, corner_of_cell, numbers_of_cell
from clay_publish.search.reader import open_release

Run = Callable[..., Any]


VIEWS = {"major-tom": ("MajorTOMEmbeddings", "major_tom.py"), "earth-index": ("EarthIndexEmbeddings", "earth_index.py")}

_TORCHGEO = """
import inspect, json, sys
import torchgeo.datasets

made = []
for name, file in zip(sys.argv[1::2], sys.argv[2::2]):
    kind = getattr(torchgeo.datasets, name)
    chips = kind(file)
    samples = [{key: value.tolist() for key, value in chips[n].items()} for n in range(len(chips))]
    made.append([inspect.getfile(kind), samples])
json.dump(made, sys.stdout)
"""


def test_torchgeo_opens_the_views(run: Run, sample_release: Path, tmp_path: Path) -> None:
    """The classes of TorchGeo itself, as `test_readers.test_torchgeo`."""
    command = [sys.executable, "-W", "error::ImportWarning", "-c", _TORCHGEO]
    for view, (kind, _) in VIEWS.items():
        out = tmp_path / f"{view}.parquet"
        run("search", sample_release, "--chips", "--as", view, "--out", out)
        assert geopandas.read_parquet(out).crs.to_string() == "OGC:CRS84"
        command += [kind, str(out)]
    environment = {**os.environ, **torchgeo_environment()}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    wanted = open_release(sample_release).chips(columns=["lon", "lat", "datetime", "embedding"]).read_all().to_pylist()
    for (file, samples), (view, (_, module)) in zip(json.loads(done.stdout), VIEWS.items(), strict=True):
        assert file.endswith(f"torchgeo/datasets/{module}")
        assert "standins" not in file
        for sample, chip in zip(samples, wanted, strict=True):
            assert sample["embedding"] == chip["embedding"]
            assert (sample["x"], sample["y"]) == pytest.approx((chip["lon"], chip["lat"]), abs=1e-5)
            if view == "major-tom":
                assert sample["t"] == pytest.approx(chip["datetime"].timestamp(), abs=64)  # TorchGeo rounds to float32


def test_major_tom_view_names_cells(run: Run, sample_release: Path, tmp_path: Path) -> None:
    run("search", sample_release, "--chips", "--as", "major-tom", "--out", tmp_path / "view.parquet")
    data = geopandas.read_parquet(tmp_path / "view.parquet")
    for row in data.itertuples():
        assert reference_cell(row.centre_lat, row.centre_lon) == row.grid_cell
        assert numbers_of_cell(row.grid_cell) == (row.grid_row_u, row.grid_col_r)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--chips", "--as", "tessera", "--out", "x.parquet"), "major-tom or earth-index"),
        (("--chips", "--as", "major-tom", "--out", "x.geojson"), ".parquet"),
        (("--as", "major-tom"), "--chips --out FILE"),
        (("--chips", "--as", "major-tom", "--out", "x.parquet", "--bbox", "0,0,1,1"), "no chip was found"),
    ],
)
def test_other_views_are_refused(
    run: Run, sample_release: Path, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    failed = run("search", sample_release, *options, cwd=tmp_path, code=2)
    assert words in " ".join(failed.stderr.split())
    assert not list(tmp_path.iterdir())


KNOWN = {
    "110D_457L": (-9.835420887576138, -41.61526669033936),
    "300D_568L": (-26.901037386533275, -57.17877676195671),
    "172U_184L": (15.494721778521036, -17.101175773449295),
    "150D_1777L": (-13.427680946278402, -164.06891427018115),
    "695U_606R": (62.469616190945466, 117.64087065108966),
    "589U_1152L": (52.94943614431831, -171.4397655320694),
    "639U_641R": (57.43886095398982, 106.91882566502512),
    "434U_45R": (39.02595582369038, 5.258087967253711),
    "72U_113R": (6.512175758669188, 10.25872822599318),
    "553D_473L": (-49.62729184370188, -65.57219927168391),
    "456U_875L": (41.00262045606814, -104.0033457720136),
    "579U_897R": (52.04972150450342, 130.9705993123108),
    "195U_704L": (17.55946982992922, -66.26310352829974),
}
"""Centers of rows of the published metadata of Core-S2L2A."""


def test_cells_are_those_of_the_published_metadata() -> None:
    lat, lon = (np.array(values) for values in zip(*KNOWN.values(), strict=True))
    assert cells_at(lon, lat).tolist() == list(KNOWN)


def test_cells_equal_a_search_in_the_whole_grid() -> None:
    random = np.random.default_rng(11)
    lon, lat = random.uniform(-180, 180, 3000), np.degrees(np.arcsin(random.uniform(-0.996, 0.996, 3000)))
    lon[:40] = np.concatenate([np.full(20, 179.999), np.full(20, -179.999)])
    found = cells_at(lon, lat)
    wanted = [reference_cell(one, other) for one, other in zip(lat.tolist(), lon.tolist(), strict=True)]
    assert found.tolist() == wanted
    for name, x, y in zip(found, lon, lat, strict=True):
        west, south, east, north = bounds_of_cell(name)
        assert south <= y <= north
        assert (x - west) % 360 <= east - west
        assert (west, south) == corner_of_cell(name)


def test_cells_are_those_of_the_package_majortom_eg() -> None:
    """At 105,000 places. Not in the last degree before a pole, where the package has more cells than Major TOM."""
    random = np.random.default_rng(29)
    south = [*np.degrees(np.arcsin(random.uniform(-0.99, 0.99, 60))), -0.5, -0.5, 83, -80, 88, -89, -20, -20, 71, 71]
    west = [*random.uniform(-180, 179, 60), -0.5, 30, 10, 10, 10, 10, -180, 179, -180, 179]
    grid = MajorTomGrid(d=10_000, overlap=False)
    compared, across = 0, set()
    for left, bottom in zip(west, south, strict=True):
        lon, lat = random.uniform(left, left + 1, 1500), random.uniform(bottom, bottom + 1, 1500)
        theirs = list(grid.generate_grid_cells(shapely.box(left, bottom, left + 1, bottom + 1)))
        place, cell = shapely.STRtree([each.geom for each in theirs]).query(shapely.points(lon, lat), "within")
        assert place.tolist() == list(range(1500))  # every place is in one cell of the package
        for name, number in set(zip(cells_at(lon, lat)[place], cell.tolist(), strict=True)):
            bounds, other = np.array(bounds_of_cell(name)), np.array(theirs[number].geom.bounds)
            if other[0] < -180:  # one more cell of the package, on the same ground as the easternmost
                across.add(name)
                other[[0, 2]] += 360
            np.testing.assert_allclose(bounds, other, rtol=0, atol=1e-12)
            row, column = round(other[1] / grid.lat_spacing), round(other[0] / (other[2] - other[0]))
            assert numbers_of_cell(name) == (row, column)
        compared += 1500
    assert compared >= 100_000
    assert across


def reference_cell(lat: float, lon: float) -> str:
    """The cell of a place by searching the edges of all rows, then of all columns of the row, as Major TOM does."""
    rows = np.sort(np.mod(np.linspace(-90, 90, 2005)[:-1], 180) - 90)
    zeroth = int(np.searchsorted(rows, 0))
    row = int(np.searchsorted(rows, lat)) - 1
    circumference = 2 * math.pi * 6378.137 * math.cos(rows[row] * math.pi / 180)
    columns = np.sort(np.mod(np.linspace(-180, 180, math.ceil(circumference / 10) + 1)[:-1], 360) - 180)
    greenwich = int(np.where(columns == 0)[0][0])
    column = int(np.searchsorted(columns, lon)) - 1
    column = column if column >= 0 else len(columns) - 1
    up, right = row - zeroth, column - greenwich
    return f"{abs(up)}{'U' if up >= 0 else 'D'}_{abs(right)}{'R' if right >= 0 else 'L'}"
