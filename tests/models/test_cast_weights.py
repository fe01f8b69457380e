"""Casts of frozen weights: the numbers of autocast itself, also after the weights have changed."""

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

from unlearn_app.common.seeds import generator
from unlearn_app.models.catalog import load_model
from unlearn_app.models.diffusers.cast_weights import CastWeights

X = torch.randn(2, 3, 8, 8, generator=generator(0))


@pytest.fixture
def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(144, 5)
    return nn.Sequential(*layers).requires_grad_(False)


def autocast() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


def plain(network: nn.Module, x: Tensor = X) -> Tensor:
    with autocast():
        return network(x)


def cast(weights: CastWeights, network: nn.Module, x: Tensor = X) -> Tensor:
    with autocast(), weights.in_place():
        return network(x)


def test_the_numbers_are_those_of_autocast(network: nn.Sequential) -> None:
    assert torch.equal(cast(CastWeights(network), network), plain(network))


def test_the_weights_are_themselves_again_afterwards(network: nn.Sequential) -> None:
    before = list(network.parameters())
    with pytest.raises(RuntimeError):
        cast(CastWeights(network), network, X[:, :2])
    assert all(a is b for a, b in zip(network.parameters(), before, strict=True))


@pytest.mark.parametrize("place", ["in it", "with another"])
def test_a_changed_weight_is_cast_again(network: nn.Sequential, place: str) -> None:
    weights = CastWeights(network)
    before = cast(weights, network)
    if place == "in it":
        network[0].weight.mul_(2)
    else:
        network[0].weight.data = network[0].weight.data * 2
    after = cast(weights, network)
    assert torch.equal(after, plain(network))
    assert not torch.equal(after, before)


def test_what_is_trained_is_no_copy(network: nn.Sequential) -> None:
    network[3].weight.requires_grad_(True)
    cast(CastWeights(network), network).sum().backward()
    assert network[3].weight.grad is not None


def test_a_backward_pass_afterwards_uses_what_its_forward_pass_used(network: nn.Sequential) -> None:
    x = X.clone().requires_grad_(True)
    (wanted,) = torch.autograd.grad(plain(network, x).square().sum(), x)
    loss = cast(CastWeights(network), network, x).square().sum()
    assert torch.equal(torch.autograd.grad(loss, x)[0], wanted)


def test_a_model_that_computes_in_bfloat16_predicts_and_samples_what_it_would_without(
    tiny_pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its weights are others for a while, and after that."""
    model = load_model(str(tiny_pipeline))
    model.mixes = True
    draw = generator(1)
    x_t, t = torch.randn((2, *model.latent_shape), generator=draw), torch.tensor([100, 900])
    cond = model.encode_text(["a cat", "a dog"])
    params = model.reset_adapter("unlearn", 2, 2.0, 0)
    for tensor in params.values():
        tensor.data.normal_(std=0.3, generator=draw)

    def everything() -> list[Tensor]:
        with model.training("unlearn") as trained:
            loss = model.predict(x_t, t, cond).square().mean()
            found = list(torch.autograd.grad(loss, list(trained.values())))
        with model.merged("unlearn"):
            found.append(model.sample(["a cat"], [3], steps=2, guidance_scale=2.0))
        return [*found, model.frozen(x_t, t, cond)]

    mine = everything()
    monkeypatch.setattr(model._cast, "in_place", nullcontext)
    plain = everything()
    assert all(torch.equal(a, b) for a, b in zip(mine, plain, strict=True))
