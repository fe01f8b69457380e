"""The tab for requests in a row, in a real browser with recorded requests."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from browsing import DESKTOP, PHONE, Visitors, download, served, sideways
from playwright.sync_api import Browser, Page, expect
from recordings import Recordings, Replay

from unlearn_app.continual.ledger import Ledger
from unlearn_app.continual.metrics import request_metrics
from unlearn_app.web.html import percent


@pytest.fixture(scope="module")
def site(recordings: Recordings, tmp_path_factory) -> Iterator[SimpleNamespace]:
    """One page for all tests of the module."""
    with served(Replay(recordings), recorded=tmp_path_factory.mktemp("none")) as site:
        yield site


@pytest.fixture
def tab(site: SimpleNamespace, browser: Browser) -> Iterator[Page]:
    """The second tab of a new visitor."""
    site.runner.seconds = 0.2
    with Visitors(browser, site.url) as visitors:
        yield opened(visitors())


def opened(page: Page) -> Page:
    page.get_by_role("tab", name="Several requests").click()
    page.locator("#next input, #next textarea").wait_for()
    return page


def forget(page: Page, concept: str) -> None:
    page.fill("#next input, #next textarea", concept)
    page.click("#add")


def heads(page: Page) -> list[str]:
    return page.locator("#ledger thead th").all_inner_texts()[1:]


def pictures(page: Page) -> list[str]:
    return page.eval_on_selector_all("#ledger img", "images => images.map(image => image.src)")


def ledgers(site: SimpleNamespace) -> set[Path]:
    """All ledgers there are: those of visitors who left stay for their time of grace."""
    return set(site.engine.root.glob("visitor-*/ledger"))


def test_requests_grow_the_grid_and_rolling_back_restores_it(site, tab, tmp_path: Path) -> None:
    expect(tab.locator("#sequence-status")).to_contain_text("one at a time")
    before = ledgers(site)
    forget(tab, "cat")
    expect(tab.locator("#ledger thead")).to_contain_text("1 · cat")
    tab.locator("#add").wait_for()
    first = pictures(tab)
    forget(tab, "rabbit")
    expect(tab.locator("#ledger thead")).to_contain_text("2 · rabbit")
    expect(tab.locator("#sequence-status")).to_contain_text("2 requests")
    tab.locator("#add").wait_for()
    (folder,) = ledgers(site) - before
    ledger = Ledger.open(folder)
    erased = request_metrics(ledger.rows)[-1].ua
    expect(tab.locator("#sequence-status")).to_contain_text(f"erased {percent(erased)}")
    assert heads(tab) == ["Original", "1 · cat", "2 · rabbit"]
    row = tab.locator("#ledger tbody tr").first
    expect(row).to_contain_text("erased by request 1")
    seen = [row.panel["cat"].right for row in ledger.rows]
    counts = [mark.strip() for mark in row.locator("td span").all_inner_texts()]
    assert counts == [f"{sum(right)}/{len(right)}" for right in seen]
    assert tab.locator("#ledger td.u-gone img").count() == 3
    assert download(tab, "all", tmp_path).read_bytes() == ledger.path(2).read_bytes()
    tab.click("#back")
    expect(tab.locator("#ledger thead")).not_to_contain_text("2 · rabbit")
    expect(tab.locator("#sequence-status")).to_contain_text("1 request")
    assert pictures(tab) == first
    tab.click("#undo")
    expect(tab.locator("#ledger thead")).to_contain_text("2 · rabbit")
    expect(tab.locator("#undo")).to_be_hidden()


def test_what_holds_back_follows_the_method(site, tab) -> None:
    chosen = [tab.get_by_label(name, exact=True) for name in ("Method", "Protection")]
    assert [box.input_value() for box in chosen] == [
        "concept_ablation",
        "keep other words, change little",
    ]
    undo = "none: requests may undo each other"
    for method, held in (("uce", undo), ("esd", "keep other words, change little")):
        chosen[0].click()
        tab.get_by_role("option", name=method, exact=True).click()
        expect(chosen[1]).to_have_value(held)


def test_what_cannot_be_asked_is_said_under_the_box(site, tab) -> None:
    forget(tab, "zebra crossing")
    expect(tab.locator("#next-hint")).to_contain_text("does not know")
    assert tab.locator("#ledger img").count() == 0
    forget(tab, "")
    expect(tab.locator("#next-hint")).to_contain_text("empty")


@pytest.mark.parametrize("reloads", [False, True])
def test_stop_leaves_the_ledger_as_it_was_and_a_reload_returns_to_both(site, tab, reloads) -> None:
    forget(tab, "cat")
    expect(tab.locator("#ledger thead")).to_contain_text("1 · cat")
    tab.locator("#add").wait_for()
    site.runner.seconds = 600
    forget(tab, "rabbit")
    expect(tab.locator("#sequence-status")).to_contain_text("forgetting rabbit")
    if reloads:
        tab.reload()
        expect(tab.locator("#sequence-status")).to_contain_text("forgetting rabbit")
        assert heads(tab) == ["Original", "1 · cat"]
    tab.click("#halt")
    tab.locator("#add").wait_for()
    assert heads(tab) == ["Original", "1 · cat"]
    expect(tab.locator("#sequence-status")).to_contain_text("1 request")


def test_visitors_keep_ledgers_of_their_own_which_go_with_them(site, browser) -> None:
    site.runner.seconds = 0.2
    with Visitors(browser, site.url) as visitors:
        anna, ben = opened(visitors()), opened(visitors())
        before = ledgers(site)
        forget(anna, "cat")
        expect(anna.locator("#ledger thead")).to_contain_text("1 · cat")
        assert ben.locator("#ledger img").count() == 0
        (kept,) = ledgers(site) - before
        assert [row.concept for row in Ledger.open(kept).requests] == ["cat"]
        forget(ben, "rabbit")
        expect(ben.locator("#ledger thead")).to_contain_text("1 · rabbit")
        assert "rabbit" not in anna.locator("#ledger thead").inner_text()


def test_nothing_sticks_out_on_a_phone_or_in_the_dark(site, browser) -> None:
    site.runner.seconds = 0.2
    with Visitors(browser, site.url) as visitors:
        page = opened(visitors(viewport=PHONE))
        for concept in ("cat", "rabbit", "mosaic"):
            forget(page, concept)
            expect(page.locator("#ledger thead")).to_contain_text(concept)
            page.locator("#add").wait_for()
        for scheme, size in (("light", PHONE), ("dark", DESKTOP["viewport"])):
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size(size)
            assert sideways(page) == 0
            for label in ("Requests", "Protection", "Method"):
                field = page.get_by_label(label, exact=True)
                assert field.evaluate(
                    "field => field.value && field.scrollWidth <= field.clientWidth"
                ), f"{label} is cut"
        assert all(
            page.eval_on_selector_all(
                "#ledger img", "images => images.map(image => image.alt.length > 0)"
            )
        )
