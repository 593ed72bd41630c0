"""Pages of the site that are made from the code and from files at the root; run by mkdocs-gen-files."""

import json
import posixpath
import re
import sys
from pathlib import Path

import mkdocs_gen_files
import pyarrow as pa
import typer
from typer.core import TyperCommand, TyperGroup

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "build" / "tree"))

from clay_publish.cli.app import app  # noqa: E402 - from the linked tree
from clay_publish.release import tables  # noqa: E402
from clay_publish.spec.models import Spec  # noqa: E402

SITE = {
    "benchmarks/README.md": "reference/benchmarks.md",
    "catalog/embedding-release/README.md": "reference/embedding-release.md",
    "ARCHITECTURE.md": "reference/architecture.md",
    "CHANGELOG.md": "reference/changelog.md",
    "CONTRIBUTING.md": "reference/contributing.md",
    "README.md": "index.md",
    "SECURITY.md": "reference/security.md",
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
        if path.startswith("docs/") and path.endswith((".md", ".png", ".json")):
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


def _table(title: str, note: str, schema: pa.Schema) -> str:
    rows = [
        f"| `{field.name}` | {_kind(field.type)} | {'yes' if field.nullable else 'no'} | "
        f"{tables.COLUMNS.get(field.name, '')} |"
        for field in schema
    ]
    return (
        f"## {title}\n\n{note}\n\n| column | type | nullable | meaning |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"
    )


def _kind(kind: pa.DataType) -> str:
    if pa.types.is_struct(kind):
        return "struct: " + ", ".join(
            f"`{kind.field(n).name}` {_kind(kind.field(n).type)}" for n in range(kind.num_fields)
        )
    if pa.types.is_fixed_size_list(kind):
        return f"list of D {_kind(kind.value_type)}"
    if pa.types.is_list(kind):
        return f"list of {_kind(kind.value_type)}"
    return str(kind)


for document in sorted((ROOT / "docs").rglob("*.md")):
    name = document.relative_to(ROOT / "docs").as_posix()
    _page(name, _moved(document.read_text(encoding="utf-8"), f"docs/{name}", name))
for source, page in SITE.items():
    _page(page, _moved((ROOT / source).read_text(encoding="utf-8"), source, page))

commands = typer.main.get_command(app)
assert isinstance(commands, TyperGroup)
_page(
    "reference/cli.md",
    "# Command line\n\n" + "\n".join(_command(name, command) for name, command in commands.commands.items()),
)
_page(
    "reference/api.md",
    "# Python API\n\n::: clay_publish\n    options:\n      show_root_heading: false\n"
    '      inherited_members: true\n      filters: ["!^_[^_]", "!^__reduce__"]\n\n'
    "## PyTorch\n\n::: clay_publish.torch.EmbeddingsDataset\n    options:\n      heading_level: 3\n",
)
_page(
    "reference/tables.md",
    "# Tables\n\nThe Arrow schemas of a release, from the code that writes them. D is the number of dimensions.\n\n"
    + "\n".join(
        [
            _table(
                "embeddings/",
                "One row per chip. `embedding` is of float32, float16 or int8 (then `scale` is there).",
                tables.embeddings_schema(1, "int8", thumbnails=True, combined=True, cells=True),
            ),
            _table("coverage/", "One row per expected chip.", tables.coverage_schema()),
            "| reason | meaning |\n|---|---|\n"
            + "\n".join(f"| `{reason}` | {meaning} |" for reason, meaning in tables.REASONS.items())
            + "\n",
            _table("sources.parquet", "One row per image considered.", tables.sources_schema()),
            _table("reference.parquet", "Vectors computed a second time.", tables.reference_schema(1)),
            _table("patches/", "One row per patch.", tables.patches_schema(1, "int8", layers=True)),
        ]
    ),
)
template = (ROOT / "clay_publish" / "spec" / "template.yaml").read_text(encoding="utf-8")
_page(
    "reference/spec.md",
    "# Spec\n\nEvery key of `release.yaml`, as `clay-publish init` writes it. Editors check a spec against the\n"
    "[JSON Schema](release.schema.json).\n\n```yaml\n" + template + "```\n",
)
_page("reference/release.schema.json", json.dumps(Spec.model_json_schema(), indent=2, ensure_ascii=False) + "\n")
