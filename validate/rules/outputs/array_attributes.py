"""What a store of embeddings says of itself: the conventions `geoemb:` v1, `proj:` v1 and `spatial:` v1.

These rules apply to any store, whatever program wrote it.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from pyproj import CRS
from pyproj.exceptions import CRSError

from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.data.zarr_groups import ArrayDocument, GroupDocument
from clay_publish.validate.outcomes import Fault, Outcome, SkippedError
from clay_publish.validate.registry import rule

_UUIDS = {
    "geoemb:": "61c12cc5-0e28-4056-999a-480cf3fb7e4c",
    "proj:": "f17cb550-5864-4468-aeb7-f3180cfb622f",
    "spatial:": "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4",
}
_ZONE = re.compile(r"utm(0[1-9]|[1-5]\d|60)")
_SIDE = 1e-6
"""Pixels by which coordinates may differ from the transform."""


def _present(group: GroupDocument, prefix: str) -> bool:
    return any(str(key).startswith(prefix) for key in group.attributes)


def _registered(group: GroupDocument, prefix: str) -> Iterator[Outcome]:
    listed = group.attributes.get("zarr_conventions")
    entries = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    if not any(each.get("uuid", each.get("name")) in {_UUIDS[prefix], prefix, prefix[:-1]} for each in entries):
        names = ", ".join(str(each.get("name")) for each in entries) or "none"
        yield Fault(f"{group.where}: zarr_conventions", f"lists {names}", f"{prefix}, with UUID {_UUIDS[prefix]}")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(n, int) and n >= 1 for n in value)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(_is_text(one) for one in value)


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


_FIELDS: dict[str, tuple[bool, Callable[[Any], bool], str]] = {
    "geoemb:type": (True, lambda v: v in {"pixel", "chip"}, "pixel or chip"),
    "geoemb:dimensions": (True, lambda v: isinstance(v, int) and v >= 1, "a whole number from 1"),
    "geoemb:model": (True, _is_text, "an address"),
    "geoemb:source_data": (True, _is_texts, "a list of addresses"),
    "geoemb:data_type": (True, _is_text, "a data type"),
    "geoemb:gsd": (False, _is_positive, "meters above 0"),
    "geoemb:spatial_layout": (False, lambda v: v in {"utm_zones", "global"}, "utm_zones or global"),
    "geoemb:build_version": (False, _is_text, "a version"),
    "geoemb:benchmark": (False, _is_texts, "a list of addresses"),
}


@rule("ARR002")
def groups_follow_geoemb(context: ReleaseContext) -> Iterator[Outcome]:
    """Required and optional fields, their values, and what they refer to; then proj: and spatial: where stated."""
    store = context.zarr
    described = [group for group in store.groups.values() if _present(group, "geoemb:")]
    if store.groups and not described:
        yield Fault(store.root.where, "has no geoemb: attributes", "those of the geoemb: convention, version 1")
    yield from _vectors(context, described)
    for group in described:
        yield from _registered(group, "geoemb:")
        yield from _fields(group)
        yield from _layout(group)
        yield from _quantization(group, [*store.groups.values()])
    if described and store.root.attributes.get("geoemb:spatial_layout") == "utm_zones":
        with_vectors = [name for name, group in store.groups.items() if group.vectors() is not None]
        for name in with_vectors:
            if not _ZONE.fullmatch(name.partition("/")[0]):
                yield Fault(
                    store.groups[name].where, "is not in a group of a zone", "utm01 to utm60, as utm_zones asks"
                )
    for group in store.groups.values():
        if _present(group, "proj:"):
            yield from _registered(group, "proj:")
            yield from _projection(group)
        if _present(group, "spatial:"):
            yield from _registered(group, "spatial:")
            yield from _spatial(group)


def _vectors(context: ReleaseContext, described: list[GroupDocument]) -> Iterator[Outcome]:
    """An array of vectors somewhere in the store."""
    groups = context.zarr.groups.values()
    if not described or any(group.vectors() is not None for group in groups):
        return
    arrays = [array for group in groups for array in group.arrays.values()]
    if not arrays and not context.files.store.local:
        where = context.files.store.where
        raise SkippedError(where, "does not list its arrays, and its metadata are not consolidated")
    found = "; ".join(f"{array.path} {list(array.shape)}" for array in arrays)[:200] or "no arrays"
    length = described[0].stated.get("geoemb:dimensions")
    expected = f"an array of y, x and a dimension of {length}, as geoemb:dimensions says"
    yield Fault(context.zarr.root.where, f"holds no vectors: {found}", expected)


def _fields(group: GroupDocument) -> Iterator[Outcome]:
    for name, (required, valid, expected) in _FIELDS.items():
        value = group.attributes.get(name)
        if (value is None and required) or (value is not None and not valid(value)):
            yield Fault(f"{group.where}: {name}", "is missing" if value is None else f"{value!r:.60}", expected)


def _layout(group: GroupDocument) -> Iterator[Outcome]:
    value, where = group.attributes.get("geoemb:chip_layout"), f"{group.where}: geoemb:chip_layout"
    if value is None:
        if group.attributes.get("geoemb:type") == "chip":
            yield Fault(where, "is missing", "layout_type and chip_size, as type chip asks for")
        return
    given: Mapping[str, Any] = value if isinstance(value, dict) else {}
    if given.get("layout_type") not in {"regular_grid", "irregular"}:
        yield Fault(f"{where}.layout_type", f"{given.get('layout_type')!r:.60}", "regular_grid or irregular")
    for name in ("chip_size", "stride"):
        if (name == "chip_size" or name in given) and not _is_pair(given.get(name)):
            yield Fault(f"{where}.{name}", f"{given.get(name)!r:.60}", "[height, width] in pixels")


def _quantization(group: GroupDocument, groups: list[GroupDocument]) -> Iterator[Outcome]:
    value, where = group.attributes.get("geoemb:quantization"), f"{group.where}: geoemb:quantization"
    if value is None:
        if str(group.attributes.get("geoemb:data_type")).startswith(("int", "uint")):
            yield Fault(where, "is missing", "how integers become embeddings again")
        return
    given: Mapping[str, Any] = value if isinstance(value, dict) else {}
    for field in ("method", "original_dtype"):
        if not _is_text(given.get(field)):
            yield Fault(f"{where}.{field}", f"{given.get(field)!r:.60}", "a text")
    if "scale" in given:
        yield from _scale(group, given, groups)


def _scale(group: GroupDocument, given: Mapping[str, Any], groups: list[GroupDocument]) -> Iterator[Outcome]:
    where = f"{group.where}: geoemb:quantization"
    scale: Mapping[str, Any] = given["scale"] if isinstance(given["scale"], dict) else {}
    if scale.get("type") == "scalar":
        if not isinstance(scale.get("scale"), int | float):
            yield Fault(f"{where}.scale.scale", f"{scale.get('scale')!r:.60}", "a number")
    elif scale.get("type") == "array":
        name = scale.get("array_name")
        users = [one for one in groups if one.vectors() is not None and one.path.startswith(group.path)]
        for user in users:
            vectors, factors = user.vectors(), user.arrays.get(str(name))
            assert vectors is not None
            if factors is None:
                yield Fault(
                    f"{where}.scale.array_name", f"{name!r:.60} is not in {user.path or 'the store'}", "an array"
                )
            elif factors.shape != _without_band(vectors, user):
                yield Fault(factors.path, f"has shape {list(factors.shape)}", f"{list(_without_band(vectors, user))}")
    else:
        yield Fault(f"{where}.scale.type", f"{scale.get('type')!r:.60}", "scalar or array")


def _without_band(vectors: ArrayDocument, group: GroupDocument) -> tuple[int, ...]:
    band = len(vectors.shape) - 1 - vectors.shape[::-1].index(group.stated["geoemb:dimensions"])
    if "band" in vectors.dims:
        band = vectors.dims.index("band")
    return vectors.shape[:band] + vectors.shape[band + 1 :]


def _projection(group: GroupDocument) -> Iterator[Outcome]:
    known = {"proj:code", "proj:wkt2", "proj:projjson"}
    stated = {key: value for key, value in group.attributes.items() if key in known}
    if len(stated) != 1:
        yield Fault(
            f"{group.where}: proj:", f"states {', '.join(stated) or 'nothing'}", "one of code, wkt2 and projjson"
        )
        return
    try:
        CRS.from_user_input(next(iter(stated.values())))
    except (CRSError, TypeError, ValueError, AttributeError) as error:
        yield Fault(f"{group.where}: {next(iter(stated))}", f"is not a CRS ({error})"[:120], "such as EPSG:32618")


def _numbers(value: Any, count: int) -> list[float] | None:
    good = isinstance(value, list) and len(value) == count and all(isinstance(n, int | float) for n in value)
    return [float(n) for n in value] if good else None


def _spatial(group: GroupDocument) -> Iterator[Outcome]:
    attributes, where = group.attributes, f"{group.where}: spatial:"
    dims = attributes.get("spatial:dimensions")
    if not (isinstance(dims, list) and len(dims) in {2, 3} and all(_is_text(dim) for dim in dims)):
        yield Fault(f"{where}dimensions", f"{dims!r:.60}", "names of the dimensions of y and x")
        return
    vectors = group.vectors()
    if vectors is not None and not set(dims) <= set(vectors.dims):
        yield Fault(f"{where}dimensions", ", ".join(dims), f"dimensions of {vectors.path}: {', '.join(vectors.dims)}")
        return
    transform, shape = _numbers(attributes.get("spatial:transform"), 6), attributes.get("spatial:shape")
    if attributes.get("spatial:transform_type", "affine") == "affine" and transform is None:
        yield Fault(f"{where}transform", f"{attributes.get('spatial:transform')!r:.60}", "six coefficients")
    if vectors is not None and shape is not None:
        real = [vectors.shape[vectors.dims.index(dim)] for dim in dims]
        if shape != real:
            yield Fault(f"{where}shape", f"{shape!r:.60}", f"{real}, as {vectors.path} has")
    bbox = _numbers(attributes.get("spatial:bbox"), 4)
    if bbox is not None and transform is not None and isinstance(shape, list) and len(shape) == 2:
        a, b, c, d, e, f = transform
        corners = [(col, row) for col in (0, shape[1]) for row in (0, shape[0])]
        x, y = [a * col + b * row + c for col, row in corners], [d * col + e * row + f for col, row in corners]
        real_box = [min(x), min(y), max(x), max(y)]
        if not np.allclose(bbox, real_box, atol=_SIDE * max(abs(a), abs(e)), rtol=1e-12):
            yield Fault(f"{where}bbox", f"{bbox}", f"{real_box}, as transform and shape give")
