"""A run as HTML: comparison pictures, previews, scores, and what attacks got back."""

from collections.abc import Sequence
from typing import Any

from ..evaluation.base_rates import seconds_of
from ..evaluation.finding import Finding, other_classes
from ..evaluation.verdict import Thresholds, one_number, ranked
from ..settings.attacks import QUICK
from ..settings.events import Column, Group
from .html import render
from .pictures import address
from .view_state import Card, ViewState


def comparison_table(state: ViewState) -> str:
    """Original, unlearned and relearned pictures beside each other, a row per prompt and seed, by
    group; with a slider through the attack where it has several checkpoints.
    """
    steps = [0, *sorted(state.checkpoints)]
    if len(steps) < 3 or not {"unlearned", "relearned"} <= state.cards.keys():
        steps = []
    rows: dict[Group, list[tuple[tuple[Group, int], dict[Column, Card]]]] = {}
    for key in max(state.cards.values(), key=len, default={}):
        cards = {column: found[key] for column, found in state.cards.items() if key in found}
        rows.setdefault(key[0], []).append((key, cards))
    return render("comparison", state=state, rows=rows, steps=steps)


def preview_strip(state: ViewState) -> str:
    """The latest previews of a run that works; all of them, folded away, once it is over."""
    return render("previews", state=state)


def score_table(state: ViewState) -> str:
    """Accuracy and mean alignment by group and column, with the change against the original."""
    if not state.scores:
        return ""
    lines = (one_number(state.verdict.axes if state.verdict else {}), _agreement(state))
    return render("scores", state=state, lines=lines)


def _agreement(state: ViewState) -> str:
    """On how many pictures all judges agree; empty where there is only one judge."""
    shown = [card.picture for cards in state.cards.values() for card in cards.values()]
    checked = [picture for picture in shown if other_classes(picture.judges)]
    alike = sum({*other_classes(picture.judges)} == {picture.predicted} for picture in checked)
    said = f"Two judges of different build agree on {alike} of {len(checked)} pictures."
    return said if checked else ""


def attack_cards(found: Sequence[Finding]) -> str:
    """A card for every finding, the worst first; those that prove nothing stand apart."""
    if not found:
        return ""
    return render(
        "attacks",
        counted=ranked(found),
        uncounted=[one for one in found if not one.counts],
        back=Thresholds().back,
        shown_picture=_shown_picture,
        address=address,
    )


def _shown_picture(one: Finding) -> dict[str, Any] | None:
    """The picture that proves the finding; without one, the closest try."""
    best = max(one.pictures, key=lambda picture: picture["alignment"] or 0.0, default=None)
    return next((picture for picture in one.pictures if picture["file"] == one.proof), best)


def cost(state: ViewState) -> str:
    """How long a quick look takes here; empty where that is not known."""
    seconds = seconds_of(QUICK, state.config, state.timing)
    rounded = max(10 * round((seconds or 0) / 10), 10)
    return f"A quick look takes about {rounded} seconds here." if seconds else ""
