"""Major TOM Core as a source of images: each row of its Parquet files is an item, planned from its metadata table.

Source: the code of Major TOM (https://github.com/ESA-PhiLab/Major-TOM), where it differs from the paper, and the files
of Core-S2L1C, Core-S2L2A and Core-S1RTC: one row group per cell, one GeoTIFF per band as the value of a column.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlencode

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pyproj import CRS
from pyproj.exceptions import CRSError

from clay_publish.errors import SourceError, shown
from clay_publish.geo.footprints import footprints, transformer
from clay_publish.geo.major_tom_grid import corner_of_cell
from clay_publish.producer.sources.reader import FoundItem, open_source
from clay_publish.producer.sources.stac_api import Search
from clay_publish.spec.models import Imagery
from clay_publish.spec.sensors import Sensor
from clay_publish.storage.address import HUB_DATASETS
from clay_publish.storage.store import is_safe, is_url

METADATA = "metadata.parquet"
LICENSE = "CC-BY-SA-4.0"
"""Of Major TOM Core."""
PIXELS, PIXEL = 1068, 10.0
"""Of the bands of 10 m: a cell of 10 km and a margin of 340 m, of which `MARGIN` is west and south of its corner."""
MARGIN = 340.0

_BANDS: dict[str, dict[str, int]] = {
    "sentinel2": {
        **dict.fromkeys(("B02", "B03", "B04", "B08", "cloud_mask"), 10),
        **dict.fromkeys(("B05", "B06", "B07", "B8A", "B11", "B12"), 20),
        **dict.fromkeys(("B01", "B09"), 60),
    },
    "sentinel1": {"vv": 10, "vh": 10},
}
"""Columns by mission, and meters of their pixels."""
_PLATFORM = re.compile(r"S([12])([A-D])_")
_PASS = re.compile(r"S2[A-D]_MSIL(?:1C|2A)_(\d{8}T\d{6})_N\d{4}_(R\d{3})_")
_UNKNOWN_BASELINE = re.compile(r"_N9999_")
_REVISION = re.compile(r"/resolve/[^/]+/(.+)$")
_TIMES = ("%Y%m%dT%H%M%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%SZ")
_DEGREE = 111_000.0
_BATCH = 65_536


class _Row(BaseModel):
    """What is used of a row of the metadata table, and in words what is valid."""

    model_config = ConfigDict(frozen=True)

    grid_cell: str = Field(description="a cell such as 433U_1090R")
    product_id: str = Field(min_length=1, description="the name of a product")
    timestamp: Any
    crs: str = Field(description="a reference system such as EPSG:32618")
    parquet_url: str = Field(description="the address of a Parquet file")
    parquet_row: int = Field(ge=0, description="the number of a row group")
    cloud_cover: float | None = Field(default=None, description="a number, or null")


@dataclass(frozen=True)
class ParquetCell:
    """A GeoTIFF that is a value of a Parquet file."""

    address: str
    """Path or address of the file."""
    row: int
    """Row group of one row."""
    column: str
    grid_cell: str
    product_id: str

    @property
    def href(self) -> str:
        """Where it is: the file, and in its fragment which value."""
        place = {"row": self.row, "column": self.column, "grid_cell": self.grid_cell, "product_id": self.product_id}
        return f"{self.address}#{urlencode(place)}"

    @classmethod
    def parse(cls, href: str) -> "ParquetCell | None":
        """Read what `href` writes; None for the address of an ordinary file."""
        address, mark, fragment = href.rpartition("#row=")
        if not mark or not address.endswith(".parquet"):
            return None
        try:
            place = {name: values[0] for name, values in parse_qs(f"row={fragment}", strict_parsing=True).items()}
            return cls(address, int(place.pop("row")), **place)
        except (ValueError, TypeError, KeyError):
            return None


def address_of(href: str) -> str:
    """The file that an href names: of a value of a Parquet file, the file that holds it."""
    cell = ParquetCell.parse(href)
    return href if cell is None else cell.address


def read_major_tom(block: Imagery, sensor: Sensor, search: Search) -> Iterator[FoundItem]:
    """The rows of a copy of Major TOM Core near the area and in the windows, as items. No pixel is read.

    Raises:
        SourceError: its metadata table cannot be read, or is not one of Major TOM.
    """
    assert block.major_tom is not None
    root = _resolved(block.major_tom)
    columns = next((found for mission, found in _BANDS.items() if mission in sensor.missions), None)
    if columns is None:
        raise SourceError(
            block.major_tom,
            f"holds images of Sentinel-1 and Sentinel-2, not of sensor {sensor.key}",
            "sentinel-2-l1c, sentinel-2-l2a or sentinel-1-rtc",
        )
    where = f"{root}/{METADATA}"
    try:
        with open_source(where) as stream:
            file = pq.ParquetFile(stream)
            names = file.schema_arrow.names
            needed = [name for name, field in _Row.model_fields.items() if field.is_required()]
            if missing := [name for name in needed if name not in names]:
                raise SourceError(where, f"has no column {missing[0]!r}", f"columns {', '.join(needed)}")
            used = [name for name in names if name in _Row.model_fields]
            if len(used) > len(set(used)):
                raise SourceError(where, f"has two columns of one name ({', '.join(used)})", "each once")
            first = 0
            for batch in file.iter_batches(_BATCH, columns=used):
                near = _near(batch["grid_cell"].to_pylist(), search)
                for number, row in zip(near.tolist(), batch.take(pa.array(near)).to_pylist(), strict=True):
                    yield _found(row, first + number, root, block, columns)
                first += batch.num_rows
    except pa.ArrowException as error:
        raise SourceError(where, f"is not Parquet ({' '.join(str(error).split())})", "Major TOM's metadata") from error


def _resolved(stated: str) -> str:
    """The root that files are read from; of the Hub, of the commit that the name means now."""
    if not stated.startswith(HUB_DATASETS):
        return stated.rstrip("/")
    from huggingface_hub import HfApi, hf_hub_url  # noqa: PLC0415 - slow to import
    from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415

    repository, _, revision = stated.removeprefix(HUB_DATASETS).strip("/").partition("@")
    try:
        commit = HfApi().dataset_info(repository, revision=revision or None).sha
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise SourceError(stated, f"cannot be found on the Hub ({error})", f"{HUB_DATASETS}OWNER/NAME") from error
    address = hf_hub_url(repository, METADATA, repo_type="dataset", revision=commit)
    return address.removesuffix(f"/{METADATA}")


def _near(cells: Sequence[Any], search: Search) -> npt.NDArray[np.int64]:
    """Rows whose cell may lie in the area, and those that name none; what is left is decided item by item."""
    if search.area is None:
        return np.arange(len(cells))
    places = np.full((len(cells), 2), np.nan)
    for number, cell in enumerate(cells):
        with suppress(TypeError, ValueError):
            places[number] = corner_of_cell(cell)
    lon, lat = places.T
    west, south, east, north = shapely.bounds(search.area)
    high = PIXELS * PIXEL / _DEGREE
    wide = high / np.maximum(np.cos(np.radians(np.minimum(np.abs(lat) + high, 89.0))), 0.01)
    near = (lat + high >= south) & (lat - high <= north)
    near &= ((lon + wide >= west) & (lon - wide <= east)) | (np.abs(lon) + wide >= 180)
    return np.flatnonzero(near | np.isnan(lat))


def _found(values: Mapping[str, Any], number: int, root: str, block: Imagery, columns: Mapping[str, int]) -> FoundItem:
    """A row as an item, or why it is none."""
    identifier, where = f"{values['product_id']}_{values['grid_cell']}", f"{root}/{METADATA}"
    try:
        return FoundItem(_item(_checked(values, number, identifier), root, block, columns), where, None)
    except SourceError as error:
        return FoundItem({"id": identifier, "collection": _collection(root)}, where, None, error)


def _checked(values: Mapping[str, Any], number: int, identifier: str) -> _Row:
    try:
        return _Row.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        found = f"has {shown(first['input'])} in column {name}"
        expected = _Row.model_fields[name].description or ""
        raise SourceError(f"item {identifier} (row {number:,} of {METADATA})", found, expected) from error


def _collection(root: str) -> str:
    return root.partition("/resolve/")[0].rpartition("/")[2]


def _item(row: _Row, root: str, block: Imagery, columns: Mapping[str, int]) -> dict[str, Any]:
    """A row as a STAC Item."""
    cell, product = row.grid_cell, row.product_id
    identifier = f"{product}_{cell}"
    where = f"item {identifier}"
    west, north = _corner(cell, row.crs, where)
    address = f"{root}/{_path(row.parquet_url, where)}"
    assets = {
        name: {
            "href": ParquetCell(address, row.parquet_row, name, cell, product).href,
            "type": "image/tiff; application=geotiff",
            "gsd": size,
            "proj:shape": [int(PIXELS * PIXEL) // size] * 2,
            "proj:transform": [size, 0, west, 0, -size, north],
        }
        for name, size in columns.items()
    }
    side = PIXELS * PIXEL
    ring = np.array([[[west, north - side], [west + side, north - side], [west + side, north], [west, north]]])
    platform = _PLATFORM.match(product)
    passed = _PASS.match(product)
    level = {"s2:product_id": product} if platform and platform[1] == "2" else {"product_name": product}
    properties: dict[str, Any] = {
        "datetime": _time(row.timestamp, where),
        "proj:code": row.crs,
        "license": block.license or LICENSE,
        **level,
    }
    if platform:
        properties["platform"] = f"sentinel-{platform[1]}{platform[2].lower()}"
    if passed:
        properties["s2:datatake_id"] = f"{passed[1]} {passed[2]}"
    if row.cloud_cover is not None and math.isfinite(row.cloud_cover):
        properties["eo:cloud_cover"] = row.cloud_cover
    if _UNKNOWN_BASELINE.search(product) and block.offset is None:
        raise SourceError(
            where,
            "is of baseline N9999, which does not say whether the offset of baseline 04.00 is in its values",
            "a stated offset",
            "State `imagery.scale` and `imagery.offset` in a block of such products, or exclude them.",
        )
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "id": identifier,
        "collection": _collection(root),
        "geometry": shapely.geometry.mapping(footprints(row.crs, ring)[0]),
        "properties": properties,
        "assets": assets,
        "links": [{"rel": "self", "href": f"{address}#row={row.parquet_row}"}] if is_url(root) else [],
    }


def _corner(cell: str, crs: str, where: str) -> tuple[float, float]:
    """West and north of the pixels of a cell: its corner on the ground, less the margin."""
    expected = "a cell such as 433U_1090R, and a projection in meters that reaches it"
    try:
        projection = CRS.from_user_input(crs)
        x, y = transformer("OGC:CRS84", crs).transform(*corner_of_cell(cell))
    except (CRSError, ValueError) as error:
        raise SourceError(where, f"has the cell {shown(cell)} in {shown(crs)} ({error})", expected) from error
    if not math.isfinite(x + y) or not projection.is_projected or projection.axis_info[0].unit_name != "metre":
        raise SourceError(where, f"has the cell {shown(cell)} in {shown(crs)}", expected)
    return x - MARGIN, y - MARGIN + PIXELS * PIXEL


def _path(url: str, where: str) -> str:
    """Path of a Parquet file below the root; the metadata names the original's address, also in a copy."""
    found = _REVISION.search(url.partition("?")[0])
    path = found[1] if found else url
    if not is_safe(path) or "://" in path or not path.endswith(".parquet"):
        raise SourceError(where, f"lies in {shown(url)}", "a Parquet file of the same copy of Major TOM")
    return path


def _time(stated: Any, where: str) -> str:
    if isinstance(stated, datetime):
        return stated.replace(tzinfo=stated.tzinfo or UTC).isoformat()
    for form in _TIMES:
        try:
            return datetime.strptime(str(stated)[:26], form).replace(tzinfo=UTC).isoformat()
        except ValueError:
            continue
    raise SourceError(where, f"has the timestamp {shown(stated)}", "a time such as 20230415T181919")
