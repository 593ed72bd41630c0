"""The page in a browser: what a person sees and does."""

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pyarrow.compute as pc
import pytest
from browser import axe
from made_release import MADE, explorer_release
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from range_server import RangeServer

import clay_publish
from clay_publish.geo.utm_grid import UtmGrid
from clay_publish.release.directory import Release

Serve = Callable[..., RangeServer]
Releases = Callable[[str], Path]
Open = Callable[..., Page]
LATER = partial(pytest.param, marks=pytest.mark.slow)
"""Another case of a kind: each opens a page, which takes seconds without a GPU."""


def at(lon: float, lat: float, zoom: float = 12, **more: str) -> str:
    """The state of a page whose map has this center."""
    return f"#map={zoom}/{lat}/{lon}" + "".join(f"&{key}={value}" for key, value in more.items())


def inspect_center(page: Page) -> None:
    page.get_by_role("button", name="Inspect the center").click()
    expect(page.locator("#chip")).not_to_contain_text("Reading…")
    expect(page.locator("#chip")).not_to_contain_text("Click the map")


def fact(page: Page, name: str) -> str:
    return page.locator(f"#chip dt:text-is('{name}') + dd").inner_text()


def chips_of(release: Path) -> dict[str, list]:
    layout = Release(str(release)).spec().chips.layout
    cells = ["epsg", "row", "col"] if layout == "utm" else []
    return clay_publish.open_release(str(release)).chips(columns=["id", "lon", "lat", *cells]).read_all().to_pydict()


def expected_id(release: Path, lon: float, lat: float) -> str:
    """The id of the embedded chip that owns a place."""
    spec = Release(str(release)).spec()
    epsg, row, col = UtmGrid(spec.chips.size * spec.chips.gsd).cells_at(lon, lat)
    chips = chips_of(release)
    cells = zip(chips["epsg"], chips["row"], chips["col"], strict=True)
    return chips["id"][list(cells).index((int(epsg[0]), int(row[0]), int(col[0])))]


def color_at_center(page: Page) -> tuple[int, int, int]:
    page.wait_for_selector("#map[data-idle]")
    box = page.locator("#map").bounding_box()
    picture = Image.open(io.BytesIO(page.screenshot(scale="css"))).convert("RGB")
    return picture.getpixel((int(box["x"] + box["width"] / 2) + 3, int(box["y"] + box["height"] / 2) + 3))


@pytest.mark.parametrize(
    ("name", "lon", "lat"),
    [
        ("one", 10.0001, 50.0001),
        ("antimeridian", 179.99, -17.2),
        LATER("antimeridian", -179.99, -17.25),
        LATER("hemispheres", 9.9, 0.21),
        ("hemispheres", 9.9, -0.21),
    ],
)
def test_click_shows_chip(
    name: str, lon: float, lat: float, made_releases: Releases, serve: Serve, opened: Open
) -> None:
    release = made_releases(name)
    page = opened(serve(release), at(lon, lat))
    inspect_center(page)
    assert fact(page, "Id") == expected_id(release, lon, lat)
    assert fact(page, "Image") == "image"
    assert fact(page, "Valid") == "100.0 %"
    assert (page.locator("#chip img").count() == 1) == MADE[name].thumbnails


def test_mouse_click_shows_chip(made_releases: Releases, serve: Serve, opened: Open) -> None:
    page = opened(serve(made_releases("hemispheres")), at(9.9, 0.2, 10))
    page.mouse.click(900, 300)
    expect(page.locator("#chip dl")).to_contain_text("utm-2560m_326")
    assert fact(page, "Center").endswith("° E")


def test_one_chip_is_like_no_other(made_releases: Releases, serve: Serve, opened: Open) -> None:
    page = opened(serve(made_releases("one")), at(10.0001, 50.0001))
    expect(page.locator("#title")).to_contain_text("1 chip")
    inspect_center(page)
    page.get_by_role("button", name="More like this").click()
    page.get_by_role("button", name="Search all").click()
    expect(page.locator("#similar .note")).to_have_text(
        "1 chip of this period compared, exactly, by vector. No other chip was found."
    )


