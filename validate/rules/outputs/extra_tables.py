"""Rules on the tables beside the embeddings: patches of the chips, and aggregates of them."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from clay_publish.release.directory import AGGREGATES, PATCHES, footer_keys
from clay_publish.release.tables import embeddings_schema, patches_schema
from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.data.extra_tables import SAMPLE, beside_paths, side_of
from clay_publish.validate.data.single_rows import vectors_at
from clay_publish.validate.outcomes import Broken, Fault, Outcome, Sampled
from clay_publish.validate.registry import rule
from clay_publish.validate.rules.schema import columns_agree

_ROUNDING = {"float32": 1e-5, "float16": 1e-3, "int8": 1e-5}
"""Of a stored mean, relative to its largest value; integers add half a step."""


@rule("SCH015")
def tables_beside_agree(context: ReleaseContext) -> Iterator[Outcome]:
    """Schemas against the fingerprint, footers against the embeddings', folders against the spec."""
    made = context.fingerprint
    for path in beside_paths(context.tables):
        schema, side = context.tables.schema(path), side_of(path)
        if path.startswith(f"{PATCHES}/"):
            expected = patches_schema(made.dimensions, made.dtype, layers="layer" in schema.names)
        else:
            expected = embeddings_schema(made.dimensions, made.dtype)
            if side is None:
                yield Fault(path, "lies in no folder of a side", f"{AGGREGATES}/NxN")
            elif side not in context.documents.spec.outputs.aggregate:
                yield Fault(
                    path,
                    f"{side} × {side} chips",
                    f"{context.documents.spec.outputs.aggregate} as release.yaml asks for",
                )
        yield from columns_agree(path, schema, expected)
        yield from _footer(context, path, side)
    asked = context.documents.spec.outputs.patch_format == "parquet"
    if not asked and any(path.startswith(f"{PATCHES}/") for path in context.files.paths):
        yield Fault(PATCHES, "is there", "no tables of patches, as release.yaml asks for none")


def _footer(context: ReleaseContext, path: str, side: int | None) -> Iterator[Outcome]:
    emb = footer_keys(context.tables.annotated_schema(path), path).get("emb")
    told: dict[str, Any] = emb if isinstance(emb, dict) else {}
    made = context.fingerprint
    wanted = {"embrel:fingerprint": made.digest, "emb:dimensions": made.dimensions, "data_type": made.dtype}
    for key, value in wanted.items():
        if told.get(key) != value:
            yield Fault(f"{path}: footer emb: {key}", str(told.get(key))[:40], f"{value!s:.40} as in the embeddings")
    if side is not None:
        pixels = [made.size * side] * 2
        size = told.get("emb:chip_layout", {}).get("chip_size")
        if size != pixels:
            yield Fault(f"{path}: footer emb: emb:chip_layout.chip_size", str(size), str(pixels))


@rule("VEC016")
def beside_is_finite(context: ReleaseContext) -> Iterator[Outcome]:
    """NaN, infinite values, and scales of integers that are no positive numbers."""
    for path, made in context.extra.files.items():
        if made.bad:
            row, found = made.bad[0]
            more = f"; {made.wrong:,} of {made.rows:,} rows in all" if made.wrong > 1 else ""
            yield Fault(f"{path}: row {row}", f"{found}{more}", "finite numbers")
        elif made.gap is not None:
            yield Broken(made.path, made.gap)


