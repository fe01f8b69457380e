"""Forgetting from a concept and its settings: what is trained on what, and edits that need no
training.
"""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_runs import TINY

from unlearn_app.attacks.relearn import adversary_prompts
from unlearn_app.common import registry
from unlearn_app.common.errors import ConfigError, Diverged
from unlearn_app.common.json_values import to_json
from unlearn_app.concepts.catalog import preview_concept
from unlearn_app.concepts.own_prompts import read_prompts
from unlearn_app.methods.closed_form.tokens import edited_tokens
from unlearn_app.methods.objectives.sdd import SDD
from unlearn_app.runs.folder import Run
from unlearn_app.runs.workflow import run
from unlearn_app.settings.events import Stage
from unlearn_app.settings.groups import AttackConfig
from unlearn_app.settings.run_config import config_from_dict, make_config
from unlearn_app.training.unlearning import edit, retain_prompts, train, training_terms

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model(tiny_model: Any) -> Any:
    return tiny_model


@pytest.fixture
def asked(model, monkeypatch):
    """Every prompt that the model is asked to sample."""
    prompts, sample = [], model.sample

    def spy(texts, *args, **options):
        prompts.extend(texts)
        return sample(texts, *args, **options)

    monkeypatch.setattr(model, "sample", spy)
    return prompts


def steps_of(stored: Run) -> list[dict]:
    return [json.loads(line) for line in (stored.folder / "steps.jsonl").read_text().splitlines()]


def adapter_of(stored: Run) -> dict[str, torch.Tensor]:
    return load_file(stored.folder / "unlearn.safetensors")


def plan(folder: Path, **changes):
    config = make_config("cat", model=str(folder), **(TINY | changes))
    return config, preview_concept(config)


@pytest.mark.parametrize("method", registry.methods())
def test_every_method_makes_an_adapter_through_the_whole_run(
    model, tiny_pipeline, tmp_path, method
) -> None:
    config, _ = plan(tiny_pipeline, objective=method, **{"gradient_ascent.limit": 100})
    list(run(config, tmp_path / "run", model=model))
    stored = Run.open(tmp_path / "run")
    assert stored.config == config
    assert "unlearn.safetensors" in stored.record["files"]
    names = {name.partition(".")[0] for name, _ in stored.config.options}
    assert names <= {method, config.rule}
    with model.active(), torch.no_grad():
        x, t, cond = (
            torch.randn(1, *model.latent_shape),
            torch.tensor([300]),
            model.encode_text(["a cat"]),
        )
        base = model.predict(x, t, cond)
    with model.active("unlearn"), torch.no_grad():
        assert not torch.equal(model.predict(x, t, cond), base)


