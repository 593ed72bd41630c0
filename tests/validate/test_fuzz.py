"""Whatever lies in a release: a verdict or one clear error, never a traceback, and little memory."""

import io
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from clay_publish.release.directory import Release
from clay_publish.release.findings import ValidationReport
from clay_publish.release.tables import embeddings_schema, hugging_face_features

pytestmark = pytest.mark.slow

Look = Callable[[str, bytes], None]
FUZZ = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
SLOW = ("RDR003", "RDR004", "RDR005", "DOC005", "SCH011")
"""Rules that call other people's readers."""
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KEYS = (
    "files",
    "run",
    "links",
    "assets",
    "extent",
    "stac_extensions",
    "features",
    "imagery",
    "name",
    "version",
    "chips",
)
DOCUMENTS = st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=8), VALUES, max_size=8)


def _picture(kind: str) -> bytes:
    made = io.BytesIO()
    Image.linear_gradient("L").resize((16, 16)).convert("RGB").save(made, kind)
    return made.getvalue()


NAMES = ("collection.json", "manifest.json", "model.json", "gaps.geojson", "croissant.json")


@pytest.fixture(scope="module")
def ground(good: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(good("small"), tmp_path_factory.mktemp("fuzz") / "release"))


@pytest.fixture
def with_file(ground: Path, verdict: Callable[..., object]) -> Look:
    """Validate the release with one file replaced."""

    def look(name: str, data: bytes) -> None:
        kept = (ground / name).read_bytes()
        try:
            (ground / name).write_bytes(data)
            verdict(ground, skip=SLOW)
        finally:
            (ground / name).write_bytes(kept)

    return look


@FUZZ
@given(name=st.sampled_from(NAMES), document=DOCUMENTS)
def test_json_of_any_shape(with_file: Look, name: str, document: object) -> None:
    with_file(name, json.dumps(document).encode())


@FUZZ
@given(name=st.sampled_from(["release.yaml", "CITATION.cff"]), document=DOCUMENTS, text=st.text(max_size=60))
def test_yaml_of_any_shape(ground: Path, with_file: Look, name: str, document: object, text: str) -> None:
    whole = yaml.safe_load((ground / name).read_text())
    written = yaml.safe_dump({**whole, **document} if isinstance(document, dict) else document, allow_unicode=True)
    with_file(name, (written + (f"\n{text}" if text[:1] in "#&*!" else "")).encode("utf-8", "surrogatepass"))


@FUZZ
@given(
    name=st.sampled_from(["data", "sources.parquet", "items.parquet", "coverage"]),
    places=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=6),
    tail=st.booleans(),
)
def test_parquet_with_flipped_bytes(
    ground: Path, with_file: Look, name: str, places: list[tuple[float, int]], *, tail: bool
) -> None:
    release = Release(str(ground))
    path = {"data": release.data_files()[0], "coverage": release.data_files("coverage")[0]}.get(name, name)
    data = bytearray((ground / path).read_bytes())
    (length,) = struct.unpack("<I", data[-8:-4])
    low = len(data) - 8 - length if tail else 4
    for place, value in places:
        data[low + int(place * (len(data) - 9 - low))] = value
    with_file(path, bytes(data))


@FUZZ
@given(
    key=st.sampled_from(["geo", "emb", "huggingface"]),
    value=st.binary(max_size=40) | VALUES.map(lambda v: json.dumps(v).encode()),
)
def test_footers_of_any_kind(ground: Path, with_file: Look, key: str, value: bytes) -> None:
    path = Release(str(ground)).data_files()[0]
    table = pq.read_table(ground / path, partitioning=None)
    metadata = {**(table.schema.metadata or {}), key.encode(): value}
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(metadata), sink)
    with_file(path, sink.getvalue().to_pybytes())


