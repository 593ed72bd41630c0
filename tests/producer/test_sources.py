"""Where items come from: an API on loopback, catalogs, files, stac-geoparquet."""

import copy
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
from affine import Affine
from fault_proxy import FaultProxy
from image_server import ImageServer
from s3_servers import KEY, SECRET, start_ministack, with_client
from shapely import box
from stac_server import Memory, collection, stac_server

from clay_publish.errors import LicenseError, SourceError, SpecError
from clay_publish.producer.imagery import pixel_evidence
from clay_publish.producer.imagery.raster import open_bands
from clay_publish.producer.imagery.remote import external_masks
from clay_publish.producer.outputs import sources_table
from clay_publish.producer.outputs.sources_table import write_sources
from clay_publish.producer.produce import produce
from clay_publish.producer.sources.item import BandFile
from clay_publish.producer.sources.reader import read_items
from clay_publish.producer.sources.selection import sample_of, select, terms
from clay_publish.producer.sources.stac_api import Search
from clay_publish.producer.sources.stac_item import source_item
from clay_publish.release.directory import SOURCES, Release
from clay_publish.spec.load import resolve_spec
from clay_publish.spec.models import ChipSpec, Spec
from clay_publish.spec.sensors import sensor
from clay_publish.storage import retry
from clay_publish.windows import Window

FILES = {
    "antimeridian/S2A_T60VXH_20230805.json": 1,
    "antimeridian/S2B_T01VCG_20230512.json": 1,
    "earth_search/sentinel-2-c1-l2a_10items_T13TDE.itemcollection.json": 10,
    "earth_search/sentinel-2-c1-l2a_S2A_T36MVD_20210414_stac1.1.json": 1,
    "earth_search/sentinel-2-l2a_S2A_33TWM_20230818_offset-0.1.json": 1,
    "planetary_computer/landsat-c2-l2-pc.itemlist.json": 4,
    "planetary_computer/naip-pc.itemlist.json": 4,
    "planetary_computer/sentinel-1-rtc-pc.itemlist.json": 4,
    "planetary_computer/sentinel-2-l2a-pc.itemlist.json": 4,
    "sentinel1_rtc_aws/S1A_20200103_17RMJ_ASC.json": 1,
    "stac_geoparquet/100-landsat-items.parquet": 100,
    "stac_geoparquet/100-sentinel-2-items.parquet": 100,
    "stacchip_tests/landsat-c2l2-sr-LC09_L2SR_086107_20240311_20240312_02_T2_SR.json": 1,
    "stacchip_tests/naip_m_4207009_ne_19_060_20211024.json": 1,
    "stacchip_tests/sentinel-2-l2a-S2A_T20HNJ_20240311T140636_L2A.json": 1,
    "usgs_landsatlook/LC08_L2SP_028030_20200114_20200824_02_T1_SR.json": 1,
}
S2 = "stac_geoparquet/100-sentinel-2-items.parquet"
CLEAR = {"eo:cloud_cover": {"lt": 20}, "platform": "Sentinel-2B"}
CQL2 = {
    "op": "and",
    "args": [
        {"op": "<", "args": [{"property": "eo:cloud_cover"}, 20]},
        {"op": "=", "args": [{"property": "platform"}, "Sentinel-2B"]},
    ],
}


@pytest.fixture(autouse=True)
def _patient_but_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many tries as ever, no waiting between them."""
    monkeypatch.setattr(retry, "DEFAULT", retry.RetryPolicy(first=0.001))


@pytest.fixture(scope="session")
def hundred(shared_data: Path) -> list[dict[str, Any]]:
    return [found.document for found in read_items(str(shared_data / "stac_items" / S2))]


@pytest.fixture
def items(hundred: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A hundred real Sentinel-2 items."""
    return copy.deepcopy(hundred)


@pytest.fixture
def memory(items: list[dict[str, Any]]) -> Memory:
    return Memory(items=items, collections={"sentinel-2-l2a": collection("sentinel-2-l2a")})


