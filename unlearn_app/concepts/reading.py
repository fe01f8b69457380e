"""What typed words ask for: an object, a style, or an object in a style; lists are told apart."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from .english import folded, is_noun, singular

Told = Literal["", "word", "frame"]
Asked = Literal["object", "style", "both"]
MANNER = "in the style of"
A, OF = r"(?:(?:an?|the) )?", r"(?:['’]s?)?"
SHOT = r"(?:photo|photograph|picture|image|snapshot|rendering)s?"
PICTURE = re.compile(rf"{A}{SHOT} (?:of|showing) (?=\S)|(?<=\S) {SHOT}$", re.I)
"""What says in a prompt that an object is shown."""
MADE = r"(?:(?:painted|drawn|made|done|rendered) )?"
WORKS = r"(?:paintings?|drawings?|pictures?|art|artworks?|images?|portraits?)"
SHAPES = tuple(
    re.compile(shape, re.I)
    for shape in (
        rf"(?:(?P<subject>.+?),? {MADE})?(?P<manner>in (?:the )?(?:style|manner) of) (?P<style>.+)",
        rf"{A}(?P<manner>style of) (?P<style>.+)",
        rf"{A}(?P<medium>[^,]+?){OF}(?: style)?(?: {WORKS})? of (?P<subject>.+)",
        rf"(?:(?P<subject>.+?),? {MADE})?(?P<maybe>by) (?P<style>.+)",
        rf"(?P<subject>.+?),? in {A}(?P<style>.+?){OF}[- ]styles?",
        rf"(?P<subject>.+?),? {MADE}in {A}(?P<medium>.+)",
        rf"(?P<subject>.+?),? {MADE}(?P<like>as(?: an?)?) (?P<medium>.+)",
        rf"{A}(?P<medium>.+?){OF}[- ]styled? (?P<subject>.+)",
        rf"{A}(?P<style>.+?){OF}[- ]styles?",
        rf"{A}(?P<medium>.+?){OF} {WORKS}",
        rf"{A}(?P<medium>.+?)['’]s?",
    )
)
"""How a style is asked for, most telling first; a `medium` counts only where it is a known style,
and so does who stands after `maybe`, unless written as a name.
"""
ANYTHING = re.compile(rf"{A}(?:{WORKS}|photos?|anything|something|everything|scenes?|works?)", re.I)
"""A subject that says no more than that there is a picture."""
HARD = re.compile(r"\s*[,;、，；،]\s*")
SOFT = re.compile(r"\s+(?:and|or|&|\+)\s+|\s*[/|]\s*", re.I)
QUOTED = re.compile(r"(?<!\w)[\"'“”„‘«](?P<name>[^\"“”„«»]+)[\"'“”’»](?!\w)")
HIDDEN = {ord(letter): 0xE000 + row for row, letter in enumerate(" ,;、，；،/|&+")}
SHOWN = {hidden: letter for letter, hidden in HIDDEN.items()}
"""Separators inside a single name, as private letters, which no accepted text holds."""
STYLE_AFTER_COMMA = re.compile(r",\s*(?=(?:(?:painted|drawn) )?(?:in the style of|by) )", re.I)
POSTPOSED = r" (?:of|in|on|with|at|from|under|by|for|to|as|wearing|holding) "
"""What ends the words that a noun stands last in."""
ONE_THING = re.compile(
    r"(?<!\w)(?:adam and eve|arts and crafts|ball and chain|beauty and the beast|bed and breakfast"
    r"|black and white|bow and arrows?|bread and butter|cup and saucer|fish and chips|fox and the"
    r" hound|gin and tonic|hammer and sickle|horse and (?:carriage|cart)|knife and fork"
    r"|lady and the tramp|lock and key|mac(?:aroni)? and cheese|needle and thread|old man and the"
    r" sea|peanut butter and jelly|prince and the pauper|princess and the frog|rock and roll"
    r"|romeo and juliet|salt and pepper|skull and crossbones|yin and yang)(?!\w)",
    re.I,
)
"""Names of one thing whose parts are common nouns."""


@dataclass(frozen=True)
class Vocabulary:
    """Words and phrases, folded, by what they name; `nouns` are the objects that are no names."""

    objects: frozenset[str]
    styles: frozenset[str]
    nouns: frozenset[str]


@dataclass(frozen=True)
class Reading:
    """What is asked for: `subject` is bare, as “cat”; so is `style`, as “Van Gogh”, and `manner` is
    what stands before it in a prompt. An empty one is not asked for.

    `told` says by what an object is told from a style: a known word or an article, or the words
    around it, as in “a photo of”; nothing where it is empty.
    """

    subject: str = ""
    style: str = ""
    manner: str = MANNER
    told: Told = "word"

    @property
    def asked(self) -> Asked:
        """Which of the two are asked for."""
        return "both" if self.subject and self.style else "style" if self.style else "object"


def read(text: str, known: Vocabulary) -> Reading:
    """What the cleaned `text` asks for; articles, frames such as “a photo of”, quotes and
    punctuation around it are left out.
    """
    typed = unframed(text)
    name = _bare(typed)
    shown = _bare(PICTURE.sub("", name, count=1))
    if styled := None if _whole(name, known.objects) else _styled(shown, known):
        return styled
    if shown != name:
        return Reading(subject=_subject(shown, known), told="frame")
    if is_style(name, known) and not _whole(name, known.objects):
        return Reading(style=_style(name, known))
    told = is_object(name, known) or re.match(r"an? \S", typed, re.I)
    return Reading(subject=_subject(name, known), told="word" if told else "")


def unframed(text: str) -> str:
    """The text without quotes and punctuation around it."""
    while text != (inner := _inner(text)):
        text = inner
    return text


def _inner(text: str) -> str:
    quoted = QUOTED.fullmatch(text.strip())
    return (quoted["name"] if quoted else text).strip().rstrip(".!?,;:").strip() or text.strip()


def as_style(text: str, known: Vocabulary) -> Reading:
    """`text` as a style, whatever it may be."""
    found = read(text, known)
    if found.asked == "style":
        return found
    return Reading(style=_style(unframed(text), known))


def as_object(text: str, known: Vocabulary) -> Reading:
    """`text` as an object, whatever it may be."""
    found = read(text, known)
    if found.asked == "object":
        return found
    return Reading(subject=_subject(unframed(text), known))


def is_object(text: str, known: Vocabulary) -> bool:
    """Whether a word of `text` is known as an object, or its last one is a common noun."""
    words = text.split()
    if _whole(text, known.objects):
        return True
    if any(singular(_letters(word), known.objects) in known.objects for word in words):
        return True
    return bool(words) and (len(words) == 1 or words[-1].islower()) and is_noun(_letters(words[-1]))


def is_style(text: str, known: Vocabulary) -> bool:
    """Whether `text`, or the words it ends with, is known as a style; an object by its last word is
    none.
    """
    words = folded(_bare(text)).split()
    if not words:
        return False
    ends = [" ".join(words[start:]) for start in range(len(words))]
    last = singular(_letters(words[-1]), known.styles)
    ends += [" ".join([*words[start:-1], last]) for start in range(len(words))]
    return any(end in known.styles for end in ends)


def listed(text: str, canonical: Callable[[str], str]) -> list[str]:
    """The names in a list of several; empty where `text` is one name.

    `canonical` returns the bare form of words that are known, else "". Commas always make a list,
    but for one before a style and those in quotes; “and” does where every part is known, since it
    occurs in names too.
    """
    single = text
    for names in (QUOTED, ONE_THING):
        single = names.sub(lambda match: match[0].translate(HIDDEN), single)
    hard = [part for part in HARD.split(STYLE_AFTER_COMMA.sub(" ", single)) if part.strip()]
    parts = [
        re.sub(r"^(?:and|or|&) (?=\S)", "", own, flags=re.I).translate(SHOWN)
        for part in hard
        for own in SOFT.split(part)
        if own.strip()
    ]
    if len(parts) < 2:
        return []
    names = [canonical(part) for part in parts]
    if len(hard) < 2 and not all(names):
        return []
    return [name or _bare(part) for name, part in zip(names, parts, strict=True)]


def nouns_in(name: str, known: Vocabulary) -> tuple[str, ...]:
    """The more general things that `name` is one of, such as “sports car” and “car” for “red sports
    car”; none for a single word.
    """
    head = re.split(POSTPOSED, name, maxsplit=1)[0]
    words = head.split()
    noun = singular(_letters(words[-1]), known.nouns)
    common = noun in known.nouns or (words[-1].islower() and is_noun(words[-1]))
    if not common or noun == folded(name):
        return ()
    ends = [" ".join([*words[start:-1], noun]) for start in range(len(words))]
    wider = [end for end in ends if end in known.nouns or (end == folded(head) != folded(name))]
    return tuple(dict.fromkeys([*(end for end in wider if end != folded(name)), noun]))


def _styled(name: str, known: Vocabulary) -> Reading | None:
    """`name` as a style, or as an object in one, by the words around the style."""
    for shape in SHAPES:
        if not (match := shape.fullmatch(name)):
            continue
        parts = match.groupdict()
        style = parts.get("style") or parts["medium"]
        given = parts.get("subject") or ""
        subject = "" if ANYTHING.fullmatch(given) else given
        told = is_style(style, known)
        if parts.get("medium") and not told:
            continue
        if parts.get("maybe") and not (told or _is_name(style) or not given):
            continue
        if parts.get("medium") and subject and is_style(subject, known):
            continue
        inner = _styled(style, known)
        style = inner.style if inner and inner.asked == "style" else style
        return Reading(
            _subject(subject, known) if subject else "",
            _style(style, known),
            _manner(parts.get("manner") or parts.get("maybe") or parts.get("like") or ""),
            "frame",
        )
    return None


def _manner(typed: str) -> str:
    plain = typed.casefold()
    return plain if plain == "by" or plain.startswith("as") else MANNER


def _is_name(text: str) -> bool:
    """Whether every word is written with a capital, as in a name."""
    return all(word[0].isupper() for word in text.split())


def _subject(text: str, known: Vocabulary) -> str:
    """The bare object: without article, and in the singular where a common noun ends it."""
    bare = _bare(text)
    *head, last = bare.split()
    one = singular(last, known.objects)
    if re.search(POSTPOSED, bare) or (head and not last.islower() and not bare.isupper()):
        return bare
    if one not in known.nouns and not is_noun(last):
        return bare
    return " ".join([*(map(str.lower, head) if bare.isupper() else head), one])


def _style(text: str, known: Vocabulary) -> str:
    """The bare style: without article and possessive, media in the singular."""
    bare = re.sub(r"(?<=\S)['’]s?$", "", _bare(text))
    *head, last = bare.split()
    one = singular(last, known.styles)
    plural = one != folded(last) and (one in known.styles or _whole(bare, known.styles))
    return " ".join([*head, one]) if plural else bare


def _bare(text: str) -> str:
    """The text without quotes around it and articles before it."""
    return re.sub(r"^(?:(?:an?|the) )+(?=\S)", "", unframed(text), flags=re.I)


def _whole(text: str, words: frozenset[str]) -> bool:
    return folded(_bare(text)) in words


def _letters(word: str) -> str:
    return word.strip(".,!?\"'“”’()")
