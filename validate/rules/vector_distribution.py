"""Rules on all vectors together: collapse, constant dimensions, outliers, reference values, drift."""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from clay_publish.errors import ReleaseError, shown
from clay_publish.release.directory import COLLECTION, EMBEDDINGS, MANIFEST, REFERENCE, SPEC
from clay_publish.release.tables import ALLOWED, OMITTED, chips_per_file
from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.data.single_rows import column_of, rows_of, some_vectors, vectors_of
from clay_publish.validate.outcomes import Fault, NotChecked, Outcome, Sampled, SkippedError
from clay_publish.validate.registry import rule
from clay_publish.validate.spilled import Column, middle, pieces, starts

_RANKED = 512
"""Chips whose effective rank is taken: it grows with the cube of their number, and only a rank near 1 is a finding."""
_FEW = 16
"""Chips below which nothing can be said about a distribution."""


@rule("VEC010")
def not_collapsed(context: ReleaseContext) -> Iterator[Outcome]:
    """Mean pairwise cosine of about 2048 chips; effective rank (Roy & Vetterli 2007) of 512, less their mean."""
    sample = _finite(context.scan.facts["examples"][:])
    if len(sample) < _FEW:
        yield NotChecked(f"{len(sample)} chips are too few to tell")
        return
    lengths = np.linalg.norm(sample, axis=1, keepdims=True)
    unit = sample[lengths[:, 0] > 0] / lengths[lengths[:, 0] > 0]
    count = len(unit)
    cosine = float((np.square(unit.sum(axis=0)).sum() - count) / (count * (count - 1)))
    rank = effective_rank(sample[:: -(-count // _RANKED)])
    if cosine > 0.9999 or rank < 1.5:
        yield Fault(
            EMBEDDINGS,
            f"mean pairwise cosine {cosine:.6f}, effective rank {rank:.1f} of {min(_RANKED, *sample.shape)}",
            "cosine below 0.9999 and an effective rank of at least 1.5",
        )


def effective_rank(vectors: npt.NDArray[Any]) -> float:
    """Exponential of the entropy of the normalized singular values of the centered vectors."""
    centered = (vectors - vectors.mean(axis=0)).astype(np.float64)
    smaller = centered.T @ centered if centered.shape[1] < len(centered) else centered @ centered.T
    values = np.sqrt(np.maximum(np.linalg.eigvalsh(smaller), 0))
    total = values.sum()
    if total <= 0:
        return 0.0
    share = values[values > 0] / total
    return float(np.exp(-(share * np.log(share)).sum()))


@rule("VEC011")
def few_dead_dimensions(context: ReleaseContext) -> Iterator[Outcome]:
    """Least and greatest value of every dimension, over every chip."""
    facts = context.scan.facts
    if facts.rows < _FEW:
        yield NotChecked(f"{facts.rows} chips are too few to tell")
        return
    low = np.min([piece.min(axis=0) for piece in pieces(facts["low"])], axis=0)
    high = np.max([piece.max(axis=0) for piece in pieces(facts["high"])], axis=0)
    constant = np.flatnonzero(low == high)
    if constant.size > max(1, 0.25 * len(low)):
        listed = ", ".join(map(str, constant[:8]))
        yield Fault(
            EMBEDDINGS, f"{constant.size} of {len(low)} dimensions never vary ({listed})", "at most a quarter of them"
        )


@rule("VEC012")
def norms_are_alike(context: ReleaseContext) -> Iterator[Outcome]:
    """Logarithm of the norm against its median, in robust standard deviations."""
    facts = context.scan.facts
    norms = facts["norms"]
    count = sum(len(part) for part in _lengths(norms))
    if count < _FEW:
        yield NotChecked(f"{count} chips are too few to tell")
        return
    usual = float(np.log(middle(lambda: _lengths(norms))).mean())
    spread = 1.4826 * float(np.mean(middle(lambda: (_away(part, usual) for part in _lengths(norms)))))
    most, found, worst = max(8 * spread, np.log(3)), 0, (0.0, 0)
    for start, piece in starts(norms):
        away = _away(np.where(np.isfinite(piece) & (piece > 0), piece, np.exp(usual)), usual)
        found += int((away > most).sum())
        worst = max(worst, (float(away.max()), -start - int(away.argmax())))
    if found:
        path, row = facts.place(-worst[1])
        more = f"; {found:,} chips in all" if found > 1 else ""
        yield Fault(f"{path}: row {row}", f"norm {norms[-worst[1]]:.4g}{more}", f"about {np.exp(usual):.4g}")


def _lengths(norms: Column) -> Iterator[npt.NDArray[np.float32]]:
    """The norms that are a length of a vector."""
    for piece in pieces(norms):
        yield piece[np.isfinite(piece) & (piece > 0)]


def _away(norms: npt.NDArray[np.float32], usual: float) -> npt.NDArray[np.float32]:
    """By how much the logarithms of norms differ from the usual one."""
    return np.abs(np.log(norms.astype(np.float64)) - usual).astype(np.float32)


_COLUMNS = ("id", "embedding", "tolerance")


@rule("VEC014")
def references_agree(context: ReleaseContext) -> Iterator[Outcome]:
    """Chips of the lowest SHA-256 of each file; half a quantization step and 1e-4 of the vector's largest value."""
    rows = _reference(context)
    if rows is None and (context.tables.foreign or not {SPEC, COLLECTION, MANIFEST}.intersection(context.files.paths)):
        yield NotChecked(f"there is no {REFERENCE}, which comes with a whole release of clay-publish")
        return
    if rows is None:
        yield Fault(REFERENCE, "does not exist", "vectors of some chips of each file, computed a second time")
        return
    if any(not row[name] and row[name] != 0 for row in rows.values() for name in _COLUMNS):
        yield Fault(REFERENCE, "has nulls", "an id, a vector and a tolerance in each row")
        return
    seen = set()
    for path, name, stored in _chosen(context):
        if name not in rows:
            continue
        seen.add(name)
        truth = np.asarray(rows[name]["embedding"], dtype=np.float64)
        if truth.shape != stored.shape:
            yield Fault(f"{REFERENCE}: {name}", f"has {truth.size} values", f"{stored.size}, as in {path}")
            continue
        limit, stated = _allowed(truth, context.fingerprint.dtype), rows[name]["tolerance"]
        with np.errstate(invalid="ignore"):  # of infinite values
            away = float(np.abs(truth - stored).max())
        if not away <= 1.001 * limit:
            yield Fault(f"{path}: {name}", f"differs by {away:.3g} from the second pass", f"at most {limit:.3g}")
        if not abs(stated - limit) <= 0.01 * limit:
            yield Fault(f"{REFERENCE}: {name}", f"states a tolerance of {stated:.3g}", f"{limit:.3g}")
    foreign = sorted(rows.keys() - seen)
    if foreign:
        where = f"{REFERENCE}: {shown(foreign[0])}"
        yield Fault(where, f"{len(foreign)} rows are not of chosen chips", "chips of the lowest SHA-256 of their file")


@rule("VEC019")
def references_are_there(context: ReleaseContext) -> Iterator[Outcome]:
    """Rows, against those that the files give."""
    rows = _reference(context)
    if rows is None:
        return  # VEC014 reports it
    files = [context.tables.count(path) for path in context.tables.embeddings]
    expected = sum(min(chips_per_file(files), each) for each in files)
    if len(rows) < (1 - OMITTED) * expected:
        yield Fault(REFERENCE, f"has {len(rows):,} rows", f"{expected:,}, of which at most {OMITTED:.0%} may lack")


def _reference(context: ReleaseContext) -> dict[str, dict[str, Any]] | None:
    """Rows of the table by id; None where there is none."""
    if REFERENCE not in context.files.paths:
        return None
    table = context.tables.table(REFERENCE)
    lacking = [name for name in _COLUMNS if name not in table.column_names]
    if lacking:
        raise ReleaseError(REFERENCE, f"has no column {lacking[0]}", ", ".join(_COLUMNS))
    return {row["id"]: row for row in table.select(_COLUMNS).to_pylist()}


def _chosen(context: ReleaseContext) -> Iterator[tuple[str, str, npt.NDArray[np.float64]]]:
    """File, id and vector of the chips that the definition chooses."""
    tables = context.tables
    count = chips_per_file([tables.count(path) for path in tables.embeddings])
    for path in tables.embeddings:
        ids = column_of(tables, path, "id")
        hashes = [hashlib.sha256(name.encode()).digest() if name else b"" for name in ids]
        places = np.sort(sorted(range(len(ids)), key=hashes.__getitem__)[:count])
        for place, vector in rows_of(tables, path, places):
            yield path, ids[place], vector


def _allowed(vector: npt.NDArray[np.float64], dtype: str) -> float:
    largest = float(np.abs(vector).max(initial=0))
    half_step = {"float16": largest / 2**11 + 2**-25, "int8": largest / 254}.get(dtype, 0.0)
    return half_step + ALLOWED * largest


@rule("VEC015")
def no_drift(context: ReleaseContext) -> Iterator[Outcome]:
    """Cosine of chips that both versions have, where their fingerprints are the same."""
    previous = context.previous
    if previous is None:
        return
    if previous.fingerprint.digest != context.fingerprint.digest:
        raise SkippedError(previous.files.store.where, "was made by another fingerprint; vectors cannot be compared")
    old = {row: vector for _, row, vector in some_vectors(previous.tables, 2000)}
    cosines = []
    for _, row, vector in vectors_of(context.tables, set(old)):
        lengths = np.linalg.norm(vector) * np.linalg.norm(old[row])
        if vector.shape == old[row].shape and lengths > 0:
            cosines.append((float(vector @ old[row] / lengths), row))
    if not cosines:
        yield NotChecked("the version before has no chip in common with this one")
        return
    moved = [pair for pair in cosines if pair[0] < 0.999]
    if moved:
        worst = min(moved)
        yield Fault(
            EMBEDDINGS,
            f"{len(moved)} of {len(cosines)} compared chips moved; {worst[1]} to a cosine of {worst[0]:.4f}",
            "a cosine of at least 0.999 with the version before",
        )
    else:
        yield Sampled(len(cosines), context.tables.rows)


def _finite(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return vectors[np.isfinite(vectors).all(axis=1)]
