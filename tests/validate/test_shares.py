"""Validation in shares and on Ray: the same bytes as by one process, wherever a worker ends."""

import gc
import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from breakage import Broken
from program import fork
from test_sandbox import NESTED

from clay_publish.errors import StoreError
from clay_publish.release.directory import Release
from clay_publish.storage.store import Store
from clay_publish.validate.data.chip_facts import RowFacts
from clay_publish.validate.data.scan import FileScan
from clay_publish.validate.kept_scan import pack, unpack
from clay_publish.validate.shares import Choice, SharedValidation

Run = Callable[..., Any]
ON_RAY = ("--engine", "ray", "--workers", "2")

DIE_AT_FILE = """
import os, signal
from clay_publish.validate import shares
real, left = shares.Store.write, [{number}]
def write(self, path, data):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.{signal})
    return real(self, path, data)
shares.Store.write = write
"""
"""The process ends when it is about to keep what it saw in file number so and so."""

DIE_AT_REMOVAL = """
import os, signal
from clay_publish.validate import shares
real, removed = shares.Store.remove, []
def remove(self, path):
    removed.extend([path] if path.endswith(".npz") else [])
    if len(removed) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, path)
shares.Store.remove = remove
"""
"""The process ends when it is about to remove what was kept of a second file."""


@pytest.fixture
def whole(tiny: Release, tmp_path: Path) -> Path:
    """Three embeddings files in two zones, in order."""
    return Path(shutil.copytree(tiny.store.where, tmp_path / "whole" / "1.0.0"))


@pytest.fixture
def damaged(whole: Path) -> Path:
    """A NaN and a repeated id in one file, a column less in the second, flipped bytes in the third."""
    first, second, third = _files(whole)
    table = pq.read_table(first)
    vectors = table["embedding"].to_pylist()
    vectors[1] = [float("nan")] * len(vectors[1])
    names = table["id"].to_pylist()
    names[3] = names[2]
    table = _with(table, "embedding", pa.array(vectors, table["embedding"].type))
    _write(_with(table, "id", pa.array(names)), first)
    table = pq.read_table(second)
    _write(_with(table, "lon", pc.add(table["lon"], 1.0)).drop_columns(["datetime"]), second)
    data = bytearray(third.read_bytes())
    data[200:260] = bytes(60)
    third.write_bytes(data)
    return whole


def _files(release: Path) -> list[Path]:
    return [release / path for path in Release(str(release)).data_files()]


def _with(table: pa.Table, name: str, column: Any) -> pa.Table:
    return table.set_column(table.column_names.index(name), table.schema.field(name), column)


def _write(table: pa.Table, file: Path) -> None:
    pq.write_table(table, file, write_page_checksum=True)


def _kept(release: Path) -> list[Path]:
    return sorted((release / ".run").glob("scans/*/*/*.npz"))


@pytest.fixture
def frequent_collections() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(5, 2, 2)
    yield
    gc.set_threshold(*before)


@pytest.mark.usefixtures("frequent_collections")
def test_what_was_kept_is_read_by_threads() -> None:
    """In Python 3.11, `ast.literal_eval` fails where a collection of garbage hands over to another thread in it."""
    arrays = {f"a{number}": np.arange(5) for number in range(30)}
    data = pack(("0" * 64, FileScan("embeddings/a.parquet", 5, facts=[RowFacts(arrays, {})])), (0, 1))

    def read(_: int) -> bool:
        leaves = _LeavesGarbage()
        leaves.own = leaves
        return unpack(data, (0, 1)) is not None

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(1000)))


class _LeavesGarbage:
    own: object

    def __del__(self) -> None:
        """Take so long that another thread may go on."""
        sum(range(50))


def test_shares_report_the_same_bytes(damaged: Path, run: Run) -> None:
    expected = run("validate", damaged, "--json", "--quiet", code=1)
    assert "cannot be read" in expected.stdout
    for number in (2, 3):
        printed = run("validate", damaged, "--unit", f"{number}/3", "--quiet").stdout
        assert f"share {number}/3 is read; {4 - number} of the others are not" in printed
    assert len(_kept(damaged)) == 2
    last = run("validate", damaged, "--unit", "1/3", "--json", "--quiet", code=1)
    assert last.stdout == expected.stdout
    assert not _kept(damaged)


