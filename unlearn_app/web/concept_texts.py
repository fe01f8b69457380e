"""The texts around the box for a concept: title, known concepts, and how the typed text
is understood.
"""

from collections.abc import Sequence

from ..concepts.concept import Concept, evenly_spaced
from ..settings.events import GROUPS
from .html import render

INVITATION = (
    '<p class="u-hint u-ok">Type a thing or a style; synonyms and capitals do not matter.</p>'
)
EXAMPLES = 4
"""Prompts shown of each list."""


def header(ready: bool, error: str) -> str:
    """Title, one sentence, and whether the model is loaded."""
    return render("header", ready=ready, error=error)


def known_concepts(names: Sequence[tuple[str, str]]) -> str:
    """Buttons for the names, given with their kinds: objects, then styles, most of them folded
    away.
    """
    kinds = {kind: [name for name, own in names if own == kind] for kind in ("object", "style")}
    return render("known_concepts", kinds=kinds) if names else ""


def prompt_lists(concept: Concept) -> str:
    """Some of the prompts that a run is trained and judged on, by group."""
    splits = {group: getattr(concept, group) for group in GROUPS}
    examples = {
        group: {
            heading: evenly_spaced(prompts, min(EXAMPLES, len(prompts)))
            for heading, prompts in (("trained on", split.train), ("judged on", split.test))
        }
        for group, split in splits.items()
    }
    return render("prompts", concept=concept, examples=examples)
