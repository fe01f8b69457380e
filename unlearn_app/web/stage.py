"""The stage: one large picture on a timeline from the original through forgetting to the attack, of
the same prompts and seeds at every moment.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..evaluation.statistics import wilson
from ..settings.events import FRAMED, FRESH, GROUPS, UNRESISTING, Group, GroupScore
from .html import percent, render
from .view_state import Card, Cards, ViewState

Phase = Literal["original", "forgetting", "forgotten", "attacked"]
Slot = tuple[Group, int]
CONTROL_TEXT = {
    UNRESISTING: "the same run without the defence",
    FRESH: "something it has never seen, taught in the same way",
}
"""What a control's share stands beside; a recorded control is of the kind `FRESH`."""


@dataclass(frozen=True)
class Moment:
    """The model at one point of the timeline: its pictures, and how many of those of the concept
    show it (None where no judge has seen them).
    """

    phase: Phase
    step: int
    cards: Cards
    shown: tuple[int, int] | None
    controls: tuple[tuple[str, float], ...] = ()
    """What controls reach after as many attack steps: in words, and as a share."""

    @property
    def title(self) -> str:
        """The moment as a heading."""
        return {
            "original": "Before forgetting",
            "forgetting": f"Forgetting, step {self.step}",
            "forgotten": "After forgetting",
            "attacked": f"Attacked, {self.step} steps",
        }[self.phase]

    @property
    def tick(self) -> str:
        """The moment under its mark on the timeline."""
        if self.phase in ("original", "forgotten"):
            return self.phase.capitalize()
        return f"{'attack' if self.phase == 'attacked' else 'step'} {self.step}"

    @property
    def count(self) -> str:
        """How many pictures show the concept, such as "12/12"; "" where unknown."""
        return "{}/{}".format(*self.shown) if self.shown else ""

    @property
    def interval(self) -> str:
        """The share of pictures that show the concept, with its 95 % interval."""
        if not self.shown or not self.shown[1]:
            return ""
        right, n = self.shown
        low, high = wilson(right, n)
        bounds = f"{100 * max(low, 0):.0f} to {100 * min(high, 1):.0f} %"
        return f"{percent(right / n)}, 95 % interval {bounds}"


def moments(state: ViewState) -> list[Moment]:
    """The timeline of a run as far as it has come, the oldest moment first.

    Every moment holds pictures of the prompts and seeds that the first one holds; others, such as
    the previews of earlier versions, are left out.
    """
    unlearned = state.config.unlearn.steps
    asked: list[tuple[Phase, int, Cards, GroupScore | None]] = [
        ("original", 0, state.cards.get("original", {}), _forget(state, "original")),
        *(("forgetting", _step(cards), cards, None) for cards in state.previews),
        ("forgotten", unlearned, state.cards.get("unlearned", {}), _forget(state, "unlearned")),
    ]
    asked += [
        ("attacked", step, cards, state.curve.get(step, {}).get("forget"))
        for step, cards in sorted(state.checkpoints.items())
    ]
    found: list[Moment] = []
    for phase, step, cards, score in asked:
        framed = _framed(cards, found[0].cards if found else {})
        if framed:
            controls = _controls(state, step) if phase == "attacked" else ()
            found.append(Moment(phase, step, framed, _shown(score, cards), controls))
    return found


def _forget(state: ViewState, column: Any) -> GroupScore | None:
    return state.scores.get(column, {}).get("forget")


def _step(cards: Cards) -> int:
    return max((card.picture.step for card in cards.values()), default=0)


def _framed(cards: Cards, first: Cards) -> Cards:
    """The pictures of a moment, in the order of groups; only those of the prompts and seeds of the
    `first` moment, if there is one.
    """
    slots = [(group, index) for group in GROUPS for index in range(FRAMED[group])]
    return {
        slot: cards[slot]
        for slot in slots
        if slot in cards
        and (not first or (slot in first and _asked(cards[slot]) == _asked(first[slot])))
    }


def _asked(card: Card) -> tuple[str, int]:
    return card.picture.prompt, card.picture.seed


def _shown(score: GroupScore | None, cards: Cards) -> tuple[int, int] | None:
    """How many pictures show the concept, of how many: by the score, else by those at hand."""
    if score:
        return None if score.hits is None else (score.hits, score.n)
    judged = [card.picture.correct for (group, _), card in cards.items() if group == "forget"]
    judged = [correct for correct in judged if correct is not None]
    return (sum(judged), len(judged)) if judged else None


def _controls(state: ViewState, step: int) -> tuple[tuple[str, float], ...]:
    return tuple(
        (CONTROL_TEXT.get(name, CONTROL_TEXT[FRESH]), scores[step].accuracy)
        for name, scores in state.controls.items()
        if step in scores and scores[step].accuracy is not None
    )


def stage(state: ViewState | None) -> str:
    """The stage of a run at its last moment; "" without a run."""
    if not state:
        return ""
    found = moments(state)
    slots = list(found[0].cards) if found else []
    picks = [_pick(found, slot) for slot in slots]
    data = [
        {
            "phase": moment.phase,
            "title": moment.title,
            "count": moment.count,
            "interval": moment.interval,
            "controls": [f"{text}: {percent(share)}" for text, share in moment.controls],
        }
        for moment in found
    ]
    return render("stage", state=state, moments=found, data=data, picks=picks)


def _pick(found: Sequence[Moment], slot: Slot) -> dict[str, Any]:
    """One prompt of the stage: its text, whether it should be forgotten, and its picture at every
    moment, the one before where there is none.
    """
    cards: list[Card] = []
    for moment in found:
        cards.append(moment.cards.get(slot) or cards[-1])
    return {
        "prompt": cards[0].picture.prompt,
        "seed": cards[0].picture.seed,
        "group": slot[0],
        "frames": [{"src": card.src, "seen": card.picture.predicted or ""} for card in cards],
    }
