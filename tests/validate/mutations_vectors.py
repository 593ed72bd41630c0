"""Ways to break vectors."""

import numpy as np
import pyarrow as pa
from breakage import Broken, mutation

# Vectors


@mutation("VEC001", "a NaN in one vector", also="VEC014")
def nan_in_a_vector(broken: Broken) -> None:
    broken.vectors(lambda v: _set(v, (3, 7), np.nan))


@mutation("VEC001", "an infinite value in one vector", also="VEC014")
def infinity_in_a_vector(broken: Broken) -> None:
    broken.vectors(lambda v: _set(v, (5, 0), -np.inf))


@mutation("VEC002", "zeros where there was no data")
def zeros_as_nodata(broken: Broken) -> None:
    broken.vectors(lambda v: _set(v, 4, 0))


@mutation("VEC003", "one vector has the same value everywhere", also="VEC012")
def a_constant_vector(broken: Broken) -> None:
    broken.vectors(lambda v: _set(v, 4, v[4].mean()))


@mutation("VEC007", "two chips share one vector")
def a_repeated_vector(broken: Broken) -> None:
    broken.vectors(lambda v: _set(v, 9, v[30]))
    if "scale" in broken.table(broken.data).column_names:  # with integers, half of the vector
        broken.column("scale", lambda scales: [*scales[:9], scales[30], *scales[10:]])


@mutation("VEC010", "the model has collapsed: all vectors nearly alike", also="VEC007 VEC011 VEC012")
def collapsed_vectors(broken: Broken) -> None:
    def alike(vectors: np.ndarray) -> np.ndarray:
        if vectors.dtype == np.int8:  # lengths differ by the scales
            return np.repeat(vectors[:1], len(vectors), axis=0)
        return (vectors[:1] * (1 + 1e-4 * np.arange(len(vectors))[:, None])).astype(vectors.dtype)

    broken.vectors(alike)


@mutation("VEC011", "half of the dimensions never vary")
def dead_dimensions(broken: Broken) -> None:
    broken.vectors(lambda v: _set(v, (slice(None), slice(0, None, 2)), 0.25))


@mutation("VEC012", "one vector is a thousand times as long as the others", also="VEC010")
def an_outlying_norm(broken: Broken) -> None:
    if "scale" in broken.table(broken.data).column_names:
        broken.column("scale", lambda scales: [*scales[:8], 1000 * scales[8], *scales[9:]])
    else:
        broken.vectors(lambda v: _set(v, 8, v[8] * 1000))


@mutation("VEC013", "a batch of 256 chips is shifted against its neighbors", base="large")
def a_shifted_batch(broken: Broken) -> None:
    broken.vectors(lambda v: _set(v, slice(640, 896), v[640:896] + 4 * v.std(axis=0)))


@mutation("VEC013", "a batch of 100 chips of a small file is shifted, references too", base="few")
def a_shifted_batch_of_a_small_file(broken: Broken) -> None:
    broken.vectors(lambda v: _set(v, slice(180, 280), v[180:280] + 2 * v.std(axis=0)))


@mutation("VEC013", "a batch of 512 chips is scaled, references too", base="large")
def a_scaled_batch(broken: Broken) -> None:
    broken.vectors(lambda v: _set(v, slice(1000, 1512), 1.5 * v[1000:1512]))


@mutation("VEC004", "int8 vectors are clipped", base="int8", also="VEC014")
def clipped_integers(broken: Broken) -> None:
    broken.vectors(lambda v: np.clip(v.astype(np.int16) * 4, -127, 127).astype(np.int8))


@mutation("VEC005", "the scale of one vector is 0", base="int8", also="VEC002 VEC014")
def a_scale_of_zero(broken: Broken) -> None:
    broken.value("scale", 6, 0.0)


@mutation("VEC014", "scales are inverted: the reference vectors do not come out", base="int8", also="VEC012")
def inverted_scales(broken: Broken) -> None:
    broken.reference_follows = False
    broken.column("scale", lambda scales: [1 / s for s in scales])


