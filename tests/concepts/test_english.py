"""Singulars and plurals come from a dictionary, and what it does not hold stays as it is."""

import random
import re

import pytest

from unlearn_app.concepts.english import alternatives, article, is_noun, mentions, plurals, singular


@pytest.mark.parametrize(
    ("word", "one"),
    [
        ("cats", "cat"),
        ("kitties", "kitty"),
        ("PUPPIES", "puppy"),
        ("knives", "knife"),
        ("wolves", "wolf"),
        ("mice", "mouse"),
        ("buses", "bus"),
        ("glasses", "glasses"),
        ("dresses", "dress"),
        ("cacti", "cactus"),
        ("leaves", "leaf"),
    ],
)
def test_plurals_lose_their_ending(word: str, one: str) -> None:
    assert singular(word, ("leaf",)) == one


@pytest.mark.parametrize(
    "word",
    re.findall(
        r"\S+",
        "bus glass gas lens virus cactus compass dress news scissors jeans chess series jesus paris"
        " mars texas hokusai picasso кошки 猫 😀",
    ),
)
def test_words_that_only_look_like_plurals_stay(word: str) -> None:
    assert singular(word) == word


def test_a_known_plural_is_a_word_of_its_own() -> None:
    assert (singular("pants"), singular("pants", ("pants",))) == ("pant", "pants")


@pytest.mark.parametrize(
    ("name", "many"),
    [
        ("cat", "cats"),
        ("red kitty", "red kitties"),
        ("knife", "knives"),
        ("glass", "glasses"),
        ("child", "children"),
    ],
)
def test_the_last_word_gets_the_plural(name: str, many: str) -> None:
    assert many in plurals(name)


def test_only_english_words_are_nouns() -> None:
    assert all(map(is_noun, ("stapler", "Staplers", "bus")))
    assert not any(map(is_noun, ("zorblax", "Ghibli", "кот", "")))


@pytest.mark.parametrize("text", ["two cats", "a CAT.", "cat’s", "the cat"])
def test_whole_words_are_found_in_either_number(text: str) -> None:
    assert mentions(text, "cat")


@pytest.mark.parametrize("text", ["catalogue", "category", "concat", "dog"])
def test_parts_of_words_are_not_found(text: str) -> None:
    assert not mentions(text, "cat")


def test_longer_names_are_tried_first() -> None:
    assert alternatives(["cat", "cat tree"]).index("tree") < alternatives(["cat"]).index("cat") + 12
    assert not mentions("a bu", "bus")


def test_articles_follow_the_sound() -> None:
    spoken = {"hour": "an", "unicorn": "a", "umbrella": "an", "one": "a", "unusual": "an"}
    assert {word: article("a", word) for word in spoken} == spoken


def test_no_text_breaks_a_word() -> None:
    draw = random.Random(0)
    for _ in range(2000):
        letters = (draw.choice((32, 39, 45, 97, 115, 233, 0x416, 0x1F600)) for _ in range(6))
        text = "".join(chr(letter + draw.randrange(2)) for letter in letters)
        assert isinstance(singular(text), str)
        assert isinstance(plurals(text), tuple)
        mentions("a cat", text)
