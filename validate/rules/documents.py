"""Rules on what people and programs read about a release: the card, the citation, the license."""

import importlib.metadata
import io
import itertools
import json
import re
import statistics
import warnings
from collections.abc import Iterator
from typing import Any

from PIL import Image

from clay_publish.errors import ClayPublishError, MissingExtraError, ReleaseError
from clay_publish.release.benchmarks import Benchmark, read_benchmarks
from clay_publish.release.directory import (
    BENCHMARKS,
    CARD,
    CHANGELOG,
    CITATION,
    CROISSANT,
    FIGURES,
    HOST_CARD,
    ITEMS,
    LICENSE,
    MAX_DOCUMENT,
    SHA256SUMS,
)
from clay_publish.storage.safe_parse import has_more_than
from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.outcomes import Broken, Fault, NotChecked, Outcome
from clay_publish.validate.registry import rule
from clay_publish.validate.rules.readers import wrong_image

_CARD_KEYS = (
    "license",
    "creator",
    "tags",
    "embedding_spatial_types",
    "embedding_temporal_type",
    "embedding_spatial_context",
    "embedding_temporal_context",
    "embedding_dimension",
    "grid_spacing",
    "inference_datasets",
    "model_name",
    "model_link",
)
"""Required by the geo-embeddings data card."""
_CARD_LISTS = {
    "embedding_spatial_types": {"pixel", "patch", "scene"},
    "embedding_temporal_type": {"single-date", "multi-date"},
}
_CARD_PHRASES = {
    "embedding_spatial_context": (
        "spatial context determined by embedding spatial type",
        "spatial context beyond embedding spatial type",
    ),
    "embedding_temporal_context": (
        "temporal context determined by embedding spatial type",
        "spatial context beyond embedding temporal type",
    ),
}
"""The values that the data card allows, in its own words."""

_LOCAL = re.compile(
    r"(?<![\w./:-])(?:/(?:home|Users|root|tmp|mnt|var|data|scratch)/[^\s\"')]+"
    r"|[A-Za-z]:\\\\\S+|file://[^\s\"')]+)"
)
_SIGNED = re.compile(
    r"[?&](?:X-Amz-Signature|X-Amz-Credential|sig|Signature|token|AWSAccessKeyId|X-Goog-Signature)=", re.IGNORECASE
)
_SECRET = re.compile(r"\bhf_[A-Za-z0-9]{30,}\b|\bAKIA[0-9A-Z]{16}\b|://[^/\s:@]+:[^/\s:@]+@")
_CROISSANT = 5_000
"""Values that mlcroissant is given, at most: it takes milliseconds for each."""
_TEXTS = {"json", "geojson", "yaml", "md", "cff", "txt"}
_LINK = re.compile(r"!?\[[^\[\]]*\]\(([^)\s]+)")  # a label without [: else a text of [ takes quadratic time


@rule("DOC001")
def front_matter_parses(context: ReleaseContext) -> Iterator[Outcome]:
    """`README.md`."""
    text = context.documents.card
    try:
        _ = context.documents.front_matter
    except ReleaseError as error:
        yield Fault(CARD, error.found, "front matter between two lines `---`")
    if len(text) < 500:
        yield Fault(CARD, f"has {len(text)} characters", "a card that describes the release")


@rule("DOC002")
def datasets_reads_card(context: ReleaseContext) -> Iterator[Outcome]:
    """`configs` and `dataset_info` with the library's own readers; every pattern matches a file."""
    try:
        from datasets.info import DatasetInfosDict  # noqa: PLC0415 - optional, and slow to import
        from datasets.utils.metadata import MetadataConfigs  # noqa: PLC0415
        from huggingface_hub import DatasetCardData  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError("datasets", "is not installed", "pip install datasets") from error
    matter = json.loads(json.dumps(context.documents.front_matter, default=str))
    try:
        data = DatasetCardData(**matter)
        configs = MetadataConfigs.from_dataset_card_data(data)
        infos = DatasetInfosDict.from_dataset_card_data(data)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        yield Fault(CARD, f"cannot be read by datasets ({error})", "configs and dataset_info")
        return
    if "embeddings" not in configs:
        yield Fault(f"{CARD}: configs", f"{', '.join(configs) or 'none'}", "a configuration `embeddings`")
    elif "embeddings" in infos and infos["embeddings"].splits:
        stated = sum(split.num_examples for split in infos["embeddings"].splits.values())
        if stated != context.tables.rows:
            yield Fault(f"{CARD}: dataset_info", f"{stated:,} examples", f"{context.tables.rows:,} as in the files")


