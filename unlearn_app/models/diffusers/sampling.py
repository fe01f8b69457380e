"""Sampling with a pipeline, plain or as an adversary changes it: with other noise, from given
pictures, or with the original model's first steps.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from ...common.errors import Cancelled, ShouldStop
from ...common.seeds import KEPT_NOISE, generator
from ..conditioning import Conditioning
from ..protocols import SamplingOverrides


def run_pipeline(
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
    """Latents (B, C, H, W) of `cond`, B rows, and `null`, one row, by `pipe`.

    `original` holds the adapters off and is closed after `overrides.original_steps`.

    Raises:
        Cancelled: `should_stop` turned true between two denoising steps.
    """
    draws = [generator(seed) for seed in seeds]
    blend = _blending(pipe, overrides, seeds)

    def after(pipe: Any, step: int, t: Tensor, state: dict[str, Tensor]) -> dict[str, Tensor]:
        if should_stop():
            raise Cancelled("The run was stopped.")
        if step + 1 == overrides.original_steps:
            original.close()
        return {"latents": blend(state["latents"], t)} if blend else state

    begin = {}
    if overrides.pictures is not None:
        begin = {"image": (overrides.pictures + 1) / 2, "strength": overrides.strength}
    elif overrides.noise_scale != 1:
        # What the pipeline itself would draw from the generators, which have moved on afterwards.
        unet = pipe.unet.config
        sides = [unet.sample_size] * 2 if isinstance(unet.sample_size, int) else unet.sample_size
        shape = (len(draws), unet.in_channels, *sides)
        noise = randn_tensor(shape, generator=draws).to(cond.states)
        begin = {"latents": noise * overrides.noise_scale}
    return pipe(
        prompt_embeds=cond.states,
        negative_prompt_embeds=null.states.expand_as(cond.states),
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        generator=draws,
        eta=overrides.eta,
        output_type="latent",
        callback_on_step_end=after,
        **begin,
    ).images


def _blending(
    pipe: Any, overrides: SamplingOverrides, seeds: Sequence[int]
) -> Callable[[Tensor, Tensor], Tensor] | None:
    """A function that after each step puts the kept part of the given pictures back, as noisy as
    the rest of the latents is then; None without a mask.

    RePaint's blending (2201.09865) without its resampling.
    """
    if overrides.mask is None:
        return None
    pictures = overrides.pictures.to(pipe.device, pipe.vae.dtype)
    with torch.no_grad():
        known = pipe.vae.encode(pictures).latent_dist.mode() * pipe.vae.config.scaling_factor
    draws = [generator(KEPT_NOISE + seed) for seed in seeds]
    noise = randn_tensor(known.shape, generator=draws).to(known)
    mask = overrides.mask.to(known)

    def blend(latents: Tensor, t: Tensor) -> Tensor:
        kept = known
        later = pipe.scheduler.timesteps[pipe.scheduler.timesteps < t]
        if len(later):
            kept = pipe.scheduler.add_noise(known, noise, later[:1].expand(len(known)))
        return mask * latents + (1 - mask) * kept.to(latents)

    return blend
