"""A page in headless Chromium, asked over its debugging protocol."""

import asyncio
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp
import pytest


def needed(found: str | None, what: str) -> str:
    """What a test needs of this machine: skipped where it is missing, but in CI."""
    if found:
        return found
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI needs {what}")
    pytest.skip(f"no {what} here")


def chromium() -> str:
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return needed(next(filter(None, map(shutil.which, names)), None), "Chromium")


def axe() -> str:
    """The accessibility checker's script, from npm's axe-core."""
    file = Path(os.environ.get("AXE_CORE", "node_modules/axe-core/axe.min.js"))
    return Path(needed(str(file) if file.is_file() else None, "axe-core (AXE_CORE names its axe.min.js)")).read_text()


async def _look(page: Path, scripts: list[str], size: tuple[int, int], port: int) -> tuple[list[str], list[Any]]:
    requests: list[str] = []
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
            tab = next(t for t in await answer.json() if t["type"] == "page")
        async with session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0) as socket:
            number, events = 0, []

            async def ask(method: str, **parameters: Any) -> Any:
                nonlocal number
                number += 1
                await socket.send_json({"id": number, "method": method, "params": parameters})
                while True:
                    message = await socket.receive_json()
                    if message.get("id") == number:
                        assert "error" not in message, message
                        return message["result"]
                    events.append(message)

            width, height = size
            metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
            await ask("Emulation.setDeviceMetricsOverride", **metrics)
            for domain in ("Page", "Network", "Runtime"):
                await ask(f"{domain}.enable")
            await ask("Page.navigate", url=page.as_uri())
            wait = "new Promise(r => document.readyState == 'complete' ? r() : addEventListener('load', r))"
            await ask("Runtime.evaluate", expression=wait, awaitPromise=True)
            results = []
            for script in scripts:
                made = await ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
                assert "exceptionDetails" not in made, made["exceptionDetails"]
                results.append(made["result"].get("value"))
            requests = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    return requests, results


def look(page: Path, scripts: list[str], size: tuple[int, int], folder: Path) -> tuple[list[str], list[Any]]:
    """Open a page; the addresses that were asked for, and what each script returns."""
    command = [chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
    command += [f"--user-data-dir={folder}", "--no-first-run", "--disable-background-networking", "about:blank"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = next(line for line in process.stderr if "DevTools listening on" in line)
            port = int(line.split("127.0.0.1:")[1].split("/")[0])
            with ThreadPoolExecutor(1) as own:  # Playwright keeps a loop running in the main thread
                return own.submit(asyncio.run, _look(page, scripts, size, port)).result()
        finally:
            process.terminate()
            process.wait(timeout=20)
