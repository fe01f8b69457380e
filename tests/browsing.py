"""Driving the page in headless Chromium: starting a site, visiting it as somebody, and pressing its
buttons.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from recordings import Replay

from unlearn_app.experiments.page.visit import open_options as open_options
from unlearn_app.experiments.page.visit import set_options as set_options
from unlearn_app.service.engine import Engine, InProcess
from unlearn_app.web import build_demo, launch_kwargs

BOX = "#concept textarea, #concept input"
TRAP = "<img src=x onerror=window.trapped=1>{{1}}${1}"
"""A concept that would run as markup or be filled in as a template."""
PATIENCE = 120_000
expect.set_options(timeout=PATIENCE)  # a busy machine is slow, not wrong
DESKTOP = {"viewport": {"width": 1280, "height": 720}}
PHONE = {"width": 390, "height": 844}


@contextmanager
def chromium() -> Iterator[Browser]:
    """Headless Chromium from $CHROMIUM or the path; without one the test fails rather than
    skips.
    """
    path = (
        os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    )
    assert path, "Chromium is missing: install it or set CHROMIUM to its path."
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def served(
    runner: Replay | InProcess, mcp_server: bool = False, **options: Any
) -> Iterator[SimpleNamespace]:
    """A running page; `options` are those of `build_demo`."""
    engine = Engine(runner, patience=0.0).start()
    demo = build_demo(engine, **options)
    place = {"prevent_thread_lock": True, "quiet": True, "mcp_server": mcp_server}
    _, url, _ = demo.queue().launch(**place, **launch_kwargs())
    try:
        yield SimpleNamespace(url=url, engine=engine, runner=runner)
    finally:
        demo.close()
        engine.shutdown()


class Visitors:
    """Opens the page, each time as a new visitor; closes all tabs at the end."""

    def __init__(self, browser: Browser, url: str) -> None:
        self._browser, self._url, self._open = browser, url, ExitStack()

    def __enter__(self) -> "Visitors":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def __call__(self, url: str = "", **options: Any) -> Page:
        context: BrowserContext = self._browser.new_context(**(DESKTOP | options))
        self._open.callback(context.close)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.goto(url or self._url)
        page.locator("#status section").wait_for()
        return page


def start(page: Page, concept: str) -> None:
    """Type a concept and press the button."""
    page.fill(BOX, concept)
    page.click("#run")
    page.locator("#stop").wait_for()


def wait_for_end(page: Page) -> None:
    """Wait until the button is back and the last pictures are in place."""
    page.locator("#run").wait_for()
    page.locator("#stop").wait_for(state="hidden")
    page.locator("#board .u-done").wait_for()


def sources(page: Page) -> list[str]:
    """The pictures of the comparison."""
    return page.eval_on_selector_all("#board img", "images => images.map(image => image.src)")


def scores(page: Page) -> str:
    """The table of scores, once it is there."""
    return page.locator("#summary table").first.inner_text()


def sideways(page: Page) -> int:
    """How far the page could be scrolled to the side."""
    return page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )


def serious(page: Page) -> list[str]:
    """The serious accessibility problems that axe finds."""
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [
        f"{one['id']}: {node['html'][:160]}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


FADED = """() => Promise.all(document.getAnimations()
    .filter((one) => one instanceof CSSTransition).map((one) => one.finished.catch(() => null)))"""
"""Waits until no colour is between two others."""


def serious_in_both_schemes(page: Page) -> list[str]:
    """The same in light and in dark colours, which the page takes as soon as the system does."""
    found = []
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function(
            f"document.body.classList.contains('dark') == {int(scheme == 'dark')}"
        )
        page.evaluate(FADED)
        found += serious(page)
    return found


def download(page: Page, kind: str, into: Path) -> Path:
    """Press a download button and keep the file under its suggested name."""
    with page.expect_download() as event:
        page.locator(f"#get-{kind}:visible").click()
    path = into / event.value.suggested_filename
    event.value.save_as(path)
    return path
