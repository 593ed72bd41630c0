"""Rules on files: what is promised is there, what is there is promised, and every byte is as it was."""

from collections.abc import Iterator

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
    MODEL,
    SHA256SUMS,
    SOURCES,
    SPEC,
)
from clay_publish.release.findings import Severity
from clay_publish.storage.store import is_safe
from clay_publish.validate.context import View
from clay_publish.validate.data.chip_facts import repeated
from clay_publish.validate.data.extra_tables import beside_paths
from clay_publish.validate.data.single_rows import value
from clay_publish.validate.registry import Fault, NotChecked, Outcome, rule

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
    MANIFEST,
    SHA256SUMS,
)
_HOST_OWNED = {".gitattributes", "catalog.json", "latest.json"}
"""What hosts put beside a version."""


@rule(
    "INT001",
    Severity.ERROR,
    "Every file that the manifest names is there",
    reason="A manifest that names files which are missing sends readers into errors, and hides a hole in the data.",
    fix="Restore the file from the run, or write the manifest again with `clay-publish catalog`.",
)
def manifest_files_exist(view: View) -> Iterator[Outcome]:
    """Manifest → directory."""
    there = set(view.files)
    for entry in view.manifest.files:
        if is_safe(entry.path) and entry.path not in there:
            yield Fault(f"{MANIFEST}: {entry.path}", "does not exist", f"{entry.size:,} bytes")


@rule(
    "INT002",
    Severity.ERROR,
    "Every file is named in the manifest",
    reason="What the manifest does not name has no checksum, and is published by accident or not at all.",
    fix="Remove the file, or write the manifest again.",
)
def files_are_listed(view: View) -> Iterator[Outcome]:
    """Directory → manifest."""
    listed = {entry.path for entry in view.manifest.files} | {MANIFEST, SHA256SUMS} | _HOST_OWNED
    for path in view.files:
        if path not in listed:
            yield Fault(path, "is not named in the manifest", "an entry with size and SHA-256")


@rule(
    "INT003",
    Severity.ERROR,
    "Every file has the size that the manifest says",
    reason="A shorter file is a broken transfer, a longer one is another version.",
    fix="Copy the file again from where it was made.",
)
def sizes_agree(view: View) -> Iterator[Outcome]:
    """Sizes."""
    there = set(view.files)
    for entry in view.manifest.files:
        if entry.path in there:
            size = view.release.store.size(entry.path)
            if size != entry.size:
                yield Fault(entry.path, f"has {size:,} bytes", f"{entry.size:,}")


@rule(
    "INT004",
    Severity.ERROR,
    "Every file has the SHA-256 that the manifest says",
    reason="A flipped bit in a vector or a date goes unnoticed by every reader; the checksum is the only witness.",
    fix="Copy the file again from where it was made; if it was changed on purpose, make a new version.",
)
def checksums_agree(view: View) -> Iterator[Outcome]:
    """Checksums; those of the embeddings come from the one pass that reads them."""
    there = set(view.files)
    for entry in view.manifest.files:
        if entry.path not in there:
            continue
        own = view.digests[entry.path]
        if own != entry.sha256:
            yield Fault(entry.path, f"hashes to {own[:16]}…", f"{entry.sha256[:16]}…")


@rule(
    "INT005",
    Severity.ERROR,
    "SHA256SUMS says the same as the manifest",
    reason="`sha256sum -c SHA256SUMS` is what people run; it has to judge as the manifest does.",
    fix="Write both again.",
)
def sums_agree(view: View) -> Iterator[Outcome]:
    """Two lists of the same checksums."""
    lines = [line for line in view.text(SHA256SUMS).splitlines() if line.strip()]
    sums = {}
    for number, line in enumerate(lines, start=1):
        value, gap, path = line.partition("  ")
        if not gap or len(value) != 64:
            yield Fault(f"{SHA256SUMS}: line {number}", repr(line[:60]), "a SHA-256, two spaces, a path")
            continue
        sums[path] = value
    told = {entry.path: entry.sha256 for entry in view.manifest.files}
    for path in sorted(sums.keys() | told.keys()):
        if sums.get(path) != told.get(path):
            found = "is missing" if path not in sums else "is not in the manifest" if path not in told else "differs"
            yield Fault(f"{SHA256SUMS}: {path}", found, "the same list as the manifest's")


@rule(
    "INT006",
    Severity.ERROR,
    "Every Parquet file can be opened",
    reason="A truncated or empty file breaks every reader of the folder, not only of this file.",
    fix="Copy the file again from where it was made.",
)
def parquet_opens(view: View) -> Iterator[Outcome]:
    """Footers."""
    for path, why in view.unreadable.items():
        yield Fault(path, why, "a Parquet file")


