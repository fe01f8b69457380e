"""Concepts of the bundled world: from a typed word to prompts with known answers."""

import difflib
import itertools
import random
import re
from collections.abc import Sequence
from functools import lru_cache

from ..common.errors import ConfigError
from ..concepts.concept import Concept, Kind, KnownConcept, Prompt, PromptSplit, cycled, halves
from ..concepts.diversification import check_single, vocabulary
from ..concepts.english import plurals, singular
from ..concepts.reading import Reading, read
from .world.grammar import PLAIN_STYLE, caption
from .world.vocabulary import (
    FRESH_OBJECTS,
    FRESH_STYLES,
    OBJECTS,
    RELATED_FAMILIES,
    SETTINGS,
    STYLES,
    Entry,
    spellings,
)

ENTRIES = {"object": (OBJECTS, FRESH_OBJECTS), "style": (STYLES, FRESH_STYLES)}
"""By kind what the denoiser is shown, and what it never is."""
TEST_SETTINGS = ("beach", "field", "night", "room")
TEST_STYLES = (
    PLAIN_STYLE,
    "watercolor",
    "mosaic",
    "blueprint",
    "neon",
    "pop art",
    "cartoon",
    "ink",
)
"""Held out from every training prompt, together with half of the objects; of each family of styles
at most two thirds.
"""
ALMOST = 0.66
"""How much of two words is alike where one is a slip of the other: a letter in three may differ."""
MEANINGS = {
    ("knife", "sword", "bomb"): "gun pistol rifle weapon war soldier violence blood axe spear",
    ("butterfly", "penguin"): "bird eagle duck chicken owl parrot insect bee fly",
    ("cat", "dog", "rabbit", "bear"): "animal pet lion tiger wolf fox horse cow mouse panda zebra",
    ("fish", "frog"): "shark whale dolphin snake lizard turtle salmon",
    ("rose", "sunflower", "tree"): "flower plant grass leaf garden tulip palm bush",
    ("car", "ship", "airplane"): "bus truck train bike bicycle motorcycle tank helicopter vehicle",
    ("apple", "burger", "pizza"): "food fruit bread banana orange sandwich cheese meal pasta",
    ("hammer", "scissors"): "tool saw drill wrench screwdriver",
    ("santa", "robot", "ghost"): "person man woman human face people monster witch clown alien",
    ("van gogh", "watercolor", "pointillism"): "monet picasso painter painting oil impressionism",
    ("pop art", "cartoon", "arcade"): "anime manga pixel disney lego",
    ("sketch", "ink", "chalk", "woodcut"): "drawing pen charcoal line engraving",
    ("photo", "vintage"): "realistic camera film black",
}
"""Names to offer for words that the world lacks, by what such words mean."""
FILLERS = ("a", "an", "the", "in", "of", "by", "style", "styles", "painting", "picture")


def known_concepts() -> list[KnownConcept]:
    """Every object and style of the world, those never shown to the denoiser last."""
    return [
        KnownConcept(entry.name, kind, entry.family, entry.synonyms, fresh)
        for fresh in (False, True)
        for kind, entries in ENTRIES.items()
        for entry in entries[fresh]
    ]


def find_entry(text: str, field: str = "concept") -> tuple[Entry, Kind]:
    """The entry that `text` names, by any spelling, case or plural, and its kind.

    Raises:
        ConfigError: the word is not in the world, with the nearest ones; or there are several, or
        an object in a style.
    """
    if found := _find(text):
        return found
    check_single(text)
    if (both := read(text, vocabulary())).asked == "both":
        _refuse_both(text, both, field)
    if any(_normal(text) in spellings(entry) for entry in SETTINGS):
        raise ConfigError(
            f"“{text}” is a setting; objects and styles can be forgotten, such as cat or van gogh.",
            field,
        )
    nearest = nearest_known(text)
    said = f"it knows {len(nearest)} things"
    if len(nearest) < len((*OBJECTS, *STYLES)):
        said = "the nearest it knows"
    raise ConfigError(
        f"The bundled model does not know “{text}”; {said}: {', '.join(nearest)}.", field
    )


