"""The life of a release at the command line: from a spec to versions that are published, yanked, mirrored and audited.

Secrets are planted in the environment: no output, no file and no object of any host may hold one.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from hub_server import Hub
from program import fork
from s3_servers import S3View, start_ministack, with_client

from clay_publish import open_release

from .producer.conftest import write_item, write_tif

Run = Callable[..., subprocess.CompletedProcess[str]]

HELD = """
import time
from clay_publish.producer.execution import local
real = local.attempt
def attempt(unit, work):
    made = real(unit, work)
    while not work.pace._stop.is_set():
        time.sleep(0.01)
    return made
local.attempt = attempt
"""
"""No unit begins after the first ones, until the run is stopped."""
SECRETS = {
    "AWS_ACCESS_KEY_ID": "PLANTEDACCESSKEY",
    "AWS_SECRET_ACCESS_KEY": "planted/secret+key",
    "AWS_SESSION_TOKEN": "planted-session-token==",
    "HF_TOKEN": "hf_planted_token",
}
PUBLISHING = {"publish", "mirror", "versions", "yank", "audit"}
AREA = (2.985, 36.995, 3.02, 37.02)
GROWN = (2.985, 36.995, 3.04, 37.02)


@dataclass
class Walk:
    """A maintainer's folder, the program, and all that it printed."""

    folder: Path
    run: Run
    view: S3View
    hub: Hub
    printed: list[str] = field(default_factory=list)

    def __call__(self, *command: object, code: int = 0) -> str:
        parts = [str(part) for part in command]
        # The Hub's client reads where it is when it is imported: in a process of its own.
        env = {} if parts[0] in PUBLISHING or "huggingface" in " ".join(parts) else None
        made = self.run(*parts, cwd=self.folder, code=code, env=env)
        self.printed += [made.stdout, made.stderr]
        return made.stdout

    def json(self, *command: object, code: int = 0) -> Any:
        return json.loads(self(*command, "--json", code=code))

    def places(self) -> dict[str, str]:
        return {"directory": "./site", "S3": f"s3://{self.view.bucket}/shore", "the Hub": "huggingface/clay/shore"}

    def everything(self) -> Iterator[tuple[str, bytes]]:
        """All that was printed, and the bytes of all files of this machine and of the hosts."""
        yield from ((f"output {number}", text.encode()) for number, text in enumerate(self.printed))
        yield from ((str(path), path.read_bytes()) for path in self.folder.rglob("*") if path.is_file())
        yield from ((f"s3 {name}", self.view.get(name)) for name in self.view.names())
        for repository in self.hub.repositories.values():
            yield from ((f"hub {commit}", text.encode()) for commit, *texts in repository.log for text in texts)
            for files in repository.commits.values():
                yield from ((f"hub {path}", file.data) for path, file in files.items())


def create_bucket(client: Any) -> None:
    client.create_bucket(Bucket="walk", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})


