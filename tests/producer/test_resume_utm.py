"""Killed anywhere in the `utm` layout, whose units are cells of many images, and run again: the same bytes."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from clay_publish.producer.execution.context import SIDE_BY_SIDE

from .processes import start
from .scattered import embeddings, scattered, write_spec

Finished = dict[str, tuple[int, bytes]]


@pytest.fixture(scope="module")
def undisturbed(once: Callable[..., Path]) -> tuple[Path, Path]:
    """A spec of several squares and windows, and the release that an undisturbed run makes of it. Read only."""

    def build(folder: Path) -> None:
        scattered(folder / "spec")
        start(write_spec(folder / "spec", chips={"layout": "utm", "size": 64}), folder / "release").finish()

    folder = once("undisturbed-utm", build)
    return folder / "spec" / "release.yaml", folder / "release"


def receipts(release: Path) -> Finished:
    return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in (release / ".run" / "receipts").glob("*.json")}


EVENTS: dict[str, Callable[[Path], bool]] = {
    "a unit begins": lambda out: any((out / ".run" / "attempts").glob("*.json")),
    "a part is written": lambda out: any((out / ".run" / "parts").glob("18*/*.arrow")),
    "a file is published": lambda out: any((out / "embeddings").glob("*/*.parquet")),
}


@pytest.mark.parametrize(
    "event",
    [  # two runs of the program each
        pytest.param("a unit begins", marks=pytest.mark.slow),
        pytest.param("a part is written", marks=pytest.mark.slow),
        "a file is published",
    ],
)
def test_killed_when(event: str, undisturbed: tuple[Path, Path], tmp_path: Path) -> None:
    spec = Path(shutil.copytree(undisturbed[0].parent, tmp_path / "spec")) / "release.yaml"
    out = tmp_path / "release"
    assert start(spec, out).kill_when(lambda: EVENTS[event](out))
    finished, at_work = receipts(out), {path.stem for path in (out / ".run" / "attempts").glob("*.json")}
    assert len(at_work) <= SIDE_BY_SIDE
    start(spec, out).finish()
    units = receipts(undisturbed[1]).keys()
    assert len(units) >= 3
    assert receipts(out).keys() == units
    assert finished.items() <= receipts(out).items()  # not a byte of them was written again
    assert embeddings(out) == embeddings(undisturbed[1])
    for name in ("coverage/zone=18.parquet", "gaps.geojson", "sources.parquet"):
        assert (out / name).read_bytes() == (undisturbed[1] / name).read_bytes(), name
    assert not list(out.rglob(".tmp-*"))
