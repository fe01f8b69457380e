"""Properties every gradient rule must have, each shown to catch the wrong rule it is aimed at."""

import math

import pytest
import torch
from scipy.optimize import nnls

from unlearn_app.common import registry
from unlearn_app.methods.gradient_rules.barrier import Barrier
from unlearn_app.methods.gradient_rules.combination import (
    Preconditioner,
    combine,
    cosine_of,
    gramian_of,
)
from unlearn_app.methods.gradient_rules.one_sided import OneSided
from unlearn_app.methods.gradient_rules.restricted import Restricted
from unlearn_app.methods.gradient_rules.restricted_adam import RestrictedAdam
from unlearn_app.methods.gradient_rules.weighted_sum import WeightedSum

ONES = torch.ones(2, dtype=torch.float64)


def pairs(count: int = 200, size: int = 7) -> list[torch.Tensor]:
    """Random gradient pairs (2, size) in float64, with widely different scales."""
    source = torch.Generator().manual_seed(0)
    scales = [1.0, 1e-6, 1e6, 1e3]
    return [
        torch.randn(2, size, generator=source, dtype=torch.float64)
        * torch.tensor([[1.0], [scales[i % 4]]])
        for i in range(count)
    ]


def explicit_restricted(g: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """2412.07808, theorem 4, written with vectors."""
    f, r = g
    c = f @ r
    if c >= 0:
        return w[0] * f + w[1] * r
    return w[0] * (f - c / (r @ r) * r) + w[1] * (r - c / (f @ f) * f)


def one_sided(g, w):
    f, r = g
    c = f @ r
    return w[0] * (f - min(c, 0) / (r @ r) * r) + w[1] * r


def sequential(g, w):
    f, r = g
    f = f - min(f @ r, 0) / (r @ r) * r
    return w[0] * f + w[1] * (r - min(f @ r, 0) / (f @ f) * f)


def restricted(g, w):
    return combine(g, Restricted(), w)[0]


def summed(g, w):
    return combine(g, WeightedSum(), w)[0]


def harms_nobody(rule) -> bool:
    weights = torch.tensor([0.7, 3.0], dtype=torch.float64)
    for g in pairs():
        u = rule(g, weights)
        slack = 1e-9 * u.norm() * g.norm(dim=1).max()
        if u @ g[0] < -slack or u @ g[1] < -slack:
            return False
    return True


def test_restricted_equals_the_paper_vectors_in_float64():
    weights = torch.tensor([1.0, 5.0], dtype=torch.float64)
    for g in pairs():
        torch.testing.assert_close(
            restricted(g, weights), explicit_restricted(g, weights), rtol=1e-9, atol=1e-12
        )


def test_neither_loss_rises_to_first_order_under_any_weights():
    assert harms_nobody(restricted)
    assert not harms_nobody(summed)
    assert not harms_nobody(one_sided)


def test_projection_uses_the_original_other_gradient():
    g = torch.tensor([[1.0, 0.0], [-1.0, 1.0]], dtype=torch.float64)
    weights = torch.tensor([1.0, 5.0], dtype=torch.float64)
    expected = torch.tensor([0.5, 5.5], dtype=torch.float64)
    torch.testing.assert_close(restricted(g, weights), expected)
    assert not torch.allclose(sequential(g, weights), expected)


def test_the_whole_vector_is_projected_not_each_tensor():
    g = torch.tensor([[1.0, 0.0], [-1.0, 1.0]], dtype=torch.float64)
    weights = torch.tensor([1.0, 5.0], dtype=torch.float64)
    per_tensor = torch.cat([restricted(piece, weights) for piece in g.split(1, dim=1)])
    assert torch.allclose(per_tensor, torch.tensor([0.0, 5.0], dtype=torch.float64))
    assert not torch.allclose(per_tensor, restricted(g, weights))


def test_no_conflict_means_the_weighted_sum():
    for g in pairs():
        if g[0] @ g[1] >= 0:
            assert torch.equal(restricted(g, ONES), summed(g, ONES))


@pytest.mark.parametrize("name", registry.names("rule"))
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1.0, 1e15])
def test_degenerate_gradients_stay_finite(name, scale):
    rule = registry.get("rule", name)()
    f, zero = torch.tensor([1.0, -2.0]) * scale, torch.zeros(2)
    for g in (
        torch.stack([f, zero]),
        torch.stack([zero, f]),
        torch.stack([zero, zero]),
        torch.stack([f, -3 * f]),
    ):
        assert combine(g, rule, ONES)[0].isfinite().all()
    update = combine(torch.stack([f, zero]), rule, torch.tensor([2.0, 5.0], dtype=torch.float64))[0]
    torch.testing.assert_close(update, 2 * f)


