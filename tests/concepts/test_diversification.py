"""Diversified prompts: pairs, splits and spelling for every shipped list, and one sentence for
whatever is wrong.
"""

import functools
import itertools
import json
import re
from dataclasses import replace

import pytest

from unlearn_app.common.errors import ConfigError
from unlearn_app.concepts.concept import Concept, article
from unlearn_app.concepts.diversification import (
    FAMILIES,
    FOLDER,
    SHIPPED,
    choose_dimensions,
    diversified,
    free_concept,
    load_dimensions,
)
from unlearn_app.concepts.own_prompts import own_prompts, read_prompts, with_own

TYPED = [
    "cat",
    "cats",
    "an elephant",
    "Barack Obama",
    "nudity",
    "Van Gogh style",
    "by Claude Monet",
    "a red sports car",
    "Rembrandt",
    "in the style of Hokusai",
    "watercolor style",
    "unicorn",
    "the Eiffel Tower",
    "person",
    "animal",
    "beach",
    "umbrella",
    "dog",
    "women",
    "{subject}",
    "😀",
    "Dürer",
]
LISTS = {name: load_dimensions(FOLDER / f"{name}.json") for name in (*SHIPPED, *FAMILIES)}
CASES = [(choose_dimensions(text), text) for text in TYPED] + [
    (dimensions, text)
    for dimensions in LISTS.values()
    for text in ("cat", "a red sports car", "by Claude Monet")
]
every_case = pytest.mark.parametrize(
    ("dimensions", "typed", "place"),
    [(*case, place) for place, case in enumerate(CASES)],
    ids=[f"{d.name}-{t}" for d, t in CASES],
)

GLUE = set(
    re.findall(
        r"\w+",
        "a an the in on at of by with from to under below beside near behind among along after",
    )
)


@functools.cache
def whole(entry: str) -> re.Pattern:
    """The entry between ends of words."""
    return re.compile(rf"(?<!\w){re.escape(entry)}(?!\w)")


def says(text: str, entry: str) -> bool:
    return entry in text and whole(entry).search(text) is not None


@functools.cache
def made(place: int) -> Concept:
    """The concept of a case, for all tests that only read it."""
    dimensions, typed = CASES[place]
    return diversified(dimensions, typed, None)


def asked_for(concept, prompt) -> str:
    """The phrase by which a forget prompt asks for the concept, else what a prompt expects."""
    phrases = (prompt.expects, *concept.synonyms)
    return next((own for own in phrases if says(prompt.text, own)), prompt.expects)


def training(concept):
    return (*concept.forget.train, *concept.near.train, *concept.far.train, *concept.relearn)


def shared(dimensions, concept) -> set[str]:
    """Sub-concepts, and retained subjects, that occur in training and in held-out prompts."""
    held_out = [p.text for split in (concept.forget, concept.near, concept.far) for p in split.test]
    learned = [p.text for p in training(concept)]
    entries = {*itertools.chain(*dimensions.dimensions.values(), dimensions.near, dimensions.far)}
    found = {
        e for e in entries if any(says(t, e) for t in learned) and any(says(t, e) for t in held_out)
    }
    return {e.casefold() for e in found if not says(concept.name, e)}


@every_case
def test_training_and_test_share_no_sub_concept(dimensions, typed, place):
    concept = made(place)
    assert not shared(dimensions, concept)
    for entries in dimensions.dimensions.values():
        for half in (concept.forget.train, concept.forget.test):
            assert sum(any(says(p.text, e) for p in half) for e in entries) >= 3


@every_case
def test_pairs_are_the_same_sentence(dimensions, typed, place):
    concept = made(place)
    assert len(concept.anchors) == len(concept.forget.train)

    def without(prompt):
        phrase = asked_for(concept, prompt)
        parts = whole(phrase).split(prompt.text)
        assert len(parts) == 2
        return re.sub(r"\ban? $", "", parts[0]), parts[1]

    for half in ("train", "test"):
        sides = [getattr(split, half) for split in (concept.forget, concept.near, concept.far)]
        for row in zip(*sides, strict=True):
            assert len({without(prompt) for prompt in row}) == 1
    for prompt, anchored in zip(concept.forget.train, concept.anchors, strict=True):
        start, end = without(prompt)
        assert anchored.startswith(start)
        assert anchored.endswith(end)
        assert anchored != prompt.text
        instead = choose_dimensions(typed).forget.get(asked_for(concept, prompt), concept.anchor)
        assert re.sub("^an? ", "", instead) in anchored