@pytest.mark.parametrize("method", registry.names("objective"))
def test_only_methods_that_copy_the_anchor_see_its_pictures(
    model, tiny_pipeline, asked, method
) -> None:
    config, concept = plan(tiny_pipeline, objective=method)
    terms = training_terms(model, concept, config, lambda: False)
    sampled = asked[-(config.unlearn.train_pictures // 2) :]  # after the pictures to keep
    copies = method in ("esd", "concept_ablation", "sdd")
    assert any(prompt in concept.anchors for prompt in sampled) == copies
    assert all(
        prompt in {p.text for p in concept.forget.train}
        for prompt in sampled[:: 2 if copies else 1]
    )
    kept = type(terms["retain"].objective).__name__
    assert kept == ("Diffusion" if method == "retain_only" else "Preserve")


def test_the_papers_retain_loss_can_be_chosen(model, tiny_pipeline) -> None:
    config, concept = plan(tiny_pipeline, **{"unlearn.retain_loss": "diffusion"})
    assert (
        type(training_terms(model, concept, config, lambda: False)["retain"].objective).__name__
        == "Diffusion"
    )


def test_nothing_is_kept_where_the_settings_ask_for_that(model, tiny_pipeline) -> None:
    config, concept = plan(tiny_pipeline, **{"unlearn.retain_loss": "none"})
    terms = training_terms(model, concept, config, lambda: False)
    assert [*terms] == ["forget"]
    steps = list(train(model, concept, terms, config))
    assert all(step.losses.keys() == {"forget"} for step in steps)
    assert model.adapter_state("unlearn")


def test_random_labels_are_retain_prompts(model, tiny_pipeline) -> None:
    config, concept = plan(tiny_pipeline, objective="random_label")
    batch = next(training_terms(model, concept, config, lambda: False)["forget"].batches)
    prompts = retain_prompts(concept, config.unlearn.train_pictures)
    states = model.encode_text(prompts).states
    for row in batch.anchor.states:
        assert any(torch.allclose(row, state, atol=1e-5) for state in states)


@pytest.mark.parametrize(("arm", "count"), [("diversified", 12), ("near", 12), ("uniform", 12)])
@pytest.mark.parametrize("name", ["cat", "van gogh"])
def test_arms_get_the_same_number_of_retain_pictures(name, arm, count) -> None:
    concept = preview_concept(make_config(name, **{"unlearn.retain": arm}))
    prompts = retain_prompts(concept, count)
    near = {p.text for p in concept.near.train}
    assert len(prompts) == count
    distinct = {"diversified": 12, "near": 12, "uniform": 1}[arm]
    assert len(set(prompts)) == distinct
    assert (set(prompts) <= near) == (arm != "diversified")


@pytest.mark.parametrize("name", ["cat", "knife", "van gogh", "neon"])
def test_forget_prompt_i_is_retain_prompt_i_with_the_concept_in_it(name) -> None:
    concept = preview_concept(make_config(name))
    words = {p.expects for split in (concept.near, concept.far) for p in split.train} | {
        concept.name,
        concept.anchor,
    }
    words = "|".join(sorted(map(re.escape, words), key=len, reverse=True))

    def frame(text: str) -> str:
        return re.sub(rf"\b(an? )?({words})\b", "X", text)

    rows = range(len(concept.forget.train))
    for split in (concept.near, concept.far):
        assert [frame(split.train[i].text) for i in rows] == [
            frame(concept.forget.train[i].text) for i in rows
        ]
    assert [frame(text) for text in concept.anchors] == [
        frame(p.text) for p in concept.forget.train
    ]


@pytest.mark.parametrize("method", registry.names("closed_form"))
def test_an_edit_is_exactly_the_solution_on_keys_and_values_alone(
    model, tiny_pipeline, method
) -> None:
    model.drop_adapters()
    config, concept = plan(tiny_pipeline, objective=method)
    weights = {name: weight.clone() for name, weight in model.cross_weights().items()}
    assert weights
    assert all(name.endswith((".attn2.to_k", ".attn2.to_v")) for name in weights)
    forget, anchor = edited_tokens(model, concept)
    retained = model.encode_text(retain_prompts(concept, 24)).states.flatten(0, 1)
    expected = config.build("closed_form")(weights, forget, anchor, retained)
    (step,) = edit(model, concept, config)
    assert step.losses["forget"] == pytest.approx(0.0, abs=1e-5)
    with model.merged("unlearn"):
        merged = model.cross_weights()
        for name, (a, b) in expected.items():
            torch.testing.assert_close(merged[name], weights[name] + b @ a, rtol=1e-3, atol=1e-5)
            assert not torch.allclose(merged[name], weights[name])
    assert all(torch.equal(model.cross_weights()[name], weight) for name, weight in weights.items())


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_an_edit_that_is_not_finite_names_its_settings(
    model, tiny_pipeline, monkeypatch, number
) -> None:
    def exploded(self, weights, *tokens):
        return {
            name: (torch.full((1, w.shape[1]), number), torch.ones(len(w), 1))
            for name, w in weights.items()
        }

    monkeypatch.setattr(registry.get("closed_form", "uce"), "__call__", exploded)
    config, concept = plan(tiny_pipeline, objective="uce")
    with pytest.raises(Diverged, match=r"diverged: the update of .*uce\.ridge=0\.1.* is accepted"):
        list(edit(model, concept, config))


@pytest.mark.parametrize("method", registry.names("closed_form"))
def test_a_truncated_edit_says_what_it_leaves_out(model, tiny_pipeline, tmp_path, method) -> None:
    config, _ = plan(tiny_pipeline, objective=method, **{f"{method}.rank": 1})
    said = [
        event.text
        for event in run(config, tmp_path / "run", model=model)
        if isinstance(event, Stage)
    ]
    stored = Run.open(tmp_path / "run")
    (lost,) = [line["losses"]["forget"] for line in steps_of(stored) if line["stage"] == "unlearn"]
    assert 0.0 < lost < 1.0
    assert any(f"leaves out {lost:.1%} of the edit" in text for text in said)
    assert {tensor.shape[0] for name, tensor in adapter_of(stored).items() if "lora_A" in name} == {
        1
    }


def test_edited_tokens_pair_the_concept_with_the_anchor(model, tiny_pipeline) -> None:
    _, concept = plan(tiny_pipeline)
    forget, anchor = edited_tokens(model, concept)
    assert forget.shape == anchor.shape
    assert len(forget) > 24
    assert not torch.allclose(forget, anchor)


def test_training_is_the_same_again(model, tiny_pipeline) -> None:
    states = []
    for _ in range(2):
        config, concept = plan(tiny_pipeline, objective="random_label")
        list(train(model, concept, training_terms(model, concept, config, lambda: False), config))
        states.append(model.adapter_state("unlearn"))
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_own_prompts_are_what_is_sampled(model, tiny_pipeline, asked) -> None:
    mine = "forget: my cat asleep\nretain: my dog asleep\n\nretain: a red chair\n"
    config, concept = plan(tiny_pipeline, prompts=mine, objective="gradient_ascent")
    training_terms(model, concept, config, lambda: False)
    assert set(asked) == {"my cat asleep", "my dog asleep", "a red chair"}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"unlearn.retain_weight": 0}, "0.001 to"),
        ({"unlearn.retain_weight": "nan"}, "a number"),
        ({"unlearn.modules": "some"}, "all, cross, keys_values, not_cross"),
        ({"unlearn.retain": "everything"}, "diversified, near, uniform"),
        ({"gradient_ascent.limit": -1, "objective": "gradient_ascent"}, "0.01 to 100"),
        ({"gradient_ascent.ceiling": 1}, "no setting"),
        ({"objective": "amnesia"}, "gradient_ascent"),
        ({"rule": "golden"}, "one_sided"),
    ],
)
def test_bad_settings_are_named(changes, sentence) -> None:
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        make_config("cat", **changes)


