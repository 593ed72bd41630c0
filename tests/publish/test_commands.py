"""`publish`, `mirror`, `versions`, `yank` and `validate` at the command line, on both kinds of places."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hub_server import Hub
from image_server import ImageServer
from s3_servers import S3View

from clay_publish.release.directory import Release
from clay_publish.release.manifest import write_manifest

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.slow  # two hosts, each of which `make test` publishes to
def test_both_hosts_at_once_the_spec_names_them_and_each_knows_of_the_other(
    release_copy: Path, bucket: str, view: S3View, run: Run, tmp_path: Path
) -> None:
    spec = release_copy / "release.yaml"
    spec.write_text(
        spec.read_text().replace("publish: {}", f"publish: {{source_coop: {bucket}/shore, hugging_face: clay/shore}}")
    )
    run("catalog", release_copy, "--quiet")
    run("card", release_copy, "--quiet")
    (tmp_path / "hub").mkdir()
    with Hub(tmp_path / "hub", xet=True) as hub:
        env = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_not_a_real_token"}
        made = run("publish", release_copy, "--create", "--json", env=env)
        commit = hub.repositories["clay/shore"].tags["v1.0.0"]
    receipts = json.loads(made.stdout)["receipts"]
    assert [(r["target"], r["state"], r["commit"]) for r in receipts] == [
        ("huggingface", "published", commit),
        ("source.coop", "published", None),
    ]
    link = next(x for x in json.loads(view.get("shore/catalog.json"))["links"] if x["rel"] == "child")
    assert link["hugging_face"]["commit"] == commit
    steps = [json.loads(line) for line in made.stderr.splitlines()]
    last = [step for step in steps if step["stage"] == "publish"][-1]
    assert (last["done"], last["unit"]) == (last["total"], "bytes")
    for secret in ("hf_not_a_real_token", "not-a-real-secret"):
        assert secret not in made.stdout + made.stderr
        assert not [p for p in release_copy.rglob("*") if p.is_file() and secret.encode() in p.read_bytes()]


@pytest.mark.slow
def test_what_is_published_is_validated_mirrored_and_marked_where_it_lies(
    sample_release: Path, bucket: str, ministack: str, run: Run, tmp_path: Path
) -> None:
    place, site = f"s3://{bucket}/shore", tmp_path / "site"
    run("publish", sample_release, "--to", place, "--quiet")
    assert "no findings" in run("validate", f"{place}/1.0.0", "--quiet").stdout
    over_http = f"{ministack}/{bucket}/shore/1.0.0"
    assert "sent" in run("mirror", over_http, "--to", site, "--verify", "full", "--quiet").stdout
    again = run("mirror", sample_release, "--to", site, "--quiet").stdout
    assert "there already, verified" in again
    assert run("versions", place).stdout == "1.0.0 latest\n"
    assert run("yank", place, "1.0.0", "--reason", "clouds").stdout == "1.0.0 YANKED: clouds\n"
    listed = json.loads(run("versions", place, "--json").stdout)
    assert (listed["latest"], listed["versions"][0]["yanked"]) == (None, "clouds")
    assert run("versions", site).stdout == "1.0.0 latest\n"


def test_the_version_before_is_read_at_the_address_in_ones_own_spec(
    release_copy: Path, run: Run, tmp_path: Path
) -> None:
    spec = yaml.safe_load((release_copy / "release.yaml").read_text())
    with ImageServer(tmp_path) as server:
        (release_copy / "release.yaml").write_text(yaml.safe_dump({**spec, "previous": f"{server.url}/0.9.0"}))
        run("mirror", release_copy, "--to", tmp_path / "site", code=2)
        assert server.requests == []
        run("publish", release_copy, "--to", tmp_path / "site", code=2)
        assert server.of("0.9.0/", "HEAD")


def test_a_release_that_names_no_place_asks_for_one(sample_release: Path, run: Run) -> None:
    assert "names no place to publish to" in run("publish", sample_release, code=2).stderr


def test_killed_at_any_moment_the_next_run_completes_it(release_copy: Path, run: Run, tmp_path: Path) -> None:
    release = Release(str(release_copy))
    for number in range(40):
        release.store.write(f"figures/{number}.png", bytes([number]) * 200_000)
    write_manifest(release, "test")
    site = tmp_path / "site"
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); from s3_servers import send\n"
        "send(sys.argv[2], sys.argv[3], report=lambda step: print(step.done, flush=True))\n"
    )
    command = [sys.executable, "-c", program, Path(__file__).parents[1] / "servers", release_copy, site]
    for steps in (1, 5, 20):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as publisher:
            assert publisher.stdout
            for _ in range(steps):
                publisher.stdout.readline()
            publisher.kill()
        assert not (site / "latest.json").exists() or (site / "1.0.0" / "manifest.json").exists()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["/usr/bin/sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=site / "1.0.0", check=True)
    assert run("versions", site).stdout == "1.0.0 latest\n"
