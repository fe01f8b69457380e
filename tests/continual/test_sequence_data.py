"""What requests in a row are taught from: anchors that are still there, and retain prompts that
name nothing erased.
"""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from small_runs import TINY

from unlearn_app.concepts.catalog import preview_concept
from unlearn_app.concepts.concept import Prompt, PromptSplit
from unlearn_app.continual.ledger import Ledger, Request
from unlearn_app.continual.sequence import _training_task
from unlearn_app.continual.sequence_data import (
    drop_retain_prompts,
    merged_concept,
    requested_concepts,
    with_allowed_anchor,
    with_allowed_anchors,
)
from unlearn_app.settings.run_config import make_config, make_plan, with_concept
from unlearn_app.training.unlearning import retain_prompts


def test_all_at_once_trains_on_every_concept_in_turn(tiny_pipeline) -> None:
    config = make_config("cat", model=str(tiny_pipeline), **TINY)
    cat, dog = (preview_concept(with_concept(config, name)) for name in ("cat", "dog"))
    both = drop_retain_prompts(merged_concept([cat, dog]), [cat, dog])
    assert "cat" in both.forget.train[0].text
    assert "dog" in both.forget.train[1].text
    assert (
        len(both.anchors) == len(both.forget.train) >= len(cat.forget.train) + len(dog.forget.train)
    )
    assert not [text for text in retain_prompts(both, 40) if "cat" in text or "dog" in text]


def test_an_anchor_is_never_something_that_was_erased() -> None:
    config = make_config("cat")
    assert with_allowed_anchor(config, "kitty", []).anchor == "dog"
    other = with_allowed_anchor(config, "cat", ["dog"])
    assert other.anchor in ("rabbit", "bear", "fish", "butterfly", "frog")
    assert other.name == "cat"
    assert not any("dog" in text for text in other.anchors)
    assert with_allowed_anchor(config, "mosaic", ["photo"]).anchor not in ("photo", "mosaic")


def test_what_was_erased_is_no_retain_prompt(tiny_pipeline) -> None:
    config = make_config("cat", model=str(tiny_pipeline), **TINY)
    cat = preview_concept(config)
    name = cat.near.train[0].expects
    kept = drop_retain_prompts(cat, [preview_concept(with_concept(config, name))])
    assert any(name in prompt.text for prompt in cat.near.train)
    assert not any(name in prompt.text for split in (kept.near, kept.far) for prompt in split.train)
    assert kept.near.test == cat.near.test
    assert kept.near.train


SEQUENCES = {
    "objects": ("cat", "fish", "ship", "burger", "sunflower", "ghost",
                "rabbit", "frog", "airplane", "pizza", "sword", "tree"),
    "styles": ("van gogh", "mosaic", "neon", "pop art", "sketch", "cartoon",
               "watercolor", "stained glass", "blueprint", "woodcut", "vintage", "pointillism"),
}  # fmt: skip
KEPT = {"objects": ("bomb", "hammer", "scissors", "robot"), "styles": ("ink", "arcade", "chalk")}
"""What no request of a sequence, in either order, has for its anchor."""
SEQUENCE = pytest.mark.parametrize("domain", SEQUENCES)
TURN = pytest.mark.parametrize("turn", [1, -1])


@SEQUENCE
@TURN
def test_every_request_of_a_long_sequence_has_something_to_retain_that_names_nothing_erased(
    domain, turn
) -> None:
    """Of fourteen styles the last few have no relative left: without their anchor's sentences
    nothing is.
    """
    config, names = make_config("cat"), SEQUENCES[domain][::turn]
    gone = [preview_concept(with_concept(config, name)) for name in KEPT[domain]]
    for place, name in enumerate(names):
        concept = with_allowed_anchor(config, name, [*names[:place], *KEPT[domain]])
        assert concept.anchor not in (*names[: place + 1], *KEPT[domain])
        prompts = retain_prompts(drop_retain_prompts(concept, gone), 32)
        assert prompts
        for other in (*names[:place], *KEPT[domain]):
            assert not [text for text in prompts if re.search(rf"\b{other}\b", text)], (name, other)
        gone.append(concept)


@pytest.mark.slow
@SEQUENCE
@TURN
def test_no_anchor_of_what_is_forgotten_at_once_is_forgotten_itself(
    domain, turn, tmp_path: Path
) -> None:
    """Anchors as they were recorded, of which a later request erased some."""
    config, names = make_config("cat"), SEQUENCES[domain][::turn]
    rows, moved = [Request("", "", "", "x", 0.0, 0, 0.0, {})], 0
    for place, name in enumerate(names):
        own = with_allowed_anchor(config, name, [*names[:place], *KEPT[domain]])
        ledger = Ledger(tmp_path, config, make_plan(regime="simultaneous"), (), rows)
        erased = requested_concepts(ledger)
        assert [concept.anchor for concept in erased] == [row.anchor for row in rows[1:]]
        every = with_allowed_anchors(config, [*erased, own], KEPT[domain])
        assert not {concept.anchor for concept in every} & {*names[: place + 1], *KEPT[domain]}
        moved += [concept.anchor for concept in every] != [
            concept.anchor for concept in (*erased, own)
        ]
        held = [preview_concept(with_concept(config, name)) for name in KEPT[domain]]
        lesson, grown = _training_task(ledger, own, config, erased, held)
        assert not [
            text
            for text in lesson.anchors
            if any(re.search(rf"\b{n}\b", text) for n in names[: place + 1])
        ]
        assert grown.unlearn.steps == (place + 1) * config.unlearn.steps
        assert grown.unlearn.train_pictures == (place + 1) * config.unlearn.train_pictures
        rows = [*rows, Request(name, own.kind, own.anchor, "x", 1.0, 1, 1.0, {})]
    assert (moved > 0) == (domain == "objects" and turn == -1), (
        "a test without a lost anchor would show nothing"
    )


def test_a_word_that_only_begins_like_an_erased_one_stays() -> None:
    cat, car = (preview_concept(make_config(name)) for name in ("cat", "car"))
    words = ("a cartoon", "a car at night", "two cars", "an automobile", "a scar", "a carp")
    prompts = tuple(Prompt(text, "object", "") for text in words)
    found = drop_retain_prompts(
        replace(cat, near=PromptSplit(prompts, ()), far=PromptSplit((), ())), [car]
    )
    assert [prompt.text for prompt in found.near.train] == ["a cartoon", "a scar", "a carp"]