def test_click_on_a_phone_shows_chip_below_the_map(made_releases: Releases, serve: Serve, opened: Open) -> None:
    page = opened(serve(made_releases("hemispheres")), at(9.9, 0.2, 10), viewport={"width": 390, "height": 800})
    page.mouse.click(200, 200)
    expect(page.locator("#chip dt").first).to_be_in_viewport()
    page.locator("#checks").scroll_into_view_if_needed()
    expect(page.locator("#map canvas")).to_be_in_viewport(ratio=1)
    assert page.evaluate("document.documentElement.scrollHeight") == 800


def test_missing_chip_says_why(made_releases: Releases, serve: Serve, opened: Open) -> None:
    release = made_releases("windows")
    coverage = Release(str(release)).parquet("coverage/zone=31.parquet").read()
    lost = coverage.filter(pc.equal(coverage["reason"], "cloud")).slice(5, 1).to_pylist()[0]
    lon, lat = UtmGrid(2560).centers(lost["epsg"], lost["row"], lost["col"])
    period = f"{lost['window_start'].date()}_{lost['window_end'].date()}"
    page = opened(serve(release), at(lon[0], lat[0], 13, period=period))
    inspect_center(page)
    assert "too much cloud" in page.locator("#chip .alert").inner_text()
    assert fact(page, "Id") == lost["id"]
    assert fact(page, "Detail") == "97 % under cloud"
    page.goto(page.url.split("#")[0])
    page.reload()
    page.wait_for_selector("body[data-ready]")


def test_place_outside_says_so(made_releases: Releases, serve: Serve, opened: Open) -> None:
    page = opened(serve(made_releases("windows")), at(20, 10))
    inspect_center(page)
    assert "No chip was expected here" in page.locator("#chip").inner_text()


def test_layers_and_times_switch(made_releases: Releases, serve: Serve, opened: Open) -> None:
    release = made_releases("windows")
    server = serve(release)
    chips = chips_of(release)
    page = opened(server, at(chips["lon"][100], chips["lat"][100], 5))
    seen = set()
    for title in ("Principal components", "Reconstruction loss", "Cloud share", "Date"):
        page.get_by_role("radio", name=title).check()
        seen.add(color_at_center(page))
    assert len(seen) == 4
    page.get_by_role("radio", name="Coverage by reason").check()
    assert color_at_center(page) in {(0, 0x72, 0xB2), (0x56, 0xB4, 0xE9), (0xBB, 0xBB, 0xBB)}
    page.get_by_label("Time").select_option("2023-01-01_2023-02-01")
    page.wait_for_timeout(500)
    assert "/1.0.0/explore/tiles/2023-01-01_2023-02-01/coverage.pmtiles" in server.asked
    assert "period=2023-01-01_2023-02-01" in page.url
    page.get_by_label("Opacity").fill("0.5")
    assert "opacity=0.5" in page.url


@pytest.mark.slow  # waits for six drawings of the map
def test_zoom_draws_single_chips(made_releases: Releases, serve: Serve, opened: Open) -> None:
    page = opened(serve(made_releases("hemispheres")), at(9.9, 0.1, 4))
    expect(page.locator("#hint")).to_have_text("Zoom in to see single chips.")
    for _ in range(6):
        page.locator(".maplibregl-ctrl-zoom-in").click()
        page.wait_for_timeout(400)
    expect(page.locator("#hint")).to_contain_text("chips in view")
    page.mouse.move(800, 400)
    page.mouse.down()
    page.mouse.move(500, 300, steps=5)
    page.mouse.up()
    expect(page.locator("#hint")).to_contain_text("chips in view")


def mark(page: Page, release: Path, place: int, kind: str) -> int:
    """Mark a chip by its place in the release."""
    chips = chips_of(release)
    page.goto(page.url.split("#")[0] + at(chips["lon"][place], chips["lat"][place], 12))
    page.reload()
    page.wait_for_selector("body[data-ready]")
    inspect_center(page)
    page.get_by_role("button", name=kind).click()
    return place


