"""Prompts for real models: diversified from lists of sub-concepts that anyone can edit."""

import difflib
import math
import random
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from ..common.errors import ConfigError
from ..common.paths import ASSETS
from ..common.registry import DEFAULT_MODEL
from ..settings.run_config import BY_WORDS, clean_text
from .concept import Concept, Kind, Prompt, PromptSplit, cycled, halves
from .english import article, folded, mentions, singular
from .own_prompts import json_object
from .reading import (
    MANNER,
    Reading,
    Vocabulary,
    as_object,
    as_style,
    is_object,
    is_style,
    listed,
    nouns_in,
    read,
)

FOLDER = ASSETS / "prompts"
SHIPPED = ("artists", "people", "animals", "objects")
FAMILIES = ("nudity", "violence", "hate", "self-harm")
"""Lists that stand for a whole family of pictures, which several phrases ask for."""
SLOTS = {"object": "subject", "style": "style"}
"""The template's place for a concept of each kind."""
KEYS = ("about", "kind", "template", "anchor", "subject", "dimensions", "words")
SHAPES = (
    ("subject", dict, "an object of lists"),
    ("dimensions", dict, "an object of lists"),
    ("words", list, "a list of words"),
    ("names", list, "a list of names"),
    ("phrases", dict, "an object of phrases"),
)
MOST = 200
"""At most this many sentences for the defender, as many for the adversary, and as many held out."""
COMBINED = 8
"""How many other objects in the style, and how many other styles of the object, stand near to an
object in a style.
"""
SLOT = re.compile(r"(?:\b(a)n? )?\{(\w+)\}", re.I)


@dataclass(frozen=True)
class Dimensions:
    """A list of sub-concepts: `template` names one entry of every dimension, and one subject (or
    style).

    Typed `words` and `names` choose the list; `phrases` are what prompts say for some of them. The
    list of a family has several phrases to `forget`, each with its anchor.
    """

    name: str
    kind: Kind
    template: str
    anchor: str
    near: tuple[str, ...]
    far: tuple[str, ...]
    dimensions: Mapping[str, tuple[str, ...]]
    words: tuple[str, ...]
    names: tuple[str, ...]
    phrases: Mapping[str, str]
    forget: Mapping[str, str]

    def says(self, words: Sequence[str]) -> bool:
        """Whether one of `words` is a word of the list."""
        return any(folded(word) in self.words for word in words)


