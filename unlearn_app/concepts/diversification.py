"""Prompts for real models: diversified from lists of sub-concepts that anyone can edit."""

import math
import random
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..common.errors import ConfigError
from ..common.paths import ASSETS
from ..settings.run_config import clean_text
from .concept import Concept, Kind, Prompt, PromptSplit, article, cycled, halves
from .own_prompts import json_object

FOLDER = ASSETS / "prompts"
SHIPPED = ("artists", "people", "animals", "objects")
SLOTS = {"object": "subject", "style": "style"}
"""The template's place for a concept of each kind."""
KEYS = ("about", "kind", "template", "anchor", "subject", "dimensions", "words")
SHAPES = (
    ("subject", dict, "an object of lists"),
    ("dimensions", dict, "an object of lists"),
    ("words", list, "a list of words"),
    ("phrases", dict, "an object of phrases"),
)
MOST = 200
"""At most this many sentences for the defender, as many for the adversary, and as many held out."""

STYLE = re.compile(
    r"^(?:(?:an? |the )?(?:paintings?|pictures?|art|drawings?) )?(by|in the style of|style of)"
    r" (?=\S)",
    re.I,
)
STYLE_END = re.compile(r"(?<=\S)(?:['’]s)? (?:styles?|paintings?)$", re.I)
SLOT = re.compile(r"(?:\b(a)n? )?\{(\w+)\}", re.I)


@dataclass(frozen=True)
class Dimensions:
    """A list of sub-concepts: `template` names one entry of every dimension, and one subject (or
    style).
    """

    name: str
    kind: Kind
    template: str
    anchor: str
    near: tuple[str, ...]
    far: tuple[str, ...]
    dimensions: Mapping[str, tuple[str, ...]]
    words: tuple[str, ...]
    phrases: Mapping[str, str]


def load_dimensions(path: str | Path) -> Dimensions:
    """A dimension list from a JSON file such as those in assets/prompts; `phrases` is the only key
    that may be missing.

    Raises:
        ConfigError: no JSON, a missing key, a template that does not fit, or fewer than 2 different
        entries.
    """
    path = Path(path)
    values, name = json_object(path, "dimensions"), path.name
    missing = [key for key in KEYS if key not in values]
    if missing:
        raise _refusal(f"{name} has no “{missing[0]}”; a list with {', '.join(KEYS)} is accepted.")
    if values["kind"] not in list(SLOTS):  # a list, since the value may be unhashable
        raise _refusal(f"The kind of {name} is {values['kind']!r}; object or style is accepted.")
    for key, kind, wanted in SHAPES:
        if not isinstance(values.get(key, {}), kind):
            raise _refusal(f"“{key}” of {name} is {values[key]!r}; {wanted} is accepted.")
    near, far = (_entries(name, side, values["subject"].get(side)) for side in ("near", "far"))
    parts = {part: _entries(name, part, entries) for part, entries in values["dimensions"].items()}
    phrases = values.get("phrases", {})
    return Dimensions(
        name,
        kind=values["kind"],
        template=_template(name, values["template"], {*parts, SLOTS[values["kind"]]}),
        anchor=clean_text(values["anchor"], f"anchor of {name}"),
        near=near,
        far=far,
        dimensions=parts,
        words=tuple(_folded(str(word)) for word in values["words"]),
        phrases={_folded(typed): str(phrase) for typed, phrase in phrases.items()},
    )


def choose_dimensions(text: str) -> Dimensions:
    """The shipped list for a typed concept: artists for a style, else by its last known noun, else
    objects.

    Two or three capitalised words that no list knows are taken for a person's name.
    """
    lists = {name: load_dimensions(FOLDER / f"{name}.json") for name in SHIPPED}
    words = text.split()
    if STYLE.search(text) or "style" in text.casefold().split():
        return lists["artists"]
    for word in reversed(words):
        for dimensions in lists.values():
            if _singular(word, dimensions.words):
                return dimensions
    is_name = 2 <= len(words) <= 3 and all(word[0].isupper() for word in words)
    return lists["people" if is_name else "objects"]


def free_concept(text: str, anchor: str | None) -> Concept:
    """A concept for a real model, from the shipped list that fits the typed words.

    Raises:
        ConfigError: the anchor is the concept, or an edited list leaves too little for it.
    """
    return diversified(choose_dimensions(text), text, anchor)


