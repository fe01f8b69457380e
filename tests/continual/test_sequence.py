"""Requests in a row on a small random model: what each regime trains on, what is kept, and what
stopping leaves.
"""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from small_runs import TINY

from unlearn_app.cli import continual as continual_commands
from unlearn_app.cli import main as cli
from unlearn_app.common.errors import Cancelled, ConfigError, OutputError
from unlearn_app.common.json_values import to_json
from unlearn_app.concepts.catalog import preview_concept
from unlearn_app.concepts.concept import Prompt
from unlearn_app.continual import panel, sequence
from unlearn_app.continual.events import Added
from unlearn_app.continual.ledger import Ledger
from unlearn_app.continual.metrics import request_metrics
from unlearn_app.continual.sequence import add_original, append, new_ledger, postpone, run_request
from unlearn_app.continual.sequence_data import drop_retain_prompts
from unlearn_app.methods.closed_form.tokens import edited_tokens
from unlearn_app.methods.merging.ties import Ties
from unlearn_app.methods.regularizers import RegularizedRun, subspace_projection
from unlearn_app.methods.regularizers.subspace_projection import (
    SubspaceProjection,
    residual_energy,
    span_of,
)
from unlearn_app.models import catalog
from unlearn_app.models.lora import as_adapter, dense, sum_adapters
from unlearn_app.models.sizes import picture_shape
from unlearn_app.settings.events import PanelProgress, Stage, Step
from unlearn_app.settings.presets import REGULARIZATION_PRESETS, request_settings
from unlearn_app.settings.run_config import config_from_dict, make_config, make_plan, with_concept
from unlearn_app.training.latent_dataset import CachedSampler

NAMES = ("cat", "dog", "horse")


@pytest.fixture(scope="module")
def model(tiny_model: Any) -> Any:
    return tiny_model


def ledger_of(
    folder: Path, pipeline: Path, *concepts: str, plan: dict | None = None, model=None, **changes
) -> Ledger:
    config = make_config("cat", model=str(pipeline), **(TINY | changes))
    made = Ledger.create(folder, config, make_plan(**{"pictures": 1} | (plan or {})), NAMES)
    list(add_original(made, model, None))
    for concept in concepts:
        list(append(made, concept, model, None))
    return made


