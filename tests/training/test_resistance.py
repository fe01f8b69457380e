"""Does an attack bring a concept back, and does meta-unlearning resist it: on the bundled model,
and at any setting.
"""

import itertools
import math
import random
from contextlib import closing
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from small_runs import TINY

from unlearn_app.attacks.relearn import fine_tune
from unlearn_app.attacks.runner import attack_context, easiest_unseen, unseen_context
from unlearn_app.common.registry import world
from unlearn_app.concepts.catalog import preview_concept
from unlearn_app.methods.objectives.diffusion import Diffusion
from unlearn_app.runs.folder import Run
from unlearn_app.runs.workflow import run
from unlearn_app.settings.attacks import budget_of
from unlearn_app.settings.events import FRESH, UNRESISTING, AttackCheckpoint
from unlearn_app.settings.groups import ResistConfig
from unlearn_app.settings.run_config import make_config
from unlearn_app.training.latent_dataset import noisy_batches
from unlearn_app.training.unlearning import edit, train, training_terms
from unlearn_app.web.plots import curve_table
from unlearn_app.web.view_state import stored_state

MOST_STEPS, MOST_PICTURES = 3, 2
"""Where the cost of a random setting is cut off: longer attacks, up to 50 steps, differ in time
alone.
"""
CORNERS = (
    {"resist.steps": 0},
    {"resist.weights": "full", "resist.optimizer": "sgd", "resist.order": "first"},
)
"""What chance leaves out of 50 draws."""


def random_resistance(source: random.Random) -> dict[str, object]:
    """Settings from anywhere in what is accepted, on a logarithmic scale; cost is cut off as
    `MOST_STEPS` says.

    Whole numbers are drawn from 1 on, so that an attack of no steps is rare rather than the rule.
    """
    chosen: dict[str, object] = {"resist.on": True}
    for item in fields(ResistConfig):
        if "choices" in item.metadata:
            chosen[f"resist.{item.name}"] = source.choice(item.metadata["choices"])
        elif "range" in item.metadata:
            low, high = item.metadata["range"]
            whole = item.type is int
            value = math.exp(
                source.uniform(math.log(max(low, 1 if whole else 1e-6)), math.log(high))
            )
            chosen[f"resist.{item.name}"] = round(value) if whole else value
    most = {"resist.steps": MOST_STEPS, "resist.batch_size": MOST_PICTURES}
    return chosen | {name: min(int(chosen[name]), limit) for name, limit in most.items()}


@pytest.fixture(scope="module")
def tiny(tiny_model: Any) -> Any:
    return tiny_model


SETTINGS = [random_resistance(random.Random(seed)) for seed in range(50)]
SETTINGS += [SETTINGS[row] | corner for row, corner in enumerate(CORNERS)]


def test_random_settings_reach_every_kind_of_attack() -> None:
    """A draw that mostly ends at no steps, or never differentiates through an attack, would prove
    nothing below.
    """
    kinds = {
        (s["resist.weights"], s["resist.optimizer"], s["resist.order"])
        for s in SETTINGS
        if s["resist.steps"]
    }
    assert len(kinds) == 8
    assert sum(s["resist.steps"] == 0 for s in SETTINGS) == 1
    assert sum(s["resist.steps"] > 0 and s["resist.order"] == "second" for s in SETTINGS) >= 20


@pytest.mark.parametrize("row", range(len(SETTINGS)))
def test_no_meta_term_makes_training_diverge(tiny, tiny_pipeline, row) -> None:
    """Simulated attacks with extreme rates end in infinities, which must not change forgetting."""
    changes = TINY | SETTINGS[row] | {"unlearn.lr": 1e-3, "unlearn.steps": 3}
    config = make_config("cat", model=str(tiny_pipeline), **changes)
    concept = preview_concept(config)
    steps = list(train(tiny, concept, training_terms(tiny, concept, config, lambda: False), config))
    assert len(steps) == 3
    for step in steps:
        assert all(map(math.isfinite, [*step.losses.values(), *step.norms.values()])), changes
        assert max(step.losses["forget"], step.losses["retain"]) < 3 * max(
            1.0, steps[0].losses["forget"]
        ), changes
    assert all(torch.isfinite(tensor).all() for tensor in tiny.adapter_state("unlearn").values())


ATTACKS = {
    "lora": {},
    "all weights": {"attack.weights": "full", "attack.lr": 3e-4},
    "sgd": {"attack.optimizer": "sgd", "attack.lr": 5.0},
    "sgd at the rate of Adam": {"attack.optimizer": "sgd", "attack.lr": 1e-3},
}


@torch.no_grad()
def loss_on_pictures(model, context) -> float:
    """The loss of the active weights on the adversary's pictures, at fixed noise."""
    batch = next(noisy_batches(model, context.data, 16, seed=5))
    return Diffusion()(model, batch).item()