def _refuse_both(text: str, both: Reading, field: str) -> None:
    """Refuse an object in a style where the world knows either."""
    found = [_find(part) for part in (both.subject, both.style)]
    if names := [one[0].name for one in found if one]:
        raise ConfigError(
            f"“{text}” is an object in a style; the bundled model forgets one of them alone:"
            f" {' or '.join(names)} is accepted.",
            field,
        )


def kind_of(text: str) -> Kind | None:
    """The kind of the concept that `text` names; None where it names none."""
    found = _find(text)
    return found and found[1]


def _find(text: str) -> tuple[Entry, Kind] | None:
    """The entry that the text names, alone or within words such as “a photo of”."""
    if not text.strip():
        return None
    if found := _spelled(text):
        return found
    asked = read(text, vocabulary())
    framed = asked.told == "frame" and asked.asked != "both"
    return _spelled(asked.style or asked.subject) if framed else None


def _spelled(text: str) -> tuple[Entry, Kind] | None:
    wanted = _normal(text)
    for kind, (shown, fresh) in ENTRIES.items():
        for entry in (*shown, *fresh):
            if any(wanted in (s, *plurals(s)) for s in spellings(entry)):
                return entry, kind
    return None


def nearest_known(text: str) -> list[str]:
    """Canonical names to offer instead of `text`: those that are near in meaning, else up to four
    that are spelt almost like it, else all that the denoiser was shown.
    """
    by_spelling = {s: entry.name for entry in (*OBJECTS, *STYLES) for s in spellings(entry)}
    wanted = _normal(text)
    words = {form for word in wanted.split() for form in (word, singular(word))}
    meant = [names for names, meaning in MEANINGS.items() if words & set(meaning.split())]
    if meant:
        return list(dict.fromkeys(name for names in meant for name in names))
    near = difflib.get_close_matches(wanted, by_spelling, 8, cutoff=ALMOST)
    if near:
        return list(dict.fromkeys(by_spelling[s] for s in near))[:4]
    return list(dict.fromkeys(by_spelling.values()))


def _normal(text: str) -> str:
    """Lower-case words without articles and other fillers around them."""
    words = re.findall(r"[a-z]+", text.casefold())
    own = [place for place, word in enumerate(words) if word not in FILLERS]
    return " ".join(words[own[0] : own[-1] + 1]) if own else ""


@lru_cache(maxsize=512)
def pocket_concept(text: str, anchor: str | None) -> Concept:
    """The concept behind a typed word; its train and test prompts share no sub-concept but the
    concept.

    The adversary's half is left out of the retain prompts as of the forget prompts, so that their
    rows stay in pairs. Far test prompts ask about the other axis too.

    Raises:
        ConfigError: an unknown concept or anchor, an anchor of the other kind, or the concept as
        its own anchor.
    """
    entry, kind = find_entry(text)
    anchor_entry = _anchor(entry, kind, anchor)

    def prompts(names: Sequence[str], test: bool) -> tuple[Prompt, ...]:
        return _prompts(names, _others(entry, kind, test), _settings(test), kind, test)

    near, far = _relatives(entry, anchor_entry, kind)
    near_train, near_test = halves(near, entry.name)
    far_train, far_test = halves(far, entry.name)
    near_retain = prompts(near_train, False)
    far_retain = prompts(far_train, False)
    other_kind = "style" if kind == "object" else "object"
    cross = _prompts(_others(entry, kind, True), far_test, _settings(True), other_kind, True)
    asked = prompts((entry.name,), False)
    anchors = prompts((anchor_entry.name,), False)
    return Concept(
        text,
        entry.name,
        kind,
        anchor_entry.name,
        forget=PromptSplit(asked[::2], prompts((entry.name,), True)),
        anchors=tuple(prompt.text for prompt in anchors[::2]),
        relearn=asked[1::2],
        near=PromptSplit(near_retain[::2], prompts(near_test, True)),
        far=PromptSplit(far_retain[::2], _interleave(prompts(far_test, True), cross)),
        benign=_interleave(near_retain[1::2], far_retain[1::2]),
        synonyms=entry.synonyms,
    )