def close(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(
        torch.allclose(one[n], other[n], rtol=1e-4, atol=1e-6) for n in one
    )


def test_each_request_adds_its_own_update(model, tiny_pipeline, tmp_path) -> None:
    made = ledger_of(tmp_path / "ledger", tiny_pipeline, "cat", "dog", model=model)
    one, two = (dense(made.adapter(number, own=True)) for number in (1, 2))
    assert close(dense(made.adapter(1)), one)
    assert close(dense(made.adapter(2)), {layer: one[layer] + two[layer] for layer in one})
    assert [row.concept for row in made.requests] == ["cat", "dog"]
    assert made.rows[2].drift > 0
    assert set(made.rows[0].panel) == set(NAMES)
    assert made.picture(2, "horse").exists()


def test_regimes_differ_in_what_the_second_request_starts_from(
    model, tiny_pipeline, tmp_path
) -> None:
    made = {
        regime: ledger_of(
            tmp_path / regime,
            tiny_pipeline,
            "cat",
            "dog",
            plan={"regime": regime, "rank": 32},
            model=model,
        )
        for regime in ("sequential", "independent", "simultaneous")
    }
    alone = ledger_of(tmp_path / "alone", tiny_pipeline, "dog", model=model)
    second = {regime: dense(ledger.adapter(2, own=True)) for regime, ledger in made.items()}
    assert close(second["independent"], dense(alone.adapter(1, own=True)))
    assert not close(second["sequential"], second["independent"])
    assert close(second["simultaneous"], dense(made["simultaneous"].adapter(2)))
    assert [row.steps for row in made["simultaneous"].requests] == [
        3,
        6,
    ], "the budget grows with the concepts"
    assert [row.steps for row in made["sequential"].requests] == [3, 3]
    states = [made["independent"].adapter(number, own=True) for number in (1, 2)]
    expected = as_adapter(Ties(2.5, 0.4)([dense(s) for s in states]), 32)
    assert close(dense(made["independent"].adapter(2)), dense(expected.state))
    assert f"{expected.error:.1%}" in made["independent"].rows[2].notes[0]


def test_a_span_protected_by_every_request_is_kept_by_their_sum(
    model, tiny_pipeline, tmp_path, monkeypatch
) -> None:
    """Sequences add up, merges are projected again; without projection it is not kept."""
    basis = span_of(torch.randn(5, 32, generator=torch.Generator().manual_seed(0)))
    monkeypatch.setattr(subspace_projection, "protected_span", lambda *_: (basis, 1.0))
    keys_values = {"unlearn.modules": "keys_values"}
    held = keys_values | {"regularize.project": "exact"}
    cases = {
        "kept": ({}, held),
        "merged": ({"regime": "independent"}, held),
        "free": ({}, keys_values),
    }
    leaks = {}

    def leak(made: Ledger) -> float:
        return max(
            ((update @ basis).norm() / update.norm()).item()
            for update in dense(made.adapter(2)).values()
        )

    for name, (plan, changes) in cases.items():
        made = ledger_of(
            tmp_path / name, tiny_pipeline, "cat", "dog", plan=plan, model=model, **changes
        )
        leaks[name] = leak(made)
    made = ledger_of(
        tmp_path / "own",
        tiny_pipeline,
        plan={"regime": "independent"},
        model=model,
        **keys_values,
    )
    own = config_from_dict(to_json(made.config), **{"regularize.project": "exact"})
    for concept in ("cat", "dog"):
        list(append(made, concept, model, None, config=own))
    leaks["own settings"] = leak(made)
    assert max(leaks["kept"], leaks["merged"], leaks["own settings"]) < 1e-5, leaks
    assert leaks["free"] > 1e-2, leaks


def test_a_request_tells_how_much_of_its_panel_is_generated(model, tiny_pipeline, tmp_path) -> None:
    made = ledger_of(tmp_path / "ledger", tiny_pipeline, model=model)
    told = list(append(made, "cat", model, None))
    assert [type(event) for event in told] == [
        Stage,
        *[Step] * 3,
        Stage,
        *[PanelProgress] * 3,
        Added,
    ]
    progress = [event for event in told if isinstance(event, PanelProgress)]
    assert [(event.done, event.total) for event in progress] == [(1, 3), (2, 3), (3, 3)]
    assert {event.name for event in progress} == {*made.names}


def test_what_is_erased_and_its_relatives_are_generated_first(
    model, tiny_pipeline, tmp_path
) -> None:
    made = ledger_of(tmp_path / "ledger", tiny_pipeline, model=model)
    told = list(append(made, made.names[-1], model, None))
    shown = [event for event in told if isinstance(event, PanelProgress)]
    order = [event.name for event in shown]
    near = preview_concept(with_concept(made.config, made.names[-1])).near.test
    relatives = {prompt.expects for prompt in near} & {*made.names}
    assert order[0] == made.names[-1] != made.names[0]
    assert relatives
    assert {*order[1 : 1 + len(relatives)]} == relatives
    assert len(order) > 1 + len(relatives)
    assert [*told[-1].request.panel] == [*made.names], "the ledger keeps its own order"
    for event in shown:
        with Image.open(made.picture(1, event.name)) as stored:
            assert stored.tobytes() == event.image.tobytes(), "what is shown is what is stored"


def test_a_request_may_bring_settings_of_its_own(model, tiny_pipeline, tmp_path) -> None:
    made = ledger_of(tmp_path / "ledger", tiny_pipeline, "cat", model=model)
    own = config_from_dict(to_json(made.config), **{"unlearn.steps": 5, "unlearn.rank": 2})
    list(append(made, "dog", model, None, config=own))
    list(append(made, "horse", model, None))
    again = Ledger.open(made.folder)
    assert (
        [row.steps for row in again.requests]
        == [row.config.unlearn.steps for row in again.requests]
        == [3, 5, 3]
    )
    assert [(row.config.concept, row.config.anchor) for row in again.requests] == [
        (row.concept, row.anchor) for row in again.requests
    ]
    assert again.rows[0].config is None
    assert again.config == made.config
    ranks = [next(iter(again.adapter(number, own=True).values())).shape[0] for number in (1, 2, 3)]
    assert ranks[1] == 2 < ranks[0] == ranks[2]


def test_serving_begins_a_ledger_and_adds_to_it(model, tiny_pipeline, tmp_path) -> None:
    """As long as nothing was asked for, other settings begin it anew; afterwards those of the first
    request hold.
    """
    folder, plan = tmp_path / "ledger", make_plan(pictures=1)
    three, five = (
        make_config("cat", model=str(tiny_pipeline), **TINY | {"unlearn.steps": n}) for n in (3, 5)
    )
    assert sum(isinstance(event, Added) for event in run_request(three, plan, folder, model)) == 2
    assert (
        sum(
            isinstance(event, Added)
            for event in run_request(with_concept(five, "dog"), plan, folder, model)
        )
        == 1
    )
    ledger = Ledger.open(folder)
    assert [(row.concept, row.steps) for row in ledger.requests] == [("cat", 3), ("dog", 3)]
    ledger.rollback(0)
    list(run_request(five, plan, folder, model))
    assert [(row.concept, row.steps) for row in Ledger.open(folder).requests] == [("cat", 5)]


def test_a_request_that_does_not_fit_the_disk_is_refused_before_it_is_trained(
    model, tiny_pipeline, tmp_path, monkeypatch
) -> None:
    made = ledger_of(tmp_path / "ledger", tiny_pipeline, model=model)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: (10**9, 10**9, 100))
    with pytest.raises(OutputError, match=r"0\.0 MB free"):
        list(run_request(made.config, made.plan, made.folder, model))


