"""Where the files of a release are, whatever its items say they were made for."""

import re

import pyarrow as pa
import pyarrow.compute as pc

from clay_publish import release as paths
from clay_publish.errors import ReleaseError
from clay_publish.release import DataFile
from clay_publish.store import Store

_DATA = re.compile(
    rf"(?:^|/)((?:{paths.EMBEDDINGS}|{paths.PATCHES}|{paths.AGGREGATES}/\d+x\d+)/zone=\d\d/[^/\\]+\.parquet)$"
)


def rebase(store: Store, items: pa.Table) -> pa.Table:
    """Let addresses lead to where the release was opened, wherever it was made for."""
    assets = items["assets"].combine_chunks()
    for key in [assets.type.field(i).name for i in range(assets.type.num_fields)]:
        asset = assets.field(key)
        hrefs = [
            store.path(data_path(h)) if h is not None else None for h in pc.struct_field(asset, "href").to_pylist()
        ]
        assets = _with_field(assets, key, _with_field(asset, "href", pa.array(hrefs, pa.string())))
    links = items["links"].to_pylist() if "links" in items.column_names else None
    table = items.set_column(items.column_names.index("assets"), "assets", assets)
    if links is None:
        return table
    ours = {paths.COLLECTION, paths.SOURCES}
    for link in (link for row in links for link in row):
        name = link["href"].rpartition("/")[2]
        if name in ours and link["rel"] in {"collection", "emb:source-data"}:
            link["href"] = store.path(name)
    kind = items.schema.field("links").type
    return table.set_column(items.column_names.index("links"), "links", pa.array(links, kind))


def data_path(href: str) -> str:
    """Path of a file of a partitioned table below its release, from any address of it.

    Raises:
        ReleaseError: the address is of nothing of that kind.
    """
    found = _DATA.search(href)
    if found is None or not href.isprintable():
        raise ReleaseError(repr(href[:200]), "is no data file of this release", f"…/{paths.EMBEDDINGS}/zone=…")
    path = found[1]
    DataFile.parse(path)
    return path


def embeddings_path(href: str) -> str:
    """Path of an embeddings file below its release, from any address of it.

    Raises:
        ReleaseError: the address is of something else.
    """
    path = data_path(href)
    if not path.startswith(f"{paths.EMBEDDINGS}/"):
        raise ReleaseError(repr(href[:200]), "is no embeddings file", f"…/{paths.EMBEDDINGS}/zone=…")
    return path


def _with_field(rows: pa.StructArray, name: str, values: pa.Array) -> pa.StructArray:
    fields = [rows.type.field(i) for i in range(rows.type.num_fields)]
    arrays = [values if field.name == name else rows.field(field.name) for field in fields]
    return pa.StructArray.from_arrays(arrays, fields=fields, mask=rows.is_null() if rows.null_count else None)
