"""Single rows of the embeddings, read again where a rule wants to look closer."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clay_publish.errors import ReleaseError
from clay_publish.validate.data.chips import ChipRows

if TYPE_CHECKING:
    from clay_publish.validate.context import View


def value(view: "View", column: str, row: int) -> Any:
    """One value of an embeddings file, by its row in the release."""
    path, place = view.scan.facts.place(row)
    file = _opened(view, path)
    group = 0
    while place >= file.metadata.row_group(group).num_rows:
        place -= file.metadata.row_group(group).num_rows
        group += 1
    return _read(path, file, group, [column]).column(0)[place].as_py()


def _opened(view: "View", path: str) -> pq.ParquetFile:
    """The file, if its pages are no danger.

    Raises:
        ReleaseError: they are, or only a quick look was asked for.
    """
    if view.quick:
        raise ReleaseError(path, "would have to be read whole, which a quick look does not")
    view.cost_of(path)
    return view.release.parquet(path)


def _read(path: str, file: pq.ParquetFile, group: int, columns: list[str]) -> pa.Table:
    try:
        return file.read_row_group(group, columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise ReleaseError(path, f"cannot be read ({' '.join(str(error).split())})") from error


def vectors_of(view: "View", ids: set[str]) -> Iterator[tuple[str, str, npt.NDArray[np.float64]]]:
    """File, id and dequantized vector of the chips that have these ids; other rows' vectors are not decoded."""
    wanted = pa.array(sorted(ids), pa.string())
    for path in view.embeddings:
        file = _opened(view, path)
        columns = [name for name in ("embedding", "scale") if name in file.schema_arrow.names]
        for group in range(file.num_row_groups):
            mask = pc.is_in(_read(path, file, group, ["id"]).column(0), value_set=wanted)
            if not pc.any(mask).as_py():
                continue
            rows = _read(path, file, group, ["id", *columns]).filter(mask).combine_chunks()
            for batch in rows.to_batches():
                chips = ChipRows(path, 0, batch)
                for row in range(len(chips)):
                    yield path, chips.value("id", row), chips.values(np.array([row]))[0].astype(np.float64)


def vectors_at(view: "View", rows: npt.NDArray[np.int64]) -> Iterator[tuple[int, npt.NDArray[np.float64]]]:
    """Rows of the release, sorted, and their dequantized vectors; only the row groups that hold them are decoded."""
    for path, mine in view.scan.facts.slices().items():
        wanted = rows[(rows >= mine.start) & (rows < mine.stop)] - mine.start
        if not wanted.size:
            continue
        file = _opened(view, path)
        columns = [name for name in ("embedding", "scale") if name in file.schema_arrow.names]
        starts = np.cumsum([0, *(file.metadata.row_group(n).num_rows for n in range(file.num_row_groups))])
        group = np.searchsorted(starts, wanted, side="right") - 1
        for number in np.unique(group).tolist():
            places = wanted[group == number]
            taken = _read(path, file, number, columns).take(pa.array(places - starts[number])).combine_chunks()
            chips = ChipRows(path, 0, taken.to_batches()[0])
            vectors = chips.values(slice(None)).astype(np.float64)
            yield from zip((places + mine.start).tolist(), vectors, strict=True)


def some_vectors(view: "View", most: int) -> Iterator[tuple[str, str, npt.NDArray[np.float64]]]:
    """File, id and vector of some chips, spread over the files."""
    share = max(1, most // max(len(view.embeddings), 1))
    for path in view.embeddings[:most]:
        for batch in _opened(view, path).iter_batches(share):
            chips = ChipRows(path, 0, batch)
            for row in range(len(chips)):
                yield path, chips.value("id", row), chips.values(np.array([row]))[0].astype(np.float64)
            break