@pytest.mark.parametrize("asked", [0, 60])
def test_a_stopped_first_request_with_other_settings_brings_the_former_ledger_back(
    model, tiny_pipeline, tmp_path, asked: int
) -> None:
    made, looks = ledger_of(tmp_path / "ledger", tiny_pipeline, "cat", model=model), iter(range(99))
    made.rollback(0)
    before = Ledger.open(made.folder)
    other = replace(made.config, seed=7)
    with pytest.raises(Cancelled):
        list(run_request(other, made.plan, made.folder, model, lambda: next(looks) >= asked))
    assert replace(Ledger.open(made.folder), unlisted=[]) == before
    made.undo_rollback()
    assert [row.concept for row in Ledger.open(made.folder).requests] == ["cat"]
    assert not [path for path in made.folder.iterdir() if "replaced" in path.name]


def test_a_kill_in_the_first_request_with_other_settings_loses_nothing(
    model, tiny_pipeline, tmp_path
) -> None:
    made = ledger_of(tmp_path / "ledger", tiny_pipeline, "cat", model=model)
    made.rollback(0)
    other, killed = replace(made.config, seed=7), tmp_path / "killed"
    for event in run_request(other, made.plan, made.folder, model):
        if isinstance(event, Added) and not event.request.concept:
            shutil.copytree(made.folder, killed, ignore=shutil.ignore_patterns(".lock"))
    assert Ledger.open(killed).config.seed == 7, "the kill is after the first pictures"
    Ledger.open(killed).undo_rollback()
    assert [row.concept for row in Ledger.open(killed).requests] == ["cat"]
    assert [row.concept for row in Ledger.open(made.folder).requests] == ["cat"]
    assert Ledger.open(made.folder).config.seed == 7


def test_a_stop_leaves_the_ledger_as_it_was(model, tiny_pipeline, tmp_path) -> None:
    made = ledger_of(tmp_path / "ledger", tiny_pipeline, "cat", model=model)
    rows, asked = list(made.rows), 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 3

    with pytest.raises(Cancelled):
        list(append(made, "dog", model, None, stop))
    assert Ledger.open(made.folder).rows == rows
    assert isinstance(list(append(made, "dog", model, None))[-1], Added)


