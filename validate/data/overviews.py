"""The overviews of the explorer, drawn again from the release's tables, one tile at a time."""

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from PIL import Image

from clay_publish.errors import ReleaseError
from clay_publish.geo.footprints import footprints
from clay_publish.geo.utm_grid import NORTH, SOUTH, UtmGrid
from clay_publish.release.directory import COVERAGE, DataFile
from clay_publish.release.fingerprint import Fingerprint
from clay_publish.validate.data.parquet_tables import ParquetTables
from clay_publish.validate.data.sources import SourceTable

Floats = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]

SIDE = 512
QUALITY = 80
"""Of lossy tiles."""
_FINEST = 18
_STEPS = 254
_COLORMAPS = {"loss": "cividis", "cloud": "PuBu_r", "date": "viridis"}
_COLUMNS = {"loss": "loss", "cloud": "cloud_fraction", "date": "datetime"}
_PIXELS_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Spot:
    """A tile of one period."""

    period: str
    z: int
    x: int
    y: int

    @cached_property
    def centers(self) -> tuple[Floats, Floats]:
        """Longitude and latitude of each pixel's center, [SIDE × SIDE] each, row by row."""
        part = (np.arange(SIDE) + 0.5) / SIDE
        lon = ((self.x + part) / 2**self.z - 0.5) * 360
        lat = np.degrees(2 * np.arctan(np.exp(np.pi * (1 - 2 * (self.y + part) / 2**self.z))) - np.pi / 2)
        return np.tile(lon, SIDE), np.repeat(lat, SIDE)

    def below(self) -> "list[Spot]":
        """The four tiles of the next zoom, row by row."""
        x, y = 2 * self.x, 2 * self.y
        return [Spot(self.period, self.z + 1, x + col, y + row) for row in (0, 1) for col in (0, 1)]

    def is_leaf(self, side: float) -> bool:
        """Whether no pixel is larger than a chip."""
        edges = [math.pi * (1 - 2 * (self.y + step) / 2**self.z) for step in (0, 1)]
        nearest = 0.0 if edges[0] >= 0 >= edges[1] else min(abs(edge) for edge in edges)
        return 40_075_016.68 / math.cosh(nearest) / SIDE / 2**self.z <= side or self.z >= _FINEST

    def near(self, box: Sequence[float]) -> bool:
        """Whether a box of degrees may share ground with the tile."""
        lon, lat = self.centers
        west, south, east, north = box
        wide = west > east
        across = (lon.max() >= west or lon.min() <= east) if wide else (lon.max() >= west and lon.min() <= east)
        return bool(lat.max() >= south and lat.min() <= north and across)