def shown(page: Page) -> list[tuple[str, float]]:
    page.wait_for_selector("#results")
    return [
        (b.get_attribute("data-id"), float(b.get_attribute("data-similarity")))
        for b in page.locator("#results button").all()
    ]


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize(
    ("name", "like", "unlike"),
    [
        ("hemispheres", [40], [300]),
        ("antimeridian", [40, 41], [300]),
        LATER("hemispheres", [40], []),
        LATER("hemispheres", [40, 41], [300]),
        LATER("antimeridian", [40], []),
        LATER("antimeridian", [40], [300]),
    ],
)
def test_similar_equals_library(
    name: str, like: list[int], unlike: list[int], made_releases: Releases, serve: Serve, opened: Open, tmp_path: Path
) -> None:
    release = made_releases(name)
    reader = clay_publish.open_release(str(release))
    table = reader.chips(columns=["id", "lon", "lat", "embedding"]).read_all()
    vectors = np.array(table["embedding"].to_pylist(), dtype=np.float64)
    ids = table["id"].to_pylist()
    places = table.select(["lon", "lat"]).to_pylist()
    marks = {
        kind: "_".join(f"{places[n]['lon']:.6f},{places[n]['lat']:.6f}" for n in chips)
        for kind, chips in (("like", like), ("unlike", unlike))
        if chips
    }
    page = opened(serve(release), at(places[like[0]]["lon"], places[like[0]]["lat"], 9, **marks))
    page.get_by_role("button", name="Search all").click()
    found = shown(page)
    query = np.mean([unit(vectors[n]) for n in like], axis=0) - sum(unit(vectors[n]) for n in unlike)
    marked = [ids[n] for n in (*like, *unlike)]
    expected = reader.similar(query, k=24 + len(marked))
    kept = [i for i, chip in enumerate(expected["id"].to_pylist()) if chip not in marked][:24]
    assert [chip for chip, _ in found] == [expected["id"][i].as_py() for i in kept]
    assert [s for _, s in found] == pytest.approx([expected["similarity"][i].as_py() for i in kept], abs=1e-6)
    assert f"{len(ids):,} chips" in page.locator("#similar .note").inner_text()

    with page.expect_download() as download:
        page.get_by_role("button", name="Save as GeoJSON").click()
    download.value.save_as(tmp_path / "found.geojson")
    saved = json.loads((tmp_path / "found.geojson").read_text())
    assert [f["properties"]["id"] for f in saved["features"]] == [chip for chip, _ in found]
    assert (saved["like"], saved["unlike"]) == ([ids[n] for n in like], [ids[n] for n in unlike])
    lons = [lon for f in saved["features"] for part in f["geometry"]["coordinates"] for lon, _ in part[0]]
    assert max(map(abs, lons)) <= 180


def nearest(release: Path, like: int, unlike: int | None = None, box: tuple[float, ...] | None = None) -> list:
    """Ids and cosines of the 24 nearest chips, by numpy over every vector."""
    table = clay_publish.open_release(str(release)).chips(columns=["id", "lon", "lat", "embedding"]).read_all()
    vectors = np.stack(table["embedding"].combine_chunks().to_numpy(zero_copy_only=False)).astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    query = unit(vectors[like] - (0 if unlike is None else vectors[unlike]))
    cosines = vectors @ query
    cosines[[like] if unlike is None else [like, unlike]] = -np.inf
    if box:
        lon, lat = table["lon"].to_numpy(), table["lat"].to_numpy()
        west, south, east, north = box
        cosines[(lon < west) | (lon > east) | (lat < south) | (lat > north)] = -np.inf
    first = np.argsort(-cosines, kind="stable")[:24]
    return [(table["id"][int(n)].as_py(), cosines[n]) for n in first]


