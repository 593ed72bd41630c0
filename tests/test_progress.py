"""What a person, a log and a machine see of a command at work, and of one that is interrupted."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator
from program import fork
from rich.console import Console

from clay_publish.cli.app import app
from clay_publish.cli.progress import Drawing, bars, report_json, report_lines
from clay_publish.progress import Progress

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time of the reports, in seconds; to be set."""
    now = [100.0]
    monkeypatch.setattr("clay_publish.cli.progress.time.monotonic", lambda: now[0])
    return now


def test_lines_of_a_log_count_chips_with_rate_and_time_left(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    report = report_lines()
    report(Progress("plan", 0, 0, "reading the sources"))
    report(Progress("plan", 0, 0))  # nothing to say
    for second in range(101):  # 1,000 chips were there from the run before
        clock[0] = 100.0 + second
        report(Progress("produce", 1000 + 50 * second, 6000, "$0.05 of about $0.50", unit="chips"))
    for number in range(143):
        report(Progress("rules", number, 142, f"Rule {number}", unit="rules"))
    report(Progress("publish", 3_000_000, 12_000_000, "a.parquet", unit="bytes"))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "plan: reading the sources"
    assert lines[1] == "produce: 1,000 of 6,000 chips; $0.05 of about $0.50"
    assert "produce: 3,000 of 6,000 chips, 50 chips/s, 1 min 0 s left; $0.05 of about $0.50" in lines
    assert lines.count("rules: 142 of 142 rules") == 1
    assert len(lines) < 30
    assert lines[-1] == "publish: 3 MB of 12 MB; a.parquet"


def test_bars_fit_80_columns_with_rate_and_time_left(clock: list[float]) -> None:
    drawn = StringIO()
    console = Console(file=drawn, width=80, force_terminal=True, color_system=None)
    with bars(console) as shown:
        report = Drawing(shown)
        report(Progress("produce", 0, 144_261_750, unit="chips"))
        clock[0] += 3600
        report(Progress("produce", 4_888_800, 144_261_750, "$12,345.00 of about $150,000.00", unit="chips"))
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in re.split(r"[\r\n]+", drawn.getvalue())]
    last = next(line for line in reversed(lines) if "produce" in line)
    assert len(last) <= 80
    assert "4,888,800 of 144,261,750 chips, 1,358 chips/s, 28 h 30 min left" in last


def test_machines_get_a_document_per_step(capsys: pytest.CaptureFixture[str]) -> None:
    report_json()(Progress("produce", 1, 2, "x", unit="chips"))
    document = json.loads(capsys.readouterr().err)
    assert document == {"stage": "produce", "done": 1, "total": 2, "message": "x", "unit": "chips"}


@pytest.mark.parametrize(
    ("command", "first", "kept"),
    [
        ("publish", "clay_publish.cli.publish:run_validation", "what has arrived is kept"),
        ("card", "clay_publish.cli.describe:describe", "documents may be of both runs"),
        ("validate", "clay_publish.cli.validate:run_validation", "nothing was changed"),
    ],
)
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_command_ends_with_one_line(
    sample_release: Path, tmp_path: Path, command: str, first: str, kept: str, sent: signal.Signals, code: int
) -> None:
    module, _, name = first.partition(":")
    held = f"import {module} as m, time, pathlib\ndef hold(*a, **k):\n    pathlib.Path('begun').touch()\n"
    held += f"    time.sleep(60)\nm.{name} = hold\n"
    log = tmp_path / "log"
    arguments = [command, str(sample_release), "--quiet", *(["--to", "./site"] if command == "publish" else [])]
    process = fork(arguments, out=log, errors=log, cwd=tmp_path, first=held)
    while not (tmp_path / "begun").exists():
        assert process.is_alive(), log.read_text()
        time.sleep(0.01)
    os.kill(process.pid or 0, sent)
    process.join(60)
    assert process.exitcode == code
    (line,) = log.read_text().splitlines()
    assert line.startswith("interrupted: ")
    assert kept in line
    assert "Run the same command again" in line


def test_help_of_flags_shows_no_type(run: Run) -> None:
    for command in app.registered_commands:
        assert command.callback is not None
        shown = run(command.callback.__name__.replace("_", "-"), "-h").stdout
        assert "<bool>" not in shown
        assert " range>" not in shown
        assert "Example: clay-publish " in shown
    groups = re.findall(r"╭─ (.+?) ─+╮", run("-h").stdout)
    assert groups == ["Options", "Make a release", "Inspect", "Publish", "Use a release"]


def test_init_finds_the_sensor_of_an_item(tmp_path: Path, run: Run, shared_data: Path) -> None:
    item = shared_data / "s2_l2a_mini_29RKH_20200219" / "item.json"
    made = json.loads(
        run("init", "a.yaml", "--from-item", item, "--bbox=-10,28,-9.9,28.1", "--json", cwd=tmp_path).stdout
    )
    imagery = yaml.safe_load((tmp_path / "a.yaml").read_text())["imagery"]
    assert made["sensor"] == imagery["sensor"] == "sentinel-2-l2a"
    assert imagery == {"stac": str(item.resolve()), "sensor": "sentinel-2-l2a", "area": [-10, 28, -9.9, 28.1]}
    unknown = json.loads(item.read_text())
    unknown |= {"id": "x", "collection": None, "properties": {"datetime": unknown["properties"]["datetime"]}}
    unknown["assets"] = {"image": {"href": "image.tif", "type": "image/tiff; application=geotiff"}}
    (tmp_path / "unknown.json").write_text(json.dumps(unknown))
    refused = run("init", "b.yaml", "--from-item", "unknown.json", cwd=tmp_path, code=2).stderr
    assert "sensor" in refused
    assert "--sensor" in refused
    assert not (tmp_path / "b.yaml").exists()
    run("init", "b.yaml", "--from-item", "unknown.json", "--sensor", "naip", cwd=tmp_path)


def test_a_new_spec_names_the_schema_that_the_program_prints(tmp_path: Path, run: Run) -> None:
    run("init", cwd=tmp_path)
    first, _, rest = (tmp_path / "release.yaml").read_text().partition("\n")
    assert re.fullmatch(r"# yaml-language-server: \$schema=https://\S+/release.schema.json", first)
    schema = json.loads(run("schema").stdout)
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(yaml.safe_load(rest))
    (fault,) = Draft202012Validator(schema).iter_errors({**yaml.safe_load(rest), "licence": "CC-BY-4.0"})
    assert "licence" in fault.message


def test_set_takes_keys_of_every_depth(tmp_path: Path, run: Run) -> None:
    run("init", cwd=tmp_path)
    refused = run("plan", "--set", "name=Not A Name", "--set", "chips.size=2", cwd=tmp_path, code=2).stderr
    assert "name: found 'Not A Name'" in refused
    assert "chips.size: found 2" in refused
    where = ("--set", "imagery.area=[1, 2, 3]", "--set", "chips.sise=3")
    refused = run("plan", *where, cwd=tmp_path, code=2).stderr
    assert "--set imagery.area: found [1, 2, 3] (expected at least 4 entries)." in refused
    assert "--set chips.sise: is an unknown key. Did you mean 'size'?" in refused


def test_the_command_line_starts_without_heavy_libraries() -> None:
    code = "import sys, clay_publish.cli.app; print(*sorted(sys.modules))"
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"numpy", "pyarrow", "torch", "pydantic", "yaml", "fsspec", "rich.progress", "importlib.metadata"}
    assert heavy & set(made.stdout.split()) <= {"importlib.metadata"}
