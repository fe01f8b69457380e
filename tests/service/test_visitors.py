"""Who is here: keys, sessions that come and go, and how long their things are kept."""

import pytest

from unlearn_app.service.visitors import GRACE, SHORT_GRACE, Visitors, visitor_of

KEY, OTHER = "0a" * 32, "0b" * 32


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def visitors(clock: Clock) -> Visitors:
    return Visitors(clock=clock)


def look(visitors: Visitors, session: str, key: str = KEY) -> str:
    """A page opens and says whose it is."""
    visitors.connected(session)
    visitor = visitor_of(session, key)
    visitors.seen(visitor, session)
    return visitor


def test_a_key_is_one_visitor_in_every_session() -> None:
    assert visitor_of("tab 1", KEY) == visitor_of("tab 2", KEY) != visitor_of("tab 1", OTHER)


def test_a_name_does_not_tell_the_key() -> None:
    assert KEY not in visitor_of("tab 1", KEY)


@pytest.mark.parametrize(
    "key", ["", None, "anna", KEY[1:], KEY + "0", KEY.upper(), KEY + "\n", 7, [KEY], {"key": KEY}]
)
def test_without_a_proper_key_the_session_is_the_visitor(key) -> None:
    assert visitor_of("tab 1", key) == visitor_of("tab 1") != visitor_of("tab 2", key)


def test_no_session_passes_for_a_browser() -> None:
    assert visitor_of(f"key {KEY}") != visitor_of("", KEY)


def test_a_visitor_is_gone_after_the_grace_and_told_once(visitors, clock) -> None:
    visitor = look(visitors, "tab")
    visitors.disconnected("tab")
    clock.now += GRACE - 1
    assert visitor not in visitors.gone()
    clock.now += 1
    assert visitor in visitors.gone()
    assert not visitors.gone()


def test_a_page_that_stays_open_is_never_gone(visitors, clock) -> None:
    look(visitors, "tab")
    clock.now += 100 * GRACE
    assert not visitors.gone()


def test_one_of_two_tabs_may_close(visitors, clock) -> None:
    visitor = look(visitors, "tab 1")
    look(visitors, "tab 2")
    visitors.disconnected("tab 1")
    clock.now += 2 * GRACE
    assert visitor not in visitors.gone()


def test_one_of_two_connections_of_a_session_may_close(visitors, clock) -> None:
    visitor = look(visitors, "tab")
    visitors.connected("tab")
    visitors.disconnected("tab")
    clock.now += 2 * GRACE
    assert visitor not in visitors.gone()


def test_coming_back_in_time_begins_anew(visitors, clock) -> None:
    visitor = look(visitors, "tab")
    visitors.disconnected("tab")
    clock.now += GRACE - 1
    look(visitors, "reloaded")
    clock.now += 2
    assert visitor not in visitors.gone()


def test_a_page_whose_connection_is_lost_stays_while_it_says_so(visitors, clock) -> None:
    visitor = look(visitors, "tab")
    visitors.disconnected("tab")
    for _ in range(100):
        clock.now += GRACE / 2
        visitors.seen(visitor, "tab")
        assert visitor not in visitors.gone()


def test_a_program_goes_with_its_connection(visitors, clock) -> None:
    visitors.connected("program")
    visitors.seen(visitor_of("program"), "program")
    visitors.disconnected("program")
    clock.now += SHORT_GRACE
    assert visitors.gone() == [visitor_of("program")]


def test_only_who_connects_is_met(visitors) -> None:
    visitor = visitor_of("tab", KEY)
    visitors.seen(visitor, "tab")
    assert not visitors.met(visitor)
    visitors.connected("tab")
    assert visitors.met(visitor)


def test_a_session_keeps_only_the_first_visitor_that_it_names(visitors, clock) -> None:
    look(visitors, "tab")
    invented = visitor_of("tab", OTHER)
    visitors.seen(invented, "tab")
    clock.now += GRACE
    assert not visitors.met(invented)
    assert visitors.gone() == [invented]


def test_invented_sessions_are_forgotten(visitors, clock) -> None:
    for number in range(1000):
        visitors.seen(visitor_of(f"{number}", KEY[:-4] + f"{number:04d}"), f"{number}")
        visitors.connected(f"s{number}")
        visitors.disconnected(f"s{number}")
    clock.now += GRACE
    assert len(visitors.gone()) == 2000
    assert not any(vars(visitors)[name] for name in ("_until", "_met", "_open", "_shows"))


def test_a_visitor_is_here_while_a_session_of_theirs_is_connected(visitors) -> None:
    visitor = look(visitors, "tab 1")
    look(visitors, "tab 2")
    visitors.disconnected("tab 1")
    assert visitors.here(visitor)
    visitors.disconnected("tab 2")
    assert not visitors.here(visitor)