@pytest.mark.slow  # the library is compared in `make test`
def test_codes_find_what_all_vectors_find(made_releases: Releases, serve: Serve, opened: Open) -> None:
    release = made_releases("codes")
    chips, server = chips_of(release), serve(release)
    like, unlike = 500, 3000
    spot, away = (f"{chips['lon'][n]:.6f},{chips['lat'][n]:.6f}" for n in (like, unlike))
    page = opened(server, at(chips["lon"][like], chips["lat"][like], 10, like=spot, unlike=away))
    before = server.sent
    page.get_by_role("button", name="Search all").click()
    found = shown(page)
    assert server.sent - before < 8_000_000 < len(chips["id"]) * 4 * 512
    assert [chip for chip, _ in found] == [chip for chip, _ in nearest(release, like, unlike)]
    note = page.locator("#similar .note").inner_text()
    assert (
        f"{len(chips['id']):,} chips of this period ranked by their compact codes; the vectors of the best 64" in note
    )
    assert any(path.startswith("/1.0.0/codes/zone=31/") for path in server.asked)
    assert any(path.startswith("/1.0.0/codes/zone=32/") for path in server.asked)


def test_codes_of_other_vectors_are_refused(
    made_releases: Releases, serve: Serve, opened: Open, tmp_path: Path
) -> None:
    release = Path(shutil.copytree(made_releases("codes"), tmp_path / "x" / "1.0.0"))
    model = json.loads((release / "codes/model.json").read_text())
    (release / "codes/model.json").write_text(json.dumps({**model, "signs": model["signs"][::-1]}))
    chips = chips_of(release)
    spot = f"{chips['lon'][500]:.6f},{chips['lat'][500]:.6f}"
    page = opened(serve(release), at(chips["lon"][500], chips["lat"][500], 10, like=spot))
    page.get_by_role("button", name="Search all").click()
    expect(page.locator("#similar .alert")).to_contain_text("has another vector in row")
    for file in release.glob("codes/zone=31/*.arrow"):
        file.write_bytes(file.read_bytes()[:5000])
    page.get_by_role("button", name="Search all").click()
    expect(page.locator("#similar .alert")).to_contain_text("is shorter than it should be")


def test_marks_by_hand_and_search_in_view(made_releases: Releases, serve: Serve, opened: Open) -> None:
    release = made_releases("hemispheres")
    page = opened(serve(release))
    mark(page, release, 40, "More like this")
    page.get_by_role("button", name="Search in view").click()
    assert shown(page)
    assert "chips in view compared" in page.locator("#similar .note").inner_text()
    page.locator("#results button").first.click()
    expect(page.locator("#chip dl")).to_contain_text(page.locator("#results button").first.get_attribute("data-id"))
    page.get_by_role("button", name="Remove").click()
    expect(page.locator("#results")).to_have_count(0)


