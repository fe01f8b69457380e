"""The tab for requests in a row, in a real browser with quick made-up requests."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import fake_workflow as fake
import pytest
from browsing import Visitors, download, served, sideways
from playwright.sync_api import Browser, Page, expect
from safetensors import safe_open

from unlearn_app.continual.ledger import Ledger


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """One page for all tests of the module."""
    with served(
        fake.FakeRunner(), core=fake.CORE, recorded=tmp_path_factory.mktemp("none")
    ) as site:
        yield site


@pytest.fixture
def tab(site: SimpleNamespace, browser: Browser) -> Iterator[Page]:
    """The second tab of a new visitor."""
    site.runner.seconds = 0.2
    with Visitors(browser, site.url) as visitors:
        yield opened(visitors())


def opened(page: Page) -> Page:
    page.get_by_role("tab", name="One after the other").click()
    page.locator("#next input, #next textarea").wait_for()
    return page


def forget(page: Page, concept: str) -> None:
    page.fill("#next input, #next textarea", concept)
    page.click("#add")


def heads(page: Page) -> list[str]:
    return page.locator("#ledger thead th").all_inner_texts()[1:]


def test_requests_grow_the_grid_and_rolling_back_restores_it(site, tab, tmp_path: Path) -> None:
    expect(tab.locator("#sequence-status")).to_contain_text("one at a time")
    forget(tab, "cat")
    expect(tab.locator("#ledger thead")).to_contain_text("1 · cat")
    first = tab.eval_on_selector_all("#ledger img", "images => images.map(image => image.src)")
    tab.locator("#add").wait_for()
    forget(tab, "rabbit")
    expect(tab.locator("#ledger thead")).to_contain_text("2 · rabbit")
    expect(tab.locator("#sequence-status")).to_contain_text("2 requests")
    expect(tab.locator("#sequence-status")).to_contain_text("erased 100 %")
    assert heads(tab) == ["Original", "1 · cat", "2 · rabbit"]
    row = tab.locator("#ledger tbody tr").first
    expect(row).to_contain_text("erased by request 1")
    assert [mark.strip() for mark in row.locator("td span").all_inner_texts()] == [
        "4/4",
        "0/4",
        "0/4",
    ]
    assert tab.locator("#ledger td.u-gone img").count() == 3
    with safe_open(download(tab, "all", tmp_path), "pt") as file:
        assert file.get_tensor("unet.a.lora_A.weight")[0, 0] == 2.0
    tab.click("#back")
    expect(tab.locator("#ledger thead")).not_to_contain_text("2 · rabbit")
    expect(tab.locator("#sequence-status")).to_contain_text("1 request")
    assert (
        tab.eval_on_selector_all("#ledger img", "images => images.map(image => image.src)") == first
    )


def test_what_holds_back_follows_the_method(site, tab) -> None:
    chosen = [tab.get_by_label(name, exact=True) for name in ("Method", "Held back by")]
    assert [box.input_value() for box in chosen] == [
        "concept_ablation",
        "projection, small changes",
    ]
    for method, held in (("uce", "nothing"), ("esd", "projection, small changes")):
        chosen[0].click()
        tab.get_by_role("option", name=method, exact=True).click()
        expect(chosen[1]).to_have_value(held)


def test_what_cannot_be_asked_is_said_under_the_box(site, tab) -> None:
    forget(tab, "zebra crossing")
    expect(tab.locator("#next-hint")).to_contain_text("not known")
    assert tab.locator("#ledger img").count() == 0
    forget(tab, "")
    expect(tab.locator("#next-hint")).to_contain_text("empty")


def test_stop_leaves_the_ledger_as_it_was(site, tab) -> None:
    forget(tab, "cat")
    expect(tab.locator("#ledger thead")).to_contain_text("1 · cat")
    tab.locator("#add").wait_for()
    site.runner.seconds = 60
    forget(tab, "rabbit")
    expect(tab.locator("#sequence-status")).to_contain_text("forgetting rabbit")
    tab.click("#halt")
    tab.locator("#add").wait_for()
    assert heads(tab) == ["Original", "1 · cat"]
    expect(tab.locator("#sequence-status")).to_contain_text("1 request")


def test_visitors_keep_ledgers_of_their_own_which_go_with_them(site, browser) -> None:
    site.runner.seconds = 0.2
    with Visitors(browser, site.url) as visitors:
        anna, ben = opened(visitors()), opened(visitors())
        forget(anna, "cat")
        expect(anna.locator("#ledger thead")).to_contain_text("1 · cat")
        assert ben.locator("#ledger img").count() == 0
        kept = list(site.engine.root.glob("ledger-*"))
        assert [row.concept for row in Ledger.open(kept[-1]).requests] == ["cat"]
        forget(ben, "rabbit")
        expect(ben.locator("#ledger thead")).to_contain_text("1 · rabbit")
        assert "rabbit" not in anna.locator("#ledger thead").inner_text()


@pytest.mark.parametrize(
    "options", [{"viewport": {"width": 390, "height": 844}}, {"color_scheme": "dark"}]
)
def test_nothing_sticks_out_on_a_phone_or_in_the_dark(site, browser, options) -> None:
    site.runner.seconds = 0.2
    with Visitors(browser, site.url) as visitors:
        page = opened(visitors(**options))
        for label in ("Requests", "Held back by", "Method"):
            field = page.get_by_label(label, exact=True)
            assert field.evaluate(
                "field => field.value && field.scrollWidth <= field.clientWidth"
            ), f"{label} is cut"
        for concept in ("cat", "rabbit", "mosaic"):
            forget(page, concept)
            expect(page.locator("#ledger thead")).to_contain_text(concept)
            page.locator("#add").wait_for()
        assert sideways(page) == 0
        assert all(
            page.eval_on_selector_all(
                "#ledger img", "images => images.map(image => image.alt.length > 0)"
            )
        )