@rule("DOC003")
def card_keys_are_there(context: ReleaseContext) -> Iterator[Outcome]:
    """Required keys, and the shapes and phrases of the data card."""
    matter = context.documents.front_matter
    missing = {key for key in _CARD_KEYS if matter.get(key) in (None, "", [])}
    for key in sorted(missing):
        yield Fault(f"{CARD}: {key}", "is missing", "a value")
    for key, known in _CARD_LISTS.items():
        if key not in missing and not _is_list_of(matter[key], known):
            yield Fault(f"{CARD}: {key}", str(matter[key])[:100], f"a list of {' or '.join(sorted(known))}")
    for key, phrases in _CARD_PHRASES.items():
        if key not in missing and matter[key] not in phrases:
            yield Fault(f"{CARD}: {key}", str(matter[key])[:100], " or ".join(map(repr, phrases)))
    if "grid_spacing" not in missing and not _are_sizes(matter["grid_spacing"]):
        yield Fault(f"{CARD}: grid_spacing", str(matter["grid_spacing"])[:100], "pairs of meters, such as [[640, 640]]")


def _is_list_of(value: Any, known: set[str]) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) and one in known for one in value)


def _are_sizes(value: Any) -> bool:
    """Whether this is a list of pairs of positive numbers."""
    return isinstance(value, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(type(side) in {int, float} and side > 0 for side in pair)
        for pair in value
    )


@rule("DOC004")
def citation_is_valid(context: ReleaseContext) -> Iterator[Outcome]:
    """What the Citation File Format 1.2.0 requires of a data set."""
    cited = context.documents.citation
    if str(cited.get("cff-version")) not in {"1.1.0", "1.2.0"}:
        yield Fault(f"{CITATION}: cff-version", repr(cited.get("cff-version")), "1.2.0")
    for key in ("message", "title"):
        if not isinstance(cited.get(key), str) or not cited[key].strip():
            yield Fault(f"{CITATION}: {key}", repr(cited.get(key)), "a text")
    if cited.get("type") != "dataset":
        yield Fault(f"{CITATION}: type", repr(cited.get("type")), "dataset")
    authors = cited.get("authors")
    if not isinstance(authors, list) or not authors:
        yield Fault(f"{CITATION}: authors", repr(authors), "at least one")
    elif not all(isinstance(a, dict) and {"name", "family-names", "given-names", "alias"} & a.keys() for a in authors):
        yield Fault(f"{CITATION}: authors", "one has no name", "name, or family-names and given-names")
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", str(cited.get("date-released", "2000-01-01"))):
        yield Fault(f"{CITATION}: date-released", repr(cited["date-released"]), "YYYY-MM-DD")


@rule("DOC005")
def croissant_is_valid(context: ReleaseContext) -> Iterator[Outcome]:
    """With mlcroissant, where the release has a croissant.json."""
    if CROISSANT not in context.files.paths:
        yield NotChecked(f"the release has no {CROISSANT}")
        return
    try:
        import mlcroissant  # noqa: PLC0415 - optional
    except ImportError as error:
        raise MissingExtraError("mlcroissant", "is not installed", "pip install mlcroissant") from error
    document = context.documents.json(CROISSANT)
    if has_more_than(document, _CROISSANT):
        yield Broken(CROISSANT, f"{CROISSANT} holds more than {_CROISSANT:,} values, too many for mlcroissant")
        return
    if _refers_elsewhere(document):
        yield Fault(CROISSANT, "has an @context at another address, which is not fetched", "the context itself")
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of rdflib, at what mlcroissant does
            found = mlcroissant.Dataset(jsonld=document).metadata.ctx.issues.errors
    except (mlcroissant.ValidationError, AssertionError, ValueError, KeyError, TypeError) as error:
        found = [str(error)]
    for problem in list(found)[:5]:
        yield Fault(CROISSANT, str(problem)[:300], "valid Croissant")


def _refers_elsewhere(document: Any) -> bool:
    """Whether a JSON-LD processor would fetch a context from somewhere."""
    waiting = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            contexts = value.get("@context", [])
            contexts = contexts if isinstance(contexts, list) else [contexts]
            if "@import" in value or any(isinstance(context, str) for context in contexts):
                return True
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return False