@rule(
    "INT007",
    Severity.ERROR,
    "Every page of every Parquet file can be read and matches its checksum",
    reason="By default 99 of 100 flipped bits in a Parquet file give other numbers and no error.",
    fix="Copy the file again from where it was made.",
)
def pages_are_whole(view: View) -> Iterator[Outcome]:
    """Pages, verified while they are read."""
    if view.quick:
        yield NotChecked("a quick look does not read every page")
    for path, why in view.scan.damaged.items():
        yield Fault(path, why, "pages that match their checksums")
    beside = set(beside_paths(view))
    for path in [] if view.quick else sorted(beside):
        damage = view.beside[path].damage
        if damage is not None:
            yield Fault(path, damage, "pages that match their checksums")
    for path in view.metadata_paths:
        if not path.startswith(f"{EMBEDDINGS}/") and path not in beside:
            try:
                view.check_pages(path)
            except ReleaseError as error:
                yield Fault(path, error.found, "pages that match their checksums")


@rule(
    "INT008",
    Severity.WARNING,
    "Parquet pages carry checksums",
    reason="Without them a reader cannot know that what it decoded is what was written.",
    fix="Write Parquet with page checksums (`write_page_checksum=True`).",
)
def pages_have_checksums(view: View) -> Iterator[Outcome]:
    """The headers of the pages."""
    for path, seen in view.scan.files.items():
        if seen.bare:
            columns = ", ".join(seen.bare[:5])
            yield Fault(path, f"has pages without checksums in {columns}", "a CRC-32 in every page header")


@rule(
    "INT009",
    Severity.ERROR,
    "Row counts in the manifest are those of the files",
    reason="A count is the cheapest way for a reader to see that nothing was lost on the way.",
    fix="Write the manifest again after the last change of the data.",
)
def manifest_rows_agree(view: View) -> Iterator[Outcome]:
    """Rows."""
    for entry in view.manifest.files:
        if entry.path in view.metadata_paths:
            rows = view.footer_of(entry.path).num_rows
            if entry.rows != rows:
                yield Fault(entry.path, f"has {rows:,} rows", f"{entry.rows} as the manifest says")


@rule(
    "INT010",
    Severity.ERROR,
    "Every part of a release is there",
    reason="A release without its spec, sources, card, citation or checksums cannot be understood or trusted later.",
    fix="Run `clay-publish run` again: it makes what is missing.",
)
def parts_exist(view: View) -> Iterator[Outcome]:
    """The files of the release directory."""
    there = set(view.files)
    for path in _REQUIRED:
        if path not in there:
            yield Fault(path, "does not exist", "a file of every release")
    for folder in (COVERAGE, "schemas"):
        if not any(path.startswith(f"{folder}/") for path in there):
            yield Fault(folder, "holds no file", "at least one")


@rule(
    "INT011",
    Severity.ERROR,
    "Paths in the manifest stay inside the release",
    reason="A path with `..` or a drive letter makes a reader write or read outside the folder it was given.",
    fix="Write the manifest again with `clay-publish`.",
)
def manifest_paths_are_safe(view: View) -> Iterator[Outcome]:
    """Path traversal, and the same path twice."""
    seen = set()
    for entry in view.manifest.files:
        if not is_safe(entry.path):
            yield Fault(f"{MANIFEST}: {entry.path[:80]!r}", "leads out of the release", "a relative path below it")
        elif entry.path in seen:
            yield Fault(f"{MANIFEST}: {entry.path}", "is named twice", "one entry a file")
        seen.add(entry.path)


@rule(
    "INT012",
    Severity.ERROR,
    "Ids are unique in the release",
    reason="Joins, updates and citations go by id; the same id twice makes them silently wrong.",
    fix="Find the unit that was written twice and make the release again.",
)
def ids_are_unique(view: View) -> Iterator[Outcome]:
    """Ids, across all files."""
    groups = repeated(view.scan.facts["ids"])
    for first, second in groups.examples():
        a, b = view.scan.facts.place(first), view.scan.facts.place(second)
        names = [value(view, "id", row) for row in (first, second)]
        if names[0] == names[1]:
            more = f"; {groups.extra:,} rows repeat an id in all" if groups.extra > 1 else ""
            yield Fault(f"{b[0]}: row {b[1]} ({names[1]})", f"has the id of row {a[1]} of {a[0]}{more}", "a new id")
            return
