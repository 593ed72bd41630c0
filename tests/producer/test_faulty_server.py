"""Images on a server that does not do its best: bounded retries, and a reason for every chip that is missing."""

import re
import shutil
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from image_server import Fault, ImageServer

from clay_publish.producer.imagery.remote import RETRIES

from .processes import start, until
from .scattered import embeddings

LATER = partial(pytest.param, marks=pytest.mark.slow)
"""Another case of a kind, a whole run more."""
IMPATIENT = "import time; time.sleep = lambda _: None"
"""Without the pauses between two tries; what is tried stays the same."""


@pytest.fixture
def server(begun: tuple[Path, Path], tmp_path: Path) -> Iterator[ImageServer]:
    """Serves the items and images of the spec."""
    folder = Path(shutil.copytree(begun[0].parent, tmp_path / "served"))
    with ImageServer(folder) as serving:
        yield serving


@pytest.fixture
def spec(server: ImageServer, tmp_path: Path) -> Path:
    """A spec whose items are on the server."""
    path = tmp_path / "release.yaml"
    path.write_text((server.folder / "release.yaml").read_text().replace("items.json", f"{server.url}/items.json"))
    return path


def run(spec: Path, out: Path, *, code: int = 0) -> dict[str, list[dict[str, object]]]:
    """Run to the end; the missing chips by reason."""
    start(spec, out, IMPATIENT).finish(code=code)
    missing: dict[str, list[dict[str, object]]] = {}
    for row in pq.read_table(out / "coverage").to_pylist():
        if row["reason"] is not None:
            missing.setdefault(row["reason"], []).append(row)
    return missing


@pytest.mark.parametrize(
    "action", ["status:503", LATER("status:429"), "reset", "truncate", LATER("slow"), LATER("html")]
)
def test_what_passes_changes_nothing(
    action: str, server: ImageServer, spec: Path, begun: tuple[Path, Path], tmp_path: Path
) -> None:
    server.faults += [Fault(action, "across_B02", times=2), Fault(action, "west_B11", times=2)]
    assert run(spec, tmp_path / "release") == {}
    assert all(fault.times <= 0 for fault in server.faults)
    assert embeddings(tmp_path / "release") == embeddings(begun[1])


