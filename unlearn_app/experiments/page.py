"""How quickly the page answers, measured in headless Chromium."""

import importlib.util
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .app_process import PATIENCE_S, AppProcess

SETTLE_MS = 1500


def page_times() -> dict[str, Any]:
    """Seconds from process start to a served page, from opening it to the recorded pictures, and to
    a Stop answer.
    """
    if missing := _missing():
        return {"text": f"not measured: {missing}"}
    with _site() as (url, ready), _tab() as tab:
        picture, stop = _open(tab, url), _seconds_to_stop(tab)
    return {
        "ready_s": ready,
        "picture_s": picture,
        "stop_s": stop,
        "text": f"{ready:.1f} s / {picture:.1f} s / {stop:.1f} s",
    }


def write_screenshot(path: Path) -> str:
    """Write the page as it opens, 1280 x 720, to `path`; a line that says so, or what is missing
    for it.
    """
    if missing := _missing():
        return f"{path.name} is not made: {missing}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with _site() as (url, _), _tab() as tab:
        _open(tab, url)
        tab.wait_for_timeout(SETTLE_MS)
        tab.screenshot(path=path)
    return f"{path.name}, {path.stat().st_size:,} bytes"


def _missing() -> str:
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed"
    return "" if _browser() else "no Chromium found"


def _browser() -> str | None:
    return os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


@contextmanager
def _site() -> Iterator[tuple[str, float]]:
    """The app in a process of its own: its address, and the seconds from its start until it
    answered.
    """
    with tempfile.TemporaryDirectory() as folder, AppProcess(Path(folder)) as app:
        yield app.url, app.wait()


@contextmanager
def _tab() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=_browser(), args=["--no-sandbox", "--disable-gpu"]
        )
        yield chromium.new_page(viewport={"width": 1280, "height": 720})


def _open(tab: Any, url: str) -> float:
    """Open the page; the seconds until a picture stood there."""
    opened = time.perf_counter()
    tab.goto(url)
    tab.wait_for_function("[...document.images].some(i => i.complete && i.naturalWidth >= 64)")
    return time.perf_counter() - opened


def _seconds_to_stop(page: Any) -> float:
    """Start a run and stop it; the seconds until the page said so."""
    page.locator("#concept textarea, #concept input").first.fill("cat")
    page.locator("#run").click()
    page.locator("#stop").wait_for(timeout=PATIENCE_S * 1000)
    clicked = time.perf_counter()
    page.locator("#stop").click()
    page.wait_for_function(
        "/stopp/i.test(document.querySelector('#status').innerText)", timeout=PATIENCE_S * 1000
    )
    return time.perf_counter() - clicked
