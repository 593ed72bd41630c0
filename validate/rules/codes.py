"""Rules on the compact codes for similarity search."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from clay_publish.errors import ReleaseError
from clay_publish.release.directory import CODES, CODES_MODEL, SPEC
from clay_publish.release.findings import Severity
from clay_publish.search.code_files import CodeFile, code_files
from clay_publish.search.codes import Encoding
from clay_publish.validate.context import View
from clay_publish.validate.data.single_rows import vectors_at
from clay_publish.validate.registry import Fault, NotChecked, Outcome, Sampled, rule

_ERROR = Severity.ERROR
_SAMPLE = 1024
"""Codes that are computed again, at most."""
_FACTOR = 1e-5
_DEGREES = 2e-5
"""Rounding of longitude and latitude to float32."""


def _asked_for(view: View) -> bool:
    """Whether release.yaml asks for codes; releases from before there were any do not say."""
    outputs = view.release.yaml(SPEC).get("outputs")
    return isinstance(outputs, dict) and outputs.get("codes") is True


def _present(view: View) -> list[str]:
    return [path for path in view.files if path.startswith(f"{CODES}/") and path != CODES_MODEL]


@rule(
    "SCH016",
    _ERROR,
    "Codes are described and present as release.yaml asks",
    reason="A query that is encoded in another way than the codes finds chips that look like nothing in particular.",
    fix="Run `clay-publish produce` again: it makes the codes from the published embeddings.",
)
def codes_are_described(view: View) -> Iterator[Outcome]:
    """codes/model.json against the fingerprint; files of codes against the embeddings files; columns."""
    asked, present = _asked_for(view), CODES_MODEL in view.files or bool(_present(view))
    if not present:
        if asked:
            yield Fault(CODES, "is missing", "codes, as release.yaml asks for them")
        return
    if not asked:
        yield Fault(CODES, "is present", "no codes, as release.yaml does not ask for them")
        return
    document = view.release.json(CODES_MODEL)
    try:
        encoding = Encoding.read(document, CODES_MODEL)
    except ReleaseError as error:
        yield Fault(CODES_MODEL, error.found, error.expected)
        return
    yield from _description(view, document, encoding)
    yield from _files(view, encoding)


def _description(view: View, document: dict[str, Any], encoding: Encoding) -> Iterator[Outcome]:
    made = view.fingerprint
    facts = {"dimensions": made.dimensions, "fingerprint": made.digest, "bytes_per_chip": encoding.bytes_per_chip}
    for key, value in facts.items():
        if document.get(key) != value:
            yield Fault(f"{CODES_MODEL}: {key}", str(document.get(key))[:70], str(value))
    recall = document.get("recall")
    shares = [recall.get("codes"), recall.get("reranked")] if isinstance(recall, dict) else []
    if recall is not None and not (shares and all(isinstance(one, int | float) and 0 <= one <= 1 for one in shares)):
        yield Fault(f"{CODES_MODEL}: recall", str(recall)[:70], "shares from 0 to 1, or null")


def _files(view: View, encoding: Encoding) -> Iterator[Outcome]:
    expected = code_files(list(view.data_files))
    for path in sorted({*expected, *_present(view)}):
        if path not in expected:
            yield Fault(path, "belongs to no embeddings file", "one file of codes per zone and window")
        elif path not in view.files:
            yield Fault(path, "is missing", "one file of codes per zone and window")
        elif not view.quick:
            try:
                files, _ = CodeFile(view.release, path, encoding).head
            except ReleaseError as error:
                yield Fault(path, error.found, error.expected)
                continue
            if files != expected[path]:
                yield Fault(path, f"lists {len(files)} embeddings files", f"the {len(expected[path])} of its zone")


def _readable(view: View) -> dict[str, tuple[CodeFile, list[str]]]:
    """Return the files of codes whose form SCH016 accepts, and their embeddings files.

    Raises:
        ReleaseError: a quick look does not read them.
    """
    if CODES_MODEL not in view.files:
        return {}
    if view.quick:
        raise ReleaseError(CODES, "would have to be read whole, which a quick look does not")
    try:
        encoding = Encoding.read(view.release.json(CODES_MODEL), CODES_MODEL)
    except ReleaseError:
        return {}
    found = {}
    for path, members in code_files(list(view.data_files)).items():
        file = CodeFile(view.release, path, encoding)
        try:
            if path in view.files and file.head[0] == members:
                found[path] = file, members
        except ReleaseError:
            continue
    return found


@rule(
    "INT014",
    _ERROR,
    "Codes have one row per chip, in the order of the chips",
    reason="A search by code names chips by file and row: where these are wrong, it returns other places.",
    fix="Run `clay-publish produce` again: it makes the codes from the published embeddings.",
)
def codes_have_every_chip(view: View) -> Iterator[Outcome]:
    """File and row numbers, all of them."""
    for path, (file, members) in _readable(view).items():
        counts = [view.footer_of(member).num_rows for member in members]
        starts = np.cumsum([0, *counts])
        seen = 0
        try:
            for batch in file.batches(planes=0):
                here = np.arange(seen, seen + len(batch))
                inside = here < starts[-1]
                number = np.searchsorted(starts, here, side="right") - 1
                right = inside & (batch.column("file") == number)
                right[inside] &= batch.column("row")[inside] == here[inside] - starts[number[inside]]
                if not right.all():
                    row = int(np.argmin(right))
                    found = f"names row {batch.column('row')[row]} of file {batch.column('file')[row]}"
                    yield Fault(f"{path}: row {seen + row}", found, "every chip once, file by file")
                    break
                seen += len(batch)
            else:
                if seen != starts[-1]:
                    yield Fault(path, f"has {seen:,} rows", f"{starts[-1]:,}, as its embeddings files")
        except ReleaseError as error:
            yield Fault(path, error.found, error.expected)


@rule(
    "VEC018",
    _ERROR,
    "Codes are those of the published vectors",
    reason="Codes of other vectors return chips that are not alike, and nothing in the result shows it.",
    fix="Run `clay-publish produce` again: it makes the codes from the published embeddings.",
)
def codes_are_of_the_vectors(view: View) -> Iterator[Outcome]:
    """Some codes of each file, with their coordinates, computed again from the embeddings."""
    slices, facts = view.scan.facts.slices(), view.scan.facts
    lon, lat = facts["lon"], facts["lat"]
    total = seen = 0
    readable = _readable(view)
    share = max(1, _SAMPLE // max(1, len(readable)))
    for path, (file, members) in readable.items():
        if not all(member in slices for member in members):
            yield NotChecked(f"{path}: its embeddings files cannot be read")
            continue
        rows = np.concatenate([np.arange(slices[m].start, slices[m].stop) for m in members])
        chosen = np.arange(0, len(rows), max(1, -(-len(rows) // share)))
        total, seen = total + len(rows), seen + len(chosen)
        vectors = dict(vectors_at(view, np.sort(rows[chosen])))
        start = 0
        try:
            for batch in file.batches():
                mine = chosen[(chosen >= start) & (chosen < start + len(batch))]
                start += len(batch)
                if not len(mine):
                    continue
                at, stored = mine - (start - len(batch)), batch.codes()
                values = np.array([vectors[int(r)] for r in rows[mine]], np.float32)
                expected = file.encoding.encode(values)
                same = np.all([a[at] == b for a, b in zip(stored.planes, expected.planes, strict=True)], axis=(0, 2))
                same &= np.isclose(stored.factor[at], expected.factor, rtol=_FACTOR, atol=0)
                placed = _near(batch.column("lon")[at], lon[rows[mine]]) & _near(
                    batch.column("lat")[at], lat[rows[mine]]
                )
                for right, what in ((same, "is not the code of its chip's vector"), (placed, "lies elsewhere")):
                    if not right.all():
                        yield Fault(f"{path}: row {mine[np.argmin(right)]}", what, "as computed from the embeddings")
        except ReleaseError as error:
            yield Fault(path, error.found, error.expected)
    if seen < total:
        yield Sampled(seen, total)


def _near(stored: npt.NDArray[np.float32], exact: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    return np.asarray(np.abs(stored - exact) <= _DEGREES)