@mutation("VEC014", "vectors are those of the rows before: they no longer belong to their ids")
def vectors_of_other_rows(broken: Broken) -> None:
    broken.reference_follows = False
    broken.vectors(lambda v: np.roll(v, 1, axis=0))


@mutation("VEC014", "rows are shuffled under their ids")
def shuffled_vectors(broken: Broken) -> None:
    broken.reference_follows = False
    broken.vectors(lambda v: v[np.random.default_rng(5).permutation(len(v))])


@mutation("VEC014", "dimensions are stored in another order")
def permuted_dimensions(broken: Broken) -> None:
    broken.reference_follows = False
    broken.vectors(lambda v: v[:, np.random.default_rng(5).permutation(v.shape[1])])


@mutation("VEC014", "every vector has the other sign")
def flipped_signs(broken: Broken) -> None:
    broken.reference_follows = False
    broken.vectors(lambda v: -v)


@mutation("VEC014", "every vector has noise of a hundredth of its size")
def noisy_vectors(broken: Broken) -> None:
    broken.reference_follows = False
    noise = np.random.default_rng(5)
    broken.vectors(lambda v: (v + 0.01 * v.std() * noise.standard_normal(v.shape)).astype(v.dtype))


@mutation("VEC014", "half of the rows are of another model")
def half_of_another_model(broken: Broken) -> None:
    broken.reference_follows = False
    broken.vectors(lambda v: np.concatenate([v[: len(v) // 2], v[len(v) // 2 :, ::-1]]))


@mutation("VEC014", "the vectors of two files are swapped", base="morocco", also="VEC GEO COV")
def swapped_files(broken: Broken) -> None:
    broken.reference_follows = False
    first, second = sorted(broken.release.data_files(), key=lambda path: len(broken.table(path)))[-2:]
    mine, other = (_values(broken, path) for path in (first, second))
    broken.vectors(lambda v: np.resize(other, v.shape), first)
    broken.vectors(lambda v: np.resize(mine, v.shape), second)


def _values(broken: Broken, path: str) -> np.ndarray:
    table = broken.table(path)
    return table["embedding"].combine_chunks().values.to_numpy(zero_copy_only=False).reshape(len(table), -1)


@mutation("VEC014", "vectors are one part in 2,000 too long")
def vectors_slightly_off(broken: Broken) -> None:
    broken.reference_follows = False
    broken.vectors(lambda v: v * np.float32(1.0005))


@mutation("VEC014", "a release without its reference vectors", also="INT010 STC")
def no_reference_vectors(broken: Broken) -> None:
    (broken.folder / "reference.parquet").unlink()
    broken.json("collection.json", lambda c: _drop_asset(c, "reference.parquet"))


@mutation("VEC014", "reference vectors state a tolerance that never binds", base="float16")
def a_wide_tolerance(broken: Broken) -> None:
    broken.reference_follows = False
    broken.column("tolerance", lambda values: [1000 * v for v in values], "reference.parquet")


@mutation("VEC014", "reference vectors of hand-picked chips")
def chosen_reference_chips(broken: Broken) -> None:
    broken.reference_follows = False
    ids = broken.table("reference.parquet")["id"].to_pylist()
    other = next(name for name in broken.table(broken.data)["id"].to_pylist() if name not in ids)
    broken.value("id", 0, other, "reference.parquet")


@mutation("VEC019", "every other reference vector is left out", also="PRV022")
def few_reference_vectors(broken: Broken) -> None:
    broken.reference_follows = False
    broken.change("reference.parquet", lambda table: table.take(pa.array(range(0, len(table), 2))))


@mutation("VEC023", "vectors and references that no imagery gives")
def invented_vectors(broken: Broken) -> None:
    broken.vectors(lambda v: v[:, np.random.default_rng(5).permutation(v.shape[1])])


@mutation("VEC023", "vectors and references are twice as long as the model gives")
def vectors_twice_as_long(broken: Broken) -> None:
    broken.vectors(lambda v: 2 * v)


@mutation("VEC024", "rows and references are shuffled alike", base="large", also="VEC013")
def shuffled_with_references(broken: Broken) -> None:
    broken.vectors(lambda v: v[np.random.default_rng(5).permutation(len(v))])


@mutation("VEC024", "vectors are a row late, references too", base="large")
def a_row_late_with_references(broken: Broken) -> None:
    broken.vectors(lambda v: np.roll(v, 1, axis=0))


@mutation("VEC024", "the vectors of a file are in reverse order, references too", base="large", also="VEC013")
def reversed_with_references(broken: Broken) -> None:
    broken.vectors(lambda v: v[::-1].copy())


@mutation("VEC024", "512 vectors of a file are a row late, references too", base="large")
def a_batch_a_row_late(broken: Broken) -> None:
    broken.vectors(lambda v: np.concatenate([v[:640], np.roll(v[640:1152], 1, axis=0), v[1152:]]))


def _largest(broken: Broken) -> str:
    return max(broken.release.data_files(), key=lambda path: len(broken.table(path)))


def _superblocks(broken: Broken, path: str) -> np.ndarray:
    """Row and column of the superblock of each chip of the base `strips`, from the corner of their square."""
    corner = {"row": 51_250, "col": 5_000}
    return np.array([(broken.table(path)[name].to_numpy() - first) // 139 for name, first in corner.items()])


@mutation("VEC025", "a file is of another model, references too", base="strips")
def a_file_of_another_model(broken: Broken) -> None:
    broken.vectors(lambda v: v[:, ::-1].copy(), _largest(broken))


@mutation("VEC025", "a file is of bands that were normalized otherwise, references too", base="strips")
def a_file_normalized_otherwise(broken: Broken) -> None:
    broken.vectors(lambda v: (1.1 * v + 0.2 * v.std(axis=0)).astype(v.dtype), _largest(broken))


@mutation("VEC025", "the offset of the imagery is missing in a superblock, references too", base="strips")
def a_shifted_superblock(broken: Broken) -> None:
    down, right = _superblocks(broken, _largest(broken))
    mine = (down == 1) & (right == 1)
    broken.vectors(lambda v: (v + 0.5 * mine[:, None] * v.std(axis=0)).astype(v.dtype), _largest(broken))


@mutation("VEC025", "the offset of the imagery is missing in one unit of a file, references too", base="strips")
def a_shifted_unit(broken: Broken) -> None:
    down, _ = _superblocks(broken, _largest(broken))
    mine = down == 1  # a unit of chips this small is a row of superblocks
    broken.vectors(lambda v: (v + 0.5 * mine[:, None] * v.std(axis=0)).astype(v.dtype), _largest(broken))


@mutation("VEC025", "every other superblock is scaled, references too", base="strips")
def scaled_superblocks(broken: Broken) -> None:
    down, right = _superblocks(broken, _largest(broken))
    factor = np.where((down + right) % 2, 1.2, 1)[:, None]
    broken.vectors(lambda v: (v * factor).astype(v.dtype), _largest(broken))


@mutation("VEC015", "vectors moved since the version before, with the same fingerprint", base="next", also="VEC012")
def drift_since_last_version(broken: Broken) -> None:
    broken.vectors(lambda v: np.roll(v, 3, axis=1))


@mutation("VEC006", "valid_fraction in percent", also="")
def a_percentage_for_a_share(broken: Broken) -> None:
    broken.column("valid_fraction", lambda values: [100 * v for v in values])


@mutation("VEC006", "a negative loss", also="SCH018")
def a_negative_loss(broken: Broken) -> None:
    broken.value("loss", 0, -1.0)


# Places


def _set(array: np.ndarray, place: object, value: object) -> np.ndarray:
    array = array.copy()
    array[place] = value
    return array


def _drop_asset(collection: dict, path: str) -> None:
    for key, asset in list(collection["assets"].items()):
        if asset["href"].removeprefix("./") == path:
            del collection["assets"][key]