def test_own_prompts_travel_with_the_run(model, tiny_pipeline, tmp_path) -> None:
    config, _ = plan(tiny_pipeline, prompts="forget: my cat asleep\n\n retain: my dog asleep ")
    list(run(config, tmp_path / "run", model=model))
    stored = Run.open(tmp_path / "run")
    kept = tmp_path / "run" / "prompts.txt"
    assert kept.read_text() == "forget: my cat asleep\nretain: my dog asleep\n"
    assert "prompts.txt" in stored.record["files"]
    assert stored.config == config
    assert "--prompts prompts.txt" in stored.record["command"]
    assert make_config("cat", prompts=read_prompts(kept)).prompts == config.prompts
    with pytest.raises(ConfigError, match="20,000"):
        make_config("cat", prompts="forget: cat\n" * 2000)


RESIST = {"resist.on": True, "resist.batch_size": 2, "resist.cap": 100.0}
UNATTACKED = {"attack.steps": 0}
"""Where forgetting alone matters; a run that resists would also run its controls."""


@pytest.mark.parametrize("method", ["esd", "sdd", "concept_ablation", "gradient_ascent"])
@pytest.mark.parametrize("weights", ["full", "lora"])
def test_any_objective_can_resist(model, tiny_pipeline, tmp_path, method, weights) -> None:
    changes = UNATTACKED | RESIST | {"resist.weights": weights, "resist.related": 0.3}
    config, _ = plan(tiny_pipeline, objective=method, **changes)
    list(run(config, tmp_path / "run", model=model))
    lines = [line for line in steps_of(Run.open(tmp_path / "run")) if line["stage"] == "unlearn"]
    assert all(set(line["losses"]) == {"forget", "retain", "resist"} for line in lines)
    assert all(line["norms"]["resist"] > 0 for line in lines)