def test_two_who_opened_the_same_ledger_lose_nothing(model, tiny_pipeline, tmp_path) -> None:
    made = ledger_of(tmp_path / "ledger", tiny_pipeline, "cat", model=model)
    other = Ledger.open(made.folder)
    list(append(made, "dog", model, None))
    list(append(other, "horse", model, None))
    again = Ledger.open(made.folder)
    assert [row.concept for row in again.requests] == ["cat", "dog", "horse"]
    one, two = (dense(again.adapter(2)), dense(again.adapter(3, own=True)))
    assert close(dense(again.adapter(3)), {layer: one[layer] + two[layer] for layer in one})


def test_a_request_holds_the_ledger_until_its_row_is_there(model, tiny_pipeline, tmp_path) -> None:
    made = ledger_of(tmp_path / "ledger", tiny_pipeline, model=model)
    events = append(made, "cat", model, None)
    next(events)
    with pytest.raises(OutputError, match="is being changed by process"):
        next(append(Ledger.open(made.folder), "dog", model, None))
    assert isinstance([*events][-1], Added)
    list(append(Ledger.open(made.folder), "dog", model, None))


def test_the_panel_keeps_the_prompts_it_began_with(
    model, tiny_pipeline, tmp_path, monkeypatch
) -> None:
    made = ledger_of(tmp_path / "ledger", tiny_pipeline, model=model)
    asked = panel.panel_prompts(made)
    monkeypatch.setitem(panel.PANEL_SEEDS, "test", 7)
    again = Ledger.open(made.folder)
    assert panel.panel_prompts(again) == again.prompts == asked
    list(append(again, "tower", model, None))
    assert Ledger.open(made.folder).prompts == {**asked, "tower": again.prompts["tower"]}


@pytest.mark.parametrize(
    ("concept", "said"), [("cat", "already"), ("Cat", "“cat” is in"), ("", "empty")]
)
def test_what_cannot_be_asked_is_said(model, tiny_pipeline, tmp_path, concept, said) -> None:
    made = ledger_of(tmp_path / "ledger", tiny_pipeline, "cat", model=model)
    with pytest.raises(ConfigError, match=said):
        list(append(made, concept, model, None))
    assert len(made.requests) == 1


def test_something_new_joins_the_panel_as_if_it_had_been_there(
    model, tiny_pipeline, tmp_path
) -> None:
    made = ledger_of(tmp_path / "ledger", tiny_pipeline, "cat", "tower", model=model)
    assert made.names == (*NAMES, "tower")
    assert all("tower" in row.panel for row in made.rows)
    config = make_config("cat", model=str(tiny_pipeline), **TINY)
    other = Ledger.create(tmp_path / "other", config, make_plan(pictures=1), (*NAMES, "tower"))
    list(add_original(other, model, None))
    for name in ("cat", "tower"):
        list(append(other, name, model, None))
    for number in range(3):
        assert (
            made.picture(number, "tower").read_bytes()
            == other.picture(number, "tower").read_bytes()
        )


def test_a_ledger_of_an_unknown_model_tests_relatives_others_and_the_other_kind(
    tiny_pipeline, tmp_path
) -> None:
    for text, kind in (("cat", "object"), ("van gogh", "style")):
        config = make_config(text, model=str(tiny_pipeline))
        made = new_ledger(tmp_path / text, config, make_plan(), [text])
        panel = [preview_concept(with_concept(config, name)) for name in made.names]
        assert [concept.name for concept in panel] == list(made.names)
        assert made.names[-1] == text
        assert [concept.kind for concept in panel].count(kind) == len(panel) - 2 == 9


