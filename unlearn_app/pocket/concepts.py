"""Concepts of the bundled world: from a typed word to prompts with known answers."""

import difflib
import itertools
import random
import re
from collections.abc import Callable, Sequence

from ..common.errors import ConfigError
from ..concepts.concept import Concept, KnownConcept, Prompt, PromptSplit, halves, shared_out
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

TEST_SETTINGS = ("beach", "field", "night", "room")
TEST_STYLES = (
    PLAIN_STYLE,
    "watercolor",
    "mosaic",
    "blueprint",
    "neon",
    "pop art",
    "cartoon",
    "chalk",
)
"""Held out from every training prompt, together with half of the objects."""
FILLERS = ("a", "an", "the", "in", "of", "by", "style", "styles", "painting", "picture")


def known_concepts() -> list[KnownConcept]:
    """Every object and style of the world, those never shown to the denoiser last."""
    objects = [KnownConcept(e.name, "object", e.family, e.synonyms) for e in OBJECTS]
    styles = [KnownConcept(e.name, "style", e.family, e.synonyms) for e in STYLES]
    unseen = [KnownConcept(e.name, "object", e.family, e.synonyms, True) for e in FRESH_OBJECTS]
    unseen += [KnownConcept(e.name, "style", e.family, e.synonyms, True) for e in FRESH_STYLES]
    return [*objects, *styles, *unseen]


def _normal(text: str) -> str:
    words = re.findall(r"[a-z]+", text.casefold().replace("-", " "))
    while words and words[0] in FILLERS:
        words = words[1:]
    while words and words[-1] in FILLERS:
        words = words[:-1]
    return " ".join(words)


def find_entry(text: str, field: str = "concept") -> tuple[Entry, str]:
    """The entry that `text` names, by any spelling, case or plural, and its kind.

    Raises:
        ConfigError: the word is not in the world; the message names the nearest ones.
    """
    wanted = _normal(text)
    for kind, entries in (
        ("object", (*OBJECTS, *FRESH_OBJECTS)),
        ("style", (*STYLES, *FRESH_STYLES)),
    ):
        for entry in entries:
            for spelling in spellings(entry):
                if wanted in (spelling, f"{spelling}s", f"{spelling}es", f"{spelling[:-1]}ies"):
                    return entry, kind
    if any(wanted in spellings(entry) for entry in SETTINGS):
        raise ConfigError(
            f"“{text}” is a setting; objects and styles can be forgotten, such as cat or van gogh.",
            field,
        )
    nearest = ", ".join(nearest_known(text))
    raise ConfigError(
        f"The bundled model does not know “{text}”; the nearest it knows: {nearest}.", field
    )


def nearest_known(text: str, count: int = 4) -> list[str]:
    """Canonical names closest in spelling to `text`, never empty."""
    by_spelling = {s: entry.name for entry in (*OBJECTS, *STYLES) for s in spellings(entry)}
    wanted = _normal(text)
    ranked = sorted(by_spelling, key=lambda s: -difflib.SequenceMatcher(None, wanted, s).ratio())
    return list(dict.fromkeys(by_spelling[s] for s in ranked))[:count]


def pocket_concept(text: str, anchor: str | None) -> Concept:
    """The concept behind a typed word, with train and test prompts that share no sub-concept but
    the concept.

    Raises:
        ConfigError: an unknown concept or anchor, an anchor of the other kind, or the concept as
        its own anchor.
    """
    entry, kind = find_entry(text)
    chosen = _default_anchor(entry, kind)
    if anchor is not None:
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
    build = _object_concept if kind == "object" else _style_concept
    return build(text, entry, chosen)


def tuning_prompts(text: str) -> tuple[Prompt, ...]:
    """Prompts to tune by: what the concept's own training knows, in held-out settings, which
    forgetting reaches last.

    None is among its own held-out prompts.

    Raises:
        ConfigError: an unknown concept.
    """
    entry, kind = find_entry(text)
    others = (
        _styles(False) if kind == "object" else halves([e.name for e in OBJECTS], entry.name)[0]
    )
    return _ask((entry.name,), others, _settings(True), kind, True)