SEEDS = {
    "wkb": [
        shapely.to_wkb(shapely.box(0, 0, 1, 1)),
        shapely.to_wkb(shapely.MultiPolygon([shapely.box(179, 0, 180, 1), shapely.box(-180, 0, -179, 1)])),
        shapely.to_wkb(shapely.from_wkt("POLYGON ((0 0, 1 1, 1 0, 0 1, 0 0), (2 2, 3 3, 3 2, 2 2))")),
        shapely.to_wkb(shapely.Point(0, 0, 0), output_dimension=3, include_srid=True),
        shapely.to_wkb(shapely.from_wkt("GEOMETRYCOLLECTION (GEOMETRYCOLLECTION (POINT (1 2)), POLYGON EMPTY)")),
        b"\x01\x03\x00\x00\x00\x01\x00\x00\x00\xff\xff\xff\xff" + b"\x00" * 64,
        b"\x01\x07\x00\x00\x00\x01\x00\x00\x00" * 30_000,
        b"",
    ],
    "image": [_picture(kind) for kind in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP")]
    + [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"RIFF"],
}
"""What mutations begin with: one of each kind, and what has crashed a reader before."""


@st.composite
def mutated(draw: st.DrawFn, kind: str) -> bytes:
    """A seed with some bytes replaced, removed or repeated."""
    data = bytearray(draw(st.sampled_from(SEEDS[kind])))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, max(len(data) - 1, 0)))
        part = draw(st.binary(max_size=8))
        end = place + draw(st.sampled_from([0, 1, len(part), 8]))
        data[place:end] = draw(st.sampled_from([part, bytes(data[place:end]) * 3]))
    return bytes(data)


def _with_column(ground: Path, name: str, values: list[object], kind: pa.DataType) -> tuple[str, bytes]:
    """The embeddings file with a column replaced or added."""
    path = Release(str(ground)).data_files()[0]
    table = pq.read_table(ground / path, partitioning=None)
    column = pa.array([*values, *[values[-1]] * (len(table) - len(values))], kind)
    place = table.schema.get_field_index(name)
    made = table.append_column(name, column) if place < 0 else table.set_column(place, table.schema.field(name), column)
    features = {"info": {"features": hugging_face_features(made.schema)}}
    metadata = {**(table.schema.metadata or {}), b"huggingface": json.dumps(features).encode()}
    sink = pa.BufferOutputStream()
    pq.write_table(made.replace_schema_metadata(metadata), sink, write_page_checksum=True)
    return path, sink.getvalue().to_pybytes()


@FUZZ
@given(shapes=st.lists(mutated("wkb"), min_size=1, max_size=20))
def test_geometries_of_any_bytes(ground: Path, with_file: Look, shapes: list[bytes]) -> None:
    with_file(*_with_column(ground, "geometry", [*shapes], pa.binary()))


@FUZZ
@given(pictures=st.lists(mutated("image"), min_size=1, max_size=4))
def test_thumbnails_of_any_bytes(ground: Path, verdict: Callable[..., object], pictures: list[bytes]) -> None:
    kind = embeddings_schema(1, "int8", thumbnails=True).field("thumbnail").type
    stored: list[object] = [{"bytes": picture, "path": None} for picture in pictures]
    path, data = _with_column(ground, "thumbnail", stored, kind)
    kept = (ground / path).read_bytes()
    try:
        (ground / path).write_bytes(data)
        report = verdict(ground, only=("RDR005", "SCH"))
        assert isinstance(report, ValidationReport)
    finally:
        (ground / path).write_bytes(kept)


@FUZZ
@given(edits=st.dictionaries(st.sampled_from(["id", "links", "assets", "bbox", "geometry"]), VALUES, min_size=1))
def test_items_of_any_shape(ground: Path, with_file: Look, edits: dict[str, object]) -> None:
    table = pq.read_table(ground / "items.parquet")
    for name, value in edits.items():
        try:
            column = pa.array([value] * len(table))
        except (pa.ArrowException, OverflowError):
            continue
        table = table.set_column(table.schema.get_field_index(name), name, column)
    sink = pa.BufferOutputStream()
    try:
        pq.write_table(table, sink)
    except pa.ArrowException:
        return  # a type that Parquet cannot hold
    with_file("items.parquet", sink.getvalue().to_pybytes())