@pytest.mark.slow  # each of three runs starts children until it knows which file ends them
def test_a_file_that_ends_its_reader_is_the_same_finding(broken: Callable[[str], Broken], run: Run) -> None:
    release = broken("morocco")
    second = release.release.data_files()[1]
    release.column("geometry", lambda values: [NESTED, *values[1:]], second)
    command = ["validate", release.folder, "--json", "--quiet"]
    expected = run(*command, code=1)
    assert "ends the process that reads it (SIGSEGV)" in expected.stdout
    run(*command, "--unit", "1/2")
    assert run(*command, "--unit", "2/2", code=1).stdout == expected.stdout


def test_a_seam_between_files_of_two_shares_is_the_same_finding(broken: Callable[[str], Broken], run: Run) -> None:
    release = broken("strips")
    _, second = release.release.data_files()
    release.vectors(lambda vectors: vectors[:, ::-1].copy(), second)
    command = ["validate", release.folder, "--json", "--quiet", "--only", "VEC", "--fail-on", "warning"]
    expected = run(*command, code=1)
    assert json.loads(expected.stdout)["checked"]["VEC025"] == "failed"
    run(*command, "--unit", "1/2")
    assert run(*command, "--unit", "2/2", code=1).stdout == expected.stdout


@pytest.mark.slow  # each of three runs starts children until it knows which file ends them
def test_a_file_that_ends_its_reader_does_not_change_the_sample(broken: Callable[[str], Broken], run: Run) -> None:
    """One share sampled among the rows of both files, the other knows that those of one cannot be read."""
    release = broken("morocco")
    first, second = release.release.data_files()
    release.column("row", lambda values: [*values[:5], values[5] + 50, *values[6:]], second)
    release.column("geometry", lambda values: [NESTED, *values[1:]], first)
    command = ["validate", release.folder, "--json", "--quiet", "--sample", "8"]
    expected = run(*command, code=1)
    assert json.loads(expected.stdout)["checked"]["GEO012"] == "failed"
    run(*command, "--unit", "2/2")
    assert run(*command, "--unit", "1/2", code=1).stdout == expected.stdout