def trained_contexts(text: str) -> set[str]:
    """The names on the other axis and of settings that prompts of the concept `text` may show it
    with outside of its held-out prompts.

    Raises:
        ConfigError: an unknown concept.
    """
    entry, kind = find_entry(text)
    return {*_others(entry, kind, False), *_settings(False)}


def tuning_prompts(text: str) -> tuple[Prompt, ...]:
    """Prompts to tune by: the styles or objects of the concept's training prompts in held-out
    settings, which forgetting reaches last.

    None is among its own held-out prompts.

    Raises:
        ConfigError: an unknown concept.
    """
    entry, kind = find_entry(text)
    return _prompts((entry.name,), _others(entry, kind, False), _settings(True), kind, True)


def _anchor(entry: Entry, kind: str, anchor: str | None) -> Entry:
    """The entry that `anchor` names; by default the first relative of an object, and the plain
    style or a cartoon.
    """
    if anchor is None and kind == "object":
        return next(e for e in OBJECTS if e.family == entry.family and e != entry)
    if anchor is None:
        name = "cartoon" if entry.name == PLAIN_STYLE else PLAIN_STYLE
        return find_entry(name)[0]
    chosen, anchor_kind = find_entry(anchor, "anchor")
    if chosen == entry:
        raise ConfigError(
            f"The anchor “{anchor}” is the concept “{entry.name}” itself; choose another.",
            "anchor",
        )
    if anchor_kind != kind:
        raise ConfigError(
            f"The anchor “{anchor}” is of kind {anchor_kind}, the concept of kind {kind};"
            " choose the same kind.",
            "anchor",
        )
    return chosen


def _relatives(entry: Entry, anchor: Entry, kind: str) -> tuple[list[str], list[str]]:
    """Names near to `entry` and all others, without `anchor`. Near is its family; where that has
    fewer than three, the related family too; where that is still too few, two more names.
    """
    shown, _ = ENTRIES[kind]
    rest = [e for e in shown if e not in (entry, anchor)]
    near = [e.name for e in rest if e.family == entry.family]
    if len(near) < 3:
        near += [e.name for e in rest if e.family == RELATED_FAMILIES.get(entry.family)]
    far = [e.name for e in rest if e.name not in near]
    if len(near) < 3:
        near, far = near + far[:2], far[2:]
    return near, far


def _others(entry: Entry, kind: str, test: bool) -> Sequence[str]:
    """Names on the other axis than `kind`, for training prompts or for test prompts."""
    if kind == "style":
        train_names, test_names = halves([e.name for e in OBJECTS], entry.name)
        return test_names if test else train_names
    return [e.name for e in STYLES if (e.name in TEST_STYLES) == test]


def _settings(test: bool) -> list[str]:
    return [e.name for e in SETTINGS if (e.name in TEST_SETTINGS) == test]


def _prompts(
    names: Sequence[str], others: Sequence[str], settings: Sequence[str], axis: str, test: bool
) -> tuple[Prompt, ...]:
    """One prompt per combination; row i of any two lists of one axis is the same sentence but for
    the name.

    `names` are on `axis`, `others` on the other one. The contexts, other and setting, stand in a
    fixed shuffled order, and the names go round every second row, so that every second row of a
    list covers them all.
    """
    contexts = list(itertools.product(others, settings))
    random.Random(f"{axis} {test}").shuffle(contexts)
    prompts = []
    for turn in range(len(names)):
        for place, (other, setting) in enumerate(contexts):
            name = names[(place // 2 + turn) % len(names)]
            object_name, style = (name, other) if axis == "object" else (other, name)
            named = None if style == PLAIN_STYLE and axis == "object" else style
            text = caption(object_name, named, setting, template=0 if test else len(prompts))
            prompts.append(Prompt(text, axis, name))
    return tuple(dict.fromkeys(prompts))


def _interleave(one: Sequence[Prompt], other: Sequence[Prompt]) -> tuple[Prompt, ...]:
    """The prompts of both groups in turn, each once."""
    count = max(len(one), len(other))
    pairs = zip(cycled(one, count), cycled(other, count), strict=True)
    return tuple(dict.fromkeys(itertools.chain.from_iterable(pairs)))
