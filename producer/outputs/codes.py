"""Compact codes of the published embeddings, for similarity search, and how well they find neighbors."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clay_publish.release import directory as paths
from clay_publish.release.directory import Release
from clay_publish.release.fingerprint import Fingerprint
from clay_publish.release.manifest import dump_json
from clay_publish.search.code_files import BATCH, code_columns, code_files, code_schema
from clay_publish.search.codes import Encoding
from clay_publish.search.row_groups import Vectors, read, vectors

_COMPARED = 20_000
"""Chips that recall is measured on, at most."""
_QUERIES = 100
_TOP = 10
CANDIDATES = 100
"""Best codes whose vectors are compared."""


def write_codes(release: Release, fingerprint: Fingerprint, *, wanted: bool) -> None:
    """Write `codes/`, one file per zone and window and `model.json`; remove files that an earlier spec left there."""
    written = set()
    files = release.data_files()
    if wanted and files:
        encoding = Encoding.of(fingerprint.dimensions)
        for path, members in code_files(files).items():
            _write(release, path, members, encoding)
            written.add(path)
        described = {
            **encoding.document(),
            "bytes_per_chip": encoding.bytes_per_chip,
            "fingerprint": fingerprint.digest,
            "recall": measure_recall(_spread(release, files), encoding),
        }
        release.store.write(paths.CODES_MODEL, dump_json(described))
        written.add(paths.CODES_MODEL)
    for path in release.store.files(paths.CODES):
        if path not in written:
            release.store.remove(path)


def _write(release: Release, path: str, files: Sequence[str], encoding: Encoding) -> None:
    reach = max((_reach(release, file) for file in files), default=(0.0, 0.0))
    schema = code_schema(encoding, files, reach)
    with release.store.writer(path) as file, pa.ipc.new_file(file, schema) as writer:
        waiting: list[pa.Table] = []
        for rows in _rows(release, files, encoding, schema):
            waiting.append(rows)
            if sum(one.num_rows for one in waiting) >= BATCH:
                whole = pa.concat_tables(waiting).combine_chunks()
                full = whole.num_rows // BATCH * BATCH
                writer.write_table(whole.slice(0, full), max_chunksize=BATCH)
                waiting = [whole.slice(full)]
        writer.write_table(pa.concat_tables(waiting).combine_chunks(), max_chunksize=BATCH)


def _reach(release: Release, path: str) -> tuple[float, float]:
    """Return degrees of longitude and latitude from a center to the bounds of its chip, at most."""
    table = release.parquet(path).read(columns=["lon", "lat", "bbox"])
    bbox = table["bbox"].combine_chunks()
    lon, lat = table["lon"].to_numpy(), table["lat"].to_numpy()
    sides = [np.mod(np.abs(bbox.field(side).to_numpy() - lon), 360) for side in ("xmin", "xmax")]
    east = max(float(np.minimum(side, 360 - side).max()) for side in sides)
    north = max(float(np.abs(bbox.field(side).to_numpy() - lat).max()) for side in ("ymin", "ymax"))
    return round(east + 1e-4, 6), round(north + 1e-4, 6)  # lon and lat are rounded to float32


def _rows(release: Release, files: Sequence[str], encoding: Encoding, schema: pa.Schema) -> Iterator[pa.Table]:
    for number, path in enumerate(files):
        opened, start = release.parquet(path), 0
        names = [name for name in ("embedding", "scale", "lon", "lat") if name in opened.schema_arrow.names]
        for group in range(opened.num_row_groups):
            table = read(opened, [group], names, release.store.path(path))
            count = table.num_rows
            place = [
                *(table[name].to_numpy().astype(np.float32) for name in ("lon", "lat")),
                np.full(count, number, np.int32),
                np.arange(start, start + count, dtype=np.int32),
            ]
            columns = [*code_columns(encoding.encode(vectors(table))), *map(pa.array, place)]
            yield pa.Table.from_arrays(columns, schema=schema)
            start += count


def _spread(release: Release, files: Sequence[str]) -> Vectors:
    """Return vectors of at most `_COMPARED` chips: whole row groups, spread evenly over the release."""
    groups = []
    for path in files:
        metadata = release.parquet(path).metadata
        groups += [(path, group, metadata.row_group(group).num_rows) for group in range(metadata.num_row_groups)]
    step = max(1, -(-sum(count for _, _, count in groups) // _COMPARED))
    parts, total = [], 0
    for path, group, _ in groups[:: min(step, len(groups))]:
        opened = release.parquet(path)
        names = [name for name in ("embedding", "scale") if name in opened.schema_arrow.names]
        parts.append(vectors(read(opened, [group], names, release.store.path(path)))[: _COMPARED - total])
        total += len(parts[-1])
        if total >= _COMPARED:
            break
    return np.concatenate(parts)


def measure_recall(values: Vectors, encoding: Encoding) -> dict[str, Any] | None:
    """Return the share of the 10 nearest neighbors by cosine that codes find.

    Args:
        values: [n, dimensions]; up to 100 of them are queries, each compared with all others.
        encoding: of the codes.

    Returns:
        `codes`: recall of the 10 best codes; `reranked`: of the 10 best vectors among the 100 best codes; None for
        11 chips or fewer, where nothing is left to find.
    """
    values = values[np.isfinite(values).all(axis=1)]
    if len(values) <= _TOP + 1:
        return None
    asked = np.unique(np.linspace(0, len(values) - 1, min(_QUERIES, len(values))).astype(np.int64))
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    unit = values / np.where(lengths > 0, lengths, 1)
    codes, query = encoding.encode(values), encoding.query(values[asked])
    exact = unit[asked].astype(np.float64) @ unit.T.astype(np.float64)
    # As `Query.cosines`, whose tables of every pattern pay for many more chips than are compared here.
    guess = query.directions.astype(np.float64) @ encoding.decode(codes).T.astype(np.float64)
    for similarity in (exact, guess):
        similarity[np.arange(len(asked)), asked] = -np.inf
    least = np.sort(exact, axis=1)[:, -_TOP] - 1e-12  # equal neighbors count the same
    return {
        "k": _TOP,
        "queries": len(asked),
        "chips": len(values),
        "codes": _found(exact, guess, least, _TOP),
        "candidates": CANDIDATES,
        "reranked": _found(exact, guess, least, min(CANDIDATES, len(values) - 1)),
    }


def _found(
    exact: npt.NDArray[np.float64], guess: npt.NDArray[np.float64], least: npt.NDArray[np.float64], count: int
) -> float:
    chosen = np.argpartition(-guess, count - 1, axis=1)[:, :count]
    hits = (np.take_along_axis(exact, chosen, axis=1) >= least[:, None]).sum(axis=1)
    return round(float(np.minimum(hits, _TOP).mean() / _TOP), 3)
