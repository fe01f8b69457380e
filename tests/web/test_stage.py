"""The stage in a real browser: the timeline, its handle, and the prompts beside it."""

import re
from collections.abc import Iterator

import pytest
from browsing import (
    BOX,
    Visitors,
    serious_in_both_schemes,
    sideways,
    start,
    wait_for_end,
)
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.slow

LARGE, HANDLE = "#stage .u-now", "#stage .u-handle"


def picture(page: Page) -> str:
    return page.locator(LARGE).get_attribute("src").rpartition("/")[2]


def ticks(page: Page) -> list[str]:
    sources = page.locator("#stage .u-tick img").evaluate_all("all => all.map(one => one.src)")
    return [source.rpartition("/")[2] for source in sources]


def drag(page: Page, share: float) -> None:
    """Drag the handle from where it is to a share of the timeline."""
    box = page.locator(HANDLE).bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] - 12, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + 12 + share * (box["width"] - 24), middle, steps=5)
    page.mouse.up()


@pytest.fixture(scope="module")
def opened(site, browser) -> Iterator[Page]:
    """The page of one visitor, for all tests that only look at the recorded run."""
    with Visitors(browser, site.url) as visitors:
        yield visitors()


@pytest.fixture
def recorded_stage(opened: Page) -> Page:
    """That page, with the handle at the end of the timeline, as it arrives."""
    opened.focus(HANDLE)
    opened.keyboard.press("End")
    return opened


def test_the_handle_takes_the_large_picture_through_the_timeline(visit) -> None:
    page = visit()
    frames, heading = ticks(page), page.locator("#stage .u-figures h3")
    assert len(frames) >= 4
    assert picture(page) == frames[-1]
    drag(page, 0)
    expect(heading).to_have_text("Before forgetting")
    assert picture(page) == frames[0]
    expect(page.locator("#stage .u-count strong")).to_have_text("6/6")
    page.focus(HANDLE)
    page.keyboard.press("ArrowRight")
    expect(heading).to_have_text("After forgetting")
    expect(page.locator("#stage .u-count strong")).to_have_text("0/6")
    assert picture(page) == frames[1]
    expect(page.locator(HANDLE)).to_have_attribute(
        "aria-valuetext", "After forgetting: 0/6 pictures show it"
    )
    page.keyboard.press("End")
    expect(heading).to_have_text("Attacked, 11 steps")
    assert picture(page) == frames[-1]
    page.keyboard.press("Home")
    assert picture(page) == frames[0]


def test_play_goes_through_every_moment_and_ends_at_the_last(
    recorded_stage: Page,
) -> None:
    page = recorded_stage
    seen = """() => {
      window.seen = [];
      new MutationObserver(() => window.seen.push(document.querySelector(".u-handle").value))
        .observe(document.querySelector(".u-now"), { attributes: true, attributeFilter: ["src"] });
    }"""
    page.evaluate(seen)
    page.click("#stage .u-play")
    expect(page.locator("#stage .u-play")).to_have_text(re.compile("Pause"))
    expect(page.locator("#stage .u-play")).to_have_text(re.compile("Play"))
    moments = len(ticks(page))
    passed = list(dict.fromkeys(page.evaluate("window.seen")))
    assert passed == [str(place) for place in range(moments)]


def test_thumbnails_switch_the_large_picture_and_follow_the_handle(
    recorded_stage: Page,
) -> None:
    page = recorded_stage
    picks = page.locator("#stage .u-pick")
    assert picks.count() == 4
    picks.nth(0).click()
    expect(picks.nth(0)).to_have_attribute("aria-pressed", "true")
    before = picture(page)
    picks.nth(2).click()
    expect(picks.nth(2)).to_have_attribute("aria-pressed", "true")
    expect(picks.nth(0)).to_have_attribute("aria-pressed", "false")
    assert picture(page) != before
    shown = picks.nth(0).locator("img").get_attribute("src")
    page.click("#status .u-milestone >> nth=0")
    expect(page.locator("#stage .u-figures h3")).to_have_text("Before forgetting")
    assert picks.nth(0).locator("img").get_attribute("src") != shown
    assert picture(page) == ticks(page)[0]


def test_two_halves_compare_a_moment_with_the_original(
    recorded_stage: Page,
) -> None:
    page = recorded_stage
    split = page.get_by_label("How much of the original to show")
    expect(split).to_be_hidden()
    page.click("#stage .u-halves")
    expect(page.locator("#stage .u-before")).to_be_visible()
    split.focus()
    page.keyboard.press("End")
    expect(page.locator("#stage .u-before")).to_have_css("clip-path", "inset(0px 0% 0px 0px)")
    page.keyboard.press("Home")
    expect(page.locator("#stage .u-before")).to_have_css("clip-path", "inset(0px 100% 0px 0px)")


