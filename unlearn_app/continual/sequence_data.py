"""What a request in a row of them is taught from: an anchor that is still there, and what it may
still retain.
"""

import itertools
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from ..concepts.catalog import preview_concept
from ..concepts.concept import Concept, Prompt, PromptSplit
from ..settings.run_config import RunConfig
from .ledger import Ledger

Item = TypeVar("Item")


def asked_before(ledger: Ledger) -> list[Concept]:
    """The concepts of all requests so far, with the anchors that they were served with."""
    return [
        preview_concept(replace(ledger.config, concept=row.concept, anchor=row.anchor or None))
        for row in ledger.requests
    ]


def anchored(
    config: RunConfig, text: str, avoided: Collection[str], usual: str | None = None
) -> Concept:
    """The concept with an anchor that is not among `avoided`: `usual`, else its own, else the first
    relative left.

    Raises:
        ConfigError: the concept is unknown.
    """
    concept = preview_concept(replace(config, concept=text, anchor=usual))
    others = [
        prompt.expects for prompt in (*concept.near.train, *concept.near.test, *concept.far.train)
    ]
    left = [name for name in dict.fromkeys([concept.anchor, *others]) if name not in avoided]
    if not left or left[0] == concept.anchor:
        return concept
    return preview_concept(replace(config, concept=text, anchor=left[0]))


def all_anchored(
    config: RunConfig, concepts: Sequence[Concept], held_out: Sequence[str] = ()
) -> list[Concept]:
    """`concepts` for being forgotten together: who was read as something that is forgotten too gets
    another anchor.
    """
    avoided = [*(concept.name for concept in concepts), *held_out]
    return [anchored(config, concept.name, avoided, concept.anchor) for concept in concepts]


def united(concepts: Sequence[Concept]) -> Concept:
    """All concepts as one: their training prompts take turns."""
    if len(concepts) == 1:
        return concepts[0]
    pairs = [list(zip(c.forget.train, c.anchors, strict=True)) for c in concepts]
    longest = max(map(len, pairs))
    forget = _in_turn([itertools.islice(itertools.cycle(own), longest) for own in pairs])
    near, far = (
        dict.fromkeys(_in_turn([getattr(c, group).train for c in concepts]))
        for group in ("near", "far")
    )
    last = concepts[-1]
    return replace(
        last,
        forget=PromptSplit(tuple(prompt for prompt, _ in forget), last.forget.test),
        anchors=tuple(anchor for _, anchor in forget),
        near=PromptSplit(tuple(near), last.near.test),
        far=PromptSplit(tuple(far), last.far.test),
    )


def _in_turn(lists: Sequence[Iterable[Item]]) -> list[Item]:
    """The first of each, then the second of each, and so on; a shorter one ends earlier."""
    return [item for row in itertools.zip_longest(*lists) for item in row if item is not None]


def without(concept: Concept, gone: Sequence[Concept]) -> Concept:
    """The concept with retain prompts that name nothing of `gone`, by any of its words.

    Where none are left, its anchor's sentences are retained: they name things of the other kind,
    and the anchor.
    """
    names = [re.escape(word) for other in gone for word in (other.name, *other.synonyms)]
    if not names:
        return concept
    named = re.compile(rf"(?<!\w)(?:{'|'.join(names)})(?:e?s)?(?!\w)", re.I)

    def left(prompts: Sequence[Prompt]) -> tuple[Prompt, ...]:
        return tuple(
            p for p in prompts if not named.search(p.text) and not named.fullmatch(p.expects)
        )

    near, far = left(concept.near.train), left(concept.far.train)
    if not near:
        near, far = far, ()
    if not near:
        sentences = dict.fromkeys(concept.anchors)
        near = left(
            [Prompt(text, concept.forget.train[0].axis, concept.anchor) for text in sentences]
        )
    return replace(
        concept, near=replace(concept.near, train=near), far=replace(concept.far, train=far)
    )
