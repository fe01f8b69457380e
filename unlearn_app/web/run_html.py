"""A run as HTML: progress and verdict, comparison pictures, previews, scores, and findings."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from ..evaluation.base_rates import seconds_of
from ..evaluation.finding import Finding, other_classes
from ..evaluation.verdict import Thresholds, one_number, ranked
from ..settings.attacks import QUICK
from ..settings.events import Column, Group
from .html import STOPPING, failed, progress, render
from .pictures import address
from .view_state import Card, ViewState

MOST_REASONS = 5
"""If there are more reasons, all but those that decide the verdict are folded."""
SAVED = "Results so far are saved."
NOTHING_YET = "There was no result yet, so nothing is kept."
STOP_ASKED = f'<section class="u-status u-running"><p><b role="status">{STOPPING}</b></p></section>'
"""The answer to a click on Stop."""


def status(state: ViewState | None) -> str:
    """The box for a run, or an invitation where there is none."""
    if not state:
        return (
            '<section class="u-status"><p>Pick a concept above, or type one, and press Enter.</p>'
            "</section>"
        )
    if state.error:
        return failed(state.error)
    if not state.over:
        return _progress(state)
    label = state.verdict.label if state.verdict and not state.stopped else "inconclusive"
    reasons = state.verdict.reasons if state.verdict else ()
    if state.stopped:
        reasons = (SAVED if state.losses or state.frames or state.cards else NOTHING_YET,)
    first = reasons if len(reasons) <= MOST_REASONS else _deciding(reasons, label)
    rest = [reason for reason in reasons if reason not in first]
    return render("verdict", state=state, label=label, first=first, rest=rest, limits=Thresholds())


def _deciding(reasons: Sequence[str], label: str) -> list[str]:
    """The first reason, the worst attack, and what an inconclusive verdict lacks."""
    worst = [reason for reason in reasons if reason.startswith("Worst attack:")] or [reasons[1]]
    return [reasons[0], *worst, *(reasons[-1:] if label == "inconclusive" else ())]


def _progress(state: ViewState) -> str:
    text, details = state.stage.text if state.stage else "Starting…", state.steps
    left = state.seconds_left()
    if left is not None:
        details.append(f"about {max(1, round(left))} s left")
    return progress(text, details, state.fraction, "the run", state.stopping, state.position)


def comparison_table(state: ViewState | None) -> str:
    """Original, unlearned and relearned pictures beside each other by group, a row per prompt and
    seed, with a slider over the checkpoints of the attack if there are several.
    """
    if not state:
        return ""
    steps = [0, *sorted(state.checkpoints)]
    if len(steps) < 3 or not {"unlearned", "relearned"} <= state.cards.keys():
        steps = []
    rows: dict[Group, list[tuple[tuple[Group, int], dict[Column, Card]]]] = {}
    for key in max(state.cards.values(), key=len, default={}):
        cards = {column: found[key] for column, found in state.cards.items() if key in found}
        rows.setdefault(key[0], []).append((key, cards))
    return render("comparison", state=state, rows=rows, steps=steps)


def preview_strip(state: ViewState | None) -> str:
    """The latest previews while a run works; all of them, folded, once it is over."""
    return render("previews", state=state) if state else ""


def score_table(state: ViewState | None) -> str:
    """Accuracy and mean alignment by group and column, with the change against the original."""
    if not state or not state.scores:
        return ""
    lines = (one_number(state.verdict.axes if state.verdict else {}), _agreement(state))
    return render("scores", state=state, lines=lines)


def _agreement(state: ViewState) -> str:
    """On how many pictures both judges agree; "" with a single judge."""
    shown = [card.picture for cards in state.cards.values() for card in cards.values()]
    checked = [picture for picture in shown if other_classes(picture.judges)]
    alike = sum({*other_classes(picture.judges)} == {picture.predicted} for picture in checked)
    said = f"Two judges of different build agree on {alike} of {len(checked)} pictures."
    return said if checked else ""


def attack_cards(found: Sequence[Finding]) -> str:
    """A card for every finding, the worst first; those that do not count are listed apart."""
    if not found:
        return ""
    return render(
        "attacks",
        counted=ranked(found),
        uncounted=[one for one in found if not one.counts],
        back=Thresholds().back,
        shown_picture=_shown_picture,
        address=partial(address, owner=found[0].folder.parent.parent.name),
    )


def _shown_picture(one: Finding) -> dict[str, Any] | None:
    """The picture that proves the finding; without one, the closest try."""
    best = max(one.pictures, key=lambda picture: picture["alignment"] or 0.0, default=None)
    return next((picture for picture in one.pictures if picture["file"] == one.proof), best)


def cost(state: ViewState) -> str:
    """How long a quick look takes here; "" if unknown."""
    seconds = seconds_of(QUICK, state.config, state.timing)
    rounded = max(10 * round((seconds or 0) / 10), 10)
    return f"A quick look takes about {rounded} seconds here." if seconds else ""