class Redrawing:
    """Draws tiles from the tables of a release, by the axes and scales that its explorer states."""

    def __init__(
        self,
        tables: ParquetTables,
        fingerprint: Fingerprint,
        sources: SourceTable,
        summary: dict[str, Any],
        basis: dict[str, Any],
    ) -> None:
        self.tables, self.fingerprint, self.sources, self.summary = tables, fingerprint, sources, summary
        self.mean, self.axes = np.array(basis["mean"], dtype=np.float64), np.array(basis["axes"], dtype=np.float64)
        self.low, self.high = np.array(basis["low"], dtype=np.float64), np.array(basis["high"], dtype=np.float64)
        self.layers = {layer["id"]: layer for layer in summary["layers"]}
        decided = fingerprint
        side = decided.size * (decided.gsd or 0)
        self.grid = UtmGrid(side) if decided.layout == "utm" else None
        self.edges: list[tuple[str, np.datetime64]] = [
            (str(p["id"]), np.datetime64(p["start"][:-1], "us")) for p in summary["periods"]
        ]

    def period_of(self, start: np.datetime64) -> str:
        """The period that holds the start of a window."""
        return max((edge, name) for name, edge in self.edges if edge <= start)[1]

    def codes(self, name: str) -> dict[int, int]:
        """The colors of a palette layer as 0xRRGGBBAA, and their order from 1."""
        colors = self.layers[name]["legend"].get("colors")
        if colors is None:
            packed = [int.from_bytes(color.tobytes()) for color in _ramp(name)]
        else:
            packed = [int.from_bytes(bytes.fromhex(color.removeprefix("#")) + b"\xff") for color in colors.values()]
        return {color: code for code, color in reversed(list(enumerate(packed, start=1)))}

    def draw(self, spot: Spot) -> dict[str, Pixels]:
        """Layer → RGBA [SIDE × SIDE, 4] of a tile of the finest zoom, before it is stored.

        Raises:
            ReleaseError: a table cannot be read.
        """
        lon, lat = spot.centers
        made = {name: np.zeros((len(lon), 4), dtype=np.uint8) for name in self.layers}
        owners = self._cells(lon, lat) if self.grid else None
        for rows in self._missing(spot):
            pixels, found = self._match(rows, owners, lon, lat)
            made["coverage"][pixels] = self._statuses(rows["reason"].to_pylist())[found]
        for rows in self._embedded(spot):
            pixels, found = self._match(rows, owners, lon, lat)
            if len(pixels):
                made["coverage"][pixels] = self._statuses(["embedded"])[0]
                chosen, place = np.unique(found, return_inverse=True)
                for name, colors in self._colors(rows.take(chosen)).items():
                    made[name][pixels] = colors[place]
        return made

    def _statuses(self, statuses: list[str]) -> Pixels:
        colors = self.layers["coverage"]["legend"]["colors"]
        made = [[*bytes.fromhex(colors[status].removeprefix("#")), 255] for status in statuses]
        return np.array(made, dtype=np.uint8).reshape(-1, 4)

    def _cells(self, lon: Floats, lat: Floats) -> npt.NDArray[np.int64]:
        """Number of the cell that owns each pixel; −1 beyond the grid."""
        assert self.grid is not None
        inside = (lat >= SOUTH) & (lat <= NORTH)
        made = np.full(len(lon), -1, dtype=np.int64)
        made[inside] = self.grid.numbers(*self.grid.cells_at(lon[inside], lat[inside]))
        return made

    def _match(
        self, rows: pa.Table, owners: npt.NDArray[np.int64] | None, lon: Floats, lat: Floats
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Pixels that show one of some rows, and which."""
        if owners is not None:
            assert self.grid is not None
            cells = self.grid.numbers(*(rows[name].to_numpy() for name in ("epsg", "row", "col")))
            order = np.argsort(cells, kind="stable")
            place = np.searchsorted(cells[order], owners, side="right") - 1
            hit = (
                np.flatnonzero((place >= 0) & (cells[order[np.maximum(place, 0)]] == owners))
                if len(cells)
                else place[:0]
            )
            return hit, order[place[hit]]
        shapes = shapely.from_wkb(rows["geometry"].to_pylist(), on_invalid="ignore")  # GEO001 reports these
        tree = shapely.STRtree(shapes)
        boxes = shapely.bounds(shapes)
        boxes = boxes[np.isfinite(boxes).all(axis=1)]
        west, south = boxes[:, :2].min(axis=0, initial=np.inf)
        east, north = boxes[:, 2:].max(axis=0, initial=-np.inf)
        near = np.flatnonzero((lon >= west) & (lon <= east) & (lat >= south) & (lat <= north))
        last = np.full(len(lon), -1, dtype=np.int64)
        for start in range(0, len(near), _PIXELS_AT_ONCE):
            part = near[start : start + _PIXELS_AT_ONCE]
            pixel, shape = tree.query(shapely.points(lon[part], lat[part]), predicate="intersects")
            np.maximum.at(last, part[pixel], shape)
        hit = np.flatnonzero(last >= 0)
        return hit, last[hit]

    def _embedded(self, spot: Spot) -> Iterator[pa.Table]:
        """Row groups of the files of a period that are near a tile, the latest window last."""
        files = sorted(
            (file.window.start, path)
            for path, file in self.tables.named.items()
            if self.period_of(_naive(file)) == spot.period and spot.near(self._box(path))
        )
        wanted = ["epsg", "row", "col"] if self.grid else ["geometry"]
        for _, path in files:
            names = self.tables.schema(path).names
            columns = [*wanted, *(n for n in ("embedding", "scale", *_COLUMNS.values()) if n in names)]
            for batch in self.tables.batches(path, 1 << 14, columns=columns):
                yield pa.Table.from_batches([batch])

    def _box(self, path: str) -> Sequence[float]:
        box: Sequence[float] = self.tables.keys[path]["geo"]["columns"]["geometry"]["bbox"]
        return box

    def _missing(self, spot: Spot) -> Iterator[pa.Table]:
        """Rows of `coverage/` of a period without an embedding, the latest window last; with footprints in `scene`."""
        lon, _ = spot.centers
        zones = {int((edge + 180) // 6) % 60 + 1 for edge in np.arange(lon.min() - 6, lon.max() + 6.1, 3)}
        columns = ["epsg", "row", "col", "window_start", "status", "reason", "item_ids"]
        found = []
        for path in self.tables.coverage:
            if self.grid and not any(path.startswith(f"{COVERAGE}/zone={zone:02d}") for zone in zones):
                continue
            for batch in self.tables.batches(path, 1 << 16, columns=columns):
                table = pa.Table.from_batches([batch])
                lost = pc.and_(pc.not_equal(table["status"], "embedded"), pc.is_valid(table["row"]))
                table = table.filter(lost)
                starts = table["window_start"].to_numpy().astype("datetime64[us]")
                unique, place = np.unique(starts, return_inverse=True)
                here = np.array([self.period_of(start) == spot.period for start in unique], dtype=bool)[place]
                found.append(table.filter(pa.array(here, pa.bool_())))
        if found:
            table = pa.concat_tables(found).sort_by("window_start")
            yield table if self.grid else self._with_footprints(table)

    def _with_footprints(self, table: pa.Table) -> pa.Table:
        size = self.fingerprint.size
        shapes: list[bytes | None] = []
        for row in table.select(["row", "col", "item_ids"]).to_pylist():
            source = self.sources.named(row["item_ids"][0]) if row["item_ids"] else None
            if source is None or source.transform is None or source.crs is None:
                shapes.append(None)
                continue
            matrix = np.array(source.transform, dtype=np.float64).reshape(2, 3)
            u = np.array([row["col"], row["col"], row["col"] + 1, row["col"] + 1]) * size
            v = np.array([row["row"], row["row"] + 1, row["row"] + 1, row["row"]]) * size
            corners = (matrix @ np.stack([u, v, np.ones(4)])).T
            shapes.append(shapely.to_wkb(footprints(source.crs, corners[None])[0]))
        placed = pa.array([shape is not None for shape in shapes], pa.bool_())
        return table.append_column("geometry", pa.array(shapes, pa.binary())).filter(placed)

    def _colors(self, rows: pa.Table) -> dict[str, Pixels]:
        made = {}
        if "components" in self.layers:
            flat = rows["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False).astype(np.float32)
            vectors = np.where(np.isfinite(flat), flat, 0).reshape(rows.num_rows, -1)  # VEC001 reports these
            if "scale" in rows.schema.names:
                vectors = vectors * rows["scale"].to_numpy().astype(np.float32)[:, None]
            made["components"] = self._component_colors(vectors)
        for name, column in _COLUMNS.items():
            if name in self.layers:
                made[name] = self._shades(name, rows[column])
        return made

    def _component_colors(self, vectors: npt.NDArray[np.float32]) -> Pixels:
        """Components as Oklab: lightness, then blue to yellow, then green to red. Source: Ottosson, 2020."""
        scores = (vectors.astype(np.float64) - self.mean) @ self.axes.T
        spread = self.high - self.low
        first, second, third = np.where(
            spread > 0, np.clip((scores - self.low) / np.where(spread > 0, spread, 1), 0, 1), 0.5
        ).T
        light, a, b = 0.36 + 0.56 * first, 0.18 * (third - 0.5), 0.21 * (second - 0.5)
        long = (light + 0.3963377774 * a + 0.2158037573 * b) ** 3
        medium = (light - 0.1055613458 * a - 0.0638541728 * b) ** 3
        short = (light - 0.0894841775 * a - 1.2914855480 * b) ** 3
        linear = np.clip(
            np.stack(
                [
                    4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
                    -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
                    -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
                ],
                axis=1,
            ),
            0,
            1,
        )
        color = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
        return np.column_stack([np.round(color * 255), np.full(len(color), 255)]).astype(np.uint8)

    def _shades(self, name: str, column: pa.ChunkedArray) -> Pixels:
        legend = self.layers[name]["legend"]
        if name == "date":
            numbers = column.cast(pa.int64()).to_numpy().astype(np.float64)
            low, high = (np.datetime64(legend[end][:-1], "us").astype(np.int64) for end in ("low", "high"))
        else:
            numbers = column.to_numpy().astype(np.float64)
            low, high = legend["low"], legend["high"]
        share = np.clip((numbers - low) / (high - low), 0, 1) if high > low else np.zeros(len(numbers))
        known = np.isfinite(numbers)
        step = np.minimum(np.floor(np.where(known, share, 0) * _STEPS), _STEPS - 1).astype(int)
        table = _ramp(name)
        return np.where(known[:, None], table[step], 0).astype(np.uint8)


def _ramp(name: str) -> Pixels:
    """[254, 4] colors of the steps of a scale."""
    from matplotlib import colormaps  # noqa: PLC0415 - slow to import

    return np.round(colormaps[_COLORMAPS[name]](np.linspace(0, 1, _STEPS)) * 255).astype(np.uint8)


def _naive(file: DataFile) -> np.datetime64:
    return np.datetime64(file.window.start.replace(tzinfo=None), "us")


def decoded(data: bytes, where: str) -> Pixels:
    """RGBA [SIDE × SIDE, 4] of a stored tile.

    Raises:
        ReleaseError: it is not a WebP picture of that size.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("WEBP",)) as picture:
            if picture.size != (SIDE, SIDE):
                raise ReleaseError(where, f"is {picture.size[0]} × {picture.size[1]} pixels", f"{SIDE} × {SIDE}")
            return np.asarray(picture.convert("RGBA")).reshape(-1, 4)
    except (OSError, ValueError) as error:
        raise ReleaseError(where, "is not a WebP picture") from error


def stored(pixels: Pixels) -> Pixels:
    """What remains of lossy pixels once they are stored."""
    there = pixels[:, 3] > 0
    filled = pixels.copy()
    if there.any():
        filled[~there, :3] = filled[there, :3].mean(axis=0).astype(np.uint8)
    made = io.BytesIO()
    Image.fromarray(filled.reshape(SIDE, SIDE, 4), "RGBA").save(
        made, "WEBP", quality=QUALITY, method=4, alpha_quality=100
    )
    return decoded(made.getvalue(), "a tile")
