"""Rules on the tables beside the embeddings: patches of the chips, and aggregates of them."""

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from statistics import median
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from clay_publish.release.directory import AGGREGATES, PATCHES, DataFile, footer_keys
from clay_publish.release.tables import COMBINED, embeddings_schema, patches_schema
from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.data.chips import ChipRows
from clay_publish.validate.data.extra_tables import SAMPLE, beside_paths, side_of
from clay_publish.validate.data.single_rows import table_rows, vectors_at
from clay_publish.validate.data.sources import SourceTable
from clay_publish.validate.expected.cells import ChipGrids
from clay_publish.validate.outcomes import Broken, Fault, Outcome, Sampled
from clay_publish.validate.registry import rule
from clay_publish.validate.rules.derived_columns import epsg_is_that_of_the_grid, ids_follow_the_rule
from clay_publish.validate.rules.geometry import bbox_is_bounds, center_from_grid, footprint_from_grid
from clay_publish.validate.rules.schema import columns_agree
from clay_publish.validate.spilled import in_order, rows_with

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
            expected = embeddings_schema(made.dimensions, made.dtype, combined=made.combines)
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
    stated: dict[str, Any] = emb if isinstance(emb, dict) else {}
    made = context.fingerprint
    wanted = {"embrel:fingerprint": made.digest, "emb:dimensions": made.dimensions, "data_type": made.dtype}
    for key, value in wanted.items():
        if stated.get(key) != value:
            yield Fault(f"{path}: footer emb: {key}", str(stated.get(key))[:40], f"{value!s:.40} as in the embeddings")
    if side is not None:
        pixels = [made.size * side] * 2
        size = stated.get("emb:chip_layout", {}).get("chip_size")
        if size != pixels:
            yield Fault(f"{path}: footer emb: emb:chip_layout.chip_size", str(size), str(pixels))


@rule("VEC016")
def beside_is_finite(context: ReleaseContext) -> Iterator[Outcome]:
    """NaN and infinite values, zeros and constants, and scales of integers that are not positive numbers."""
    for path, made in context.extra.files.items():
        if made.bad:
            row, found = made.bad[0]
            more = f"; {made.wrong:,} of {made.rows:,} rows in all" if made.wrong > 1 else ""
            yield Fault(f"{path}: row {row}", f"{found}{more}", "finite numbers that differ")
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
        stated = np.concatenate([np.empty(0, np.int64), *(key for made in files for key in made.keys)])
        missing = strange = twice = expected = 0
        for chips, said in in_order(context.extra.blocks_of_chips(context.scan.facts, side), stated):
            blocks, counts = np.unique(chips, return_counts=True)
            complete = blocks[counts == side * side]
            own, again = np.unique(said, return_counts=True)
            missing += np.setdiff1d(complete, own).size
            strange += np.setdiff1d(own, complete).size
            twice, expected = twice + int((again > 1).sum()), expected + len(complete)
        if missing or strange or twice:
            found = f"{missing:,} blocks are missing, {strange:,} are not complete, {twice:,} are there twice"
            yield Fault(f"{AGGREGATES}/{side}x{side}", found, f"the {expected:,} complete blocks, once each")


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
        rows = rows_with(keys, np.array(list(chosen), np.int64))
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


@rule("GEO016")
def aggregates_are_in_place(context: ReleaseContext) -> Iterator[Outcome]:
    """Id, center, footprint, box and epsg of every aggregate, by the rules on chips, on the grid of its side."""
    checks = (
        ids_follow_the_rule,
        center_from_grid,
        footprint_from_grid,
        bbox_is_bounds,
        epsg_is_that_of_the_grid,
    )
    for path in beside_paths(context.tables):
        side = side_of(path)
        if side is None:
            continue
        made = context.fingerprint.model_copy(update={"size": context.fingerprint.size * side})
        larger = cast(
            "ReleaseContext",
            SimpleNamespace(
                fingerprint=made,
                sources=context.sources,
                grids=ChipGrids(made, lambda: context.sources, context.tables),
                tables=SimpleNamespace(named={path: DataFile.parse(path)}),
                sampled=lambda chips: np.arange(len(chips)),
            ),
        )
        start, names = 0, ["id", "geometry", "bbox", "lon", "lat", "item_id", "epsg", "row", "col"]
        for batch in context.tables.batches(path, columns=names):
            chips = ChipRows(path, start, batch)
            start += len(chips)
            for bad in (each for check in checks for each in check(chips, larger)):
                row = int(bad.rows[0])
                more = f"; {len(bad.rows):,} rows in all" if len(bad.rows) > 1 else ""
                yield Fault(f"{path}: row {chips.start + row}", bad.found(row) + more, bad.expected)


