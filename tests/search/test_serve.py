"""A live STAC API, asked by the clients people use."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pystac
import pystac_client
import pytest
import requests
import shapely
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from pystac_client.exceptions import APIError

from clay_publish.catalog import write_collection, write_items
from clay_publish.errors import ReleaseError
from clay_publish.geo.utm_zones import Square
from clay_publish.release.directory import Release
from clay_publish.search.reader import open_release
from clay_publish.stac_api.app import stac_api

MakeRelease = Callable[..., Release]
JANUARY = "18_04_41_2023-01-01_2023-02-01"
JULY = "18_04_41_2023-07-01_2023-08-01"
SOUTH = "34_05_-03_2023-01-01_2023-02-01"


@pytest.fixture(scope="module")
def address(tiny: Release) -> Iterator[str]:
    program = Path(sys.executable).with_name("clay-publish")
    with subprocess.Popen(
        [program, "serve", tiny.store.where, "--port", "0"],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(20)


@pytest.fixture(scope="module")
def client(tiny: Release) -> TestClient:
    """The same application without a socket, for what no proper client would send."""
    return TestClient(stac_api(open_release(tiny.store.where)), base_url="http://testserver/")


def test_pystac_client_finds_items(address: str, tiny: Release) -> None:
    api = pystac_client.Client.open(address)

    def found(**asked: Any) -> list[str]:
        search = api.search(**asked)
        items = sorted(item.id for item in search.items())
        assert search.matched() == len(items)
        return items

    assert found() == sorted([JANUARY, JULY, SOUTH])
    assert found(bbox=[-77, 36, -74, 39]) == [JANUARY, JULY]
    assert found(bbox=[-77, 36, -74, 39], datetime="2023-07-04/2023-07-05") == [JULY]
    assert found(datetime="2023-01-10T10:30:00Z") == sorted([JANUARY, SOUTH])
    assert found(ids=[SOUTH, "none"]) == [SOUTH]
    assert found(collections=["tiny-release"], limit=1) == sorted([JANUARY, JULY, SOUTH])
    assert found(collections=["another"]) == []
    assert found(intersects=shapely.Point(-75.75, 37.6).__geo_interface__) == []
    chip = pq.read_table(tiny.store.path(tiny.data_files()[0])).slice(0, 1)
    there = shapely.Point(chip["lon"][0].as_py(), chip["lat"][0].as_py())
    assert set(found(intersects=there.__geo_interface__)) & {JANUARY, JULY, SOUTH}
    code = {"op": "=", "args": [{"property": "proj:code"}, "EPSG:32618"]}
    few = {"op": "<", "args": [{"property": "table:row_count"}, 11]}
    assert found(filter=code) == [JANUARY, JULY]
    assert found(filter={"op": "and", "args": [code, few]}) == [JULY]
    assert found(filter={"op": "not", "args": [code]}) == [SOUTH]
    text = '"grid:code" LIKE \'MGRS-18%\' AND "embrel:coverage.expected" > 10'
    assert found(filter=text, filter_lang="cql2-text", method="GET") == [JANUARY]
    with pytest.raises(APIError, match="no_such"):
        found(filter={"op": "=", "args": [{"property": "no_such"}, 1]})


def test_pages_hold_every_item_once(address: str) -> None:
    api = pystac_client.Client.open(address)
    for method in ("GET", "POST"):
        pages = list(api.search(limit=2, method=method).pages())
        assert [len(page.items) for page in pages] == [2, 1]
        assert len({item.id for page in pages for item in page.items}) == 3
    collection = api.get_collection("tiny-release")
    assert len(list(collection.get_items())) == 3


def test_what_is_found_can_be_opened(address: str, tiny: Release) -> None:
    item = pystac_client.Client.open(address).get_collection("tiny-release").get_item(JANUARY)
    assert item is not None
    asset = item.assets["embeddings"]
    answer = requests.get(asset.href, timeout=10)
    assert answer.content == tiny.store.read(f"embeddings/zone=18/{JANUARY}.parquet")
    ranged = requests.get(asset.href, headers={"Range": "bytes=-4", "Origin": "https://example.org"}, timeout=10)
    assert (ranged.status_code, ranged.content) == (206, b"PAR1")
    assert ranged.headers["access-control-allow-origin"] == "*"
    assert requests.get(f"{address}/data/.run/run.json", timeout=10).status_code == 404
    assert requests.get(f"{address}/data/%2e%2e/1.0.0/release.yaml", timeout=10).status_code in {200, 404}
    assert requests.get(f"{address}/data/..%2f..%2f..%2fetc%2fpasswd", timeout=10).status_code == 404


def test_answers_are_valid_stac(client: TestClient, validator: Any) -> None:
    collection = client.get("/collections/tiny-release").json()
    pystac.validation.validate_dict(collection, validator=validator)
    for item in client.get("/search").json()["features"]:
        pystac.validation.validate_dict(item, validator=validator)
        assert all("://" in link["href"] for link in item["links"])
    landing = client.get("/").json()
    pystac.validation.validate_dict(landing, validator=validator)
    assert all("://" in asset["href"] for asset in collection["assets"].values())


def test_every_declared_link_answers(client: TestClient) -> None:
    """Core and features: what the landing page and each document point to is there, in the type it says."""
    landing = client.get("/").json()
    assert "https://api.stacspec.org/v1.0.0/item-search" in landing["conformsTo"]
    assert client.get("/conformance").json()["conformsTo"] == landing["conformsTo"]
    documents = [landing, *client.get("/collections").json()["collections"], client.get("/search?limit=1").json()]
    for document in documents:
        for link in document["links"]:
            ours = link["href"].startswith(str(client.base_url))
            if not ours or link.get("method") == "POST" or link["rel"] == "license" or "README" in link["href"]:
                continue
            answer = client.get(link["href"])
            assert answer.status_code == 200, link
            if link["rel"] in {"self", "root", "data", "search", "items", "child", "next", "conformance", "queryables"}:
                assert answer.headers["content-type"].startswith(link["type"].split(";")[0]), link
    names = client.get("/queryables").json()["properties"]
    assert {"id", "geometry", "datetime", "proj:code", "embrel:coverage.embedded"} <= set(names)


NONSENSE = [
    "bbox=1,2,3",
    "bbox=a,b,c,d",
    "bbox=0,10,1,-10",
    "bbox=nan,0,1,1",
    "datetime=yesterday",
    "datetime=2023-02-01T00:00:00Z/2023-01-01T00:00:00Z",
    "limit=-1",
    "limit=0",
    "token=abc",
    "token=99999999999999999999",
    "bbox=0,0,1,1&intersects={}",
    "intersects={",
    'intersects={"type":"Polygon","coordinates":[[[0,0]]]}',
    "filter=(((",
    "filter=" + "(" * 5000,
    "filter=nothing=1",
    'filter-lang=cql2-json&filter={"op":"drop","args":[{"property":"id"},1]}',
    'filter-lang=cql2-json&filter={"op":"=","args":[{"property":"id"},{"a":1}]}',
    'filter-lang=cql2-json&filter={"op":"<","args":[{"property":"id"},1]}',
    "filter-lang=cql2-json&filter=" + '{"op":"not","args":[' * 300 + "true" + "]}" * 300,
]


def test_a_search_that_makes_no_sense_is_a_400(client: TestClient) -> None:
    for query in NONSENSE:
        answer = client.get(f"/search?{query}")
        assert answer.status_code == 400, (query, answer.text)
        assert len(answer.text) < 2000


def test_only_faults_of_the_release_are_logged(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def damaged(*_: object, **__: object) -> None:
        raise ReleaseError("items.parquet", "is damaged")

    text = {"filter-lang": "cql2-text", "filter": "id = = 1"}
    assert client.post("/search", json=text).status_code == 400
    assert client.get("/collections/no").status_code == 404
    assert caplog.text == ""
    monkeypatch.setattr("clay_publish.stac_api.client.find_items", damaged)
    answer = client.get("/search")
    assert (answer.status_code, answer.json()["code"]) == (500, "ReleaseError")
    (record,) = caplog.records
    assert record.getMessage() == "GET /search: items.parquet: is damaged."
    assert record.exc_info is None


def test_a_filter_of_great_depth_is_refused_in_a_post_too(client: TestClient) -> None:
    deep: Any = True
    for _ in range(200):
        deep = {"op": "not", "args": [deep]}
    assert client.post("/search", json={"filter": deep}).status_code == 400


def test_what_is_not_there_is_a_404(client: TestClient) -> None:
    for path in ("/collections/no", f"/collections/no/items/{JANUARY}", "/collections/tiny-release/items/no"):
        assert client.get(path).status_code == 404
    assert client.get("/collections/tiny-release/items/a%2Fb").status_code == 404


def test_cross_origin_requests_are_allowed(client: TestClient) -> None:
    asked = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
    answer = client.options("/search", headers=asked)
    assert answer.headers["access-control-allow-origin"] == "*"


def test_a_release_on_a_web_server_is_served_from_there(tiny: Release, serve: Any) -> None:
    served = serve(Path(tiny.store.where))
    client = TestClient(stac_api(open_release(served.address)), base_url="http://testserver/")
    (item,) = client.get(f"/search?ids={JANUARY}").json()["features"]
    assert item["assets"]["embeddings"]["href"] == f"{served.address}/embeddings/zone=18/{JANUARY}.parquet"
    collection = client.get("/collections/tiny-release").json()
    assert collection["assets"]["items"]["href"] == f"{served.address}/items.parquet"


def test_boxes_across_the_antimeridian(make_release: MakeRelease, part: Any) -> None:
    release = make_release(
        part(Square(60, 8, -18), [(-1382, col) for col in range(636, 650)]), part(Square(18, 4, 41), [(3240, 330)])
    )
    write_items(release)
    write_collection(release)
    client = TestClient(stac_api(open_release(release.store.where)), base_url="http://testserver/")
    for bbox in ("179,-20,-179,-10", "179.9,-20,180,-10", "-180,-20,-179.9,-10"):
        found = client.get(f"/search?bbox={bbox}").json()["features"]
        assert [item["id"] for item in found] == ["60_08_-18_2023-01-01_2023-02-01"], bbox
    assert json.loads(client.get("/search?bbox=-179,-20,179,-10").text)["numberMatched"] == 0


def test_a_filter_in_text_can_be_posted(client: TestClient) -> None:
    body = {"filter-lang": "cql2-text", "filter": f"id = '{JANUARY}'"}
    answer = client.post("/search", json=body)
    assert answer.status_code == 200, answer.text
    assert [item["id"] for item in answer.json()["features"]] == [JANUARY]


@pytest.mark.parametrize(
    ("node", "where"),
    [
        ({"op": "in", "args": [{"property": "id"}, []]}, "'in'"),
        ({"op": "between", "args": [{"property": "id"}, 1]}, "between"),
        ({"op": "=", "args": [{"property": "id"}]}, "="),
        ({"op": "not", "args": [True, False]}, "not"),
        ({"op": "like", "args": [{"property": "id"}]}, "like"),
        ({"op": "s_intersects", "args": [{"property": "geometry"}]}, "s_intersects"),
    ],
)
def test_a_filter_with_other_arguments_is_a_400(client: TestClient, node: dict[str, Any], where: str) -> None:
    answer = client.post("/search", json={"filter": node})
    assert answer.status_code == 400, answer.text
    assert where in answer.text


def test_shapes_that_take_long_are_refused(client: TestClient) -> None:
    random = np.random.default_rng(0).uniform(-60, 60, (1000, 2)).tolist()
    crossing = {"type": "Polygon", "coordinates": [[*random, random[0]]]}
    angle = np.linspace(0, 2 * np.pi, 20_000)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1).tolist()
    round_one = {"type": "Polygon", "coordinates": [[*circle[:-1], circle[0]]]}
    for shape, reason in ((crossing, "not valid"), (round_one, "vertices")):
        answer = client.post("/search", json={"intersects": shape})
        assert answer.status_code == 400, answer.text[:500]
        assert reason in answer.text
        assert len(answer.text) < 2000


def test_a_large_body_is_refused_before_it_is_read(client: TestClient) -> None:
    answer = client.post("/search", content=b" " * 80_000_000)
    assert answer.status_code == 413
    assert len(answer.text) < 200


NODES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
    | st.sampled_from([{"property": "id"}, {"property": "datetime"}, {"property": "geometry"}, {"property": "gsd"}])
    | st.sampled_from([{"timestamp": "2023"}, {"interval": ["..", "2023-01-01T00:00:00Z"]}, {"interval": []}])
    | st.sampled_from([{"type": "Point", "coordinates": []}, {"bbox": [1]}, {"type": "Polygon"}]),
    lambda inner: st.lists(inner, max_size=3)
    | st.fixed_dictionaries(
        {
            "op": st.sampled_from(["=", "<", "in", "like", "between", "isNull", "not", "and", "s_intersects", "+"])
            | st.sampled_from(["t_intersects", "or", "casei", "<>"]),
            "args": st.lists(inner, max_size=4),
        }
    ),
    max_leaves=8,
)  # fmt: skip


TYPES: list[dict[str, Any]] = [
    {"op": "t_intersects", "args": [{"property": "datetime"}, {"interval": []}]},
    {"op": "t_intersects", "args": [{"property": "datetime"}, {"interval": [1, 2]}]},
    {"op": "like", "args": ["a", "b"]},
    {"op": "like", "args": [{"property": "datetime"}, "a"]},
    {"op": "=", "args": [1, 1]},
    {"op": "isNull", "args": [1]},
    {"op": "in", "args": [1, [1]]},
    {"op": "=", "args": [{"property": "id"}, {"date": "2023-01-01"}]},
    {"op": "=", "args": [{"property": "datetime"}, {"date": "0000-01-01"}]},
    {"op": "=", "args": [{"property": "geometry"}, 1]},
    {"op": "=", "args": [{"property": "assets"}, None]},
    {"op": "<", "args": [{"property": "embrel:coverage"}, 1]},
    {"op": "s_intersects", "args": [{"property": "geometry"}, {"bbox": []}]},
]


@pytest.mark.parametrize("node", TYPES, ids=str)
def test_values_of_any_type_are_compared_or_a_400(answers: TestClient, node: dict[str, Any]) -> None:
    answer = answers.post("/search", json={"filter": node})
    assert answer.status_code in {200, 400}, answer.text
    assert answer.status_code == 200 or "description" in answer.json()


@pytest.fixture(scope="module")
def answers(tiny: Release) -> TestClient:
    """The same client, to which a fault of the server is an answer too."""
    return TestClient(stac_api(open_release(tiny.store.where)), raise_server_exceptions=False)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(node=NODES)
def test_any_filter_is_answered_or_a_400(answers: TestClient, node: object) -> None:
    answer = answers.post("/search", json={"filter": node})
    assert answer.status_code in {200, 400}, answer.text


def test_a_search_that_takes_long_is_a_503(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clay_publish.stac_api.client.SECONDS", -1.0)
    answer = client.get("/search")
    assert answer.status_code == 503
    assert "Narrow bbox" in answer.text
