"""The page in headless Chromium, of an app in a process of its own, and what a visitor does
there.
"""

import importlib.util
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..app_process import PATIENCE_S, AppProcess
from .time_left import Shown, seconds_said

DESKTOP = (1280, 720)
SETTLED_S = 1.0
"""For so long the page is watched after it has arrived, since late parts may move others."""
WATCH_SHIFTS = """
window.shifts = [];
new PerformanceObserver(list => window.shifts.push(...list.getEntries()))
  .observe({ type: "layout-shift", buffered: true });
"""
PICTURE = "[...document.images].some(image => image.complete && image.naturalWidth >= 64)"
MODEL_READY = "/Model ready/.test(document.querySelector('#head')?.textContent)"  # hidden on phones
STOPPED = "/stopp/i.test(document.querySelector('#status')?.innerText)"
NOW = "performance.now() / 1000"
SHOWN_RUN = "(document.querySelector('#stage section')?.dataset.run ?? '')"
WATCH_RUN = """() => {
  const box = document.querySelector("#status");
  window.seen = [];
  const look = () => {
    const running = box.querySelector(".u-running");
    seen.push({
      at: performance.now() / 1000,
      over: !running,
      stage: running?.querySelector("[data-say]")?.textContent ?? "",
      details: running?.querySelector("p > span")?.textContent ?? "",
      bar: parseFloat(running?.querySelector(".u-bar i")?.style.width) / 100,
    });
  };
  window.watching?.disconnect();
  window.watching = new MutationObserver(look);
  watching.observe(box, { childList: true, subtree: true, characterData: true });
}"""
"""Keeps, at every change of the box with the progress, what it shows."""
FIRST_PICTURE = f"""(before) => {{
  const image = document.querySelector("#stage .u-now");
  const own = {SHOWN_RUN} !== before && image?.complete && image.naturalWidth;
  return own ? {NOW} : 0;
}}"""
STARTING = "Starting…"
"""What the page says before the first stage."""
RUN_OVER = "seen.some(one => !one.over) && seen.at(-1).over"


def missing() -> str:
    """Why the page cannot be opened here, "" where it can."""
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed"
    return "" if _browser() else "no Chromium found"


def _browser() -> str | None:
    return os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


@dataclass(frozen=True)
class Visit:
    """A tab of Chromium, empty at first, and the app whose page it is for; the app was `ready_s`
    after the start of its process.
    """

    app: AppProcess
    tab: Any
    ready_s: float

    def open(self) -> float:
        """Open the page; the seconds until the first complete picture."""
        opened = time.perf_counter()
        self.tab.goto(self.app.url)
        self.tab.wait_for_function(PICTURE)
        return time.perf_counter() - opened

    def wait(self, for_what: str, given: Any = None) -> Any:
        """Wait until a condition in JavaScript, of what is `given`, holds; returns its value."""
        return self.tab.wait_for_function(for_what, arg=given).json_value()


