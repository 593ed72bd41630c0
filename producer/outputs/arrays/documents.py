"""The metadata of the store: one group a zone, its arrays, coordinates and attributes.

Sources: Zarr core 3.0, sharding_indexed 1.0; conventions `geoemb:` v1, `proj:` v1 and `spatial:` v1; CF 1.11.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from pyproj import CRS
from zarr.codecs import ZstdCodec
from zarr.storage import MemoryStore

from clay_publish import __version__
from clay_publish.release import array_store as names
from clay_publish.release.array_store import ArrayGrid
from clay_publish.release.benchmarks import benchmark_addresses, with_benchmarks
from clay_publish.release.directory import SOURCES, Release
from clay_publish.release.fingerprint import Fingerprint
from clay_publish.release.manifest import dump_json
from clay_publish.release.metadata import EXTENSION, grid_id
from clay_publish.release.public_urls import release_address
from clay_publish.release.tables import Dtype
from clay_publish.spec.models import Spec
from clay_publish.storage.store import is_url
from clay_publish.windows import Window

_GEOEMB = {
    "schema_url": (
        "https://raw.githubusercontent.com/geo-embeddings/embeddings-zarr-convention/refs/tags/v1/schema.json"
    ),
    "spec_url": "https://github.com/geo-embeddings/embeddings-zarr-convention/blob/v1/README.md",
    "uuid": "61c12cc5-0e28-4056-999a-480cf3fb7e4c",
    "name": "geoemb:",
    "description": "Geoembeddings convention for geospatial embedding arrays with model provenance",
}
_PROJ = {
    "schema_url": "https://raw.githubusercontent.com/zarr-conventions/geo-proj/refs/tags/v1/schema.json",
    "spec_url": "https://github.com/zarr-conventions/geo-proj/blob/v1/README.md",
    "uuid": "f17cb550-5864-4468-aeb7-f3180cfb622f",
    "name": "proj:",
    "description": "Coordinate reference system information for geospatial data",
}
_SPATIAL = {
    "schema_url": "https://raw.githubusercontent.com/zarr-conventions/spatial/refs/tags/v1/schema.json",
    "spec_url": "https://github.com/zarr-conventions/spatial/blob/v1/README.md",
    "uuid": "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4",
    "name": "spatial",
    "description": "Spatial coordinate information",
}
_ZSTD = ZstdCodec(level=1, checksum=True)
"""A flipped bit is an error. Higher levels gain nothing on vectors."""
_COORDINATES = ZstdCodec(level=9, checksum=True)

Stored = dict[str, Any]
"""Key of a store → its buffer."""


@dataclass(frozen=True)
class Described:
    """What the attributes of all groups are made of."""

    spec: Spec
    fingerprint: Fingerprint
    dtype: Dtype
    """Of the arrays."""
    windows: list[Window]
    benchmarks: list[str]
    """Addresses of evaluations."""

    @classmethod
    def of(cls, release: Release, spec: Spec, fingerprint: Fingerprint) -> "Described":
        """Of a release whose spec asks for arrays."""
        assert spec.outputs.array_dtype is not None
        windows = names.array_windows(spec)
        return cls(spec, fingerprint, spec.outputs.array_dtype, windows, benchmark_addresses(release, spec))

    def geoemb(self, pixels: int) -> dict[str, Any]:
        """The `geoemb:` attributes of vectors of so many pixels per side."""
        made = self.fingerprint
        integers = self.dtype == "int8"
        scale = {"scale": {"type": "array", "array_name": names.SCALES, "nodata": "NaN"}} if integers else {}
        return {
            "geoemb:type": "chip",
            "geoemb:dimensions": made.dimensions,
            "geoemb:model": made.model_link,
            "geoemb:source_data": self._sources(),
            "geoemb:data_type": self.dtype,
            "geoemb:gsd": made.gsd,
            "geoemb:chip_layout": {
                "layout_type": "regular_grid",
                "chip_size": [pixels, pixels],
                "stride": [pixels, pixels],
                "grid_id": grid_id(made),
                "grid_definition": f"{EXTENSION}/#chip-layout",
            },
            "geoemb:quantization": {
                "method": "per_pixel_scale" if integers else "cast",
                "original_dtype": "float32",
                "quantized_dtype": self.dtype,
                **scale,
                "link": f"{EXTENSION}/#quantization",
            },
            "geoemb:spatial_layout": "utm_zones",
            "geoemb:build_version": f"clay-publish {__version__}",
        }

    def _sources(self) -> list[str]:
        """Addresses of the imagery's catalogs; where none is public, of the release's own table of sources."""
        listed = [source for block in self.spec.published()["imagery"] for source in block["stac"] if is_url(source)]
        address = release_address(self.spec)
        own = f"{address}/{SOURCES}" if address else f"../../{SOURCES}"
        return list(dict.fromkeys(listed)) or [own]

    def root(self) -> dict[str, Any]:
        """Attributes of the store."""
        attributes = {
            "zarr_conventions": [_GEOEMB],
            **self.geoemb(self.fingerprint.size),
            "title": self.spec.title or self.spec.name,
            "version": self.spec.version,
            "license": self.spec.license,
            "embrel:fingerprint": self.fingerprint.digest,
        }
        return with_benchmarks(attributes, self.benchmarks)

    def zone(self, zone: int, grid: ArrayGrid) -> dict[str, Any]:
        """Attributes of a group of chips or patches."""
        attributes = {
            "Conventions": "CF-1.11",
            "zarr_conventions": [_GEOEMB, _PROJ, _SPATIAL],
            **self.geoemb(self.fingerprint.size // grid.patches),
            "proj:code": f"EPSG:{32600 + zone}",
            "spatial:dimensions": ["y", "x"],
            "spatial:transform_type": "affine",
            "spatial:transform": grid.transform,
            "spatial:shape": list(grid.shape),
            "spatial:bbox": grid.bbox,
            "spatial:registration": "pixel",
            "embrel:fingerprint": self.fingerprint.digest,
            "embrel:windows": [str(window) for window in self.windows],
            "embrel:cells": grid.document(),
        }
        return with_benchmarks(attributes, self.benchmarks)


class ZoneGroup:
    """One group of arrays in memory: what is written into it is taken out, file by file."""

    def __init__(self, described: Described, zone: int, grid: ArrayGrid) -> None:
        self.grid, self._described, self._zone = grid, described, zone
        self._stored: Stored = {}
        self._group = zarr.create_group(MemoryStore(self._stored), zarr_format=3, attributes=described.zone(zone, grid))
        self.layers = self._layers()
        """Name → type, fill value and attributes, in the order in which the files of a shard are written."""
        self._arrays = {name: self._create(name, *attributes) for name, attributes in self.layers.items()}

    def _layers(self) -> dict[str, tuple[str, float, dict[str, Any]]]:
        dtype = self._described.dtype
        fill = names.NODATA[dtype]
        nan = float("nan")
        vectors: dict[str, Any] = {"long_name": "embedding"}
        layers: dict[str, tuple[str, float, dict[str, Any]]] = {}
        if dtype == "int8":
            vectors |= {"_FillValue": int(fill), "comment": f"value = stored × {names.SCALES}"}
            layers[names.SCALES] = ("float32", nan, {"long_name": "scale of the stored numbers"})
        layers[names.EMBEDDINGS] = (dtype, fill, vectors)
        if self.grid.patches == 1:
            layers[names.VALID] = ("float32", nan, {"long_name": "share of valid pixels", "units": "1"})
            layers[names.CLOUD] = ("float32", nan, {"long_name": "share of cloudy pixels", "units": "1"})
            layers[names.REASON] = ("uint8", 0, names.reason_flags())
        return layers

    def _create(self, name: str, dtype: str, fill: float, attributes: Mapping[str, Any]) -> Any:
        vectors = name == names.EMBEDDINGS
        band = (self._described.fingerprint.dimensions,) if vectors else ()
        shard, chunk = self.grid.shard, self.grid.chunk
        return self._group.create_array(
            name,
            shape=(len(self._described.windows), *self.grid.shape, *band),
            dtype=dtype,
            shards=(1, shard, shard, *band),
            chunks=(1, chunk, chunk, *band),
            compressors=_ZSTD,
            fill_value=fill,
            dimension_names=("time", "y", "x", "band") if vectors else ("time", "y", "x"),
            attributes={**attributes, "grid_mapping": "spatial_ref", "coordinates": "spatial_ref"},
        )

    def add_coordinates(self) -> None:
        """Write the coordinates, which the group has beside its shards."""
        y, x = self.grid.centers()
        windows = self._described.windows
        bounds = np.array([[w.start.timestamp(), w.end.timestamp()] for w in windows], np.int64)
        seconds = {"units": "seconds since 1970-01-01", "calendar": "proleptic_gregorian"}
        start = {"standard_name": "time", "axis": "T", "long_name": "start of the window", "bounds": "time_bounds"}
        self._coordinate("time", bounds[:, 0], ("time",), {**start, **seconds})
        self._coordinate("time_bounds", bounds, ("time", "bounds"), seconds)
        for name, values, axis in (("y", y, "Y"), ("x", x, "X")):
            attributes = {"standard_name": f"projection_{name}_coordinate", "axis": axis, "units": "m"}
            self._coordinate(name, values, (name,), attributes)
        numbers = np.arange(self._described.fingerprint.dimensions, dtype=np.int32)
        self._coordinate("band", numbers, ("band",), {"long_name": "number of the dimension"})
        crs = CRS.from_epsg(32600 + self._zone)
        a, b, c, d, e, f = self.grid.transform
        wkt = {"crs_wkt": crs.to_wkt(), "GeoTransform": f"{c} {a} {b} {f} {d} {e}"}
        self._coordinate("spatial_ref", np.array(0, np.int32), (), {**crs.to_cf(), **wkt})

    def _coordinate(self, name: str, values: Any, dims: tuple[str, ...], attributes: Mapping[str, Any]) -> None:
        plain = {key: value for key, value in attributes.items() if value is not None}
        array = self._group.create_array(
            name,
            shape=values.shape,
            chunks=values.shape or "auto",
            dtype=values.dtype,
            compressors=_COORDINATES,
            fill_value=np.nan if values.dtype.kind == "f" else 0,
            dimension_names=dims,
            attributes=plain,
            config={"write_empty_chunks": True},
        )
        array[...] = values

    def blank(self) -> dict[str, npt.NDArray[Any]]:
        """The layers of a shard without data."""
        side, dimensions = self.grid.shard, self._described.fingerprint.dimensions
        return {
            name: np.full((side, side, *([dimensions] if name == names.EMBEDDINGS else [])), fill, dtype)
            for name, (dtype, fill, _) in self.layers.items()
        }

    def key(self, name: str, time: int, shard: tuple[int, int]) -> str:
        """Path of a shard's file below the group."""
        return f"{name}/c/{time}/{shard[0]}/{shard[1]}" + ("/0" if name == names.EMBEDDINGS else "")

    def put(self, name: str, time: int, shard: tuple[int, int], values: Any) -> None:
        """Write the whole of one shard."""
        array, side = self._arrays[name], self.grid.shard
        y, x = shard[0] * side, shard[1] * side
        height, width = (min(side, size - start) for size, start in zip(self.grid.shape, (y, x), strict=True))
        array[time, y : y + height, x : x + width] = values[:height, :width]

    def take(self) -> Iterator[tuple[str, bytes]]:
        """Take out the files that were written since, in this order: paths below the group, and their bytes."""
        for key in [key for key in self._stored if not key.endswith("zarr.json")]:
            yield key, self._stored.pop(key).to_bytes()

    def documents(self) -> dict[str, Any]:
        """The metadata of the group, `zarr.json`, and of its arrays, by path below the group."""
        found = {key: json.loads(value.to_bytes()) for key, value in self._stored.items() if key.endswith("zarr.json")}
        return dict(sorted(found.items()))


def consolidated(document: Mapping[str, Any], members: Mapping[str, Any]) -> str:
    """A group's `zarr.json` with the metadata of all that lies below it.

    Args:
        document: of the group.
        members: path below the group → metadata, consolidated nowhere.
    """
    inline = {"kind": "inline", "must_understand": False, "metadata": dict(members)}
    return dump_json({**document, "consolidated_metadata": inline}, compact=True)


def group_document(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of a group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}
