"""What attacks on a finished run got back: a card with a proof for each."""

from collections.abc import Sequence

from ..evaluation.base_rates import seconds_of
from ..evaluation.finding import Finding, Outcome
from ..evaluation.verdict import Thresholds, ranked
from ..settings.attacks import QUICK
from .html import capitalized, esc, percent
from .pictures import address
from .view_state import ViewState

OUTCOMES: dict[Outcome, tuple[str, str, str]] = {
    "back": ("u-back", "◐", "gets it back"),
    "level": ("u-idle", "≈", "not clearly above the control"),
    "held": ("u-held", "✓", "no recovery"),
}
"""How a finding is shown: colour, sign and words."""
NOT_COUNTED = ("u-idle", "–", "not counted")


def cost(state: ViewState) -> str:
    """How long a quick look takes here; empty where that is not known."""
    seconds = seconds_of(QUICK, state.config, state.timing)
    rounded = max(10 * round((seconds or 0) / 10), 10)
    return f"A quick look takes about {rounded} seconds here." if seconds else ""


def attack_cards(found: Sequence[Finding]) -> str:
    """A card for every finding, the worst first; those that prove nothing stand apart."""
    if not found:
        return ""
    counted = _list(
        "What attacks got back",
        "held-out prompts at which the best try shows it, with the 95 % interval; then the same"
        " attack on something never seen",
        ranked(found),
    )
    rest = _list(
        "Proves nothing",
        "told but not counted, for the reason that each of them gives",
        [one for one in found if not one.counts],
    )
    label = "What attacks got back"
    return f'<section class="u-lab" aria-label="{label}">{counted}{rest}</section>'


def _list(title: str, meaning: str, found: Sequence[Finding]) -> str:
    if not found:
        return ""
    cards = "".join(map(_card, found))
    return f'<h3>{title} <small>{meaning}</small></h3><ul class="u-proofs">{cards}</ul>'


def _card(one: Finding) -> str:
    style, sign, word = OUTCOMES[one.outcome(Thresholds().back)] if one.counts else NOT_COUNTED
    name = one.folder.name.replace("_", " ").replace("-", " ")
    return (
        f'<li class="{style}">{_proof(one)}<div><p class="u-kindof"><b>{esc(name)}</b>'
        f'<span><i aria-hidden="true">{sign}</i> {word}</span></p>{_share(one)}'
        f"<p>{_control(one)}</p><p>{esc(capitalized(one.budget))}.</p></div></li>"
    )


def _share(one: Finding) -> str:
    """The share in words, and as a bar with its interval as a line and the control as a tick."""
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
    what = "No control" if one.counts else "Not counted"
    return f"{what}: {esc(one.missing)}." if one.missing else ""


def _proof(one: Finding) -> str:
    """The picture that proves it; without one, the closest try."""
    best = max(one.pictures, key=lambda picture: picture["alignment"] or 0.0, default=None)
    shown = next((picture for picture in one.pictures if picture["file"] == one.proof), best)
    if shown is None:
        return '<figure><div class="u-blank"></div></figure>'
    what = "proof" if one.proof else "closest try"
    src, asked = address(one.folder / shown["file"]), esc(shown["asked"])
    alt = f"{what} of the attack {esc(one.kind)}: {asked}"
    return (
        f'<figure><img loading="lazy" src="{esc(src)}" alt="{alt}">'
        f"<figcaption><small>{what}</small> “{asked}”</figcaption></figure>"
    )
