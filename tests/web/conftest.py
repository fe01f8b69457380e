"""What tests of the page share: one Chromium, a page over made-up runs, and visitors of it."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import fake_workflow as fake
import pytest
from browsing import Visitors, chromium, served
from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for the module."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def site(recorded: Path) -> Iterator[SimpleNamespace]:
    """One page for all tests of the module, which brings `recorded`; tests set `runner.seconds`."""
    with served(fake.FakeRunner(), core=fake.CORE, recorded=recorded) as site:
        yield site


@pytest.fixture
def visit(site: SimpleNamespace, browser: Browser) -> Iterator[Visitors]:
    """Opens the page as a new visitor, and closes it after the test."""
    site.runner.seconds, site.runner.log[:] = 0.3, []
    with Visitors(browser, site.url) as visitors:
        yield visitors
