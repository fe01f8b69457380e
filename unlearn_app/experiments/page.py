"""How quickly the page answers, measured in headless Chromium."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Any

from .cells import ROOT

PATIENCE_S = 120


def page_times() -> dict[str, Any]:
    """Seconds from process start to a served page, from opening it to the recorded pictures, and to a Stop answer."""
    browser = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return {"text": "not measured: playwright is not installed"}
    if not browser:
        return {"text": "not measured: no Chromium found"}
    port = _free_port()
    environment = os.environ | {"GRADIO_SERVER_PORT": str(port), "GRADIO_ANALYTICS_ENABLED": "False"}
    started = time.perf_counter()
    server = subprocess.Popen(
        [sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_for(url)
        ready = time.perf_counter() - started
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
            try:
                picture, stop = _drive(chromium.new_page(), url)
            finally:
                chromium.close()
    finally:
        server.terminate()
        server.wait(timeout=20)
    return {
        "ready_s": ready,
        "picture_s": picture,
        "stop_s": stop,
        "text": f"{ready:.1f} s / {picture:.1f} s / {stop:.1f} s",
    }


def _drive(page: Any, url: str) -> tuple[float, float]:
    opened = time.perf_counter()
    page.goto(url)
    page.wait_for_function("[...document.images].some(i => i.complete && i.naturalWidth >= 96)")
    picture = time.perf_counter() - opened
    page.locator("#concept textarea, #concept input").first.fill("cat")
    page.locator("#run").click()
    page.locator("#stop").wait_for(timeout=PATIENCE_S * 1000)
    clicked = time.perf_counter()
    page.locator("#stop").click()
    page.wait_for_function("/stopp/i.test(document.querySelector('#status').innerText)", timeout=PATIENCE_S * 1000)
    return picture, time.perf_counter() - clicked


def _wait_for(url: str) -> None:
    deadline = time.perf_counter() + PATIENCE_S
    while True:
        try:
            urllib.request.urlopen(url, timeout=2).read()
            return
        except (urllib.error.URLError, OSError):
            if time.perf_counter() > deadline:
                raise
            time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
