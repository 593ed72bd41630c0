"""Ways to break the arrays, and stores of others."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from breakage import Broken, mutation

STORE = "arrays/arrays.zarr"
ZONE = "utm18"


def _array(broken: Broken, name: str) -> Any:
    return zarr.open_array(broken.folder / STORE / ZONE / name, mode="r+")


def _corner(broken: Broken, array: str = "scales") -> tuple[int, int, int]:
    """The first pixel of the first shard that has a vector."""
    stored = _array(broken, array)
    file = min((broken.folder / STORE / ZONE / array / "c").rglob("[0-9]*/[0-9]*/[0-9]*"))
    time, y, x = (int(part) for part in file.parts[-3:])
    side = stored.shards[1]
    block = stored[time, y * side : (y + 1) * side, x * side : (x + 1) * side]
    down, right = np.argwhere(np.isfinite(block))[0]
    return time, y * side + int(down), x * side + int(right)


def _attributes(broken: Broken, group: str, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Edit the attributes of a group, and every copy of them in the groups above."""
    root = broken.folder / STORE
    parts = group.split("/") if group else []
    for depth in range(len(parts) + 1):
        path = root.joinpath(*parts[:depth], "zarr.json")
        document = json.loads(path.read_text())
        below = "/".join(parts[depth:])
        edit((document["consolidated_metadata"]["metadata"][below] if below else document)["attributes"])
        path.write_text(json.dumps(document))


@mutation("ARR001", "arrays that release.yaml asks for and that are missing", also="STC009", base="arrays")
def no_arrays(broken: Broken) -> None:
    shutil.rmtree(broken.folder / "arrays")


@mutation("ARR001", "arrays that release.yaml does not ask for", also="STC001 ARR003", base="arrays")
def arrays_that_are_not_asked_for(broken: Broken) -> None:
    broken.yaml("release.yaml", lambda spec: spec["outputs"].update(arrays=False, patches=False))


@mutation("ARR001", "arrays of a zone that the release does not have", also="ARR002 ARR003 ARR005", base="arrays")
def arrays_of_another_zone(broken: Broken) -> None:
    (broken.folder / STORE / ZONE).rename(broken.folder / STORE / "utm19")


@mutation("ARR002", "arrays that do not say of which model they are", also="ARR003", base="arrays")
def arrays_without_model(broken: Broken) -> None:
    _attributes(broken, "", lambda stated: stated.pop("geoemb:model"))


@mutation("ARR003", "arrays that name benchmarks which the release does not have", base="arrays")
def arrays_with_unknown_benchmarks(broken: Broken) -> None:
    _attributes(broken, ZONE, lambda stated: stated.update({"geoemb:benchmark": ["../../benchmarks.json"]}))


@mutation("ARR002", "a scale array that does not exist", base="arrays")
def arrays_with_unknown_scales(broken: Broken) -> None:
    _attributes(broken, ZONE, lambda stated: stated["geoemb:quantization"]["scale"].update(array_name="factors"))


@mutation("ARR002", "geoemb: attributes that the group does not register", base="arrays")
def arrays_without_conventions(broken: Broken) -> None:
    _attributes(broken, ZONE, lambda stated: stated["zarr_conventions"].pop(0))


@mutation("ARR002", "a bounding box that the transform does not give", base="arrays")
def arrays_with_another_bbox(broken: Broken) -> None:
    _attributes(broken, ZONE, lambda stated: stated["spatial:bbox"].reverse())


@mutation("ARR002", "a projection that is not one", also="ARR003", base="arrays")
def arrays_without_projection(broken: Broken) -> None:
    _attributes(broken, ZONE, lambda stated: stated.update({"proj:code": "EPSG:99"}))


@mutation("ARR003", "arrays in the projection of the southern hemisphere", base="arrays")
def arrays_in_the_southern_projection(broken: Broken) -> None:
    _attributes(broken, ZONE, lambda stated: stated.update({"proj:code": "EPSG:32718"}))


@mutation("ARR003", "northings that are off by a pixel", base="arrays")
def arrays_off_by_a_pixel(broken: Broken) -> None:
    y = _array(broken, "y")
    y[:] = y[:] + 640


@mutation("ARR003", "metadata that differ from those of the group above", base="arrays")
def arrays_with_stale_metadata(broken: Broken) -> None:
    path = broken.folder / STORE / ZONE / "valid" / "zarr.json"
    document = json.loads(path.read_text())
    document["attributes"]["units"] = "percent"
    path.write_text(json.dumps(document))


@mutation("ARR003", "patches that claim another size of chip", base="arrays")
def patches_of_another_size(broken: Broken) -> None:
    _attributes(broken, f"{ZONE}/patches", lambda stated: stated["geoemb:chip_layout"].update(chip_size=[16, 16]))


@mutation("ARR004", "a pixel with another vector than its row", base="arrays")
def another_pixel(broken: Broken) -> None:
    time, y, x = _corner(broken)
    vectors = _array(broken, "embeddings")
    vectors[time, y, x] = -vectors[time, y, x]


@mutation("ARR004", "a pixel with another share of valid pixels", base="arrays")
def another_valid_share(broken: Broken) -> None:
    _array(broken, "valid")[_corner(broken)] = 0.5


@mutation("ARR005", "an embedded chip that the reason layer calls cloudy", base="arrays")
def another_reason(broken: Broken) -> None:
    _array(broken, "reason")[_corner(broken)] = 4


@mutation("ARR005", "a vector where no chip is expected", base="arrays")
def a_vector_out_of_nothing(broken: Broken) -> None:
    time, y, x = _corner(broken)
    scales, vectors = _array(broken, "scales"), _array(broken, "embeddings")
    scales[time, y - 1, x], vectors[time, y - 1, x] = scales[time, y, x], vectors[time, y, x]


@mutation("ARR005", "nodata in the middle of a vector", also="ARR004", base="arrays")
def nodata_in_a_vector(broken: Broken) -> None:
    _array(broken, "embeddings")[(*_corner(broken), 3)] = -128


@mutation("ARR005", "a chip without one of its patches", base="arrays")
def a_missing_patch(broken: Broken) -> None:
    _array(broken, "patches/scales")[_corner(broken, "patches/scales")] = np.nan


@mutation("ARR005", "a shard that is missing", also="ARR004", base="arrays")
def a_missing_shard(broken: Broken) -> None:
    min((broken.folder / STORE / ZONE / "scales" / "c").rglob("[0-9]*/[0-9]*/[0-9]*")).unlink()


def _alone(broken: Broken) -> Path:
    """Leave nothing of the release but its store."""
    store = shutil.move(broken.folder / STORE, broken.folder.parent / "store")
    shutil.rmtree(broken.folder)
    return Path(shutil.move(store, broken.folder))


@mutation("ARR006", "a store of others with a vector that is the same everywhere", base="arrays", settle=False)
def a_constant_vector_in_a_store(broken: Broken) -> None:
    time, y, x = _corner(broken)
    _array(broken, "embeddings")[time, y, x] = 7
    _alone(broken)


@mutation("ARR002", "a store of others without source_data", base="arrays", settle=False)
def a_store_without_sources(broken: Broken) -> None:
    _attributes(broken, "", lambda stated: stated.update({"geoemb:source_data": []}))
    _alone(broken)
