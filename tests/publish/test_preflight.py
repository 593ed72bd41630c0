"""A dry run finds out what would stop a publication, and leaves nothing behind."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hub_server import Hub
from s3_servers import S3View, send

from clay_publish.errors import ClayPublishError, PublishError


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_a_bucket_with_credentials_and_conditions(sample_release: Path, bucket: str, view: S3View) -> None:
    receipt = send(sample_release, f"s3://{bucket}/shore", dry_run=True)
    assert receipt.checked == ["credentials", "conditional writes"]
    assert "checked: credentials, conditional writes" in receipt.line
    assert view.names() == []


def test_a_server_that_ignores_conditions(
    sample_release: Path, rclone_s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", rclone_s3)
    with pytest.raises(PublishError, match="ignores conditional writes"):
        send(sample_release, "s3://clay/shore", dry_run=True)


def test_wrong_and_missing_credentials(sample_release: Path, rclone_s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", rclone_s3)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-wrong-secret")
    with pytest.raises(ClayPublishError, match="SignatureDoesNotMatch") as refused:
        send(sample_release, "s3://clay/shore", dry_run=True)
    assert "planted" not in str(refused.value)
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.delenv(f"AWS_{name}")
    with pytest.raises(ClayPublishError, match="no AWS credentials"):
        send(sample_release, "s3://clay/shore", dry_run=True)


def test_a_directory_without_room(sample_release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert send(sample_release, str(tmp_path / "site"), dry_run=True).checked[0].startswith("free space ")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10, 0, 10))
    with pytest.raises(PublishError, match="has 10 bytes of free space"):
        send(sample_release, str(tmp_path / "site"), dry_run=True)
    (tmp_path / "file").write_text("no directory")
    with pytest.raises(PublishError, match="is not a directory"):
        send(sample_release, str(tmp_path / "file" / "site"), dry_run=True)
    assert not (tmp_path / "site").exists()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    (tmp_path / "hub").mkdir()
    with Hub(tmp_path / "hub", xet=False) as running:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", running.address)
        monkeypatch.setenv("HF_TOKEN", "hf_not_a_real_token")
        yield running


def scoped(name: str, *permissions: str) -> dict[str, Any]:
    scopes = [{"entity": {"type": "org", "name": name}, "permissions": list(permissions)}]
    return {"role": "fineGrained", "fineGrained": {"global": [], "scoped": scopes}}


@pytest.mark.parametrize(
    ("token", "owner", "refused"),
    [
        ({"role": "write"}, "clay", None),
        ({"role": "write"}, "somebody", "belongs to somebody"),
        ({"role": "read"}, "clay", "may only read"),
        (scoped("clay", "repo.content.read", "repo.write"), "clay", None),
        (scoped("clay", "repo.content.read"), "clay", "it may write to nothing"),
        (scoped("other", "repo.write"), "clay", "it may write to other"),
    ],
)
def test_the_scope_of_a_token(
    sample_release: Path, hub: Hub, token: dict[str, Any], owner: str, refused: str | None
) -> None:
    hub.user = {**hub.user, "auth": {"accessToken": token}}
    call: Callable[[], Any] = lambda: send(  # noqa: E731
        sample_release, f"huggingface/{owner}/shore", dry_run=True, create=True
    )
    if refused is None:
        assert call().checked[0].startswith("token of publisher")
    else:
        with pytest.raises(PublishError, match=refused):
            call()
    assert hub.repositories == {}


def test_no_token(sample_release: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(PublishError, match="there is none"):
        send(sample_release, "huggingface/clay/shore", dry_run=True, create=True)
    assert hub.repositories == {}
