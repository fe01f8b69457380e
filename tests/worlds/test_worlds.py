"""Worlds: chosen by the name of the model, and what each says of its concepts and judges."""

import json
import os
from pathlib import Path

import pytest

from unlearn_app.common import registry
from unlearn_app.common.errors import ConfigError, ModelError
from unlearn_app.common.paths import POCKET
from unlearn_app.concepts.catalog import known_concepts, tuning_prompts
from unlearn_app.models.catalog import load_model
from unlearn_app.models.diffusers import single_file
from unlearn_app.pocket.concepts import TEST_STYLES, kind_of
from unlearn_app.pocket.world.vocabulary import STYLES
from unlearn_app.settings.run_config import make_config
from unlearn_app.worlds import pocket_flow


@pytest.mark.parametrize("model", ["some/model", "/a/folder", "Pocket", "pocket2", "open"])
def test_a_model_without_a_world_of_its_own_is_in_the_open_one(model: str) -> None:
    world = registry.world(model)
    assert (type(world), world.model) == (registry.get("world", "open"), model)


@pytest.mark.parametrize("model", ["pocket", "pocket-flow"])
def test_a_bundled_model_is_in_the_world_of_its_name(model: str) -> None:
    assert type(registry.world(model)) is registry.get("world", model)


def test_a_world_has_its_own_judges_and_base_rates_or_none() -> None:
    assert registry.world("pocket").assets == POCKET
    assert registry.world("some/model").assets is None


def test_the_flow_transformer_shares_words_and_judges_but_no_settings_of_the_unet() -> None:
    flow, unet = registry.world("pocket-flow"), registry.world("pocket")
    assert flow.assets == unet.assets
    assert [entry.name for entry in flow.known_concepts()] == [
        entry.name for entry in unet.known_concepts()
    ]
    assert flow.unseen("object") == unet.unseen("object")
    assert make_config("cat", model="pocket-flow").anchor == make_config("cat").anchor
    compare = make_config("cat", model="pocket-flow", preset="full").compare
    assert (compare.sampling_steps, compare.guidance_scale) == (12, 3.0)
    assert flow.regularization_preset("concept_ablation") == "nothing"
    with pytest.raises(ConfigError, match="zorblax"):
        flow.concept("zorblax", None)


def test_a_flow_transformer_that_is_not_there_is_refused_with_the_way_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pocket_flow, "POCKET_FLOW", tmp_path / "assets" / "pocket-flow")
    with pytest.raises(ModelError, match=r"not in assets/pocket-flow.*pocket train --flow"):
        load_model("pocket-flow")


def test_a_name_that_no_file_can_have_is_left_to_loading() -> None:
    name = "a" * 300
    assert make_config("cat", model=name).model == name
    with pytest.raises(ModelError, match="cannot be read: File name too long"):
        load_model(name)


def test_a_single_file_is_read_once_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, file = [], tmp_path / "xl.safetensors"
    file.write_bytes(b"x")

    def check(path: Path) -> dict[str, dict[str, str]]:
        read.append(path)
        return {"model_index.json": {"_class_name": "StableDiffusionXLPipeline"}}

    monkeypatch.setattr(single_file, "check_checkpoint", check)
    for _ in range(3):
        assert make_config("cat", model=str(file)).compare.guidance_scale == 5
    assert read == [file]
    os.utime(file, ns=(0, 0))
    make_config("cat", model=str(file))
    assert read == [file, file]


def test_the_open_world_knows_no_concept_and_nothing_unseen() -> None:
    world = registry.world("some/model")
    assert known_concepts("some/model") == world.nearest_known("cat") == []
    assert world.unseen("object") == ()
    assert world.lesson("guitar", 1, 0) is None


def test_what_was_never_shown_is_known_and_fresh() -> None:
    fresh = {(entry.kind, entry.name) for entry in known_concepts() if entry.fresh}
    for kind in ("object", "style"):
        unseen = registry.world("pocket").unseen(kind)
        assert unseen
        assert {(kind, name) for name in unseen} <= fresh