_SHARES = ("loss", "valid_fraction", "cloud_fraction")
_COUNTED: dict[str, Callable[[list[Any]], Any]] = {"observations_min": min, "observations_median": median}
"""Of the chips of an aggregate of composites."""


@rule("VEC022")
def aggregates_describe_their_chips(context: ReleaseContext) -> Iterator[Outcome]:
    """Period, images, observations, loss and fractions of some blocks of each side, computed again from the chips."""
    counted = COMBINED if context.fingerprint.combines else ()
    columns = ["start_datetime", "end_datetime", "datetime", "item_id", "item_ids", *_SHARES, *counted]
    total = seen = 0
    for side, files in context.extra.by_side(context.documents.spec.outputs.aggregate):
        keys = context.extra.blocks_of_chips(context.scan.facts, side)
        for made in files:
            step = max(1, -(-len(made.examples) * len(files) // SAMPLE))
            chosen = sorted((row, key) for key, (row, _, _) in list(made.examples.items())[::step])
            total, seen = total + made.rows, seen + len(chosen)
            stated = table_rows(context.tables, made.path, np.array([row for row, _ in chosen], np.int64), columns)
            members = rows_with(keys, np.array([key for _, key in chosen], np.int64))
            chips: dict[int, list[dict[str, Any]]] = {}
            for place, chip in _members(context, members, columns):
                chips.setdefault(int(keys[place]), []).append(chip)
            for (row, key), own in zip(chosen, stated.to_pylist(), strict=True):
                if len(chips.get(key, ())) == side * side:  # COV017
                    for name, expected in _described(chips[key], context.sources).items():
                        found = own.get(name)  # SCH015 reports a missing column
                        if not _alike(found, expected):
                            yield Fault(f"{made.path}: row {row}: {name}", f"{found!s:.80}", f"{expected!s:.80}")
    if seen < total:
        yield Sampled(seen, total)


def _members(
    context: ReleaseContext, rows: npt.NDArray[np.int64], columns: list[str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    for path, mine in context.scan.facts.slices().items():
        wanted = rows[(rows >= mine.start) & (rows < mine.stop)]
        if wanted.size:
            table = table_rows(context.tables, path, wanted - mine.start, columns)
            yield from zip(wanted.tolist(), table.to_pylist(), strict=True)


def _described(chips: list[dict[str, Any]], sources: SourceTable) -> dict[str, Any]:
    """What the aggregate of some chips should say."""
    names = sorted({name for chip in chips for name in chip["item_ids"]})
    start, end = min(chip["start_datetime"] for chip in chips), max(chip["end_datetime"] for chip in chips)
    images = Counter(chip["item_id"] for chip in chips)
    shares = {name: [chip[name] for chip in chips] for name in _SHARES}
    return {
        "start_datetime": start,
        "end_datetime": end,
        "datetime": start + (end - start) / 2,
        "item_id": min(images, key=lambda name: (-images[name], name)),
        "item_ids": names,
        **({"images": sources.count_acquisitions(names)} if "images" in chips[0] else {}),
        **{name: take([chip[name] for chip in chips]) for name, take in _COUNTED.items() if name in chips[0]},
        **{name: None if None in values else sum(values) / len(values) for name, values in shares.items()},
    }


def _alike(found: Any, expected: Any) -> bool:
    if isinstance(found, float) and isinstance(expected, float):
        return abs(found - expected) <= 1e-5 * max(abs(expected), 1e-3)
    if isinstance(found, datetime) and isinstance(expected, datetime):
        return abs(found - expected) <= timedelta(milliseconds=1)
    return bool(found == expected)
