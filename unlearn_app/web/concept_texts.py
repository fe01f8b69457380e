"""The texts around the box for a concept: title, known concepts, and how the typed text
is understood.
"""

from collections.abc import Sequence

from ..concepts.concept import Concept, Prompt, PromptSplit, evenly_spaced
from ..settings.events import GROUPS, Group
from .html import chips, esc, folded

GROUP_TEXT: dict[Group, tuple[str, str]] = {
    "forget": ("Forget", "prompts that ask for it: it should be gone"),
    "near": ("Near", "its closest relatives: they should stay"),
    "far": ("Far", "everything else: it should stay"),
}
KINDS = {"object": ("Objects", 8), "style": ("Styles", 4)}
"""Heading of the concepts of each kind, and how many of them are not folded away."""
INVITATION = (
    '<p class="u-hint u-ok">Type a thing or a style; synonyms and capitals do not matter.</p>'
)
EXAMPLES = 4
"""Prompts shown of each list."""


def header(ready: bool, trouble: str) -> str:
    """Title, one sentence, and whether the model is loaded."""
    style, text = ("loading", "Loading the model…")
    if trouble:
        style, text = "bad", trouble
    elif ready:
        style, text = "ready", "Model ready"
    return (
        '<header class="u-head"><div><h1>Can it really forget?</h1><p>Make a picture model forget'
        " something, let an attacker teach it back, and see which of the two won.</p></div>"
        f'<span class="u-badge u-{style}" role="status">{esc(text)}</span></header>'
    )


def known_concepts(names: Sequence[tuple[str, str]]) -> str:
    """Buttons for the names, given with their kinds: objects, then styles, most of them folded
    away.
    """
    if not names:
        return ""
    first = rest = ""
    for kind, (title, shown) in KINDS.items():
        members = [name for name, own in names if own == kind]
        first += _kind(title, members[:shown])
        rest += _kind(title, members[shown:]) if members[shown:] else ""
    more = folded(f"All {len(names)}", f'<div class="u-chips">{rest}</div>') if rest else ""
    return f'<nav class="u-chips" aria-label="Concepts the model knows">{first}{more}</nav>'


def _kind(title: str, names: Sequence[str]) -> str:
    return f'<span class="u-kind">{title}</span>{chips(names)}'


def understood(concept: Concept, advice: str) -> str:
    """How the typed text was understood, and what the chosen method says about such concepts."""
    kind, name, anchor = map(esc, (concept.kind, concept.name, concept.anchor))
    said = f"{kind} <b>{name}</b>: the model learns to show <b>{anchor}</b> instead."
    return f'<p class="u-hint u-ok">{said} {esc(advice)}</p>'


def prompt_lists(concept: Concept) -> str:
    """Some of the prompts that a run is trained and judged on, by group."""
    sections = ""
    for group in GROUPS:
        title, meaning = GROUP_TEXT[group]
        split: PromptSplit = getattr(concept, group)
        lists = _examples("trained on", split.train) + _examples("judged on", split.test)
        sections += f"<section><h4>{title} <small>{meaning}</small></h4>{lists}</section>"
    label = f"Prompts for {esc(concept.name)}"
    return f'<div class="u-prompts" aria-label="{label}">{sections}</div>'


def _examples(title: str, prompts: Sequence[Prompt]) -> str:
    shown = evenly_spaced(prompts, min(EXAMPLES, len(prompts)))
    items = "".join(f"<li>{esc(prompt.text)}</li>" for prompt in shown)
    return f"<h5>{title}</h5><ul>{items}</ul>"