@contextmanager
def visit(size: tuple[int, int] = DESKTOP) -> Iterator[Visit]:
    """A visit with a window of `size` of an app that has sampled nothing before."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with AppProcess(folder, UNLEARN_STORE=str(folder / "store")) as app:
            ready = app.wait()
            with sync_playwright() as playwright:
                chromium = playwright.chromium.launch(
                    executable_path=_browser(), args=["--no-sandbox", "--disable-gpu"]
                )
                tab = chromium.new_page(viewport=dict(zip(("width", "height"), size, strict=True)))
                tab.set_default_timeout(1000 * PATIENCE_S)
                yield Visit(app, tab, ready)
                chromium.close()


def arrival(size: tuple[int, int]) -> dict[str, Any]:
    """What it takes to arrive in a window of `size`, and what comes: seconds, bytes and requests,
    how many of them go elsewhere than to the app, and the sum of all layout shifts.

    Calls of the page to the app are no requests here: it repeats one until the model is loaded.
    """
    with visit(size) as own:
        protocol = own.tab.context.new_cdp_session(own.tab)
        protocol.send("Network.enable")
        sent: dict[str, Mapping[str, Any]] = {}
        came: dict[str, int] = {}
        protocol.on("Network.requestWillBeSent", lambda e: sent.update({e["requestId"]: e}))
        protocol.on(
            "Network.loadingFinished",
            lambda e: came.update({e["requestId"]: e["encodedDataLength"]}),
        )
        own.tab.add_init_script(WATCH_SHIFTS)
        picture = own.open()
        own.wait(MODEL_READY)
        own.tab.wait_for_timeout(1000 * SETTLED_S)
        shifts = own.tab.evaluate("shifts.filter(s => !s.hadRecentInput).map(s => s.value)")
        browser = own.tab.context.browser.version
    asked = {key: e["request"] for key, e in sent.items() if _over_network(e["request"]["url"])}
    fetched = {key for key, e in asked.items() if e["method"] == "GET" and key in came}
    return {
        "ready_s": own.ready_s,
        "picture_s": picture,
        "requests": len(fetched),
        "bytes": sum(came[key] for key in fetched),
        "elsewhere": sum(not e["url"].startswith(f"{own.app.url}/") for e in asked.values()),
        "shift": sum(shifts),
        "browser": browser,
    }


def _over_network(url: str) -> bool:
    return not url.startswith(("data:", "blob:"))


def start(tab: Any, concept: str) -> None:
    """Type a concept and press the button."""
    tab.locator("#concept textarea, #concept input").first.fill(concept)
    tab.locator("#run").click()


def open_options(tab: Any) -> None:
    """Unfold the options and their expert settings."""
    tab.locator("#options > button").click()
    if tab.locator("#expert > button.open").count() == 0:
        tab.locator("#expert > button").click()
    tab.locator("#unlearn-steps input").wait_for()


def set_options(tab: Any, values: Mapping[str, Any]) -> None:
    """Fill the number fields of the options, named as in the settings."""
    open_options(tab)
    for name, value in values.items():
        field = f"#{name.replace('.', '-').replace('_', '-')} input"
        tab.fill(field, str(value))
        tab.press(field, "Tab")
    tab.locator("#options > button").click()


def whole_run(own: Visit, concept: str) -> tuple[float, float, list[Shown]]:
    """Run a concept to its end: the seconds from the click until the first picture of this run, and
    until its end, and everything that the page showed of it.
    """
    before = own.wait(SHOWN_RUN)
    own.tab.evaluate(WATCH_RUN)
    clicked = own.tab.evaluate(NOW)
    start(own.tab, concept)
    picture = own.wait(FIRST_PICTURE, before) - clicked
    own.wait(RUN_OVER)
    seen = own.tab.evaluate("seen")
    shown = [
        Shown(one["at"] - clicked, one["stage"], seconds_said(one["details"]), one["bar"])
        for one in seen
        if not one["over"] and one["stage"] not in ("", STARTING)
    ]
    own.tab.locator("#run").wait_for()
    return picture, seen[-1]["at"] - clicked, shown


def seconds_to_stop(own: Visit, concept: str) -> float:
    """Start a run and stop it; the seconds from the click on Stop until the page says so."""
    start(own.tab, concept)
    stop = own.tab.locator("#stop")
    stop.wait_for()
    clicked = time.perf_counter()
    stop.click()
    own.wait(STOPPED)
    return time.perf_counter() - clicked


def page_times() -> dict[str, Any]:
    """Seconds from process start to a served page, from opening it to the recorded pictures, and to
    a Stop answer.
    """
    if reason := missing():
        return {"text": f"not measured: {reason}"}
    with visit() as own:
        picture, stop = own.open(), seconds_to_stop(own, "cat")
    return {
        "ready_s": own.ready_s,
        "picture_s": picture,
        "stop_s": stop,
        "text": f"{own.ready_s:.1f} s / {picture:.1f} s / {stop:.1f} s",
    }