@rule("DOC006")
def license_has_text(context: ReleaseContext) -> Iterator[Outcome]:
    """Not empty; of a Creative Commons license, its name and version, or what it asks for."""
    text = context.files.text(LICENSE)
    if len(text.strip()) < 20:
        yield Fault(LICENSE, f"has {len(text.strip())} characters", "the text of the license, or where it is")
    spdx = context.documents.spec.license
    named = re.fullmatch(r"CC-BY(?:-[A-Z]{2})*-(\d\.\d)", spdx)
    if named is None or f"licensed under {spdx}." in text:  # which points to the text
        return
    for word in (named[1], "attribution"):
        if word not in text.lower():
            yield Fault(LICENSE, f"does not contain {word!r}", f"the text of {spdx}")


@rule("DOC014")
def nothing_private(context: ReleaseContext) -> Iterator[Outcome]:
    """Every text document, and the text columns of sources and items."""
    texts = [p for p in context.files.paths if p.rpartition(".")[2] in _TEXTS or p == SHA256SUMS]
    for path in texts:
        yield from _private(path, context.files.text(path))
    for path in ("sources.parquet", ITEMS):
        if path in context.tables.readable:
            table = context.tables.table(path)
            names = [n for n in ("href", "assets", "links") if n in table.column_names]
            yield from _private(path, json.dumps(table.select(names).to_pylist(), default=str))


def _private(path: str, text: str) -> Iterator[Outcome]:
    for pattern, kind in ((_LOCAL, "a path of some machine"), (_SIGNED, "a signed address"), (_SECRET, "a credential")):
        match = pattern.search(text)
        if match:
            line = text.count("\n", 0, match.start()) + 1
            shown = match.group()[:60] if kind != "a credential" else "not shown here"
            yield Fault(f"{path}: line {line}", f"{kind} ({shown})", "nothing private")


@rule("DOC015")
def card_links_lead_somewhere(context: ReleaseContext) -> Iterator[Outcome]:
    """Relative links of README.md."""
    there = set(context.files.paths)
    folders = {path.rpartition("/")[0] for path in there}
    for target in sorted(set(_LINK.findall(context.documents.card))):
        path = target.partition("#")[0].removeprefix("./").rstrip("/")
        if path and "://" not in target and not target.startswith("mailto:") and path not in there | folders:
            yield Fault(f"{CARD}: {target}", "is not there", "a file of the release")


@rule("DOC016")
def host_card_is_plain(context: ReleaseContext) -> Iterator[Outcome]:
    """`hosts/source.coop/README.md`."""
    if HOST_CARD not in context.files.paths:
        yield NotChecked(f"the release has no {HOST_CARD}")
        return
    text = context.files.text(HOST_CARD)
    if text.lstrip().startswith("---\n"):
        yield Fault(HOST_CARD, "begins with front matter", "Markdown")
    if context.documents.spec.publish.base_url is not None:
        relative = [t for t in re.findall(r"!\[[^\[\]]*\]\(([^)\s]+)", text) if "://" not in t]
        if relative:
            yield Fault(HOST_CARD, f"has the picture {relative[0]}", "absolute addresses")


_PAGES = frozenset({CARD, HOST_CARD})
"""Documents with numbers of the vectors, which are not read again for large releases."""


@rule("DOC021")
def documents_are_rendered_alike(context: ReleaseContext) -> Iterator[Outcome]:
    """Every document that follows from the data, rendered again by the software and libraries that made the release."""
    if context.render is None:
        yield NotChecked("documents are rendered again by the command line alone")
        return
    context.files.read_whole(CARD)
    if not context.files.store.local:
        yield NotChecked("documents are rendered again for directories alone")
        return
    made = context.documents.manifest.run.libraries
    other = {name: (old, _installed(name)) for name, old in made.items() if _installed(name) != old}
    if other:
        name, (old, own) = next(iter(other.items()))
        yield NotChecked(f"the release was made with {name} {old}, and {own or 'none'} is installed here")
        return
    if context.documents.spec.previous is not None:
        try:
            previous = context.previous
        except ClayPublishError as error:
            yield NotChecked(f"{CHANGELOG}: {error.where} {error.found}")
            previous = None
    else:
        previous = None
    rendered = context.render(context.files.release, None if previous is None else previous.files.release)
    for path in sorted(_PAGES - rendered.keys()):
        yield NotChecked(f"{path} states numbers of the vectors, which are too many to be read again")
    for path, data in sorted(rendered.items()):
        if path not in context.files.paths:
            yield Fault(path, "does not exist", "a document of every release")
            continue
        found = context.files.store.read(path, len(data) + MAX_DOCUMENT)
        if found != data:
            yield _first_difference(path, found.decode("utf-8", "replace"), data.decode())


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _first_difference(path: str, found: str, expected: str) -> Fault:
    """The first line that differs."""
    lines = itertools.zip_longest(found.splitlines(), expected.splitlines())
    for number, (own, other) in enumerate(lines, start=1):
        if own != other:
            stated = "nothing more" if other is None else other.strip()[:200]
            return Fault(
                f"{path}: line {number}", "ends" if own is None else own.strip()[:200] or "an empty line", stated
            )
    return Fault(path, "has other line endings", "those of `clay-publish`")


