"""Marks that one process writes while another reads them."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import IO

import pytest

from clay_publish.validate.sandbox.marks import SIZE, Marks

WRITE = """
import sys
from clay_publish.validate.sandbox.marks import Marks
marks = Marks(int(sys.argv[1]))
slot = marks.begin("reading", "0" * 20, 7)
print("begun", flush=True)
while True:
    for number in range(200):
        marks.end(marks.begin("reading", f"{number}" * 20, 7))
        marks.replace(slot, "reading", f"{number}" * 20, 7)
"""


@pytest.fixture
def shared() -> Iterator[IO[bytes]]:
    with tempfile.TemporaryFile() as file:
        file.write(bytes(SIZE))
        file.flush()
        yield file


def test_a_mark_is_read_as_it_was_written_or_not_at_all(shared: IO[bytes]) -> None:
    """One whose memory was still 0 made a small file look as if it took all memory of a large validation."""
    fd = shared.fileno()
    writer = subprocess.Popen([sys.executable, "-c", WRITE, str(fd)], pass_fds=[fd], stdout=subprocess.PIPE)
    try:
        assert writer.stdout is not None
        writer.stdout.readline()
        marks, seen, stop = Marks(fd), 0, time.monotonic() + 4
        while time.monotonic() < stop:
            for mark in marks.current():
                seen += 1
                assert (mark.kind, mark.size, mark.name) == ("reading", 7, mark.name[: len(mark.name) // 20] * 20)
                assert min(mark.memory, mark.seconds, mark.start, mark.thread, mark.ident) > 0, mark
        assert seen
    finally:
        writer.kill()
        writer.communicate()


def test_half_a_mark_is_none(shared: IO[bytes]) -> None:
    marks = Marks(shared.fileno())
    slot = marks.begin("reading", "a.parquet", 5)
    (mark,) = marks.current()
    assert (mark.name, mark.size) == ("a.parquet", 5)
    shared.seek(0)
    whole = shared.read(200).rstrip(b"\0")
    for place, byte in enumerate(whole):
        for other in {0, byte ^ 1} - {byte}:
            shared.seek(place)
            shared.write(bytes([other]))
            shared.flush()
            assert marks.current() == []
        shared.seek(place)
        shared.write(bytes([byte]))
        shared.flush()
    assert marks.current() == [mark]
    marks.end(slot)
    assert marks.current() == []
