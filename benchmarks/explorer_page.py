"""The explorer's page on a release of some 100,000 chips, over HTTP on loopback with 30 ms before each answer.

python benchmarks/explorer_page.py

Bytes and seconds until the first map is drawn, and until a chip that was clicked is described. Needs Chromium and
Playwright.
"""

import shutil
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "servers"))

from made_release import explorer_release
from range_server import RangeServer

LATENCY = 0.03
ARGUMENTS = [
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
]


def main() -> None:
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        release = explorer_release("large", Path(folder))
        browser = playwright.chromium.launch(executable_path=browser_path, headless=True, args=ARGUMENTS)
        with RangeServer(release.parent, latency=LATENCY) as server:
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            before = time.perf_counter()
            page.goto(f"{server.address}/1.0.0/explore/index.html")
            page.wait_for_selector("body[data-ready=true]")
            page.wait_for_selector("body[data-drawn]")
            print(
                f"first map: {time.perf_counter() - before:.2f} s, {server.sent:,} bytes, {len(server.asked)} requests"
            )
            page.wait_for_timeout(2000)
            for name in ("first click", "second click"):
                sent, asked, before = server.sent, len(server.asked), time.perf_counter()
                page.evaluate("document.getElementById('chip').replaceChildren()")
                page.mouse.click(760 + 9 * len(name), 420)
                page.wait_for_selector("#chip dl, #chip .alert")
                seconds, what = time.perf_counter() - before, page.locator("#chip dd").first.inner_text()
                print(
                    f"{name} ({what}): {seconds:.2f} s, {server.sent - sent:,} bytes,"
                    f" {len(server.asked) - asked} requests"
                )
        browser.close()


if __name__ == "__main__":
    main()
