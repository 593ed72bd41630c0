"""Files that crash or exhaust the process that reads them are findings; that process opens nothing but the release."""

import base64
import os
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from breakage import Broken
from image_server import ImageServer
from pyarrow.parquet import encryption

from clay_publish.errors import ReleaseError
from clay_publish.progress import Progress
from clay_publish.release.directory import Release
from clay_publish.release.findings import ValidationReport
from clay_publish.validate import validate
from clay_publish.validate.outcomes import NoRoomError
from clay_publish.validate.sandbox.child import Child, suspects
from clay_publish.validate.sandbox.marks import Mark

NESTED = b"\x01\x07\x00\x00\x00\x01\x00\x00\x00" * 200_000 + b"\x01\x01\x00\x00\x00" + struct.pack("<dd", 0, 0)
"""A geometry collection in a geometry collection, 200,000 times."""


def errors_at(report: ValidationReport, path: str) -> list[str]:
    return [finding.found for finding in report.findings if finding.where == path and finding.severity == "error"]


def test_a_geometry_that_overflows_the_stack_is_a_finding(broken: Callable[[str], Broken]) -> None:
    release = broken("small")
    release.column("geometry", lambda values: [NESTED, *values[1:]])
    release.settle()
    report = validate(Release(str(release.folder)))
    assert errors_at(report, release.data) == ["ends the process that reads it (SIGSEGV)"]
    assert report.checked["GEO001"].startswith("not checked")
    assert report.checked["DOC001"] == "passed"


def test_one_bad_file_of_several_leaves_the_others_to_be_checked(broken: Callable[[str], Broken]) -> None:
    release = broken("morocco")
    first, second = release.release.data_files()[:2]
    release.column("geometry", lambda values: [NESTED, *values[1:]], second)
    report = validate(Release(str(release.folder)), only=("INT", "GEO", "VEC"))
    assert "ends the process that reads it (SIGSEGV)" in errors_at(report, second)
    assert not errors_at(report, first)
    assert report.checked["VEC001"].startswith("passed")


def test_the_file_that_holds_the_geometry_is_named(broken: Callable[[str], Broken]) -> None:
    release = broken("small")
    release.sources(lambda row: row.update(geometry=NESTED))
    release.settle()
    report = validate(Release(str(release.folder)), skip=("RDR",))
    assert errors_at(report, "sources.parquet") == ["ends the process that reads it (SIGSEGV)"]
    assert not errors_at(report, release.data)


class _Keys(encryption.KmsClient):  # type: ignore[misc]
    def wrap_key(self, key_bytes: bytes, _: str) -> bytes:
        return base64.b64encode(key_bytes)

    def unwrap_key(self, wrapped_key: bytes, _: str) -> bytes:
        return base64.b64decode(wrapped_key)


def test_an_encrypted_column_is_a_finding(broken: Callable[[str], Broken]) -> None:
    release = broken("small")
    table = release.table(release.data)
    keys = encryption.EncryptionConfiguration("a", column_keys={"b": ["embedding.list.element"]}, plaintext_footer=True)
    properties = encryption.CryptoFactory(lambda _: _Keys()).file_encryption_properties(
        encryption.KmsConnectionConfig(), keys
    )
    with pq.ParquetWriter(release.folder / release.data, table.schema, encryption_properties=properties) as writer:
        writer.write_table(table)
    release.codes_follow = release.reference_follows = False
    release.settle()
    report = validate(Release(str(release.folder)))
    assert errors_at(report, release.data)


def test_another_codec_in_the_footer_is_a_finding(broken: Callable[[str], Broken]) -> None:
    release = broken("small")
    path = release.folder / release.data
    data = bytearray(path.read_bytes())
    (length,) = struct.unpack("<I", data[-8:-4])
    name = data.index(b"\x09embedding\x04list\x07element", len(data) - 8 - length)
    codec = data.index(b"\x15\x0c", name)  # field 4 of the column: ZSTD
    data[codec + 1] = 2  # SNAPPY
    path.write_bytes(data)
    release.codes_follow = release.reference_follows = False
    release.settle()
    report = validate(Release(str(release.folder)))
    assert errors_at(report, release.data)


def test_a_crash_on_a_server_is_the_same_finding(broken: Callable[[str], Broken]) -> None:
    release = broken("small")
    release.column("geometry", lambda values: [NESTED, *values[1:]])
    release.settle()
    with ImageServer(release.folder.parent) as server:
        report = validate(Release(f"{server.url}/{release.folder.name}"), only=("INT", "GEO"))
    assert errors_at(report, release.data) == ["ends the process that reads it (SIGSEGV)"]


