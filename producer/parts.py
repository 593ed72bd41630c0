"""What units leave in `.run/`: parts, and the receipt that says a unit is done."""

import hashlib
import io
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from clay_publish import release as paths
from clay_publish.errors import ReleaseError
from clay_publish.manifest import dump_json, sha256
from clay_publish.receipts import RECEIPTS, PartEntry, Receipt
from clay_publish.release import DataFile, Release

_AT_ONCE = 8
PARTS = f"{paths.RUN}/parts"
COVERAGE = "coverage"
"""Name of a unit's part that holds its coverage rows."""
PATCHES_PREFIX = "patches_"
"""How the name of a part begins that holds patches."""


def part_path(unit: str, token: str) -> str:
    """Where a part lies: by published file, so that all parts of a file lie together."""
    return f"{PARTS}/{token}/{unit}.arrow"


def write_part(release: Release, unit: str, token: str, tables: Iterable[pa.Table]) -> PartEntry:
    """Write rows as an Arrow file; it appears complete or not at all."""
    table = pa.concat_tables(tables).combine_chunks()
    buffer = io.BytesIO()
    with pa.ipc.new_file(buffer, table.schema) as writer:
        writer.write_table(table)
    data = buffer.getbuffer()
    digest = hashlib.sha256(data).hexdigest()
    release.store.write(part_path(unit, token), bytes(data))
    return PartEntry(sha256=digest, rows=table.num_rows)


def read_part(release: Release, receipt: Receipt, token: str) -> pa.Table:
    """Rows of a part, memory-mapped; what lies on a server is fetched to this machine's disk first.

    Raises:
        ReleaseError: it is not what the receipt says.
    """
    path = part_path(receipt.unit, token)
    entry = receipt.parts[token]
    buffer = release.store.mapped(path).read_buffer()
    if hashlib.sha256(memoryview(buffer)).hexdigest() != entry.sha256:
        raise ReleaseError(
            release.store.path(path),
            "is damaged",
            f"SHA-256 {entry.sha256}",
            "Run it again; what is damaged is made anew.",
        )
    return pa.ipc.open_file(buffer).read_all()


def read_parts(release: Release, receipts: Iterable[Receipt], token: str) -> list[pa.Table]:
    """The parts of this name of those units that have one, in their order; errors as `read_part`."""
    mine = [receipt for receipt in receipts if token in receipt.parts]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(lambda receipt: read_part(release, receipt, token), mine))


def remove_all(release: Release, files: Iterable[str]) -> None:
    """Remove files, a few at a time: on a server most of the time is spent waiting."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(release.store.remove, files))


def part_is_whole(release: Release, receipt: Receipt, token: str) -> bool:
    """Whether a part that is there holds what its receipt says.

    A server has compared what it took, and to ask again would be to fetch it all: `read_part` compares it once more.
    """
    if not release.store.local:
        return True
    return sha256(release.store, part_path(receipt.unit, token)) == receipt.parts[token].sha256


def file_of(token: str) -> DataFile | None:
    """The published file whose rows a part holds; None for the other parts of a unit."""
    try:
        return DataFile.parse(f"zone={token[:2]}/{token}.parquet")
    except ReleaseError:
        return None


def standing(release: Release) -> frozenset[str]:
    """Paths of all parts and published files, listed at once: to ask a server for each would take hours."""
    return frozenset(
        path for folder in (PARTS, paths.EMBEDDINGS, paths.PATCHES) for path in release.store.files(folder)
    )


def is_there(release: Release, receipt: Receipt, there: Collection[str]) -> bool:
    """Whether all that a receipt speaks of is among these files: as a part, undamaged, or in its published file."""
    for token in receipt.parts:
        if part_path(receipt.unit, token) in there:
            if not part_is_whole(release, receipt, token):
                return False
        elif _published(token) not in there:
            return False
    return True


def _published(token: str) -> str | None:
    folder = paths.PATCHES if token.startswith(PATCHES_PREFIX) else paths.EMBEDDINGS
    file = file_of(token.removeprefix(PATCHES_PREFIX))
    return None if file is None else f"{folder}/{file.name}"


def write_receipt(release: Release, receipt: Receipt) -> Receipt:
    """From now on the unit is done. Of several that did it the first is believed; its receipt is given back.

    Unless that one failed, or speaks of parts that are no more, or of other ones.
    """
    path, data = f"{RECEIPTS}/{receipt.unit}.json", dump_json(receipt.model_dump(mode="json")).encode()
    while not release.store.create(path, data):
        found = release.store.read_tagged(path)
        if found is None:
            continue
        there = Receipt.model_validate_json(found[0])
        if _stays(release, there, receipt):
            return there
        if release.store.put(path, data, found[1]) is not None:
            break
    return receipt


def _stays(release: Release, there: Receipt, other: Receipt) -> bool:
    """Whether a receipt that is there is as good as another of the same unit."""
    if there.error is not None:
        return False
    return there.parts == other.parts if other.error is None else is_there(release, there, standing(release))
