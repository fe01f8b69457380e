"""A defender who trains the weights themselves: what learns, what is published, what is attacked,
and what is refused.
"""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from random_batches import noisy
from small_runs import TINY

from unlearn_app.common.errors import ConfigError
from unlearn_app.common.images import to_pil
from unlearn_app.common.registry import names
from unlearn_app.concepts.catalog import preview_concept
from unlearn_app.continual.sequence import new_ledger, run_request
from unlearn_app.evaluation.comparison import column_state
from unlearn_app.methods.gradient_rules.weighted_sum import WeightedSum
from unlearn_app.methods.objectives.diffusion import Diffusion
from unlearn_app.methods.objectives.meta_unlearning import MetaUnlearning
from unlearn_app.models.catalog import load_model
from unlearn_app.models.diffusers.adapter_files import read_adapter
from unlearn_app.models.diffusers.plain_weights import without_adapter
from unlearn_app.models.lora import scaled
from unlearn_app.models.protocols import MetaBatch
from unlearn_app.models.weight_differences import is_dense
from unlearn_app.runs.folder import Run
from unlearn_app.runs.report import write_report
from unlearn_app.runs.workflow import run
from unlearn_app.settings.run_config import RunConfig, make_config, make_plan
from unlearn_app.training.latent_dataset import noisy_batches, sample_latents
from unlearn_app.training.loop import Term, fit
from unlearn_app.training.unlearning import forget

FULL = TINY | {"unlearn.weights": "full"}


@pytest.fixture(scope="module")
def model(tiny_model: Any) -> Any:
    return tiny_model


@pytest.fixture(autouse=True)
def untouched(model):
    """Every test leaves the base weights as they were, bit for bit."""
    model.drop_adapters()
    before = {name: weight.clone() for name, weight in plain(model.weights()).items()}
    yield
    model.drop_adapters()
    after = plain(model.weights())
    assert all(torch.equal(after[name], weight) for name, weight in before.items())


def plain(weights):
    """Weights by the names that they have without adapters."""
    return {without_adapter(name): weight for name, weight in weights.items()}


def config_for(model, **changes) -> RunConfig:
    return make_config("cat", model=model.name, **FULL | changes)


@pytest.mark.parametrize("objective", names("objective"))
def test_every_objective_trains_weights_and_keeps_its_teacher(model, objective: str) -> None:
    config = config_for(model, objective=objective, **{"unlearn.modules": "not_cross"})
    prompts = model.encode_text(["a cat", "a dog"])
    asked = torch.randn(2, *model.latent_shape), torch.tensor([100, 700]), prompts
    before = model.frozen(*asked)
    assert len(list(forget(model, preview_concept(config), config))) == 3
    assert torch.equal(model.frozen(*asked), before)
    state = model.adapter_state("unlearn")
    assert is_dense(state)
    assert not any(".attn2." in name for name in state)
    # The loss of random weights is above the limit of gradient ascent from the start.
    assert objective == "gradient_ascent" or any(d.any() for d in state.values())


@pytest.mark.parametrize("modules", ["all", "self", "convolutions"])
def test_ten_steps_lower_the_loss_on_a_batch(model, modules: str) -> None:
    params = model.reset_weights("unlearn", modules)
    data = sample_latents(
        model, ["a cat", "a dog"], None, [0, 1], sampling_steps=2, guidance_scale=1.0
    )
    batch = next(noisy_batches(model, data, 2, seed=0))
    terms = {"relearn": Term(Diffusion(), itertools.repeat(batch))}
    how = {"stage": "attack", "steps": 10, "lr": 3e-4}
    with model.training("unlearn"):
        steps = list(fit(model, params, terms, WeightedSum(), **how))
    assert steps[-1].losses["relearn"] < 0.99 * steps[0].losses["relearn"]


def test_meta_unlearning_trains_weights(model) -> None:
    config = config_for(model, **{"resist.on": True, "resist.steps": 1, "resist.batch_size": 2})
    steps = list(forget(model, preview_concept(config), config))
    assert all(step.norms["resist"] > 0 for step in steps)
    assert is_dense(model.adapter_state("unlearn"))


def test_an_edit_that_is_hardened_with_full_weights_holds_the_edit(model) -> None:
    alone = config_for(model, objective="uce")
    list(forget(model, preview_concept(alone), alone))
    edited = plain(model.weights("unlearn"))
    tiny_rate = {"resist.on": True, "resist.steps": 1, "unlearn.lr": 1e-6}
    hardened = config_for(model, objective="uce", **tiny_rate)
    list(forget(model, preview_concept(hardened), hardened))
    held = model.weights("unlearn")
    assert is_dense(model.adapter_state("unlearn"))
    for name, weight in plain(held).items():
        torch.testing.assert_close(weight, edited[name], rtol=0, atol=5e-5)


