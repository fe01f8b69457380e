"""Sampling with a pipeline, plain or as an adversary changes it: with other noise, from given
pictures, or with the original model's first steps.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteSchedulerOutput,
)
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from ...common.errors import Cancelled, ShouldStop
from ...common.seeds import KEPT_NOISE, generator
from ..conditioning import Conditioning
from ..protocols import SamplingOverrides


class StochasticFlow(FlowMatchEulerDiscreteScheduler):
    """Euler steps along a flow that draw a share of the noise anew.

    A step from s to s' goes to (1 - s') x0 + s' (sqrt(1 - eta^2) noise + eta fresh), with the x0
    and the noise that the velocity implies: at eta 0 an Euler step, at eta 1 what diffusers calls
    stochastic sampling. `draws` are the generators of the fresh noise, one per picture.
    """

    eta: float = 0.0
    draws: Sequence[torch.Generator] = ()

    def step(
        self,
        model_output: Tensor,
        timestep: Tensor,
        sample: Tensor,
        return_dict: bool = True,
        **how: Any,
    ) -> FlowMatchEulerDiscreteSchedulerOutput | tuple[Tensor]:
        """One step, as in the class it extends."""
        before = sample.float()
        moved = super().step(model_output, timestep, sample, return_dict=return_dict, **how)
        if not self.eta:
            return moved
        share, later = self.sigmas[self.step_index - 1], self.sigmas[self.step_index]
        velocity = model_output.float()
        x0, noise = before - share * velocity, before + (1 - share) * velocity
        fresh = randn_tensor(
            noise.shape, generator=list(self.draws), device=noise.device, dtype=noise.dtype
        )
        noise = (1 - self.eta**2) ** 0.5 * noise + self.eta * fresh
        there = ((1 - later) * x0 + later * noise).to(model_output.dtype)
        return FlowMatchEulerDiscreteSchedulerOutput(there) if return_dict else (there,)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """`original_samples` (B, ...) noised to `timesteps` (B,)."""
        share = (timesteps / self.config.num_train_timesteps).to(noise)
        share = share.view(-1, *[1] * (noise.ndim - 1))
        return (1 - share) * original_samples + share * noise


def run_pipeline(
    model: Any,
    pipe: Any,
    cond: Conditioning,
    null: Conditioning,
    seeds: Sequence[int],
    *,
    overrides: SamplingOverrides,
    steps: int,
    guidance_scale: float,
    should_stop: ShouldStop,
    original: ExitStack,
) -> Tensor:
    """Latents (B, C, H, W) of `cond`, B rows, and `null`, one row, by `pipe`, a pipeline of
    `model`'s family.

    `original` holds the adapters off and is closed after `overrides.original_steps`.

    Raises:
        Cancelled: `should_stop` turned true between two denoising steps.
    """
    draws = [generator(seed) for seed in seeds]
    if isinstance(pipe.scheduler, StochasticFlow):
        pipe.scheduler.draws, pipe.scheduler.eta = draws, overrides.eta
    blend = _blending(model, pipe, overrides, seeds)

    def after(pipe: Any, step: int, t: Tensor, state: dict[str, Tensor]) -> dict[str, Tensor]:
        if should_stop():
            raise Cancelled("The run was stopped.")
        if step + 1 == overrides.original_steps:
            original.close()
        return {"latents": blend(state["latents"], t)} if blend else state

    latents = pipe(
        **model.arguments(cond, null, overrides),
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        generator=draws,
        output_type="latent",
        callback_on_step_end=after,
        **_beginning(model, cond, draws, overrides),
    ).images
    return model.unpacked(latents)


def _beginning(
    model: Any, cond: Conditioning, draws: Sequence[torch.Generator], overrides: SamplingOverrides
) -> dict[str, Any]:
    """What the pipeline is told of the pictures or the noise that it begins with."""
    if overrides.pictures is not None:
        return {"image": (overrides.pictures + 1) / 2, "strength": overrides.strength}
    if overrides.noise_scale == 1:
        return {}
    # What the pipeline itself would draw from the generators, which have moved on afterwards.
    shape = (len(draws), *model.latent_shape)
    noise = randn_tensor(shape, generator=list(draws)).to(cond.states)
    return {"latents": model.packed(noise * overrides.noise_scale)}


def _blending(
    model: Any, pipe: Any, overrides: SamplingOverrides, seeds: Sequence[int]
) -> Callable[[Tensor, Tensor], Tensor] | None:
    """A function that after each step puts the kept part of the given pictures back, as noisy as
    the rest of the latents is then; None without a mask.

    RePaint's blending (2201.09865) without its resampling.
    """
    if overrides.mask is None:
        return None
    known = model.encode_pictures(overrides.pictures)
    draws = [generator(KEPT_NOISE + seed) for seed in seeds]
    noise = randn_tensor(known.shape, generator=draws).to(known)
    mask = overrides.mask.to(known)

    def blend(latents: Tensor, t: Tensor) -> Tensor:
        kept = known
        later = pipe.scheduler.timesteps[pipe.scheduler.timesteps < t]
        if len(later):
            kept = pipe.scheduler.add_noise(known, noise, later[:1].expand(len(known)))
        blended = mask * model.unpacked(latents) + (1 - mask) * kept.to(latents)
        return model.packed(blended).to(latents)

    return blend