@pytest.fixture
def http(tmp_path: Path) -> Iterator[str]:
    """The temporary folder over http."""
    with ImageServer(tmp_path) as server:
        yield server.url


def a_spec(stac: str | list[str], sensor_key: str = "sentinel-2-l2a", *, layout: str = "utm", **imagery: Any) -> Spec:
    block = {"stac": stac, "sensor": sensor_key, **imagery}
    document = {"name": "t", "imagery": block, "chips": {"layout": layout}}
    return resolve_spec(document, where="release.yaml", folder=Path("/"))


def used(spec: Spec, area: Any = None) -> list[str]:
    chosen = select(spec, sensor(spec.sensor), [area])
    return sorted(each.item.id for each in chosen.considered if each.status == "used")


def ids(where: str, search: Search | None = None) -> list[str]:
    return sorted(found.document["id"] for found in read_items(where, search))


@pytest.mark.parametrize(("file", "count"), FILES.items())
def test_every_real_item_file_is_read(shared_data: Path, file: str, count: int) -> None:
    found = list(read_items(str(shared_data / "stac_items" / file)))
    assert len(found) == count
    assert all(each.document["type"] == "Feature" and each.document["assets"] for each in found)


def test_items_of_a_table_are_as_those_of_json(items: list[dict[str, Any]]) -> None:
    """No nulls where the item had nothing, dates as text, geometry as GeoJSON."""
    (one, *_) = items
    assert pystac.Item.from_dict(one).datetime is not None
    assert one["geometry"]["type"] == "Polygon"
    assert None not in one["assets"]["B02"].values()


def test_an_api_is_read_page_by_page(memory: Memory, items: list[dict[str, Any]]) -> None:
    memory.page = 7
    with stac_server(memory) as address:
        assert ids(address) == sorted(item["id"] for item in items)
    assert len(memory.asked) == 15


@pytest.mark.parametrize("extensions", [("query", "filter"), ("filter",), ()])
@pytest.mark.parametrize("query", [CLEAR, CQL2])
def test_a_query_finds_the_same_whatever_the_api_can_do(
    memory: Memory, shared_data: Path, extensions: tuple[str, ...], query: dict[str, Any]
) -> None:
    here = used(a_spec(str(shared_data / "stac_items" / S2), query=query))
    assert 0 < len(here) < 100
    with stac_server(memory, extensions) as address:
        assert used(a_spec(address, query=query)) == here
        sent = sum(1 for asked in memory.asked if "query" in asked or "filter" in asked)
    assert bool(sent) == bool(extensions)


def test_each_window_is_a_question_of_its_own(memory: Memory) -> None:
    windows = (Window.parse("2024-10-01/2024-11-01"), Window.parse("2024-12-01/2025-01-01"))
    with stac_server(memory) as address:
        found = list(read_items(address, Search(windows=windows)))
    spans = sorted(asked["datetime"] for asked in memory.asked if "token" not in asked)
    assert spans == ["2024-10-01T00:00:00Z/2024-11-01T00:00:00Z", "2024-12-01T00:00:00Z/2025-01-01T00:00:00Z"]
    months = {each.document["properties"]["datetime"][:7] for each in found}
    assert months == {"2024-10", "2024-12"}


def test_the_area_is_asked_for_and_of_a_long_outline_the_bounds(memory: Memory) -> None:
    near, far = box(-105.2, 40.0, -105.0, 40.2), box(10, 50, 11, 51)
    with stac_server(memory) as address:
        assert ids(address, Search(area=near))
        assert ids(address, Search(area=far)) == []
        assert ids(address, Search(area=far.centroid.buffer(1, quad_segs=500))) == []
    assert [("intersects" in asked, "bbox" in asked) for asked in memory.asked if "token" not in asked] == [
        (True, False),
        (True, False),
        (False, True),
    ]