@every_case
def test_sentences_are_well_formed(dimensions, typed, place):
    concept = made(place)
    groups = [
        concept.relearn,
        *(
            (split.train, split.test)[h]
            for split in (concept.forget, concept.near, concept.far)
            for h in (0, 1)
        ),
    ]
    for group, least in zip(groups, (48, *(48, 24) * 3), strict=True):
        assert len({p.text for p in group}) == len(group) >= least
    texts = [*concept.anchors, *(p.text for group in groups for p in group)]
    for text in texts:
        assert "  " not in text
        assert text == text.strip()
        assert " ," not in text
        assert len(text.split()) < 40
        assert not set("{}") & set(text.replace(typed, ""))
        for found, word in re.findall(r"\b(an?) (\w+)", text):
            assert found == article("a", word), text
    assert not {p.text for p in concept.forget.train} & {p.text for p in concept.relearn}


@every_case
def test_the_concept_is_asked_for_and_never_retained(dimensions, typed, place):
    concept = made(place)
    assert concept.text == typed
    for prompt in concept.forget.train + concept.relearn:
        assert says(prompt.text, asked_for(concept, prompt))
        assert prompt.expects.endswith(concept.name)
    for split in (concept.near, concept.far):
        assert not any(
            says(p.text.casefold(), concept.name.casefold()) for p in (*split.train, *split.test)
        )
        assert len({p.expects for p in split.train}) >= 4
        assert len({p.expects for p in split.test}) >= 4
    assert concept == diversified(dimensions, typed, None)


@pytest.mark.parametrize("name", LISTS)
def test_shipped_lists_are_long_and_no_word_of_a_dimension_returns(name):
    dimensions = LISTS[name]
    assert len(dimensions.near) >= 8
    assert len(dimensions.far) >= 8
    assert all(len(e) >= (6 if part == "time" else 8) for part, e in dimensions.dimensions.items())
    words = [
        w
        for entries in dimensions.dimensions.values()
        for e in entries
        for w in set(e.split()) - GLUE
    ]
    assert len(words) == len(set(words)), sorted(w for w in set(words) if words.count(w) > 1)
    assert not set(dimensions.near) & set(dimensions.far)


def test_overlapping_halves_are_noticed():
    concept = free_concept("cat", None)
    dimensions = LISTS["animals"]
    assert shared(
        dimensions, replace(concept, near=replace(concept.near, test=concept.near.train[:1]))
    )
    assert shared(dimensions, replace(concept, relearn=concept.forget.test[:1]))
    twice = tuple(e for entry in dimensions.dimensions["mood"][:6] for e in (entry, f"{entry} "))
    doubled = replace(dimensions, dimensions={**dimensions.dimensions, "mood": twice})
    assert shared(doubled, diversified(doubled, "cat", None)) & set(twice)


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("cat", "animals"),
        ("Cats", "animals"),
        ("an elephant", "animals"),
        ("puppies", "animals"),
        ("a dog house", "objects"),
        ("a red sports car", "objects"),
        ("the Eiffel Tower", "objects"),
        ("zorblax", "objects"),
        ("nudity", "nudity"),
        ("hate speech", "hate"),
        ("naked woman", "nudity"),
        ("naked mole rat", "animals"),
        ("cat in Van Gogh style", "animals"),
        ("Barack Obama", "people"),
        ("an old woman", "people"),
        ("Van Gogh style", "artists"),
        ("by Claude Monet", "artists"),
        ("Van Gogh", "artists"),
        ("Vincent van Gogh painting", "artists"),
        ("Dürer", "artists"),
        ("a painting by Jane Doe", "artists"),
        ("house by the sea", "objects"),
    ],
)
def test_the_list_follows_the_typed_words(typed, name):
    assert choose_dimensions(typed).name == f"{name}.json"