@pytest.fixture
def walk(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[Walk]:
    for name in [name for name in os.environ if name.startswith(("AWS_", "HF_"))]:
        monkeypatch.delenv(name)
    for name in ("server", "hub", "work"):
        (tmp_path / name).mkdir()
    for ministack in start_ministack(tmp_path / "server"):
        settings = {**SECRETS, "AWS_REGION": "us-west-2", "AWS_EC2_METADATA_DISABLED": "true"}
        for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
            settings[name] = ministack
        for name, value in {**settings, "XDG_CACHE_HOME": str(tmp_path / "work" / "cache")}.items():
            monkeypatch.setenv(name, value)
        with_client(ministack, create_bucket)
        with Hub(tmp_path / "hub", xet=False) as hub:
            for name, value in (
                ("ENDPOINT", hub.address),
                ("HOME", str(tmp_path / "work" / "hf")),
                ("HUB_DISABLE_XET", "1"),
            ):
                monkeypatch.setenv(f"HF_{name}", value)
            yield Walk(tmp_path / "work", run, S3View(ministack, "walk"), hub)


def images(folder: Path) -> None:
    """Two images of two days, one of them on the border of two 100 km squares: three units."""
    for number, east in enumerate((0, 2560)):
        pixels = np.random.default_rng(number).integers(200, 4000, (4, 384, 384), dtype=np.uint16)
        write_tif(folder / f"{number}.tif", pixels, Affine(10, 0, 498_000 + east, 0, -10, 4_098_000), "EPSG:32631")
        write_item(
            folder / f"{number}.json",
            {"rgbnir": {"href": f"{number}.tif"}},
            datetime=f"2016-01-{12 + number}T10:00:00Z",
        )


def interrupted(walk: Walk, options: list[str]) -> None:
    """Stop a run by SIGTERM once a unit is done, and read what it said."""
    log = walk.folder / "interrupted.log"
    process = fork(["run", *options, "--quiet"], out=log, errors=log, cwd=walk.folder, first=HELD)
    while not list((walk.folder / "shore" / "1.0.0" / ".run").glob("receipts/*")):
        assert process.is_alive(), log.read_text()
        time.sleep(0.01)
    assert walk.json("status", "shore/1.0.0")["state"] == "running"
    os.kill(process.pid or 0, signal.SIGTERM)
    process.join(60)
    assert process.exitcode == 128 + signal.SIGTERM
    assert "Run the same command again to continue." in log.read_text()
    assert walk.json("status", "shore/1.0.0", code=2)["state"] == "stopped"


@pytest.mark.slow
def test_the_life_of_a_release(walk: Walk) -> None:
    images(walk.folder)
    bbox = ",".join(map(str, AREA))
    walk("init", "release.yaml", "--from-item", "0.json", "--sensor", "sentinel-2-rgbnir", "--bbox", bbox)
    common = [
        "release.yaml",
        "--set",
        "name=shore",
        "--set",
        "chips.size=32",
        "--set",
        'imagery.stac=["0.json", "1.json"]',
    ]
    planned = walk.json("plan", *common)
    assert planned["chips"]["to_make"] > 0
    interrupted(walk, common)
    made = walk.json("run", *common)
    assert made["findings"].get("error", 0) == 0
    status = walk.json("status", "shore/1.0.0")
    assert status["state"] == "finished"
    assert status["chips"]["computed"] == planned["chips"]["to_make"] > made["computed"] > 0

    targets = [part for place in walk.places().values() for part in ("--to", place)]
    dry = walk.json("publish", "shore/1.0.0", *targets, "--create", "--dry-run")
    assert {receipt["state"] for receipt in dry["receipts"]} == {"dry run"}
    assert not (walk.folder / "site").exists()
    sent = walk.json("publish", "shore/1.0.0", *targets, "--create")
    assert {receipt["state"] for receipt in sent["receipts"]} == {"published"}

    grown = [*common, "--set", f"imagery.area={list(GROWN)}", "--set", "version=1.1.0", "--set", "previous=shore/1.0.0"]
    planned = walk.json("plan", *grown)
    made = walk.json("run", *grown)
    assert made["computed"] == planned["chips"]["to_make"] > 0 < planned["chips"]["reused"]
    assert made["reused"] > 0
    said = walk("diff", "shore/1.0.0", "shore/1.1.0")
    assert said.endswith("version: 1.1.0\nprevious: shore/1.0.0\n")
    walk("publish", "shore/1.1.0", *targets)

    for name, place in walk.places().items():
        assert walk("versions", place) == "1.1.0 latest\n1.0.0\n", name
        assert walk("yank", place, "1.1.0", "--reason", "wrong offset") == "1.1.0 YANKED: wrong offset\n1.0.0 latest\n"
        assert walk.json("audit", place)["faults"] == [], name
        assert walk("yank", place, "1.1.0", "--undo") == "1.1.0 latest\n1.0.0\n", name
        walk("mirror", f"{place}/1.0.0", "--to", f"./mirror-{len(walk.printed)}", "--verify", "full")
        assert walk.json("audit", place)["faults"] == [], name
        assert walk("search", f"{place}/1.1.0") == walk("search", f"{place}/1.1.0"), name
    mirrors = [path / "1.0.0" / "SHA256SUMS" for path in walk.folder.glob("mirror-*")]
    assert len(mirrors) == 3
    assert {path.read_bytes() for path in mirrors} == {(walk.folder / "shore/1.0.0/SHA256SUMS").read_bytes()}
    assert open_release(walk.folder / "site", version="latest").release.spec().version == "1.1.0"

    damaged = walk.folder / "site" / "1.0.0" / "README.md"
    text = damaged.read_text()
    damaged.unlink()  # a link to the file that was published
    damaged.write_text(text.upper())
    faults = walk.json("audit", "./site", code=1)["faults"]
    assert [(fault["place"], fault["fault"]) for fault in faults] == [("1.0.0/README.md", "changed")]

    for where, data in walk.everything():
        for name, secret in SECRETS.items():
            assert secret.encode() not in data, f"{name} in {where}"