def test_chip_past_its_zone_has_no_color(made_releases: Releases, serve: Serve, opened: Open) -> None:
    release = made_releases("windows")
    period = "2023-06-01_2023-07-01"
    page = opened(serve(release), at(5.99, 45.28, 9, period=period, like="5.985,45.28"))
    page.get_by_role("button", name="Search all").click()
    pixel = "c.getContext('2d').getImageData(0, 0, 1, 1).data"
    painted = f"[...document.querySelectorAll('#results canvas')].every(c => {pixel}[3])"
    page.evaluate(f"async () => {{ while (!{painted}) await new Promise(requestAnimationFrame); }}")
    own: dict[bool, set[str]] = {True: set(), False: set()}
    for chip, _ in shown(page):
        epsg, row, col = (int(part) for part in chip.split("_")[1:4])
        lon, _ = UtmGrid(2560).centers(np.array([epsg]), np.array([row]), np.array([col]))
        canvas = page.locator(f"#results button[data-id='{chip}'] canvas")
        color = canvas.evaluate(f"c => [...{pixel}].join()")
        own[int((lon[0] + 180) // 6) + 1 == epsg % 100].add(color)
    assert own[False] == {"138,151,161,255"}
    assert own[False] & own[True] == set()


def test_link_shows_the_same(made_releases: Releases, serve: Serve, opened: Open) -> None:
    release = made_releases("hemispheres")
    server = serve(release)
    page = opened(server, at(9.9, 0.21, 11, layer="loss", opacity="0.60"))
    inspect_center(page)
    page.get_by_role("button", name="More like this").click()
    expect(page.locator(".marks li")).to_have_count(1)
    again = opened(server, "#" + page.url.split("#")[1])
    assert again.get_by_label("Reconstruction loss").is_checked()
    assert fact(again, "Id") == fact(page, "Id")
    expect(again.locator(".marks li")).to_have_count(1)
    assert unquote(again.url) == unquote(page.url)


def received(page: Page) -> int:
    """Bytes that the browser received, headers included."""
    entries = "[...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]"
    count, size = page.evaluate(f"[{entries}.length, {entries}.reduce((sum, entry) => sum + entry.transferSize, 0)]")
    assert count < 250, "the browser keeps no more entries than this"
    return size


@pytest.mark.slow
def test_hundred_thousand_chips_in_few_bytes(made_releases: Releases, serve: Serve, opened: Open) -> None:
    release = made_releases("large")
    assert len(chips_of(release)["id"]) > 90_000
    server = serve(release)
    page = opened(server)
    page.wait_for_timeout(1500)
    first, sent = received(page), server.sent
    inspect_center(page)
    assert 500_000 < first < 5_000_000
    assert sent < 5_000_000
    assert 0 < received(page) - first < 1_000_000
    assert server.sent - sent < 1_000_000
    page.get_by_role("button", name="More like this").click()
    page.get_by_role("button", name="Search all").click()
    page.wait_for_selector("#results", timeout=60_000)
    like = chips_of(release)["id"].index(fact(page, "Id"))
    assert [chip for chip, _ in shown(page)] == [chip for chip, _ in nearest(release, like)]
    assert "ranked by their compact codes" in page.locator("#similar .note").inner_text()


def test_release_of_scene_chips(scene_release: Path, serve: Serve, opened: Open) -> None:
    release = scene_release
    chips = chips_of(release)
    page = opened(serve(release), at(chips["lon"][60], chips["lat"][60], 13))
    expect(page.locator("#hint")).to_contain_text("chips in view")
    inspect_center(page)
    assert fact(page, "Id") == chips["id"][60]
    link = page.locator("#chip a", has_text="_").first
    item = json.loads((release / link.get_attribute("href").split("/1.0.0/")[1]).read_text())
    assert item["id"] == link.inner_text()
    assert item["assets"]["embeddings"]["href"].endswith(f"{item['id']}.parquet")
    page.get_by_role("button", name="More like this").click()
    page.get_by_role("button", name="Search all").click()
    assert [chip for chip, _ in shown(page)] == [chip for chip, _ in nearest(release, 60)]


def test_dropped_report_shows_findings_on_the_map(made_releases: Releases, serve: Serve, opened: Open) -> None:
    release = made_releases("hemispheres")
    chips = chips_of(release)
    file = next(str(p.relative_to(release)) for p in sorted(release.glob("embeddings/*/*")))
    found = {"severity": "error", "expected": "", "fix": "Fix it."}
    findings = [
        {**found, "code": "VEC001", "where": f"{file}: row 1", "found": "is not finite"},
        {**found, "code": "COV001", "where": "coverage", "found": f"lacks {chips['id'][300]}"},
        {**found, "code": "DOC001", "where": "README.md", "found": "has no title"},
    ]
    page = opened(serve(release), at(0, 40, 3))
    page.evaluate(
        """text => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([text], "report.json"));
            document.dispatchEvent(new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true}));
        }""",
        json.dumps({"findings": findings, "checked": {"VEC001": "failed", "COV001": "failed", "DOC001": "failed"}}),
    )
    expect(page.locator("#checks")).to_contain_text("3 errors")
    expect(page.locator("#checks")).to_contain_text("2 places marked on the map")
    buttons = page.locator("#checks .findings button")
    assert buttons.count() == 2
    buttons.nth(1).click()
    page.wait_for_url(lambda address: "map=3.00/40" not in address)
    _, lat, lon = (float(part) for part in page.url.split("#map=")[1].split("&")[0].split("/"))
    assert (lon, lat) == pytest.approx((chips["lon"][300], chips["lat"][300]), abs=1e-3)
    marked = color_at_center(page)
    page.locator("#report").set_input_files(
        {"name": "none.json", "mimeType": "application/json", "buffer": b'{"findings": [], "checked": {}}'}
    )
    expect(page.locator("#checks")).to_contain_text("no errors")
    assert color_at_center(page) != marked


def test_yanked_version_and_report_are_shown(
    made_releases: Releases, serve: Serve, opened: Open, tmp_path: Path
) -> None:
    folder = tmp_path / "product"
    shutil.copytree(made_releases("one"), folder / "1.0.0")
    entry = {"rel": "child", "href": "./1.0.0/collection.json", "version": "1.0.0", "yanked": "<b>wrong</b> dates"}
    other = {"rel": "child", "href": "./1.1.0/collection.json", "version": "1.1.0"}
    (folder / "catalog.json").write_text(json.dumps({"id": "made", "latest": "1.1.0", "links": [entry, other]}))
    finding = {
        "code": "COV001",
        "severity": "error",
        "where": "utm-640m_32632_8660_775_2023-01-01_2023-02-01",
        "found": "is <script>window.bad=1</script>",
        "expected": "",
        "fix": "Fix it.",
    }
    report = {"findings": [finding], "checked": {"COV001": "failed", "COV002": "passed"}}
    (folder / "1.0.0.validation.json").write_text(json.dumps(report))
    page = opened(serve(folder / "1.0.0"))
    expect(page.locator("#standing")).to_have_text("yanked <b>wrong</b> dates")
    expect(page.locator("#versions")).to_contain_text("1.1.0 latest")
    expect(page.locator("#checks")).to_contain_text("1 error 1 finding")
    expect(page.locator("#checks .findings")).to_contain_text("is <script>window.bad=1</script>")
    page.locator("#checks .findings button").click()
    assert page.evaluate("typeof window.bad") == "undefined"


def test_panel_describes_the_release(scene_release: Path, serve: Serve, opened: Open) -> None:
    page = opened(serve(scene_release))
    spec, summary = Release(str(scene_release)).spec(), json.loads((scene_release / "explore/release.json").read_text())
    about = page.locator("#about")
    text = about.inner_text()
    assert f"{summary['chips']['count']:,}" in text
    assert f"100.0 % of {summary['coverage']['expected']:,} expected" in text
    assert about.get_by_role("link", name=summary["license"]["name"]).get_attribute("href").startswith("https://")
    assert about.get_by_role("link", name=summary["model"]["name"]).get_attribute("href") == summary["model"]["href"]
    about.get_by_text("Cite").click()
    assert spec.version in page.locator("#about pre").inner_text()
    about.get_by_text("Downloads").click()
    paths = [each.get_attribute("href").split("/1.0.0/")[1] for each in about.locator("details li a").all()]
    made_later = {"collection.json", "manifest.json", "SHA256SUMS"}
    assert made_later < set(paths)
    assert all((scene_release / path).is_file() for path in set(paths) - made_later)


def test_basemap_is_loaded_when_asked_for(serve: Serve, opened: Open, tmp_path: Path) -> None:
    tiles = {"tiles": "https://tiles.example/{z}/{x}/{y}.png", "attribution": "<b>Tiles</b> of others"}
    release = explorer_release("based", tmp_path, replace(MADE["one"], texts={"outputs": {"basemap": tiles}}))
    page = opened(serve(release), also="https://tiles.example/")
    box = page.get_by_role("checkbox")
    assert not box.is_checked()
    with page.expect_request(lambda request: request.url.startswith("https://tiles.example/")):
        box.check()
    assert "<b>Tiles</b> of others" in page.locator("#panel").inner_text()


def on_hub(release: Path, folder: Path, latest: str | None, yanked: dict[str, str]) -> Path:
    """Lay files out as the Hub answers for them: the version at its tag, the latest one at the root."""
    resolve = folder / "resolve"
    shutil.copytree(release, resolve / "v1.0.0")
    report = {"findings": [], "checked": {"COV001": "passed"}}
    (resolve / "v1.0.0" / "1.0.0.validation.json").write_text(json.dumps(report))
    if latest:
        (resolve / "main").mkdir()
        (resolve / "main/collection.json").write_text(json.dumps({"id": "made", "version": latest}))
        if yanked:
            (resolve / "main/yanked.json").write_text(json.dumps(yanked))
    return resolve


@pytest.mark.parametrize(
    ("latest", "yanked", "standing", "versions"),
    [
        LATER("1.0.0", {}, "", "1.0.0 (this one) latest"),
        ("1.10.0", {"1.9.0": "cut"}, "newer version 1.10.0 is the latest.", "1.10.0 latest 1.9.0 yanked: cut 1.0.0"),
        LATER("0.9.0", {"1.0.0": "<b>wrong</b> dates"}, "yanked <b>wrong</b> dates", "0.9.0 latest"),
        LATER("1.0.0", {"1.0.0": "wrong"}, "yanked wrong", "1.0.0 (this one) yanked: wrong"),
        LATER("1.0.0-rc.2", {}, "", "1.0.0 (this one) 1.0.0-rc.2 latest"),
        (None, {}, "", "Not available: the main branch"),
    ],
)
def test_hub_tells_versions(
    latest: str | None,
    yanked: dict[str, str],
    standing: str,
    versions: str,
    made_releases: Releases,
    serve: Serve,
    opened: Open,
    tmp_path: Path,
) -> None:
    release = on_hub(made_releases("one"), tmp_path / "hub", latest, yanked)
    other = serve(release, cors=True)
    page = opened(serve(made_releases("one")), release=f"{other.address}/resolve/v1.0.0/")
    expect(page.locator("#versions")).to_contain_text("Versions")
    assert versions in " ".join(page.locator("#versions").inner_text().split())
    assert page.locator("#standing").inner_text() == standing
    expect(page.locator("#checks")).to_contain_text("1 of 1 rules passed (published with this version)")
    for link in page.locator("#versions a").all():
        assert f"/v{link.inner_text()}/" in unquote(link.get_attribute("href"))


def test_report_can_be_opened(made_releases: Releases, serve: Serve, opened: Open, tmp_path: Path) -> None:
    page = opened(serve(made_releases("one")))
    expect(page.locator("#checks")).to_contain_text("Not available")
    expect(page.locator("#versions")).to_contain_text("Not available")
    report = {"findings": [], "checked": {"SCH001": "passed"}}
    (tmp_path / "report.json").write_text(json.dumps(report))
    page.locator("#report").set_input_files(tmp_path / "report.json")
    expect(page.locator("#checks")).to_contain_text("no errors")
    (tmp_path / "other.json").write_text("[]")
    page.locator("#report").set_input_files(tmp_path / "other.json")
    expect(page.locator("#status")).to_contain_text("is not a report")


def test_hostile_texts_stay_texts(serve: Serve, opened: Open, tmp_path: Path) -> None:
    evil = '"><img src=x onerror="window.bad=1"><script>window.bad=1</script>'
    texts = {"title": evil, "description": evil, "creators": [{"name": evil}]}
    release = explorer_release("evil", tmp_path, replace(MADE["one"], texts=texts, item=f"javascript:{evil}"))
    page = opened(serve(release), at(10.0001, 50.0001))
    inspect_center(page)
    page.get_by_role("button", name="More like this").click()
    assert evil in page.locator("#title").inner_text()
    assert fact(page, "Image") == f"javascript:{evil}"
    assert page.evaluate("typeof window.bad") == "undefined"
    assert page.locator("#panel img:not(.thumb), #panel script, a[href^=javascript]").count() == 0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("periods", [{"id": "../../secret", "start": "2023-01-01T00:00:00Z", "end": "2023-02-01T00:00:00Z"}]),
        ("bbox", [1, 2, 3]),
        ("explorer", 99),
        ("chips", None),
    ],
)
def test_damaged_summary_is_refused(
    key: str, value: object, made_releases: Releases, serve: Serve, opened: Open, tmp_path: Path
) -> None:
    release = Path(shutil.copytree(made_releases("one"), tmp_path / "x" / "1.0.0"))
    summary = json.loads((release / "explore/release.json").read_text())
    (release / "explore/release.json").write_text(json.dumps({**summary, key: value}))
    page = opened(serve(release))
    expect(page.get_by_role("alert")).to_contain_text("explore")
    assert page.locator("body").get_attribute("data-ready") == "failed"