class Judge:
    """Sees a cat in every picture, in the style of the picture's first value."""

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        return torch.zeros(len(images))

    def classes(self, axis: str) -> list[str]:
        return {"object": ["dog", "cat"], "style": ["mosaic", "neon"]}[axis]

    def classify(self, images: torch.Tensor, axis: str) -> torch.Tensor:
        row = images[:, 0, 0, 0].long() if axis == "style" else torch.ones(len(images)).long()
        return torch.eye(2)[row]


def test_what_else_a_prompt_names_is_judged_in_its_own_picture() -> None:
    """A prompt that names nothing of the other kind has no say, and does not shift the others."""
    asked = [
        ("a cat at night in neon style", "object"),
        ("a cat in a room", "object"),
        ("a cat at night in neon style", "object"),
        ("a dog in a field in mosaic style", "style"),
        ("a cat in a field in mosaic style", "style"),
    ]
    images = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0]).view(5, 1, 1, 1).expand(5, 3, 4, 4)
    others = panel.other_kind(make_config("cat"), [Prompt(text, axis, "") for text, axis in asked])
    assert [other.expects if other else "" for other in others] == [
        "neon",
        "",
        "neon",
        "dog",
        "cat",
    ]
    assert panel._right(images, others, Judge()) == [True, None, False, False, True]
    assert panel._right(images, others, None) == [None] * 5


def test_the_judge_of_a_ledger_knows_what_was_erased_before(
    tiny_pipeline, tmp_path, monkeypatch
) -> None:
    made = Ledger.create(
        tmp_path / "ledger",
        make_config("cat", model=str(tiny_pipeline)),
        make_plan(),
        ("cat", "dog"),
    )
    loaded = (torch.nn.Identity(), None, "clip", "")
    monkeypatch.setattr("unlearn_app.evaluation.judges.clip.is_cached", lambda _: True)
    monkeypatch.setattr("unlearn_app.evaluation.judges.clip.load_pretrained", lambda *_: loaded)
    assert {"cat", "dog", "tower"} <= set(sequence.load_judge(made, ["tower"]).classes("object"))


@pytest.mark.parametrize("method", ["uce", "erasediff", "esd"])
def test_any_method_serves_a_second_request(model, tiny_pipeline, tmp_path, method) -> None:
    made = ledger_of(
        tmp_path / "ledger", tiny_pipeline, "cat", "dog", objective=method, model=model
    )
    one, two = (dense(made.adapter(number)) for number in (1, 2))
    assert any(not torch.allclose(one[layer], two[layer]) for layer in one)
    state = sum_adapters(made.adapter(1, own=True), made.adapter(2, own=True)).state
    assert close(dense(made.adapter(2)), dense(state))


@pytest.mark.parametrize(
    "changes",
    [
        {"regularize.decay": 1.0},
        {"regularize.clip": 1e-9},
        {"regularize.l1": 1e-3},
        {"regularize.l2": 1.0, "regularize.reference": "original"},
        {"regularize.select": 0.3},
        {"regularize.select": 0.3, "unlearn.modules": "keys_values", "regularize.project": "exact",
         "regularize.energy": 0.5},
    ],
)  # fmt: skip
def test_every_regularizer_changes_the_update(model, tiny_pipeline, tmp_path, changes) -> None:
    plain = {name: value for name, value in changes.items() if name == "unlearn.modules"}
    quick = {"unlearn.lr": 2e-3}  # at a real model's rate three steps hardly change anything
    free, held = (
        ledger_of(tmp_path / name, tiny_pipeline, "cat", "dog", model=model, **own, **quick)
        for name, own in (("free", plain), ("held", changes))
    )
    assert not close(dense(free.adapter(2)), dense(held.adapter(2)))
    if "regularize.select" in changes:
        rows = torch.cat(
            [(update.abs().sum(1) > 0).double() for update in dense(held.adapter(1)).values()]
        )
        assert rows.mean().item() == pytest.approx(0.3, abs=0.05)