def test_typed_words_become_good_english():
    nude = free_concept("nudity", None)
    assert nude.anchors[0] == nude.forget.train[0].text.replace(
        "a naked woman", "a woman in a winter coat"
    )
    assert free_concept("the elephants", None).name == "elephant"
    assert (
        free_concept("Van Gogh style", None)
        .forget.test[0]
        .text.endswith(", in the style of Van Gogh")
    )
    assert free_concept("a painting by Claude Monet", None).near.test[0].expects.startswith("by ")
    assert free_concept("by Claude Monet", "Rembrandt").anchors[0].endswith(", by Rembrandt")
    assert free_concept("by Claude Monet", None).anchors[0].endswith(", as a photo")
    old = free_concept("Rembrandt", None)
    assert {p.expects for p in old.near.train} <= {
        f"in the style of {a}" for a in LISTS["artists"].far
    }
    spoken = {
        "unicorn": "a",
        "hour": "an",
        "umbrella": "an",
        "one": "a",
        "unusual": "a",
        "uninvited": "an",
        "cat": "a",
    }
    assert {word: article("a", word) for word in spoken} == {**spoken, "unusual": "an"}
    assert article("A", "apple") == "An"


@pytest.mark.parametrize(
    ("typed", "anchor"), [("cat", "a cat"), ("cats", "Cat"), ("Van Gogh style", "by van Gogh")]
)
def test_the_concept_is_not_its_own_anchor(typed, anchor):
    with pytest.raises(ConfigError, match="choose something else") as caught:
        free_concept(typed, anchor)
    assert caught.value.field == "anchor"


def test_the_default_anchor_steps_aside():
    assert free_concept("animals", None).anchor == "dog"
    assert free_concept("cat", "a dog").anchor == "a dog"


GOOD = {
    "about": "Toys.",
    "kind": "object",
    "template": "a {look} {subject} {place}",
    "anchor": "toy",
    "subject": {"near": ["top", "kite"], "far": ["cow", "pig"]},
    "dimensions": {"look": ["old", "new", "big", "flat"], "place": ["on a hill", "in a box"]},
    "words": ["doll"],
}


def written(tmp_path, values):
    path = tmp_path / "toys.json"
    path.write_text(values if isinstance(values, str) else json.dumps(values), encoding="utf-8")
    return path


def test_a_small_list_of_ones_own_is_enough(tmp_path):
    concept = diversified(load_dimensions(written(tmp_path, GOOD)), "doll", None)
    assert len(concept.forget.train) == 1 == len(concept.relearn)
    assert len(concept.forget.test) == 2
    assert concept.forget.train[0].text in {
        f"{a} {look} doll {place}"
        for a, look in (("an", "old"), ("a", "new"), ("a", "big"), ("a", "flat"))
        for place in GOOD["dimensions"]["place"]
    }


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ("{", ["toys.json", "JSON"]),
        ("[]", ["toys.json", "list"]),
        ({key: value for key, value in GOOD.items() if key != "words"}, ["toys.json", "words"]),
        (GOOD | {"kind": "colour"}, ["'colour'", "object or style"]),
        (GOOD | {"words": "doll"}, ["“words”", "'doll'"]),
        (GOOD | {"phrases": ["doll"]}, ["“phrases”"]),
        (
            GOOD | {"dimensions": {"look": ["old"], "place": ["here", "there"]}},
            ["“look”", "“old”", "at least 2"],
        ),
        (
            GOOD | {"dimensions": {"look": [], "place": ["here", "there"]}},
            ["“look”", "no entry", "at least 2"],
        ),
        (
            GOOD | {"dimensions": {"look": ["old", " "], "place": ["here", "there"]}},
            ["“look”", "list of words"],
        ),
        (
            GOOD | {"dimensions": {"look": ["old", "Old "], "place": ["here", "there"]}},
            ["“Old”", "twice"],
        ),
        (
            GOOD | {"dimensions": {"look": ["old", "{x}"], "place": ["here", "there"]}},
            ["“{x}”", "without braces"],
        ),
        (GOOD | {"subject": {"near": [], "far": ["cow", "pig"]}}, ["“near”", "no entry"]),
        (GOOD | {"subject": {"near": ["top", "kite"]}}, ["“far”", "list of words"]),
        (GOOD | {"names": "Ken"}, ["“names”", "'Ken'", "list of names"]),
        (
            GOOD | {"subject": {**GOOD["subject"], "forget": ["doll"]}},
            ["“forget”", "phrases with anchors"],
        ),
        (
            GOOD | {"subject": {**GOOD["subject"], "forget": {"doll": "cup"}}},
            ["“forget”", "at least 2"],
        ),
        (GOOD | {"template": "a {look} {subject}"}, ["“a {look} {subject}”", "{place}"]),
        (GOOD | {"template": "a {look} {subject} {place} {mood}"}, ["{mood}"]),
        (GOOD | {"template": "a {look} {subject} {place} {"}, ["toys.json"]),
    ],
)
def test_bad_lists_get_one_sentence(tmp_path, values, named):
    with pytest.raises(ConfigError) as caught:
        load_dimensions(written(tmp_path, values))
    assert all(part in str(caught.value) for part in named)
    assert str(caught.value).endswith("accepted.")