@rule("INT013")
def patches_fit_chips(context: ReleaseContext) -> Iterator[Outcome]:
    """Ids against the embeddings file of the same name; every chip with one patch of every layer, row and column."""
    there = {made.counterpart: made for path, made in context.extra.files.items() if path.startswith(f"{PATCHES}/")}
    if not there and context.documents.spec.outputs.patch_format != "parquet":
        return
    ids, slices = context.scan.facts["ids"], context.scan.facts.slices()
    for path in sorted({*there, *slices}):
        made = there.get(path)
        if made is None or path not in slices:
            found = "has no patches" if made is None else "has patches and no chips"
            yield Fault(path, found, "a file of each, of the same name")
            continue
        if made.gap is not None:
            yield Broken(made.path, made.gap)
            continue
        chips = set(ids[slices[path]].tolist())
        alone = len(chips - made.patches.keys()), len(made.patches.keys() - chips)
        if any(alone):
            found = f"{alone[0]:,} chips without patches, patches of {alone[1]:,} chips that are not there"
            yield Fault(made.path, found, f"the chips of {path}")
        each = len(made.cells)
        uneven = sum(count != each for count in made.patches.values())
        repeated = [cell for cell, count in made.cells.items() if count != len(made.patches)]
        if uneven or repeated or not _is_box(set(made.cells)):
            yield Fault(
                made.path,
                f"{uneven:,} chips do not have {each} patches each" if uneven else f"layer, row, column {repeated[:1]}",
                "every layer, row and column once a chip",
            )


def _is_box(cells: set[tuple[int, int, int]]) -> bool:
    """Whether cells are all pairs of some layers with all rows and columns from 0."""
    sides = [{cell[n] for cell in cells} for n in range(3)]
    whole = all(side == set(range(len(side))) for side in sides[1:])
    return whole and len(cells) == len(sides[0]) * len(sides[1]) * len(sides[2])


@rule("COV017")
def aggregates_are_complete(context: ReleaseContext) -> Iterator[Outcome]:
    """Blocks by number, recomputed from the rows and columns of the embedded chips."""
    for side, files in context.extra.by_side(context.documents.spec.outputs.aggregate):
        if gaps := [Broken(made.path, made.gap) for made in files if made.gap is not None]:
            yield gaps[0]
            continue
        blocks, counts = np.unique(context.extra.blocks_of_chips(context.scan.facts, side), return_counts=True)
        complete = blocks[counts == side * side]
        told = np.concatenate([np.empty(0, np.int64), *(key for made in files for key in made.keys)])
        own, again = np.unique(told, return_counts=True)
        missing, strange = np.setdiff1d(complete, own).size, np.setdiff1d(own, complete).size
        twice = int((again > 1).sum())
        if missing or strange or twice:
            found = f"{missing:,} blocks are missing, {strange:,} are not complete, {twice:,} are there twice"
            yield Fault(f"{AGGREGATES}/{side}x{side}", found, f"the {len(complete):,} complete blocks, once each")


@rule("VEC017")
def aggregates_are_means(context: ReleaseContext) -> Iterator[Outcome]:
    """Some blocks of each side, computed again from the chips' own vectors."""
    total = seen = 0
    for side, files in context.extra.by_side(context.documents.spec.outputs.aggregate):
        examples = {key: (made.path, *example) for made in files for key, example in made.examples.items()}
        chosen = dict(list(examples.items())[:: max(1, -(-len(examples) // SAMPLE))])
        total, seen = total + sum(made.rows for made in files), seen + len(chosen)
        if not chosen:
            continue
        keys = context.extra.blocks_of_chips(context.scan.facts, side)
        rows = np.flatnonzero(np.isin(keys, np.array(list(chosen), np.int64)))
        sums: dict[int, npt.NDArray[np.float64]] = {}
        for row, vector in vectors_at(context.tables, context.scan.facts, rows):
            sums[int(keys[row])] = sums.get(int(keys[row]), 0) + vector
        for key, (path, row, stored, slack) in chosen.items():
            if key not in sums or sums[key].shape != stored.shape:
                continue  # COV017, SCH015
            mean = sums[key] / (side * side)
            away = float(np.abs(stored - mean).max())
            most = _ROUNDING[context.fingerprint.dtype] * float(np.abs(mean).max()) + 1.01 * slack
            if not away <= most and np.isfinite(stored).all():
                yield Fault(
                    f"{path}: row {row}", f"is {away:.3g} away from the mean of its chips", f"at most {most:.3g}"
                )
    if seen < total:
        yield Sampled(seen, total)
