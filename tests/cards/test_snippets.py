"""Every example in a card does what it says, on the release it describes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from array_copy import add_arrays
from torchgeo_wheel import torchgeo_environment

from clay_publish.cards import write_cards
from clay_publish.release.tables import coverage_schema

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(text: str, language: str) -> list[str]:
    return [code for kind, code in _BLOCK.findall(text) if kind == language]


def test_no_block_is_left_out(sample_release: Path) -> None:
    text = (sample_release / "README.md").read_text()
    assert {kind for kind, _ in _BLOCK.findall(text)} == {"sql", "python", "sh", "bibtex"}


def test_sql(sample_release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(sample_release)
    found = [duckdb.sql(code).to_arrow_table() for code in blocks(Path("README.md").read_text(), "sql")]
    assert [table.num_rows for table in found] == [5, 5]
    assert found[1]["similarity"][0].as_py() == pytest.approx(1, abs=1e-5)


# Each example gets names of its own; what they import is loaded once.
_RUNNER = """
import contextlib, io, json, sys
printed = []
for code in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(code, code, "exec"), {"__name__": "__main__"})
    printed.append(out.getvalue())
json.dump(printed, sys.stdout)
"""


def run_python(codes: list[str], folder: Path, home: Path) -> list[str]:
    """What examples print in a fresh interpreter, in a folder, without a network to ask."""
    environment = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    if any("torchgeo" in code for code in codes):
        environment |= torchgeo_environment()
    done = subprocess.run(
        [sys.executable, "-c", _RUNNER],
        input=json.dumps(codes),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    printed: list[str] = json.loads(done.stdout)
    return printed


@pytest.mark.slow
def test_python(sample_release: Path, tmp_path: Path) -> None:
    codes = blocks((sample_release / "README.md").read_text(), "python")
    printed = run_python(codes, sample_release, tmp_path)
    assert len(printed) == len(codes) == 5
    assert all(text.strip() for text in printed)


@pytest.mark.parametrize("dtype", ["int8", pytest.param("float16", marks=pytest.mark.slow)])  # the same snippet
def test_arrays(dtype: str, release_copy: Path, tmp_path: Path) -> None:
    release = add_arrays(release_copy, dtype)
    write_cards(release)
    text = (release_copy / "README.md").read_text()
    assert f"as Zarr 3 arrays of {dtype}, a pixel each, one group per UTM zone: `utm18` |" in text
    assert 'group="utm18"' in (release_copy / "AGENTS.md").read_text()
    (code,) = [code for code in blocks(text, "python") if "open_zarr" in code]
    (printed,) = run_python([code], release_copy, tmp_path)
    values, _, reason = printed.strip().rpartition(" ")
    assert (reason, "nan" in values) == ("1", False)
    chips = [row for path in release.data_files() for row in release.parquet(path).read()["embedding"].to_pylist()]
    found = [float(number) for number in values.strip("[]").split()]
    off = {"int8": 0.51 * max(map(abs, found)) / 127, "float16": 1e-2}[dtype]
    assert any(found == pytest.approx(chip, abs=off) for chip in chips)


def test_agents_guide(sample_release: Path, tmp_path: Path) -> None:
    text = (sample_release / "AGENTS.md").read_text()
    codes = blocks(text, "python")
    box, nearest = run_python(codes, sample_release, tmp_path)
    assert int(box.split()[0]) > 0
    assert "distance" not in nearest
    assert nearest.count("[") == 2
    named = set(re.findall(r"`(status|reason)`", text))
    assert named == {"status", "reason"} <= set(coverage_schema().names)
    assert json.loads((sample_release / "collection.json").read_text())["embrel:fingerprint"] in text


def test_shell(sample_release: Path) -> None:
    for code in blocks((sample_release / "README.md").read_text(), "sh"):
        subprocess.run(["/bin/sh", "-e", "-c", code], cwd=sample_release, check=True, timeout=60)
