"""Meta-unlearning, in float64 against its own definition; properties with wrong
variants that fail.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from random_batches import noisy
from torch import Tensor

from unlearn_app.methods.objectives.diffusion import Diffusion
from unlearn_app.methods.objectives.meta_unlearning import MetaUnlearning
from unlearn_app.models.catalog import load_model
from unlearn_app.models.conditioning import Conditioning
from unlearn_app.models.protocols import MetaBatch, NoisyBatch

LOSS = Diffusion()
SMOOTH = MetaUnlearning(LOSS, lr=0.02, optimizer="sgd", rank=2, alpha=3.0, cap=1e9, order="second")
"""Without kinks: finite differences see the same function as the gradient."""


@pytest.fixture(scope="module")
def model(tiny_pipeline: Path):
    """The small model in float64, with a defender's adapter that is not the identity."""
    made = load_model(str(tiny_pipeline))
    made.network.double()
    params = made.reset_adapter("unlearn", 2, 2.0, 0)
    source = torch.Generator().manual_seed(5)
    for tensor in params.values():
        tensor.data = 0.2 * torch.randn(tensor.shape, generator=source, dtype=torch.float64)
    return made


def meta_batch(model, steps: int = 1) -> MetaBatch:
    support = tuple(noisy(model, 10 + row) for row in range(steps))
    return MetaBatch(support, noisy(model, 1), noisy(model, 2), noisy(model, 3), seed=4)


def factors(model) -> list[Tensor]:
    return list(model._params("unlearn").values())


def flat(tensors) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def gradient(model, objective, batch) -> Tensor:
    with model.training("unlearn"):
        return flat(torch.autograd.grad(objective(model, batch), factors(model)))


def value(model, objective, batch) -> float:
    with model.training("unlearn"):
        return objective(model, batch).item()


def loss_gradient(model, batch: NoisyBatch) -> dict[str, Tensor]:
    """In the adversary's coordinates: of all merged weights."""
    with model.training("unlearn"):
        weights = {
            name: weight.detach().requires_grad_()
            for name, weight in model.weights("unlearn").items()
        }
        with model.active():
            grads = torch.autograd.grad(
                LOSS(model, batch, weights), list(weights.values()), allow_unused=True
            )
    return {
        n: torch.zeros_like(w) if g is None else g
        for (n, w), g in zip(weights.items(), grads, strict=True)
    }


def in_factors(model, batch: NoisyBatch) -> Tensor:
    """The gradient of a loss in the defender's coordinates, which an adversary does not have."""
    with model.training("unlearn"):
        return flat(torch.autograd.grad(LOSS(model, batch), factors(model)))


def curvature_along(model, batch: NoisyBatch, direction: dict[str, Tensor]) -> Tensor:
    """The Hessian of a loss in the adversary's coordinates times `direction`, chain-ruled into the
    factors.
    """
    with model.training("unlearn"):
        merged = model.weights("unlearn")
        weights = {name: weight.detach().requires_grad_() for name, weight in merged.items()}
        with model.active():
            loss = LOSS(model, batch, weights)
            grads = torch.autograd.grad(
                loss, list(weights.values()), create_graph=True, materialize_grads=True
            )
            along = sum(
                (grad * direction[name]).sum() for name, grad in zip(weights, grads, strict=True)
            )
            curved = torch.autograd.grad(along, list(weights.values()), materialize_grads=True)
        mapped = sum(
            (merged[name] * part).sum() for name, part in zip(weights, curved, strict=True)
        )
        return flat(torch.autograd.grad(mapped, factors(model)))


def parts_of(batch: NoisyBatch) -> list[NoisyBatch]:
    """The pictures of a set, each as a set of its own."""
    return [
        NoisyBatch(
            **{
                name: part.rows([row]) if isinstance(part, Conditioning) else part[[row]]
                for name, part in vars(batch).items()
            }
        )
        for row in range(len(batch.t))
    ]


def twice(batch: NoisyBatch) -> NoisyBatch:
    cat = {Tensor: torch.cat, Conditioning: Conditioning.cat}
    return NoisyBatch(**{n: cat[type(part)]([part, part]) for n, part in vars(batch).items()})


