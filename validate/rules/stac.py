"""Rules on STAC: valid documents, and an Item for every file that tells the truth about it."""

import json
import posixpath
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from clay_publish.errors import ReleaseError
from clay_publish.release.array_store import MEDIA_TYPE, STORE
from clay_publish.release.directory import (
    COLLECTION,
    CROISSANT,
    DATACITE,
    ITEMS,
    JSON_ITEMS,
    JSON_LD,
    LICENSE,
    MODEL,
    SOURCES,
)
from clay_publish.release.public_urls import release_address
from clay_publish.storage.safe_parse import has_more_than
from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.data.coverage_table import micros
from clay_publish.validate.data.stac_schemas import core_schema, schema_of, violations
from clay_publish.validate.outcomes import Broken, Fault, NotChecked, Outcome, Sampled
from clay_publish.validate.registry import rule
from clay_publish.windows import parse_time

_ITEMS = 200
"""Items that are held against the schemas; all are held against their files."""
_VALUES = 20_000
"""In a document that is held against schemas, at most."""
_EXTENSIONS = 50
_PARQUET = "application/vnd.apache.parquet"
_NEAR = 1e-6
_SECOND = 1_000_000


def _violations(document: dict[str, Any], kind: str, where: str) -> Iterator[Outcome]:
    """Core, then every extension that the document declares."""
    version = document.get("stac_version")
    if version not in {"1.0.0", "1.1.0"}:
        yield Fault(where, f"stac_version {version!r}", "1.1.0")
        return
    if has_more_than(document, _VALUES):
        yield Broken(where, f"{where} holds more than {_VALUES:,} values, too many to hold against schemas")
        return
    declared = document.get("stac_extensions") or []
    for uri in [None, *declared[:_EXTENSIONS]]:
        try:
            schema = core_schema(kind, version) if uri is None else schema_of(uri)
            for violation in violations(document, schema)[:3]:
                place, _, message = violation.partition(": ")
                yield Fault(f"{where}: {place}", message, uri or "STAC core")
        except ReleaseError as error:
            yield NotChecked(f"{error.where} {error.found}")


@rule("STC001")
def collection_is_valid(context: ReleaseContext) -> Iterator[Outcome]:
    """JSON Schemas, offline."""
    if context.documents.collection.get("type") != "Collection":
        yield Fault(COLLECTION, f"type {context.documents.collection.get('type')!r}", "Collection")
        return
    links = context.documents.collection.get("links")
    # A static catalog may link every Item: the first ones stand for all.
    shown = {"links": links[:_ITEMS]} if isinstance(links, list) else {}
    if isinstance(links, list):
        yield Sampled(len(shown["links"]), len(links), "links")
    yield from _violations({**context.documents.collection, **shown}, "collection", COLLECTION)


def _items(table: pa.Table) -> list[dict[str, Any]]:
    """Rows of a stac-geoparquet table as STAC Items."""
    from stac_geoparquet.arrow import stac_table_to_items  # noqa: PLC0415 - slow to import, with pandas

    return list(stac_table_to_items(table))


