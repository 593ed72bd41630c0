"""A browser, and releases for it to show."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
import yaml
from browser import chromium
from made_release import explorer_release
from playwright.sync_api import Browser, Page, sync_playwright
from range_server import RangeServer

from clay_publish.release.directory import Release

ARGUMENTS = [
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-gpu",
    "--enable-unsafe-swiftshader",
]
Open = Callable[..., Page]


@pytest.fixture(scope="session")
def made_releases(once: Callable[..., Path]) -> Callable[[str], Path]:
    """Releases by the names of `MADE`, each made when it is first asked for. Read only."""
    return lambda name: once(f"explorer-{name}", partial(explorer_release, name)) / name / "1.0.0"


@pytest.fixture(scope="session")
def scene_release(once: Callable[..., Path]) -> Path:
    """The bundled sample in chips of the image's own grid, with its documents. Read only."""
    from importlib.resources import files

    from clay_publish.cards import write_cards
    from clay_publish.catalog import write_items
    from clay_publish.producer.produce import produce
    from clay_publish.spec.load import load_spec

    def build(folder: Path) -> None:
        item = files("clay_publish.sample") / "imagery" / "item.json"
        spec = {"name": "shore", "version": "1.0.0", "imagery": {"stac": str(item), "sensor": "sentinel-2-l1c"}}
        spec["chips"] = {"layout": "scene", "size": 64}
        (folder / "release.yaml").write_text(yaml.safe_dump(spec))
        release = Release(str(folder / "1.0.0"))
        produce(load_spec(folder / "release.yaml"), release)
        write_items(release)
        write_cards(release)

    return once("scene-explorer", build) / "1.0.0"


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium(), headless=True, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., RangeServer]]:
    """Serve the folder that holds a release, as its product's root."""
    with ExitStack() as stack:
        yield lambda release, **options: stack.enter_context(RangeServer(Path(release).parent, **options))


@pytest.fixture
def opened(browser: Browser) -> Iterator[Open]:
    """Open the page of a server; nothing may fail in it, and no address but the server's may be asked for."""
    faults: list[str] = []
    with ExitStack() as stack:

        def open_page(
            server: RangeServer, state: str = "", *, release: str | None = None, also: str = "blob:", **context: object
        ) -> Page:
            # The layout of a screen at half its resolution: pixels are drawn by the processor.
            options = {"viewport": {"width": 1280, "height": 800}, "device_scale_factor": 0.5, **context}
            page = stack.enter_context(browser.new_context(**options)).new_page()
            allowed = (
                server.address,
                (release or server.address).removesuffix("1.0.0/").removesuffix("v"),
                also,
                "blob:",
                "data:",
            )
            page.on("request", lambda r: r.url.startswith(allowed) or faults.append(f"asked for {r.url}"))
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.on("console", lambda m: "Content Security" in m.text and faults.append(m.text))
            query = f"?release={release}" if release else ""
            page.goto(f"{server.address}/1.0.0/explore/index.html{query}{state}")
            page.wait_for_selector("body[data-ready]")
            return page

        yield open_page
    assert not faults
