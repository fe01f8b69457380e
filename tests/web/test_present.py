"""Presentations in a real browser: the beats, the keys, the loop of a booth, and what a hall can
read.
"""

import re

import pytest
from browsing import BOX, serious_in_both_schemes, start, wait_for_end
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.slow

TALK, HEAD, STILL = "#u-present", "#u-present h2", {"reduced_motion": "reduce"}
HALL = {"viewport": {"width": 1920, "height": 1080}}
WIDE = """() => {
  const widths = [...document.querySelectorAll("#u-present img")].map(one => one.clientWidth);
  return widths.length === 3 && Math.min(...widths) >= 480;
}"""
"""Gradio may draw the stage once more, whose pictures are then loaded anew."""
SMALLEST = """() => {
  const texts = document.createTreeWalker(document.querySelector("#u-present"), 4), sizes = [];
  while (texts.nextNode()) {
    const text = texts.currentNode;
    if (text.data.trim() && text.parentElement.offsetParent)
      sizes.push(parseFloat(getComputedStyle(text.parentElement).fontSize));
  }
  return Math.min(...sizes);
}"""


def present(site, visit, query: str = "", **options) -> Page:
    page = visit(f"{site.url}?present=1{query}", **options)
    page.locator(TALK).wait_for()
    return page


def at(page: Page) -> str:
    return page.locator(f"{TALK} input").input_value()


def pictures(page: Page) -> list[str]:
    found = page.locator(f"{TALK} img").evaluate_all("all => all.map(one => one.src)")
    return [source.rpartition("/")[2] for source in found]


def test_space_tells_a_recorded_run_in_four_beats(site, visit) -> None:
    page = present(site, visit)
    expect(page.locator(f"{TALK} .u-what")).to_have_text("Forget “cat” · recorded")
    original = pictures(page)
    told = []
    for beat in ("Original", "Forgetting", "Attack", "Verdict"):
        expect(page.locator(f"{TALK} li[data-on]")).to_have_text(beat)
        page.keyboard.press("Space")  # ends what plays, which is nothing with so few moments
        told.append(page.locator(HEAD).inner_text())
    assert "The attacker won" in told
    shown = pictures(page)
    assert len(shown) == 3
    assert shown[0] == original[0]
    assert shown[1] != shown[0]
    page.keyboard.press("Space")
    expect(page.locator(HEAD)).to_have_text("The attacker won")


def test_a_hall_can_read_and_see_all_of_it(site, visit) -> None:
    page = present(site, visit, **HALL, **STILL)
    fits = "talk => talk.scrollHeight <= innerHeight && talk.scrollWidth <= innerWidth"
    for beat in ("Original", "Forgetting", "Attack", "Verdict"):
        expect(page.locator(f"{TALK} li[data-on]")).to_have_text(beat)
        page.wait_for_function(WIDE)
        assert page.evaluate(SMALLEST) >= 32, beat
        assert page.locator(TALK).evaluate(fits), beat
        page.keyboard.press("Space")


def test_arrows_scrub_and_the_other_keys_do_what_they_say(site, visit) -> None:
    page = visit()
    page.focus("#stage .u-handle")
    page.keyboard.press("p")
    page.locator(TALK).wait_for()
    last = page.locator(f"{TALK} input").get_attribute("max")
    assert at(page) == "0"
    page.keyboard.press("ArrowRight")
    assert at(page) == "1"
    page.keyboard.press("ArrowLeft")
    assert at(page) == "0"
    page.keyboard.press("End")
    assert at(page) == last
    page.keyboard.press("Space")
    expect(page.locator(HEAD)).to_have_text("The attacker won")
    page.keyboard.press("b")
    expect(page.locator(HEAD)).to_be_hidden()
    page.keyboard.press("b")
    expect(page.locator(HEAD)).to_be_visible()
    page.keyboard.press("PageUp")
    expect(page.locator(HEAD)).not_to_have_text("The attacker won")
    page.keyboard.press("r")
    assert at(page) == "0"
    expect(page.locator(HEAD)).to_have_text("The attacker won")  # goes on by itself
    page.keyboard.press("Escape")
    expect(page.locator(TALK)).to_have_count(0)
    expect(page.locator("[data-present]")).to_be_focused()
    assert "present" not in page.url


