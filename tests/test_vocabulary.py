"""The prose of the project uses the field's words: no metaphor or idiom of an earlier draft comes back."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("cards", "catalog", "clay_publish", "docs", "producer", "publish", "validate")
KINDS = {".py", ".md", ".jinja", ".yaml", ".ts", ".html"}
BUILT = ROOT / "cards" / "explorer" / "assets"

INSTEAD = {
    r"(?<!there )(?<!There )\bis no\b(?! (longer|data))": "is not a",
    r"\bjudge": "validate, check",
    r"\bmend(s|ed)?\b": "fix",
    r"\banew\b": "again; regenerate",
    r"\b(no|some)body\b": "no process, another process, unknown",
    r"\btold\b": "receives, stated, passed",
    r"\bwhoever\b": "the process, user or caller that is meant",
    r"\bgo(es)? on where\b": "resume",
    r"\btak(e|es|ing) turns\b": "alternate",
    r"\bstrangers?\b": "unexpected, unknown",
    r"\b(dies|dead)\b": "fails, crashes; stale, constant, broken",
    r"\bsigns? of life\b": "heartbeat",
    r"\b(be|being) had\b": "available",
    r"\bmakes? no sense\b": "is invalid",
    r"\btak(e|es|en) over from the version\b": "reused from the previous version",
    r"\ba version that is out\b": "a published version",
    r"\b(one|one row|bytes|one thread) a (chip|file|cell|row|window|line|core|value)\b": "per chip, per file",
    r"\bpatien(t|ce)\b": "retry, timeout",
}


def texts() -> list[Path]:
    found = [path for name in FOLDERS for path in (ROOT / name).rglob("*")]
    found += [*ROOT.glob("*.md"), *(ROOT / ".github").rglob("*.md")]
    kept = [path for path in found if path.suffix in KINDS and BUILT not in path.parents]
    return sorted(path for path in kept if path.name != "CHANGELOG.md" and "node_modules" not in path.parts)


@pytest.mark.parametrize("pattern", INSTEAD)
def test_words_of_an_earlier_draft_stay_out(pattern: str) -> None:
    word = re.compile(pattern, re.IGNORECASE)
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
        for path in texts()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if word.search(line)
    ]
    assert not found, f"use {INSTEAD[pattern]!r}:\n" + "\n".join(found)


def test_words_of_an_earlier_draft_stay_out_of_identifiers() -> None:
    word = re.compile(r"(?<![a-z])(un)?(told|judge[ds]?|nobody)(?![a-z])", re.IGNORECASE)  # parts of snake_case, too
    folders = (*FOLDERS, "benchmarks", "tests")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
        for path in sorted(path for name in folders for path in (ROOT / name).rglob("*.py"))
        if path != Path(__file__) and "node_modules" not in path.parts
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if word.search(line)
    ]
    assert not found, "\n".join(found)
