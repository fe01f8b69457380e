"""The recorded runs as cards: three pictures, the concept, and who won."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .html import render
from .run_html import Headline, beyond_a_click, headline
from .stage import Moment, moments
from .view_state import ViewState


@dataclass(frozen=True)
class Recorded:
    """A recorded run as its card shows it; `name` is that of its folder, and `settings` is what was
    asked for beyond the concept.
    """

    name: str
    concept: str
    settings: str
    outcome: Headline
    label: str
    pictures: tuple[tuple[str, str], ...]
    """Addresses and descriptions: before, after forgetting, and after the attack."""


def recorded_card(name: str, state: ViewState) -> Recorded:
    """The card of a run that ships with the app."""
    found = moments(state)
    last: dict[str, Moment] = {moment.phase: moment for moment in found}
    shown = [last[phase] for phase in ("original", "forgotten", "attacked") if phase in last]
    slot = next(iter(found[0].cards)) if found else None
    pictures = [(moment.cards[slot].src, moment.title) for moment in shown if slot in moment.cards]
    return Recorded(
        name,
        state.config.concept,
        beyond_a_click(state.config),
        headline(state.verdict) if state.verdict else Headline("", ""),
        state.verdict.label if state.verdict else "inconclusive",
        tuple(pictures),
    )


def cards_of(states: Mapping[str, ViewState]) -> list[Recorded]:
    """The cards of recorded runs by name: first those that a click alone gives."""
    cards = [recorded_card(name, state) for name, state in states.items()]
    return sorted(cards, key=lambda card: bool(card.settings))


def recorded_cards(cards: Iterable[Recorded]) -> str:
    """All recorded runs, each a button that puts it on screen; "" where there are none."""
    found = list(cards)
    return render("recordings", cards=found) if found else ""