def test_complete_pictures_are_above_the_fold(visit) -> None:
    page = visit()
    page.locator(LARGE).wait_for()
    for width, height, least in ((1280, 720, 3), (390, 844, 1)):
        page.set_viewport_size({"width": width, "height": height})
        whole = page.locator("#stage img").evaluate_all(
            "all => all.filter(one => one.offsetParent && one.getBoundingClientRect().bottom"
            " <= innerHeight && one.getBoundingClientRect().width >= 48).length"
        )
        large = page.locator(LARGE).bounding_box()
        assert whole >= least, width
        assert large["y"] + large["height"] <= height, width
        assert large["width"] >= 300, width
        assert sideways(page) == 0, width


def test_a_card_puts_a_recorded_run_on_screen(visit) -> None:
    page = visit()
    cards = page.locator("#cards .u-card")
    assert cards.count() == 2
    expect(page.locator("#status h2")).to_have_text("The attacker won")
    cards.filter(has_text="frog").click()
    expect(page.locator("#status h2")).to_have_text("The attacker lost")
    expect(page.locator("#status")).to_contain_text("Recorded")
    expect(page.locator("#stage .u-large")).to_contain_text("frog")


def test_of_two_cards_pressed_at_once_the_second_counts(visit) -> None:
    page = visit()
    cards = page.locator("#cards .u-card")
    page.evaluate(
        "all => all.forEach(one => one.click())",
        [cards.filter(has_text=name).element_handle() for name in ("cat", "frog")],
    )
    expect(page.locator("#stage .u-large")).to_contain_text("frog")
    expect(page.locator("#status h2")).to_have_text("The attacker lost")


def test_a_run_shows_the_originals_first_and_keeps_what_was_chosen(site, visit) -> None:
    site.runner.seconds = 12
    page = visit()
    start(page, "rabbit")
    expect(page.locator("#stage .u-large")).to_contain_text("rabbit")
    page.locator("#stage .u-pick").nth(1).click()
    chosen = page.locator("#stage .u-large figcaption").inner_text()
    wait_for_end(page)
    expect(page.locator("#stage .u-figures h3")).to_have_text("Attacked, 11 steps")
    assert page.locator("#stage .u-large figcaption").inner_text() == chosen


def test_the_keyboard_stays_on_run_and_stop(site, visit) -> None:
    site.runner.seconds = 30
    page = visit()
    expect(page.locator("#head")).to_contain_text("Model ready")
    page.fill(BOX, "cat")
    page.focus("#run")
    page.keyboard.press("Enter")
    expect(page.locator("#stop")).to_be_focused()
    expect(page.locator("#u-live")).to_contain_text(re.compile("\\w"))
    page.keyboard.press("Enter")
    expect(page.locator("#run")).to_be_focused()
    expect(page.locator("#u-live")).to_contain_text("Stopped")
    assert page.locator("[role=status], [aria-live=polite]").count() <= 2, "one, and Gradio's own"


def test_a_link_fills_in_concept_seed_and_method(site, visit) -> None:
    page = visit(f"{site.url}?concept=van+gogh&seed=7&method=uce")
    expect(page.locator(BOX)).to_have_value("van gogh")
    expect(page.locator("#hint")).to_contain_text("van gogh")
    page.locator("#options > button").click()
    expect(page.locator("#seed input")).to_have_value("7")
    expect(page.locator("#objective input")).to_have_value(re.compile("^uce"))


def test_nonsense_in_a_link_changes_nothing(site, visit) -> None:
    page = visit(f"{site.url}?concept={'x' * 300}&seed=-1&method=magic")
    expect(page.locator("#head")).to_contain_text("Model ready")
    expect(page.locator(BOX)).to_have_value("")
    page.locator("#options > button").click()
    expect(page.locator("#seed input")).to_have_value("0")
    expect(page.locator("#objective input")).to_have_value(re.compile("^esd"))


def test_nothing_serious_keeps_anybody_out(site, visit) -> None:
    site.runner.seconds = 60
    page = visit()
    expect(page.locator("#head")).to_contain_text("Model ready")
    assert serious_in_both_schemes(page) == []
    start(page, "rabbit")
    page.locator(LARGE).wait_for()
    assert serious_in_both_schemes(page) == []
    page.click("#stop")
    wait_for_end(page)
    page.locator("#options > button").click()
    page.locator("#expert > button").click()
    page.locator("#unlearn-steps input").wait_for()
    assert serious_in_both_schemes(page) == []


def test_nothing_moves_as_the_page_arrives(site, browser) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    page = context.new_page()
    page.add_init_script(
        "window.moved = 0; new PerformanceObserver(list => {"
        " for (const entry of list.getEntries()) window.moved += entry.value;"
        " }).observe({ type: 'layout-shift', buffered: true });"
    )
    page.goto(site.url)
    expect(page.locator("#head")).to_contain_text("Model ready")
    page.locator(LARGE).wait_for()
    page.wait_for_timeout(1000)
    assert page.evaluate("window.moved") <= 0.05
    context.close()


def test_the_search_of_the_expert_settings_hides_the_others(visit) -> None:
    page = visit()
    page.locator("#options > button").click()
    page.locator("#expert > button").click()
    page.fill("#find-setting", "attack rank")
    expect(page.locator("#attack-rank")).to_be_visible()
    expect(page.locator("#unlearn-steps")).to_be_hidden()
    page.fill("#find-setting", "")
    expect(page.locator("#unlearn-steps")).to_be_visible()
