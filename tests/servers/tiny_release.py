"""Small releases written with the core alone, so that the catalog is tested apart from the producer."""

import json
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import shapely
import yaml
from pystac.validation.stac_validator import JsonSchemaSTACValidator

from clay_publish.geo.footprints import centers, footprints
from clay_publish.geo.utm_zones import Square
from clay_publish.release import directory as paths
from clay_publish.release import metadata
from clay_publish.release.directory import DataFile, Release
from clay_publish.release.fingerprint import SCALE_RULE, Fingerprint, composite_rule, mask_rule
from clay_publish.release.geoparquet import bbox_array, geo_metadata, total_bbox, write_table
from clay_publish.release.manifest import RUN_RECORD, RunRecord
from clay_publish.release.tables import ARROW_DTYPES, coverage_schema, embeddings_schema, sources_schema
from clay_publish.spec.sensors import BandStatistics, sensor
from clay_publish.validate.data.stac_schemas import known
from clay_publish.windows import Window

WINDOW = Window(datetime(2023, 1, 1, tzinfo=UTC), datetime(2023, 2, 1, tzinfo=UTC))
DIMENSIONS = 8
SIDE = 1280.0


@dataclass
class Part:
    """Chips of one file: cells of the utm grid, and those that are missing."""

    square: Square
    cells: Sequence[tuple[int, int]]
    window: Window = WINDOW
    missing: Sequence[tuple[int, int, str]] = ()
    items: Sequence[str] = ("scene-1",)
    times: Sequence[datetime] = (datetime(2023, 1, 10, 10, 30, tzinfo=UTC),)


@dataclass
class Recipe:
    """What a made release is to be."""

    parts: Sequence[Part] = ()
    dtype: str = "float32"
    spec: dict[str, Any] = field(default_factory=dict)
    hrefs: dict[str, str | None] = field(default_factory=dict)


def fingerprint(dtype: str) -> Fingerprint:
    band = BandStatistics(name="red", mean=1.5, std=2, wavelength=0.66)
    return Fingerprint(
        encoder="random-features",
        encoder_version="1",
        model_name="Random convolutional features (MOSAIKS)",
        model_link="https://doi.org/10.1038/s41467-021-24638-z",
        weights_sha256="0" * 64,
        dimensions=DIMENSIONS,
        parameters={"seed": 0, "filters": 4},
        sensor="sentinel-2-l1c",
        bands=(band,),
        layout="utm",
        size=128,
        gsd=10,
        scale=SCALE_RULE,
        mask=mask_rule(sensor("sentinel-2-l1c"), None),
        composite=composite_rule("utm"),
        resampling="nearest",
        nodata="0",
        padding="none",
        metadata="none",
        precision="float32",
        dtype=dtype,  # type: ignore[arg-type]
    )


