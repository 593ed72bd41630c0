"""Breaking a good release in one way only: whatever else follows from the change is put right again."""

import hashlib
import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
import yaml

from clay_publish import windows
from clay_publish.cards import write_cards
from clay_publish.catalog import write_collection, write_items
from clay_publish.catalog.file_items import write_json_items
from clay_publish.errors import ClayPublishError
from clay_publish.producer.outputs.codes import write_codes
from clay_publish.release.directory import Release
from clay_publish.release.geoparquet import bbox_array, total_bbox, write_table
from clay_publish.release.manifest import dump_json
from clay_publish.release.tables import (
    chips_per_file,
    reference_chips,
    reference_schema,
    tolerance,
    without_cloud_fraction,
)

Rows = list[dict[str, Any]]

_DAMAGE = (ClayPublishError, AttributeError, LookupError, OSError, TypeError, ValueError, pa.ArrowException)
"""What is raised where a broken release lacks what follows from others: codes, vectors, files."""

JSON = "application/geo+json"
SHORE = "imagery/item.json"
IMAGERY = Path(windows.__file__).parent / "sample" / "imagery"
"""The images of the bundled sample."""
DATA = Path(__file__).resolve().parents[1] / "data"
"""Other real images."""
PLACED = "placed"
"""The sample, put down elsewhere."""
MOROCCO = "s2_l2a_mini_29RKH_20200219/item.json"
NAIP = "naip/va_m_3607824_se_17_1_20160620_crop.json"

_BARE = {"explorer": False, "codes": False}
"""What most kinds do without: it follows from the vectors, and would be drawn and computed again after each change."""

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "small": (SHORE, {"chips": {"layout": "scene", "size": 64}, "outputs": {**_BARE}}),
    "large": (SHORE, {"chips": {"layout": "scene", "size": 16}, "outputs": {**_BARE}}),
    "int8": (SHORE, {"chips": {"layout": "scene", "size": 64}, "outputs": {**_BARE, "dtype": "int8"}}),
    "utm": (SHORE, {"chips": {"layout": "utm", "size": 64}, "outputs": {**_BARE}}),
    "utm8": (SHORE, {"chips": {"layout": "utm", "size": 64}, "outputs": {**_BARE, "dtype": "int8"}}),
    "next": (
        SHORE,
        {
            "chips": {"layout": "scene", "size": 64},
            "outputs": {**_BARE},
            "version": "1.1.0",
            "previous": "next/1.0.0",
        },
    ),
    "clouds": (
        MOROCCO,
        {"chips": {"layout": "scene", "size": 32}, "sensor": "sentinel-2-l2a", "outputs": {**_BARE}},
    ),
    "mapped": (
        MOROCCO,
        {"chips": {"layout": "scene", "size": 64}, "sensor": "sentinel-2-l2a", "outputs": {"codes": False}},
    ),
    "morocco": (
        MOROCCO,
        {"chips": {"layout": "utm", "size": 32, "gsd": 100}, "sensor": "sentinel-2-l2a", "outputs": {**_BARE}},
    ),
    # A strip along the line of two squares, another one along superblocks: more than 200 neighbors across each. Between
    # them, one along the line of two units.
    "strips": (
        PLACED,
        {
            "chips": {"layout": "utm", "size": 8},
            "placed": ("EPSG:32618", 405_560, 4_110_400, (1760, 1240)),
            "boxes": (
                (399_440, 4_101_600, 400_560, 4_119_200),
                (400_560, 4_110_560, 410_560, 4_111_680),
                (410_560, 4_101_600, 411_680, 4_119_200),
            ),
            "outputs": {**_BARE},
        },
    ),
    "few": (SHORE, {"chips": {"layout": "scene", "size": 40}, "outputs": {**_BARE}}),
    "float16": (SHORE, {"chips": {"layout": "scene", "size": 64}, "outputs": {**_BARE, "dtype": "float16"}}),
    "beside": (
        SHORE,
        {
            "chips": {"layout": "scene", "size": 64},
            "model": {"encoder": "clay", "precision": "float32"},
            "outputs": {**_BARE, "patches": True, "aggregate": [2], "thumbnails": 32, "loss": True},
        },
    ),
    "naip": (NAIP, {"chips": {"layout": "scene", "size": 64}, "sensor": "naip", "outputs": {**_BARE}}),
    "full": (SHORE, {"chips": {"layout": "scene", "size": 64}}),
    "coded": (SHORE, {"chips": {"layout": "scene", "size": 64}, "outputs": {"explorer": False}}),
    "composite": (
        MOROCCO,
        {
            "chips": {"layout": "utm", "size": 32, "gsd": 100},
            "sensor": "sentinel-2-l2a",
            "days": ["2020-02-19", "2020-03-05", "2020-04-20"],
            "composite": {"method": "median", "images": 2, "min_valid": 1},
            "outputs": {**_BARE, "aggregate": [2]},
        },
    ),
    "arrays": (
        SHORE,
        {
            "imagery": {"windows": ["2016-01-01/2016-02-01"]},
            "chips": {"layout": "utm", "size": 64},
            "model": {"encoder": "clay", "precision": "float32"},
            "outputs": {"arrays": True, "patches": {"format": "zarr"}, "explorer": False},
        },
    ),
}
"""Item, and what the spec of each kind of good release says beside it; `days` are dates that the item is copied to.

`placed` says where images of the sample are put down, and `boxes` which ground of them is asked for."""