def workers() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if "sandbox.worker" in " ".join(child.cmdline()):
                found.append(child)
    return found


def test_a_child_that_the_system_ends_is_no_finding(good: Callable[[str], Path]) -> None:
    def end(_: Progress) -> None:
        for child in workers():
            child.send_signal(signal.SIGKILL)

    with pytest.raises(ReleaseError, match="was ended by the operating system"):
        validate(Release(str(good("small"))), report=end)
    assert validate(Release(str(good("small"))), only=("INT",)).findings == []


GUARDED = """
import os, socket, subprocess, sys
from clay_publish.validate.sandbox.worker import Guard
scratch, release, outside = sys.argv[1:]
guard = Guard(scratch)
guard.install()
guard.allow(release)
def refused(do):
    try:
        do()
    except PermissionError as error:
        return "reading a release may not" in str(error)
    return False
assert open(f"{release}/file").read() == "inside"
open(f"{scratch}/new", "w").close()
os.symlink(f"{release}/file", f"{scratch}/link")
assert open(f"{scratch}/link").read() == "inside"
first, second = socket.socketpair()  # as an event loop makes one, and its ends reach each other alone
first.send(b"x")
assert second.recv(1) == b"x"
for do in (
    lambda: open(outside),
    lambda: open(f"{release}/link"),
    lambda: open(f"{release}/../outside"),
    lambda: os.open(outside, os.O_RDONLY),
    lambda: open(f"{release}/file", "a"),
    lambda: os.remove(f"{release}/file"),
    lambda: os.listdir("/etc"),
    lambda: os.rename(f"{scratch}/new", f"{release}/new"),
    lambda: socket.socket(),
    lambda: socket.socket(socket.AF_UNIX),
    lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, os.dup(first.fileno())),
    lambda: socket.fromfd(first.fileno(), socket.AF_UNIX, socket.SOCK_STREAM),
    lambda: first.dup(),
    lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM),
    lambda: first.connect("/dev/log"),
    lambda: first.connect_ex("/dev/log"),
    lambda: first.bind(f"{scratch}/bound"),
    lambda: first.sendto(b"x", "/dev/log"),
    lambda: first.sendmsg([b"x"], [], 0, "/dev/log"),
    lambda: socket.getaddrinfo("localhost", 80),
    lambda: subprocess.run(["true"]),
    lambda: os.system("true"),
    lambda: os.fork(),
    lambda: os.execv("/bin/true", ["true"]),
):
    assert refused(do), do.__code__.co_firstlineno
guard.allow_only([])
assert refused(lambda: open(f"{release}/file"))
"""


def test_the_guard_refuses_what_is_not_the_release(tmp_path: Path) -> None:
    scratch, release, outside = tmp_path / "scratch", tmp_path / "release", tmp_path / "outside"
    scratch.mkdir()
    release.mkdir()
    outside.write_text("secret")
    (release / "file").write_text("inside")
    (release / "link").symlink_to(outside)
    made = subprocess.run(
        [sys.executable, "-c", GUARDED, scratch, release, outside],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr


def test_credentials_are_not_handed_to_the_child(good: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted")
    seen: list[dict[str, str]] = []

    def look(_: Progress) -> None:
        seen.extend(child.environ() for child in workers())

    validate(Release(str(good("small"))), only=("INT006",), report=look)
    assert seen
    assert not any("planted" in value for each in seen for value in each.values())


def mark(kind: str, name: str, start: float, ident: int) -> Mark:
    return Mark(kind, name, start, ident, ident, 0, 0, 0.0)  # type: ignore[arg-type]


def test_suspects_are_what_the_crashed_thread_read() -> None:
    rule = mark("rule", "GEO001", 1.0, 1)
    marks = [mark("reading", "b", 4.0, 3), mark("reading", "a", 3.0, 2), mark("touched", "c", 2.0, 1), rule]
    assert [one.name for one in suspects(marks, 2)] == ["a"]
    assert [one.name for one in suspects(marks, None)] == ["b", "a"]
    assert [one.name for one in suspects(marks, 1)] == ["c", ":GEO001"]
    earlier = [mark("touched", "c", 0.5, 1), rule]
    assert [one.name for one in suspects(earlier, None)] == [":GEO001"]


def test_a_full_disk_is_one_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(tempfile, "TemporaryFile", partial(Path("/dev/full").open, "r+b"))
    with pytest.raises(NoRoomError, match=r"98,304 bytes.*TMPDIR"):
        Child()
    assert not list(tmp_path.iterdir())
