"""Every block of code in README.md and docs/ runs, on the sample release; a tutorial as a whole, in its order."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
import yaml
from affine import Affine
from array_copy import add_arrays
from scipy.spatial import cKDTree
from torchgeo_wheel import torchgeo_environment
from typer.testing import CliRunner

from clay_publish.cli.app import app
from clay_publish.producer.encoders.exported import ExportedModel
from clay_publish.release.tables import patches_schema
from clay_publish.spec.models import Imagery, Spec
from clay_publish.spec.sensors import Sensor

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs/explanations").glob("*.md"))]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

ELSEWHERE = {
    "make": "what CI itself runs",
    "pip": "what CI itself runs",
    "clay-publish sample": "tests/conftest.py",
    "clay-publish run": "tests/test_cli.py",
    "clay-publish plan": "tests/producer/test_plan.py",
    "clay-publish serve": "the fixture `api`",
    "clay-publish sensor-stats": "tests/imagery/test_sensor_stats.py",
    **dict.fromkeys((f"clay-publish {c}" for c in ("publish", "mirror", "versions", "yank")), "tests/publish"),
}
"""Commands that other tests run, and where."""


def blocks(*languages: str, workflow: bool = False) -> list[object]:
    """The blocks of these languages, each named by its page and line; of YAML either GitHub workflows or the rest."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for block in BLOCK.finditer(text):
            if block[1] in languages and workflow == (block[1] == "yaml" and "steps" in yaml.safe_load(block[2])):
                line = text.count("\n", 0, block.start()) + 1
                found.append(pytest.param(block[2], id=f"{page.name}:{line}"))
    return found


