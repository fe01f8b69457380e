"""Blind rounds: who may vote and how often, what is known before it is revealed, and a round with a
phone in a real browser.
"""

from types import SimpleNamespace
from typing import Any

import pytest
from browsing import serious
from playwright.sync_api import expect
from starlette.datastructures import Headers

from unlearn_app.service.visitors import Visitors
from unlearn_app.web.ballots import LASTS, MAX_ROUNDS, MAX_VOTES, BallotError, Ballots, vote_address

OPEN: Any = SimpleNamespace(here=lambda visitor: True, met=lambda visitor: True)
"""Visitors who all have the page open."""


def key(number: int) -> str:
    return f"{number:064x}"


def test_a_browser_has_one_vote_and_may_change_its_mind() -> None:
    ballots = Ballots(OPEN)
    code = ballots.begin("lecturer", 3)
    for picture in (0, 2, 1):
        ballots.vote(code, key(1), picture)
    ballots.vote(code, key(2), 1)
    assert ballots.said(code) == {"pictures": 3, "votes": 2}
    shown = ballots.reveal(code, "lecturer", 1)
    assert shown == {"pictures": 3, "votes": 2, "answer": 1, "counts": [0, 2, 0]}


def test_nothing_is_taken_once_it_is_revealed() -> None:
    ballots = Ballots(OPEN)
    code = ballots.begin("lecturer", 2)
    ballots.reveal(code, "lecturer", 0)
    with pytest.raises(BallotError, match="revealed"):
        ballots.vote(code, key(1), 0)


def test_only_who_began_a_round_reveals_it() -> None:
    ballots = Ballots(OPEN)
    code = ballots.begin("lecturer", 2)
    with pytest.raises(BallotError, match="no round of yours"):
        ballots.reveal(code, "somebody", 0)
    assert "answer" not in ballots.said(code)


@pytest.mark.parametrize("wrong", [-1, 3, True, "1", None, 1.0, [1]])
def test_pictures_that_are_none_get_no_vote(wrong: Any) -> None:
    ballots = Ballots(OPEN)
    code = ballots.begin("lecturer", 3)
    with pytest.raises(BallotError, match="picture"):
        ballots.vote(code, key(1), wrong)
    with pytest.raises(BallotError):
        ballots.reveal(code, "lecturer", wrong)


@pytest.mark.parametrize("wrong", [0, 1, 5, "3", None, True])
def test_a_round_has_two_to_four_pictures(wrong: Any) -> None:
    with pytest.raises(BallotError, match="2 to 4"):
        Ballots(OPEN).begin("lecturer", wrong)


def test_votes_rounds_and_their_time_are_bounded() -> None:
    now = [0.0]
    ballots = Ballots(OPEN, clock=lambda: now[0])
    codes = [ballots.begin(f"visitor {n}", 2) for n in range(MAX_ROUNDS)]
    with pytest.raises(BallotError, match="try again"):
        ballots.begin("one more", 2)
    again = ballots.begin("visitor 0", 2)  # in place of the first one
    with pytest.raises(BallotError, match="over"):
        ballots.vote(codes[0], key(1), 0)
    for number in range(MAX_VOTES):
        ballots.vote(again, key(number), 0)
    with pytest.raises(BallotError, match="all of them are in"):
        ballots.vote(again, key(MAX_VOTES), 0)
    ballots.vote(again, key(0), 1)  # a voter who is counted already
    now[0] = LASTS + 1
    with pytest.raises(BallotError, match="over"):
        ballots.said(again)
    ballots.begin("one more", 2)


def test_rounds_of_visitors_who_left_keep_nobody_out() -> None:
    visitors = Visitors()
    ballots = Ballots(visitors)
    for name in ("lecturer", *(f"gone {n}" for n in range(1, MAX_ROUNDS))):
        visitors.connected(name)
        visitors.seen(name, name)
        code = ballots.begin(name, 2)
        if name == "lecturer":
            kept = code
        else:
            visitors.disconnected(name)
    visitors.connected("one more")
    visitors.seen("one more", "one more")
    ballots.begin("one more", 2)
    assert ballots.said(kept) == {"pictures": 2, "votes": 0}
    with pytest.raises(BallotError, match="over"):
        ballots.said(code)


def test_a_session_begins_no_rounds_under_invented_keys() -> None:
    visitors = Visitors()
    ballots = Ballots(visitors)
    visitors.connected("page")
    for name in ("its own", "invented"):
        visitors.seen(name, "page")
    ballots.begin("its own", 2)
    with pytest.raises(BallotError, match="open page"):
        ballots.begin("invented", 2)


@pytest.mark.parametrize(
    ("origin", "served", "address"),
    [
        ("http://127.0.0.1:7860", "127.0.0.1", ""),
        ("http://127.0.0.1:7860", None, ""),
        ("http://10.0.0.5:7860", "0.0.0.0", "http://10.0.0.5:7860/vote/abc234"),
        ("https://me-page.hf.space", "0.0.0.0", "https://me-page.hf.space/vote/abc234"),
        ("http://localhost:7860", "192.168.1.7", "http://192.168.1.7:7860/vote/abc234"),
    ],
)
def test_phones_get_an_address_that_they_reach(origin: str, served: Any, address: str) -> None:
    request = SimpleNamespace(headers=Headers({"origin": origin}))
    demo = SimpleNamespace(server_name=served, server_port=7860)
    assert vote_address(request, demo, "abc234") == address


@pytest.mark.slow
def test_a_round_is_voted_on_by_click_and_by_phone_and_revealed(site, visit, browser) -> None:
    page = visit(f"{site.url}?present=1")
    page.locator("#u-present").wait_for()
    page.keyboard.press("v")
    expect(page.locator("#u-present h2")).to_have_text("Which one has forgotten?")
    expect(page.locator("#u-present .u-poll")).to_contain_text("HOST=0.0.0.0")
    assert "cat" not in page.locator("#u-present .u-pictures").inner_html().split("src")[0]
    letters = page.locator("#u-present [data-vote]")
    expect(letters).to_have_text(["A", "B", "C"])
    assert serious(page) == []
    letters.nth(1).click()
    expect(page.locator("#u-present .u-tally")).to_have_text("1 vote so far")
    letters.nth(0).click()
    expect(letters.nth(0)).to_have_attribute("aria-pressed", "true")
    phone = browser.new_context(viewport={"width": 390, "height": 844}).new_page()
    phone.goto(f"{site.url}vote/{page.evaluate('talk.round.code')}")
    phone.get_by_role("button", name="C").click()
    expect(phone.locator("#said")).to_contain_text("You chose C")
    assert serious(phone) == []
    expect(page.locator("#u-present .u-tally")).to_have_text("2 votes so far")
    page.keyboard.press("Space")
    expect(page.locator("#u-present h2")).to_contain_text("has forgotten")
    told = " ".join(letters.all_inner_texts())
    for word in ("the original", "has forgotten", "attacked"):
        assert told.count(word) == 1
    assert told.count("1 vote") == 2
    expect(phone.locator("#said")).to_contain_text("it was")
    page.keyboard.press("Space")
    expect(page.locator("#u-present li[data-on]")).to_have_text("Original")
    phone.context.close()