def test_keys_are_letters_in_a_field(site, visit) -> None:
    page = visit()
    page.focus(BOX)
    page.keyboard.type("pr b")
    expect(page.locator(BOX)).to_have_value("pr b")
    assert page.locator(TALK).count() == 0


def test_escape_leaves_and_stops_no_run(site, visit) -> None:
    site.runner.seconds = 30
    page = visit()
    start(page, "rabbit")
    page.locator("#stage .u-large").get_by_text("rabbit").wait_for()
    page.click("[data-present]")
    expect(page.locator(f"{TALK} .u-what")).to_have_text("Forget “rabbit”")
    page.keyboard.press("Escape")
    expect(page.locator(TALK)).to_have_count(0)
    page.wait_for_timeout(500)
    expect(page.locator("#stop")).to_have_text("Stop")
    page.click("#stop")
    wait_for_end(page)


def test_a_visitors_own_result_is_presented(site, visit) -> None:
    page = visit()
    start(page, "rabbit")
    wait_for_end(page)
    page.click("[data-present]")
    expect(page.locator(f"{TALK} .u-what")).to_have_text("Forget “rabbit”")
    page.locator(f"{TALK} [data-does=next]").click()
    page.keyboard.press("End")
    page.keyboard.press("Space")
    expect(page.locator(HEAD)).to_have_text("The attacker won")


def test_a_booth_goes_on_to_the_next_recorded_run_until_somebody_comes(site, visit) -> None:
    page = present(site, visit, "&idle=1")
    expect(page.locator(f"{TALK} .u-what")).to_contain_text("frog")
    page.mouse.move(300, 300)
    page.keyboard.press("Home")
    expect(page.locator(HEAD)).to_have_text("The original model")
    page.wait_for_timeout(300)
    assert at(page) == "0"


@pytest.mark.parametrize("scrubs", [False, True])
def test_a_booth_does_not_leave_a_run_that_goes_on(site, visit, scrubs: bool) -> None:
    site.runner.seconds = 60
    page = present(site, visit, "&idle=1")
    page.keyboard.press("Escape")
    start(page, "rabbit")
    page.locator("#stage .u-large").get_by_text("rabbit").wait_for()
    page.click("[data-present]")
    if scrubs:
        page.keyboard.press("ArrowLeft")
    for _ in range(4):
        page.wait_for_timeout(700)
        assert page.evaluate("talk.auto") == ""
    expect(page.locator(f"{TALK} .u-what")).to_have_text("Forget “rabbit”")
    page.keyboard.press("Escape")
    page.click("#stop")
    wait_for_end(page)


def test_nothing_moves_by_itself_where_motion_is_reduced(site, visit) -> None:
    page = present(site, visit, "&idle=1", **STILL)
    page.wait_for_timeout(5000)
    assert at(page) == "0"
    page.keyboard.press("r")
    page.wait_for_timeout(4000)
    assert at(page) == "0"
    page.keyboard.press("Space")
    page.keyboard.press("Space")
    assert at(page) == page.locator(f"{TALK} input").get_attribute("max")


def test_a_presentation_keeps_nobody_out(site, visit) -> None:
    page = present(site, visit)
    assert serious_in_both_schemes(page) == []
    page.keyboard.press("End")
    page.keyboard.press("Space")
    expect(page.locator(HEAD)).to_have_text(re.compile("won"))
    assert serious_in_both_schemes(page) == []
    page.keyboard.press("Tab")
    assert page.evaluate("document.querySelector('#u-present').contains(document.activeElement)")
