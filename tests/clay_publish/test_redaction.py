"""Secrets of the environment, of addresses and of well-known shapes are in nothing that is printed or raised."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from clay_publish import SourceError
from clay_publish.redaction import redact


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("get s3://me:pass/word@host/key", "get s3://me:pass/word@host/key"),
        ("get https://me:password@host/key failed", "get https://***@host/key failed"),
        ("https://h/a.tif?X-Amz-Signature=0af&x=1", "https://h/a.tif?X-Amz-Signature=***&x=1"),
        ("'https://h/a?sig=a%2Fb'", "'https://h/a?sig=***'"),
        ("key AKIA" + "ABCDEFGHIJKLMNOP.", "key ***."),
        ("token hf_" + "a" * 34, "token ***"),
        ("hf://datasets/o/n@v1.0.0 and process 12:30 at a@b", "hf://datasets/o/n@v1.0.0 and process 12:30 at a@b"),
    ],
)
def test_what_is_hidden_and_what_is_not(text: str, kept: str) -> None:
    assert redact(text) == kept


def test_values_of_secret_variables_in_errors_and_json(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = 'pass"wörd\n/+1'  # noqa: S105
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    monkeypatch.setenv("HF_TOKEN_PATH", "/home/someone/token")
    monkeypatch.setenv("MY_TOKEN", "short")
    error = SourceError(f"x{secret}y", secret, secret, f"Fix {secret}")
    assert (error.where, error.found, str(error)) == ("x***y", "***", "x***y: *** (expected ***). Fix ***")
    for ascii_only in (True, False):
        assert redact(json.dumps({"a": secret}, ensure_ascii=ascii_only)) == '{"a": "***"}'
    assert redact("/home/someone/token short") == "/home/someone/token short"


def test_tracebacks_and_what_libraries_print(tmp_path: Path) -> None:
    code = (
        "import sys, clay_publish.cli.app as app\n"
        "def broken(**_):\n"
        "    print('on stdout a-planted-secret')\n"
        "    raise RuntimeError('credential_process printed a-planted-secret')\n"
        "app.app = broken\n"
        "app.main()\n"
    )
    env = {"PATH": "", "PYTHONPATH": ":".join(sys.path), "HF_TOKEN": "a-planted-secret"}
    made = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert made.returncode == 1
    assert made.stdout == "on stdout ***\n"
    assert "RuntimeError: credential_process printed ***" in made.stderr


def test_credentials_in_an_address_are_refused(run: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    for command in (("validate",), ("versions",), ("search",), ("status",)):
        made = run(*command, "s3://user:pw-in-address@bucket/name", code=2)
        assert "has credentials in its address" in made.stderr
        assert "pw-in-address" not in made.stderr + made.stdout
