"""Runs on pictures of the user and of the renderer: what is trained on, what is recorded, and what
is not used for other data.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from small_runs import TINY

from unlearn_app.attacks.relearn import adversary_pictures
from unlearn_app.common.errors import ConfigError
from unlearn_app.common.images import to_pil
from unlearn_app.common.registry import get, world
from unlearn_app.concepts.catalog import preview_concept
from unlearn_app.concepts.own_pictures import read_pictures, settings_from
from unlearn_app.evaluation.base_rates import attack_key, relearning, relearning_key
from unlearn_app.models.catalog import load_model
from unlearn_app.models.sizes import picture_shape
from unlearn_app.runs.attack_run import run_attacks
from unlearn_app.runs.folder import Run
from unlearn_app.runs.workflow import run
from unlearn_app.settings.run_config import RunConfig, make_attack, make_config
from unlearn_app.training.unlearning import training_terms


@pytest.fixture(scope="module")
def model(tiny_model: Any) -> Any:
    return tiny_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "cats"
    made.mkdir()
    for row, colour in enumerate(("red", "green", "blue", "white")):
        Image.new("RGB", (80, 64), colour).save(made / f"{row}.png")
        (made / f"{row}.txt").write_text(f"a cat and {row} balls", encoding="utf-8")
    return made


def config_for(model, given, **changes) -> RunConfig:
    return make_config("cat", model=model.name, **TINY | settings_from(given) | changes)


def test_the_adversary_trains_on_the_pictures_of_the_folder(model, folder: Path) -> None:
    given = {"pictures": read_pictures(folder)}
    config = config_for(model, given)
    data = adversary_pictures(model, preview_concept(config), config, given=given)
    assert data.prompts == tuple(f"a cat and {row} balls" for row in range(4))
    shown, captions = given["pictures"].lesson("cat", 4, picture_shape(model))
    assert torch.equal(data.x0, model.encode_pictures(shown))
    assert torch.equal(data.cond.states, model.encode_text(captions).states)
    fewer = config_for(model, given, **{"attack.pictures": 2})
    some = adversary_pictures(model, preview_concept(fewer), fewer, given=given)
    assert torch.equal(some.x0, data.x0[::2])


@pytest.mark.parametrize("objective", ["concept_ablation", "gradient_ascent", "esd"])
def test_forgetting_trains_on_the_pictures_of_the_folder(model, folder: Path, objective) -> None:
    given = {"forget_pictures": read_pictures(folder)}
    changes = {"anchor": "dog", "unlearn.train_pictures": 8}
    config = config_for(model, given, objective=objective, **changes)
    concept = preview_concept(config)
    terms = training_terms(model, concept, config, lambda: False, given=given)
    shown, captions = given["forget_pictures"].lesson("cat", 4, picture_shape(model))
    latents = model.encode_pictures(shown)
    anchors = [caption.replace("cat", "dog") for caption in captions]
    wanted = model.encode_text(anchors).states
    seen: set[int] = set()
    for _ in range(12):
        batch = next(terms["forget"].batches)
        for x0, anchor in zip(batch.x0, batch.anchor.states, strict=True):
            rows = [row for row in range(4) if torch.equal(x0, latents[row])]
            seen |= {*rows}
            assert any(torch.equal(anchor, one) for one in wanted)
    # Where an objective mixes in the anchor's pictures, every second one is such a sample.
    mixes = get("objective", objective).mixes_anchor_pictures
    assert seen == ({0, 2} if mixes else {0, 1, 2, 3})
    assert mixes == (objective != "gradient_ascent")


def test_retaining_trains_on_the_pictures_of_the_folder(model, folder: Path) -> None:
    given = {"retain_pictures": read_pictures(folder)}
    changes = {"resist.on": True, "resist.steps": 1, "resist.batch_size": 2}
    config = config_for(model, given, objective="random_label", **changes)
    terms = training_terms(model, preview_concept(config), config, lambda: False, given=given)
    shown, captions = given["retain_pictures"].lesson("", 4, picture_shape(model))
    latents, states = model.encode_pictures(shown), model.encode_text(captions).states
    for batch in (next(terms["retain"].batches), next(terms["resist"].batches).related):
        for x0, cond in zip(batch.x0, batch.cond.states, strict=True):
            (row,) = [row for row in range(4) if torch.equal(x0, latents[row])]
            assert torch.equal(cond, states[row])
    labels = next(terms["forget"].batches).anchor.states
    assert all(any(torch.equal(one, state) for state in states) for one in labels)


def test_pictures_that_are_not_given_are_a_sentence_before_anything_is_written(
    model, folder: Path, tmp_path: Path
) -> None:
    config = config_for(model, {"pictures": read_pictures(folder)})
    with pytest.raises(ConfigError, match="not given; --pictures DIR"):
        list(run(config, tmp_path / "run", model=model))
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match="not given; --forget-pictures DIR"):
        named = config_for(model, {"forget_pictures": read_pictures(folder)})
        training_terms(model, preview_concept(named), named, lambda: False)


def test_a_run_names_the_hash_alone_and_is_repeated_with_the_same_pictures(
    model, folder: Path, tmp_path: Path
) -> None:
    own = read_pictures(folder)
    given = {"pictures": own, "forget_pictures": own, "retain_pictures": own}
    config = config_for(model, given)
    list(run(config, tmp_path / "one", model=model, given=given))
    stored = Run.open(tmp_path / "one")
    text = (stored.folder / "run.json").read_text(encoding="utf-8")
    assert str(folder) not in text
    assert text.count(own.sha256) == 3
    assert "--pictures DIR" in stored.record["command"]
    assert stored.config == config
    again = {name: read_pictures(folder, name) for name in given}
    list(run(stored.config, tmp_path / "two", model=model, given=again))
    files = [Run.open(tmp_path / name).record["files"] for name in ("one", "two")]
    same = ("unlearn.safetensors", "relearn.safetensors")
    assert all(files[0][name] == files[1][name] for name in same)
    Image.new("RGB", (64, 64), "black").save(folder / "0.png")
    other = {name: read_pictures(folder, name) for name in given}
    with pytest.raises(ConfigError, match="those that are given have"):
        list(run(stored.config, tmp_path / "three", model=model, given=other))


def test_an_attack_on_a_run_needs_its_pictures_or_other_data(model, folder, tmp_path) -> None:
    given = {"pictures": read_pictures(folder)}
    list(run(config_for(model, given), tmp_path / "run", model=model, given=given))
    stored = Run.open(tmp_path / "run")
    with pytest.raises(ConfigError, match="not given; --pictures DIR"):
        list(run_attacks(stored, ["relearn"], model=model))
    for changes, own in ((settings_from(given), given), ({"attack.data": "one"}, {})):
        with pytest.raises(ConfigError, match="There is no judge"):  # so far it went
            list(run_attacks(stored, ["relearn"], changes, model=model, given=own))


def test_nothing_recorded_for_other_data_is_used(folder: Path) -> None:
    """A recorded base rate is of sampled pictures, whatever the folder holds."""
    model = load_model()
    usual = make_config("cat")
    assert relearning(usual, model) is not None
    own = settings_from({"pictures": read_pictures(folder)}) | {
        "attack.pictures": usual.attack.pictures
    }
    keys = [relearning_key(usual, model)]
    for changes in ({"attack.data": "renderings"}, own, own | {"pictures": "0" * 64}):
        config = make_config("cat", **changes)
        assert relearning(config, model) is None
        assert relearning_key(config, model) not in keys
        keys.append(relearning_key(config, model))
        attack = make_attack("noise")
        assert attack_key(attack, config, model) != attack_key(attack, usual, model)


@pytest.mark.parametrize("name", ["cat", "van gogh"])
def test_renderings_show_the_concept_as_the_judge_sees_it(name: str) -> None:
    """None of their captions is held out, and almost all are recognised by the bundled judge."""
    from unlearn_app.evaluation.comparison import judged
    from unlearn_app.evaluation.judges.loading import load_scorer

    model, config = load_model(), make_config(name, **{"attack.data": "renderings"})
    concept = preview_concept(config)
    data = adversary_pictures(model, concept, config)
    assert len(data.prompts) == config.attack.pictures
    assert not {*data.prompts} & {prompt.text for prompt in concept.forget.test}
    pictures, captions = world("pocket").lesson(name, 16, 0)
    assert captions == list(data.prompts)
    assert torch.equal(data.x0, model.encode_pictures(pictures))
    asked = [concept.forget.test[0]] * len(pictures)
    said = judged(pictures, asked, load_scorer("pocket", [concept]))
    assert sum(one["correct"] for one in said) >= 15


def test_a_world_that_draws_nothing_is_a_sentence(model) -> None:
    config = make_config("cat", model=model.name, **TINY | {"attack.data": "renderings"})
    with pytest.raises(ConfigError, match="nothing draws the world of"):
        adversary_pictures(model, preview_concept(config), config)


def test_renderings_written_to_a_folder_are_the_same_pictures(tmp_path: Path) -> None:
    pictures, captions = world("pocket").lesson("cat", 3, 0)
    for row, picture in enumerate(to_pil(pictures)):
        picture.save(tmp_path / f"{row}.png")
        (tmp_path / f"{row}.txt").write_text(captions[row], encoding="utf-8")
    shown, said = read_pictures(tmp_path).lesson("cat", 3, (64, 64))
    assert torch.equal(shown, pictures)
    assert said == captions
