"""Rules on what people and programs read about a release: the card, the citation, the license."""

import io
import itertools
import json
import re
import statistics
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from clay_publish.errors import MissingExtraError, ReleaseError
from clay_publish.release.benchmarks import Benchmark, read_benchmarks
from clay_publish.release.directory import (
    BENCHMARKS,
    CARD,
    CITATION,
    CROISSANT,
    FIGURES,
    HOST_CARD,
    ITEMS,
    LICENSE,
    MAX_DOCUMENT,
    SHA256SUMS,
)
from clay_publish.release.manifest import dump_json
from clay_publish.storage.safe_parse import has_more_than
from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.outcomes import Broken, Fault, NotChecked, Outcome, SkippedError
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
_SUSPECT = rf"/(?:home|Users|root|tmp|mnt|var|data|scratch)/|[A-Za-z]:\\|file:|(?i:{_SIGNED.pattern})|{_SECRET.pattern}"
"""Finds all that the three find in one text of a table, and more; in the dialect of Arrow."""
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
    for name, config in configs.items():
        yield from _other_table(name, str(config.get("data_files")), infos.get(name), context)


def _other_table(name: str, pattern: str, info: Any, context: ReleaseContext) -> Iterator[Outcome]:
    """Where a configuration is not that of its table."""
    folder = "/".join(name.split("_", 1))
    files = [path for path in context.tables.readable if path.startswith(f"{folder}/zone=")]
    if not files or f"{folder}/" not in pattern:
        yield Fault(
            f"{CARD}: configs.{name}", pattern[:100], f"the files below {folder}/, of which {len(files):,} exist"
        )
        return
    where = f"{CARD}: dataset_info.{name}"
    rows = sum(context.tables.footer(path).num_rows for path in files)
    if info is not None and info.splits:
        stated = sum(split.num_examples for split in info.splits.values())
        if stated != rows:
            yield Fault(where, f"{stated:,} examples", f"{rows:,} as in the files")
    if info is not None and info.features is not None:
        schema, features = context.tables.schema(files[0]), info.features
        if list(features) != schema.names:
            yield Fault(where, f"the features {', '.join(features)}"[:200], ", ".join(schema.names)[:200])
        elif getattr(features["embedding"], "length", None) != schema.field("embedding").type.list_size:
            yield Fault(where, f"embedding {features['embedding']}"[:100], "vectors of the length in the files")


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


_TERMS = {"BY": "attribution", "NC": "noncommercial", "ND": "noderivatives", "SA": "sharealike"}
_END_OF_4 = "section 8"
"""Of the text of every Creative Commons license 4.0."""


@rule("DOC006")
def license_has_text(context: ReleaseContext) -> Iterator[Outcome]:
    """Not empty; of a Creative Commons license, version, terms in the title, and the text to its end."""
    text = context.files.text(LICENSE)
    if len(text.strip()) < 20:
        yield Fault(LICENSE, f"has {len(text.strip())} characters", "the text of the license, or where it is")
    spdx = context.documents.spec.license
    named = re.fullmatch(r"CC((?:-[A-Z]{2})+)-(\d\.\d)", spdx)
    if named is None or f"licensed under {spdx}." in text:  # which points to the text
        return
    plain = text.lower()
    for word in (named[2], "attribution", *([_END_OF_4] if named[2] == "4.0" else [])):
        if word not in plain:
            yield Fault(LICENSE, f"does not contain {word!r}", f"the text of {spdx}")
    title = plain.strip().partition("\n")[0].replace("-", "")
    terms = {code for code, term in _TERMS.items() if term in title}
    if terms and terms != set(named[1].strip("-").split("-")):
        yield Fault(f"{LICENSE}: line 1", title[:100], f"the terms of {spdx}")


@rule("DOC014")
def nothing_private(context: ReleaseContext) -> Iterator[Outcome]:
    """Every text document, and the text columns of sources and items."""
    texts = [p for p in context.files.paths if p.rpartition(".")[2] in _TEXTS or p == SHA256SUMS]
    for path in texts:
        yield from _private(path, context.files.text(path))
    for path in ("sources.parquet", ITEMS):
        if path in context.tables.readable:
            yield from _private_texts(path, context)


def _private_texts(path: str, context: ReleaseContext) -> Iterator[Outcome]:
    """What the first rows with such a text hold."""
    names = [name for name in ("href", "assets", "links") if name in context.tables.schema(path).names]
    for batch in context.tables.batches(path, columns=names):
        texts = [text for column in batch.columns for text in _texts(column)]
        suspect = [text.filter(pc.match_substring_regex(text, _SUSPECT)).to_pylist() for text in texts]
        found = list(_private(path, json.dumps([*itertools.chain(*suspect)])))
        if found:
            yield from found
            return


def _texts(column: pa.Array) -> Iterator[pa.Array]:
    """All texts of a column, those in lists and structs too; what is stored in other ways as JSON."""
    kind = column.type
    if pa.types.is_primitive(kind) or pa.types.is_null(kind):
        return
    if pa.types.is_struct(kind):
        for child in column.flatten():
            yield from _texts(child)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        yield from _texts(column.flatten())
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        yield column
    else:
        yield pa.array([json.dumps(value, default=str) for value in column.to_pylist()], pa.string())


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


