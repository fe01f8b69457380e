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


def page_times() -> dict[str, Any]:
    """Seconds from process start to a served page, from opening it to the recorded pictures, and to
    a Stop answer.
    """
    if missing := _missing():
        return {"text": f"not measured: {missing}"}
    with _opened() as (tab, ready, picture):
        stop = _seconds_to_stop(tab)
    return {
        "ready_s": ready,
        "picture_s": picture,
        "stop_s": stop,
        "text": f"{ready:.1f} s / {picture:.1f} s / {stop:.1f} s",
    }


def _missing() -> str:
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed"
    return "" if _browser() else "no Chromium found"


def _browser() -> str | None:
    return os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


@contextmanager
def _opened() -> Iterator[tuple[Any, float, float]]:
    """The page of an app in a process of its own, the seconds from the start of the process until
    it answered, and those from opening the page until it showed a picture.
    """
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, AppProcess(Path(folder)) as app:
        ready = app.wait()
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(
                executable_path=_browser(), args=["--no-sandbox", "--disable-gpu"]
            )
            tab = chromium.new_page(viewport={"width": 1280, "height": 720})
            opened = time.perf_counter()
            tab.goto(app.url)
            shown = "[...document.images].some(i => i.complete && i.naturalWidth >= 64)"
            tab.wait_for_function(shown)
            yield tab, ready, time.perf_counter() - opened


def _seconds_to_stop(tab: Any) -> float:
    """Start a run and stop it; the seconds from the click on Stop until the page says so."""
    tab.locator("#concept textarea, #concept input").first.fill("cat")
    tab.locator("#run").click()
    tab.locator("#stop").wait_for(timeout=PATIENCE_S * 1000)
    clicked = time.perf_counter()
    tab.locator("#stop").click()
    tab.wait_for_function(
        "/stopp/i.test(document.querySelector('#status').innerText)", timeout=PATIENCE_S * 1000
    )
    return time.perf_counter() - clicked
