"""The box above the pictures: progress while a run works, its verdict afterwards."""

from collections.abc import Sequence

from ..evaluation.verdict import Thresholds
from .html import esc, failed, folded, percent, progress, waiting
from .view_state import ViewState

VERDICT_TEXT: dict[str, tuple[str, str, str]] = {
    "removed": ("✓", "Removed", "It forgot, and the attacker could not bring it back."),
    "concealed": ("◐", "Concealed", "The attacker won: it was hidden, not erased."),
    "damaged": ("✕", "Damaged", "It forgot too much: other things broke as well."),
    "inconclusive": ("?", "Inconclusive", "There is no verdict."),
}
"""Sign, word and sentence for every verdict."""
MOST_REASONS = 5
"""A verdict with more sentences than this has most of them folded away."""
STOPPING = "Stopping… saving the results so far."
SAVED = "Results so far are saved."
WELCOME = (
    '<section class="u-status"><p>Pick a concept above, or type one, and press Enter.</p></section>'
)
STOP_ASKED = f'<section class="u-status u-running"><p><b role="status">{STOPPING}</b></p></section>'
"""The answer to a click on Stop."""


def status(state: ViewState) -> str:
    """The box as it stands."""
    if state.error:
        return failed(state.error)
    return _verdict(state) if state.over else _progress(state)


def _verdict(state: ViewState) -> str:
    style, tag = ("u-tag", "Recorded") if state.recorded else ("u-tag u-live", "Your run")
    about = f'<span class="{style}">{tag}</span> “{esc(state.config.concept)}”'
    about += " · made earlier" if state.recorded else ""
    seconds = state.timing.get("total_s")
    about += f" · took {seconds:.0f} s" if seconds else ""
    label = "inconclusive"
    if state.stopped:
        sign, word, said = "■", "Stopped", ""
        why = _reasons([SAVED], label)
    else:
        label = state.verdict.label if state.verdict else label
        sign, word, said = VERDICT_TEXT[label]
        why = _reasons(state.verdict.reasons if state.verdict else [], label) + _thresholds()
    sentence = f'<p class="u-says">{said}</p>' if said else ""
    return (
        f'<section class="u-status u-verdict u-{esc(label)}" aria-label="Verdict">'
        f'<div class="u-word"><span class="u-sign" aria-hidden="true">{sign}</span>'
        f"<div><h2>{word}</h2>{sentence}<p>{about}</p></div></div><div>{why}</div></section>"
    )


def _reasons(reasons: Sequence[str], label: str) -> str:
    """The sentences of a verdict; of many, those that decide, and the others folded away."""
    first = list(reasons)
    if len(reasons) > MOST_REASONS:
        worst = [reason for reason in reasons if reason.startswith("Worst attack:")] or [reasons[1]]
        first = [reasons[0], *worst, *(reasons[-1:] if label == "inconclusive" else [])]
    rest = [reason for reason in reasons if reason not in first]
    more = folded(f"{len(rest)} more reasons", _bullets(rest), "u-limits") if rest else ""
    return _bullets(first) + more


def _bullets(sentences: Sequence[str]) -> str:
    items = "".join(f"<li>{esc(sentence)}</li>" for sentence in sentences)
    return f'<ul class="u-reasons">{items}</ul>'


def _thresholds() -> str:
    limit = Thresholds()
    text = (
        "<p><b>Damaged</b>:"
        f" relatives or other pictures lose more than {percent(limit.lost)} of accuracy."
        f" <b>Concealed</b>: an attack brings back more than {percent(limit.back)}. <b>Removed</b>:"
        " the attacks that were run, at their budgets, do not. Both need a concept that the"
        f" original shows in at least {percent(limit.known)} of its pictures and the unlearned"
        f" model in at most {percent(limit.forgotten)}; anything else is <b>inconclusive</b>.</p>"
    )
    return folded("How the verdict is reached", text, "u-limits")


def _progress(state: ViewState) -> str:
    text, details = "Starting…", []
    if state.stopping:
        text = STOPPING
    elif state.position:
        text = waiting(state.position)
    elif state.stage:
        text = state.stage.text
        details += [f"step {state.step.step} of {state.step.total}"] if state.step else []
    left = state.seconds_left()
    if left is not None and not state.stopping:
        details.append(f"about {max(1, round(left))} s left")
    return progress(text, " · ".join(details), state.fraction, "the run")
