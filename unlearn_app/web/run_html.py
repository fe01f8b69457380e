"""A run as HTML: progress and verdict, comparison pictures, scores, and findings."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..evaluation.base_rates import seconds_of
from ..evaluation.finding import Finding, other_classes
from ..evaluation.verdict import Thresholds, one_number, ranked, steps_to_recovery
from ..settings.attacks import QUICK
from ..settings.events import Column, Group, Verdict
from ..settings.run_config import RunConfig
from .html import STOPPING, failed, percent, progress, remaining, render
from .pictures import address
from .plots import curve_table, loss_table
from .stage import Moment, moments
from .view_state import Card, ViewState

SAVED = "Results so far are saved."
MOST_ROWS = 20
"""How many rows of a chart its table shows."""
NOTHING_YET = "There was no result yet, so nothing is kept."
STOP_ASKED = f'<section class="u-status u-running"><p><b data-say>{STOPPING}</b></p></section>'
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
    verdict = None if state.stopped else state.verdict
    return render(
        "verdict",
        state=state,
        label=verdict.label if verdict else "inconclusive",
        headline=headline(verdict) if verdict else _stopped(state),
        settings=beyond_a_click(state.config),
        milestones=_milestones(moments(state)),
        facts=_facts(state),
        reasons=verdict.reasons if verdict else (),
        limits=Thresholds(),
    )


def beyond_a_click(config: RunConfig) -> str:
    """What a run was asked for beyond its concept, in words; "" where nothing."""
    words = [f"method {config.objective}"] if config.objective != RunConfig.objective else []
    words += [f"preset {config.preset}"] if config.preset != RunConfig.preset else []
    words += ["defended against relearning"] if config.resist.on else []
    return "" if config.audited else ", ".join(words)


@dataclass(frozen=True)
class Headline:
    """Who won, in a few words, and what that means in a sentence."""

    winner: str
    sentence: str


def headline(verdict: Verdict) -> Headline:
    """The verdict as the page says it first."""
    if verdict.label == "inconclusive":
        return Headline("No verdict", verdict.reasons[-1] if verdict.reasons else "")
    winner, sentence = {
        "removed": ("The attacker lost", "Forgotten, and the attacker could not get it back."),
        "concealed": ("The attacker won", "Hidden, not erased: the attacker got it back."),
        "damaged": ("Nobody won", "Broken: it forgot other things too."),
    }[verdict.label]
    return Headline(winner, verdict.headline or sentence)


def _stopped(state: ViewState) -> Headline:
    kept = state.losses or state.previews or state.cards
    return Headline("Stopped", SAVED if kept else NOTHING_YET)


def _milestones(found: Sequence[Moment]) -> list[tuple[str, Moment, int]]:
    """The original, the forgetting model and the attacked one, each as late as it is known, with
    their places on the timeline.
    """
    last = {moment.phase: place for place, moment in enumerate(found)}
    names = {"original": "Before", "forgotten": "After forgetting", "attacked": "After the attack"}
    return [(name, found[last[p]], last[p]) for p, name in names.items() if p in last]


def _facts(state: ViewState) -> list[tuple[bool | None, str]]:
    """What decides the verdict, each with whether it is good (None: neither)."""
    facts: list[tuple[bool | None, str]] = []
    original = state.scores.get("original", {}).get("forget")
    points = [
        (step, scores["forget"].accuracy)
        for step, scores in sorted(state.curve.items())
        if "forget" in scores and scores["forget"].accuracy is not None
    ]
    if original and original.accuracy and len(points) > 1:
        steps = steps_to_recovery(points, original.accuracy)
        if steps is None:
            facts.append((True, f"Not back after {points[-1][0]} training steps of the attacker."))
        else:
            facts.append((False, f"The attacker needed about {steps:.0f} training steps."))
        last = state.curve and max(state.curve)
        for moment in moments(state)[-1:]:
            if moment.phase == "attacked" and moment.step == last:
                facts += [
                    (None, f"For comparison, {text}: {percent(share)}.")
                    for text, share in moment.controls
                ]
    reasons = state.verdict.reasons if state.verdict else ()
    facts += [(None, reason) for reason in reasons if reason.startswith("Worst attack:")]
    return facts + _kept(state)


def _kept(state: ViewState) -> list[tuple[bool | None, str]]:
    """How many pictures of other things are right after forgetting, and before, of all."""
    before, after = (state.scores.get(column, {}) for column in ("original", "unlearned"))
    counts = []
    for scores in (before, after):
        known = [scores[group] for group in ("near", "far") if group in scores]
        if len(known) < 2 or any(score.accuracy is None for score in known):
            return []
        counts.append(sum(score.hits for score in known))
    right, n = counts[1], sum(before[group].n for group in ("near", "far"))
    good = not state.verdict or state.verdict.label != "damaged"
    return [(good, f"Other things: {right}/{n} pictures still right (before {counts[0]}/{n}).")]


def _progress(state: ViewState) -> str:
    text, details, left = state.stage.text if state.stage else "Starting…", state.steps, state.left
    if left and left.seconds is not None:
        slower = ", slower than expected" if left.slower else ""
        details.append(remaining(left.seconds) + slower)
    done = left.fraction if left else 0.0
    return progress(text, details, done, "the run", state.stopping, state.position)


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


def chart_text(state: ViewState | None) -> str:
    """What the charts show, as a sentence and as tables."""
    if not state:
        return ""
    curve = curve_table(state).dropna().pivot_table(index="step", columns="group", values="share")
    losses = loss_table(state).dropna().pivot_table(index="step", columns="term", values="loss")
    tables = [
        (title, unit, list(table.columns), _few(list(table.itertuples())))
        for title, unit, table in (
            ("What comes back under attack", "attack step", curve),
            ("Losses", "step", losses),
        )
        if len(table)
    ]
    back = [(row[0], row.forget) for row in curve.itertuples()] if "forget" in curve else []
    return render("charts", tables=tables, back=back, concept=state.config.concept)


def _few(rows: Sequence[Any]) -> list[Any]:
    """At most `MOST_ROWS` of the rows, evenly spaced."""
    return list(rows[:: max(1, -(-len(rows) // MOST_ROWS))])


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