_LARGE = frozenset({CARD, HOST_CARD, ITEMS})
"""Documents that follow from all chips, which are not read again for large releases."""


@rule("DOC021")
def documents_are_rendered_alike(context: ReleaseContext) -> Iterator[Outcome]:
    """Every document that follows from the data, rendered again by the software and libraries that made the release."""
    rendered = context.rendered
    if rendered.unknown is not None:
        yield NotChecked(rendered.unknown)
    for path in sorted(_LARGE - rendered.files.keys()):
        yield NotChecked(f"{path} follows from the chips, which are too many to be read again")
    for path, data in sorted(rendered.files.items()):
        if path.endswith(".png"):
            continue  # DOC022
        if path not in context.files.paths:
            yield Fault(path, "does not exist", "a document of every release")
            continue
        found = context.files.store.read(path, len(data) + MAX_DOCUMENT)
        if found != data and path == ITEMS:
            yield from _other_rows(path, context.tables.table(ITEMS), pq.read_table(pa.BufferReader(data)))
        elif found != data and b"\0" in data:
            yield Fault(path, f"{len(found):,} bytes of other content", f"{len(data):,} bytes that are always the same")
        elif found != data:
            yield _first_difference(path, found.decode("utf-8", "replace"), data.decode())


def _other_rows(path: str, found: pa.Table, expected: pa.Table) -> Iterator[Outcome]:
    """The first row of each column that differs; keys of the footer that do."""
    if found.schema.remove_metadata() != expected.schema.remove_metadata() or len(found) != len(expected):
        columns = f"{len(found):,} rows of {', '.join(found.column_names)}"
        yield Fault(path, columns[:300], f"{len(expected):,} rows of {', '.join(expected.column_names)}"[:300])
        return
    for name in expected.column_names:
        if found[name] != expected[name]:
            own, other = found[name].to_pylist(), expected[name].to_pylist()
            row = next(n for n, pair in enumerate(zip(own, other, strict=True)) if pair[0] != pair[1])
            yield Fault(f"{path}: row {row}: {name}", f"{own[row]!s:.200}", f"{other[row]!s:.200}")
    for key, text in expected.schema.metadata.items():
        own_text = (found.schema.metadata or {}).get(key, b"null")
        if json.loads(own_text) != json.loads(text):
            where = f"{path}: footer {key.decode()}"
            yield _first_difference(where, *(dump_json(json.loads(each)) for each in (own_text, text)))


_LETTERS = 200
"""Of a line that differs, which are shown."""
_BEFORE = 40
"""Of these, before the first other letter."""


def _first_difference(path: str, found: str, expected: str) -> Fault:
    """The first line that differs."""
    lines = itertools.zip_longest(found.splitlines(), expected.splitlines())
    for number, (own, other) in enumerate(lines, start=1):
        if own != other:
            pairs = enumerate(zip(own or "", other or "", strict=False))
            same = next((place for place, pair in pairs if pair[0] != pair[1]), 0)
            start = same - _BEFORE if same > _LETTERS - _BEFORE else 0  # of a long line, the part that differs
            stated = "nothing more" if other is None else other[start:].strip()[:_LETTERS]
            return Fault(
                f"{path}: line {number}",
                "ends" if own is None else own[start:].strip()[:_LETTERS] or "an empty line",
                stated,
            )
    return Fault(path, "has other line endings", "those of `clay-publish`")


@rule("DOC022")
def figures_show_the_release(context: ReleaseContext) -> Iterator[Outcome]:
    """Every PNG below `figures/`: decoded, not of one color, and as drawn again where documents are rendered again."""
    try:
        drawn = {path: data for path, data in context.rendered.files.items() if path.endswith(".png")}
    except SkippedError as error:
        yield NotChecked(f"{error.where} {error.found}")
        drawn = {}
    there = {path for path in context.files.paths if path.startswith(f"{FIGURES}/") and path.endswith(".png")}
    for path in sorted(there | drawn.keys()):
        if path not in there or (drawn and path not in drawn):
            found, expected = ("is there", "no such figure") if path in there else ("does not exist", "a figure")
            yield Fault(path, found, f"{expected}, as the data give")
            continue
        context.files.read_whole(path)
        data = context.files.store.read(path, MAX_DOCUMENT)
        wrong = wrong_image(data)
        if wrong is None and data != drawn.get(path):
            wrong = _wrong_figure(data, drawn.get(path))
        if wrong is not None:
            yield Fault(path, wrong, "a picture" if path not in drawn else "the picture that the data give")


_SMALL = (64, 48)
"""Size to which figures are reduced before they are compared: letters may be drawn by other versions."""
_LEVELS = 2.0
"""Of 255, by which they may differ on average."""


def _wrong_figure(data: bytes, again: bytes | None) -> str | None:
    with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
        shown = picture.convert("RGB")
    if shown.getcolors(maxcolors=1) is not None:
        return "shows one color"
    if again is None:
        return None
    with Image.open(io.BytesIO(again), formats=("PNG",)) as picture:
        expected = picture.convert("RGB")
    own, other = (np.asarray(each.resize(_SMALL, Image.Resampling.BOX), np.float32) for each in (shown, expected))
    away = float(np.abs(own - other).mean())
    return f"differs by {away:.1f} of 255 on average from the figure drawn again" if away > _LEVELS else None


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
