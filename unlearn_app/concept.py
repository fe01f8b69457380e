"""A concept: what the user typed, turned into forget prompts, an anchor, and near and far retain prompts."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["object", "style", "free"]


@dataclass(frozen=True)
class Prompt:
    """A prompt and what a judge should see in its picture: class `expects` among the classes of `axis`."""

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
    """One entry of a model's vocabulary, for chips and tables; `fresh` ones were never in its training pictures."""

    name: str
    kind: Kind
    family: str
    synonyms: tuple[str, ...] = ()
    fresh: bool = False


@dataclass(frozen=True)
class Concept:
    """Everything a run needs to know about the concept; pure, so it can be shown before anything runs.

    `anchors[i]` is `forget.train[i]` with the concept replaced by the anchor. `relearn` are prompts for the
    adversary's pictures: neither the defender's training prompts nor the held-out ones.
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


def shared_out(
    prompts: Sequence[Prompt], anchors: Sequence[Prompt]
) -> tuple[tuple[Prompt, ...], tuple[str, ...], tuple[Prompt, ...]]:
    """Forget prompts for the defender, their anchor sentences, and the other half of the prompts for the adversary."""
    return tuple(prompts[::2]), tuple(p.text for p in anchors[::2]), tuple(prompts[1::2])


def spread(items: Sequence[Prompt], count: int) -> tuple[Prompt, ...]:
    """`count` prompts evenly over `items`, starting again when there are fewer."""
    if not items:
        return ()
    if count >= len(items):
        return tuple(items[row % len(items)] for row in range(count))
    return tuple(items[row * len(items) // count] for row in range(count))


def halves(names: Sequence[str], salt: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A fixed split of `names` into (train, test), the same for everyone who types `salt`."""
    shuffled = sorted(names)
    random.Random(salt).shuffle(shuffled)
    middle = len(shuffled) // 2
    return tuple(shuffled[:middle]), tuple(shuffled[middle:])


FREE_OBJECTS = ("dog", "horse", "bird", "car", "chair", "tree", "house", "boat", "bicycle", "guitar", "lamp", "apple")
FREE_PLACES = ("on a beach", "in a forest", "in a city street", "in a room", "in the snow", "in a field")
FREE_STYLES = ("a photo of", "a painting of", "a pencil sketch of", "a watercolor of", "a 3d render of", "a poster of")
FREE_ARTISTS = ("Claude Monet", "Pablo Picasso", "Rembrandt", "Andy Warhol", "Katsushika Hokusai", "Edward Hopper")


def free_concept(text: str, anchor: str | None) -> Concept:
    """A concept for a real model, from templates alone; a text with "style" or "by" in it is taken as a style."""
    words = text.casefold().split()
    if "style" in words or words[0] == "by":
        return _free_style(text, anchor)
    return _free_object(text, anchor)


def _free_object(text: str, anchor: str | None) -> Concept:
    anchor = anchor or "object"
    objects = [name for name in FREE_OBJECTS if name not in (text.casefold(), anchor.casefold())]
    train_names, test_names = halves(objects, text)
    (train_places, test_places), (train_styles, test_styles) = halves(FREE_PLACES, "place"), halves(FREE_STYLES, "look")

    def ask(names: Sequence[str], styles: Sequence[str], places: Sequence[str]) -> tuple[Prompt, ...]:
        return tuple(Prompt(f"{s} a {n} {p}", "object", n) for s in styles for p in places for n in names)

    mine, anchors, theirs = shared_out(
        ask((text,), train_styles, train_places), ask((anchor,), train_styles, train_places)
    )
    forget = PromptSplit(mine, ask((text,), test_styles, test_places))
    near = PromptSplit(ask(train_names[:2], train_styles, train_places), ask(test_names[:3], test_styles, test_places))
    far = PromptSplit(ask(train_names[2:], train_styles, train_places), ask(test_names[3:], test_styles, test_places))
    return Concept(text, text, "free", anchor, forget, anchors, theirs, near, far)


def _free_style(text: str, anchor: str | None) -> Concept:
    anchor = anchor or "a photo"
    artists = [name for name in FREE_ARTISTS if name.casefold() not in text.casefold()]
    (train_artists, test_artists), (train_objects, test_objects) = halves(artists, text), halves(FREE_OBJECTS, text)
    (train_places, test_places) = halves(FREE_PLACES, "place")

    def ask(
        styles: Sequence[str], names: Sequence[str], places: Sequence[str], axis: str = "style"
    ) -> tuple[Prompt, ...]:
        return tuple(
            Prompt(f"a {n} {p}, {s}", axis, s if axis == "style" else n) for p in places for n in names for s in styles
        )

    train_styles, test_styles = [f"by {a}" for a in train_artists], [f"by {a}" for a in test_artists]
    mine, anchors, theirs = shared_out(
        ask((text,), train_objects, train_places), ask((anchor,), train_objects, train_places)
    )
    forget = PromptSplit(mine, ask((text,), test_objects, test_places))
    near = PromptSplit(ask(train_styles, train_objects, train_places), ask(test_styles, test_objects, test_places))
    far = PromptSplit(
        ask(("a photo",), train_objects, train_places, "object"),
        ask(("a photo",), test_objects, test_places, "object"),
    )
    return Concept(text, text, "free", anchor, forget, anchors, theirs, near, far)
