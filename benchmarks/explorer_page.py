"""The explorer's page on a release of some 100,000 chips, over HTTP on loopback with 30 ms before each answer.

python benchmarks/explorer_page.py

Five times: bytes and seconds until the first map is drawn, and until a chip that was clicked is described. Needs
Chromium and Playwright.
"""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "servers"))

from made_release import explorer_release
from range_server import RangeServer

LATENCY = 0.03
RUNS = 5
ARGUMENTS = [
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
]


@dataclass
class Step:
    """What a step took."""

    seconds: float = 0.0
    sent: int = 0
    asked: int = 0


def main() -> None:
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        release = explorer_release("large", Path(folder))
        browser = playwright.chromium.launch(executable_path=browser_path, headless=True, args=ARGUMENTS)
        with RangeServer(release.parent, latency=LATENCY) as server:
            runs = [look(browser, server) for _ in range(RUNS)]
        browser.close()
    print(f"{RUNS} runs, each without a cache; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for name in runs[0]:
        seconds = sorted(run[name].seconds for run in runs)
        sent, asked = max(run[name].sent for run in runs), max(run[name].asked for run in runs)
        median = seconds[len(seconds) // 2]
        print(f"{name}: best {seconds[0]:.2f} s, median {median:.2f} s, {sent:,} bytes, {asked} requests at most")


def look(browser: Browser, server: RangeServer) -> dict[str, Step]:
    """Open the page, and click twice."""
    steps = {}
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    with timed(server) as steps["first map"]:
        page.goto(f"{server.address}/1.0.0/explore/index.html")
        page.wait_for_selector("body[data-ready=true]")
        page.wait_for_selector("body[data-drawn]")
    page.wait_for_timeout(2000)
    for name in ("first click", "second click"):
        page.evaluate("document.getElementById('chip').replaceChildren()")
        with timed(server) as steps[name]:
            page.mouse.click(760 + 9 * len(name), 420)
            page.wait_for_selector("#chip dl, #chip .alert")
    page.close()
    return steps


@contextmanager
def timed(server: RangeServer) -> Iterator[Step]:
    step, sent, asked, before = Step(), server.sent, len(server.asked), time.perf_counter()
    yield step
    step.seconds = time.perf_counter() - before
    step.sent, step.asked = server.sent - sent, len(server.asked) - asked


if __name__ == "__main__":
    main()
