"""The pixel grids of the images that a release in the `scene` layout is cut from."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clay_publish.release.directory import SOURCES, Release
from clay_publish.release.names import NameIndex, first_names

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class SceneGrids:
    """The grids that `sources.parquet` states, as columns: a release may have millions of images."""

    def __init__(self, release: Release) -> None:
        """Read them.

        Raises:
            ReleaseError: `sources.parquet` cannot be read.
        """
        names, crs, numbers = [pa.array([], pa.large_string())], [pa.array([], pa.string())], [np.zeros((0, 6))]
        used, columns = [np.zeros(0, bool)], ["id", "status", "proj_code", "proj_transform"]
        for batch in release.parquet(SOURCES).iter_batches(columns=columns):
            # `filter` leaves out where the condition is null, too.
            known = batch.filter(
                pc.and_(pc.is_valid(batch["proj_code"]), pc.equal(pc.list_value_length(batch["proj_transform"]), 6))
            )
            names.append(known["id"].cast(pa.large_string()))
            crs.append(known["proj_code"].cast(pa.string()))
            numbers.append(np.asarray(known["proj_transform"].flatten(), np.float64).reshape(-1, 6))
            used.append(pc.equal(known["status"], "used").to_numpy(zero_copy_only=False))
        first = np.argsort(~np.concatenate(used), kind="stable")  # of an id with several rows, the used one counts
        self._index = NameIndex(pa.concat_arrays(names).take(pa.array(first)))
        coded = pa.concat_arrays(crs).take(pa.array(first)).dictionary_encode()
        self._crs: list[str] = coded.dictionary.to_pylist()
        self._codes: npt.NDArray[np.int32] = coded.indices.to_numpy()
        self._transforms = np.concatenate(numbers)[first]

    def points(
        self, rows: pa.RecordBatch | pa.Table, u: Floats, v: Floats
    ) -> Iterator[tuple[str, Ints, Floats, Floats]]:
        """Points of chips in the reference systems of their images.

        Args:
            rows: N chips with their `item_ids`, of which the first is the image.
            u: [N, …] columns of pixels in the image, from its left edge.
            v: [N, …] rows of pixels, from its upper edge.

        Yields:
            for each reference system its code, which M of the rows have it, and [M, …] x and y of their points. Rows
            of images without a known grid are not among them.
        """
        lists = rows["item_ids"]
        lists = lists.combine_chunks() if isinstance(lists, pa.ChunkedArray) else lists
        places = self._index.find(first_names(lists))
        codes = np.append(self._codes, np.int32(-1))[places]
        for code in np.unique(codes[codes >= 0]).tolist():
            mine = np.flatnonzero(codes == code)
            shape = (len(mine), *[1] * (u.ndim - 1))
            a, b, c, d, e, f = (self._transforms[places[mine], n].reshape(shape) for n in range(6))
            yield self._crs[code], mine, a * u[mine] + b * v[mine] + c, d * u[mine] + e * v[mine] + f
