"""English nouns by the dictionary of LemmInflect: singulars, plurals, and patterns that find names.

Names and words of other languages are not in it and stay as they are.
"""

import re
import unicodedata
from collections.abc import Collection, Iterable
from functools import lru_cache

SAID_AN = re.compile(
    r"(?!uni(?![ndm])|us[eu]|eu|one\b|once|ukulele|ut[ie])[aeiou]|hour|honest|heir", re.I
)


def folded(text: str) -> str:
    """Lower case without accents, for comparing."""
    plain = unicodedata.normalize("NFKD", text)
    return "".join(letter for letter in plain if not unicodedata.combining(letter)).casefold()


def is_noun(word: str) -> bool:
    """Whether the dictionary has `word` as a noun, in the singular or in the plural."""
    return bool(_lemmas(folded(word)))


def singular(word: str, known: Collection[str] = ()) -> str:
    """The singular of `word`, folded; one that is among `known` where there are several.

    A word that is `known`, or its own singular as “bus” and “scissors” are, stays as it is.
    """
    plain = folded(word)
    lemmas = _lemmas(plain)
    if not lemmas or plain in known or plain in lemmas:
        return plain
    return next((lemma for lemma in lemmas if lemma in known), lemmas[0])


@lru_cache(4096)
def plurals(name: str) -> tuple[str, ...]:
    """`name` with its last word in the plural, in every way the dictionary has; none where that is
    no English word.
    """
    from lemminflect import getInflection  # numpy alone takes a moment, and `--help` needs none

    *head, last = name.split() or [""]
    if not re.fullmatch(r"[a-z]+(?:[-'][a-z]+)*", last, re.I):
        return ()
    return tuple(" ".join([*head, form]) for form in getInflection(last, "NNS"))


def article(letter: str, word: str) -> str:
    """The indefinite article for `word` as it is spoken, a capital one when `letter` is."""
    return letter[0] + ("n" if SAID_AN.match(word) else "")


def alternatives(names: Iterable[str]) -> str:
    """A regular expression for any of `names` or their plurals, longer ones first."""
    forms = {form for name in names for form in (name, *plurals(name))}
    return "|".join(re.escape(form) for form in sorted(forms, key=lambda form: (-len(form), form)))


@lru_cache(4096)
def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w)(?:{alternatives([name])})(?!\w)")


def mentions(text: str, name: str) -> bool:
    """Whether `name` occurs in `text` as whole words, also in the plural; accents and case do not
    matter.
    """
    return bool(_pattern(folded(name)).search(folded(text)))


@lru_cache(4096)
def _lemmas(plain: str) -> tuple[str, ...]:
    from lemminflect import getAllLemmas

    return getAllLemmas(plain, "NOUN").get("NOUN", ())