def test_the_terms_of_a_collection_count(memory: Memory) -> None:
    memory.collections["sentinel-2-l2a"]["license"] = "CC-BY-NC-4.0"
    with (
        stac_server(memory) as address,
        pytest.raises(LicenseError, match=r"collection sentinel-2-l2a: is under CC-BY-NC"),
    ):
        used(a_spec(address))


def test_unknown_terms_leave_the_usual_ones_of_the_sensor(memory: Memory) -> None:
    with stac_server(memory) as address:
        chosen = select(a_spec(address), sensor("sentinel-2-l2a"), [None])
    assert {each.item.license for each in chosen.considered} == {"LicenseRef-Copernicus"}


@pytest.mark.parametrize("action", ["status:503", "status:429", "status:500", "reset"])
def test_an_api_that_stumbles_is_asked_again(memory: Memory, items: list[dict[str, Any]], action: str) -> None:
    with stac_server(memory) as address, FaultProxy(address.rstrip("/")) as proxy:
        proxy.fail(lambda request: request.method == "POST", action, times=3)
        assert ids(proxy.address) == sorted(item["id"] for item in items)


@pytest.mark.parametrize("action", ["status:503", "status:429", "status:500", "reset"])
def test_an_api_that_stays_down_is_said_to(memory: Memory, action: str) -> None:
    with stac_server(memory) as address, FaultProxy(address.rstrip("/")) as proxy:
        proxy.fail(lambda request: request.method == "POST", action, times=99)
        with pytest.raises(SourceError, match="cannot be searched"):
            ids(proxy.address)
        assert sum(1 for request in proxy.requests if request.method == "POST") == 5


def test_an_api_that_refuses_is_not_asked_again(memory: Memory) -> None:
    with stac_server(memory) as address, FaultProxy(address.rstrip("/")) as proxy:
        proxy.fail(lambda request: request.method == "POST", "status:403", times=99)
        with pytest.raises(SourceError, match="cannot be searched"):
            ids(proxy.address)
        assert sum(1 for request in proxy.requests if request.method == "POST") == 1


def test_an_api_whose_answers_are_garbage_is_said_to(memory: Memory) -> None:
    with stac_server(memory) as address, FaultProxy(address.rstrip("/")) as proxy:
        proxy.fail(lambda request: request.method == "POST", "error:200:html", times=99)
        with pytest.raises(SourceError, match="not an answer of a STAC API"):
            ids(proxy.address)


def test_pages_that_never_end_are_noticed(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Memory, "_matches", lambda *_: True)
    endless = memory.post_search

    def again(search_request: Any, **kwargs: Any) -> Any:
        return endless(search_request.model_copy(update={"token": None}), **kwargs)

    monkeypatch.setattr(memory, "post_search", again)
    with stac_server(memory) as address, pytest.raises(SourceError, match="again"):
        ids(address)


def test_an_api_without_item_search_is_refused(tmp_path: Path, http: str) -> None:
    core = "https://api.stacspec.org/v1.0.0/core"
    landing = {
        "type": "Catalog",
        "id": "a",
        "stac_version": "1.0.0",
        "description": "",
        "conformsTo": [core],
        "links": [],
    }
    (tmp_path / "index.json").write_text(json.dumps(landing))
    with pytest.raises(SourceError, match="item-search"):
        ids(f"{http}/index.json")


def test_a_static_catalog_is_walked_on_disk_and_over_http(
    tmp_path: Path, http: str, items: list[dict[str, Any]]
) -> None:
    catalog = pystac.Catalog("root", "all")
    for name, some in (("one", items[:6]), ("two", items[6:20])):
        extent = pystac.Extent(pystac.SpatialExtent([[-180, -90, 180, 90]]), pystac.TemporalExtent([[None, None]]))
        child = pystac.Collection(name, name, extent, license="CC-BY-4.0")
        catalog.add_child(child)
        child.add_items([pystac.Item.from_dict({**item, "links": [], "collection": None}) for item in some])
    catalog.normalize_and_save(str(tmp_path), pystac.CatalogType.SELF_CONTAINED)
    everything = sorted(item["id"] for item in items[:20])
    assert ids(str(tmp_path / "catalog.json")) == everything
    assert ids(f"{http}/catalog.json") == everything
    assert {f.collection["license"] for f in read_items(f"{http}/catalog.json") if f.collection} == {"CC-BY-4.0"}
    next(tmp_path.glob("two/*/*.json")).unlink()
    with pytest.raises(SourceError, match="404"):
        ids(f"{http}/catalog.json")


