"""A second S3 server, which checks credentials, and a second client, which checks what arrived."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from s3_servers import KEY, SECRET, send

from clay_publish.storage.http import ServerError


def rclone(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("rclone", path=str(Path(sys.executable).parent))
    assert program
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def remote(address: str) -> str:
    return (
        f":s3,provider=Rclone,endpoint='{address}',access_key_id={KEY},secret_access_key={SECRET},"
        "use_multipart_uploads=false:clay/shore/1.0.0"
    )


def test_rclone_confirms_what_arrived(
    large_release: Path, rclone_s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", rclone_s3)
    assert send(large_release, "source.coop/clay/shore").state == "published"
    options = ["--download", "--exclude", "/.run/**", "--config", tmp_path / "none"]
    checked = rclone("check", large_release, remote(rclone_s3), *options)
    assert checked.returncode == 0, checked.stderr
    assert "0 differences found" in checked.stderr
    (large_release / "gaps.geojson").write_text("{}")
    assert rclone("check", large_release, remote(rclone_s3), *options).returncode != 0


def test_wrong_credentials_are_refused_with_the_way_out_and_without_the_secret(
    sample_release: Path, rclone_s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", rclone_s3)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-wrong-secret")
    with pytest.raises(ServerError, match=r"get new credentials|permission") as caught:
        send(sample_release, "s3://clay/other")
    assert "a-wrong-secret" not in str(caught.value)
