"""Parts by name: one new file is all that a new part of any kind takes."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import TINY
from typer.testing import CliRunner

from unlearn_app.attacks.runner import attack_context, attack_of, attacked, result_of
from unlearn_app.cli.main import app
from unlearn_app.common import registry
from unlearn_app.common.errors import ConfigError
from unlearn_app.concepts.catalog import known_concepts, preview_concept
from unlearn_app.evaluation.judges.loading import load_scorer
from unlearn_app.models.catalog import load_model
from unlearn_app.models.lora import dense
from unlearn_app.settings import groups
from unlearn_app.settings.attacks import kinds_of
from unlearn_app.settings.run_config import make_attack, make_config, make_plan, setting_names
from unlearn_app.training.unlearning import forget

HEAD = """
from dataclasses import dataclass
from unlearn_app.common.registry import register
from unlearn_app.settings.groups import setting
"""
PART = '''
@register("{kind}", "brand_new")
@dataclass(frozen=True)
class BrandNew{base}:
    """A part that stands in one file."""

    force: float = setting(0.5, "how hard it works", 0.0, 2.0)

    def __call__(self, *given):
        return given[0][0]
'''
CLOSED_FORM = '''
@register("closed_form", "brand_new")
@dataclass(frozen=True)
class BrandNew:
    """A part that stands in one file."""

    force: float = setting(0.5, "how hard it works", 0.0, 2.0)

    def __call__(self, weights, forget, anchor, retain):
        ones = forget.new_ones(1, forget.shape[1])
        return {n: (ones, self.force * w.new_ones(len(w), 1)) for n, w in weights.items()}
'''
ATTACK = '''
from unlearn_app.attacks import Attack, asked_in, sample_tries
from unlearn_app.settings.events import Step

@register("attack", "brand_new")
@dataclass(frozen=True)
class BrandNew(Attack):
    """A part that stands in one file."""

    tries: int = setting(2, "pictures of each prompt", 1, 5)
    force: float = setting(0.5, "how hard it works", 0.0, 2.0)

    def budget(self, held):
        return "nothing"

    def __call__(self, model, context):
        yield Step("attack", 1, 1, {"force": self.force})
        asked = asked_in(context, range(self.tries), "please, ")
        return sample_tries(model, asked, context)
'''
JUDGE = '''
@register("judge", "brand_new")
class BrandNew:
    """A judge that stands in one file."""

    scores = True

    @classmethod
    def for_world(cls, world, concepts):
        return cls() if world.model == "brand_new" else None
'''
WORLD = '''
from unlearn_app.concepts.concept import KnownConcept
from unlearn_app.worlds import World

@register("world", "brand_new")
class BrandNew(World):
    """A world that stands in one file."""

    def known_concepts(self):
        return [KnownConcept("teapot", "object", "crockery")]
'''
BASES = {"objective": "(Objective)", "regularizer": "(Regularizer)", "merge": "(Merge)"}
NEEDS = {
    "objective": "from unlearn_app.methods.objectives import Objective\n",
    "regularizer": "from unlearn_app.methods.regularizers import Regularizer\n",
    "merge": "from unlearn_app.methods.merging import Merge\n",
}


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Add a module to the package of a kind, as a contributor adds a file."""
    added = []

    def put(kind: str, text: str) -> None:
        package = importlib.import_module(f"unlearn_app.{registry.PACKAGES[kind]}")
        folder = tmp_path / kind
        folder.mkdir()
        (folder / f"brand_new_{kind}.py").write_text(text, encoding="utf-8")
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
        added.append((kind, f"{package.__name__}.brand_new_{kind}"))
        registry._load.cache_clear()

    yield put
    for kind, module in added:
        registry._PARTS[kind].pop("brand_new", None)
        sys.modules.pop(module, None)
    registry._load.cache_clear()


def part(kind: str) -> str:
    """A module that registers a part of any kind as "brand_new"."""
    whole = {"closed_form": CLOSED_FORM, "attack": ATTACK, "judge": JUDGE, "world": WORLD}
    generic = NEEDS.get(kind, "") + PART.format(kind=kind, base=BASES.get(kind, ""))
    return HEAD + whole.get(kind, generic)


@pytest.mark.parametrize("kind", registry.PACKAGES)
def test_a_new_file_is_listed_by_the_command_line(kind: str, add: Callable) -> None:
    add(kind, part(kind))
    listed = CliRunner().invoke(app, ["methods"]).output
    assert "brand_new" in listed
    assert "stands in one file" in listed
    assert ("force=0.5: how hard it works (0.0 to 2.0)" in listed) == (
        kind not in ("judge", "world")
    )


