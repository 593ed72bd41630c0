"""What all tests share: real data, a checkpoint, and one release made by the program itself."""

import faulthandler
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from filelock import FileLock
from program import end_all, run_here, run_script

from clay_publish.producer.imagery import raster
from clay_publish.storage import retry

from .golden import write_checkpoint

pytest_plugins = ["tiny_release"]

# Programs that tests start must import the installed package (or the linked tree on PYTHONPATH), never the folder
# `clay_publish/` of the checkout they happen to be started in: the stages are not below it.
os.environ["PYTHONSAFEPATH"] = "1"

# A busy machine is no fault of the code.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

Run = Callable[..., subprocess.CompletedProcess[str]]
Once = Callable[[str, Callable[[Path], object]], Path]

_DATA = Path(__file__).resolve().parent / "data"
_LARGER = _DATA.parents[2] / "shared" / "data"

# Schemas of STAC extensions come from the package or from nowhere, never from the network.
os.environ.setdefault("CLAY_PUBLISH_SCHEMAS", str(_DATA))

# What one test fetched must not spare another its requests.
os.environ["CLAY_PUBLISH_CACHE"] = "off"

# Tests run side by side; threads that wait for each other by spinning would cost more than they bring.
os.environ.setdefault("OMP_NUM_THREADS", "1")


# No test cuts the power; waiting for the disk would take a tenth of the time of a run.
os.fsync = os.fstat


@pytest.hookimpl(trylast=True)  # after pytest's own, which writes where the end of the output does not show it
def pytest_configure(config: pytest.Config) -> None:
    """Keep what a crash of a worker says."""
    if not hasattr(config, "workerinput"):
        os.environ["TESTS_CRASHES"] = tempfile.mkdtemp(prefix="crashes-")
    else:
        file = Path(os.environ["TESTS_CRASHES"], os.environ["PYTEST_XDIST_WORKER"])
        faulthandler.enable(file.open("w"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print it at the end. A worker that was killed has said nothing."""
    for file in sorted(Path(os.environ["TESTS_CRASHES"]).iterdir()):
        if said := file.read_text():
            terminalreporter.section(f"{file.name} crashed")
            terminalreporter.write_line(said)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove what was kept."""
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ["TESTS_CRASHES"])


@pytest.fixture(autouse=True, scope="session")
def without_names() -> Iterator[None]:
    """No name server is asked: where there is none, each name would be waited for."""
    real, local = socket.getaddrinfo, {None, "", "localhost", socket.gethostname()}

    def lookup(host: Any, port: Any, *more: Any, **options: Any) -> Any:
        if host not in local:
            real(host, None, flags=socket.AI_NUMERICHOST)  # raises what an unknown name does
        return real(host, port, *more, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", lookup)
        yield


@pytest.fixture(autouse=True, scope="session")
def impatient() -> Iterator[None]:
    """What is tried again is tried as often, and at once."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((retry, "DEFAULT"), (raster, "RETRIES")):
            patch.setattr(module, name, replace(getattr(module, name), first=0.01, longest=0.05))
        yield


@pytest.fixture(autouse=True)
def no_program_left() -> Iterator[None]:
    """No program outlives the test that started it, also where that fails."""
    yield
    end_all()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real test data. Its README.md says what is there and where it comes from."""
    return _DATA


@pytest.fixture(scope="session")
def larger_data() -> Path:
    """The uncropped images, where CLAY_PUBLISH_DATA says or beside the checkout. For slow tests alone."""
    folder = Path(os.environ.get("CLAY_PUBLISH_DATA", _LARGER))
    if not (folder / "MANIFEST.md").is_file():
        pytest.skip(f"needs the uncropped images, and {folder} has none; CLAY_PUBLISH_DATA can name their folder")
    return folder


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """`once(name, build)`: a folder that the first process of the test run to ask for it builds, and all read."""
    home = tmp_path_factory.getbasetemp()
    home = home.parent if "PYTEST_XDIST_WORKER" in os.environ else home

    def get(name: str, build: Callable[[Path], object]) -> Path:
        folder, done = home / name, home / f"{name}.done"
        with FileLock(home / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a process that ended before it was done
                folder.mkdir()
                build(folder)
                done.touch()
        return folder

    return get


@pytest.fixture(scope="session")
def golden_checkpoint(once: Once) -> Path:
    """A small Clay checkpoint in the real key layout, and its weights are those of the golden vectors."""
    return once("golden", lambda folder: write_checkpoint(folder / "clay_golden.ckpt")) / "clay_golden.ckpt"


@pytest.fixture(scope="session")
def run() -> Run:
    """Run the program in this process, with `env` from its installed script; `code` is the exit code it must give."""

    def start(
        *arguments: str | Path, cwd: Path | None = None, code: int = 0, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        given = [str(argument) for argument in arguments]
        made = run_here(given, cwd=cwd) if env is None else run_script(given, cwd=cwd, env=env)
        assert made.returncode == code, f"exit code {made.returncode}\n{made.stdout}\n{made.stderr}"
        assert "Warning" not in made.stderr, made.stderr
        return made

    return start


@pytest.fixture(scope="session")
def sample_release(once: Once, run: Run) -> Path:
    """A complete release of the bundled sample. Read only: `release_copy` may be changed."""

    def build(folder: Path) -> None:
        run("sample", folder / "first", cwd=folder)
        run("produce", folder / "first" / "release.yaml", "--out", folder / "release", cwd=folder)
        run("catalog", folder / "release", cwd=folder)

    return once("sample", build) / "release"


@pytest.fixture
def release_copy(sample_release: Path, tmp_path: Path) -> Path:
    """A copy of the sample release that a test may damage."""
    return Path(shutil.copytree(sample_release, tmp_path / "release"))
