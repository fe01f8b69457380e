"""Parameterizations against their definition in float64 and against diffusers; wrong ones fail."""

from dataclasses import replace

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.training_utils import (
    compute_density_for_timestep_sampling,
    compute_loss_weighting_for_sd3,
)
from torch import Tensor

from unlearn_app.common.errors import ModelError
from unlearn_app.common.seeds import generator
from unlearn_app.models.parameterization import (
    Epsilon,
    Flow,
    Parameterization,
    VPrediction,
    parameterization_of,
)

ALPHAS = torch.cumprod(1 - torch.linspace(1e-4, 2e-2, 1000, dtype=torch.float64), 0)
ALL = {"epsilon": Epsilon(ALPHAS), "v": VPrediction(ALPHAS), "flow": Flow(1000, 3.0)}


def drawn(kind: Parameterization, count: int = 32) -> tuple[Tensor, Tensor, Tensor]:
    source = generator(0)
    x0, noise = (
        torch.randn(count, 4, 3, 3, generator=source, dtype=torch.float64) for _ in range(2)
    )
    return x0, noise, kind.draw_timesteps(count, source)


def levels(name: str, t: Tensor) -> tuple[Tensor, Tensor]:
    """The factors (B, 1, 1, 1) of x0 and of the noise in x_t, by definition."""
    if name == "flow":
        signal, sigma = 1 - t.double() / 1000, t.double() / 1000
    else:
        signal, sigma = ALPHAS[t].sqrt(), (1 - ALPHAS[t]).sqrt()
    return signal.view(-1, 1, 1, 1), sigma.view(-1, 1, 1, 1)


IMPLIED = {
    "epsilon": lambda x_t, target, signal, sigma: ((x_t - sigma * target) / signal, target),
    "v": lambda x_t, target, signal, sigma: (
        signal * x_t - sigma * target,
        sigma * x_t + signal * target,
    ),
    "flow": lambda x_t, target, signal, sigma: (x_t - sigma * target, x_t + signal * target),
}
"""The x0 and the noise that x_t and a prediction imply, as the papers have it."""


@pytest.mark.parametrize("name", ALL)
def test_x_t_and_target_imply_x0_and_noise(name: str) -> None:
    x0, noise, t = drawn(ALL[name])
    x_t, target = ALL[name].add_noise(x0, noise, t), ALL[name].target(x0, noise, t)
    implied_x0, implied_noise = IMPLIED[name](x_t, target, *levels(name, t))
    torch.testing.assert_close(implied_x0, x0, rtol=0, atol=1e-8)
    torch.testing.assert_close(implied_noise, noise, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", ALL)
def test_every_row_has_weight_one(name: str) -> None:
    weights = ALL[name].loss_weight(ALL[name].draw_timesteps(5, generator(0)))
    assert torch.equal(weights, torch.ones(5))


@pytest.mark.parametrize(
    "scheduler",
    [
        DDPMScheduler(),
        DDPMScheduler(prediction_type="v_prediction", beta_schedule="squaredcos_cap_v2"),
        DDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True),
    ],
)
def test_noise_and_target_are_those_of_diffusers(scheduler) -> None:
    kind = parameterization_of(scheduler)
    x0, noise, t = (tensor.float() if tensor.ndim > 1 else tensor for tensor in drawn(kind))
    torch.testing.assert_close(kind.add_noise(x0, noise, t), scheduler.add_noise(x0, noise, t))
    velocity = scheduler.get_velocity(x0, noise, t)
    expected = velocity if isinstance(kind, VPrediction) else noise
    torch.testing.assert_close(kind.target(x0, noise, t), expected)