def test_prompts_to_tune_by_are_the_adversarys_where_the_world_has_none() -> None:
    config = make_config("cat", model="some/model")
    assert tuning_prompts(config) == registry.world("some/model").concept("cat", None).relearn
    assert all(prompt.expects == "cat" for prompt in tuning_prompts(make_config("cat")))


@pytest.mark.parametrize(
    ("objective", "model", "preset"),
    [
        ("concept_ablation", "pocket", "projection+l2"),
        ("esd", "pocket", "projection+l2"),
        ("erasediff", "pocket", "nothing"),
        ("esd", "some/model", "nothing"),
    ],
)
def test_a_sequence_is_regularized_as_was_tuned(objective: str, model: str, preset: str) -> None:
    assert registry.world(model).regularization_preset(objective) == preset


@pytest.mark.parametrize(("text", "like"), [("Van Gogh style", "woodcut"), ("kittens", "hammer")])
def test_a_run_in_the_preset_fast_takes_what_its_kind_of_concept_needs(
    text: str, like: str
) -> None:
    chosen, other = make_config(text).unlearn, make_config(like).unlearn
    assert (chosen.steps, chosen.batch_size) == (other.steps, other.batch_size)


def test_kinds_differ_only_in_the_preset_fast_of_the_default_objective() -> None:
    def steps(text: str, **changes: object) -> int:
        return make_config(text, **changes).unlearn.steps

    assert steps("cat") > steps("van gogh")
    assert steps("cat", **{"unlearn.steps": 7}) == 7
    for same in ({"preset": "full"}, {"objective": "sdd"}, {"model": "a/folder"}):
        assert steps("cat", **same) == steps("van gogh", **same)


def test_prompts_to_forget_by_know_every_family_of_styles() -> None:
    """Forgetting that knows no drawing in bright lines on dark does not reach those."""
    for family in {entry.family for entry in STYLES}:
        own = [entry.name for entry in STYLES if entry.family == family]
        trained = [name for name in own if name not in TEST_STYLES]
        assert 1 / 3 <= len(trained) / len(own) < 1, family


def test_a_long_text_is_refused_by_its_length_and_a_nameless_one_names_nothing() -> None:
    with pytest.raises(ConfigError, match="characters"):
        make_config("a " * 200_000)
    assert kind_of("") is None
    assert kind_of("the of a") is None
    assert kind_of("a picture of the cats") == "object"


@pytest.mark.parametrize("preset", ["fast", "full"])
@pytest.mark.parametrize(
    ("pipeline", "steps", "guidance"),
    [
        ("StableDiffusionPipeline", 50, 7.5),
        ("StableDiffusionXLPipeline", 50, 5.0),
        ("StableDiffusion3Pipeline", 28, 7.0),
        ("FluxPipeline", 28, 3.5),
        ("Nope", 50, 7.5),
    ],
)
def test_a_real_model_gets_the_settings_of_its_family(
    tmp_path: Path, preset: str, pipeline: str, steps: int, guidance: float
) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))
    config = make_config("Van Gogh style", preset=preset, model=str(tmp_path))
    assert (config.compare.sampling_steps, config.compare.guidance_scale) == (steps, guidance)
    assert config.attack.lr == 1e-4
    assert make_config("cat", model=str(tmp_path), **{"attack.lr": 0.5}).attack.lr == 0.5


@pytest.mark.parametrize("text", ["[]", "{", '"x"', "5"])
def test_settings_do_not_need_a_readable_model(tmp_path: Path, text: str) -> None:
    (tmp_path / "model_index.json").write_text(text)
    assert make_config("cat", model=str(tmp_path)).unlearn.lr == 1e-4
    assert make_config("cat", model="no body/no thing?").unlearn.lr == 1e-4


def test_the_bundled_model_keeps_its_own_settings() -> None:
    assert make_config("cat").compare.guidance_scale == 2.0
    assert make_config("cat", preset="full").compare.guidance_scale == 2.0
