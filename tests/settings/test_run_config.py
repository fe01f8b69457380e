"""Settings: what is accepted, what is refused in a sentence, and that a config survives JSON and
the command line.
"""

import itertools
import json
import shlex
from operator import attrgetter

import pytest

from unlearn_app.cli.console import assignments
from unlearn_app.common.errors import ConfigError
from unlearn_app.common.json_values import to_json
from unlearn_app.settings.groups import WEIGHTS
from unlearn_app.settings.presets import EQUAL_BUDGET, PRESETS
from unlearn_app.settings.run_config import (
    MAX_TEXT,
    RunConfig,
    clean_text,
    config_from_dict,
    make_config,
    make_plan,
    setting_names,
)


@pytest.mark.parametrize(
    "text", ["", "   ", None, "\n", "x" * 10_000, "a\x00b", "a\x1b[31m", "a\u202eb", "\ud800"]
)
def test_bad_texts_are_refused_in_one_sentence(text):
    with pytest.raises(ConfigError) as caught:
        make_config(text)
    assert caught.value.field == "concept"
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_texts_are_trimmed_and_blanks_joined():
    assert make_config("  van   gogh ").concept == "van gogh"
    assert clean_text("x" * MAX_TEXT, "concept") == "x" * MAX_TEXT


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("unlearn.steps", 0),
        ("unlearn.steps", 1.5),
        ("unlearn.steps", "many"),
        ("unlearn.lr", float("nan")),
        ("unlearn.lr", float("inf")),
        ("attack.rank", -1),
        ("compare.guidance_scale", "1e9"),
        ("compare.forget", True),
        ("resist.on", "maybe"),
        ("resist.on", 1),
        ("seed", -1),
        ("seed", 2**40),
        ("seed", None),
        ("preset", "quick"),
        ("objective", "nothing"),
        ("rule", "nothing"),
        ("unlearn.nothing", 1),
        ("nothing", 1),
        ("unlearn", 1),
    ],
)
def test_bad_values_name_their_field(name, value):
    with pytest.raises(ConfigError) as caught:
        make_config("cat", **{name: value})
    assert caught.value.field == name
    assert "\n" not in str(caught.value)


def test_anchor_equal_to_the_concept_is_refused_whatever_its_case():
    with pytest.raises(ConfigError, match="itself"):
        make_config("Cat", anchor=" cAT ")
    assert make_config("cat", anchor="  ").anchor is None


@pytest.mark.parametrize("preset", ["fast", "full"])
def test_config_survives_json(preset):
    config = make_config(
        "cat", preset=preset, anchor="dog", seed=3, **{"unlearn.lr": 2e-4, "attack.steps": 7}
    )
    assert config_from_dict(json.loads(json.dumps(to_json(config)))) == config
    with pytest.raises(ConfigError):
        config_from_dict(to_json(config) | {"surprise": 1})


def test_command_line_holds_every_change_and_nothing_else():
    assert (
        make_config("cat").command()
        == "python -m unlearn_app run --concept cat --preset fast --out DIR"
    )
    config = make_config("van gogh", rule="weighted_sum", preset="full", **{"compare.near": 5})
    words = shlex.split(config.command("x y"))
    assert words[words.index("--concept") + 1] == "van gogh"
    assert words[-1] == "x y"
    assert "--set" in words
    assert "compare.near=5" in words
    assert "weighted_sum" in words


@pytest.mark.parametrize("said", ["yes", "True", " true ", True])
def test_a_yes_survives_the_command_line(said):
    config = make_config("cat", **{"resist.on": said})
    words = shlex.split(config.command())
    assert config.resist.on is True
    assert "resist.on=yes" in words
    assert not make_config("cat", **{"resist.on": "no"}).resist.on
    assert "resist" not in make_config("cat").command()


def parsed(config: RunConfig) -> RunConfig:
    """The config that the command line makes of a config's own command."""
    words = shlex.split(config.command())
    pairs = dict(itertools.pairwise(words))
    names = {"--preset": "preset", "--objective": "objective", "--rule": "rule"}
    changes = {names[word]: value for word, value in pairs.items() if word in names}
    sets = [then for word, then in itertools.pairwise(words) if word == "--set"]
    return make_config(pairs["--concept"], **changes, **assignments(sets))


USUAL_LR = [make_config("cat", **{"unlearn.weights": name}).unlearn.lr for name in WEIGHTS]


@pytest.mark.parametrize("lr", [*USUAL_LR, 7e-4, None])
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("preset", PRESETS)
def test_the_command_of_a_run_makes_the_same_run(preset: str, weights: str, lr: float | None):
    """Also where the learning rate is the usual one of what is not trained."""
    own = {} if lr is None else {"unlearn.lr": lr}
    for concept in ("cat", "van gogh"):
        config = make_config(concept, preset=preset, **{"unlearn.weights": weights}, **own)
        assert parsed(config) == config


def test_every_setting_says_what_it_is():
    assert len(setting_names()) == len(set(setting_names())) > 10


@pytest.mark.parametrize(
    ("changes", "weight", "keep"),
    [
        ({}, 1.0, 0.8),
        ({"regime": "independent"}, 2.5, 0.4),
        ({"regime": "independent", "weight": 1.5}, 1.5, 0.4),
        ({"regime": "independent", "merge": "arithmetic"}, 1.0, 0.8),
    ],
)
def test_only_ties_is_weighted_as_many_updates_need(
    changes: dict, weight: float, keep: float
) -> None:
    plan = make_plan(**changes)
    assert (plan.weight, plan.keep) == (weight, keep)


@pytest.mark.parametrize("value", [5, [], {}, 0.5, True])
@pytest.mark.parametrize("name", ["concept", "anchor", "prompts", "model"])
def test_what_is_no_text_is_refused_where_one_is_wanted(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{name} is .*; a text is accepted") as refused:
        make_config(**{"concept": "cat"} | {name: value})
    assert refused.value.field == name


@pytest.mark.parametrize("value", [None, [], {}, 5])
@pytest.mark.parametrize("name", ["preset", "objective", "rule", "resist.on", "unlearn.modules"])
def test_nonsense_in_place_of_a_choice_is_refused(name: str, value: object) -> None:
    with pytest.raises(ConfigError) as refused:
        make_config("cat", **{name: value})
    assert refused.value.field == name


@pytest.mark.parametrize("concept", ["cat", "neon"])
@pytest.mark.parametrize("objective", ["esd", "sdd", "erasediff"])
def test_an_equal_budget_is_equal_whatever_a_world_has_tuned(concept: str, objective: str) -> None:
    own = make_config(concept, objective=objective, **EQUAL_BUDGET).unlearn
    usual = make_config("cat", objective="concept_ablation", **EQUAL_BUDGET).unlearn
    budget = attrgetter("steps", "batch_size", "pool", "train_pictures")
    assert budget(own) == budget(usual)
