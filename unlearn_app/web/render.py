"""Pure functions from what a run reports to HTML; all text that is not ours passes through
`esc`.
"""

from collections.abc import Iterable, Sequence
from html import escape

from ..concepts.concept import Concept, Prompt, PromptSplit, evenly_spaced
from ..evaluation.verdict import Thresholds
from ..settings.events import GROUPS, Group
from .view import View

GROUP_TEXT: dict[Group, tuple[str, str]] = {
    "forget": ("Forget", "prompts that ask for it: it should be gone"),
    "near": ("Near", "its closest relatives: they should stay"),
    "far": ("Far", "everything else: it should stay"),
}
VERDICT_TEXT: dict[str, tuple[str, str]] = {
    "removed": ("✓", "Removed"),
    "concealed": ("◐", "Concealed"),
    "damaged": ("✕", "Damaged"),
    "inconclusive": ("?", "Inconclusive"),
}
PERCENT_AXIS = [0, 103]
"""A little above 100, so that a line there is not cut in half."""
MOST_REASONS = 5
"""So many sentences of a verdict stand in the open."""


def esc(value: object) -> str:
    """Text made safe for HTML content and attributes."""
    return escape(str(value), quote=True)


def percent(value: float | None) -> str:
    """A share as whole per cent, or a dash."""
    return "–" if value is None else f"{100 * value:.0f} %"


def signed(value: float, digits: int = 2) -> str:
    """A difference with its sign, using a true minus."""
    text = f"{value:+.{digits}f}"
    return text.replace("-", "−") if float(text) else f"±{abs(value):.{digits}f}"


def span(interval: Sequence[float], digits: int = 0) -> str:
    """The ends of an interval of points, signed."""
    return " to ".join(signed(100 * end, digits) for end in interval)


def header(ready: bool, trouble: str) -> str:
    """Title, one sentence, and whether the model is loaded."""
    if trouble:
        badge = f'<span class="u-badge u-bad" role="status">{esc(trouble)}</span>'
    elif ready:
        badge = '<span class="u-badge u-ready" role="status">Model ready</span>'
    else:
        badge = '<span class="u-badge u-loading" role="status">Loading the model…</span>'
    return (
        '<header class="u-head"><div><h1>Can it really forget?</h1><p>Make a picture model forget'
        " something, let an attacker teach it back, and see which of the two"
        f" won.</p></div>{badge}</header>"
    )