def test_stac_geoparquet_and_item_collections_are_read_over_http(
    tmp_path: Path, http: str, shared_data: Path, items: list[dict[str, Any]]
) -> None:
    (tmp_path / "items.parquet").write_bytes((shared_data / "stac_items" / S2).read_bytes())
    (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items[:3]}))
    assert ids(f"{http}/items.parquet") == sorted(item["id"] for item in items)
    assert ids(f"{http}/items.json") == sorted(item["id"] for item in items[:3])


def test_several_sources_are_one(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    paths = []
    for number, some in enumerate((items[:5], items[5:8], items[:2])):
        paths.append(str(tmp_path / f"{number}.json"))
        Path(paths[-1]).write_text(json.dumps(some))
    assert used(a_spec(paths)) == sorted(item["id"] for item in items[:8])


def test_an_item_without_a_time_is_recorded_and_not_used(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    items[0]["properties"] |= {"datetime": None}
    (tmp_path / "items.json").write_text(json.dumps(items[:3]))
    chosen = select(a_spec(str(tmp_path / "items.json")), sensor("sentinel-2-l2a"), [None])
    assert [each.id for each in chosen.broken] == [items[0]["id"]]
    assert "has no time" in chosen.broken[0].reason
    assert len(chosen.considered) == 2


def test_the_table_of_items_is_written_some_rows_at_a_time(
    tmp_path: Path, items: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for item in items[:3]:
        item["properties"] |= {"datetime": None}
    (tmp_path / "items.json").write_text(json.dumps(items))
    spec = a_spec(str(tmp_path / "items.json"))
    chosen = select(spec, sensor("sentinel-2-l2a"), [None])
    tables = []
    for rows in (4096, 4):
        monkeypatch.setattr(sources_table, "group_rows", lambda _, rows=rows: rows)
        release = Release(str(tmp_path / str(rows)))
        write_sources(release, chosen.considered, chosen.broken, spec)
        tables.append(release.parquet(SOURCES).read())
    assert tables[0].equals(tables[1], check_metadata=True)
    names = [*(each.item.id for each in chosen.considered), *(each.id for each in chosen.broken)]
    assert tables[1]["id"].to_pylist() == names
    assert json.loads(tables[1].schema.metadata[b"geo"])["columns"]["geometry"]["geometry_types"] == ["Polygon"]


def test_the_table_has_the_evidence_that_is_kept(
    tmp_path: Path, items: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "items.json").write_text(json.dumps(items[:4]))
    spec, instrument = a_spec(str(tmp_path / "items.json")), sensor("sentinel-2-l2a")
    chosen, release = select(spec, instrument, [None]), Release(str(tmp_path / "release"))
    values = {"dtype": "uint16", "valid": 1, "minimum": 1, "p1": 1500, "p50": 2500, "p99": 3500, "maximum": 4000}
    sample = [pixel_evidence.BandSample(name=band.name, **values) for band in instrument.bands]
    monkeypatch.setattr(pixel_evidence, "take_samples", lambda *_: sample)
    for each in chosen.considered[:2]:
        pixel_evidence.examine(each.item, instrument, accept=False, release=release)
    begins_alike = pixel_evidence.evidence_path(chosen.considered[2].item).removesuffix(".json")[:-16]
    release.store.write(f"{begins_alike}{'0' * 16}.json", b"{}")
    monkeypatch.setattr(pixel_evidence, "take_samples", None)
    write_sources(release, chosen.considered, [], spec)
    rows = release.parquet(SOURCES).read().to_pylist()
    assert [row["evidence"] and row["evidence"]["bands"][0]["p50"] for row in rows] == [2500, 2500, None, None]


def test_excluded_items_are_left_out_and_recorded(shared_data: Path, items: list[dict[str, Any]]) -> None:
    out = items[0]["id"]
    spec = a_spec(str(shared_data / "stac_items" / S2), exclude=[out])
    chosen = select(spec, sensor("sentinel-2-l2a"), [None])
    assert [each.item.id for each in chosen.considered if each.status == "excluded"] == [out]
    assert out not in used(spec)


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda p: p.write_text("<html>"), "not valid JSON"),
        (lambda p: p.write_text('{"type": "Topology"}'), "has type 'Topology'"),
        (lambda p: p.write_text("[1, 2]"), "holds int among its items"),
        (lambda p: p.write_text('{"type": "FeatureCollection", "features": []}'), "found 0 items"),
        (lambda p: p.write_text('{"type": "FeatureCollection", "features": {"a": 1}}'), "is not a STAC Item"),
        (lambda p: p.write_bytes(b"\xff\xfe"), "not valid JSON"),
    ],
)
def test_what_is_no_stac_is_said_to_be_none(tmp_path: Path, write: Callable[[Path], None], said: str) -> None:
    path = tmp_path / "items.json"
    write(path)
    with pytest.raises(SourceError, match=said):
        used(a_spec(str(path)))