def write_part(release: Release, part: Part, dtype: str, start: int) -> None:
    decided = fingerprint(dtype)
    south = part.square.row < 0
    epsg = part.square.epsg
    row, col = (np.array(numbers, dtype=np.int64) for numbers in zip(*part.cells, strict=True))
    base = 10_000_000.0 if south else 0.0
    x0, y0 = col * SIDE, base + row * SIDE
    corners = np.stack(
        [np.stack([x0 + dx, y0 + dy], axis=-1) for dx, dy in ((0, 0), (SIDE, 0), (SIDE, SIDE), (0, SIDE))], axis=1
    )
    geometry = footprints(f"EPSG:{epsg}", corners)
    lon, lat = centers(f"EPSG:{epsg}", x0 + SIDE / 2, y0 + SIDE / 2)
    count = len(row)
    vectors = np.random.default_rng(start).normal(size=(count, DIMENSIONS)).astype(np.float32)
    values = vectors if dtype != "int8" else np.clip(np.round(vectors * 40), -127, 127)
    kind = ARROW_DTYPES[dtype]
    times = [part.times[n % len(part.times)] for n in range(count)]
    table_schema = embeddings_schema(DIMENSIONS, dtype)  # type: ignore[arg-type]
    item = [part.items[n % len(part.items)] for n in range(count)]
    columns: dict[str, Any] = {
        "id": [f"utm-1280m_{epsg}_{r}_{c}_{part.window.token}" for r, c in part.cells],
        "geometry": shapely.to_wkb(geometry),
        "bbox": bbox_array(geometry),
        "datetime": times,
        "start_datetime": times,
        "end_datetime": times,
        "lon": lon,
        "lat": lat,
        "embedding": pa.FixedSizeListArray.from_arrays(
            pa.array(values.astype(kind.to_pandas_dtype()).ravel()), type=table_schema.field("embedding").type
        ),
        "scale": np.full(count, 1 / 40, dtype=np.float32),
        "loss": pa.nulls(count, pa.float32()),
        "valid_fraction": np.ones(count, dtype=np.float32),
        "cloud_fraction": np.zeros(count, dtype=np.float32),
        "item_id": item,
        "item_ids": [[name] for name in item],
        "epsg": np.full(count, epsg, dtype=np.int32),
        "row": row.astype(np.int32),
        "col": col.astype(np.int32),
    }
    arrays = [pa.array(columns[f.name], f.type) for f in table_schema]
    boxes = np.array([list(box.values()) for box in columns["bbox"].to_pylist()])
    kinds = {one.geom_type for one in geometry}
    footer = {"geo": geo_metadata(kinds, total_bbox(boxes)), "emb": metadata.footer_emb(decided, 10.0)}
    keys = {name: json.dumps(value) for name, value in footer.items()}
    table = pa.Table.from_arrays(arrays, schema=table_schema.with_metadata(keys))
    write_table(release.store, f"{paths.EMBEDDINGS}/{DataFile(part.square, part.window).name}", table)


def coverage_rows(part: Part) -> list[dict[str, Any]]:
    epsg = part.square.epsg
    cells = [(r, c, None) for r, c in part.cells] + list(part.missing)
    return [
        {
            "id": f"utm-1280m_{epsg}_{r}_{c}_{part.window.token}",
            "epsg": epsg,
            "row": r,
            "col": c,
            "window_start": part.window.start,
            "window_end": part.window.end,
            "status": "missing" if reason else "embedded",
            "reason": reason,
            "item_ids": ["scene-1"],
            "detail": None,
        }
        for r, c, reason in cells
    ]


def write_release(folder: Path, recipe: Recipe) -> Release:
    release = Release(str(folder))
    for place, part in enumerate(recipe.parts):
        write_part(release, part, recipe.dtype, place)
    for zone in sorted({part.square.zone for part in recipe.parts}):
        rows = [row for part in recipe.parts if part.square.zone == zone for row in coverage_rows(part)]
        path = f"{paths.COVERAGE}/zone={zone:02d}.parquet"
        write_table(release.store, path, pa.Table.from_pylist(rows, schema=coverage_schema()))
    names = sorted({name for part in recipe.parts for name in part.items})
    sources = [
        {
            **dict.fromkeys(sources_schema().names),
            "id": name,
            "block": 0,
            "status": "used",
            "bands": [{"name": "red", "asset": "red", "band": 1, "scale": 1e-4, "offset": 0.0, "source": "sensor"}],
            "license": "CC-BY-4.0",
            "attribution": "Contains modified Copernicus Sentinel data.",
            "href": recipe.hrefs.get(name, f"https://example.org/stac/{name}.json"),
            "assets": [{"key": "red"}],
        }
        for name in names
    ]
    write_table(release.store, paths.SOURCES, pa.Table.from_pylist(sources, schema=sources_schema()))
    spec = {
        "name": "tiny-release",
        "released": "2026-01-02",
        "imagery": [{"stac": "https://example.org/stac", "sensor": "sentinel-2-l1c", "collections": ["imagery"]}],
        "outputs": {"dtype": recipe.dtype},
        **recipe.spec,
    }
    release.store.write(paths.SPEC, yaml.safe_dump(spec))
    release.store.write(paths.GAPS, '{"type": "FeatureCollection", "features": []}')
    embedded = sum(len(part.cells) for part in recipe.parts)
    missing = [reason for part in recipe.parts for *_, reason in part.missing]
    counts = {"expected": embedded + len(missing), "embedded": embedded}
    run = RunRecord(
        fingerprint=fingerprint(recipe.dtype),
        plan_sha256="1" * 64,
        libraries={"torch": "2.13.0+cpu"},
        coverage=counts | {reason: missing.count(reason) for reason in sorted(set(missing))},
    )
    release.store.write(RUN_RECORD, run.model_dump_json())
    return release


