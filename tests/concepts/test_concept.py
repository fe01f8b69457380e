"""Typed words become concepts: spellings, anchors, and splits that share nothing."""

import random

import pytest

from unlearn_app.common.errors import ConfigError
from unlearn_app.concepts.concept import evenly_spaced, restricted_retain
from unlearn_app.concepts.diversification import free_concept
from unlearn_app.pocket.concepts import (
    MEANINGS,
    find_entry,
    known_concepts,
    nearest_known,
    pocket_concept,
)
from unlearn_app.pocket.world.vocabulary import OBJECTS, SETTINGS, STYLES, spellings
from unlearn_app.settings.groups import RETAIN_ARMS

NAMES = [entry.name for entry in (*OBJECTS, *STYLES)]


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("CAT", "cat"),
        ("  kitties ", "cat"),
        ("the Puppy", "dog"),
        ("Vincent van Gogh", "van gogh"),
        ("in the style of Van Gogh style", "van gogh"),
        ("Van-Gogh painting", "van gogh"),
        ("Aquarelle", "watercolor"),
        ("aeroplanes", "airplane"),
        ("Penguin", "penguin"),
        ("a photo of a cat", "cat"),
        ("a photo of cats", "cat"),
        ("Van Gogh's", "van gogh"),
        ("Van Gogh's painting", "van gogh"),
        ("Van Gogh’s paintings", "van gogh"),
    ],
)
def test_spelling_case_and_plural_do_not_matter(typed, name):
    assert pocket_concept(typed, None).name == name


@pytest.mark.parametrize("typed", ["zebra", "kat", "😀😀", "c a t x", "beach", "1234"])
def test_unknown_words_get_a_sentence_at_the_field(typed):
    with pytest.raises(ConfigError) as caught:
        pocket_concept(typed, None)
    assert caught.value.field == "concept"
    assert typed in str(caught.value)
    assert all(name in NAMES for name in nearest_known(typed))
    assert nearest_known(typed)


def test_nearest_names_are_near():
    assert "cat" in nearest_known("catt")
    assert "mosaic" in nearest_known("mosiac")
    assert len(nearest_known("catt")) <= 4


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("gun", ["knife", "sword", "bomb"]),
        ("birds", ["butterfly", "penguin"]),
        ("wolves", ["cat", "dog", "rabbit", "bear"]),
        ("women", ["santa", "robot", "ghost"]),
        ("people", ["santa", "robot", "ghost"]),
        ("mice", ["cat", "dog", "rabbit", "bear"]),
    ],
)
def test_words_are_answered_by_meaning_before_they_are_by_spelling(typed, offered):
    assert nearest_known(typed) == offered


def test_a_word_like_nothing_known_gets_the_whole_list():
    shown = [k.name for k in known_concepts() if not k.fresh]
    assert nearest_known("qqqqq") == shown
    with pytest.raises(ConfigError, match=f"it knows {len(shown)} things: cat, dog"):
        pocket_concept("qqqqq", None)


def test_every_meaning_leads_to_names_of_the_world():
    assert {name for names in MEANINGS for name in names} <= {
        known.name for known in known_concepts()
    }


@pytest.mark.parametrize("anchor", ["kitten", "neon", "zebra"])
def test_bad_anchors_name_the_anchor_field(anchor):
    with pytest.raises(ConfigError) as caught:
        pocket_concept("cat", anchor)
    assert caught.value.field == "anchor"


def words_of(prompts) -> set[str]:
    """Canonical names of every sub-concept whose spelling occurs in the prompts."""
    text = " | ".join(p.text for p in prompts)
    text = text.replace("woods", "forest").replace("in a city", "in the city")
    return {
        e.name
        for e in (*OBJECTS, *STYLES, *SETTINGS)
        if any(f" {s} " in f" {text} " for s in spellings(e))
    }


