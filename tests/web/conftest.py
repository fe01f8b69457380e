"""What tests of the page share: one Chromium, a page over recorded runs, and visitors of it."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from browsing import Visitors, chromium, served
from playwright.sync_api import Browser
from recordings import Recordings, Replay

from unlearn_app.settings.run_config import make_config


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def recorded(recordings: Recordings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs that come with the page: one that comes back, and one that does
    not.
    """
    root = tmp_path_factory.mktemp("recorded")
    for name in ("cat", "frog"):
        shutil.copytree(recordings.run(make_config(name)).folder, root / name)
    return root


@pytest.fixture(scope="module")
def site(recordings: Recordings, recorded: Path) -> Iterator[SimpleNamespace]:
    """One page for all tests of the module, which brings `recorded`; tests set `runner.seconds`."""
    with served(Replay(recordings), recorded=recorded) as site:
        yield site


@pytest.fixture
def visit(site: SimpleNamespace, browser: Browser) -> Iterator[Visitors]:
    """Opens the page as a new visitor, and closes it after the test."""
    site.runner.seconds = 0.3
    site.runner.log.clear()
    site.runner.asked.clear()
    with Visitors(browser, site.url) as visitors:
        yield visitors