@pytest.mark.slow
@pytest.mark.parametrize("action", ["status:503", "reset", "truncate", "html"])
def test_what_stays_is_recorded_after_some_tries_and_tried_again_by_the_next_run(
    action: str, server: ImageServer, spec: Path, begun: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "release"
    server.faults.append(Fault(action, "across_B02"))
    missing = run(spec, out, code=1)
    assert set(missing) == {"unreadable"}
    assert {item for row in missing["unreadable"] for item in row["item_ids"]} == {"across"}  # type: ignore[attr-defined]
    (detail,) = {str(row["detail"]) for row in missing["unreadable"]}
    assert "B02.tif" in detail
    assert "127.0.0.1" not in detail
    asked = len(server.of("across_B02"))
    assert RETRIES.attempts <= asked <= 2 * 2 * RETRIES.attempts  # planned and read; a header, and a range
    assert len(embeddings(out)) == 3
    server.faults.clear()
    assert run(spec, out) == {}
    assert embeddings(out) == embeddings(begun[1])


@pytest.mark.parametrize(
    ("status", "methods"), [(403, ("GET", "HEAD")), (404, ("GET",)), LATER(404, ("GET", "HEAD")), LATER(403, ("GET",))]
)
def test_a_final_answer_is_not_asked_for_again(
    status: int, methods: tuple[str, ...], server: ImageServer, spec: Path, tmp_path: Path
) -> None:
    server.faults += [Fault(f"status:{status}", "east_B04", method) for method in methods]
    missing = run(spec, tmp_path / "release", code=1)
    (detail,) = {str(row["detail"]) for row in missing["unreadable"]}
    assert re.search(rf"server answers {status} |HTTP response code: {status}\b", detail)
    assert len(server.of("east_B04")) <= 3  # planned, looked at for its offset, and read


def test_a_redirect_is_followed(server: ImageServer, spec: Path, begun: tuple[Path, Path], tmp_path: Path) -> None:
    (server.folder / "moved.tif").write_bytes((server.folder / "west_B03.tif").read_bytes())
    (server.folder / "west_B03.tif").unlink()
    server.faults += [Fault(f"redirect:{server.url}/moved.tif", "west_B03.tif", method) for method in ("GET", "HEAD")]
    assert run(spec, tmp_path / "release") == {}
    assert embeddings(tmp_path / "release") == embeddings(begun[1])


def test_a_file_that_changes_after_planning_is_not_read(
    server: ImageServer, spec: Path, begun: tuple[Path, Path], tmp_path: Path
) -> None:
    """Its ETag is another when the unit begins."""
    out = tmp_path / "release"
    change = f"""
{IMPATIENT}
import shutil
from clay_publish.producer import produce
real = produce.run_units
def run_units(*arguments):
    shutil.copyfile({str(server.folder / "west_B8A.tif")!r}, {str(server.folder / "across_B8A.tif")!r})
    return real(*arguments)
produce.run_units = run_units
"""
    planned = (server.folder / "across_B8A.tif").read_bytes()
    start(spec, out, change).finish(code=1)
    missing = [row for row in pq.read_table(out / "coverage").to_pylist() if row["reason"] is not None]
    assert {(row["reason"], *row["item_ids"]) for row in missing} == {("source_changed", "across")}
    assert len(missing) == 16
    # The header, for planning, and the sample that is evidence; what is not as planned is not read for chips.
    assert len(server.of("across_B02.tif")) - len(server.of("across_B02.tif.msk")) == 3
    # One request tells that there are no external masks.
    assert [(found.name, found.sent) for found in server.of("across") if ".msk" in found.name] == [
        ("across_B02.tif.msk", len(b"no such file"))
    ]
    (server.folder / "across_B8A.tif").write_bytes(planned)
    assert run(spec, out) == {}
    assert embeddings(out) == embeddings(begun[1])


DIE_AT_THE_SECOND = """
import os, signal
find, seen = image_files._Identified.find, []
def second(self, items):
    seen.append(items)
    return os.kill(os.getpid(), signal.SIGKILL) if len(seen) == 2 else find(self, items)
image_files._Identified.find = second
"""
"""The process ends when it is about to ask about a second image."""


def test_killed_before_there_is_a_plan_it_asks_about_the_other_images(
    spec: Path, begun: tuple[Path, Path], tmp_path: Path
) -> None:
    out, asked = tmp_path / "release", tmp_path / "asked"
    one_by_one = f"""
from clay_publish.producer.planning import image_files
image_files._BATCH, etags = 2, image_files.etags
def listed(item, nodata):
    with open({str(asked)!r}, "a") as file:
        print(item.id, file=file)
    return etags(item, nodata)
image_files.etags = listed
"""
    assert start(spec, out, one_by_one + DIE_AT_THE_SECOND).wait() == -signal.SIGKILL
    assert len(asked.read_text().split()) == len(list((out / ".run" / "identified").iterdir())) == 1
    start(spec, out, one_by_one).finish()
    assert sorted(asked.read_text().split()) == ["across", "east", "later", "west"]
    assert not list((out / ".run" / "identified").iterdir())
    assert embeddings(out) == embeddings(begun[1])


LOSES_ONE = """
from clay_publish.producer.planning import image_files
real = image_files.etags
def etags(item, nodata):
    tags = dict(real(item, nodata))
    if item.id == "across":
        del tags[item.bands[2].href]
    return tags
image_files.etags = etags
"""
IS_LATE = """
import time
from clay_publish.producer import produce
real = produce.keep_files
def keep_files(release, *arguments):
    print("is late", flush=True)
    while not release.store.exists(produce.UNITS):
        time.sleep(0.01)
    real(release, *arguments)
produce.keep_files = keep_files
"""


def test_a_share_that_found_something_else_takes_what_the_first_found(
    spec: Path, begun: tuple[Path, Path], tmp_path: Path
) -> None:
    """A request of one was lost; the other had asked already, and its plan is not the first."""
    out = tmp_path / "release"
    late = start(spec, out, IS_LATE, more=("--unit", "2/2"))
    until(late, lambda: late.errors.exists() and "is late" in late.errors.read_text())
    start(spec, out, LOSES_ONE, more=("--unit", "1/2")).finish()
    late.finish()
    assert embeddings(out) == embeddings(begun[1])


def test_a_file_that_changes_while_it_is_read_is_not_used(server: ImageServer, spec: Path, tmp_path: Path) -> None:
    """HEAD says what was planned; the GET of the pixels comes from another file."""
    out = tmp_path / "release"
    change = f"""
{IMPATIENT}
from clay_publish.producer.imagery import remote
real = remote.HttpClient.part
def part(client, url, start, end, tag=None):
    data, head = real(client, url, start, end)
    if "across_B8A" in url and start and tag is not None:
        return real(client, url + "?changed", start, end, tag)
    return real(client, url, start, end, tag)
remote.HttpClient.part = part
"""
    server.faults.append(Fault("changed", "?changed"))
    start(spec, out, change).finish(code=1)
    missing = [row for row in pq.read_table(out / "coverage").to_pylist() if row["reason"] is not None]
    assert {(row["reason"], *row["item_ids"]) for row in missing} == {("source_changed", "across")}


def test_each_pass_fetches_each_byte_once(server: ImageServer, spec: Path, tmp_path: Path) -> None:
    assert run(spec, tmp_path / "release") == {}
    images = list(server.folder.glob("across_*.tif"))
    fetched = sum(request.sent for request in server.of("across_"))
    headers = 16_384 * len(images)  # planning looks at them, since these items do not state their grid
    # The sample of an image without overviews is its central window: all of an image as small as these.
    sample = sum(path.stat().st_size for path in images) + headers
    # Reference vectors: four chips of a file once it is there; in a release this small, the others at the end. Each of
    # the two files that these images are in opens them.
    second = 2 * (sum(path.stat().st_size for path in images) + 2 * headers)
    assert fetched <= sum(path.stat().st_size for path in images) + headers + sample + second