@pytest.mark.parametrize("name", NAMES)
def test_train_and_test_prompts_share_no_sub_concept(name):
    concept = pocket_concept(name, None)
    assert concept.anchor != name
    train = words_of(
        (*concept.forget.train, *concept.near.train, *concept.far.train, *concept.relearn)
    )
    test = words_of((*concept.forget.test, *concept.near.test, *concept.far.test))
    assert train & test <= {name}
    assert len(concept.anchors) == len(concept.forget.train)
    for split in (concept.forget, concept.near, concept.far):
        assert split.train
        assert split.test
    assert not {p.text for p in concept.forget.train} & {p.text for p in concept.relearn}
    retained = {
        p.expects for split in (concept.near, concept.far) for p in (*split.train, *split.test)
    }
    assert not retained & {name, concept.anchor}
    assert {p.expects for p in concept.forget.test} == {name}


@pytest.mark.parametrize("name", NAMES)
def test_the_forgotten_name_is_in_every_forget_prompt_and_in_no_retain_prompt(name):
    concept = pocket_concept(name, None)
    for prompt in (*concept.forget.train, *concept.forget.test, *concept.relearn):
        assert name in prompt.text or name == "photo"
    for prompt in (*concept.near.test, *concept.far.test, *concept.near.train, *concept.far.train):
        assert f" {name} " not in f" {prompt.text} "


def test_items_are_taken_evenly_and_again_when_there_are_fewer():
    prompts = pocket_concept("cat", None).far.test
    assert len(set(evenly_spaced(prompts, 10))) == 10
    assert len(evenly_spaced(prompts[:2], 5)) == 5
    assert evenly_spaced((), 3) == ()


def test_known_concepts_list_everything_once():
    names = [k.name for k in known_concepts()]
    assert len(names) == len(set(names))
    assert sum(k.kind == "object" and not k.fresh for k in known_concepts()) >= 20
    assert sum(k.kind == "style" for k in known_concepts()) >= 14
    assert sum(k.fresh for k in known_concepts()) >= 3
    spelled = [s for e in (*OBJECTS, *STYLES, *SETTINGS) for s in spellings(e)]
    assert len(spelled) == len(set(spelled))
    assert find_entry(random.Random(0).choice(names))[0].name in names


def test_free_words_work_for_other_models():
    concept = free_concept("a red dragon", None)
    assert concept.name == "red dragon"
    assert all("red dragon" in p.text for p in concept.forget.test)
    style = free_concept("Van Gogh style", None)
    assert style.anchor == "a photo"
    assert {p.axis for p in style.far.test} == {"style"}
    for c in (concept, style):
        assert not {p.text for p in c.forget.train} & {p.text for p in c.forget.test}
        assert not {p.text for p in c.near.train} & {p.text for p in c.near.test}


ARM_CASES = [pocket_concept(name, None) for name in NAMES] + [
    free_concept(t, None) for t in ("cat", "Van Gogh style")
]


@pytest.mark.parametrize("concept", ARM_CASES, ids=[c.name for c in ARM_CASES])
def test_arms_change_training_prompts_only(concept):
    diversified, near, uniform = (restricted_retain(concept, arm) for arm in RETAIN_ARMS)
    assert diversified is concept
    for arm in (near, uniform):
        assert arm.far.train == ()
        assert arm.relearn == concept.relearn
        assert arm.name == concept.name
        for group in ("forget", "near", "far"):
            assert getattr(arm, group).test == getattr(concept, group).test
    assert near.forget == concept.forget
    assert near.near == concept.near
    assert near.anchors == concept.anchors
    assert len(uniform.forget.train) == len(uniform.anchors) == len(uniform.near.train) == 1
    row = concept.forget.train.index(uniform.forget.train[0])
    assert uniform.anchors[0] == concept.anchors[row]
    assert uniform.near.train[0] in concept.near.train
    for group in ("forget", "near"):
        kept, all_of = getattr(uniform, group).train, getattr(concept, group).train
        assert len(kept[0].text) == min(len(p.text) for p in all_of)