def test_release_of_another_host(made_releases: Releases, serve: Serve, opened: Open) -> None:
    other = serve(made_releases("hemispheres"), cors=True)
    page = opened(serve(made_releases("one")), release=f"{other.address}/1.0.0/")
    expect(page.locator("#title")).to_contain_text("made 1.0.0")
    assert any("components.pmtiles" in path for path in other.asked)
    closed = serve(made_releases("hemispheres"))
    page = opened(serve(made_releases("one")), release=f"{closed.address}/1.0.0/")
    expect(page.get_by_role("alert")).to_contain_text("does not allow other sites to read it (CORS)")


def test_page_of_a_folder_says_what_to_do(made_releases: Releases, browser: Browser) -> None:
    page = browser.new_page()
    page.goto((made_releases("one") / "explore/index.html").as_uri())
    expect(page.get_by_text("clay-publish explore FOLDER")).to_be_visible(timeout=10_000)
    page.close()


@pytest.mark.parametrize("address", ["javascript:alert(1)", "file:///etc/", "https://user:secret@127.0.0.1/"])
def test_address_of_another_kind_is_refused(address: str, made_releases: Releases, serve: Serve, opened: Open) -> None:
    page = opened(serve(made_releases("one")), release=address)
    assert page.locator("body").get_attribute("data-ready") == "failed"