@rule("DOC022")
def figures_show_something(context: ReleaseContext) -> Iterator[Outcome]:
    """Every PNG below `figures/`, decoded: more than one color."""
    for path in context.files.paths:
        if not (path.startswith(f"{FIGURES}/") and path.endswith(".png")):
            continue
        context.files.read_whole(path)
        data = context.files.store.read(path, MAX_DOCUMENT)
        wrong = wrong_image(data)
        if wrong is None:
            with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
                colors = picture.convert("RGB").getcolors(maxcolors=1)
            alike = colors is not None
            wrong = "shows one color" if alike else None
        if wrong is not None:
            yield Fault(path, wrong, "a picture")


_SCORE = re.compile(r"-?\d+\.\d{3} ± \d+\.\d{3}")
_ROUNDING = 2e-6
"""Of scores in the file, which have six decimals."""


@rule("DOC017")
def card_scores_are_measured(context: ReleaseContext) -> Iterator[Outcome]:
    """The tables of the section Evaluation, in order, in `README.md` and `hosts/source.coop/README.md`."""
    there = read_benchmarks(context.files.release) if BENCHMARKS in context.files.paths else None
    made = [] if there is None else there.benchmarks
    for each in made:
        yield from _inconsistent(each, context)
    expected = [
        (str(result.dimensions), result.model, *(score.text for score in result.scores.values()))
        for each in made
        for result in each.results
    ]
    for path in (CARD, HOST_CARD):
        if path in context.files.paths:
            yield from _other_scores(path, context.files.text(path), expected)


def _inconsistent(made: Benchmark, context: ReleaseContext) -> Iterator[Outcome]:
    """Where a comparison is of other vectors, or a mean does not follow from its folds."""
    place = f"{BENCHMARKS}: {made.labels.target}"
    digest = context.files.release.fingerprint().digest
    if made.release.fingerprint != digest:
        yield Fault(place, f"is of the fingerprint {made.release.fingerprint}", digest)
    if made.release.chips != context.tables.rows:
        yield Fault(place, f"is of {made.release.chips:,} chips", f"{context.tables.rows:,}, as in the files")
    if sum(made.folds.test) != made.sampling.used or len(made.folds.test) != made.folds.count:
        yield Fault(f"{place}: folds", f"test {sum(made.folds.test):,} places", f"{made.sampling.used:,}, each once")
    for result in made.results:
        for metric, score in result.scores.items():
            where = f"{place}: {result.features}, {result.model}, {metric}"
            if len(score.folds) != made.folds.count:
                yield Fault(where, f"has {len(score.folds)} folds", str(made.folds.count))
                continue
            mean, spread = statistics.fmean(score.folds), statistics.pstdev(score.folds)
            if abs(mean - score.mean) > _ROUNDING or abs(spread - score.spread) > _ROUNDING:
                yield Fault(where, f"states {score.mean} ± {score.spread}", f"{mean:.6f} ± {spread:.6f} of its folds")


def _other_scores(path: str, text: str, expected: list[tuple[str, ...]]) -> Iterator[Outcome]:
    section = text.partition("\n## Evaluation\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|") and _SCORE.search(line)]
    found = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]
    if len(found) != len(expected):
        yield Fault(f"{path}: Evaluation", f"has {len(found)} results", f"{len(expected)}, as in {BENCHMARKS}")
        return
    for cells, wanted in zip(found, expected, strict=True):
        if cells[1:] != wanted:
            yield Fault(f"{path}: Evaluation", " | ".join(cells), f"{' | '.join(wanted)}, as in {BENCHMARKS}")