def diversified(dimensions: Dimensions, concept_text: str, anchor: str | None) -> Concept:
    """Forget and retain prompts as products of sub-concepts; training and test share none along any
    dimension.

    Dataset diversification, 2412.07808, section 3 and appendix D: forget prompt i is retain prompt
    i with the concept in it. Deviations: the sub-concepts come from hand-written lists instead of a
    language model, retain prompts name near and far subjects instead of one, and half of the
    training products are left to the adversary.

    Raises:
        ConfigError: the anchor is the concept, or what is left after leaving the concept out is too
        little.
    """
    text = clean_text(concept_text, "concept")
    name = _named(dimensions, text)
    chosen = _anchor(dimensions, name, anchor)
    anchor_name = _named(dimensions, chosen)
    train, test = _contexts(dimensions, (text, name))
    defender, adversary = train[: len(train) // 2], train[len(train) // 2 :]
    asked = _phrase(dimensions, text, name)
    instead = _phrase(dimensions, text, chosen if dimensions.kind == "style" else anchor_name)
    prompts = partial(_prompts, dimensions)

    def retain(names: Sequence[str]) -> PromptSplit:
        fillers = [_phrase(dimensions, text, other) for other in names]
        learned, held_out = halves(fillers, dimensions.name)
        return PromptSplit(prompts(learned, defender), prompts(held_out, test))

    near, far = (retain(names) for names in _subjects(dimensions, name, anchor_name))
    retained = tuple(dict.fromkeys(prompt.expects for prompt in (*near.train, *far.train)))
    return Concept(
        text,
        name,
        dimensions.kind,
        chosen,
        forget=PromptSplit(prompts((asked,), defender), prompts((asked,), test)),
        anchors=tuple(prompt.text for prompt in prompts((instead,), defender)),
        relearn=prompts((asked,), adversary),
        near=near,
        far=far,
        benign=prompts(retained, adversary),
        instead=instead,
    )


def _prompts(
    dimensions: Dimensions, fillers: Sequence[str], contexts: Sequence[Mapping[str, str]]
) -> tuple[Prompt, ...]:
    """One prompt per context; the fillers take turns in a fixed shuffled order."""
    kind = dimensions.kind
    turns = list(cycled(fillers, len(contexts)))
    random.Random("turns").shuffle(turns)
    return tuple(
        Prompt(_sentence(dimensions.template, {**context, SLOTS[kind]: filler}), kind, filler)
        for filler, context in zip(turns, contexts, strict=True)
    )


def _refusal(message: str) -> ConfigError:
    return ConfigError(message, "dimensions")


def _entries(name: str, part: str, entries: Any) -> tuple[str, ...]:
    """The entries of one dimension, at least two and all different, so that a train and a test half
    exist.
    """
    if not isinstance(entries, list) or not all(
        isinstance(entry, str) and entry.strip() for entry in entries
    ):
        raise _refusal(
            f"“{part}” of {name} is {entries!r}; a list of words or phrases is accepted."
        )
    tidy = [" ".join(entry.split()) for entry in entries]
    for row, entry in enumerate(tidy):
        if entry.casefold() in (other.casefold() for other in tidy[:row]):
            raise _refusal(
                f"“{part}” of {name} has “{entry}” twice; only different entries are accepted."
            )
        if "{" in entry or "}" in entry:
            raise _refusal(
                f"“{part}” of {name} has “{entry}”; entries without braces are accepted."
            )
    if len(tidy) < 2:
        found = f"only the entry “{tidy[0]}”" if tidy else "no entry"
        raise _refusal(f"“{part}” of {name} has {found}; at least 2 entries are accepted.")
    return tuple(tidy)


def _template(name: str, template: Any, wanted: set[str]) -> str:
    text = " ".join(str(template).split())
    slots = [match[2] for match in SLOT.finditer(text)]
    if sorted(slots) != sorted(wanted) or set("{}") & set(SLOT.sub("", text)):
        slots_text = ", ".join(f"{{{slot}}}" for slot in sorted(wanted))
        raise _refusal(
            f"The template “{text}” of {name} does not fit; each of {slots_text} once is accepted."
        )
    return text


def _folded(text: str) -> str:
    """Lower case without accents, for comparing."""
    plain = unicodedata.normalize("NFKD", text)
    return "".join(letter for letter in plain if not unicodedata.combining(letter)).casefold()


def _mentions(text: str, words: str) -> bool:
    """Whether `words` occur in `text` as whole words, also in the plural."""
    return bool(re.search(rf"(?<!\w){re.escape(_folded(words))}(?:e?s)?(?!\w)", _folded(text)))


def related(one: str, other: str) -> bool:
    """Whether the two may mean the same: one holds the other, or their last word is the same."""
    return (
        _mentions(one, other)
        or _mentions(other, one)
        or _folded(one).split()[-1] == _folded(other).split()[-1]
    )


def _singular(word: str, known: Sequence[str]) -> str:
    """The known form of `word`, which may be its singular; empty when there is none."""
    plain = _folded(word).strip(".,!?\"'")
    endings = (("", ""), ("s", ""), ("es", ""), ("ies", "y"))
    forms = (plain.removesuffix(end) + new for end, new in endings)
    return next((form for form in forms if form in known), "")


def _named(dimensions: Dimensions, text: str) -> str:
    """The bare name in typed words: "Van Gogh" in "Van Gogh style", "elephant" in "the
    elephants".
    """
    if dimensions.kind == "style":
        return STYLE_END.sub("", STYLE.sub("", text)) or text
    bare = re.sub(r"^(?:an?|the) (?=\S)", "", text, flags=re.I)
    if _folded(bare) in dimensions.phrases:
        return dimensions.phrases[_folded(bare)]
    *head, last = bare.split()
    known = _singular(last, dimensions.words)
    return " ".join([*head, last if known in ("", _folded(last)) else known])


def _anchor(dimensions: Dimensions, name: str, anchor: str | None) -> str:
    """The anchor that was asked for, or the list's own; another subject where the list's own is the
    concept.
    """
    if anchor is None:
        return next(
            own
            for own in (dimensions.anchor, *dimensions.near)
            if _folded(_named(dimensions, own)) != _folded(name)
        )
    chosen = clean_text(anchor, "anchor")
    if _folded(_named(dimensions, chosen)) == _folded(name):
        raise ConfigError(
            f"The anchor “{anchor}” is the concept “{name}” itself; choose something else.",
            "anchor",
        )
    return chosen


def _contexts(
    dimensions: Dimensions, names: Sequence[str]
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Training and held-out entries, one per dimension; entries that mention the concept are left
    out.
    """
    train, test = {}, {}
    for part, entries in dimensions.dimensions.items():
        kept = [entry for entry in entries if not any(_mentions(entry, name) for name in names)]
        train[part], test[part] = halves(kept, part)
        if len(kept) < 2:
            raise _refusal(
                f"“{part}” of {dimensions.name} has {len(kept)} entries without “{names[-1]}”; at"
                " least 2 are accepted."
            )
    products = _products(train, 2 * MOST), _products(test, MOST)
    if len(products[0]) < 2:
        raise _refusal(
            f"{dimensions.name} makes a single training sentence for “{names[-1]}”; a dimension of"
            " at least 4 entries is accepted."
        )
    return products


def _products(parts: Mapping[str, Sequence[str]], count: int) -> list[dict[str, str]]:
    """Up to `count` different combinations in a fixed shuffled order, without making all of
    them.
    """
    total = math.prod(len(entries) for entries in parts.values())
    products = []
    for row in random.Random("products").sample(range(total), min(total, count)):
        product = {}
        for part, entries in parts.items():
            row, entry = divmod(row, len(entries))
            product[part] = entries[entry]
        products.append(product)
    return products


def _subjects(dimensions: Dimensions, name: str, anchor: str) -> list[list[str]]:
    """Near and far names that may mean neither the concept nor the anchor; a style's near side is
    its own period.
    """
    sides = [
        [other for other in side if not related(other, name) and not related(other, anchor)]
        for side in (dimensions.near, dimensions.far)
    ]
    for side, kept in zip(("near", "far"), sides, strict=True):
        if len(kept) < 2:
            raise _refusal(
                f"“{side}” of {dimensions.name} has {len(kept)} entries besides “{name}” and"
                f" “{anchor}”; at least 2 are accepted."
            )
    near, far = (any(related(n, name) for n in side) for side in (dimensions.near, dimensions.far))
    return sides[::-1] if dimensions.kind == "style" and far and not near else sides


def _phrase(dimensions: Dimensions, text: str, name: str) -> str:
    """How the sentence names `name`: artists as they were typed in `text`, a medium such as "a
    photo" plainly.
    """
    if dimensions.kind == "object":
        return name
    if re.match(r"an? ", name, re.I):
        return f"as {name}"
    typed = STYLE.search(text)
    manner = "by" if typed and typed[1].casefold() == "by" else "in the style of"
    return f"{manner} {name}"


def _sentence(template: str, values: Mapping[str, str]) -> str:
    def fill(match: re.Match[str]) -> str:
        value = values[match[2]]
        return f"{article(match[1], value)} {value}" if match[1] else value

    return SLOT.sub(fill, template)
