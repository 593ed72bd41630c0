"""What all tests share: real data, and one release made by the program itself."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from program import run_forked, run_script

pytest_plugins = ["tiny_release"]

Run = Callable[..., subprocess.CompletedProcess[str]]

_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

# Schemas of STAC extensions come from the test data or from nowhere, never from the network.
_FOLDER = Path(os.environ.get("CLAY_PUBLISH_TEST_DATA", _DATA)) / "schemas"
os.environ.setdefault("CLAY_PUBLISH_SCHEMAS", str(_FOLDER))

# Tests run side by side; threads that wait for each other by spinning would cost more than they bring.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real test data beside the checkout, or where CLAY_PUBLISH_TEST_DATA says."""
    folder = Path(os.environ.get("CLAY_PUBLISH_TEST_DATA", _DATA))
    if not (folder / "MANIFEST.md").is_file():
        pytest.skip(f"no test data in {folder}; CLAY_PUBLISH_TEST_DATA names another place")
    return folder


@pytest.fixture(scope="session")
def run() -> Run:
    """Run the program, with `env` from its installed script; `code` is the exit code it must give."""

    def start(
        *arguments: str | Path, cwd: Path | None = None, code: int = 0, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        given = [str(argument) for argument in arguments]
        made = run_forked(given, cwd=cwd) if env is None else run_script(given, cwd=cwd, env=env)
        assert made.returncode == code, f"exit code {made.returncode}\n{made.stdout}\n{made.stderr}"
        assert "Warning" not in made.stderr, made.stderr
        return made

    return start


@pytest.fixture(scope="session")
def sample_release(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """A complete release of the bundled sample. Read only: `release_copy` may be changed."""
    folder = tmp_path_factory.mktemp("sample")
    run("sample", folder / "first", cwd=folder)
    run("produce", folder / "first" / "release.yaml", "--out", folder / "release", cwd=folder)
    run("catalog", folder / "release", cwd=folder)
    return folder / "release"


@pytest.fixture
def release_copy(sample_release: Path, tmp_path: Path) -> Path:
    """A copy of the sample release that a test may damage."""
    return Path(shutil.copytree(sample_release, tmp_path / "release"))
