"""What people type is read well: frames, plurals, lists, names, styles, objects in styles."""

import random

import pytest

from unlearn_app.common.errors import ConfigError
from unlearn_app.concepts import diversification
from unlearn_app.concepts.catalog import preview_concept
from unlearn_app.concepts.concept import kept_whole
from unlearn_app.concepts.diversification import (
    FAMILIES,
    check_single,
    free_concept,
    request_words,
    shipped,
    vocabulary,
)
from unlearn_app.concepts.reading import read
from unlearn_app.pocket.concepts import pocket_concept
from unlearn_app.settings.run_config import config_from_dict, make_config, with_concept

OBJECTS = {
    "cat": "cat",
    "cats": "cat",
    "CATS": "cat",
    "Cat.": "cat",
    "  the   cats ": "cat",
    "“cat”": "cat",
    "'cat'": "cat",
    "a photo of a cat": "cat",
    "Photos of cats!": "cat",
    "an image of the cat": "cat",
    "a picture showing a cat": "cat",
    "cat photos": "cat",
    "pictures of “cats”": "cat",
    "kitties": "kitty",
    "white wolves": "white wolf",
    "RED CATS": "red cat",
    "bus": "bus",
    "buses": "bus",
    "glass": "glass",
    "glasses": "glasses",
    "scissors": "scissors",
    "trousers": "trousers",
    "news": "news",
    "the news": "news",
    "gas": "gas",
    "staplers": "stapler",
    "a zorblax": "zorblax",
    "a photo of Jane Doe": "Jane Doe",
    "a photo of Van Gogh": "Van Gogh",
    "Jesus": "Jesus",
    "jesus": "jesus",
    "Barack Obama": "Barack Obama",
    "BARACK OBAMA": "BARACK OBAMA",
    "Steve Jobs": "Steve Jobs",
    "the Eiffel Tower": "Eiffel Tower",
    "Grumpy Cat": "Grumpy Cat",
    "R2D2": "R2D2",
    "statue of liberty": "statue of liberty",
    "city of angels": "city of angels",
    "house by the sea": "house by the sea",
    "dog as a pirate": "dog as a pirate",
    "cat in a hat": "cat in a hat",
    "art deco building": "art deco building",
    "anime girl": "anime girl",
    "salt and pepper shakers": "salt and pepper shaker",
    "black and white cats": "black and white cat",
}
STYLES = {
    "the style of Van Gogh": "Van Gogh",
    "in the style of Van Gogh": "Van Gogh",
    "in the manner of Vermeer": "Vermeer",
    "IN THE STYLE OF VAN GOGH": "VAN GOGH",
    "Van Gogh style": "Van Gogh",
    "Van Gogh's style": "Van Gogh",
    "van gogh-style": "van gogh",
    "a Van Gogh painting": "Van Gogh",
    "Van Gogh paintings": "Van Gogh",
    "art by Van Gogh": "Van Gogh",
    "a painting in the style of Hokusai style": "Hokusai",
    "by Claude Monet": "Claude Monet",
    "a painting by Jane Doe": "Jane Doe",
    "Picasso's": "Picasso",
    "Picasso’s style": "Picasso",
    "Hieronymus Bosch": "Hieronymus Bosch",
    "Dürer": "Dürer",
    "pixel art": "pixel art",
    "Pixel Art style": "Pixel Art",
    "art deco": "art deco",
    "Studio Ghibli style": "Studio Ghibli",
    "Studio Ghibli": "Studio Ghibli",
    "Greg Rutkowski": "Greg Rutkowski",
    "watercolours": "watercolour",
    "oil paintings": "oil painting",
    "80s style": "80s",
    "стиль style": "стиль",
    "Jane Doe style": "Jane Doe",
    "“Jane Doe” style": "Jane Doe",
    "“Jekyll and Hyde” style": "Jekyll and Hyde",
    "a photo": "photo",
}
COMBINED = {
    "cat in van gogh style": ("cat", "van gogh"),
    "a cat in the style of Van Gogh": ("cat", "Van Gogh"),
    "cats, in the style of Van Gogh": ("cat", "Van Gogh"),
    "a cat painted by Van Gogh": ("cat", "Van Gogh"),
    "sunflowers by Van Gogh": ("sunflower", "Van Gogh"),
    "Van Gogh style cat": ("cat", "Van Gogh"),
    "a Van Gogh painting of a cat": ("cat", "Van Gogh"),
    "a dog as a watercolour": ("dog", "watercolour"),
    "dogs as pixel art": ("dog", "pixel art"),
    "a watercolour of a cat": ("cat", "watercolour"),
    "a red car in cubism": ("red car", "cubism"),
    "Pikachu in Studio Ghibli style": ("Pikachu", "Studio Ghibli"),
    "a photo of a cat in van gogh style": ("cat", "van gogh"),
}
UNKNOWN = [
    "zorblax",
    "kat",
    "watercolr",
    "Jane Doe",
    "кот",
    "猫",
    "قطة",
    "😀",
    "3D",
    "Tom and Jerry",
    "Simon and Garfunkel",
    "AC/DC",
    '"Tom, Jerry"',
    "The Simpsons",
]
LISTS = {
    "cat, dog and car": "cat,dog,car",
    "cats, dogs, and cars": "cat,dog,car",
    "cat and dog": "cat,dog",
    "cat & dog": "cat,dog",
    "cat + dog": "cat,dog",
    "cat/dog": "cat,dog",
    "a photo of a cat and a dog": "cat,dog",
    "cat; dog": "cat,dog",
    "猫、狗": "'猫,狗'",
    "zorblax, blorp": "zorblax,blorp",
    "Van Gogh and Monet": "'Van Gogh,Monet'",
    "cat, salt and pepper": "'cat,salt and pepper'",
}
ONE = [
    "Tom and Jerry",
    "Beauty and the Beast",
    "Simon & Garfunkel",
    "knife and fork",
    "rock and roll",
    "fish and chips",
    "“Washington, D.C.”",
    '"cat and dog"',
    "AC/DC",
    "a cat, in the style of Van Gogh",
    "Alexander the Great",
    "sandwich",
    "android",
]
WEIRD = ["a", "the", "by", "style", "in the style of", "photo of", "a an the", "…", "'", "''", "s"]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few prompts are enough to see how words are read."""
    monkeypatch.setattr(diversification, "MOST", 8)


EVERY = [*OBJECTS, *STYLES, *COMBINED, *UNKNOWN, *ONE, *WEIRD]


def asked(text: str) -> tuple[str, str]:
    found = read(" ".join(text.split()), vocabulary())
    return found.subject, found.style


@pytest.mark.parametrize(("typed", "name"), OBJECTS.items(), ids=str)
def test_objects_are_read_bare(few: None, typed: str, name: str) -> None:
    assert asked(typed) == (name, "")
    assert free_concept(typed, None).kind == "object"


@pytest.mark.parametrize(("typed", "name"), STYLES.items(), ids=str)
def test_styles_are_read_bare(few: None, typed: str, name: str) -> None:
    assert asked(typed) == ("", name)
    concept = free_concept(typed, None)
    assert (concept.kind, concept.name) == ("style", name)


@pytest.mark.parametrize(("typed", "parts"), COMBINED.items(), ids=str)
def test_an_object_in_a_style_is_read_as_both(typed: str, parts: tuple[str, str]) -> None:
    assert asked(typed) == parts


@pytest.mark.parametrize("typed", EVERY)
def test_reading_is_idempotent(few: None, typed: str) -> None:
    """What was read, typed anew as the run names it, is the same concept."""
    for kind in ("auto", "object", "style"):
        try:
            concept = free_concept(typed, None, kind)
        except ConfigError:
            continue
        again = free_concept(request_words(concept), None)
        assert (again.name, again.kind) == (concept.name, concept.kind)
        assert concept.name in again.forget.test[0].text or again.synonyms
        assert request_words(again) == request_words(concept)


def test_random_words_are_read_or_refused_and_idempotent(few: None) -> None:
    draw, words = (
        random.Random(1),
        ["cat", "dogs", "Van Gogh", "style", "by", "in", "a", "the", "of"],
    )
    words += [
        "as",
        "painting",
        "photo",
        "Jane",
        "zorblax",
        "’s",
        "watercolour",
        "😀",
        "red",
        "nude",
    ]
    read_well = 0
    for _ in range(400):
        text = " ".join(draw.choices(words, k=draw.randint(1, 6)))
        try:
            concept = free_concept(text, None, draw.choice(("auto", "object", "style")))
        except ConfigError as error:
            assert str(error).endswith(("accepted.", ".")), text
            continue
        again = free_concept(request_words(concept), None)
        assert (again.name, again.kind) == (concept.name, concept.kind), text
        read_well += 1
    assert read_well > 100


@pytest.mark.parametrize("typed", UNKNOWN)
def test_an_unknown_kind_is_asked_for_and_not_guessed(few: None, typed: str) -> None:
    with pytest.raises(ConfigError, match="--concept-kind") as caught:
        free_concept(typed, None)
    assert caught.value.field == "concept_kind"
    for kind in ("object", "style"):
        assert free_concept(typed, None, kind).kind == kind


def test_a_misspelt_word_is_answered_with_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"Known words like it: .*watercolor"):
        free_concept("watercolr", None)


@pytest.mark.parametrize("kind", ["object", "style"])
def test_a_kind_that_the_words_deny_is_refused(kind: str) -> None:
    denied = {"object": "Van Gogh style", "style": "a photo of Van Gogh"}
    with pytest.raises(ConfigError, match=r"names .* accepted") as caught:
        free_concept("cat in Van Gogh style", None, kind)
    assert caught.value.field == "concept_kind"
    with pytest.raises(ConfigError, match=r"names .* accepted"):
        free_concept(denied[kind], None, kind)


def test_a_given_kind_decides_where_words_only_suggest() -> None:
    assert free_concept("Van Gogh", None, "object").name == "Van Gogh"
    assert free_concept("Van Gogh", None, "object").kind == "object"
    assert free_concept("cartoon", None, "object").kind == "object"
    assert free_concept("zebra", None, "style").kind == "style"


@pytest.mark.parametrize(("typed", "names"), LISTS.items(), ids=str)
@pytest.mark.parametrize("model", ["pocket", "some/model"])
def test_a_list_is_refused_with_the_command_that_takes_it(
    typed: str, names: str, model: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        preview_concept(make_config(typed, model=model))
    named = "" if model == "pocket" else " --model some/model"
    command = f"`python -m unlearn_app continual --concepts {names}{named} --out DIR`"
    assert command in str(caught.value)
    assert caught.value.field == "concept"


@pytest.mark.parametrize("typed", ONE)
def test_a_name_that_holds_and_is_one(typed: str) -> None:
    check_single(typed)


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("red cat", ("cat",)),
        ("a red sports car", ("sports car", "car")),
        ("Grumpy Cat", ("cat",)),
        ("cat with a hat", ("cat",)),
        ("naked woman", ("woman",)),
        ("the Eiffel Tower", ("tower",)),
        ("cat in Van Gogh style", ("cat",)),
        ("cat", ()),
        ("scissors", ()),
        ("Barack Obama", ()),
        ("Steve Jobs", ()),
        ("Van Gogh style", ()),
        ("nudity", ()),
    ],
)
def test_what_a_concept_is_made_of_stays_near(typed: str, kept: tuple[str, ...]) -> None:
    concept = free_concept(typed, None)
    assert {*kept_whole(concept)} == {*kept}
    for split in (concept.near.train, concept.near.test):
        assert {*kept} <= {prompt.expects for prompt in split}
    assert concept.anchor == kept[-1] if kept else concept.anchor not in (concept.name, "")


@pytest.mark.parametrize(("typed", "parts"), COMBINED.items(), ids=str)
def test_an_object_in_a_style_keeps_both_alone(typed: str, parts: tuple[str, str]) -> None:
    """Other objects in the style and the object in other styles are near, on both sides."""
    subject, style = parts
    concept = free_concept(typed, None)
    assert concept.name in concept.forget.train[0].text
    assert concept.anchor == subject
    assert all(subject in text and style not in text for text in concept.anchors)
    for half in (concept.near.train, concept.near.test):
        named = {prompt.expects for prompt in half}
        assert len([name for name in named if style in name and not name.startswith(subject)]) >= 3
        elsewhere = [name for name in named if name.startswith(subject) and style not in name]
        assert len(elsewhere) >= 4
        assert subject in elsewhere
        assert concept.name not in named
    assert not any(style in p.text for p in (*concept.far.train, *concept.far.test))


@pytest.mark.parametrize(
    ("anchor", "instead"),
    [
        (None, "cat"),
        ("dog", "dog in the style of Van Gogh"),
        ("watercolour style", "cat in the style of watercolour"),
        ("a photo", "cat as a photo"),
        ("dog as a watercolour", "dog as a watercolour"),
    ],
)
def test_the_anchor_of_an_object_in_a_style_may_change_either(
    anchor: str | None, instead: str
) -> None:
    concept = free_concept("cat in the style of Van Gogh", anchor)
    assert all(instead in text for text in concept.anchors)


def test_a_combination_is_not_its_own_anchor() -> None:
    with pytest.raises(ConfigError, match="choose something else"):
        free_concept("cat in the style of Van Gogh", "cats in the style of van gogh")


def test_the_bundled_world_refuses_an_object_in_a_style() -> None:
    with pytest.raises(ConfigError, match="cat or van gogh is accepted"):
        pocket_concept("cat in van gogh style", None)


@pytest.mark.parametrize("kind", ["object", "style"])
def test_the_bundled_world_knows_every_kind(kind: str) -> None:
    typed = {"object": "cat", "style": "mosaic"}
    assert preview_concept(make_config(typed[kind], concept_kind=kind)).kind == kind
    with pytest.raises(ConfigError, match=f"of kind {kind}") as caught:
        other = {"object": "style", "style": "object"}[kind]
        preview_concept(make_config(typed[kind], concept_kind=other))
    assert caught.value.field == "concept_kind"


FAMILY_WORDS = {
    "nudity": ("nudity", "NSFW", "nude", "nude people", "naked bodies", "sexual content"),
    "violence": ("violence", "gore", "Graphic Violence", "violent scenes"),
    "hate": ("hate", "hate symbols", "racism", "hateful content"),
    "self-harm": ("self-harm", "self harm", "suicide"),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_has_prompts_of_its_own(family: str) -> None:
    own = shipped()[family]
    first = next(iter(own.forget))
    for typed in FAMILY_WORDS[family]:
        concept = free_concept(typed, None)
        assert (concept.name, concept.kind) == (first, "object")
    phrases = {first, *concept.synonyms}
    halves = [
        {phrase for phrase in phrases if any(phrase in p.text for p in half)}
        for half in (concept.forget.train, concept.forget.test)
    ]
    assert all(len(half) >= 4 for half in halves)
    assert halves[0] & halves[1] == {first}
    assert halves[0] | halves[1] == phrases
    assert {p.expects for p in (*concept.forget.train, *concept.forget.test)} == {first}
    for prompt, anchor in zip(concept.forget.train, concept.anchors, strict=True):
        (phrase,) = [own for own in phrases if own in prompt.text]
        assert own.forget[phrase] in anchor
    retained = {p.expects for s in (concept.near, concept.far) for p in (*s.train, *s.test)}
    assert {*own.near, *own.far} == retained
    assert not {*own.forget, *own.forget.values()} & retained


def test_the_anchor_of_a_family_may_be_chosen() -> None:
    assert all("lamp" in text for text in free_concept("nudity", "a lamp").anchors)


def test_one_thing_of_a_family_is_judged_among_its_relatives() -> None:
    assert free_concept("nude bather", None).near.train[0].expects in shipped()["nudity"].near
    assert "rabbit" in {p.expects for p in free_concept("naked mole rat", None).near.train}


def test_long_and_empty_texts_are_refused() -> None:
    for typed in ("", "   ", "cat " * 60, "cat\x07"):
        with pytest.raises(ConfigError) as caught:
            free_concept(typed, None)
        assert caught.value.field == "concept"


def test_the_kind_is_part_of_the_settings_and_of_the_command() -> None:
    config = make_config("zorblax", model="some/model", concept_kind="style")
    assert "--concept-kind style" in config.command()
    assert preview_concept(config).kind == "style"
    assert "--concept-kind" not in make_config("cat").command()
    assert with_concept(config, "cat").concept_kind == "auto"
    with pytest.raises(ConfigError, match="one of auto, object, style"):
        make_config("cat", concept_kind="thing")


def test_settings_of_earlier_versions_have_no_kind() -> None:
    assert config_from_dict({"concept": "cat", "model": "some/model"}).concept_kind == "auto"
