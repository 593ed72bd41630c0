"""What is built is what is needed."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
READ_NOT_RUN = (
    "clay_publish/spec/sensors/README.md",
    "clay_publish/catalog/embedding-release/",
    "clay_publish/cards/explorer/README.md",
    "clay_publish/cards/explorer/page/",
)
"""A specification and its examples; the source of the explorer's page, which is shipped as it is built."""
STAGES = ("producer", "catalog", "cards", "validate", "publish")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel that CI built, else one made now from a copy of the checkout; and what it was built from."""
    built = os.environ.get("CLAY_PUBLISH_WHEEL")
    if built:
        return Path(built), ROOT
    folder = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "my-first-release")
    shutil.copytree(ROOT, folder / "source", ignore=ignored)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, folder / "source"]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return next(folder.glob("*.whl")), folder / "source"


def inside(wheel: Path) -> dict[str, int]:
    with zipfile.ZipFile(wheel) as archive:
        return {entry.filename: entry.file_size for entry in archive.infolist()}


@pytest.mark.slow
def test_everything_in_the_folders_is_in_the_wheel_below_one_name(wheel: tuple[Path, Path]) -> None:
    names, root = inside(wheel[0]), wheel[1]
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"clay_publish"}
    folders = {root / "clay_publish": "clay_publish", **{root / s: f"clay_publish/{s}" for s in STAGES}}
    expected = {
        f"{below}/{path.relative_to(folder).as_posix()}"
        for folder, below in folders.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert sorted(path for path in expected - set(names) if not path.startswith(READ_NOT_RUN)) == []
    assert {"clay_publish/py.typed", "clay_publish/sample/imagery/item.json"} <= set(names)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


@pytest.mark.slow
def test_the_sample_fits_into_eight_megabytes(wheel: tuple[Path, Path]) -> None:
    sample = {name: size for name, size in inside(wheel[0]).items() if name.startswith("clay_publish/sample/")}
    assert sum(name.endswith(".tif") for name in sample) == 10
    assert sum(sample.values()) <= 8_000_000


def test_no_torch_is_needed_to_validate_or_publish() -> None:
    """Importing these stages imports nothing that an extra brings."""
    program = (
        "import sys, clay_publish.validate, clay_publish.catalog, clay_publish.cards, clay_publish.publish\n"
        "print([m for m in ('torch', 'rasterio', 'boto3', 's3fs', 'ray', 'duckdb', 'datasets') if m in sys.modules])"
    )
    made = subprocess.run([sys.executable, "-c", program], cwd="/", capture_output=True, text=True, check=True)
    assert made.stdout.strip() == "[]"


def test_help_imports_no_stage() -> None:
    program = (
        "import sys, clay_publish.cli.app\n"
        "print([m for m in ('numpy', 'pyarrow', 'shapely', 'pydantic', 'torch') if m in sys.modules])"
    )
    made = subprocess.run([sys.executable, "-c", program], cwd="/", capture_output=True, text=True, check=True)
    assert made.stdout.strip() == "[]"


def test_the_sample_is_a_valid_item_without_paths_of_a_machine() -> None:
    import pystac

    path = ROOT / "clay_publish" / "sample" / "imagery" / "item.json"
    item = pystac.Item.from_file(str(path))
    item.stac_extensions = []  # their schemas cannot be fetched here
    item.validate()
    document = json.loads(path.read_text())
    assert all(asset["href"].startswith("./") for asset in document["assets"].values())
