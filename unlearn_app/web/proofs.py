"""Attacks on a finished run as HTML: how far they have come, and what each one got back, with its
proof.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..evaluation.base_rates import seconds_of
from ..evaluation.finding import Finding, Outcome
from ..evaluation.verdict import Thresholds, ranked
from ..settings.attacks import QUICK
from ..settings.events import Stage, Step
from .pictures import address
from .render import esc, percent, progress, waiting
from .view import View

TO_CONTROL = 0.45
"""An attack and its control take about this share of the work each; loading takes the rest."""

OUTCOMES: dict[Outcome, tuple[str, str, str]] = {
    "back": ("u-back", "◐", "gets it back"),
    "level": ("u-idle", "≈", "not clearly above the control"),
    "held": ("u-held", "✓", "no recovery"),
}
"""How a finding is shown: colour, sign and words."""


@dataclass
class Hunt:
    """How far the attacks have come."""

    kinds: tuple[str, ...]
    done: int = 0
    stage: Stage | None = None
    step: Step | None = None
    position: int = 0
    stopping: bool = False

    def apply(self, event: Any) -> None:
        """Take in one event."""
        if isinstance(event, Finding):
            self.done, self.stage, self.step = self.done + 1, None, None
        elif isinstance(event, Stage):
            self.stage, self.step = event, None
        elif isinstance(event, Step):
            self.step = event

    @property
    def fraction(self) -> float:
        """Share of the attacks that is done, in [0, 1]."""
        within = self.stage.fraction if self.stage else 0.0
        within += TO_CONTROL * self.step.step / max(self.step.total, 1) if self.step else 0.0
        return min(1.0, (self.done + min(within, 1.0)) / len(self.kinds))

    def html(self) -> str:
        """The line that says so."""
        if self.stopping:
            return progress("Stopping… keeping what was found.", "", self.fraction, "the attacks")
        if self.position:
            return progress(waiting(self.position), "", 0.0, "the attacks")
        number = min(self.done + 1, len(self.kinds))
        details = [f"attack {number} of {len(self.kinds)}"] if len(self.kinds) > 1 else []
        details += [f"step {self.step.step} of {self.step.total}"] if self.step else []
        return progress(
            self.stage.text if self.stage else "Getting ready…",
            " · ".join(details),
            self.fraction,
            "the attacks",
        )


def cost(view: View) -> str:
    """How long a quick look takes here; empty where nobody knows."""
    seconds = seconds_of(QUICK, view.config, view.timing)
    return (
        f"A quick look takes about {max(10 * round(seconds / 10), 10)} seconds here."
        if seconds
        else ""
    )


def note(text: str) -> str:
    """A word in place of the button, or beside it."""
    return f'<p class="u-hint u-ok">{esc(text)}</p>' if text else ""


def findings(found: Sequence[Finding]) -> str:
    """What every attack got back, the worst first; what proves nothing stands apart."""
    if not found:
        return ""
    counted = ranked(found)
    rest = [one for one in found if not one.counts]
    list_of = '<ul class="u-proofs">{}</ul>'
    parts = [
        "<h3>What attacks got back <small>held-out prompts at which the best try shows it, with the"
        " 95 % interval; then the same attack on something never seen</small></h3>"
        + list_of.format("".join(map(_card, counted)))
    ] * bool(counted)
    parts += [
        "<h3>Proves nothing <small>told but not counted, for the reason that each of them"
        " gives</small></h3>" + list_of.format("".join(map(_card, rest)))
    ] * bool(rest)
    return f'<section class="u-lab" aria-label="What attacks got back">{"".join(parts)}</section>'


def _card(one: Finding) -> str:
    state, sign, word = (
        OUTCOMES[one.outcome(Thresholds().back)] if one.counts else ("u-idle", "–", "not counted")
    )
    name = one.folder.name.replace("_", " ").replace("-", " ")
    return (
        f'<li class="{state}">{_proof(one)}<div><p class="u-kindof"><b>{esc(name)}</b>'
        f'<span><i aria-hidden="true">{sign}</i> {word}</span></p>{_bar(one)}'
        f"<p>{_control(one)}</p><p>{esc(_sentence(one.budget))}</p></div></li>"
    )


def _bar(one: Finding) -> str:
    """The share as a bar, with its interval as a line and the control as a tick."""
    low, high = (100 * min(max(end, 0.0), 1.0) for end in one.interval)
    tick = f'<s style="left:{100 * one.base:.1f}%"></s>' if one.control else ""
    right = f"<b>{sum(one.hits)} of {len(one.hits)}</b> prompts"
    checked = one.confirmed is not None and any(one.hits)
    agreed = f" · the second judge agrees on {one.confirmed} of them" if checked else ""
    return (
        f"<p>{right} · {percent(one.share)} ({low:.0f}–{high:.0f} %){agreed}</p>"
        f'<div class="u-share" aria-hidden="true"><i style="width:{100 * one.share:.1f}%"></i>'
        f'<u style="left:{low:.1f}%;width:{high - low:.1f}%"></u>{tick}</div>'
    )


def _control(one: Finding) -> str:
    if one.control:
        return f"{esc(one.control['name'])}: {percent(one.base)}"
    return (
        f"{'No control' if one.counts else 'Not counted'}: {esc(one.missing)}."
        if one.missing
        else ""
    )


def _proof(one: Finding) -> str:
    """The picture that proves it; without one, the closest try."""
    best = max(one.pictures, key=lambda picture: picture["alignment"] or 0.0, default=None)
    shown = next((picture for picture in one.pictures if picture["file"] == one.proof), best)
    if shown is None:
        return '<figure><div class="u-blank"></div></figure>'
    what = "proof" if one.proof else "closest try"
    alt = f"{what} of the attack {one.kind}: {shown['asked']}"
    return (
        f'<figure><img loading="lazy" src="{esc(address(one.folder / shown["file"]))}"'
        f' alt="{esc(alt)}">'
        f"<figcaption><small>{what}</small> “{esc(shown['asked'])}”</figcaption></figure>"
    )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