def test_a_broken_table_is_said_to_be_broken(tmp_path: Path) -> None:
    (tmp_path / "items.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(SourceError, match="is not stac-geoparquet"):
        used(a_spec(str(tmp_path / "items.parquet")))


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"eo:cloud_cover": {"below": 20}}, "operator 'below'"),
        ({"op": "<", "args": [{"property": "eo:cloud_cover"}]}, "not a CQL2 filter"),
        ({"eo:cloud_cover": {"lt": "20"}}, "compares"),
    ],
)
def test_a_bad_query_is_refused(shared_data: Path, query: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        used(a_spec(str(shared_data / "stac_items" / S2), query=query))


@pytest.mark.parametrize(
    ("stated", "outcome"),
    [
        ("CC-BY-4.0", "CC-BY-4.0"),
        ("CC0-1.0", "CC0-1.0"),
        ("public-domain", "public-domain"),
        ("proprietary", "LicenseRef-Copernicus"),
        ("LicenseRef-Unknown", "LicenseRef-Copernicus"),
    ],
)
def test_the_terms_of_an_item_count_where_they_say_anything(
    tmp_path: Path, items: list[dict[str, Any]], stated: str, outcome: str
) -> None:
    items[0]["properties"]["license"] = stated
    (tmp_path / "items.json").write_text(json.dumps(items[:1]))
    chosen = select(a_spec(str(tmp_path / "items.json")), sensor("sentinel-2-l2a"), [None])
    assert chosen.considered[0].item.license == outcome


@pytest.mark.parametrize("stated", ["CC-BY-NC-4.0", "CC-BY-ND-4.0", "CC-BY-SA-4.0", "ODbL-1.0", "CC-BY-NC-SA-3.0-IGO"])
def test_terms_that_contradict_the_release_name_the_item(
    tmp_path: Path, items: list[dict[str, Any]], stated: str
) -> None:
    items[0]["properties"]["license"] = stated
    (tmp_path / "items.json").write_text(json.dumps(items[:1]))
    with pytest.raises(LicenseError, match=f"item {items[0]['id']}: is under {stated}"):
        used(a_spec(str(tmp_path / "items.json")))


LANDSAT = {"platform": "LANDSAT_8", "landsat:scene_id": "LC80900802023010LGN00", "landsat:wrs_path": "090"}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"s2:datatake_id": "GS2A_A_N05.00"}, {"s2:datatake_id": "GS2A_A_N02.14"}, True),
        ({"s2:datatake_id": "GS2A_A_N05.00"}, {"eopf:datatake_id": "GS2A_A_N05.00", "platform": "Sentinel-2A"}, True),
        ({"s2:datatake_id": "GS2A_A_N05.00"}, {"s2:datatake_id": "GS2A_B_N05.00"}, False),
        ({}, {}, True),
        ({}, {"platform": "sentinel-2b"}, False),
        (LANDSAT, {**LANDSAT, "landsat:scene_id": "LC80900812023010LGN00"}, True),
        # The same pass, after midnight in UTC; 16 days later; the path beside it.
        (LANDSAT, {**LANDSAT, "platform": "landsat-8", "datetime": "2023-01-11T00:00:20Z"}, True),
        (LANDSAT, {**LANDSAT, "datetime": "2023-01-26T23:59:50Z"}, False),
        (LANDSAT, {**LANDSAT, "landsat:wrs_path": 91}, False),
    ],
)
def test_images_of_one_acquisition(items: list[dict[str, Any]], one: Any, other: Any, same: bool) -> None:
    """Tiles of a datatake processed apart, and rows of a Landsat path, were seen at once and count once."""
    for name in ("s2:datatake_id", "start_datetime", "end_datetime"):
        items[0]["properties"].pop(name, None)
    usual = {"platform": "sentinel-2a", "datetime": "2023-01-10T23:59:50Z"}
    made = [
        source_item(
            {**items[0], "properties": {**items[0]["properties"], **usual, **stated}},
            sensor("sentinel-2-l2a"),
            block=0,
            base=None,
        ).acquisition
        for stated in (one, other)
    ]
    assert (made[0] == made[1]) is same, made