@pytest.fixture(scope="module")
def folder(sample_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sample, and what the pages assume to be there: aggregates, points, polygons."""
    made = Path(shutil.copytree(sample_release, tmp_path_factory.mktemp("documents") / "release"))
    chips = pq.read_table(made / "embeddings", columns=["lon", "lat", "embedding"])
    columns = zip(chips["lon"].to_pylist(), chips["lat"].to_pylist(), chips["embedding"].to_pylist(), strict=True)
    rows = "".join(f"{lon},{lat},{vector[0]}\n" for lon, lat, vector in columns)
    (made / "stations.csv").write_text(f"lon,lat,meanT\n{rows}")
    _add_land_cover(made, chips)
    shapes = gpd.read_parquet(next(made.glob("embeddings/*/*.parquet")), columns=["id", "geometry"]).head(2)
    shapes.rename(columns={"id": "field"}).to_file(made / "fields.geojson")
    shutil.copytree(made / "embeddings", made / "aggregates" / "2x2")
    _add_patches(made)
    add_arrays(made)
    return made


def _add_land_cover(release: Path, chips: pa.Table) -> None:
    """A map of two classes, by the vectors of the chips, and its value at each chip."""
    lon, lat = chips["lon"].to_numpy(), chips["lat"].to_numpy()
    first = np.array([vector[0] for vector in chips["embedding"].to_pylist()])
    value = np.where(first > np.median(first), 2, 1).astype(np.uint8)
    west, north, step = lon.min() - 0.01, lat.max() + 0.01, 0.001
    y, x = np.mgrid[0 : int((north - lat.min() + 0.01) / step), 0 : int((lon.max() + 0.01 - west) / step)]
    _, nearest = cKDTree(np.stack([lon, lat], axis=1)).query(np.stack([west + x * step, north - y * step], axis=-1))
    profile = {"driver": "GTiff", "height": len(x), "width": x.shape[1], "count": 1, "dtype": "uint8"}
    grid = {"crs": "OGC:CRS84", "transform": Affine(step, 0, west, 0, -step, north)}
    with rasterio.open(release / "landcover.tif", "w", **profile, **grid) as file:
        file.write(value[nearest], 1)
    rows = "".join(f"{one},{other},class {kind}\n" for one, other, kind in zip(lon, lat, value, strict=True))
    (release / "landcover.csv").write_text(f"lon,lat,cover\n{rows}")


def _add_patches(release: Path) -> None:
    """Patches of one chip: random features have none, and the pages tell of them."""
    chip = pq.read_table(release / "embeddings", columns=["id"])["id"][0].as_py()
    row = {"chip_id": chip, "patch_row": 0, "patch_col": 0, "embedding": [0.0, 1.0]}
    (release / "patches" / "zone=18").mkdir(parents=True)
    table = pa.Table.from_pylist([row], schema=patches_schema(2))
    pq.write_table(table, release / "patches" / "zone=18" / "one.parquet")


@pytest.fixture
def stands_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What is written in the pages, and what it stands for here; longer names first."""
    monkeypatch.chdir(folder)
    chip = pq.read_table("embeddings", columns=["id"])["id"][0].as_py()
    return {
        "https://data.source.coop/clay/sentinel-2-annual/1.0.0": str(folder),
        "utm-1280m_32618_3262_345_2023-01-01_2023-02-01": chip,
        "utm-1280m_…": chip,
        "2023-01 2023-07": "2016-01 2016-01",  # the sample has one window
        '"2023-01", "2023-07"': '"2016-01", "2016-01"',
        "RELEASE": str(folder),
        "OLD": str(folder),
        "NEW": str(folder),
    }


def replaced(code: str, stands_for: dict[str, str]) -> str:
    for written, meant in stands_for.items():
        code = code.replace(written, meant)
    return code


@pytest.fixture(scope="module")
def api(folder: Path) -> Iterator[str]:
    """The address of a running `clay-publish serve`."""
    command = [Path(sys.executable).with_name("clay-publish"), "serve", folder, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def test_nothing_is_written_in_a_language_that_no_machine_runs() -> None:
    languages = {block[1] for page in [*PAGES, *TUTORIALS] for block in BLOCK.finditer(page.read_text())}
    assert languages <= {"", "console", "python", "sh", "sql", "text", "yaml"}


@pytest.mark.slow
@pytest.mark.parametrize("code", blocks("", "console", "sh"))
def test_commands(code: str, stands_for: dict[str, str]) -> None:
    prompt = "$ " if code.startswith("$ ") else ""
    for line in code.splitlines():
        if line.startswith(prompt):
            run_line(line.removeprefix(prompt), stands_for)


@pytest.mark.slow
@pytest.mark.parametrize("code", blocks("yaml", workflow=True))
def test_steps_of_workflows(code: str, stands_for: dict[str, str]) -> None:
    for step in yaml.safe_load(code)["steps"]:
        assert step.keys() & {"run", "uses"}
        for line in step.get("run", "").splitlines():
            run_line(line, stands_for)


def run_line(line: str, stands_for: dict[str, str]) -> None:
    command = replaced(line.partition("  #")[0].strip(), stands_for)
    if any(command.startswith(start) for start in ELSEWHERE):
        return
    program, *arguments = shlex.split(command)
    assert program == "clay-publish"
    result = CliRunner().invoke(app, arguments)
    # 1: `validate` has findings, which here are the files of this test.
    assert result.exit_code == 0 or (arguments[0] == "validate" and result.exit_code == 1), result.output


@pytest.mark.parametrize("code", blocks("sql"))
@pytest.mark.usefixtures("stands_for")
def test_sql(code: str) -> None:
    duckdb.sql(code).to_arrow_table()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")  # of rioxarray 0.19, by affine 3
@pytest.mark.parametrize("code", blocks("python"))
def test_python(
    code: str,
    stands_for: dict[str, str],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    if "http://127.0.0.1:8000" in code:
        pytest.importorskip("pystac_client")
        stands_for = {**stands_for, "http://127.0.0.1:8000": request.getfixturevalue("api")}
    if "stations.parquet" in code:
        CliRunner().invoke(app, ["sample-points", str(Path.cwd()), "stations.csv", "--out", "stations.parquet"])
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    if "torchgeo" in code:
        for name, value in torchgeo_environment().items():
            monkeypatch.setenv(name, value)
            if name == "PYTHONPATH":
                monkeypatch.syspath_prepend(value)
    exec(compile(replaced(code, stands_for), "document", "exec"), {"__name__": "__main__"})  # noqa: S102 - our own text


@pytest.mark.parametrize("code", blocks("yaml"))
def test_yaml_is_part_of_something_that_is_read(code: str) -> None:
    """A spec or some of its keys, keys of an imagery block, or what lies beside an exported model."""
    document = yaml.safe_load(code.replace("sha256: …", f"sha256: {'a' * 64}"))
    block = {"stac": "x.json", "sensor": "sentinel-2-l2a"}
    if document.keys() <= Imagery.model_fields.keys():
        Imagery.model_validate(block | document)
    elif "dimensions" in document:
        ExportedModel.model_validate(document)
    elif "missions" in document:
        Sensor.model_validate(document)
    else:
        imagery = document.get("imagery", {})
        read = [
            each if "major_tom" in each else block | each
            for each in ([imagery] if isinstance(imagery, dict) else imagery)
        ]
        Spec.model_validate({"name": "x"} | document | {"imagery": read})


@pytest.fixture
def imagery(shared_data: Path, tmp_path: Path) -> dict[str, str]:
    """Texts of the tutorials and what they stand for here: a real Level-2A item, dated into each of their windows."""
    folder = shared_data / "s2_l2a_mini_29RKH_20200219"
    items = []
    for day in ("2022-01-15", "2023-01-15", "2023-07-15"):
        item = json.loads((folder / "item.json").read_text())
        item["id"] = f"{item['id']}-{day}"
        item["properties"]["datetime"] = f"{day}T11:34:25Z"
        taken = item["properties"]["s2:datatake_id"]
        item["properties"]["s2:datatake_id"] = taken.replace("20200219", day.replace("-", ""))
        for asset in item["assets"].values():
            asset["href"] = str(folder / asset["href"])
        items.append(item)
    (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return {
        "https://earth-search.aws.element84.com/v1": str(tmp_path / "items.json"),
        "[-75.72, 37.62, -75.54, 37.77]": "[-11.15, 25.05, -11.08, 25.11]",
    }


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_tutorial(
    page: Path,
    imagery: dict[str, str],
    folder: Path,
    sample_release: Path,
    run: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Blocks in their order, in one folder; YAML that begins with the name of a file is written to it."""
    stands_for = {"RELEASE": str(folder), **imagery}
    monkeypatch.chdir(folder if page.stem == "classifier" else tmp_path)
    if page.stem == "publish":
        shutil.copytree(sample_release, tmp_path / "my-first-release" / "1.0.0")
    names: dict[str, object] = {"__name__": "__main__"}
    for language, text in BLOCK.findall(page.read_text()):
        code = replaced(text, stands_for)
        file = re.match(r"# (\S+\.yaml)\n", code)
        if file:
            Path(file[1]).write_text(code)
        elif language == "sh":
            for line in code.splitlines():
                program, *arguments = shlex.split(line)
                assert program == "clay-publish"
                run(*arguments, cwd=Path.cwd())
        elif language == "sql":
            assert duckdb.sql(code).to_arrow_table().num_columns
        elif language == "yaml":
            Spec.model_validate(
                {"name": "x", "imagery": {"stac": "x", "sensor": "sentinel-2-l2a"}, **yaml.safe_load(code)}
            )
        else:
            assert language == "python"
            exec(compile(code, str(page), "exec"), names)  # noqa: S102 - our own text