def test_the_gradient_through_an_attack_is_that_of_finite_differences(tiny_pipeline: Path) -> None:
    """In float64, for weights that are trained themselves; first order must fail the same check."""
    model = load_model(str(tiny_pipeline))
    model.network.double()
    source = torch.Generator().manual_seed(5)
    weights = model.reset_weights("unlearn", "attention")
    direction = {}
    for name, weight in weights.items():
        weight.data += 0.1 * torch.randn(weight.shape, generator=source, dtype=torch.float64)
        direction[name] = torch.randn(weight.shape, generator=source, dtype=torch.float64)
    batch = MetaBatch((noisy(model, 10),), noisy(model, 1), noisy(model, 2), noisy(model, 3), 4)
    exact = MetaUnlearning(
        Diffusion(), lr=0.05, optimizer="sgd", related=0.5, cap=1e9, order="second"
    )

    def value(step: float) -> float:
        for name, weight in weights.items():
            weight.data += step * direction[name]
        with model.training("unlearn"):
            found = exact(model, batch).item()
        for name, weight in weights.items():
            weight.data -= step * direction[name]
        return found

    slope = (value(1e-5) - value(-1e-5)) / 2e-5
    along = {}
    for order in ("second", "first"):
        with model.training("unlearn") as params:
            loss = replace(exact, order=order)(model, batch)
            grads = torch.autograd.grad(loss, list(params.values()))
        along[order] = sum((g * direction[n]).sum() for n, g in zip(params, grads, strict=True))
    assert along["second"].item() == pytest.approx(slope, rel=1e-5)
    assert along["first"].item() != pytest.approx(slope, rel=1e-3)


@pytest.mark.parametrize("changes", [{"objective": "random_label"}, {"regularize.select": 0.25}])
def test_a_mask_keeps_the_other_rows_of_the_weights(model, changes) -> None:
    config = config_for(model, **changes)
    list(forget(model, preview_concept(config), config))
    rows = [d.reshape(len(d), -1).any(1) for d in model.adapter_state("unlearn").values()]
    share = torch.cat(rows).float().mean().item()
    wanted = changes.get("regularize.select", 0.5)
    assert 0.5 * wanted < share <= wanted + 0.01


@pytest.mark.parametrize(
    "changes",
    [
        {"regularize.l1": 1e-4},
        {"regularize.l2": 1e-4},
        {"regularize.project": "exact", "unlearn.modules": "keys_values"},
    ],
)
def test_what_holds_factors_back_is_refused(changes) -> None:
    with pytest.raises(ConfigError, match=r"unlearn\.weights=lora is accepted"):
        make_config("cat", **{"unlearn.weights": "full"} | changes)
    make_config("cat", **changes)


def test_a_ledger_refuses_what_it_cannot_sum(model, tmp_path: Path) -> None:
    config = config_for(model)
    refused = pytest.raises(ConfigError, match="a ledger sums and merges adapters")
    with refused:
        new_ledger(tmp_path / "ledger", config, make_plan())
    with refused:
        list(run_request(config, make_plan(), tmp_path / "ledger", model))
    assert not (tmp_path / "ledger").exists()


def test_full_weights_take_a_rate_of_their_own_and_records_stay_as_they_were() -> None:
    assert make_config("cat", **{"unlearn.weights": "full"}).unlearn.lr == 3e-4
    given = {"unlearn.weights": "full", "unlearn.lr": 1e-5}
    assert make_config("cat", **given).unlearn.lr == 1e-5
    assert "--set unlearn.weights=full" in make_config("cat", **given).command()


@pytest.mark.parametrize("attack", ["lora", "full"])
def test_a_run_publishes_a_dense_file_that_gives_its_pictures(
    model, tmp_path: Path, attack: str
) -> None:
    config = config_for(model, **{"attack.weights": attack, "unlearn.steps": 6})
    list(run(config, tmp_path / "run", model=model))
    stored = Run.open(tmp_path / "run")
    assert stored.config == config
    state = read_adapter(tmp_path / "run" / "unlearn.safetensors")
    assert is_dense(state)
    assert (tmp_path / "run" / "relearn.safetensors").exists() == (attack == "lora")
    wanted = [picture for picture in stored.pictures if picture.column == "unlearned"]
    assert largest_distance(model, config, state, wanted) <= 1
    assert largest_distance(model, config, scaled(state, -1.0), wanted) > 1, "the wrong sign"
    assert [path.name for path in write_report(tmp_path / "run")]


def largest_distance(model, config: RunConfig, state, pictures) -> int:
    """The largest difference of a pixel between stored pictures and those with `state`."""
    model.drop_adapters()
    model.load_adapter("unlearn", state)
    with column_state(model, "unlearned"):
        latents = model.sample(
            [picture.prompt for picture in pictures],
            [picture.seed for picture in pictures],
            steps=config.compare.sampling_steps,
            guidance_scale=config.compare.guidance_scale,
        )
    again = to_pil(model.decode(latents))
    return max(
        np.abs(np.asarray(one, int) - np.asarray(Image.open(kept.file), int)).max()
        for one, kept in zip(again, pictures, strict=True)
    )