def chips(names: Sequence[tuple[str, str]], shown: int = 8) -> str:
    """Known concepts as buttons, objects before styles; those beyond `shown` of each kind fold
    away.
    """
    if not names:
        return ""
    kinds = {"object": "Objects", "style": "Styles"}
    groups = {kind: [name for name, own in names if own == kind] for kind in kinds}
    visible = {
        kind: members[: shown if kind == "object" else shown // 2]
        for kind, members in groups.items()
    }
    first = "".join(
        f'<span class="u-kind">{esc(kinds[kind])}</span>{_buttons(members)}'
        for kind, members in visible.items()
    )
    rest = "".join(
        f'<span class="u-kind">{esc(kinds[kind])}</span>{_buttons(groups[kind][len(members) :])}'
        for kind, members in visible.items()
        if len(groups[kind]) > len(members)
    )
    more = (
        f'<details><summary>All {len(names)}</summary><div class="u-chips">{rest}</div></details>'
        if rest
        else ""
    )
    return f'<nav class="u-chips" aria-label="Concepts the model knows">{first}{more}</nav>'


def _buttons(names: Iterable[str]) -> str:
    return "".join(
        f'<button type="button" class="u-chip" data-concept="{esc(name)}">{esc(name)}</button>'
        for name in names
    )


def hint(message: str, names: Sequence[str] = ()) -> str:
    """A sentence under the box, with concepts to pick instead."""
    if not message:
        return (
            '<p class="u-hint u-ok">Type a thing or a style; synonyms and capitals do not'
            " matter.</p>"
        )
    offers = f' <span class="u-offers">{_buttons(names)}</span>' if names else ""
    return f'<p class="u-hint" role="alert">{esc(message)}{offers}</p>'


def understood(name: str, kind: str, anchor: str, advice: str = "") -> str:
    """How the typed text was understood, and what the chosen method says about such concepts."""
    said = f"{esc(kind)} <b>{esc(name)}</b>, to be painted as <b>{esc(anchor)}</b> instead."
    return f'<p class="u-hint u-ok">{said} {esc(advice)}</p>'


def prompts(concept: Concept, limit: int = 4) -> str:
    """The prompts a run would train and be judged on, by group."""
    parts = []
    for group in GROUPS:
        title, meaning = GROUP_TEXT[group]
        split: PromptSplit = getattr(concept, group)
        lists = _examples("trained on", split.train, limit) + _examples(
            "judged on", split.test, limit
        )
        parts.append(f"<section><h4>{title} <small>{meaning}</small></h4>{lists}</section>")
    return (
        '<div class="u-prompts" aria-label="Prompts for'
        f' {esc(concept.name)}">{"".join(parts)}</div>'
    )


def _examples(name: str, prompts: Sequence[Prompt], limit: int) -> str:
    items = "".join(
        f"<li>{esc(prompt.text)}</li>"
        for prompt in evenly_spaced(prompts, min(limit, len(prompts)))
    )
    return f"<h5>{name}</h5><ul>{items}</ul>"


def welcome() -> str:
    """What stands above the pictures when no run was recorded."""
    return (
        '<section class="u-status"><p>Pick a concept above, or type one, and press'
        " Enter.</p></section>"
    )


def stopping() -> str:
    """The answer to Stop while the last micro-step ends."""
    return (
        '<section class="u-status u-running"><p><b role="status">Stopping… keeping what is'
        " there.</b></p></section>"
    )


def status(view: View) -> str:
    """The line above the pictures: progress while a run works, its verdict afterwards."""
    if view.error:
        return failed(view.error)
    if not view.over:
        return _progress(view)
    tag = (
        '<span class="u-tag">Recorded</span>'
        if view.recorded
        else '<span class="u-tag u-live">Your run</span>'
    )
    total = view.timing.get("total_s")
    about = f"{tag} “{esc(view.config.concept)}”" + (" · made earlier" if view.recorded else "")
    about += f" · took {total:.0f} s" if total else ""
    label = view.verdict.label if view.verdict and not view.stopped else "inconclusive"
    sign, word = ("■", "Stopped") if view.stopped else VERDICT_TEXT[label]
    reasons = (
        ["What was there when you stopped is kept."]
        if view.stopped
        else view.verdict.reasons
        if view.verdict
        else []
    )
    why = f"{_reasons(reasons, label)}{'' if view.stopped else _thresholds()}"
    return (
        f'<section class="u-status u-verdict u-{esc(label)}" aria-label="Verdict">'
        '<div class="u-word"><span class="u-sign"'
        f' aria-hidden="true">{sign}</span><div><h2>{word}</h2>'
        f"<p>{about}</p></div></div><div>{why}</div></section>"
    )


def _reasons(reasons: Sequence[str], label: str) -> str:
    """The sentences of a verdict; once attacks have made many of them, those that decide, and the
    rest folded away.
    """
    first, rest = list(reasons), []
    if len(reasons) > MOST_REASONS:
        worst = [reason for reason in reasons if reason.startswith("Worst attack:")] or [reasons[1]]
        first = [reasons[0], *worst, *(reasons[-1:] if label == "inconclusive" else [])]
        rest = [reason for reason in reasons if reason not in first]
    lists = ["".join(f"<li>{esc(reason)}</li>" for reason in part) for part in (first, rest)]
    more = f'<details class="u-limits"><summary>{len(rest)} more reasons</summary>' if rest else ""
    more += f'<ul class="u-reasons">{lists[1]}</ul></details>' if rest else ""
    return f'<ul class="u-reasons">{lists[0]}</ul>{more}'


def _thresholds() -> str:
    limit = Thresholds()
    return (
        '<details class="u-limits"><summary>How the verdict is reached</summary><p><b>Damaged</b>:'
        f" relatives or other pictures lose more than {percent(limit.lost)} of accuracy."
        f" <b>Concealed</b>: an attack brings back more than {percent(limit.back)}. <b>Removed</b>:"
        " the attacks that were run, at their budgets, do not. Both need a concept that the"
        f" original paints in at least {percent(limit.known)} of its pictures and the unlearned"
        f" model in at most {percent(limit.forgotten)}; anything else is"
        " <b>inconclusive</b>.</p></details>"
    )


def _progress(view: View) -> str:
    if view.stopping:
        text, detail = "Stopping… keeping what is there.", ""
    elif view.position:
        text, detail = waiting(view.position), ""
    elif view.stage is None:
        text, detail = "Starting…", ""
    else:
        text = view.stage.text
        detail = f"step {view.step.step} of {view.step.total}" if view.step else ""
    left = view.seconds_left()
    if left is not None and not view.stopping:
        detail += (" · " if detail else "") + f"about {max(1, round(left))} s left"
    return progress(text, detail, view.fraction, "the run")


def waiting(position: int) -> str:
    """How many come before a visitor."""
    return f"Waiting: {'1 run is' if position == 1 else f'{position} runs are'} before yours."


def progress(text: str, detail: str, fraction: float, what: str) -> str:
    """What is going on, and a bar of how much of it is done."""
    share = 100 * fraction
    return (
        f'<section class="u-status u-running"><p><b role="status">{esc(text)}</b>'
        f' <span>{esc(detail)}</span></p><div class="u-bar" role="progressbar" aria-label="Progress'
        f' of {esc(what)}" aria-valuemin="0" aria-valuemax="100" aria-valuenow="{share:.0f}"><i'
        f' style="width:{share:.1f}%"></i></div></section>'
    )


def failed(error: str) -> str:
    """Something was tried in vain."""
    text = f"<p><b>That did not work.</b> {esc(error)}</p>"
    return f'<section class="u-status u-failed" role="alert">{text}</section>'