def test_snippets_run(made_releases: Releases, serve: Serve, opened: Open) -> None:
    release = made_releases("hemispheres")
    server = serve(release)
    page = opened(server, at(9.9, 0.21))
    inspect_center(page)
    page.get_by_text("Read this chip").click()
    code = {
        t: page.locator(f"#chip pre[aria-label='{t}']").inner_text() for t in ("DuckDB", "geopandas", "clay-publish")
    }
    values: dict[str, object] = {}
    local = code["geopandas"].replace(f"{server.address}/1.0.0", str(release))
    exec(local, values)  # noqa: S102 - the snippet is what is tested
    assert values["chip"]["id"].tolist() == [fact(page, "Id")]
    import duckdb

    found = duckdb.sql(code["DuckDB"].replace(f"{server.address}/1.0.0", str(release))).select("id").fetchall()
    assert [row[0] for row in found] == [fact(page, "Id")]
    assert f'open_release("{server.address}/1.0.0")' in code["clay-publish"]
    compile(code["clay-publish"], "snippet", "exec")


@pytest.mark.parametrize(
    ("width", "scheme"), [(390, "dark"), (1280, "light"), LATER(390, "light"), LATER(1280, "dark")]
)
def test_accessible(scheme: str, width: int, made_releases: Releases, serve: Serve, opened: Open) -> None:
    page = opened(
        serve(made_releases("windows")), color_scheme=scheme, viewport={"width": width, "height": 800}, bypass_csp=True
    )
    inspect_center(page)
    page.evaluate(axe())
    found = page.evaluate("axe.run(document)")
    serious = [v for v in found["violations"] if v["impact"] in {"serious", "critical"}]
    assert not serious, json.dumps(
        [{"id": v["id"], "nodes": [n["html"][:200] + n["failureSummary"] for n in v["nodes"]][:4]} for v in serious],
        indent=1,
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_keyboard_alone(made_releases: Releases, serve: Serve, opened: Open) -> None:
    page = opened(serve(made_releases("hemispheres")), at(9.9, 0.21, 9))
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the panel"
    page.locator("#map canvas").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_url(lambda address: "/9.90000" not in address)
    page.keyboard.press("Enter")
    expect(page.locator("#chip dl")).to_contain_text("utm-2560m")
