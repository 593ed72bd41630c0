"""The same verdict wherever a release lies, and a quick look that reads little."""

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import hub_server
import pytest
from breakage import Broken
from fault_proxy import FaultProxy
from huggingface_hub import CommitOperationAdd, HfApi
from image_server import Fault, ImageServer
from s3_servers import KEY, SECRET, start_ministack, with_client

from clay_publish.errors import AccessError
from clay_publish.release.directory import Release
from clay_publish.release.findings import ValidationReport
from clay_publish.search.reader import open_release
from clay_publish.storage import s3
from clay_publish.storage.retry import RetryPolicy
from clay_publish.validate import validate

Run = Callable[..., "CompletedProcess[str]"]
LOCAL_ONLY = {"SCH011", "RDR001", "RDR002", "RDR003", "RDR004", "RDR005", "RDR007"}
"""Rules whose readers open files by themselves."""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith(("AWS_", "HF_"))]:
        monkeypatch.delenv(name)
    for name, value in {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws"))


@pytest.fixture
def faulty(broken: Callable[..., Broken]) -> Broken:
    """A release with faults in rows, documents and files."""
    release = broken("full")
    release.value("valid_fraction", 5, 7.0)
    release.settle()
    card = release.folder / "README.md"
    card.write_text(card.read_text() + "\n[gone](figures/gone.png)\n")
    return release


def states(report: ValidationReport) -> dict[str, str]:
    """Return how each rule ended; SCH020 reads page headers on a directory only, and so sees fewer files elsewhere."""
    reported = {code: state.partition(":")[0] for code, state in report.checked.items() if code not in LOCAL_ONLY}
    return reported | {"SCH020": re.sub(r" on \d+ of \d+ files$", "", reported["SCH020"])}


def same_but_local(remote: ValidationReport, local: ValidationReport) -> None:
    assert [f for f in remote.findings if f.code not in LOCAL_ONLY] == [
        f.model_copy(update={"where": f.where.replace(local.where, remote.where)})
        for f in local.findings
        if f.code not in LOCAL_ONLY
    ]
    assert states(remote) == states(local)
    assert remote.measures == local.measures
    assert remote.fetched > 0


def test_over_http(faulty: Broken) -> None:
    local = validate(Release(str(faulty.folder)))
    assert {"VEC006", "DOC015", "INT004"} <= {f.code for f in local.findings}
    with ImageServer(faulty.folder.parent) as server:
        remote = validate(Release(f"{server.url}/{faulty.folder.name}"))
        sent = sum(request.sent for request in server.requests)
    same_but_local(remote, local)
    assert sent == pytest.approx(remote.fetched, rel=0.05)
    assert remote.fetched < 1.5 * sum(f.stat().st_size for f in faulty.folder.rglob("*") if f.is_file())


@pytest.fixture(scope="module")
def ministack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from start_ministack(tmp_path_factory.mktemp("ministack"))


def upload(folder: Path, address: str, bucket: str) -> str:
    """Put a release into a new bucket; where it is then."""

    def put(client: Any) -> None:
        client.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            client.put_object(Bucket=bucket, Key=f"shore/1.0.0/{file.relative_to(folder)}", Body=file.read_bytes())

    with_client(address, put)
    return f"s3://{bucket}/shore/1.0.0"


def test_over_s3(faulty: Broken, ministack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", ministack)
    same_but_local(validate(Release(upload(faulty.folder, ministack, "faulty"))), validate(Release(str(faulty.folder))))


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[hub_server.Hub]:
    (tmp_path / "hub").mkdir()
    with hub_server.Hub(tmp_path / "hub", xet=False) as running:
        yield running


@pytest.mark.slow
def test_on_the_hub_at_a_revision(faulty: Broken, hub: hub_server.Hub, run: Run) -> None:
    api = HfApi(endpoint=hub.address, token="t")  # noqa: S106 - any will do
    api.create_repo("clay/shore", repo_type="dataset")
    files = sorted(p for p in faulty.folder.rglob("*") if p.is_file())
    operations = [CommitOperationAdd(str(f.relative_to(faulty.folder)), f.read_bytes()) for f in files]
    api.create_commit("clay/shore", operations, commit_message="v1.0.0", repo_type="dataset")
    api.create_tag("clay/shore", tag="v1.0.0", repo_type="dataset")
    local = validate(Release(str(faulty.folder)))
    where, env = "hf://datasets/clay/shore@v1.0.0", {"HF_ENDPOINT": hub.address, "HF_HUB_DISABLE_XET": "1"}
    reported = run("validate", where, "--json", "--quiet", code=1, env=env).stdout
    same_but_local(ValidationReport.model_validate_json(reported), local)


def test_a_quick_look_reads_little_and_calls_nothing_passed_that_it_did_not_read(
    good: Callable[[str], Path], run: Run
) -> None:
    folder = good("large")
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    with ImageServer(folder.parent) as server:
        reported = json.loads(run("validate", f"{server.url}/{folder.name}", "--quick", "--json", "--quiet").stdout)
        sent = sum(request.sent for request in server.requests)
        rows = sum(r.sent for r in server.requests if "embeddings/" in r.name)
    assert reported["fetched"] == pytest.approx(sent, rel=0.05)
    assert sent < size / 3
    assert rows < sum(f.stat().st_size for f in (folder / "embeddings").rglob("*.parquet")) / 3
    assert reported["findings"] == []
    for code in ("INT004", "INT007", "INT012", "COV001", "VEC007"):
        assert reported["checked"][code].startswith("not checked"), code
    assert reported["checked"]["VEC001"].startswith("passed on ")
    assert reported["checked"]["INT003"] == "passed"


def test_a_quick_look_finds_what_lies_in_footers_documents_and_the_sample(faulty: Broken) -> None:
    found = {f.code for f in validate(Release(str(faulty.folder)), quick=True).findings}
    assert {"VEC006", "DOC015", "INT003"} <= found
    assert "COV001" not in found


def test_a_single_file_on_a_server_is_validated(good: Callable[[str], Path], run: Run) -> None:
    folder = good("full")
    data = Release(str(folder)).data_files()[0]
    with ImageServer(folder) as server:
        reported = json.loads(run("validate", f"{server.url}/{data}", "--only", "VEC", "--json", "--quiet").stdout)
    assert reported["checked"]["VEC001"] == "passed"


@pytest.mark.parametrize("command", [["validate"], ["validate", "--quick"], ["search", "--bbox", "-180,-90,180,90"]])
def test_a_server_without_ranges_is_one_clear_error(command: list[str], good: Callable[[str], Path], run: Run) -> None:
    folder = good("full")
    with ImageServer(folder, faults=[Fault("whole", name=".parquet")]) as server:
        name, *options = command
        made = run(name, server.url, *options, code=2)
    assert made.stderr.count("\n") < 8
    said = " ".join(made.stderr.split())
    assert f"{server.url}/" in said
    assert "the server sends whole files only (expected answers to range requests (HTTP 206))" in said
    assert "Serve it from another server, or download it and name the directory." in said


def test_open_release_says_so_too(good: Callable[[str], Path]) -> None:
    with (
        ImageServer(good("full"), faults=[Fault("whole", name=".parquet")]) as server,
        pytest.raises(AccessError, match="sends whole files only"),
    ):
        open_release(server.url).items()


def test_a_server_that_refuses_one_file_is_not_a_finding(good: Callable[[str], Path], run: Run) -> None:
    folder = good("full")
    with ImageServer(folder.parent, faults=[Fault("status:403", name="embeddings/")]) as server:
        said = run("validate", f"{server.url}/{folder.name}", code=2).stderr
    assert f"{server.url}/{folder.name}/embeddings/" in said
    assert "the server answers 403" in said
    assert "ask its owner for access" in said


@pytest.fixture(scope="module")
def stored(good: Callable[[str], Path], ministack: str) -> str:
    return upload(good("full"), ministack, "stored")


@pytest.fixture
def proxy(ministack: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """Between the release and whoever reads it."""
    monkeypatch.setattr(s3, "RETRIES", RetryPolicy(attempts=3, first=0.01))
    with FaultProxy(ministack) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.address)
        yield proxy


_ROOT = r"s3://stored/shore/1\.0\.0"


@pytest.mark.parametrize(
    ("action", "path", "message"),
    [
        ("status:403", "/embeddings/", rf"^{_ROOT}/embeddings/.*: the server refused .*403.*Use credentials that have"),
        ("status:403", "/README.md", rf"^{_ROOT}/README\.md: the server refused .*403.*Use credentials that have"),
        ("status:503", "", rf"^{_ROOT}/.*: the server did not answer 3 times .*503"),
        ("status:503", "/coverage/", rf"^{_ROOT}/coverage/.*: the server did not answer 3 times .*503"),
        ("error:400:ExpiredToken", "", rf"^{_ROOT}: the AWS credentials have expired"),
        ("error:400:ExpiredToken", "/embeddings/", rf"^{_ROOT}: the AWS credentials have expired"),
        ("error:403:InvalidAccessKeyId", "", r"does not know these credentials"),
    ],
)
def test_a_release_without_access_is_not_validated(
    proxy: FaultProxy, stored: str, action: str, path: str, message: str
) -> None:
    proxy.fail(lambda request: path in request.path and "list-type" not in request.path, action, times=10_000)
    with pytest.raises(AccessError, match=message) as caught:
        validate(Release(stored))
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("command", ["validate", "search", "status"])
def test_a_command_names_a_server_that_stays_down(proxy: FaultProxy, stored: str, run: Run, command: str) -> None:
    proxy.fail(lambda _: True, "status:503", times=10_000)
    said = run(command, stored, code=2).stderr
    assert said.startswith(f"error: {stored}/")
    assert "the server did not answer 3 times" in said


def test_keys_that_expire_while_reading_are_renewed(
    proxy: FaultProxy, stored: str, good: Callable[[str], Path]
) -> None:
    proxy.fail(lambda request: request.path.endswith(".parquet"), "error:400:ExpiredToken", times=3)
    same_but_local(validate(Release(stored)), validate(Release(str(good("full")))))
    assert proxy.faults[0].times <= 0