def load_dimensions(path: str | Path) -> Dimensions:
    """A dimension list from a JSON file such as those in assets/prompts; `names`, `phrases` and
    what to forget of a family may be missing.

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
        if not isinstance(values.get(key, kind()), kind):
            raise _refusal(f"“{key}” of {name} is {values[key]!r}; {wanted} is accepted.")
    near, far = (_entries(name, side, values["subject"].get(side)) for side in ("near", "far"))
    parts = {part: _entries(name, part, entries) for part, entries in values["dimensions"].items()}
    phrases, forget = values.get("phrases", {}), values["subject"].get("forget", {})
    if not isinstance(forget, dict):
        raise _refusal(f"“forget” of {name} is {forget!r}; phrases with anchors are accepted.")
    for side in (forget, forget.values()) if forget else ():
        _entries(name, "forget", list(side))
    return Dimensions(
        name,
        kind=values["kind"],
        template=_template(name, values["template"], {*parts, SLOTS[values["kind"]]}),
        anchor=clean_text(values["anchor"], f"anchor of {name}"),
        near=near,
        far=far,
        dimensions=parts,
        words=tuple(folded(str(word)) for word in values["words"]),
        names=tuple(folded(str(word)) for word in values.get("names", [])),
        phrases={folded(typed): str(phrase) for typed, phrase in phrases.items()},
        forget={str(phrase): str(anchor) for phrase, anchor in forget.items()},
    )


@cache
def shipped() -> Mapping[str, Dimensions]:
    """The shipped lists by name, the families first."""
    return {name: load_dimensions(FOLDER / f"{name}.json") for name in (*FAMILIES, *SHIPPED)}


@cache
def vocabulary() -> Vocabulary:
    """The words of all shipped lists."""
    lists = shipped().values()
    objects = [own for own in lists if own.kind == "object"]
    nouns = frozenset(word for own in objects if not own.forget for word in own.words)
    named = frozenset(word for own in objects for word in (*own.words, *own.names))
    styles = frozenset(word for own in lists if own.kind == "style" for word in own.words)
    return Vocabulary(named, styles, nouns)


def choose_dimensions(text: str) -> Dimensions:
    """The shipped list for typed words: artists for a style, else that of its last known noun, else
    objects; for an object in a style that of the object.

    Two or three capitalised words that no list knows are taken for a person's name.
    """
    found = read(text, vocabulary())
    return shipped()["artists"] if found.asked == "style" else _list_of(found.subject)


def _list_of(subject: str) -> Dimensions:
    """The shipped list for an object."""
    lists = {name: own for name, own in shipped().items() if own.kind == "object"}
    for own in lists.values():
        if folded(subject) in (*own.words, *own.names):
            return own
    words = subject.split()
    plain = {name: own for name, own in lists.items() if not own.forget}
    is_name = 2 <= len(words) <= 3 and all(word[0].isupper() for word in words)
    found = next(
        (
            name
            for word in reversed(words)
            for name, own in plain.items()
            if singular(word.strip(".,!?\"'"), own.words) in (*own.words, *own.names)
        ),
        "people" if is_name else "objects",
    )
    family = next((own for own in lists.values() if own.forget and own.says(words)), None)
    return family if family and found != "animals" else lists[found]


def free_concept(
    text: str, anchor: str | None, kind: str = BY_WORDS, model: str = DEFAULT_MODEL
) -> Concept:
    """A concept for a real model, from the shipped list that fits the typed words; `kind` says what
    it is where the words do not tell. `model` is named in commands.

    Raises:
        ConfigError: several concepts, words that tell no kind or another one, the concept as its
        own anchor, or an edited list that leaves too little for it.
    """
    text = clean_text(text, "concept")
    check_single(text, model)
    found = _read_as(text, kind)
    if found.asked == "both":
        return _combined(text, found, anchor)
    if found.asked == "style":
        return _diversified(shipped()["artists"], text, found, anchor)
    return _diversified(_list_of(found.subject), text, found, anchor)


def check_single(text: str, model: str = DEFAULT_MODEL) -> None:
    """Refuse a list of concepts, and name the command that takes one.

    Raises:
        ConfigError: `text` names several concepts.
    """
    names = listed(text, _canonical)
    if not names:
        return
    words = ["python", "-m", "unlearn_app", "continual", "--concepts", ",".join(names)]
    words += [] if model == DEFAULT_MODEL else ["--model", model]
    raise ConfigError(
        f"“{text}” names {len(names)} concepts, and a run forgets one;"
        f" `{shlex.join([*words, '--out', 'DIR'])}` forgets them one after the other. A single name"
        " that holds a comma or “and” is accepted in quotes.",
        "concept",
    )


def nearest_words(text: str) -> list[str]:
    """Known words that `text` may be a misspelling of; none where its kind is known."""
    if not text.strip() or read(text, vocabulary()).told:
        return []
    known = vocabulary()
    return difflib.get_close_matches(folded(text), sorted(known.objects | known.styles), 4, 0.75)


def request_words(concept: Concept) -> str:
    """Words that name `concept` when they are typed anew: its name, or that with its kind."""
    name, style = concept.name, concept.kind == "style"
    forms = ("{} style", f"{MANNER} {{}}") if style else ("photo of {}",)
    told = [form.format(own) for form in ("{}", *forms) for own in (name, f"“{name}”")]
    return next((words for words in told if _names(words, concept)), told[-1])


def _names(words: str, concept: Concept) -> bool:
    """Whether `words` alone are read as `concept`."""
    found = read(words, vocabulary())
    style = found.asked == "style"
    if not found.told or listed(words, _canonical) or style != (concept.kind == "style"):
        return False
    return (found.style if style else _name(found)) == concept.name


def _name(found: Reading) -> str:
    """How prompts name an object, or an object in a style."""
    subject = _phrased(_list_of(found.subject), found.subject)
    return f"{subject} {_style_phrase(found.style, found.manner)}" if found.style else subject


def _canonical(text: str) -> str:
    """The bare name in `text` where its words are known, else ""."""
    found = read(text, vocabulary())
    name = found.style if found.asked == "style" else _name(found)
    known = vocabulary()
    if is_style(name, known) or (is_object(name, known) and text[0].islower()):
        return name
    return name if folded(name) in known.objects else ""


def _read_as(text: str, kind: str) -> Reading:
    """What `text` asks for, as `kind` where its words do not tell.

    Raises:
        ConfigError: they do not tell and no kind is given, or they tell another one.
    """
    found = read(text, vocabulary())
    if kind == BY_WORDS and not found.told:
        near = nearest_words(text)
        also = f" Known words like it: {', '.join(near)}." if near else ""
        raise ConfigError(
            f"“{text}” may be a thing or a style, and its words do not tell; --concept-kind object"
            " or --concept-kind style is accepted, or more words: “a photo of"
            f" {found.subject}”, “{found.subject} style”.{also}",
            "concept_kind",
        )
    if kind in (BY_WORDS, found.asked):
        return found
    if found.told == "frame":
        what = {"both": "an object in a style", "style": "a style", "object": "an object"}
        raise ConfigError(
            f"“{text}” names {what[found.asked]}, and the kind of the concept is {kind};"
            f" {BY_WORDS} is accepted.",
            "concept_kind",
        )
    return (as_object if kind == "object" else as_style)(text, vocabulary())


def diversified(dimensions: Dimensions, concept_text: str, anchor: str | None) -> Concept:
    """Forget and retain prompts as products of sub-concepts; training and test share none along any
    dimension, but for what the concept is made of: forgetting “red cat” keeps “cat”.

    Dataset diversification, 2412.07808, section 3 and appendix D: forget prompt i is retain prompt
    i with the concept in it. Deviations: the sub-concepts come from hand-written lists instead of a
    language model, retain prompts name near and far subjects instead of one, and half of the
    training products are left to the adversary.

    Raises:
        ConfigError: the anchor is the concept, or what is left after leaving the concept out is too
        little.
    """
    text = clean_text(concept_text, "concept")
    reading = (as_style if dimensions.kind == "style" else as_object)(text, vocabulary())
    return _diversified(dimensions, text, reading, anchor)


def _diversified(
    dimensions: Dimensions, text: str, reading: Reading, anchor: str | None
) -> Concept:
    """`diversified`, of words that have been read."""
    style = dimensions.kind == "style"
    name = reading.style if style else _phrased(dimensions, reading.subject)
    family = _is_family(dimensions, name)
    plain = style or family or name in dimensions.phrases.values()
    wider = () if plain else nouns_in(name, vocabulary())
    chosen = _anchor(dimensions, name, anchor, wider)
    anchor_name = _bare_name(dimensions, chosen)

    def phrase(other: str) -> str:
        return _style_phrase(other, reading.manner) if style else other

    near, far = _subjects(dimensions, name, anchor_name)
    asked = {phrase(name): phrase(anchor_name)}
    if family:
        asked = {one: anchor_name if anchor else other for one, other in dimensions.forget.items()}
    return _concept(
        dimensions,
        text,
        name,
        chosen,
        asked=asked,
        near=[[phrase(other) for other in near]],
        far=[phrase(other) for other in far],
        wider=wider,
    )


def _combined(text: str, reading: Reading, anchor: str | None) -> Concept:
    """An object in a style: the object alone and in other styles, and other objects in the style,
    are near. Unless another anchor is given, the object alone is shown instead.

    Raises:
        ConfigError: the anchor is the concept.
    """
    dimensions, artists = _list_of(reading.subject), shipped()["artists"]
    subject = _phrased(dimensions, reading.subject)
    phrase = _style_phrase(reading.style, reading.manner)
    name, chosen = _name(reading), clean_text(anchor, "anchor") if anchor else subject
    other = read(chosen, vocabulary())
    instead = {
        "object": f"{other.subject} {phrase}",
        "style": f"{subject} {_style_phrase(_bare_name(artists, chosen), other.manner)}",
        "both": _name(other),
    }[other.asked]
    if not anchor or folded(other.subject) == folded(subject):
        instead = subject if other.asked != "both" else instead
    if folded(instead) == folded(name):
        raise _own_anchor(chosen, name)
    objects, far = _subjects(dimensions, subject, "")
    styles = [own for side in _subjects(artists, reading.style, "") for own in side]
    random.Random("styles").shuffle(styles)
    return _concept(
        dimensions,
        text,
        name,
        chosen,
        asked={name: instead},
        near=[
            [f"{own} {phrase}" for own in objects[:COMBINED] if f"{own} {phrase}" != instead],
            [f"{subject} {MANNER} {own}" for own in styles[:COMBINED]],
        ],
        far=far,
        wider=(subject,),
    )


def _concept(
    dimensions: Dimensions,
    text: str,
    name: str,
    anchor: str,
    *,
    asked: Mapping[str, str],
    near: Sequence[Sequence[str]],
    far: Sequence[str],
    wider: Sequence[str],
) -> Concept:
    """The prompts: of `asked`, phrases with their anchors, and of retained phrases. Each group of
    `near` and of `far` is halved into training and test; what is `wider` is in both.
    """
    train, test = _contexts(dimensions, (*wider, text, name))
    defender, adversary = train[: len(train) // 2], train[len(train) // 2 :]
    prompts = partial(_prompts, dimensions)
    (first, instead), *others = asked.items()
    learned, held_out = halves([phrase for phrase, _ in others], dimensions.name)
    learned, held_out = (first, *learned), (first, *held_out)

    def retain(groups: Sequence[Sequence[str]], also: Sequence[str] = ()) -> PromptSplit:
        own = [[name for name in group if name not in also] for group in groups]
        sides = [halves(group, dimensions.name) for group in own]
        one, other = ([*also, *(n for side in sides for n in side[half])] for half in (0, 1))
        return PromptSplit(prompts(one, defender), prompts(other, test))

    split_near, split_far = retain(near, wider), retain([far])
    retained = tuple(dict.fromkeys(p.expects for p in (*split_near.train, *split_far.train)))
    return Concept(
        text,
        name,
        dimensions.kind,
        anchor,
        forget=PromptSplit(prompts(learned, defender, first), prompts(held_out, test, first)),
        anchors=tuple(p.text for p in prompts([asked[one] for one in learned], defender)),
        relearn=prompts(learned, adversary, first),
        near=split_near,
        far=split_far,
        benign=prompts(retained, adversary),
        synonyms=tuple(phrase for phrase, _ in others),
        instead=instead,
    )


def _prompts(
    dimensions: Dimensions,
    fillers: Sequence[str],
    contexts: Sequence[Mapping[str, str]],
    expects: str = "",
) -> tuple[Prompt, ...]:
    """One prompt per context; the fillers take turns in a fixed shuffled order. Each expects its
    own filler, or all `expects`.
    """
    kind = dimensions.kind
    turns = list(cycled(fillers, len(contexts)))
    random.Random("turns").shuffle(turns)
    return tuple(
        Prompt(
            _sentence(dimensions.template, {**context, SLOTS[kind]: filler}),
            kind,
            expects or filler,
        )
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


def _related(dimensions: Dimensions, one: str, name: str) -> bool:
    """Whether `one` may mean `name` or a kind of it; a style's name, its last word alone too."""
    return mentions(one, name) if dimensions.kind == "object" else related(one, name)