@pytest.mark.parametrize("rule", ["weighted_sum", "restricted"])
def test_a_meta_term_of_weight_zero_changes_nothing(model, tiny_pipeline, rule) -> None:
    """The base method's batches, noise and optimizer are untouched, bit for bit; a meta term with
    a weight changes the adapter.
    """
    states = []
    for changes in ({}, {**RESIST, "resist.forget": 0.0}, RESIST):
        config, concept = plan(tiny_pipeline, rule=rule, **{"unlearn.steps": 10}, **changes)
        list(train(model, concept, training_terms(model, concept, config, lambda: False), config))
        states.append(model.adapter_state("unlearn"))
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert any(not torch.equal(states[0][name], states[2][name]) for name in states[0])


def test_every_setting_of_resisting_reaches_the_meta_term(model, tiny_pipeline) -> None:
    """The released scripts give one weight three times and leave two at defaults ten times as
    large.
    """
    asked = {"forget": 0.1, "related": 0.2, "unrelated": 0.3, "weight": 0.4, "cap": 0.5, "lr": 0.6}
    typed = {f"resist.{name}": str(value) for name, value in asked.items()}
    config, concept = plan(tiny_pipeline, **RESIST | typed)
    term = training_terms(model, concept, config, lambda: False)["resist"]
    there = {name: getattr(term.objective, name) for name in asked if name != "weight"} | {
        "weight": term.weight
    }
    assert there == asked


@pytest.mark.parametrize("method", registry.names("closed_form"))
def test_an_edit_can_be_hardened_and_stays_one_adapter(
    model, tiny_pipeline, tmp_path, method
) -> None:
    list(
        run(
            plan(tiny_pipeline, objective=method, **UNATTACKED)[0],
            tmp_path / "edit",
            model=model,
        )
    )
    hard = plan(tiny_pipeline, objective=method, **UNATTACKED, **RESIST)[0]
    told = list(run(hard, tmp_path / "hard", model=model))
    edited, hardened = (Run.open(tmp_path / name) for name in ("edit", "hard"))
    lines = [line for line in steps_of(hardened) if line["stage"] == "unlearn"]
    fractions = [e.fraction for e in told if isinstance(e, Stage)]
    assert fractions == sorted(fractions)
    assert [set(line["losses"]) for line in lines] == [{"forget"}] + [{"retain", "resist"}] * 3

    def update(stored: Run, layer: str) -> torch.Tensor:
        state = adapter_of(stored)
        a, b = (state.get(f"unet.{layer}.lora_{part}.weight") for part in "AB")
        return torch.zeros(()) if a is None else b.flatten(1) @ a.flatten(1)

    cross = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    own = cross.replace("attn2", "attn1")
    assert update(edited, cross).any()
    assert not update(edited, own).any()
    assert update(hardened, own).any()
    moved = (update(hardened, cross) - update(edited, cross)).norm() / update(edited, cross).norm()
    assert 0 < moved < 0.5


def test_the_simulated_attack_and_its_evaluation_share_no_picture(model, tiny_pipeline) -> None:
    config, concept = plan(
        tiny_pipeline, **RESIST, **{"unlearn.train_pictures": 8, "resist.steps": 3}
    )
    batch = next(training_terms(model, concept, config, lambda: False)["resist"].batches)
    assert len(batch.support) == 3
    assert all(len(part.x0) == 2 for part in (*batch.support, batch.forget, batch.related))
    seen = [x0 for part in batch.support for x0 in part.x0]
    assert not any(torch.equal(mine, theirs) for mine in seen for theirs in batch.forget.x0)
    assert not torch.equal(batch.related.x0, batch.unrelated.x0)


def test_a_method_may_suggest_settings_and_the_user_has_the_last_word() -> None:
    assert (
        make_config("cat", objective="sdd").unlearn.lr
        == SDD.suggested["unlearn.lr"]
        != make_config("cat").unlearn.lr
    )
    assert make_config("cat", objective="sdd", **{"unlearn.lr": 1e-4}).unlearn.lr == 1e-4
    erased = make_config("cat", objective="erasediff")
    assert erased.rule == "barrier"
    assert dict(erased.options)["barrier.eta"] == 0.5
    assert make_config("cat", objective="erasediff", rule="restricted").rule == "restricted"
    for method in registry.methods():
        config = make_config("cat", objective=method)
        chosen = [] if method == "esd" else ["--objective", method]
        expected = [
            "python",
            "-m",
            "unlearn_app",
            "run",
            "--concept",
            "cat",
            *chosen,
            "--preset",
            "fast",
            "--out",
            "DIR",
        ]
        assert config.command().split() == expected
        assert config_from_dict(to_json(config)) == config


