"""Build `explore/`: the page, its overviews and the index of files; and the static Space that shows it on the Hub."""

import html
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files as resources
from typing import Any

import yaml

from clay_publish.cards.explorer.basis import Basis, fit_basis
from clay_publish.cards.explorer.chips import read_chips
from clay_publish.cards.explorer.layers import LAYERS, Layer, Periods, periods
from clay_publish.cards.explorer.pyramid import write_pyramids
from clay_publish.cards.explorer.summary import files_table, overviews, summary
from clay_publish.cards.filters import one_line
from clay_publish.cards.release_facts import CardFacts
from clay_publish.release import directory as paths
from clay_publish.release.directory import Release
from clay_publish.release.geoparquet import write_table
from clay_publish.release.manifest import dump_json
from clay_publish.release.public_urls import source_coop_address
from clay_publish.windows import Window

PAGE = ("index.html", "LICENSES.txt", "explorer.css", "explorer.js", "land.bin", "maplibre.css", "maplibre.js",
        "maplibre-worker.js")  # fmt: skip
"""The page's own files, as `make explorer` builds them into `assets/`."""

FOLDER = paths.EXPLORER
SPACE = "hosts/huggingface-space"
SUMMARY = f"{FOLDER}/release.json"
INDEX = f"{FOLDER}/files.parquet"
BASIS = f"{FOLDER}/basis.json"


def tiles_path(layer: str, period: str) -> str:
    """Where the overview of a layer and period lies."""
    return f"{FOLDER}/tiles/{period}/{layer}.pmtiles"


def write_explorer(release: Release, facts: CardFacts, bibtex: str) -> None:
    """Write `explore/` and the files of a Space that shows it; remove what an earlier run left there.

    Raises:
        ReleaseError: a table of the release cannot be read.
    """
    before = set(release.files(FOLDER)) | set(release.files(SPACE))
    written = _write(release, facts, bibtex) if facts.spec.outputs.explorer else set()
    for path in sorted(before - written):
        release.store.remove(path)


@dataclass(frozen=True)
class Overviews:
    """What was drawn."""

    basis: Basis
    zoom: int
    """The finest."""
    layers: list[tuple[Layer, list[str]]]
    """Each layer, and the ids of the periods in which a chip has its value."""
    dates: tuple[datetime, datetime]
    """Ends of the scale of dates."""

    @property
    def paths(self) -> set[str]:
        """The files."""
        return {tiles_path(layer.id, period) for layer, drawn in self.layers for period in drawn}


def draw_overviews(release: Release, times: Periods, side: float) -> Overviews:
    """Draw every layer of every period.

    Args:
        release: what to draw, and where the tiles go.
        times: its periods.
        side: of a chip, meters.

    Raises:
        ReleaseError: a table of the release cannot be read.
    """
    basis, finest = fit_basis(release), 0
    with read_chips(release, basis, times, side=side) as chips:
        layers = [layer for layer in LAYERS if chips.has(layer.field)]
        shown: list[tuple[Layer, list[str]]] = [(layer, []) for layer in layers]
        for number, period in enumerate(times.each):
            targets = [tiles_path(layer.id, period.id) for layer in layers]
            drawn, zoom = write_pyramids(release, chips, number, layers=layers, paths=targets, side=side)
            finest = max(finest, zoom)
            for (_, ids), path in zip(shown, targets, strict=True):
                if path in drawn:
                    ids.append(period.id)
        return Overviews(basis, finest, shown, chips.dates)


def _write(release: Release, facts: CardFacts, bibtex: str) -> set[str]:
    drawn = draw_overviews(release, _periods(facts), facts.ground)
    write_table(release.store, INDEX, files_table(release))
    release.store.write(BASIS, dump_json(drawn.basis.document()))
    return {INDEX, BASIS, *write_page(release, facts, bibtex, overviews(drawn)), *drawn.paths}


def _periods(facts: CardFacts) -> Periods:
    windows = [Window(start, end) for start, end in facts.coverage.windows]
    return periods(windows, layout=facts.fingerprint.layout)


def write_page(release: Release, facts: CardFacts, bibtex: str, drawn: Mapping[str, Any]) -> set[str]:
    """Write the page, its summary and the files of a Space; their paths. With `drawn`, what is said of the overviews.

    Raises:
        ReleaseError: a table of the release cannot be read.
    """
    assets = resources("clay_publish.cards.explorer").joinpath("assets")
    documents: dict[str, str | bytes] = {f"{FOLDER}/{name}": assets.joinpath(name).read_bytes() for name in PAGE}
    documents[SUMMARY] = dump_json(summary(release, facts, drawn, _periods(facts), bibtex))
    documents |= space_files(facts)
    for path, data in documents.items():
        release.store.write(path, data)
    return set(documents)


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
        f"{SPACE}/README.md": f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n",
        f"{SPACE}/index.html": page.replace(_META, f'<meta name="release" content="{html.escape(address)}">'),
        f"{SPACE}/upload.sh": _UPLOAD.format(folder=SPACE),
    }


def web_address(facts: CardFacts) -> str | None:
    """Where a page on another host reads the release; the Hub's copy first, since a Space lies beside it."""
    publish = facts.spec.publish
    if publish.hugging_face:
        return f"https://huggingface.co/datasets/{publish.hugging_face}/resolve/v{facts.spec.version}"
    return source_coop_address(facts.spec) or facts.address
