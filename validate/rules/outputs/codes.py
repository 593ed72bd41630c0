"""Rules on the compact codes for similarity search."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from clay_publish.errors import ReleaseError
from clay_publish.release.directory import CODES, CODES_MODEL, SPEC
from clay_publish.search.code_files import CodeFile, code_files
from clay_publish.search.codes import Encoding
from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.data.single_rows import vectors_at
from clay_publish.validate.outcomes import Fault, NotChecked, Outcome, Sampled
from clay_publish.validate.registry import rule

_SAMPLE = 1024
"""Codes that are computed again, at most."""
_FACTOR = 1e-5
_DEGREES = 2e-5
"""Rounding of longitude and latitude to float32."""


def _asked_for(context: ReleaseContext) -> bool:
    """Whether release.yaml asks for codes; releases from before there were any do not say."""
    outputs = context.files.release.yaml(SPEC).get("outputs")
    return isinstance(outputs, dict) and outputs.get("codes") is True


def _present(context: ReleaseContext) -> list[str]:
    return [path for path in context.files.paths if path.startswith(f"{CODES}/") and path != CODES_MODEL]


@rule("SCH016")
def codes_are_described(context: ReleaseContext) -> Iterator[Outcome]:
    """codes/model.json against the fingerprint; files of codes against the embeddings files; columns."""
    asked, present = _asked_for(context), CODES_MODEL in context.files.paths or bool(_present(context))
    if not present:
        if asked:
            yield Fault(CODES, "is missing", "codes, as release.yaml asks for them")
        return
    if not asked:
        yield Fault(CODES, "is present", "no codes, as release.yaml does not ask for them")
        return
    document = context.documents.json(CODES_MODEL)
    try:
        encoding = Encoding.read(document, CODES_MODEL)
    except ReleaseError as error:
        yield Fault(CODES_MODEL, error.found, error.expected)
        return
    yield from _description(context, document, encoding)
    yield from _files(context, encoding)


def _description(context: ReleaseContext, document: dict[str, Any], encoding: Encoding) -> Iterator[Outcome]:
    made = context.fingerprint
    facts = {"dimensions": made.dimensions, "fingerprint": made.digest, "bytes_per_chip": encoding.bytes_per_chip}
    for key, value in facts.items():
        if document.get(key) != value:
            yield Fault(f"{CODES_MODEL}: {key}", str(document.get(key))[:70], str(value))
    recall = document.get("recall")
    shares = [recall.get("codes"), recall.get("reranked")] if isinstance(recall, dict) else []
    if recall is not None and not (shares and all(isinstance(one, int | float) and 0 <= one <= 1 for one in shares)):
        yield Fault(f"{CODES_MODEL}: recall", str(recall)[:70], "shares from 0 to 1, or null")


def _files(context: ReleaseContext, encoding: Encoding) -> Iterator[Outcome]:
    expected = code_files(list(context.tables.named))
    for path in sorted({*expected, *_present(context)}):
        if path not in expected:
            yield Fault(path, "belongs to no embeddings file", "one file of codes per zone and window")
        elif path not in context.files.paths:
            yield Fault(path, "is missing", "one file of codes per zone and window")
        elif not context.files.quick:
            try:
                files, _ = CodeFile(context.files.release, path, encoding).head
            except ReleaseError as error:
                yield Fault(path, error.found, error.expected)
                continue
            if files != expected[path]:
                yield Fault(path, f"lists {len(files)} embeddings files", f"the {len(expected[path])} of its zone")


def _readable(context: ReleaseContext) -> dict[str, tuple[CodeFile, list[str]]]:
    """Return the files of codes whose form SCH016 accepts, and their embeddings files.

    Raises:
        ReleaseError: a quick look does not read them.
    """
    if CODES_MODEL not in context.files.paths:
        return {}
    context.files.read_whole(CODES)
    try:
        encoding = Encoding.read(context.documents.json(CODES_MODEL), CODES_MODEL)
    except ReleaseError:
        return {}
    found = {}
    for path, members in code_files(list(context.tables.named)).items():
        file = CodeFile(context.files.release, path, encoding)
        try:
            if path in context.files.paths and file.head[0] == members:
                found[path] = file, members
        except ReleaseError:
            continue
    return found


@rule("INT014")
def codes_have_every_chip(context: ReleaseContext) -> Iterator[Outcome]:
    """File and row numbers, all of them."""
    for path, (file, members) in _readable(context).items():
        counts = [context.tables.count(member) for member in members]
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


@rule("VEC018")
def codes_are_of_the_vectors(context: ReleaseContext) -> Iterator[Outcome]:
    """Some codes of each file, with their coordinates, computed again from the embeddings."""
    slices, facts = context.scan.facts.slices(), context.scan.facts
    lon, lat = facts["lon"], facts["lat"]
    total = seen = 0
    readable = _readable(context)
    share = max(1, _SAMPLE // max(1, len(readable)))
    for path, (file, members) in readable.items():
        if not all(member in slices for member in members):
            yield NotChecked(f"{path}: its embeddings files cannot be read")
            continue
        rows = np.concatenate([np.arange(slices[m].start, slices[m].stop) for m in members])
        chosen = np.arange(0, len(rows), max(1, -(-len(rows) // share)))
        total, seen = total + len(rows), seen + len(chosen)
        vectors = dict(vectors_at(context.tables, context.scan.facts, np.sort(rows[chosen])))
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
