"""Rules on files: what is promised is there, what is there is promised, and every byte is as it was."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from clay_publish.errors import ReleaseError
from clay_publish.release.directory import (
    CARD,
    CITATION,
    COLLECTION,
    COVERAGE,
    EMBEDDINGS,
    GAPS,
    ITEMS,
    LICENSE,
    MANIFEST,
    MEASUREMENTS,
    MODEL,
    SHA256SUMS,
    SOURCES,
    SPEC,
)
from clay_publish.release.versions import REPORT
from clay_publish.storage.store import is_safe
from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.data.chip_facts import repeated
from clay_publish.validate.data.extra_tables import beside_paths
from clay_publish.validate.outcomes import Fault, NotChecked, Outcome
from clay_publish.validate.registry import UNCHECKED, Rule, register, rule

_REQUIRED = (
    SPEC,
    SOURCES,
    GAPS,
    ITEMS,
    CARD,
    CITATION,
    LICENSE,
    MODEL,
    COLLECTION,
    MEASUREMENTS,
    MANIFEST,
    SHA256SUMS,
)
_HOST_OWNED = {".gitattributes", "catalog.json", "latest.json", "yanked.json"}
"""What hosts and `publish` put beside a version, as validation reports."""


@rule("INT001")
def manifest_files_exist(context: ReleaseContext) -> Iterator[Outcome]:
    """Manifest → directory."""
    there = set(context.files.paths)
    for entry in context.documents.manifest.files:
        if is_safe(entry.path) and entry.path not in there:
            yield Fault(f"{MANIFEST}: {entry.path}", "does not exist", f"{entry.size:,} bytes")


@rule("INT002")
def files_are_listed(context: ReleaseContext) -> Iterator[Outcome]:
    """Directory → manifest."""
    listed = {entry.path for entry in context.documents.manifest.files} | {MANIFEST, SHA256SUMS} | _HOST_OWNED
    for path in context.files.paths:
        if path not in listed and REPORT.fullmatch(path) is None:
            yield Fault(path, "is not named in the manifest", "an entry with size and SHA-256")


_Own = Callable[[ReleaseContext, str], Any]
_ENTRIES: dict[str, tuple[str, str, _Own]] = {
    "INT003": ("size", "bytes", lambda context, path: context.files.store.size(path)),
    # Those of the embeddings come from the one pass that reads them.
    "INT004": ("sha256", "SHA-256", lambda context, path: context.digests[path]),
    "INT009": ("rows", "rows", lambda context, path: context.tables.rows_of(path)),
}
"""By rule: what an entry of the manifest says of its file, and how it is measured; None where it is not."""


def _entries_agree(field: str, name: str, own: _Own, context: ReleaseContext) -> Iterator[Outcome]:
    there = set(context.files.paths)
    for entry in context.documents.manifest.files:
        stated, found = getattr(entry, field), own(context, entry.path) if entry.path in there else None
        if found is not None and found != stated:
            yield Fault(entry.path, f"has {_number(found)} {name}", f"{_number(stated)} as the manifest says")


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{str(value)[:16]}…"


for _code, _parts in _ENTRIES.items():
    register(Rule(_code, partial(_entries_agree, *_parts)))


@rule("INT005")
def sums_agree(context: ReleaseContext) -> Iterator[Outcome]:
    """Two lists of the same checksums."""
    lines = [line for line in context.files.text(SHA256SUMS).splitlines() if line.strip()]
    sums = {}
    for number, line in enumerate(lines, start=1):
        value, gap, path = line.partition("  ")
        if not gap or len(value) != 64:
            yield Fault(f"{SHA256SUMS}: line {number}", repr(line[:60]), "a SHA-256, two spaces, a path")
            continue
        sums[path] = value
    listed = {entry.path: entry.sha256 for entry in context.documents.manifest.files}
    for path in sorted(sums.keys() | listed.keys()):
        if sums.get(path) != listed.get(path):
            found = "is missing" if path not in sums else "is not in the manifest" if path not in listed else "differs"
            yield Fault(f"{SHA256SUMS}: {path}", found, "the same list as the manifest's")


@rule("INT006")
def parquet_opens(context: ReleaseContext) -> Iterator[Outcome]:
    """Footers."""
    for path, why in context.tables.unreadable.items():
        yield Fault(path, why, "a Parquet file")


@rule("INT007")
def pages_are_whole(context: ReleaseContext) -> Iterator[Outcome]:
    """Pages, verified while they are read."""
    if context.files.quick:
        yield NotChecked("a quick look does not read every page")
    for path, why in context.scan.damaged.items():
        yield Fault(path, why, "pages that match their checksums")
    beside = set(beside_paths(context.tables))
    for path in [] if context.files.quick else sorted(beside):
        damage = context.extra.files[path].damage
        if damage is not None:
            yield Fault(path, damage, "pages that match their checksums")
    for path in context.tables.readable:
        if not path.startswith(f"{EMBEDDINGS}/") and path not in beside:
            try:
                for _ in context.tables.batches(path):
                    pass
            except ReleaseError as error:
                yield Fault(path, error.found, "pages that match their checksums")


@rule("INT008")
def pages_have_checksums(context: ReleaseContext) -> Iterator[Outcome]:
    """The headers of the pages."""
    for path, seen in context.scan.files.items():
        if seen.bare:
            columns = ", ".join(seen.bare[:5])
            yield Fault(path, f"has pages without checksums in {columns}", "a CRC-32 in every page header")


@rule("INT010")
def parts_exist(context: ReleaseContext) -> Iterator[Outcome]:
    """The files of the release directory."""
    there = set(context.files.paths)
    for path in _REQUIRED:
        if path not in there:
            yield Fault(path, "does not exist", "a file of every release")
    for folder in (COVERAGE, "schemas"):
        if not any(path.startswith(f"{folder}/") for path in there):
            yield Fault(folder, "holds no file", "at least one")


@rule("INT011")
def manifest_paths_are_safe(context: ReleaseContext) -> Iterator[Outcome]:
    """Path traversal, and the same path twice."""
    seen = set()
    for entry in context.documents.manifest.files:
        if not is_safe(entry.path):
            yield Fault(f"{MANIFEST}: {entry.path[:80]!r}", "leads out of the release", "a relative path below it")
        elif entry.path in seen:
            yield Fault(f"{MANIFEST}: {entry.path}", "is named twice", "one entry a file")
        seen.add(entry.path)


@rule("INT012")
def ids_are_unique(context: ReleaseContext) -> Iterator[Outcome]:
    """Ids, across all files."""
    groups = repeated(context.scan.facts["ids"])
    for first, second in groups.examples():
        if _says_who(context, first) == _says_who(context, second):
            more = f"; {groups.extra:,} rows repeat an id in all" if groups.extra > 1 else ""
            yield Fault(context.name(second), f"has the id of {context.name(first)}{more}", "a new id")
            return


def _says_who(context: ReleaseContext, row: int) -> list[Any]:
    """The id of a row; of others, whose ids may name a place, also its time, its source and its partition."""
    if not context.tables.foreign:
        return [context.value("id", row)]
    path, _ = context.scan.facts.place(row)
    columns = context.input.columns[path]
    names = ["id", *(name for name in (*columns.times, *columns.sources) if name != columns.ids)]
    return [path.rpartition("/")[0] if "=" in path else "", *(context.value(name, row) for name in names)]


@rule(UNCHECKED)
def what_rules_need_is_readable(context: ReleaseContext) -> Iterator[Outcome]:
    """What kept other rules from being checked; the last rule of all."""
    seen = set()
    for broken in context.broken:
        if broken not in seen:
            seen.add(broken)
            yield Fault(broken.where or context.files.store.where, broken.why, "content that rules can check")