def test_what_changes_while_a_share_reads_is_read_again(whole: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real = SharedValidation.scan

    def scan(shared: SharedValidation, number: int, **more: Any) -> None:
        real(shared, number, **more)
        if number == 2:  # of another share, whose file is replaced while this one reads
            table = pq.read_table(_files(whole)[0])
            _write(_with(table, "lon", pc.add(table["lon"], 1.0)), _files(whole)[0])

    run("validate", whole, "--unit", "1/2", "--quiet")
    monkeypatch.setattr(SharedValidation, "scan", scan)
    assert json.loads(run("validate", whole, "--unit", "2/2", "--json", "--quiet").stdout)["shares_left"] == [1, 2]


def test_a_full_disk_is_no_crash(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(_: Store, path: str, __: bytes) -> None:
        raise StoreError(path, "cannot be written (No space left on device)")

    monkeypatch.setattr(Store, "write", write)
    with pytest.raises(StoreError, match="No space left"):
        SharedValidation(Release(str(whole)), Choice((), (), 100), 1).scan(1)


def test_one_file_is_not_validated_in_shares(whole: Path, run: Run) -> None:
    for more in (("--unit", "1/1"), ON_RAY):
        if more is ON_RAY:
            pytest.importorskip("ray")
        refused = run("validate", _files(whole)[0], *more, code=2)
        assert "is one file, which is not validated in shares" in refused.stderr
    assert not list(_files(whole)[0].parent.glob(".run"))


@pytest.mark.slow  # a Ray cluster of this machine takes some 10 s to start
def test_ray_reports_the_same_bytes(damaged: Path, run: Run) -> None:
    pytest.importorskip("ray")
    expected = run("validate", damaged, "--json", "--quiet", code=1)
    found = run("validate", damaged, *ON_RAY, "--json", "--quiet", code=1)
    assert found.stdout == expected.stdout
    assert not _kept(damaged)


@pytest.mark.slow  # three runs
def test_an_interrupted_share_resumes(damaged: Path, tmp_path: Path, run: Run) -> None:
    """Ended by SIGTERM before the second of three files is kept, and by SIGKILL after the third."""
    expected = run("validate", damaged, "--json", "--quiet", code=1)
    out, errors = tmp_path / "out", tmp_path / "errors"
    share = ["validate", str(damaged), "--unit", "1/1", "--json", "--quiet"]
    for number, signal, exit_code in ((2, "SIGTERM", 143), (3, "SIGKILL", -9)):
        process = fork(share, out=out, errors=errors, first=DIE_AT_FILE.format(number=number, signal=signal))
        process.join(120)
        assert process.exitcode == exit_code, errors.read_text()
        if number == 2:
            (kept,) = _kept(damaged)
            os.utime(kept, (0, 0))  # to see whether it is written again
    assert "Run the same command again to continue" in errors.read_text()
    assert len(_kept(damaged)) == 3
    assert kept.stat().st_mtime == 0
    assert run(*share, code=1).stdout == expected.stdout


def test_a_share_that_is_killed_after_its_report_resumes(damaged: Path, tmp_path: Path, run: Run) -> None:
    expected = run("validate", damaged, "--json", "--quiet", code=1)
    errors = tmp_path / "errors"
    share = ["validate", str(damaged), "--unit", "1/1", "--json", "--quiet"]
    process = fork(share, out=tmp_path / "out", errors=errors, first=DIE_AT_REMOVAL)
    process.join(120)
    assert process.exitcode == -9, errors.read_text()
    assert 0 < len(_kept(damaged)) < 3
    assert run(*share, code=1).stdout == expected.stdout
    assert not _kept(damaged)


def test_the_report_is_made_of_what_shares_saw(whole: Path, run: Run) -> None:
    expected = run("validate", whole, "--json", "--quiet", code=1)
    run("validate", whole, "--unit", "1/2", "--quiet")
    first, second = _kept(whole)
    first.write_bytes(first.read_bytes()[:-50])  # a damaged one is not used, its file is read again
    with np.load(second) as found:
        arrays = dict(found)
    head = json.loads(arrays["head"].tobytes())
    arrays["head"] = np.frombuffer(json.dumps({**head, "damage": "seen by a share"}).encode(), np.uint8)
    np.savez(second, **arrays)
    last = run("validate", whole, "--unit", "2/2", "--json", "--quiet", code=1)
    assert "seen by a share" in last.stdout
    run("validate", whole, "--unit", "1/2", "--quiet")
    _kept(whole)[0].write_bytes(b"")
    assert run("validate", whole, "--unit", "2/2", "--json", "--quiet", code=1).stdout == expected.stdout


def test_nothing_is_used_that_was_seen_before_a_change(whole: Path, run: Run) -> None:
    run("validate", whole, "--unit", "1/2", "--quiet")
    first = _files(whole)[0]
    table = pq.read_table(first)
    _write(_with(table, "lon", pc.add(table["lon"], 1.0)), first)
    printed = run("validate", whole, "--unit", "2/2", "--quiet").stdout
    assert "1 of the others are not" in printed
    expected = run("validate", whole, "--json", "--quiet", code=1)
    assert run("validate", whole, "--unit", "1/2", "--json", "--quiet", code=1).stdout == expected.stdout


def test_other_rules_are_another_validation(whole: Path, run: Run) -> None:
    """What one keeps is neither used nor removed by the other."""
    vectors = ("--only", "VEC", "--json", "--quiet")
    expected = run("validate", whole, *vectors, code=1)
    run("validate", whole, "--unit", "1/2", *vectors)
    kept = _kept(whole)
    assert "1 of the others are not" in run("validate", whole, "--unit", "2/2", "--quiet").stdout
    run("validate", whole, "--unit", "1/2", "--quiet", code=1)
    assert _kept(whole) == kept
    assert run("validate", whole, "--unit", "2/2", *vectors, code=1).stdout == expected.stdout
    assert not _kept(whole)


def test_what_is_left_of_changed_files_is_removed(whole: Path, run: Run) -> None:
    run("validate", whole, "--unit", "1/2", "--only", "VEC", "--quiet")
    assert len(_kept(whole)) == 2
    _kept(whole)[0].with_name(".tmp-of-a-killed-share").write_bytes(b"half")
    os.utime(_files(whole)[0], (0, 0))
    run("validate", whole, "--unit", "1/1", "--quiet", code=1)
    assert not list((whole / ".run" / "scans").rglob("*.*"))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--unit", "3/2"), "3/2"),
        (("--unit", "1/2", "--quick"), "--quick"),
        (("--unit", "1/2", *ON_RAY), "--unit"),
        (("--workers", "2"), "--workers"),
    ],
)
def test_options_that_contradict_each_other(options: tuple[str, ...], expected: str, whole: Path, run: Run) -> None:
    assert expected in run("validate", whole, *options, code=2).stderr
    assert not _kept(whole)


def test_a_file_alone_has_no_shares(whole: Path, run: Run) -> None:
    assert "is one file" in run("validate", _files(whole)[0], "--unit", "1/2", code=2).stderr