def test_a_projection_that_leaves_nothing_is_refused(model, tiny_pipeline, tmp_path) -> None:
    changes = {
        "unlearn.modules": "keys_values",
        "regularize.project": "exact",
        "regularize.energy": 1.0,
    }
    with pytest.raises(ConfigError, match=r"leaves 0.* regularize.energy below 1 is accepted"):
        ledger_of(tmp_path / "ledger", tiny_pipeline, "cat", model=model, **changes)
    with pytest.raises(ConfigError, match=r"keys_values is accepted, or regularize.project=none"):
        make_config("cat", **{"regularize.project": "exact"})


def test_what_a_projection_protects_is_hardly_read_differently(model, tiny_pipeline) -> None:
    """Not a made-up basis but that of a second request; without the erased one in it, that would be
    read anew.
    """
    config = make_config("cat", model=str(tiny_pipeline), **TINY)
    cat, dog = (preview_concept(with_concept(config, name)) for name in ("cat", "dog"))
    lesson = drop_retain_prompts(cat, [dog])
    erased = subspace_projection.read_states(model, [p.text for p in dog.forget.train[:4]])
    protected = torch.cat([model.encode_text([""]).states[0].float(), erased]).double()
    run = RegularizedRun(model, lesson, lambda: edited_tokens(model, lesson)[0], [dog])
    basis, left = subspace_projection.protected_span(run, 0.9)
    assert left == pytest.approx(
        residual_energy(basis, edited_tokens(model, lesson)[0]).mean().item()
    )
    assert residual_energy(basis, protected).mean() < 0.15
    params = model.reset_adapter("unlearn", 4, 4.0, 0, "keys_values")
    layers, leaks = tuple(model.cross_weights()), {}
    held = SubspaceProjection("exact", basis=basis, layers=layers)
    for name in ("free", "held"):
        for row, tensor in enumerate(params.values()):
            tensor.data = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(row))
        if name == "held":
            held.project_(params)
        update = next(iter(dense(model.adapter_state("unlearn")).values()))
        leaks[name] = (
            (update @ (protected @ basis @ basis.T).T).norm() / (update.norm() * protected.norm())
        ).item()
    assert leaks["held"] < 1e-6 < 1e-2 < leaks["free"], leaks


def test_how_much_a_projection_left_stands_in_the_row(model, tiny_pipeline, tmp_path) -> None:
    held = {
        "unlearn.modules": "keys_values",
        "regularize.project": "exact",
        "regularize.energy": 0.5,
    }
    made = ledger_of(tmp_path / "ledger", tiny_pipeline, "cat", model=model, **held)
    assert re.fullmatch(
        r"The projection held \d+ of 32 directions and left \d+\.\d% of .*", made.rows[1].notes[0]
    )


def test_a_postponed_request_is_served_with_the_next(model, tiny_pipeline, tmp_path) -> None:
    """What nobody tested has no share; its relapse counts from the first time that it was tested as
    erased.
    """
    made = ledger_of(
        tmp_path / "ledger", tiny_pipeline, "cat", plan={"regime": "simultaneous"}, model=model
    )
    postpone(made, "dog")
    list(append(made, "horse", model, None))
    again = Ledger.open(made.folder)
    assert [row.steps for row in again.requests] == [3, 0, 9]
    assert not again.rows[2].panel
    assert close(dense(again.adapter(2)), dense(again.adapter(1)))
    assert not close(dense(again.adapter(3)), dense(again.adapter(1)))
    assert [found.ua for found in request_metrics(again.rows)] == [None] * 3


def test_training_pictures_that_arms_share_are_sampled_once_and_timed_for_each(
    model,
) -> None:
    sampler, how = CachedSampler(), {"sampling_steps": 2, "guidance_scale": 3.0}
    first = sampler(model, ["a cat"], None, [1], **how)
    assert sampler.spared == 0
    assert sampler(model, ["a cat"], None, [1], **how) is first
    assert sampler.spared > 0
    spared = sampler.spared
    for prompts, anchors, seed, guidance in (
        (["a dog"], None, 1, 3.0),
        (["a cat"], ["a dog"], 1, 3.0),
        (["a cat"], None, 2, 3.0),
        (["a cat"], None, 1, 4.0),
    ):
        assert (
            sampler(model, prompts, anchors, [seed], sampling_steps=2, guidance_scale=guidance)
            is not first
        )
    assert sampler.spared == spared


