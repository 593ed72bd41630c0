"""One STAC Item per embeddings file, in one table."""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from stac_geoparquet.arrow import stac_table_to_items

from clay_publish.catalog.collection import collection_document
from clay_publish.catalog.file_summary import FileSummary, summarize
from clay_publish.catalog.item_table import ItemColumns, ItemConstants, write_item_table
from clay_publish.geo.footprints import centers
from clay_publish.geo.utm_zones import SQUARE, Square, squares_of
from clay_publish.release import directory as paths
from clay_publish.release import metadata
from clay_publish.release.directory import DataFile, Release
from clay_publish.release.fingerprint import Fingerprint
from clay_publish.release.manifest import dump_json
from clay_publish.release.metadata import SCHEMA_URI
from clay_publish.release.public_urls import alternate_addresses, release_address
from clay_publish.release.scene_grids import SceneGrids
from clay_publish.release.tables import BBOX, REASONS, TIMESTAMP
from clay_publish.storage.store import is_url
from clay_publish.windows import Window

_COLUMNS = ["epsg", "row", "col", "window_start", "window_end", "reason", "item_ids"]

Ints = npt.NDArray[np.int64]
Missing = dict[DataFile, Counter[str]]
"""Square and window → reason → chips."""


def missing_chips(release: Release, fingerprint: Fingerprint, across: int) -> Missing:
    """Count the chips that were expected and are not there, by the file they would lie in.

    Chips of an image that could not even be counted have no cell, and are not here.

    Raises:
        ReleaseError: a coverage file or `sources.parquet` cannot be read.
    """
    found: Missing = defaultdict(Counter)
    grids = SceneGrids(release) if fingerprint.layout == "scene" else None
    for path in release.data_files(paths.COVERAGE):
        file = release.parquet(path)
        for batch in file.iter_batches(columns=[*_COLUMNS, "status"], batch_size=1 << 18):
            absent = pc.and_(pc.not_equal(batch["status"], "embedded"), pc.is_valid(batch["row"]))
            table = pa.Table.from_batches([batch]).filter(absent)
            if table.num_rows:
                squares = _scene_squares(table, grids, fingerprint) if grids else _utm_squares(table, fingerprint)
                squares[:, 1:] -= squares[:, 1:] % across
                _count(table, squares, found)
    return dict(found)


def _count(table: pa.Table, squares: Ints, found: Missing) -> None:
    """Add the rows of a table; `squares` are [n, 3] zone, column and row, zone 0 where the place is not known."""
    keys = ["zone", "column", "row", "start", "end", "reason"]
    columns = [*squares.T, table["window_start"], table["window_end"], table["reason"]]
    counted = pa.table(columns, names=keys).group_by(keys).aggregate([([], "count_all")])
    for each in counted.to_pylist():
        if each["zone"]:
            file = DataFile(Square(each["zone"], each["column"], each["row"]), Window(each["start"], each["end"]))
            found[file][each["reason"] or "failed"] += each["count_all"]


def _utm_squares(table: pa.Table, fingerprint: Fingerprint) -> Ints:
    """A cell lies in the square of its own zone that holds its center."""
    side = fingerprint.size * (fingerprint.gsd or 0)
    zone = table["epsg"].to_numpy() % 100
    column, row = (np.floor_divide((table[name].to_numpy() + 0.5) * side, SQUARE) for name in ("col", "row"))
    return np.stack([zone, column, row], axis=1).astype(np.int64)


def _scene_squares(table: pa.Table, grids: SceneGrids, fingerprint: Fingerprint) -> Ints:
    """A chip of a scene lies in the square that holds its center."""
    u, v = ((table[name].to_numpy() + 0.5) * fingerprint.size for name in ("col", "row"))
    squares = np.zeros((table.num_rows, 3), dtype=np.int64)
    for crs, mine, x, y in grids.points(table, u, v):
        lon, lat = centers(crs, x, y)
        known = np.isfinite(lon) & np.isfinite(lat)
        squares[mine[known]] = [(s.zone, s.column, s.row) for s in squares_of(lon[known], lat[known])]
    return squares


PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
TABLE = "https://stac-extensions.github.io/table/v1.2.0/schema.json"
FILE = "https://stac-extensions.github.io/file/v2.1.0/schema.json"
ALTERNATE = "https://stac-extensions.github.io/alternate-assets/v1.2.0/schema.json"

_SIDES = ("xmin", "ymin", "xmax", "ymax")


def write_items(release: Release, *, json_items: bool | None = None) -> int:
    """Write `items.parquet`, and each row as a JSON file too; returns the number of items.

    Args:
        release: with its embeddings, coverage and sources.
        json_items: whether to write JSON files; None: up to 1,000 items.

    Raises:
        ReleaseError: no embeddings, a file that cannot be read, or files of different fingerprints.
    """
    spec, fingerprint = release.spec(), release.fingerprint()
    files = release.data_files()
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        summaries = list(pool.map(partial(summarize, release, fingerprint=fingerprint.digest), files))
    gsd = release.footer(files[0])["emb"]["gsd"]
    alternates = alternate_addresses(spec)
    if not spec.instrument.masks:
        summaries = [replace(summary, unchecked=0) for summary in summaries]
    missing = missing_chips(release, fingerprint, spec.outputs.across)
    columns = _columns(summaries, missing, _other_tables(release, files), spec.outputs.across)
    constants = ItemConstants(
        collection=collection_document(release, columns.overview(), assets={}),
        alternates=alternates,
        extensions=(SCHEMA_URI, PROJECTION, TABLE, FILE, *([ALTERNATE] if alternates else [])),
        fields={"gsd": gsd, **metadata.item_fields(fingerprint)},
        source_hrefs=_source_hrefs(release, columns.sources),
        arrays=bool(spec.outputs.arrays),
    )
    write_item_table(release.store, paths.ITEMS, columns, constants)
    wanted = len(columns) <= paths.MAX_JSON_ITEMS if json_items is None else json_items
    write_json_items(release, release_address(spec), wanted=wanted)
    return len(columns)


def write_json_items(release: Release, address: str | None, *, wanted: bool = True) -> None:
    """Write `items/zone=ZZ/ID.json` for each row of `items.parquet`, and remove those of an earlier run.

    Args:
        release: with its item table.
        address: where it is published; None: unknown.
        wanted: False: only remove.
    """
    written = set()
    for item in items_of(release) if wanted else ():
        path = json_path(item["id"])
        written.add(path)
        release.store.write(path, dump_json(_document(item, path, address)))
    for path in release.store.files(paths.JSON_ITEMS):
        if path not in written:
            release.store.remove(path)


def json_path(name: str) -> str:
    """Where an Item lies as JSON, by its id: one folder a zone."""
    return f"{paths.JSON_ITEMS}/zone={name.partition('_')[0]}/{name}.json"


def items_of(release: Release) -> Iterator[dict[str, Any]]:
    """The rows of `items.parquet` as STAC JSON, a row group in memory at a time."""
    for batch in release.parquet(paths.ITEMS).iter_batches():
        for item in stac_table_to_items(batch):
            yield json.loads(json.dumps(item))


def _document(item: dict[str, Any], path: str, address: str | None) -> dict[str, Any]:
    """An Item with hrefs relative to its own file, and `self` where its address is known."""
    for place in (*item["assets"].values(), *item["links"]):
        if not is_url(place["href"]):
            place["href"] = f"../../{place['href']}"
    (collection,) = (link for link in item["links"] if link["rel"] == "collection")
    item["links"].insert(0, {**collection, "rel": "root"})
    if address is not None:
        item["links"].insert(0, {"rel": "self", "href": f"{address}/{path}", "type": "application/geo+json"})
    # stac-geoparquet gives keys in another order each time.
    return {key: item[key] for key in (*_FIRST, *sorted(item.keys() - {*_FIRST}))} | {
        "properties": dict(sorted(item["properties"].items()))
    }


_FIRST = ("type", "stac_version", "stac_extensions", "id", "geometry", "bbox", "properties", "links", "assets")


