"""`clay-publish validate` and `clay-publish rules`, as people and machines run them."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from breakage import Broken

from clay_publish import ReleaseError, open_release

Run = Callable[..., "CompletedProcess[str]"]


def test_a_good_release_exits_with_0_and_says_what_was_not_checked(good: Callable[[str], Path], run: Run) -> None:
    made = run("validate", good("small"), "--quiet")
    assert made.stdout.splitlines()[-1].startswith(f"{good('small')}: no findings; ")
    assert "VEC013 not checked: " in made.stdout


def test_findings_exit_with_1_from_the_threshold_on(broken: Callable[[str], Broken], run: Run) -> None:
    release = broken("small")
    release.sources(lambda row: row.update(license=None))
    release.settle()
    again = ("validate", release.folder, "--quiet", "--skip", "DOC021")  # cards state the license, too
    assert "0 errors" not in run(*again).stdout
    said = run(*again, "--fail-on", "warning", code=1).stdout
    assert "PRV008" in said
    assert "1 warning" in said


def test_json_is_one_document_that_publish_can_read(broken: Callable[[str], Broken], run: Run) -> None:
    release = broken("small")
    release.value("valid_fraction", 0, 7.0)
    made = json.loads(run("validate", release.folder, "--json", "--only", "VEC", code=1).stdout)
    (finding,) = made["findings"]
    assert finding.keys() == {"code", "severity", "where", "found", "expected", "fix"}
    assert made["checked"]["VEC006"] == "failed"


@pytest.mark.parametrize("arguments", [["--fail-on", "fatal"], ["--only", "XYZ"], ["--sample", "0"]])
def test_options_that_make_no_sense_exit_with_2(arguments: list[str], good: Callable[[str], Path], run: Run) -> None:
    run("validate", good("small"), *arguments, code=2)


def test_what_is_no_release_cannot_be_validated(tmp_path: Path, run: Run) -> None:
    assert "a release directory" in run("validate", tmp_path, code=2).stderr
    assert run("validate", tmp_path / "nowhere", code=2).stderr.startswith("error: ")


def test_a_release_that_no_chosen_rule_can_validate_exits_with_2(broken: Callable[[str], Broken], run: Run) -> None:
    release = broken("small")
    (release.folder / "collection.json").unlink()
    run("validate", release.folder, "--only", "STC001", code=2)


def test_rules_lists_every_rule_with_its_reason(run: Run) -> None:
    rules = json.loads(run("rules", "--json").stdout)["rules"]
    lines = run("rules").stdout.splitlines()
    assert len(rules) == len(lines) > 100
    assert all(rule["code"] in line and rule["reason"] in line for rule, line in zip(rules, lines, strict=True))


def test_a_release_of_another_format_is_one_clear_error(release_copy: Path, run: Run) -> None:
    manifest = json.loads((release_copy / "manifest.json").read_text())
    del manifest["format"]
    (release_copy / "manifest.json").write_text(json.dumps(manifest))
    new = release_copy.parent / "new"
    for command in (
        ("validate", release_copy),
        ("search", release_copy, "--near", "-75.5,37.6"),
        ("serve", release_copy, "--port", "0"),
        ("diff", release_copy, release_copy),
        ("publish", release_copy, "--to", f"{new}/"),
        ("mirror", release_copy, "--to", f"{new}/"),
    ):
        said = run(*command, code=2).stderr
        assert "manifest.json: made by clay-publish 0.1; format 1 is not supported" in said, command
    with pytest.raises(ReleaseError, match="format 1 is not supported"):
        open_release(release_copy)
    assert not new.exists()
    (release_copy / "manifest.json").write_text(json.dumps(manifest | {"format": 3}))
    assert (
        "has format 3 (expected format 2). Install a newer clay-publish."
        in run("validate", release_copy, code=2).stderr
    )
