"""What an adversary does to published weights before the attack: it lands in the slot that attacks
begin from, and the original weights stay.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from unlearn_app.attacks.adaptive import add_noise, warm_up
from unlearn_app.attacks.relearn import fine_tune
from unlearn_app.models.catalog import load_model
from unlearn_app.models.diffusers.plain_weights import without_adapter
from unlearn_app.settings.groups import AttackConfig
from unlearn_app.training.latent_dataset import LatentDataset

TRAINED = AttackConfig(steps=3, lr=1e-3, rank=2, alpha=2.0, batch_size=2)


@pytest.fixture(scope="module")
def model(tiny_pipeline: Path):
    return load_model(str(tiny_pipeline))


@pytest.fixture
def defended(model):
    """The model with a defender's adapter that is not the identity."""
    model.drop_adapters()
    source = torch.Generator().manual_seed(5)
    for tensor in model.reset_adapter("unlearn", 2, 2.0, 0).values():
        tensor.data = 0.1 * torch.randn(tensor.shape, generator=source)
    return model


@pytest.fixture
def pictures(model) -> LatentDataset:
    source = torch.Generator().manual_seed(1)
    x0 = torch.randn(2, *model.latent_shape, generator=source)
    cond = model.encode_text(["a cat", "a dog"])
    return LatentDataset(x0, cond, cond, model.encode_text([""]), ("a cat", "a dog"))


def plain(weights) -> dict[str, torch.Tensor]:
    return {without_adapter(name): weight.detach().clone() for name, weight in weights.items()}


@pytest.mark.parametrize("weights", ["lora", "full"])
def test_a_warm_up_publishes_what_was_trained_on_top_of_the_defence(
    defended, pictures, weights: str
) -> None:
    asked = replace(TRAINED, weights=weights)
    state, original = defended.adapter_state("unlearn"), plain(defended.weights())
    before = plain(defended.weights("unlearn"))
    slot = None if weights == "full" else "relearn"
    for step in fine_tune(defended, pictures, asked, 7):
        if step.step == step.total:
            reached = plain(defended.weights(slot))
    defended.drop_adapters()
    defended.load_adapter("unlearn", state)
    warm_up(defended, pictures, asked, 7)
    found = plain(defended.weights("unlearn"))
    assert all(torch.allclose(found[name], own, atol=1e-6) for name, own in reached.items())
    assert any(not torch.allclose(found[name], own, atol=1e-5) for name, own in before.items())
    after = plain(defended.weights())
    assert all(torch.equal(after[name], own) for name, own in original.items())


def test_noise_has_the_share_of_every_matrix_and_stands_on_the_defence(defended) -> None:
    before, original = plain(defended.weights("unlearn")), plain(defended.weights())
    add_noise(defended, 0.05, 3)
    found = plain(defended.weights("unlearn"))
    shares = {
        name: ((found[name] - own).norm() / own.norm()).item()
        for name, own in before.items()
        if own.ndim > 1
    }
    assert all(share == pytest.approx(0.05, rel=1e-3) for share in shares.values())
    assert all(torch.equal(found[n], own) for n, own in before.items() if own.ndim < 2)
    lost = [
        abs(((found[name] - original[name]).norm() / own.norm()).item() - 0.05) < 1e-4
        for name, own in before.items()
        if own.ndim > 1
    ]
    assert not all(lost), "noise on the original would have dropped the defence"


def test_noise_is_drawn_from_its_seed(defended) -> None:
    state = defended.adapter_state("unlearn")

    def noisy(seed: int) -> dict[str, torch.Tensor]:
        defended.load_adapter("unlearn", state)
        add_noise(defended, 0.05, seed)
        return plain(defended.weights("unlearn"))

    one, again, other = noisy(1), noisy(1), noisy(2)
    assert all(torch.equal(one[name], own) for name, own in again.items())
    assert not all(torch.equal(one[name], own) for name, own in other.items())
