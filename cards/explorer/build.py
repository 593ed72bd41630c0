"""Build `explore/`: the page, its overviews and the index of files."""

from importlib.resources import files as resources

from clay_publish.cards.explorer.basis import fit_basis
from clay_publish.cards.explorer.chips import read_chips
from clay_publish.cards.explorer.layers import LAYERS
from clay_publish.cards.explorer.periods import periods
from clay_publish.cards.explorer.pyramid import finest_zoom, write_pyramids
from clay_publish.cards.explorer.space import FOLDER as SPACE
from clay_publish.cards.explorer.space import space_files
from clay_publish.cards.explorer.summary import files_table, summary
from clay_publish.cards.facts import Facts
from clay_publish.geoparquet import write_table
from clay_publish.manifest import dump_json
from clay_publish.release import Release
from clay_publish.windows import Window

PAGE = ("index.html", "LICENSES.txt", "explorer.css", "explorer.js", "land.json", "maplibre.css", "maplibre.js",
        "maplibre-worker.js")  # fmt: skip
"""The page's own files, as `make explorer` builds them into `assets/`."""

FOLDER = "explore"
SUMMARY = f"{FOLDER}/release.json"
INDEX = f"{FOLDER}/files.parquet"
BASIS = f"{FOLDER}/basis.json"


def tiles_path(layer: str, period: str) -> str:
    """Where the overview of a layer and period lies."""
    return f"{FOLDER}/tiles/{period}/{layer}.pmtiles"


def write_explorer(release: Release, facts: Facts, bibtex: str) -> None:
    """Write `explore/` and the files of a Space that shows it; remove what an earlier run left there.

    Raises:
        ReleaseError: a table of the release cannot be read.
    """
    before = set(release.files(FOLDER)) | set(release.files(SPACE))
    written = _write(release, facts, bibtex) if facts.spec.outputs.explorer else set()
    for path in sorted(before - written):
        release.store.remove(path)


def _write(release: Release, facts: Facts, bibtex: str) -> set[str]:
    side = facts.ground
    windows = [Window(start, end) for start, end in facts.coverage.windows]
    times = periods(windows, layout=facts.fingerprint.layout)
    basis = fit_basis(release)
    zoom = finest_zoom(side, facts.bbox[1], facts.bbox[3])
    with read_chips(release, basis, times, side=side) as chips:
        layers = [layer for layer in LAYERS if chips.has(layer.field)]
        dates = chips.dates
        for number, period in enumerate(times.each):
            targets = [tiles_path(layer.id, period.id) for layer in layers]
            write_pyramids(release, chips, number, layers, targets, zoom)
    made = {tiles_path(layer.id, period.id) for layer in layers for period in times.each}
    drawn = {path for path in made if release.store.exists(path)}
    shown = [
        (layer, [period.id for period in times.each if tiles_path(layer.id, period.id) in drawn]) for layer in layers
    ]
    document = summary(
        release, facts, basis=basis, times=times, layers=shown, dates=dates, zoom=zoom, bibtex=bibtex
    )
    write_table(release.store, INDEX, files_table(release))
    pages = {f"{FOLDER}/{name}": resources("clay_publish.cards.explorer").joinpath("assets", name).read_bytes()
             for name in PAGE}  # fmt: skip
    texts = {SUMMARY: dump_json(document), BASIS: dump_json(basis.document()), **space_files(facts)}
    for path, data in {**pages, **texts}.items():
        release.store.write(path, data)
    return {INDEX, *pages, *texts, *drawn}