def related(one: str, other: str) -> bool:
    """Whether the two may mean the same: one holds the other, or their last word is the same."""
    return (
        mentions(one, other)
        or mentions(other, one)
        or folded(one).split()[-1] == folded(other).split()[-1]
    )


def _is_family(dimensions: Dimensions, name: str) -> bool:
    """Whether `name` is the whole family of the list, not one thing that belongs to it."""
    return name == next(iter(dimensions.forget), None)


def _phrased(dimensions: Dimensions, subject: str) -> str:
    """How prompts name a bare object: “nude person” for “nudity”."""
    return dimensions.phrases.get(folded(subject), subject)


def _bare_name(dimensions: Dimensions, text: str) -> str:
    """The bare name in words for an anchor, of the list's kind."""
    if dimensions.kind == "style":
        return text if re.match(r"an? ", text, re.I) else as_style(text, vocabulary()).style
    return _phrased(dimensions, as_object(text, vocabulary()).subject)


def _style_phrase(style: str, manner: str) -> str:
    """How a prompt names a style: a medium such as “a photo” plainly."""
    return f"as {style}" if re.match(r"an? ", style, re.I) else f"{manner} {style}"


def _own_anchor(anchor: str, name: str) -> ConfigError:
    return ConfigError(
        f"The anchor “{anchor}” is the concept “{name}” itself; choose something else.", "anchor"
    )