@pytest.mark.parametrize("name", registry.names("rule"))
def test_a_shut_gate_leaves_the_weighted_retain_gradient(name):
    r = torch.randn(6, dtype=torch.float64)
    weights = torch.tensor([1.0, 1.6], dtype=torch.float64)
    u = combine(torch.stack([torch.zeros_like(r), r]), registry.get("rule", name)(), weights)[0]
    torch.testing.assert_close(u, 1.6 * r)


def test_opposite_gradients_stall_under_restriction():
    f = torch.tensor([1.0, -2.0], dtype=torch.float64)
    assert restricted(torch.stack([f, -3 * f]), ONES).norm() < 1e-12


@pytest.mark.parametrize("name", registry.names("rule"))
def test_one_term_is_left_alone(name):
    g = torch.randn(1, 5)
    torch.testing.assert_close(combine(g, registry.get("rule", name)(), torch.ones(1))[0], g[0])


def test_small_cosines_survive_float32_sums():
    source = torch.Generator().manual_seed(1)
    f = torch.randn(200_000, generator=source)
    r = torch.randn(200_000, generator=source)
    r = r - (r.double() @ f.double() / (f.double() @ f.double())).float() * f - 1e-6 * f
    gramian = gramian_of(torch.stack([f, r]))
    exact = math.fsum((f.double() * r.double()).tolist())
    assert gramian[0, 1].item() == pytest.approx(exact, rel=1e-6)
    assert cosine_of(gramian) < 0


def test_cosine_of_a_zero_gradient_is_none():
    assert cosine_of(gramian_of(torch.stack([torch.ones(3), torch.zeros(3)]))) is None
    assert cosine_of(gramian_of(torch.ones(1, 3))) is None


def test_under_conflict_the_descent_of_each_loss_is_the_weighted_sine():
    """<u, g_r> = w_r (|g_r|^2 - c^2 / |g_f|^2) and the same for g_f: what is lost is only what
    opposes.
    """
    wrong = 0
    for weights in (ONES, torch.tensor([0.1, 9.0], dtype=torch.float64)):
        for g in pairs():
            f, r = g
            c = f @ r
            if c >= 0:
                continue
            u = restricted(g, weights)
            expected = [
                weights[0] * (f @ f - c * c / (r @ r)),
                weights[1] * (r @ r - c * c / (f @ f)),
            ]
            torch.testing.assert_close(
                torch.stack([u @ f, u @ r]), torch.stack(expected), rtol=1e-7, atol=0.0
            )
            wrong += not torch.isclose(one_sided(g, weights) @ f, expected[0], rtol=1e-7, atol=0.0)
    assert wrong > 100


def test_equal_norms_make_it_the_longer_sum():
    for g in pairs():
        f, r = g[0] / g[0].norm(), g[1] / g[1].norm()
        if f @ r < 0:
            both = torch.stack([f, r])
            torch.testing.assert_close(restricted(both, ONES), (1 - f @ r) * (f + r))
            assert not torch.allclose(sequential(both, ONES), (1 - f @ r) * (f + r))


def test_scaling_a_gradient_is_weighting_it():
    def normalised(g, w):
        return restricted(g / g.norm(dim=1, keepdim=True), w)

    scale = torch.tensor([3.0, 0.5], dtype=torch.float64)
    for g in pairs(20):
        scaled, weights = g * scale[:, None], ONES * torch.tensor([1.0, 2.0])
        torch.testing.assert_close(restricted(scaled, weights), restricted(g, weights * scale))
        assert not torch.allclose(normalised(scaled, weights), normalised(g, weights * scale))


def test_no_side_is_preferred():
    weights = torch.tensor([2.0, 3.0], dtype=torch.float64)
    for g in pairs():
        torch.testing.assert_close(restricted(g, weights), restricted(g.flip(0), weights.flip(0)))
    assert any(
        not torch.allclose(one_sided(g, weights), one_sided(g.flip(0), weights.flip(0)))
        for g in pairs()
    )


