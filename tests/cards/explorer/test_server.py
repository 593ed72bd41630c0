"""`clay-publish explore`: the server on loopback."""

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hub_server import File, Hub, Repository

Releases = Callable[[str], Path]


@contextmanager
def explored(where: object, **settings: str) -> Iterator[str]:
    """Run `clay-publish explore`; the address that it prints."""
    command = [str(Path(sys.executable).parent / "clay-publish"), "explore", str(where), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **settings}) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def host_and_port(address: str) -> tuple[str, int]:
    host, port = address.split("/")[2].split(":")
    return host, int(port)


@pytest.fixture(scope="module")
def address(made_releases: Releases) -> Iterator[tuple[str, int]]:
    with explored(made_releases("one")) as address:
        yield host_and_port(address)


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


def test_hub_release_with_its_root(made_releases: Releases, tmp_path: Path) -> None:
    release = made_releases("one")
    files = {
        str(p.relative_to(release)): File(p.stat().st_size, None, p.read_bytes())
        for p in release.rglob("*")
        if p.is_file()
    }
    listed = json.dumps({"1.0.0": "wrong dates"}).encode()
    with Hub(folder=tmp_path, xet=False) as hub:
        repository = hub.repositories.setdefault("clay/made", Repository())
        repository.tags["v1.0.0"] = repository.commit("aside", files)
        repository.commit("main", {"yanked.json": File(len(listed), None, listed)})
        with explored("hf/clay/made/1.0.0", HF_ENDPOINT=hub.address, HF_HOME=str(tmp_path / "home")) as address:
            place = host_and_port(address)
            assert address.endswith("/resolve/v1.0.0/explore/index.html")
            assert ask(place, "/resolve/v1.0.0/explore/release.json")[2] == files["explore/release.json"].data
            assert ask(place, "/resolve/main/yanked.json")[2] == listed
            for path in ("/resolve/main/collection.json", "/resolve/main/README.md", "/catalog.json"):
                assert ask(place, path)[0] == 404