def _default_anchor(entry: Entry, kind: str) -> Entry:
    if kind == "style":
        return next(
            e for e in STYLES if e.name == ("cartoon" if entry.name == PLAIN_STYLE else PLAIN_STYLE)
        )
    relatives = [e for e in OBJECTS if e.family == entry.family and e != entry]
    return relatives[0]


def _family(
    entry: Entry, entries: Sequence[Entry], excluded: Sequence[Entry]
) -> tuple[list[str], list[str]]:
    """Names near to `entry` (its family, and the related one when that leaves fewer than three) and
    all others.
    """
    rest = [e for e in entries if e not in excluded]
    near = [e.name for e in rest if e.family == entry.family]
    if len(near) < 3:
        near += [e.name for e in rest if e.family == RELATED_FAMILIES.get(entry.family)]
    return near, [e.name for e in rest if e.name not in near]


def _split_names(near: list[str], far: list[str], salt: str) -> tuple[tuple[str, ...], ...]:
    near_train, near_test = halves(near, salt)
    far_train, far_test = halves(far, salt)
    return near_train, near_test or near_train, far_train, far_test


def _settings(test: bool) -> list[str]:
    return [e.name for e in SETTINGS if (e.name in TEST_SETTINGS) == test]


def _styles(test: bool, excluded: Sequence[str] = ()) -> list[str]:
    return [e.name for e in STYLES if (e.name in TEST_STYLES) == test and e.name not in excluded]


def _ask(
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
    for row in range(len(names) * len(contexts)):
        turn, place = divmod(row, len(contexts))
        name, (other, setting) = names[(place // 2 + turn) % len(names)], contexts[place]
        object_name, style = (name, other) if axis == "object" else (other, name)
        named = None if style == PLAIN_STYLE and axis == "object" else style
        text = caption(object_name, named, setting, template=0 if test else row)
        prompts.append(Prompt(text, axis, name))
    return tuple(dict.fromkeys(prompts))


def _interleave(*groups: tuple[Prompt, ...]) -> tuple[Prompt, ...]:
    longest = max(map(len, groups))
    return tuple(dict.fromkeys(g[row % len(g)] for row in range(longest) for g in groups if g))


def _object_concept(text: str, entry: Entry, anchor: Entry) -> Concept:
    names = _split_names(*_family(entry, OBJECTS, (entry, anchor)), entry.name)

    def ask(objects: Sequence[str], test: bool) -> tuple[Prompt, ...]:
        return _ask(objects, _styles(test), _settings(test), "object", test)

    cross = _ask(_styles(True), names[3], _settings(True), "style", True)
    return _assemble(text, "object", entry, anchor, names, ask, cross)


def _style_concept(text: str, entry: Entry, anchor: Entry) -> Concept:
    near, far = _family(entry, STYLES, (entry, anchor))
    if len(near) < 3:
        near, far = near + far[:2], far[2:]
    names = _split_names(near, far, entry.name)
    objects = halves([e.name for e in OBJECTS], entry.name)

    def ask(styles: Sequence[str], test: bool) -> tuple[Prompt, ...]:
        return _ask(styles, objects[test], _settings(test), "style", test)

    cross = _ask(objects[True], names[3], _settings(True), "object", True)
    return _assemble(text, "style", entry, anchor, names, ask, cross)


def _assemble(
    text: str,
    kind: str,
    entry: Entry,
    anchor: Entry,
    names: Sequence[Sequence[str]],
    ask: Callable[[Sequence[str], bool], tuple[Prompt, ...]],
    cross: tuple[Prompt, ...],
) -> Concept:
    """`names` are near and far sub-concepts, each for training and for test; `cross` tests the
    other axis.

    The adversary's half is left out of the retain prompts as of the forget prompts, which keeps the
    rows in pairs.
    """
    near_train, near_test, far_train, far_test = names
    mine, anchors, theirs = shared_out(ask((entry.name,), False), ask((anchor.name,), False))
    near, far = ask(near_train, False), ask(far_train, False)
    return Concept(
        text,
        entry.name,
        kind,
        anchor.name,
        PromptSplit(mine, ask((entry.name,), True)),
        anchors,
        theirs,
        PromptSplit(near[::2], ask(near_test, True)),
        PromptSplit(far[::2], _interleave(ask(far_test, True), cross)),
        _interleave(near[1::2], far[1::2]),
        entry.synonyms,
    )