MakeRelease = Callable[..., Release]


@pytest.fixture
def make_release(tmp_path: Path) -> MakeRelease:
    """Write a release of some parts; keywords as those of `Recipe`."""

    def make(*parts: Part, **more: Any) -> Release:
        return write_release(tmp_path / "tiny" / "1.0.0", Recipe(parts or default_parts(), **more))

    return make


def default_parts() -> list[Part]:
    """Three files: Virginia twice, and one south of the equator, 26 chips."""
    shore = Square(18, 4, 41)
    cells = [(3240 + r, 330 + c) for r in range(4) for c in range(3)]
    second = Window(datetime(2023, 7, 1, tzinfo=UTC), datetime(2023, 8, 1, tzinfo=UTC))
    july = (datetime(2023, 7, 4, 10, tzinfo=UTC), datetime(2023, 7, 9, 10, tzinfo=UTC))
    return [
        Part(shore, cells, missing=[(3239, 330, "cloud"), (3238, 330, "cloud"), (3239, 331, "nodata")]),
        Part(shore, cells[:10], second, items=("scene-2", "scene-3"), times=july),
        Part(Square(34, 5, -3), [(-200 + r, 400 + c) for r in range(2) for c in range(2)], items=("scene-4",)),
    ]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """The default release, cataloged. Read only."""
    from clay_publish.catalog import write_collection, write_items

    release = write_release(tmp_path_factory.mktemp("tiny") / "tiny" / "1.0.0", Recipe(default_parts()))
    write_items(release)
    write_collection(release)
    return release


@pytest.fixture
def part() -> type[Part]:
    """The class, for tests that say which chips."""
    return Part


@pytest.fixture(scope="session")
def validator() -> JsonSchemaSTACValidator:
    """pystac's validator, offline, knowing every extension a release declares."""
    made = JsonSchemaSTACValidator()
    made.schema_cache |= known()
    return made


@dataclass
class Served:
    """A folder on a loopback web server, and what was asked of it."""

    address: str
    requests: list[tuple[str, int]] = field(default_factory=list)
    """Path and bytes sent, in order."""
    failures: list[int] = field(default_factory=list)
    """Status codes of the next answers, instead of what was asked for."""

    def sent(self, beginning: str = "/") -> int:
        """Bytes sent from paths that begin so."""
        return sum(size for path, size in self.requests if path.startswith(beginning))


class _Ranges(SimpleHTTPRequestHandler):
    """Files with byte ranges, as object stores serve them."""

    served: Served

    def do_GET(self) -> None:
        file = Path(self.translate_path(self.path))
        if not file.is_file() or self.served.failures:
            self.send_error(self.served.failures.pop(0) if self.served.failures else 404)
            return
        data = file.read_bytes()
        total = len(data)
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked:
            first, last = int(asked[1]), min(int(asked[2] or total - 1), total - 1)
            data = data[first : last + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{total}")
        else:
            self.send_response(200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        self.served.requests.append((self.path, len(data)))

    def do_HEAD(self) -> None:
        file = Path(self.translate_path(self.path))
        if not file.is_file():
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(file.stat().st_size))
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def serve() -> Iterator[Callable[[Path], Served]]:
    """Serve folders on 127.0.0.1 until the test ends."""
    servers = []

    def start(folder: Path) -> Served:
        handler = type("Handler", (_Ranges,), {})
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
        handler.served = Served(f"http://127.0.0.1:{server.server_address[1]}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return handler.served

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