class Broken:
    """A copy of a good release, and the tools to damage it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.release = Release(str(folder))
        self.codes_follow = True
        """Whether codes are made again from the vectors, so that a fault in these is the only one."""
        self.not_cloud_checked_follows = True
        """Whether the number of chips that were not checked for cloud is counted again, for the same reason."""
        self.reference_follows = True
        """Whether `reference.parquet` is made again from the rows, for the same reason."""
        self.json_items_follow = True
        """Whether `items/` is made again from the table of items."""

    @property
    def data(self) -> str:
        """Path of the first embeddings file."""
        return self.release.data_files()[0]

    @property
    def coverage(self) -> str:
        return self.release.data_files("coverage")[0]

    @property
    def patches(self) -> str:
        return self.release.data_files("patches")[0]

    @property
    def aggregates(self) -> str:
        return self.release.data_files("aggregates")[0]

    def table(self, path: str) -> pa.Table:
        return pq.read_table(self.folder / path, partitioning=None)

    def put(self, path: str, table: pa.Table) -> None:
        write_table(self.release.store, path, table)

    def change(self, path: str, edit: Callable[[pa.Table], pa.Table]) -> None:
        """Edit a table; its footer keys stay."""
        self.put(path, edit(self.table(path)))

    def column(self, name: str, edit: Callable[[list[Any]], list[Any]], path: str | None = None) -> None:
        """Edit the values of one column as Python values."""

        def replace(table: pa.Table) -> pa.Table:
            place = table.schema.get_field_index(name)
            field = table.schema.field(name)
            return table.set_column(place, field, pa.array(edit(table[name].to_pylist()), field.type))

        self.change(path or self.data, replace)

    def value(self, name: str, row: int, value: Any, path: str | None = None) -> None:
        """Set one value."""
        self.column(name, lambda values: [*values[:row], value, *values[row + 1 :]], path)

    def retype(self, name: str, kind: pa.DataType, path: str | None = None) -> None:
        """Cast one column to another type."""

        def replace(table: pa.Table) -> pa.Table:
            place = table.schema.get_field_index(name)
            field = table.schema.field(name).with_type(kind)
            return table.set_column(place, field, table[name].cast(kind))

        self.change(path or self.data, replace)

    def vectors(self, edit: Callable[[np.ndarray], np.ndarray], path: str | None = None) -> None:
        """Edit all vectors of a file, the first one unless another is named, as an (n, D) array."""

        def replace(table: pa.Table) -> pa.Table:
            field = table.schema.field("embedding")
            column = table["embedding"].combine_chunks()
            values = edit(column.values.to_numpy(zero_copy_only=False).reshape(len(table), -1).copy())
            made = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), type=field.type)
            return table.set_column(table.schema.get_field_index("embedding"), field, made)

        self.change(path or self.data, replace)

    def footprints(self, edit: Callable[[np.ndarray], np.ndarray], *, rest: bool = True) -> None:
        """Edit all footprints of the first file; with `rest`, bbox and the footer's bounds follow."""

        def replace(table: pa.Table) -> pa.Table:
            shapes = edit(shapely.from_wkb(table["geometry"].to_pylist()))
            names = table.schema.names
            table = table.set_column(
                names.index("geometry"), table.schema.field("geometry"), pa.array(list(shapely.to_wkb(shapes)))
            )
            if rest:
                table = table.set_column(names.index("bbox"), table.schema.field("bbox"), bbox_array(shapes))
            return table

        self.change(self.data, replace)
        if rest:
            self.rebound()

    def rebound(self) -> None:
        """Bounds in the footer, the items and the collection follow the column bbox."""
        every = []
        boxes = {}
        for path in self.release.data_files():
            table = self.table(path)
            own = np.array([list(box.values()) for box in table["bbox"].to_pylist()])
            every.append(own)
            boxes[path] = total_bbox(own)
            self.footer(path, "geo", lambda geo, b=boxes[path]: geo["columns"]["geometry"].update(bbox=b))
        by_href = {path: dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)) for path, box in boxes.items()}
        self.items(lambda item: item.update(bbox=by_href[item["assets"]["embeddings"]["href"]]))
        whole = total_bbox(np.concatenate(every))
        self.json("collection.json", lambda c: c["extent"]["spatial"].update(bbox=[whole]))

    def footer(self, path: str, key: str, edit: Callable[[dict[str, Any]], Any]) -> None:
        """Edit a footer key's JSON."""

        def replace(table: pa.Table) -> pa.Table:
            metadata = dict(table.schema.metadata)
            document = json.loads(metadata[key.encode()])
            edit(document)
            metadata[key.encode()] = json.dumps(document).encode()
            return table.replace_schema_metadata(metadata)

        self.change(path, replace)

    def json(self, path: str, edit: Callable[[dict[str, Any]], Any]) -> None:
        """Edit a JSON document."""
        document = json.loads((self.folder / path).read_text())
        edit(document)
        self.release.store.write(path, dump_json(document))

    def yaml(self, path: str, edit: Callable[[dict[str, Any]], Any]) -> None:
        """Edit a YAML document."""
        document = yaml.safe_load((self.folder / path).read_text())
        edit(document)
        (self.folder / path).write_text(yaml.safe_dump(document, sort_keys=False))

    def front(self, edit: Callable[[dict[str, Any]], Any]) -> None:
        """Edit the front matter of the card."""
        _, matter, body = (self.folder / "README.md").read_text().split("---\n", 2)
        document = yaml.safe_load(matter)
        edit(document)
        (self.folder / "README.md").write_text(f"---\n{yaml.safe_dump(document, sort_keys=False)}---\n{body}")

    def text(self, path: str, old: str, new: str) -> None:
        """Replace text that must be there."""
        text = (self.folder / path).read_text()
        assert old in text, f"{path} does not hold {old!r}"
        (self.folder / path).write_text(text.replace(old, new))

    def items(self, edit: Callable[[dict[str, Any]], Any]) -> None:
        """Edit each item of items.parquet."""

        def each(rows: Rows) -> Rows:
            for row in rows:
                edit(row)
            return rows

        self.change_items(each)

    def change_items(self, edit: Callable[[Rows], Rows]) -> None:
        """Edit the rows of items.parquet."""
        table = self.table("items.parquet")
        rows = edit(table.to_pylist())
        made = pa.Table.from_pylist(rows, schema=table.schema)
        pq.write_table(made, self.folder / "items.parquet", write_page_checksum=True)

    def sources(self, edit: Callable[[dict[str, Any]], Any]) -> None:
        """Edit each row of sources.parquet."""
        table = self.table("sources.parquet")
        rows = table.to_pylist()
        for row in rows:
            edit(row)
        self.put("sources.parquet", pa.Table.from_pylist(rows, schema=table.schema))

    def keep(self, rows: list[int], path: str | None = None) -> None:
        """Keep these rows of an embeddings file, and nothing else; counts stay as they were."""
        self.change(path or self.data, lambda table: table.take(pa.array(rows)))

    def rename(self, new: str) -> None:
        """Give the first embeddings file another name; its item follows."""
        (self.folder / self.data).rename(self.folder / new)
        self.items(lambda item: item["assets"]["embeddings"].update(href=new))

    def recount(self) -> None:
        """All documents count the rows that are there."""
        counts = {path: pq.read_metadata(self.folder / path).num_rows for path in self.release.data_files()}
        total = sum(counts.values())

        def item(row: dict[str, Any]) -> None:
            row["table:row_count"] = counts.get(row["assets"]["embeddings"]["href"], row["table:row_count"])

        self.items(item)
        before = json.loads((self.folder / "manifest.json").read_text())["run"]["coverage"]["embedded"]
        self.json("manifest.json", lambda m: m["run"]["coverage"].update(embedded=total))
        self.json("collection.json", lambda c: _recount_collection(c, total))
        self.front(lambda matter: _recount_card(matter, total))
        self.text("README.md", f"{before:,}", f"{total:,}")

    def tell(self) -> None:
        """All documents are written again from what the tables hold."""
        write_items(self.release)
        write_cards(self.release)
        write_collection(self.release)

    def settle(self) -> None:
        """Codes, reference vectors, sizes and checksums follow the bytes."""
        if self.reference_follows and (self.folder / "reference.parquet").exists():
            with suppress(*_DAMAGE):
                self._settle_reference()
        if self.codes_follow and (self.folder / "codes").exists():
            with suppress(*_DAMAGE):
                write_codes(self.release, self.release.fingerprint(), wanted=True)
        if self.not_cloud_checked_follows:
            with suppress(*_DAMAGE):
                self._settle_not_cloud_checked()
        if (self.folder / "items.parquet").exists():
            self._settle_items()
            if self.json_items_follow:
                with suppress(*_DAMAGE):
                    self._settle_json_items()
        if (self.folder / "collection.json").exists():
            self.json("collection.json", self._settle_assets)
        entries = []
        old = json.loads((self.folder / "manifest.json").read_text())
        for path in self.release.published_files():
            data = (self.folder / path).read_bytes()
            entry: dict[str, Any] = {"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            if path.endswith(".parquet"):
                entry["rows"] = pq.read_metadata(self.folder / path).num_rows
            entries.append(entry)
        (self.folder / "manifest.json").write_text(json.dumps({**old, "files": entries}, indent=2))
        (self.folder / "SHA256SUMS").write_text("".join(f"{e['sha256']}  {e['path']}\n" for e in entries))

    def _settle_json_items(self) -> None:
        write_json_items(self.release, None)
        links = [{"rel": "item", "href": f"./{path}", "type": JSON} for path in self.release.store.files("items")]
        known = [link["href"] for link in self.release.json("collection.json")["links"] if link["rel"] == "item"]
        if known == [link["href"] for link in links]:
            return
        others = [link for link in self.release.json("collection.json")["links"] if link["rel"] != "item"]
        self.json("collection.json", lambda c: c.update(links=others + links))

    def _settle_reference(self) -> None:
        tables = [self.table(path) for path in self.release.data_files()]
        count, rows = chips_per_file([len(table) for table in tables]), []
        dtype = self.release.fingerprint().dtype
        for table in tables:
            scales = table["scale"].to_pylist() if "scale" in table.column_names else [1] * len(table)
            places = {name: place for place, name in enumerate(table["id"].to_pylist())}
            for name in reference_chips(table["id"].to_pylist(), count):
                stored = np.array(table["embedding"][places[name]].as_py(), dtype=np.float32)
                vector = (stored * np.float32(scales[places[name]])).astype(np.float32)
                rows.append({"id": name, "embedding": vector, "tolerance": tolerance(vector[None], dtype)[0]})
        schema = reference_schema(len(rows[0]["embedding"]))
        made = pa.Table.from_pylist(sorted(rows, key=lambda row: row["id"]), schema=schema)
        if not made.equals(self.table("reference.parquet").replace_schema_metadata(None)):
            self.put("reference.parquet", made)

    def _settle_not_cloud_checked(self) -> None:
        """What collection and card say of chips without a share of cloud follows the rows."""
        coverage = json.loads((self.folder / "collection.json").read_text())["embrel:coverage"]
        if "not_cloud_checked" not in coverage:
            return
        footers = [pq.read_metadata(self.folder / path) for path in self.release.data_files()]
        count = sum(without_cloud_fraction(footer) for footer in footers)
        if count == coverage["not_cloud_checked"]:
            return
        self.json("collection.json", lambda c: c["embrel:coverage"].update(not_cloud_checked=count))
        card = self.folder / "README.md"
        card.write_text(re.sub(r"(\*\*Not cloud-checked\*\*: )[\d,]+", rf"\g<1>{count:,}", card.read_text()))

    def _settle_items(self) -> None:
        def size(item: dict[str, Any]) -> None:
            for asset in filter(None, (item.get("assets") or {}).values()):
                file = self.folder / asset.get("href", "-")
                if file.is_file():
                    asset["file:size"] = file.stat().st_size

        self.items(size)

    def _settle_assets(self, collection: dict[str, Any]) -> None:
        for asset in collection.get("assets", {}).values():
            file = self.folder / asset["href"]
            if file.is_file() and "file:size" in asset:
                data = file.read_bytes()
                asset["file:size"] = len(data)
                asset["file:checksum"] = f"1220{hashlib.sha256(data).hexdigest()}"


def _recount_collection(collection: dict[str, Any], total: int) -> None:
    collection["embrel:coverage"]["embedded"] = total
    if "table:row_count" in collection:
        collection["table:row_count"] = total


def _recount_card(matter: dict[str, Any], total: int) -> None:
    for info in matter["dataset_info"]:
        if info["config_name"] == "embeddings":
            info["splits"][0]["num_examples"] = total


def changed(vector: list[float]) -> list[float]:
    """Another vector of the same type."""
    if isinstance(vector[0], int):
        return [value // 2 for value in vector]
    return [1.01 * value + 0.001 for value in vector]


@dataclass(frozen=True)
class Mutation:
    """One way to break a release, and what has to be found."""

    name: str
    what: str
    """What is wrong, in words."""
    code: str
    """The rule that finds it."""
    also: frozenset[str]
    """Rules that may see the same fault from their side."""
    base: str
    """Which good release is broken: a key of `KINDS`."""
    settle: bool
    apply: Callable[[Broken], None]


MUTATIONS: list[Mutation] = []


def mutation(
    code: str, what: str, *, also: str = "", base: str = "small", settle: bool = True
) -> Callable[[Callable[[Broken], None]], Callable[[Broken], None]]:
    """Register a way to break a release."""

    def wrap(apply: Callable[[Broken], None]) -> Callable[[Broken], None]:
        MUTATIONS.append(Mutation(apply.__name__, what, code, frozenset(also.split()), base, settle, apply))
        return apply

    return wrap
