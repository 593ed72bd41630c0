"""Where the files of a release will be found once it is published."""

import re

import pyarrow as pa
import pyarrow.compute as pc

from clay_publish.errors import ReleaseError
from clay_publish.release import directory as paths
from clay_publish.release.array_store import STORE
from clay_publish.release.directory import DataFile
from clay_publish.spec.models import Spec
from clay_publish.storage.store import Store

_DATA = re.compile(
    rf"(?:^|/)((?:{paths.EMBEDDINGS}|{paths.PATCHES}|{paths.AGGREGATES}/\d+x\d+)/zone=\d\d/[^/\\]+\.parquet)$"
)


_ARRAYS = re.compile(rf"(?:^|/)({STORE}/utm\d\d)$")


def rebase(store: Store, items: pa.Table) -> pa.Table:
    """Let addresses lead to where the release was opened, wherever it was made for."""
    assets = items["assets"].combine_chunks()
    for key in [assets.type.field(i).name for i in range(assets.type.num_fields)]:
        asset = assets.field(key)
        inside = _arrays_path if key == "arrays" else data_path
        hrefs = [store.path(inside(h)) if h is not None else None for h in pc.struct_field(asset, "href").to_pylist()]
        assets = _with_field(assets, key, _with_field(asset, "href", pa.array(hrefs, pa.string())))
    links = items["links"].to_pylist() if "links" in items.column_names else None
    table = items.set_column(items.column_names.index("assets"), "assets", assets)
    if links is None:
        return table
    ours = {paths.COLLECTION, paths.SOURCES}
    for link in (link for row in links for link in row):
        name = link["href"].rpartition("/")[2]
        if name in ours and link["rel"] in {"root", "parent", "collection", "emb:source-data"}:
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
        raise ReleaseError(repr(href[:200]), "is not a data file of this release", f"…/{paths.EMBEDDINGS}/zone=…")
    path = found[1]
    DataFile.parse(path)
    return path


def _arrays_path(href: str) -> str:
    found = _ARRAYS.search(href)
    if found is None or not href.isprintable():
        raise ReleaseError(repr(href[:200]), "is not a group of arrays of this release", f"…/{STORE}/utmZZ")
    return found[1]


def embeddings_path(href: str) -> str:
    """Path of an embeddings file below its release, from any address of it.

    Raises:
        ReleaseError: the address is of something else.
    """
    path = data_path(href)
    if not path.startswith(f"{paths.EMBEDDINGS}/"):
        raise ReleaseError(repr(href[:200]), "is not an embeddings file", f"…/{paths.EMBEDDINGS}/zone=…")
    return path


def _with_field(rows: pa.StructArray, name: str, values: pa.Array) -> pa.StructArray:
    fields = [rows.type.field(i) for i in range(rows.type.num_fields)]
    arrays = [values if field.name == name else rows.field(field.name) for field in fields]
    return pa.StructArray.from_arrays(arrays, fields=fields, mask=rows.is_null() if rows.null_count else None)


SOURCE_COOP = "source-coop"
HUGGING_FACE = "hugging-face"


def release_address(spec: Spec) -> str | None:
    """Address of this version's root, without a slash at the end; None where the spec names none."""
    base = spec.publish.base_url
    return f"{base.rstrip('/')}/{spec.version}" if base else None


def source_coop_address(spec: Spec) -> str | None:
    """Address of this version's root on source.coop; None where it does not go there."""
    product = spec.publish.source_coop
    return f"https://data.source.coop/{product}/{spec.version}" if product else None


def alternate_addresses(spec: Spec) -> dict[str, str]:
    """Host → address of this version's root there, for hosts other than the one of `release_address`."""
    hosts = {}
    if (product := source_coop_address(spec)) is not None:
        hosts[SOURCE_COOP] = product
    if spec.publish.hugging_face:
        # On the Hub the repository's root is the version, and `v` with its number a tag.
        hosts[HUGGING_FACE] = f"https://huggingface.co/datasets/{spec.publish.hugging_face}/resolve/v{spec.version}"
    primary = release_address(spec)
    if primary is None:
        return {}
    return {name: address for name, address in hosts.items() if _host(address) != _host(primary)}


def _host(address: str) -> str:
    return address.split("/")[2]
