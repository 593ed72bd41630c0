"""Pages of the site that are made from the code and from files at the root; run by mkdocs-gen-files."""

import json
import posixpath
import re
import sys
from pathlib import Path

import mkdocs_gen_files
import typer
from typer.core import TyperCommand, TyperGroup

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "build" / "tree"))

from clay_publish.cli.app import app  # noqa: E402 - from the linked tree
from clay_publish.spec.models import Spec  # noqa: E402

SITE = {
    "benchmarks/README.md": "reference/benchmarks.md",
    "catalog/embedding-release/README.md": "reference/embedding-release.md",
    "ARCHITECTURE.md": "reference/architecture.md",
    "CHANGELOG.md": "reference/changelog.md",
    "CONTRIBUTING.md": "reference/contributing.md",
    "README.md": "index.md",
}
"""File at the root → page of the site."""
REPOSITORY = "https://github.com/Clay-foundation/clay-publish/blob/main"


def _page(path: str, text: str) -> None:
    with mkdocs_gen_files.open(path, "w") as file:
        file.write(text)


def _moved(text: str, source: str, page: str) -> str:
    """Text of a file of the repository, with its links as they are from a page of the site."""
    up = "../" * page.count("/")

    def link(found: re.Match[str]) -> str:
        target, _, anchor = found[1].partition("#")
        if "://" in target or not target:
            return found[0]
        anchor = f"#{anchor}" if anchor else ""
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if not (ROOT / path).exists():
            msg = f"{source}: link to {target}, which does not exist"
            raise FileNotFoundError(msg)
        if path.startswith("docs/"):
            return f"]({up}{path.removeprefix('docs/')}{anchor})"
        return f"]({up}{SITE[path]}{anchor})" if path in SITE else f"]({REPOSITORY}/{path}{anchor})"

    return re.sub(r"\]\(([^)\s]+)\)", link, text)


def _command(name: str, command: TyperCommand) -> str:
    context = command.context_class(command, info_name=f"clay-publish {name}")
    usage = command.get_usage(context).removeprefix("Usage: ")
    parts = [f"## {name}\n\n{(command.help or '').strip()}\n\n```\n{usage}\n```\n"]
    rows = [record for parameter in command.get_params(context) if (record := parameter.get_help_record(context))]
    if rows:
        parts.append("\n| option | meaning |\n|---|---|\n")
        parts += [f"| `{option}` | {' '.join(text.split()).replace('|', chr(92) + '|')} |\n" for option, text in rows]
    return "".join(parts)


for document in sorted((ROOT / "docs").glob("*.md")):
    _page(document.name, _moved(document.read_text(encoding="utf-8"), f"docs/{document.name}", document.name))
for source, page in SITE.items():
    _page(page, _moved((ROOT / source).read_text(encoding="utf-8"), source, page))

commands = typer.main.get_command(app)
assert isinstance(commands, TyperGroup)
_page(
    "reference/cli.md",
    "# Command line\n\n" + "\n".join(_command(name, command) for name, command in commands.commands.items()),
)
_page("reference/api.md", "# Python API\n\n::: clay_publish\n    options:\n      show_root_heading: false\n")
template = (ROOT / "clay_publish" / "spec" / "template.yaml").read_text(encoding="utf-8")
_page(
    "reference/spec.md",
    "# Spec\n\nEvery key of `release.yaml`, as `clay-publish init` writes it. Editors check a spec against the\n"
    "[JSON Schema](release.schema.json).\n\n```yaml\n" + template + "```\n",
)
_page("reference/release.schema.json", json.dumps(Spec.model_json_schema(), indent=2, ensure_ascii=False) + "\n")