def test_a_new_objective_can_be_chosen_and_set(add: Callable) -> None:
    add("objective", part("objective"))
    config = make_config("cat", objective="brand_new", **{"brand_new.force": "1.5"})
    assert config.build("objective").force == 1.5


def test_a_new_rule_can_be_chosen_and_set(add: Callable) -> None:
    add("rule", part("rule"))
    assert make_config("cat", rule="brand_new").build("rule").force == 0.5
    assert "brand_new.force" in setting_names()


def test_a_new_regularizer_is_a_setting_of_every_run(add: Callable) -> None:
    add("regularizer", part("regularizer"))
    config = make_config("cat", **{"regularize.force": 2})
    assert "regularize.force" in setting_names()
    built = registry.build_all("regularizer", config.regularize)
    assert [part.force for part in built if hasattr(part, "force")] == [2.0]
    assert "--set regularize.force=2.0" in config.command()
    with pytest.raises(ConfigError, match=r"regularize\.force is 3; 0\.0 to 2\.0 is accepted"):
        make_config("cat", **{"regularize.force": 3})


def test_a_new_merge_can_be_chosen_and_set(add: Callable) -> None:
    add("merge", part("merge"))
    plan = make_plan(regime="independent", merge="brand_new", force=1)
    assert (plan.merge, registry.build("merge", plan.merge, plan).force) == ("brand_new", 1.0)


def test_a_new_attack_can_be_chosen_and_set(add: Callable) -> None:
    add("attack", part("attack"))
    assert make_attack("brand_new", force=2).force == 2.0
    assert "brand_new" in kinds_of("all")


@pytest.fixture(scope="module")
def model(tiny_pipeline: Path) -> Any:
    return load_model(str(tiny_pipeline))


def test_a_new_closed_form_makes_an_adapter(model: Any, add: Callable) -> None:
    add("closed_form", part("closed_form"))
    config = make_config("cat", model=model.name, objective="brand_new", **{"brand_new.force": 2})
    (step,) = forget(model, preview_concept(config), config)
    updates = dense(model.adapter_state("unlearn"))
    assert step.losses["forget"] == pytest.approx(0.0, abs=1e-6)
    assert set(updates) == set(model.cross_weights())
    for update in updates.values():
        torch.testing.assert_close(update, torch.full_like(update, 2.0))


def test_a_new_attack_is_run_and_judged(model: Any, add: Callable) -> None:
    add("attack", part("attack"))
    config = make_config("cat", model=model.name, **TINY)
    concept, attack = preview_concept(config), attack_of(config, "brand_new", force=1.5)
    context = attack_context(model, concept, config)
    with model.active():
        steps = attacked(model, attack, context, None)
        assert next(steps).losses == {"force": 1.5}
        found = result_of(steps)
    prompts = [prompt.text for prompt in context.prompts]
    words = [text for _, _, text in found.tries.asked]
    assert words == [f"please, {text}" for text in 2 * prompts]
    assert len(found.tries.pictures) == len(found.judged) == 2 * len(prompts)


def test_a_new_judge_judges_what_it_takes(add: Callable) -> None:
    add("judge", part("judge"))
    add("world", part("world"))
    assert type(load_scorer("brand_new", [])) is registry.get("judge", "brand_new")


def test_a_new_world_is_that_of_the_model_of_its_name(add: Callable) -> None:
    add("world", part("world"))
    assert [entry.name for entry in known_concepts("brand_new")] == ["teapot"]


def test_what_was_added_is_gone_with_its_file() -> None:
    assert not any("brand_new" in registry.names(kind) for kind in registry.PACKAGES)
    assert "regularize.force" not in setting_names()


@pytest.mark.parametrize("kind", ["regularizer", "merge"])
def test_parts_that_share_a_setting_declare_it_alike(kind: str) -> None:
    shared = registry.shared_settings(kind)
    for name in registry.names(kind):
        for item in registry.settings_of(kind, name):
            same = shared[item.name]
            assert (item.type, item.default, item.metadata) == (
                same.type,
                same.default,
                same.metadata,
            )


def test_regularizers_share_no_setting() -> None:
    own = [
        i.name
        for n in registry.names("regularizer")
        for i in registry.settings_of("regularizer", n)
    ]
    assert len(own) == len(set(own))
    assert not {"reference", "decay"} & set(own)


def test_groups_of_settings_are_made_once() -> None:
    assert groups.RegularizeConfig is groups.RegularizeConfig
    assert groups.SequenceConfig.__module__ == groups.__name__
    with pytest.raises(AttributeError, match="no attribute"):
        groups.OtherConfig  # noqa: B018