def _other_tables(release: Release, files: Sequence[str]) -> dict[str, pa.Int64Array]:
    """Tables cut like the embeddings: folder → bytes of the file of the same name; null where there is none."""
    found: dict[str, dict[str, int]] = {}
    for top in (paths.PATCHES, paths.AGGREGATES):
        for path in release.data_files(top):
            folder, _, name = path.partition("/zone=")
            found.setdefault(folder, {})[f"{paths.EMBEDDINGS}/zone={name}"] = release.store.size(path)
    return {folder: pa.array([sizes.get(path) for path in files], pa.int64()) for folder, sizes in found.items()}


def _columns(
    summaries: Sequence[FileSummary], missing: Missing, others: dict[str, pa.Int64Array], across: int
) -> ItemColumns:
    parts = [summary.part for summary in summaries]
    squares = [part.square.mgrs() if across == 1 else None for part in parts]
    return ItemColumns(
        id=pa.array([part.token for part in parts], pa.string()),
        title=pa.array([_title(part, name) for part, name in zip(parts, squares, strict=True)], pa.string()),
        path=pa.array([summary.path for summary in summaries], pa.string()),
        geometry=pa.array([summary.geometry for summary in summaries], pa.binary()),
        bbox=pa.array([dict(zip(_SIDES, summary.bbox, strict=True)) for summary in summaries], BBOX),
        datetime=pa.array([summary.datetime for summary in summaries], TIMESTAMP),
        start_datetime=pa.array([summary.start for summary in summaries], TIMESTAMP),
        end_datetime=pa.array([summary.end for summary in summaries], TIMESTAMP),
        code=pa.array([f"EPSG:{s.epsg}" if s.epsg else None for s in summaries], pa.string()),
        square=pa.array([f"MGRS-{name}" if name else None for name in squares], pa.string()),
        rows=pa.array([summary.rows for summary in summaries], pa.int64()),
        size=pa.array([summary.size for summary in summaries], pa.int64()),
        coverage=_coverage(summaries, missing),
        sources=_lists([summary.sources for summary in summaries]),
        kinds=tuple(sorted({summary.kind for summary in summaries})),
        others=others,
    )


def _lists(parts: Sequence[pa.StringArray]) -> pa.ListArray:
    offsets = np.cumsum([0, *map(len, parts)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.concat_arrays(parts))


def _title(part: DataFile, name: str | None) -> str:
    square = part.square
    place = name or f"UTM zone {square.zone}, column {square.column}, row {square.row}"
    return f"{place}, {part.window}"


def _coverage(summaries: Sequence[FileSummary], missing: Missing) -> pa.StructArray:
    """`embrel:coverage`; each reason that occurs in the release is a field."""
    absent = [missing.get(summary.part, Counter()) for summary in summaries]
    reasons = [reason for reason in REASONS if any(reason in counts for counts in missing.values())]
    embedded = pa.array([summary.rows for summary in summaries], pa.int64())
    expected = pa.array([s.rows + counts.total() for s, counts in zip(summaries, absent, strict=True)], pa.int64())
    fields, names = [expected, embedded], ["expected", "embedded"]
    if any(summary.unchecked for summary in summaries):
        unchecked = pa.array([summary.unchecked for summary in summaries], pa.int64())
        fields, names = [*fields, unchecked], [*names, "not_cloud_checked"]
    if reasons:
        counts = [pa.array([counts[reason] for counts in absent], pa.int64()) for reason in reasons]
        fields, names = [*fields, pa.StructArray.from_arrays(counts, names=reasons)], [*names, "missing"]
    return pa.StructArray.from_arrays(fields, names=names)


def _source_hrefs(release: Release, named: pa.ListArray) -> pa.Table:
    """Addresses of the items that gave pixels."""
    names, found = named.flatten().unique(), []
    for batch in release.parquet(paths.SOURCES).iter_batches(columns=["id", "href"]):
        # A path outside the web cannot be followed, and would reveal the machine that made the release.
        public = pc.match_substring_regex(batch["href"], r"^https?://[^\s<>\"{}|\\^`]+$")
        some = batch.filter(public)
        found.append(some.filter(pc.is_in(some["id"], names)))
    return pa.table({name: pa.chunked_array([some[name] for some in found], pa.string()) for name in ("id", "href")})