def test_ddpm_timesteps_are_the_draws_of_randint() -> None:
    expected = torch.randint(1000, (64,), generator=generator(7))
    assert torch.equal(ALL["v"].draw_timesteps(64, generator(7)), expected)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_flow_is_that_of_diffusers(shift: float) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    flow = parameterization_of(scheduler)
    assert flow == Flow(1000, shift)
    x0, noise, _ = (tensor.float() for tensor in drawn(flow))
    t = flow.draw_timesteps(32, generator(1))
    known = scheduler.timesteps
    assert (t[:, None] - known).abs().min(1).values.max() < 1e-3, "these are the scheduler's own"
    rows = (t[:, None] - known).abs().argmin(1)
    x_t = scheduler.scale_noise(x0, known[rows], noise)
    torch.testing.assert_close(flow.add_noise(x0, noise, t), x_t, rtol=1e-4, atol=1e-5)
    sigma = scheduler.sigmas[rows].view(-1, 1, 1, 1)
    torch.testing.assert_close(x_t - sigma * flow.target(x0, noise, t), x0, rtol=1e-4, atol=1e-5)


def test_an_euler_step_of_diffusers_goes_where_the_flow_points() -> None:
    """One step from pure noise to none along the target is x0."""
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(1)
    flow = parameterization_of(scheduler)
    x0, noise, _ = (tensor.float() for tensor in drawn(flow))
    velocity = flow.target(x0, noise, scheduler.timesteps[:1])
    reached = scheduler.step(velocity, scheduler.timesteps[0], noise).prev_sample
    torch.testing.assert_close(reached, x0, rtol=1e-4, atol=1e-5)


def test_sd3_trains_at_the_timesteps_and_on_the_loss_of_its_trainer() -> None:
    """Written as diffusers' trainer of LoRA for SD 3 has it, with diffusers' own functions."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    flow = replace(parameterization_of(scheduler), density="logit_normal", loss="x0")
    t = flow.draw_timesteps(64, generator(5))
    u = compute_density_for_timestep_sampling(
        "logit_normal", 64, logit_mean=0.0, logit_std=1.0, generator=generator(5)
    )
    indices = (u * scheduler.config.num_train_timesteps).long()
    torch.testing.assert_close(t, scheduler.timesteps[indices], rtol=1e-5, atol=1e-3)
    uniform = parameterization_of(scheduler).draw_timesteps(64, generator(5))
    assert not torch.allclose(t, uniform, atol=1)

    x0, noise = (torch.randn(64, 4, 3, 3, generator=generator(seed)) for seed in (1, 2))
    velocity = torch.randn(64, 4, 3, 3, generator=generator(3))
    sigmas = scheduler.sigmas[indices].view(-1, 1, 1, 1)
    preconditioned = velocity * -sigmas + flow.add_noise(x0, noise, t)
    weighting = compute_loss_weighting_for_sd3("logit_normal", sigmas)
    theirs = (weighting * (preconditioned - x0) ** 2).flatten(1).mean(1)
    ours = flow.loss_weight(t) * ((velocity - flow.target(x0, noise, t)) ** 2).flatten(1).mean(1)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
    assert not torch.allclose(ours / flow.loss_weight(t), theirs, rtol=0.1)


def test_flux_trains_at_the_timesteps_of_its_trainer() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    t = parameterization_of(scheduler).draw_timesteps(64, generator(5))
    u = compute_density_for_timestep_sampling("none", 64, generator=generator(5))
    theirs = scheduler.timesteps[(u * scheduler.config.num_train_timesteps).long()]
    torch.testing.assert_close(t, theirs, rtol=1e-5, atol=1e-3)


def test_a_scheduler_with_other_noise_levels_is_refused() -> None:
    with pytest.raises(ModelError, match="EDMEulerScheduler, whose noise levels are not those of"):
        parameterization_of(EDMEulerScheduler())


def test_shifting_that_depends_on_the_picture_is_left_out() -> None:
    dynamic = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    assert parameterization_of(dynamic) == Flow(1000, 1.0)


def test_an_unknown_prediction_type_is_refused() -> None:
    scheduler = DDIMScheduler(prediction_type="sample")
    with pytest.raises(ModelError, match="'sample'; epsilon, v_prediction or flow_prediction is"):
        parameterization_of(scheduler)
