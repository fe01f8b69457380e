"""A concept: what the user typed, turned into forget prompts, an anchor, and near and far retain
prompts.
"""

import itertools
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeVar

from .english import alternatives, article

if TYPE_CHECKING:
    from torch import Tensor

Item = TypeVar("Item")
Kind = Literal["object", "style"]
Lesson = tuple["Tensor", list[str]]
"""Pictures (N, 3, H, W) in [-1, 1] of a concept, and a caption of each."""


@dataclass(frozen=True)
class Prompt:
    """A prompt and what a judge should see in its picture: class `expects` among the classes of
    `axis`.
    """

    text: str
    axis: str
    expects: str


@dataclass(frozen=True)
class PromptSplit:
    """Training and held-out prompts; apart from the concept itself they share no sub-concept."""

    train: tuple[Prompt, ...]
    test: tuple[Prompt, ...]


@dataclass(frozen=True)
class KnownConcept:
    """One entry of a model's vocabulary, for chips and tables; `fresh` ones were never in its
    training pictures.
    """

    name: str
    kind: Kind
    family: str
    synonyms: tuple[str, ...] = ()
    fresh: bool = False


@dataclass(frozen=True)
class Concept:
    """Everything a run needs to know about the concept; pure, so it can be shown before anything
    runs.

    `anchors[i]` is `forget.train[i]` with the concept replaced by the anchor. The adversary's
    pictures show `relearn`, prompts with the concept, or `benign`, prompts without it; neither are
    training prompts of the defender or held out. `synonyms` are other words for the concept.
    `instead` is the anchor as prompts name it, for judges that choose among such phrases; empty
    where the judge has classes of its own.
    """

    text: str
    name: str
    kind: Kind
    anchor: str
    forget: PromptSplit
    anchors: tuple[str, ...]
    relearn: tuple[Prompt, ...]
    near: PromptSplit
    far: PromptSplit
    benign: tuple[Prompt, ...] = ()
    synonyms: tuple[str, ...] = ()
    instead: str = ""


def kept_whole(concept: Concept) -> tuple[str, ...]:
    """What the concept is made of or one of, which near prompts ask for in training and in
    judging, such as “cat” of “red cat”.
    """
    judged = {prompt.expects for prompt in concept.near.test}
    asked = dict.fromkeys(prompt.expects for prompt in concept.near.train)
    return tuple(name for name in asked if name and name in judged)


def also_named(prompt: Prompt, known: Sequence[KnownConcept]) -> Prompt | None:
    """The same prompt, with the question changed to the concept of another kind that its text
    names, the longest name where there are several; None where it names none.
    """
    named = [
        entry
        for entry in known
        if entry.kind != prompt.axis
        and re.search(rf"\b{re.escape(entry.name)}\b", prompt.text, re.I)
    ]
    found = max(named, key=lambda entry: len(entry.name), default=None)
    return replace(prompt, axis=found.kind, expects=found.name) if found else None


def evenly_spaced(items: Sequence[Item], count: int) -> tuple[Item, ...]:
    """`count` items evenly over `items`, starting again when there are fewer."""
    if count >= len(items):
        return cycled(items, count)
    return tuple(items[row * len(items) // count] for row in range(count))


def cycled(items: Sequence[Item], count: int) -> tuple[Item, ...]:
    """The first `count` items, starting again when there are fewer; none of no items."""
    return tuple(itertools.islice(itertools.cycle(items), count))


def halves(names: Sequence[str], salt: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A fixed split of `names` into (train, test), the same for everyone who types `salt`."""
    shuffled = sorted(names)
    random.Random(salt).shuffle(shuffled)
    middle = len(shuffled) // 2
    return tuple(shuffled[:middle]), tuple(shuffled[middle:])


def restricted_retain(concept: Concept, arm: str) -> Concept:
    """The training prompts of one arm of the diversification comparison of 2412.07808; test prompts
    never change.

    "diversified" changes nothing, "near" keeps near retain prompts only, and "uniform" keeps the
    shortest forget and the shortest retain sentence, as SalUn's fixed pair. Deviation: the paper
    compares the first and the last only.
    """
    if arm == "diversified":
        return concept
    near = concept.near.train
    if arm == "uniform":
        near = (min(near, key=_length),)
        row = min(range(len(concept.anchors)), key=lambda row: _length(concept.forget.train[row]))
        forget = replace(concept.forget, train=(concept.forget.train[row],))
        concept = replace(concept, forget=forget, anchors=(concept.anchors[row],))
    return replace(
        concept, near=replace(concept.near, train=near), far=replace(concept.far, train=())
    )


def _length(prompt: Prompt) -> tuple[int, str]:
    return len(prompt.text), prompt.text


def named(concept: Concept, sentence: str, instead: str) -> str:
    """`sentence` with the concept's words, or other words for it, replaced by `instead`; the bare
    `instead` where none occurs.
    """
    names = alternatives({concept.text, concept.name, *concept.synonyms})
    plain = re.sub(r"^an? ", "", instead, flags=re.I)

    def other(match: re.Match[str]) -> str:
        return f"{article(match['article'], plain)} {plain}" if match["article"] else instead

    pattern = rf"(?<!\w)(?:(?P<article>an?) )?(?:{names})(?!\w)"
    replaced, count = re.subn(pattern, other, sentence, flags=re.I)
    return replaced if count else instead
