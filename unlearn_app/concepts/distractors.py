"""Distractors: what a judge that takes any words may choose beside what was asked for.

They are of the kind of the concept, objects against objects and styles against styles: a judge that
had to choose between a cat and a style would always be right.
"""

from collections.abc import Collection, Sequence

from .concept import KnownConcept
from .diversification import SHIPPED, related, shipped


def distractors(
    axis: str, answers: Collection[str], known: Sequence[KnownConcept]
) -> tuple[str, ...]:
    """Names on `axis` that mean none of the `answers` there: those of the model's `known` concepts,
    or of the shipped lists of sub-concepts where the model takes any words.
    """
    names = [entry.name for entry in known if entry.kind == axis] if known else _shipped(axis)
    return tuple(
        name
        for name in dict.fromkeys(names)
        if not any(related(name, answer) for answer in answers)
    )


def _shipped(axis: str) -> list[str]:
    """Everything that the lists in assets/prompts name on `axis`, as their sentences name it."""
    lists = [shipped()[name] for name in SHIPPED]
    phrase = "in the style of {}" if axis == "style" else "{}"
    return [
        phrase.format(name) for one in lists if one.kind == axis for name in (*one.near, *one.far)
    ]