def test_a_ledger_is_not_continued_with_another_model(model, tiny_pipeline, tmp_path) -> None:
    made = ledger_of(tmp_path / "ledger", tiny_pipeline, "cat", model=model)
    opened = Ledger.open(made.folder)
    assert opened.base == model.base_hash
    with opened.locked():
        opened.base = "another"
        opened.rollback(1)
    with pytest.raises(OutputError, match="of another"):
        list(append(opened, "dog", model, None))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "no --concepts"),
        (("--concepts", "cat"), "no --out"),
        (("--concepts", "cat,", "--out", "x"), "concept is empty"),
        (("--concepts", "cat,zebra", "--out", "x"), "does not know"),
        (("--concepts", "cat,dog,kitty", "--out", "x"), "“cat” more than once"),
        (("--concepts", "cat", "--out", "x", "--set", "sequence.regime=never"), "sequence.regime"),
        (("--concepts", "cat", "--out", "x", "--set", "sequence.nothing=1"), "sequence.nothing"),
        (("--concepts", "cat", "--out", "x", "--set", "nothing=1"), "knows no"),
        (
            ("--concepts", "cat", "--out", "x", "--objective", "uce", "--set", "regularize.l2=1"),
            "regularize.l2",
        ),
        (
            ("--concepts", "cat", "--out", "x", "--hold", "tight"),
            "nothing, l1, l2, selective, projection, projection+l2",
        ),
        (
            ("--concepts", "cat", "--out", "x", "--hold", "l2", "--objective", "uce"),
            "regularize.l2",
        ),
        (("show", "nowhere"), "no readable ledger"),
        (("rollback", "nowhere", "x"), "no readable ledger"),
        (("export", "nowhere", "x.safetensors"), "no readable ledger"),
    ],
)
def test_the_command_line_answers_in_a_sentence(monkeypatch, capsys, tmp_path, words, said) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["unlearn_app", "continual", *words])
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    assert leaving.value.code == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir()), "nothing is left behind"