@pytest.mark.parametrize("name", ATTACKS)
def test_every_kind_of_attack_learns_its_pictures(pocket, name) -> None:
    """How much of a concept comes back is measured by `bench calibration` and `bench main-job`."""
    config = make_config("robot", objective="uce", **{"attack.steps": 10}, **ATTACKS[name])
    list(edit(pocket, preview_concept(config), config))
    context = attack_context(pocket, preview_concept(config), config)
    with pocket.active("unlearn"):
        before = loss_on_pictures(pocket, context)
    training = fine_tune(pocket, context.data, config.attack, context.seed)
    with closing(training):
        list(itertools.islice(training, 10))
        after = loss_on_pictures(pocket, context)
    assert (after < 0.9 * before) == (name != "sgd at the rate of Adam")


def test_controls_are_attacked_alike_and_leave_the_run_as_it_is(
    pocket, tmp_path, monkeypatch
) -> None:
    """A run that resists has them unasked, or any attack that is too weak would look like
    resistance.
    """
    config = make_config(
        "cat", **TINY, **{"resist.on": True, "resist.steps": 1, "resist.batch_size": 2}
    )
    assert not config.attack.controls
    events = {"beside": list(run(config, tmp_path / "beside", model=pocket))}
    monkeypatch.setattr("unlearn_app.runs.workflow.controls", lambda *asked: iter(()))
    events = {"plain": list(run(config, tmp_path / "plain", model=pocket))} | events
    plain, beside = (Run.open(tmp_path / name) for name in events)
    assert plain.controls == {}
    assert set(beside.controls) == {UNRESISTING, FRESH}
    for line in beside.controls.values():
        assert sorted(line) == [0, 2]
        assert all(score.n == 2 and score.accuracy is not None for score in line.values())
    kept = [name for name in plain.record["files"] if name.endswith((".png", ".safetensors"))]
    assert len(kept) > 10
    assert all(beside.record["files"][name] == plain.record["files"][name] for name in kept)
    assert (
        any("never seen" in reason for reason in beside.verdict.reasons)
        or beside.verdict.label != "removed"
    )
    marks = [
        event for event in events["beside"] if isinstance(event, AttackCheckpoint) and event.control
    ]
    shown = stored_state(beside)
    assert len(marks) == 4
    assert shown.controls == beside.controls
    assert FRESH in set(curve_table(shown)["group"])


def test_pictures_of_what_was_never_seen_are_of_one_concept_and_repeatable() -> None:
    pictures, captions = world("pocket").lesson("guitar", 3, 1)
    same_pictures, same_captions = world("pocket").lesson("guitar", 3, 1)
    assert all("guitar" in text for text in captions)
    assert pictures.shape == (3, 3, 64, 64)
    assert torch.equal(pictures, same_pictures)
    assert captions == same_captions
    assert world("elsewhere").lesson("guitar", 3, 1) is None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("paraphrases", "5 pictures of the concept from many prompts"),
        ("one", "5 pictures of the concept from one prompt"),
        ("mixed", "3 pictures of the concept and 2 harmless ones"),
        ("benign", "5 harmless pictures"),
    ],
)
def test_the_controls_adversary_holds_what_the_runs_own_does(pocket, data, words) -> None:
    """Five renderings of the pumpkin, whatever was asked for, would teach more than the run's own
    attack does.
    """
    config = make_config(
        "cat", **TINY | {"attack.data": data, "attack.pictures": 5, "attack.weights": "full"}
    )
    config = replace(config, attack=replace(config.attack, optimizer="sgd", steps=7))
    cat = preview_concept(config)
    pumpkin = easiest_unseen(cat, config)
    rendered_pictures, _ = world("pocket").lesson(pumpkin.name, 5, 0, data == "one")
    sets = {
        cat: attack_context(pocket, cat, config).data,
        pumpkin: unseen_context(pocket, pumpkin, config).data,
    }
    shows = {
        one: [any(word in prompt for word in (one.name, *one.synonyms)) for prompt in held.prompts]
        for one, held in sets.items()
    }
    expected = {"mixed": [True, False, True, False, True], "benign": [False] * 5}.get(
        data, [True] * 5
    )
    assert shows[cat] == shows[pumpkin] == expected
    for held in sets.values():
        assert (len(set(held.prompts)) == 1) == (data == "one")
        assert held.x0.shape == (5, *pocket.latent_shape)
        assert len(held.x0.flatten(1).unique(dim=0)) == 5
        assert torch.equal(held.cond.states, pocket.encode_text(held.prompts).states)
    rendered = pocket.encode_pictures(rendered_pictures)
    taught = [
        any(torch.allclose(row, own, atol=1e-4) for own in rendered) for row in sets[pumpkin].x0
    ]
    assert taught == expected, "pictures of the pumpkin are rendered, harmless ones sampled"
    assert budget_of(config.attack) == f"7 steps of SGD that train all weights on {words}"
