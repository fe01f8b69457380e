"""The box above the pictures: progress while a run works, its verdict afterwards."""

from collections.abc import Sequence

from ..evaluation.verdict import Thresholds
from .html import STOPPING, failed, progress, render
from .view_state import ViewState

MOST_REASONS = 5
"""Of more reasons than this, only those that decide the verdict are not folded away."""
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
    if not state.over:
        return _progress(state)
    label = state.verdict.label if state.verdict and not state.stopped else "inconclusive"
    reasons = state.verdict.reasons if state.verdict else ()
    if state.stopped:
        reasons = (SAVED,)
    first = reasons if len(reasons) <= MOST_REASONS else _deciding(reasons, label)
    rest = [reason for reason in reasons if reason not in first]
    return render("verdict", state=state, label=label, first=first, rest=rest, limits=Thresholds())


def _deciding(reasons: Sequence[str], label: str) -> list[str]:
    """The first reason, the worst attack, and what an inconclusive verdict lacks."""
    worst = [reason for reason in reasons if reason.startswith("Worst attack:")] or [reasons[1]]
    return [reasons[0], *worst, *(reasons[-1:] if label == "inconclusive" else ())]


def _progress(state: ViewState) -> str:
    text, details = "Starting…", []
    if state.stage:
        text = state.stage.text
    if state.step:
        details.append(f"step {state.step.step} of {state.step.total}")
    left = state.seconds_left()
    if left is not None:
        details.append(f"about {max(1, round(left))} s left")
    return progress(text, details, state.fraction, "the run", state.stopping, state.position)