@pytest.mark.parametrize("place", [(catalog, "load_model"), (sequence, "evaluate_panel")])
def test_a_ledger_without_pictures_does_not_block_the_same_command(
    monkeypatch, capsys, tmp_path, model, place
) -> None:
    """Ctrl-C while the model loads or while the first pictures are made leaves nothing."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(catalog, "load_model", lambda name: model)
    monkeypatch.setattr(*place, interrupted)
    words = ["continual", "--concepts", "cat", "--out", str(tmp_path / "ledger")]
    monkeypatch.setattr("sys.argv", ["unlearn_app", *words])
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().err.strip().endswith("Stopped.")
    assert not (tmp_path / "ledger").exists()


def test_a_ledger_that_a_kill_left_without_rows_is_begun_again(
    monkeypatch, capsys, model, tmp_path
) -> None:
    """One of other settings, one whose rows come back, and one that is being begun are none."""
    out = tmp_path / "ledger"

    def begin(*words: str) -> str:
        asked = ["continual", "--concepts", "cat", "--out", str(out), *words]
        monkeypatch.setattr("sys.argv", ["unlearn_app", *asked])
        with pytest.raises(SystemExit):
            cli.main()
        return capsys.readouterr().err

    served = []
    with monkeypatch.context() as killed:
        killed.setattr(continual_commands, "_serve", lambda *asked: served.append(asked))
        assert begin() == begin() == ""
        assert len(served) == 2
        for words in (("--seed", "1"), ("--keep", "fog"), ("--set", "sequence.pictures=2")):
            assert "exists already" in begin(*words)
        assert len(served) == 2
    begun = Ledger.open(out)
    with begun.locked():
        assert "is being changed by process" in begin()
    assert (out / "ledger.json").is_file()
    (out / "ledger.replaced.json").write_bytes((out / "ledger.json").read_bytes())
    assert "exists already" in begin()


def test_the_room_for_a_ledger_is_that_of_its_own_resolution(
    monkeypatch, model, tiny_pipeline, tmp_path
) -> None:
    asked = []
    monkeypatch.setattr(sequence, "check_space", lambda place, needed: asked.append(needed))
    monkeypatch.setattr(sequence, "adapter_size", lambda *_: 0)
    config = make_config("cat", model=str(tiny_pipeline), **TINY)
    for number, factor in enumerate((1, 4)):
        pixels = factor * max(picture_shape(model))
        own = replace(config, compare=replace(config.compare, resolution=pixels))
        made = Ledger.create(tmp_path / str(number), own, make_plan(), NAMES)
        sequence.check_room(made, model, 1)
    assert asked[1] == 16 * asked[0]


def test_settings_win_over_the_regularization_preset(monkeypatch, tmp_path) -> None:
    made = []
    monkeypatch.setattr(
        continual_commands, "_serve", lambda ledger, names: made.append((ledger, names))
    )
    words = ["--concepts", "cat,neon", "--hold", "l2"]
    words += ["--set", "regularize.l2=7", "--set", "sequence.regime=independent"]
    monkeypatch.setattr(
        "sys.argv", ["unlearn_app", "continual", *words, "--out", str(tmp_path / "ledger")]
    )
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    (ledger, names), held = made[0], REGULARIZATION_PRESETS["l2"]
    assert leaving.value.code in (None, 0)
    assert names == ["cat", "neon"]
    assert ledger.plan.regime == "independent"
    assert (ledger.config.regularize.l2, ledger.config.unlearn.lr) == (7.0, held["unlearn.lr"])
    assert ledger.config.unlearn.modules == held["unlearn.modules"]


def test_a_request_with_other_settings_is_evaluated_like_the_rest(
    monkeypatch, capsys, model, tiny_pipeline, tmp_path
) -> None:
    made = ledger_of(tmp_path / "ledger", tiny_pipeline, "cat", model=model)
    asked = []
    monkeypatch.setattr(continual_commands, "_serve", lambda *arguments: asked.append(arguments))
    for name, code in (
        ("unlearn.steps=7", None),
        ("compare.sampling_steps=3", 2),
        ("unlearn.steps=x", 2),
    ):
        monkeypatch.setattr(
            "sys.argv", ["unlearn_app", "continual", "add", str(made.folder), "dog", "--set", name]
        )
        with pytest.raises(SystemExit) as leaving:
            cli.main()
        assert leaving.value.code in (code, code or 0), capsys.readouterr()
    ((ledger, names, config),) = asked
    assert ledger.rows == made.rows
    assert names == ["dog"]
    assert config.unlearn.steps == 7
    assert config.unlearn.rank == made.config.unlearn.rank
    assert "compare.sampling_steps" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "held"),
    [
        ((), "projection+l2"),
        (("--objective", "esd"), "projection+l2"),
        (("--objective", "uce"), "nothing"),
        (("--hold", "nothing"), "nothing"),
        (("--model", "SOMEWHERE"), "nothing"),
    ],
)
def test_the_tuned_regularization_is_the_default(
    monkeypatch, tiny_pipeline, tmp_path, words, held
) -> None:
    made = []
    monkeypatch.setattr(continual_commands, "_serve", lambda ledger, names: made.append(ledger))
    words = [str(tiny_pipeline) if word == "SOMEWHERE" else word for word in words]
    asked = ["continual", "--concepts", "cat", "--out", str(tmp_path / "ledger"), *words]
    monkeypatch.setattr("sys.argv", ["unlearn_app", *asked])
    with pytest.raises(SystemExit):
        cli.main()
    config = made[0].config
    assert config == make_config(
        "cat", objective=config.objective, model=config.model, **request_settings(held)
    )
    assert config.objective == ("concept_ablation" if "--objective" not in words else words[1])