@pytest.mark.parametrize(
    ("hours", "windows", "layout", "refused"),
    [
        (23, ["2023-06-01/2023-07-01"], "utm", False),
        (25, ["2023-06-01/2023-07-01"], "utm", True),
        (25, ["2023-06-01/2023-06-02", "2023-06-02/2023-07-01"], "utm", False),
        (25, [], "utm", False),
        (25, ["2023-06-01/2023-07-01"], "scene", False),
    ],
)
def test_images_of_one_acquisition_that_are_days_apart_are_refused(
    tmp_path: Path, items: list[dict[str, Any]], hours: int, windows: list[str], layout: str, *, refused: bool
) -> None:
    """They would be mosaicked, and dated as one: some catalog states a relative orbit as the absolute one."""
    made = []
    for number, name in enumerate(("c", "b", "a")):
        moment = datetime(2023, 6, 1, tzinfo=UTC) + timedelta(hours=hours * (number == 1))
        stated = {**items[0]["properties"], "s2:datatake_id": "GS2A_1", "datetime": moment.isoformat()}
        for end in ("start_datetime", "end_datetime"):
            stated.pop(end, None)
        made.append({**items[0], "id": name, "properties": stated})
    (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": made}))
    spec = a_spec(str(tmp_path / "items.json"), layout=layout, windows=windows)
    asked = (spec, sensor("sentinel-2-l2a"), [None])
    if refused:
        with pytest.raises(SourceError, match=r"items a and b: state one acquisition \(sentinel-2b GS2A_1\)"):
            select(*asked)
    else:
        assert {each.status for each in select(*asked).considered} == {"used"}


@pytest.mark.parametrize("layout", ["scene", "utm"])
def test_sampled_images_are_those_that_a_run_would_use(
    tmp_path: Path, items: list[dict[str, Any]], layout: str
) -> None:
    made = []
    for name, day in (("a", "2023-06-01"), ("b", "2023-06-09")):
        stated = {**items[0]["properties"], "s2:datatake_id": "GS2A_1", "datetime": f"{day}T10:00:00Z"}
        made.append(
            {**items[0], "id": name, "properties": {k: v for k, v in stated.items() if not k.endswith("_datetime")}}
        )
    (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": made}))
    imagery = {"stac": str(tmp_path / "items.json"), "sensor": "sentinel-2-l2a", "windows": ["2023-06-01/2023-07-01"]}
    spec = resolve_spec(
        {"name": "t", "imagery": imagery, "chips": {"layout": layout}}, where="release.yaml", folder=Path("/")
    )
    if layout == "utm":
        with pytest.raises(SourceError, match="state one acquisition"):
            sample_of(spec, 2)
    else:
        assert [item.id for item in sample_of(spec, 2)] == ["a", "b"]


def test_unknown_terms_stay_unknown() -> None:
    """PlanetScope's depend on the contract; the spec can say them."""
    assert terms(None, "various", sensor("planetscope-sr").license, None) is None
    assert terms(None, "various", sensor("planetscope-sr").license, "LicenseRef-Contract") == "LicenseRef-Contract"


def test_items_are_read_from_object_storage(
    tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch, items: list[dict[str, Any]]
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    table = (shared_data / "stac_items" / S2).read_bytes()
    with contextmanager(start_ministack)(tmp_path) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        place = {"LocationConstraint": "us-west-2"}
        with_client(address, lambda c: c.create_bucket(Bucket="stac", CreateBucketConfiguration=place))
        with_client(address, lambda c: c.put_object(Bucket="stac", Key="items.parquet", Body=table))
        with_client(address, lambda c: c.put_object(Bucket="stac", Key="one.json", Body=json.dumps(items[0])))
        assert ids("s3://stac/items.parquet") == sorted(item["id"] for item in items)
        assert ids("s3://stac/one.json") == [items[0]["id"]]
        with pytest.raises(SourceError, match="cannot be read"):
            ids("s3://stac/none.json")
        for name, data in masked_image(tmp_path).items():
            with_client(address, lambda c, name=name, data=data: c.put_object(Bucket="stac", Key=name, Body=data))
        file = BandFile("red", "image", "s3://stac/a.tif", 1, None, None, 1)
        masks = external_masks([file, replace(file, href="s3://stac/none.tif")], None)
        assert list(masks) == ["s3://stac/a.tif.msk"]
        with open_bands([file], None, masks) as (band,):
            assert float(band.read(0, 0, 64, 64)[1].mean()) == 0.5


def masked_image(folder: Path) -> dict[str, bytes]:
    """An image and the `.msk` beside it, which masks half of it."""
    profile = {"driver": "GTiff", "height": 64, "width": 64, "count": 1, "dtype": "uint8", "crs": "EPSG:32618"}
    place = Affine(10, 0, 500_000, 0, -10, 4_000_000)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False),
        rasterio.open(folder / "a.tif", "w", transform=place, **profile) as file,
    ):
        file.write(np.full((1, 64, 64), 7, dtype=np.uint8))
        file.write_mask(np.repeat(np.array([[0] * 32 + [255] * 32], dtype=np.uint8), 64, axis=0))
    return {name: (folder / name).read_bytes() for name in ("a.tif", "a.tif.msk")}


def test_a_release_is_made_from_an_api(tmp_path: Path, shared_data: Path) -> None:
    """Items from one server, pixels from another, as it is out there."""
    source = shared_data / "s2_l1c_T18SVG_20160112"
    item = json.loads((source / "item.json").read_text())
    item["collection"], item["properties"]["datetime"] = "sentinel-2-l1c", "2016-01-12T12:00:00Z"
    memory = Memory(items=[item], collections={"sentinel-2-l1c": collection("sentinel-2-l1c")})
    with ImageServer(source) as images, stac_server(memory) as address:
        for asset in item["assets"].values():
            asset["href"] = f"{images.url}/{asset['href'].removeprefix('./')}"
        spec = a_spec(address, "sentinel-2-l1c", collections=["sentinel-2-l1c"])
        spec = spec.model_copy(update={"chips": ChipSpec(layout="scene", size=256)})
        record = produce(spec, Release(str(tmp_path / "release")))
    assert record.coverage == {"expected": 4, "embedded": 4}
    (row,) = Release(str(tmp_path / "release")).parquet("sources.parquet").read().to_pylist()
    assert row["status"] == "used"
    assert all(asset["etag"] for asset in row["assets"])