def test_one_sided_equals_its_vectors_and_keeps_only_the_retain_promise():
    weights = torch.tensor([2.0, 3.0], dtype=torch.float64)
    for g in pairs():
        u = combine(g, OneSided(), weights)[0]
        torch.testing.assert_close(u, one_sided(g, weights))
        assert u @ g[1] >= -1e-9 * u.norm() * g[1].norm()
    assert any(combine(g, OneSided(), weights)[0] @ g[0] < 0 for g in pairs())


def triples(count: int = 200) -> list[torch.Tensor]:
    """Random gradients (3, 4) of different sizes, most with several conflicts."""
    source = torch.Generator().manual_seed(3)
    sizes = torch.tensor([[1.0], [30.0], [0.01]], dtype=torch.float64)
    return [sizes * torch.randn(3, 4, generator=source, dtype=torch.float64) for _ in range(count)]


def one_after_the_other(g, w):
    """PCGrad without its random order (2001.06782, algorithm 1)."""
    parts = []
    for row in range(len(g)):
        part = g[row]
        for other in range(len(g)):
            if other != row:
                part = part - min(part @ g[other], 0) / (g[other] @ g[other]) * g[other]
        parts.append(part)
    return w @ torch.stack(parts)


def opposes(update, g) -> bool:
    return bool((g @ update / (g.norm(dim=1) * update.norm()) < -1e-8).any())


def test_of_three_losses_none_rises_to_first_order_either():
    weights = torch.tensor([1.0, 1.6, 0.5], dtype=torch.float64)
    assert not any(opposes(restricted(g, weights), g) for g in triples())
    assert sum(opposes(one_after_the_other(g, weights), g) for g in triples()) > 10


def test_a_third_gradient_is_projected_to_the_nearest_direction_that_opposes_none():
    """Found by non-negative least squares: what is added to a gradient has no negative share."""
    for g in triples(40):
        for row in range(3):
            others = g[[other for other in range(3) if other != row]]
            shares, _ = nnls(others.T.numpy(), -g[row].numpy())
            nearest = g[row] + torch.from_numpy(shares) @ others
            alone = torch.eye(3, dtype=torch.float64)[row]
            torch.testing.assert_close(restricted(g, alone), nearest, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("factors", [(1, -2, 3), (1, -1, -1), (1, 0, -1), (0, 0, 1)])
def test_three_gradients_on_a_line_are_no_trap(factors):
    f = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    g = torch.stack([factor * f for factor in factors])
    update = restricted(g, torch.ones(3, dtype=torch.float64))
    assert update.isfinite().all()
    assert (g @ update >= -1e-9).all()


def test_the_adam_variant_keeps_the_promise_for_the_preconditioned_step_alone():
    source = torch.Generator().manual_seed(2)
    broken = 0
    for g in pairs():
        diagonal = 10 ** torch.randn(7, generator=source, dtype=torch.float64)
        step = combine(g, RestrictedAdam(), ONES, diagonal)[0]
        slack = 1e-9 * step.norm() * g.norm(dim=1).max()
        assert step @ g[0] >= -slack
        assert step @ g[1] >= -slack
        plain = diagonal * restricted(g, ONES)
        broken += bool(plain @ g[0] < 0 or plain @ g[1] < 0)
    assert broken > 10


def test_the_preconditioner_is_adams():
    gradients = torch.randn(5, 1, 4, dtype=torch.float64)
    weight = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    adam, diagonal = torch.optim.Adam([weight], lr=1.0, betas=(0.0, 0.999)), Preconditioner()
    for g in gradients:
        before = weight.detach().clone()
        weight.grad = g[0].clone()
        adam.step()
        torch.testing.assert_close(before - weight.detach(), diagonal(g, ONES[:1]) * g[0])


def test_the_barrier_makes_forgetting_fall_at_its_rate_whatever_retaining_wants():
    for eta in (0.5, 2.0):
        for g in pairs():
            f, r = g
            u = combine(g, Barrier(eta), ONES)[0]
            assert u @ f >= (eta - 1e-7) * (f @ f)
            if r @ f >= eta * (f @ f):
                torch.testing.assert_close(u, r)
    assert any(summed(g, ONES) @ g[0] < 0.5 * (g[0] @ g[0]) for g in pairs())