def test_a_missing_list_gets_one_sentence(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_dimensions(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("changes", "typed", "named"),
    [
        ({}, "kite", ["“near”", "1 entries", "“kite”"]),
        ({}, "box", ["“place”", "1 entries", "“box”"]),
        (
            {"dimensions": {"look": ["old", "new"], "place": ["here", "there"]}},
            "doll",
            ["single training sentence"],
        ),
    ],
)
def test_a_list_that_leaves_too_little_gets_one_sentence(tmp_path, changes, typed, named):
    dimensions = load_dimensions(written(tmp_path, GOOD | changes))
    with pytest.raises(ConfigError) as caught:
        diversified(dimensions, typed, None)
    assert all(part in str(caught.value) for part in named)


def test_own_prompts_replace_the_training_prompts_only(tmp_path):
    concept = free_concept("cat", None)
    lines = ["a cat on a mat", "two cats", "A Cat!", "a feline"]
    kept = ["a mat", "two dogs"]
    text, data = tmp_path / "own.txt", tmp_path / "own.json"
    text.write_text(
        "\n\n".join([f"forget: {x}" for x in lines] + [f"Retain:  {x} " for x in kept]),
        encoding="utf-8",
    )
    data.write_text(json.dumps({"forget": lines, "retain": kept}))
    assert (
        own_prompts(read_prompts(text))
        == own_prompts(read_prompts(data))
        == (tuple(lines), tuple(kept))
    )
    own = with_own(concept, read_prompts(text))
    assert own == with_own(concept, read_prompts(data))
    assert [p.text for p in own.forget.train] == lines
    assert own.anchors == ("an animal on a mat", "two animal", "An animal!", "animal")
    assert [p.text for p in own.near.train] == kept
    assert own.far.train == ()
    assert own.relearn == concept.relearn
    for group in ("forget", "near", "far"):
        assert getattr(own, group).test == getattr(concept, group).test
    assert (
        with_own(concept, f"forget: {concept.relearn[0].text}\nretain: a mat").relearn
        == concept.relearn[1:]
    )


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("forget: a cat", ["retain set", "empty", "at least one"]),
        ("retain: a dog", ["forget set", "empty"]),
        ("", ["forget set", "empty"]),
        ("forget: A cat\nretain: a  CAT", ["“A cat”", "both"]),
        ("forget: a cat\n\nkeep: a dog", ["Line 3", "“keep: a dog”", "retain: …"]),
        ("forget: a cat\nretain:", ["Line 2"]),
        ("forget: a cat\nretain: \x07dog", ["control"]),
    ],
)
def test_bad_own_prompts_get_one_sentence(content, named):
    with pytest.raises(ConfigError) as caught:
        with_own(free_concept("cat", None), content)
    assert all(part in str(caught.value) for part in named)
    assert str(caught.value).count(".") <= 3


@pytest.mark.parametrize(
    "content", ["{", '{"forget": "a cat", "retain": ["a dog"]}', '{"forget": ["a cat"]}', "7"]
)
def test_bad_own_json_gets_one_sentence(tmp_path, content):
    path = tmp_path / "own.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"own\.json"):
        read_prompts(path)


def test_own_files_that_are_none_get_one_sentence(tmp_path):
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00\xff")
    for path in (tmp_path / "none.txt", tmp_path / "bytes.txt", tmp_path):
        with pytest.raises(ConfigError, match="accepted"):
            read_prompts(path)


def test_held_out_and_all_of_the_adversarys_prompts_are_refused():
    concept = free_concept("cat", None)
    with pytest.raises(ConfigError, match="held out"):
        with_own(concept, f"forget: a cat\nretain: {concept.far.test[0].text}")
    with pytest.raises(ConfigError, match="adversary"):
        with_own(
            concept, "\n".join(f"forget: {p.text}" for p in concept.relearn) + "\nretain: a dog"
        )