def test_hyperparameters_of_other_methods_are_left_out_of_the_record() -> None:
    config = make_config("cat", **{"esd.eta": 2, "gradient_ascent.limit": 5})
    assert dict(config.options) == {"esd.eta": 2.0}
    assert config.build("objective").eta == 2.0
    assert "--set esd.eta=2.0" in config.command()
    assert "limit" not in config.command()


NEW_METHOD = re.search(
    r"```python\n(\"\"\"Forgetting by.*?)```",
    (ROOT / "assets/docs/python.md").read_text(),
    re.DOTALL,
)
FOUND = """
import sys, json, blank
from unlearn_app.common import registry
from unlearn_app.settings.run_config import make_config
import gradio as gr
from unlearn_app.service.pace import Pace
from unlearn_app.web.options import Options, kind_choice
with gr.Blocks():
    options = Options(kind_choice(), Pace())
choices = [value for _, value in options.components["objective"].choices]
config = make_config("cat", objective="blank")
print(json.dumps([registry.methods(), choices, list(options.components), config.options]))
"""


@pytest.mark.slow
def test_a_method_in_one_file_is_found_by_command_line_page_and_parametrised_tests(
    tmp_path: Path,
) -> None:
    (tmp_path / "blank.py").write_text(NEW_METHOD.group(1))
    (tmp_path / "sitecustomize.py").write_text("import blank\n")
    env = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    asked = subprocess.run(
        [sys.executable, "-c", FOUND], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )
    names, choices, components, options = json.loads(asked.stdout.splitlines()[-1])
    assert "blank" in names
    assert "blank" in choices
    assert "blank.strength" in components
    assert options == [["blank.strength", 1.0]]
    words = [sys.executable, "-m", "unlearn_app", "methods"]
    listed = subprocess.run(
        words, cwd=ROOT, env=env, capture_output=True, text=True, check=True
    ).stdout
    assert "blank" in listed
    assert "strength=1.0" in listed


@pytest.mark.parametrize(
    ("data", "benign"), [("paraphrases", 0), ("one", 0), ("mixed", 4), ("benign", 8)]
)
@pytest.mark.parametrize("name", ["cat", "van gogh"])
def test_the_adversarys_pictures_are_what_it_asked_for_and_new_to_the_defender(
    name, data, benign
) -> None:
    concept = preview_concept(make_config(name))
    chosen = adversary_prompts(concept, AttackConfig(data=data, pictures=8))
    assert len(chosen) == 8
    assert sum(prompt.expects != concept.name for prompt in chosen) == benign
    assert (len({prompt.text for prompt in chosen}) == 1) == (data == "one")
    seen = {
        p.text
        for split in (concept.forget, concept.near, concept.far)
        for p in (*split.train, *split.test)
    }
    assert not seen & {prompt.text for prompt in chosen}


def test_harmless_pictures_need_harmless_prompts() -> None:
    concept = replace(preview_concept(make_config("cat")), benign=())
    with pytest.raises(ConfigError, match="paraphrases or one"):
        adversary_prompts(concept, AttackConfig(data="mixed"))


def test_a_method_advises_on_the_kind_it_speaks_of(model, tiny_pipeline, tmp_path) -> None:
    said = registry.advice("random_label", "style")
    assert "object" in said
    assert registry.advice("random_label", "object") == "" == registry.advice("amnesia", "style")
    for concept, count in (("cat", 0), ("Van Gogh style", 1)):
        config = make_config(concept, model=str(tiny_pipeline), objective="random_label", **TINY)
        events = list(run(config, tmp_path / concept, model=model))
        assert sum(isinstance(e, Stage) and e.text == said for e in events) == count