def _anchor(
    dimensions: Dimensions, name: str, anchor: str | None, wider: Sequence[str] = ()
) -> str:
    """The anchor that was asked for, or what the concept is one of, or the list's own; another
    subject where the list's own is the concept.
    """
    if anchor is None:
        return next(
            own
            for own in (*wider[-1:], dimensions.anchor, *dimensions.near)
            if folded(_bare_name(dimensions, own)) != folded(name)
        )
    chosen = clean_text(anchor, "anchor")
    if folded(_bare_name(dimensions, chosen)) == folded(name):
        raise _own_anchor(anchor, name)
    return chosen


def _contexts(
    dimensions: Dimensions, names: Sequence[str]
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Training and held-out entries, one per dimension; entries that mention the concept are left
    out.
    """
    train, test = {}, {}
    for part, entries in dimensions.dimensions.items():
        kept = [entry for entry in entries if not any(mentions(entry, name) for name in names)]
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
    avoided = [own for own in (name, anchor) if own]
    sides = [
        [own for own in side if not any(_related(dimensions, own, other) for other in avoided)]
        for side in (dimensions.near, dimensions.far)
    ]
    for side, kept in zip(("near", "far"), sides, strict=True):
        if len(kept) < 2:
            raise _refusal(
                f"“{side}” of {dimensions.name} has {len(kept)} entries besides “{name}” and"
                f" “{anchor}”; at least 2 are accepted."
            )
    near, far = (
        any(_related(dimensions, own, name) for own in side)
        for side in (dimensions.near, dimensions.far)
    )
    return sides[::-1] if dimensions.kind == "style" and far and not near else sides


def _sentence(template: str, values: Mapping[str, str]) -> str:
    def fill(match: re.Match[str]) -> str:
        value = values[match[2]]
        return f"{article(match[1], value)} {value}" if match[1] else value

    return SLOT.sub(fill, template)