def slope(model, objective, batch, direction: list[Tensor], h: float = 1e-5) -> float:
    def at(step: float) -> float:
        for tensor, part in zip(factors(model), direction, strict=True):
            tensor.data += step * part
        found = value(model, objective, batch)
        for tensor, part in zip(factors(model), direction, strict=True):
            tensor.data -= step * part
        return found

    return (at(h) - at(-h)) / (2 * h)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("weights", ["full", "lora"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_second_order_is_the_derivative_and_first_order_is_not(
    model, weights, steps, optimizer
) -> None:
    """Adam with an eps that makes it smooth, since with its usual one it takes the sign of
    small gradients.
    """
    objective = replace(
        SMOOTH, weights=weights, optimizer=optimizer, related=0.7, unrelated=0.3, eps=0.1
    )
    objective = replace(objective, lr=0.5 if weights == "lora" else 0.02)
    batch = meta_batch(model, steps)
    source = torch.Generator().manual_seed(8)
    direction = [
        torch.randn(t.shape, generator=source, dtype=torch.float64) for t in factors(model)
    ]
    wanted = slope(model, objective, batch, direction)
    exact = (gradient(model, objective, batch) @ flat(direction)).item()
    rough = (gradient(model, replace(objective, order="first"), batch) @ flat(direction)).item()
    assert exact == pytest.approx(wanted, rel=1e-5)
    assert abs(rough / wanted - 1) > 1e-4


def test_the_value_follows_the_papers_taylor_form_to_second_order(model) -> None:
    """The error falls fourfold as the step is halved; with a wrong sign or wrong coordinates
    twofold.
    """
    batch, zeta = meta_batch(model), 0.6
    batch = replace(batch, forget=batch.support[0])
    g_f, g_r = loss_gradient(model, batch.forget), loss_gradient(model, batch.related)
    square = sum(g.square().sum() for g in g_f.values()).item()
    dot = sum((g_f[name] * g_r[name]).sum() for name in g_f).item()
    own_f, own_r = in_factors(model, batch.forget), in_factors(model, batch.related)
    right, flipped = square + zeta * dot, square - zeta * dot
    elsewhere = (own_f @ own_f + zeta * own_f @ own_r).item()

    def fall(predicted: float) -> float:
        start = value(model, replace(SMOOTH, lr=0.0, related=zeta), batch)
        ends = {
            lr: value(model, replace(SMOOTH, lr=lr, related=zeta), batch) for lr in (4e-3, 2e-3)
        }
        large, small = (abs(end - start - lr * predicted) for lr, end in ends.items())
        return large / small

    assert fall(right) == pytest.approx(4, rel=0.1)
    assert fall(flipped) == pytest.approx(2, rel=0.15)
    assert fall(elsewhere) == pytest.approx(2, rel=0.15)


def test_first_order_has_half_the_slope_of_the_gradients_norm(model) -> None:
    """On the batch of the attack itself the exact gradient changes twice as fast with the
    step.
    """
    batch = meta_batch(model)
    batch, lr = replace(batch, forget=batch.support[0]), 1e-4
    start = gradient(model, replace(SMOOTH, lr=0.0), batch)
    exact = (gradient(model, replace(SMOOTH, lr=lr), batch) - start) / lr
    rough = (gradient(model, replace(SMOOTH, lr=lr, order="first"), batch) - start) / lr
    assert (rough @ exact / exact.square().sum()).item() == pytest.approx(0.5, abs=0.01)


def test_first_order_grows_by_the_querys_curvature_along_the_attack(model) -> None:
    """(FO(lr) - FO(0)) / lr is H_q g_F as a vector, for a query that the attack does not train
    on.

    An attack whose result is detached altogether does not change; the exact graph adds H_F g_q.
    """
    batch, lr = meta_batch(model), 1e-5
    wanted = curvature_along(model, batch.forget, loss_gradient(model, batch.support[0]))

    def off(order: str) -> float:
        grown = gradient(model, replace(SMOOTH, lr=lr, order=order), batch)
        start = gradient(model, replace(SMOOTH, lr=0.0, order=order), batch)
        return (((grown - start) / lr - wanted).norm() / wanted.norm()).item()

    assert off("first") < 1e-3
    assert off("second") > 0.1


@pytest.mark.parametrize("order", ["first", "second"])
def test_without_an_attack_it_is_ascent_and_the_other_terms_cancel(model, order) -> None:
    """With other noise after than before they would not cancel."""
    batch = replace(meta_batch(model), support=())
    objective = replace(SMOOTH, related=2.0, unrelated=3.0, order=order)
    with model.training("unlearn"):
        plain = flat(torch.autograd.grad(-LOSS(model, batch.forget), factors(model)))
    torch.testing.assert_close(gradient(model, objective, batch), plain, rtol=1e-9, atol=1e-12)
    ours = value(model, objective, batch)
    assert ours == value(model, replace(objective, related=0.0, unrelated=0.0), batch)


def test_a_step_down_makes_the_attack_fail_and_a_step_up_makes_it_succeed(model) -> None:
    """The meta term alone."""
    batch = meta_batch(model, 2)
    for order in ("first", "second"):
        objective = replace(SMOOTH, order=order, lr=2e-3)
        direction = gradient(model, objective, batch)
        parts = direction.split([t.numel() for t in factors(model)])
        parts = [part.view_as(t) for part, t in zip(parts, factors(model), strict=True)]
        assert slope(model, replace(objective, order="second"), batch, parts) > 0

        def after_attack(sign: float, objective=objective, parts=parts) -> float:
            for tensor, part in zip(factors(model), parts, strict=True):
                tensor.data += sign * 1e-3 * part
            with model.training("unlearn"), model.active():
                reached = objective.attacked(model, model.weights("unlearn"), batch)
                found = LOSS(model, batch.forget, reached).item()
            for tensor, part in zip(factors(model), parts, strict=True):
                tensor.data -= sign * 1e-3 * part
            return found

        assert after_attack(-1) > after_attack(0) > after_attack(1)


@pytest.mark.parametrize("order", ["first", "second"])
@pytest.mark.parametrize("weights", ["full", "lora"])
def test_nothing_is_moved_or_left_behind(model, order, weights) -> None:
    """No weight changes, no gradient stays, and the adversary starts afresh each time."""
    from unlearn_app.models.diffusers.plain_weights import base_weights

    before = {name: weight.detach().clone() for name, weight in model.network.named_parameters()}
    objective, batch = (
        replace(SMOOTH, order=order, weights=weights, optimizer="adam"),
        meta_batch(model, 2),
    )
    first, again = (gradient(model, objective, batch) for _ in range(2))
    assert torch.equal(first, again)
    assert first.abs().sum() > 0
    for name, weight in model.network.named_parameters():
        assert torch.equal(weight, before[name])
        assert weight.grad is None
    assert not any(weight.requires_grad for weight in base_weights(model.network).values())


def test_a_lora_adversarys_first_step_is_the_projected_gradient(model) -> None:
    """-lr s^2 G A^T A on every matrix, nothing elsewhere; the factors of the defender do not
    matter.
    """
    batch = meta_batch(model)
    objective = replace(SMOOTH, weights="lora", lr=0.3)
    slopes = loss_gradient(model, batch.support[0])
    with model.training("unlearn"), model.active():
        before = model.weights("unlearn")
        after = objective.attacked(model, before, batch)
        fresh = objective._fresh(before, batch.seed)
    scale = objective.alpha / objective.rank
    for name, weight in before.items():
        if weight.ndim != 2:
            assert torch.equal(after[name], weight)
            continue
        a = fresh[f"{name}.A"].detach()
        assert not fresh[f"{name}.B"].any()
        assert a.abs().max() <= weight.shape[1] ** -0.5
        torch.testing.assert_close(
            after[name] - weight, -0.3 * scale**2 * slopes[name] @ a.T @ a, rtol=1e-6, atol=1e-12
        )


def test_the_value_depends_on_the_product_of_the_defenders_factors_alone(model) -> None:
    batch, objective = meta_batch(model, 2), replace(SMOOTH, related=0.5)
    here = value(model, objective, batch)
    for name, tensor in model._params("unlearn").items():
        tensor.data *= 4.0 if ".lora_A." in name else 0.25
    there = value(model, objective, batch)
    for name, tensor in model._params("unlearn").items():
        tensor.data *= 0.25 if ".lora_A." in name else 4.0
    assert there == pytest.approx(here, rel=1e-9)


def test_the_gradient_is_linear_in_its_three_weights(model) -> None:
    batch = meta_batch(model)
    none = replace(SMOOTH, forget=0.0)
    alone = [
        gradient(model, replace(none, **{name: 1.0}), batch)
        for name in ("forget", "related", "unrelated")
    ]
    mixed = gradient(model, replace(none, forget=0.2, related=0.5, unrelated=3.0), batch)
    torch.testing.assert_close(
        mixed, 0.2 * alone[0] + 0.5 * alone[1] + 3.0 * alone[2], rtol=1e-8, atol=1e-12
    )


@pytest.mark.parametrize("order", ["first", "second"])
def test_how_many_pictures_a_set_has_changes_no_weight(model, order) -> None:
    """Losses are means; summed over minibatches, as the released code does, a set of two would
    count double.
    """
    batch, objective = meta_batch(model), replace(SMOOTH, related=0.5, unrelated=3.0, order=order)
    whole = gradient(model, objective, batch)
    sets = zip(
        *(parts_of(part) for part in (batch.forget, batch.related, batch.unrelated)), strict=True
    )
    split = [replace(batch, forget=f, related=r, unrelated=u) for f, r, u in sets]
    halves = [gradient(model, objective, half) for half in split]
    torch.testing.assert_close(sum(halves) / len(halves), whole, rtol=1e-8, atol=1e-12)
    doubled = replace(batch, support=tuple(map(twice, batch.support)))
    torch.testing.assert_close(gradient(model, objective, doubled), whole, rtol=1e-8, atol=1e-12)


def test_ascent_ends_at_the_cap(model) -> None:
    batch = meta_batch(model)
    low = replace(SMOOTH, cap=1e-3, related=1.0)
    assert value(model, low, batch) == -1e-3
    assert not gradient(model, low, batch).any()
