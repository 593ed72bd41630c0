"""Releases of any size without imagery: cells of the `utm` grid, vectors that follow the ground, missing chips."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
from PIL import Image

from clay_publish.cards.explorer.build import write_explorer
from clay_publish.cards.release_facts import read_facts
from clay_publish.catalog import write_items
from clay_publish.geo.expected_cells import expected_cells
from clay_publish.geo.utm_grid import UtmGrid
from clay_publish.geo.utm_zones import SQUARE, Square
from clay_publish.producer.outputs.codes import write_codes
from clay_publish.release import directory as paths
from clay_publish.release.directory import DataFile, Release
from clay_publish.release.fingerprint import SCALE_RULE, BandStatistics, Fingerprint, composite_rule, mask_rule
from clay_publish.release.geoparquet import bbox_array, geo_metadata, total_bbox, write_table
from clay_publish.release.manifest import RUN_RECORD, RunRecord
from clay_publish.release.metadata import footer_emb
from clay_publish.release.tables import coverage_schema, embeddings_schema, hugging_face_features, sources_schema
from clay_publish.spec.load import dump_spec
from clay_publish.spec.models import Spec
from clay_publish.spec.sensors import sensor
from clay_publish.windows import Window

ITEM = "image"


@dataclass(frozen=True)
class Made:
    """What to make."""

    boxes: tuple[tuple[float, float, float, float], ...]
    """West, south, east, north in degrees of the ground to cover."""
    windows: tuple[str, ...] = ("2023-01-01/2023-02-01",)
    size: int = 64
    gsd: float = 10.0
    dimensions: int = 16
    dtype: str = "float32"
    thumbnails: bool = False
    missing: float = 0.0
    """Share of cells that are missing, in patches: half for cloud, half for no imagery."""
    codes: bool = False
    limit: int | None = None
    """Cells at most."""
    texts: dict[str, Any] = field(default_factory=dict)
    """Keys of the spec."""
    item: str = ITEM


def make_release(where: Path, made: Made) -> Release:
    """Write everything that the documents of a release are made from."""
    release = Release(str(where))
    grid = UtmGrid(made.size * made.gsd)
    decided = _fingerprint(made)
    area = shapely.union_all([shapely.box(*box) for box in made.boxes])
    embedded = expected = 0
    counts: dict[str, int] = {}
    for zone in expected_cells(grid, area, rule="intersects"):
        epsg, row, col = (part[: made.limit] for part in zone.cells())
        tables = []
        for number, text in enumerate(made.windows):
            window = Window.parse(text)
            reasons = _reasons(row, col, made.missing, number)
            tables.append(_coverage(grid, (epsg, row, col), window, reasons, made.item))
            expected += len(row)
            for reason in reasons[reasons != ""]:
                counts[reason] = counts.get(reason, 0) + 1
            there = np.flatnonzero(reasons == "")
            embedded += len(there)
            _write_files(release, grid, (epsg[there], row[there], col[there]), window, made)
        coverage = pa.concat_tables(tables).sort_by([("epsg", "ascending"), ("row", "ascending"), ("col", "ascending")])
        write_table(release.store, f"{paths.COVERAGE}/zone={zone.zone:02d}.parquet", coverage)
    write_codes(release, decided, wanted=made.codes)
    _documents(release, made, decided, {"expected": expected, "embedded": embedded, **counts}, area)
    return release


def _reasons(row: np.ndarray, col: np.ndarray, share: float, seed: int) -> np.ndarray:
    patch = np.modf(np.sin(row // 3 * 12.9898 + col // 3 * 78.233 + seed) * 43758.5453)[0]
    patch = np.abs(patch)
    reasons = np.where(patch < share / 2, "cloud", np.where(patch < share, "no_imagery", "")).astype(object)
    return np.asarray(reasons)


def _write_files(release: Release, grid: UtmGrid, cells: Any, window: Window, made: Made) -> None:
    epsg, row, col = cells
    if not len(row):
        return
    east = np.floor_divide((col + 0.5) * grid.cell, SQUARE).astype(int)
    north = np.floor_divide((row + 0.5) * grid.cell, SQUARE).astype(int)
    for column, line in np.unique(np.stack([east, north], axis=1), axis=0).tolist():
        mine = np.flatnonzero((east == column) & (north == line))
        file = DataFile(Square(int(epsg[0]) % 100, column, line), window)
        table = _rows(grid, (epsg[mine], row[mine], col[mine]), window, made)
        write_table(release.store, f"{paths.EMBEDDINGS}/{file.name}", table)


def _vectors(lon: np.ndarray, lat: np.ndarray, dimensions: int) -> np.ndarray:
    rng = np.random.default_rng(7)
    waves = rng.normal(size=(dimensions, 2)) * 3
    phase = rng.uniform(0, 6.28, dimensions)
    strength = 1 / (1 + np.arange(dimensions))
    smooth = np.sin(np.stack([lon, lat], axis=1) @ waves.T + phase) * strength
    noise = np.sin(lon * 7919)[:, None] * np.cos(lat * 6101)[:, None] * rng.normal(size=dimensions) * 0.1
    return (smooth + noise + 0.5).astype(np.float32)


def _rows(grid: UtmGrid, cells: Any, window: Window, made: Made) -> pa.Table:
    epsg, row, col = cells
    count = len(row)
    shapes = grid.footprints(epsg, row, col)
    lon, lat = grid.centers(epsg, row, col)
    vectors = _vectors(lon, lat, made.dimensions)
    schema = embeddings_schema(made.dimensions, made.dtype, thumbnails=made.thumbnails)  # type: ignore[arg-type]
    boxes = bbox_array(shapes)
    values: dict[str, Any] = {
        "id": _ids(grid, cells, window),
        "geometry": list(shapely.to_wkb(shapes)),
        "bbox": boxes,
        "datetime": [window.middle] * count,
        "start_datetime": [window.start] * count,
        "end_datetime": [window.end] * count,
        "lon": lon,
        "lat": lat,
        "loss": (0.2 + 0.1 * np.sin(lon * 3)).astype(np.float32),
        "valid_fraction": np.ones(count, np.float32),
        "cloud_fraction": np.abs(np.sin(lat * 5)).astype(np.float32),
        "item_id": [made.item] * count,
        "item_ids": [[made.item]] * count,
        "epsg": epsg,
        "row": row,
        "col": col,
    }
    if made.dtype == "int8":
        scale = (np.abs(vectors).max(axis=1) / 127).astype(np.float32)
        values["scale"] = scale
        vectors = np.rint(vectors / scale[:, None]).astype(np.int8)
    kind = schema.field("embedding").type
    values["embedding"] = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1).astype(made.dtype)), type=kind)
    if made.thumbnails:
        values["thumbnail"] = [{"bytes": _picture(x, y), "path": None} for x, y in zip(lon, lat, strict=True)]
    sides = np.stack([boxes.field(name).to_numpy() for name in ("xmin", "ymin", "xmax", "ymax")], axis=1)
    footer = {
        "geo": json.dumps(geo_metadata({"Polygon"}, total_bbox(sides))),
        "emb": json.dumps(footer_emb(_fingerprint(made), made.gsd)),
        "huggingface": json.dumps({"info": {"features": hugging_face_features(schema)}}),
    }
    arrays = [
        values[n] if isinstance(values[n], pa.Array) else pa.array(values[n], schema.field(n).type)
        for n in schema.names
    ]
    return pa.Table.from_arrays(arrays, schema=schema.with_metadata(footer))


def _picture(lon: float, lat: float) -> bytes:
    import io

    color = tuple(int(127 + 120 * np.sin(v)) for v in (lon * 40, lat * 40, lon * lat))
    made = io.BytesIO()
    Image.new("RGB", (16, 16), color).save(made, "PNG")
    return made.getvalue()


def _ids(grid: UtmGrid, cells: Iterable[np.ndarray], window: Window) -> list[str]:
    return [grid.chip_id(e, r, c, window) for e, r, c in zip(*(part.tolist() for part in cells), strict=True)]


def _coverage(grid: UtmGrid, cells: Any, window: Window, reasons: np.ndarray, item: str) -> pa.Table:
    epsg, row, col = cells
    count, schema = len(row), coverage_schema()
    values = {
        "id": _ids(grid, cells, window),
        "epsg": epsg,
        "row": row,
        "col": col,
        "window_start": [window.start] * count,
        "window_end": [window.end] * count,
        "status": ["missing" if reason else "embedded" for reason in reasons],
        "reason": [reason or None for reason in reasons],
        "item_ids": [[item]] * count,
        "detail": ["97 % under cloud" if reason == "cloud" else None for reason in reasons],
    }
    return pa.Table.from_arrays([pa.array(v, schema.field(n).type) for n, v in values.items()], schema=schema)


def _fingerprint(made: Made) -> Fingerprint:
    return Fingerprint(
        encoder="random-features",
        encoder_version="1",
        model_name="Random features",
        model_link="https://example.org/model",
        weights_sha256="0" * 64,
        dimensions=made.dimensions,
        parameters={},
        sensor="sentinel-2-l2a",
        bands=(BandStatistics(name="red", mean=1, std=1, wavelength=0.66),),
        layout="utm",
        size=made.size,
        gsd=made.gsd,
        scale=SCALE_RULE,
        mask=mask_rule(sensor("sentinel-2-l2a"), None),
        composite=composite_rule("utm"),
        resampling="none",
        nodata="none",
        padding="none",
        metadata="none",
        precision="float32",
        dtype=made.dtype,
    )


def _documents(release: Release, made: Made, decided: Fingerprint, counts: dict[str, int], area: Any) -> None:
    spec = Spec.model_validate(
        {
            "name": "made",
            "version": "1.0.0",
            "released": "2026-01-01",
            "imagery": {
                "stac": "items",
                "sensor": "sentinel-2-l2a",
                "area": list(made.boxes[0]),
                "windows": list(made.windows),
            },
            "chips": {"layout": "utm", "size": made.size, "gsd": made.gsd},
            **made.texts,
        }
    )
    release.store.write(paths.SPEC, dump_spec(spec.published()))
    release.store.write(paths.GAPS, json.dumps({"type": "FeatureCollection", "features": []}))
    source = {field.name: None for field in sources_schema()} | {
        "id": made.item,
        "block": 0,
        "status": "used",
        "geometry": shapely.to_wkb(area.buffer(0.1)),
        "datetime": Window.parse(made.windows[0]).middle,
        "bands": [{"name": "red", "asset": "red", "band": 1, "scale": 1e-4, "offset": 0.0, "source": "sensor"}],
        "license": "CC0-1.0",
        "assets": [{"key": "red"}],
    }
    write_table(release.store, paths.SOURCES, pa.Table.from_pylist([source], schema=sources_schema()))
    record = RunRecord(
        fingerprint=decided,
        plan_sha256="0" * 64,
        libraries={"pyarrow": pa.__version__},
        coverage=counts,
    )
    release.store.write(RUN_RECORD, record.model_dump_json())


MADE = {
    "one": Made(boxes=((10.0001, 50.0001, 10.0002, 50.0002),), limit=1, thumbnails=True),
    "antimeridian": Made(boxes=((179.5, -17.5, 180, -17), (-180, -17.5, -179.5, -17)), gsd=20, missing=0.1),
    "hemispheres": Made(boxes=((9.5, -0.4, 10.3, 0.4),), gsd=40, dtype="int8", dimensions=64, thumbnails=True),
    "windows": Made(
        boxes=((5, 45, 6, 45.6),), gsd=40, missing=0.2, windows=("2023-01-01/2023-02-01", "2023-06-01/2023-07-01")
    ),
    "codes": Made(boxes=((5.4, 45, 6.6, 46),), gsd=20, dimensions=512, missing=0.05, codes=True),
    "large": Made(boxes=((2, 46, 5.0, 47.6),), dimensions=128, missing=0.05, codes=True),
}
"""Releases that several tests look at."""


def explorer_release(name: str, folder: Path, shape: Made | None = None) -> Path:
    """A release of that name below `folder`, with its explorer."""
    release = make_release(folder / name / "1.0.0", shape or MADE[name])
    write_items(release)
    write_explorer(release, read_facts(release), "@misc{made}")
    return Path(release.store.where)
