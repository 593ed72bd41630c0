"""`clay-publish explore`: the server on loopback."""

import http.client
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Releases = Callable[[str], Path]


@pytest.fixture(scope="module")
def address(made_releases: Releases) -> Iterator[tuple[str, int]]:
    command = [str(Path(sys.executable).parent / "clay-publish"), "explore", str(made_releases("one")), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            host, port = process.stdout.readline().split("/")[2].split(":")
            yield host, int(port)
        finally:
            process.terminate()


def ask(address: tuple[str, int], path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(*address, timeout=30)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, dict(answer.getheaders()), data


def test_serves_page_and_ranges(address: tuple[str, int], made_releases: Releases) -> None:
    release = made_releases("one")
    status, headers, _ = ask(address, "/")
    assert (status, headers["Location"]) == (302, "/1.0.0/explore/index.html")
    status, headers, data = ask(address, "/1.0.0/explore/index.html")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert b"Content-Security-Policy" in data
    assert b"unsafe" not in data
    whole = (release / "explore/explorer.js").read_bytes()
    status, headers, data = ask(address, "/1.0.0/explore/explorer.js", Range="bytes=10-19")
    assert (status, data, headers["Content-Range"]) == (206, whole[10:20], f"bytes 10-19/{len(whole)}")
    assert headers["Content-Type"].startswith("text/javascript")
    assert ask(address, "/1.0.0/explore/explorer.js", Range=f"bytes={len(whole)}-")[0] == 416


@pytest.mark.parametrize(
    "path",
    ["/1.0.0/../secret", "/1.0.0/.run/run.json", "/1.0.0/%2e%2e/x", "/etc/passwd", "/other/README.md", "/catalog.json"],
)
def test_serves_nothing_else(path: str, address: tuple[str, int]) -> None:
    assert ask(address, path)[0] == 404


def test_refuses_other_host_names(address: tuple[str, int]) -> None:
    assert ask(address, "/1.0.0/explore/index.html", Host="evil.example:80")[0] == 421


def test_release_without_explorer_is_refused(
    tmp_path: Path, run: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    made = run("explore", tmp_path, "--no-browser", code=2)
    assert "outputs.explorer: true" in made.stderr
