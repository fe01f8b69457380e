"""What a request of a sequence is trained on: an anchor that is not erased, and retain prompts that
name nothing erased.
"""

import itertools
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from ..concepts.catalog import preview_concept, request_name
from ..concepts.concept import Concept, Item, Prompt, PromptSplit, cycled
from ..concepts.english import alternatives
from ..settings.run_config import RunConfig
from .ledger import Ledger


def requested_concepts(ledger: Ledger) -> list[Concept]:
    """The concepts of all requests so far, with their recorded anchors."""
    return [
        preview_concept(replace(ledger.config, concept=row.concept, anchor=row.anchor or None))
        for row in ledger.requests
    ]


def with_allowed_anchor(
    config: RunConfig, text: str, avoided: Collection[str], preferred: str | None = None
) -> Concept:
    """The concept with an anchor that is not in `avoided`.

    It is `preferred`, else the usual anchor, else the first relative that is allowed; if none is,
    the preferred or usual one.

    Raises:
        ConfigError: the concept is unknown.
    """
    concept = preview_concept(replace(config, concept=text, anchor=preferred))
    others = [
        prompt.expects for prompt in (*concept.near.train, *concept.near.test, *concept.far.train)
    ]
    left = [name for name in dict.fromkeys([concept.anchor, *others]) if name not in avoided]
    if not left or left[0] == concept.anchor:
        return concept
    return preview_concept(replace(config, concept=text, anchor=left[0]))


def with_allowed_anchors(
    config: RunConfig, concepts: Sequence[Concept], held_out: Sequence[str] = ()
) -> list[Concept]:
    """`concepts` to be forgotten together, with anchors that are none of them and not held out."""
    avoided = [*(concept.name for concept in concepts), *held_out]
    return [
        with_allowed_anchor(config, request_name(concept, config.model), avoided, concept.anchor)
        for concept in concepts
    ]


def merged_concept(concepts: Sequence[Concept]) -> Concept:
    """All concepts as one, whose training prompts are taken from them in turn."""
    pairs = [list(zip(c.forget.train, c.anchors, strict=True)) for c in concepts]
    longest = max(map(len, pairs))
    forget = _in_turn([cycled(own, longest) for own in pairs])
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


def drop_retain_prompts(concept: Concept, gone: Sequence[Concept]) -> Concept:
    """The concept without the retain prompts that name something of `gone` or a synonym of it.

    If none are left, the sentences of the anchor are retained instead.
    """
    names = [word for other in gone for word in (other.name, *other.synonyms)]
    if not names:
        return concept
    named = re.compile(rf"(?<!\w)(?:{alternatives(names)})(?!\w)", re.I)

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
