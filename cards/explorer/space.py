"""A static Space that shows a release: the Hub itself serves HTML as text."""

import html
from importlib.resources import files as resources

import yaml

from clay_publish.cards.filters import one_line
from clay_publish.cards.release_facts import CardFacts

FOLDER = "hosts/huggingface-space"

_META = '<meta name="release" content="..">'

_UPLOAD = """\
#!/bin/sh
# Create or update the Space. Run in the folder of the release: sh {folder}/upload.sh USER/SPACE
set -eu
hf repo create "$1" --repo-type space --space-sdk static --exist-ok
for file in explorer.js explorer.css maplibre.js maplibre-worker.js maplibre.css land.bin LICENSES.txt; do
    hf upload "$1" "explore/$file" "$file" --repo-type space
done
hf upload "$1" {folder}/index.html index.html --repo-type space
hf upload "$1" {folder}/README.md README.md --repo-type space
"""


def space_files(facts: CardFacts) -> dict[str, str]:
    """Path → text of the Space's three files; none where the spec names no address on the web."""
    address = web_address(facts)
    if address is None:
        return {}
    front = {"title": one_line(facts.title, 100), "emoji": "🌍", "sdk": "static", "pinned": False}
    if facts.spec.publish.hugging_face:
        front["datasets"] = [facts.spec.publish.hugging_face]
    page = resources("clay_publish.cards.explorer").joinpath("assets", "index.html").read_text(encoding="utf-8")
    return {
        f"{FOLDER}/README.md": f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n",
        f"{FOLDER}/index.html": page.replace(_META, f'<meta name="release" content="{html.escape(address)}">'),
        f"{FOLDER}/upload.sh": _UPLOAD.format(folder=FOLDER),
    }


def web_address(facts: CardFacts) -> str | None:
    """Where a page on another host reads the release; the Hub's copy first, since a Space lies beside it."""
    publish = facts.spec.publish
    if publish.hugging_face:
        return f"https://huggingface.co/datasets/{publish.hugging_face}/resolve/v{facts.spec.version}"
    return facts.address