@rule("STC002")
def items_are_valid(context: ReleaseContext) -> Iterator[Outcome]:
    """Some items, spread over the table."""
    count = context.documents.items.num_rows
    chosen = context.documents.whole_items(np.arange(0, count, max(1, count // _ITEMS)))
    try:
        documents = _items(chosen)
    except (KeyError, ValueError, TypeError, pa.ArrowException) as error:
        yield Fault(ITEMS, f"cannot be read as stac-geoparquet ({error!r})", "one STAC Item per row")
        return
    yield Sampled(len(documents), count, "Items")
    for document in documents:
        yield from _violations(document, "item", f"{ITEMS}: {document.get('id')}")


@rule("STC003")
def model_is_valid(context: ReleaseContext) -> Iterator[Outcome]:
    """`model.json`."""
    yield from _violations(context.documents.model, "item", MODEL)


@rule("STC004")
def one_item_a_file(context: ReleaseContext) -> Iterator[Outcome]:
    """By the asset `embeddings`."""
    paths = _paths(context)
    for path in sorted(set(context.files.data) - set(paths)):
        yield Fault(ITEMS, f"has no Item for {path}", "one Item per file")
    seen: set[str] = set()
    for number, path in enumerate(paths):
        if path not in context.files.data:
            yield Fault(f"{ITEMS}: row {number}", f"points to {path}, which is not there", "a file of the release")
        elif path in seen:
            yield Fault(f"{ITEMS}: row {number}", f"is another Item of {path}", "one Item per file")
        seen.add(path)


def _paths(context: ReleaseContext) -> list[str]:
    """Path, in the release, of each Item's embeddings."""
    if "assets" not in context.documents.items.column_names:
        raise ReleaseError(ITEMS, "has no column 'assets'")
    found = []
    for assets in context.documents.items.column("assets").to_pylist():
        href = ((assets or {}).get("embeddings") or {}).get("href")
        if href is None:
            raise ReleaseError(ITEMS, "has an Item without the asset 'embeddings'")
        found.append(href.removeprefix("./"))
    return found


def _items_of_files(context: ReleaseContext, columns: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    missing = [name for name in columns if name not in context.documents.items.column_names]
    if missing:
        raise ReleaseError(ITEMS, f"has no column {', '.join(missing)}")
    rows = context.documents.items.select(["id", *columns]).to_pylist()
    for path, row in zip(_paths(context), rows, strict=True):
        if path in context.tables.embeddings:
            yield path, row


@rule("STC005")
def item_rows_agree(context: ReleaseContext) -> Iterator[Outcome]:
    """`table:row_count`, and `embedded` of `embrel:coverage`."""
    for path, row in _items_of_files(context, ["table:row_count", "embrel:coverage"]):
        rows = context.tables.count(path)
        embedded = (row["embrel:coverage"] or {}).get("embedded", rows)
        if embedded != rows:
            yield Fault(f"{ITEMS}: {row['id']}: embrel:coverage", f"embedded {embedded}", f"{rows:,} as in {path}")
        if row["table:row_count"] != rows:
            yield Fault(f"{ITEMS}: {row['id']}", f"table:row_count {row['table:row_count']}", f"{rows:,} as in {path}")


@rule("STC006")
def item_boxes_agree(context: ReleaseContext) -> Iterator[Outcome]:
    """The bbox to a decimeter; bounds of the geometry, and centers of chips in it; `proj:code` and `grid:code`."""
    for path, row in _items_of_files(context, ["bbox", "geometry", "proj:code", "grid:code"]):
        where = f"{ITEMS}: {row['id']}"
        stated = [row["bbox"][side] for side in ("xmin", "ymin", "xmax", "ymax")]
        faults = list(_bounds_agree(f"{where}: bbox", stated, context.scan.facts.boxes.get(path)))
        yield from faults
        if not faults:
            yield from _outline_agrees(f"{where}: geometry", row["geometry"], stated, path, context)
        yield from _place_agrees(where, row, path, context)


def _outline_agrees(
    where: str, geometry: bytes, stated: list[float], path: str, context: ReleaseContext
) -> Iterator[Outcome]:
    shape, facts = shapely.from_wkb(geometry), context.scan.facts
    bounds = shape.bounds
    away = np.abs(np.subtract(bounds, stated))
    away[[0, 2]] *= np.cos(np.radians(np.abs(stated[1::2]).max()))  # near a pole, a meter is many degrees
    if stated[0] <= stated[2] and away.max() > _OUTLINE:
        yield Fault(where, f"bounds {', '.join(f'{v:.5f}' for v in bounds)}", "those of its chips")
        return
    rows = facts.slices()[path]
    chosen = slice(rows.start, rows.stop, max(1, -(-(rows.stop - rows.start) // _CENTERS)))
    outside = ~shapely.intersects_xy(shape, facts["lon"][chosen], facts["lat"][chosen])
    if outside.any():
        yield Fault(
            where, f"leaves {outside.sum():,} of {outside.size:,} centers of chips outside", "all of them inside"
        )


def _place_agrees(where: str, row: dict[str, Any], path: str, context: ReleaseContext) -> Iterator[Outcome]:
    facts = context.scan.facts
    codes = {f"EPSG:{code}" for code in np.unique(facts["epsg"][facts.slices()[path]]).tolist() if code}
    if row["proj:code"] is not None and codes != {row["proj:code"]}:
        yield Fault(f"{where}: proj:code", row["proj:code"], ", ".join(sorted(codes)) or "null")
    if row["grid:code"] is not None and path in context.tables.named:
        square = f"MGRS-{context.tables.named[path].square.mgrs()}"
        if row["grid:code"] != square:
            yield Fault(f"{where}: grid:code", row["grid:code"], f"{square}, as the file is named")


_OUTLINE = 2e-5
"""Degrees of latitude: outlines are thinned by half of this."""
_CENTERS = 10_000
"""Chips of a file that are looked for in its outline, at most."""


def _bounds_agree(where: str, stated: list[float], own: npt.NDArray[np.float64] | None) -> Iterator[Outcome]:
    """Compare a box with the bounds of footprints, of which longitudes say nothing where one crosses ±180°."""
    if own is None or not len(own):
        yield NotChecked(f"{where.partition(':')[0]}: the files have no footprints")
        return
    crossing = bool((own[:, 0] > own[:, 2]).any()) or stated[0] > stated[2]
    bounds = (own[:, 0].min(), own[:, 1].min(), own[:, 2].max(), own[:, 3].max())
    if any(abs(stated[side] - bounds[side]) > _NEAR for side in ((1, 3) if crossing else range(4))):
        yield Fault(where, ", ".join(f"{v:.5f}" for v in stated), ", ".join(f"{v:.5f}" for v in bounds))


@rule("STC007")
def item_times_agree(context: ReleaseContext) -> Iterator[Outcome]:
    """datetime, or start and end, against the chips' times."""
    facts = context.scan.facts
    rows_of = facts.slices()
    names = [n for n in ("datetime", "start_datetime", "end_datetime") if n in context.documents.items.column_names]
    for path, row in _items_of_files(context, names):
        moments = facts["moments"][rows_of[path]]
        moments = moments[moments != np.iinfo(np.int64).min]
        start = row.get("start_datetime") or row.get("datetime")
        end = row.get("end_datetime") or row.get("datetime")
        if start is None or end is None:
            yield Fault(f"{ITEMS}: {row['id']}", "has no time", "datetime, or start_datetime and end_datetime")
        elif moments.size and (moments.min() < micros(start) - _SECOND or moments.max() > micros(end) + _SECOND):
            yield Fault(f"{ITEMS}: {row['id']}", f"{start.isoformat()}/{end.isoformat()}", f"the times in {path}")
        else:
            yield from _other_times(f"{ITEMS}: {row['id']}", row, context.tables.period(path), moments)


def _other_times(where: str, row: dict[str, Any], period: Any, moments: npt.NDArray[np.int64]) -> Iterator[Outcome]:
    """Times of an Item that are not those of its chips: of their period, and the one that they share."""
    expected = dict(zip(("start_datetime", "end_datetime"), period or (), strict=False))
    for name, moment in expected.items():
        if row.get(name) is not None and abs(micros(row[name]) - micros(moment)) > _SECOND:
            yield Fault(f"{where}: {name}", row[name].isoformat(), f"{moment.isoformat()}, as in its file")
    if row.get("datetime") is not None and moments.size:
        away = np.abs(moments - micros(row["datetime"])).max()
        if away > _SECOND:
            yield Fault(f"{where}: datetime", row["datetime"].isoformat(), "null, or the one date of all chips")


@rule("STC008")
def extent_agrees(context: ReleaseContext) -> Iterator[Outcome]:
    """The first bbox of the spatial extent, which holds the others; boxes of the model's Item and of registries."""
    boxes = context.documents.collection.get("extent", {}).get("spatial", {}).get("bbox", [])
    if not boxes or len(boxes[0]) != 4:
        yield Broken(COLLECTION, f"{COLLECTION} has no spatial extent of four numbers")
        return
    own = np.concatenate([np.empty((0, 4)), *context.scan.facts.boxes.values()])
    yield from _bounds_agree(f"{COLLECTION}: extent.spatial", boxes[0], own)
    for other in boxes[1:]:
        if other[1] < boxes[0][1] - _NEAR or other[3] > boxes[0][3] + _NEAR:
            yield Fault(f"{COLLECTION}: extent.spatial", f"a part {other}", f"within {boxes[0]}")
    for where, box in _other_boxes(context):
        yield from _bounds_agree(where, box, own)


def _other_boxes(context: ReleaseContext) -> Iterator[tuple[str, list[float]]]:
    """Places of boxes of the whole release, and the boxes: west, south, east, north."""
    yield f"{MODEL}: bbox", context.documents.model["bbox"]
    if DATACITE in context.files.paths:
        for place in context.documents.json(DATACITE).get("geoLocations", []):
            box = place["geoLocationBox"]
            yield f"{DATACITE}: geoLocationBox", [float(box[side]) for side in _DATACITE_SIDES]
    for path in (JSON_LD, CROISSANT):
        if path in context.files.paths:
            stated = context.documents.json(path).get("spatialCoverage", {}).get("geo", {}).get("box")
            if stated is not None:
                south, west, north, east = map(float, stated.split())
                yield f"{path}: spatialCoverage", [west, south, east, north]


_DATACITE_SIDES = ("westBoundLongitude", "southBoundLatitude", "eastBoundLongitude", "northBoundLatitude")


@rule("STC009")
def assets_agree(context: ReleaseContext) -> Iterator[Outcome]:
    """`file:size` and `file:checksum` (multihash of SHA-256) of the collection's assets and the items' files."""
    there = set(context.files.paths)
    for key, asset in (context.documents.collection.get("assets") or {}).items():
        where, href = f"{COLLECTION}: assets.{key}", str(asset.get("href", ""))
        if "://" in href:
            continue
        path = href.removeprefix("./")
        if path not in there and f"{path}/zarr.json" not in there:
            yield Fault(where, f"{href} is not there", "a file of the release")
            continue
        size, stated = asset.get("file:size"), asset.get("file:checksum")
        if size is not None and size != context.files.store.size(path):
            yield Fault(where, f"file:size {size}", f"{context.files.store.size(path)}")
        if stated is not None and stated != f"1220{context.digests[path]}":
            yield Fault(where, f"file:checksum {stated[:20]}…", f"1220{context.digests[path][:16]}…")
    tables: dict[str, list[str]] = {}
    for path in context.tables.readable:
        folder, _, name = path.partition("/zone=")
        tables.setdefault(name, []).append(folder)
    for path, row in _items_of_files(context, ["assets"]):
        name = path.partition("/zone=")[2]
        expected = {folder.replace("/", "-"): f"{folder}/zone={name}" for folder in tables[name]}
        if f"{STORE}/zarr.json" in there:
            expected["arrays"] = f"{STORE}/utm{name[:2]}"
        yield from _item_assets(f"{ITEMS}: {row['id']}: assets", row["assets"], expected, context)


def _item_assets(
    where: str, assets: dict[str, Any], expected: dict[str, str], context: ReleaseContext
) -> Iterator[Outcome]:
    """Those of an Item: the files of one name in all tables, and the arrays of the zone."""
    for key in sorted({*expected, *assets}):
        asset = assets.get(key) or {}
        href = str(asset.get("href", "none")).removeprefix("./")
        size, kind = asset.get("file:size"), MEDIA_TYPE if key == "arrays" else _PARQUET
        if href != expected.get(key, "none"):
            yield Fault(f"{where}.{key}", href, expected.get(key, "none"))
        elif asset and asset.get("type") != kind:
            yield Fault(f"{where}.{key}", f"type {asset.get('type')}", kind)
        elif size is not None and size != context.files.store.size(expected[key]):
            yield Fault(f"{where}.{key}", f"file:size {size}", f"{context.files.store.size(expected[key])}")


@rule("STC010")
def one_item_table(context: ReleaseContext) -> Iterator[Outcome]:
    """Types of the collection's assets."""
    assets = context.documents.collection.get("assets") or {}
    tables = {key: asset.get("href", "") for key, asset in assets.items() if asset.get("type") == _PARQUET}
    if [href.removeprefix("./").rpartition("/")[2] for href in tables.values()] != [ITEMS]:
        yield Fault(f"{COLLECTION}: assets", f"{', '.join(tables) or 'none'} of type {_PARQUET}", f"{ITEMS} alone")


@rule("STC011")
def links_lead_somewhere(context: ReleaseContext) -> Iterator[Outcome]:
    """Relative links of the Collection and the model's Item."""
    there = set(context.files.paths)
    for path in (COLLECTION, MODEL):
        for link in context.documents.json(path).get("links", []):
            href = str(link.get("href", ""))
            outside = "://" in href or href.startswith(("#", "../"))  # another version, beside this one
            if not outside and href.removeprefix("./") not in there:
                yield Fault(f"{path}: link {link.get('rel')}", f"{href} is not there", "a file of the release")


@rule("STC012")
def links_are_there(context: ReleaseContext) -> Iterator[Outcome]:
    """The relations that the embedding extension and STAC ask for, to the release's own files."""
    links = [(link.get("rel"), str(link.get("href"))) for link in context.documents.collection.get("links", [])]
    for relation, path in {"emb:model": MODEL, "emb:source-data": SOURCES, "license": LICENSE}.items():
        if relation not in {rel for rel, _ in links}:
            yield Fault(f"{COLLECTION}: links", f"none with rel {relation!r}", "a link")
        elif path not in {_resolved("", href) for rel, href in links if rel == relation}:
            yield Fault(f"{COLLECTION}: link {relation}", f"does not lead to {path}", f"./{path}")


@rule("STC013")
def json_items_are_those_of_the_table(context: ReleaseContext) -> Iterator[Outcome]:
    """`items/zone=ZZ/ID.json`: their names, and of some their links and assets."""
    there = {path for path in context.files.paths if path.startswith(f"{JSON_ITEMS}/")}
    if not there:
        return
    table, links = context.documents.items, context.documents.collection["links"]
    hrefs = dict(zip(table["id"].to_pylist(), _paths(context), strict=True))
    expected = {f"{JSON_ITEMS}/zone={name.partition('_')[0]}/{name}.json": name for name in hrefs}
    for path in sorted(there ^ expected.keys()):
        found = "is not an Item of the table" if path in there else "does not exist"
        yield Fault(path, found, f"one for each row of {ITEMS}")
    linked = {_resolved("", link["href"]) for link in links if link["rel"] == "item"}
    if linked != there:
        yield Fault(f"{COLLECTION}: links", f"{len(linked ^ there):,} Items more or less", "one to each JSON Item")
    known = sorted(expected.keys() & there)
    chosen = known[:: max(1, len(known) // _ITEMS)]
    if len(chosen) < len(known):
        yield Sampled(len(chosen), len(known), "JSON Items")
    rows = np.flatnonzero(pc.is_in(table["id"], pa.array([expected[path] for path in chosen], pa.string())).to_numpy())
    documents = {item["id"]: item for item in _items(context.documents.whole_items(rows))}
    for path in chosen:
        document = context.documents.json(path)
        yield from _other_item(path, document, documents[expected[path]])
        if document.get("id") != expected[path]:
            yield Fault(f"{path}: id", repr(document.get("id")), repr(expected[path]))
        leads = {link["rel"]: _resolved(path, link["href"]) for link in document["links"]}
        for relation in ("root", "parent", "collection"):
            if leads.get(relation) != COLLECTION:
                yield Fault(f"{path}: link {relation}", str(leads.get(relation)), f"../../{COLLECTION}")
        found = _resolved(path, document["assets"]["embeddings"]["href"])
        if found != hrefs[expected[path]]:
            yield Fault(f"{path}: assets.embeddings", f"leads to {found}", hrefs[expected[path]])


def _other_item(path: str, document: dict[str, Any], row: dict[str, Any]) -> Iterator[Outcome]:
    """What a JSON Item states otherwise than its row; links and addresses apart."""
    row = json.loads(json.dumps(row))
    own, other = (dict(each.get("properties", {})) for each in (document, row))
    for each, stated in ((document, own), (row, other)):
        stated |= {key: each.get(key) for key in ("collection", "geometry", "bbox")}
        stated |= {f"assets.{key}": _without_address(asset) for key, asset in each.get("assets", {}).items()}
    for key in sorted({*own, *other}):
        found, expected = (_moment(key, stated.get(key)) for stated in (own, other))
        if found != expected:
            yield Fault(f"{path}: {key}", f"{found!s:.100}", f"{expected!s:.100}, as in {ITEMS}")


def _without_address(asset: Any) -> Any:
    return {key: value for key, value in asset.items() if key not in {"href", "alternate"}}


def _moment(key: str, value: Any) -> Any:
    """A time as such, however it is written."""
    return parse_time(value) if key.endswith("datetime") and isinstance(value, str) else value


def _resolved(path: str, href: str) -> str:
    """Path in the release that a relative href of a document leads to; another href as it is."""
    return href if "://" in href else posixpath.normpath(posixpath.join(posixpath.dirname(path), href))


_ABROAD = frozenset({"self", "emb:source-data", "cite-as", "predecessor-version", "emb:model"})
"""Relations that may lead out of the product."""


@rule("STC014")
def hrefs_are_relative(context: ReleaseContext) -> Iterator[Outcome]:
    """Links and assets of Collection and Items; `self` alone holds the address of the release."""
    address, collection = release_address(context.documents.spec), context.documents.collection
    named = [(link["rel"], link["href"]) for link in collection["links"]]
    own = [href for relation, href in named if relation == "self"]
    expected = [] if address is None else [f"{address}/{COLLECTION}"]
    if own != expected:
        yield Fault(f"{COLLECTION}: link self", ", ".join(own) or "none", ", ".join(expected) or "none")
    roots = [_resolved("", href) for relation, href in named if relation == "root"]
    if roots != [COLLECTION]:
        yield Fault(f"{COLLECTION}: link root", ", ".join(roots) or "none", f"./{COLLECTION}")
    places = [(f"{COLLECTION}: link {relation}", href) for relation, href in named if relation not in _ABROAD]
    places += [(f"{COLLECTION}: assets.{key}", asset["href"]) for key, asset in collection["assets"].items()]
    places += [(f"{ITEMS}: assets.embeddings", href) for href in _paths(context)]
    for where, href in places:
        if "://" in href or href.startswith("/"):
            yield Fault(where, href, "an address relative to its document")
            return
